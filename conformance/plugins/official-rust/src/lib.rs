//! The test plugin of the conformance suite in Rust, with the official kit.

use extism_pdk::*;
use serde::{Deserialize, Serialize};

#[link(wasm_import_module = "extism:host/user")]
extern "C" {
    fn host_i32(value: i32) -> i32;
    fn host_i64(value: i64) -> i64;
    fn host_f32(value: f32) -> f32;
    fn host_f64(value: f64) -> f64;
}

#[host_fn]
extern "ExtismHost" {
    fn host_text(text: &str) -> String;
    fn host_bytes(bytes: Vec<u8>) -> Vec<u8>;
    fn host_json(numbers: Json<Numbers>) -> Json<Sum>;
}

#[host_fn("conformance:host")]
extern "ExtismHost" {
    fn host_other();
}

#[derive(Deserialize, Serialize)]
struct Numbers {
    a: i64,
    b: i64,
}

#[derive(Deserialize, Serialize)]
struct Sum {
    sum: i64,
}

fn split(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

fn describe(value: Option<String>) -> String {
    value.map_or_else(|| "unset".into(), |value| format!("={value}"))
}

/// Gives an error the code 1.
fn code_1(error: impl Into<Error>) -> WithReturnCode<Error> {
    WithReturnCode::new(error.into(), 1)
}

#[plugin_fn]
pub fn echo(bytes: Vec<u8>) -> FnResult<Vec<u8>> {
    Ok(bytes)
}

#[plugin_fn]
pub fn utf8(bytes: Vec<u8>) -> FnResult<String> {
    let text = String::from_utf8(bytes).map_err(code_1)?;
    Ok(text.chars().count().to_string())
}

#[derive(Serialize)]
struct Count {
    count: u64,
    total: u64,
    vowels: String,
}

#[plugin_fn]
pub fn count_vowels(text: String) -> FnResult<Json<Count>> {
    let vowels = config::get("vowels")?.unwrap_or_else(|| "aeiouAEIOU".into());
    let count = text.chars().filter(|&character| vowels.contains(character)).count() as u64;
    let before = var::get::<Vec<u8>>("total")?.and_then(|bytes| bytes.try_into().ok());
    let total = count + before.map_or(0, u64::from_le_bytes);
    var::set("total", total.to_le_bytes().to_vec())?;
    Ok(Json(Count { count, total, vowels }))
}

#[plugin_fn]
pub fn config_get(key: String) -> FnResult<String> {
    Ok(describe(config::get(key)?))
}

#[plugin_fn]
pub fn var_get(name: String) -> FnResult<String> {
    Ok(describe(var::get(name)?))
}

#[plugin_fn]
pub fn var_set(lines: String) -> FnResult<()> {
    let (name, value) = split(&lines);
    var::set(name, value)?;
    Ok(())
}

#[plugin_fn]
pub fn var_delete(name: String) -> FnResult<()> {
    var::remove(name)?;
    Ok(())
}

#[plugin_fn]
pub fn fail(lines: String) -> FnResult<()> {
    let (code, message) = split(&lines);
    Err(WithReturnCode::new(Error::msg(message.to_owned()), code.parse()?))
}

#[plugin_fn]
pub fn panic() -> FnResult<()> {
    panic!("as it was asked to")
}

#[plugin_fn]
pub fn log_message(lines: String) -> FnResult<()> {
    let (level, message) = split(&lines);
    match level {
        "trace" => log!(LogLevel::Trace, "{message}"),
        "debug" => debug!("{message}"),
        "info" => info!("{message}"),
        "warn" => warn!("{message}"),
        "error" => error!("{message}"),
        other => return Err(code_1(Error::msg(format!("no level {other}")))),
    }
    Ok(())
}

#[plugin_fn]
pub fn add(text: String) -> FnResult<Json<Sum>> {
    let numbers: Numbers = json::from_str(&text).map_err(code_1)?;
    Ok(Json(Sum { sum: numbers.a + numbers.b }))
}

#[plugin_fn]
pub fn http(lines: String) -> FnResult<String> {
    let (method, rest) = split(&lines);
    let (url, mut rest) = split(rest);
    let mut request = HttpRequest::new(url).with_method(method);
    loop {
        let (line, next) = split(rest);
        rest = next;
        let Some((name, value)) = line.split_once(": ") else { break };
        request = request.with_header(name, value);
    }
    let body = (!rest.is_empty()).then_some(rest);
    let response = http::request::<&str>(&request, body)?;
    let answer = response.header("x-answer").unwrap_or("-");
    Ok(format!("{}\n{answer}\n{}", response.status_code(), String::from_utf8(response.body())?))
}

#[plugin_fn]
pub fn call_i32(value: String) -> FnResult<String> {
    Ok(unsafe { host_i32(value.parse()?) }.to_string())
}

#[plugin_fn]
pub fn call_i64(value: String) -> FnResult<String> {
    Ok(unsafe { host_i64(value.parse()?) }.to_string())
}

#[plugin_fn]
pub fn call_f32(value: String) -> FnResult<String> {
    Ok(unsafe { host_f32(value.parse()?) }.to_string())
}

#[plugin_fn]
pub fn call_f64(value: String) -> FnResult<String> {
    Ok(unsafe { host_f64(value.parse()?) }.to_string())
}

#[plugin_fn]
pub fn call_text(text: String) -> FnResult<String> {
    Ok(unsafe { host_text(&text)? })
}

#[plugin_fn]
pub fn call_bytes(bytes: Vec<u8>) -> FnResult<Vec<u8>> {
    Ok(unsafe { host_bytes(bytes)? })
}

#[plugin_fn]
pub fn call_json(numbers: Json<Numbers>) -> FnResult<Json<Sum>> {
    Ok(unsafe { host_json(numbers)? })
}

#[plugin_fn]
pub fn call_other() -> FnResult<()> {
    unsafe { host_other()? };
    Ok(())
}

#[plugin_fn]
pub fn churn(count: String) -> FnResult<String> {
    let block = [0; 65536];
    for _ in 0..count.parse::<u32>()? {
        Memory::from_bytes(&block[..])?.free();
    }
    Ok(count)
}
