"""Measure how much native stack a thread has left, so that no guest overruns it.

Guests run on the stack of the thread that calls. The engine gives each call its share, counted from
where the call begins, and takes it for granted that there is so much. There is not on a thread that
was made with a small stack, nor where plugins call plugins.

Looking at the stack is expensive where a call takes a microsecond. So each thread knows how many
nested calls it has room for, whatever they and Python do; as long as fewer calls are under way in
the whole process, no look is needed.

Where the stack of a thread cannot be found (for the main thread the system reads a file, and there
may be no descriptor left) no guest is entered, and the next call looks again.

Decisions: docs/decisions.md, 19 and 34.5.
"""

from __future__ import annotations

import ctypes
import os
import sys

from .._platform.native_threads import local
from .callbacks import Environment, HostFunction
from .functions import WasmFunction
from .store import Store
from .types import FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .module import Engine

MARGIN = 256 * 1024
"""Bytes that must be left besides the guest's own: for the engine, ctypes, and host functions that
are called at the end of the guest's stack.
"""
PYTHON_NEEDS = 96 * 1024 if sys.version_info >= (3, 14) else 0
"""Bytes that must be left for Python itself. From 3.14 on it keeps 48 KiB free. With less than
that, `except` clauses of several classes, and library functions that have them, raise
RecursionError or let pass what they should catch.
"""
_PYTHON_LEVEL = 5 * 1024
"""The most bytes that a level of Python's recursion takes where each level passes through C."""

# Where glibc's `getcontext` puts the stack pointer (`ucontext_t`, in words of 8 bytes).
_STACK_POINTER = {"x86_64": 20, "aarch64": 54}
_CONTEXT_WORDS = 600


class StackMeasurement:
    """Stack measurements for one thread.

    Attributes:
        call_depth: How many nested calls there is room for in the worst case. With fewer calls
            under way in the process, no look is needed.
        recursion_limit: Python's recursion limit at that time. With a higher one Python may take
            more.
        next_look: When the thread is to look again who handles signals (see
            `_engine.trap_signals`).
    """

    __slots__ = ("call_depth", "next_look", "recursion_limit")

    def __init__(self, call_depth: int, recursion_limit: int, next_look: float) -> None:
        self.call_depth: int = call_depth
        self.recursion_limit: int = recursion_limit
        self.next_look: float = next_look


class ThreadStack(local):
    """The stack of the calling thread, for guests of one engine. A thread is measured when it first
    asks.

    Measuring allocates, so the garbage collector may run in it, and a finalizer there may call a
    plugin: the thread asks again before it has been measured. What it sees then is what the class
    says, a stack that is not known yet, and it is measured by that call too.

    Attributes:
        need: Bytes that a call needs. All threads share it.
        measurement: What was measured. It is an object of its own because each attribute of a
            thread-local costs as much as a whole look at it. Its `call_depth` is 0 as long as the
            stack cannot be found; `has_room` then tries each time.
    """

    __slots__ = ("_engine", "need")

    measurement: StackMeasurement = StackMeasurement(0, 0, 0.0)
    _lowest: int = 0

    def __init__(self, engine: Engine) -> None:
        self.need: int = engine.stack_bytes + MARGIN
        self._engine: Engine = engine
        self._measure()

    def _measure(self) -> None:
        lowest, size = _find_bounds()
        if lowest:
            position = _make_context_probe(lowest, size) or _make_callback_probe(self._engine)
            limit = sys.getrecursionlimit()
            self._position: Callable[[], int] = position
            self.measurement = StackMeasurement(
                max(0, (position() - lowest - limit * _PYTHON_LEVEL) // self.need),
                limit,
                0.0 if self._engine.signals else float("inf"),
            )
            self._lowest = lowest  # last: whoever sees it finds the rest

    def room(self) -> int | None:
        """Return the bytes that are left from here on, or None if unknown."""
        if not self._lowest:
            self._measure()
        return self._position() - self._lowest if self._lowest else None

    def has_room(self) -> bool:
        """Return whether a guest may certainly be entered from here."""
        room = self.room()
        return room is not None and room >= self.need

    def has_room_for_python(self) -> bool:
        """Return whether ordinary Python code can run from here.

        It can where the stack cannot be found, because no guest is entered there.
        """
        room = self.room()
        return room is None or room >= PYTHON_NEEDS


def _find_bounds() -> tuple[int, int]:
    """Return the lowest address of this thread's stack and its size, or zeros where the system does
    not say.
    """
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


def _make_context_probe(lowest: int, size: int) -> Callable[[], int] | None:
    """Return a function that reads the stack pointer in a fifth of a microsecond, or None where
    that does not work.
    """
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


def _make_callback_probe(engine: Engine) -> Callable[[], int]:
    """Return a function that finds the stack pointer by a callback, whose argument the engine keeps
    on the stack.
    """
    environment = _ProbeEnvironment()
    store = Store(engine, environment)
    function = WasmFunction.of(store, store.make_import(_PROBE_FUNCTION), 1)

    def position() -> int:
        function.call(environment.pending)
        return environment.address

    return position


class _ProbeEnvironment(Environment):
    __slots__ = ("address",)

    address: int


def _store_caller(environment: Any, caller: int, values: Any) -> None:
    environment.address = caller


_PROBE_FUNCTION = HostFunction(FunctionType((), ()), _store_caller)
