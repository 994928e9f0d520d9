const plugwasm = @import("plugwasm");

fn echo(bytes: []const u8) []const u8 {
    return bytes;
}

comptime {
    plugwasm.exportFunctions(.{ .echo = echo });
}
