"""Exceptions of a host function's coroutine are errors of the host function, even if they look
like a cancellation of the task that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio

from plugwasm import HostFunctionError, PluginPool, PluginSet, host_fn
from tests.support.event_loops import both, run_in_loop
from tests.support.host_calls import make_asking_plugin, make_waiting_plugin


def requests() -> int:
    """Return how often the current task was asked to cancel."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def _awaits_a_cancelled_future() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def _awaits_a_future_that_is_cancelled_later() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_later(0.01, future.cancel)
    await future


async def _awaits_a_cancelled_task() -> None:
    task = asyncio.ensure_future(asyncio.sleep(10))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def _raises_one() -> None:
    raise asyncio.CancelledError("by hand")


CANCELLED = [
    _awaits_a_cancelled_future,
    _awaits_a_future_that_is_cancelled_later,
    _awaits_a_cancelled_task,
    _raises_one,
]


@pytest.mark.parametrize("rest", CANCELLED)
def test_foreign_cancellation_is_host_error(rest: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Awaiting something that someone else cancelled is an error of the host function."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with make_waiting_plugin(rest) as plugin:
            for _ in range(2):
                with pytest.raises(HostFunctionError) as caught:
                    await plugin.call_async("wait")
                assert isinstance(caught.value.__cause__, asyncio.CancelledError)
                assert task.cancelling() == 0
            await asyncio.sleep(0.01)  # the task goes on as any other
            assert await plugin.call_async("echo", b"still there") == b"still there"

    task_result = asyncio.run(_in_a_task(main))
    assert task_result == "ended"


async def _in_a_task(main: Callable[[], Coroutine[Any, Any, None]]) -> str:
    task = asyncio.ensure_future(main())
    await asyncio.wait([task])
    assert not task.cancelled()
    task.result()
    return "ended"


def test_foreign_after_refused_cancellation() -> None:
    """Awaiting something that someone else cancelled is a host function error also after the task
    refused a cancellation.

    `cancelling` stays at 1 there, which must not be taken for a cancellation of the call.
    """

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert task.cancelling() == 1
        with (
            make_waiting_plugin(_awaits_a_cancelled_future) as plugin,
            pytest.raises(HostFunctionError),
        ):
            await plugin.call_async("wait")
        assert task.cancelling() == 1

    assert asyncio.run(_in_a_task(main)) == "ended"


@pytest.mark.parametrize("how", ["task", "scope", "timeout"])
def test_task_cancelled_in_coroutine(how: str) -> None:
    """A task that is cancelled while the coroutine runs ends as cancelled."""
    began = asyncio.Event()

    async def rest() -> None:
        began.set()
        await asyncio.sleep(10)

    async def call() -> None:
        with make_waiting_plugin(rest) as plugin:
            await plugin.call_async("wait")

    async def main() -> None:
        if how == "task":
            task = asyncio.ensure_future(call())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert task.cancelling() == 1
        elif how == "scope":
            with anyio.move_on_after(0.05) as scope:
                await call()
            assert scope.cancelled_caught
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await call()
        assert requests() == 0

    asyncio.run(main())


def test_stopped_coroutine_awaits_cancelled() -> None:
    """A coroutine stopped by its call's deadline may then await something cancelled.

    The deadline cancels the coroutine alone; what that raises afterwards must not reach the task.
    """
    from plugwasm import Limits, TimeoutError

    async def rest() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await _awaits_a_cancelled_future()

    async def main() -> None:
        with (
            make_waiting_plugin(rest, limits=Limits(timeout=0.1)) as plugin,
            pytest.raises(TimeoutError),
        ):
            await plugin.call_async("wait")
        assert requests() == 0
        await asyncio.sleep(0.01)

    assert asyncio.run(_in_a_task(main)) == "ended"


@both
@pytest.mark.parametrize("kind", [GeneratorExit, SystemExit, asyncio.CancelledError])
def test_coroutine_exception_is_cause(backend: str, kind: type[BaseException]) -> None:
    """An exception that the coroutine raises is the cause of a host function error."""

    async def rest() -> None:
        await anyio.lowlevel.checkpoint()
        raise kind("by hand")

    async def main() -> None:
        with make_waiting_plugin(rest) as plugin:
            with pytest.raises(HostFunctionError) as caught:
                await plugin.call_async("wait")
            assert type(caught.value.__cause__) is kind
            await anyio.sleep(0.01)
            assert await plugin.call_async("echo", b"still there") == b"still there"

    run_in_loop(backend, main)


def test_trio_ended_scope_is_host_error() -> None:
    """Trio's own cancellation of a scope that has ended is an error of the host function."""

    async def rest() -> None:
        kept: BaseException | None = None
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as error:
                kept = error
                raise
        assert kept is not None
        raise kept

    async def main() -> None:
        with make_waiting_plugin(rest) as plugin:
            with pytest.raises(HostFunctionError) as caught:
                await plugin.call_async("wait")
            assert isinstance(caught.value.__cause__, trio.Cancelled)
            await trio.sleep(0.01)

    trio.run(main)


def test_foreign_in_pool_and_set() -> None:
    """In pools and plugin sets too, a foreign cancellation is an error of the host function."""

    async def answer(text: str) -> str:
        await _awaits_a_cancelled_future()
        return text

    async def main() -> None:
        with make_asking_plugin(answer) as plugin:
            compiled = plugin.compiled_plugin
        with PluginPool(compiled, size=1) as pool:
            with pytest.raises(HostFunctionError):
                await pool.call_async("ask", "x")
            async with pool.map_async("ask", ["a", "b"], return_exceptions=True) as outputs:
                assert [type(output) async for output in outputs] == [HostFunctionError] * 2
        with PluginSet({"one": compiled}) as plugins:
            (result,) = await plugins.all_async("ask", "x")
            assert isinstance(result.error, HostFunctionError)
            assert isinstance(result.error.__cause__, asyncio.CancelledError)

    assert asyncio.run(_in_a_task(main)) == "ended"


def test_foreign_in_sync_host_function() -> None:
    """A synchronous host function may raise such exceptions too."""
    from plugwasm import Plugin
    from tests.support.guests import export, guest

    wasm = guest(export("wait", "(call $rest)"), '(import "extism:host/user" "rest" (func $rest))')
    for kind in (asyncio.CancelledError, GeneratorExit):

        def rest(kind: type[BaseException] = kind) -> None:
            raise kind

        function = host_fn(name="rest", signature=([], []))(
            lambda plugin, inputs, outputs, rest=rest: rest()
        )
        with (
            Plugin(wasm, functions=[function]) as plugin,
            pytest.raises(HostFunctionError) as caught,
        ):
            plugin.call("wait")
        assert type(caught.value.__cause__) is kind
