const std = @import("std");
const plugwasm = @import("plugwasm");

fn greet(allocator: std.mem.Allocator, name: []const u8) ![]const u8 {
    if (name.len == 0) return plugwasm.fail(2, "no name was given");

    const greeting = try plugwasm.config(allocator, "greeting") orelse "Hello";
    return std.fmt.allocPrint(allocator, "{s}, {s}!", .{ greeting, name });
}

comptime {
    plugwasm.exportFunctions(.{ .greet = greet });
}
