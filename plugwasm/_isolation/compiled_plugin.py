"""A plugin whose compiled code is in a worker: what the application's process knows of it."""

from __future__ import annotations

from .._engine import FunctionType, Item
from .._host.registry import warn_registered_imports
from .._runtime.compiled_plugin import CompiledPlugin
from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from . import protocol

__all__ = ["RemoteCompiledPlugin", "RemotePlan"]


class RemoteCompiledPlugin(CompiledPlugin):
    """The modules and the settings of a plugin whose compiled code is in a worker."""

    __slots__ = ()

    @classmethod
    def from_compiled(cls, plugin: CompiledPlugin) -> RemoteCompiledPlugin:
        """Return the modules and the settings of another compiled plugin."""
        made = cls.__new__(cls)
        for name in CompiledPlugin.__slots__:
            if name not in _BUILT and hasattr(plugin, name):
                setattr(made, name, getattr(plugin, name))
        return made

    def _build(self) -> None:
        pass

    def _warn(self) -> None:
        if self._uses_registered and self._offered and hasattr(self, "_plan"):
            imported = {self._offered.get((item.module, item.name)) for item in self.imports}
            warn_registered_imports(self.name, self.functions, imported)


_BUILT = ("_plan", "_pooled_plan")


class RemotePlan:
    """A worker's report of the plugin that it has linked: the part of a `Plan` known here."""

    __slots__ = ("first_pages", "main", "main_pages", "module")

    def __init__(self, loaded: protocol.Loaded) -> None:
        self.first_pages, self.main_pages = loaded.first_pages, loaded.main_pages
        self.main = self
        self.module = RemoteModule(
            {item.name: _item(item) for item in loaded.exports},
            tuple(map(_item, loaded.imports)),
        )

    @property
    def engine(self) -> NoReturn:
        raise OptionError(
            "this plugin is compiled in the process of an IsolatedPlugin, and runs only "
            "there: make a CompiledPlugin for others"
        )


class RemoteModule:
    __slots__ = ("exports", "imports")

    def __init__(self, exports: dict[str, Item], imports: tuple[Item, ...]) -> None:
        self.exports = exports
        self.imports = imports


def _item(item: protocol.ItemType) -> Item:
    type = (
        None
        if item.params is None or item.results is None
        else FunctionType(tuple(item.params), tuple(item.results))
    )
    return Item(item.module, item.name, item.kind, type)
