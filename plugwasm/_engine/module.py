"""Engines and modules: from Wasm bytes to compiled code, to a stored artifact, and back."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_void_p

from .._platform import fork
from .._platform.finalizer import Finalizable
from .._platform.native_threads import RLock
from .ffi import ByteVec, PointerVec, borrowed_text, lib, take_bytes
from .fork import engines, register
from .resources import (
    RESERVATION,
    can_compile_in_parallel,
    can_reserve,
    memory_reservation,
    note_compiler_threads,
)
from .stack import ThreadStack
from .trap_signals import may_use_signals, note_engine
from .traps import EngineFailure, take_error
from .types import VALUE_CODES, FunctionType, Item
from .wasm_binary import INLINED, mark_inlined, read_facts, shares_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from functools import partial
    from typing import Any

    from .wasm_binary import Facts
else:
    from _functools import partial  # the module `functools` takes long to import

_VALUE_TYPES = [(name, lib.wasm_valtype_new(code)) for name, code in VALUE_CODES.items()]
_VALUE_TYPES.append(("v128", lib.wasmtime_wasm_valtype_v128()))
_EXTERN_KINDS = ("function", "global", "table", "memory", "tag")

DEFAULT_STACK = 512 * 1024
"""Bytes of stack that a guest may use. The calling thread must have them left (see
`_engine.stack`).
"""
_ASYNC_STACK = 2**21
"""Bytes that the engine would give asynchronous calls, which are not used. It refuses guests more
than that.
"""
MAX_VALUES = 128
"""The most parameters and results of a function that a module imports or exports."""
MAX_IMPORTS, MAX_EXPORTS = 10_000, 50_000
"""Each takes time to read, to link and, for imports, to start."""
MAX_BORDER_VALUES = 300_000
"""The most parameters and results of all functions that a module imports and exports. Reading one
takes 2 µs.
"""

_ENTRY_BYTES = 1500
"""Bytes that the engine and Python take for each type, import and export."""

register()
fork.register_last()
# Only one thread compiles, and none while the process is forked: the child would inherit locks of
# the engine that no thread releases.
_compile_lock = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compile_lock.acquire,
        after_in_parent=_compile_lock.release,
        after_in_child=_compile_lock.release,
    )


class Engine:
    """Compile modules with one set of settings. Modules and stores of different engines do not mix.

    Epoch interruption is always on, because every plugin can be cancelled. Fuel costs the guest
    speed, so it needs an engine of its own. So do images: a module's initial data as a file in
    memory, which each instance maps, and copies page by page when it writes to it. Without images
    the data is copied segment by segment, by code that is compiled for each; that is better for
    small modules, and far worse for large ones.

    A pooled engine reserves address space for its memories once, where others map and unmap three
    memories for each instance of a plugin. It refuses modules and instances beyond the pool's
    limits (`is_pool_exhausted`); those need an engine without a pool. Both load the same artifacts.

    Args:
        fuel: Whether fuel is counted.
        parallel: Whether it compiles in parallel. It ends the process if the threads for that
            cannot be started; see `compile`.
        pooled: Whether it has a pool.
        stack_bytes: Size of a guest's stack.
        reservation: Bytes of address space for each memory; None for what the process has room for.
        images: Whether initial data is mapped from images.
        gc, atomics: Whether modules may have these instructions.
        signals: Whether code relies on signals for its traps, instead of checking (see
            `_engine.trap_signals`); None for whether the process may.
    """

    def __init__(
        self,
        *,
        fuel: bool = False,
        parallel: bool = False,
        pooled: bool = False,
        stack_bytes: int = DEFAULT_STACK,
        reservation: int | None = None,
        images: bool = False,
        gc: bool = False,
        atomics: bool = False,
        signals: bool | None = None,
    ) -> None:
        if signals is not False:
            prepared = may_use_signals()  # before the first engine with signals is made
            signals = prepared if signals is None else signals
        self.fuel = fuel
        self.parallel = parallel
        self.pooled = pooled
        self.stack_bytes = stack_bytes
        self.reservation: int = memory_reservation() if reservation is None else reservation
        self.images = images
        self.signals: bool = bool(signals)
        self.features: dict[str, bool | int] = {
            "fuel": fuel,
            "stack_bytes": stack_bytes,
            "images": images,
            "gc": gc,
            "atomics": atomics,
            "signals": self.signals,
        }
        """The settings that tell it from other engines of the process, besides the pool."""
        self.settings: dict[str, bool | int] = {**self.features, "reservation": self.reservation}
        """The arguments of engines that load what this one compiles, and the reverse."""
        self.key: str = (
            f"epoch=1;fuel={int(fuel)};stack={stack_bytes};cow={int(images)};may_move=0;"
            f"threads={int(atomics)};signals={int(signals)};gc={int(gc)}"
        )
        """The settings that compiled code depends on, for keys of caches."""
        self._parallel_engine: Engine | None = None
        config = lib.wasm_config_new()
        lib.wasmtime_config_epoch_interruption_set(config, True)
        lib.wasmtime_config_consume_fuel_set(config, fuel)
        lib.wasmtime_config_max_wasm_stack_set(config, stack_bytes)
        # Otherwise the engine ends the process.
        if stack_bytes > _ASYNC_STACK:
            lib.wasmtime_config_async_stack_size_set(config, stack_bytes)
        # A memory keeps its address for life, so that the host can keep a view of it.
        lib.wasmtime_config_memory_may_move_set(config, False)
        lib.wasmtime_config_memory_init_cow_set(config, images)
        # Atomic instructions are harmless. A shared memory could change while the host reads it.
        lib.wasmtime_config_wasm_threads_set(config, atomics)
        lib.wasmtime_config_shared_memory_set(config, False)
        # Objects live in a heap outside of all memories, and so do exceptions. The limit of each
        # memory holds for the heap as well.
        lib.wasmtime_config_wasm_gc_set(config, gc)
        lib.wasmtime_config_signals_based_traps_set(config, signals)
        lib.wasmtime_config_parallel_compilation_set(config, parallel)
        if self.reservation != RESERVATION:
            self.key += f";reservation={self.reservation}"
            lib.wasmtime_config_memory_reservation_set(config, self.reservation)
        if pooled:
            _configure_pool(config)
        self.pointer: c_void_p = c_void_p(lib.wasm_engine_new_with_config(config))
        if signals:
            note_engine()
        engines[id(self)] = self
        self.stack: ThreadStack = ThreadStack(self)
        """The stack of the calling thread."""

    def increment_epoch(self) -> None:
        """Make every guest that runs on this engine call its store's epoch callback soon."""
        lib.wasmtime_engine_increment_epoch(self.pointer)

    def compile(self, wasm: bytes, *, inlined: bytes | None = None, heavy: bool = False) -> Module:
        """Compile a module in the binary format, in parallel if it is heavy and threads can be had.

        One thread compiles a light module as fast, and the process then need not have the others.

        Args:
            inlined: The module with the kernel's functions inlined. It is compiled in place of the
                module, if both are valid.

        Raises:
            EngineFailure: The module is not valid.
        """
        if heavy and not self.parallel and can_compile_in_parallel():
            parallel = self._parallel_engine
            if parallel is None:
                settings: dict[str, Any] = self.settings
                parallel = self._parallel_engine = Engine(parallel=True, **settings)
            compiled = parallel.compile(wasm, inlined=inlined)
            note_compiler_threads()
            return self.load(compiled.serialize()).with_facts(compiled.facts)
        module: Module | None = None
        if inlined is not None and self._is_valid(wasm):
            try:
                module = self._compile(inlined).with_facts(mark_inlined(read_facts(wasm)))
            except EngineFailure:
                pass  # it has more of something than the engine allows
        if module is None:
            module = self._compile(wasm).with_facts(read_facts(wasm))
        if self.settings["atomics"] and shares_memory(wasm):
            raise EngineFailure(
                "it has a memory that is shared, and there are no threads to share it with "
                "(`Limits.atomics`)"
            )
        return module

    def _compile(self, wasm: bytes) -> Module:
        out = c_void_p()
        with _compile_lock:
            error = lib.wasmtime_module_new(self.pointer, wasm, len(wasm), ctypes.byref(out))
        if error:
            raise take_error(error)
        return Module(self, out.value)

    def _is_valid(self, wasm: bytes) -> bool:
        with _compile_lock:
            error = lib.wasmtime_module_validate(self.pointer, wasm, len(wasm))
        if error:
            lib.wasmtime_error_delete(error)
        return not error

    def load(self, artifact: bytes, like: Module | None = None) -> Module:
        """Load a module from what `Module.serialize` returned.

        The bytes are machine code, so they must come from a trusted place.

        Args:
            like: The same module, compiled for this or another engine.
        """
        out = c_void_p()
        if error := lib.wasmtime_module_deserialize(
            self.pointer, artifact, len(artifact), ctypes.byref(out)
        ):
            raise take_error(error)
        return Module(self, out.value, like)

    def load_file(self, path: str, like: Module | None = None, *, trailing: int = 0) -> Module:
        """Load a module from a file, which is mapped instead of read.

        Args:
            like: As for `load`.
            trailing: How many bytes of the file, at its end, do not belong to the code.
        """
        out = c_void_p()
        if error := lib.wasmtime_module_deserialize_file(
            self.pointer, os.fsencode(path), ctypes.byref(out)
        ):
            raise take_error(error)
        return Module(self, out.value, like, trailing)


POOLED_MEMORIES = 1024
"""How many memories the pool has room for. A plugin of one module takes three."""
_POOLED_TABLES = 2048
POOLED_TABLE_ELEMENTS = 1_000_000
_MAX_POOLED_BYTES = 2**32
_KEPT_RESIDENT, _KEPT_TABLE = 9 * 2**12, 2**12
"""Bytes at the start of each memory and of each table in the pool that are zeroed after use. The
rest goes back to the system, which costs a call, and a fault for each page that is touched next:
10 µs. What small calls use of the kernel's memories is in these bytes (`_host/kernel/kernel.wat`).
"""


def can_pool() -> bool:
    """Return whether this process may reserve the address space that a pool needs.

    The engine would end the process if it may not.
    """
    if sys.platform != "linux":
        return False
    return can_reserve(
        POOLED_MEMORIES * (_MAX_POOLED_BYTES + 2**26) + _POOLED_TABLES * 16 * POOLED_TABLE_ELEMENTS
    )


def is_pool_exhausted(failure: EngineFailure) -> bool:
    """Return whether an instance could not be made only because the pool is full."""
    return "maximum concurrent" in failure.message


def _configure_pool(config: Any) -> None:
    pool = lib.wasmtime_pooling_allocation_config_new()
    # Stacks are for asynchronous calls.
    lib.wasmtime_pooling_allocation_config_total_stacks_set(pool, 0)
    lib.wasmtime_pooling_allocation_config_total_memories_set(pool, POOLED_MEMORIES)
    lib.wasmtime_pooling_allocation_config_total_tables_set(pool, _POOLED_TABLES)
    lib.wasmtime_pooling_allocation_config_table_elements_set(pool, POOLED_TABLE_ELEMENTS)
    lib.wasmtime_pooling_allocation_config_total_core_instances_set(pool, POOLED_MEMORIES)
    lib.wasmtime_pooling_allocation_config_max_memory_size_set(pool, _MAX_POOLED_BYTES)
    lib.wasmtime_pooling_allocation_config_max_memories_per_module_set(pool, 8)
    lib.wasmtime_pooling_allocation_config_max_tables_per_module_set(pool, 8)
    lib.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, _KEPT_RESIDENT)
    lib.wasmtime_pooling_allocation_config_table_keep_resident_set(pool, _KEPT_TABLE)
    lib.wasmtime_pooling_allocation_strategy_set(config, pool)
    lib.wasmtime_pooling_allocation_config_delete(pool)


class Module(Finalizable):
    """A compiled module, with its imports and exports in the order of the binary.

    Args:
        like: The same module, compiled for this or another engine. Asking the engine for imports
            and exports takes longer than loading the code.
        trailing: How many bytes, at the end of what the engine takes for its code, are not.
    """

    def __init__(
        self, engine: Engine, pointer: int | None, like: Module | None = None, trailing: int = 0
    ) -> None:
        if pointer is None:
            raise EngineFailure("the engine gave no module")
        self.engine = engine
        self.pointer: int = pointer
        self._trailing = trailing
        self.__del__: Callable[[], object] = partial(lib.wasmtime_module_delete, pointer)
        self._imports: tuple[Item, ...] = like._imports if like else _read_imports(pointer)
        self.exports: dict[str, Item] = like.exports if like else _read_exports(pointer)
        self.with_facts((0, 0, 0, 0, 0, 0, 0))

    def with_facts(self, facts: Facts) -> Module:
        """Set what `_engine.wasm_binary.read_facts` says of the module, and return the module."""
        self.facts = facts
        self.is_inlined: bool = bool(facts[3] & INLINED)
        """Whether the kernel's functions are inlined: then it imports the kernel's memories, heap
        and book, after `imports`.
        """
        self.imports: tuple[Item, ...] = self._imports[:-2] if self.is_inlined else self._imports
        self.has_start: bool = bool(facts[3] & 1)
        """Whether it has a function that runs when it is instantiated."""
        return self

    @property
    def defined_memories(self) -> tuple[int, int, int]:
        """How many memories it defines, their initial pages together, and those of the largest."""
        return self.facts[:3]

    @property
    def may_use_gc(self) -> bool:
        """Whether it may have objects in the collector's heap. It may be True for a module that has
        none.
        """
        return bool(self.facts[3] & 2)

    @property
    def state_bytes(self) -> int:
        """The most bytes that an instance takes outside of memories and tables: globals,
        references, segments, imports.
        """
        return self.facts[4]

    @property
    def defined_tables(self) -> int:
        """How many tables it defines."""
        return self.facts[5]

    @property
    def code_bytes(self) -> int:
        """The size of the compiled code, with what the engine keeps beside it."""
        start, end = c_void_p(), c_void_p()
        lib.wasmtime_module_image_range(self.pointer, ctypes.byref(start), ctypes.byref(end))
        return (end.value or 0) - (start.value or 0) - self._trailing

    @property
    def resident_bytes(self) -> int:
        """Roughly what the process keeps for the module, its code included.

        Of images the process may have a copy in a file in memory.
        """
        return (self.code_bytes << self.engine.images) + _ENTRY_BYTES * self.facts[6]

    def serialize(self) -> bytes:
        """Return the compiled code, for `Engine.load`."""
        vec = ByteVec()
        if error := lib.wasmtime_module_serialize(self.pointer, ctypes.byref(vec)):
            raise take_error(error)
        return take_bytes(vec, self._trailing)

    def __reduce__(self) -> str:
        raise TypeError("a module cannot be copied or pickled")  # two objects would free it


def _read_imports(module: int) -> tuple[Item, ...]:
    vec = PointerVec()
    lib.wasmtime_module_imports(module, ctypes.byref(vec))
    try:
        _check_number(vec, MAX_IMPORTS, "imports")
        return tuple(_check_values(map(_read_import, _pointers(vec))))
    finally:
        lib.wasm_importtype_vec_delete(ctypes.byref(vec))


def _read_exports(module: int) -> dict[str, Item]:
    vec = PointerVec()
    lib.wasmtime_module_exports(module, ctypes.byref(vec))
    try:
        _check_number(vec, MAX_EXPORTS, "exports")
        items = _check_values(map(_read_export, _pointers(vec)))
        return {item.name: item for item in items}
    finally:
        lib.wasm_exporttype_vec_delete(ctypes.byref(vec))


def _check_values(items: Iterable[Item]) -> Iterator[Item]:
    values = 0
    for item in items:
        if item.type is not None:
            values += len(item.type.params) + len(item.type.results)
            if values > MAX_BORDER_VALUES:
                raise EngineFailure(
                    f"the functions that it imports or exports have more than {MAX_BORDER_VALUES} "
                    "values together"
                )
        yield item


def _check_number(vec: PointerVec, most: int, what: str) -> None:
    if vec.size > most:
        raise EngineFailure(f"it {what} {vec.size} items, more than the {most} that are allowed")


def wat_to_wasm(text: bytes) -> bytes:
    """Convert a module from the text format to the binary format.

    Raises:
        EngineFailure: The text is not valid. The message shows the line.
    """
    vec = ByteVec()
    if error := lib.wasmtime_wat2wasm(text, len(text), ctypes.byref(vec)):
        raise take_error(error)
    return take_bytes(vec)


def _read_import(pointer: Any) -> Item:
    module = borrowed_text(lib.wasm_importtype_module(pointer)) or ""
    name = borrowed_text(lib.wasm_importtype_name(pointer)) or ""
    return Item(module, name, *_read_extern_type(lib.wasm_importtype_type(pointer)))


def _read_export(pointer: Any) -> Item:
    return Item(
        "",
        borrowed_text(lib.wasm_exporttype_name(pointer)) or "",
        *_read_extern_type(lib.wasm_exporttype_type(pointer)),
    )


def _read_extern_type(pointer: Any) -> tuple[str, FunctionType | None]:
    kind = lib.wasm_externtype_kind(pointer)
    if kind != 0:
        return _EXTERN_KINDS[kind] if kind < len(_EXTERN_KINDS) else f"item of kind {kind}", None
    function = lib.wasm_externtype_as_functype_const(pointer)
    params = PointerVec.from_address(lib.wasm_functype_params(function))
    results = PointerVec.from_address(lib.wasm_functype_results(function))
    if params.size + results.size > MAX_VALUES:
        # Values are read one by one, which takes seconds for 1,000 exports of 1,000 values each.
        raise EngineFailure(
            f"a function that it imports or exports has more than {MAX_VALUES} parameters and "
            "results"
        )
    return "function", FunctionType(_read_value_types(params), _read_value_types(results))


def _read_value_types(vec: PointerVec) -> tuple[str, ...]:
    return tuple(map(_read_value_type, _pointers(vec))) if vec.size else ()


def _pointers(vec: PointerVec) -> list[Any]:
    return vec.data[: vec.size] if vec.size else []


def _read_value_type(pointer: Any) -> str:
    # Compare types: `wasm_valtype_kind` ends the process for v128 and for most references.
    for name, known in _VALUE_TYPES:
        if lib.wasmtime_wasm_valtype_equal(pointer, known):
            return name
    return "reference"
