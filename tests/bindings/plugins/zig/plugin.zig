//! The plugin of the round-trip tests in Zig.

const std = @import("std");
const plugwasm = @import("plugwasm");
const bindings = @import("bindings.zig");
const Allocator = std.mem.Allocator;

pub fn echoEverything(_: Allocator, input: bindings.Everything) !bindings.Everything {
    return input;
}

pub fn echoShape(_: Allocator, input: bindings.Shape) !bindings.Shape {
    return switch (input) {
        .circle => |circle| .{ .circle = .{ .radius = circle.radius } },
        .square => |square| .{ .square = square },
    };
}

pub fn echoTree(_: Allocator, input: bindings.Tree) !bindings.Tree {
    return input;
}

pub fn echoExpression(_: Allocator, input: bindings.Expression) !bindings.Expression {
    return input;
}

pub fn echoText(_: Allocator, input: []const u8) ![]const u8 {
    return input;
}

pub fn echoBytes(_: Allocator, input: []const u8) ![]const u8 {
    return input;
}

pub fn echoJsonText(_: Allocator, input: []const u8) ![]const u8 {
    return input;
}

pub fn echoJsonBytes(_: Allocator, input: bindings.Bytes) !bindings.Bytes {
    return input;
}

pub fn echoList(_: Allocator, input: []const bindings.Fruit) ![]const bindings.Fruit {
    return input;
}

pub fn echoMap(_: Allocator, input: bindings.Scores) !bindings.Scores {
    return input;
}

pub fn fruitToJson(_: Allocator, input: bindings.Fruit) !bindings.Fruit {
    return input;
}

pub fn fruitToText(_: Allocator, input: bindings.Fruit) !bindings.Fruit {
    return input;
}

pub fn negate(_: Allocator, input: bool) !bool {
    return !input;
}

pub fn double(_: Allocator, input: i32) !i64 {
    return @as(i64, input) * 2;
}

pub fn maybe(_: Allocator, input: ?f64) !?f64 {
    return input;
}

pub fn nothing(allocator: Allocator) !void {
    try bindings.host.ping(allocator);
}

pub fn callHost(allocator: Allocator, input: bindings.Everything) !bindings.Everything {
    return bindings.host.visit(allocator, input);
}

pub fn callHostText(allocator: Allocator, input: []const u8) ![]const u8 {
    return bindings.host.translate(allocator, input);
}

pub fn callHostFruit(allocator: Allocator, input: bindings.Fruit) !bool {
    return bindings.host.eatFruit(allocator, input);
}

pub fn callHostBytes(allocator: Allocator, input: []const u8) ![]const u8 {
    return bindings.host.mixBytes(allocator, input);
}

pub fn callHostNumber(allocator: Allocator, input: i64) !i64 {
    return bindings.host.addOne(allocator, input);
}

pub fn fail(allocator: Allocator, input: []const u8) !void {
    return plugwasm.fail(7, try std.fmt.allocPrint(allocator, "failed: {s}", .{input}));
}

comptime {
    bindings.exportPlugin(@This());
}
