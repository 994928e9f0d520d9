"""The slots of a pool, and the queue of those who wait for one.

A slot is idle, or somebody's, who has a lease of it then. The plugin of a slot is made when it is used first, and again when what comes
back cannot be used by others. A slot that is given back goes to whoever has waited longest.
"""

from __future__ import annotations

import os
import threading
import weakref
from _thread import allocate_lock, get_ident
from collections import deque
from typing import NamedTuple

from .errors import ClosedError, OptionError, PoolTimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from .plugin import Plugin


class _AsThePool:
    def __repr__(self) -> str:
        return "<as the pool>"


AS_THE_POOL: Any = _AsThePool()
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


class _Slot:
    __slots__ = ("plugin",)

    def __init__(self) -> None:
        self.plugin: Plugin | None = None


class Slots:
    """`size` slots.

    Args:
        name: What errors call the plugin.
        size: How many there are.
        wait: Seconds that a caller waits at most if it does not say otherwise, or None.
        make: Makes a plugin.
        refresh: Makes a plugin that comes back as new. False when it cannot be used again. None if it need not be as new.
    """

    def __init__(
        self,
        name: str,
        size: int,
        wait: float | None,
        make: Callable[[], Plugin],
        refresh: Callable[[Plugin], bool] | None,
    ) -> None:
        self.name = name
        self.size = size
        self.wait = seconds(wait)
        self.is_closed = False
        self._make = make
        self._refresh = refresh
        self._lock = threading.Lock()
        self._idle = [_Slot() for _ in range(size)]
        self._busy: set[Lease] = set()
        self._queue: deque[Lease] = deque()
        self._made = self._replaced = 0
        _live.add(self)

    def stats(self) -> PoolStats:
        """What they are doing right now."""
        with self._lock:
            idle = sum(slot.plugin is not None for slot in self._idle)
            return PoolStats(self.size, idle, len(self._busy), len(self._queue), self._made, self._replaced)

    def close(self) -> None:
        """Closes the plugins, and sends away those who wait."""
        with self._lock:
            self.is_closed = True
            waiting, slots = [*self._queue], [*self._idle, *(lease._slot for lease in self._busy)]
            self._queue.clear()
            self._idle.clear()
        for lease in waiting:
            if lease._ring is not None:
                lease._ring()
        for slot in slots:
            if slot is not None and slot.plugin is not None:
                slot.plugin.close()

    def begin(self, lease: Lease, ring: Callable[[], object] | None) -> bool:
        """Gives it a slot if one is idle. Otherwise it joins the queue, if it can be rung when its turn has come."""
        with self._lock:
            if self.is_closed:
                raise self.closed_error()
            if self._idle:
                lease._slot = self._idle.pop()
                self._busy.add(lease)
                return True
            if ring is not None:
                lease._ring = ring
                self._queue.append(lease)
            return False

    def end_wait(self, lease: Lease) -> bool:
        """Takes it out of the queue. Whether it has a slot, which may have been given in the last moment."""
        with self._lock:
            if lease._slot is not None:
                return True
            try:
                self._queue.remove(lease)
            except ValueError:
                pass
            if self.is_closed:
                raise self.closed_error()
            return False

    def make(self) -> Plugin:
        """Another plugin."""
        plugin = self._make()
        plugin._lend()
        with self._lock:
            self._made += 1
        return plugin

    def give_back(self, lease: Lease) -> None:
        """Has the next in the queue have the slot. Twice is allowed, and done where a signal handler raises in the first."""
        try:
            self._give_back(lease)
        except BaseException:
            self._give_back(lease)
            raise

    def _give_back(self, lease: Lease) -> None:
        slot = lease._slot
        if slot is None:
            return
        try:
            self._settle(slot)
        except BaseException:
            slot.plugin = None
            raise
        finally:
            self._pass_on(lease, slot)
        if self.is_closed and slot.plugin is not None:
            slot.plugin.close()

    def _pass_on(self, lease: Lease, slot: _Slot) -> None:
        with self._lock:
            if lease._slot is not slot:
                return
            self._busy.discard(lease)
            if self.is_closed or not self._queue:
                lease._slot = None  # no call between this and the next, after which a signal handler could raise
                self._idle += (slot,) * (not self.is_closed)
                return
            lease._slot = None
            while self._queue:
                following = self._queue.popleft()
                following._slot = slot
                self._busy.add(following)
                if following._ring is not None and following._ring() is not False:
                    return
                following._slot = None  # its event loop has ended
                self._busy.discard(following)
            if not self.is_closed:
                self._idle.append(slot)

    def _settle(self, slot: _Slot) -> None:
        """Makes sure that the next one can use the plugin, or gets another."""
        plugin = slot.plugin
        if plugin is None or self.is_closed:
            return
        if plugin._closed or not hasattr(plugin, "_idle"):
            # Its user closed it, or still calls it in another thread.
            slot.plugin = None
            with self._lock:
                self._replaced += 1
            plugin.close()
        elif self._refresh is not None and not self._refresh(plugin):
            slot.plugin = None
            plugin.close()
        else:
            plugin._take_back()

    def closed_error(self) -> ClosedError:
        """For who comes too late."""
        return ClosedError(f"the pool of plugin `{self.name}` was closed", plugin=self.name)

    def timeout_error(self, seconds: float) -> PoolTimeoutError:
        """For who has waited that long."""
        return PoolTimeoutError(
            f"the {self.size} plugins of the pool of plugin `{self.name}` were all in use for {seconds:g} s: make it larger (`size`), or "
            "wait longer (`wait`)",
            plugin=self.name,
        )

    def after_fork_in_child(self) -> None:
        """Makes do with what a child has."""
        # Of the callers only this thread is here. The plugins of the others are in the middle of something.
        self._lock = threading.Lock()
        self._queue.clear()
        for lease in [lease for lease in self._busy if lease._owner != get_ident()]:
            self._busy.discard(lease)
            lease._slot = None
            self._idle.insert(0, _Slot())


class Lease:
    """A plugin of a pool for as long as a `with` block, or an `async with` block, lasts. Before that, a place in the queue."""

    __slots__ = ("_owner", "_ring", "_slot", "_slots", "_wait")

    def __init__(self, slots: Slots, wait: float | None) -> None:
        self._slots = slots
        self._wait = slots.wait if wait is AS_THE_POOL else seconds(wait)
        self._owner = 0
        self._slot: _Slot | None = None
        self._ring: Callable[[], object] | None = None

    def take(self) -> None:
        """Waits for a slot."""
        self._owner = get_ident()
        if self._slots.begin(self, None):
            return
        lock = allocate_lock()
        lock.acquire()
        try:
            if self._slots.begin(self, lock.release):
                return
            lock.acquire(timeout=-1 if self._wait is None else min(self._wait, threading.TIMEOUT_MAX))
            has_slot = self._slots.end_wait(self)
        except BaseException:
            self._leave()
            raise
        if not has_slot:
            raise self._slots.timeout_error(self._wait or 0)

    async def take_async(self) -> None:
        """The same for a task."""
        from ._awaiting import need_anyio
        from ._bridge import Desk

        need_anyio()
        import anyio
        from anyio.lowlevel import checkpoint

        await checkpoint()
        desk = Desk()
        if self._slots.begin(self, desk.wake):
            return
        try:
            with anyio.move_on_after(self._wait):
                await desk.wait()
            has_slot = self._slots.end_wait(self)
        except BaseException:
            self._leave()
            raise
        if not has_slot:
            raise self._slots.timeout_error(self._wait or 0)

    def _leave(self) -> None:
        try:
            self._slots.end_wait(self)
        except ClosedError:
            pass
        self.give_back()

    def plugin(self) -> Plugin:
        """The slot's plugin, which is made when there is none."""
        slot = self._slot
        if slot is None:
            raise self._slots.closed_error()
        plugin = slot.plugin
        if plugin is None:
            plugin = slot.plugin = self._slots.make()
        if self._slots.is_closed:
            plugin.close()
            raise self._slots.closed_error()
        return plugin

    def give_back(self) -> None:
        """Lets the next one have it. Twice is allowed."""
        self._slots.give_back(self)

    def __enter__(self) -> Plugin:
        self._check_new()
        try:
            self.take()
            return self.plugin()
        except BaseException:
            self.give_back()
            raise

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.give_back()

    async def __aenter__(self) -> Plugin:
        self._check_new()
        from ._awaiting import cross

        try:
            await self.take_async()
            plugin: Plugin = await cross(lambda _: self.plugin())
        except BaseException:
            self.give_back()
            raise
        return plugin

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        from ._awaiting import finish

        await finish(self.give_back)

    def _check_new(self) -> None:
        if self._slot is not None:
            raise RuntimeError("this is in use already: call `pool.plugin()` again for another plugin")


def seconds(wait: float | None) -> float | None:
    """The same, if that is how long one can wait."""
    if wait is not None and not (isinstance(wait, (int, float)) and wait >= 0):
        raise OptionError(f"wait must be a number of seconds, or None for no limit, not {wait!r}")
    return wait


_live: weakref.WeakSet[Slots] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for slots in list(_live):
        slots.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
