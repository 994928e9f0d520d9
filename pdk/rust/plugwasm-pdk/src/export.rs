//! What the exports made by `plugin_fn` run.

use crate::{env, memory, Block, Error, FromBytes, ToBytes};

/// Runs a function without an input.
pub fn run0<Out: ToBytes, E: Into<Error>>(function: impl FnOnce() -> Result<Out, E>) -> i32 {
    finish(function().map_err(Into::into))
}

/// Runs a function on the input.
pub fn run1<In: FromBytes, Out: ToBytes, E: Into<Error>>(
    function: impl FnOnce(In) -> Result<Out, E>,
) -> i32 {
    finish(
        In::from_bytes(memory::read_input()).and_then(|input| function(input).map_err(Into::into)),
    )
}

fn finish<Out: ToBytes>(result: Result<Out, Error>) -> i32 {
    match result.and_then(|output| output.to_block()) {
        Ok(block) => {
            let size = block.len() as u64;
            // SAFETY: the function takes any numbers.
            unsafe { env::output_set(block.into_handle(), size) };
            0
        }
        Err(error) => {
            if let Ok(block) = Block::new(error.message().as_bytes()) {
                // SAFETY: the function takes any number.
                unsafe { env::error_set(block.into_handle()) };
            }
            error.code()
        }
    }
}
