"""The time spent waiting for a plugin counts towards the deadlines of the calls around it, and a
call that would wait for itself is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from plugwasm import (
    CancelledError,
    Egress,
    Function,
    HostFunctionError,
    IsolatedPlugin,
    Limits,
    Plugin,
    PluginPool,
    PluginSet,
    PoolTimeoutError,
    TimeoutError,
    TrapError,
)
from plugwasm._host.waiting_calls import waiting_callers
from plugwasm._http.connection import CallClock
from plugwasm._http.rate_limit import shared_limiter
from tests.support.threads import InThread

ASK = b"""(module (import "extism:host/user" "ask" (func $ask))
  (func (export "ask") (call $ask)) (func (export "ok")) (func (export "spin") (loop $l (br $l))))"""
OTHER = b'(module (func (export "ok")) (func (export "spin") (loop $l (br $l))))'
SOON = 20.0
"""Seconds; what is waited for would take for ever, or a minute."""


def ask_functions(ask: Callable[[], object]) -> list[Function]:
    return [Function(None, "ask", [], [], lambda *_: ask())]


@contextmanager
def ends_soon() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON


@contextmanager
def all_in_use(pool: PluginPool) -> Iterator[None]:
    """Hold all plugins of the pool in another thread."""
    taken, end = threading.Event(), threading.Event()

    def take() -> None:
        with pool.plugin():
            taken.set()
            end.wait()

    threads = [InThread(take) for _ in range(pool.size)]
    taken.wait()
    while pool.stats.busy < pool.size:
        time.sleep(0.001)
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.result()


# ---- for others ----------------------------------------------------------------------------------

WAYS: dict[str, Callable[[PluginPool], object]] = {
    "call": lambda pool: pool.call("ok"),
    "call, with a limit of its own": lambda pool: pool.call("ok", wait=1000),
    "lease": lambda pool: pool.plugin().__enter__(),
    "map": lambda pool: list(pool.map("ok", [b""] * 3)),
    "map with one worker": lambda pool: list(pool.map("ok", [b""] * 3, workers=1)),
    "an event loop": lambda pool: asyncio.run(pool.call_async("ok")),
}


@pytest.mark.parametrize("way", WAYS)
def test_host_function_wait_is_bounded(way: str) -> None:
    """A host function waits for a plugin no longer than its call may take."""
    with PluginPool(OTHER, size=2) as pool, all_in_use(pool), ends_soon():
        plugin = Plugin(
            ASK, functions=ask_functions(lambda: WAYS[way](pool)), limits=Limits(timeout=0.3)
        )
        with pytest.raises(
            TimeoutError, match="`ask` of plugin `plugin` did not end before its deadline of 300 ms"
        ):
            plugin.call("ask")
        assert pool.stats.waiting == 0 or becomes_true(lambda: pool.stats.waiting == 0)


def becomes_true(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("way", WAYS)
def test_cancel_ends_host_function_wait(way: str) -> None:
    """Cancelling a call ends the wait of its host function."""
    with PluginPool(OTHER, size=2) as pool, all_in_use(pool), ends_soon():
        plugin = Plugin(ASK, functions=ask_functions(lambda: WAYS[way](pool)))
        thread = InThread(lambda: plugin.call("ask"))
        assert becomes_true(lambda: plugin.cancel_handle().cancel())
        with pytest.raises(CancelledError):
            thread.result()


@pytest.mark.parametrize(("size", "inputs"), [(1, 1), (1, 3), (2, 1), (2, 2), (2, 4), (4, 8)])
@pytest.mark.parametrize("ending", ["deadline", "cancel"])
def test_map_ends_with_reading_call(ending: str, size: int, inputs: int) -> None:
    """A `map` read by a host function ends when the host function's call ends.

    This holds for any number of inputs: the reader of a `map` makes none of its calls if others
    wait for the reader.
    """
    begun = threading.Event()

    def read() -> None:
        begun.set()
        list(pool.map("spin", [b""] * inputs))

    with PluginPool(OTHER, size=size, limits=Limits(timeout=60)) as pool:
        plugin = Plugin(
            ASK,
            functions=ask_functions(read),
            limits=Limits(timeout=0.3 if ending == "deadline" else 60),
        )
        handle = plugin.cancel_handle()

        def cancel() -> None:
            begun.wait()
            time.sleep(0.1)
            if ending == "cancel":
                handle.cancel()

        canceller = InThread(cancel)
        with ends_soon(), pytest.raises(TimeoutError if ending == "deadline" else CancelledError):
            plugin.call("ask")
        canceller.result()
        assert pool.stats.busy == 0, "the calls have ended, and are not left to themselves"
        assert pool.map("ok", [b""] * 3).__next__() == b""


@pytest.mark.parametrize("workers", [1, 2])
def test_map_in_host_function(workers: int) -> None:
    """A `map` in a host function returns outputs in order and raises errors."""
    seen: list[object] = []
    echo = b"""(module (import "extism:host/env" "input_offset" (func $in (result i64)))
      (import "extism:host/env" "length" (func $length (param i64) (result i64)))
      (import "extism:host/env" "output_set" (func $out (param i64 i64)))
      (func (export "echo") (if (i64.eq (call $length (call $in)) (i64.const 7)) (then unreachable))
        (call $out (call $in) (call $length (call $in)))))"""

    def read() -> None:
        seen.extend(pool.map("echo", [b"a" * i for i in range(200)], return_exceptions=True))

    with PluginPool(echo, size=2) as pool:
        Plugin(ASK, functions=ask_functions(read)).call("ask")
    assert isinstance(seen.pop(7), TrapError)
    assert seen == [b"a" * i for i in range(200) if i != 7]


def test_slow_map_ends_with_reading_call() -> None:
    """A `map` of slow calls ends when the call that reads it ends."""
    slow = PluginPool(ASK, functions=ask_functions(lambda: time.sleep(0.05)), size=2)
    with slow as pool, ends_soon():
        plugin = Plugin(
            ASK,
            functions=ask_functions(lambda: list(pool.map("ask", [b""] * 10_000, workers=2))),
            limits=Limits(timeout=0.5),
        )
        with pytest.raises(TimeoutError, match="500 ms"):
            plugin.call("ask")
        assert becomes_true(lambda: pool.stats.busy == 0)


def test_coroutine_wait_is_bounded() -> None:
    """A host function's coroutine waits no longer than its call may take."""
    with PluginPool(OTHER, size=1) as pool, all_in_use(pool), ends_soon():

        async def ask(*_: object) -> None:
            await pool.call_async("ok")

        plugin = Plugin(
            ASK, functions=[Function(None, "ask", [], [], ask)], limits=Limits(timeout=0.3)
        )
        with pytest.raises(TimeoutError):
            asyncio.run(plugin.call_async("ask"))


def test_any_outer_deadline_counts() -> None:
    """The deadline of every enclosing call applies."""
    with PluginPool(OTHER, size=1) as pool, all_in_use(pool), ends_soon():
        inner = Plugin(ASK, functions=ask_functions(lambda: pool.call("ok")), name="inner")
        outer = Plugin(
            ASK,
            functions=ask_functions(lambda: inner.call("ask")),
            limits=Limits(timeout=0.3),
            name="outer",
        )
        with pytest.raises((TimeoutError, HostFunctionError)):
            outer.call("ask")


def test_worker_process_wait_is_bounded() -> None:
    """A wait for a worker process takes no longer than the call may take."""
    with IsolatedPlugin(OTHER) as isolated, ends_soon():
        plugin = Plugin(
            ASK, functions=ask_functions(lambda: isolated.call("spin")), limits=Limits(timeout=0.5)
        )
        with pytest.raises(TimeoutError, match="500 ms"):
            plugin.call("ask")
        assert isolated.call("ok") == b""


def test_isolated_host_function_wait() -> None:
    """An isolated plugin's host function waits no longer than its call may take."""
    with PluginPool(OTHER, size=1) as pool, all_in_use(pool), ends_soon():
        plugin = IsolatedPlugin(
            ASK, functions=ask_functions(lambda: pool.call("ok")), limits=Limits(timeout=0.5)
        )
        with plugin, pytest.raises(TimeoutError):
            plugin.call("ask")


def test_request_queue_wait_is_bounded() -> None:
    """A request waits for its turn no longer than its call may take."""

    egress = Egress(max_concurrent=1)
    limiter = shared_limiter(egress)
    limiter.acquire(object(), CallClock(lambda: None))

    def ask() -> None:
        (guest,) = waiting_callers()
        limiter.acquire(object(), CallClock(guest.remaining))

    with ends_soon(), pytest.raises(TimeoutError):
        Plugin(ASK, functions=ask_functions(ask), limits=Limits(timeout=0.3)).call("ask")


# ---- for itself ----------------------------------------------------------------------------------


def pool_of(size: int, ask: Callable[[PluginPool], object], **options: Any) -> PluginPool:
    pool: PluginPool
    pool = PluginPool(ASK, size=size, functions=ask_functions(lambda: ask(pool)), **options)
    return pool


@pytest.mark.parametrize("wait", [None, 1000.0])
@pytest.mark.parametrize("way", WAYS)
def test_deadlock_with_itself(way: str, wait: float | None) -> None:
    """A call that would wait for itself gets an error."""
    with pool_of(1, WAYS[way], wait=wait, limits=Limits(timeout=None)) as pool, ends_soon():
        with pytest.raises(HostFunctionError) as caught:
            pool.call("ask")
        assert isinstance(caught.value.__cause__, PoolTimeoutError)
        assert "would wait for itself: make the pool larger" in caught.value.__cause__.message
        assert pool.call("ok") == b""


def test_deadlock_through_several_calls() -> None:
    """A call gets an error if it would wait for itself through several calls that together hold
    all plugins."""
    depth = iter((1, 2, 3))

    def ask(pool: PluginPool) -> None:
        pool.call("ask", wait=None)
        next(depth)

    with pool_of(3, ask, limits=Limits(timeout=None)) as pool, ends_soon():
        with pytest.raises(HostFunctionError) as caught:
            pool.call("ask")
        assert "would wait for itself" in str(caught.value)


def test_deadlock_in_threads() -> None:
    """A call that would wait for itself gets an error also where threads make the calls."""

    def ask(pool: PluginPool) -> None:
        pool.call("ask") if pool.stats.busy < 2 else list(pool.map("ok", [b""] * 9, workers=2))

    with (
        pool_of(2, ask, limits=Limits(timeout=None)) as pool,
        ends_soon(),
        pytest.raises(HostFunctionError, match="would wait for itself"),
    ):
        pool.call("ask")


def test_deadlock_in_tasks() -> None:
    pool: PluginPool

    async def ask(*_: object) -> None:
        await pool.call_async("ok")

    pool = PluginPool(
        ASK, size=1, functions=[Function(None, "ask", [], [], ask)], limits=Limits(timeout=None)
    )
    with pool, ends_soon(), pytest.raises(HostFunctionError, match="would wait for itself"):
        asyncio.run(pool.call_async("ask"))


def test_deadlock_of_task() -> None:
    """A task whose synchronous host function would wait for the task itself gets an error."""
    pool = pool_of(1, lambda pool: pool.call("ok"), limits=Limits(timeout=None))
    with pool, ends_soon(), pytest.raises(HostFunctionError, match="would wait for itself"):
        asyncio.run(pool.call_async("ask"))


def test_deadlock_in_set_processes() -> None:
    """A call that would wait for itself gets an error also in a plugin set with processes."""
    plugins: PluginSet
    plugins = PluginSet(
        plugins={"a": ASK},
        functions=ask_functions(lambda: plugins.call("a", "ok")),
        isolated=True,
        instances=1,
        limits=Limits(timeout=30),
    )
    with (
        plugins,
        ends_soon(),
        pytest.raises(HostFunctionError, match=r"wait for itself: allow more \(`instances`\)"),
    ):
        plugins.call("a", "ask")


def test_deadlock_with_lease() -> None:
    """A call that would wait for a plugin that its host function has leased gets the error."""

    def ask(pool: PluginPool) -> None:
        with pool.plugin():
            pool.call("ok", wait=None)

    with (
        pool_of(2, ask, limits=Limits(timeout=None)) as pool,
        ends_soon(),
        pytest.raises(HostFunctionError, match="would wait for itself"),
    ):
        pool.call("ask")


def test_lease_returned_by_other_thread() -> None:
    """A call may wait for a lease of this thread if another thread returns it."""
    with PluginPool(OTHER, size=1) as pool:
        lease = pool.plugin()
        lease.__enter__()
        threading.Timer(0.1, lease.__exit__, (None, None, None)).start()
        assert pool.call("ok", wait=60) == b""


def test_partial_holder_waits() -> None:
    """A call whose host function holds some of the plugins waits for the others."""
    with pool_of(2, lambda pool: pool.call("ok")) as pool:
        taken, end = threading.Event(), threading.Event()

        def hold() -> None:
            with pool.plugin():
                taken.set()
                end.wait()

        holder = InThread(hold)
        taken.wait()
        threading.Timer(0.2, end.set).start()
        assert pool.call("ask") == b""
        holder.result()
