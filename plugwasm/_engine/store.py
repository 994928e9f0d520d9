"""Stores: where instances live and calls run.

Decisions: docs/decisions.md, 4, 13, 14 and 34.3.
"""

from __future__ import annotations

from ctypes import (
    addressof,
    byref,
    c_char,
    c_int64,
    c_size_t,
    c_ubyte,
    c_uint64,
    c_void_p,
    memmove,
)

from .._platform.finalizer import Finalizable
from .callbacks import ON_EPOCH, check_recursion_depth, take_failure
from .ffi import (
    EXTERN_FUNC,
    EXTERN_MEMORY,
    EXTERN_SIZE,
    INSTANCE_SIZE,
    VALUE_SIZE,
    call_unchecked,
    func_to_raw,
    get_caller_export,
    get_export,
    lib,
    limit_store,
    memory_data,
    new_host_function,
    new_store,
    set_epoch_callback,
    set_epoch_deadline,
    store_context,
)
from .traps import EngineFailure, take_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from functools import partial
    from typing import Any, NoReturn

    from .callbacks import Environment, HostFunction, PendingException
    from .module import Engine, Module
else:
    from _functools import partial  # the module `functools` takes long to import


_Extern, _InstanceHandle = c_char * EXTERN_SIZE, c_char * INSTANCE_SIZE


class LinearMemory:
    """A memory of a guest. Its address never changes (see `Engine`); it grows but never shrinks."""

    __slots__ = ("_item", "_store", "address")

    def __init__(self, store: Store, item: bytes) -> None:
        """`item` is a `wasmtime_memory_t` of that store. The engine ends the process for one of
        another store.
        """
        self._store = store
        self._item = item
        self.address: int = memory_data(store.context_pointer, item)

    def size(self) -> int:
        """Return its present size in bytes."""
        size: int = lib.wasmtime_memory_data_size(self._store.context, self._item)
        return size

    def view(self, size: int | None = None) -> memoryview:
        """Return a view of its present bytes, or of the first `size`. All views of it keep the
        store alive.
        """
        array = (c_ubyte * (self.size() if size is None else size)).from_address(self.address)
        array.store = self._store  # type: ignore[attr-defined]  # ctypes instances take attributes
        return memoryview(array).cast("B")


class ExportName:
    """The name of an export in the form of the C API, made once and used for every instance."""

    __slots__ = ("encoded", "length", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.encoded: bytes = text.encode()
        self.length: c_size_t = c_size_t(len(self.encoded))


class _CallBlock:
    """Memory for the calls of one function: the function as an extern (four words), the trap (one),
    a spare word, and the values (two words each).

    Making one takes three times as long as the rest of a `WasmFunction`, which therefore gives it
    back for another one to use (`give_back`). So there are as many as there were functions at a
    time.
    """

    __slots__ = ("arguments", "extern", "give_back", "rest", "trap", "values", "zeros")

    def __init__(self, slots: int, spare: list[_CallBlock]) -> None:
        self.extern: Any = (c_uint64 * (6 + slots * VALUE_SIZE // 8))()
        address = addressof(self.extern)
        view = memoryview(self.extern).cast("B")
        self.rest: memoryview = view[EXTERN_SIZE:]
        self.zeros: bytes = bytes(self.rest)
        words = view.cast("Q")
        self.trap: memoryview = words[4:5]
        self.values: memoryview = words[6:]
        self.arguments: tuple[Any, ...] = (
            c_void_p(address + 8),
            c_void_p(address + 48),
            c_size_t(slots),
            c_void_p(address + 32),
        )
        self.give_back: Callable[[], object] = partial(spare.append, self)


_spare_blocks: dict[int, list[_CallBlock]] = {}
"""Blocks that no function has, by their slots."""


def _take_block(slots: int) -> _CallBlock:
    try:
        block = _spare_blocks[slots].pop()
    except (KeyError, IndexError):
        return _CallBlock(slots, _spare_blocks.setdefault(slots, []))
    block.rest[:] = block.zeros  # what another function left
    return block


class WasmFunction(Finalizable):
    """A Wasm function of one store, ready to be called.

    `values` holds the parameters before a call and the results after it: number i is `values[2 *
    i]`, unsigned. They are zero at first. They belong to the function, and must not be used without
    it. `invoke` is the fastest way in. It takes nothing. When the call failed it leaves `values` as
    they were, and `fail` must be called with what it returned. Call `check_recursion_depth` before
    it.
    """

    __slots__ = ("_store", "_trap", "invoke", "values")

    def __init__(self, store: Store, block: _CallBlock) -> None:
        self.__del__: Callable[[], object] = block.give_back
        self._store = store
        self._trap = block.trap
        self.values: memoryview = block.values
        self.invoke: Callable[[], int | None] = partial(
            call_unchecked, store.context_pointer, *block.arguments
        )

    @classmethod
    def of(cls, store: Store, item: bytes, slots: int) -> WasmFunction:
        """Return the function that is an extern of the store, with room for so many values."""
        block = _take_block(slots)
        memmove(block.extern, item, EXTERN_SIZE)
        return cls(store, block)

    def call(self, pending: PendingException) -> None:
        """Call the function.

        Raises:
            EngineFailure: The call failed. It is a `HostRaised` if a host callback raised.
        """
        check_recursion_depth()
        try:
            error = self.invoke()
            if error or self._trap[0]:
                self.fail(error, pending)
        except EngineFailure:
            raise
        except BaseException:
            # Raised by a signal handler right after the call. How the call ended is lost.
            self._trap[0] = 0
            pending.exception = None
            pending.replenish()
            raise

    @property
    def trapped(self) -> bool:
        """Whether the last call was ended by a trap that `fail` has yet to report."""
        return bool(self._trap[0])

    def fail(self, error: int | None, pending: PendingException) -> NoReturn:
        """Raise what ended the last call."""
        trap = self._trap[0]
        self._trap[0] = 0
        raise take_failure(error, trap, pending)


class StoreLimits:
    """How much a store may hold. Made once, and used for any number of stores.

    -1 means unlimited.

    Args:
        memory_bytes: Bytes of each memory.
        table_elements: Elements of each table.
        instances, tables, memories: How many there may be.
    """

    __slots__ = ("arguments",)

    def __init__(
        self,
        *,
        memory_bytes: int = -1,
        table_elements: int = -1,
        instances: int = -1,
        tables: int = -1,
        memories: int = -1,
    ) -> None:
        self.arguments: tuple[c_int64, ...] = tuple(
            map(c_int64, (memory_bytes, table_elements, instances, tables, memories))
        )


_NEXT_TICK = c_uint64(1)


class Store(Finalizable):
    """A set of instances. Not safe to use from two threads at once.

    It is freed with the last reference to it; views of memories hold one. The engine keeps only the
    addresses of callbacks, so a store holds each host function that it has made an import of.
    """

    __slots__ = (
        "__weakref__",
        "_environment",
        "_functions",
        "context",
        "context_pointer",
        "engine",
        "pointer",
    )

    def __init__(self, engine: Engine, environment: Environment) -> None:
        self.engine: Engine = engine
        self._functions: set[HostFunction] = set()
        self.pointer: c_void_p = c_void_p(new_store(engine.pointer, None, None))
        self.__del__: Callable[[], object] = partial(lib.wasmtime_store_delete, self.pointer)
        self.context: int = store_context(self.pointer)
        self.context_pointer: c_void_p = c_void_p(self.context)
        self._environment: c_void_p = c_void_p(id(environment))
        set_epoch_deadline(self.context_pointer, _NEXT_TICK)
        set_epoch_callback(self.pointer, ON_EPOCH, self._environment, None)

    def limit(self, limits: StoreLimits) -> None:
        """Set how much the store may hold."""
        limit_store(self.pointer, *limits.arguments)

    def set_fuel(self, amount: int) -> None:
        """Set the fuel that is left. Only for stores of an engine with fuel."""
        if error := lib.wasmtime_context_set_fuel(self.context, amount):
            raise take_error(error)

    def fuel(self) -> int:
        """Return the fuel that is left."""
        out = c_uint64()
        if error := lib.wasmtime_context_get_fuel(self.context, byref(out)):
            raise take_error(error)
        return out.value

    def make_import(self, host: HostFunction) -> bytes:
        """Return a host function as an extern that instances of this store can import."""
        self._functions.add(host)
        item = _Extern()
        new_host_function(
            self.context_pointer,
            host.type.pointer(self.engine),
            host.callback,
            self._environment,
            None,
            byref(item, 8),
        )
        raw: bytes = item.raw
        return raw

    def instantiate(self, module: Module, imports: bytes, pending: PendingException) -> Instance:
        """Instantiate a module. Its start function runs.

        Args:
            imports: Externs, one after the other, in the order of the module's imports.
        """
        out = _InstanceHandle()
        trap = c_void_p()
        check_recursion_depth()
        start = (
            lib.wasmtime_instance_new
            if module.has_start
            else lib.wasmtime_instance_new_without_start
        )
        error = start(
            self.context,
            module.pointer,
            imports,
            len(imports) // EXTERN_SIZE,
            out,
            byref(trap),
        )
        if error or trap.value:
            raise take_failure(error, trap.value, pending)
        return Instance(self, out)

    def __reduce__(self) -> str:
        raise TypeError("a store cannot be copied or pickled")  # two objects would free it


class Instance:
    """An instance in a store. Its externs are opaque bytes, to be passed on as imports."""

    __slots__ = ("_handle", "_store")

    def __init__(self, store: Store, handle: Any) -> None:
        self._store = store
        self._handle = handle

    def exports(self, names: Iterable[ExportName]) -> list[bytes]:
        """Return the exports with these names.

        Raises:
            EngineFailure: One of them does not exist.
        """
        item = _Extern()
        found, context, handle = [], self._store.context_pointer, self._handle
        for name in names:
            if not get_export(context, handle, name.encoded, name.length, item):
                raise EngineFailure(f"no export `{name.text}`")
            found.append(item.raw)
        return found

    def export(self, name: ExportName) -> bytes:
        """Return the export of that name.

        Raises:
            EngineFailure: It does not exist.
        """
        item = _Extern()
        if not get_export(
            self._store.context_pointer, self._handle, name.encoded, name.length, item
        ):
            raise EngineFailure(f"no export `{name.text}`")
        raw: bytes = item.raw
        return raw

    def find_memory(self, name: ExportName) -> LinearMemory | None:
        """Return the exported memory of that name, or None."""
        item = _Extern()
        store = self._store
        found = get_export(store.context_pointer, self._handle, name.encoded, name.length, item)
        raw: bytes = item.raw
        return LinearMemory(store, raw[8:]) if found and raw[0] == EXTERN_MEMORY else None

    def memory(self, name: ExportName) -> LinearMemory:
        """Return the exported memory of that name.

        Raises:
            EngineFailure: There is none.
        """
        memory = self.find_memory(name)
        if memory is None:
            raise EngineFailure(f"no exported memory `{name.text}`")
        return memory

    def function(self, name: ExportName, slots: int) -> WasmFunction:
        """Return the exported function of that name, with room for so many parameters or results,
        whichever are more.
        """
        store, block = self._store, _take_block(slots or 1)
        extern = block.extern
        if not get_export(store.context_pointer, self._handle, name.encoded, name.length, extern):
            raise EngineFailure(f"no export `{name.text}`")
        if extern[0] & 0xFF != EXTERN_FUNC:
            raise EngineFailure(f"export `{name.text}` is no function")
        return WasmFunction(store, block)

    def funcref(self, name: ExportName) -> int:
        """Return the exported function of that name as a value to pass to a Wasm function."""
        item = self.export(name)
        if item[0] != EXTERN_FUNC:
            raise EngineFailure(f"export `{name.text}` is no function")
        raw: int = func_to_raw(self._store.context_pointer, item[8:])
        return raw


_MEMORY_NAME = ExportName("memory")


class CallerMemory:
    """Find the memory that a calling instance exports as `memory`.

    Made once, because it is used often. For one thread at a time.
    """

    __slots__ = ("_caller", "_find", "_item", "_words")

    def __init__(self) -> None:
        self._caller = c_void_p()
        self._item = _Extern()
        self._words = memoryview(self._item).cast("B").cast("I")
        self._find = partial(
            get_caller_export, self._caller, _MEMORY_NAME.encoded, _MEMORY_NAME.length, self._item
        )

    def find(self, caller: int) -> tuple[int, int, int, int] | None:
        """Return what tells the caller's memory from all others of all stores, or None if it has
        none.

        Returns:
            The number of its store, in two parts, and its own two numbers there.
        """
        self._caller.value = caller
        words = self._words
        if not self._find() or words[0] & 0xFF != EXTERN_MEMORY:
            return None
        return words[2], words[3], words[4], words[6]  # the words in between are padding

    def found(self, store: Store) -> LinearMemory:
        """Return the memory that was found last, in its store: that of `caller_context`."""
        return LinearMemory(store, self._item.raw[8:])


def caller_context(caller: int) -> int:
    """Return the context of the store that the calling instance lives in: its `Store.context`."""
    context: int = lib.wasmtime_caller_context(caller)
    return context
