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
    """The changes that `reload` has found, by the names of plugins. False when there are none.

    Attributes:
        added: Plugins that are new.
        changed: Plugins that were loaded anew, enabled or disabled.
        removed: Plugins that are gone.
        failed: Plugins that could not be loaded.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(self)


Changes.__module__ = "plugwasm.plugin_set"


class ChangeLock:
    """The lock for changes of a set in one process, and what is to be done after a change.

    Attributes:
        pid: The process that the lock belongs to.
        is_under_way: Whether the thread that holds the lock is about to replace the state.
        deferred: Changes that this thread makes when it has replaced the state.
        warnings: Arguments for `log.warning` once the lock is free: handlers of logs have locks
            themselves.
    """

    __slots__ = ("deferred", "is_under_way", "lock", "pid", "warnings")

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.lock = threading.RLock()
        self.is_under_way: bool = False
        self.deferred: deque[Callable[[], object]] = deque()
        self.warnings: deque[tuple[str, ...]] = deque()

    def log_warnings(self) -> None:
        """Log the warnings that were kept."""
        while self.warnings:
            try:
                warning = self.warnings.popleft()
            except IndexError:  # another thread was faster
                return
            log.warning(*warning)


def changes_between(before: Mapping[str, PluginEntry], after: Mapping[str, PluginEntry]) -> Changes:
    """Return what differs between two states of a set."""
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
