"""Plugins in event loops: making them without blocking one. Calling them is `Plugin.call_async`. Needs the extra `async`.

    async with await plugwasm.aio.load("count_vowels.wasm") as plugin:
        await plugin.call_async("count_vowels", "Hello, World!")

Everything here works in tasks of asyncio and of trio.
"""

from __future__ import annotations

from ._awaiting import cross, default_limiter
from .compiled import CompiledPlugin
from .plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    import anyio

    from .compiled import PluginInput

    T = TypeVar("T")

__all__ = ["compile", "default_limiter", "load", "run"]


async def load(plugin: PluginInput | CompiledPlugin, *args: Any, limiter: anyio.CapacityLimiter | None = None, **options: Any) -> Plugin:
    """A `Plugin`, made in a thread.

    A task that is cancelled does not wait: what the thread makes then is closed.

    Args:
        plugin, args, options: As for `Plugin`.
        limiter: As for `Plugin.call_async`.

    Raises:
        Error: As `Plugin`.
    """
    return await run(lambda: Plugin(plugin, *args, **options), limiter=limiter)


async def compile(plugin: PluginInput, *args: Any, limiter: anyio.CapacityLimiter | None = None, **options: Any) -> CompiledPlugin:
    """A `CompiledPlugin`, made in a thread, as `load` does.

    Raises:
        Error: As `CompiledPlugin`.
    """
    return await run(lambda: CompiledPlugin(plugin, *args, **options), limiter=limiter)


async def run(make: Callable[[], T], *, limiter: anyio.CapacityLimiter | None = None) -> T:
    """What `make` makes, in a thread, e.g. an `IsolatedPlugin` or a `PluginPool`.

    A task that is cancelled does not wait: what the thread makes then is closed, if it has a `close`.
    """
    result: T = await cross(lambda _: make(), default_limiter() if limiter is None else limiter, patient=False)
    return result
