"""Typed calls: how values are encoded and decoded, and errors that say where an output is wrong."""

from __future__ import annotations

import array
import dataclasses
import enum
import json
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import strategies as st

import plugwasm
from plugwasm import IsolatedPlugin, Plugin
from plugwasm._host import codecs
from plugwasm._payload_bounds.nesting import MAX_LEVELS, is_msgpack_too_deep
from plugwasm.codecs import JSON, MSGPACK, RAW, DecodeError, TypedCodec
from plugwasm.errors import OutputError
from tests.support.guests import export, guest
from tests.support.typed_values import Colour, Item, Opaque, Options, Order, Pair, Point, User

ECHO = guest(export("echo", "(call $echo)") + export("none", ""))


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Team(pydantic.BaseModel):
    members: list[User]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    day: date


@dataclasses.dataclass
class Company:
    teams: dict[str, Team]
    owner: User


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with Plugin(ECHO, functions=[], name="echo") as plugin:
        yield plugin


def output_error(plugin: Plugin, output: str | bytes, returns: Any, **options: Any) -> OutputError:
    """Return the error for an output that is not of that type."""
    with pytest.raises(OutputError) as caught:
        plugin.call(
            "echo",
            output.encode() if isinstance(output, str) else output,
            returns=returns,
            **options,
        )
    return caught.value


# What is sent

SENT = [
    ("ä text", "ä text".encode()),
    (b"\x00\xff", b"\x00\xff"),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"a.b.")[::2], b"ab"),
    (array.array("B", [1, 2]), b"\x01\x02"),
    (Mode.FAST, b"fast"),
    (7, b"7"),
    (-1.5, b"-1.5"),
    (True, b"true"),
    (None, b"null"),
    ([1, "a"], b'[1,"a"]'),
    ((1, 2), b"[1,2]"),
    ({"a": None}, b'{"a":null}'),
    (Order([Item("pen")]), b'{"items":[{"name":"pen","price":0.0}],"placed":null}'),
    (Point(1, 2), b'{"x":1,"y":2}'),
    (Pair("a", 1), b'["a",1]'),
    (Colour.RED, b'"red"'),
    (datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"'),
    (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    (User(name="Ada", age=36), b'{"name":"Ada","age":36,"since":null}'),
    ([User(name="Ada", age=36)], b'[{"name":"Ada","age":36,"since":null}]'),
]


@pytest.mark.parametrize(("value", "sent"), SENT, ids=lambda value: type(value).__name__)
def test_input_encoding(plugin: Plugin, value: Any, sent: bytes) -> None:
    """Text is sent as UTF-8, bytes unchanged, and everything else as JSON."""
    assert plugin.call("echo", value) == sent


def test_input_without_json_form(plugin: Plugin) -> None:
    """An input without a JSON form is a type error, and the plugin stays usable."""
    with pytest.raises(TypeError, match=r"type object cannot be sent.*`codec`"):
        plugin.call("echo", object())
    with pytest.raises(TypeError, match="type list cannot be sent"):
        plugin.call("echo", [object()])
    assert plugin.call("echo", "x") == b"x"


# What comes back

UserId = NewType("UserId", str)

RETURNED: list[tuple[str | bytes, Any, Any]] = [
    ("ä", str, "ä"),
    ("null", str, "null"),
    ("", str, ""),
    ("fast", Mode, Mode.FAST),
    ("u1", UserId, "u1"),
    ("u1", Annotated[str, msgspec.Meta(max_length=2)], "u1"),
    (b"\xff", bytes, b"\xff"),
    (b"\xff", bytearray, bytearray(b"\xff")),
    (b"ab", memoryview, memoryview(b"ab")),
    ("42", int, 42),
    ("42", float, 42.0),
    ("2.5", float, 2.5),
    ("true", bool, True),
    ("null", type(None), None),
    ("", type(None), None),
    ("null", int | None, None),
    ('"a"', str | None, "a"),
    ('"a"', Literal["a", "b"], "a"),
    ('{"a": [1]}', dict, {"a": [1]}),
    ('{"a": [1]}', dict[str, list[int]], {"a": [1]}),
    ('{"a": [1]}', Any, {"a": [1]}),
    ('{"a": [1]}', object, {"a": [1]}),
    ('{"a": [1]}', dict[str, object], {"a": [1]}),
    ('{"a": [1, "b", null]}', dict[str, list[object]], {"a": [1, "b", None]}),
    ("[1, 2]", tuple[int, int], (1, 2)),
    ("[1, 1]", set[int], {1}),
    (
        '{"items": [{"name": "pen"}], "placed": "2026-01-02T00:00:00Z"}',
        Order,
        Order([Item("pen")], datetime(2026, 1, 2, tzinfo=UTC)),
    ),
    ('{"x": 1}', Point, Point(1)),
    ('{"depth": 2}', Options, {"depth": 2}),
    ('["a", 1]', Pair, Pair("a", 1)),
    ('"red"', Colour, Colour.RED),
    ("1", Level, Level.LOW),
    ('"2026-01-02"', date, date(2026, 1, 2)),
    ('"1.10"', Decimal, Decimal("1.10")),
    (f'"{UUID(int=1)}"', UUID, UUID(int=1)),
    (
        '{"name": "Ada", "age": 36, "since": "2026-01-02"}',
        User,
        User(name="Ada", age=36, since=date(2026, 1, 2)),
    ),
    ('[{"name": "Ada", "age": 36}]', list[User], [User(name="Ada", age=36)]),
    ('{"day": "2026-01-02"}', Strict, Strict(day=date(2026, 1, 2))),
    ('[{"day": "2026-01-02"}]', list[Strict], [Strict(day=date(2026, 1, 2))]),
]


@pytest.mark.parametrize(
    ("output", "returns", "value"),
    RETURNED,
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_output_type_conversion(
    plugin: Plugin, output: str | bytes, returns: Any, value: Any
) -> None:
    """The output is converted to the requested type."""
    result: Any = plugin.call(
        "echo", output.encode() if isinstance(output, str) else output, returns=returns
    )
    assert result == value
    assert type(result) is type(value)


def test_no_output_is_none(plugin: Plugin) -> None:
    assert plugin.call("none", "anything", returns=type(None)) is None


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=repr)
@pytest.mark.parametrize(
    ("value", "returns"),
    [
        ("text", str),
        (b"\xff\x00", bytes),
        (None, type(None)),
        (5, int),
        (Order([Item("pen", 1.5)], datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)), Order),
        (Point(1, 2), Point),
        ({"depth": 3}, Options),
        (Pair("a", 1), Pair),
        (Colour.RED, Colour),
        (UUID(int=7), UUID),
        (User(name="Ada", age=36, since=date(2026, 1, 2)), User),
        (
            Company({"a": Team(members=[User(name="Ada", age=36)])}, User(name="Eve", age=1)),
            Company,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_codec_round_trip(plugin: Plugin, codec: TypedCodec, value: Any, returns: Any) -> None:
    """A codec encodes and decodes every type."""
    assert plugin.call("echo", value, codec=codec) == codec.encode(value)
    assert plugin.call("echo", value, returns=returns, codec=codec) == value


def test_codec_encodes_text_input(plugin: Plugin) -> None:
    """With a codec, text is encoded by it, and empty bytes are still no input."""
    assert plugin.call("echo", "a", codec=JSON) == b'"a"'
    assert plugin.call("echo", "a", codec=MSGPACK) == b"\xa1a"
    assert plugin.call("echo", "a", codec=RAW) == b"a"
    assert plugin.call("echo", b"a", codec=JSON) == b'"YQ=="'
    for codec in (JSON, MSGPACK, RAW):
        assert plugin.call("echo", codec=codec) == b""


def test_raw_is_for_text_and_bytes_only(plugin: Plugin) -> None:
    assert plugin.call("echo", bytearray(b"ab"), returns=str, codec=RAW) == "ab"
    assert plugin.call("echo", "ab", returns=bytes, codec=RAW) == b"ab"
    with pytest.raises(TypeError, match=r"RAW gives str, bytes.*`int`"):
        plugin.call("echo", "1", returns=int, codec=RAW)
    with pytest.raises(TypeError):
        plugin.call("echo", 1, codec=RAW)


class Reversed:
    """An application's own codec."""

    def encode(self, value: Any) -> bytes:
        return str(value)[::-1].encode()

    def decode(self, data: bytes, type: Any) -> Any:
        if data == b"where":
            raise DecodeError("unlucky", "$.here")
        return type(data.decode()[::-1])


def test_a_codec_of_ones_own_makes_both(plugin: Plugin) -> None:
    assert plugin.call("echo", 123, codec=Reversed()) == b"321"
    assert plugin.call("echo", 123, returns=int, codec=Reversed()) == 123
    error = output_error(plugin, "x", int, codec=Reversed())
    assert "ValueError: invalid literal for int()" in error.message
    assert isinstance(error.__cause__, ValueError)
    with pytest.raises(OutputError) as caught:
        plugin.call("echo", "erehw", returns=int, codec=Reversed())
    assert (caught.value.path, "unlucky at `$.here`" in caught.value.message) == ("$.here", True)


# What is refused before the call

COUNTING = guest(
    "(global $n (mut i64) (i64.const 0))"
    + export(
        "count",
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (call $answer (global.get $n))",
    )
)


@pytest.mark.parametrize(
    "returns",
    [Opaque, list[Opaque], dict[str, list[Opaque]], "int", 5, len, type[int]],
    ids=["a class", "in a list", "in a dict", "text", "a number", "a function", "type"],
)
def test_unsupported_type_is_refused(returns: Any) -> None:
    """A type that no output can be converted to is refused before the plugin runs."""
    with Plugin(COUNTING, functions=[]) as plugin:
        with pytest.raises(TypeError):
            plugin.call("count", returns=returns)
        assert plugin.call("count") == (1).to_bytes(8, "little")


def test_unsupported_type_error_suggests(plugin: Plugin) -> None:
    """The error for such a type suggests what to use."""
    with pytest.raises(
        TypeError,
        match=r"`Opaque` \(in `list\[.*Opaque\]`\): use .* a dataclass.*`codec` of your own",
    ):
        plugin.call("echo", returns=list[Opaque])


@pydantic.dataclasses.dataclass
class Checked:
    n: pydantic.PositiveInt


class Holding(pydantic.BaseModel):
    checked: list[Checked]


def test_pydantic_dataclass_is_validated(plugin: Plugin) -> None:
    """A Pydantic dataclass is always validated."""
    assert plugin.call("echo", '{"n": 5}', returns=Checked) == Checked(5)
    assert output_error(plugin, '{"n": -5}', Checked).path == "$.n"
    assert output_error(plugin, '{"checked": [{"n": -5}]}', Holding).path == "$.checked[0].n"
    with pytest.raises(
        TypeError, match=r"`Checked` \(in .*\) is a dataclass of pydantic.*make it a model"
    ):
        plugin.call("echo", returns=list[Checked])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = …` is new in Python 3.12")
def test_type_alias(plugin: Plugin) -> None:
    """A type alias is handled like its type."""
    names: dict[str, Any] = {}
    exec("type Text = str\ntype Numbers = list[int]", names)
    assert plugin.call("echo", "a", returns=names["Text"]) == "a"
    assert plugin.call("echo", "[1]", returns=names["Numbers"]) == [1]


def test_parse_and_returns_are_exclusive(plugin: Plugin) -> None:
    """`parse` and `returns` cannot be combined."""
    with pytest.raises(TypeError, match="either `parse` or `returns`"):
        plugin.call("echo", parse=len, returns=int)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="either `parse` or `returns`"):
        plugin.call("echo", parse=None, returns=int)  # type: ignore[call-overload]


def test_parse_with_input_codec(plugin: Plugin) -> None:
    """`parse` can be combined with a codec for the input."""
    assert plugin.call("echo", {"a": 1}, parse=msgspec.msgpack.decode, codec=MSGPACK) == {"a": 1}


# Wrong output

WRONG: list[tuple[str | bytes, Any, str, str]] = [
    (
        '{"items": [{"name": "a"}, {"name": 3}]}',
        Order,
        "expected `str`, got `int`",
        "$.items[1].name",
    ),
    ('{"items": [{"price": 1}]}', Order, "object missing required field `name`", "$.items[0]"),
    ("{}", Order, "object missing required field `items`", "$"),
    ('{"items": [', Order, "input data was truncated", "$"),
    ("", Order, "input data was truncated", "$"),
    ("nonsense", Order, "JSON is malformed", "$"),
    ("[1, 2, 3.5]", list[int], "expected `int`, got `float`", "$[2]"),
    ('{"a": "b"}', dict[str, int], "expected `int`, got `str`", '$["a"]'),
    ('{"a": 1}', dict[int, int], "expected `int`, got `str` as a key", "$"),
    ("true", int, "expected `int`, got `bool`", "$"),
    ("NaN", float, "JSON is malformed", "$"),
    (b"ab\xffc", str, "expected UTF-8 text, got b'\\xffc' (byte 2)", "$"),
    ("slow", Mode, "ValueError: 'slow' is not a valid Mode", "$"),
    ("abc", Annotated[str, msgspec.Meta(max_length=2)], "expected `str` of length <= 2", "$"),
    ('"blue"', Colour, "invalid enum value 'blue'", "$"),
    ('"2026-13-01"', date, "invalid RFC3339 encoded date", "$"),
    ("something", type(None), "expected nothing, or null", "$"),
    (
        '{"members": [{"name": "a", "age": 1}, {"name": "b", "age": -1}]}',
        Team,
        "input should be greater than or equal to 0",
        "$.members[1].age",
    ),
    ('{"members": [', Team, "invalid JSON", "$"),
    (
        '[{"name": "a", "age": 1}, {"name": "b", "age": "x"}]',
        list[User],
        "input should be a valid integer",
        "$[1].age",
    ),
    (
        '{"teams": {"t": {"members": [{}]}}, "owner": {"name": "a", "age": 1}}',
        Company,
        "field required",
        '$.teams["t"].members[0].name',
    ),
]


@pytest.mark.parametrize(
    ("output", "returns", "reason", "path"),
    WRONG,
    ids=[f"{i}: {w[2]}" for i, w in enumerate(WRONG)],
)
def test_invalid_output_error(
    plugin: Plugin, output: str | bytes, returns: Any, reason: str, path: str
) -> None:
    """The error of an invalid output says where, and the plugin stays usable."""
    error = output_error(plugin, output, returns)
    assert reason in error.message
    assert error.path == path
    assert path == "$" or f"at `{path}`" in error.message
    assert error.output == (output.encode() if isinstance(output, str) else output)
    assert (error.plugin, error.function) == ("echo", "echo")
    assert isinstance(error, plugwasm.CallError)
    assert error.__cause__ is not None
    assert plugin.call("echo", "still") == b"still"


def test_invalid_output_message(plugin: Plugin) -> None:
    """The error message is a readable sentence."""
    assert output_error(plugin, '{"items": [{"name": 3}]}', Order).message == (
        '`echo` of plugin `echo`: the output is no `Order`: expected `str`, got `int` at `$.items[0].name`; it is b\'{"items": [{"name": 3}]}\''
    )
    assert output_error(plugin, "", int).message.endswith("it is empty")
    assert output_error(plugin, "x" * 1000, int).message.endswith(f"it begins with {b'x' * 60!r}")


def test_invalid_output_is_shortened(plugin: Plugin) -> None:
    """The error keeps only the first bytes of a long output."""
    error = output_error(plugin, b"x" * 1_000_000, int)
    assert error.output == b"x" * 256
    assert len(error.message) < 400


def test_invalid_output_error_pickles(plugin: Plugin) -> None:
    """The error can be pickled."""
    error = output_error(plugin, "[1]", list[str])
    arrived = pickle.loads(pickle.dumps(error))
    assert (str(arrived), arrived.path, arrived.output) == (str(error), "$[0]", b"[1]")
    assert (arrived.__cause__.reason, arrived.__cause__.path) == (
        "expected `str`, got `int`",
        "$[0]",
    )


def test_invalid_output_message_is_escaped(plugin: Plugin) -> None:
    """The guest's output cannot forge lines of an error message."""

    class Closed(msgspec.Struct, forbid_unknown_fields=True):
        pass

    error = output_error(plugin, b'{"\\nERROR: forged \\u001b[31m": 1}', Closed)
    assert error.message.isprintable()
    assert len(output_error(plugin, b'{"%s": 1}' % (b"x" * 100_000), Closed).message) < 600


def test_type_constructor_error_is_cause(plugin: Plugin) -> None:
    """An exception of an application's class that is constructed from the output is the cause."""

    @dataclasses.dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("odd")
            if self.n:
                raise LookupError("not zero")

    globals()["Even"] = Even
    try:
        assert plugin.call("echo", '{"n": 0}', returns=Even) == Even(0)
        assert "odd" in output_error(plugin, '[{"n": 0}, {"n": 1}]', list[Even]).message
        assert output_error(plugin, '[{"n": 0}, {"n": 1}]', list[Even]).path == "$[1]"
        assert "LookupError: not zero" in output_error(plugin, '{"n": 2}', Even).message
    finally:
        del globals()["Even"]


# Depth


@pytest.mark.parametrize(
    "returns",
    [Any, list, dict, User, Company, Order],
    ids=lambda value: getattr(value, "__name__", "Any"),
)
def test_json_depth_limit(plugin: Plugin, returns: Any) -> None:
    """JSON nested too deep is refused."""
    for opening in ("[", '{"items":[', '{"a":'):
        error = output_error(plugin, opening * 400_000, returns)
        assert "nested more than 256 levels deep" in error.message


@pytest.mark.parametrize(
    "returns", [Any, User, Order], ids=lambda value: getattr(value, "__name__", "Any")
)
def test_messagepack_depth_limit(plugin: Plugin, returns: Any) -> None:
    """MessagePack nested too deep is refused."""
    for opening in (
        b"\x91",
        b"\x81\x01",
        b"\xdc\x00\x02",
        b"\xdd\x00\x00\x00\x01",
        b"\xde\x00\x01\xa1a",
        b"\xdf\x00\x00\x00\x01\xc0",
    ):
        with pytest.raises(OutputError, match="nested more than 256 levels deep"):
            echo_msgpack(plugin, opening * 400_000, returns)


def echo_msgpack(plugin: Plugin, output: bytes, returns: Any) -> Any:
    """Make the plugin return these bytes, to be decoded as MessagePack."""

    class Given:
        def encode(self, value: Any) -> bytes:
            return output

        def decode(self, data: bytes, type: Any) -> Any:
            return MSGPACK.decode(data, type)

    return plugin.call("echo", 1, returns=returns, codec=Given())


def test_depth_limit_is_same_for_both() -> None:
    """JSON and MessagePack have the same depth limit."""
    for opening, closing in ((b"[", b"]"), (b"\x91", b"")):
        codec, core = (JSON, b"1") if closing else (MSGPACK, b"\x01")
        assert codec.decode(opening * MAX_LEVELS + core + closing * MAX_LEVELS, Any)
        with pytest.raises(DecodeError, match="levels deep"):
            codec.decode(opening * (MAX_LEVELS + 1) + core + closing * (MAX_LEVELS + 1), Any)


def depth(value: Any) -> int:
    if isinstance(value, (list, dict)):
        return 1 + max(map(depth, value if isinstance(value, list) else value.values()), default=0)
    return 0


def nested(seed: int, levels: int) -> Any:
    """Return a value of that depth, with siblings of all kinds before and after."""
    pick = random.Random(seed)
    scalars = [
        None,
        True,
        5,
        -5,
        200,
        70_000,
        2**40,
        -(2**40),
        1.5,
        "a",
        "x" * 40,
        "y" * 300,
        "z" * 70_000,
        b"\x91" * 50,
        b"\x81" * 300,
        {},
        [],
    ]
    value: Any = 1
    for _ in range(levels):
        around = [pick.choice(scalars) for _ in range(pick.choice([0, 0, 1, 2, 3, 20]))]
        around.insert(pick.randrange(len(around) + 1), value)
        value = around if pick.random() < 0.5 else {f"k{i}": item for i, item in enumerate(around)}
    return value


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([1, 50, 254, 255, 256, 257, 258, 300]))
def test_messagepack_depth_is_exact(seed: int, levels: int) -> None:
    """The depth of MessagePack is measured exactly."""
    value = nested(seed, levels)
    assert is_msgpack_too_deep(msgspec.msgpack.encode(value)) is (depth(value) > MAX_LEVELS)


@given(data=st.binary(max_size=400).map(lambda data: b"\x91\x92\xdc\xde\xc7\xd9" * 60 + data))
def test_random_bytes_as_messagepack(data: bytes) -> None:
    """Bytes that are not MessagePack raise only our error."""
    for returns in (Any, Order, User):
        try:
            MSGPACK.decode(data, returns)
        except DecodeError:
            pass


@given(data=st.binary(max_size=200))
def test_random_bytes_as_json(data: bytes) -> None:
    """Bytes that are not JSON raise only our error."""
    for returns in (Any, Order, User, str, int, Mode, type(None)):
        try:
            codecs.make_reader(returns)(data)
        except DecodeError:
            pass
        except ValueError as error:
            assert returns is Mode
            assert "is not a valid Mode" in str(error)


# Readers are made once, and threads share them


def test_decoder_is_cached_per_type() -> None:
    """A decoder is created once per type."""
    assert codecs.make_reader(list[Item]) is codecs.make_reader(list[Item])
    unhashable = Annotated[int, msgspec.Meta(extra={"a": 1}), ["a list"]]
    assert codecs.make_reader(unhashable)(b"5") == 5


def test_decoder_made_by_threads_at_once() -> None:
    """Threads can use a type for the first time at once."""
    program = """
import dataclasses, sys, threading
from plugwasm import codecs
sys.setswitchinterval(1e-6)
for n in range(60):
    inner = dataclasses.make_dataclass(f"Inner{n}", [(f"a{i}", int) for i in range(20)])
    outer = dataclasses.make_dataclass(f"Outer{n}", [("x", inner), ("y", list[inner])])
    text = codecs.JSON.encode(outer(inner(*range(20)), []))
    barrier, read = threading.Barrier(4), []
    def first():
        barrier.wait()
        read.append(codecs.JSON.decode(text, outer))
    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(read) == 4 and read[0] == read[3]
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr


def test_types_in_many_threads() -> None:
    """Plugins in many threads each return their own types."""
    results: list[Any] = []

    def work(returns: Any, value: Any) -> None:
        with Plugin(ECHO, functions=[]) as plugin:
            results.extend(plugin.call("echo", value, returns=returns) == value for _ in range(100))

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in ((Order, Order([Item("a")])), (Point, Point(1)), (int, 5), (str, "s"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 400


# Nothing is imported that is not needed


def loaded_after(program: str) -> set[str]:
    start = f"import sys\nimport plugwasm\nplugin = plugwasm.Plugin({ECHO!r}, functions=[])\n"
    code = f"{start}{program}\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(run.stdout.split())


def test_lazy_imports() -> None:
    """Pydantic is never imported, and msgspec only for types that need it."""
    assert not {"msgspec", "plugwasm._host.codecs"} & loaded_after("plugin.call('echo', 'x')")
    assert "msgspec" not in loaded_after("assert plugin.call('echo', 'x', returns=str) == 'x'")
    modules = loaded_after(
        "assert plugin.call('echo', {'a': [1]}, returns=dict[str, list[int]]) == {'a': [1]}"
    )
    assert "msgspec" in modules
    assert "pydantic" not in modules


# In a process of its own


def test_isolated_plugin() -> None:
    """An isolated plugin accepts and returns the same types."""
    with IsolatedPlugin(ECHO, functions=[], name="echo") as plugin:
        assert plugin.call("echo", Order([Item("pen")]), returns=Order) == Order([Item("pen")])
        assert plugin.call("echo", {"a": 1}, returns=dict[str, int], codec=MSGPACK) == {"a": 1}
        assert plugin.call("echo", {"a": 1}) == b'{"a":1}'
        assert output_error(plugin, "[1]", list[str]).path == "$[0]"
        with pytest.raises(TypeError, match="either `parse` or `returns`"):
            plugin.call("echo", parse=None, returns=int)  # type: ignore[call-overload]


def test_codecs_are_documented() -> None:
    """The documented list of codecs is complete."""
    for name in codecs.__all__:
        assert hasattr(codecs, name)
        assert name in Path(codecs.__file__).read_text()
    assert (repr(JSON), repr(MSGPACK), repr(RAW)) == (
        "plugwasm.codecs.JSON",
        "plugwasm.codecs.MSGPACK",
        "plugwasm.codecs.RAW",
    )


@pytest.mark.parametrize(
    ("returns", "hint"),
    [("dict", "got 'dict'"), (json.loads, "did you mean `parse`"), (lambda data: data, "`parse`")],
)
def test_returns_and_parse_told_apart(plugin: Plugin, returns: Any, hint: str) -> None:
    """A parser passed as `returns` is distinguished from other invalid types."""
    with pytest.raises(TypeError, match=hint):
        plugin.call("echo", "x", returns=returns)
