"""Observed plugins: statistics of calls, each way that a call can end, and that nothing is left
behind."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import pytest

import plugwasm
from plugwasm import (
    Function,
    Measured,
    Plugin,
)
from plugwasm._runtime.call_queue import queued_calls
from plugwasm.observing import Trace
from tests.support.guests import LOOP, export, guest
from tests.support.observers import (
    ECHO,
    PLAIN,
    SECONDS,
    CollectingObserver,
    Point,
    do_nothing,
    fail,
    make_calling_plugin,
    raiser,
    times_add_up,
)
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon

# ---- figures -------------------------------------------------------------------------------------


def test_host_sleep_is_host_time() -> None:
    """The time that a host function sleeps is host time."""
    with make_calling_plugin(lambda: time.sleep(0.2), observe=True) as plugin:
        plugin.call("echo")
        call = plugin.call("run", returns=Measured).call
    assert 0.2 <= call.host_seconds <= call.seconds
    assert call.guest_seconds < call.host_seconds
    assert call.start_seconds == 0
    assert times_add_up(call)


def test_busy_guest_is_guest_time() -> None:
    """The time that a guest computes is guest time."""
    loop = "(call $f) (loop $next (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 30000000))))"
    source = guest(export("run", loop, "(local $i i32)") + export("echo", "(call $echo)"), PLAIN)
    with Plugin(source, functions=[plugwasm.host_fn(name="f")(do_nothing)], observe=True) as plugin:
        plugin.call("echo")
        call = plugin.call("run", returns=Measured).call
    assert call.guest_seconds > 10 * call.host_seconds
    assert call.guest_seconds > call.seconds / 2
    assert times_add_up(call)


def test_host_time_at_start() -> None:
    """A host function's time during the start is host time, not start time."""
    source = guest(export("_initialize", "(call $f)") + export("echo", "(call $echo)"), PLAIN)
    observed = CollectingObserver()
    with Plugin(
        source, functions=[plugwasm.host_fn(name="f")(lambda: time.sleep(0.2))], observe=observed
    ) as plugin:
        plugin.call("echo", "x")
        plugin.call("echo", "x")
    first, second = observed.calls
    assert first.host_calls == 1
    assert first.host_seconds >= 0.2 > first.start_seconds > 0 < first.guest_seconds < 0.2
    assert (second.host_calls, second.start_seconds, second.host_seconds) == (0, 0, 0)
    assert times_add_up(first)
    assert times_add_up(second)


def test_memory_is_peak_of_instance() -> None:
    """The memory of a call is the peak of its instance."""
    source = guest(
        export("echo", "(call $echo)") + export("grow", "(drop (memory.grow (i32.const 10)))"),
        memory='(memory (export "memory") 1)',
    )
    with Plugin(source, observe=True) as plugin:
        sizes = [
            plugin.call(name, returns=Measured).call.memory_bytes
            for name in ("echo", "grow", "echo")
        ]
        assert [size - sizes[0] for size in sizes] == [0, 10 * 65536, 10 * 65536]
        plugin.reset()
        assert plugin.call("echo", returns=Measured).call.memory_bytes == sizes[0]


def test_fuel_of_call() -> None:
    """The fuel is what this call used, or None without a limit."""
    observed = CollectingObserver()
    with Plugin(ECHO, fuel_limit=10_000, observe=observed) as plugin:
        plugin.call("echo", b"x")
        assert observed.calls[0].fuel == plugin.fuel_used
        assert observed.calls[0].fuel > 0
        with pytest.raises(plugwasm.FunctionNotFoundError):
            plugin.call("missing")
        assert observed.calls[1].fuel is None
    with Plugin(ECHO, observe=observed) as plugin:
        plugin.call("echo", b"x")
    assert observed.calls[2].fuel is None


@pytest.mark.parametrize(
    "data",
    ["grüße", b"bytes", bytearray(b"x" * 9), memoryview(b"abcdef")[::2], {"a": 1}, "", [1.5, None]],
)
def test_input_and_output(data: object) -> None:
    """The input and output sizes are what the guest received and returned."""
    with Plugin(ECHO, observe=True) as plugin:
        result = plugin.call("echo", data, returns=Measured[bytes])
        with Plugin(ECHO) as unobserved:
            assert result.value == unobserved.call("echo", data)
    assert result.call.input == result.call.output == result.value
    assert result.call.input_bytes == result.call.output_bytes == len(result.value)


def test_statistics_hold_no_data() -> None:
    """The statistics are numbers and names, and no data of the call."""
    with Plugin(ECHO, name="mine", observe=True, fuel_limit=1000) as plugin:
        call = plugin.call("echo", "secret", host_context="secret", returns=Measured[str]).call
    statistics = call.statistics()
    assert "secret" not in json.dumps(statistics) + repr(call)
    assert statistics | dict.fromkeys((*SECONDS, "fuel", "memory_bytes"), 0) == {
        "plugin": "mine",
        "function": "echo",
        "error": None,
        "seconds": 0,
        "start_seconds": 0,
        "guest_seconds": 0,
        "host_seconds": 0,
        "host_calls": 0,
        "http_requests": 0,
        "input_bytes": 6,
        "output_bytes": 6,
        "fuel": 0,
        "memory_bytes": 0,
        "recycled": None,
    }


ENDINGS = guest(
    export("ok", "(call $echo)")
    + export("trap", "unreachable")
    + export("fail", "(call $error_set <<no>>)")
    + '(func (export "code") (result i32) (i32.const 3)) (func (export "odd") (param i32))'
    + export("spin", LOOP)
    + export("handle", "(call $output_set (i64.const 12345) (i64.const 1))")
    + export("host", "(call $f)")
    + export("http", '(drop (call $http_request <<{"url":"http://a.test/"}>> (i64.const 0)))')
    + export(
        "grow",
        "(loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)))) unreachable",
    ),
    PLAIN,
    memory='(memory (export "memory") 1)',
)


@pytest.mark.parametrize("fresh", [True, False], ids=["first call", "later call"])
@pytest.mark.parametrize(
    ("function", "error", "options"),
    [
        ("ok", None, {}),
        ("trap", "TrapError", {}),
        ("fail", "GuestError", {}),
        ("code", "GuestError", {}),
        ("odd", "SignatureError", {}),
        ("missing", "FunctionNotFoundError", {}),
        ("spin", "TimeoutError", {"limits": plugwasm.Limits(timeout=0.3)}),
        ("spin", "OutOfFuelError", {"fuel_limit": 100_000}),
        ("handle", "BadHandleError", {}),
        ("host", "HostFunctionError", {"raises": ValueError("no")}),
        ("host", "KeyboardInterrupt", {"raises": KeyboardInterrupt()}),
        ("http", "EgressDeniedError", {}),
        ("grow", "OutOfMemoryError", {"limits": plugwasm.Limits(memory_bytes=2**20)}),
    ],
)
def test_every_call_is_reported(
    function: str, error: str | None, options: dict[str, Any], fresh: bool
) -> None:
    """Every call is reported once, with the error that it raised."""
    options = dict(options)
    raises = options.pop("raises", None)
    observed = CollectingObserver()
    host = Function(None, "f", [], [], lambda *_: raiser(raises)() if raises else None)
    raised: BaseException | None = None
    with Plugin(ENDINGS, functions=[host], observe=observed, **options) as plugin:
        if not fresh:
            plugin.call("ok")
            observed.__init__()  # type: ignore[misc]
        try:
            plugin.call(function)
        except BaseException as exception:
            raised = exception
        assert [event for event in observed.events if not event.startswith("  ")] == [
            f"> {function}",
            f"< {function}",
        ]
        assert observed.errors == [raised]
        assert (
            observed.calls[0].error == error == (None if raised is None else type(raised).__name__)
        )
        assert (observed.calls[0].output is None) == (error is not None)
        assert times_add_up(observed.calls[0])
        assert plugin.call("ok", "still here") == b"still here"


def test_unreadable_output_is_error() -> None:
    """An output that cannot be read and a failing parser are errors of the call."""
    observed = CollectingObserver()
    with Plugin(ECHO, observe=observed) as plugin:
        with pytest.raises(plugwasm.OutputError):
            plugin.call("echo", "x", returns=int)
        with pytest.raises(ValueError, match="invalid literal"):
            plugin.call("echo", "x", int)
        with pytest.raises(plugwasm.OutputError):
            plugin.call("echo", "x", returns=Measured[int])
    assert [call.error for call in observed.calls] == ["OutputError", "ValueError", "OutputError"]
    assert [type(error).__name__ for error in observed.errors] == [
        "OutputError",
        "ValueError",
        "OutputError",
    ]


def test_failed_start_is_error() -> None:
    """An instance that fails to start is an error of the call."""
    observed = CollectingObserver()
    with Plugin(
        guest(export("_initialize", "unreachable") + export("run", "")), observe=observed
    ) as plugin:
        for _ in range(2):
            with pytest.raises(plugwasm.TrapError):
                plugin.call("run")
    assert observed.events == ["> run", "< run"] * 2
    assert [(call.error, call.memory_bytes is not None) for call in observed.calls] == [
        ("TrapError", True)
    ] * 2
    assert all(call.start_seconds > 0 and times_add_up(call) for call in observed.calls)


def test_cancelled_waiting_and_closed() -> None:
    """A cancelled call, one that waited too long and one of a closed plugin are reported."""
    observed = CollectingObserver()
    plugin = make_calling_plugin(do_nothing, observe=observed)
    thread = InThread(plugin.call, "spin")
    assert soon(lambda: plugin._guest is not None and not hasattr(plugin, "_idle"))
    second = InThread(plugin.call, "run")
    assert soon(lambda: queued_calls(plugin))
    queued_calls(plugin)[0].cancel()
    with pytest.raises(plugwasm.CancelledError):
        second.result()
    assert observed.events == ["> spin", "> run", "< run"]
    assert soon(plugin.cancel_handle().cancel)
    with pytest.raises(plugwasm.CancelledError):
        thread.result()
    plugin.close()
    with pytest.raises(plugwasm.ClosedError):
        plugin.call("run")
    assert [(call.function, call.error) for call in observed.calls] == [
        ("run", "CancelledError"),
        ("spin", "CancelledError"),
        ("run", "ClosedError"),
    ]
    assert observed.calls[0].guest_seconds == 0


def test_waiting_call() -> None:
    """A call that finds another one running waits for its end."""
    observed, release = CollectingObserver(), threading.Event()
    plugin = make_calling_plugin(lambda: release.wait(5) and None, observe=observed)
    first = InThread(plugin.call, "run")
    assert soon(lambda: "  > f" in observed.events)
    second = InThread(plugin.call, "run")
    assert soon(lambda: queued_calls(plugin))
    time.sleep(0.2)
    release.set()
    first.result()
    second.result()
    assert observed.events == [
        "> run",
        "  > f",
        "> run",
        "  < f",
        "< run",
        "  > f",
        "  < f",
        "< run",
    ]
    waited = observed.calls[-1]
    assert waited.seconds > 0.2 > waited.guest_seconds


# ---- what is left behind -------------------------------------------------------------------------


def test_dropped_plugin_is_freed() -> None:
    """A dropped observed plugin frees its instance at once and keeps nothing of its calls."""
    gc.collect()
    gc.disable()
    try:
        for end in ("close", "drop", "reset", "fail"):
            for observe in (True, Trace(lambda record: None), CollectingObserver()):
                plugin = make_calling_plugin(fail, observe=observe)
                context = Point(1, 2)
                kept = weakref.ref(context)
                plugin.call("echo", host_context=context)
                if isinstance(observe, CollectingObserver):
                    observe.__init__()  # type: ignore[misc]
                del context
                assert kept() is None
                instance = weakref.ref(plugin._guest)
                assert instance() is not None
                if end == "drop":
                    del plugin
                elif end == "fail":
                    try:
                        plugin.call("run")
                    except plugwasm.HostFunctionError:
                        pass
                    if isinstance(observe, CollectingObserver):
                        observe.errors.clear()
                else:
                    getattr(plugin, end)()
                assert soon(lambda instance=instance: instance() is None), (end, observe)
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forked_child() -> None:
    """Observation works in a forked child."""
    script = f"""
import os, sys
import plugwasm
from plugwasm.observing import Trace
lines = []
plugin = plugwasm.Plugin({str(ROOT / "examples" / "echo.wasm")!r}, observe=Trace(lambda call: lines.append(str(call))))
plugin.call("echo", "before")
pid = os.fork()
plugin.call("echo", "after")
assert lines == ["echo(b'before') -> b'before'", "echo(b'after') -> b'after'"], lines
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os._exit(0)
"""
    # Python counts the threads right after the fork, and one that has just been joined may still be
    # seen by the system.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", script]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
