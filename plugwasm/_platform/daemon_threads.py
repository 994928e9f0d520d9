"""Threads that work for a `map` or for an awaited call: started when needed, and kept for a while.

Invariants:

1. None of them keeps the process alive. They are daemons, which the interpreter does not wait for.
   Their work is for a reader or a task; as long as one of those waits for the result, its own
   thread keeps the process alive. `ThreadPoolExecutor` would join its threads at exit, for as long
   as their guests may run.
2. Handing over a job takes no lock that a signal handler or a finalizer could find taken: an idle
   thread is in a deque, and whoever pops it owns it.

Decisions: docs/decisions.md, 33.1.
"""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from collections import deque
from concurrent.futures import Future

from .native_threads import RLock, Thread, stack_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]

STACK_BYTES = 8 * 2**20
"""Bytes of stack of a thread, where the application gives its threads less."""
IDLE_SECONDS = 60.0
"""Seconds that an idle thread waits for another job."""


class _Worker:
    """A thread and the queue of its jobs."""

    __slots__ = ("jobs",)

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()

    def run(self) -> None:
        idle = _idle
        while True:
            try:
                future, function, args = self.jobs.get(timeout=IDLE_SECONDS)
            except Empty:
                try:
                    idle.remove(self)
                except ValueError:
                    continue  # it was just taken out, and a job is about to come
                return
            _run_job(future, function, args)
            del future, function, args
            idle.append(self)


def _run_job(future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*args)
    except BaseException as error:
        future.set_exception(error)
        del future  # it would form a cycle with the traceback
    else:
        future.set_result(result)


def submit(function: Callable[..., Any], *args: Any) -> Future[Any]:
    """Run a function in a thread whose stack has room for a guest.

    Raises:
        RuntimeError: No more threads can be started.
    """
    future: Future[Any] = Future()
    job = (future, function, args)
    try:
        worker = _idle.pop()  # the most recently used
    except IndexError:
        worker = _Worker()
        worker.jobs.put(job)
        _start(worker)
    else:
        worker.jobs.put(job)
    return future


def _start(worker: _Worker) -> None:
    thread = Thread(worker.run, "plugwasm")
    with _stack_size_lock:
        configured = stack_size()
        if not 0 < configured < STACK_BYTES:
            thread.start()
            return
        stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            stack_size(configured)


_idle: deque[_Worker] = deque()
_stack_size_lock = RLock()
"""Guards the process-wide setting of stack sizes."""


def _after_fork_in_child() -> None:
    # The child has none of the threads, and one of them may have held the lock.
    global _idle, _stack_size_lock
    _idle, _stack_size_lock = deque(), RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
