"""Interfaces: a class with annotated methods stands for the exports of a plugin, or for a namespace of host functions.

class Search(Protocol):
    def find(self, name: str) -> list[User]: ...

users = plugin.bind(Search).find("Ada")
"""

from ._runtime.interfaces import bind, export, host_namespace

__all__ = ["bind", "export", "host_namespace"]
