"""Capture the life of an instance: its calls, and what the host answered in each."""

from __future__ import annotations

import weakref
from functools import partial
from sys import getsizeof

from .._engine import EngineFailure, HostRaised
from .._host.env import FUNCTIONS, LOG_LEVEL, NAMESPACE, RERUN, RESPONSE, find_env_function
from .._host.functions import USER_NAMESPACE
from .._host.guest import PluginExit
from .._runtime.trampolines import WASI, is_builtin_wasi
from .._wasi.abi import MemoryFault
from ..errors import BusyError, CancelledError, ClosedError, Error, StackError
from . import wasi_calls
from .effects import EffectTracker, read_arguments
from .schema import (
    Call,
    Data,
    Failure,
    HostCall,
    HttpStatus,
    Value,
    split_vars,
    to_encodable_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._engine import HostFunction
    from .._host.guest import Guest
    from .._runtime import observers
    from .._wasi.abi import WasiMemory
    from .buffer import RecordingBuffer

_EFFECT_OVERHEAD = 150
_REFUSED = (BusyError, ClosedError, StackError)


def _memory_size(part: Data | Value) -> int:
    """Return the bytes of memory of a part; text that is not ASCII takes up to four a character."""
    return getsizeof(part) + getsizeof(part.text if part.base64 is None else part.base64)


def _failure_size(error: Failure | None) -> int:
    return (
        0
        if error is None
        else sum(map(getsizeof, (error, error.message, error.guest_message, error.trap)))
    )


class Capture:
    """Stands between the guest and its host functions: runs them, and captures what they answer.

    Args:
        guest: The instance.
        buffer: Where captured calls go.
        on_call_end: Called when a call has ended.
    """

    def __init__(
        self,
        guest: Guest,
        buffer: RecordingBuffer,
        on_call_end: Callable[[observers.Call, RecordingBuffer], None],
    ) -> None:
        self._guest = weakref.ref(guest)
        self._buffer = buffer
        self._on_call_end = on_call_end
        self._streams = wasi_calls.StandardStreams()
        self._config, self._log_level = guest.config, buffer.log_level
        self._vars_before = self._vars = guest.vars.snapshot()
        # Changes of the instance's config and log level since the last call that was made.
        self._changes: dict[str, Any] = {}
        self._host_calls: list[HostCall] = []
        self._raised: BaseException | None = None
        self._is_open = False
        """Whether a call has begun and not ended."""

    # ---- calls -----------------------------------------------------------------------------------

    def begin(self, call: observers.Call) -> None:
        self._host_calls, self._raised = [], None
        if self._is_open:
            self._buffer.stop("a call was interrupted at its end")
        self._is_open = True
        guest = self._guest()
        if guest is None or self._buffer.incomplete:
            return
        if guest.config is not self._config:
            self._config = self._changes["config"] = guest.config
        if (level := guest.log.level()) != self._log_level:
            self._log_level = self._changes["log_level"] = level

    def settle(self, guest: Guest) -> None:
        self._vars = guest.vars.snapshot()

    def end(self, call: observers.Call, error: BaseException | None) -> None:
        host_calls, raised, self._host_calls, self._raised = (
            self._host_calls,
            self._raised,
            [],
            None,
        )
        buffer = self._buffer
        if not (isinstance(error, _REFUSED) or buffer.incomplete):
            self._add_call(call, error, host_calls, raised)
        self._is_open = False
        self._on_call_end(call, buffer)

    def _add_call(
        self,
        call: observers.Call,
        error: BaseException | None,
        host_calls: list[HostCall],
        raised: BaseException | None,
    ) -> None:
        """Capture a call that was made."""
        buffer = self._buffer
        if error is not None and not isinstance(error, Exception):
            buffer.stop(f"a call was interrupted by {type(error).__name__}")
        elif isinstance(error, CancelledError) and error is not raised:
            buffer.stop("a call was cancelled")
        elif isinstance(error, (RecursionError, MemoryError)) and not isinstance(error, Error):
            buffer.stop(
                f"a call was ended by {type(error).__name__}, of which the plugin knows nothing"
            )
        size = len(call.input) + len(call.output or b"")
        size += sum(
            getsizeof(name) + getsizeof(value)
            for name, value in self._changes.get("config", {}).items()
        )
        if not buffer.has_room(size):
            return
        vars: dict[str, Data] | None = None
        more_vars: tuple[tuple[bytes, Data], ...] = ()
        if self._vars != self._vars_before:
            vars, more_vars = split_vars(self._vars)
            size += sum(
                getsizeof(name) + _memory_size(value) for name, value in (*vars.items(), *more_vars)
            )
            self._vars_before = self._vars
        taken = Call(
            to_encodable_text(call.function),
            Data.of(call.input),
            host_calls=tuple(host_calls),
            output=Data.of(call.output or b"") if error is None else None,
            error=None if error is None else make_failure(error),
            vars=vars,
            more_vars=more_vars,
            **self._changes,
        )
        size += (
            _memory_size(taken.input)
            + (_memory_size(taken.output) if taken.output is not None else 0)
            + _failure_size(taken.error)
        )
        if buffer.reserve(size - len(call.input) - len(call.output or b"")):
            buffer.calls.append(taken)
        self._changes = {}

    # ---- host calls ------------------------------------------------------------------------------

    def call_host_function(
        self, guest: Guest, function: HostFunction, caller: int, values: Any
    ) -> None:
        assert function.name is not None
        namespace, name = function.name
        if self._buffer.incomplete:
            function.body(guest, caller, values)
        elif is_builtin_wasi(function):
            function.body(WasiGuestProxy(self, guest), caller, values)  # type: ignore[arg-type]
        elif is_rerun(function):
            function.body(guest, caller, values)  # its answer follows from what is recorded
        else:
            if (namespace == NAMESPACE or namespace.startswith("wasi_")) and FUNCTIONS.get(
                name
            ) is not function:
                self._buffer.add_override(function.name)
            self._capture_host_call(guest, function, namespace, name, caller, values)

    def _capture_host_call(
        self,
        guest: Guest,
        function: HostFunction,
        namespace: str,
        name: str,
        caller: int,
        values: Any,
    ) -> None:
        passed = sum(
            guest.block_length(values[2 * i])
            for i, type in enumerate(function.type.params)
            if type == "i64"
        )
        if not self._buffer.has_room(passed):
            function.body(guest, caller, values)
            return
        args = read_arguments(guest, function, values)
        raws = [values[2 * i] for i in range(len(args))]
        results: list[Value] = []
        error: BaseException | None = None
        tracker = EffectTracker(guest, args, values)
        try:
            with tracker:
                function.body(guest, caller, values)
            results = tracker.read_results(
                function.type.results, function.python_types[len(args) :], values
            )
        except BaseException as exception:
            error = exception
            raise
        finally:
            http = (
                HttpStatus(guest.response_status, guest.response_headers)
                if sets_response(function)
                else None
            )
            args = tracker.resolve_arguments(args, raws, function.python_types)
            space = (
                USER_NAMESPACE if namespace == USER_NAMESPACE else namespace
            )  # identical to the default, so it is not written
            failed = self._record_exception(error)
            self._add_host_call(
                HostCall(
                    name,
                    space,
                    tuple(args),
                    tuple(tracker.effects),
                    tuple(results),
                    http=http,
                    error=failed,
                )
            )
            del error

    def call_wasi(self, guest: Guest, name: str, memory: WasiMemory, args: tuple[int, ...]) -> int:
        """Run a function of the plugin's WASI, and capture it."""
        answer = getattr(guest.wasi_state(), name)
        if self._streams.bypass_recording(name, args):
            return int(answer(memory, *args))
        given = wasi_calls.read_inputs(memory, name, args)
        errno = 0
        out: list[Data] = []
        error: BaseException | None = None
        try:
            errno = answer(memory, *args)
            if not errno:
                try:
                    out = wasi_calls.read_outputs(memory, name, args)
                except (MemoryFault, ValueError):  # results overwrote the arguments
                    self._buffer.stop(f"`{name}` was given memory for its results that overlaps")
            return int(errno)
        except BaseException as exception:
            error = exception
            raise
        finally:
            results = (Value(i32=errno),) if error is None else ()
            self._add_host_call(
                HostCall(
                    name,
                    WASI,
                    tuple(given),
                    results=results,
                    out=tuple(out),
                    error=self._record_exception(error),
                )
            )
            del error

    def _add_host_call(self, call: HostCall) -> None:
        data = (
            data for effect in call.effects if (data := getattr(effect, "data", None)) is not None
        )
        parts = (*call.args, *call.results, *call.out, *data)
        size = (
            sum(map(_memory_size, parts))
            + len(call.effects) * _EFFECT_OVERHEAD
            + _failure_size(call.error)
        )
        if call.http is not None and call.http.headers:
            size += sum(
                getsizeof(name) + getsizeof(value) for name, value in call.http.headers.items()
            )
        if self._buffer.reserve(size):
            self._host_calls.append(call)
        else:
            self._host_calls = []

    def _record_exception(self, error: BaseException | None) -> Failure | None:
        if error is None or isinstance(error, PluginExit):
            return None
        if isinstance(error, HostRaised):  # raised while the host function was in the kernel
            error = error.exception
        if not isinstance(error, Exception):
            self._buffer.stop(f"a host function was interrupted by {type(error).__name__}")
        self._raised = error
        return make_failure(error)


def make_failure(error: BaseException) -> Failure:
    """Return the part for an exception."""
    if isinstance(error, Error):
        return Failure(
            type(error).__name__,
            to_encodable_text(error.message),
            code=error.code,
            guest_message=error.guest_message,
            trap=getattr(error, "trap", None),
        )
    return Failure(
        EngineFailure.__name__ if isinstance(error, EngineFailure) else type(error).__name__,
        to_encodable_text(error),
    )


def is_rerun(function: HostFunction) -> bool:
    """Return whether the function is plugwasm's own, and need not be recorded for a replay."""
    own = find_env_function(function.name)
    return own is function and own.replay in (RERUN, LOG_LEVEL)


def sets_response(function: HostFunction) -> bool:
    """Return whether the function, or the one that it replaces, sets the last response's status."""
    own = find_env_function(function.name)
    return own is not None and own.replay == RESPONSE


class WasiGuestProxy:
    """The guest as WASI functions see it: their calls go to whoever answers for the outside.

    Args:
        host: Its `call_wasi` is called.
        guest: The guest.
    """

    def __init__(self, host: Any, guest: Guest) -> None:
        self._host = host
        self._guest = guest

    def wasi_state(self) -> WasiGuestProxy:
        return self

    def memory_of(self, caller: int) -> WasiMemory:
        return self._guest.memory_of(caller)

    def __getattr__(self, name: str) -> Callable[..., int]:
        return partial(self._answer, name)

    def _answer(self, name: str, memory: WasiMemory, *args: int) -> int:
        return int(self._host.call_wasi(self._guest, name, memory, args))
