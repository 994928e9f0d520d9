"""Interfaces: a class with annotated methods describes the exports of a plugin, or a namespace of
host functions.

    class Search(Protocol):
        def find(self, name: str) -> list[User]: ...

    users = plugin.bind(Search).find("Ada")
"""

from ._runtime.interfaces import bind, export, host_namespace

__all__ = ["bind", "export", "host_namespace"]
