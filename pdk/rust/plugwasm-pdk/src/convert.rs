//! How inputs and outputs convert.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::{Block, Error, Result};

/// A type that an input, or the result of a host function, can be read as.
///
/// ```
/// use plugwasm_pdk::{Error, FromBytes, Result};
///
/// struct Celsius(f64);
///
/// impl FromBytes for Celsius {
///     fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
///         let degrees = f64::from_bytes(bytes)?;
///         if degrees < -273.15 {
///             return Err(Error::new("colder than anything"));
///         }
///         Ok(Self(degrees))
///     }
/// }
///
/// assert!(Celsius::from_bytes(b"-300".to_vec()).is_err());
/// ```
pub trait FromBytes: Sized {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// The bytes are not of this type.
    fn from_bytes(bytes: Vec<u8>) -> Result<Self>;
}

/// A type that an output, or an argument of a host function, can be.
pub trait ToBytes {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// The value cannot be written.
    fn to_bytes(&self) -> Result<Vec<u8>>;

    /// Copies it into a block of the host's memory.
    ///
    /// # Errors
    ///
    /// As `to_bytes`, or the host has no room.
    fn to_block(&self) -> Result<Block> {
        Block::new(&self.to_bytes()?)
    }
}

impl FromBytes for Vec<u8> {
    fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Ok(bytes)
    }
}

impl FromBytes for String {
    fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::from_utf8(bytes).map_err(|_| Error::new("the input is not UTF-8"))
    }
}

impl FromBytes for () {
    fn from_bytes(_: Vec<u8>) -> Result<Self> {
        Ok(())
    }
}

impl<T: FromBytes> FromBytes for Option<T> {
    /// No bytes are None.
    fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        if bytes.is_empty() {
            Ok(None)
        } else {
            T::from_bytes(bytes).map(Some)
        }
    }
}

impl ToBytes for [u8] {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.to_vec())
    }

    fn to_block(&self) -> Result<Block> {
        Block::new(self)
    }
}

impl ToBytes for Vec<u8> {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.clone())
    }

    fn to_block(&self) -> Result<Block> {
        Block::new(self)
    }
}

impl ToBytes for str {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.as_bytes().to_vec())
    }

    fn to_block(&self) -> Result<Block> {
        Block::new(self.as_bytes())
    }
}

impl ToBytes for String {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        self.as_str().to_bytes()
    }

    fn to_block(&self) -> Result<Block> {
        self.as_str().to_block()
    }
}

impl ToBytes for () {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

impl<T: ToBytes + ?Sized> ToBytes for &T {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        (**self).to_bytes()
    }

    fn to_block(&self) -> Result<Block> {
        (**self).to_block()
    }
}

impl<T: ToBytes> ToBytes for Option<T> {
    /// None is no bytes.
    fn to_bytes(&self) -> Result<Vec<u8>> {
        self.as_ref().map_or_else(|| Ok(Vec::new()), ToBytes::to_bytes)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl FromBytes for $number {
            /// From its decimal form.
            fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
                let text = String::from_bytes(bytes)?;
                text.trim().parse().map_err(|_| {
                    Error::new(concat!("the input is no number of type ", stringify!($number)))
                })
            }
        }

        impl ToBytes for $number {
            /// In its decimal form.
            fn to_bytes(&self) -> Result<Vec<u8>> {
                Ok(self.to_string().into_bytes())
            }
        }
    )*};
}

numbers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize, f32, f64);

/// A value that is read and written as JSON.
///
/// ```no_run
/// use plugwasm_pdk::*;
///
/// #[plugin_fn]
/// pub fn sum(Json(numbers): Json<Vec<f64>>) -> FnResult<Json<f64>> {
///     Ok(Json(numbers.iter().sum()))
/// }
/// ```
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

#[cfg(feature = "json")]
impl<T: serde::de::DeserializeOwned> FromBytes for Json<T> {
    fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Error::new(alloc::format!("the input is not as expected: {error}")))
    }
}

#[cfg(feature = "json")]
impl<T: serde::Serialize> ToBytes for Json<T> {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.0).map_err(|error| Error::new(error.to_string()))
    }
}

/// A value that is read and written as `MessagePack`, structs with the names of their fields.
#[cfg(feature = "msgpack")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Msgpack<T>(pub T);

#[cfg(feature = "msgpack")]
impl<T: serde::de::DeserializeOwned> FromBytes for Msgpack<T> {
    fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        rmp_serde::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Error::new(alloc::format!("the input is not as expected: {error}")))
    }
}

#[cfg(feature = "msgpack")]
impl<T: serde::Serialize> ToBytes for Msgpack<T> {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        rmp_serde::to_vec_named(&self.0).map_err(|error| Error::new(error.to_string()))
    }
}
