//! Errors, which end a call.

use alloc::borrow::Cow;
use alloc::string::ToString;
use core::fmt;

/// What a call ends with: a message and a return code for the host.
///
/// Any error type converts to it (with `?`), with code 1. The message has its causes, too.
///
/// ```
/// use plugwasm_pdk::*;
///
/// fn parse(text: &str) -> Result<u32> {
///     match text.trim() {
///         "" => Err(fail!(2, "a number is expected")),
///         number => Ok(number.parse()?),
///     }
/// }
///
/// assert_eq!(parse("").unwrap_err().code(), 2);
/// assert_eq!(parse("x").unwrap_err().message(), "invalid digit found in string");
/// ```
pub struct Error {
    message: Cow<'static, str>,
    code: i32,
}

impl Error {
    /// An error with code 1.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self::with_code(1, message)
    }

    /// An error with another code. A code of 0 is still an error.
    pub fn with_code(code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), code }
    }

    /// The return code for the host.
    #[must_use]
    pub const fn code(&self) -> i32 {
        self.code
    }

    /// The message for the host.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: core::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = alloc::format!("{message}: {error}");
            cause = error.source();
        }
        Self::new(message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (code {})", self.message, self.code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// A result whose error ends the call, unless another type of error is named.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What a plugin's function returns. Its error may be anything that converts to [`Error`].
pub type FnResult<T, E = Error> = core::result::Result<T, E>;

/// What a [`shared_fn`](crate::shared_fn) returns.
pub type SharedFnResult<T> = Result<T>;

/// An error with a message, and a code if one is given first:
/// `return Err(fail!(42, "no {name}"))`.
#[macro_export]
macro_rules! fail {
    ($code:literal, $($message:tt)+) => { $crate::Error::with_code($code, $crate::__format!($($message)+)) };
    ($($message:tt)+) => { $crate::Error::new($crate::__format!($($message)+)) };
}
