//! The config that the host gave.

use alloc::string::String;

use crate::{env, Block, Error, FromBytes, Result};

/// Returns a value, or None. An empty value counts as not set.
///
/// # Errors
///
/// The host has no room for the key.
pub fn get(key: &str) -> Result<Option<String>> {
    let key = Block::new(key.as_bytes())?.into_handle();
    let value = Block::from_handle(unsafe { env::config_get(key) });
    if value.is_none() {
        return Ok(None);
    }
    String::from_bytes(value.to_vec())
        .map(Some)
        .map_err(|_| Error::new("a config value is not UTF-8"))
}
