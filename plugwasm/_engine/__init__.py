"""Wasmtime's C API. Nothing outside of this room imports ctypes, but for
`_isolation/confinement.py`.

ffi            the library: found, checked, declared
module         engines and modules: compile, serialize, load
types          function types; what modules import and export
wasm_binary    facts about a module that the C API does not tell, read from its bytes
wasm_encoding  modules taken apart and put together
compile_cost   an upper bound of the cost of compiling a module; imported by those who compile
store          stores and instances
functions      functions that the host calls
bound_start    the calls that start an instance, bound once
callbacks      host functions and the epoch callback
profiler       stacks of running guests; imported by those who profile
stack          how much native stack a thread has left for guests
trap_signals   whether traps are signals of the processor, and who handles those
traps          what the engine reports, as exceptions of this package
resources      address space and threads that the process has left for the engine
fork           the engine at rest in all other threads before a fork
signal_safety  callbacks that catch what a signal handler raises at their entry
"""

from ..errors import truncate
from .bound_start import BoundStart
from .callbacks import (
    CALLBACK_CODE,
    Environment,
    HostFunction,
    PendingException,
    check_recursion_depth,
    check_recursion_depth_to_start,
)
from .ffi import EXTERN_SIZE, check_version, library_version
from .functions import WasmFunction
from .module import (
    DEFAULT_STACK,
    MAX_EXPORTS,
    MAX_IMPORTS,
    MAX_VALUES,
    POOLED_TABLE_ELEMENTS,
    Engine,
    Module,
    can_pool,
    is_pool_exhausted,
    wat_to_wasm,
)
from .resources import address_space_limit, can_compile_in_parallel, in_main_interpreter
from .signal_safety import signal_safe
from .stack import ThreadStack
from .store import (
    CallerMemory,
    ExportName,
    Instance,
    LinearMemory,
    Store,
    StoreLimits,
    caller_context,
)
from .trap_signals import (
    LOOK_INTERVAL,
    after_host_function,
    are_held,
    lost_to,
    may_use_signals,
    use_explicit_checks,
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
    is_recursion_error,
)
from .types import FunctionType, Item
from .wasm_binary import Facts, benefits_from_images, read_facts, strip_long_names

__all__ = [
    "CALLBACK_CODE",
    "DEFAULT_STACK",
    "EXTERN_SIZE",
    "LOOK_INTERVAL",
    "MAX_EXPORTS",
    "MAX_IMPORTS",
    "MAX_VALUES",
    "OUT_OF_BOUNDS",
    "OUT_OF_FUEL",
    "POOLED_TABLE_ELEMENTS",
    "STACK_OVERFLOW",
    "UNREACHABLE",
    "ArgumentError",
    "BoundStart",
    "CallerMemory",
    "Engine",
    "EngineFailure",
    "Environment",
    "ExportName",
    "Facts",
    "FunctionType",
    "HostFunction",
    "HostRaised",
    "Instance",
    "Item",
    "LinearMemory",
    "Module",
    "PendingException",
    "Store",
    "StoreLimits",
    "ThreadStack",
    "Trap",
    "WasmFunction",
    "address_space_limit",
    "after_host_function",
    "are_held",
    "benefits_from_images",
    "caller_context",
    "can_compile_in_parallel",
    "can_pool",
    "check_recursion_depth",
    "check_recursion_depth_to_start",
    "check_version",
    "in_main_interpreter",
    "is_pool_exhausted",
    "is_recursion_error",
    "library_version",
    "lost_to",
    "may_use_signals",
    "read_facts",
    "signal_safe",
    "strip_long_names",
    "truncate",
    "use_explicit_checks",
    "wat_to_wasm",
]
