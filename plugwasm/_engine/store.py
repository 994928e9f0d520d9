"""Stores: where instances live and calls run, and the way from a guest back into Python.

A host callback gets the environment that its store was made with as a Python object, not as a key to look it up: the C API passes a pointer
through, and the pointer is the object. The store does not own it; whoever owns the store must own the environment as well, and longer.

An exception of a callback is kept in the environment (`pending`) while the guest is unwound, and raised again where the call was made.
"""

from __future__ import annotations

import ctypes
import sys
from _functools import partial  # type: ignore[import-not-found]  # `functools` itself would import much more
from ctypes import addressof, c_char, c_size_t, c_ubyte, c_uint64, c_void_p
from types import FunctionType as PythonFunction

from .._platform.finalizer import Finalizable
from .ffi import (
    EPOCH_CALLBACK,
    EXTERN_FUNC,
    EXTERN_MEMORY,
    EXTERN_SIZE,
    HOST_CALLBACK,
    INSTANCE_SIZE,
    VALUE_SIZE,
    call_unchecked,
    func_to_raw,
    get_caller_export,
    get_export,
    lib,
)
from .signal_safety import signal_safe
from .traps import EngineFailure, HostRaised, take_error, take_trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from functools import partial
    from types import CodeType
    from typing import Any, NoReturn

    from .module import Engine, Module
    from .types import FunctionType

    Body = Callable[["Environment", int, Any], None]
else:
    from _functools import partial  # the module `functools` takes long to import

_INTERRUPTED = b"ended by the host"


class PendingException(Finalizable):
    """Holds what a host callback raised while the guest is unwound. Apart from the environment, so that nobody has to refer to that.

    It also keeps a trap and an error ready (`ready`), one of which a callback returns then. To make one there would be a call, and after a
    call CPython may run a signal handler; what that raises would leave the callback, ctypes would drop it and return what the stack holds,
    and the engine would take that for a pointer. The next one takes over what is left of them.
    """

    __slots__ = ("exception", "ready")

    def __init__(self) -> None:
        self.exception: BaseException | None = None
        try:
            self.ready: list[int] = _left.pop()
        except IndexError:
            self.ready = [0, 0]
        self.__del__: Callable[[], object] = partial(_left.append, self.ready)
        self.arm()

    def arm(self) -> None:
        """Makes anew what was used."""
        ready = self.ready
        if not ready[_TRAP]:
            ready[_TRAP] = lib.wasmtime_trap_new(_INTERRUPTED, len(_INTERRUPTED))
        if not ready[_ERROR]:
            ready[_ERROR] = lib.wasmtime_error_new(_INTERRUPTED)


_TRAP, _ERROR = 0, 1
_left: list[list[int]] = []
"""Of those that are gone: as many as there were at a time, some hundred bytes each."""


class Environment:
    """What host callbacks of one store get: subclass it. `on_epoch` is called soon after each tick and ends the guest by raising.

    `call_host_function` is called in the place of the bodies of host functions that are watched.
    """

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: PendingException = PendingException()

    def on_epoch(self) -> bool | None:
        """Called while a guest runs, after the engine's epoch was incremented.

        Returns:
            Whether it is to be called again at the next turn of a loop, without a tick.
        """
        return False

    def call_host_function(self, function: HostFunction, caller: int, values: Any) -> None:
        """Runs the body, or whatever takes its place."""
        function.body(self, caller, values)


def _on_epoch(context: int, environment: Any, delta: Any, kind: int) -> Any:
    try:
        delta[0] = not environment.on_epoch()
        return None
    except BaseException as exception:
        pending = environment.pending
        pending.exception = exception
        error, pending.ready[_ERROR] = pending.ready[_ERROR], 0
        if error:
            return error
        try:
            return lib.wasmtime_error_new(_INTERRUPTED)
        except BaseException as another:
            pending.exception = another
            return lib.wasmtime_error_new(_INTERRUPTED)


_EPOCH = EPOCH_CALLBACK(signal_safe(_on_epoch))


def _inner() -> None:
    pass


def _outer() -> None:
    _inner()


check_recursion_depth: Callable[[], object] = (
    partial(isinstance, None, ((((((((((((((str,),),),),),),),),),),),),),))
    if sys.version_info < (3, 12)
    else _outer
)
"""Call it before any way into Wasm. It raises `RecursionError` when Python could not enter a callback, or could not call C from there.

ctypes would print that error, drop it, and return whatever the stack holds to the engine, which takes it for the pointer to a trap. From
Python 3.12 on that takes two frames. Before, calls of C count as well (the way in, the callback, its way out); a check against nested
tuples descends as many levels, seven with two to spare, at an eighth of the price of as many Python functions (25 ns).
"""


_TO_START = 12


def check_recursion_depth_to_start(levels: int = _TO_START) -> None:
    """The same before an instance is made: near the end of Python's stack, ctypes would report a `RecursionError` as something else."""
    if levels:
        check_recursion_depth_to_start(levels - 1)


class HostFunction:
    """A Python function that guests can import. Made once and shared by any number of stores, each of which holds it.

    `body` is called with the environment, the caller (for `CallerMemory` and `caller_context`), and the values:
    `values[2 * i]` is parameter i as a signed 64-bit integer (of an i32 only the lower half counts), and where result i goes.

    `name` is the module and the name that guests import it by; None for what the linker makes for itself. `python_types` are the Python
    types of its parameters and then of its results, for those who watch; they may be fewer.
    """

    __slots__ = ("_callback", "_watched", "body", "name", "python_types", "type")

    def __init__(
        self,
        type: FunctionType,
        body: Body,
        name: tuple[str, str] | None = None,
        python_types: tuple[Any, ...] = (),
    ) -> None:
        self.type: FunctionType = type
        self.body: Body = body
        self.name: tuple[str, str] | None = name
        self.python_types: tuple[Any, ...] = python_types
        self._watched: HostFunction | None = None
        self._callback = HOST_CALLBACK(_callback_of(body))

    def make_interceptable(self) -> HostFunction:
        """The same for stores whose environment takes the calls (`Environment.call_host_function`); so all others pay nothing for that."""
        watched = self._watched
        if watched is None:
            unwatched = self

            def pass_on(environment: Environment, caller: int, values: Any) -> None:
                environment.call_host_function(unwatched, caller, values)

            # Two threads may each make one: either will do, for the stores hold what they were given.
            watched = self._watched = HostFunction(self.type, pass_on)
        return watched


# `body` is bound as a default, because a closure could not be shielded.
@signal_safe
def callback(environment: Any, caller: int, values: Any, count: int, body: Body) -> Any:
    try:
        body(environment, caller, values)
        return None
    except BaseException as exception:
        pending = environment.pending
        pending.exception = exception
        trap, pending.ready[_TRAP] = pending.ready[_TRAP], 0
        if trap:
            return trap
        try:
            return lib.wasmtime_trap_new(_INTERRUPTED, len(_INTERRUPTED))
        except BaseException as another:
            pending.exception = another
            return lib.wasmtime_trap_new(_INTERRUPTED, len(_INTERRUPTED))


def _callback_of(body: Body) -> Callable[..., Any]:
    return PythonFunction(callback.__code__, globals(), None, (body,))


CALLBACK_CODE: CodeType = callback.__code__
"""The code of all host callbacks, whose variable `environment` is the guest's."""


class LinearMemory:
    """A memory of a guest. Its address never changes (see `Engine`); it grows but never shrinks."""

    __slots__ = ("_item", "_store", "address")

    def __init__(self, store: Store, item: bytes) -> None:
        """`item` is a `wasmtime_memory_t` of that store; the engine ends the process for one of another."""
        self._store = store
        self._item = item
        self.address: int = lib.wasmtime_memory_data(store.context, item)

    def size(self) -> int:
        """Its present size in bytes."""
        size: int = lib.wasmtime_memory_data_size(self._store.context, self._item)
        return size

    def view(self, size: int | None = None) -> memoryview:
        """Its present bytes, or the first `size` of them. The view, and whatever is made of it, keeps the store."""
        array = (c_ubyte * (self.size() if size is None else size)).from_address(self.address)
        array.store = self._store  # type: ignore[attr-defined]  # ctypes instances take attributes
        return memoryview(array).cast("B")


class ExportName:
    """The name of an export, as the C API wants it; made once and used for every instance."""

    __slots__ = ("encoded", "length", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.encoded: bytes = text.encode()
        self.length: c_size_t = c_size_t(len(self.encoded))


class WasmFunction:
    """A Wasm function of one store, ready to be called.

    `values` holds the parameters before a call and the results after it: number i is `values[2 * i]`, unsigned. `invoke` is the fastest
    way in: it takes nothing, and when the call failed it leaves `values` as they were; then `fail` must be called with what it returned.
    Call `check_recursion_depth` before it.
    """

    __slots__ = ("_store", "_trap", "invoke", "values")

    def __init__(self, store: Store, item: bytes, slots: int) -> None:
        # One block for all that the call needs: the function (two words), the trap (one), a spare word, the values (two words each).
        words = (c_uint64 * (4 + 2 * slots)).from_buffer_copy(
            item[8:24] + bytes(16 + VALUE_SIZE * slots)
        )
        address = addressof(words)
        view = memoryview(words).cast("B").cast("Q")
        self._store = store
        self._trap = view[2:3]
        self.values: memoryview = view[4:]
        self.invoke: Callable[[], int | None] = partial(
            call_unchecked,
            store.context_pointer,
            words,
            c_void_p(address + 32),
            c_size_t(slots),
            c_void_p(address + 16),
        )

    def call(self, pending: PendingException) -> None:
        """Runs it. Raises `EngineFailure`; that is `HostRaised` when a host callback raised."""
        check_recursion_depth()
        try:
            error = self.invoke()
            if error or self._trap[0]:
                self.fail(error, pending)
        except EngineFailure:
            raise
        except BaseException:
            # Of a signal handler, right after the call. How that ended nobody will know.
            self._trap[0] = 0
            pending.exception = None
            pending.arm()
            raise

    @property
    def trapped(self) -> bool:
        """Whether the last call was ended by a trap that `fail` has yet to report."""
        return bool(self._trap[0])

    def fail(self, error: int | None, pending: PendingException) -> NoReturn:
        """Raises what ended the last call."""
        trap = self._trap[0]
        self._trap[0] = 0
        raise take_failure(error, trap, pending)


def take_failure(error: int | None, trap: int | None, pending: PendingException) -> EngineFailure:
    """What ended a call: what a host callback raised, else what the engine reports."""
    failure = take_error(error) if error else take_trap(trap or 0)
    exception = pending.exception
    if exception is None:
        return failure
    pending.exception = None
    pending.arm()
    return HostRaised(exception, failure.frames)


class Store(Finalizable):
    """Holds instances. Not safe to use from two threads at once. It is freed with the last reference to it; views of memories hold one.

    The engine keeps the bare addresses of callbacks. So a store holds each host function that it has made an item of, whoever else does.
    """

    def __init__(self, engine: Engine, environment: Environment) -> None:
        self.engine = engine
        self._functions: set[HostFunction] = set()
        self.pointer: int = lib.wasmtime_store_new(engine.pointer, None, None)
        self.__del__: Callable[[], object] = partial(lib.wasmtime_store_delete, self.pointer)
        self.context: int = lib.wasmtime_store_context(self.pointer)
        self.context_pointer: c_void_p = c_void_p(self.context)
        lib.wasmtime_context_set_epoch_deadline(self.context, 1)
        lib.wasmtime_store_epoch_deadline_callback(self.pointer, _EPOCH, environment, None)

    def limit(
        self,
        *,
        memory_bytes: int = -1,
        table_elements: int = -1,
        instances: int = -1,
        tables: int = -1,
        memories: int = -1,
    ) -> None:
        """Sets the most that each memory and each table may grow to, and how many of each the store may hold; -1 is no limit."""
        lib.wasmtime_store_limiter(
            self.pointer, memory_bytes, table_elements, instances, tables, memories
        )

    def set_fuel(self, amount: int) -> None:
        """Only for stores of an engine with fuel."""
        if error := lib.wasmtime_context_set_fuel(self.context, amount):
            raise take_error(error)

    def fuel(self) -> int:
        """What is left."""
        out = c_uint64()
        if error := lib.wasmtime_context_get_fuel(self.context, ctypes.byref(out)):
            raise take_error(error)
        return out.value

    def make_import(self, host: HostFunction, environment: Environment) -> bytes:
        """A host function as an item that instances of this store can import."""
        self._functions.add(host)
        item = (c_char * EXTERN_SIZE)()
        lib.wasmtime_func_new_unchecked(
            self.context,
            host.type.pointer(self.engine),
            host._callback,
            environment,
            None,
            addressof(item) + 8,
        )
        return item.raw

    def instantiate(self, module: Module, imports: bytes, pending: PendingException) -> Instance:
        """An instance of the module; its start function runs. `imports` are items, one after the other, in the module's order."""
        out = (c_char * INSTANCE_SIZE)()
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
            ctypes.byref(trap),
        )
        if error or trap.value:
            raise take_failure(error, trap.value, pending)
        return Instance(self, out)

    def __reduce__(self) -> str:
        raise TypeError("a store cannot be copied or pickled")  # two objects would free it


class Instance:
    """An instance in a store. Items are opaque bytes, to be passed on as imports."""

    __slots__ = ("_handle", "_store")

    def __init__(self, store: Store, handle: Any) -> None:
        self._store = store
        self._handle = handle

    def exports(self, names: Iterable[ExportName]) -> list[bytes]:
        """The exports of these names. Raises `EngineFailure` when one does not exist."""
        item = (c_char * EXTERN_SIZE)()
        found, context, handle = [], self._store.context_pointer, self._handle
        for name in names:
            if not get_export(context, handle, name.encoded, name.length, item):
                raise EngineFailure(f"no export `{name.text}`")
            found.append(item.raw)
        return found

    def find_memory(self, name: ExportName) -> LinearMemory | None:
        """The exported memory of that name, or None."""
        item = (c_char * EXTERN_SIZE)()
        found = get_export(
            self._store.context_pointer, self._handle, name.encoded, name.length, item
        )
        return (
            LinearMemory(self._store, item.raw[8:])
            if found and item.raw[0] == EXTERN_MEMORY
            else None
        )

    def memory(self, name: ExportName) -> LinearMemory:
        """The exported memory of that name. Raises `EngineFailure` when there is none."""
        memory = self.find_memory(name)
        if memory is None:
            raise EngineFailure(f"no exported memory `{name.text}`")
        return memory

    def function(self, name: ExportName, slots: int) -> WasmFunction:
        """The exported function of that name, with room for so many parameters or results, whichever are more."""
        return WasmFunction(self._store, self._function(name), max(slots, 1))

    def funcref(self, name: ExportName) -> int:
        """The exported function of that name as a value, to be passed to a Wasm function."""
        raw: int = func_to_raw(self._store.context_pointer, self._function(name)[8:])
        return raw

    def _function(self, name: ExportName) -> bytes:
        (item,) = self.exports((name,))
        if item[0] != EXTERN_FUNC:
            raise EngineFailure(f"export `{name.text}` is no function")
        return item


_MEMORY_NAME = ExportName("memory")


class CallerMemory:
    """Finds the memory that a calling instance exports as `memory`. For one thread at a time; made once, for this is called often."""

    __slots__ = ("_caller", "_find", "_item", "_words")

    def __init__(self) -> None:
        self._caller = c_void_p()
        self._item = (c_char * EXTERN_SIZE)()
        self._words = memoryview(self._item).cast("B").cast("I")
        self._find = partial(
            get_caller_export, self._caller, _MEMORY_NAME.encoded, _MEMORY_NAME.length, self._item
        )

    def find(self, caller: int) -> tuple[int, int, int, int] | None:
        """What tells the memory from all others of all stores: the number of its store, in two parts, and its own two numbers there."""
        self._caller.value = caller
        words = self._words
        if not self._find() or words[0] & 0xFF != EXTERN_MEMORY:
            return None
        return words[2], words[3], words[4], words[6]  # what is between these is padding

    def found(self, store: Store) -> LinearMemory:
        """What was found last, in its store: that of `caller_context`."""
        return LinearMemory(store, self._item.raw[8:])


def caller_context(caller: int) -> int:
    """The context of the store that the calling instance lives in: `Store.context`."""
    context: int = lib.wasmtime_caller_context(caller)
    return context
