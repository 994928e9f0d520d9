"""Limits on requests at a time and in a second, over all plugins that share an `Egress`.

1. A request that has to wait does so within its own deadline.
2. The next request is one of the family of plugins with the fewest requests under way; of several,
   the one whose turn was longest ago; in the family the plugin is chosen likewise; and of its
   requests the one that came first. So however many requests one plugin has in the queue, another's
   is next.
3. Once two plugins have asked, none may have all places: one is left for others. (A single place
   cannot be shared so.)

The state belongs to a process: a forked child starts with no request under way, whatever the
threads of its parent were doing.

Decisions: docs/decisions.md, 9.7, 29.7 and 29.8.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from ..errors import EgressError, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Hashable
    from threading import Condition
    from typing import Any

    from .connection import CallClock
    from .egress import Egress
    from .request_owner import RequestOwner

__all__ = ["RateLimiter", "shared_limiter"]

_QUEUE_SECONDS = 30.0  # in the queue, if there is no deadline
_REMEMBERED = 1000  # owners whose last turn is known


def shared_limiter(egress: Egress) -> RateLimiter:
    """Return the limiter that all plugins with this `Egress` object share in this process."""
    limiter = _limiters.get(egress)
    if limiter is None:
        limits = egress._policy
        # Atomic: of two threads, both get the one that came first.
        limiter = _limiters.setdefault(
            egress, RateLimiter(limits.max_concurrent, limits.max_per_second)
        )
    return limiter


class RateLimiter:
    """The queue of those who share an `Egress`. A limit of None means unlimited."""

    __slots__ = ("_queues", "max_concurrent", "max_per_second")

    def __init__(self, max_concurrent: int | None, max_per_second: int | None) -> None:
        self.max_concurrent = max_concurrent
        self.max_per_second = max_per_second
        self._queues: dict[int, _ProcessQueue] = {}

    def acquire(self, ticket: object, clock: CallClock, owner: RequestOwner | None = None) -> None:
        """Wait until a request may start. Whatever happens, `release` must be called next.

        Args:
            ticket: Stands for the request.
            clock: Ends the wait with the call.
            owner: Whose request it is.

        Raises:
            EgressError: Its turn did not come, and it has no deadline that would have ended it
                before.
            Error: Whatever the clock raises.
        """
        if self.max_concurrent is None and self.max_per_second is None:
            return
        queue = self._queue()
        queue.join(ticket, owner)
        try:
            clock.wait_until(
                lambda pause: self._admitted(queue, ticket, pause),
                _QUEUE_SECONDS if clock.remaining() is None else None,
            )
        except Error:
            raise
        except TimeoutError:
            raise EgressError(
                f"the request waited {_QUEUE_SECONDS:.0f} s for its turn: the application allows "
                f"{self.max_concurrent or 'any number'} "
                f"at once and {self.max_per_second or 'any number'} a second"
            ) from None

    def release(self, ticket: object) -> None:
        """Take the request out of the queue: it has ended, or will not start."""
        if not self._queues:
            return
        self._queue().leave(ticket)

    def _queue(self) -> _ProcessQueue:
        """Return the queue of this process."""
        from os import getpid

        mine = getpid()
        queue = self._queues.get(mine)
        if queue is None:
            # Atomic: of two threads, both get the one that came first.
            queue = self._queues.setdefault(mine, _ProcessQueue())
            for other in [pid for pid in list(self._queues) if pid != mine]:
                self._queues.pop(other, None)
        return queue

    def _admitted(self, queue: _ProcessQueue, ticket: object, pause: float) -> bool:
        from time import monotonic

        with queue.lock:
            for attempt in (1, 2):
                now = monotonic()
                while queue.started and queue.started[0] <= now - 1:
                    queue.started.popleft()
                is_next = queue.next(self.max_concurrent) is ticket
                has_room = self.max_concurrent is None or len(queue.under_way) < self.max_concurrent
                is_time = self.max_per_second is None or len(queue.started) < self.max_per_second
                if is_next and has_room and is_time:
                    queue.start(ticket)
                    if self.max_per_second is not None:
                        queue.started.append(now)
                    queue.changed.notify_all()
                    return True
                if attempt == 1:
                    if is_next and has_room:
                        pause = min(pause, queue.started[0] + 1 - now)
                    queue.changed.wait(max(0.0, pause))
        return False


class _ProcessQueue:
    """The requests of one process that wait, are under way, or started within the last second."""

    __slots__ = (
        "_queues",
        "_turns",
        "_turns_of_families",
        "changed",
        "lock",
        "started",
        "under_way",
        "waiting",
    )

    def __init__(self) -> None:
        from collections import deque
        from threading import Condition, RLock

        # Re-entrant: a signal handler may run a plugin. The lock is taken by itself, since entering
        # a condition is Python code, in which a signal handler may raise when the lock is taken.
        self.lock = RLock()
        self.changed: Condition = Condition(self.lock)
        self.waiting: dict[object, RequestOwner | None] = {}
        """Tickets and their owners; `_queues` has them by owner, in the order of arrival."""
        self.under_way: dict[object, RequestOwner | None] = {}
        self.started: deque[float] = deque()
        self._queues: dict[RequestOwner | None, dict[object, None]] = {}
        self._turns: dict[Hashable, int] = {}
        """The number of each owner's last turn, the latest at the end."""
        self._turns_of_families: dict[Hashable, int] = {}

    def join(self, ticket: object, owner: RequestOwner | None) -> None:
        with self.lock:
            self.waiting[ticket] = owner  # first, so that `leave` finds it after an interrupt here
            self._queues.setdefault(owner, {})[ticket] = None

    def leave(self, ticket: object) -> None:
        with self.lock:
            self.under_way.pop(ticket, None)
            self._unqueue(ticket)
            self.changed.notify_all()

    def start(self, ticket: object) -> None:
        """Move a ticket from the queue to those under way."""
        owner = self.waiting[ticket]
        self.under_way[ticket] = owner
        self._unqueue(ticket)
        _take_turn(self._turns, owner)
        _take_turn(self._turns_of_families, _family(owner))

    def next(self, places: int | None) -> object | None:
        """Return the ticket whose turn it is if there is room; None if no one may have the room."""
        from collections import Counter

        owners: Counter[Any] = Counter(self.under_way.values())
        families: Counter[Any] = Counter(map(_family, self.under_way.values()))
        waiting = self._queues.keys()
        most = most_of_family = len(self.under_way) + 1 if places is None else places
        if places is not None and places > 1:
            most -= len(self._turns.keys() | waiting) > 1
            most_of_family -= len(self._turns_of_families.keys() | set(map(_family, waiting))) > 1
        candidates = [
            owner
            for owner in waiting
            if owners[owner] < most and families[_family(owner)] < most_of_family
        ]
        if not candidates:
            return None

        def rank(owner: RequestOwner | None) -> tuple[int, int, int, int]:
            family = _family(owner)
            return (
                families[family],
                self._turns_of_families.get(family, 0),
                owners[owner],
                self._turns.get(owner, 0),
            )

        return next(iter(self._queues[min(candidates, key=rank)]))

    def _unqueue(self, ticket: object) -> None:
        if ticket not in self.waiting:
            return
        owner = self.waiting[ticket]
        queue = self._queues.get(owner, {})
        queue.pop(ticket, None)
        if not queue:
            self._queues.pop(owner, None)
        del self.waiting[ticket]


def _family(owner: RequestOwner | None) -> Hashable:
    return None if owner is None else owner.family


def _take_turn(turns: dict[Hashable, int], whose: Hashable) -> None:
    number = next(reversed(turns.values()), 0) + 1
    turns.pop(whose, None)
    turns[whose] = number
    if len(turns) > _REMEMBERED:
        del turns[next(iter(turns))]


_limiters: WeakKeyDictionary[Egress, RateLimiter] = WeakKeyDictionary()
"""By the identity of the `Egress`, for as long as that lives."""
