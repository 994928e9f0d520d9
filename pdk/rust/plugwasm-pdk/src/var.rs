//! Vars, which the host keeps from one call to the next.

use crate::{env, Block, FromBytes, Result, ToBytes};

/// Returns a value, or None.
///
/// # Errors
///
/// The value is not of that type, or the host has no room for the name.
pub fn get<T: FromBytes>(name: &str) -> Result<Option<T>> {
    let name = Block::new(name.as_bytes())?.into_handle();
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
    unsafe { env::var_set(name, 0) };
    Ok(())
}
