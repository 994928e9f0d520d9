//! Values of all kinds, and calls of the functions in `shared.rs`.

use plugwasm_pdk::*;
use serde::{Deserialize, Serialize};

#[host_fn("shared")]
extern "C" {
    fn add(a: i32, b: i64) -> i64;
    fn shout(text: &str) -> String;
    fn refuse(reason: &str);
    fn r#type() -> String;
}

#[plugin_fn]
fn call_add(a: i32) -> FnResult<i64> {
    add(a, 1 << 40)
}

#[plugin_fn]
fn call_shout(text: String) -> FnResult<String> {
    shout(&text)
}

#[plugin_fn]
fn call_refuse(reason: String) -> FnResult<()> {
    refuse(&reason)
}

#[plugin_fn]
fn r#match() -> FnResult<String> {
    r#type()
}

#[derive(Deserialize, Serialize)]
struct Point {
    x: f64,
    name: Option<String>,
}

#[plugin_fn]
fn mirror(Msgpack(point): Msgpack<Point>) -> FnResult<Msgpack<Point>> {
    Ok(Msgpack(Point { x: -point.x, ..point }))
}

#[plugin_fn]
fn optional(number: Option<u16>) -> FnResult<Option<u16>> {
    Ok(number.map(|number| number - 1))
}

#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("refused")
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&std::fmt::Error)
    }
}

#[plugin_fn]
fn error_of_a_crate() -> FnResult<()> {
    Err(Refused)?
}
