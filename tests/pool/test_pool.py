"""Pools: which caller gets a plugin and when, and the state of returned plugins, in threads and
in event loops."""

from __future__ import annotations

import gc
import itertools
import pickle
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from typing import Any

import anyio
import pytest

import plugwasm
from plugwasm import (
    ClosedError,
    IsolatedPlugin,
    Limits,
    Plugin,
    PluginPool,
    TrapError,
)
from plugwasm.errors import BusyError, PoolTimeoutError
from tests.support.event_loops import both, run_in_loop
from tests.support.guests import export, guest
from tests.support.paths import ROOT
from tests.support.pools import BODY, COUNT
from tests.support.threads import InThread
from tests.support.waiting import soon


def number(output: bytes) -> int:
    return int.from_bytes(output, "little")


# Calls


def test_pool_makes_plugins_on_demand() -> None:
    """A pool calls any free plugin and creates plugins on demand."""
    with PluginPool(COUNT, size=3) as pool:
        assert pool.stats == (3, 0, 0, 0, 0, 0, 0)
        assert [number(pool.call("count")) for _ in range(4)] == [1, 2, 3, 4]
        assert pool.stats == (3, 1, 0, 0, 1, 0, 0)
        assert pool.call("echo", b"7", int) == 7
        assert pool.call("echo", b"[7]", returns=list[int]) == [7]
        with pool.plugin() as one, pool.plugin() as two:
            assert one is not two
            assert pool.stats.busy == 2
        assert (pool.name, pool.size, pool.stats.made) == ("counter", 3, 2)


def test_pool_takes_plugin_arguments() -> None:
    """A pool takes the arguments of a plugin."""
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


def test_view_is_refused() -> None:
    """A view of a plugin that other callers may get is refused."""
    with PluginPool(COUNT, size=1) as pool:
        with pytest.raises(ValueError, match=r"pool\.plugin"):
            pool.call("echo", b"x", None)
        with pytest.raises(ValueError, match="view"):
            pool.map("echo", [], parse=None)
        with pool.plugin() as plugin:
            assert bytes(plugin.call("echo", b"x", None)) == b"x"


def test_busy_timeout_error() -> None:
    """Waiting too long raises an error that is both a timeout and a busy error."""
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


def test_callers_are_served_in_order() -> None:
    """Callers get plugins in the order of their arrival."""
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


def test_threads_share_no_plugin() -> None:
    """Many threads can share a pool, and no two use one plugin at once."""
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


def test_threads_and_tasks_share_queue() -> None:
    """Threads and tasks wait in one queue."""
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


def test_fresh_pool_renews_instance() -> None:
    """A fresh pool has a new instance for each caller."""
    with PluginPool(COUNT, size=2, fresh=True) as pool:
        assert [number(pool.call("count")) for _ in range(3)] == [1, 1, 1]
        with pool.plugin() as plugin:
            plugin.update_config({"k": "v"})
            assert [number(plugin.call("count")) for _ in range(3)] == [1, 2, 3]
        with pool.plugin() as plugin:
            assert plugin.config == {}
        assert pool.stats == (2, 0, 0, 0, 5, 0, 0)


def test_ended_call_keeps_plugin() -> None:
    """A plugin whose call was ended serves the next call."""
    with PluginPool(COUNT, size=1, limits=None) as pool:
        assert number(pool.call("count")) == 1
        with pytest.raises(TrapError):
            pool.call("trap")
        assert number(pool.call("count")) == 1
        assert pool.stats == (1, 1, 0, 0, 1, 0, 0)


def test_closed_plugin_is_replaced() -> None:
    """A plugin that is returned closed is replaced."""
    with PluginPool(COUNT, size=1) as pool:
        with pool.plugin() as plugin:
            plugin.close()
        assert number(pool.call("count")) == 1
        assert pool.stats == (1, 1, 0, 0, 2, 1, 0)


def test_plugin_returned_during_call() -> None:
    """A plugin that is returned during a call is replaced, and the call is ended."""
    with PluginPool(COUNT, size=1) as pool:
        with pool.plugin() as plugin:
            call = InThread(plugin.call, "spin")
            assert soon(lambda: not hasattr(plugin, "_idle"))
        assert pool.call("echo", b"at once") == b"at once"
        assert pool.stats.replaced == 1
        with pytest.raises(plugwasm.Error):
            call.result()


def test_failing_factory_loses_no_place() -> None:
    """A factory that fails loses no place in the pool."""
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
        assert pool.stats == (1, 1, 0, 0, 1, 0, 0)


def test_isolated_fresh_pool_resets() -> None:
    """A fresh pool of isolated plugins resets them."""
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


def test_close_ends_calls_and_waiting() -> None:
    """Closing a pool ends its calls and raises an error for waiting callers."""
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
    assert pool.stats == (1, 0, 0, 0, 1, 0, 0)
    assert "closed" in repr(pool)


def test_close_while_plugin_is_held() -> None:
    """A plugin that is leased while the pool is closed is closed too."""
    pool = PluginPool(COUNT, size=1)
    with pool.plugin() as plugin:
        pool.close()
        with pytest.raises(ClosedError):
            plugin.call("count")


def test_dropped_pool_frees_plugins() -> None:
    """A dropped pool frees its plugins."""
    pool = PluginPool(COUNT, size=2)
    with pool.plugin() as plugin:
        plugin.call("count")
    reference = weakref.ref(plugin)
    del plugin, pool
    gc.collect()
    assert reference() is None


def test_pool_cannot_be_pickled() -> None:
    """A pool cannot be pickled, and the error says so."""
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
half = plugwasm.PluginPool("examples/echo.wasm", functions=[], size=2)
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
def test_forked_child_and_parent() -> None:
    """A forked child and its parent can both use the pool."""
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

    run_in_loop(backend, main)


@both
def test_task_waits_until_timeout(backend: str) -> None:
    """A task waits for a plugin up to its timeout."""

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

    run_in_loop(backend, main)


@both
def test_cancelled_task_returns_plugin(backend: str) -> None:
    """A cancelled task returns its plugin."""

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

    run_in_loop(backend, main)


@both
def test_cancel_spares_next_caller(backend: str) -> None:
    """Cancelling one caller does not affect the next.

    The plugin of a cancelled call goes to the next caller at once, whose call must not be cancelled
    instead.
    """

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

    run_in_loop(backend, main)


@both
def test_a_fresh_pool_of_tasks(backend: str) -> None:
    async def main() -> None:
        async with PluginPool(COUNT, size=2, fresh=True) as pool:
            assert [number(await pool.call_async("count")) for _ in range(3)] == [1, 1, 1]
            async with pool.plugin() as plugin:
                assert [number(await plugin.call_async("count")) for _ in range(2)] == [1, 2]
            async with pool.plugin() as plugin:
                assert number(await plugin.call_async("count")) == 1

    run_in_loop(backend, main)


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


def test_ended_event_loop_gets_no_plugin() -> None:
    """A plugin is not given to a task whose event loop has ended."""
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


def test_lazy_imports() -> None:
    """A pool imports nothing that only event loops need."""
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
def test_plugin_returns_if_handler_raises(events: tuple[str, ...]) -> None:
    """A plugin returns to the pool wherever a signal handler raises.

    A profiler is called where signal handlers are: as functions begin, and as calls end.
    """
    left = 0

    def profile(frame: Any, what: str, argument: object) -> None:
        nonlocal left
        if what in events and {"release", "_give_back", "_pass_on", "_restore"} & {
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
