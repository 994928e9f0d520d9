"""Calls in event loops: which thread runs what, how unwanted calls end, and loading; under
asyncio and trio."""

from __future__ import annotations

import asyncio
import builtins
import gc
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

import anyio
import pytest
import trio

import plugwasm
import plugwasm.aio
from plugwasm import (
    BusyError,
    ClosedError,
    Limits,
    Plugin,
    TimeoutError,
    host_fn,
)
from tests.support.event_loops import both, run_in_loop, wait_until
from tests.support.guests import LOOP, export, guest
from tests.support.host_calls import ASK, make_asking_plugin, make_waiting_plugin
from tests.support.paths import ROOT
from tests.support.waiting import soon

ECHO = guest(
    export("echo", "(call $echo)") + export("spin", LOOP) + export("trap", "(unreachable)")
)


# Calling


@both
def test_call_async_is_like_call(backend: str) -> None:
    """`call_async` takes and returns what `call` does."""

    async def main() -> None:
        async with Plugin(ECHO) as plugin:
            assert await plugin.call_async("echo", "text") == b"text"
            assert await plugin.call_async("echo", b"5", int) == 5
            assert await plugin.call_async("echo", b"[1, 2]", returns=list[int]) == [1, 2]
            view = await plugin.call_async("echo", b"seen", None)
            assert isinstance(view, memoryview)
            assert bytes(view) == b"seen"
        with pytest.raises(ClosedError):
            await plugin.call_async("echo")

    run_in_loop(backend, main)


@both
def test_errors_are_like_call(backend: str) -> None:
    """`call_async` raises the errors that `call` does."""

    async def main() -> None:
        plugin = Plugin(ECHO)
        with pytest.raises(plugwasm.TrapError, match="unreachable"):
            await plugin.call_async("trap")
        with pytest.raises(plugwasm.FunctionNotFoundError):
            await plugin.call_async("missing")
        assert await plugin.call_async("echo", b"goes on") == b"goes on"

    run_in_loop(backend, main)


@both
def test_event_loop_is_not_blocked(backend: str) -> None:
    """The event loop runs other tasks while a guest runs."""

    async def main() -> None:
        plugin, ticks = Plugin(ECHO, limits=Limits(timeout=0.5)), 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            with pytest.raises(TimeoutError):
                await plugin.call_async("spin")
            group.cancel_scope.cancel()
        assert ticks >= 5

    run_in_loop(backend, main)


@both
def test_second_call_waits(backend: str) -> None:
    """A second call of a plugin waits for the first."""

    async def main() -> None:
        plugin, limiter = Plugin(ECHO), anyio.CapacityLimiter(1)
        answers: list[bytes] = []

        async def call(data: bytes) -> None:
            answers.append(await plugin.call_async("echo", data))

        async with anyio.create_task_group() as group:
            group.start_soon(partial(plugin.call_async, "spin", limiter=limiter))
            await wait_until(lambda: not hasattr(plugin, "_idle"))
            with pytest.raises(BusyError, match="event loop"):
                plugin.call("echo")
            with anyio.move_on_after(0.05) as scope:
                await plugin.call_async("echo")
            assert scope.cancelled_caught
            assert not hasattr(plugin, "_idle"), "the first call goes on"
            group.cancel_scope.cancel()
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(call, b"%d" % number)
        assert sorted(answers) == [b"0", b"1", b"2", b"3"]

    run_in_loop(backend, main)


@both
def test_limiter_bounds_calls(backend: str) -> None:
    """A limiter bounds the number of concurrent calls."""
    running, most = 0, 0
    lock = threading.Lock()

    def rest() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def main() -> None:
        limiter: Any = anyio.CapacityLimiter(2) if backend == "asyncio" else trio.CapacityLimiter(2)
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(
                    partial(make_waiting_plugin(rest).call_async, "wait", limiter=limiter)
                )
        assert limiter.borrowed_tokens == 0

    run_in_loop(backend, main)
    assert most == 2


@both
def test_limiter_per_event_loop(backend: str) -> None:
    """Each event loop has its own default limiter."""

    async def main() -> Any:
        limiter = plugwasm.aio.default_limiter()
        assert limiter is plugwasm.aio.default_limiter()
        assert limiter is not anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        assert await Plugin(ECHO).call_async("echo", b"x") == b"x"
        return limiter

    assert run_in_loop(backend, main) is not run_in_loop(backend, main)


def test_guest_stack_on_small_threads() -> None:
    """A guest has enough stack even where threads get small stacks."""
    program = """
import threading, anyio, plugwasm
threading.stack_size(256 * 1024)
async def main():
    return await plugwasm.Plugin("examples/echo.wasm").call_async("echo", "x")
assert anyio.run(main) == b"x"
assert threading.stack_size() == 256 * 1024
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr


def test_missing_anyio() -> None:
    """Without anyio, the error names the extra to install."""
    program = """
import sys
sys.modules["anyio"] = None
import plugwasm
plugin = plugwasm.Plugin("examples/echo.wasm")
for coroutine in (plugin.call_async("echo"), plugin.__aenter__()):
    try:
        coroutine.send(None)
    except ImportError as error:
        print(error)
assert plugin.call("echo", "x") == b"x"
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.count("pip install 'plugwasm[async]'") == 2, run.stderr


# Cancelling


@both
def test_cancelled_task_waits_for_guest(backend: str) -> None:
    """Cancelling a task cancels its guest, and the task waits until the guest has ended."""

    async def main() -> None:
        plugin = Plugin(ECHO)
        for _ in range(3):
            begin = time.monotonic()
            with anyio.move_on_after(0.05) as scope:
                await plugin.call_async("spin")
            assert scope.cancelled_caught
            assert hasattr(plugin, "_idle")
            assert time.monotonic() - begin < 5
            assert plugin.call("echo", b"usable") == b"usable"

    run_in_loop(backend, main)


@both
def test_fail_after_is_a_timeout(backend: str) -> None:
    async def main() -> None:
        with pytest.raises(builtins.TimeoutError):
            with anyio.fail_after(0.05):
                await Plugin(ECHO).call_async("spin")

    run_in_loop(backend, main)


def test_asyncio_timeout_cancels_guest() -> None:
    """`asyncio.timeout` cancels the guest."""

    async def main() -> None:
        plugin = Plugin(ECHO)
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.05):
                await plugin.call_async("spin")
        assert plugin.call("echo", b"usable") == b"usable"
        task = asyncio.current_task()
        assert task
        assert task.cancelling() == 0

    asyncio.run(main())


def test_asyncio_cancel_many_times() -> None:
    """An asyncio task may be cancelled repeatedly."""

    async def main() -> None:
        released, entered = threading.Event(), threading.Event()

        def rest() -> None:
            entered.set()
            assert released.wait(20)

        plugin = make_waiting_plugin(rest)
        task = asyncio.create_task(plugin.call_async("wait"))
        await asyncio.to_thread(entered.wait, 20)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.02)
        assert not task.done()  # a sync host function runs to its end
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert plugin.call("echo", b"usable") == b"usable"

    asyncio.run(main())


@both
def test_sync_host_function_is_finished(backend: str) -> None:
    """A synchronous host function runs to its end, and the cancelled task waits for it."""
    ended = []

    def rest() -> None:
        time.sleep(0.3)
        ended.append(True)

    async def main() -> None:
        plugin = make_waiting_plugin(rest)
        with anyio.move_on_after(0.05) as scope:
            await plugin.call_async("wait")
        assert ended
        assert scope.cancelled_caught
        assert plugin.call("echo", b"usable") == b"usable"

    run_in_loop(backend, main)


@both
def test_cancelled_before_start(backend: str) -> None:
    """A call that is cancelled before it began does not begin."""
    calls = []

    async def main() -> None:
        plugin = make_waiting_plugin(lambda: calls.append(1))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await plugin.call_async("wait")
        limiter = anyio.CapacityLimiter(1)
        await limiter.acquire_on_behalf_of(plugin)
        with anyio.move_on_after(0.02):
            await plugin.call_async("wait", limiter=limiter)
        limiter.release_on_behalf_of(plugin)
        assert not calls
        await plugin.call_async("wait", limiter=limiter)

    run_in_loop(backend, main)
    assert calls == [1]


def test_cancelled_before_first_step() -> None:
    """An asyncio task that is cancelled before its first step makes no call."""
    calls: list[int] = []

    async def main() -> None:
        async def cancelled() -> None:
            task = asyncio.current_task()
            assert task
            task.cancel()
            await make_waiting_plugin(lambda: calls.append(1)).call_async("wait")

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancelled())

    asyncio.run(main())
    assert not calls


@both
def test_cancel_at_any_moment(backend: str) -> None:
    """A cancellation at any moment leaves a usable plugin."""

    async def main() -> None:
        plugin = Plugin(ECHO)
        for step in range(60):
            with anyio.move_on_after(step * 0.0001):
                if step % 3 == 0:
                    plugin.reset()  # so that it may hit the start of an instance
                await plugin.call_async("spin")
            assert hasattr(plugin, "_idle")
        assert await plugin.call_async("echo", b"usable") == b"usable"

    run_in_loop(backend, main)


@both
def test_closing_a_plugin_ends_its_call(backend: str) -> None:
    async def main() -> None:
        plugin, errors = Plugin(ECHO), []

        async def call() -> None:
            try:
                await plugin.call_async("spin")
            except plugwasm.Error as error:
                errors.append(type(error))

        async with anyio.create_task_group() as group, plugin:
            group.start_soon(call)
            await wait_until(lambda: not hasattr(plugin, "_idle"))
        assert errors[0] in (plugwasm.CancelledError, ClosedError)

    run_in_loop(backend, main)


def test_forgotten_task_stops_guest() -> None:
    """A guest is stopped when its event loop drops the task."""
    plugin, loop = Plugin(ECHO), asyncio.new_event_loop()
    task = loop.create_task(plugin.call_async("spin"))
    loop.run_until_complete(asyncio.sleep(0.1))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    del task
    gc.collect()
    assert soon(lambda: hasattr(plugin, "_idle"), 20)


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_ended_event_loop_keeps_no_thread(is_forgotten: bool) -> None:
    """No thread waits for an event loop that has ended."""

    async def answer(data: str) -> str:
        await asyncio.sleep(60)
        return data

    plugin, loop = make_asking_plugin(answer), asyncio.new_event_loop()
    task = loop.create_task(plugin.call_async("ask", "?"))
    loop.run_until_complete(asyncio.sleep(0.1))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert not hasattr(plugin, "_idle")
    kept = [] if is_forgotten else [task]
    del task
    gc.collect()
    assert soon(lambda: hasattr(plugin, "_idle"), 20)
    kept.clear()
    gc.collect()


@both
def test_isolated_plugin(backend: str) -> None:
    """An isolated plugin has the same `call_async`."""

    async def answer(question: str) -> str:
        await anyio.sleep(0.001)
        return question + "!"

    async def main() -> None:
        make = partial(plugwasm.IsolatedPlugin, ASK, functions=[host_fn(name="answer_to")(answer)])
        async with await plugwasm.aio.run(make) as plugin:
            assert await plugin.call_async("ask", "so") == b"so!"
            with anyio.move_on_after(0.3) as scope:
                await plugin.call_async("spin")
            assert scope.cancelled_caught
            assert await plugin.call_async("ask", "again") == b"again!"

    run_in_loop(backend, main)


# Loading


@both
def test_load_and_compile_do_not_block(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading and compiling do not block the event loop."""
    import plugwasm._runtime.compiled_plugin as compiled_module

    threads: list[int] = []
    real = compiled_module.resolve

    def slow(*args: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        time.sleep(0.2)
        return real(*args, **options)

    monkeypatch.setattr(compiled_module, "resolve", slow)

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            async with await plugwasm.aio.load(ECHO, config={"k": "v"}) as plugin:
                assert plugin.config == {"k": "v"}
                assert await plugin.call_async("echo", b"1") == b"1"
            compiled = await plugwasm.aio.compile(ECHO, name="compiled")
            assert Plugin(compiled).name == "compiled"
            group.cancel_scope.cancel()
        assert ticks >= 4
        assert threading.get_ident() not in threads
        assert len(threads) == 2
        with pytest.raises(plugwasm.ManifestError):
            await plugwasm.aio.load({"wasm": []})

    run_in_loop(backend, main)


@both
def test_cancelled_load_is_closed(backend: str) -> None:
    """A cancelled load returns at once, and the plugin is closed when it has been loaded."""
    released, made = threading.Event(), []

    def make() -> Plugin:
        assert released.wait(20)
        made.append(Plugin(ECHO))
        return made[0]

    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)
        with anyio.move_on_after(0.05) as scope:
            await plugwasm.aio.run(make, limiter=limiter)
        assert scope.cancelled_caught
        assert limiter.borrowed_tokens == 1  # the thread still works
        released.set()
        await wait_until(lambda: limiter.borrowed_tokens == 0)
        with pytest.raises(ClosedError):
            made[0].call("echo")

    run_in_loop(backend, main)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_a_forked_child_can_await_calls() -> None:
    program = """
import os, anyio, plugwasm
plugin = plugwasm.Plugin("examples/echo.wasm")
async def main():
    return await plugin.call_async("echo", "x")
assert anyio.run(main) == b"x"
pid = os.fork()
assert anyio.run(main) == b"x"
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@both
@pytest.mark.parametrize("where", ["guest", "coroutine"])
def test_ctrl_c_ends_guest(backend: str, where: str) -> None:
    """Ctrl-C ends the guest and the program."""
    program = """
import os, signal, sys, threading, anyio, plugwasm
backend, where = sys.argv[1:]
@plugwasm.host_fn()
async def greet(who: str) -> str:
    await anyio.sleep(60)
    return who
@plugwasm.host_fn()
def add(a: int, b: int) -> int:
    return a
@plugwasm.host_fn()
def scale(a: float) -> float:
    return a
echo, asking = plugwasm.Plugin("examples/echo.wasm"), plugwasm.Plugin("examples/host_functions.wasm")
async def main():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    await (echo.call_async("spin") if where == "guest" else asking.call_async("greet", "you"))
try:
    anyio.run(main, backend=backend)
except KeyboardInterrupt:
    assert echo.call("echo", "usable") == b"usable"
    print("interrupted")
"""
    begin = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", program, backend, where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.stdout.split() == ["interrupted"], run.stderr
    assert time.monotonic() - begin < 40
