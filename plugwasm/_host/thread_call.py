"""Calls that a task awaits while they run in a thread.

Host functions that are `async def` run in the task (`event_loop`). Operations that enter the guest
meanwhile are run by the thread, which has nothing else to do.

    task     submits the call · waits · runs a coroutine · waits · …            · returns
    thread             runs the guest · waits for the answer · runs the guest · …   · ends

Decisions: docs/decisions.md, 22.
"""

from __future__ import annotations

import sys
import weakref
from _queue import Empty, SimpleQueue
from contextvars import ContextVar

from .._platform.native_threads import get_ident
from ..errors import CancelledError, TimeoutError
from .current_plugin import CurrentPlugin
from .event_loop import CoroutineRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    from .current_plugin import Memory
    from .event_loop import CoroutineQueue
    from .guest import Guest
    from .wasm_values import Val

    class RunningPlugin(Protocol):
        """A plugin that a call may be made of: what cancels such a call, and the guest that it runs
        in.
        """

        @property
        def _guest(self) -> Guest | None: ...

        def _cancel(self, thread: int | None = ..., /) -> bool: ...


POLL_INTERVAL = 0.05
"""Seconds between two checks of the call's deadline by its thread while a coroutine runs."""


class ThreadCall:
    """Work that runs in a thread for a task.

    Attributes:
        plugin: The plugin that it calls; set by `work` before the call.
    """

    def __init__(self, queue: CoroutineQueue, work: Callable[[ThreadCall], Any]) -> None:
        self.plugin: RunningPlugin | None = None
        self.is_abandoned = False
        self.is_finished = False
        self.result: Any = None
        self.error: BaseException | None = None
        # The thread must not keep the queue's task alive after the event loop has dropped it.
        self._queue = weakref.ref(queue)
        self._work = work
        self._thread = 0

    def run(self) -> None:
        """Do the work. Runs in the thread."""
        try:
            if self.is_abandoned:
                return
            self._thread = get_ident()
            _thread_call.set(self)
            if "sniffio" in sys.modules:
                sys.modules["sniffio"].current_async_library_cvar.set(None)
            self.result = self._work(self)
        except BaseException as error:
            self.error = error
        finally:
            self._thread = 0
            self.is_finished = True
            queue = self._queue()
            if queue is not None:
                queue.wake()

    def cancel(self) -> bool:
        """Cancel the call that the thread makes.

        Another thread may call the same plugin just before `release_plugin`; that call continues.
        There is no lock: which call is cancelled does not depend on what happens meanwhile (see
        `Plugin._cancel`).
        """
        plugin = self.plugin
        return plugin is not None and plugin._cancel(self._thread)

    def release_plugin(self) -> None:
        """Note that the plugin is not called any more, and others may have it."""
        self.plugin = None

    def take_result(self) -> Any:
        """Return the result, or raise what the work raised."""
        result, error = self.result, self.error
        self.result = self.error = None
        try:
            if error is not None:
                raise error
            return result
        finally:
            del error

    def discard_result(self) -> None:
        """Close a result that no one takes."""
        made, self.result = self.result, None
        if hasattr(made, "close"):
            made.close()

    def is_here(self) -> bool:
        """Return whether this is its thread."""
        return self._thread == get_ident()

    def run_coroutine(
        self, f: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]
    ) -> Any:
        """Have the task run a coroutine, and return its result. When the call's time is up, the
        coroutine is cancelled.
        """
        answers: SimpleQueue[Any] = SimpleQueue()
        self._request(f, args, answers)
        ended: BaseException | None = None
        error: Any = None
        try:
            while True:
                try:
                    box, result, error = answers.get(timeout=POLL_INTERVAL)
                except Empty:
                    ended = ended or self._ended()
                    self._check_loop(ended)
                    continue
                if box is None:
                    break
                box.put(_call_safely(result, error))
            if ended is not None or error is not None:
                raise ended or error
            return result
        finally:
            ended = error = None

    def _request(
        self,
        f: Callable[..., Coroutine[Any, Any, Any]],
        args: tuple[Any, ...],
        answers: SimpleQueue[Any],
    ) -> None:
        queue = self._queue()
        if queue is None or queue.is_closed:
            raise CancelledError("the task that awaits the call was cancelled")
        remote = None
        if args and type(args[0]) is CurrentPlugin:
            remote = _ForwardingPlugin(args[0])
            args = (remote, *args[1:])
        within = context_factory.get()
        request = CoroutineRequest(
            f(*args) if within is None else _run_in_context(within, f, args), answers
        )
        if remote is not None:
            remote.request = request
        queue.requests.append(request)
        if queue.is_closed:
            queue.close()
        queue.wake()

    def _ended(self) -> BaseException | None:
        """Return what has ended the call while a coroutine runs, or None."""
        guest = self.plugin._guest if self.plugin is not None else None
        try:
            if guest is not None:
                guest.remaining()
        except (CancelledError, TimeoutError) as reason:
            return reason
        return None

    def _check_loop(self, ended: BaseException | None) -> None:
        """Cancel the coroutine if the call has ended. Raise if no event loop is left that could run
        it.
        """
        queue = self._queue()
        if queue is None or not queue.call_soon(queue.stop if ended else _do_nothing):
            raise CancelledError("the event loop that awaits the call has ended")


async def _run_in_context(
    within: Callable[[], AbstractContextManager[object]],
    f: Callable[..., Any],
    args: tuple[Any, ...],
) -> Any:
    with within():
        return await f(*args)


def _do_nothing() -> None:
    pass


def _call_safely(
    function: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Any, BaseException | None]:
    try:
        return function(*args), None
    except BaseException as error:
        return None, error


_thread_call: ContextVar[ThreadCall | None] = ContextVar("plugwasm_thread_call", default=None)
context_factory: ContextVar[Callable[[], AbstractContextManager[object]] | None] = ContextVar(
    "plugwasm_context_factory", default=None
)
"""A function that makes the context manager in which coroutines of host functions run, in the task.
An observer sets it in the thread.
"""


def run_on_event_loop(name: str, f: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Return a function that a guest's thread can call in place of an `async def`.

    The task that awaits the guest's call runs the coroutine.
    """

    def ask(*args: Any) -> Any:
        thread_call = _thread_call.get()
        if thread_call is None or not thread_call.is_here():
            raise TypeError(
                f"`{name}` is `async def`, and there is no event loop to run it on: call the "
                "plugin with `call_async`"
            )
        return thread_call.run_coroutine(f, args)

    return ask


class _ForwardingPlugin(CurrentPlugin):
    """A `CurrentPlugin` for a coroutine. The thread of the call runs what enters the guest."""

    __slots__ = ("_plugin", "request")

    request: CoroutineRequest

    def __init__(self, plugin: CurrentPlugin) -> None:
        self._plugin = plugin
        self._views = plugin._views

    def _now(self) -> Any:
        return self._plugin._now()

    def alloc(self, size: int) -> Memory:
        return self.request.run_in_guest_thread(self._plugin.alloc, size)  # type: ignore[no-any-return]

    def free(self, mem: Memory) -> None:
        self.request.run_in_guest_thread(self._plugin.free, mem)

    def return_bytes(self, output: Val, b: bytes) -> None:
        self.request.run_in_guest_thread(self._plugin.return_bytes, output, b)

    def set_error(self, message: str) -> None:
        self.request.run_in_guest_thread(self._plugin.set_error, message)
