"""What a set knows at one time. A change makes another state; nothing in one changes but what failed last."""

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

    from .._host.event_loop import ThreadCall
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
        """Keeps and logs what a call failed with, and gives it, or raises it if it is to stop the others."""
        reason = error
        if isinstance(
            error, OptionError
        ):  # no plugin's fault: the application has given what cannot be sent
            raise error
        if isinstance(error, ParseError):
            reason = error.reason
            what = f"`{hook}` of plugin `{self.name}`: its output cannot be parsed: {type(reason).__name__}: {reason}"
        else:
            what = str(getattr(error, "message", error))
        self.last_failure = truncate(what)
        if stop:
            raise reason from reason.__cause__
        log.warning("plugin %s failed: %s", truncate(self.name), self.last_failure)
        return reason


class State:
    """The plugins of a set at one time: `found` in the order in which they were found, `entries` in that in which they are asked."""

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
