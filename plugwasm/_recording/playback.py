"""Answer host calls in a replay: each must be the next one that was recorded, and gets the
recorded answer."""

from __future__ import annotations

from .. import errors
from .._engine import EngineFailure
from .._host.env import LOG_LEVEL, find_env_function
from .._host.guest import HANDLE_MASK
from .._runtime.trampolines import WASI, is_builtin_wasi
from .._wasi import abi
from ..errors import (
    CancelledError,
    Error,
    HostFunctionError,
    RecordingError,
    TimeoutError,
    escape_line,
)
from . import wasi_calls
from .capture import WasiGuestProxy, is_rerun, sets_response
from .effects import apply_effects, read_arguments, resolve_block
from .formatting import format_call, format_call_pair, format_failure, format_host_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._engine import HostFunction
    from .._host.guest import Guest
    from .._runtime import observers
    from .._wasi.abi import WasiMemory
    from .schema import Call, Failure, HostCall, Value

_HOST_INTERRUPTIONS = {"TimeoutError": TimeoutError, "CancelledError": CancelledError}


class Mismatch(Exception):
    """A host call differs from the recorded one. It ends the call."""

    def __init__(self, host_call: int, recorded: str, now: str) -> None:
        super().__init__(host_call, recorded, now)
        self.host_call = host_call
        self.recorded = recorded
        self.now = now


class Playback:
    """Answers the host calls of one instance.

    Attributes:
        given: How many of the call's recorded host calls were made.
        stopped: Why the call was ended, if it was: a `Mismatch` or a `RecordingError`.
        vars: The plugin's vars after the call.
    """

    def __init__(self, overrides: Sequence[tuple[str, str]], log_level: int) -> None:
        self.given = 0
        self.stopped: Mismatch | RecordingError | None = None
        self.vars: dict[bytes, bytes] = {}
        self._overrides = frozenset(overrides)
        self._log_level = log_level
        self._call: Call | None = None
        self._streams = wasi_calls.StandardStreams()

    def expect(self, call: Call) -> None:
        """Set the recorded call that is made next."""
        self._call, self.given, self.stopped = call, 0, None
        if call.log_level is not None:
            self._log_level = call.log_level

    def begin(self, call: observers.Call) -> None:
        # An instance may be started twice, if there is no room in the pool.
        self.given, self.stopped = 0, None

    def end(self, call: observers.Call, error: BaseException | None) -> None:
        pass

    def settle(self, guest: Guest) -> None:
        vars = guest.vars.snapshot()
        if vars != self.vars:  # equal vars stay one object: a replay of many calls holds them once
            self.vars = vars

    def call_host_function(
        self, guest: Guest, function: HostFunction, caller: int, values: Any
    ) -> None:
        try:
            if function.name not in self._overrides:
                if is_builtin_wasi(function):
                    function.body(WasiGuestProxy(self, guest), caller, values)  # type: ignore[arg-type]
                    return
                own = find_env_function(function.name)
                if own is not None and own.replay == LOG_LEVEL:
                    values[0] = self._log_level
                    return
                if is_rerun(function):
                    function.body(guest, caller, values)
                    return
            self._play_back(guest, function, values)
        except (Mismatch, RecordingError) as reason:
            self.stopped = reason
            raise

    def _play_back(self, guest: Guest, function: HostFunction, values: Any) -> None:
        assert function.name is not None
        namespace, name = function.name
        params = [values[2 * i] for i in range(len(function.type.params))]
        recorded = self._next(namespace, name, passed := read_arguments(guest, function, values))
        now = [
            _match_recorded_type(was, is_, raw)
            for was, is_, raw in zip(recorded.args, passed, params, strict=False)
        ]
        self._compare(recorded, namespace, name, now + passed[len(now) :])
        if sets_response(function) and recorded.http is not None:
            guest.response_status, guest.response_headers = (
                recorded.http.status,
                recorded.http.headers,
            )
        blocks = apply_effects(guest, recorded, values, params)
        if recorded.error is not None:
            raise self._make_exception(recorded, recorded.error)
        results = function.type.results
        if len(results) != len(recorded.results):
            raise self._make_result_mismatch(recorded, len(results))
        for i, (type, value) in enumerate(zip(results, recorded.results, strict=True)):
            if value.octets is not None:
                raise RecordingError(
                    "the recording is damaged: the result of a host call is neither a number nor "
                    "a block"
                )
            if value.type != type:
                raise self._make_result_mismatch(recorded, len(results))
            raw = resolve_block(value, params, blocks)
            values[2 * i] = raw - (1 << 64) if raw >> 63 else raw

    def call_wasi(self, guest: Guest, name: str, memory: WasiMemory, args: tuple[int, ...]) -> int:
        """Answer a call of the plugin's WASI; only its own streams are real."""
        try:
            if self._streams.bypass_recording(name, args):
                return int(getattr(guest.wasi_state(), name)(memory, *args))
            given = wasi_calls.read_inputs(memory, name, args)
            recorded = self._next(WASI, name, given)
            self._compare(recorded, WASI, name, given)
            if recorded.error is not None:
                raise self._make_exception(recorded, recorded.error)
            if len(recorded.results) != 1 or recorded.results[0].i32 is None:
                raise RecordingError(f"the recording is damaged: `{name}` has no error number")
            errno = recorded.results[0].i32
            if not errno:
                wasi_calls.write_outputs(memory, name, args, recorded.out)
            return errno & 0xFFFFFFFF
        except abi.MemoryFault:
            return abi.FAULT

    # ---- what was recorded -----------------------------------------------------------------------

    def _next(self, namespace: str, name: str, args: list[Value]) -> HostCall:
        """Return the next recorded host call. Raises `Mismatch` if there is none."""
        call = self._call
        assert call is not None
        if self.given < len(call.host_calls):
            self.given += 1
            return call.host_calls[self.given - 1]
        if call.error is not None and call.error.type in _HOST_INTERRUPTIONS:
            # It was interrupted at some moment after the last recorded host call: now.
            raise _HOST_INTERRUPTIONS[call.error.type](call.error.message)
        raise Mismatch(self.given + 1, "no more host calls", format_call(name, args))

    def _compare(self, recorded: HostCall, namespace: str, name: str, args: list[Value]) -> None:
        if (recorded.namespace, recorded.name) != (namespace, name):
            before, after = format_host_call(recorded), format_call(name, args)
            if recorded.name == name:
                before, after = (
                    f"{escape_line(recorded.namespace)} {before}",
                    f"{escape_line(namespace)} {after}",
                )
            raise Mismatch(self.given, before, after)
        if len(recorded.args) != len(args) or any(
            a != b and not _is_same(a, b) for a, b in zip(recorded.args, args, strict=True)
        ):
            raise Mismatch(self.given, *format_call_pair(recorded, name, args))

    def _make_exception(self, recorded: HostCall, error: Failure) -> BaseException:
        """Return the exception that the host function raised when it was recorded."""
        if error.type == EngineFailure.__name__:  # the plugin had too little memory or fuel left
            return Mismatch(
                self.given,
                f"{format_host_call(recorded)} ended by {format_failure(error)}",
                "not ended",
            )
        found = getattr(errors, error.type, None) if error.type in errors.__all__ else None
        kind = found if isinstance(found, type) and issubclass(found, Error) else HostFunctionError
        return kind(error.message, code=error.code, guest_message=error.guest_message)

    def _make_result_mismatch(self, recorded: HostCall, count: int) -> Mismatch:
        return Mismatch(
            self.given,
            f"{format_host_call(recorded)} with results "
            f"({', '.join(value.type for value in recorded.results)})",
            f"with {count} of other types",
        )


def _is_same(recorded: Value, now: Value) -> bool:
    """Return whether two values have the same bits or bytes, however they are written."""
    content = recorded.octets
    if content is not None:
        return content == now.octets
    return (
        now.octets is None
        and recorded.type == now.type
        and recorded.raw is not None
        and recorded.raw == now.raw
    )


def _match_recorded_type(recorded: Value, now: Value, raw: int) -> Value:
    """Return the recorded number if the plugin passes the same bits: only the application's
    function knows whether they are a handle."""
    if recorded.i64 is not None and now.octets is not None and recorded.raw == raw & HANDLE_MASK:
        return recorded
    return now
