"""Make the calls of a recording again, and compare.

A recording may come from anywhere, and so may the modules that it names. A replay spends no more
than the caller's `limits` allow:

1. The recording's limits can only lower them. Each call ends at the deadline of `limits`, however
   long it had when it was recorded, and all calls together get `TOTAL_TIME_FACTOR` times that.
   Nothing sleeps: clocks are answered from the recording.
2. What is kept of a call (output, vars) is what the recording has as well, or the replay ends
   there; and only the last call may end its instance.
3. Files that only the recording names are taken for modules if they are the recorded ones, or
   binaries. So no other file's content gets into an error.

Decisions: docs/decisions.md, 26.2 and 31.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic

from .. import errors
from .._host.observed_values import shorten
from .._host.vars import decode_name, decode_names
from .._manifest.limits import DEFAULT_LIMITS
from ..errors import RecordingError, ReplayError, escape_line
from . import formatting
from .capture import make_failure
from .playback import Mismatch, Playback
from .replay_plugin import check_digests, make_plugin, make_spec
from .schema import Call, Data, Failure, join_vars

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._manifest.limits import Limits
    from .._runtime.argument_types import PluginInput
    from .._runtime.compiled_plugin import CompiledPlugin
    from .._runtime.plugin import Plugin
    from .recording import Recording

_MIN_TIMEOUT = 60.0
"""Seconds for a call that took less when it was recorded: this machine may be slower."""
_DEFAULT_TIMEOUT = 3600.0
"""Seconds for a call where neither the recording nor `limits` sets a timeout."""
TOTAL_TIME_FACTOR = 10
"""How many times the timeout of a call all calls together may take."""


@dataclass(frozen=True, slots=True)
class ReplayedCall:
    """A call that was made again.

    Attributes:
        function: The export.
        input, output: `output` is None if the call failed, as recorded.
        error: What it raised.
        vars: The plugin's vars after the call.
        host_calls: How many host calls were answered from the recording.
        fuel: The fuel that it used, if there is a limit.
    """

    function: str
    input: bytes = field(repr=False)
    output: bytes | None
    error: Exception | None
    vars: dict[str, bytes] = field(repr=False)
    host_calls: int
    fuel: int | None


ReplayedCall.__module__ = "plugwasm.recording"


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay in which everything was as recorded.

    Attributes:
        recording: The recording.
        calls: The calls that were made.
    """

    recording: Recording
    calls: tuple[ReplayedCall, ...]


Replay.__module__ = "plugwasm.recording"


def replay(
    recording: Recording,
    plugin: PluginInput | CompiledPlugin | None,
    *,
    strict: bool,
    limits: Limits | None,
) -> Replay:
    """Replay a recording; see `Recording.replay`."""
    __tracebackhide__ = True
    if recording.incomplete:
        raise RecordingError(
            f"the recording of `{escape_line(recording.plugin)}` is not complete: "
            f"{shorten(recording.incomplete)}"
        )
    if not recording.calls:
        raise RecordingError(
            f"the recording of `{escape_line(recording.plugin)}` has no calls, "
            "so a replay would show nothing"
        )
    ceiling = limits or DEFAULT_LIMITS
    spec = make_spec(recording, plugin, ceiling)
    if strict:
        check_digests(recording, spec)
    playback = Playback(recording.overrides, recording.log_level)
    time_budget = _TimeBudget(ceiling)
    with make_plugin(recording, spec, playback, ceiling) as loaded:
        calls: list[ReplayedCall] = []
        before: dict[bytes, bytes] | None = None
        for number, call in enumerate(recording.calls, 1):
            if number > 1 and loaded._guest is None:
                raise RecordingError(
                    f"the recording is damaged: its call {number} comes after one that ended "
                    "the instance"
                )
            if call.config is not None:
                kept = dict.fromkeys(loaded.config)
                loaded.update_config({**kept, **call.config})
            made = _replay_call(
                loaded, playback, call, time_budget.timeout(recording, number, call)
            )
            if playback.vars is before:
                # One copy of the vars for all calls that left them unchanged.
                made = replace(made, vars=calls[-1].vars)
            time_budget.check(recording, number, call)
            _compare(recording, number, call, made, playback, before)
            before = playback.vars
            calls.append(made)
    return Replay(recording, tuple(calls))


class _TimeBudget:
    """How long the calls of a replay may take, each and together."""

    def __init__(self, ceiling: Limits) -> None:
        self._most = _DEFAULT_TIMEOUT if ceiling.timeout is None else ceiling.timeout
        self._until = monotonic() + TOTAL_TIME_FACTOR * self._most

    def timeout(self, recording: Recording, number: int, call: Call) -> float:
        """Return the seconds for a call.

        A call that ended at its deadline gets no more than it had.
        """
        self.check(recording, number, call)
        recorded = recording.limits.get("timeout", DEFAULT_LIMITS.timeout)
        if recorded is None or call.error is None or call.error.type != "TimeoutError":
            recorded = max(recorded or _DEFAULT_TIMEOUT, _MIN_TIMEOUT)
        return min(recorded, self._most, max(0.001, self._until - monotonic()))

    def check(self, recording: Recording, number: int, call: Call) -> None:
        """Raise `ReplayError` when there is no time left."""
        __tracebackhide__ = True
        if monotonic() >= self._until:
            most = (
                f"{TOTAL_TIME_FACTOR * self._most:g} s, {TOTAL_TIME_FACTOR} times what "
                "`Limits.timeout` gives a call: pass `limits` with more"
            )
            raise _make_error(
                recording,
                number,
                call,
                "calls that end",
                f"all calls together take longer than {most}",
            )


def _replay_call(plugin: Plugin, playback: Playback, call: Call, timeout: float) -> ReplayedCall:
    playback.expect(call)
    plugin._timeout = timeout
    output: bytes | None = None
    error: Exception | None = None
    try:
        output = plugin.call(call.function, call.input.octets)
    except Exception as raised:
        error = raised
        raised.__traceback__ = None  # which would hold the instance
    return ReplayedCall(
        call.function,
        call.input.octets,
        output,
        error,
        decode_names(playback.vars),
        playback.given,
        plugin.fuel_used,
    )


def _compare(
    recording: Recording,
    number: int,
    call: Call,
    made: ReplayedCall,
    playback: Playback,
    before: dict[bytes, bytes] | None,
) -> None:
    __tracebackhide__ = True
    stopped = playback.stopped
    if isinstance(stopped, RecordingError):
        raise RecordingError(
            f"{_format_location(recording, number, call)}: {escape_line(stopped.message)}"
        ) from None
    if isinstance(stopped, Mismatch):
        raise _make_error(
            recording, number, call, stopped.recorded, stopped.now, host_call=stopped.host_call
        )
    left = call.host_calls[playback.given :]
    was, now = _compare_outcomes(call, made)
    if was is not None:
        if left:
            now += f", without {formatting.format_host_call(left[0])}"
            now += f" and {len(left) - 1} more host calls" if len(left) > 1 else ""
        raise _make_error(recording, number, call, was, now)
    if left:
        raise _make_error(
            recording,
            number,
            call,
            formatting.format_host_call(left[0]),
            "no more host calls",
            host_call=playback.given + 1,
        )
    expected = before if call.vars is None else join_vars(call.vars, call.more_vars)
    if expected is None:
        expected = join_vars(recording.vars, recording.more_vars)
    for name in sorted({*expected, *playback.vars}):
        if expected.get(name) != playback.vars.get(name):
            var = f"the var {shorten(decode_name(name))}"
            was, now = _format_var_pair(expected.get(name), playback.vars.get(name))
            raise _make_error(recording, number, call, f"{var} is {was}", f"{var} is {now}")


def _format_var_pair(was: bytes | None, now: bytes | None) -> tuple[str, str]:
    if was is None or now is None:
        return (
            ("not set", formatting.format_value(Data.of(now or b"")))
            if was is None
            else (formatting.format_value(Data.of(was)), "not set")
        )
    return formatting.format_pair(Data.of(was), Data.of(now))


def _compare_outcomes(call: Call, made: ReplayedCall) -> tuple[str | None, str]:
    """Return how the call ended when recorded and now; None and an empty text if that is the
    same."""
    if made.error is not None:
        now = make_failure(made.error)
        if call.error is not None and _make_comparable(call.error) == _make_comparable(now):
            return None, ""
        was = (
            f"returned {formatting.format_value(call.output)}"
            if call.output is not None
            else f"raised {formatting.format_failure(call.error or now)}"
        )
        return was, f"raised {formatting.format_failure(now)}"
    output = Data.of(made.output or b"")
    if call.output is None:
        assert call.error is not None
        return (
            f"raised {formatting.format_failure(call.error)}",
            f"returned {formatting.format_value(output)}",
        )
    if call.output.octets == made.output:
        return None, ""
    recorded, replayed = formatting.format_pair(call.output, output)
    return f"returned {recorded}", f"returned {replayed}"


def _make_comparable(error: Failure) -> tuple[object, ...]:
    """Return what must be the same: messages hold offsets and names of exports, and the
    application's own exception classes are not known here."""
    kind = error.type if error.type in errors.__all__ else "HostFunctionError"
    return kind, error.code, error.guest_message, error.trap


def _format_location(recording: Recording, number: int, call: Call) -> str:
    of = f" of {len(recording.calls)}" if len(recording.calls) > 1 else ""
    asked = formatting.format_value(call.input) if call.input.octets else ""
    return escape_line(
        f"replay of `{recording.plugin}`: call {number}{of}, {call.function}({asked})"
    )


def _make_error(
    recording: Recording,
    number: int,
    call: Call,
    recorded: str,
    now: str,
    *,
    host_call: int | None = None,
) -> ReplayError:
    at = f", host call {host_call}" if host_call is not None else ""
    return ReplayError(
        f"{_format_location(recording, number, call)}{at} is not as it was\n"
        f"  recorded: {recorded}\n  now:      {now}",
        call=number,
        host_call=host_call,
        recorded=recorded,
        now=now,
        plugin=recording.plugin,
        function=call.function,
    )
