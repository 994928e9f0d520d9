"""Spans and metrics of plugins for OpenTelemetry: `pip install 'plugwasm[otel]'`.

    plugin = plugwasm.Plugin("count_vowels.wasm", observe=plugwasm.otel.OpenTelemetry())

Only OpenTelemetry's API is used: the application configures an SDK, which says where the data goes.
Without one, this does next to nothing.

Text that a plugin or its callers choose is bounded. Inputs, outputs, arguments, bodies and headers
are never exported, and of a URL only the scheme, the host and the port.
"""

from __future__ import annotations

from functools import partial

from ._host.env import NAMESPACE
from ._host.thread_call import context_factory
from ._http.url import Target
from ._runtime.observers import Observer
from ._runtime.trampolines import WASI
from ._version import __version__
from .errors import EgressError, Error, HostFunctionError, OutputError

_import_error: ImportError | None = None
try:
    from opentelemetry.context import attach, detach
    from opentelemetry.metrics import get_meter
    from opentelemetry.trace import (
        SpanKind,
        Status,
        StatusCode,
        get_current_span,
        get_tracer,
        set_span_in_context,
    )
except ImportError as _error:  # raised on use, not for everyone who imports this module
    _import_error = _error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from contextvars import Token
    from types import TracebackType
    from typing import Any, TypeAlias

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ._runtime.observers import Call, HostCall

    Attributes: TypeAlias = dict[str, str | int | float]

__all__ = ["OpenTelemetry"]

OTHER_VALUE = "_OTHER"
"""OpenTelemetry's value for one that is not among the known ones."""
MAX_NAMES = 1000
"""Pairs of a plugin and a function that metrics distinguish."""
_MAX_TEXT = 2000
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
)
_UNKNOWN_FUNCTION_ERRORS = frozenset(
    ("BusyError", "ClosedError", "FunctionNotFoundError", "StackError")
)
"""Names of errors of calls whose function the plugin may not have."""
_ERRORS_WITH_PAYLOAD = (HostFunctionError, OutputError)
"""Errors whose messages contain parts of inputs or outputs."""

_SECONDS = (
    1e-6,
    5e-6,
    1e-5,
    5e-5,
    1e-4,
    5e-4,
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
_BYTES = tuple(float(2**power) for power in range(4, 34, 2))
_FUEL = tuple(10.0**power for power in range(3, 13))


class OpenTelemetry(Observer):
    """Makes a span for each call, for the application's host functions and HTTP requests in it, and
    metrics of all calls.

    The span of a call is current while the call runs, and so the parent of the spans that host
    functions start, `async def` or not.

    Args:
        tracer_provider, meter_provider: Where spans and metrics go; if not given, the application's
            global ones.
        host_calls: Whether host functions and HTTP requests have spans of their own.

    Raises:
        ImportError: The extra `otel` is not installed.
    """

    wants_values = False

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        host_calls: bool = True,
    ) -> None:
        if _import_error is not None:
            raise ImportError(
                "spans and metrics need the package `opentelemetry-api`: "
                "pip install 'plugwasm[otel]'"
            ) from _import_error
        self._tracer = get_tracer("plugwasm", __version__, tracer_provider)
        self._instruments = _Instruments(get_meter("plugwasm", __version__, meter_provider))
        self._host_calls = host_calls

    def on_call(self, call: Call) -> AbstractContextManager[object]:
        span = self._span(
            f"{call.plugin}/{call.function}", SpanKind.INTERNAL, _call_attributes(call)
        )
        return _CurrentSpan(span, partial(self._end_call_span, call))

    def _end_call_span(self, call: Call, span: Span, error: BaseException | None) -> None:
        if span.is_recording():
            known = {
                name: value for name in _SPAN_FIELDS if (value := getattr(call, name)) is not None
            }
            span.set_attributes({f"plugwasm.{name}": value for name, value in known.items()})
            if call.error is not None:
                if call.error in _UNKNOWN_FUNCTION_ERRORS:
                    span.update_name(_bound_text(f"{call.plugin}/{OTHER_VALUE}"))
                _set_error(span, call.error, error, getattr(error, "backtrace", ()))
        self._instruments.record(call)

    def on_host_call(self, call: HostCall) -> AbstractContextManager[object] | None:
        if not self._host_calls:
            return None
        if call.http is not None:
            method = call.http.method if call.http.method in _METHODS else OTHER_VALUE
            about = (
                _call_attributes(call.call)
                | _server_attributes(call.http.url)
                | {"http.request.method": method}
            )
            name = "HTTP" if method is OTHER_VALUE else method
            return _CurrentSpan(
                self._span(name, SpanKind.CLIENT, about), partial(_end_http_span, call)
            )
        if call.namespace in (NAMESPACE, WASI):
            return None
        about = _call_attributes(call.call) | {
            "plugwasm.host_function": _bound_text(call.name),
            "plugwasm.namespace": _bound_text(call.namespace),
        }
        return _CurrentSpan(
            self._span(call.name, SpanKind.INTERNAL, about), partial(_end_host_call_span, call)
        )

    def _span(self, name: str, kind: SpanKind, attributes: Attributes) -> Span:
        return self._tracer.start_span(_bound_text(name), kind=kind, attributes=attributes)


_SPAN_FIELDS = (
    *("start_seconds", "guest_seconds", "host_seconds", "host_calls", "http_requests"),
    *("input_bytes", "output_bytes", "fuel", "memory_bytes", "recycled"),
)
"""Fields of a call that are attributes of its span."""


def _end_http_span(call: HostCall, span: Span, error: BaseException | None) -> None:
    status = call.http.status if call.http is not None else None
    if status:
        span.set_attribute("http.response.status_code", status)
    if call.error is not None:
        _set_error(span, call.error, error)
    elif status and status >= 400:
        _set_error(span, str(status), None)


def _end_host_call_span(call: HostCall, span: Span, error: BaseException | None) -> None:
    if call.error is not None and span.is_recording():
        from traceback import format_tb

        _set_error(
            span, call.error, error, format_tb(error.__traceback__) if error is not None else ()
        )


class _CurrentSpan:
    """Makes a span current in a `with` block, also for coroutines that a host function runs in a
    task.

    Args:
        finish: Called with the span, and the error that ended the block.
    """

    __slots__ = ("_finish", "_outer", "_span", "_token")

    def __init__(self, span: Span, finish: Callable[[Span, BaseException | None], None]) -> None:
        self._span = span
        self._finish = finish
        self._token: Token[Context] | None = None
        self._outer: Token[Any] | None = None

    def __enter__(self) -> None:
        own = self._span.get_span_context()
        # Otherwise there is no SDK, or this span is current already.
        if own.is_valid and own.span_id != get_current_span().get_span_context().span_id:
            context = set_span_in_context(self._span)
            self._outer = context_factory.set(partial(_AttachedContext, context))
            self._token = attach(context)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._finish(self._span, error)
        finally:  # one by one: a signal handler may raise in each
            try:
                if self._token is not None:
                    detach(self._token)
            finally:
                try:
                    if self._outer is not None:
                        context_factory.reset(self._outer)
                finally:
                    self._span.end()


class _AttachedContext:
    """Makes a context of OpenTelemetry the current one."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = attach(self._context)

    def __exit__(self, *_: object) -> None:
        detach(self._token)


class _Instruments:
    """The metrics of calls.

    Attributes have few values: names that calls were made by, and classes of errors.
    """

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, description: str, boundaries: Sequence[float]) -> Any:
            return meter.create_histogram(
                f"plugwasm.call.{name}",
                unit,
                description,
                explicit_bucket_boundaries_advisory=boundaries,
            )

        self._names: dict[tuple[str, str], Attributes] = {}
        self._duration = histogram("duration", "s", "Duration of calls", _SECONDS)
        self._start = histogram(
            "start.duration", "s", "Time for making instances, in calls that made one", _SECONDS
        )
        self._guest = histogram("guest.duration", "s", "Time in the guest", _SECONDS)
        self._host = histogram(
            "host.duration",
            "s",
            "Time in host functions, in calls of guests that called some",
            _SECONDS,
        )
        self._input = histogram("input.size", "By", "Size of inputs", _BYTES)
        self._output = histogram(
            "output.size", "By", "Size of outputs of calls that succeeded", _BYTES
        )
        self._memory = histogram(
            "memory.peak", "By", "The most memory that the instance had", _BYTES
        )
        self._fuel = histogram(
            "fuel", "{fuel}", "Fuel that guests used, where there is a limit", _FUEL
        )
        self._host_calls = meter.create_counter(
            "plugwasm.host_calls", "{call}", "Calls of host functions by guests"
        )
        self._requests = meter.create_counter(
            "plugwasm.http_requests",
            "{request}",
            "HTTP requests by guests, also those that were refused",
        )

        self._recycled = meter.create_counter(
            "plugwasm.recycled_instances", "{instance}", "Instances that were replaced by another"
        )

    def record(self, call: Call) -> None:
        """Record a call that has ended."""
        where = self._attributes(call)
        about = where if call.error is None else where | {"error.type": call.error}
        self._duration.record(call.seconds, about)
        self._input.record(call.input_bytes, about)
        if call.error is None:
            self._output.record(call.output_bytes, where)
        if call.start_seconds:
            self._start.record(call.start_seconds, about)
        if call.error not in _UNKNOWN_FUNCTION_ERRORS:
            self._guest.record(call.guest_seconds, about)
        if call.host_calls:
            self._host.record(call.host_seconds, about)
            self._host_calls.add(call.host_calls, where)
        if call.http_requests:
            self._requests.add(call.http_requests, where)
        if call.memory_bytes is not None and call.error not in _UNKNOWN_FUNCTION_ERRORS:
            self._memory.record(call.memory_bytes, about)
        if call.recycled is not None:
            self._recycled.add(1, where | {"plugwasm.recycled": call.recycled})
        if call.fuel is not None:
            self._fuel.record(call.fuel, about)

    def _attributes(self, call: Call) -> Attributes:
        """Return the plugin and the function of a call.

        A function that the plugin does not have becomes `OTHER_VALUE`, since its name may be
        anything; so do further names when there are `MAX_NAMES`.
        """
        name = call.plugin, call.function
        found = self._names.get(name)
        if found is not None:
            return found
        if call.error in _UNKNOWN_FUNCTION_ERRORS:
            name = call.plugin, OTHER_VALUE
        if name not in self._names and len(self._names) >= MAX_NAMES:
            name = OTHER_VALUE, OTHER_VALUE
        return self._names.setdefault(
            name,
            {"plugwasm.plugin": _bound_text(name[0]), "plugwasm.function": _bound_text(name[1])},
        )


def _call_attributes(call: Call) -> Attributes:
    return {
        "plugwasm.plugin": _bound_text(call.plugin),
        "plugwasm.function": _bound_text(call.function),
    }


def _server_attributes(url: str) -> Attributes:
    """Return scheme, host and port of a URL, parsed as the egress policy parses it; empty if it
    rejects the URL."""
    try:
        target = Target.parse(url)
    except EgressError:
        return {}
    return {"url.scheme": target.scheme, "server.address": target.host, "server.port": target.port}


def _set_error(
    span: Span, name: str, error: BaseException | None, frames: Sequence[str] = ()
) -> None:
    """Set the error of a span. Only messages of plugwasm and of the plugin are exported."""
    message = (
        _bound_text(error.message)
        if isinstance(error, Error) and not isinstance(error, _ERRORS_WITH_PAYLOAD)
        else None
    )
    span.set_attribute("error.type", name)
    span.set_status(Status(StatusCode.ERROR, message))
    if error is not None:
        span.add_event("exception", dict(_exception_attributes(error, message, frames)))


def _exception_attributes(
    error: BaseException, message: str | None, frames: Sequence[str]
) -> Iterator[tuple[str, str]]:
    kind = type(error)
    yield (
        "exception.type",
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}",
    )
    if message is not None:
        yield "exception.message", message
    if frames:
        yield "exception.stacktrace", "\n".join(frame.rstrip("\n") for frame in frames)


def _bound_text(text: str) -> str:
    """Return text that an exporter can send: of bounded length, and valid UTF-8."""
    cut = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()
