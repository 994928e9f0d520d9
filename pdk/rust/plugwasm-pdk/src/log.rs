//! Logging. The macros [`trace!`](crate::trace), [`debug!`](crate::debug), [`info!`](crate::info),
//! [`warn!`](crate::warn) and [`error!`](crate::error) format nothing unless the host listens.

use crate::{env, Block};

/// The level of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// See [`trace!`](crate::trace).
    Trace,
    /// See [`debug!`](crate::debug).
    Debug,
    /// See [`info!`](crate::info).
    Info,
    /// See [`warn!`](crate::warn).
    Warn,
    /// See [`error!`](crate::error).
    Error,
}

/// Returns whether the host keeps messages of this level.
#[must_use]
pub fn is_enabled(level: Level) -> bool {
    // SAFETY: the function takes nothing.
    level as i32 >= unsafe { env::get_log_level() }
}

/// Logs a message. It is lost if the host has no room for it.
pub fn write(level: Level, message: &str) {
    let Ok(text) = Block::new(message.as_bytes()) else { return };
    let text = text.into_handle();
    // SAFETY: these functions take any numbers.
    unsafe {
        match level {
            Level::Trace => env::log_trace(text),
            Level::Debug => env::log_debug(text),
            Level::Info => env::log_info(text),
            Level::Warn => env::log_warn(text),
            Level::Error => env::log_error(text),
        }
    }
}

/// Logs a formatted message at a level. Nothing is formatted unless the host listens.
///
/// ```no_run
/// use plugwasm_pdk::*;
///
/// #[plugin_fn]
/// pub fn greet(name: String) -> FnResult<String> {
///     debug!("greeting {name}, of {} bytes", name.len());
///     log!(if name.is_empty() { Level::Warn } else { Level::Trace }, "done");
///     Ok(format!("Hello, {name}!"))
/// }
/// ```
#[macro_export]
macro_rules! log {
    ($level:expr, $($message:tt)+) => {{
        let level: $crate::Level = $level;
        if $crate::log::is_enabled(level) {
            $crate::log::write(level, &$crate::__format!($($message)+));
        }
    }};
}

/// Logs at level trace.
#[macro_export]
macro_rules! trace { ($($message:tt)+) => { $crate::log!($crate::Level::Trace, $($message)+) }; }

/// Logs at level debug.
#[macro_export]
macro_rules! debug { ($($message:tt)+) => { $crate::log!($crate::Level::Debug, $($message)+) }; }

/// Logs at level info.
#[macro_export]
macro_rules! info { ($($message:tt)+) => { $crate::log!($crate::Level::Info, $($message)+) }; }

/// Logs at level warn.
#[macro_export]
macro_rules! warn { ($($message:tt)+) => { $crate::log!($crate::Level::Warn, $($message)+) }; }

/// Logs at level error.
#[macro_export]
macro_rules! error { ($($message:tt)+) => { $crate::log!($crate::Level::Error, $($message)+) }; }
