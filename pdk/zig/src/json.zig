//! JSON of values, written into the host's memory. Types of integers, text, lists and structs are
//! written by the functions here, which take a fraction of the room of `std.json`; all other types
//! by `std.json`, in the same form.
//!
//! Each value is written twice: first to check the text and to count the bytes, then into a block.
//! The functions take the place where to write, and return where to go on. Where they only count, a
//! place is `copies.counting` and the number of bytes before it.

const std = @import("std");
const copies = @import("copies.zig");
const env = @import("env.zig");

/// A bit of places where bytes are counted. It is cleared when text is not UTF-8, so that the place is
/// before `copies.counting`.
const is_utf8: i64 = 1 << 54;

/// A block, by its handle and the number of bytes in it.
pub const Encoded = struct { handle: u64, len: u64 };

/// Return the JSON of a value in a new block. Text must be UTF-8.
pub fn encode(allocator: std.mem.Allocator, value: anytype) error{ OutOfMemory, InvalidUtf8 }!Encoded {
    if (comptime !isPlain(@TypeOf(value))) {
        const bytes = try std.json.Stringify.valueAlloc(allocator, value, .{});
        const handle = copies.toHost(bytes);
        return if (handle == 0) error.OutOfMemory else .{ .handle = handle, .len = bytes.len };
    }
    var start = copies.counting;
    while (true) {
        const end = put(start, value);
        if (end < start) return error.InvalidUtf8;
        const len: u64 = @bitCast(end -% start);
        if (start >= 0) return .{ .handle = @bitCast(start), .len = len };
        start = @bitCast(env.alloc(len));
        if (start <= 0) return error.OutOfMemory;
    }
}

fn isPlain(comptime Type: type) bool {
    return switch (@typeInfo(Type)) {
        .int => |int| int.bits <= 64,
        .bool => true,
        .optional => |optional| isPlain(optional.child),
        .pointer => |pointer| pointer.size == .slice and isPlain(pointer.child),
        .@"struct" => |info| plain: {
            if (info.is_tuple or std.meta.hasFn(Type, "jsonStringify")) break :plain false;
            for (info.field_types) |Field| if (!isPlain(Field)) break :plain false;
            break :plain true;
        },
        else => false,
    };
}

fn put(start: i64, value: anytype) i64 {
    var at = start;
    switch (@typeInfo(@TypeOf(value))) {
        .int => {
            if (value < 0) at = copies.store(at, "-");
            return integer(at, @abs(value));
        },
        .bool => return copies.store(at, if (value) "true" else "false"),
        .optional => return if (value) |known| put(at, known) else copies.store(at, "null"),
        .pointer => |pointer| {
            if (pointer.child == u8) return text(at, value);
            at = byte(at, '[');
            for (value, 0..) |item, index| {
                if (index != 0) at = byte(at, ',');
                at = put(at, item);
            }
            return byte(at, ']');
        },
        .@"struct" => |info| {
            inline for (info.field_names, 0..) |name, index| {
                at = copies.store(at, comptime (if (index == 0) "{" else ",") ++ quoted(name) ++ ":");
                at = put(at, @field(value, name));
            }
            return if (info.field_names.len == 0) copies.store(at, "{}") else byte(at, '}');
        },
        else => comptime unreachable,
    }
}

fn quoted(comptime name: []const u8) []const u8 {
    comptime {
        for (name) |code| if (code < 0x20 or code == '"' or code == '\\')
            @compileError("the name of a field is not plain text: " ++ name);
        return "\"" ++ name ++ "\"";
    }
}

fn byte(at: i64, one: u32) i64 {
    if (at >= 0) env.store_u8(@bitCast(at), one);
    return at +% 1;
}

fn integer(at: i64, value: u64) i64 {
    const front = if (value > 9) integer(at, value / 10) else at;
    return byte(front, '0' + @as(u32, @intCast(value % 10)));
}

fn text(start: i64, value: []const u8) i64 {
    var at = byte(start, '"');
    var here = value.ptr;
    var written = here;
    const end = here + value.len;
    var before: u32 = 0;
    var more: i32 = 0; // negative within a character: a bit at the top for each byte that it lacks
    while (true) : (here = copies.hidden(here + 1)) {
        const now = copies.hidden(@as(u32, if (here == end) '"' else here[0]));
        if (more < 0) {
            more <<= 1;
            if (now >> 6 != 2) break;
            // Too long, a surrogate or too large: the first two bytes tell.
            const pair = copies.hidden(before << 8 | now);
            if (pair >> 5 == 0x704 or pair >> 5 == 0x76d or pair >> 4 == 0xf08 or pair > 0xf48f) break;
        } else if (now >= 0x80) {
            more = @bitCast(now << 25);
            if (now -% 0xc2 > 0xf4 - 0xc2) break;
        } else if (now < 0x20 or now == '"' or now == '\\') {
            at = copies.store(at, written[0 .. here - written]);
            if (here == end) return byte(at, '"');
            at = byte(at, '\\');
            written = here;
            if (now < 0x20) {
                written += 1;
                at = copies.store(at, if (now < 0x10) "u000" else "u001");
                const digit = now & 15;
                at = byte(at, digit + @as(u32, if (digit > 9) 'a' - 10 else '0'));
            }
        }
        before = now;
    }
    return at & ~is_utf8;
}
