//! The functions of the contract. A handle is an offset into the host's memory; 0 is none.

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
