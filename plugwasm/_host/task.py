"""The task that runs, of asyncio or trio: whether it is being cancelled, and whether it still runs."""

from __future__ import annotations

import sys
from math import inf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Task"]


class Task:
    """The task that this is made in. Ask it there, before that awaits anything else."""

    __slots__ = ("_current", "_requests", "_task")

    def __init__(self) -> None:
        self._current = _current_of()
        self._task = self._current()
        self._requests = self._count()

    def is_running(self) -> bool:
        """Whether it is the task that runs. An event loop that lets go of a task closes its coroutine from outside."""
        try:
            return self._current() is self._task
        except RuntimeError:  # no event loop runs
            return False

    def is_being_cancelled(self) -> bool:
        """Whether something cancels the task as a whole: since this was made, or a scope around it that is cancelled."""
        from anyio import current_effective_deadline

        return self._count() > self._requests or current_effective_deadline() == -inf

    def _count(self) -> int:
        """How often somebody has asked asyncio to cancel the task, and nobody has taken that back."""
        count: Any = getattr(self._task, "cancelling", None)
        return 0 if count is None else int(count())


def _current_of() -> Callable[[], Any]:
    import anyio

    if anyio.get_cancelled_exc_class().__module__.partition(".")[0] == "asyncio":
        return sys.modules["asyncio"].current_task  # type: ignore[no-any-return]
    return sys.modules["trio"].lowlevel.current_task  # type: ignore[no-any-return]
