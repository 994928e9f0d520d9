const std = @import("std");
const plugwasm = @import("plugwasm");

fn hello(allocator: std.mem.Allocator, name: []const u8) ![]const u8 {
    return std.mem.concat(allocator, u8, &.{ "Hello, ", name, "!" });
}

comptime {
    plugwasm.exportFunctions(.{ .hello = hello });
}
