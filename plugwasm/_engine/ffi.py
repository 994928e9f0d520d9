"""The part of Wasmtime's C API that plugwasm uses: the library in the `wasmtime` wheel, its
functions and its structures.

The wheel's own Python wrappers are not imported: they build type objects on each call, which costs
many times what the call itself does, and importing them takes longer than loading the library.

Hot functions have no `argtypes`: they are called with ctypes instances that were made once, which
is faster than converting. The rest declare theirs, so that a wrong argument is an exception instead
of a crash.

Decisions: docs/decisions.md, 1.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import (
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
    py_object,
)

from ..errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TESTED_VERSIONS = ((50, 0, 1), (51, 0, 0))
"""The first version that is known to work, and the first that is not. The C API changes between
major versions.
"""

EXTERN_SIZE = 32
"""Bytes of a `wasmtime_extern_t`: its kind at offset 0, and the function, global, table or memory
at offset 8.
"""
INSTANCE_SIZE = 16

EXTERN_FUNC, EXTERN_GLOBAL, EXTERN_TABLE, EXTERN_MEMORY = 0, 1, 2, 3


class ByteVec(Structure):
    """`wasm_byte_vec_t`: bytes that the library allocated."""

    _fields_ = (("size", c_size_t), ("data", c_void_p))


class PointerVec(Structure):
    """`wasm_importtype_vec_t` and its siblings: pointers that the library allocated."""

    _fields_ = (("size", c_size_t), ("data", POINTER(c_void_p)))


HOST_CALLBACK = ctypes.CFUNCTYPE(c_void_p, py_object, c_void_p, POINTER(c_int64), c_size_t)
"""`wasmtime_func_unchecked_callback_t`: environment, caller, values (two slots of 8 bytes each),
number of values → trap or NULL.
"""
EPOCH_CALLBACK = ctypes.CFUNCTYPE(c_void_p, c_void_p, py_object, POINTER(c_uint64), c_void_p)
"""The epoch deadline callback: context, environment, ticks to add, kind of update → error or NULL.
"""

_PTR, _SIZE, _FLAG = c_void_p, c_size_t, c_bool
_DECLARATIONS: dict[str, tuple[Any, list[Any]]] = {
    "wasm_config_new": (_PTR, []),
    "wasm_engine_new_with_config": (_PTR, [_PTR]),
    "wasmtime_config_epoch_interruption_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_consume_fuel_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_memory_may_move_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_memory_reservation_set": (None, [_PTR, c_uint64]),
    "wasmtime_config_memory_init_cow_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_parallel_compilation_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_max_wasm_stack_set": (None, [_PTR, _SIZE]),
    "wasmtime_config_async_stack_size_set": (None, [_PTR, c_uint64]),
    "wasmtime_config_signals_based_traps_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_wasm_threads_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_shared_memory_set": (None, [_PTR, _FLAG]),
    "wasmtime_config_wasm_gc_set": (None, [_PTR, _FLAG]),
    "wasmtime_pooling_allocation_config_new": (_PTR, []),
    "wasmtime_pooling_allocation_config_delete": (None, [_PTR]),
    "wasmtime_pooling_allocation_config_total_stacks_set": (None, [_PTR, c_uint32]),
    "wasmtime_pooling_allocation_config_total_memories_set": (None, [_PTR, c_uint32]),
    "wasmtime_pooling_allocation_config_total_tables_set": (None, [_PTR, c_uint32]),
    "wasmtime_pooling_allocation_config_table_elements_set": (None, [_PTR, _SIZE]),
    "wasmtime_pooling_allocation_config_total_core_instances_set": (None, [_PTR, c_uint32]),
    "wasmtime_pooling_allocation_config_max_memory_size_set": (None, [_PTR, _SIZE]),
    "wasmtime_pooling_allocation_config_max_memories_per_module_set": (None, [_PTR, c_uint32]),
    "wasmtime_pooling_allocation_config_max_tables_per_module_set": (None, [_PTR, c_uint32]),
    "wasmtime_pooling_allocation_config_linear_memory_keep_resident_set": (None, [_PTR, _SIZE]),
    "wasmtime_pooling_allocation_config_table_keep_resident_set": (None, [_PTR, _SIZE]),
    "wasmtime_pooling_allocation_strategy_set": (None, [_PTR, _PTR]),
    "wasmtime_engine_increment_epoch": (None, [_PTR]),
    "wasm_byte_vec_delete": (None, [POINTER(ByteVec)]),
    "wasmtime_wat2wasm": (_PTR, [c_char_p, _SIZE, POINTER(ByteVec)]),
    "wasmtime_module_new": (_PTR, [_PTR, c_char_p, _SIZE, POINTER(_PTR)]),
    "wasmtime_module_validate": (_PTR, [_PTR, c_char_p, _SIZE]),
    "wasmtime_module_delete": (None, [_PTR]),
    "wasmtime_module_serialize": (_PTR, [_PTR, POINTER(ByteVec)]),
    "wasmtime_module_deserialize": (_PTR, [_PTR, c_char_p, _SIZE, POINTER(_PTR)]),
    "wasmtime_module_deserialize_file": (_PTR, [_PTR, c_char_p, POINTER(_PTR)]),
    "wasmtime_module_image_range": (None, [_PTR, POINTER(_PTR), POINTER(_PTR)]),
    "wasmtime_module_imports": (None, [_PTR, POINTER(PointerVec)]),
    "wasmtime_module_exports": (None, [_PTR, POINTER(PointerVec)]),
    "wasm_importtype_vec_delete": (None, [POINTER(PointerVec)]),
    "wasm_exporttype_vec_delete": (None, [POINTER(PointerVec)]),
    "wasm_importtype_module": (_PTR, [_PTR]),
    "wasm_importtype_name": (_PTR, [_PTR]),
    "wasm_importtype_type": (_PTR, [_PTR]),
    "wasm_exporttype_name": (_PTR, [_PTR]),
    "wasm_exporttype_type": (_PTR, [_PTR]),
    "wasm_externtype_kind": (c_uint8, [_PTR]),
    "wasm_externtype_as_functype_const": (_PTR, [_PTR]),
    "wasm_functype_params": (_PTR, [_PTR]),
    "wasm_functype_results": (_PTR, [_PTR]),
    "wasm_functype_new": (_PTR, [POINTER(PointerVec), POINTER(PointerVec)]),
    "wasm_functype_delete": (None, [_PTR]),
    "wasmtime_wasm_valtype_equal": (_FLAG, [_PTR, _PTR]),
    "wasmtime_wasm_valtype_v128": (_PTR, []),
    "wasm_valtype_new": (_PTR, [c_uint8]),
    "wasm_valtype_vec_new": (None, [POINTER(PointerVec), _SIZE, _PTR]),
    "wasmtime_store_delete": (None, [_PTR]),
    "wasmtime_context_set_fuel": (_PTR, [_PTR, c_uint64]),
    "wasmtime_context_get_fuel": (_PTR, [_PTR, POINTER(c_uint64)]),
    "wasmtime_caller_context": (_PTR, [_PTR]),
    "wasmtime_instance_new": (_PTR, [_PTR, _PTR, _PTR, _SIZE, _PTR, POINTER(_PTR)]),
    "wasmtime_instance_new_without_start": (_PTR, [_PTR, _PTR, _PTR, _SIZE, _PTR, POINTER(_PTR)]),
    "wasmtime_memory_data_size": (_SIZE, [_PTR, _PTR]),
    "wasmtime_error_new": (_PTR, [c_char_p]),
    "wasmtime_error_delete": (None, [_PTR]),
    "wasmtime_error_message": (None, [_PTR, POINTER(ByteVec)]),
    "wasmtime_error_wasm_trace": (None, [_PTR, POINTER(PointerVec)]),
    "wasmtime_trap_new": (_PTR, [c_char_p, _SIZE]),
    "wasmtime_trap_code": (_FLAG, [_PTR, POINTER(c_uint8)]),
    "wasm_trap_delete": (None, [_PTR]),
    "wasm_trap_message": (None, [_PTR, POINTER(ByteVec)]),
    "wasm_trap_trace": (None, [_PTR, POINTER(PointerVec)]),
    "wasm_frame_vec_delete": (None, [POINTER(PointerVec)]),
    "wasm_frame_func_index": (c_uint32, [_PTR]),
    "wasm_frame_module_offset": (_SIZE, [_PTR]),
    "wasmtime_frame_func_name": (_PTR, [_PTR]),
    "wasmtime_frame_module_name": (_PTR, [_PTR]),
    "wasmtime_guestprofiler_new": (_PTR, [_PTR, POINTER(ByteVec), c_uint64, _PTR, _SIZE]),
    "wasmtime_guestprofiler_sample": (None, [_PTR, _PTR, c_uint64]),
    "wasmtime_guestprofiler_finish": (_PTR, [_PTR, POINTER(ByteVec)]),
    "wasmtime_guestprofiler_delete": (None, [_PTR]),
}


def _package_folder() -> str:
    # As `importlib.util.find_spec`, without importing it.
    for finder in sys.meta_path:
        spec = finder.find_spec("wasmtime", None)
        if spec is not None and spec.origin is not None:
            return os.path.dirname(spec.origin)
    raise EngineError(
        "the package `wasmtime` is not installed; plugwasm needs it: pip install wasmtime"
    )


def installed_version(package_folder: str) -> tuple[int, ...]:
    """Return the version of the wheel, from the name of its metadata folder.

    `importlib.metadata` would take longer than the rest of the import.
    """
    parent = os.path.dirname(package_folder)
    found = [
        entry[len("wasmtime-") : -len(".dist-info")]
        for entry in os.listdir(parent)
        if entry.startswith("wasmtime-") and entry.endswith(".dist-info")
    ]
    if len(found) != 1:
        from importlib.metadata import version

        found = [version("wasmtime")]
    return tuple(int(part) for part in found[0].split(".")[:3] if part.isdigit())


def check_version(version: tuple[int, ...]) -> None:
    """Raise `EngineError` if the version is outside of the tested range."""
    first, end = TESTED_VERSIONS
    if not first <= version < end:
        shown = ".".join(map(str, version))
        raise EngineError(
            f"wasmtime {shown} is installed, but this version of plugwasm works with wasmtime "
            f">={'.'.join(map(str, first))},<{end[0]}: pip install "
            f"'wasmtime>={'.'.join(map(str, first))},<{end[0]}'"
        )


def _library_path(package_folder: str) -> str:
    if hasattr(os, "uname"):
        machine = os.uname().machine
    else:
        from platform import machine as find_machine

        machine = find_machine()
    machine = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}.get(machine, machine)
    name = {"win32": "_wasmtime.dll", "darwin": "_libwasmtime.dylib"}.get(
        sys.platform, "_libwasmtime.so"
    )
    path = os.path.join(package_folder, f"{sys.platform}-{machine}", name)
    if not os.path.exists(path):
        raise EngineError(
            f"the wasmtime wheel has no library for {sys.platform} on {machine} (looked for {path})"
        )
    return path


_FOLDER = _package_folder()
_VERSION = installed_version(_FOLDER)


def library_version() -> str:
    """Return the version of the engine that is loaded."""
    return ".".join(map(str, _VERSION))


_UNLOCKED = (
    "wasmtime_guestprofiler_finish",
    "wasmtime_instance_new",
    "wasmtime_module_new",
    "wasmtime_wat2wasm",
)
"""Functions that run guests or may take long, called without the interpreter's lock.

All others are called with the lock, which a thread needs to fork. Many of them take locks of the
engine for a moment, and a child that was forked in the middle would wait for those for ever (see
`_engine.fork`).
"""
_ALIASES = {"wasmtime_instance_new_without_start": "wasmtime_instance_new"}


check_version(_VERSION)
_unlocked = ctypes.CDLL(_library_path(_FOLDER))
_locked = ctypes.PyDLL(_library_path(_FOLDER))


class _Library:
    """The functions that are declared above, each made when it is first used."""

    def __getattr__(self, name: str) -> Any:
        try:
            result, parameters = _DECLARATIONS[name]
        except KeyError:
            raise AttributeError(f"`{name}` is not declared") from None
        function = (_unlocked if name in _UNLOCKED else _locked)[_ALIASES.get(name, name)]
        function.restype = result
        function.argtypes = parameters
        setattr(self, name, function)
        return function


lib: Any = _Library()


def _hot(name: str, result: Any, *, keeps_lock: bool = True) -> Any:
    function = (_locked if keeps_lock else _unlocked)[name]
    function.restype = result
    return function


constant_pointer: Callable[[int], Any] = c_void_p.from_param
constant_size: Callable[[int], Any] = c_size_t.from_param
"""Return a number as an argument for hot functions. It takes half the memory of an instance of
`c_void_p`, and 60 ns less in each call, because nothing is converted any more.
"""

new_store: Any = _hot("wasmtime_store_new", c_void_p)
"""Engine, two null pointers → a store."""
new_instance: Any = _hot("wasmtime_instance_new", c_void_p)
new_instance_unlocked: Any = _hot("wasmtime_instance_new", c_void_p, keeps_lock=False)
"""Context, module, imports, their number, address for the instance, address for a trap → error or
None. A start function runs without the lock.
"""
store_context: Any = _hot("wasmtime_store_context", c_void_p)
"""Store → its context."""
limit_store: Any = _hot("wasmtime_store_limiter", None)
"""Store; bytes of each memory, elements of each table, instances, tables, memories."""
set_epoch_deadline: Any = _hot("wasmtime_context_set_epoch_deadline", None)
"""Context, ticks."""
set_epoch_callback: Any = _hot("wasmtime_store_epoch_deadline_callback", None)
"""Store, callback, environment, null."""
new_host_function: Any = _hot("wasmtime_func_new_unchecked", None)
"""Context, type, callback, environment, null, address for the function."""
memory_data: Any = _hot("wasmtime_memory_data", c_void_p)
"""Context, memory → its address."""
call_unchecked: Any = _hot("wasmtime_func_call_unchecked", c_void_p, keeps_lock=False)
"""Context, function, values, number of values, address for a trap → error or None."""
get_export: Any = _hot("wasmtime_instance_export_get", c_bool)
"""Context, instance, name, length of the name, address for the extern → whether there is one."""
func_to_raw: Any = _hot("wasmtime_func_to_raw", c_void_p)
"""Context, function → a funcref."""
get_caller_export: Any = _hot("wasmtime_caller_export_get", c_bool)
"""Caller, name, length of the name, address for the extern → whether there is one."""


def take_bytes(vec: ByteVec, trailing: int = 0) -> bytes:
    """Copy what the library returned, without that many bytes at its end, and free it."""
    size = vec.size - trailing
    data = ctypes.string_at(vec.data, size) if size > 0 else b""
    lib.wasm_byte_vec_delete(ctypes.byref(vec))
    return data


def borrowed_text(address: int | None, most: int = 2**32) -> str | None:
    """Copy the text of a `wasm_byte_vec_t` that the library keeps, or its first `most` bytes."""
    if not address:
        return None
    vec = ByteVec.from_address(address)
    return ctypes.string_at(vec.data, min(vec.size, most)).decode("utf-8", "replace")
