"""The engine's library: what is declared of it exists, though each function is made on first use."""

from __future__ import annotations

import pytest

from plugwasm._engine import ffi


@pytest.mark.parametrize("name", sorted(ffi._DECLARATIONS))
def test_declared_function_exists(name: str) -> None:
    """The library has each declared function, which is made once, with its types."""
    function = getattr(ffi.lib, name)
    result, parameters = ffi._DECLARATIONS[name]
    assert (function.restype, list(function.argtypes)) == (result, parameters)
    assert getattr(ffi.lib, name) is function


def test_unlocked_functions_are_declared() -> None:
    """Whether a function is called without Python's lock is said only of functions that exist."""
    assert set(ffi._UNLOCKED) <= ffi._DECLARATIONS.keys()
    assert ffi._ALIASES.keys() <= ffi._DECLARATIONS.keys()
    assert ffi.lib.wasmtime_instance_new is not ffi.lib.wasmtime_instance_new_without_start


def test_undeclared_function_is_refused() -> None:
    """A function that is not declared cannot be called with just any arguments."""
    with pytest.raises(AttributeError, match="`wasm_nothing` is not declared"):
        _ = ffi.lib.wasm_nothing
