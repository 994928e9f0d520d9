"""Coroutines of host functions that are `async def`, run in the task that awaits the call.

They run in the very task that awaits the call (`thread_call` has the other side, the thread), so
its context, its deadlines and its cancellation hold in them. A cancelled task cancels the guest,
and continues when the thread has left it.

Decisions: docs/decisions.md, 22.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections import deque
from contextvars import ContextVar

from .._platform.native_threads import RLock
from ..errors import CancelledError, ClosedError
from .task import Task
from .waiting_calls import current_delegation, waiting_callers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    import anyio


_FIRST_PAUSE, _LAST_PAUSE = 0.001, 0.1
"""Seconds until a cancelled guest is cancelled again: it may not have been entered yet."""


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


call_waits: ContextVar[bool] = ContextVar("plugwasm_is_nested", default=False)
"""Whether a call waits for what runs here. If that had to wait for a thread as well, the calls
might wait for each other.
"""
