"""Observers: the times of calls, what they used, and the host calls that plugins made.

    path = "count_vowels.wasm"
    plugin = plugwasm.Plugin(path, observe=True)
    result = plugin.call("count_vowels", "Hello", returns=plugwasm.Measured[str])
    result.value, result.call.guest_seconds, result.call.memory_bytes

    plugwasm.Plugin("count_vowels.wasm", observe=observing.Trace())  # each call, on stderr
    plugwasm.Plugin("count_vowels.wasm", observe=observing.CallLog())  # a log record for each call
    plugwasm.Plugin("count_vowels.wasm", observe=[A(), B()])  # observers of your own

A plugin is observed or not from the start, so that all others pay nothing for it. What an observer
raises is logged, and changes nothing.

Decisions: docs/decisions.md, 24.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from .._host.observed_values import shorten
from .._public import set_public_module
from ..errors import OptionError, escape_line, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from .._engine import HostFunction
    from .._host.guest import Guest
    from .argument_types import Observe

    class HostCallInterceptor(Protocol):
        """Runs the host functions of one instance, and so can see or replace all that they do."""

        def begin(self, call: Call, /) -> None:
            """Called when a call begins; also the one that the instance is started for."""

        def call_host_function(
            self, guest: Any, function: HostFunction, caller: int, values: Any, /
        ) -> None:
            """Called when the guest calls a host function."""

        def settle(self, guest: Guest, /) -> None:
            """Called when the guest has ended its call, well or not, and may be dropped next."""

        def end(self, call: Call, error: BaseException | None, /) -> None:
            """Called when the call has ended, with that error or with its output."""


T = TypeVar("T")

__all__ = ["Call", "CallLog", "HostCall", "HttpExchange", "Measured", "Observer", "Trace"]


@dataclass(eq=False, slots=True)
class Call:
    """A call of a plugin, under way or ended. Times are in seconds.

    Attributes:
        plugin, function: The names of the plugin and of the export.
        input: The input of the guest.
        host_context: The `host_context` of the call.
        output: The output of the guest; None when it failed, or has not ended.
        error: The name of the class of the exception that it raised; None when it raised none.
        seconds: The whole time.
        start_seconds: The part for making the instance; 0 when there was one.
        guest_seconds: The part in the guest, and on the way there and back, which takes about a
            microsecond.
        host_seconds: The part in host functions: those of the application, and those of plugwasm.
        host_calls: The number of calls of host functions.
        http_requests: The number of HTTP requests among them.
        fuel: The fuel that the guest used; None without a limit.
        memory_bytes: The most memory that the instance had; None when there was none, or it has
            memories that the host cannot see.
        recycled: Why the instance was made in this call: the field of `Recycle` that the one before
            it had reached. None if none was recycled.
    """

    plugin: str
    function: str
    input: bytes = field(repr=False)
    host_context: Any = field(default=None, repr=False)
    output: bytes | None = field(default=None, repr=False)
    error: str | None = None
    seconds: float = 0.0
    start_seconds: float = 0.0
    guest_seconds: float = 0.0
    host_seconds: float = 0.0
    host_calls: int = 0
    http_requests: int = 0
    fuel: int | None = None
    memory_bytes: int | None = None
    recycled: str | None = None

    @property
    def input_bytes(self) -> int:
        """The size of the input."""
        return len(self.input)

    @property
    def output_bytes(self) -> int:
        """The size of the output; 0 when there is none."""
        return len(self.output or b"")

    def statistics(self) -> dict[str, str | int | float | None]:
        """Return all fields but the data, by name: fields for a log record, or a row of a table."""
        kept = (
            "plugin",
            "function",
            "error",
            "seconds",
            "start_seconds",
            "guest_seconds",
            "host_seconds",
            "host_calls",
            "http_requests",
        )
        sizes = ("input_bytes", "output_bytes", "fuel", "memory_bytes")
        return {name: getattr(self, name) for name in (*kept, *sizes, "recycled")}

    def __str__(self) -> str:
        call = f"{self.function}({shorten(self.input) if self.input else ''})"
        if self.error is not None:
            return f"{call} raised {self.error}"
        return call if self.output is None else f"{call} -> {shorten(self.output)}"


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """An HTTP request as the plugin asked for it, and the response's status (None without one)."""

    method: str
    url: str
    status: int | None


@dataclass(eq=False, slots=True)
class HostCall:
    """A call of a host function by a plugin.

    Attributes:
        call: The call that it was made in.
        namespace, name: The name of the function.
        args: The arguments, by the types of the application's function. Where those are not known,
            an i64 is the bytes of the block that it is a handle of, if it is one, and else a
            number. Of larger blocks only the first 16 MiB are there, as bytes. Empty if no observer
            wants values.
        results: The results, by the same rules.
        error: The name of the class of the exception that it raised; None when it raised none.
        seconds: The time that it took.
        http: The request and its status, where it was an HTTP request.
    """

    call: Call
    namespace: str
    name: str
    args: tuple[Any, ...] = ()
    results: tuple[Any, ...] = ()
    error: str | None = None
    seconds: float = 0.0
    http: HttpExchange | None = None

    def __str__(self) -> str:
        call = f"{self.name}({', '.join(map(shorten, self.args))})"
        if self.error is not None:
            return f"{call} raised {self.error}"
        return f"{call} -> {', '.join(map(shorten, self.results))}" if self.results else call


class Observer:
    """Observes the calls of a plugin, and of its host functions. Subclass it.

    One observer may serve any number of plugins and threads at once.

    Attributes:
        wants_values: Whether `HostCall.args` and `results` are to be filled. They are copies.
    """

    __module__ = "plugwasm.observing"

    wants_values = True

    def on_call(self, call: Call) -> AbstractContextManager[object] | None:
        """Called before a call.

        The context manager that it returns is entered now, and left when all of `call` is known.
        """

    def on_host_call(self, call: HostCall) -> AbstractContextManager[object] | None:
        """Called before a call of a host function, as `on_call`.

        It is called in the thread of the call, also where the function is a coroutine's.
        """

    def _make_interceptor(self, guest: Guest) -> HostCallInterceptor | None:
        """Return an object that runs the host calls of a new instance, or None."""
        return None


class Trace(Observer):
    """Reports each host call when it has ended, with its values, and then the call itself.

    Args:
        hook: Called with each `HostCall` and each `Call`; if not given, they are lines on stderr.
    """

    __module__ = "plugwasm.observing"

    def __init__(self, hook: Callable[[Call | HostCall], object] | None = None) -> None:
        self._hook = hook or _print

    @contextmanager
    def on_call(self, call: Call) -> Iterator[None]:
        try:
            yield
        finally:
            self._hook(call)

    @contextmanager
    def on_host_call(self, call: HostCall) -> Iterator[None]:
        try:
            yield
        finally:
            self._hook(call)


def _print(record: Call | HostCall) -> None:
    import sys

    line = (
        f"    {record}  [{record.seconds * 1e3:.3f} ms]"
        if isinstance(record, HostCall)
        else f"{record}  [{_summary(record)}]"
    )
    if sys.stderr is not None:
        print(escape_line(line), file=sys.stderr)


class CallLog(Observer):
    """Logs each call when it has ended, at the level INFO, or WARNING when it failed.

    The record has `Call.statistics` as its fields.

    Args:
        logger: The logger; `plugwasm.calls` if not given.
        slower_than: Seconds; faster calls that succeed are not logged.
    """

    __module__ = "plugwasm.observing"

    def __init__(self, logger: logging.Logger | None = None, *, slower_than: float = 0.0) -> None:
        from .._host.plugin_log import get_logger

        self._logger = logger or get_logger("calls")
        self._slower_than = slower_than

    @contextmanager
    def on_call(self, call: Call) -> Iterator[None]:
        try:
            yield
        finally:
            if call.error is not None or call.seconds >= self._slower_than:
                level, ended = (20, "") if call.error is None else (30, f"raised {call.error}, ")
                names = escape_line(call.function), escape_line(call.plugin)
                self._logger.log(
                    level,
                    "%s of %s: %s%s",
                    *names,
                    ended,
                    _summary(call),
                    extra=_in_lines(call.statistics()),
                )


def _in_lines(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record, which a formatter may write as they are."""
    return {
        name: truncate(value) if isinstance(value, str) else value for name, value in fields.items()
    }


def _summary(call: Call) -> str:
    """Return the sizes and the times of a call, in words."""
    inside = (
        f", {call.host_seconds * 1e3:.3f} of them in {call.host_calls} host calls"
        if call.host_calls
        else ""
    )
    sizes = f"{call.input_bytes} bytes in" + (
        "" if call.error is not None else f", {call.output_bytes} out"
    )
    return f"{sizes}, {call.seconds * 1e3:.3f} ms{inside}"


class Measured(Generic[T]):
    """The result of a call with its measurements: `plugin.call("f", returns=Measured[str])`.

    For plugins that are observed.

    Attributes:
        value: The result that `returns=str` would have given.
        call: The call.
    """

    __module__ = "plugwasm"

    __slots__ = ("call", "value")

    def __init__(self, value: T, call: Call) -> None:
        self.value: T = value
        self.call: Call = call

    def __repr__(self) -> str:
        return f"Measured({self.value!r}, {self.call!r})"


def resolve_observers(observe: Observe) -> tuple[Observer, ...] | None:
    """Return the observers that the argument `observe` names; None when the plugin is not observed.

    Raises:
        OptionError: It is something else.
    """
    if observe is None or observe is False:
        return None
    if observe is True:
        return ()
    found = (observe,) if isinstance(observe, Observer) else observe
    if not isinstance(found, (list, tuple)):
        raise OptionError(
            f"observe: expected True, an Observer, or a list of them, got {type(found).__name__}"
        )
    for observer in found:
        if not isinstance(observer, Observer):
            raise OptionError(
                f"observe: expected a list of Observers, but one is {type(observer).__name__}"
            )
    return tuple(found) or None


def need_local_instance(given: Sequence[Observer]) -> bool:
    """Return whether one of them runs host functions itself, so that instances must be local."""
    return any(
        type(observer)._make_interceptor is not Observer._make_interceptor for observer in given
    )


set_public_module("plugwasm.observing", Call, HttpExchange, HostCall)
