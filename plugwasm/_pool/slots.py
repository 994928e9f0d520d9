"""The slots of a pool, and the queue of the callers that wait for one.

A slot is idle, or held by the `Claim` of a caller. Its plugin is made at the first use of the slot,
and replaced if it comes back unfit for other callers. A slot that is given back goes to the caller
that has waited longest.

Finalizers and signal handlers may use a pool at any moment, in any thread. So there is no lock: the
queue is changed only by single operations implemented in C (`deque.append`, `deque.remove`), and so
are slots (see `claim`). A caller that gives a slot back does not pass it on. It wakes the first in
the queue, which takes an idle slot itself, and also checks from time to time, in case it was not
woken.

Decisions: docs/decisions.md, 30.1 and 32.2.
"""

from __future__ import annotations

import os
import weakref
from _thread import allocate_lock, get_ident
from collections import deque
from time import monotonic
from typing import NamedTuple

from .._engine import lost_to
from .._host.deadline import NEVER
from .._host.waiting_calls import CallerWait
from ..errors import ClosedError, OptionError, PoolTimeoutError
from .claim import Claim, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any

    from .._runtime.plugin import Plugin

POLL_INTERVAL = 0.05
"""Seconds between two checks by the first caller in the queue, in case it was not woken."""
QUEUED_POLL_INTERVAL = 5.0
"""Seconds between two checks by every other caller in the queue: it may have become the first."""


class _PoolDefault:
    def __repr__(self) -> str:
        return "<as the pool>"


POOL_DEFAULT: Any = _PoolDefault()
"""Stands for the pool's own `wait`, where a call gives none."""


class PoolStats(NamedTuple):
    """The state of a pool at one moment.

    Attributes:
        size: How many plugins it has at most.
        idle: Plugins that were made and wait for a caller.
        busy: Plugins that are in use, or being made.
        waiting: Callers in the queue.
        made: Plugins made so far.
        replaced: How many of these came back closed or still running, and were discarded.
        recycled: Instances that were recycled (`Recycle`). Their plugins stay.
    """

    size: int
    idle: int
    busy: int
    waiting: int
    made: int
    replaced: int
    recycled: int = 0


PoolStats.__module__ = "plugwasm"


class Slots:
    """A fixed number of slots, and the queue for them.

    Args:
        name: The name of the plugin in errors.
        size: The number of slots.
        wait: Seconds that a caller waits at most if it does not say otherwise; None for no limit.
        make: Makes a plugin.
        refresh: Resets a plugin that was given back, and returns whether it can be used again. None
            if plugins are passed on as they are.
        is_shared: Whether `make` may keep references to the plugins, as an application's `factory`
            may.
    """

    def __init__(
        self,
        name: str,
        size: int,
        wait: float | None,
        make: Callable[[], Plugin],
        refresh: Callable[[Plugin], bool] | None,
        *,
        is_shared: bool = False,
    ) -> None:
        self.name: str = name
        self.size: int = size
        self.wait: float | None = check_wait(wait)
        self.is_closed: bool = False
        self._make = make
        self._refresh = refresh
        self._is_shared = is_shared
        self._slots = tuple(Slot() for _ in range(size))
        self._queue: deque[Claim] = deque()
        _register(self)

    def stats(self) -> PoolStats:
        """Return the state at this moment."""
        idle = busy = 0
        for slot in self._slots:
            if not slot.holder().is_released:
                busy += 1
            elif slot.plugin is not None and not self.is_closed:
                idle += 1
        waiting = len(self._queue)
        made = sum(slot.made for slot in self._slots)
        replaced = sum(slot.replaced for slot in self._slots)
        recycled = sum(slot.recycled for slot in self._slots)
        return PoolStats(self.size, idle, busy, waiting, made, replaced, recycled)

    def plugins(self) -> list[Plugin]:
        """Return the plugins that were made and not discarded."""
        return [plugin for slot in self._slots if (plugin := slot.plugin) is not None]

    def close(self) -> None:
        """Close the plugins, and end the wait of all callers in the queue."""
        self.is_closed = True
        for claim in self._queue.copy():
            if claim.wake is not None:
                claim.wake()
        for plugin in self.plugins():
            plugin.close()

    # ---- taking a slot ---------------------------------------------------------------------------

    def try_acquire(self, claim: Claim) -> bool:
        """Give `claim` a slot if one is idle and no caller waits. Return whether it has one.

        Raises:
            ClosedError: The pool was closed.
        """
        if self.is_closed:
            raise self.closed_error()
        return (not self._queue or self._first_waiting() is None) and self._take_idle_slot(claim)

    def acquire(self, claim: Claim, wait: float | None) -> None:
        """Wait in this thread until `claim` has a slot, for `wait` seconds at most.

        Raises:
            PoolTimeoutError: No slot became idle in time, or the caller would wait for itself.
            ClosedError: The pool was closed.
        """
        claim.thread = get_ident()
        if self.try_acquire(claim):
            return
        wakeup = allocate_lock()
        wakeup.acquire()
        deadline, waiting = _deadline(wait), CallerWait()
        try:
            self._enqueue(claim, lambda: _release(wakeup))
            while not self._try_acquire_queued(claim):
                if (left := deadline - monotonic()) <= 0:
                    raise self.timeout_error(wait or 0)
                self._check_self_wait(claim, wait, waiting)
                wakeup.acquire(timeout=waiting.pause(min(left, self._poll_interval(claim))))
        finally:
            self._leave_queue(claim)

    async def acquire_async(self, claim: Claim, wait: float | None) -> None:
        """Wait in this task until `claim` has a slot; otherwise as `acquire`."""
        from .._host.event_loop import CoroutineQueue
        from .._runtime.threads import require_anyio

        require_anyio()
        import anyio
        from anyio.lowlevel import checkpoint

        await checkpoint()
        claim.task = anyio.get_current_task().id
        if self.try_acquire(claim):
            return
        queue = CoroutineQueue()
        deadline, waiting = _deadline(wait), CallerWait()
        try:
            self._enqueue(claim, queue.wake)
            while not self._try_acquire_queued(claim):
                if (left := deadline - monotonic()) <= 0:
                    raise self.timeout_error(wait or 0)
                self._check_self_wait(claim, wait, waiting)
                with anyio.move_on_after(waiting.pause(min(left, self._poll_interval(claim)))):
                    await queue.wait()
        finally:
            self._leave_queue(claim)

    def _try_acquire_queued(self, claim: Claim) -> bool:
        """Give `claim` a slot if it is the first in the queue and one is idle."""
        if self.is_closed:
            raise self.closed_error()
        return self._first_waiting() is claim and self._take_idle_slot(claim)

    def _take_idle_slot(self, claim: Claim) -> bool:
        for slot in self._slots:
            if slot.acquire(claim):
                break
        else:
            return False
        return True

    # ---- the queue -------------------------------------------------------------------------------

    def _enqueue(self, claim: Claim, wake: Callable[[], object]) -> None:
        """Put `claim` into the queue. The caller must call `_leave_queue` in a `finally`."""
        claim.wake = wake
        self._queue.append(claim)

    def _leave_queue(self, claim: Claim) -> None:
        self._discard(claim)
        self._wake_first()

    def _first_waiting(self) -> Claim | None:
        """Return the first claim that waits. Drop those that were released without leaving."""
        while True:
            try:
                first = self._queue[0]
            except IndexError:
                return None
            if not first.is_released:
                return first
            self._discard(first)

    def _discard(self, claim: Claim) -> None:
        try:
            self._queue.remove(claim)
        except (ValueError, IndexError):
            pass

    def _wake_first(self) -> None:
        """Wake the first claim that waits, because a slot may be idle."""
        while (first := self._first_waiting()) is not None:
            if first.wake is None or first.wake() is not False:
                return
            self._discard(first)  # its event loop has ended

    def _poll_interval(self, claim: Claim) -> float:
        return POLL_INTERVAL if self._first_waiting() is claim else QUEUED_POLL_INTERVAL

    # ---- giving it back --------------------------------------------------------------------------

    def release(self, claim: Claim) -> None:
        """Give the slot back and wake the first caller in the queue. Releasing twice is allowed."""
        slot = claim.slot
        if slot is None:
            slot = self._slot_of(claim)
        if slot is None or claim.is_released:
            claim.is_released = True
            return
        try:
            self._restore(slot)
        finally:
            claim.is_released = True
            try:
                if self._queue:
                    self._wake_first()
            finally:
                claim.slot = None
                if self.is_closed and slot.plugin is not None:
                    slot.plugin.close()

    def _slot_of(self, claim: Claim) -> Slot | None:
        """Find the slot of a claim whose `claim.slot` was not set, because of an interruption."""
        return next((slot for slot in self._slots if slot.holder() is claim), None)

    def _restore(self, slot: Slot) -> None:
        """Make the plugin fit for the next caller, or discard it."""
        plugin = slot.plugin
        if plugin is None or self.is_closed:
            return
        if plugin._closed or not hasattr(plugin, "_idle"):
            # Its user closed it, or still calls it in another thread.
            slot.plugin = None
            slot.replaced += 1
            plugin.close()
        elif self._refresh is None or self._try_refresh(self._refresh, slot, plugin):
            if slot.was_lent:
                plugin._end_lease()
            recycling = plugin._recycling
            if recycling is not None:
                if recycling.counts_leases:
                    recycling.countdown -= 1
                if recycling.countdown <= 0:
                    slot.recycled += plugin._recycle()
        else:
            slot.plugin = None
            plugin.close()
        slot.is_dirty = False

    def _try_refresh(self, refresh: Callable[[Plugin], bool], slot: Slot, plugin: Plugin) -> bool:
        try:
            return refresh(plugin)
        except Exception:
            slot.plugin = None
            raise

    # ---- the plugin of a slot --------------------------------------------------------------------

    def plugin(self, slot: Slot) -> Plugin:
        """Return the plugin of a slot, fit for use; make it when there is none.

        Only the holder of the slot may call this, and may not pass the plugin on (see `lend`).
        """
        plugin = slot.plugin
        if plugin is not None:
            if slot.is_dirty or (self._refresh is not None and plugin._guest is not None):
                # The last holder was interrupted while giving it back, or has kept and called it.
                self._restore(slot)
                plugin = slot.plugin
            elif slot.was_lent:
                plugin._end_lease()  # once more: a borrower may have kept and changed it
            if plugin is not None and lost_to() is not None:
                plugin._leave_signals()
            if slot.has_max_age and plugin is not None:
                recycling = plugin._recycling
                if recycling is not None and monotonic() >= recycling.expires:
                    slot.recycled += plugin._recycle()  # it has grown old here
        if plugin is None:
            plugin = self._make()
            plugin._begin_lease()
            slot.was_lent = self._is_shared
            slot.has_max_age = plugin._recycling is not None and plugin._recycling.has_max_age
            slot.plugin = plugin
            slot.made += 1
        slot.is_dirty = True
        if self.is_closed:
            plugin.close()
            raise self.closed_error()
        return plugin

    def lend(self, slot: Slot) -> Plugin:
        """As `plugin`, for a caller that may keep the plugin and change it."""
        plugin = self.plugin(slot)
        if not slot.was_lent:  # `_restore` has not ended its leases so far
            slot.was_lent = True
            plugin._end_lease()
        if plugin._recycling is not None:
            plugin._recycling.look_soon()  # after any number of calls
        return plugin

    # ---- errors ----------------------------------------------------------------------------------

    def closed_error(self) -> ClosedError:
        """Return the error for a caller that comes after the pool was closed."""
        return ClosedError(f"the pool of plugin `{self.name}` was closed", plugin=self.name)

    def timeout_error(self, seconds: float) -> PoolTimeoutError:
        """Return the error for a caller that has waited for so many seconds."""
        return PoolTimeoutError(
            f"the {self.size} plugins of the pool of plugin `{self.name}` were all in use "
            f"for {seconds:g} s (timeout): make the pool larger (`size`), or wait longer (`wait`)",
            plugin=self.name,
        )

    def self_wait_error(self) -> PoolTimeoutError:
        """Return the error for a caller that would wait for itself."""
        return PoolTimeoutError(
            f"the {self.size} plugins of the pool of plugin `{self.name}` are all in use by the "
            "caller, or by calls that wait for it, so it would wait for itself: make the pool "
            "larger (`size`), or have host functions call a plugin of another pool",
            plugin=self.name,
        )

    def _check_self_wait(self, claim: Claim, wait: float | None, waiting: CallerWait) -> None:
        """Raise an error if no slot can come back before this wait ends.

        That is so if each slot is held by a call that waits for this one (see `CallerWait`). A slot
        that this thread or task holds as a lease counts as well, but only if the wait has no limit:
        another thread or task might give it back.
        """
        for slot in self._slots if waiting.callers else ():
            holder, plugin = slot.holder(), slot.plugin
            if holder.is_released:
                return
            if (
                plugin is not None
                and plugin._guest is not None
                and plugin._guest in waiting.callers
            ):
                continue
            if wait is not None or (holder.thread, holder.task) != (claim.thread, claim.task):
                return
        if waiting.callers:
            raise self.self_wait_error()

    # ---- forks -----------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Drop what belongs to threads that a forked child does not have."""
        # Of all callers, only this thread is in the child. The plugins of the others are in the
        # middle of a call.
        self._queue.clear()
        for slot in self._slots:
            claim = slot.holder()
            if not claim.is_released and claim.thread != get_ident():
                slot.plugin = None
                slot.is_dirty = False
                claim.is_released = True


def check_wait(wait: float | None) -> float | None:
    """Return `wait` if it is a number of seconds or None.

    Raises:
        OptionError: It is not.
    """
    if wait is not None and not (
        isinstance(wait, (int, float)) and not isinstance(wait, bool) and wait >= 0
    ):
        raise OptionError(f"wait must be a number of seconds, or None for no limit, not {wait!r}")
    return wait


def _deadline(wait: float | None) -> float:
    return NEVER if wait is None else monotonic() + wait


def _release(lock: LockType) -> None:
    try:
        lock.release()
    except RuntimeError:
        pass  # it was released already


# ---- live pools, for forks -----------------------------------------------------------------------

_live: dict[weakref.ref[Slots], None] = {}
_dead: deque[weakref.ref[Slots]] = deque()


def _register(slots: Slots) -> None:
    # No `WeakSet`: its callback is Python, and whatever a signal handler raises there is lost.
    while _dead:
        try:
            _live.pop(_dead.popleft(), None)
        except IndexError:  # another thread was faster
            pass
    _live[weakref.ref(slots, _dead.append)] = None


def _after_fork_in_child() -> None:
    for reference in list(_live):
        slots = reference()
        if slots is not None:
            slots.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
