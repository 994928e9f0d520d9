"""How the ends of calls are recorded and replayed."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

import plugwasm
from plugwasm import Function, Limits, Plugin, ValType, host_fn
from plugwasm.recording import Recorder, RecordingError
from tests.support.guests import export, guest
from tests.support.recordings import (
    ENDS,
    answer_functions,
    asking_plugin,
    import_of,
    outputs,
    record_calls,
    upper,
)


@pytest.mark.parametrize(
    ("name", "error", "options"),
    [
        ("trap", "TrapError", {}),
        ("fail", "GuestError", {}),
        ("code", "GuestError", {}),
        ("bad", "BadHandleError", {}),
        ("spin", "OutOfFuelError", {"fuel_limit": 10_000}),
        ("spin", "TimeoutError", {"limits": Limits(timeout=0.05)}),
        ("grow", "OutOfMemoryError", {"limits": Limits(memory_bytes=2**20)}),
        ("none", "FunctionNotFoundError", {}),
    ],
)
def test_failed_call(name: str, error: str, options: dict[str, Any]) -> None:
    """A recorded failure fails in the replay."""
    recording = record_calls(ENDS, ("fine", b"x"), (name, b""), **options)
    assert outputs(recording.replay(ENDS)) == [b"x", error]


def test_dropped_instance_ends_recording() -> None:
    """Replacing an instance ends its recording."""
    recorder = Recorder()
    with Plugin(ENDS, observe=recorder) as plugin:
        for name in ("fine", "trap", "fine", "fail", "fine"):
            with pytest.raises(plugwasm.CallError) if name in ("trap", "fail") else NoStack():
                plugin.call(name, b"x")
    first, second = recorder.recordings
    assert [call.function for call in first.calls] == ["fine", "trap"]
    assert [call.function for call in second.calls] == ["fine", "fail", "fine"]
    for recording in (first, second):
        recording.replay(ENDS)


class NoStack:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_deadline_with_same_host_calls() -> None:
    """A call recorded up to its deadline times out in a replay that makes no fewer host calls."""
    source = guest(
        export("run", "(loop $more (drop (call $tick)) (br $more))"),
        import_of("tick", "(result i64)"),
    )
    ticks = Function(
        None, "tick", [], [ValType.I64], lambda plugin, inputs, results: time.sleep(0.001)
    )
    recording = record_calls(source, ("run", b""), functions=[ticks], limits=Limits(timeout=0.4))
    assert outputs(recording.replay(source)) == ["TimeoutError"]


def test_fuel_is_used_as_it_was() -> None:
    recorder = Recorder()
    with Plugin(
        asking_plugin(),
        functions=[host_fn("f")(answer_functions()[0])],
        fuel_limit=10**6,
        observe=recorder,
    ) as plugin:
        plugin.call("run", "abc")
        fuel = plugin.fuel_used
    assert recorder.recording.replay(asking_plugin()).calls[0].fuel == fuel


def test_fuel_exhaustion() -> None:
    """Fuel exhausted at any point is exhausted there in the replay."""
    source, ends = asking_plugin(), set()
    f = host_fn("f")(upper)
    for fuel in range(1, 1000, 15):  # some of it also while the host makes a block
        recording = record_calls(source, ("run", "abcdef"), functions=[f], fuel_limit=fuel)
        (call,) = recording.calls
        ends.add(
            (
                len(call.host_calls),
                call.host_calls[0].error.type
                if call.host_calls and call.host_calls[0].error
                else None,
            )
        )
        assert outputs(recording.replay(source)) == [call.error.type if call.error else b"ABCDEF"]
    assert ends == {(0, None), (1, "EngineFailure"), (1, None)}


def test_no_room_for_answer() -> None:
    """A result that did not fit does not fit in the replay."""

    def f(value: bytes) -> bytes:
        return bytes(300_000)

    recording = record_calls(
        asking_plugin(),
        ("run", "abc"),
        functions=[host_fn("f")(f)],
        limits=Limits(memory_bytes=4 * 65536),
    )
    assert outputs(recording.replay(asking_plugin())) == ["HostFunctionError"]
    assert recording.calls[0].host_calls[0].error is not None
    assert "no room for 300000 bytes" in recording.calls[0].host_calls[0].error.message


def test_refused_call_is_not_recorded() -> None:
    """A refused call is not recorded."""
    recorder = Recorder()
    plugin = Plugin(ENDS, observe=recorder)
    plugin.call("fine", b"x")
    plugin.close()
    with pytest.raises(plugwasm.ClosedError):
        plugin.call("fine", b"x")
    assert len(recorder.recording.calls) == 1


def test_interrupted_call_is_incomplete() -> None:
    """An interrupted call makes a recording incomplete."""

    def f(value: str) -> str:
        raise KeyboardInterrupt

    recorder = Recorder()
    with (
        Plugin(asking_plugin(), functions=[host_fn("f")(f)], observe=recorder) as plugin,
        pytest.raises(KeyboardInterrupt),
    ):
        plugin.call("run", "abc")
    assert not recorder.recording.complete
    with pytest.raises(RecordingError, match=r"not complete: .*KeyboardInterrupt"):
        recorder.recording.replay(asking_plugin())


def test_cancelled_in_guest_is_incomplete() -> None:
    """A call cancelled in the guest makes a recording incomplete."""
    recorder = Recorder()
    with Plugin(ENDS, observe=recorder) as plugin:
        handle = plugin.cancel_handle()
        thread = threading.Thread(
            target=lambda: [threading.Event().wait(0.01) for _ in iter(handle.cancel, True)]
        )
        thread.start()
        with pytest.raises(plugwasm.CancelledError):
            plugin.call("spin")
        thread.join()
    assert recorder.recording.incomplete == "a call was cancelled"


def test_cancelled_in_host_function() -> None:
    """A call cancelled in a host function can be replayed."""
    recorder = Recorder()

    def f(value: str) -> str:
        plugin.cancel_handle().cancel()
        return value

    with (
        Plugin(asking_plugin(), functions=[host_fn("f")(f)], observe=recorder) as plugin,
        pytest.raises(plugwasm.CancelledError),
    ):
        plugin.call("run", "abc")
    assert outputs(recorder.recording.replay(asking_plugin())) == ["CancelledError"]


def test_python_stack_is_incomplete() -> None:
    """A call that exhausted Python's stack makes a recording incomplete."""
    recorder = Recorder()
    plugin = Plugin(ENDS, observe=recorder)
    plugin.call("fine", b"x")

    def at(depth: int) -> None:
        if depth:
            at(depth - 1)
        else:
            plugin.call("fine", b"x")

    raised = 0
    for depth in range(sys.getrecursionlimit()):
        try:
            at(depth)
        except RecursionError:
            raised += 1
            if raised == 3:
                break
    for recording in recorder.recordings:
        if recording.complete:
            recording.replay(ENDS)
