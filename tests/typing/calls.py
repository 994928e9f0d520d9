"""Calls: the output has the requested type."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NewType, TypedDict, assert_type

import plugwasm
from plugwasm import codecs


@dataclass
class User:
    name: str


class Row(TypedDict):
    id: int


UserId = NewType("UserId", str)


def outputs_are_bytes(plugin: plugwasm.Plugin) -> None:
    assert_type(plugin.call("f"), bytes)
    assert_type(plugin.call("f", "text"), bytes)
    assert_type(plugin.call("f", {"name": "Ada"}, host_context=1), bytes)
    assert_type(plugin.call("f", "text", bytes), bytes)
    assert_type(plugin.call("f", [User("Ada")], codec=codecs.MSGPACK), bytes)


def returns_names_the_type(plugin: plugwasm.Plugin) -> None:
    assert_type(plugin.call("f", returns=str), str)
    assert_type(plugin.call("f", returns=bytes), bytes)
    assert_type(plugin.call("f", "text", returns=User), User)
    assert_type(plugin.call("f", "text", returns=Row), Row)
    assert_type(plugin.call("f", "text", returns=UserId), UserId)
    assert_type(plugin.call("f", "text", returns=list[User]), list[User])
    assert_type(
        plugin.call("f", "text", returns=dict[str, list[User | None]]), dict[str, list[User | None]]
    )
    assert_type(plugin.call("f", "text", returns=tuple[int, str]), tuple[int, str])
    assert_type(plugin.call("f", "text", returns=type(None)), None)
    assert_type(plugin.call("f", "text", returns=User, codec=codecs.MSGPACK), User)


def returns_takes_what_is_no_class(plugin: plugwasm.Plugin) -> None:
    assert_type(plugin.call("f", "text", returns=User | None), User | None)
    assert_type(plugin.call("f", "text", returns=int | str), int | str)
    assert_type(plugin.call("f", "text", returns=list[int] | Row), list[int] | Row)
    assert_type(plugin.call("f", "text", returns=Literal["a", "b"]), Literal["a", "b"])
    assert_type(plugin.call("f", "text", returns=User | None, codec=codecs.JSON), User | None)


def measured_calls_keep_the_type() -> None:
    with plugwasm.Plugin("plugin.wasm", observe=True) as plugin:
        result = plugin.call("f", "text", returns=plugwasm.Measured[list[User]])
        assert_type(result, plugwasm.Measured[list[User]])
        assert_type(result.value, list[User])
        assert_type(result.call.seconds, float)


def parse_makes_the_type(plugin: plugwasm.Plugin) -> None:
    assert_type(plugin.call("f", "text", int), int)
    assert_type(plugin.call("f", "text", parse=bytes.decode), str)
    assert_type(plugin.call("f", "text", parse=len), int)
    assert_type(plugin.call("f", "text", parse=lambda output: output.split()), list[bytes])
    assert_type(plugin.call("f", "text", parse=json.loads), Any)
    with assert_type(plugin.call("f", "text", parse=None), memoryview) as view:
        assert_type(view.tobytes(), bytes)


def a_codec_is_whatever_has_the_two_methods(plugin: plugwasm.Plugin) -> None:
    class Mine:
        def encode(self, value: Any, /) -> bytes:
            return repr(value).encode()

        def decode(self, data: bytes, type: Any, /) -> Any:
            return data

    class Half:
        def encode(self, value: Any, /) -> bytes:
            return b""

    assert_type(plugin.call("f", 1, returns=User, codec=Mine()), User)
    plugin.call("f", 1, codec=Half())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def another_process_has_the_same_types() -> None:
    limits = plugwasm.ProcessLimits(memory_bytes=None, user=(1000, 1000))
    with plugwasm.IsolatedPlugin(Path("plugin.wasm"), process=limits) as plugin:
        assert_type(plugin, plugwasm.IsolatedPlugin)
        assert_type(plugin.call("f", "text"), bytes)
        assert_type(plugin.call("f", "text", returns=list[User]), list[User])
        assert_type(plugin.call("f", "text", returns=User | None), User | None)
        assert_type(plugin.call("f", "text", parse=int), int)
        assert_type(plugin.confinement, tuple[str, ...])


def everything_that_can_be_a_plugin() -> None:
    compiled = plugwasm.CompiledPlugin(
        b"\0asm", wasi=plugwasm.WasiOptions(clock=plugwasm.FrozenClock()), functions=[]
    )
    manifest = plugwasm.Manifest(wasm=[plugwasm.WasmSource(path="plugin.wasm")])
    for source in (
        compiled,
        manifest,
        "plugin.wasm",
        Path("plugin.wasm"),
        {"wasm": [{"path": "plugin.wasm"}]},
    ):
        with plugwasm.Plugin(
            source, config={"key": "value", "other": None}, limits=plugwasm.Limits(timeout=None)
        ) as plugin:
            assert_type(plugin, plugwasm.Plugin)
            assert_type(plugin.exports, tuple[plugwasm.Item, ...])
            assert_type(plugin.config, dict[str, str])
            assert_type(plugin.vars, dict[str, bytes])
            assert_type(plugin.fuel_used, int | None)
            assert_type(plugin.cancel_handle().cancel(), bool)


def what_is_wrong(plugin: plugwasm.Plugin) -> None:
    plugin.call(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    plugin.call("f", "text", retuns=str)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    plugin.call("f", "text", returns=User("Ada"))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    plugin.call("f", "text", parse=int, returns=int)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    plugin.call("f", "text", parse=str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    user: User = plugin.call("f", "text")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    users: list[str] = plugin.call("f", "text", returns=list[User])  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(user, users)
    plugwasm.Plugin(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugwasm.Plugin("plugin.wasm", config={"key": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    plugwasm.Plugin("plugin.wasm", limits=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugwasm.Plugin("plugin.wasm", functions=[len])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    plugwasm.Plugin("plugin.wasm", observe=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plugwasm.Limits(timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
