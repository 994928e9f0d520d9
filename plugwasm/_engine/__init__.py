"""The only room that knows the C API of Wasmtime. Nothing outside of it imports ctypes.

_capi       the library: found, checked, declared
_module     engines and modules: compile, serialize, load, imports and exports
_store      stores, instances, calls, and host callbacks
_failure    what the engine reports, as exceptions of this package
_shield     lets callbacks catch what a signal handler raises at their entry
"""

from ._capi import EXTERN_SIZE, check_version, library_version
from ._failure import OUT_OF_FUEL, STACK_OVERFLOW, UNREACHABLE, EngineFailure, HostRaised, Trap
from ._module import Engine, FunctionType, Item, Module, can_pool, is_pool_limit, wat_to_wasm
from ._store import Environment, ExportName, Function, HostFunction, Instance, Memory, Pending, Store, ensure_frames, exported_memory

__all__ = [
    "EXTERN_SIZE",
    "OUT_OF_FUEL",
    "STACK_OVERFLOW",
    "UNREACHABLE",
    "Engine",
    "EngineFailure",
    "Environment",
    "ExportName",
    "Function",
    "FunctionType",
    "HostFunction",
    "HostRaised",
    "Instance",
    "Item",
    "Memory",
    "Module",
    "Pending",
    "Store",
    "Trap",
    "can_pool",
    "check_version",
    "ensure_frames",
    "exported_memory",
    "is_pool_limit",
    "library_version",
    "wat_to_wasm",
]
