"""Parts of bindings for Zig that are the same for all schemas."""

from __future__ import annotations

__all__ = ["BYTES", "FROM_JSON", "HELPERS", "MAP", "READ", "STRINGIFY"]

FROM_JSON = "    pub fn fromJson({}: Allocator, value: std.json.Value) ReadError!{} {{"
STRINGIFY = "    pub fn jsonStringify({}: {}, out: anytype) std.json.Stringify.Error!void {{"

BYTES = """\
/// Bytes, which are base64 in JSON.
pub const Bytes = struct {
    data: []const u8,

    pub fn fromJson(allocator: Allocator, value: std.json.Value) ReadError!Bytes {
        const text = try readString(value);
        const decoder = std.base64.standard.Decoder;
        const size = decoder.calcSizeForSlice(text) catch return error.UnexpectedJson;
        const data = try allocator.alloc(u8, size);
        decoder.decode(data, text) catch return error.UnexpectedJson;
        return .{ .data = data };
    }

    pub fn jsonStringify(self: Bytes, out: anytype) std.json.Stringify.Error!void {
        try out.print("\\"{b64}\\"", .{self.data});
    }
};"""

MAP = """\
/// An object in JSON whose keys are data.
pub fn Map(comptime T: type) type {
    return struct {
        map: std.array_hash_map.String(T) = .empty,

        pub fn fromJson(allocator: Allocator, value: std.json.Value) ReadError!@This() {
            const object = try readObject(value);
            var made: @This() = .{};
            var entries = object.iterator();
            while (entries.next()) |entry| {
                const item = try read(T, allocator, entry.value_ptr.*);
                try made.map.put(allocator, entry.key_ptr.*, item);
            }
            return made;
        }

        pub fn jsonStringify(self: @This(), out: anytype) std.json.Stringify.Error!void {
            try out.beginObject();
            var entries = self.map.iterator();
            while (entries.next()) |entry| {
                try out.objectField(entry.key_ptr.*);
                try out.write(entry.value_ptr.*);
            }
            try out.endObject();
        }
    };
}"""

HELPERS = {
    "readJson": """\
/// The deepest JSON that is read. The stack of a plugin is small.
const max_levels = 64;

fn isTooDeep(data: []const u8) bool {
    var levels: usize = 0;
    var in_string = false;
    var at: usize = 0;
    while (at < data.len) : (at += 1) {
        if (in_string) {
            if (data[at] == '\\\\') at += 1 else in_string = data[at] != '"';
            continue;
        }
        switch (data[at]) {
            '"' => in_string = true,
            '[', '{' => levels += 1,
            ']', '}' => levels -|= 1,
            else => {},
        }
        if (levels > max_levels) return true;
    }
    return false;
}

fn readJson(comptime T: type, allocator: Allocator, data: []const u8) !T {
    if (isTooDeep(data)) return plugwasm.fail(1, "the JSON is nested too deeply");
    const Value = std.json.Value;
    const value = std.json.parseFromSliceLeaky(Value, allocator, data, .{}) catch |problem| {
        if (problem == error.OutOfMemory) return error.OutOfMemory;
        return plugwasm.fail(1, "the text is not JSON");
    };
    misplaced = "";
    return read(T, allocator, value) catch |problem| {
        if (problem == error.OutOfMemory) return error.OutOfMemory;
        const format = "the JSON is not as expected{s}{s}";
        const at = if (misplaced.len == 0) "" else ": ";
        return plugwasm.fail(1, try std.fmt.allocPrint(allocator, format, .{ at, misplaced }));
    };
}""",
    "writeJson": """\
fn writeJson(allocator: Allocator, value: anytype) ![]const u8 {
    return std.json.Stringify.valueAlloc(allocator, value, .{});
}""",
    "readText": """\
fn readText(data: []const u8) ![]const u8 {
    if (!std.unicode.utf8ValidateSlice(data)) return plugwasm.fail(1, "the text is not UTF-8");
    return data;
}""",
    "readChoice": """\
fn readChoice(comptime T: type, data: []const u8) !T {
    return T.fromText(data) catch plugwasm.fail(1, "the text is none of the values");
}""",
}

READ = """\
/// Why a value cannot be read: it has another form, or there is no memory.
pub const ReadError = error{ OutOfMemory, UnexpectedJson };

/// The innermost property that could not be read.
var misplaced: []const u8 = "";

fn readField(
    comptime T: type,
    allocator: Allocator,
    object: std.json.ObjectMap,
    name: []const u8,
) ReadError!T {
    return read(T, allocator, object.get(name) orelse .null) catch |problem| {
        if (misplaced.len == 0) misplaced = name;
        return problem;
    };
}

fn readObject(value: std.json.Value) ReadError!std.json.ObjectMap {
    return if (value == .object) value.object else error.UnexpectedJson;
}

fn readString(value: std.json.Value) ReadError![]const u8 {
    return if (value == .string) value.string else error.UnexpectedJson;
}

fn read(comptime T: type, allocator: Allocator, value: std.json.Value) ReadError!T {
    if (T == []const u8) return readString(value);
    if (T == std.json.Value) return if (value == .object) value else error.UnexpectedJson;
    switch (@typeInfo(T)) {
        .bool => return if (value == .bool) value.bool else error.UnexpectedJson,
        .int => switch (value) {
            .integer => |number| return std.math.cast(T, number) orelse error.UnexpectedJson,
            .number_string => |digits| return std.fmt.parseInt(T, digits, 10) catch
                error.UnexpectedJson,
            else => return error.UnexpectedJson,
        },
        .float => {
            const number: T = switch (value) {
                .integer => |number| @floatFromInt(number),
                .float => |number| @floatCast(number),
                .number_string => |digits| std.fmt.parseFloat(T, digits) catch
                    return error.UnexpectedJson,
                else => return error.UnexpectedJson,
            };
            return if (std.math.isFinite(number)) number else error.UnexpectedJson;
        },
        .optional => |optional| {
            return if (value == .null) null else try read(optional.child, allocator, value);
        },
        .pointer => |pointer| {
            if (pointer.size == .one) {
                const made = try allocator.create(pointer.child);
                made.* = try read(pointer.child, allocator, value);
                return made;
            }
            if (value != .array) return error.UnexpectedJson;
            const made = try allocator.alloc(pointer.child, value.array.items.len);
            for (made, value.array.items) |*item, one| {
                item.* = try read(pointer.child, allocator, one);
            }
            return made;
        },
        else => return T.fromJson(allocator, value),
    }
}"""
