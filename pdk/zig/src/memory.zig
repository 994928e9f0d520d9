//! The memory of a call: freed all at once when the call ends, and kept for the next one.
//!
//! It lies in regions that `memory.grow` gave. Other allocators may grow the memory as well, so the
//! regions are a list, each with its head at its start.

const std = @import("std");
const copies = @import("copies.zig");
const Alignment = std.mem.Alignment;

/// The end of a region is the start of a page, 0 for the end of a memory of 4 GiB.
const Region = struct { next: ?*Region, end: usize };

const page = 65536;

/// The list starts with an empty region.
var first: Region = .{ .next = null, .end = 0 };
var current: *Region = undefined; // see `reset`
var top: usize = undefined;

/// The memory that a plugin's function gets. The last block can be resized in place.
pub const allocator: std.mem.Allocator = .{
    .ptr = undefined,
    .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free },
};

/// Free everything.
pub fn reset() void {
    current = &first;
    top = 0;
}

/// As `from.alloc(u8, len)`, in a form that takes less room.
pub inline fn take(from: std.mem.Allocator, len: usize) ?[*]u8 {
    return from.rawAlloc(len + @intFromBool(len == 0), .@"1", @returnAddress());
}

/// Return memory, or null if there is none left.
noinline fn reserve(len: usize, alignment: usize) ?[*]u8 {
    if (alignment > page) return null;
    while (true) {
        const start = (top +% (alignment - 1)) & -%alignment;
        if (len <= current.end -% start) {
            top = start +% len;
            return @ptrFromInt(start);
        }
        const next = current.next orelse added: {
            // Enlarge the last region, or add one, so that so many bytes have room.
            const room = @as(u64, len) + alignment + @sizeOf(Region);
            const pages: usize = @intCast(room / page + 1);
            const before = @wasmMemoryGrow(0, pages);
            if (before < 0) return null;
            const begin = @as(usize, @intCast(before)) * page;
            const end = begin +% pages * page;
            if (current.end == begin) {
                current.end = end;
                continue;
            }
            const region: *Region = @ptrFromInt(begin);
            region.end = end;
            current.next = region;
            break :added region;
        };
        current = next;
        top = @intFromPtr(next) + @sizeOf(Region);
    }
}

fn alloc(_: *anyopaque, len: usize, alignment: Alignment, _: usize) ?[*]u8 {
    return reserve(len, alignment.toByteUnits());
}

fn resize(_: *anyopaque, memory: []u8, _: Alignment, new_len: usize, _: usize) bool {
    const start = @intFromPtr(memory.ptr);
    if (start +% memory.len != top) return new_len <= memory.len;
    if (new_len > current.end -% start) return false;
    top = start +% new_len;
    return true;
}

fn remap(context: *anyopaque, memory: []u8, alignment: Alignment, new_len: usize, ra: usize) ?[*]u8 {
    const arguments = .{ context, memory, alignment, new_len, ra };
    return if (@call(.never_inline, resize, arguments)) memory.ptr else null;
}

fn free(_: *anyopaque, memory: []u8, _: Alignment, _: usize) void {
    if (@intFromPtr(memory.ptr) +% memory.len == top) top = @intFromPtr(memory.ptr);
}
