//! The memory of a call beside another allocator that grows the same memory.

const std = @import("std");
const plugwasm = @import("plugwasm");
const Allocator = std.mem.Allocator;

const Piece = struct { bytes: []u8, fill: u8 };

/// Allocate, resize and free with both allocators in turns, and check that nothing overlaps.
fn interleave(allocator: Allocator, seed: u32) !usize {
    var random = std.Random.DefaultPrng.init(seed);
    const other = std.heap.wasm_allocator;
    var pieces: [200]Piece = undefined;
    for (&pieces, 0..) |*piece, index| {
        const from = if (index % 3 == 0) other else allocator;
        const size = random.random().uintLessThan(usize, 60000) + 1;
        piece.* = .{ .bytes = try from.alloc(u8, size), .fill = @truncate(index) };
        @memset(piece.bytes, piece.fill);
        if (index % 3 == 1) {
            piece.bytes = try from.realloc(piece.bytes, size * 2);
            @memset(piece.bytes, piece.fill);
        }
        if (index % 7 == 2) {
            from.free(piece.bytes);
            piece.bytes = &.{};
        }
    }
    for (pieces, 0..) |piece, index| {
        for (piece.bytes) |byte| if (byte != piece.fill) return error.Overlap;
        if (index % 3 == 0 and piece.bytes.len > 0) other.free(piece.bytes);
    }
    return @wasmMemorySize(0);
}

const Aligned = extern struct { bytes: [64]u8 align(64) };

fn aligned(allocator: Allocator) !bool {
    _ = try allocator.alloc(u8, 3);
    const one = try allocator.create(Aligned);
    return @intFromPtr(one) % 64 == 0;
}

fn tooMuch(allocator: Allocator) !void {
    _ = try allocator.alloc(u8, std.math.maxInt(usize) - 100);
}

const Value = struct {
    text: []const u8,
    list: []const []const i64,
    maybe: ?bool,
    empty: struct {},
};

fn mirror(value: Value) Value {
    return value;
}

fn invalid() Value {
    return .{ .text = "\xff", .list = &.{}, .maybe = null, .empty = .{} };
}

fn quoted(bytes: []const u8) struct { text: []const u8 } {
    return .{ .text = bytes };
}

comptime {
    plugwasm.exportFunctions(.{
        .interleave = interleave,
        .aligned = aligned,
        .too_much = tooMuch,
        .mirror = mirror,
        .invalid = invalid,
        .quoted = quoted,
    });
}
