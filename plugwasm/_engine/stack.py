"""How much of its native stack a thread has left, so that no guest runs into its end.

Guests run on the stack of the thread that calls. The engine gives each call its share of it, counted from where the call begins, and takes
it for granted that there is so much. There is not on a thread that was made with a small stack, nor where plugins call plugins.

A look at the stack is dear where a call takes a microsecond. So each thread knows how many calls it has room for, one in the other,
whatever they and Python do, and as long as fewer are under way in all the process, no look is needed.

Where the stack of a thread cannot be found (for the main thread the system reads a file, and there may be no descriptor left) there is room
for nothing: no guest is entered, and the next call looks again.
"""

from __future__ import annotations

import ctypes
import os
import sys

from .._platform.native_threads import local
from .store import Environment, HostFunction, Store, WasmFunction
from .types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .module import Engine

MARGIN = 256 * 1024
"""Bytes that must be left besides the guest's own: for the engine, ctypes, and host functions that are called at the end of that."""
PYTHON_NEEDS = 96 * 1024 if sys.version_info >= (3, 14) else 0
"""Bytes that must be left for Python itself. From 3.14 on it keeps 48 KiB free: with less than that, `except` clauses of several classes,
and library functions that have them, raise RecursionError or let pass what they should catch."""
_PYTHON_LEVEL = 5 * 1024
"""Bytes that a level of Python's recursion takes at most, where each passes through C."""

# Where glibc's `getcontext` puts the stack pointer (`ucontext_t`, in words of 8 bytes).
_STACK_POINTER = {"x86_64": 20, "aarch64": 54}
_CONTEXT_WORDS = 600


class StackMeasurement:
    """Of one thread.

    Attributes:
        call_depth: How many calls, one in the other, there is room for at worst. Fewer under way in the process: no need to look.
        recursion_limit: Python's at that time. With a higher one Python may take more.
    """

    __slots__ = ("call_depth", "recursion_limit")

    def __init__(self, call_depth: int, recursion_limit: int) -> None:
        self.call_depth = call_depth
        self.recursion_limit = recursion_limit


class ThreadStack(local):
    """The stack of the thread that asks, for guests of one engine. Each thread that asks first is measured then.

    Attributes:
        need: Bytes that a call needs.
        measurement: What was measured; an object of its own, for each attribute of a thread-local costs as much as a whole look at that.
            As long as the stack cannot be found, it has no call_depth, and `has_room` looks for it each time.
    """

    def __init__(self, engine: Engine) -> None:
        self.need = engine.stack_bytes + MARGIN
        self._engine = engine
        self.measurement = StackMeasurement(0, 0)
        self._measure()

    def _measure(self) -> None:
        self._lowest, size = _bounds()
        if self._lowest:
            self._position = _position_by_context(self._lowest, size) or _position_by_callback(
                self._engine
            )
            limit = sys.getrecursionlimit()
            self.measurement = StackMeasurement(
                max(0, (self._position() - self._lowest - limit * _PYTHON_LEVEL) // self.need),
                limit,
            )

    def room(self) -> int | None:
        """Bytes left from here on; None when that cannot be found out."""
        if not self._lowest:
            self._measure()
        return self._position() - self._lowest if self._lowest else None

    def has_room(self) -> bool:
        """Whether it is certain that a guest may be entered from here."""
        room = self.room()
        return room is not None and room >= self.need

    def has_room_for_python(self) -> bool:
        """Return whether ordinary Python code can run from here. It can where the stack cannot be found: no guest is entered there."""
        room = self.room()
        return room is None or room >= PYTHON_NEEDS


def _bounds() -> tuple[int, int]:
    """The lowest address of this thread's stack, and its size; zeros where the system does not say."""
    if sys.platform == "win32":
        lowest, end = ctypes.c_size_t(), ctypes.c_size_t()
        ctypes.windll.kernel32.GetCurrentThreadStackLimits(ctypes.byref(lowest), ctypes.byref(end))
        return lowest.value, end.value - lowest.value
    library = ctypes.CDLL(None)
    library.pthread_self.restype = ctypes.c_void_p
    thread = ctypes.c_void_p(library.pthread_self())
    if sys.platform == "darwin":
        library.pthread_get_stackaddr_np.restype = ctypes.c_void_p
        library.pthread_get_stacksize_np.restype = ctypes.c_size_t
        size = int(library.pthread_get_stacksize_np(thread))
        return int(library.pthread_get_stackaddr_np(thread)) - size, size
    if not hasattr(library, "pthread_getattr_np"):
        return 0, 0
    attributes = (ctypes.c_char * 256)()  # a pthread_attr_t; the largest has 64 bytes
    lowest, bytes_ = ctypes.c_void_p(), ctypes.c_size_t()
    if library.pthread_getattr_np(thread, attributes):
        return 0, 0
    failed = library.pthread_attr_getstack(attributes, ctypes.byref(lowest), ctypes.byref(bytes_))
    library.pthread_attr_destroy(attributes)
    return (0, 0) if failed else (lowest.value or 0, bytes_.value)


def _position_by_context(lowest: int, size: int) -> Callable[[], int] | None:
    """Gives the stack pointer, in a fifth of a microsecond. None where that does not work."""
    word = _STACK_POINTER.get(os.uname().machine) if sys.platform == "linux" else None
    library = ctypes.PyDLL(None) if word is not None else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return None
    get_context, context = library.getcontext, (ctypes.c_uint64 * _CONTEXT_WORDS)()
    view = memoryview(context).cast("B").cast("Q")[word : word + 1]  # type: ignore[operator]

    def position() -> int:
        get_context(context)
        return view[0]

    return position if lowest <= position() < lowest + size else None


def _position_by_callback(engine: Engine) -> Callable[[], int]:
    """The same with what the engine passes to a callback, which it keeps on the stack."""
    environment = _Position()
    store = Store(engine, environment)
    function = WasmFunction(store, store.make_import(_PROBE, environment), 1)

    def position() -> int:
        function.call(environment.pending)
        return environment.address

    return position


class _Position(Environment):
    __slots__ = ("address",)

    address: int


def _note(environment: Any, caller: int, values: Any) -> None:
    environment.address = caller


_PROBE = HostFunction(FunctionType((), ()), _note)
