"""A module of a plugin with the sources of its imports, and instances of it."""

from __future__ import annotations

from .._engine import ExportName, HostFunction
from .._host import kernel as _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._engine import Instance, Module
    from .._host.guest import Guest
    from .._manifest.limits import Limits

    Source = str | HostFunction | tuple[int, str]

__all__ = ["Unit", "has_heap", "instantiate_unit"]


class Unit:
    """A module of a plugin, and the source of each of its imports.

    Attributes:
        has_own_store: Whether it is a command that can be instantiated in a store of its own,
            because the host can call all that it imports.
        sources: For each import: a kernel export, a host function, or the export of a unit.
        made_sources: Those of `sources`, once each, that a new instance does not find among the
            kernel's exports.
        own_store_imports: For each import of a command with its own store, a function that stands
            for it there.
    """

    __slots__ = (
        "has_own_store",
        "index",
        "is_command",
        "label",
        "made_sources",
        "module",
        "name",
        "own_store_imports",
        "sources",
    )

    def __init__(self, index: int, name: str, module: Module, label: str) -> None:
        self.index = index
        self.name = name
        self.label = label
        """The name in messages, with what it is the name of."""
        self.module = module
        self.is_command = "_start" in module.exports and "_initialize" not in module.exports
        self.has_own_store = self.is_command and all(
            item.kind == "function" for item in module.imports
        )
        self.sources: list[Source] = []
        self.made_sources: list[HostFunction | tuple[int, str]] = []
        self.own_store_imports: list[HostFunction] = []


def instantiate_unit(unit: Unit, guest: Guest) -> Instance:
    """Make an instance in the guest's own store."""
    store, items = guest.store, guest.externs
    for source in unit.made_sources:
        if source not in items:
            items[source] = (
                guest.make_import(source, store)
                if isinstance(source, HostFunction)
                else guest.instances[source[0]].export(ExportName(source[1]))
            )
    imports = b"".join(map(items.__getitem__, unit.sources))
    if unit.module.is_inlined:
        imports += b"".join(map(items.__getitem__, _kernel.MEMORIES))
    return store.instantiate(unit.module, imports, guest.pending)


def has_heap(module: Module, limits: Limits | None) -> bool:
    """Return whether the module may have objects: their heap is one more memory, but hidden."""
    return module.may_use_gc and limits is not None and limits.gc
