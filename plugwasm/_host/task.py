"""The running task of asyncio or trio: whether it is being cancelled, and whether it still runs.

Decisions: docs/decisions.md, 30.5.
"""

from __future__ import annotations

import sys
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Task"]


class Task:
    """The task that this is made in. Use it there, before the task awaits anything else."""

    __slots__ = ("_current", "_requests", "_task")

    def __init__(self) -> None:
        self._current = _find_current_task()
        self._task = self._current()
        self._requests = self._count()

    def is_running(self) -> bool:
        """Return whether it is the task that runs.

        An event loop that drops a task closes its coroutine from outside.
        """
        try:
            return self._current() is self._task
        except RuntimeError:  # no event loop is running
            return False

    def is_being_cancelled(self) -> bool:
        """Return whether the task as a whole is cancelled: since this was made, or by a cancelled
        scope around it.
        """
        from anyio import current_effective_deadline

        return self._count() > self._requests or current_effective_deadline() == -inf

    def _count(self) -> int:
        """Return how many requests to cancel the task asyncio has that were not taken back."""
        count: Any = getattr(self._task, "cancelling", None)
        return 0 if count is None else int(count())


def _find_current_task() -> Callable[[], Any]:
    import anyio

    if anyio.get_cancelled_exc_class().__module__.partition(".")[0] == "asyncio":
        return sys.modules["asyncio"].current_task  # type: ignore[no-any-return]
    return sys.modules["trio"].lowlevel.current_task  # type: ignore[no-any-return]
