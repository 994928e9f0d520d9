"""Hostile worker processes: any message or behaviour is one of our errors, in bounded time
(`test_taken_worker.py` measures the cost)."""

from __future__ import annotations

import pytest

import plugwasm
from plugwasm import (
    IsolatedPlugin,
    Limits,
    ProcessLimits,
)
from plugwasm.errors import WorkerError
from tests.support.guests import manifest
from tests.support.hostile_worker import SIMPLE, worker_runs
from tests.support.outcomes import outcome
from tests.support.threads import InThread
from tests.support.waiting import soon


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("os._exit(3)", "its process ended with the exit code 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process ended by SIGSEGV"),
        (
            "sys.stderr.write('last \\x1b[31m words' * 1000); sys.stderr.flush(); os._exit(1)",
            r"exit code 1; its last words:\n.*last \\x1b\[31m words$",
        ),
        (
            "s.close(); os.close(int(sys.argv[2])); forever()",
            "closed its connection, and was killed",
        ),
        ("forever()", "did not start within 0.7 s"),
        ("raw(b'garbage'); forever()", "broke the protocol, and was killed"),
        ("s.sendall(b'\\xff\\xff\\xff\\xff'); forever()", "a message of 4294967295 bytes"),
        ("s.sendall(b'\\x00\\x00'); forever()", "did not start within 0.7 s"),
        ("s.sendall((10**6).to_bytes(4, 'big') + b'x'); forever()", "did not start within 0.7 s"),
        (
            "say(m.Confined([]), m.Done(0, memoryview(b''), None, True)); forever()",
            "`Done` at its start",
        ),
        ("say(m.Loaded([], [], 0), m.Confined([])); forever()", "at its start"),
        (
            "say(m.Confined([]), m.Failed(0, 'KeyboardInterrupt', {}, None, True)); forever()",
            "an error of the class 'KeyboardInterrupt'",
        ),
        (
            "say(m.Confined([]), m.Failed(0, '__class__', {}, None, True)); forever()",
            "an error of the class",
        ),
    ],
)
def test_hostile_start(program: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any behaviour at the start is an error."""
    with worker_runs(monkeypatch, program), pytest.raises(WorkerError, match=f"(?s){says}"):
        IsolatedPlugin(
            SIMPLE, process=ProcessLimits(start_seconds=0.7 if "forever" in program else 30)
        )


def test_endless_compile_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that compiles for too long is killed."""
    with (
        worker_runs(monkeypatch, "say(m.Confined([])); forever()"),
        pytest.raises(plugwasm.ModuleError, match=r"`Limits\.compile_seconds`"),
    ):
        IsolatedPlugin(SIMPLE, limits=Limits(compile_seconds=0.3))


DONE = "m.Done(1, memoryview(b'yes'), None, True)"
GREET = next(i for i, name in enumerate(["config_get", "var_get"]) if name == "var_get")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("os._exit(0)", "ended with the exit code 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
        ("raw(b'')", "broke the protocol"),
        ("raw(b'\\xc1' * 70000)", "broke the protocol"),
        ("raw(b'\\x91' * 70000)", "broke the protocol"),
        ("raw(b'\\xdd\\xff\\xff\\xff\\xff')", "broke the protocol"),
        ("raw(m.encoder.encode([4, 1, 'text', None, True]))", "broke the protocol"),
        ("raw(m.encoder.encode([5, 0, [2**64 - 1], [None]]))", "broke the protocol"),
        ("say(m.Confined([]))", "`Confined` in the middle of a call"),
        ("say(m.Answer(0, None))", "`Answer` in the middle of a call"),
        ("say(m.NoRoom(5))", "`NoRoom` in the middle of a call"),
        ("say(m.Done(2, memoryview(b''), None, True))", "the end of another call"),
        ("say(m.Failed(1, None, {}, None, True))", "an error of the class None"),
        ("say(m.Failed(1, 'Exception', {}, None, True))", "an error of the class 'Exception'"),
        (
            "say(m.Failed(1, 'HostFunctionError', {'message': 'x'}, None, True))",
            "an error of the class 'HostFunctionError'",
        ),
        ("say(m.HostCall(1000, [], []))", "host function 1000"),
        ("say(m.HostCall(-1, [0], [None]))", "host function -1"),
        ("say(m.HostCall(0, [], []))", "too many or too few parameters"),
        ("say(m.HostCall(0, [1], []))", "too many or too few parameters"),
        ("say(m.HostCall(0, [32], [70000]), m.Confined([]))", "`Confined` as an answer"),
        ("say(m.HostCall(0, [32], [70000])); hear(); os._exit(5)", "exit code 5"),
        ("say(m.HostCall(0, [32], [b'key'])); hear(); os._exit(6)", "exit code 6"),
        (
            "s.sendall(b'\\x7f\\xff\\xff\\xff'); s.sendall(bytes(1000))",
            "a message of 2147483647 bytes",
        ),
    ],
)
def test_hostile_answer_in_call(program: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any message during a call is an error."""
    with worker_runs(monkeypatch, f"start(); hear(); {program}; forever()"):
        plugin = IsolatedPlugin(SIMPLE, name="p", limits=Limits(memory_bytes=2**24))
        assert plugin.confinement == ("nothing",)
        with pytest.raises(WorkerError, match=f"(?s)`f` of plugin `p`: its process .*{says}"):
            plugin.call("f")
    if says in ("ended by SIGKILL", "host function 1000", "exit code 6"):
        assert plugin.call("f", b"on") == b"on"  # of the next worker
    plugin.close()


@pytest.mark.parametrize(
    "program",
    [
        "pass",
        "s.sendall((10**6).to_bytes(4, 'big') + b'x')",
        "[(s.sendall(b), time.sleep(0.01)) for b in [b'\\x00', b'\\x0f'] + [b'\\x42'] * 10**6]",
        "[say(m.Line(False, b'flood', 0)) for _ in range(10**9)]",
    ],
)
def test_endless_call_is_killed(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that never answers is killed after the deadline."""
    with worker_runs(monkeypatch, f"start(); hear(); {program}; forever()"):
        plugin = IsolatedPlugin(
            manifest(SIMPLE, timeout_ms=200), name="p", process=ProcessLimits(grace=0.2)
        )
        with pytest.raises(
            plugwasm.TimeoutError, match="did not end before its deadline of 200 ms"
        ):
            plugin.call("f")
    assert soon(lambda: outcome(lambda: plugin.call("f", b"on")) == b"on", 20)
    plugin.close()


def test_not_reading_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not read is killed after the deadline."""
    with worker_runs(monkeypatch, "start(); forever()"):
        plugin = IsolatedPlugin(manifest(SIMPLE, timeout_ms=200), process=ProcessLimits(grace=0.2))
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("f", b"x" * 10_000_000)


def test_ignored_cancel_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ignores a cancellation is killed."""
    with worker_runs(monkeypatch, "start(); hear(); forever()"):
        plugin = IsolatedPlugin(SIMPLE, process=ProcessLimits(grace=0.1))
        call = InThread(plugin.call, "f")
        assert soon(plugin.cancel_handle().cancel, 10)
        with pytest.raises(plugwasm.CancelledError):
            call.result()


def test_second_answer_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer is not used for the next call."""
    with worker_runs(monkeypatch, f"start(); hear(); say({DONE}, {DONE}); forever()"):
        plugin = IsolatedPlugin(SIMPLE)
        assert plugin.call("f") == b"yes"
        with pytest.raises(WorkerError, match="the end of another call"):
            plugin.call("f")


def test_error_fields_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error message may have only the fields of its class, with the right types."""
    fields = "{'message': 5, 'code': 'x', 'plugin': ['a'], 'backtrace': 'abc', '__class__': 'int', 'args': 'x', 'trap': 'unreachable'}"
    with worker_runs(
        monkeypatch,
        f"start(); hear(); say(m.Failed(1, 'TrapError', {fields}, None, True)); forever()",
    ):
        plugin = IsolatedPlugin(SIMPLE)
        with pytest.raises(plugwasm.TrapError) as caught:
            plugin.call("f")
    error = caught.value
    assert (error.message, error.code, error.plugin, error.backtrace, error.trap) == (
        "",
        None,
        None,
        (),
        "unreachable",
    )
    assert set(vars(error)) == set(vars(plugwasm.TrapError()))


def test_host_exception_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host function's exception is raised whatever the worker answers."""
    with worker_runs(
        monkeypatch,
        f"start(); hear(); say(m.HostCall({GREET + 1}, [32, 0], [b'k', None])); hear(); say({DONE}); forever()",
    ):
        plugin = IsolatedPlugin(manifest(SIMPLE, memory={"max_var_bytes": 0}))
        with pytest.raises(plugwasm.GuestError, match="vars are disabled"):
            plugin.call("f")
