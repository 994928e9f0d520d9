"""Engines and modules: from Wasm bytes to compiled code, to an artifact that can be kept, and back."""

from __future__ import annotations

import ctypes
import os
import sys
from _functools import partial  # type: ignore[import-not-found]  # `functools` itself would import much more
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
    has_compiled_in_parallel,
    memory_reservation,
)
from .stack import ThreadStack
from .traps import EngineFailure, take_error
from .types import VALUE_CODES, FunctionType, Item
from .wasm_binary import read_facts, shares_memory

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
"""Bytes of stack that a guest may use; they must fit into what the calling thread has left (see `_engine.stack`)."""
_ASYNC_STACK = 2**21
"""Bytes that the engine would give asynchronous calls, of which there are none. It wants no guest to have more."""
MAX_VALUES = 128
"""Parameters and results of a function that a module imports or exports."""
MAX_IMPORTS, MAX_EXPORTS = 10_000, 50_000
"""Reading, linking and, for imports, starting take time for each."""
MAX_BORDER_VALUES = 300_000
"""Parameters and results of all that a module imports and exports: reading one takes 2 µs."""

_ENTRY_BYTES = 1500
"""Of the engine and of Python, for each type, import and export."""

register()
fork.register_last()
# Only one thread compiles, and none while the process is forked: the child would inherit the engine's locks with nobody to open them.
_compiling = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire,
        after_in_parent=_compiling.release,
        after_in_child=_compiling.release,
    )


class Engine:
    """Compiles modules with one set of settings. Modules and stores of different engines do not mix.

    Epoch interruption is always on, for every plugin can be cancelled. Fuel costs the guest speed, so it is a second engine's. So are
    images: a module's initial data as a file in memory, which each instance maps, and copies page by page when it writes to it. Without
    them it is copied segment by segment, by code that is compiled for each; that is better for small modules, and far worse for large ones.

    A pooled engine reserves address space for its memories once, where others map and unmap three memories for each instance of a plugin.
    It refuses modules and instances beyond the pool's limits (`is_pool_exhausted`); those belong into an engine without a pool. Both load
    the same artifacts.

    Args:
        fuel: Whether fuel is counted.
        parallel: Whether it compiles in parallel. It ends the process if the threads for that cannot be started; see `compile`.
        pooled: Whether it has a pool.
        stack_bytes: Of a guest's stack.
        reservation: Bytes of address space for each memory; what the process has room for if not given.
        images: Whether initial data is mapped from images.
        gc, atomics: Whether modules may have these instructions.
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
    ) -> None:
        self.fuel = fuel
        self.parallel = parallel
        self.pooled = pooled
        self.stack_bytes = stack_bytes
        self.reservation: int = memory_reservation() if reservation is None else reservation
        self.images = images
        self.features: dict[str, bool | int] = {
            "fuel": fuel,
            "stack_bytes": stack_bytes,
            "images": images,
            "gc": gc,
            "atomics": atomics,
        }
        """What tells it from other engines of the process, besides the pool."""
        self.settings: dict[str, bool | int] = {**self.features, "reservation": self.reservation}
        """The arguments of engines that load what this one compiles, and the other way round."""
        self.key: str = (
            f"epoch=1;fuel={int(fuel)};stack={stack_bytes};cow={int(images)};may_move=0;"
            f"threads={int(atomics)};signals=0;gc={int(gc)}"
        )
        """The settings that compiled code depends on, for keys of caches."""
        self._twin: Engine | None = None
        config = lib.wasm_config_new()
        lib.wasmtime_config_epoch_interruption_set(config, True)
        lib.wasmtime_config_consume_fuel_set(config, fuel)
        lib.wasmtime_config_max_wasm_stack_set(config, stack_bytes)
        if stack_bytes > _ASYNC_STACK:
            lib.wasmtime_config_async_stack_size_set(
                config, stack_bytes
            )  # otherwise the engine ends the process
        # A memory keeps its address for life, which is what lets the host keep a view of it.
        lib.wasmtime_config_memory_may_move_set(config, False)
        lib.wasmtime_config_memory_init_cow_set(config, images)
        # Atomic instructions are harmless; a memory that is shared could change under the host's eyes.
        lib.wasmtime_config_wasm_threads_set(config, atomics)
        lib.wasmtime_config_shared_memory_set(config, False)
        # Objects live in a heap apart from all memories. Exceptions need such a heap as well. Each memory's limit holds for it.
        lib.wasmtime_config_wasm_gc_set(config, gc)
        # Whoever replaces the handler of SIGSEGV after us (faulthandler, crash reporters, other runtimes) would turn a trap into a crash.
        lib.wasmtime_config_signals_based_traps_set(config, False)
        lib.wasmtime_config_parallel_compilation_set(config, parallel)
        if self.reservation != RESERVATION:
            self.key += f";reservation={self.reservation}"
            lib.wasmtime_config_memory_reservation_set(config, self.reservation)
        if pooled:
            _use_pool(config)
        self.pointer: int = lib.wasm_engine_new_with_config(config)
        engines.add(self)
        self.stack: ThreadStack = ThreadStack(self)
        """The stack of the thread that asks."""

    def increment_epoch(self) -> None:
        """Makes every guest that runs on this engine call its store's epoch callback soon."""
        lib.wasmtime_engine_increment_epoch(self.pointer)

    def compile(self, wasm: bytes, *, heavy: bool = False) -> Module:
        """Compiles a module in the binary format: where it is heavy and there are threads for that, in parallel.

        What is light is compiled as fast by one thread, and then the process need not have the others.

        Raises:
            EngineFailure: It is not valid.
        """
        if heavy and not self.parallel and can_compile_in_parallel():
            twin = self._twin
            if twin is None:
                settings: dict[str, Any] = self.settings
                twin = self._twin = Engine(parallel=True, **settings)
            module = twin.compile(wasm)
            has_compiled_in_parallel()
            return self.load(module.serialize()).with_facts(module.facts)
        out = c_void_p()
        with _compiling:
            error = lib.wasmtime_module_new(self.pointer, wasm, len(wasm), ctypes.byref(out))
        if error:
            raise take_error(error)
        if self.settings["atomics"] and shares_memory(wasm):
            lib.wasmtime_module_delete(out.value)
            raise EngineFailure(
                "it has a memory that is shared, and there are no threads to share it with (`Limits.atomics`)"
            )
        return Module(self, out.value).with_facts(read_facts(wasm))

    def load(self, artifact: bytes) -> Module:
        """A module from what `Module.serialize` gave. The bytes are machine code: they must come from a place that can be trusted."""
        out = c_void_p()
        if error := lib.wasmtime_module_deserialize(
            self.pointer, artifact, len(artifact), ctypes.byref(out)
        ):
            raise take_error(error)
        return Module(self, out.value)

    def load_file(self, path: str) -> Module:
        """The same from a file, which is mapped instead of read."""
        out = c_void_p()
        if error := lib.wasmtime_module_deserialize_file(
            self.pointer, os.fsencode(path), ctypes.byref(out)
        ):
            raise take_error(error)
        return Module(self, out.value)


POOLED_MEMORIES = 1024
"""How many memories the pool has room for: a plugin of one module takes three."""
_POOLED_TABLES = 2048
POOLED_TABLE_ELEMENTS = 1_000_000
_SLOT = 2**32


def can_pool() -> bool:
    """Whether this process may reserve the address space that a pool needs. The engine would end the process if it may not."""
    if sys.platform != "linux":
        return False
    return can_reserve(
        POOLED_MEMORIES * (_SLOT + 2**26) + _POOLED_TABLES * 16 * POOLED_TABLE_ELEMENTS
    )


def is_pool_exhausted(failure: EngineFailure) -> bool:
    """Whether an instance could not be made only because the pool is full."""
    return "maximum concurrent" in failure.message


def _use_pool(config: Any) -> None:
    pool = lib.wasmtime_pooling_allocation_config_new()
    lib.wasmtime_pooling_allocation_config_total_stacks_set(
        pool, 0
    )  # those are for asynchronous calls
    lib.wasmtime_pooling_allocation_config_total_memories_set(pool, POOLED_MEMORIES)
    lib.wasmtime_pooling_allocation_config_total_tables_set(pool, _POOLED_TABLES)
    lib.wasmtime_pooling_allocation_config_table_elements_set(pool, POOLED_TABLE_ELEMENTS)
    lib.wasmtime_pooling_allocation_config_total_core_instances_set(pool, POOLED_MEMORIES)
    lib.wasmtime_pooling_allocation_config_max_memory_size_set(pool, _SLOT)
    lib.wasmtime_pooling_allocation_config_max_memories_per_module_set(pool, 8)
    lib.wasmtime_pooling_allocation_config_max_tables_per_module_set(pool, 8)
    # All pages go back to the system after use. To keep some, the engine would ask it which ones were written, through a file that after
    # a fork still describes the parent's memory.
    lib.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, 0)
    lib.wasmtime_pooling_allocation_strategy_set(config, pool)
    lib.wasmtime_pooling_allocation_config_delete(pool)


class Module(Finalizable):
    """A compiled module: its imports and exports in the order of the binary."""

    def __init__(self, engine: Engine, pointer: int | None) -> None:
        if pointer is None:
            raise EngineFailure("the engine gave no module")
        self.engine = engine
        self.pointer: int = pointer
        self.__del__: Callable[[], object] = partial(lib.wasmtime_module_delete, pointer)
        vec = PointerVec()
        lib.wasmtime_module_imports(pointer, ctypes.byref(vec))
        try:
            _check_number(vec, MAX_IMPORTS, "imports")
            self.imports: tuple[Item, ...] = tuple(
                _counted(_import(vec.data[i]) for i in range(vec.size))
            )
        finally:
            lib.wasm_importtype_vec_delete(ctypes.byref(vec))
        lib.wasmtime_module_exports(pointer, ctypes.byref(vec))
        try:
            _check_number(vec, MAX_EXPORTS, "exports")
            self.exports: dict[str, Item] = {
                item.name: item for item in _counted(_export(vec.data[i]) for i in range(vec.size))
            }
        finally:
            lib.wasm_exporttype_vec_delete(ctypes.byref(vec))
        self.with_facts((0, 0, 0, 0, 0, 0, 0))

    def with_facts(self, facts: Facts) -> Module:
        """The module itself, once it is known what `_engine.wasm_binary.read_facts` says of it."""
        self.facts = facts
        self.has_start: bool = bool(facts[3] & 1)
        """Whether it has a function that runs when it is instantiated."""
        return self

    @property
    def defined_memories(self) -> tuple[int, int, int]:
        """How many memories it defines (not imports), and the pages at first of all and of the largest."""
        return self.facts[:3]

    @property
    def may_use_gc(self) -> bool:
        """Whether it may have objects in the collector's heap; also where it only looks like that."""
        return bool(self.facts[3] & 2)

    @property
    def state_bytes(self) -> int:
        """What an instance takes at most outside of memories and tables: globals, references, segments, imports."""
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
        return (end.value or 0) - (start.value or 0)

    @property
    def resident_bytes(self) -> int:
        """About what the process keeps for it, code and all. Of images it may have a copy in a file in memory."""
        return (self.code_bytes << self.engine.images) + _ENTRY_BYTES * self.facts[6]

    def serialize(self) -> bytes:
        """The compiled code, for `Engine.load`."""
        vec = ByteVec()
        if error := lib.wasmtime_module_serialize(self.pointer, ctypes.byref(vec)):
            raise take_error(error)
        return take_bytes(vec)

    def __reduce__(self) -> str:
        raise TypeError("a module cannot be copied or pickled")  # two objects would free it


def _counted(items: Iterable[Item]) -> Iterator[Item]:
    values = 0
    for item in items:
        if item.type is not None:
            values += len(item.type.params) + len(item.type.results)
            if values > MAX_BORDER_VALUES:
                raise EngineFailure(
                    f"the functions that it imports or exports have more than {MAX_BORDER_VALUES} values together"
                )
        yield item


def _check_number(vec: PointerVec, most: int, what: str) -> None:
    if vec.size > most:
        raise EngineFailure(f"it {what} {vec.size} items, more than the {most} that are allowed")


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
    return Item(
        "",
        borrowed_text(lib.wasm_exporttype_name(pointer)) or "",
        *_extern_type(lib.wasm_exporttype_type(pointer)),
    )


def _extern_type(pointer: Any) -> tuple[str, FunctionType | None]:
    kind = lib.wasm_externtype_kind(pointer)
    if kind != 0:
        return _EXTERN_KINDS[kind] if kind < len(_EXTERN_KINDS) else f"item of kind {kind}", None
    function = lib.wasm_externtype_as_functype_const(pointer)
    params, results = (
        lib.wasm_functype_params(function).contents,
        lib.wasm_functype_results(function).contents,
    )
    if params.size + results.size > MAX_VALUES:
        # They are read one by one, which takes seconds for a thousand exports of a thousand values each.
        raise EngineFailure(
            f"a function that it imports or exports has more than {MAX_VALUES} parameters and results"
        )
    return "function", FunctionType(_names(params), _names(results))


def _names(vec: PointerVec) -> tuple[str, ...]:
    return tuple(_name(vec.data[i]) for i in range(vec.size))


def _name(pointer: Any) -> str:
    # Compared, not asked for its number: `wasm_valtype_kind` ends the process for v128 and for most references.
    for name, known in _VALUE_TYPES:
        if lib.wasmtime_wasm_valtype_equal(pointer, known):
            return name
    return "reference"
