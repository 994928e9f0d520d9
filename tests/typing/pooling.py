"""Pools, and one export over many inputs."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import dataclass
from typing import assert_type

import plugwasm
from plugwasm import codecs


@dataclass
class User:
    name: str


def pools_are_made_of_what_plugins_are_made_of(compiled: plugwasm.CompiledPlugin) -> None:
    with plugwasm.PluginPool(compiled, size=2, wait=2.0, fresh=True) as pool:
        assert_type(pool, plugwasm.PluginPool)
    plugwasm.PluginPool("plugin.wasm", True, {"key": "value"}, [])
    plugwasm.PluginPool(factory=lambda: plugwasm.IsolatedPlugin("plugin.wasm"), size=1)
    plugwasm.PluginPool(factory=lambda: plugwasm.Plugin(compiled))


def calls_have_the_types_of_calls(pool: plugwasm.PluginPool) -> None:
    assert_type(pool.call("f", "text"), bytes)
    assert_type(pool.call("f", "text", wait=0), bytes)
    assert_type(pool.call("f", "text", returns=str), str)
    assert_type(pool.call("f", "text", returns=list[User], codec=codecs.MSGPACK), list[User])
    assert_type(pool.call("f", "text", returns=User | None, wait=None), User | None)
    assert_type(pool.call("f", "text", parse=int), int)
    with pool.plugin(wait=1) as plugin:
        assert_type(plugin, plugwasm.Plugin)
        assert_type(plugin.call("f", parse=None), memoryview)
    assert_type(pool.stats.made, int)


def show(done: int, total: int | None) -> None:
    print(done, total)


def a_map_takes_any_inputs(pool: plugwasm.PluginPool) -> None:
    assert_type(pool.map("f", ["text"]), Generator[bytes, None, None])
    assert_type(pool.map("f", ["text"], returns=User), Generator[User, None, None])
    assert_type(pool.map("f", ["text"], parse=len), Generator[int, None, None])
    users: list[User] = list(
        pool.map("f", (f"{n}" for n in itertools.count()), workers=2, ahead=4, returns=User)
    )
    lengths: list[int] = list(pool.map("f", ["text"], parse=len, on_progress=show))
    for output in pool.map("f", [b"", {"name": "Ada"}], return_exceptions=True, wait=None):
        print(output, users, lengths)


def what_is_wrong(pool: plugwasm.PluginPool) -> None:
    plugwasm.PluginPool("plugin.wasm", size="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugwasm.PluginPool(factory=lambda: 1)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    pool.call("f", parse=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    user: User = pool.call("f")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    pool.map("f", 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    pool.map("f", [], on_progress=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(user)
