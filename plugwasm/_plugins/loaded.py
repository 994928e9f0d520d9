"""A plugin of a set that is compiled, and the instances that are kept for its next calls."""

from __future__ import annotations

from collections import deque

from .._link import is_callable
from .._source import Recipe
from ..compiled import CompiledPlugin
from ..plugin import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Loaded", "same"]


class Loaded:
    """A plugin that is compiled, with instances that wait for calls.

    No lock: appending and popping are atomic, and of `retire` and `_give`, whichever comes last empties `_idle`.
    """

    __slots__ = ("_config", "_idle", "_kept", "_retired", "asked", "compiled", "defaults", "hooks")

    def __init__(
        self,
        compiled: CompiledPlugin,
        asked: Recipe | CompiledPlugin,
        config: Mapping[str, str | None],
        defaults: dict[str, str],
        kept: int,
        declared: frozenset[str] | None = None,
    ) -> None:
        self.compiled = compiled
        self.asked = asked
        self.defaults = defaults
        names = (item.name for item in compiled.exports if is_callable(item))
        self.hooks = tuple(sorted(name for name in names if (_is_hook(name) if declared is None else name in declared)))
        self._config = {**defaults, **compiled._recipe.config, **config}
        self._idle: deque[Plugin] = deque()
        self._kept = kept
        self._retired = False

    def call(self, function_name: str, data: Any, options: dict[str, Any]) -> Any:
        try:
            plugin = self._idle.pop()  # the one that was used last: its memory is still in the processor's caches
        except IndexError:
            plugin = Plugin(self.compiled, config=self._config)
        try:
            return plugin.call(function_name, data, **options)
        finally:
            self._give(plugin)

    def _give(self, plugin: Plugin) -> None:
        if len(self._idle) < self._kept:
            self._idle.append(plugin)
        else:
            plugin.close()
        if self._retired:
            self.retire()

    def retire(self) -> None:
        """Lets go of the instances, now and as their calls end."""
        self._retired = True
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


def _is_hook(name: str) -> bool:
    return not name.startswith("_") and name.isprintable()


def same(old: Recipe | CompiledPlugin, new: Recipe | CompiledPlugin) -> bool:
    """Whether two recipes say the same."""
    if not (isinstance(old, Recipe) and isinstance(new, Recipe)):
        return old is new
    fields = [field for field in Recipe.__slots__ if field != "modules"]
    return all(getattr(old, field) == getattr(new, field) for field in fields) and [(m.name, m.wasm) for m in old.modules] == [
        (m.name, m.wasm) for m in new.modules
    ]
