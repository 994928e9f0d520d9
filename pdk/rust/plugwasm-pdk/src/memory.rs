//! Blocks of the host's memory.

use alloc::vec::Vec;

use crate::{env, Error, Result};

/// A block of the host's memory, freed when it is dropped. It may be none: handle 0.
#[derive(Debug, Default)]
pub struct Block {
    handle: u64,
}

impl Block {
    /// Copies bytes into a new block. No bytes are no block.
    ///
    /// # Errors
    ///
    /// The host has no room for them.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        // SAFETY: the function takes any number.
        let handle = unsafe { env::alloc(bytes.len() as u64) };
        if handle == 0 {
            return Err(Error::new("the host has no memory left"));
        }
        let from = bytes.as_ptr();
        copy(
            bytes.len(),
            // SAFETY: `copy` names whole words, and bytes, of so many bytes.
            |at| unsafe {
                let word = from.add(at).cast::<u64>().read_unaligned();
                env::store_u64(handle + at as u64, word.to_le());
            },
            // SAFETY: as above.
            |at| unsafe { env::store_u8(handle + at as u64, from.add(at).read()) },
        );
        Ok(Self { handle })
    }

    /// Owns a block that the host returned.
    #[must_use]
    pub const fn from_handle(handle: u64) -> Self {
        Self { handle }
    }

    /// The handle. The block stays this object's.
    #[must_use]
    pub const fn handle(&self) -> u64 {
        self.handle
    }

    /// The handle, whose block is the caller's, or the host's, from now on.
    #[must_use]
    pub fn into_handle(self) -> u64 {
        core::mem::ManuallyDrop::new(self).handle
    }

    /// Whether there is no block.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.handle == 0
    }

    /// The size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.is_none() {
            0
        } else {
            // SAFETY: the function takes any number.
            to_usize(unsafe { env::length(self.handle) })
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a copy of the bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let handle = self.handle;
        read(
            self.len(),
            // SAFETY: these functions take any number.
            |at| unsafe { env::load_u64(handle + at) },
            // SAFETY: as above.
            |at| unsafe { env::load_u8(handle + at) },
        )
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.handle != 0 {
            // SAFETY: the block is this object's, and nobody uses it after this.
            unsafe { env::free(self.handle) }
        }
    }
}

/// Returns the input of the call.
pub(crate) fn read_input() -> Vec<u8> {
    // SAFETY: these functions take any number.
    read(
        to_usize(unsafe { env::input_length() }),
        // SAFETY: as above.
        |at| unsafe { env::input_load_u64(at) },
        // SAFETY: as above.
        |at| unsafe { env::input_load_u8(at) },
    )
}

/// A size in memory that a plugin can have, whose addresses have 32 bits.
#[allow(clippy::cast_possible_truncation)]
const fn to_usize(size: u64) -> usize {
    size as usize
}

/// Copies so many bytes, from offset 0 on.
#[inline]
fn read(size: usize, word: impl Fn(u64) -> u64, byte: impl Fn(u64) -> u8) -> Vec<u8> {
    let mut bytes = Vec::<u8>::with_capacity(size);
    let to = bytes.as_mut_ptr();
    copy(
        size,
        // SAFETY: `copy` names whole words, and bytes, of the `size` bytes for which there is room.
        |at| unsafe { to.add(at).cast::<u64>().write_unaligned(word(at as u64).to_le()) },
        // SAFETY: as above.
        |at| unsafe { to.add(at).write(byte(at as u64)) },
    );
    // SAFETY: all `size` bytes were written.
    unsafe { bytes.set_len(size) };
    bytes
}

/// Calls `word` for each whole word of so many bytes, and `byte` for each byte after them, with its
/// offset. Four words a turn are twice as fast as one.
#[inline]
fn copy(size: usize, word: impl Fn(usize), byte: impl Fn(usize)) {
    let mut at = 0;
    while size - at >= 32 {
        word(at);
        word(at + 8);
        word(at + 16);
        word(at + 24);
        at += 32;
    }
    while size - at >= 8 {
        word(at);
        at += 8;
    }
    while at < size {
        byte(at);
        at += 1;
    }
}
