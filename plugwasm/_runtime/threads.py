"""Calls in threads, for tasks of asyncio or trio that await them.

Decisions: docs/decisions.md, 22.
"""

from __future__ import annotations

from contextvars import copy_context

from .._host.event_loop import CoroutineQueue, call_waits
from .._host.thread_call import ThreadCall
from .._platform.daemon_threads import submit
from .._platform.native_threads import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import anyio
    from anyio.lowlevel import RunVar

    from .abstract_plugin import AbstractPlugin

THREADS = 40
"""The number of calls that one event loop awaits at a time, by default."""


def require_anyio() -> None:
    """Raise an ImportError if the package `anyio` is not installed."""
    try:
        import anyio.lowlevel  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "asynchronous calls need the package `anyio`: pip install 'plugwasm[async]'"
        ) from error


async def run_in_thread(
    work: Callable[[ThreadCall], Any], limiter: Any = None, *, abandon_on_cancel: bool = False
) -> Any:
    """Run `work` in a thread, and awaits it.

    Args:
        work: Gets the thread_call.
        limiter: Bounds the threads: an `anyio.CapacityLimiter` or a `trio.CapacityLimiter`, or
            None.
        abandon_on_cancel: Whether a task that is cancelled leaves the thread to itself, and closes
            what it makes. If not, the task waits for it.
    """
    require_anyio()
    from anyio.lowlevel import checkpoint

    await checkpoint()  # what was cancelled before it began does not begin
    queue = CoroutineQueue()
    thread_call = ThreadCall(queue, work)
    if limiter is not None and call_waits.get():
        limiter = None
    if limiter is not None:
        try:
            limiter.acquire_on_behalf_of_nowait(thread_call)
        except Exception:  # anyio's WouldBlock, or trio's
            await limiter.acquire_on_behalf_of(thread_call)
    is_held = limiter is not None
    try:
        try:
            job = submit(copy_context().run, thread_call.run)
        except BaseException:
            thread_call.is_abandoned = True
            raise
        try:
            while not thread_call.is_finished:
                await queue.wait()
                await queue.run_coroutines()
        except (
            GeneratorExit
        ):  # the event loop has let go of the task: there is nothing to wait with
            is_held = False
            thread_call.is_abandoned = True
            queue.close()
            job.cancel()
            thread_call.cancel()
            raise
        except BaseException:
            thread_call.is_abandoned = True
            if not job.cancel():
                if not abandon_on_cancel:
                    await queue.wait_finished(lambda: thread_call.is_finished, thread_call.cancel)
                else:
                    job.add_done_callback(lambda _: thread_call.discard_result())
                    if is_held:
                        is_held = False
                        job.add_done_callback(
                            lambda _: queue.call_soon(limiter.release_on_behalf_of, thread_call)
                        )
            raise
    finally:
        if is_held:
            limiter.release_on_behalf_of(thread_call)
    return thread_call.take_result()


async def run_shielded(function: Callable[[], object]) -> None:
    """Run a function in a thread to its end, also in a task that is cancelled."""
    require_anyio()
    import anyio

    has_begun = False

    def work(_: ThreadCall) -> None:
        nonlocal has_begun
        has_begun = True
        function()

    try:
        with anyio.CancelScope(shield=True):
            await run_in_thread(work)
    finally:
        if not has_begun:
            function()  # asyncio's own cancellation, which no scope holds off


async def call_plugin(
    plugin: AbstractPlugin, limiter: Any, function_name: str, *args: Any, **options: Any
) -> Any:
    """Call an export in a thread, with the arguments of `plugin.call`."""

    def work(thread_call: ThreadCall) -> Any:
        thread_call.plugin = plugin
        try:
            return plugin.call(function_name, *args, **options)
        finally:
            thread_call.release_plugin()

    me = object()
    plugin._awaited[me] = get_ident()
    try:
        return await run_in_thread(work, default_limiter() if limiter is None else limiter)
    finally:
        plugin._awaited.pop(me, None)


_limiters: RunVar[anyio.CapacityLimiter] | None = None


def default_limiter() -> anyio.CapacityLimiter:
    """Return the limiter of the current event loop."""
    global _limiters
    require_anyio()
    import anyio
    from anyio.lowlevel import RunVar

    if _limiters is None:
        _limiters = RunVar("plugwasm_threads")
    try:
        return _limiters.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiters.set(limiter)
        return limiter


default_limiter.__module__ = "plugwasm.aio"
