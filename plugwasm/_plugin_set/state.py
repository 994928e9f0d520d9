"""The plugins of a set at one time. A change makes a new state.

Nothing in a state changes, except which failure was the last.

Decisions: docs/decisions.md, 21.8.
"""

from __future__ import annotations

from .._host.plugin_log import get_logger
from .._manifest.messages import truncate
from ..errors import OptionError
from .dispatch import ParseError
from .metadata import PluginFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .._host.thread_call import ThreadCall
    from ..errors import Error
    from .discovery import PluginSource, Stamp
    from .loaded_plugin import LoadedPlugin

__all__ = ["PluginEntry", "State", "log"]

log = get_logger("plugins")


class PluginEntry:
    """A plugin of a set at one time. Once it is in a state, only `last_failure` changes."""

    __slots__ = ("enabled", "error", "last_failure", "loaded", "metadata", "source", "stamp")

    def __init__(
        self,
        source: PluginSource,
        metadata: PluginFile | None = None,
        *,
        stamp: Stamp | None = None,
        enabled: bool = True,
        loaded: LoadedPlugin | None = None,
        error: Error | None = None,
    ) -> None:
        self.source = source
        self.metadata = metadata or PluginFile()
        self.stamp = stamp
        self.enabled = enabled
        self.loaded = loaded
        self.error = error
        self.last_failure: str | None = None

    @property
    def name(self) -> str:
        return self.source.name

    def call(
        self,
        function_name: str,
        data: Any,
        options: dict[str, Any],
        thread_call: ThreadCall | None = None,
    ) -> Any:
        assert self.loaded is not None
        return self.loaded.call(function_name, data, options, thread_call)

    def record_failure(self, hook: str, error: Exception, stop: bool) -> Exception:
        """Keep and log the error of a call. Return it, or raise it if `stop` is set."""
        reason = error
        if isinstance(error, OptionError):
            raise error  # no plugin's fault: the application has passed what cannot be sent
        if isinstance(error, ParseError):
            reason = error.reason
            what = (
                f"`{hook}` of plugin `{self.name}`: its output cannot be parsed: "
                f"{type(reason).__name__}: {reason}"
            )
        else:
            what = str(getattr(error, "message", error))
        self.last_failure = truncate(what)
        if stop:
            raise reason from reason.__cause__
        log.warning("plugin %s failed: %s", truncate(self.name), self.last_failure)
        return reason


class State:
    """The plugins of a set at one time.

    Attributes:
        found: The plugins by name, in the order in which they were found.
        entries: The plugins by name, in the order in which they are called.
        others: Plugins whose names were taken.
        hooks: The plugins that serve each hook, in the order in which they are called.
    """

    __slots__ = ("entries", "found", "hooks", "others")

    def __init__(
        self,
        entries: dict[str, PluginEntry],
        others: tuple[PluginEntry, ...],
        order: Mapping[str, int],
    ) -> None:
        last = len(order)
        ordered = sorted(
            entries.values(),
            key=lambda entry: (order.get(entry.name, last), entry.metadata.plugin.order),
        )
        self.found = entries
        self.entries = {entry.name: entry for entry in ordered}
        self.others = others
        hooks: dict[str, list[PluginEntry]] = {}
        for entry in ordered:
            for hook in entry.loaded.hooks if entry.loaded is not None else ():
                hooks.setdefault(hook, []).append(entry)
        self.hooks = {hook: tuple(serving) for hook, serving in hooks.items()}
