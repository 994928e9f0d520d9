"""Interfaces bound to plugins: type checkers see the class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, assert_type

import plugwasm
from plugwasm import codecs
from plugwasm.interfaces import bind


@dataclass
class User:
    name: str


class Search(Protocol):
    def find(self, name: str) -> list[User]: ...
    def count(self, name: str, *, limit: int = 10) -> int: ...
    def forget(self) -> None: ...

    @plugwasm.export("find_one", codec=codecs.MSGPACK)
    def one(self, name: str) -> User | None: ...


class Later(Protocol):
    async def find(self, name: str) -> list[User]: ...

    @plugwasm.export("find_one")
    async def one(self, name: str) -> User | None: ...


class Base(ABC):
    @abstractmethod
    def find(self, name: str) -> list[User]: ...

    def names(self, name: str) -> list[str]:
        return [user.name for user in self.find(name)]


def wants_search(search: Search) -> None:
    print(search)


def a_bound_plugin_is_of_the_interface(plugin: plugwasm.Plugin) -> None:
    search = plugin.bind(Search)
    assert_type(search, Search)
    assert_type(search.find("Ada"), list[User])
    assert_type(search.count("Ada", limit=1), int)
    assert_type(search.one("Ada"), User | None)
    search.forget()
    wants_search(search)


def so_is_whatever_else_can_be_called(
    isolated: plugwasm.IsolatedPlugin, pool: plugwasm.PluginPool
) -> None:
    assert_type(isolated.bind(Search), Search)
    assert_type(pool.bind(Search), Search)
    assert_type(bind(isolated, Search), Search)


def an_abstract_class_serves_as_well(plugin: plugwasm.Plugin) -> None:
    base = plugin.bind(Base)
    assert_type(base, Base)
    assert_type(base.names("Ada"), list[str])


async def async_methods_are_awaited(plugin: plugwasm.Plugin, pool: plugwasm.PluginPool) -> None:
    later = plugin.bind(Later)
    assert_type(later, Later)
    assert_type(await later.find("Ada"), list[User])
    assert_type(await pool.bind(Later).one("Ada"), User | None)


def export_changes_no_type() -> None:
    @plugwasm.export("other")
    def method(number: int, text: str = "") -> float:
        return number / len(text)

    assert_type(method(1, text="2"), float)
    method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def what_is_wrong(plugin: plugwasm.Plugin) -> None:
    search = plugin.bind(Search)
    search.find(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    search.find()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    search.lose("Ada")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    names: list[str] = search.find("Ada")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(names)
    later: Search = plugin.bind(Later)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(later)
    plugin.bind(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugwasm.export(codec=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
