//! Write plugins in Zig.
//!
//!     const std = @import("std");
//!     const plugwasm = @import("plugwasm");
//!
//!     fn greet(allocator: std.mem.Allocator, name: []const u8) ![]const u8 {
//!         return std.fmt.allocPrint(allocator, "Hello, {s}!", .{name});
//!     }
//!
//!     comptime {
//!         plugwasm.exportFunctions(.{ .greet = greet });
//!     }
//!
//! A function takes what it needs, in this order: an allocator, whose memory is freed when the call
//! ends, and the input. The input's type says how it is read: `[]const u8` as it is, a number from
//! its decimal form, anything else from JSON. A result is written likewise; `void` is no output, a
//! `Block` is passed on without a copy. An error ends the call with its name as the message and
//! code 1; `return fail(42, "…")` says both.
//!
//! What is built runs on every host of the Extism contract.

const std = @import("std");
const Allocator = std.mem.Allocator;
const copies = @import("copies.zig");
const json = @import("json.zig");
const memory = @import("memory.zig");

pub const version = "0.1.0";

/// The functions of the contract, for what the rest of this file does not do.
pub const env = @import("env.zig");

/// A block of the host's memory. Handle 0 is none.
pub const Block = struct {
    handle: u64,

    /// Copy bytes into a new block. No bytes are no block.
    pub inline fn init(bytes: []const u8) Allocator.Error!Block {
        const handle = copies.toHost(bytes);
        if (handle == 0 and bytes.len != 0) return error.OutOfMemory;
        return .{ .handle = handle };
    }

    /// Free the block. Do not free one that was given to the host.
    pub fn deinit(block: Block) void {
        if (block.handle != 0) env.free(block.handle);
    }

    /// Return the size in bytes.
    pub fn size(block: Block) usize {
        return @intCast(env.length(block.handle));
    }

    /// Return a copy. The memory is the caller's.
    pub inline fn read(block: Block, allocator: Allocator) Allocator.Error![]u8 {
        const len = block.size();
        const bytes = memory.take(allocator, len) orelse return error.OutOfMemory;
        copies.load(bytes, len, block.handle);
        return bytes[0..len];
    }

    /// Return a copy, and free the block.
    pub inline fn take(block: Block, allocator: Allocator) Allocator.Error![]u8 {
        const len = block.size();
        const bytes = memory.take(allocator, len);
        copies.take(bytes, len, block.handle);
        return (bytes orelse return error.OutOfMemory)[0..len];
    }
};

// ---- exports -------------------------------------------------------------------------------------

/// Export functions under the names of the fields.
pub fn exportFunctions(comptime functions: anytype) void {
    const names = @typeInfo(@TypeOf(functions)).@"struct".field_names;
    const Problem = comptime problems: {
        var Known = error{};
        for (names) |name| Known = Known || Problems(@field(functions, name));
        break :problems Known;
    };
    inline for (names) |name| {
        const function = @field(functions, name);
        @export(&struct {
            fn run() callconv(.c) i32 {
                memory.reset();
                Call(function).run(memory.allocator) catch |problem| return report(Problem, problem);
                return 0;
            }
        }.run, .{ .name = name });
    }
}

/// The error of `fail`. Its code and message are kept until the call ends.
pub const Failure = error{PluginFailure};
var failure_code: i32 = 1;
var failure_message: u64 = 0;

/// End the call with a message and a return code: `return plugwasm.fail(42, "…");`.
pub fn fail(code: i32, message: []const u8) Failure {
    failure_code = code;
    failure_message = copies.toHost(message);
    return error.PluginFailure;
}

/// Make an error the call's error. Only the names of errors that a function may end with are in the
/// plugin: `@errorName` would bring those of all errors, and does so for `anyerror`.
noinline fn report(comptime Problem: type, problem: Problem) i32 {
    if (comptime !has(Problem, "PluginFailure")) {} else if (problem == error.PluginFailure) {
        env.error_set(failure_message);
        return failure_code;
    }
    env.error_set(copies.toHost(if (Problem == anyerror) @errorName(problem) else switch (problem) {
        inline else => |one| @errorName(one),
    }));
    return 1;
}

fn has(comptime Problem: type, comptime wanted: []const u8) bool {
    const names = @typeInfo(Problem).error_set.error_names orelse return true;
    for (names) |name| if (std.mem.eql(u8, name, wanted)) return true;
    return false;
}

/// The errors that a call of the function may end with.
fn Problems(comptime function: anytype) type {
    const Result = @typeInfo(@TypeOf(Call(function).run)).@"fn".return_type.?;
    return @typeInfo(Result).error_union.error_set;
}

fn Call(comptime function: anytype) type {
    return struct {
        fn run(allocator: Allocator) !void {
            const Arguments = std.meta.ArgsTuple(@TypeOf(function));
            var arguments: Arguments = undefined;
            inline for (&arguments, 0..) |*argument, index| {
                const Type = @TypeOf(argument.*);
                if (index > 1) @compileError("a plugin's function takes an allocator and an input");
                argument.* = if (Type == Allocator) allocator else try input(Type, allocator);
            }
            const result = @call(.auto, function, arguments);
            try output(allocator, if (@typeInfo(@TypeOf(result)) == .error_union) try result else result);
        }
    };
}

/// Read the input, as a type.
pub fn input(comptime Type: type, allocator: Allocator) !Type {
    const len: usize = @intCast(env.input_length());
    const start = memory.take(allocator, len) orelse return error.OutOfMemory;
    copies.loadInput(start, len);
    const bytes = start[0..len];
    return switch (@typeInfo(Type)) {
        .int => std.fmt.parseInt(Type, bytes, 10),
        .float => std.fmt.parseFloat(Type, bytes),
        else => decode(Type, allocator, bytes),
    };
}

fn decode(comptime Type: type, allocator: Allocator, bytes: []u8) !Type {
    if (Type == []u8 or Type == []const u8) return bytes;
    return std.json.parseFromSliceLeaky(Type, allocator, bytes, .{ .ignore_unknown_fields = true });
}

/// Return the bytes, or the JSON of a value, in a new block.
inline fn encode(allocator: Allocator, value: anytype) !json.Encoded {
    const Type = @TypeOf(value);
    if (Type != []u8 and Type != []const u8) return json.encode(allocator, value);
    return .{ .handle = (try Block.init(value)).handle, .len = value.len };
}

inline fn output(allocator: Allocator, value: anytype) !void {
    const Type = @TypeOf(value);
    if (Type == void) return;
    if (Type == Block) return env.output_set(value.handle, value.size());
    const is_float = @typeInfo(Type) == .float;
    const encoded = try encode(allocator, if (is_float) @as(
        []const u8,
        try std.fmt.allocPrint(allocator, "{d}", .{value}),
    ) else value);
    env.output_set(encoded.handle, encoded.len);
}

// ---- host functions ------------------------------------------------------------------------------

/// Import a function of the host: `const shout = hostFunction("extism:host/user", "shout", fn
/// ([]const u8) []const u8);`, called as `try shout(allocator, .{text})`.
///
/// `i32`, `i64`, `u32`, `u64`, `f32`, `f64` and `Block` pass as they are. Text and bytes pass in blocks
/// that are freed, anything else as JSON in such blocks. An error is that there is no memory left, or
/// that the host's answer is not of the type.
pub fn hostFunction(
    comptime namespace: []const u8,
    comptime name: []const u8,
    comptime Signature: type,
) fn (Allocator, std.meta.ArgsTuple(Signature)) anyerror!Returned(Signature) {
    const Arguments = std.meta.ArgsTuple(Signature);
    return struct {
        fn call(allocator: Allocator, arguments: Arguments) anyerror!Returned(Signature) {
            var blocks: [arguments.len]Block = @splat(.{ .handle = 0 });
            defer for (blocks) |block| block.deinit();
            var passed: std.meta.ArgsTuple(Import(Signature)) = undefined;
            inline for (arguments, &passed, &blocks) |argument, *value, *block| {
                const Type = @TypeOf(argument);
                if (Type == Block) {
                    value.* = argument.handle;
                } else if (comptime isNumber(Type)) {
                    value.* = argument;
                } else {
                    block.handle = (try encode(allocator, argument)).handle;
                    value.* = block.handle;
                }
            }
            const import = @extern(*const Import(Signature), .{ .name = name, .library_name = namespace });
            const answer = @call(.auto, import, passed);
            const Type = Returned(Signature);
            if (Type == void or comptime isNumber(Type)) return answer;
            const block: Block = .{ .handle = answer };
            return if (Type == Block) block else decode(Type, allocator, try block.take(allocator));
        }
    }.call;
}

fn Returned(comptime Signature: type) type {
    return @typeInfo(Signature).@"fn".return_type.?;
}

/// What the import takes and returns for a signature.
fn Import(comptime Signature: type) type {
    const signature = @typeInfo(Signature).@"fn";
    var types: [signature.param_types.len]type = undefined;
    for (signature.param_types, &types) |Type, *Value| Value.* = Passed(Type.?);
    const Result = if (Returned(Signature) == void) void else Passed(Returned(Signature));
    return @Fn(&types, &@splat(.{}), Result, .{ .@"callconv" = .c });
}

fn Passed(comptime Type: type) type {
    return if (isNumber(Type)) Type else u64;
}

fn isNumber(comptime Type: type) bool {
    return switch (Type) {
        i32, i64, u32, u64, f32, f64 => true,
        else => false,
    };
}

// ---- config, vars and logs -----------------------------------------------------------------------

/// Return a value of the config, or null.
pub fn config(allocator: Allocator, key: []const u8) Allocator.Error!?[]u8 {
    return known(allocator, env.config_get((try Block.init(key)).handle));
}

/// Vars, which the host keeps from one call to the next. An empty value counts as none.
pub const vars = struct {
    pub fn get(allocator: Allocator, name: []const u8) Allocator.Error!?[]u8 {
        return known(allocator, env.var_get((try Block.init(name)).handle));
    }

    /// Set a var. The call fails if the host's limit is exceeded.
    pub fn set(name: []const u8, value: []const u8) Allocator.Error!void {
        const key = try Block.init(name);
        env.var_set(key.handle, (try Block.init(value)).handle);
    }

    pub fn delete(name: []const u8) Allocator.Error!void {
        env.var_set((try Block.init(name)).handle, 0);
    }
};

inline fn known(allocator: Allocator, handle: u64) Allocator.Error!?[]u8 {
    if (handle == 0) return null;
    return try (Block{ .handle = handle }).take(allocator);
}

pub const Level = enum(i32) { trace, debug, info, warn, @"error" };

/// Log a message, if the host keeps messages of that level; nothing is copied if not.
pub fn log(level: Level, message: []const u8) void {
    if (@backingInt(level) < env.get_log_level()) return;
    const text = (Block.init(message) catch return).handle;
    switch (level) {
        .trace => env.log_trace(text),
        .debug => env.log_debug(text),
        .info => env.log_info(text),
        .warn => env.log_warn(text),
        .@"error" => env.log_error(text),
    }
}

// ---- HTTP ----------------------------------------------------------------------------------------

pub const Header = struct { name: []const u8, value: []const u8 };

/// The answer of a server. A status that is no success (404, …) is no error.
pub const Response = struct {
    status: i32,
    body: Block,
    /// JSON, names in lower case; empty where the host does not tell them.
    headers: Block,

    pub fn deinit(response: Response) void {
        response.body.deinit();
        response.headers.deinit();
    }

    /// Return the value of a header, by its name in lower case.
    pub fn header(response: Response, allocator: Allocator, name: []const u8) !?[]const u8 {
        if (response.headers.handle == 0) return null;
        const text = try response.headers.read(allocator);
        const all = try std.json.parseFromSliceLeaky(std.json.Value, allocator, text, .{});
        const value = all.object.get(name) orelse return null;
        return if (value == .string) value.string else null;
    }
};

/// A request. The host must allow it: otherwise, and if no answer comes, the call ends in `send`
/// with the host's error.
pub const Request = struct {
    url: []const u8,
    method: []const u8 = "GET",
    headers: []const Header = &.{},
    body: []const u8 = "",

    pub fn send(request: Request, allocator: Allocator) !Response {
        var fields: std.json.ArrayHashMap([]const u8) = .{};
        for (request.headers) |field| try fields.map.put(allocator, field.name, field.value);
        const document = try json.encode(
            allocator,
            .{ .url = request.url, .method = request.method, .headers = fields },
        );
        const body = env.http_request(document.handle, (try Block.init(request.body)).handle);
        return .{
            .status = env.http_status_code(),
            .body = .{ .handle = body },
            .headers = .{ .handle = env.http_headers() },
        };
    }
};
