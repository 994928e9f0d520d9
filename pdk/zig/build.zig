const std = @import("std");

pub fn build(b: *std.Build) void {
    _ = b.addModule("plugwasm", .{ .root_source_file = b.path("src/plugwasm.zig") });
}
