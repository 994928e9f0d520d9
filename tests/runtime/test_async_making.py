"""`plugwasm.aio` creates things, and `async with` closes them, never in the event loop's thread."""

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
    return anyio.run(main, backend=backend)


class Work:
    """The threads in which slow work was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: dict[str, list[int]] = {}
        for owner, name in (
            (CompiledPlugin, "_link"),
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
        """Check that this work was done, and none of it in the current thread."""
        assert set(names) <= set(self.threads)
        assert threading.get_ident() not in {
            thread for threads in self.threads.values() for thread in threads
        }
        self.threads.clear()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    yield Work(monkeypatch)


@both
def test_plugin(backend: str, work: Work) -> None:
    """A plugin is created and closed in a thread."""

    async def main() -> None:
        async with await plugwasm.aio.load(ECHO) as plugin:
            work.elsewhere("CompiledPlugin._link")
            assert await plugin.call_async("echo", b"1") == b"1"
        work.elsewhere("Plugin.close")

    in_loop(backend, main)


@both
def test_compiled_plugin(backend: str, work: Work) -> None:
    """A compiled plugin and its plugins are created in a thread."""

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
def test_pool(backend: str, work: Work) -> None:
    """A pool is created and closed in a thread, and its plugins in the threads of the calls."""

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
def test_pool_of_processes(backend: str, work: Work) -> None:
    """A pool of processes is created and closed in threads."""

    async def main() -> None:
        async with await plugwasm.aio.pool(factory=lambda: IsolatedPlugin(ECHO), size=1) as pool:
            assert await pool.call_async("echo", b"1") == b"1"
            work.elsewhere("Worker.__init__")
        work.elsewhere("PluginPool.close", "IsolatedPlugin.close")

    in_loop(backend, main)


@both
@pytest.mark.parametrize("isolated", [False, True])
def test_plugin_set(backend: str, isolated: bool, work: Work, tmp_path: Path) -> None:
    """A plugin set is created, changed and closed in a thread."""
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
def test_isolated_plugin(backend: str, work: Work) -> None:
    """An isolated plugin is created and closed in a thread."""

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
def test_errors_are_those_of_class(backend: str, make: Any) -> None:
    """A failed creation raises the error that the class raises."""

    async def main() -> None:
        with pytest.raises(plugwasm.SourceError, match="nowhere"):
            await make("nowhere.wasm")

    in_loop(backend, main)


@both
def test_event_loop_is_not_blocked(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop runs other tasks while a pool is created.

    Creating the pool finishes only after the event loop has run another task: if the loop's thread
    did it, it would wait forever.
    """
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
def test_abandoned_pool_is_closed(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool whose creation was cancelled is closed."""
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
def test_limiter_counts_creation(backend: str) -> None:
    """The limiter counts creations, and not the calls of pools."""
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
