//! Functions that another module of the same plugin calls.

use plugwasm_pdk::*;

#[shared_fn]
pub fn add(a: i32, b: i64) -> SharedFnResult<i64> {
    Ok(i64::from(a) + b)
}

#[shared_fn]
pub fn shout(text: String) -> SharedFnResult<String> {
    Ok(text.to_uppercase())
}

#[shared_fn]
pub fn refuse(reason: String) -> SharedFnResult<()> {
    Err(Error::new(reason))
}

#[shared_fn]
pub fn r#type() -> SharedFnResult<String> {
    Ok("a keyword".into())
}
