//! JSON of values. Types of integers, text, lists and structs are written by the functions here,
//! which take a fraction of the room of `std.json`; all other types by `std.json`, in the same form.
//!
//! A first pass checks the text and counts the bytes, so that the second only writes.

const std = @import("std");
const Allocator = std.mem.Allocator;

pub const Error = error{ OutOfMemory, InvalidUtf8 };

/// Return the JSON of a value. Text must be UTF-8.
pub fn encode(allocator: Allocator, value: anytype) Error![]u8 {
    if (comptime !isPlain(@TypeOf(value))) return std.json.Stringify.valueAlloc(allocator, value, .{});
    var writer: Writer = .{ .to = null, .len = 0 };
    while (true) {
        put(&writer, value);
        if (!writer.is_utf8) return error.InvalidUtf8;
        if (writer.to) |bytes| return bytes[0..writer.len];
        writer = .{ .to = take(&allocator, writer.len) orelse return error.OutOfMemory, .len = 0 };
    }
}

/// As `allocator.alloc(u8, len)`, in a form that takes less room.
pub fn take(allocator: *const Allocator, len: usize) ?[*]u8 {
    return if (len == 0) &.{} else allocator.rawAlloc(len, .@"1", @returnAddress());
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

fn put(writer: *Writer, value: anytype) void {
    switch (@typeInfo(@TypeOf(value))) {
        .int => {
            if (value < 0) writer.bytes("-");
            writer.integer(@abs(value));
        },
        .bool => writer.bytes(if (value) "true" else "false"),
        .optional => if (value) |known| put(writer, known) else writer.bytes("null"),
        .pointer => |pointer| {
            if (pointer.child == u8) return writer.text(value);
            writer.bytes("[");
            for (value, 0..) |item, index| {
                if (index != 0) writer.bytes(",");
                put(writer, item);
            }
            writer.bytes("]");
        },
        .@"struct" => |info| {
            inline for (info.field_names, 0..) |name, index| {
                writer.bytes(comptime (if (index == 0) "{" else ",") ++ quoted(name) ++ ":");
                put(writer, @field(value, name));
            }
            writer.bytes(if (info.field_names.len == 0) "{}" else "}");
        },
        else => comptime unreachable,
    }
}

fn quoted(comptime name: []const u8) []const u8 {
    comptime {
        for (name) |byte| if (byte < 0x20 or byte == '"' or byte == '\\')
            @compileError("the name of a field is not plain text: " ++ name);
        return "\"" ++ name ++ "\"";
    }
}

/// What is written to; null where bytes are only counted. Its functions are not inlined: repeated,
/// they would make plugins larger.
const Writer = struct {
    to: ?[*]u8,
    len: usize,
    is_utf8: bool = true,

    noinline fn bytes(writer: *Writer, part: []const u8) void {
        if (writer.to) |to| @memcpy(to + writer.len, part);
        writer.len += part.len;
    }

    noinline fn byte(writer: *Writer, one: u8) void {
        if (writer.to) |to| to[writer.len] = one;
        writer.len += 1;
    }

    noinline fn integer(writer: *Writer, value: u64) void {
        if (value > 9) writer.integer(value / 10);
        writer.byte('0' + @as(u8, @intCast(value % 10)));
    }

    noinline fn text(writer: *Writer, value: []const u8) void {
        writer.byte('"');
        var start: usize = 0;
        var before: u32 = 0;
        var following: u32 = 0; // bytes that belong to the same character
        for (value, 0..) |code, index| {
            const now: u32 = code;
            if (following != 0) {
                following -= 1;
                const least: u32 = if (before == 0xe0) 0xa0 else if (before == 0xf0) 0x90 else 0x80;
                const end: u32 = if (before == 0xed) 0xa0 else if (before == 0xf4) 0x90 else 0xc0;
                if (now < least or now >= end) break;
            } else if (now >= 0x80) {
                if (now < 0xc2 or now > 0xf4) break;
                following = 1 + @as(u32, @intFromBool(now >= 0xe0)) + @intFromBool(now >= 0xf0);
            } else if (now < 0x20 or now == '"' or now == '\\') {
                writer.bytes(value[start..index]);
                writer.byte('\\');
                start = index;
                if (now < 0x20) {
                    start += 1;
                    writer.bytes("u00");
                    writer.byte('0' + (code >> 4));
                    writer.byte("0123456789abcdef"[code & 15]);
                }
            }
            before = now;
        } else if (following == 0) {
            writer.bytes(value[start..]);
            writer.byte('"');
            return;
        }
        writer.is_utf8 = false;
    }
};
