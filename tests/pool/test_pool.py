"""Pools: who gets a plugin and when, what comes back, and one export over many inputs. In threads and in event loops."""

from __future__ import annotations

import gc
import itertools
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import pytest

import plugwasm
from plugwasm import (
    ClosedError,
    CompiledPlugin,
    GuestError,
    IsolatedPlugin,
    Limits,
    Plugin,
    PluginPool,
    TrapError,
    host_fn,
)
from plugwasm.errors import BusyError, PoolTimeoutError
from tests.support.guests import LOOP, export, guest
from tests.support.paths import ROOT
from tests.support.threads import InThread
from tests.support.waiting import soon

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])

# `count` answers how often this instance was asked; `judge` fails for an input that begins with "x".
BODY = (
    '(global $count (mut i64) (i64.const 0)) (func (export "count")'
    " (global.set $count (i64.add (global.get $count) (i64.const 1))) (call $answer (global.get $count)))"
    + export("echo", "(call $echo)")
    + export("spin", LOOP)
    + export("trap", "(unreachable)")
    + export(
        "judge",
        "(if (i32.eq (call $input_load_u8 (i64.const 0)) (i32.const 120)) (then (call $error_set <<no x>>))) (call $echo)",
    )
)
COUNT = CompiledPlugin(guest(BODY), functions=[], name="counter")
SPIN_ON_S = export(
    "rest_or_spin",
    f"(if (i32.eq (call $input_load_u8 (i64.const 0)) (i32.const 115)) (then {LOOP})) (call $rest) (call $echo)",
)
REST = guest(
    BODY + SPIN_ON_S + export("rest", "(call $rest) (call $echo)"),
    '(import "extism:host/user" "rest" (func $rest))',
)
SIFT = guest(
    export("sift", "(call $give (call $sift (call $input_offset)))"),
    '(import "extism:host/user" "sift" (func $sift (param i64) (result i64)))',
)


def in_loop(backend: str, main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    return anyio.run(main, *args, backend=backend)  # type: ignore[arg-type]


def resting(rest: Callable[[], Any], **options: Any) -> PluginPool:
    """A pool whose `rest` calls that, and then is an echo."""
    rest.__annotations__.setdefault("return", None)
    return PluginPool(REST, functions=[host_fn(name="rest")(rest)], **options)


def sifting(sift: Callable[..., Any], **options: Any) -> PluginPool:
    """A pool whose `sift` answers what that makes of the input."""
    return PluginPool(SIFT, functions=[host_fn(name="sift")(sift)], **options)


def number(output: bytes) -> int:
    return int.from_bytes(output, "little")


class Gate:
    """A host function that waits until it is opened, and knows how many are there."""

    def __init__(self) -> None:
        self.entered = 0
        self._lock = threading.Lock()
        self._opened = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self.entered += 1
        assert self._opened.wait(20)

    def open(self) -> None:
        self._opened.set()

    def pool(self, **options: Any) -> PluginPool:
        return resting(lambda: self(), **options)


@contextmanager
def small_stacks() -> Iterator[None]:
    """Threads get too little stack for a guest, unless who makes them sees to it."""
    before = threading.stack_size(256 * 1024)
    try:
        yield
    finally:
        threading.stack_size(before)


# Calls


def test_a_pool_calls_whichever_plugin_is_free_and_makes_them_when_needed() -> None:
    with PluginPool(COUNT, size=3) as pool:
        assert pool.stats == (3, 0, 0, 0, 0, 0)
        assert [number(pool.call("count")) for _ in range(4)] == [1, 2, 3, 4]
        assert pool.stats == (3, 1, 0, 0, 1, 0)
        assert pool.call("echo", b"7", int) == 7
        assert pool.call("echo", b"[7]", returns=list[int]) == [7]
        with pool.plugin() as one, pool.plugin() as two:
            assert one is not two
            assert pool.stats.busy == 2
        assert (pool.name, pool.size, pool.stats.made) == ("counter", 3, 2)


def test_a_pool_takes_what_a_plugin_takes() -> None:
    config = guest(export("get", "(call $give (call $config_get <<k>>))"))
    with PluginPool(
        config, config={"k": "v"}, size=1, name="configured", limits=Limits(timeout=5)
    ) as pool:
        assert pool.call("get") == b"v"
        with pool.plugin() as plugin:
            assert plugin.name == "configured"
            assert plugin.compiled_plugin.limits.timeout == 5
    assert PluginPool(COUNT).size >= 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0},
        {"size": 1.5},
        {"wait": -1},
        {"wait": "long"},
        {"plugin": None},
        {"factory": lambda: Plugin(COUNT)},
    ],
    ids=["none", "half", "negative wait", "no wait", "no plugin", "both"],
)
def test_what_makes_no_pool_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PluginPool(**({"plugin": COUNT} | arguments))


def test_a_view_of_a_plugin_that_others_get_is_refused() -> None:
    with PluginPool(COUNT, size=1) as pool:
        with pytest.raises(ValueError, match=r"pool\.plugin"):
            pool.call("echo", b"x", None)
        with pytest.raises(ValueError, match="view"):
            pool.map("echo", [], parse=None)
        with pool.plugin() as plugin:
            assert bytes(plugin.call("echo", b"x", None)) == b"x"


def test_who_waits_too_long_gets_an_error_that_is_a_timeout_and_busy() -> None:
    with PluginPool(COUNT, size=1, wait=0.05) as pool, pool.plugin():
        with pytest.raises(PoolTimeoutError, match=r"in use for 0\.05 s") as caught:
            pool.call("count")
        assert isinstance(caught.value, BusyError)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.plugin == "counter"
        with pytest.raises(PoolTimeoutError, match="for 0 s"):
            pool.call("count", wait=0)
        with pytest.raises(PoolTimeoutError), pool.plugin(wait=0.01):
            pass
        waiting = InThread(pool.call, "count", wait=None)
        assert soon(lambda: pool.stats.waiting == 1)
        time.sleep(0.1)
        assert pool.stats.waiting == 1
        pool.close()
        with pytest.raises(ClosedError):
            waiting.result()


def test_callers_are_served_in_the_order_they_came() -> None:
    served: list[int] = []
    with PluginPool(COUNT, size=1) as pool:

        def caller(place: int) -> None:
            with pool.plugin():
                served.append(place)

        with pool.plugin():
            callers = []
            for place in range(8):
                callers.append(InThread(caller, place))
                assert soon(lambda: pool.stats.waiting == place + 1)
        for each in callers:
            each.result()
    assert served == list(range(8))


def test_many_threads_share_a_pool_and_no_two_share_a_plugin() -> None:
    inside: set[int] = set()
    lock = threading.Lock()
    with PluginPool(COUNT, size=3) as pool:

        def work(worker: int) -> None:
            for i in range(200):
                with pool.plugin() as plugin:
                    with lock:
                        assert id(plugin) not in inside
                        inside.add(id(plugin))
                    assert plugin.call("echo", f"{worker}.{i}") == f"{worker}.{i}".encode()
                    with lock:
                        inside.remove(id(plugin))

        for thread in [InThread(work, worker) for worker in range(8)]:
            thread.result()
        assert pool.stats.made <= 3
        assert pool.stats[2:4] == (0, 0)


def test_the_order_of_waiting_is_one_for_threads_and_tasks() -> None:
    served: list[str] = []

    async def main() -> None:
        with PluginPool(COUNT, size=1) as pool:

            async def task(place: str) -> None:
                async with pool.plugin() as plugin:
                    await plugin.call_async("count")
                    served.append(place)

            def thread(place: str) -> None:
                with pool.plugin():
                    served.append(place)

            async with anyio.create_task_group() as group:
                threads = []
                with pool.plugin():
                    for place in range(6):
                        if place % 2:
                            group.start_soon(task, f"task {place}")
                        else:
                            threads.append(InThread(thread, f"thread {place}"))
                        with anyio.fail_after(20):
                            while pool.stats.waiting != place + 1:
                                await anyio.sleep(0.002)
            for each in threads:
                each.result()

    anyio.run(main)
    assert served == ["thread 0", "task 1", "thread 2", "task 3", "thread 4", "task 5"]


# What comes back


def test_a_fresh_pool_has_a_new_instance_for_each_caller() -> None:
    with PluginPool(COUNT, size=2, fresh=True) as pool:
        assert [number(pool.call("count")) for _ in range(3)] == [1, 1, 1]
        with pool.plugin() as plugin:
            plugin.update_config({"k": "v"})
            assert [number(plugin.call("count")) for _ in range(3)] == [1, 2, 3]
        with pool.plugin() as plugin:
            assert plugin.config == {}
        assert pool.stats == (2, 0, 0, 0, 5, 0)


def test_a_plugin_whose_call_was_ended_serves_the_next_call() -> None:
    with PluginPool(COUNT, size=1, limits=None) as pool:
        assert number(pool.call("count")) == 1
        with pytest.raises(TrapError):
            pool.call("trap")
        assert number(pool.call("count")) == 1
        assert pool.stats == (1, 1, 0, 0, 1, 0)


def test_a_plugin_that_comes_back_closed_is_replaced() -> None:
    with PluginPool(COUNT, size=1) as pool:
        with pool.plugin() as plugin:
            plugin.close()
        assert number(pool.call("count")) == 1
        assert pool.stats == (1, 1, 0, 0, 2, 1)


def test_a_plugin_that_comes_back_in_the_middle_of_a_call_is_replaced_and_that_call_ended() -> None:
    with PluginPool(COUNT, size=1) as pool:
        with pool.plugin() as plugin:
            call = InThread(plugin.call, "spin")
            assert soon(lambda: not hasattr(plugin, "_idle"))
        assert pool.call("echo", b"at once") == b"at once"
        assert pool.stats.replaced == 1
        with pytest.raises(plugwasm.Error):
            call.result()


def test_a_factory_that_fails_loses_no_place() -> None:
    attempts = itertools.count()

    def make() -> Plugin:
        if next(attempts) < 2:
            raise OSError("no such luck")
        return Plugin(COUNT)

    with PluginPool(factory=make, size=1, wait=0) as pool:
        for _ in range(2):
            with pytest.raises(OSError, match="luck"):
                pool.call("count")
        assert number(pool.call("count")) == 1
        assert pool.stats == (1, 1, 0, 0, 1, 0)


def test_a_pool_of_isolated_plugins_resets_them_where_they_should_be_fresh() -> None:
    made: list[IsolatedPlugin] = []

    def make() -> Plugin:
        made.append(IsolatedPlugin(guest(BODY), functions=[]))
        return made[-1]

    with PluginPool(factory=make, size=1, fresh=True) as pool:
        assert [number(pool.call("count")) for _ in range(3)] == [1, 1, 1]
        assert len(made) == 1
        made[0]._worker._process.kill()  # type: ignore[union-attr]
        made[0]._worker._process.wait()  # type: ignore[union-attr]
        with pytest.raises(plugwasm.WorkerError):
            pool.call("count")
        assert number(pool.call("count")) == 1
    with pytest.raises(ClosedError):
        made[0].call("count")


# The end


def test_closing_a_pool_ends_its_calls_and_sends_away_who_waits() -> None:
    pool = PluginPool(COUNT, size=1)
    running = InThread(pool.call, "spin")
    assert soon(lambda: pool.stats.busy == 1)
    waiting = InThread(pool.call, "count")
    assert soon(lambda: pool.stats.waiting == 1)
    pool.close()
    pool.close()
    for call in (running, waiting):
        with pytest.raises((plugwasm.CancelledError, ClosedError)):
            call.result()
    with pytest.raises(ClosedError, match="counter"):
        pool.call("count")
    with pytest.raises(ClosedError):
        list(pool.map("count", [b""]))
    assert pool.stats == (1, 0, 0, 0, 1, 0)
    assert "closed" in repr(pool)


def test_a_plugin_that_is_held_while_the_pool_closes_is_closed_too() -> None:
    pool = PluginPool(COUNT, size=1)
    with pool.plugin() as plugin:
        pool.close()
        with pytest.raises(ClosedError):
            plugin.call("count")


def test_a_pool_that_is_dropped_frees_its_plugins() -> None:
    pool = PluginPool(COUNT, size=2)
    with pool.plugin() as plugin:
        plugin.call("count")
    reference = weakref.ref(plugin)
    del plugin, pool
    gc.collect()
    assert reference() is None


def test_a_pool_cannot_be_pickled_and_says_so() -> None:
    with PluginPool(COUNT) as pool, pytest.raises(TypeError, match="another process"):
        pickle.dumps(pool)


FORK = """
import os, threading, time, anyio, plugwasm
from plugwasm import PluginPool
pool = PluginPool("examples/echo.wasm", functions=[], size=2, wait=10)
def busy():
    try:
        pool.call("spin")
    except plugwasm.Error:
        pass
thread = threading.Thread(target=busy)
thread.start()
while pool.stats.busy < 1:
    time.sleep(0.01)
held = pool.plugin()
plugin = held.__enter__()          # by the thread that forks: it has it in the child as well
waiting = threading.Thread(target=lambda: pool.call("echo", "parent"))
waiting.start()
while pool.stats.waiting < 1:
    time.sleep(0.01)
numbers = pool.map("echo", map(str, range(50)), workers=2)
half = plugwasm.pool.PluginPool("examples/echo.wasm", functions=[], size=2)
begun = half.map("echo", map(str, range(50)))
assert next(begun) == b"0"
pid = os.fork()
if pid == 0:
    assert pool.stats.busy == 1 and pool.stats.waiting == 0, pool.stats
    assert plugin.call("echo", "child") == b"child"
    assert pool.call("echo", "child") == b"child"
    held.__exit__(None, None, None)
    assert list(numbers) == [str(i).encode() for i in range(50)]
    try:
        next(begun)
    except plugwasm.ClosedError:
        pass
    else:
        os._exit(9)
    assert half.call("echo", "x") == b"x"
    async def main():
        return await pool.call_async("echo", "async")
    assert anyio.run(main) == b"async"
    pool.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
held.__exit__(None, None, None)
waiting.join()
assert list(begun) == [str(i).encode() for i in range(1, 50)]
pool.close()
thread.join()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_can_use_the_pool_and_so_can_its_parent() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr


# Tasks


@both
def test_tasks_share_a_pool(backend: str) -> None:
    async def main() -> None:
        async with PluginPool(COUNT, size=3) as pool:

            async def call(number: int) -> None:
                assert await pool.call_async("echo", str(number)) == str(number).encode()

            async with anyio.create_task_group() as group:
                for n in range(60):
                    group.start_soon(call, n)
            assert pool.stats.made <= 3
            assert await pool.call_async("echo", b"[1]", returns=list[int]) == [1]
            with pytest.raises(TrapError):
                await pool.call_async("trap")
            with pytest.raises(ValueError, match="view"):
                await pool.call_async("echo", b"", None)
        with pytest.raises(ClosedError):
            await pool.call_async("echo")
        assert pool.stats[1:4] == (0, 0, 0)

    in_loop(backend, main)


@both
def test_a_task_waits_for_a_plugin_as_long_as_it_may(backend: str) -> None:
    async def main() -> None:
        async with PluginPool(COUNT, size=1, wait=0.05) as pool:
            async with pool.plugin() as plugin:
                with pytest.raises(PoolTimeoutError):
                    await pool.call_async("count")
                with pytest.raises(PoolTimeoutError):
                    await pool.call_async("count", wait=0)
                with anyio.move_on_after(0.02) as scope:
                    await pool.call_async("count", wait=None)
                assert scope.cancelled_caught
                assert pool.stats.waiting == 0
                assert number(await plugin.call_async("count")) == 1
            assert number(await pool.call_async("count")) == 2

    in_loop(backend, main)


@both
def test_a_task_that_is_cancelled_gives_its_plugin_back(backend: str) -> None:
    async def main() -> None:
        async with PluginPool(COUNT, size=2, wait=10) as pool:
            for step in range(40):
                with anyio.move_on_after(step * 0.0002):
                    await pool.call_async("spin")
                with anyio.move_on_after(step * 0.00002):
                    async with pool.plugin() as plugin:
                        await plugin.call_async("echo")
                assert pool.stats[2:4] == (0, 0)
            assert await pool.call_async("echo", b"1") == b"1"

    in_loop(backend, main)


@both
def test_cancelling_one_caller_leaves_the_next_alone(backend: str) -> None:
    """The plugin of a cancelled call goes to the next caller at once, whose call must not be cancelled instead."""

    async def main() -> None:
        async with PluginPool(COUNT, size=1) as pool:

            async def next_caller() -> None:
                assert await pool.call_async("echo", b"mine") == b"mine"

            for _ in range(30):
                async with anyio.create_task_group() as group:
                    with anyio.move_on_after(0.005):
                        group.start_soon(next_caller)
                        group.start_soon(next_caller)
                        await pool.call_async("spin")

    in_loop(backend, main)


@both
def test_a_fresh_pool_of_tasks(backend: str) -> None:
    async def main() -> None:
        async with PluginPool(COUNT, size=2, fresh=True) as pool:
            assert [number(await pool.call_async("count")) for _ in range(3)] == [1, 1, 1]
            async with pool.plugin() as plugin:
                assert [number(await plugin.call_async("count")) for _ in range(2)] == [1, 2]
            async with pool.plugin() as plugin:
                assert number(await plugin.call_async("count")) == 1

    in_loop(backend, main)


# One export over many inputs


def test_map_yields_outputs_in_the_order_of_the_inputs() -> None:
    def sift(text: str) -> str:
        time.sleep(0.001 * (int(text) % 5))
        return text + "!"

    for workers in (1, 2, 4, None):
        with sifting(sift, size=4) as pool:
            outputs = pool.map("sift", map(str, range(60)), workers=workers)
            assert list(outputs) == [f"{i}!".encode() for i in range(60)]
            assert pool.stats[2:4] == (0, 0)


def test_map_uses_as_many_plugins_at_a_time_as_it_has_workers() -> None:
    for workers in (2, 3):
        gate = Gate()
        with gate.pool(size=3) as pool:
            mapping = InThread(list, pool.map("rest", [b"x"] * 9, workers=workers))
            assert soon(lambda: gate.entered == workers, 20)
            time.sleep(0.05)
            assert gate.entered == workers
            gate.open()
            assert mapping.result() == [b"x"] * 9


@pytest.mark.parametrize("workers", [1, 3])
def test_map_takes_a_bounded_number_of_inputs_ahead_of_an_endless_source(workers: int) -> None:
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for taken in itertools.count(1):
            yield str(taken).encode()

    with PluginPool(COUNT, size=3) as pool:
        outputs = pool.map("echo", source(), workers=workers, ahead=5)
        assert taken == 0
        for read in range(1, 50):
            assert next(outputs) == str(read).encode()
            assert taken <= read + 5
        outputs.close()  # type: ignore[attr-defined]
        assert pool.stats[2:4] == (0, 0)


def test_map_keeps_all_workers_busy_while_somebody_reads() -> None:
    running, most = 0, []
    lock = threading.Lock()

    def sift(text: str) -> str:
        nonlocal running
        with lock:
            running += 1
            most.append(running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return text

    with sifting(sift, size=3) as pool:
        for _ in pool.map("sift", map(str, range(40))):
            time.sleep(0.002)
    assert max(most) == 3
    assert sum(number == 3 for number in most) > 10


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_in_order_ends_a_map(workers: int) -> None:
    with PluginPool(COUNT, size=2) as pool:
        outputs = pool.map("judge", [b"a", b"b", b"x", b"d", b"x"], workers=workers)
        assert [next(outputs), next(outputs)] == [b"a", b"b"]
        with pytest.raises(GuestError, match="no x") as caught:
            next(outputs)
        assert caught.value.__notes__ == ["It was the call for input 2, counted from 0."]
        assert list(outputs) == []
        assert pool.stats[2:4] == (0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_can_be_yielded_in_their_places(workers: int) -> None:
    with PluginPool(COUNT, size=2) as pool:
        outputs = list(
            pool.map("judge", [b"a", b"x", b"c", b"x"], workers=workers, return_exceptions=True)
        )
        assert outputs[0::2] == [b"a", b"c"]
        assert [type(output) for output in outputs[1::2]] == [GuestError, GuestError]
        assert (
            list(pool.map("trap", [b""] * 3, workers=workers, return_exceptions=True))[2].trap
            == "unreachable"
        )


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_inputs_comes_after_the_outputs_before_it(workers: int) -> None:
    def source() -> Iterator[bytes]:
        yield from (b"1", b"2", b"3")
        raise LookupError("no more")

    with PluginPool(COUNT, size=2) as pool:
        outputs = pool.map("echo", source(), workers=workers)
        assert [next(outputs) for _ in range(3)] == [b"1", b"2", b"3"]
        with pytest.raises(LookupError, match="no more"):
            next(outputs)


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_map_that_ends_early_cancels_what_it_runs(end: str) -> None:
    with resting(lambda: time.sleep(0.05), size=2) as pool:
        outputs = pool.map("rest_or_spin", itertools.chain([b"a"], itertools.repeat(b"s")))
        assert next(outputs) == b"a"
        assert soon(lambda: pool.stats.busy == 2)
        if end == "close":
            outputs.close()  # type: ignore[attr-defined]
        del outputs
        assert pool.stats[2:4] == (0, 0)
        assert pool.call("echo", b"usable") == b"usable"


def test_a_map_that_ended_begins_no_more_calls() -> None:
    begun: list[str] = []

    def sift(text: str) -> str:
        begun.append(text)
        time.sleep(0.01)
        return text

    with sifting(sift, size=2) as pool:
        outputs = pool.map("sift", map(str, itertools.count()), ahead=50)
        assert [next(outputs), next(outputs)] == [b"0", b"1"]
        outputs.close()  # type: ignore[attr-defined]
        at_the_end = len(begun)
        time.sleep(0.1)
        assert len(begun) == at_the_end < 50


def test_closing_the_pool_ends_a_map() -> None:
    with PluginPool(COUNT, size=2) as pool:
        mapping = InThread(list, pool.map("spin", itertools.repeat(b""), return_exceptions=True))
        assert soon(lambda: pool.stats.busy == 2)
        pool.close()
        with pytest.raises(ClosedError):
            mapping.result()


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_is_told_before_each_output(workers: int) -> None:
    seen: list[tuple[int, int | None]] = []
    with PluginPool(COUNT, size=2) as pool:
        for inputs, total in (([b"a", b"b", b"c"], 3), (iter([b"a", b"b", b"c"]), None)):
            seen.clear()
            for place, _ in enumerate(
                pool.map(
                    "echo",
                    inputs,
                    workers=workers,
                    on_progress=lambda done, total: seen.append((done, total)),
                ),
                1,
            ):
                assert seen == [(n, total) for n in range(1, place + 1)]
            assert len(seen) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_progress_callback_raises_ends_the_map(workers: int) -> None:
    def on_progress(done: int, total: int | None) -> None:
        if done == 2:
            raise LookupError("seen enough")

    with PluginPool(COUNT, size=2) as pool:
        outputs = pool.map("echo", itertools.repeat(b"x"), workers=workers, on_progress=on_progress)
        assert next(outputs) == b"x"
        with pytest.raises(LookupError, match="seen enough"):
            next(outputs)
        assert list(outputs) == []
        assert pool.stats[2:4] == (0, 0)


@pytest.mark.parametrize(
    "argument", [{"workers": 0}, {"ahead": 0}, {"workers": 1.5}, {"wait": -1}], ids=str
)
def test_a_map_refuses_nonsense_at_once(argument: dict[str, Any]) -> None:
    with PluginPool(COUNT, size=2) as pool, pytest.raises(ValueError):
        pool.map("echo", [b""], **argument)


def test_two_maps_and_other_callers_share_a_pool() -> None:
    with PluginPool(COUNT, size=2) as pool:
        one, two = (pool.map("echo", [f"{m} {i}" for i in range(40)]) for m in "ab")
        pairs = []
        for pair in zip(one, two, strict=True):
            pairs.append(pair)
            assert pool.call("echo", b"between") == b"between"
        assert pairs == [(f"a {i}".encode(), f"b {i}".encode()) for i in range(40)]


def test_the_context_of_the_caller_is_there_in_a_map() -> None:
    from contextvars import ContextVar

    user: ContextVar[str] = ContextVar("user")

    def sift(text: str) -> str:
        return user.get() + text

    user.set("ada ")
    with sifting(sift, size=2) as pool:
        assert list(pool.map("sift", ["1", "2", "3"])) == [b"ada 1", b"ada 2", b"ada 3"]


def test_short_calls_of_a_map_are_made_by_the_thread_that_reads() -> None:
    callers: list[int] = []

    def sift(text: str) -> str:
        callers.append(threading.get_ident())
        return text

    with sifting(sift, size=2) as pool:
        assert list(pool.map("sift", map(str, range(2000)))) == [
            str(i).encode() for i in range(2000)
        ]
        assert callers.count(threading.get_ident()) > 1000
        callers.clear()
        with small_stacks():
            assert InThread(lambda: list(pool.map("sift", map(str, range(100))))).result() == [
                str(i).encode() for i in range(100)
            ]
    assert len(callers) == 100


@pytest.mark.parametrize("short", [0, 1, 500])
def test_long_calls_of_a_map_run_at_a_time_whatever_came_before_them(short: int) -> None:
    gates = {"long": threading.Event(), "longer": threading.Event()}
    running, most, lock = 0, 0, threading.Lock()

    def sift(text: str) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert text == "short" or gates[text].wait(20)
        with lock:
            running -= 1
        return text

    inputs = (["short"] * short + ["long"] * 6) + (["short"] * short + ["longer"] * 6)
    with sifting(sift, size=4) as pool:
        mapping = InThread(lambda: list(pool.map("sift", inputs, workers=3)))
        for gate in gates.values():
            assert soon(lambda: running == 3, 20)
            time.sleep(0.02)
            gate.set()
        assert mapping.result() == [text.encode() for text in inputs]
    assert most == 3


def test_calls_run_at_a_time_while_the_reader_waits_for_inputs_or_is_away() -> None:
    gate, running, lock = threading.Event(), 0, threading.Lock()

    def sift(text: str) -> str:
        nonlocal running
        if text == "long":
            with lock:
                running += 1
            assert gate.wait(20)
        return text

    def source() -> Iterator[str]:
        yield from ["long"] * 3
        assert soon(lambda: running == 3, 20)
        gate.set()

    with sifting(sift, size=3) as pool:
        assert list(pool.map("sift", source())) == [b"long"] * 3
        gate.clear()
        running = 0
        outputs = pool.map("sift", ["short"] * 100 + ["long"] * 3)
        for _ in range(100):
            next(outputs)
        assert soon(lambda: running == 3, 20)
        gate.set()
        assert list(outputs) == [b"long"] * 3


def test_short_calls_are_made_in_advance_while_the_reader_is_away() -> None:
    made: list[str] = []

    def sift(text: str) -> str:
        made.append(text)
        return text

    with sifting(sift, size=2) as pool:
        outputs = pool.map("sift", map(str, itertools.count()), ahead=6)
        for read in range(40):
            assert next(outputs) == str(read).encode()
        assert soon(lambda: len(made) == 45, 20)
        assert soon(lambda: pool.stats.busy == 0, 20)
        outputs.close()  # type: ignore[attr-defined]
    assert sorted(map(int, made)) == list(range(45))


def test_an_output_is_there_while_the_calls_after_it_take_long() -> None:
    with resting(lambda: None, size=2) as pool:
        for inputs in (["a", "s", "s"], ["a"] * 20 + ["s"] * 9):
            outputs = pool.map("rest_or_spin", inputs)
            for _ in range(inputs.count("a")):
                assert next(outputs) == b"a"
            outputs.close()  # type: ignore[attr-defined]
            assert pool.stats[2:4] == (0, 0)


def test_a_map_does_without_threads_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Callable[[], object]] = []
    callers: list[int] = []

    def refuse(work: Callable[..., object], *args: Any) -> None:
        refused.append(partial(work, *args))
        raise RuntimeError("can't start new thread")

    def sift(text: str) -> str:
        callers.append(threading.get_ident())
        return text

    def source() -> Iterator[str]:
        for i in range(50):
            yield str(i)
            for work in refused[:3]:  # as an executor does that finds a thread after all
                InThread(work).result()

    monkeypatch.setattr("plugwasm._pool.map_workers.submit", refuse)
    with sifting(sift, size=2) as pool:
        assert list(pool.map("sift", source())) == [str(i).encode() for i in range(50)]
    assert refused
    assert set(callers) == {threading.get_ident()}


def test_a_map_alone_in_its_pool_finds_a_plugin_free_at_any_time() -> None:
    sleeps = [0.0] * 30 + [0.0001] * 10 + [0.001] * 5

    def sift(text: str) -> str:
        if sleep := sleeps[
            int(text) * 7 % len(sleeps) if int(text) > 500 else int(text) % len(sleeps)
        ]:
            time.sleep(sleep)
        return text

    with sifting(sift, size=3) as pool:
        for workers in (2, 3):
            outputs = list(pool.map("sift", map(str, range(1000)), workers=workers, wait=0))
            assert outputs == [str(i).encode() for i in range(1000)]


def test_no_call_of_a_map_sees_the_context_of_another() -> None:
    from contextvars import ContextVar

    last: ContextVar[str] = ContextVar("last", default="none")

    def sift(text: str) -> str:
        before = last.get()
        last.set(text)
        return before

    with sifting(sift, size=2) as pool:
        assert set(pool.map("sift", map(str, range(100)))) == {b"none"}
    assert last.get() == "none"


def test_the_garbage_collector_may_end_a_map_in_one_of_its_own_threads() -> None:
    is_dropped, collected = threading.Event(), threading.Event()
    reader = threading.get_ident()

    def sift(text: str) -> str:
        if threading.get_ident() != reader and is_dropped.wait(20):
            gc.collect()
            collected.set()
        return text

    with sifting(sift, size=2, limits=None) as pool:
        outputs = pool.map("sift", map(str, itertools.count()))
        cycle: list[Any] = [outputs]
        cycle.append(cycle)
        assert next(outputs) == b"0"
        gc.disable()
        try:
            del outputs, cycle
            is_dropped.set()
            assert collected.wait(20)
        finally:
            gc.enable()
        assert soon(lambda: pool.stats[2:4] == (0, 0), 20)
        assert pool.call("sift", "usable") == b"usable"


def test_a_map_that_was_begun_does_not_keep_python_from_ending() -> None:
    program = """
import itertools
from plugwasm import PluginPool
pool = PluginPool("examples/echo.wasm", functions=[], size=2)
outputs = pool.map("echo", map(str, itertools.count()))
print(next(outputs))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (run.stdout, run.stderr, run.returncode) == ("b'0'\n", "", 0)


# The same in tasks


@both
def test_map_async_yields_outputs_in_order(backend: str) -> None:
    async def sift(text: str) -> str:
        await anyio.sleep(0.001 * (int(text) % 5))
        return text + "!"

    async def texts(count: int) -> AsyncIterator[str]:
        for i in range(count):
            await anyio.sleep(0)
            yield str(i)

    async def main() -> None:
        async with sifting(sift, size=4) as pool:
            for inputs in (texts(30), map(str, range(30)), [str(i) for i in range(30)]):
                for workers in (1, None):
                    if workers == 1 and not isinstance(inputs, list):
                        continue
                    async with pool.map_async("sift", inputs, workers=workers) as outputs:
                        assert [output async for output in outputs] == [
                            f"{i}!".encode() for i in range(30)
                        ]
            assert pool.stats[2:4] == (0, 0)

    in_loop(backend, main)


@both
def test_map_async_takes_a_bounded_number_of_inputs_ahead_and_ends_early(backend: str) -> None:
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for taken in itertools.count(1):
            yield str(taken).encode()

    async def main() -> None:
        async with PluginPool(COUNT, size=3) as pool:
            async with pool.map_async("echo", source(), ahead=5) as outputs:
                for read in range(1, 30):
                    assert await anext(outputs) == str(read).encode()
                    await anyio.sleep(0.002)
                    assert read < taken <= read + 5
            assert pool.stats[2:4] == (0, 0)
            assert [output async for output in outputs] == []

    in_loop(backend, main)


@both
def test_an_output_is_not_held_up_by_inputs_that_are_slow_to_come(backend: str) -> None:
    async def main() -> None:
        more = anyio.Event()

        async def source() -> AsyncIterator[bytes]:
            yield b"1"
            await more.wait()
            yield b"2"

        async with PluginPool(COUNT, size=2) as pool, pool.map_async("echo", source()) as outputs:
            with anyio.fail_after(20):
                assert await anext(outputs) == b"1"
                more.set()
                assert [output async for output in outputs] == [b"2"]

    in_loop(backend, main)


@both
def test_errors_of_map_async(backend: str) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"1"
        raise LookupError("no more")

    async def main() -> None:
        async with PluginPool(COUNT, size=2) as pool:
            read = []
            with pytest.raises(GuestError, match="no x") as caught:  # noqa: PT012
                async with pool.map_async("judge", [b"a", b"x", b"c"]) as outputs:
                    async for output in outputs:
                        read.append(output)
            assert read == [b"a"]
            assert caught.value.__notes__ == ["It was the call for input 1, counted from 0."]
            async with pool.map_async("judge", [b"a", b"x"], return_exceptions=True) as outputs:
                assert [type(output) async for output in outputs] == [bytes, GuestError]
            with pytest.raises(LookupError):  # noqa: PT012
                async with pool.map_async("echo", failing()) as outputs:
                    assert await anext(outputs) == b"1"
                    await anext(outputs)
            with pytest.raises(KeyError):
                async with pool.map_async("spin", [b""] * 4) as outputs:
                    raise KeyError("of the block")
            with pytest.raises(RuntimeError, match="async with"):
                await anext(pool.map_async("echo", [b""]))
            seen: list[Any] = []
            async with pool.map_async(
                "echo", [b"a", b"b"], on_progress=lambda *progress: seen.append(progress)
            ) as outputs:
                async for _ in outputs:
                    pass
            assert seen == [(1, 2), (2, 2)]
            with pytest.raises(RuntimeError, match="again"):
                async with outputs:
                    pass
            assert pool.stats[2:4] == (0, 0)

    in_loop(backend, main)


@both
def test_cancelling_a_map_async_ends_its_guests(backend: str) -> None:
    async def main() -> None:
        async with PluginPool(COUNT, size=2) as pool:
            with anyio.move_on_after(0.1) as scope:
                async with pool.map_async("spin", itertools.repeat(b"")) as outputs:
                    await anext(outputs)
            assert scope.cancelled_caught
            assert pool.stats[2:4] == (0, 0)

    in_loop(backend, main)


@both
def test_async_host_functions_go_on_while_the_reader_of_a_map_is_slow(backend: str) -> None:
    async def sift(text: str) -> str:
        await anyio.sleep(0.01)
        return text

    async def main() -> None:
        async with (
            sifting(sift, size=2, limits=Limits(timeout=2)) as pool,
            pool.map_async("sift", ["1", "2", "3"]) as outputs,
        ):
            assert await anext(outputs) == b"1"
            with anyio.fail_after(20):
                while pool.stats.busy:
                    await anyio.sleep(0.01)
            assert [output async for output in outputs] == [b"2", b"3"]

    in_loop(backend, main)


def test_partial_is_a_factory() -> None:
    with PluginPool(factory=partial(Plugin, COUNT), size=1) as pool:
        assert number(pool.call("count")) == 1


INTERRUPT = """
import os, signal, sys, threading, time, itertools
import plugwasm
from plugwasm import PluginPool
what = sys.argv[1]
pool = PluginPool("examples/echo.wasm", functions=[], size=2)
def interrupt():
    while pool.stats.busy + pool.stats.waiting < wanted:
        time.sleep(0.01)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
for _ in range(3):
    if what == "call":
        wanted, action = 1, lambda: pool.call("spin")
    elif what == "map":
        wanted, action = 2, lambda: list(pool.map("spin", itertools.repeat(b"")))
    else:
        held = [pool.plugin(), pool.plugin()]
        for lease in held:
            lease.__enter__()
        wanted, action = 3, lambda: pool.call("echo")
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        action()
    except KeyboardInterrupt:
        print("interrupted")
    thread.join()
    if what == "wait":
        for lease in held:
            lease.__exit__(None, None, None)
    end = time.monotonic() + 20
    while pool.stats[2:4] != (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    assert pool.stats[2:4] == (0, 0), pool.stats
    assert pool.call("echo", "usable") == b"usable"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("what", ["call", "map", "wait"])
def test_ctrl_c_loses_no_plugin(what: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPT, what],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.stdout.split() == ["interrupted"] * 3, run.stderr
    assert run.returncode == 0, run.stderr


def test_a_plugin_is_not_given_to_a_task_whose_event_loop_has_ended() -> None:
    import asyncio

    with PluginPool(COUNT, size=1, wait=20) as pool:
        loop = asyncio.new_event_loop()
        with pool.plugin():
            task = loop.create_task(pool.call_async("count"))
            loop.run_until_complete(asyncio.sleep(0.05))
            assert pool.stats.waiting == 1
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            loop.close()
        assert pool.stats[2:4] == (0, 0)
        assert number(pool.call("count")) == 1
        del task
        gc.collect()
        assert number(pool.call("count")) == 2


def test_a_pool_loads_nothing_that_only_event_loops_need() -> None:
    program = """
import sys
from plugwasm import PluginPool
with PluginPool("examples/echo.wasm", functions=[], size=1) as pool:
    assert pool.call("echo", "x") == b"x"
print({"anyio", "asyncio", "concurrent", "trio", "inspect"} & set(sys.modules))
"""
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})" + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "set()\n", run.stderr


@pytest.mark.parametrize(
    "events", [("call",), ("return", "c_return")], ids=["as functions begin", "as calls end"]
)
def test_a_plugin_goes_back_to_the_pool_wherever_a_signal_handler_raises(
    events: tuple[str, ...],
) -> None:
    """A profiler is called where signal handlers are: as functions begin, and as calls end."""
    left = 0

    def profile(frame: Any, what: str, argument: object) -> None:
        nonlocal left
        if what in events and {"give_back", "_give_back", "_pass_on", "_settle"} & {
            frame.f_code.co_name,
            caller(frame),
        }:
            left -= 1
            if not left:
                raise KeyboardInterrupt

    def caller(frame: Any) -> str:
        return frame.f_back.f_code.co_name if frame.f_back is not None else ""

    with PluginPool(guest(export("echo", "(call $echo)")), size=2) as pool:
        for count in range(1, 100):
            left = count
            sys.setprofile(profile)
            try:
                pool.call("echo", b"x")
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)
            assert pool.stats.busy == 0, count
            if left > 0:
                break
    assert 3 < count < 99
