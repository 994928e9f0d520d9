//! The config that the host gave.

use alloc::string::String;

use crate::{env, Block, Error, FromBytes, Result};

/// Returns a value, or None. An empty value counts as not set.
///
/// ```no_run
/// # use plugwasm_pdk::*;
/// # fn f() -> Result<()> {
/// let greeting = config::get("greeting")?.unwrap_or_else(|| "Hello".into());
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// The value is not UTF-8, or the host has no room for the key.
pub fn get(key: &str) -> Result<Option<String>> {
    let key = Block::new(key.as_bytes())?.into_handle();
    // SAFETY: the function takes any number.
    let value = Block::from_handle(unsafe { env::config_get(key) });
    if value.is_none() {
        return Ok(None);
    }
    String::from_bytes(value.to_vec())
        .map(Some)
        .map_err(|_| Error::new("a config value is not UTF-8"))
}
