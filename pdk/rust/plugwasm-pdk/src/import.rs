//! How values pass to host functions and back: numbers as they are, all else as blocks.

use crate::{Block, Error, FromBytes, Result, ToBytes};

/// A type that a host function can take.
pub trait Argument {
    /// What is passed.
    type Value;
    /// What keeps it alive during the call.
    type Kept: Passed<Self::Value>;

    /// Makes what is passed.
    ///
    /// # Errors
    ///
    /// The value cannot be written, or the host has no room.
    fn pass(self) -> Result<Self::Kept>;
}

/// What is passed, alive during the call.
pub trait Passed<Value> {
    /// The number that is passed.
    fn value(&self) -> Value;
}

/// A type that a host function can return.
pub trait Returned: Sized {
    /// What is returned.
    type Value;

    /// Reads it.
    ///
    /// # Errors
    ///
    /// It is not of this type.
    fn receive(value: Self::Value) -> Result<Self>;
}

/// What a function returns that other modules of the plugin call.
pub trait SharedResult {
    /// What is returned.
    type Value;

    /// Writes it. An error ends the call.
    fn answer(self) -> Self::Value;
}

impl Passed<u64> for Block {
    fn value(&self) -> u64 {
        self.handle()
    }
}

impl Returned for () {
    type Value = ();

    fn receive((): ()) -> Result<Self> {
        Ok(())
    }
}

impl SharedResult for Result<()> {
    type Value = ();

    fn answer(self) {
        self.unwrap_or_else(|error| end(&error));
    }
}

/// Ends the call with an error.
fn end(error: &Error) -> ! {
    if let Ok(block) = Block::new(error.message().as_bytes()) {
        // SAFETY: the function takes any number.
        unsafe { crate::env::error_set(block.into_handle()) };
    }
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    panic!("{error}");
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Argument for $number {
            type Value = $number;
            type Kept = $number;

            fn pass(self) -> Result<Self> {
                Ok(self)
            }
        }

        impl Passed<$number> for $number {
            fn value(&self) -> $number {
                *self
            }
        }

        impl Returned for $number {
            type Value = $number;

            fn receive(value: $number) -> Result<Self> {
                Ok(value)
            }
        }

        impl SharedResult for Result<$number> {
            type Value = $number;

            fn answer(self) -> $number {
                self.unwrap_or_else(|error| end(&error))
            }
        }
    )*};
}

numbers!(i32, u32, i64, u64, f32, f64);

macro_rules! blocks {
    ($([$($generics:tt)*] $type:ty),* $(,)?) => {$(
        impl<$($generics)*> Argument for $type {
            type Value = u64;
            type Kept = Block;

            fn pass(self) -> Result<Block> {
                self.to_block()
            }
        }
    )*};
}

macro_rules! returned_blocks {
    ($([$($generics:tt)*] $type:ty),* $(,)?) => {$(
        impl<$($generics)*> Returned for $type {
            type Value = u64;

            fn receive(value: u64) -> Result<Self> {
                <$type>::from_bytes(Block::from_handle(value).to_vec())
            }
        }
    )*};
}

macro_rules! shared_blocks {
    ($([$($generics:tt)*] $type:ty),* $(,)?) => {$(
        impl<$($generics)*> SharedResult for Result<$type> {
            type Value = u64;

            fn answer(self) -> u64 {
                self.and_then(|value| value.to_block())
                    .unwrap_or_else(|error| end(&error))
                    .into_handle()
            }
        }
    )*};
}

blocks!([] &str, [] alloc::string::String, [] &[u8], [] alloc::vec::Vec<u8>);
returned_blocks!([] alloc::string::String, [] alloc::vec::Vec<u8>);
shared_blocks!([] alloc::string::String, [] alloc::vec::Vec<u8>);

#[cfg(feature = "json")]
blocks!([T: serde::Serialize] crate::Json<T>);
#[cfg(feature = "json")]
returned_blocks!([T: serde::de::DeserializeOwned] crate::Json<T>);
#[cfg(feature = "json")]
shared_blocks!([T: serde::Serialize] crate::Json<T>);
#[cfg(feature = "msgpack")]
blocks!([T: serde::Serialize] crate::Msgpack<T>);
#[cfg(feature = "msgpack")]
returned_blocks!([T: serde::de::DeserializeOwned] crate::Msgpack<T>);
#[cfg(feature = "msgpack")]
shared_blocks!([T: serde::Serialize] crate::Msgpack<T>);

impl Argument for Block {
    type Value = u64;
    type Kept = Block;

    fn pass(self) -> Result<Block> {
        Ok(self)
    }
}

impl Returned for Block {
    type Value = u64;

    fn receive(value: u64) -> Result<Self> {
        Ok(Self::from_handle(value))
    }
}
