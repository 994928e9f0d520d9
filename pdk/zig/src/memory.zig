//! The memory of a call: freed all at once when the call ends, and kept for the next one.
//!
//! It lies in regions that `memory.grow` gave. Other allocators may grow the memory as well, so the
//! regions are a list, each with its head at its start.

const std = @import("std");
const Alignment = std.mem.Alignment;

const Region = struct { next: ?*Region, end: usize };

const page = 65536;

var first: ?*Region = null;
var current: *Region = undefined;
var top: usize = 0;

/// The memory that a plugin's function gets. The last block can be resized in place.
pub const allocator: std.mem.Allocator = .{
    .ptr = undefined,
    .vtable = &.{ .alloc = alloc, .resize = resize, .remap = remap, .free = free },
};

/// Free everything.
pub fn reset() void {
    if (first) |region| enter(region);
}

fn enter(region: *Region) void {
    current = region;
    top = @intFromPtr(region) + @sizeOf(Region);
}

fn alloc(_: *anyopaque, len: usize, alignment: Alignment, _: usize) ?[*]u8 {
    if (first == null and !grow(len, alignment)) return null;
    while (true) {
        const start = alignment.forward(top);
        if (len <= current.end -| start) {
            top = start + len;
            return @ptrFromInt(start);
        }
        if (current.next) |next| enter(next) else if (!grow(len, alignment)) return null;
    }
}

/// Enlarge the last region, or add one, so that so many bytes have room.
fn grow(len: usize, alignment: Alignment) bool {
    const room = len +| alignment.toByteUnits() +| @sizeOf(Region);
    const pages = room / page + 1;
    const before = @wasmMemoryGrow(0, pages);
    if (before < 0) return false;
    const start = @as(usize, @intCast(before)) * page;
    const end = start +| pages * page;
    if (first != null and current.end == start) {
        current.end = end;
        return true;
    }
    const region: *Region = @ptrFromInt(start);
    region.* = .{ .next = null, .end = end };
    if (first == null) first = region else current.next = region;
    enter(region);
    return true;
}

fn resize(_: *anyopaque, memory: []u8, _: Alignment, new_len: usize, _: usize) bool {
    const start = @intFromPtr(memory.ptr);
    if (start + memory.len != top) return new_len <= memory.len;
    if (new_len > current.end - start) return false;
    top = start + new_len;
    return true;
}

fn remap(context: *anyopaque, memory: []u8, alignment: Alignment, new_len: usize, ra: usize) ?[*]u8 {
    return if (resize(context, memory, alignment, new_len, ra)) memory.ptr else null;
}

fn free(_: *anyopaque, memory: []u8, _: Alignment, _: usize) void {
    if (@intFromPtr(memory.ptr) + memory.len == top) top = @intFromPtr(memory.ptr);
}
