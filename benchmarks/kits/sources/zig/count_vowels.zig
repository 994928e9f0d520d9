const std = @import("std");
const plugwasm = @import("plugwasm");

const Count = struct { count: u64, total: u64, vowels: []const u8 };

fn countVowels(allocator: std.mem.Allocator, text: []const u8) !Count {
    const vowels = try plugwasm.config(allocator, "vowels") orelse "aeiouAEIOU";
    var count: u64 = 0;
    for (text) |byte| count += @intFromBool(std.mem.indexOfScalar(u8, vowels, byte) != null);
    const before = try plugwasm.vars.get(allocator, "total");
    const total = count + if (before) |bytes| std.mem.bytesToValue(u64, bytes) else 0;
    try plugwasm.vars.set("total", std.mem.asBytes(&total));
    return .{ .count = count, .total = total, .vowels = vowels };
}

comptime {
    plugwasm.exportFunctions(.{ .count_vowels = countVowels });
}
