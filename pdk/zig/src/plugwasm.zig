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
const json = @import("json.zig");
const memory = @import("memory.zig");

pub const version = "0.1.0";

/// The functions of the contract, for what the rest of this file does not do.
pub const env = struct {
    pub extern "extism:host/env" fn alloc(size: u64) u64;
    pub extern "extism:host/env" fn free(handle: u64) void;
    pub extern "extism:host/env" fn length(handle: u64) u64;
    pub extern "extism:host/env" fn load_u8(at: u64) u32;
    pub extern "extism:host/env" fn load_u64(at: u64) u64;
    pub extern "extism:host/env" fn store_u8(at: u64, value: u32) void;
    pub extern "extism:host/env" fn store_u64(at: u64, value: u64) void;
    pub extern "extism:host/env" fn input_length() u64;
    pub extern "extism:host/env" fn input_load_u8(at: u64) u32;
    pub extern "extism:host/env" fn input_load_u64(at: u64) u64;
    pub extern "extism:host/env" fn output_set(handle: u64, size: u64) void;
    pub extern "extism:host/env" fn error_set(handle: u64) void;
    pub extern "extism:host/env" fn config_get(key: u64) u64;
    pub extern "extism:host/env" fn var_get(key: u64) u64;
    pub extern "extism:host/env" fn var_set(key: u64, value: u64) void;
    pub extern "extism:host/env" fn http_request(request: u64, body: u64) u64;
    pub extern "extism:host/env" fn http_status_code() i32;
    pub extern "extism:host/env" fn http_headers() u64;
    pub extern "extism:host/env" fn get_log_level() i32;
    pub extern "extism:host/env" fn log_trace(text: u64) void;
    pub extern "extism:host/env" fn log_debug(text: u64) void;
    pub extern "extism:host/env" fn log_info(text: u64) void;
    pub extern "extism:host/env" fn log_warn(text: u64) void;
    pub extern "extism:host/env" fn log_error(text: u64) void;
};

/// A block of the host's memory. Handle 0 is none.
pub const Block = struct {
    handle: u64,

    /// Copy bytes into a new block. No bytes are no block.
    pub inline fn init(bytes: []const u8) Allocator.Error!Block {
        const handle = copyToHost(bytes);
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
    pub fn read(block: Block, allocator: Allocator) Allocator.Error![]u8 {
        const len = block.size();
        const bytes = copyFromHost(&allocator, block.handle, len) orelse return error.OutOfMemory;
        return bytes[0..len];
    }

    /// Return a copy, and free the block.
    pub fn take(block: Block, allocator: Allocator) Allocator.Error![]u8 {
        const len = block.size();
        const bytes = copyFromHost(&allocator, block.handle, len);
        block.deinit();
        return (bytes orelse return error.OutOfMemory)[0..len];
    }
};

// The functions that copy are not inlined, and return what fits into a register: plugins stay small.

/// Return the handle of a new block; 0 for no bytes, or if the host has no room for them.
noinline fn copyToHost(bytes: []const u8) u64 {
    const handle = env.alloc(bytes.len);
    if (handle == 0) return 0;
    copy(bytes.len, struct {
        handle: u64,
        from: [*]const u8,

        inline fn word(self: @This(), at: usize) void {
            const value: *align(1) const u64 = @ptrCast(self.from + at);
            env.store_u64(self.handle + at, value.*);
        }

        inline fn byte(self: @This(), at: usize) void {
            env.store_u8(self.handle + at, self.from[at]);
        }
    }{ .handle = handle, .from = bytes.ptr });
    return handle;
}

noinline fn copyFromHost(allocator: *const Allocator, handle: u64, len: usize) ?[*]u8 {
    const bytes = json.take(allocator, len) orelse return null;
    copy(len, struct {
        handle: u64,
        to: [*]u8,

        inline fn word(self: @This(), at: usize) void {
            const place: *align(1) u64 = @ptrCast(self.to + at);
            place.* = env.load_u64(self.handle + at);
        }

        inline fn byte(self: @This(), at: usize) void {
            self.to[at] = @truncate(env.load_u8(self.handle + at));
        }
    }{ .handle = handle, .to = bytes });
    return bytes;
}

noinline fn copyInput(allocator: *const Allocator, len: usize) ?[*]u8 {
    const bytes = json.take(allocator, len) orelse return null;
    copy(len, struct {
        to: [*]u8,

        inline fn word(self: @This(), at: usize) void {
            const place: *align(1) u64 = @ptrCast(self.to + at);
            place.* = env.input_load_u64(at);
        }

        inline fn byte(self: @This(), at: usize) void {
            self.to[at] = @truncate(env.input_load_u8(at));
        }
    }{ .to = bytes });
    return bytes;
}

/// Copy so many bytes: four words a turn, which is twice as fast as one, then words, then bytes.
inline fn copy(len: usize, piece: anytype) void {
    var at: usize = 0;
    while (len - at >= 32) : (at += 32) inline for (0..4) |index| piece.word(at + 8 * index);
    while (len - at >= 8) : (at += 8) piece.word(at);
    while (at < len) : (at += 1) piece.byte(at);
}

// ---- exports -------------------------------------------------------------------------------------

/// Export functions under the names of the fields.
pub fn exportFunctions(comptime functions: anytype) void {
    inline for (@typeInfo(@TypeOf(functions)).@"struct".field_names) |name| {
        const function = @field(functions, name);
        @export(&struct {
            fn run() callconv(.c) i32 {
                return call(function);
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
    failure_message = copyToHost(message);
    return error.PluginFailure;
}

fn call(comptime function: anytype) i32 {
    memory.reset();
    run(function, memory.allocator) catch |problem| return report(problem);
    return 0;
}

noinline fn report(problem: anyerror) i32 {
    if (problem == error.PluginFailure) {
        env.error_set(failure_message);
        return failure_code;
    }
    env.error_set(copyToHost(@errorName(problem)));
    return 1;
}

fn run(comptime function: anytype, allocator: Allocator) anyerror!void {
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

/// Read the input, as a type.
pub fn input(comptime Type: type, allocator: Allocator) !Type {
    const len: usize = @intCast(env.input_length());
    const bytes = (copyInput(&allocator, len) orelse return error.OutOfMemory)[0..len];
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

fn encode(allocator: Allocator, value: anytype) json.Error![]const u8 {
    const Type = @TypeOf(value);
    return if (Type == []u8 or Type == []const u8) value else json.encode(allocator, value);
}

fn output(allocator: Allocator, value: anytype) !void {
    const Type = @TypeOf(value);
    if (Type == Block) return env.output_set(value.handle, value.size());
    const bytes = switch (@typeInfo(Type)) {
        .void => return,
        .float => try std.fmt.allocPrint(allocator, "{d}", .{value}),
        else => try encode(allocator, value),
    };
    const block = try Block.init(bytes);
    env.output_set(block.handle, bytes.len);
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
                    block.* = try Block.init(try encode(allocator, argument));
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

fn known(allocator: Allocator, handle: u64) Allocator.Error!?[]u8 {
    if (handle == 0) return null;
    const block: Block = .{ .handle = handle };
    return try block.take(allocator);
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
        const document = try Block.init(try json.encode(
            allocator,
            .{ .url = request.url, .method = request.method, .headers = fields },
        ));
        const body = env.http_request(document.handle, (try Block.init(request.body)).handle);
        return .{
            .status = env.http_status_code(),
            .body = .{ .handle = body },
            .headers = .{ .handle = env.http_headers() },
        };
    }
};
