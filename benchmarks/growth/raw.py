"""Calls into and out of compiled code through ctypes alone, without plugwasm.

They are the floor of what a call and a host function can take in Python: what plugwasm adds to them
is its own.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from wasmtime import Engine, Func, Instance, Module, Store, _ffi

if TYPE_CHECKING:
    from collections.abc import Callable

_POINTER = ctypes.c_void_p


def c_function() -> Callable[[], object]:
    """Return a call of a C function that does nothing."""
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = [_POINTER, _POINTER, ctypes.c_size_t]
    here = ctypes.create_string_buffer(8)
    address = ctypes.addressof(here)

    def call() -> object:
        return compare(address, address, 0)

    call.kept = here  # type: ignore[attr-defined]
    return call


def compiled_function() -> Callable[[], object]:
    """Return a call of a compiled function that does nothing."""
    store = Store(Engine())
    module = Module(store.engine, '(module (func (export "run")))')
    return _entry(store, Instance(store, module, []))


def host_function(rounds: int) -> Callable[[], object]:
    """Return a call of a compiled function that calls a Python function so many times, which does
    nothing."""
    store = Store(Engine())
    module = Module(
        store.engine,
        f"""(module (import "" "" (func $host)) (func (export "run") (local $i i32)
          (loop $next (call $host)
            (br_if $next (i32.lt_u
              (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {rounds}))))))""",
    )
    type_ = ctypes.CFUNCTYPE(_POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_size_t)
    callback = type_(lambda data, caller, values, count: None)
    make = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, type_, _POINTER, _POINTER, _POINTER)(
        ("wasmtime_func_new_unchecked", _ffi.dll)
    )
    signature = module.imports[0].type.ptr()
    raw = _ffi.wasmtime_func_t()
    make(
        ctypes.cast(store._context(), _POINTER),
        ctypes.cast(signature, _POINTER),
        callback,
        None,
        None,
        ctypes.addressof(raw),
    )
    call = _entry(store, Instance(store, module, [Func._from_raw(raw)]))
    call.callback = callback  # type: ignore[attr-defined]
    return call


def _entry(store: Store, instance: Instance) -> Callable[[], object]:
    entry = ctypes.CFUNCTYPE(_POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_size_t, _POINTER)(
        ("wasmtime_func_call_unchecked", _ffi.dll)
    )
    function: Any = instance.exports(store)["run"]
    context = ctypes.cast(store._context(), _POINTER).value
    raw, trap, values = function._func, ctypes.c_void_p(), (ctypes.c_uint64 * 4)()
    at, trap_at, values_at = map(ctypes.addressof, (raw, trap, values))

    def call() -> object:
        return entry(context, at, values_at, 2, trap_at)

    call.kept = store, instance, function, raw, trap, values  # type: ignore[attr-defined]
    return call
