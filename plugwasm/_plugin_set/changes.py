"""Changes of a set: one at a time, and after it those that signal handlers asked for meanwhile.

Decisions: docs/decisions.md, 32.1.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any, NamedTuple, TypeVar

from .._manifest.messages import truncate
from ..errors import BusyError, Error
from .state import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .state import PluginEntry

__all__ = ["ChangeLock", "Changes", "changes_between"]


T = TypeVar("T")


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

    def run(
        self,
        do: Callable[[], T],
        deferred: Callable[[], T] | None,
        may_run: Callable[[Callable[[], object]], bool],
    ) -> T | None:
        """Make a change, and then those that signal handlers asked for meanwhile.

        The lock is reentrant, since a signal handler may run while its thread holds it. It would
        find the state half changed (`is_under_way`): so it gets None, and `deferred` runs when the
        change is made. A change must not be interrupted by another one, since it replaces the state
        that it began with. No context manager written in Python surrounds it: a signal handler that
        raises could separate that from its block.

        Args:
            do: The change.
            deferred: The change to make later, if another one is under way in this thread.
            may_run: Returns whether a deferred change is still to be made.

        Raises:
            BusyError: A change is under way in this thread, and `deferred` is None.
        """
        try:
            with self.lock:
                if self.is_under_way:
                    if deferred is None:
                        raise BusyError(
                            "the plugin set cannot be changed while this thread is in the middle "
                            "of another change of it"
                        )
                    self.deferred.append(deferred)
                    return None
                try:
                    self.is_under_way = True
                    try:
                        done = do()
                    finally:
                        done_later = self._run_deferred(may_run)
                finally:
                    self.is_under_way = False
        finally:
            self.log_warnings()
        if self.deferred:  # by a signal handler that came just before `is_under_way` was unset
            self.run(_do_nothing, None, may_run)
        result: Any = done
        if isinstance(result, Changes):
            for changes in done_later:
                result = Changes(
                    *(
                        tuple(dict.fromkeys(one + other))
                        for one, other in zip(result, changes, strict=True)
                    )
                )
        return result  # type: ignore[no-any-return]

    def _run_deferred(self, may_run: Callable[[Callable[[], object]], bool]) -> list[Changes]:
        """Make the changes that signal handlers asked for meanwhile. Return what they changed."""
        found: list[Changes] = []
        while self.deferred:
            deferred = self.deferred.popleft()
            if not may_run(deferred):
                continue
            try:
                changes = deferred()
            except Error as error:  # of a reload; its caller is no longer there
                self.warnings.append(("plugins cannot be reloaded: %s", truncate(error.message)))
            else:
                if isinstance(changes, Changes):
                    found.append(changes)
        return found

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


def _do_nothing() -> None:
    pass
