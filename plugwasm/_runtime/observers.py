"""What happened: how long a call took and where, what it used, and what the plugin asked the host for.

    plugin = plugwasm.Plugin("count_vowels.wasm", observe=True)
    result = plugin.call("count_vowels", "Hello", returns=plugwasm.Measured[str])
    result.value, result.call.guest_seconds, result.call.memory_bytes

    plugwasm.Plugin("count_vowels.wasm", observe=observing.Trace())        # each call and host call as a line on stderr
    plugwasm.Plugin("count_vowels.wasm", observe=observing.CallLog())      # a record of logging for each call
    plugwasm.Plugin("count_vowels.wasm", observe=[A(), B()])               # observers of your own

A plugin is observed or not from the start, so that all others pay nothing for it. What an observer raises is logged, and changes nothing.
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
        """Stands for the host functions of one instance: runs them itself, and so can see or replace all that they do."""

        def begin(self, call: Call, /) -> None:
            """A call begins; also the one that the instance is started for."""

        def call_host_function(
            self, guest: Any, function: HostFunction, caller: int, values: Any, /
        ) -> None:
            """The guest calls a host function."""

        def settle(self, guest: Guest, /) -> None:
            """The guest has ended its call, well or not, and may be dropped next."""

        def end(self, call: Call, error: BaseException | None, /) -> None:
            """The call has ended, with that error or with its output."""


T = TypeVar("T")

__all__ = ["Call", "CallLog", "HostCall", "HttpExchange", "Measured", "Observer", "Trace"]


@dataclass(eq=False, slots=True)
class Call:
    """A call of a plugin, under way or ended. Times are in seconds.

    Attributes:
        plugin, function: Its name, and the export.
        input: What the guest was given.
        host_context: What was passed to the call.
        output: What the guest gave back; None when it failed, or has not ended.
        error: The name of the class of what was raised; None when nothing was.
        seconds: From beginning to end.
        start_seconds: Of these, for making the instance; 0 when there was one.
        guest_seconds: In the guest, and on the way there and back, which takes about a microsecond.
        host_seconds: In host functions: those of the application, and what plugwasm serves itself.
        host_calls: How many calls of host functions there were.
        http_requests: How many of them were HTTP requests.
        fuel: What the guest used; None where there is no limit on it.
        memory_bytes: The most memory that the instance had; None when there was none, or it has memories that the host cannot see.
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

    @property
    def input_bytes(self) -> int:
        """The size of the input."""
        return len(self.input)

    @property
    def output_bytes(self) -> int:
        """The size of the output; 0 when there is none."""
        return len(self.output or b"")

    def statistics(self) -> dict[str, str | int | float | None]:
        """All but the data, by name: fields for a log record, or a row of a table."""
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
        return {name: getattr(self, name) for name in (*kept, *sizes)}

    def __str__(self) -> str:
        call = f"{self.function}({shorten(self.input) if self.input else ''})"
        if self.error is not None:
            return f"{call} raised {self.error}"
        return call if self.output is None else f"{call} -> {shorten(self.output)}"


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """An HTTP request of a plugin as it asked for it, and the status that came back; None when none did."""

    method: str
    url: str
    status: int | None


@dataclass(eq=False, slots=True)
class HostCall:
    """A call of a host function by a plugin.

    Attributes:
        call: The call that it was made in.
        namespace, name: Of the function.
        args: What the plugin passed, by the types of the application's function. Where those are not known, an i64 is the bytes of the
            block that it is a handle of, if it is one, and else a number. Of larger blocks only the first 16 MiB are there, as bytes.
            Empty if no observer wants values.
        results: What it returned, by the same rules.
        error: The name of the class of what it raised; None when it raised nothing.
        seconds: How long it took.
        http: What was asked of whom, where it was an HTTP request.
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
    """Sees the calls of a plugin, and of its host functions. Subclass it; one may serve any number of plugins and threads at once.

    Attributes:
        wants_values: Whether `HostCall.args` and `results` are to be filled. They are copies.
    """

    __module__ = "plugwasm.observing"

    wants_values = True

    def on_call(self, call: Call) -> AbstractContextManager[object] | None:
        """Called before a call. The context manager that it returns is entered now, and left when all of `call` is known."""

    def on_host_call(self, call: HostCall) -> AbstractContextManager[object] | None:
        """The same for host functions. It is called in the thread of the call, also where the function is a coroutine's."""

    def _make_interceptor(self, guest: Guest) -> HostCallInterceptor | None:
        """What is to serve the host calls of a new instance in the place of the functions themselves."""
        return None


class Trace(Observer):
    """Tells of each host call when it has ended, with arguments and results, and then of the call itself.

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
    """Logs each call when it has ended, at the level INFO, or WARNING when it failed. The record has `Call.statistics` as its fields.

    Args:
        logger: Where to; `plugwasm.calls` if not given.
        slower_than: Seconds; calls that succeed in less are not logged.
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
    """The fields of a record, which a formatter may write as they are."""
    return {
        name: truncate(value) if isinstance(value, str) else value for name, value in fields.items()
    }


def _summary(call: Call) -> str:
    """What it took, in words."""
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
    """The result of a call, and what it took: `plugin.call("f", returns=Measured[str])`, for plugins that are observed.

    Attributes:
        value: What `returns=str` would have given.
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
    """Those that are meant by the argument `observe`; None when the plugin is not to be observed.

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
    """Whether one of them stands for host functions, so that instances must be in this process."""
    return any(
        type(observer)._make_interceptor is not Observer._make_interceptor for observer in given
    )


set_public_module("plugwasm.observing", Call, HttpExchange, HostCall)
