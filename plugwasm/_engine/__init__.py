"""The only room that knows the C API of Wasmtime. Nothing outside of it imports ctypes.

ffi            the library: found, checked, declared
module         engines and modules: compile, serialize, load
types          types of functions; what modules import and export
wasm_binary    what the C API does not tell of a module, read off its bytes
compile_cost   how much it takes at most to compile one
store          stores, instances, calls, and host callbacks
profiler       stacks of running guests; imported by who takes them
stack          how much of its own stack a thread has left for guests
traps          what the engine reports, as exceptions of this package
resources      what the process has left for the engine: address space, threads; which interpreter it is
fork           the engine at rest in all other threads before a fork
signal_safety  lets callbacks catch what a signal handler raises at their entry
"""

from ..errors import shown
from .compile_cost import LIGHT, is_light, weight
from .ffi import EXTERN_SIZE, check_version, library_version
from .module import (
    DEFAULT_STACK,
    MAX_EXPORTS,
    MAX_IMPORTS,
    MAX_VALUES,
    POOLED_TABLE_ELEMENTS,
    Engine,
    Module,
    can_pool,
    is_pool_limit,
    wat_to_wasm,
)
from .resources import address_space, can_compile_in_parallel, in_main_interpreter
from .signal_safety import shielded
from .stack import ThreadStack
from .store import (
    CALLBACK_CODE,
    CallerMemory,
    Environment,
    ExportName,
    Function,
    HostFunction,
    Instance,
    Memory,
    Pending,
    Store,
    context_of,
    ensure_frames,
    ensure_frames_to_start,
)
from .traps import (
    OUT_OF_BOUNDS,
    OUT_OF_FUEL,
    STACK_OVERFLOW,
    UNREACHABLE,
    ArgumentError,
    EngineFailure,
    HostRaised,
    Trap,
    is_recursion,
)
from .types import FunctionType, Item
from .wasm_binary import Facts, facts, wants_images, without_long_names

__all__ = [
    "CALLBACK_CODE",
    "DEFAULT_STACK",
    "EXTERN_SIZE",
    "LIGHT",
    "MAX_EXPORTS",
    "MAX_IMPORTS",
    "MAX_VALUES",
    "OUT_OF_BOUNDS",
    "OUT_OF_FUEL",
    "POOLED_TABLE_ELEMENTS",
    "STACK_OVERFLOW",
    "UNREACHABLE",
    "ArgumentError",
    "CallerMemory",
    "Engine",
    "EngineFailure",
    "Environment",
    "ExportName",
    "Facts",
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
    "ThreadStack",
    "Trap",
    "address_space",
    "can_compile_in_parallel",
    "can_pool",
    "check_version",
    "context_of",
    "ensure_frames",
    "ensure_frames_to_start",
    "facts",
    "in_main_interpreter",
    "is_light",
    "is_pool_limit",
    "is_recursion",
    "library_version",
    "shielded",
    "shown",
    "wants_images",
    "wat_to_wasm",
    "weight",
    "without_long_names",
]
