//! The functions of the plugin contract, for what the rest of this crate does not do.
//!
//! A handle is an offset into the host's memory; 0 is none.

#[link(wasm_import_module = "extism:host/env")]
extern "C" {
    pub fn alloc(size: u64) -> u64;
    pub fn free(handle: u64);
    pub fn length(handle: u64) -> u64;
    pub fn load_u8(at: u64) -> u8;
    pub fn load_u64(at: u64) -> u64;
    pub fn store_u8(at: u64, value: u8);
    pub fn store_u64(at: u64, value: u64);
    pub fn input_length() -> u64;
    pub fn input_load_u8(at: u64) -> u8;
    pub fn input_load_u64(at: u64) -> u64;
    pub fn output_set(handle: u64, size: u64);
    pub fn error_set(handle: u64);
    pub fn config_get(key: u64) -> u64;
    pub fn var_get(name: u64) -> u64;
    pub fn var_set(name: u64, value: u64);
    pub fn http_request(request: u64, body: u64) -> u64;
    pub fn http_status_code() -> i32;
    pub fn http_headers() -> u64;
    pub fn get_log_level() -> i32;
    pub fn log_trace(text: u64);
    pub fn log_debug(text: u64);
    pub fn log_info(text: u64);
    pub fn log_warn(text: u64);
    pub fn log_error(text: u64);
}
