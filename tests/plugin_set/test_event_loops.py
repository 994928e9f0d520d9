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
from tests.support.event_loops import both, run_in_loop, wait_until
from tests.support.guests import LOOP, export, guest
from tests.support.plugin_sets import (
    ASKED,
    ENTRY,
    QUESTIONS,
    HeldCalls,
    call_outcome,
    description_of,
    enter_functions,
    function,
    outcome,
    text_plugin,
    waiting_text_plugin,
    write_file,
)

SPINS = guest(export("hook", LOOP))


@both
def test_a_task_gets_what_a_thread_gets(backend: str) -> None:
    with PluginSet(ASKED) as plugins:

        async def main() -> None:
            for method, args, options in QUESTIONS:
                expected = call_outcome(plugins, method, args, options)
                try:
                    found = outcome(await getattr(plugins, f"{method}_async")(*args, **options))
                except Exception as error:
                    found = outcome(error)
                assert found == expected, (method, args, options)

        run_in_loop(backend, main)
    with pytest.raises(ClosedError):
        run_in_loop(backend, lambda: plugins.first_async("hook"))


@both
def test_event_loop_is_not_blocked(backend: str, doors: HeldCalls) -> None:
    """The event loop runs other tasks while plugins run."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def ask() -> None:
                results.append(await plugins.all_async("hook"))

            for _ in range(3):
                tasks.start_soon(ask)
            await wait_until(lambda: doors.inside == 3)
            doors.go.set()
        assert [result.get() for one in results for result in one] == [b"a", b"b"] * 3

    with PluginSet(
        {"a": waiting_text_plugin("a"), "b": text_plugin("b")}, functions=enter_functions(doors)
    ) as plugins:
        run_in_loop(backend, main)


@both
def test_async_host_functions(backend: str) -> None:
    """Async host functions run in the task, also those that call the set again."""
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

    with PluginSet({"a": waiting_text_plugin("a")}, functions=[function(enter)]) as plugins:
        run_in_loop(backend, main)
        assert depth == [0, 1, 2]
        with pytest.raises(HostFunctionError):
            plugins.first("hook", stop_on_error=True)


@both
@pytest.mark.parametrize("isolated", [False, True])
def test_cancelled_task_cancels_plugin(
    backend: str, isolated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancelling a task cancels the running plugin, and no other is called."""
    entered: list[int] = []
    plugin = guest(export("hook", f"(call $enter) {LOOP}"), ENTRY)

    async def main() -> None:
        for method in ("first", "all", "chain"):
            entered.clear()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(getattr(plugins, f"{method}_async"), "hook")
                await wait_until(lambda: entered)
                before = time.monotonic()
                tasks.cancel_scope.cancel()
            assert time.monotonic() - before < 20
            assert entered == [1]

    with PluginSet(
        [plugin, plugin], functions=[function(lambda: entered.append(1))], isolated=isolated
    ) as plugins:
        run_in_loop(backend, main)
        assert [description.last_failure for description in plugins.describe()] == [None, None]
    assert not caplog.records


@both
def test_cancelled_in_host_coroutine(
    backend: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task cancelled in a host function's coroutine calls no other plugin."""
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
            await wait_until(lambda: entered)
            tasks.cancel_scope.cancel()
        assert entered == [1]

    with PluginSet(
        {"a": waiting_text_plugin("a"), "b": waiting_text_plugin("b")}, functions=[function(enter)]
    ) as plugins:
        run_in_loop(backend, main)
        assert [description.last_failure for description in plugins.describe()] == [None, None]
    assert not caplog.records


@both
def test_cancelled_between_plugins(backend: str) -> None:
    """A task cancelled between two plugins calls no other."""
    parsing, go = threading.Event(), threading.Event()
    entered: list[int] = []

    def parse(output: bytes) -> bytes:
        parsing.set()
        assert go.wait(30)
        return output

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(plugins.all_async, "hook", parse=parse))
            await wait_until(parsing.is_set)
            tasks.cancel_scope.cancel()
            threading.Timer(0.2, go.set).start()

    with PluginSet(
        {"a": text_plugin("a"), "b": waiting_text_plugin("b")},
        functions=[function(lambda: entered.append(1))],
    ) as plugins:
        run_in_loop(backend, main)
        assert not entered
        assert plugins.call("b", "hook") == b"b"


@both
def test_host_raises_cancelled_error(backend: str) -> None:
    """A CancelledError raised by a host function itself is the plugin's error, as in a thread."""

    async def enter() -> None:
        raise CancelledError("of something else")

    async def main() -> None:
        failed, b = await plugins.all_async("hook")
        assert failed.error is not None
        assert b.get() == b"b"

    with PluginSet(
        {"a": waiting_text_plugin("a"), "b": text_plugin("b")}, functions=[function(enter)]
    ) as plugins:
        run_in_loop(backend, main)
        assert description_of(plugins, "a").last_failure


@both
def test_timed_out_plugin_is_skipped(backend: str) -> None:
    """A plugin that times out is skipped."""
    with PluginSet({"spins": SPINS, "a": text_plugin("a")}, limits=Limits(timeout=0.05)) as plugins:
        assert run_in_loop(backend, lambda: plugins.first_async("hook")) == b"a"
        assert "time" in str(description_of(plugins, "spins").last_failure)


@both
def test_load_and_reload_in_threads(backend: str, tmp_path: Path) -> None:
    """In an event loop, loading and reloading run in threads."""
    write_file(tmp_path / "a.wasm", text_plugin("old"))

    async def main() -> PluginSet:
        async with await plugwasm.aio.run(lambda: PluginSet.from_directory(tmp_path)) as plugins:
            assert await plugins.first_async("hook") == b"old"
            write_file(tmp_path / "a.wasm", text_plugin("newer"))
            assert (await plugwasm.aio.run(plugins.reload)).changed == ("a",)
            assert await plugins.first_async("hook") == b"newer"
        return plugins

    with pytest.raises(ClosedError):
        run_in_loop(backend, main).first("hook")
