"""A cancel is for one call: what is aimed at a call that has ended meanwhile does not hit the next one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from plugwasm import CancelledError, Error, Function, IsolatedPlugin, Limits, Plugin
from plugwasm._host.deadline import ticker
from plugwasm._host.event_loop import Crossing, Desk
from tests.support.threads import InThread

ASK = b"""(module (import "extism:host/user" "ask" (func $ask))
  (func (export "ask") (call $ask)) (func (export "ok")) (func (export "spin") (loop $l (br $l))))"""


class Gates:
    """A host function in which each call waits until it may go on."""

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


def test_a_cancel_that_comes_while_the_call_ends_leaves_the_next_one_alone(
    plugin: Plugin, gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: Any = None
    second: Any = None

    class Running(dict[Any, float]):
        """The calls under way; who looks one up is held up until the next one runs."""

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


def test_a_cancel_hits_the_call_under_way_and_no_later_one(plugin: Plugin, gates: Gates) -> None:
    for _ in range(3):
        call = InThread(lambda: plugin.call("ask"))
        gates.arrived.acquire()
        assert plugin.cancel_handle().cancel()
        gates.go.release()
        with pytest.raises(CancelledError):
            call.result()
        assert not plugin.cancel_handle().cancel()
        assert plugin.call("ok") == b""


def test_a_task_cancels_the_call_of_its_own_thread_only(plugin: Plugin, gates: Gates) -> None:
    """Its call has ended, and another thread calls the plugin before the task's thread has left."""
    desk = Desk.__new__(Desk)  # one that nobody sits at
    crossing = Crossing(desk, lambda _: None)
    crossing.plugin, crossing._thread = plugin, threading.get_ident()
    call = InThread(lambda: plugin.call("ask"))
    gates.arrived.acquire()
    assert not crossing.cancel()
    gates.go.release()
    assert call.result() == b""


def test_a_worker_that_was_to_hurry_with_one_call_has_time_for_the_next() -> None:
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
