"""The slots of a pool, and the queue of those who wait for one.

A slot is idle, or somebody's, who has a `Claim` at it then. The plugin of a slot is made when it is used first, and again when what comes
back cannot be used by others. A slot that is given back goes to whoever has waited longest.

Rules. Finalizers and signal handlers may use a pool at any moment of what any thread does with it, and a signal handler may raise there:

1. There is no lock. What is shared changes by single operations of C (`dict.setdefault`, `deque.append`, `deque.remove`, storing an
   attribute), so whoever comes in between finds it sound.
2. A slot belongs to the last turn of a chain: each turn that is over may be succeeded by one other, and `setdefault` says by which. It says
   so in the same operation by which the slot is taken, so no slot is ever nobody's.
3. A turn is over when `is_released` is set, which is no call: after calls signal handlers run. Whoever took a turn sets it whatever
   happens, though all else that belongs to giving back was interrupted; the next one makes up for that (`is_dirty`).
4. Only a turn's own thread or task takes a slot for it. Those who give back ring at the first of the queue, and the first looks of its own
   accord as well, in case that nobody came to ring.
"""

from __future__ import annotations

import os
import weakref
from _functools import partial  # type: ignore[import-not-found]
from _thread import allocate_lock, get_ident
from collections import deque
from time import monotonic
from typing import NamedTuple

from .._engine import shielded
from .._host.deadline import NEVER
from .._host.waiting_calls import Waiting
from .._platform.finalizer import Owner
from ..errors import ClosedError, OptionError, PoolTimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from .._runtime.plugin import Plugin


class _PoolDefault:
    def __repr__(self) -> str:
        return "<as the pool>"


POOL_DEFAULT: Any = _PoolDefault()
"""Stands for the pool's own limit of waiting, where none was given."""


class PoolStats(NamedTuple):
    """What a pool is doing.

    Attributes:
        size: How many plugins it has at most.
        idle: Plugins that were made and wait for a caller.
        busy: Plugins that are in use, or being made.
        waiting: Callers in the queue.
        made: Plugins made so far.
        replaced: How many of these came back closed or still running, and were thrown away.
    """

    size: int
    idle: int
    busy: int
    waiting: int
    made: int
    replaced: int


PoolStats.__module__ = "plugwasm"


class Claim:
    """A place in the queue, and then the right to a slot.

    Attributes:
        is_over: Whether it is given up. For good.
        owner: The thread that it belongs to; 0 for a task's.
        task: The task, as a number; 0 for a thread's.
        ring: Wakes who waits; gives False when nobody can be woken any more.
        slot: What it is the right to, if it has come to that.
    """

    __slots__ = ("is_released", "slot", "successor", "task", "thread", "wake")

    def __init__(self) -> None:
        self.is_released = False
        self.thread = self.task = 0
        self.wake: Callable[[], object] | None = None
        self.slot: _Slot | None = None
        self.successor: dict[None, Claim | None] = {}
        """The turn that came after it at the slot; None when the slot knows of that one, or the next. So no turn keeps all after it."""


class _Slot:
    """Attributes:
    plugin: None before it is made, and when it was thrown away.
    turn: One from which the chain leads to whose the slot is.
    is_used: Whether somebody may have used the plugin since it was fit for others.
    is_lent: Whether a caller ever had the plugin itself, and may keep it. Those who only have it called cannot change it.
    made, replaced: As in `PoolStats`. Whose turn it is counts.
    """

    __slots__ = ("claim", "is_dirty", "made", "plugin", "replaced", "was_lent")

    def __init__(self) -> None:
        self.plugin: Plugin | None = None
        self.claim = Claim()
        self.claim.is_released = True
        self.is_dirty = self.was_lent = False
        self.made = self.replaced = 0

    def holder(self) -> Claim:
        """The turn whose the slot is, or was."""
        while True:
            claim: Claim | None = self.claim
            while claim is not None:
                holder = claim
                try:
                    claim = holder.successor[None]
                except KeyError:
                    return holder

    def acquire(self, claim: Claim) -> bool:
        """Makes it the turn's, if it is idle."""
        holder = self.claim
        if holder.successor:
            holder = self.holder()
        if not holder.is_released or holder.successor.setdefault(None, claim) is not claim:
            return False
        self.claim = claim
        claim.slot = self
        holder.successor[None] = None
        return True


class Slots:
    """`size` slots.

    Args:
        name: What errors call the plugin.
        size: How many there are.
        wait: Seconds that a caller waits at most if it does not say otherwise, or None.
        make: Makes a plugin.
        refresh: Makes a plugin that comes back as new. False when it cannot be used again. None if it need not be as new.
        is_shared: Whether who makes the plugins may keep them.
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
        self.name = name
        self.size = size
        self.wait = checked_wait(wait)
        self.is_closed = False
        self._make = make
        self._refresh = refresh
        self._is_shared = is_shared
        self._slots = tuple(_Slot() for _ in range(size))
        self._queue: deque[Claim] = deque()
        _register(self)

    def stats(self) -> PoolStats:
        """What they are doing right now."""
        idle = busy = 0
        for slot in self._slots:
            if not slot.holder().is_released:
                busy += 1
            elif slot.plugin is not None and not self.is_closed:
                idle += 1
        waiting = len(self._queue)
        made, replaced = (
            sum(getattr(slot, name) for slot in self._slots) for name in ("made", "replaced")
        )
        return PoolStats(self.size, idle, busy, waiting, made, replaced)

    def plugins(self) -> list[Plugin]:
        """Those that were made and not thrown away."""
        return [plugin for slot in self._slots if (plugin := slot.plugin) is not None]

    def close(self) -> None:
        """Closes the plugins, and sends away those who wait."""
        self.is_closed = True
        for claim in self._queue.copy():
            if claim.wake is not None:
                claim.wake()
        for plugin in self.plugins():
            plugin.close()

    def try_acquire(self, claim: Claim) -> bool:
        """Gives it a slot, if one is idle and nobody waits."""
        if self.is_closed:
            raise self.closed_error()
        return (not self._queue or self._first_waiting() is None) and self._take_idle_slot(claim)

    def acquire(self, claim: Claim, wait: float | None) -> None:
        """Waits for a slot, for `wait` seconds at most. For a thread.

        Raises:
            PoolTimeoutError, ClosedError: There was none in time, or the pool was closed.
        """
        claim.thread = get_ident()
        if self.try_acquire(claim):
            return
        wakeup = allocate_lock()
        wakeup.acquire()
        deadline, waiting = _deadline(wait), Waiting()
        try:
            self.enqueue(claim, lambda: _wake(wakeup))
            while not self.try_acquire_queued(claim):
                if (left := deadline - monotonic()) <= 0:
                    raise self.timeout_error(wait or 0)
                self.check_self_wait(claim, wait, waiting)
                wakeup.acquire(timeout=waiting.pause(min(left, self._poll_interval(claim))))
        finally:
            self.leave_queue(claim)

    async def acquire_async(self, claim: Claim, wait: float | None) -> None:
        """As `acquire`, for a task."""
        from .._host.event_loop import Desk
        from .._runtime.threads import need_anyio

        need_anyio()
        import anyio
        from anyio.lowlevel import checkpoint

        await checkpoint()
        claim.task = anyio.get_current_task().id
        if self.try_acquire(claim):
            return
        desk = Desk()
        deadline, waiting = _deadline(wait), Waiting()
        try:
            self.enqueue(claim, desk.wake)
            while not self.try_acquire_queued(claim):
                if (left := deadline - monotonic()) <= 0:
                    raise self.timeout_error(wait or 0)
                self.check_self_wait(claim, wait, waiting)
                with anyio.move_on_after(waiting.pause(min(left, self._poll_interval(claim)))):
                    await desk.wait()
        finally:
            self.leave_queue(claim)

    def _poll_interval(self, claim: Claim) -> float:
        return POLL_INTERVAL if self.is_first(claim) else QUEUED_POLL_INTERVAL

    def enqueue(self, claim: Claim, wake: Callable[[], object]) -> None:
        """Has it wait in the queue, and be rung. Whatever happens, `leave_queue` comes later."""
        claim.wake = wake
        self._queue.append(claim)

    def try_acquire_queued(self, claim: Claim) -> bool:
        """Gives a turn of the queue a slot, if it is the first and one is idle."""
        if self.is_closed:
            raise self.closed_error()
        return self.is_first(claim) and self._take_idle_slot(claim)

    def is_first(self, claim: Claim) -> bool:
        """Whether it is the first that waits."""
        return self._first_waiting() is claim

    def leave_queue(self, claim: Claim) -> None:
        """Takes it out of the queue."""
        self._discard(claim)
        self._wake_first()

    def _take_idle_slot(self, claim: Claim) -> bool:
        for slot in self._slots:
            if slot.acquire(claim):
                break
        else:
            return False
        return True

    def _first_waiting(self) -> Claim | None:
        """The first that waits. Those that were given up without leaving are taken out."""
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
        """Wakes the first that waits, for a slot may be idle."""
        while (first := self._first_waiting()) is not None:
            if first.wake is None or first.wake() is not False:
                return
            self._discard(first)  # its event loop has ended

    def release(self, claim: Claim) -> None:
        """Has the next in the queue have the slot. Twice is allowed."""
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

    def _slot_of(self, claim: Claim) -> _Slot | None:
        """What it took, though it may have been interrupted before it could say so."""
        return next((slot for slot in self._slots if slot.holder() is claim), None)

    def plugin(self, slot: _Slot) -> Plugin:
        """The slot's plugin, fit for use, which is made when there is none. For the one whose it is."""
        plugin = slot.plugin
        if plugin is not None:
            if slot.is_dirty or (self._refresh is not None and plugin._guest is not None):
                # Who had it before was interrupted when giving it back, or has kept and called it.
                self._restore(slot)
                plugin = slot.plugin
            elif slot.was_lent:
                plugin._take_back()  # once more: who had it may have kept and changed it
        if plugin is None:
            plugin = self._make()
            plugin._lend()
            slot.was_lent = self._is_shared
            slot.plugin = plugin
            slot.made += 1
        slot.is_dirty = True
        if self.is_closed:
            plugin.close()
            raise self.closed_error()
        return plugin

    def lend(self, slot: _Slot) -> Plugin:
        """As `plugin`, for a caller who gets the plugin itself."""
        plugin = self.plugin(slot)
        if not slot.was_lent:
            slot.was_lent = True
            plugin._take_back()
        return plugin

    def _restore(self, slot: _Slot) -> None:
        """Makes sure that the next one can use the plugin, or gets another."""
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
                plugin._take_back()
        else:
            slot.plugin = None
            plugin.close()
        slot.is_dirty = False

    def _try_refresh(self, refresh: Callable[[Plugin], bool], slot: _Slot, plugin: Plugin) -> bool:
        try:
            return refresh(plugin)
        except Exception:
            slot.plugin = None
            raise

    def closed_error(self) -> ClosedError:
        """For who comes too late."""
        return ClosedError(f"the pool of plugin `{self.name}` was closed", plugin=self.name)

    def timeout_error(self, seconds: float) -> PoolTimeoutError:
        """For who has waited that long."""
        return PoolTimeoutError(
            f"the {self.size} plugins of the pool of plugin `{self.name}` were all in use for {seconds:g} s (timeout): "
            "make it larger (`size`), or wait longer (`wait`)",
            plugin=self.name,
        )

    def check_self_wait(self, claim: Claim, wait: float | None, waiting: Waiting) -> None:
        """Raises if all slots belong to the calls that wait for one, which would wait for themselves.

        Their own come back only when they go on. What their thread or task has on lease besides might be given back by another one, so
        that is counted only where the wait has no end.
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

    def self_wait_error(self) -> PoolTimeoutError:
        """For who would wait for itself."""
        return PoolTimeoutError(
            f"the {self.size} plugins of the pool of plugin `{self.name}` are all in use by the one who waits for another, and so would "
            "wait for itself: make the pool larger (`size`), or have host functions call a plugin of another pool",
            plugin=self.name,
        )

    def after_fork_in_child(self) -> None:
        """Makes do with what a child has."""
        # Of the callers only this thread is here. The plugins of the others are in the middle of something.
        self._queue.clear()
        for slot in self._slots:
            claim = slot.holder()
            if not claim.is_released and claim.thread != get_ident():
                slot.plugin = None
                slot.is_dirty = False
                claim.is_released = True


POLL_INTERVAL = 0.05
"""Seconds between two looks of the first in the queue at whether a slot is idle, in case that it was not rung."""
QUEUED_POLL_INTERVAL = 5.0
"""The same for all others, which may have become the first."""


class Lease(Owner):
    """A plugin of a pool for as long as a `with` block, or an `async with` block, lasts. Before that, a place in the queue."""

    __module__ = "plugwasm"

    __slots__ = ("_slots", "_wait", "claim")

    def __init__(self, slots: Slots, wait: float | None) -> None:
        self._slots = slots
        self._wait = slots.wait if wait is POOL_DEFAULT else checked_wait(wait)
        self.claim = Claim()

    def acquire(self) -> None:
        """Waits for a slot."""
        self._slots.acquire(self.claim, self._wait)

    async def acquire_async(self) -> None:
        """As `acquire`, for a task."""
        await self._slots.acquire_async(self.claim, self._wait)

    def try_acquire(self) -> bool:
        """Takes a slot if one is idle and nobody waits."""
        self.claim.thread = get_ident()
        return self._slots.try_acquire(self.claim)

    def plugin(self) -> Plugin:
        """The slot's plugin, which is made when there is none. For who calls it and passes it to nobody."""
        slot = self.claim.slot
        if slot is None:
            raise self._slots.closed_error()
        return self._slots.plugin(slot)

    def _lend(self) -> Plugin:
        slot = self.claim.slot
        if slot is None:
            raise self._slots.closed_error()
        return self._slots.lend(slot)

    def release(self) -> None:
        """Lets the next one have it. Twice is allowed."""
        try:
            self._slots.release(self.claim)
        except BaseException:
            self.claim.is_released = True
            raise

    def __enter__(self) -> Plugin:
        self._check_new()
        self.__del__ = partial(
            setattr, self.claim, "is_released", True
        )  # for who drops it without leaving it: C alone, see `Owner`
        try:
            self.acquire()
            return self._lend()
        except BaseException:
            try:
                self.release()
            finally:
                self.claim.is_released = True
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:  # which covers the entry of this function, see `shielded`
            self._slots.release(self.claim)
        except BaseException:
            self.claim.is_released = True
            raise

    async def __aenter__(self) -> Plugin:
        self._check_new()
        self.__del__ = partial(setattr, self.claim, "is_released", True)
        from .._runtime.threads import cross

        try:
            await self.acquire_async()
            plugin: Plugin = await cross(lambda _: self._lend())
        except BaseException:
            try:
                self.release()
            finally:
                self.claim.is_released = True
            raise
        return plugin

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        from .._runtime.threads import finish

        try:
            await finish(self.release)
        finally:
            self.claim.is_released = True

    def _check_new(self) -> None:
        if self.claim.is_released:
            self.claim = Claim()
        elif self.claim.slot is not None or self.claim.wake is not None:
            raise RuntimeError(
                "this is in use already: call `pool.plugin()` again for another plugin"
            )


shielded(Lease.release)
shielded(Lease.__exit__)


def _deadline(wait: float | None) -> float:
    return NEVER if wait is None else monotonic() + wait


def _wake(wakeup: LockType) -> None:
    try:
        wakeup.release()
    except RuntimeError:
        pass  # it rings already


def checked_wait(wait: float | None) -> float | None:
    """The same, if that is how long one can wait."""
    if wait is not None and not (
        isinstance(wait, (int, float)) and not isinstance(wait, bool) and wait >= 0
    ):
        raise OptionError(f"wait must be a number of seconds, or None for no limit, not {wait!r}")
    return wait


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
