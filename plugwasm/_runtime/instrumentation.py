"""The instrumentation of observed plugins: it measures calls and host calls, and tells observers.

call        run → observers · the plugin's own `call` · observers
start       time_start, attach
host call   call_host_function → observers · the body, or an interceptor · observers
end         settle

Decisions: docs/decisions.md, 24.
"""

from __future__ import annotations

from time import perf_counter

from .._host.codecs import prepare_typed_call, unencodable_input_error
from .._host.deadline import NEVER
from .._host.env import NAMESPACE
from .._host.guest import PluginExit
from .._host.observed_values import observe_values
from .._host.plugin_log import get_logger, log_exception
from ..errors import HostFunctionError
from .call_errors import parse_output
from .call_queue import QueuedCall, hand_over, holds_self
from .inputs import to_input_bytes
from .observers import Call, HostCall, HttpExchange, Measured, Observer, need_local_instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from .._engine import HostFunction
    from .._host.codecs import TypedCodec
    from .._host.guest import Guest
    from .abstract_plugin import AbstractPlugin
    from .observers import HostCallInterceptor

_HTTP = (NAMESPACE, "http_request")
_logger = get_logger("observing")


class CallInstrumentation:
    """Instrumentation of one plugin.

    Args:
        observers: The observers to tell.

    Attributes:
        needs_local_instance: Whether an observer stands for host functions
            (`observers.need_local_instance`).
        call: The call under way; absent when there is none, so that nothing of a call is kept.
        deadline: The deadline of the last call, on the monotonic clock.
    """

    __slots__ = (
        "_host_time",
        "_idle",
        "_interceptor",
        "_is_contended",
        "_listeners",
        "_observers",
        "_queue",
        "_wants_values",
        "call",
        "deadline",
        "needs_local_instance",
    )

    call: Call

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._listeners = [
            observer
            for observer in observers
            if type(observer).on_host_call is not Observer.on_host_call
        ]
        self.needs_local_instance = need_local_instance(observers)
        self._wants_values = any(observer.wants_values for observer in self._listeners)
        self._interceptor: HostCallInterceptor | None = None
        self._host_time = 0.0
        """Seconds of the call under way that were spent outside of the guest."""
        self._queue: list[QueuedCall] = []
        self._is_contended = False
        self._idle = True
        self.deadline = NEVER

    def run(
        self,
        plugin: AbstractPlugin,
        enter: Callable[..., Any],
        function: str,
        data: Any,
        parse: Any,
        host_context: Any,
        returns: Any,
        codec: TypedCodec | None,
    ) -> Any:
        """Make a call with the plugin's own method, `enter`; the rest is as for `Plugin.call`."""
        begin = perf_counter()
        is_measured = getattr(returns, "__origin__", returns) is Measured
        if is_measured:
            returns = (*getattr(returns, "__args__", ()), ...)[0]
        if returns is not ... or codec is not None:
            data, parse = prepare_typed_call(function, data, parse, returns, codec, plugin.name)
        if type(data) is not bytes:
            try:
                data = data.encode() if isinstance(data, str) else bytes(to_input_bytes(data))
            except UnicodeEncodeError as failure:
                raise unencodable_input_error(failure, plugin.name, function) from None
        call = Call(plugin.name, function, data, host_context)
        entered: list[AbstractContextManager[object]] = []
        error: BaseException | None = None
        try:
            _enter(self._observers, "on_call", call, entered)
            result = self._run_exclusively(plugin, enter, call, parse)
            if parse is not None and parse is not bytes:
                result, deadline = result
                result = parse_output(parse, result, deadline, plugin.compiled_plugin, function)
            return Measured(result, call) if is_measured else result
        except BaseException as exception:
            error = exception
            call.error = type(exception).__name__
            raise
        finally:
            try:
                call.seconds = perf_counter() - begin
            finally:  # a signal handler may have raised
                _leave(entered, error)
            del error

    @holds_self
    def _run_exclusively(
        self, plugin: AbstractPlugin, enter: Callable[..., Any], call: Call, parse: object
    ) -> Any:
        try:
            del self._idle  # as the lock of `Plugin`
        except AttributeError:
            queued_call = QueuedCall(self, plugin, call.function)
            try:
                queued_call.wait()
            except BaseException:
                try:
                    del queued_call.is_pending
                except AttributeError:
                    self._idle = True
                hand_over(self)
                raise
        error: BaseException | None = None
        try:
            self.call = call
            self._host_time = 0.0
            if self._interceptor is not None:
                self._interceptor.begin(call)
            begin = perf_counter()
            try:
                output = enter(
                    call.function, call.input, None if parse is None else bytes, call.host_context
                )
                call.output = bytes(output)
                return output if parse is None or parse is bytes else (output, self.deadline)
            except BaseException as exception:
                error = exception
                raise
            finally:
                call.guest_seconds = max(
                    0.0, perf_counter() - begin - self._host_time - call.start_seconds
                )
                if self._interceptor is not None:
                    self._interceptor.end(call, error)
        finally:
            # No call between these: a signal handler could raise after it and leave this busy.
            try:
                del self.call
            except AttributeError:
                pass
            self._idle = True
            if self._is_contended:
                hand_over(self)
            del error

    def time_start(self, start: Callable[..., Guest], *args: Any) -> Guest:
        """Measure the start of an instance within a call."""
        begin, away = perf_counter(), self._host_time
        try:
            return start(*args)
        finally:
            self.call.start_seconds += perf_counter() - begin - (self._host_time - away)

    def attach(self, guest: Guest) -> None:
        """Intercept the host calls of a new instance. To be called before anything is linked."""
        guest.interceptor = self
        self._interceptor = next(
            (
                found
                for observer in self._observers
                if (found := observer._make_interceptor(guest)) is not None
            ),
            None,
        )
        if self._interceptor is not None:
            self._interceptor.begin(self.call)

    def settle(self, guest: Guest) -> None:
        """Record the state of an instance after its call, before it may be dropped."""
        self.deadline = guest.deadline
        if hasattr(guest, "budget") and hasattr(
            guest, "kernel"
        ):  # for there may have been no room for it
            self.call.memory_bytes = guest.memory_bytes()
        if self._interceptor is not None:
            self._interceptor.settle(guest)

    def call_host_function(
        self, guest: Guest, function: HostFunction, caller: int, values: Any
    ) -> None:
        """Run a host function, see `Guest.interceptor`."""
        begin = perf_counter()
        call = self.call
        call.host_calls += 1
        call.http_requests += function.name == _HTTP
        try:
            if self._listeners:
                self._run_with_listeners(guest, function, caller, values)
                return
            try:
                self._run_body(guest, function, caller, values)
            finally:
                call.host_seconds += perf_counter() - begin
        finally:
            self._host_time += perf_counter() - begin

    def _run_body(self, guest: Guest, function: HostFunction, caller: int, values: Any) -> None:
        if self._interceptor is None:
            function.body(guest, caller, values)
        else:
            self._interceptor.call_host_function(guest, function, caller, values)

    def _run_with_listeners(
        self, guest: Guest, function: HostFunction, caller: int, values: Any
    ) -> None:
        """Run a host function, and tell the observers."""
        assert function.name is not None
        seen_call = HostCall(self.call, *function.name)
        params, results = function.type.params, function.type.results
        if self._wants_values:
            seen_call.args = observe_values(guest, params, values, function.python_types)
        if function.name == _HTTP and params:
            seen_call.http = _http(guest, values[0])
        entered: list[AbstractContextManager[object]] = []
        error: BaseException | None = None
        begin = perf_counter()
        try:
            _enter(self._listeners, "on_host_call", seen_call, entered)
            begin = perf_counter()
            self._run_body(guest, function, caller, values)
            if self._wants_values:
                seen_call.results = observe_values(
                    guest, results, values, function.python_types[len(params) :]
                )
        except BaseException as exception:
            if not isinstance(exception, PluginExit):
                error = (type(exception) is HostFunctionError and exception.__cause__) or exception
                seen_call.error = type(error).__name__
            raise
        finally:
            try:
                seen_call.seconds = perf_counter() - begin
                self.call.host_seconds += seen_call.seconds
                if seen_call.http is not None and error is None:
                    seen_call.http = HttpExchange(
                        seen_call.http.method, seen_call.http.url, guest.response_status
                    )
            finally:
                _leave(entered, error)
            del error


def _http(guest: Guest, handle: int) -> HttpExchange:
    """Return the request that a document describes, with empty texts if it is none."""
    from msgspec import DecodeError
    from msgspec.json import decode

    from .._host.http_request import MAX_DOCUMENT, MAX_VALUES
    from .._payload_bounds.nesting import is_json_too_deep
    from .._payload_bounds.value_count import json_exceeds

    document = (
        guest.find_block(handle) or b"" if guest.block_length(handle) <= MAX_DOCUMENT else b""
    )
    asked: Any = None
    if not (json_exceeds(document, MAX_VALUES) or is_json_too_deep(document)):
        try:
            asked = decode(document)
        except (DecodeError, UnicodeDecodeError, RecursionError):
            pass
    method, url = (
        (asked.get("method") or "GET", asked.get("url")) if isinstance(asked, dict) else ("", "")
    )
    return HttpExchange(str(method).upper(), str(url), None)


# ---- observers -----------------------------------------------------------------------------------


def _enter(
    observers: Sequence[Observer],
    hook: str,
    record: Call | HostCall,
    entered: list[AbstractContextManager[object]],
) -> None:
    """Enter the context managers that the observers return for a record, and list them."""
    for observer in observers:
        context = None
        try:
            context = getattr(observer, hook)(record)
            if context is not None:
                # Listed first, or a signal handler that raises would leave it entered.
                entered.append(context)
                context.__enter__()
        except Exception:
            if entered and entered[-1] is context:
                del entered[-1]
            log_exception(_logger, "an observer raised; the call goes on")


def _leave(entered: list[AbstractContextManager[object]], error: BaseException | None) -> None:
    """Exit the context managers, last first. The call ignores what they raise or suppress."""
    kind, traceback = (error.__class__, error.__traceback__) if error is not None else (None, None)
    while entered:
        context = entered[-1]
        try:
            context.__exit__(kind, error, traceback)
        except Exception as raised:
            if raised is not error:
                log_exception(_logger, "an observer raised; the call goes on")
        except BaseException:
            del entered[-1]
            _leave(entered, error)
            raise
        del entered[-1]
