//! Copies between the plugin's memory and the host's: four words a turn of the loop, which is twice
//! as fast as one, then words, then bytes. Each function takes and returns what fits into registers:
//! plugins stay small.

const env = @import("env.zig");

/// Where nothing is stored and bytes are only counted. Places in the host's memory are not negative.
pub const counting: i64 = -1 << 48;

/// Return the handle of a new block; 0 for no bytes, or if the host has no room for them.
pub fn toHost(bytes: []const u8) u64 {
    const handle = env.alloc(bytes.len);
    if (handle != 0) _ = store(@bitCast(handle), bytes);
    return handle;
}

/// Store bytes in the host's memory, and return where they end.
pub noinline fn store(at: i64, bytes: []const u8) i64 {
    const end = at + bytes.len;
    if (at >= 0) copy(@bitCast(at), @bitCast(end), @intFromPtr(bytes.ptr), struct {
        inline fn word(place: u64, from: *align(1) u64) void {
            env.store_u64(place, from.*);
        }
        inline fn byte(place: u64, from: *u8) void {
            env.store_u8(place, from.*);
        }
    });
    return end;
}

/// Copy so many bytes of a block.
pub fn load(to: [*]u8, len: usize, handle: u64) void {
    copy(handle, handle + len, @intFromPtr(to), struct {
        inline fn word(place: u64, value: *align(1) u64) void {
            value.* = env.load_u64(place);
        }
        inline fn byte(place: u64, value: *u8) void {
            value.* = @truncate(env.load_u8(place));
        }
    });
}

/// Copy so many bytes of a block, if there is memory for them, and free the block.
pub fn take(to: ?[*]u8, len: usize, handle: u64) void {
    if (to) |start| load(start, len, handle);
    if (handle != 0) env.free(handle);
}

/// Copy so many bytes of the input. Inlined into exports, the loop was slower.
pub noinline fn loadInput(to: [*]u8, len: usize) void {
    copy(0, len, @intFromPtr(to), struct {
        inline fn word(place: u64, value: *align(1) u64) void {
            value.* = env.input_load_u64(place);
        }
        inline fn byte(place: u64, value: *u8) void {
            value.* = @truncate(env.input_load_u8(place));
        }
    });
}

inline fn copy(start: u64, end: u64, memory: usize, piece: type) void {
    var at = start;
    var here = memory;
    while (end - at >= 32) {
        inline for (.{ 0, 8, 16, 24 }) |offset| piece.word(at + offset, @ptrFromInt(here + offset));
        at = hidden(at + 32);
        here = hidden(here + 32);
    }
    while (end - at >= 8) {
        piece.word(at, @ptrFromInt(here));
        at = hidden(at + 8);
        here = hidden(here + 8);
    }
    while (at < end) {
        piece.byte(at, @ptrFromInt(here));
        at = hidden(at + 1);
        here = hidden(here + 1);
    }
}

/// Return the value in a way that the compiler cannot see through. It would count each turn of a
/// loop in up to three variables, where one is enough.
pub inline fn hidden(value: anytype) @TypeOf(value) {
    return asm (""
        : [same] "=r" (-> @TypeOf(value)),
        : [value] "0" (value),
    );
}
