//! JSON of values. Types of integers, text, lists and structs are written by the functions here,
//! which take a fraction of the room of `std.json`; all other types by `std.json`, in the same form.
//!
//! A first pass checks the text and finds out how much room is needed, so that the second only writes.

const std = @import("std");
const Allocator = std.mem.Allocator;

pub const Error = error{ OutOfMemory, InvalidUtf8 };

/// Return the JSON of a value. Text must be UTF-8.
pub fn encode(allocator: Allocator, value: anytype) Error![]u8 {
    if (comptime !isPlain(@TypeOf(value))) return std.json.Stringify.valueAlloc(allocator, value, .{});
    const bytes = try allocator.alloc(u8, try room(value));
    const end = put(bytes.ptr, value);
    return bytes[0 .. @intFromPtr(end) - @intFromPtr(bytes.ptr)];
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

/// Return how many bytes suffice. At most integers, `true` and brackets take fewer.
fn room(value: anytype) Error!usize {
    switch (@typeInfo(@TypeOf(value))) {
        .int => return 20,
        .bool => return 5,
        .optional => return if (value) |known| room(known) else 4,
        .pointer => |pointer| {
            if (pointer.child == u8) return textRoom(value);
            var sum: usize = 2;
            for (value) |item| sum += 1 + try room(item);
            return sum;
        },
        .@"struct" => |info| {
            var sum: usize = 2;
            inline for (info.field_names) |name| sum += name.len + 4 + try room(@field(value, name));
            return sum;
        },
        else => comptime unreachable,
    }
}

fn textRoom(text: []const u8) error{InvalidUtf8}!usize {
    if (!std.unicode.utf8ValidateSlice(text)) return error.InvalidUtf8;
    var sum = text.len + 2;
    for (text) |byte| {
        if (byte < 0x20) sum += 5;
        if (byte == '"' or byte == '\\') sum += 1;
    }
    return sum;
}

/// Write a value, and return where the next goes.
fn put(to: [*]u8, value: anytype) [*]u8 {
    switch (@typeInfo(@TypeOf(value))) {
        .int => return putInteger(if (value < 0) putBytes(to, "-") else to, @abs(value)),
        .bool => return putBytes(to, if (value) "true" else "false"),
        .optional => return if (value) |known| put(to, known) else putBytes(to, "null"),
        .pointer => |pointer| {
            if (pointer.child == u8) return putText(to, value);
            var end = putBytes(to, "[");
            for (value, 0..) |item, index| end = put(if (index == 0) end else putBytes(end, ","), item);
            return putBytes(end, "]");
        },
        .@"struct" => |info| {
            var end = to;
            inline for (info.field_names, 0..) |name, index| {
                end = putBytes(end, comptime (if (index == 0) "{" else ",") ++ quoted(name) ++ ":");
                end = put(end, @field(value, name));
            }
            return putBytes(end, if (info.field_names.len == 0) "{}" else "}");
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

/// As the other functions here that are not inlined: repeated, they would make plugins larger.
noinline fn putBytes(to: [*]u8, bytes: []const u8) [*]u8 {
    @memcpy(to, bytes);
    return to + bytes.len;
}

noinline fn putInteger(to: [*]u8, value: u64) [*]u8 {
    const end = if (value < 10) to else putInteger(to, value / 10);
    end[0] = '0' + @as(u8, @intCast(value % 10));
    return end + 1;
}

noinline fn putText(to: [*]u8, text: []const u8) [*]u8 {
    var end = putBytes(to, "\"");
    for (text) |byte| {
        if (byte < 0x20) {
            end = putBytes(end, "\\u00");
            end[0] = '0' + (byte >> 4);
            end[1] = "0123456789abcdef"[byte & 15];
            end += 2;
            continue;
        }
        if (byte == '"' or byte == '\\') end = putBytes(end, "\\");
        end[0] = byte;
        end += 1;
    }
    return putBytes(end, "\"");
}
