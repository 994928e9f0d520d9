"""Engines and modules: from Wasm bytes to compiled code, to an artifact that can be kept, and back."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_void_p

from ._capi import ByteVec, PointerVec, borrowed_text, lib, take_bytes
from ._failure import EngineFailure, take_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VALUE_CODES = {"i64": 1, "i32": 0, "f64": 3, "f32": 2, "externref": 128, "funcref": 129}
_VALUE_TYPES = [(name, lib.wasm_valtype_new(code)) for name, code in _VALUE_CODES.items()]
_VALUE_TYPES.append(("v128", lib.wasmtime_wasm_valtype_v128()))
_EXTERN_KINDS = ("function", "global", "table", "memory", "tag")

MAX_WASM_STACK = 512 * 1024
"""Bytes of stack that a guest may use; on Linux and macOS it must fit into what the calling thread has left."""


class FunctionType:
    """The parameters and results of a Wasm function, as the names of their value types."""

    __slots__ = ("__weakref__", "_pointers", "params", "results")

    def __init__(self, params: tuple[str, ...], results: tuple[str, ...]) -> None:
        self.params = params
        self.results = results
        self._pointers: dict[Engine, int] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionType) and (self.params, self.results) == (other.params, other.results)

    def __hash__(self) -> int:
        return hash((self.params, self.results))

    def __reduce__(self) -> tuple[type[FunctionType], tuple[tuple[str, ...], tuple[str, ...]]]:
        return FunctionType, (self.params, self.results)

    def __repr__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"

    def pointer(self, engine: Engine) -> int:
        """The library's own description of the type, made on first use. It binds one to the engine that it is used with."""
        pointer = self._pointers.get(engine)
        if pointer is None:
            pointer = lib.wasm_functype_new(ctypes.byref(_value_types(self.params)), ctypes.byref(_value_types(self.results)))
            pointer = self._pointers.setdefault(engine, pointer)
        return pointer

    def __del__(self) -> None:
        if lib is not None:
            for pointer in self._pointers.values():
                lib.wasm_functype_delete(pointer)


class Item:
    """What a module imports or exports: its name, its kind, and for a function its type. `module` is empty for exports."""

    __slots__ = ("kind", "module", "name", "type")

    def __init__(self, module: str, name: str, kind: str, type: FunctionType | None) -> None:
        self.module = module
        self.name = name
        self.kind = kind
        self.type = type

    def __repr__(self) -> str:
        where = f"{self.module}.{self.name}" if self.module else self.name
        return f"{self.kind} {where}{self.type or ''}"


class Engine:
    """Compiles modules with one set of settings. Modules and stores of different engines do not mix.

    Epoch interruption is always on, for every plugin can be cancelled. Fuel costs the guest speed, so it is a second engine's.

    A pooled engine reserves address space for its memories once, where others map and unmap three memories for each instance of a plugin.
    It refuses modules and instances beyond the pool's limits (`is_pool_limit`); those belong into an engine without a pool. Both load
    the same artifacts.
    """

    def __init__(self, *, fuel: bool = False, parallel: bool = True, pooled: bool = False) -> None:
        self.fuel = fuel
        self.pooled = pooled
        self.key = f"epoch=1;fuel={int(fuel)};stack={MAX_WASM_STACK};cow=0;may_move=0;threads=0;signals=0"
        """The settings that compiled code depends on, for keys of caches."""
        config = lib.wasm_config_new()
        lib.wasmtime_config_epoch_interruption_set(config, True)
        lib.wasmtime_config_consume_fuel_set(config, fuel)
        lib.wasmtime_config_max_wasm_stack_set(config, MAX_WASM_STACK)
        # A memory keeps its address for life, which is what lets the host keep a view of it.
        lib.wasmtime_config_memory_may_move_set(config, False)
        # Copying the initial data costs less than mapping it for all but very large modules, and saves a mapping an instance.
        lib.wasmtime_config_memory_init_cow_set(config, False)
        lib.wasmtime_config_wasm_threads_set(config, False)
        # Whoever replaces the handler of SIGSEGV after us (faulthandler, crash reporters, other runtimes) would turn a trap into a crash.
        lib.wasmtime_config_signals_based_traps_set(config, False)
        lib.wasmtime_config_parallel_compilation_set(config, parallel)
        if pooled:
            _use_pool(config)
        self.pointer: int = lib.wasm_engine_new_with_config(config)

    def increment_epoch(self) -> None:
        """Makes every guest that runs on this engine call its store's epoch callback soon."""
        lib.wasmtime_engine_increment_epoch(self.pointer)

    def compile(self, wasm: bytes) -> Module:
        """Compiles a module in the binary format. Raises `EngineFailure`."""
        out = c_void_p()
        if error := lib.wasmtime_module_new(self.pointer, wasm, len(wasm), ctypes.byref(out)):
            raise take_error(error)
        return Module(self, out.value).with_own_memories(_own_memories(wasm))

    def load(self, artifact: bytes) -> Module:
        """A module from what `Module.serialize` gave. The bytes are machine code: they must come from a place that can be trusted."""
        out = c_void_p()
        if error := lib.wasmtime_module_deserialize(self.pointer, artifact, len(artifact), ctypes.byref(out)):
            raise take_error(error)
        return Module(self, out.value)

    def load_file(self, path: str) -> Module:
        """The same from a file, which is mapped instead of read."""
        out = c_void_p()
        if error := lib.wasmtime_module_deserialize_file(self.pointer, os.fsencode(path), ctypes.byref(out)):
            raise take_error(error)
        return Module(self, out.value)


POOLED_MEMORIES = 1024
"""How many memories the pool has room for: a plugin of one module takes three."""
_POOLED_TABLES = 2048
_SLOT = 2**32


def can_pool() -> bool:
    """Whether this process may reserve the address space that a pool needs. The engine would end the process if it may not."""
    if sys.platform != "linux":
        return False
    import mmap

    no_reserve = 0x4000  # MAP_NORESERVE, which the module names only from Python 3.13 on
    try:
        mmap.mmap(-1, POOLED_MEMORIES * (_SLOT + 2**26), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve, 0).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def is_pool_limit(failure: EngineFailure) -> bool:
    """Whether an instance could not be made only because the pool is full."""
    return "maximum concurrent" in failure.message


def _use_pool(config: Any) -> None:
    pool = lib.wasmtime_pooling_allocation_config_new()
    lib.wasmtime_pooling_allocation_config_total_stacks_set(pool, 0)  # those are for asynchronous calls
    lib.wasmtime_pooling_allocation_config_total_memories_set(pool, POOLED_MEMORIES)
    lib.wasmtime_pooling_allocation_config_total_tables_set(pool, _POOLED_TABLES)
    lib.wasmtime_pooling_allocation_config_total_core_instances_set(pool, POOLED_MEMORIES)
    lib.wasmtime_pooling_allocation_config_max_memory_size_set(pool, _SLOT)
    lib.wasmtime_pooling_allocation_config_max_memories_per_module_set(pool, 8)
    lib.wasmtime_pooling_allocation_config_max_tables_per_module_set(pool, 8)
    # All pages go back to the system after use. To keep some, the engine would ask it which ones were written, through a file that after
    # a fork still describes the parent's memory.
    lib.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, 0)
    lib.wasmtime_pooling_allocation_strategy_set(config, pool)
    lib.wasmtime_pooling_allocation_config_delete(pool)


class Module:
    """A compiled module: its imports and exports in the order of the binary."""

    def __init__(self, engine: Engine, pointer: int | None) -> None:
        if pointer is None:
            raise EngineFailure("the engine gave no module")
        self.engine = engine
        self.pointer: int = pointer
        vec = PointerVec()
        lib.wasmtime_module_imports(pointer, ctypes.byref(vec))
        self.imports = tuple(_import(vec.data[i]) for i in range(vec.size))
        lib.wasm_importtype_vec_delete(ctypes.byref(vec))
        lib.wasmtime_module_exports(pointer, ctypes.byref(vec))
        self.exports = {item.name: item for item in (_export(vec.data[i]) for i in range(vec.size))}
        lib.wasm_exporttype_vec_delete(ctypes.byref(vec))
        self.own_memories = (0, 0, 0)
        """How many memories it defines (not imports), and the pages at first of all and of the largest. Known to who compiled it."""

    def with_own_memories(self, memories: tuple[int, int, int]) -> Module:
        """The module itself, once it is known what memories it has."""
        self.own_memories = memories
        return self

    def serialize(self) -> bytes:
        """The compiled code, for `Engine.load`."""
        vec = ByteVec()
        if error := lib.wasmtime_module_serialize(self.pointer, ctypes.byref(vec)):
            raise take_error(error)
        return take_bytes(vec)

    def __reduce__(self) -> str:
        raise TypeError("a module cannot be copied or pickled")  # two objects would free it

    def __del__(self) -> None:
        if lib is not None and hasattr(self, "pointer"):
            lib.wasmtime_module_delete(self.pointer)


def _own_memories(wasm: bytes) -> tuple[int, int, int]:
    """Reads the memory section of a module that is known to be valid (WebAssembly 2.0, 5.5.8)."""
    at, end = 8, len(wasm)
    while at < end:
        section = wasm[at]
        size, at = _leb128(wasm, at + 1)
        if section == 5:
            count, at = _leb128(wasm, at)
            total = largest = 0
            for _ in range(count):
                flags = wasm[at]
                first, at = _leb128(wasm, at + 1)
                total, largest = total + first, max(largest, first)
                if flags & 1:
                    _, at = _leb128(wasm, at)
                if flags & 8:
                    _, at = _leb128(wasm, at)
            return count, total, largest
        at += size
    return 0, 0, 0


def _leb128(wasm: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = wasm[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def wat_to_wasm(text: bytes) -> bytes:
    """A module in the text format, in the binary format. Raises `EngineFailure`, whose message shows the line."""
    vec = ByteVec()
    if error := lib.wasmtime_wat2wasm(text, len(text), ctypes.byref(vec)):
        raise take_error(error)
    return take_bytes(vec)


def _import(pointer: Any) -> Item:
    module = borrowed_text(lib.wasm_importtype_module(pointer)) or ""
    name = borrowed_text(lib.wasm_importtype_name(pointer)) or ""
    return Item(module, name, *_extern_type(lib.wasm_importtype_type(pointer)))


def _export(pointer: Any) -> Item:
    return Item("", borrowed_text(lib.wasm_exporttype_name(pointer)) or "", *_extern_type(lib.wasm_exporttype_type(pointer)))


def _extern_type(pointer: Any) -> tuple[str, FunctionType | None]:
    kind = lib.wasm_externtype_kind(pointer)
    if kind != 0:
        return _EXTERN_KINDS[kind] if kind < len(_EXTERN_KINDS) else f"item of kind {kind}", None
    function = lib.wasm_externtype_as_functype_const(pointer)
    return "function", FunctionType(
        _names(lib.wasm_functype_params(function).contents), _names(lib.wasm_functype_results(function).contents)
    )


def _names(vec: PointerVec) -> tuple[str, ...]:
    return tuple(_name(vec.data[i]) for i in range(vec.size))


def _name(pointer: Any) -> str:
    # Compared, not asked for its number: `wasm_valtype_kind` ends the process for v128 and for most references.
    for name, known in _VALUE_TYPES:
        if lib.wasmtime_wasm_valtype_equal(pointer, known):
            return name
    return "reference"


def _value_types(names: tuple[str, ...]) -> PointerVec:
    array = (c_void_p * max(len(names), 1))(*(lib.wasm_valtype_new(_VALUE_CODES[name]) for name in names))
    vec = PointerVec()
    # The vector only lends the array: `wasm_functype_new` takes the types out of a copy that the library makes.
    lib.wasm_valtype_vec_new(ctypes.byref(vec), len(names), array)
    return vec
