const std = @import("std");

pub fn build(b: *std.Build) void {
    const target = b.resolveTargetQuery(.{ .cpu_arch = .wasm32, .os_tag = .freestanding });
    const optimize = b.standardOptimizeOption(.{ .preferred_optimize_mode = .ReleaseSmall });
    const kit = b.dependency("plugwasm", .{});

    const plugin = b.addExecutable(.{
        .name = "plugin",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/plugin.zig"),
            .target = target,
            .optimize = optimize,
            .strip = true,
            .imports = &.{.{ .name = "plugwasm", .module = kit.module("plugwasm") }},
        }),
    });
    plugin.entry = .disabled;
    plugin.rdynamic = true;
    plugin.stack_size = 64 * 1024;
    b.installArtifact(plugin);
}
