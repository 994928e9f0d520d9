"""Stores: where instances live and calls run.

Decisions: docs/decisions.md, 4, 13, 14 and 34.3.
"""

from __future__ import annotations

from ctypes import (
    Array,
    byref,
    c_char,
    c_int64,
    c_ubyte,
    c_uint64,
    c_void_p,
)

from .._platform.finalizer import Finalizable
from .callbacks import ON_EPOCH, check_recursion_depth, take_failure
from .ffi import (
    EXTERN_FUNC,
    EXTERN_MEMORY,
    EXTERN_SIZE,
    INSTANCE_SIZE,
    constant_pointer,
    constant_size,
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
from .functions import WasmFunction, take_block
from .traps import EngineFailure, take_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from functools import partial
    from typing import Any

    from .callbacks import Environment, HostFunction, PendingException
    from .module import Engine, Module
else:
    from _functools import partial  # the module `functools` takes long to import


_Extern, _InstanceHandle = c_char * EXTERN_SIZE, c_char * INSTANCE_SIZE


_bytes_types: dict[int, Any] = {}
"""Types of bytes that hold a store, for small memories. Other instances of ctypes have a dict for
their attributes, which takes half as much memory as the rest of a view.
"""


def _bytes_type(size: int) -> Any:
    found = _bytes_types.get(size)
    if found is None:
        found = c_ubyte * size
        if size <= 2**17 and not size % 4096:
            attributes = {"_type_": c_ubyte, "_length_": size, "__slots__": ("store",)}
            found = _bytes_types[size] = type("Bytes", (Array,), attributes)
    return found


class LinearMemory:
    """A memory of a guest. Its address never changes (see `Engine`); it grows but never shrinks."""

    __slots__ = ("_item", "_store", "address")

    def __init__(self, store: Store, item: bytes, address: int | None = None) -> None:
        """`item` is a `wasmtime_memory_t` of that store. The engine ends the process for one of
        another store.
        """
        self._store = store
        self._item = item
        self.address: int = memory_data(store.context_pointer, item) if address is None else address

    def size(self) -> int:
        """Return its present size in bytes."""
        size: int = lib.wasmtime_memory_data_size(self._store.context, self._item)
        return size

    def view(self, size: int | None = None) -> memoryview:
        """Return a view of its present bytes, or of the first `size`. All views of it keep the
        store alive.
        """
        array = _bytes_type(self.size() if size is None else size).from_address(self.address)
        array.store = self._store
        return memoryview(array).cast("B")


class ExportName:
    """The name of an export in the form of the C API, made once and used for every instance."""

    __slots__ = ("encoded", "length", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.encoded: bytes = text.encode()
        self.length: Any = constant_size(len(self.encoded))


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


class StoreBinding:
    """The engine's calls that open a store, bound to memory for what they pass to one another.

    One store at a time may be opened with it.
    """

    __slots__ = (
        "context",
        "engine",
        "environment",
        "find_context",
        "new",
        "pointer",
        "set_callback",
        "set_deadline",
    )

    def __init__(self, engine: Engine) -> None:
        self.engine: Engine = engine
        self.pointer: c_void_p = c_void_p()
        self.context: c_void_p = c_void_p()
        self.environment: c_void_p = c_void_p()
        """Its address."""
        self.new: Callable[[], int] = partial(new_store, engine.pointer, None, None)
        self.find_context: Callable[[], int] = partial(store_context, self.pointer)
        self.set_deadline: Callable[[], object] = partial(
            set_epoch_deadline, self.context, _NEXT_TICK
        )
        self.set_callback: Callable[[], object] = partial(
            set_epoch_callback, self.pointer, ON_EPOCH, self.environment, None
        )


class Store(Finalizable):
    """A set of instances. Not safe to use from two threads at once.

    It is freed with the last reference to it; views of memories hold one. The engine keeps only the
    addresses of callbacks, so a store holds each host function that it has made an import of.
    """

    __slots__ = (
        "__weakref__",
        "_binding",
        "_functions",
        "context",
        "context_pointer",
        "engine",
        "environment",
        "pointer",
    )

    def __init__(
        self, engine: Engine, environment: Environment, binding: StoreBinding | None = None
    ) -> None:
        self.engine: Engine = engine
        if binding is None:
            binding = StoreBinding(engine)
        self._binding = binding
        self._functions: set[HostFunction] | None = None
        self.pointer: int = binding.new()
        self.__del__: Callable[[], object] = partial(lib.wasmtime_store_delete, self.pointer)
        binding.pointer.value = self.pointer
        self.context: int = binding.find_context()
        self.context_pointer: Any = constant_pointer(self.context)
        binding.context.value = self.context
        self.environment: int = id(environment)
        binding.environment.value = self.environment
        binding.set_deadline()
        binding.set_callback()

    def limit(self, limits: StoreLimits) -> None:
        """Set how much the store may hold."""
        limit_store(c_void_p(self.pointer), *limits.arguments)

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
        if self._functions is None:
            self._functions = set()
        self._functions.add(host)
        item = _Extern()
        new_host_function(
            self.context_pointer,
            host.type.pointer(self.engine),
            host.callback,
            c_void_p(self.environment),
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
        store, block = self._store, take_block(slots or 1)
        extern = constant_pointer(block.address)
        if not get_export(store.context_pointer, self._handle, name.encoded, name.length, extern):
            raise EngineFailure(f"no export `{name.text}`")
        if block.kind() != EXTERN_FUNC:
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
