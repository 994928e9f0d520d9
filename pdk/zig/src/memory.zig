//! The memory of a call: freed all at once when the call ends, and kept for the next one.
//!
//! It lies in regions that `memory.grow` gave. Other allocators may grow the memory as well, so the
//! regions are a list, each with its head at its start.

const std = @import("std");
const Alignment = std.mem.Alignment;

const Region = struct { next: ?*Region, end: u64 };

const page = 65536;

/// The list starts with an empty region.
var first: Region = .{ .next = null, .end = 0 };
var current: *Region = undefined; // see `reset`
var top: usize = 0;

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

/// Return memory, or null if there is none left.
noinline fn take(len: usize, alignment: usize) ?[*]u8 {
    while (true) {
        const start = std.mem.alignForward(u64, top, alignment);
        if (start + len <= current.end) {
            top = @intCast(start + len);
            return @ptrFromInt(@as(usize, @intCast(start)));
        }
        if (current.next) |next| {
            current = next;
            top = @intFromPtr(next) + @sizeOf(Region);
            continue;
        }
        // Enlarge the last region, or add one, so that so many bytes have room.
        const room = @as(u64, len) + alignment + @sizeOf(Region);
        const pages: usize = @intCast(room / page + 1);
        const before = @wasmMemoryGrow(0, pages);
        if (before < 0) return null;
        const begin = @as(usize, @intCast(before)) * page;
        if (current.end != begin) {
            const region: *Region = @ptrFromInt(begin);
            region.next = null;
            current.next = region;
            current = region;
            top = begin + @sizeOf(Region);
        }
        current.end = begin + @as(u64, pages) * page;
    }
}

fn alloc(_: *anyopaque, len: usize, alignment: Alignment, _: usize) ?[*]u8 {
    return take(len, alignment.toByteUnits());
}

fn resize(_: *anyopaque, memory: []u8, _: Alignment, new_len: usize, _: usize) bool {
    const start = @intFromPtr(memory.ptr);
    if (start + memory.len != top) return new_len <= memory.len;
    if (new_len > current.end - start) return false;
    top = start + new_len;
    return true;
}

fn remap(context: *anyopaque, memory: []u8, alignment: Alignment, new_len: usize, ra: usize) ?[*]u8 {
    const arguments = .{ context, memory, alignment, new_len, ra };
    return if (@call(.never_inline, resize, arguments)) memory.ptr else null;
}

fn free(_: *anyopaque, memory: []u8, _: Alignment, _: usize) void {
    if (@intFromPtr(memory.ptr) + memory.len == top) top = @intFromPtr(memory.ptr);
}
