"""How many requests may be under way, and how many may start in a second, over all plugins that share an `Egress`.

Who comes first is served first. A request that has to wait does so within its own deadline. The state belongs to a process: a forked child
starts with none under way, whatever the threads of its parent were doing.
"""

from __future__ import annotations

from plugwasm.errors import EgressError, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from threading import Condition

    from plugwasm._sandbox.wire import Clock

__all__ = ["Gate"]

_PATIENCE = 30.0  # seconds in the queue, when there is no deadline


class Gate:
    """None of a limit: no limit."""

    __slots__ = ("_lines", "max_concurrent", "max_per_second")

    def __init__(self, max_concurrent: int | None, max_per_second: int | None) -> None:
        self.max_concurrent = max_concurrent
        self.max_per_second = max_per_second
        self._lines: dict[int, _Line] = {}

    def enter(self, ticket: object, clock: Clock) -> None:
        """Waits until the request that the ticket stands for may start. Whatever happens, `leave` comes next.

        Raises:
            EgressError: It did not come to its turn, and had no deadline that would have ended it before.
            Error: Whatever the clock raises.
        """
        if self.max_concurrent is None and self.max_per_second is None:
            return
        line = self._line()
        line.waiting.append(ticket)
        try:
            clock.wait(lambda pause: self._admitted(line, ticket, pause), _PATIENCE if clock.left() is None else None)
        except Error:
            raise
        except TimeoutError:
            raise EgressError(
                f"the request waited {_PATIENCE:.0f} s for its turn: the application allows {self.max_concurrent or 'any number'} "
                f"at once and {self.max_per_second or 'any number'} a second"
            ) from None

    def leave(self, ticket: object) -> None:
        """The request that the ticket stands for is over, or will not start."""
        if not self._lines:
            return
        line = self._line()
        with line.changed:
            line.under_way.discard(ticket)
            if ticket in line.waiting:
                line.waiting.remove(ticket)
            line.changed.notify_all()

    def _line(self) -> _Line:
        from os import getpid

        mine = getpid()
        line = self._lines.get(mine)
        if line is None:
            line = self._lines.setdefault(mine, _Line())  # atomic: of two threads, both get the one that came first
            for other in [pid for pid in list(self._lines) if pid != mine]:
                self._lines.pop(other, None)
        return line

    def _admitted(self, line: _Line, ticket: object, pause: float) -> bool:
        from time import monotonic

        with line.changed:
            for attempt in (1, 2):
                now = monotonic()
                while line.started and line.started[0] <= now - 1:
                    line.started.popleft()
                is_next = line.waiting[0] is ticket
                has_room = self.max_concurrent is None or len(line.under_way) < self.max_concurrent
                is_time = self.max_per_second is None or len(line.started) < self.max_per_second
                if is_next and has_room and is_time:
                    line.under_way.add(ticket)
                    line.waiting.popleft()
                    if self.max_per_second is not None:
                        line.started.append(now)
                    line.changed.notify_all()
                    return True
                if attempt == 1:
                    if is_next and has_room:
                        pause = min(pause, line.started[0] + 1 - now)
                    line.changed.wait(max(0.0, pause))
        return False


class _Line:
    """Who waits, who is under way, and who started within the last second, in one process."""

    __slots__ = ("changed", "started", "under_way", "waiting")

    def __init__(self) -> None:
        from collections import deque
        from threading import Condition

        self.changed: Condition = Condition()  # re-entrant: a signal handler may run a plugin
        self.waiting: deque[object] = deque()
        self.under_way: set[object] = set()
        self.started: deque[float] = deque()
