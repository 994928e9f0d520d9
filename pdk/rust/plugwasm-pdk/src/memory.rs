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
        // Safety: these functions take any numbers.
        let handle = unsafe { env::alloc(bytes.len() as u64) };
        if handle == 0 {
            return Err(Error::new("the host has no memory left"));
        }
        let (words, rest) = bytes.split_at(bytes.len() & !7);
        let mut at = handle;
        for word in words.chunks_exact(8) {
            let word = u64::from_le_bytes([
                word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
            ]);
            unsafe { env::store_u64(at, word) };
            at += 8;
        }
        for &byte in rest {
            unsafe { env::store_u8(at, byte) };
            at += 1;
        }
        Ok(Self { handle })
    }

    /// Owns a block that the host returned.
    pub const fn from_handle(handle: u64) -> Self {
        Self { handle }
    }

    /// The handle. The block stays this object's.
    pub const fn handle(&self) -> u64 {
        self.handle
    }

    /// The handle, whose block is the caller's, or the host's, from now on.
    pub fn into_handle(self) -> u64 {
        core::mem::ManuallyDrop::new(self).handle
    }

    /// Whether there is no block.
    pub const fn is_none(&self) -> bool {
        self.handle == 0
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        if self.is_none() {
            0
        } else {
            unsafe { env::length(self.handle) as usize }
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let handle = self.handle;
        read(
            self.len(),
            |at| unsafe { env::load_u64(handle + at) },
            |at| unsafe { env::load_u8(handle + at) },
        )
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.handle != 0 {
            unsafe { env::free(self.handle) }
        }
    }
}

/// Returns the input of the call.
pub(crate) fn read_input() -> Vec<u8> {
    let size = unsafe { env::input_length() } as usize;
    read(size, |at| unsafe { env::input_load_u64(at) }, |at| unsafe { env::input_load_u8(at) })
}

/// Copies so many bytes, eight at a time, from offset 0 on.
#[inline]
fn read(size: usize, word: impl Fn(u64) -> u64, byte: impl Fn(u64) -> u8) -> Vec<u8> {
    let mut bytes = Vec::<u8>::with_capacity(size);
    let to = bytes.as_mut_ptr();
    let whole = size & !7;
    for at in (0..whole).step_by(8) {
        // Safety: at + 8 is at most `size`, for which there is room.
        unsafe { to.add(at).cast::<u64>().write_unaligned(word(at as u64).to_le()) };
    }
    for at in whole..size {
        // Safety: at is less than `size`.
        unsafe { to.add(at).write(byte(at as u64)) };
    }
    // Safety: all `size` bytes were written.
    unsafe { bytes.set_len(size) };
    bytes
}
