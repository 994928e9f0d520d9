"""The plugins that a set has, and the changes of them: reload, enable, disable, configure, close.

A change makes another `State` and replaces the first, one change at a time; see `ChangeLock`.
Modules are compiled before that, and a plugin that cannot be loaded replaces nothing.

Decisions: docs/decisions.md, 21 and 32.1.
"""

from __future__ import annotations

import os
from typing import TypeVar

from .._host.options import describe_value
from .._manifest.messages import closest_match, truncate
from ..errors import ClosedError, FunctionNotFoundError, OptionError
from . import discovery
from .changes import ChangeLock, Changes, changes_between
from .description import Description, describe
from .state import PluginEntry, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .discovery import PluginSource
    from .loading import Loader

__all__ = ["Catalog", "did_you_mean"]

T = TypeVar("T")


class Catalog:
    """The plugins of a set, found, loaded, and changed.

    Args:
        loader: Loads what is found.
        directories: Where to look for plugins at each reload.
        sources: The plugins of the application and of packages.
        order: Names of plugins that are called first, in this order.
        scripts: Whether scripts in the directories are plugins.
    """

    __slots__ = (
        "_change_lock",
        "_directories",
        "_loader",
        "_order",
        "_scripts",
        "_sources",
        "is_closed",
        "state",
    )

    def __init__(
        self,
        loader: Loader,
        directories: Sequence[str],
        sources: Sequence[PluginSource],
        order: Sequence[str],
        scripts: bool,
    ) -> None:
        self._loader = loader
        self._directories = directories
        self._sources = sources
        self._scripts = scripts
        self._order = {name: place for place, name in reversed(list(enumerate(order)))}
        self._change_lock = ChangeLock()
        self.is_closed = False
        self.state = State({}, (), self._order)

    # ---- reading ---------------------------------------------------------------------------------

    def current_state(self) -> State:
        """Return the state; ClosedError if the set was closed."""
        state = self.state
        if self.is_closed:
            raise ClosedError("the plugin set was closed")
        return state

    def find_entry(self, name: str) -> PluginEntry:
        """Return the plugin of this name; OptionError if there is none."""
        state = self.current_state()
        if not isinstance(name, str):
            raise OptionError(
                f"name: expected the name of a plugin, as text, got {describe_value(name)}",
                field="name",
            )
        entry = state.entries.get(name)
        if entry is None:
            raise OptionError(
                f"there is no plugin `{truncate(name)}` in the set"
                f"{did_you_mean(name, state.entries)}"
            )
        return entry

    def callable_entry(self, name: str, function_name: str) -> PluginEntry:
        """Return the plugin of this name; FunctionNotFoundError if it cannot be called."""
        entry = self.find_entry(name)
        if entry.loaded is None:
            why = (
                f"it could not be loaded: {entry.error.message}"
                if entry.error is not None
                else "it is disabled"
            )
            raise FunctionNotFoundError(
                f"plugin `{truncate(name)}` cannot be called: {why}",
                plugin=name,
                function=function_name,
            )
        return entry

    def describe(self) -> list[Description]:
        """Return descriptions of all plugins in order, then of those whose names were taken."""
        state = self.current_state()
        return [
            describe(entry, self._loader.config.get(entry.name, ()))
            for entry in (*state.entries.values(), *state.others)
        ]

    # ---- changing --------------------------------------------------------------------------------

    def reload(self) -> Changes:
        """Look once for plugins that are new, changed or gone; see `PluginSet.reload`."""
        return self.apply_change(self._scan, deferred=self._scan) or Changes()

    def enable(self, name: str) -> None:
        """Load a plugin that is disabled, or could not be loaded; see `PluginSet.enable`."""

        def change() -> PluginEntry:
            old = self.find_entry(name)
            self._loader.enabled[name] = True
            entry = self._loader.load_one(old)
            self._report_load_error(entry, old)
            self._replace_entry(entry)
            return entry

        entry = self.apply_change(change)
        if entry is not None and entry.error is not None:
            raise entry.error.with_traceback(None)

    def disable(self, name: str) -> None:
        """Stop calling a plugin, and drop it."""

        def change() -> None:
            old = self.find_entry(name)
            self._loader.enabled[name] = False
            self._replace_entry(PluginEntry(old.source, old.metadata, enabled=False))

        self.apply_change(change)

    def configure(self, name: str, changes: Mapping[str, str | None]) -> None:
        """Change the configuration of a plugin; None removes a key."""

        def change() -> None:
            self._replace_entry(self._loader.configure(self.find_entry(name), changes))

        self.apply_change(change)

    def close(self) -> None:
        """Drop all plugins."""
        self.is_closed = True
        self.apply_change(self._drop_plugins, deferred=self._drop_plugins)

    def _scan(self) -> Changes:
        before = self.current_state()
        found = [
            *self._sources,
            *(
                source
                for directory in self._directories
                for source in discovery.directory_sources(directory, self._scripts)
            ),
        ]
        taken, others = self._loader.load_all(found, before.entries)
        for name, entry in taken.items():
            self._report_load_error(entry, before.entries.get(name))
        self._replace(taken, tuple(others))
        return changes_between(before.entries, taken)

    def _report_load_error(self, entry: PluginEntry, before: PluginEntry | None) -> None:
        """Keep a warning that a plugin could not be loaded, unless it was so before."""
        error = entry.error
        if (
            error is not None
            and entry is not before
            and (before is None or before.error is None or before.error.message != error.message)
        ):
            self._change_lock.warnings.append(
                ("plugin %s was not loaded: %s", truncate(entry.name), truncate(error.message))
            )

    def _drop_plugins(self) -> None:
        self._replace({}, ())

    def apply_change(
        self, do: Callable[[], T], *, deferred: Callable[[], T] | None = None
    ) -> T | None:
        """Make a change, one at a time; see `ChangeLock.run`."""
        lock = self._change_lock
        if lock.pid != os.getpid():
            # This is a forked child: the thread that held the lock may not be here.
            lock = self._change_lock = ChangeLock()
        return lock.run(do, deferred, self._may_run)

    def _may_run(self, deferred: Callable[[], object]) -> bool:
        """Return whether a deferred change is still to be made."""
        return not self.is_closed or deferred == self._drop_plugins

    def _replace(self, entries: dict[str, PluginEntry], others: tuple[PluginEntry, ...]) -> None:
        before = self.state
        self.state = State(entries, others, self._order)
        kept = {id(entry.loaded) for entry in entries.values()}
        for entry in before.entries.values():
            if entry.loaded is not None and id(entry.loaded) not in kept:
                entry.loaded.retire()

    def _replace_entry(self, entry: PluginEntry) -> None:
        self._replace(self.state.found | {entry.name: entry}, self.state.others)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint at the one of `names` that resembles `name`; empty if none does."""
    close = closest_match(name, list(names))
    return f": did you mean `{truncate(close)}`?" if close else ""
