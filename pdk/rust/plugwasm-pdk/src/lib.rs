//! Write plugins in Rust, for every host of the Extism contract.
//!
//! ```
//! use plugwasm_pdk::*;
//!
//! #[plugin_fn]
//! pub fn greet(name: String) -> FnResult<String> {
//!     Ok(format!("Hello, {name}!"))
//! }
//! ```
//!
//! The crate is a `cdylib`, built for `wasm32-unknown-unknown` or, if it needs files or clocks,
//! `wasm32-wasip1`:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//! ```
//!
//! # Functions
//!
//! A [`plugin_fn`] takes the input, or nothing, and returns a [`FnResult`]. Input and output are
//! anything that converts ([`FromBytes`], [`ToBytes`]): `Vec<u8>`, `String`, numbers (in decimal
//! form), `()`, `Option` (no bytes are `None`), [`Json`], [`Msgpack`]. An error ends the call: the
//! host gets its message and a return code, 1 or that of [`Error::with_code`]. A panic ends the
//! call with a trap. `#[plugin_fn("countVowels")]` exports a function under another name.
//! On `wasm32-wasip1`, names that the C library has, such as `exit` or `read`, are not exported.
//!
//! # Host functions
//!
//! ```no_run
//! use plugwasm_pdk::*;
//!
//! #[host_fn]
//! extern "C" {
//!     /// Functions of the namespace `extism:host/user`, with the types of the values.
//!     fn translate(text: &str) -> String;
//!     fn add(a: i64, b: i64) -> i64;
//! }
//!
//! #[host_fn("my:namespace")]
//! extern "C" {
//!     fn notify(event: Json<u32>);
//! }
//!
//! #[plugin_fn]
//! pub fn run(text: String) -> FnResult<String> {
//!     notify(Json(7))?;
//!     translate(&text)
//! }
//! ```
//!
//! Numbers (`i32`, `i64`, `f32`, `f64`) pass as they are, text, bytes and [`Json`] as blocks of the
//! host's memory, which are freed. `#[link_name = "addOne"]` before a function is the name that the
//! host gives it. A [`shared_fn`] is the reverse: a function that other modules of
//! the same plugin import.
//!
//! # Features
//!
//! - `json` (default): [`Json`] and [`http`].
//! - `msgpack`: [`Msgpack`].
//!
//! Without both, the crate needs no other, and no `std`.

#![no_std]

extern crate alloc;

pub mod config;
mod convert;
#[allow(missing_docs)]
pub mod env;
mod error;
#[doc(hidden)]
pub mod export;
#[cfg(feature = "json")]
pub mod http;
#[doc(hidden)]
pub mod import;
pub mod log;
mod memory;
pub mod var;

#[cfg(feature = "json")]
pub use convert::Json;
#[cfg(feature = "msgpack")]
pub use convert::Msgpack;
pub use convert::{FromBytes, ToBytes};
pub use error::{Error, FnResult, Result, SharedFnResult};
pub use log::Level;
pub use memory::Block;
pub use plugwasm_pdk_macros::{host_fn, plugin_fn, shared_fn};

#[doc(hidden)]
pub use alloc::format as __format;
