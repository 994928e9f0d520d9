"""Calls that a task awaits while they run in a thread, and host functions that are `async def`.

The coroutines of such functions run in the very task that awaits the call, so its context, its
deadlines and its cancellation hold in them. Operations that enter the guest meanwhile are run by
the thread, which has nothing else to do. A cancelled task cancels the guest, and continues when the
thread has left it.

    task     submits the call · waits · runs a coroutine · waits · …            · returns
    thread             runs the guest · waits for the answer · runs the guest · …   · ends

Decisions: docs/decisions.md, 22.
"""

from __future__ import annotations

import sys
import weakref
from _queue import Empty, SimpleQueue
from collections import deque
from contextvars import ContextVar

from .._platform.native_threads import RLock, get_ident
from ..errors import CancelledError, ClosedError, TimeoutError
from .current_plugin import CurrentPlugin
from .task import Task
from .waiting_calls import current_delegation, waiting_callers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    import anyio

    from .current_plugin import Memory
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
_FIRST_PAUSE, _LAST_PAUSE = 0.001, 0.1
"""Seconds until a cancelled guest is cancelled again: it may not have been entered yet."""


# ---- the side of the task ------------------------------------------------------------------------


class CoroutineQueue:
    """Coroutines that threads leave for a task, and the way to wake it. Made in the task."""

    def __init__(self) -> None:
        import anyio
        from anyio.lowlevel import current_token

        native: Any = current_token().native_token
        self._soon: Callable[..., object] = (
            getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
        )
        self._woken = anyio.Event()
        self.requests: deque[CoroutineRequest] = deque()
        self.is_closed = False
        self._current: CoroutineRequest | None = None

    def call_soon(self, function: Callable[..., object], *args: Any) -> bool:
        """Have the event loop call a function. May be called from any thread.

        Returns:
            False if the event loop has ended.
        """
        try:
            self._soon(function, *args)
        except RuntimeError:
            return False
        return True

    def wake(self) -> bool:
        """Make `wait` return. May be called from any thread.

        Returns:
            False if the event loop has ended.
        """
        return self.call_soon(self._set_woken)

    def _set_woken(self) -> None:
        self._woken.set()

    async def wait(self) -> None:
        """Wait until the task is woken. Check all conditions before the next wait."""
        await self._woken.wait()
        self._woken = type(self._woken)()

    async def run_coroutines(self) -> None:
        """Run the coroutines in the queue."""
        while self.requests:
            self._current = self.requests.popleft()
            try:
                await self._current.run()
            finally:
                self._current = None

    def stop(self) -> None:
        """Cancel the coroutine that runs. Called by the event loop."""
        if self._current is not None:
            self._current.stop()

    def close(self) -> None:
        """Reject coroutines from now on. May be called from any thread."""
        self.is_closed = True
        while True:
            try:
                request = self.requests.popleft()
            except IndexError:
                return
            request.reject()

    async def wait_finished(
        self, is_done: Callable[[], bool], cancel: Callable[[], object]
    ) -> None:
        """Wait until `is_done` returns True, whatever happens to the task. Call `cancel` repeatedly
        until then.
        """
        import anyio

        pause = _FIRST_PAUSE
        cancelled = anyio.get_cancelled_exc_class()
        with anyio.CancelScope(shield=True):
            while not is_done():
                self.close()
                cancel()
                try:
                    with anyio.move_on_after(pause):
                        await self.wait()
                except cancelled:
                    # asyncio's own, which no scope holds off. The first one is about to be raised.
                    pass
                pause = min(2 * pause, _LAST_PAUSE)


class CoroutineRequest:
    """A coroutine that a thread has left for the task."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], answers: SimpleQueue[Any]) -> None:
        self._coroutine = coroutine
        self._answers = answers
        self._scope: anyio.CancelScope | None = None
        self.is_open = True
        self.callers = waiting_callers()
        """The calls that wait for it. It is made in their thread."""
        # Reentrant, because a signal handler may run in between. It guards single steps.
        self._lock = RLock()

    async def run(self) -> None:
        """Run the coroutine. Raise nothing but the cancellation of the task; all else goes to the
        thread.

        A `CancelledError` does not prove a cancellation of the task: a coroutine also raises one
            when it awaits something that was cancelled by others. So the task is asked, once the
            scope has taken back what cancelled the coroutine alone.
        """
        import anyio

        cancelled = anyio.get_cancelled_exc_class()
        result: Any = None
        error: BaseException | None = CancelledError("the task that awaits the call was cancelled")
        task = Task()
        outer, before = call_waits.set(True), current_delegation.set(self)
        try:
            try:
                with anyio.CancelScope() as self._scope:
                    try:
                        result, error = await self._coroutine, None
                    except cancelled:
                        raise
                    except BaseException as exception:
                        # The event loop has dropped the task: this GeneratorExit is not the
                        # coroutine's.
                        if not task.is_running():
                            raise
                        error = exception
            # A cancellation by the scope itself has ended in the scope.
            except cancelled as exception:
                if task.is_being_cancelled():
                    raise
                error = exception
        finally:
            self._answer(result, error)
            del error
            try:
                call_waits.reset(outer)
                current_delegation.reset(before)
            except ValueError:
                pass  # the event loop has dropped the task; this is the garbage collector

    def reject(self) -> None:
        """Close the coroutine instead of running it."""
        self._coroutine.close()
        self._answer(None, CancelledError("the task that awaits the call was cancelled"))

    def _answer(self, result: Any, error: BaseException | None) -> None:
        with self._lock:
            self.is_open = False
        self._answers.put((None, result, error))

    def stop(self) -> None:
        """Cancel the coroutine."""
        if self._scope is not None and self.is_open:
            self._scope.cancel()

    def run_in_guest_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Have the thread of the call run a function. For all other threads."""
        box: SimpleQueue[Any] = SimpleQueue()
        with self._lock:
            if not self.is_open:
                raise ClosedError(
                    "this CurrentPlugin was used after the host function that it was given to has "
                    "returned"
                )
            self._answers.put((box, function, args))
        result, error = box.get()
        if error is not None:
            raise error
        return result


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


# ---- the side of the thread ----------------------------------------------------------------------


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
call_waits: ContextVar[bool] = ContextVar("plugwasm_is_nested", default=False)
"""Whether a call waits for what runs here. If that had to wait for a thread as well, the calls
might wait for each other.
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
