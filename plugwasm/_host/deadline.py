"""Deadlines: one ticker for the process, which makes guests look at their own clock.

A guest runs compiled code, which looks at nothing but the engine's epoch. The ticker increments it
when a call is overdue, and ten times a second while calls last longer than that, so that signal
handlers run (Ctrl-C). Each store that notices asks its own environment whether its own deadline has
passed, so a tick that is meant for one plugin does no harm to the others. docs/architecture.md
follows a deadline from here to the error.

The ticker is a thread that lives only while calls are under way, and is the only state of this
module. It is a thread of the system even where `threading.Thread` is a greenlet. After `os.fork`
the child starts its own.

Where no thread can be started (a limit of threads, an interpreter that ends, a subinterpreter that
may have none), guests tick themselves: they look at the clock at each turn of their loops. They are
far slower then, but each ends at its deadline, and can be cancelled.

The first guests of a process that has not imported `threading` tick themselves too, until they have
looked at the clock `FIRST_LOOKS` times: importing that module and starting a thread takes longer
than a process that makes a few short calls spends in them.

Decisions: docs/decisions.md, 7, 32.1, 33.5, 39.4 and 64.
"""

from __future__ import annotations

import atexit
import os
import sys
from time import monotonic

from .._engine import in_main_interpreter
from .._platform.native_threads import Thread, allocate_lock, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._engine import Engine

HEARTBEAT = 0.1
"""Seconds between two checks of the calls under way."""
OVERDUE_TICK = 0.005
"""Seconds between two ticks while a call is overdue."""
IDLE_SECONDS = 1.0
"""Seconds without any call after which the thread ends."""

FIRST_LOOKS = 128
"""How often guests look at the clock by themselves before a thread is started for them, in a
process that has not imported `threading`. They take less than a tenth of what importing it takes.
"""

_JOIN_SECONDS = 1.0
"""Seconds that a fork waits for the thread to end. A finalizer in that thread may be waiting for
the thread that forks.
"""

NEVER = float("inf")


class Ticker:
    """The calls under way, and the thread that ticks for them.

    `running` maps whatever stands for a call to its deadline in seconds on the monotonic clock, or
    to `NEVER`. A call enters itself before it starts, and calls `wake` if its deadline comes before
    `next_check`. It removes itself when it ends.

    There is no lock, because a signal handler or a finalizer may call a plugin while a call begins,
    also in the ticker's own thread. A caller that finds no thread that is sure to run, because it
    has run already, starts one and makes it the current one (`_thread`). So there may be two for a
    moment; the one that is not current ends at its next check. A thread that ends says so
    (`next_check` is `NEVER`, so the next call wakes) before it looks for calls under way for the
    last time; if there are some and no thread is current, it becomes the current one.
    """

    def __init__(self) -> None:
        self.running: dict[Any, float] = {} if _OUTLIVES_CALLS else _LastCallStopsTicker(self)
        self.next_check = NEVER
        self.engines: list[Engine] = []
        self.keeps_thread = False
        """Whether the thread sleeps where it would end: for a process that can start no other."""
        self.has_no_thread = False
        """Whether guests have to tick themselves, because there is no thread: none could be
        started, or none has been so far. Guests that were ticked once then go on as if they were
        ticked all the time.
        """
        self._looks_left = FIRST_LOOKS
        """How often guests may still tick themselves before a thread is started."""
        self._interpreter_ends = False
        self._is_forking = False
        self._thread: Thread | None = None
        """The thread that ticks. A thread that finds that it is not this one ends."""
        self._wakeup = allocate_lock()
        self._wakeup.acquire()

    def wake(self) -> None:
        """Make the thread check the calls under way now. Start it if it does not run."""
        thread = self._thread
        if thread is None or thread.ident is None or thread.ident == get_ident():
            if self._may_wait_for_thread():
                self.has_no_thread = True
                self.tick()
                return
            self._start()
        self._signal()

    def looked(self) -> bool:
        """Count a look at the clock by a guest that ticks itself. Start the thread if that was the
        last one that is allowed.

        Returns:
            Whether the guest has to go on ticking itself.
        """
        if self._looks_left > 0:
            self._looks_left -= 1
            if self._looks_left <= 0:
                self.wake()
        return self.has_no_thread

    def _may_wait_for_thread(self) -> bool:
        return (
            self._looks_left > 0
            and "threading" not in sys.modules
            and not self.keeps_thread
            and not self._interpreter_ends
        )

    def tick(self) -> None:
        """Make all running guests look at their clocks."""
        for engine in self.engines:
            engine.increment_epoch()

    def _start(self) -> None:
        thread: Thread | None = None
        try:
            if self._interpreter_ends:
                # Before Python 3.12, starting a thread now would wait for ever.
                raise RuntimeError("the interpreter ends")
            thread = self._thread = self._new_thread()
            thread.start()
            self.has_no_thread = False
        except BaseException as error:
            # No more threads can be started, or a signal handler raised. The next call tries again.
            # Otherwise the thread runs in spite of the error.
            if self._thread is thread and (thread is None or thread.ident is None):
                self._thread = None
            if not isinstance(error, RuntimeError):
                raise
            self.next_check = NEVER
            self.has_no_thread = True
            self.tick()

    def _new_thread(self) -> Thread:
        thread: Thread
        try:
            thread = Thread(lambda: self._run(thread), "plugwasm-ticker")
        except RuntimeError:
            # A subinterpreter with a lock of its own has no daemons, and waits for its threads at
            # its end.
            import threading

            threading._register_atexit(self.end)  # type: ignore[attr-defined]
            thread = Thread(lambda: self._run(thread), "plugwasm-ticker", daemon=False)
        return thread

    def _signal(self) -> None:
        try:
            self._wakeup.release()
        except RuntimeError:
            pass  # it is signalled already

    def _run(self, me: Thread) -> None:
        idle_since = monotonic()
        before: set[int] = set()
        while not self._may_end(me):
            self.has_no_thread = False
            # The order matters. A call does the opposite: it enters itself, then reads
            # `next_check`.
            self.next_check = NEVER
            deadlines = self.running.copy()
            now = monotonic()
            if deadlines:
                idle_since = now
            elif now - idle_since > IDLE_SECONDS:
                if self.keeps_thread:
                    self._wakeup.acquire()  # not needed until `wake`
                    idle_since = monotonic()
                    continue
                if self._try_end(me):
                    return
            first = min(deadlines.values(), default=NEVER)
            present = set(map(id, deadlines))
            if first <= now or present & before:
                self.tick()
            before = present
            del deadlines  # it would keep dropped guests alive
            pause = OVERDUE_TICK if first <= now else min(HEARTBEAT, first - now)
            self.next_check = now + pause
            self._wakeup.acquire(timeout=pause)
        self._signal()  # the signal may have been for its successor

    def _may_end(self, me: Thread) -> bool:
        """Return whether a thread may end because it is not the current one."""
        if self._thread is me and not self._interpreter_ends:
            return False
        self.next_check = NEVER
        if self._thread is None and self.running and not self._is_forking:
            # The call that started it was interrupted, and took it for a thread that does not run.
            self._thread = me
        return self._thread is not me or self._interpreter_ends

    def _try_end(self, me: Thread) -> bool:
        self.next_check = NEVER
        if self._thread is me:
            self._thread = None
        if not self.running:
            return True
        # A call has begun. It may just have relied on this thread; or it has started another, which
        # is the current one then.
        if self._thread is None:
            self._thread = me
        return False

    def before_fork(self) -> None:
        """End the thread, so that it is in the middle of nothing when the process is copied."""
        self._is_forking = True
        self.stop()

    def stop(self) -> None:
        """End the thread. The next call starts another."""
        thread, self._thread = self._thread, None
        if thread is not None and thread.ident not in (None, get_ident()):
            self._signal()
            thread.join(_JOIN_SECONDS)
        self.next_check = NEVER

    def end(self) -> None:
        """End the ticker at the end of the interpreter, which does not wait for the thread.

        A subinterpreter would end the process if the thread were still there.
        """
        self._interpreter_ends = True
        self.stop()
        if self.running:
            self._start()

    def after_fork(self) -> None:
        """Continue in the parent."""
        self._is_forking = False
        if self.running:
            self.wake()

    def after_fork_in_child(self) -> None:
        """Reset the ticker in a forked child.

        Of the calls under way none goes on in the child but one whose host function forked, and
        that should not return.
        """
        engines = self.engines
        self.__init__()  # type: ignore[misc]
        self.engines = engines


class _LastCallStopsTicker(dict["Any", float]):
    """Calls under way where the thread has to end with the last of them."""

    __slots__ = ("_ticker",)

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker

    def pop(self, *args: Any) -> Any:
        value = super().pop(*args)
        if not self:
            self._ticker.stop()
        return value


_OUTLIVES_CALLS = sys.version_info >= (3, 13) or in_main_interpreter()
"""Whether the thread may outlive the calls. Before Python 3.13, a subinterpreter that has another
thread ends the process when it ends, before it calls any hook.
"""
ticker = Ticker()
atexit.register(ticker.end)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=ticker.before_fork,
        after_in_parent=ticker.after_fork,
        after_in_child=ticker.after_fork_in_child,
    )
