"""A plugin of a set that can be called, with the instances that are kept for its next calls."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .._host.options import NOT_GIVEN
from .._manifest.resolve import PluginSpec
from .._runtime.linker import is_callable_export
from .._runtime.plugin import Plugin
from .._runtime.recycling import resolve_recycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .._host.thread_call import ThreadCall
    from .._manifest.limits import ProcessLimits
    from .._runtime.compiled_plugin import CompiledPlugin
    from .._runtime.recycling import Recycle

__all__ = ["InstancePolicy", "LoadedPlugin", "is_same_plugin"]


class InstancePolicy(NamedTuple):
    """How a set runs its plugins.

    Attributes:
        hooks: The names that are hooks; None for all that are exported.
        instances: How many idle instances of a plugin are kept; of a plugin in processes of its
            own, how many processes there are at most.
        fresh: Whether each call gets a new instance.
        process: The limits of each process; None for plugins in the process of the application.
        recycle: When instances are recycled; None for never, `NOT_GIVEN` for as a pool does.
    """

    hooks: frozenset[str] | None
    instances: int
    fresh: bool
    process: ProcessLimits | None
    recycle: Recycle | None = NOT_GIVEN

    def recycle_for(self, compiled: CompiledPlugin) -> Recycle | None:
        """Return when the instances of a plugin are recycled."""
        return None if self.fresh else resolve_recycle(self.recycle, compiled)


class LoadedPlugin:
    """A plugin that can be called, with instances that wait for calls.

    There is no lock: appending and popping are atomic, and of `retire` and `_keep_or_close`,
    whichever comes last empties `_idle`.

    Attributes:
        compiled: The compiled plugin.
        requested: What the source gave, before the policy of the set was applied.
        defaults: The defaults of its settings.
        hooks: The hooks that it serves, sorted.
    """

    __slots__ = (
        "_config",
        "_idle",
        "_max_idle",
        "_recycle",
        "_retired",
        "compiled",
        "defaults",
        "hooks",
        "requested",
    )

    def __init__(
        self,
        compiled: CompiledPlugin,
        requested: PluginSpec | CompiledPlugin,
        config: Mapping[str, str | None],
        defaults: dict[str, str],
        instance_policy: InstancePolicy,
    ) -> None:
        self.requested = requested
        self.defaults = defaults
        self._config = {**defaults, **compiled._spec.config, **config}
        self.compiled = self._prepare(compiled, instance_policy)
        names = (item.name for item in self.compiled.exports if is_callable_export(item))
        self.hooks = tuple(
            sorted(
                name
                for name in names
                if (
                    _is_hook(name)
                    if instance_policy.hooks is None
                    else name in instance_policy.hooks
                )
            )
        )

    def _prepare(self, compiled: CompiledPlugin, instance_policy: InstancePolicy) -> CompiledPlugin:
        """Prepare for instances. Return a compiled plugin that knows its exports."""
        self._idle: deque[Plugin] = deque()
        self._max_idle = 0 if instance_policy.fresh else instance_policy.instances
        self._recycle = instance_policy.recycle_for(compiled) if self._max_idle else None
        self._retired = False
        return compiled

    def call(
        self,
        function_name: str,
        data: Any,
        options: dict[str, Any],
        thread_call: ThreadCall | None = None,
    ) -> Any:
        """Call an export on an instance that no other call uses.

        If a task awaits the call, `thread_call` is how a cancellation reaches the plugin.
        """
        try:
            # The one that was used last: its memory is still in the processor's caches.
            plugin = self._idle.pop()
        except IndexError:
            plugin = Plugin(self.compiled, config=self._config, recycle=self._recycle)
        try:
            if thread_call is not None:
                thread_call.plugin = plugin
            return plugin.call(function_name, data, **options)
        finally:
            if thread_call is not None:
                thread_call.release_plugin()
            self._keep_or_close(plugin)

    def _keep_or_close(self, plugin: Plugin) -> None:
        if len(self._idle) < self._max_idle:
            self._idle.append(plugin)
        else:
            plugin.close()
        if self._retired:
            self.retire()

    def retire(self) -> None:
        """Close the instances, now and as their calls end."""
        self._retired = True
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


def _is_hook(name: str) -> bool:
    return not name.startswith("_") and name.isprintable()


def is_same_plugin(old: PluginSpec | CompiledPlugin, new: PluginSpec | CompiledPlugin) -> bool:
    """Whether two specs say the same."""
    if not (isinstance(old, PluginSpec) and isinstance(new, PluginSpec)):
        return old is new
    fields = [field for field in PluginSpec.__slots__ if field != "modules"]
    return all(getattr(old, field) == getattr(new, field) for field in fields) and [
        (m.name, m.wasm) for m in old.modules
    ] == [(m.name, m.wasm) for m in new.modules]
