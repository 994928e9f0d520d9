"""What changes in a set: one change at a time, and what signal handlers ask for meanwhile.

Decisions: docs/decisions.md, 32.1.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import NamedTuple

from .state import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .state import PluginEntry

__all__ = ["ChangeLock", "Changes", "changes_between"]


class Changes(NamedTuple):
    """The names of plugins that `reload` found new, changed or gone, and of those that could not be loaded. False when there are none."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(self)


Changes.__module__ = "plugwasm.plugin_set"


class ChangeLock:
    """What changes of a set need, in one process.

    Attributes:
        is_under_way: Whether the state is about to be replaced, by the thread that has the lock.
        later: What that thread does when it has replaced it.
        complaints: What is logged when the lock is free again: handlers of logs have locks themselves.
    """

    __slots__ = ("deferred", "is_under_way", "lock", "pid", "warnings")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.is_under_way = False
        self.deferred: deque[Callable[[], object]] = deque()
        self.warnings: deque[tuple[str, ...]] = deque()

    def log_warnings(self) -> None:
        """Logs what was complained of."""
        while self.warnings:
            try:
                warning = self.warnings.popleft()
            except IndexError:  # another thread was faster
                return
            log.warning(*warning)


def changes_between(before: Mapping[str, PluginEntry], after: Mapping[str, PluginEntry]) -> Changes:
    both = [(name, before[name], after[name]) for name in after if name in before]
    return Changes(
        added=tuple(name for name in after if name not in before),
        changed=tuple(
            name
            for name, old, new in both
            if new.loaded is not old.loaded
            or new.metadata != old.metadata
            or new.enabled != old.enabled
        ),
        removed=tuple(name for name in before if name not in after),
        failed=tuple(
            name
            for name, entry in after.items()
            if entry.error is not None and _error_message(before.get(name)) != entry.error.message
        ),
    )


def _error_message(entry: PluginEntry | None) -> str | None:
    return None if entry is None or entry.error is None else entry.error.message
