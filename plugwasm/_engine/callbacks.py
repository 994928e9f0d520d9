"""Host callbacks: how a guest calls back into Python.

A host callback receives the environment of its store as a Python object. The C API passes a pointer
through to the callback, and the pointer is the address of that object, so nothing is looked up. A
store does not keep its environment alive: whoever owns the store must also own the environment, and
must release it last.

If a callback raises, the exception is kept in the environment (`pending`) while the guest is
unwound, and reported where the guest was called, as a `HostRaised`.

Decisions: docs/decisions.md, 14.
"""

from __future__ import annotations

import sys
from types import FunctionType as PythonFunction

from .._platform.finalizer import Finalizable
from .ffi import EPOCH_CALLBACK, HOST_CALLBACK, lib
from .signal_safety import signal_safe
from .traps import HostRaised, take_error, take_trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

    from .traps import EngineFailure
    from .types import FunctionType

    Body = Callable[["Environment", int, Any], None]
    from functools import partial
else:
    from _functools import partial  # the module `functools` takes long to import

_INTERRUPTED = b"ended by the host"


class PendingException(Finalizable):
    """The exception of a host callback, kept while the guest is unwound.

    It is an object apart from the environment, so that code which needs only the exception does not
    keep the environment alive.

    It also holds a trap and an error that were made in advance (`ready`); a callback that fails
    returns one of them. It cannot make one itself: after a call, CPython may run a signal handler,
    and what that raises would leave the callback. ctypes would drop the exception and return
    whatever is on the stack, which the engine would take for a pointer. Unused ones are kept for
    the next object (`_spare_results`).
    """

    __slots__ = ("exception", "ready")

    def __init__(self) -> None:
        self.exception: BaseException | None = None
        try:
            self.ready: list[int] = _spare_results.pop()
        except IndexError:
            self.ready = [0, 0]
        self.__del__: Callable[[], object] = partial(_give_back, self.ready)
        self.replenish()

    def replenish(self) -> None:
        """Make a new trap or error in place of one that was used."""
        ready = self.ready
        if not ready[_TRAP]:
            ready[_TRAP] = lib.wasmtime_trap_new(_INTERRUPTED, len(_INTERRUPTED))
        if not ready[_ERROR]:
            ready[_ERROR] = lib.wasmtime_error_new(_INTERRUPTED)


_TRAP, _ERROR = 0, 1
_spare_results: list[list[int]] = []
"""Traps and errors of freed objects: as many as there were at a time, some hundred bytes each."""
_give_back = _spare_results.append


class Environment:
    """The object that the host callbacks of one store get. Subclass it.

    `on_epoch` is called soon after each tick, and ends the guest by raising. `call_host_function`
    is called in place of the bodies of host functions that are intercepted.
    """

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: PendingException = PendingException()

    def on_epoch(self) -> bool | None:
        """Called while a guest runs, after the engine's epoch was incremented.

        Returns:
            Whether to call it again at the next turn of a loop, without a tick.
        """
        return False

    def call_host_function(self, function: HostFunction, caller: int, values: Any) -> None:
        """Run the body of a host function, or what replaces it."""
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


ON_EPOCH = EPOCH_CALLBACK(signal_safe(_on_epoch))


def _nest(levels: int) -> tuple[Any, ...]:
    return (_nest(levels - 1),) if levels else (str,)


def _inner() -> None:
    pass


def _outer() -> None:
    _inner()


check_recursion_depth: Callable[[], object] = (
    partial(isinstance, None, _nest(13)) if sys.version_info < (3, 12) else _outer
)
"""Call this before every entry into Wasm. It raises `RecursionError` unless Python has room to
enter a callback and to call C from there.

In a callback, ctypes would print that error, drop it and return whatever is on the stack, which the
engine would take for a pointer to a trap. From Python 3.12 on, a callback needs two Python frames:
`_outer` and `_inner` need as many. Before 3.12, calls of C count too (into Wasm, back into the
callback, out of it again). `isinstance` with nested tuples recurses in C once per level, with some
to spare, in 25 ns: an eighth of what Python functions would take.
"""


_LEVELS_TO_START = 12


def _descend(levels: int = _LEVELS_TO_START) -> None:
    if levels:
        _descend(levels - 1)


check_recursion_depth_to_start: Callable[[], object] = (
    partial(isinstance, None, _nest(14 + _LEVELS_TO_START))
    if sys.version_info < (3, 12)
    else _descend
)
"""Call this before an instance is made. It raises `RecursionError` if that would not be safe.

Near the end of Python's stack, ctypes would report a `RecursionError` as something else.
"""


class HostFunction:
    """A Python function that guests can import, shared by any number of stores, each of which holds
    it.

    Args:
        type: The Wasm type.
        body: Called with the environment, the caller (for `CallerMemory` and `caller_context`), and
            the values: `values[2 * i]` is parameter i as a signed 64-bit integer (of an i32 only
            the lower half counts), and where result i goes.
        name: The module and the name that guests import it by; None for functions that the linker
            makes for itself.
        python_types: The Python types of its parameters and then of its results, for observers.
            There may be fewer.
    """

    __slots__ = ("_variants", "body", "callback", "name", "python_types", "type")

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
        self._variants: dict[Callable[..., Body], HostFunction] = {}
        self.callback: Any = HOST_CALLBACK(_make_callback(body))

    def make_variant(self, wrap: Callable[[Body], Body]) -> HostFunction:
        """Return the variant whose body is `wrap(body)`, made once for each `wrap`."""
        variant = self._variants.get(wrap)
        if variant is None:
            # If two threads make one each, either will do: a store holds the one that it got.
            variant = self._variants[wrap] = HostFunction(self.type, wrap(self.body))
        return variant

    def make_interceptable(self) -> HostFunction:
        """Return the variant whose calls go to the environment (`Environment.call_host_function`).

        Stores that intercept nothing use the function itself and pay nothing.
        """
        return self.make_variant(self._intercept)

    def _intercept(self, body: Body) -> Body:
        function = self

        def pass_on(environment: Environment, caller: int, values: Any) -> None:
            environment.call_host_function(function, caller, values)

        return pass_on


# `body` is bound as a default, because `signal_safe` takes no closure.
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


def _make_callback(body: Body) -> Callable[..., Any]:
    return PythonFunction(callback.__code__, globals(), None, (body,))


CALLBACK_CODE: CodeType = callback.__code__
"""The code of all host callbacks. Its variable `environment` is the guest."""


def take_failure(error: int | None, trap: int | None, pending: PendingException) -> EngineFailure:
    """Return what ended a call: what a host callback raised, else what the engine reports."""
    failure = take_error(error) if error else take_trap(trap or 0)
    exception = pending.exception
    if exception is None:
        return failure
    pending.exception = None
    pending.replenish()
    return HostRaised(exception, failure.frames)
