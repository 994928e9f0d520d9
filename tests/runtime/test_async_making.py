"""What `plugwasm.aio` makes, and what an `async with` block closes: never in the thread of the event loop."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import plugwasm
import plugwasm.aio
from plugwasm import CompiledPlugin, IsolatedPlugin, Plugin, PluginPool, PluginSet
from plugwasm._isolation.process import Worker
from tests.support.guests import export, guest

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
ECHO = guest(export("echo", "(call $echo)"))


def in_loop(backend: str, main: Callable[..., Awaitable[Any]]) -> Any:
    return anyio.run(main, backend=backend)  # type: ignore[arg-type]


class Work:
    """In which threads the work was done that takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: dict[str, list[int]] = {}
        for owner, name in (
            (CompiledPlugin, "_link"),
            (CompiledPlugin, "__init__"),
            (Worker, "__init__"),
            (PluginSet, "reload"),
            (Plugin, "close"),
            (IsolatedPlugin, "close"),
            (PluginPool, "close"),
            (PluginSet, "close"),
        ):
            monkeypatch.setattr(
                owner, name, self._noting(f"{owner.__name__}.{name}", getattr(owner, name))
            )

    def _noting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            self.threads.setdefault(name, []).append(threading.get_ident())
            return real(*args, **options)

        return noted

    def elsewhere(self, *names: str) -> None:
        """That this was done, and nothing of it in this thread."""
        assert set(names) <= set(self.threads)
        assert threading.get_ident() not in {
            thread for threads in self.threads.values() for thread in threads
        }
        self.threads.clear()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    yield Work(monkeypatch)


@both
def test_a_plugin_is_made_and_closed_in_a_thread(backend: str, work: Work) -> None:
    async def main() -> None:
        async with await plugwasm.aio.load(ECHO) as plugin:
            work.elsewhere("CompiledPlugin.__init__", "CompiledPlugin._link")
            assert await plugin.call_async("echo", b"1") == b"1"
        work.elsewhere("Plugin.close")

    in_loop(backend, main)


@both
def test_a_compiled_plugin_is_made_in_a_thread_and_so_are_plugins_of_it(
    backend: str, work: Work
) -> None:
    async def main() -> None:
        compiled = await plugwasm.aio.compile(ECHO, name="compiled")
        work.elsewhere("CompiledPlugin._link")
        for _ in range(
            plugwasm._runtime.compiled_plugin.POOL_AFTER + 1
        ):  # the last ones are linked anew, for the engine's pool
            async with await plugwasm.aio.load(compiled) as plugin:
                assert await plugin.call_async("echo", b"1") == b"1"
        work.elsewhere("CompiledPlugin._link", "Plugin.close")

    in_loop(backend, main)


@both
def test_a_pool_is_made_and_closed_in_a_thread_and_its_plugins_in_those_of_the_calls(
    backend: str, work: Work
) -> None:
    async def main() -> None:
        async with await plugwasm.aio.pool(ECHO, size=2, name="pooled") as pool:
            assert (type(pool), pool.size, pool.name) == (PluginPool, 2, "pooled")
            work.elsewhere("CompiledPlugin._link")
            assert await pool.call_async("echo", b"1") == b"1"
            async with pool.plugin() as plugin:
                assert await plugin.call_async("echo", b"2") == b"2"
            async with pool.map_async("echo", [b"3", b"4"]) as outputs:
                assert [output async for output in outputs] == [b"3", b"4"]
        work.elsewhere("PluginPool.close", "Plugin.close")

    in_loop(backend, main)


@both
def test_a_pool_of_processes_is_made_and_closed_in_threads(backend: str, work: Work) -> None:
    async def main() -> None:
        async with await plugwasm.aio.pool(factory=lambda: IsolatedPlugin(ECHO), size=1) as pool:
            assert await pool.call_async("echo", b"1") == b"1"
            work.elsewhere("Worker.__init__")
        work.elsewhere("PluginPool.close", "IsolatedPlugin.close")

    in_loop(backend, main)


@both
@pytest.mark.parametrize("isolated", [False, True])
def test_a_set_is_made_changed_and_closed_in_a_thread(
    backend: str, isolated: bool, work: Work, tmp_path: Path
) -> None:
    (tmp_path / "one.wat").write_text(ECHO)

    async def main() -> None:
        plugins = {"one": str(tmp_path / "one.wat")}
        async with await plugwasm.aio.plugin_set(plugins, isolated=isolated) as plugins_of_it:
            assert type(plugins_of_it) is PluginSet
            work.elsewhere(
                "PluginSet.reload", "Worker.__init__" if isolated else "CompiledPlugin._link"
            )
            assert await plugins_of_it.first_async("echo", b"1") == b"1"
            (tmp_path / "one.wat").write_text(
                guest(export("echo", "(call $echo)") + export("two", "(call $echo)"))
            )
            changes = await plugwasm.aio.run(plugins_of_it.reload)
            assert changes.changed == ("one",)
            assert await plugins_of_it.first_async("two", b"2") == b"2"
        work.elsewhere("PluginSet.close")

    in_loop(backend, main)


@both
def test_an_isolated_plugin_is_made_and_closed_in_a_thread(backend: str, work: Work) -> None:
    async def main() -> None:
        async with await plugwasm.aio.isolated(ECHO, config={"k": "v"}) as plugin:
            assert (type(plugin), plugin.config) == (IsolatedPlugin, {"k": "v"})
            work.elsewhere("Worker.__init__")
            assert await plugin.call_async("echo", b"1") == b"1"
        work.elsewhere("IsolatedPlugin.close")

    in_loop(backend, main)


MAKERS: list[Any] = [
    plugwasm.aio.load,
    plugwasm.aio.compile,
    plugwasm.aio.pool,
    plugwasm.aio.isolated,
]


@both
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_cannot_be_made_raises_as_the_class_does(backend: str, make: Any) -> None:
    async def main() -> None:
        with pytest.raises(plugwasm.SourceError, match="nowhere"):
            await make("nowhere.wasm")

    in_loop(backend, main)


@both
def test_the_event_loop_goes_on_while_a_pool_is_made(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool is not finished before the event loop has gone on: were it made in the loop, that would wait for ever."""
    went_on = threading.Event()
    real = CompiledPlugin._link

    def waiting(self: CompiledPlugin, **options: Any) -> Any:
        assert went_on.wait(20), "the event loop stands still"
        return real(self, **options)

    monkeypatch.setattr(CompiledPlugin, "_link", waiting)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(go_on)
            async with await plugwasm.aio.pool(ECHO, size=1) as pool:
                assert await pool.call_async("echo", b"1") == b"1"

    async def go_on() -> None:
        for _ in range(10):
            await anyio.sleep(0.001)
        went_on.set()

    in_loop(backend, main)


@both
def test_a_pool_that_nobody_waits_for_any_more_is_closed(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, closed = threading.Event(), threading.Event()
    real, real_close = CompiledPlugin._link, PluginPool.close
    monkeypatch.setattr(
        CompiledPlugin,
        "_link",
        lambda self, **options: (released.wait(20), real(self, **options))[1],
    )
    monkeypatch.setattr(PluginPool, "close", lambda self: (real_close(self), closed.set())[0])

    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            await plugwasm.aio.pool(ECHO, size=1)
        assert scope.cancelled_caught
        assert not closed.is_set()

    in_loop(backend, main)
    released.set()
    assert closed.wait(20)


@both
def test_what_is_made_counts_against_the_limit_and_calls_of_pools_do_not(backend: str) -> None:
    seen: list[float] = []

    async def main() -> None:
        limiter = plugwasm.aio.default_limiter()

        def note() -> str:
            seen.append(limiter.borrowed_tokens)
            return ""

        async with await plugwasm.aio.pool(
            guest(export("run", "(call $give (call $f))"), NOTE),
            functions=[plugwasm.host_fn("f")(note)],
        ) as pool:
            await plugwasm.aio.run(note)
            await pool.call_async("run")
            async with pool.plugin() as plugin:
                await plugin.call_async("run")

    in_loop(backend, main)
    assert seen == [1, 0, 1]


NOTE = '(import "extism:host/user" "f" (func $f (result i64)))'
