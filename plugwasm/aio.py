"""Make plugins in event loops without blocking them.

`Plugin.call_async` calls them. Needs the extra `async`.

    async with await plugwasm.aio.load("count_vowels.wasm") as plugin:
        await plugin.call_async("count_vowels", "Hello, World!")

Making a plugin compiles it, reads files, and may start a process: `PluginPool("x.wasm")` in a task
blocks its event loop meanwhile. For each kind there is a function here that makes it in a thread;
leaving an `async with` block closes it in one. A cancelled task does not wait: what the thread
makes after that is closed.

Everything here works in tasks of asyncio and of trio.

Decisions: docs/decisions.md, 37.3.
"""

from __future__ import annotations

from ._runtime.compiled_plugin import CompiledPlugin
from ._runtime.plugin import Plugin
from ._runtime.threads import default_limiter, run_in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    import anyio

    from ._isolation.plugin import IsolatedPlugin
    from ._plugin_set.plugin_set import PluginSet
    from ._pool.pool import PluginPool
    from ._runtime.argument_types import PluginInput

    T = TypeVar("T")

__all__ = ["compile", "default_limiter", "isolated", "load", "plugin_set", "pool", "run"]


async def load(
    plugin: PluginInput | CompiledPlugin,
    *args: Any,
    limiter: anyio.CapacityLimiter | None = None,
    **options: Any,
) -> Plugin:
    """Return a `Plugin`, made in a thread.

    Args:
        plugin, args, options: As for `Plugin`.
        limiter: As for `Plugin.call_async`.

    Raises:
        Error: As `Plugin`.
    """
    return await run(lambda: Plugin(plugin, *args, **options), limiter=limiter)


async def compile(
    plugin: PluginInput, *args: Any, limiter: anyio.CapacityLimiter | None = None, **options: Any
) -> CompiledPlugin:
    """Return a `CompiledPlugin`, made in a thread, as `load` does.

    Raises:
        Error: As `CompiledPlugin`.
    """
    return await run(lambda: CompiledPlugin(plugin, *args, **options), limiter=limiter)


async def pool(
    plugin: PluginInput | CompiledPlugin | None = None,
    *args: Any,
    limiter: anyio.CapacityLimiter | None = None,
    **options: Any,
) -> PluginPool:
    """Return a `PluginPool`, made in a thread.

    Its plugins are made in the threads of the calls that need them.

    Raises:
        Error: As `PluginPool`.
    """
    from ._pool.pool import PluginPool

    return await run(lambda: PluginPool(plugin, *args, **options), limiter=limiter)


async def plugin_set(
    *args: Any, limiter: anyio.CapacityLimiter | None = None, **options: Any
) -> PluginSet:
    """Return a `PluginSet`, made in a thread, with all of its plugins.

    Reloading a set compiles as well: `await plugwasm.aio.run(plugins.reload)`, or let `watch` do it
    in its own thread.

    Raises:
        Error: As `PluginSet`.
    """
    from ._plugin_set.plugin_set import PluginSet

    return await run(lambda: PluginSet(*args, **options), limiter=limiter)


async def isolated(
    plugin: PluginInput | CompiledPlugin,
    *args: Any,
    limiter: anyio.CapacityLimiter | None = None,
    **options: Any,
) -> IsolatedPlugin:
    """Return an `IsolatedPlugin`, made in a thread, with its process.

    Raises:
        Error: As `IsolatedPlugin`.
    """
    from ._isolation.plugin import IsolatedPlugin

    return await run(lambda: IsolatedPlugin(plugin, *args, **options), limiter=limiter)


async def run(make: Callable[[], T], *, limiter: anyio.CapacityLimiter | None = None) -> T:
    """Return the result of `make`, called in a thread.

    Use it for other things that take time, such as `plugins.reload` or `lambda: pool.bind(Search)`.
    A cancelled task does not wait: what the thread makes after that is closed, if it has a `close`.
    """
    result: T = await run_in_thread(
        lambda _: make(), default_limiter() if limiter is None else limiter, abandon_on_cancel=True
    )
    return result
