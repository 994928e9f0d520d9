//! The test plugin of the conformance suite in Rust.

use plugwasm_pdk::*;
use serde::{Deserialize, Serialize};

#[host_fn]
extern "C" {
    fn host_i32(value: i32) -> i32;
    fn host_i64(value: i64) -> i64;
    fn host_f32(value: f32) -> f32;
    fn host_f64(value: f64) -> f64;
    fn host_text(text: &str) -> String;
    fn host_bytes(bytes: &[u8]) -> Vec<u8>;
    fn host_json(numbers: Json<Numbers>) -> Json<Sum>;
}

#[host_fn("conformance:host")]
extern "C" {
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

#[plugin_fn]
fn echo(bytes: Vec<u8>) -> FnResult<Vec<u8>> {
    Ok(bytes)
}

#[plugin_fn]
fn utf8(text: String) -> FnResult<u64> {
    Ok(text.chars().count() as u64)
}

#[derive(Serialize)]
struct Count {
    count: u64,
    total: u64,
    vowels: String,
}

#[plugin_fn]
fn count_vowels(text: String) -> FnResult<Json<Count>> {
    let vowels = config::get("vowels")?.unwrap_or_else(|| "aeiouAEIOU".into());
    let count = text.chars().filter(|&character| vowels.contains(character)).count() as u64;
    let before = var::get::<Vec<u8>>("total")?.and_then(|bytes| bytes.try_into().ok());
    let total = count + before.map_or(0, u64::from_le_bytes);
    var::set("total", &total.to_le_bytes()[..])?;
    Ok(Json(Count { count, total, vowels }))
}

#[plugin_fn]
fn config_get(key: String) -> FnResult<String> {
    Ok(describe(config::get(&key)?))
}

#[plugin_fn]
fn var_get(name: String) -> FnResult<String> {
    Ok(describe(var::get(&name)?))
}

#[plugin_fn]
fn var_set(lines: String) -> FnResult<()> {
    let (name, value) = split(&lines);
    var::set(name, value)
}

#[plugin_fn]
fn var_delete(name: String) -> FnResult<()> {
    var::remove(&name)
}

#[plugin_fn]
fn fail(lines: String) -> FnResult<()> {
    let (code, message) = split(&lines);
    Err(Error::with_code(code.parse()?, message.to_owned()))
}

#[plugin_fn]
fn panic() -> FnResult<()> {
    panic!("as it was asked to")
}

#[plugin_fn]
fn log_message(lines: String) -> FnResult<()> {
    let (level, message) = split(&lines);
    match level {
        "trace" => trace!("{message}"),
        "debug" => debug!("{message}"),
        "info" => info!("{message}"),
        "warn" => warn!("{message}"),
        "error" => error!("{message}"),
        other => return Err(fail!("no level {other}")),
    }
    Ok(())
}

#[plugin_fn]
fn add(Json(numbers): Json<Numbers>) -> FnResult<Json<Sum>> {
    Ok(Json(Sum { sum: numbers.a + numbers.b }))
}

#[plugin_fn]
fn http(lines: String) -> FnResult<String> {
    let (method, rest) = split(&lines);
    let (url, mut rest) = split(rest);
    let mut request = http::Request::new(url).method(method);
    loop {
        let (line, next) = split(rest);
        rest = next;
        let Some((name, value)) = line.split_once(": ") else { break };
        request = request.header(name, value);
    }
    let response = request.body(rest)?.send()?;
    let answer = response.header("x-answer").unwrap_or("-");
    Ok(format!("{}\n{answer}\n{}", response.status(), response.body::<String>()?))
}

#[plugin_fn]
fn call_i32(value: i32) -> FnResult<i32> {
    host_i32(value)
}

#[plugin_fn]
fn call_i64(value: i64) -> FnResult<i64> {
    host_i64(value)
}

#[plugin_fn]
fn call_f32(value: f32) -> FnResult<f32> {
    host_f32(value)
}

#[plugin_fn]
fn call_f64(value: f64) -> FnResult<f64> {
    host_f64(value)
}

#[plugin_fn]
fn call_text(text: String) -> FnResult<String> {
    host_text(&text)
}

#[plugin_fn]
fn call_bytes(bytes: Vec<u8>) -> FnResult<Vec<u8>> {
    host_bytes(&bytes)
}

#[plugin_fn]
fn call_json(numbers: Json<Numbers>) -> FnResult<Json<Sum>> {
    host_json(numbers)
}

#[plugin_fn]
fn call_other() -> FnResult<()> {
    host_other()
}

#[plugin_fn]
fn churn(count: u32) -> FnResult<u32> {
    for _ in 0..count {
        // SAFETY: any number may be asked for.
        drop(Block::from_handle(unsafe { env::alloc(65536) }));
    }
    Ok(count)
}
