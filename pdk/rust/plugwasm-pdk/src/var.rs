//! Vars, which the host keeps from one call to the next.
//!
//! ```no_run
//! use plugwasm_pdk::*;
//!
//! #[plugin_fn]
//! pub fn visit() -> FnResult<u64> {
//!     let visits = var::get::<u64>("visits")?.unwrap_or(0) + 1;
//!     var::set("visits", visits)?;
//!     Ok(visits)
//! }
//! ```

use crate::{env, Block, FromBytes, Result, ToBytes};

/// Returns a value, or None.
///
/// # Errors
///
/// The value is not of that type, or the host has no room for the name.
pub fn get<T: FromBytes>(name: &str) -> Result<Option<T>> {
    let name = Block::new(name.as_bytes())?.into_handle();
    // SAFETY: the function takes any number.
    let value = Block::from_handle(unsafe { env::var_get(name) });
    if value.is_none() {
        return Ok(None);
    }
    T::from_bytes(value.to_vec()).map(Some)
}

/// Sets a value. An empty one removes the var. The call fails if the host's limit is exceeded.
///
/// # Errors
///
/// The value cannot be written, or the host has no room.
pub fn set(name: &str, value: impl ToBytes) -> Result<()> {
    let name = Block::new(name.as_bytes())?;
    let value = value.to_block()?;
    // SAFETY: the function takes any numbers.
    unsafe { env::var_set(name.into_handle(), value.into_handle()) };
    Ok(())
}

/// Removes a var.
///
/// # Errors
///
/// The host has no room for the name.
pub fn remove(name: &str) -> Result<()> {
    let name = Block::new(name.as_bytes())?.into_handle();
    // SAFETY: the function takes any numbers.
    unsafe { env::var_set(name, 0) };
    Ok(())
}
