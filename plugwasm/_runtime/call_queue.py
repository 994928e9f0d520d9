"""The queue of callers that wait for a busy plugin: first come, first served.

A `Plugin`, and the instrumentation of an observed one, belongs to one call at a time. It is free
while it has the attribute `_idle`. Finalizers and signal handlers may run at any moment, and may
raise there, so these rules hold:

1. Whoever deletes `_idle` owns it. The owner returns it by storing `_idle` again, or hands it to a
   waiting call by deleting that call's `is_pending`.
2. A call that gives up waiting deletes its own `is_pending`. The second of the two gets an
   `AttributeError`: a call that gave up too late owns the plugin.
3. From taking it until then no function is called and nothing loops, so no signal handler runs.
4. `_is_contended` tells the owner to look at the queue when it returns the plugin. A waiting call
   sets it after it has joined the queue, and so does the one who closes the plugin. Only the owner
   clears it, and looks once more afterwards.
5. The first call of the queue also looks by itself, in case nobody woke it.

A call that would wait for itself gets a `BusyError` instead: a call from inside a call, or calls in
several threads that wait for each other.

Decisions: docs/decisions.md, 40.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from .._host import greenlets
from .._host.waiting_calls import CallerWait
from .._platform.native_threads import allocate_lock, get_ident, sleep
from ..errors import BusyError, CancelledError, TimeoutError, truncate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, Protocol, TypeVar

    from .abstract_plugin import AbstractPlugin

    F = TypeVar("F", bound=Callable[..., Any])

    class QueueOwner(Protocol):
        """An object that belongs to one call at a time."""

        _idle: bool
        _is_contended: bool
        _queue: list[QueuedCall]


POLL_INTERVAL = 0.05
"""Seconds between two looks of the first call of a queue."""
QUEUED_POLL_INTERVAL = 1.0
"""Seconds between two looks of the other calls, which may have become the first."""

_waiting: dict[QueuedCall, None] = {}
"""All calls that wait, for any plugin."""
_holders: set[CodeType] = set()
_process_token = object()
"""Names this process. A forked child has another one, since it lacks the threads of older calls."""
_is_forked = False


def holds_self(function: F) -> F:
    """Mark a method whose `self` belongs to its call while it runs."""
    _holders.add(function.__code__)
    return function


class QueuedCall:
    """A call that has to wait.

    Attributes:
        is_pending: Present while it is open whether the call gets what it waits for.
        thread: The thread of the call.
        deadline: The deadline of the call, on the monotonic clock in seconds. It counts from here.
    """

    __slots__ = (
        "_is_cancelled",
        "_owner",
        "_process_token",
        "_waiting",
        "_wakeup",
        "deadline",
        "function",
        "is_pending",
        "plugin",
        "thread",
    )

    def __init__(self, owner: QueueOwner, plugin: AbstractPlugin, function: str) -> None:
        """Make a call that waits for `owner`: the plugin, or its instrumentation."""
        self._owner = owner
        self._process_token = _process_token
        self._is_cancelled = False
        self._wakeup = allocate_lock()
        self._wakeup.acquire()
        self._waiting = CallerWait()
        self.plugin = plugin
        self.function = function
        self.thread = get_ident()
        self.deadline = monotonic() + plugin._timeout
        self.is_pending = True

    def wait(self) -> None:
        """Wait for the turn of this call.

        Whatever this raises, the caller then deletes `is_pending`, and if that is gone, returns
        what it owns (rule 2).

        Raises:
            BusyError: It would wait for itself.
            TimeoutError: The deadline has passed.
            CancelledError: A handle of the plugin was asked to cancel.
            ClosedError: The plugin was closed.
        """
        owner, plugin = self._owner, self.plugin
        self._check_here()
        try:
            _waiting[self] = None
            owner._queue.append(self)
            owner._is_contended = True
            hand_over(owner)
            while hasattr(self, "is_pending"):
                self._check()
                if (left := self.deadline - monotonic()) <= 0:
                    raise self._timeout_error() from None
                pause = (
                    POLL_INTERVAL
                    if owner._queue and owner._queue[0] is self
                    else QUEUED_POLL_INTERVAL
                )
                if not self._wakeup.acquire(timeout=self._waiting.pause(min(left, pause))):
                    greenlets.check_greenlet(plugin, self.function, plugin._guest)
                hand_over(owner)
            self._check()
            plugin._begin_queued_call(self)
        finally:
            _waiting.pop(self, None)
            _remove(owner._queue, self)

    def wake(self) -> None:
        """Wake the thread that waits."""
        try:
            self._wakeup.release()
        except RuntimeError:
            pass  # it is awake already

    def cancel(self) -> None:
        """End the waiting. Any thread may call this."""
        self._is_cancelled = True
        self.wake()

    def is_open(self) -> bool:
        """Return whether a thread of this process waits; no signal handler runs in between (rule
        3).
        """
        return self._process_token is _process_token

    def _check_here(self) -> None:
        """Raise an error if this thread would wait for itself."""
        plugin = self.plugin
        frame = sys._getframe(2).f_back  # the caller of the method that waits now
        while frame is not None:
            if frame.f_code in _holders and frame.f_locals.get("self") is self._owner:
                raise plugin._busy_error(self.function) from None
            frame = frame.f_back
        if self.thread in list(plugin._awaited.values()):
            raise self._itself_error(
                "a task of this thread's event loop awaits a call of it, which may need the "
                "event loop"
            ) from None
        greenlets.check_greenlet(plugin, self.function)
        if _is_forked and self._is_abandoned():
            raise self._itself_error(
                "a thread called it when this process was forked, and is not here"
            ) from None

    def _is_abandoned(self) -> bool:
        """Return whether no thread of this process owns it."""
        for _ in range(3):
            if (
                hasattr(self._owner, "_idle")
                or queued_calls(self.plugin)
                or any(is_calling(i, self.plugin) for i in sys._current_frames())
            ):
                return False
            sleep(POLL_INTERVAL)
        return True

    def _check(self) -> None:
        if self.plugin._closed:
            raise self.plugin._closed_error(self.function) from None
        if self._is_cancelled:
            raise CancelledError(
                f"{self._where()} was cancelled while it waited for another call of the plugin",
                plugin=self.plugin.name,
                function=self.function,
            ) from None
        if self._waiting.callers and self._is_in_circle():
            raise self._itself_error("its call waits for this one") from None

    def _is_in_circle(self) -> bool:
        """Return whether the plugin's owner waits for this call, through any number of calls."""
        seen = {self}
        circle = [self]
        while circle:
            guest = circle.pop().plugin._guest
            if guest is None:
                continue
            if guest in self._waiting.callers:
                return True
            further = [
                queued_call
                for queued_call in _waiting.copy()
                if queued_call not in seen and guest in queued_call._waiting.callers
            ]
            seen.update(further)
            circle += further
        return False

    def _where(self) -> str:
        return f"`{truncate(self.function)}` of plugin `{self.plugin.name}`"

    def _itself_error(self, why: str) -> BusyError:
        return BusyError(
            f"{self._where()} would wait for itself: the plugin is running another call, and "
            f"{why}: make another Plugin for it",
            plugin=self.plugin.name,
            function=self.function,
        )

    def _timeout_error(self) -> TimeoutError:
        limit = self.plugin.compiled_plugin.limits.timeout or 0
        return TimeoutError(
            f"{self._where()} did not begin before its deadline of {limit * 1000:.0f} ms "
            "(timeout): the plugin was busy with another call; "
            "use a PluginPool for calls at the same time, or a longer `Limits.timeout`",
            plugin=self.plugin.name,
            function=self.function,
        )


def hand_over(owner: QueueOwner) -> None:
    """Hand it over to the first call that waits, if it is free."""
    queue = owner._queue
    while owner._is_contended:
        try:
            del owner._idle
        except AttributeError:
            return  # the owner does this when it is done
        try:
            queued_call = queue[0]
            if queued_call._process_token is _process_token:
                del queued_call.is_pending
        except IndexError:
            owner._is_contended = False
            owner._idle = True
            if queue:
                owner._is_contended = True
                continue
            return
        except AttributeError:
            owner._idle = True  # the call has given up
        else:
            if queued_call._process_token is _process_token:
                queued_call.wake()
                _remove(queue, queued_call)
                return
            owner._idle = True
        _remove(queue, queued_call)


def _remove(queue: list[QueuedCall], queued_call: QueuedCall) -> None:
    try:
        queue.remove(queued_call)
    except ValueError:
        pass


def queued_calls(plugin: AbstractPlugin, thread: int | None = None) -> list[QueuedCall]:
    """Return the calls that wait for the plugin, or those of a thread among them."""
    if not _waiting:
        return []
    return [
        queued_call
        for queued_call in _waiting.copy()
        if queued_call.plugin is plugin and (thread is None or queued_call.thread == thread)
    ]


def is_calling(thread: int, plugin: AbstractPlugin) -> bool:
    """Return whether the thread is in a call of the plugin, and does not wait to begin one."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        code = frame.f_code
        if code is _WAIT_CODE and frame.f_locals["self"].plugin is plugin:
            return False
        if code in _holders and frame.f_locals.get("self") is plugin:
            return True
        frame = frame.f_back
    return False


_WAIT_CODE = QueuedCall.wait.__code__


def _after_fork_in_child() -> None:
    global _process_token, _is_forked
    _process_token, _is_forked = object(), True
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
