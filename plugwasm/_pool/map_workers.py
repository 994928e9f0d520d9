"""The threads that make the calls of a `map`: the reader's, which takes the outputs, and workers.

Handing a call over to a thread, and its output back, takes tens of microseconds, and time with the
GIL. So the reader makes short calls itself. One worker thread stands by then, besides those that
call: it makes calls when none has begun lately, because a call takes long after all or because the
reader is away. Where calls take long, worker threads make all of them.

They also make all of them for a reader in a host function. Invariant: such a reader only waits, so
that the deadlines and cancellations of the calls that wait for it end its waiting, and with that
the calls of the `map`.

Decisions: docs/decisions.md, 25.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextvars import copy_context
from time import monotonic, perf_counter

from .._host.deadline import NEVER
from .._host.waiting_calls import POLL_INTERVAL, CallerWait, current_delegation, waiting_callers
from .._platform.daemon_threads import STACK_BYTES, submit
from .._platform.native_threads import (
    RLock,
    allocate_lock,
    get_ident,
    sleep,
    stack_size,
    start_new_thread,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any

    from .._runtime.plugin import Plugin
    from .map import MapJob

_SHORT_CALL = 40e-6
"""Seconds: a call shorter than this is not worth handing over."""
_MAX_HOLD = 0.001
"""Seconds that an output may be held back after it is ready."""
_IDLE_INTERVAL = 0.0005
"""Seconds between two looks of the thread that stands by."""
_STOP_INTERVAL = 0.005
"""Seconds between two cancellations while `stop` waits."""


class MapItem:
    """One input and, once processed, its result."""

    __slots__ = ("_context", "_data", "_error", "_output", "_pending")

    def __init__(self, data: Any) -> None:
        self._data = data
        self._context = copy_context()
        self._error: BaseException | None = None
        self._output: Any = None
        self._pending = allocate_lock()
        self._pending.acquire()

    def run(self, call: Callable[[Any], Any]) -> float:
        """Make the call. Return the seconds that it took."""
        start = perf_counter()
        try:
            self._output = self._context.run(call, self._data)
        except BaseException as error:
            self._error = error
        self._data = None
        self._pending.release()
        return perf_counter() - start

    def set_asking(self, workers: MapWorkers) -> None:
        """Have the call run on behalf of the calls that wait for the reader."""
        self._context.run(current_delegation.set, workers)

    def is_done(self) -> bool:
        """Return whether the call was made."""
        return not self._pending.locked()

    def wait(self, seconds: float = -1) -> None:
        """Wait until the call was made, for so many seconds at most; -1 means no limit."""
        if self._pending.acquire(timeout=seconds):
            self._pending.release()

    def result(self, job: MapJob) -> Any:
        """Return the output, or the error that is yielded in its place. Raise any other error."""
        error, self._error = self._error, None
        try:
            if error is None:
                return self._output
            if isinstance(error, Exception):
                return job.handle_error(error)
            raise error
        finally:
            del error


class MapWorkers:
    """The reader and the worker threads of one `map`.

    At most as many of them call at a time as the job has workers.
    """

    def __init__(self, job: MapJob) -> None:
        self._job = job
        self._pid = os.getpid()
        self.callers = waiting_callers()
        """The calls that wait for the reader. Every call of the `map` is made on their behalf."""
        # Where threads are made with a small stack, the reader's may be one of them.
        self._has_stack = not 0 < stack_size() < STACK_BYTES
        self._new: deque[MapItem] = deque()
        self._awaited: MapItem | None = None
        self._mean_seconds = 0.0  # seconds that a call takes; recent calls count more
        self._outputs_read = 0  # outputs that the reader has asked for
        self._progress = 0  # these, and calls that worker threads began
        self._is_reader_calling = False
        self._threads = self._calling = 0
        self._running: dict[int, Plugin | None] = {}
        self._is_stopped = False
        # Reentrant, and `stop` does not take it: the garbage collector may close the reader's
        # iterator in any of the threads.
        self._lock = RLock()

    def is_in_creating_process(self) -> bool:
        """Return whether this is the process of the threads; a forked child has none of them."""
        return self._pid == os.getpid()

    # ---- the reader ------------------------------------------------------------------------------

    def add(self, item: MapItem) -> None:
        """Queue an item."""
        if self.callers:
            item.set_asking(self)
        with self._lock:
            self._new.append(item)
        self._start_thread()

    def complete_first(self, items: deque[MapItem]) -> None:
        """Make the call of the first item, or wait until it was made."""
        first = items[0]
        with self._lock:
            self._outputs_read += 1
            self._progress += 1
            if first.is_done():
                return
            self._awaited = first
            self._is_reader_calling = self._reader_may_call()
            if self._is_reader_calling:
                self._new.popleft()
        if self._is_reader_calling:
            self._update_mean(first.run(self._job.call))
            self._is_reader_calling = False
            self._start_thread()
            return
        # Waking the reader takes as long as a short call does. So it is woken for a few outputs at
        # a time, if they do not take too long.
        items[min(self._outputs_read, len(items), self._job.ahead // 2 + 1) - 1].wait(_MAX_HOLD)
        waiting = CallerWait()
        if not waiting.callers:
            first.wait()
        while not first.is_done():
            first.wait(waiting.pause(POLL_INTERVAL))

    @property
    def is_open(self) -> bool:
        """Whether the calls still run on behalf of the reader."""
        return not self._is_stopped

    def _reader_may_call(self) -> bool:
        """Return whether the reader is to make the call that it waits for."""
        if self.callers and self._threads:
            return False
        # No one calls yet if that is the next one: calls begin in order, and all before it were
        # read.
        if not self._new or self._new[0] is not self._awaited:
            return False
        return not self._threads or (self._mean_seconds < _SHORT_CALL and self._has_stack)

    def stop(self, timeout: float = NEVER) -> None:
        """Cancel the calls under way, and wait for all but the one that this thread is in.

        After `timeout` seconds another thread goes on with that. While the interpreter ends, the
        other threads no longer run, so nothing is waited for.
        """
        if not self.is_in_creating_process():
            return
        self._is_stopped = True
        until = monotonic() + timeout
        while not sys.is_finalizing():
            self._cancel()
            if self._running.keys() <= {get_ident()}:
                return
            if monotonic() >= until:
                start_new_thread(self.stop, ())
                return
            sleep(_STOP_INTERVAL)

    def _cancel(self) -> None:
        for thread, plugin in self._running.copy().items():
            if plugin is not None:
                # By thread: it may leave the plugin to another caller in between.
                plugin._cancel(thread)

    # ---- the worker threads ----------------------------------------------------------------------

    def _update_mean(self, seconds: float) -> None:
        self._mean_seconds += (min(seconds, 20 * _SHORT_CALL) - self._mean_seconds) / 8

    def _max_threads(self) -> int:
        """Return how many worker threads there should be at most."""
        most = self._job.workers - self._is_reader_calling
        return most if self._mean_seconds >= _SHORT_CALL else min(most, self._calling + 1)

    def _start_thread(self) -> None:
        """Start a worker thread if there is something for it to do."""
        if self._threads >= self._max_threads():
            return
        with self._lock:
            if self._is_stopped or not self._new or self._threads >= self._max_threads():
                return
            self._threads += 1
        place = allocate_lock()
        try:
            submit(self._work, place)
        except (RuntimeError, MemoryError):
            # There are no more threads. Without any, the reader makes the calls.
            if place.acquire(blocking=False):
                with self._lock:
                    self._threads -= 1

    def _work(self, place: LockType) -> None:
        """Make calls while there are some for this thread, if it is in time to take `place`."""
        if not place.acquire(blocking=False):
            return
        seen = -1
        while True:
            item = None
            with self._lock:
                if self._is_stopped or not self._new or self._threads > self._max_threads():
                    self._threads -= 1
                    return
                if (
                    self._progress == seen
                    or self._mean_seconds >= _SHORT_CALL
                    or self._new[0] is self._awaited
                    or self.callers
                ):
                    item = self._new.popleft()
                    self._progress += 1
                    self._calling += 1
                seen = self._progress
            if item is None:
                sleep(_IDLE_INTERVAL)
                with self._lock:
                    if self._progress == seen and (self._is_reader_calling or self._calling):
                        # The call under way takes longer.
                        self._mean_seconds = max(self._mean_seconds, _SHORT_CALL)
                continue
            self._start_thread()
            seconds = item.run(self._call)
            with self._lock:
                self._calling -= 1
                self._update_mean(seconds)

    def _call(self, data: Any) -> Any:
        job, here = self._job, get_ident()
        if self._is_stopped:
            return None
        try:
            # No lock is held with a plugin: the reader may be interrupted while it holds the lock,
            # by a signal handler that wants a plugin.
            with job.pool.plugin(wait=job.wait) as plugin:
                self._running[here] = plugin
                try:
                    return (
                        None
                        if self._is_stopped
                        else plugin.call(job.function_name, data, **job.options)
                    )
                finally:
                    # The plugin goes to the next caller in the pool, which must not be cancelled.
                    self._running[here] = None
        finally:
            self._running.pop(here, None)
