"""A cancellation applies to one call: if that call has ended, the next one is not cancelled."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import pytest

import plugwasm
import plugwasm._host.registry
from plugwasm import (
    CancelledError,
    Error,
    Function,
    IsolatedPlugin,
    Limits,
    Plugin,
)
from plugwasm._host.deadline import ticker
from plugwasm._host.event_loop import CoroutineQueue
from plugwasm._host.thread_call import ThreadCall
from tests.support.guests import LOOP, export, guest, manifest
from tests.support.host_calls import make_calling_plugin
from tests.support.threads import InThread
from tests.support.waiting import soon

ASK = b"""(module (import "extism:host/user" "ask" (func $ask))
  (func (export "ask") (call $ask)) (func (export "ok")) (func (export "spin") (loop $l (br $l))))"""


class Gates:
    """A host function in which each call waits until the test lets it continue."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, *_: object) -> None:
        self.arrived.release()
        self.go.acquire()


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture(params=[None, 60.0])
def plugin(gates: Gates, request: pytest.FixtureRequest) -> Plugin:
    return Plugin(
        ASK, functions=[Function(None, "ask", [], [], gates)], limits=Limits(timeout=request.param)
    )


def test_late_cancel_spares_next_call(
    plugin: Plugin, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation that comes while the call ends does not cancel the next call."""
    first: Any = None
    second: Any = None

    class Running(dict[Any, float]):
        """The running calls. A thread that looks one up is delayed until the next call runs."""

        def get(self, key: Any, default: Any = None) -> Any:
            nonlocal second
            call = super().get(key, default)
            gates.go.release()
            first.result()
            second = InThread(lambda: plugin.call("ask"))
            gates.arrived.acquire()
            return call

    monkeypatch.setattr(ticker, "running", Running())
    first = InThread(lambda: plugin.call("ask"))
    gates.arrived.acquire()
    assert plugin.cancel_handle().cancel()  # as far as it could see
    gates.go.release()
    assert second.result() == b""
    monkeypatch.undo()
    assert plugin.call("ok") == b""


def test_cancel_hits_current_call_only(plugin: Plugin, gates: Gates) -> None:
    """A cancellation ends the running call and no later one."""
    for _ in range(3):
        call = InThread(lambda: plugin.call("ask"))
        gates.arrived.acquire()
        assert plugin.cancel_handle().cancel()
        gates.go.release()
        with pytest.raises(CancelledError):
            call.result()
        assert not plugin.cancel_handle().cancel()
        assert plugin.call("ok") == b""


def test_task_cancels_its_own_call(plugin: Plugin, gates: Gates) -> None:
    """A cancelled task cancels the call of its own thread only.

    Its call has ended, and another thread calls the plugin before the task's thread has left.
    """
    queue = CoroutineQueue.__new__(CoroutineQueue)  # one that nobody sits at
    thread_call = ThreadCall(queue, lambda _: None)
    thread_call.plugin, thread_call._thread = plugin, threading.get_ident()
    call = InThread(lambda: plugin.call("ask"))
    gates.arrived.acquire()
    assert not thread_call.cancel()
    gates.go.release()
    assert call.result() == b""


def test_hurried_worker_has_time_again() -> None:
    """A worker that was given a shorter deadline for one call has its normal deadline for the
    next."""
    with IsolatedPlugin(ASK, functions=[Function(None, "ask", [], [], lambda *_: None)]) as plugin:
        plugin.call("ok")
        worker = plugin._worker
        assert worker is not None
        worker.cancelled_call = plugin._call_count, 0.0
        assert plugin.call("ask") == b""
        assert plugin._worker is worker
        worker.cancelled_call = plugin._call_count + 1, 0.0
        with pytest.raises(Error, match=r"did not (end before its deadline|answer)"):
            plugin.call("spin")
        assert plugin.call("ok") == b""


SPIN = guest(export("spin", LOOP) + export("echo", "(call $echo)"))


def cancel_soon(plugin: Plugin, after: float = 0.1) -> list[bool]:
    """Cancel after that time, and return whether a call was cancelled. On a busy machine the
    call may begin later."""
    results: list[bool] = []
    handle = plugin.cancel_handle()

    def cancel() -> None:
        results.append(soon(handle.cancel, 30))

    threading.Timer(after, cancel).start()
    return results


def test_plugin_usable_after_cancel() -> None:
    """A cancellation ends the running call, and the plugin stays usable."""
    with Plugin(SPIN) as plugin:
        results = cancel_soon(plugin)
        started = time.monotonic()
        with pytest.raises(CancelledError, match="`spin` of plugin `plugin`") as caught:
            plugin.call("spin")
        assert time.monotonic() - started < 2
        assert (caught.value.plugin, caught.value.function) == ("plugin", "spin")
        assert not isinstance(caught.value, TimeoutError)
        assert plugin.call("echo", b"again") == b"again"
        assert results == [True]


def test_cancel_outside_call_does_nothing() -> None:
    """A cancellation before or after a call has no effect."""
    with Plugin(SPIN) as plugin:
        handle = plugin.cancel_handle()
        assert handle.cancel() is False
        assert plugin.call("echo", b"first") == b"first"
        assert handle.cancel() is False
        assert plugin.call("echo", b"second" * 1000) == b"second" * 1000


def test_handle_does_not_keep_plugin() -> None:
    """A cancel handle does not keep its plugin alive and has no effect once the plugin is gone."""
    plugin = Plugin(SPIN)
    handle, gone = plugin.cancel_handle(), weakref.ref(plugin)
    plugin.call("echo")
    del plugin
    assert gone() is None
    assert handle.cancel() is False


def test_cancel_spares_other_plugins() -> None:
    """A cancellation ends one plugin's call and no other on the same engine."""
    compiled = plugwasm.CompiledPlugin(manifest(SPIN, timeout_ms=700))
    with Plugin(compiled) as a, Plugin(compiled) as b:
        first, second = InThread(a.call, "spin"), InThread(b.call, "spin")
        time.sleep(0.15)
        assert a.cancel_handle().cancel() is True
        with pytest.raises(CancelledError):
            first.result()
        with pytest.raises(plugwasm.TimeoutError):
            second.result()


def test_cancel_and_timeout_differ() -> None:
    """A cancellation and a timeout raise different errors."""
    with Plugin(manifest(SPIN, timeout_ms=250)) as plugin:
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("spin")
        cancel_soon(plugin, 0.05)
        with pytest.raises(CancelledError):
            plugin.call("spin")
        with pytest.raises(plugwasm.TimeoutError):
            plugin.call("spin")


def test_cancel_during_start() -> None:
    """A cancellation ends the start of a plugin."""
    with Plugin(
        manifest(guest(export("_initialize", LOOP) + export("f", "")), timeout_ms=5000)
    ) as plugin:
        results = cancel_soon(plugin)
        with pytest.raises(CancelledError):
            plugin.call("f")
        assert results == [True]


def test_cancel_at_end_of_start() -> None:
    """A cancellation at the last moment of the start ends the call that follows."""
    source = guest(
        export("_initialize", "(call $log_error <<started>>)") + export("spin", LOOP),
    )
    import logging

    class Cancels(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            results.append(plugin.cancel_handle().cancel())

    results: list[bool] = []
    logger, handler = logging.getLogger("plugwasm.plugin.cancels_at_start"), Cancels()
    logger.addHandler(handler)
    try:
        with (
            Plugin(manifest(source, timeout_ms=1500), name="cancels_at_start") as plugin,
            pytest.raises(CancelledError),
        ):
            plugin.call("spin")
    finally:
        logger.removeHandler(handler)
    assert results == [True]


def test_cancel_from_host_function() -> None:
    """A cancellation from a host function ends the call when the function returns."""
    returned: list[int] = []

    def back(*_: Any) -> None:
        assert plugin.cancel_handle().cancel() is True
        returned.append(1)

    with make_calling_plugin(back) as plugin:
        with pytest.raises(CancelledError):
            plugin.call("run")
        assert returned == [1]
        assert plugin.call("echo", b"again") == b"again"


def test_many_cancels_hit_their_call() -> None:
    """Each of many cancellations ends the call that it was meant for."""
    with Plugin(SPIN) as plugin:
        for round in range(15):
            results = cancel_soon(plugin, 0.01)
            try:
                plugin.call("spin")
            except CancelledError:
                pass
            data = b"%d" % round
            assert plugin.call("echo", data) == data
            assert soon(lambda: results == [True], 20)  # the other thread may be between the two
