"""Host functions from functions, from objects, and with explicit signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Protocol, assert_type

import plugwasm
from plugwasm import CurrentPlugin, Function, Val, ValType, codecs


@dataclass
class User:
    name: str


@plugwasm.host_fn()
def greet(who: str) -> str:
    return f"Hello, {who}"


@plugwasm.host_fn(name="look_up", namespace="my:users")
async def find(
    plugin: CurrentPlugin, user: User, options: Annotated[dict[str, Any], plugwasm.Json]
) -> Annotated[User, codecs.MSGPACK]:
    assert_type(plugin.host_context(), Any)
    return User(user.name + str(options))


@plugwasm.host_fn(signature=([ValType.I64], [ValType.I64]), user_data="data")
def by_hand(plugin: CurrentPlugin, inputs: list[Val], outputs: list[Val], data: str) -> None:
    memory = plugin.memory_at_offset(inputs[0])
    assert_type(memory, plugwasm.Memory)
    outputs[0] = Val(ValType.I64, inputs[0].value)


class Desk:
    def greet(self, who: str) -> str:
        return f"Hello, {who}"


class Greets(Protocol):
    def greet(self, who: str) -> str: ...


def they_are_functions_for_plugins() -> None:
    assert_type(greet, Function)
    assert_type(find, Function)
    assert_type(plugwasm.host_namespace(Desk()), list[Function])
    assert_type(plugwasm.host_namespace(Desk(), "my:desk", interface=Greets), list[Function])
    functions = [greet, by_hand, *plugwasm.host_namespace(Desk())]
    with plugwasm.Plugin("plugin.wasm", functions=functions) as plugin:
        assert_type(plugin.call("f"), bytes)


def what_is_wrong() -> None:
    plugwasm.host_fn(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    plugwasm.host_fn(signature=(["i64"], []))  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    plugwasm.host_namespace(Desk(), interface=Desk())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Function(None, "f", [1], [], print)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
