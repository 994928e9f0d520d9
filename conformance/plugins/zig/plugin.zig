//! The test plugin of the conformance suite in Zig.

const std = @import("std");
const plugwasm = @import("plugwasm");
const Allocator = std.mem.Allocator;
const Block = plugwasm.Block;

fn hostUser(comptime name: []const u8, comptime Signature: type) @TypeOf(plugwasm.hostFunction("extism:host/user", name, Signature)) {
    return plugwasm.hostFunction("extism:host/user", name, Signature);
}

const host_i32 = hostUser("host_i32", fn (i32) i32);
const host_i64 = hostUser("host_i64", fn (i64) i64);
const host_f32 = hostUser("host_f32", fn (f32) f32);
const host_f64 = hostUser("host_f64", fn (f64) f64);
const host_text = hostUser("host_text", fn ([]const u8) []const u8);
const host_bytes = hostUser("host_bytes", fn ([]const u8) []const u8);
const host_json = hostUser("host_json", fn (Numbers) Sum);
const host_other = plugwasm.hostFunction("conformance:host", "host_other", fn () void);

/// The text up to a line feed, and what follows it.
fn split(text: []const u8) struct { []const u8, []const u8 } {
    const end = std.mem.indexOfScalar(u8, text, '\n') orelse return .{ text, "" };
    return .{ text[0..end], text[end + 1 ..] };
}

fn describe(allocator: Allocator, value: ?[]const u8) ![]const u8 {
    return if (value) |known| std.mem.concat(allocator, u8, &.{ "=", known }) else "unset";
}

fn echo(bytes: []const u8) []const u8 {
    return bytes;
}

fn utf8(text: []const u8) !usize {
    return std.unicode.utf8CountCodepoints(text);
}

const Count = struct { count: u64, total: u64, vowels: []const u8 };

fn countVowels(allocator: Allocator, text: []const u8) !Count {
    const vowels = try plugwasm.config(allocator, "vowels") orelse "aeiouAEIOU";
    var count: u64 = 0;
    for (text) |byte| count += @intFromBool(std.mem.indexOfScalar(u8, vowels, byte) != null);
    const before = try plugwasm.vars.get(allocator, "total");
    const total = count + if (before) |bytes| std.mem.readInt(u64, bytes[0..8], .little) else 0;
    try plugwasm.vars.set("total", std.mem.asBytes(&total));
    return .{ .count = count, .total = total, .vowels = vowels };
}

fn configGet(allocator: Allocator, key: []const u8) ![]const u8 {
    return describe(allocator, try plugwasm.config(allocator, key));
}

fn varGet(allocator: Allocator, name: []const u8) ![]const u8 {
    return describe(allocator, try plugwasm.vars.get(allocator, name));
}

fn varSet(lines: []const u8) !void {
    const name, const value = split(lines);
    try plugwasm.vars.set(name, value);
}

fn varDelete(name: []const u8) !void {
    try plugwasm.vars.delete(name);
}

fn fail(lines: []const u8) !void {
    const code, const message = split(lines);
    return plugwasm.fail(try std.fmt.parseInt(i32, code, 10), message);
}

fn panic() void {
    @trap();
}

fn logMessage(lines: []const u8) !void {
    const level, const message = split(lines);
    plugwasm.log(std.meta.stringToEnum(plugwasm.Level, level) orelse return error.UnknownLevel, message);
}

const Numbers = struct { a: i64, b: i64 };
const Sum = struct { sum: i64 };

fn add(numbers: Numbers) Sum {
    return .{ .sum = numbers.a + numbers.b };
}

fn http(allocator: Allocator, lines: []const u8) ![]const u8 {
    const method, var rest = split(lines);
    const url, rest = split(rest);
    var headers: std.ArrayList(plugwasm.Header) = .empty;
    while (true) {
        const line, rest = split(rest);
        if (line.len == 0) break;
        const colon = std.mem.indexOf(u8, line, ": ") orelse return error.BadHeader;
        try headers.append(allocator, .{ .name = line[0..colon], .value = line[colon + 2 ..] });
    }
    const request: plugwasm.Request = .{ .url = url, .method = method, .headers = headers.items, .body = rest };
    const response = try request.send(allocator);
    defer response.deinit();
    return std.fmt.allocPrint(allocator, "{d}\n{s}\n{s}", .{
        response.status,
        try response.header(allocator, "x-answer") orelse "-",
        try response.body.read(allocator),
    });
}

fn callText(allocator: Allocator, text: []const u8) ![]const u8 {
    return host_text(allocator, .{text});
}

fn callBytes(allocator: Allocator, bytes: []const u8) ![]const u8 {
    return host_bytes(allocator, .{bytes});
}

fn callJson(allocator: Allocator, numbers: Numbers) !Sum {
    return host_json(allocator, .{numbers});
}

fn callI32(allocator: Allocator, value: i32) !i32 {
    return host_i32(allocator, .{value});
}

fn callI64(allocator: Allocator, value: i64) !i64 {
    return host_i64(allocator, .{value});
}

fn callF32(allocator: Allocator, value: f32) !f32 {
    return host_f32(allocator, .{value});
}

fn callF64(allocator: Allocator, value: f64) !f64 {
    return host_f64(allocator, .{value});
}

fn callOther(allocator: Allocator) !void {
    try host_other(allocator, .{});
}

fn churn(count: u32) u32 {
    for (0..count) |_| {
        const block: Block = .{ .handle = plugwasm.env.alloc(65536) };
        block.deinit();
    }
    return count;
}

comptime {
    plugwasm.exportFunctions(.{
        .echo = echo,
        .utf8 = utf8,
        .count_vowels = countVowels,
        .config_get = configGet,
        .var_get = varGet,
        .var_set = varSet,
        .var_delete = varDelete,
        .fail = fail,
        .panic = panic,
        .log_message = logMessage,
        .add = add,
        .http = http,
        .call_i32 = callI32,
        .call_i64 = callI64,
        .call_f32 = callF32,
        .call_f64 = callF64,
        .call_text = callText,
        .call_bytes = callBytes,
        .call_json = callJson,
        .call_other = callOther,
        .churn = churn,
    });
}
