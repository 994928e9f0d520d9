"""Typed parameters and results of host functions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
import pytest

import plugwasm
from plugwasm import HostFunctionError, Plugin, host_fn
from plugwasm._host.registry import registered
from plugwasm.codecs import JSON, MSGPACK, DecodeError
from tests.support.guests import export, guest
from tests.support.typed_values import Colour, Item, Opaque, Options, Order, Pair, Point, User

PASSING = guest(
    export("run", "(call $give (call $f (call $copy)))"),
    '(import "extism:host/user" "f" (func $f (param i64) (result i64)))',
)
"""`run` passes its input to `f`, and gives what it answers."""


@pytest.fixture
def _own_registry() -> Iterator[None]:
    before = list(registered)
    yield
    registered[:] = before


def make_plugin(kind: Any, f: Any = lambda value: value, returns: Any = None) -> Plugin:
    """Return a plugin whose host function takes and returns values of that type."""

    def function(value: Any) -> Any:
        return f(value)

    function.__annotations__ = {"value": kind, "return": returns or kind}
    return Plugin(PASSING, functions=[host_fn("f")(function)], name="p")


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Order, Order([Item("pen")])),
        (Point, Point(1, 2)),
        (Options, {"depth": 1}),
        (Pair, Pair("a", 1)),
        (User, User(name="Ada", age=36)),
        (list[Item], [Item("a"), Item("b")]),
        (dict[str, Point], {"a": Point(1)}),
        (Item | None, None),
        (Item | None, Item("a")),
        (Annotated[Order, "of an application"], Order([])),
        (Annotated[Order, MSGPACK], Order([Item("pen")])),
        (Annotated[Colour, JSON], Colour.RED),
        (Annotated[str, JSON], "quoted"),
        (Annotated[list[int], JSON, msgspec.Meta(max_length=2)], [1, 2]),
    ],
    ids=str,
)
def test_records_round_trip(kind: Any, value: Any) -> None:
    """Records can be arguments and results of host functions."""
    seen = []
    codec = MSGPACK if MSGPACK in getattr(kind, "__metadata__", ()) else JSON
    with make_plugin(kind, lambda value: seen.append(value) or value) as plugin:
        assert plugin.call("run", codec.encode(value)) == codec.encode(value)
    assert seen == [value]
    assert type(seen[0]) is type(value)


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (
            Order,
            b'{"items": [{"name": 1}]}',
            "no `Order`: expected `str`, got `int` at `$.items[0].name`; it is b'{",
        ),
        (
            User,
            b'{"name": "Eve", "age": -1}',
            "no `User`: input should be greater than or equal to 0 at `$.age`",
        ),
        (list[Item], b"", "Item]`: input data was truncated; it is empty"),
        (Annotated[Order, MSGPACK], b"\xc1", "no `Order`: "),
        (Order, b"[" * 300_000, "nested more than 256 levels deep"),
        (Annotated[list[int], JSON, msgspec.Meta(max_length=2)], b"[1,2,3]", "of length <= 2"),
    ],
    ids=str,
)
def test_invalid_data_is_error(kind: Any, data: bytes, message: str) -> None:
    """The error for invalid data for a host function says where it is."""

    def never(value: Any) -> Any:
        raise AssertionError("it should not be called")

    with make_plugin(kind, never) as plugin, pytest.raises(HostFunctionError) as caught:
        plugin.call("run", data)
    assert "the guest passed for `value` what is" in caught.value.message
    assert message in caught.value.message
    assert isinstance(caught.value.__cause__, DecodeError)


@pytest.mark.usefixtures("_own_registry")
def test_result_of_other_class_is_error() -> None:
    """A result of another class is an error."""
    with (
        make_plugin(str, lambda _: {"name": "pen"}, Item) as plugin,
        pytest.raises(HostFunctionError) as caught,
    ):
        plugin.call("run")
    assert "it should return Item, but returned dict" in caught.value.message


@pytest.mark.usefixtures("_own_registry")
@pytest.mark.parametrize(
    "kind",
    [
        Opaque,
        list[Opaque],
        str | None,
        Item | str,
        Colour,
        datetime,
        list,
        dict,
        Annotated[Opaque, JSON],
    ],
    ids=str,
)
def test_unsupported_types_are_refused(kind: Any) -> None:
    """Unsupported types are refused when the function is created."""
    with pytest.raises(TypeError, match=r"cannot infer|nothing can be converted"):
        make_plugin(kind)


@pytest.mark.usefixtures("_own_registry")
def test_official_marker_gives_plain_json() -> None:
    """The marker of the official SDK still means plain JSON."""
    seen = []
    with make_plugin(
        Annotated[Item, plugwasm.Json], lambda value: seen.append(value) or value
    ) as plugin:
        plugin.call("run", '{"name": 5}')
    assert seen == [{"name": 5}]
