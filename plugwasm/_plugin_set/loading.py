"""Loading the plugins of a set: from sources to entries, within the time that they share.

Decisions: docs/decisions.md, 21.8 and 28.3.
"""

from __future__ import annotations

import time

from .._manifest.files import format_path
from .._manifest.messages import truncate
from .._manifest.resolve import PluginSpec
from .._runtime.compiled_plugin import CompiledPlugin
from .._runtime.inputs import merge_config
from ..errors import Error, ModuleError, SourceError, TimeoutError
from .compile_shares import CompileShares
from .loaded_plugin import LoadedPlugin, is_same_plugin
from .state import PluginEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from .discovery import PluginSource
    from .loaded_plugin import InstancePolicy
    from .metadata import PluginFile
    from .policy import SetPolicy

__all__ = ["Loader"]

_RECENT_NS: Final = 2 * 10**9
"""A file that changed within this time before it was read may change again with the same times."""


class Loader:
    """Reads and loads the plugins of a set, as the application and their authors say.

    Attributes:
        enabled: Whether a plugin is enabled, by name, where the application has said so.
        config: What the application has configured, by the name of the plugin.
    """

    def __init__(
        self,
        policy: SetPolicy,
        instance_policy: InstancePolicy,
        enabled: dict[str, bool],
        config: dict[str, dict[str, str | None]],
    ) -> None:
        self.enabled: dict[str, bool] = enabled
        self.config: dict[str, dict[str, str | None]] = config
        self._policy = policy
        self._instance_policy = instance_policy
        self._loaded_class = LoadedPlugin
        if instance_policy.process is not None:
            from .isolated_plugin import IsolatedLoadedPlugin

            self._loaded_class = IsolatedLoadedPlugin

    def load_all(
        self, sources: list[PluginSource], before: Mapping[str, PluginEntry]
    ) -> tuple[dict[str, PluginEntry], list[PluginEntry]]:
        """Return the entries of all sources by name, and entries of those whose names were taken.

        A plugin that is unchanged keeps its entry of `before`.
        """
        taken: dict[str, PluginEntry] = {}
        others: list[PluginEntry] = []
        shares = CompileShares(self._policy.limits.compile_seconds, len(sources))
        slow: dict[str, float] = {}
        self._policy.begin()
        for source in sources:
            name = source.name
            if name in taken:
                first = format_path(taken[name].source.location)
                error = SourceError(f"there is another plugin `{name}`: {first}")
                others.append(PluginEntry(source, error=error))
                continue
            shares.begin()
            taken[name] = self._refresh(source, _same_source(source, before.get(name)), shares)
            used_up = shares.end()
            if used_up and shares.share is not None and _took_too_long(taken[name].error):
                slow[name] = shares.share
        retry = shares.retry_shares(list(slow.values()))
        if retry is not None:
            for name in slow:
                source = taken[name].source
                retry.begin()
                taken[name] = self._refresh(source, _same_source(source, before.get(name)), retry)
                retry.end()
        for name in slow:
            reason = taken[name].error
            if reason is not None and _took_too_long(reason, whole=False) and len(sources) > 1:
                reason.message += (
                    ", its share of what the plugins of the set have together; "
                    "`enable` tries it alone"
                )
                reason.args = (reason.message,)
        return taken, others

    def load_one(self, old: PluginEntry) -> PluginEntry:
        """Return a new entry for one plugin, with all the time for compiling."""
        shares = CompileShares(self._policy.limits.compile_seconds, 1)
        self._policy.begin()
        shares.begin()
        return self._refresh(old.source, old, shares, anew=True)

    def configure(self, old: PluginEntry, changes: Mapping[str, str | None]) -> PluginEntry:
        """Return an entry for a plugin with changes of its configuration; nothing is compiled."""
        name = old.name
        self.config[name] = self.config.get(name, {}) | checked_config(changes)
        loaded = old.loaded and self._loaded_class(
            old.loaded.compiled,
            old.loaded.requested,
            self.config[name],
            old.loaded.defaults,
            self._instance_policy,
        )
        return PluginEntry(
            old.source,
            old.metadata,
            stamp=old.stamp,
            enabled=old.enabled,
            loaded=loaded,
            error=old.error,
        )

    def _refresh(
        self,
        source: PluginSource,
        old: PluginEntry | None,
        shares: CompileShares,
        *,
        anew: bool = False,
    ) -> PluginEntry:
        """Return the entry of a plugin as its source has it now.

        A loaded plugin stays when the new files cannot be loaded, or say the same.
        """
        if old is not None:
            source = old.source
        with source.open():
            return self._read(source, old, shares, anew)

    def _read(
        self, source: PluginSource, old: PluginEntry | None, shares: CompileShares, anew: bool
    ) -> PluginEntry:
        now, stamp = time.time_ns(), source.stamp()
        if old is not None and not anew and stamp == old.stamp:
            return old
        wanted = self.enabled.get(source.name)
        entry = PluginEntry(source, stamp=stamp, enabled=True if wanted is None else wanted)
        if old is not None:
            entry.metadata, entry.loaded = old.metadata, old.loaded
            entry.enabled = old.enabled if wanted is None else wanted
        try:
            metadata = source.read_metadata()
            if entry.loaded is None:
                entry.metadata = metadata
            entry.enabled = metadata.plugin.enabled if wanted is None else wanted
            entry.loaded = (
                self._load(source, metadata, entry.loaded, shares) if entry.enabled else None
            )
            entry.metadata = metadata
        except Exception as error:
            said = f"{type(error).__name__}: {truncate(str(error))}"
            reason = (
                error
                if isinstance(error, Error)
                else SourceError(f"{format_path(source.location)}: {said}")
            )
            entry.error = reason.with_traceback(None)
        if old is not None and entry.loaded is old.loaded:
            entry.last_failure = old.last_failure
        if any(file and max(file[3:]) + _RECENT_NS > now for file in stamp):
            entry.stamp = None
        return entry

    def _load(
        self,
        source: PluginSource,
        metadata: PluginFile,
        old: LoadedPlugin | None,
        shares: CompileShares,
    ) -> LoadedPlugin:
        requested = source.load(metadata, self._policy.limits.module_bytes)
        defaults = {
            name: setting.default
            for name, setting in metadata.plugin.settings.items()
            if setting.default is not None
        }
        if (
            old is not None
            and old.defaults == defaults
            and is_same_plugin(old.requested, requested)
        ):
            return old
        compiled = (
            requested
            if isinstance(requested, CompiledPlugin)
            else self._policy.compile(source.name, requested, shares.share)
        )
        loaded = self._loaded_class(
            compiled, requested, self.config.get(source.name, {}), defaults, self._instance_policy
        )
        if isinstance(requested, PluginSpec):
            # The limit is no longer the share of the time for compiling.
            loaded.compiled.limits = self._policy.limits_of(requested)
        return loaded


def _took_too_long(error: Error | None, *, whole: bool = True) -> bool:
    """Return whether a plugin may be loaded if it has more time.

    Args:
        error: Why it was not.
        whole: Whether any module may be, whatever its error says.
    """
    if isinstance(error, ModuleError):
        return whole or error.limit == "compile_seconds"
    return isinstance(error, TimeoutError)


def _same_source(source: PluginSource, old: PluginEntry | None) -> PluginEntry | None:
    return old if old is not None and old.source.key == source.key else None


def checked_config(changes: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return a copy of changes of a configuration. Raise `OptionError` if they are not valid."""
    merge_config({}, changes)
    return dict(changes)
