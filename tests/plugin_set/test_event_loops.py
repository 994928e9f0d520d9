"""Sets of plugins in event loops."""

from __future__ import annotations

import contextvars
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import plugwasm
import plugwasm.aio
from plugwasm import Limits
from plugwasm._host.event_loop import CoroutineRequest
from plugwasm.errors import (
    CancelledError,
    ClosedError,
    HostFunctionError,
)
from plugwasm.plugin_set import PluginSet
from tests.support.event_loops import both, in_loop, until
from tests.support.guests import LOOP, export, guest
from tests.support.plugin_sets import (
    ASKED,
    ENTRY,
    QUESTIONS,
    Doors,
    asked,
    described,
    function,
    functions_of,
    outcome,
    put,
    says,
    waits_then_says,
)

SPINS = guest(export("hook", LOOP))


@both
def test_a_task_gets_what_a_thread_gets(backend: str) -> None:
    with PluginSet(ASKED) as plugins:

        async def main() -> None:
            for method, args, options in QUESTIONS:
                expected = asked(plugins, method, args, options)
                try:
                    found = outcome(await getattr(plugins, f"{method}_async")(*args, **options))
                except Exception as error:
                    found = outcome(error)
                assert found == expected, (method, args, options)

        in_loop(backend, main)
    with pytest.raises(ClosedError):
        in_loop(backend, lambda: plugins.first_async("hook"))


@both
def test_event_loop_is_not_blocked(backend: str, doors: Doors) -> None:
    """The event loop goes on while plugins run."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def ask() -> None:
                results.append(await plugins.all_async("hook"))

            for _ in range(3):
                tasks.start_soon(ask)
            await until(lambda: doors.inside == 3)
            doors.go.set()
        assert [result.get() for one in results for result in one] == [b"a", b"b"] * 3

    with PluginSet(
        {"a": waits_then_says("a"), "b": says("b")}, functions=functions_of(doors)
    ) as plugins:
        in_loop(backend, main)


@both
def test_async_host_functions(backend: str) -> None:
    """Host functions that are async run in the task, also those that ask the set again."""
    variable = contextvars.ContextVar("variable", default=0)
    depth: list[int] = []

    async def enter() -> None:
        depth.append(variable.get())
        await anyio.sleep(0)
        if len(depth) < 3:
            variable.set(variable.get() + 1)
            assert await plugins.first_async("hook", limiter=limiter) == b"a"

    limiter: Any = None

    async def main() -> None:
        nonlocal limiter
        limiter = anyio.CapacityLimiter(1)
        assert await plugins.first_async("hook", limiter=limiter) == b"a"
        assert variable.get() == 2

    with PluginSet({"a": waits_then_says("a")}, functions=[function(enter)]) as plugins:
        in_loop(backend, main)
        assert depth == [0, 1, 2]
        with pytest.raises(HostFunctionError):
            plugins.first("hook", stop_on_error=True)


@both
@pytest.mark.parametrize("isolated", [False, True])
def test_cancelled_task_cancels_plugin(
    backend: str, isolated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that is cancelled cancels the plugin that runs and no other is asked."""
    entered: list[int] = []
    plugin = guest(export("hook", f"(call $enter) {LOOP}"), ENTRY)

    async def main() -> None:
        for method in ("first", "all", "chain"):
            entered.clear()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(getattr(plugins, f"{method}_async"), "hook")
                await until(lambda: entered)
                before = time.monotonic()
                tasks.cancel_scope.cancel()
            assert time.monotonic() - before < 20
            assert entered == [1]

    with PluginSet(
        [plugin, plugin], functions=[function(lambda: entered.append(1))], isolated=isolated
    ) as plugins:
        in_loop(backend, main)
        assert [description.last_failure for description in plugins.describe()] == [None, None]
    assert not caplog.records


@both
def test_cancelled_in_host_coroutine(
    backend: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cancelled in a coroutine of a host function asks no other plugin."""
    entered: list[int] = []
    answer = CoroutineRequest._answer

    def answer_early(self: CoroutineRequest, *outcome: Any) -> None:
        answer(self, *outcome)
        time.sleep(0.02)

    monkeypatch.setattr(
        CoroutineRequest, "_answer", answer_early
    )  # so that the thread hears of it before the task has ended

    async def enter() -> None:
        entered.append(1)
        await anyio.sleep(60)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(plugins.all_async, "hook")
            await until(lambda: entered)
            tasks.cancel_scope.cancel()
        assert entered == [1]

    with PluginSet(
        {"a": waits_then_says("a"), "b": waits_then_says("b")}, functions=[function(enter)]
    ) as plugins:
        in_loop(backend, main)
        assert [description.last_failure for description in plugins.describe()] == [None, None]
    assert not caplog.records


@both
def test_cancelled_between_plugins(backend: str) -> None:
    """A task that is cancelled between two plugins asks no other."""
    parsing, go = threading.Event(), threading.Event()
    entered: list[int] = []

    def parse(output: bytes) -> bytes:
        parsing.set()
        assert go.wait(30)
        return output

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(plugins.all_async, "hook", parse=parse))
            await until(parsing.is_set)
            tasks.cancel_scope.cancel()
            threading.Timer(0.2, go.set).start()

    with PluginSet(
        {"a": says("a"), "b": waits_then_says("b")}, functions=[function(lambda: entered.append(1))]
    ) as plugins:
        in_loop(backend, main)
        assert not entered
        assert plugins.call("b", "hook") == b"b"


@both
def test_host_raises_cancelled_error(backend: str) -> None:
    """A cancelled error that a host function raises itself is the plugin's, as in a thread."""

    async def enter() -> None:
        raise CancelledError("of something else")

    async def main() -> None:
        failed, b = await plugins.all_async("hook")
        assert failed.error is not None
        assert b.get() == b"b"

    with PluginSet(
        {"a": waits_then_says("a"), "b": says("b")}, functions=[function(enter)]
    ) as plugins:
        in_loop(backend, main)
        assert described(plugins, "a").last_failure


@both
def test_timed_out_plugin_is_skipped(backend: str) -> None:
    """A plugin whose time is up is passed over."""
    with PluginSet({"spins": SPINS, "a": says("a")}, limits=Limits(timeout=0.05)) as plugins:
        assert in_loop(backend, lambda: plugins.first_async("hook")) == b"a"
        assert "time" in str(described(plugins, "spins").last_failure)


@both
def test_load_and_reload_in_threads(backend: str, tmp_path: Path) -> None:
    """An event loop loads and reloads in threads."""
    put(tmp_path / "a.wasm", says("old"))

    async def main() -> PluginSet:
        async with await plugwasm.aio.run(lambda: PluginSet.from_directory(tmp_path)) as plugins:
            assert await plugins.first_async("hook") == b"old"
            put(tmp_path / "a.wasm", says("newer"))
            assert (await plugwasm.aio.run(plugins.reload)).changed == ("a",)
            assert await plugins.first_async("hook") == b"newer"
        return plugins

    with pytest.raises(ClosedError):
        in_loop(backend, main).first("hook")
