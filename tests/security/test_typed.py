"""What the host builds from a plugin's output, or from arguments of a host function, is limited
in size and time."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
import pydantic
import pytest

import plugwasm
from plugwasm import (
    HostFunctionError,
    IsolatedPlugin,
    Json,
    Limits,
    OutputError,
    Plugin,
    PluginPool,
    TimeoutError,
)
from plugwasm._host.functions import infer_function
from plugwasm.codecs import JSON, MSGPACK, DecodeError
from tests.support.guests import export, guest
from tests.support.paths import ROOT

ECHO = guest(export("echo", "(call $echo)"))
PASS = '(import "extism:host/user" "f" (func $f (param i64) (result i64)))'
PASSING = guest(export("run", "(call $give (call $f (call $copy)))"), PASS)
PRIME = 2**61 - 1
"""All multiples of it have the hash 0."""


class Sent:
    """A codec that sends bytes unchanged and decodes the output by another codec."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def encode(self, value: Any) -> bytes:
        return bytes(value)

    def decode(self, data: bytes, type: Any) -> Any:
        return self.codec.decode(data, type)


@dataclasses.dataclass
class Order:
    items: list[list[int]]


@dataclasses.dataclass(frozen=True)
class Frozen:
    n: int


class Pair(NamedTuple):
    left: int
    right: int


class User(pydantic.BaseModel):
    name: str = ""


class Users(pydantic.BaseModel):
    items: list[User]


class Hidden(pydantic.BaseModel):
    text: pydantic.Json[list[Any]]


class Numbers(pydantic.BaseModel):
    items: set[int]


class Keys(pydantic.BaseModel):
    items: dict[UUID, int]


def make_serving_plugin(
    kind: Any, limits: Limits | None = None, f: Callable[[Any], Any] | None = None
) -> Plugin:
    """Return a plugin that passes its input to a host function with a parameter of that type."""

    def function(value: Any) -> bytes:
        return (f or (lambda _: b"read"))(value)

    function.__annotations__ = {"value": kind, "return": bytes}
    return Plugin(PASSING, functions=[infer_function(None, "f", function)], limits=limits, name="p")


# ---- values --------------------------------------------------------------------------------------

SMALL = Limits(decoded_values=1000)
LISTS = b"[" + b"[]," * 999 + b"[]]"
PACKED = b"\xdc\x03\xe8" + b"\x90" * 1000
OBJECTS = b'{"items":[' + b"{}," * 997 + b"{}]}"


@pytest.mark.parametrize(
    ("returns", "codec", "output"),
    [
        (Any, None, LISTS),
        (list, None, LISTS),
        (list[list[int]], JSON, LISTS),
        (Order, None, b'{"items":' + LISTS + b"}"),
        (Users, None, OBJECTS),
        (list[User], None, b"[" + b"{}," * 999 + b"{}]"),
        (Any, MSGPACK, PACKED),
        (list[list[int]], MSGPACK, PACKED),
        (Users, MSGPACK, b"\x81\xa5items\xdc\x03\xe8" + b"\x80" * 1000),
        (Any, Sent(MSGPACK), PACKED),
        (Any, Sent(JSON), LISTS),
    ],
    ids=range(11),
)
def test_output_values_limit(returns: Any, codec: Any, output: bytes) -> None:
    """An output may have exactly the limit of values."""
    sent = Sent(codec) if codec in (JSON, MSGPACK) else codec
    with Plugin(ECHO, functions=[], limits=SMALL, name="echo") as plugin:
        with pytest.raises(
            OutputError, match=r"more values than the limit of 1000 \(`Limits.decoded_values`\)"
        ) as caught:
            plugin.call("echo", output, returns=returns, codec=sent)
        assert (caught.value.plugin, caught.value.function) == ("echo", "echo")
        assert plugin.call("echo", b"[1]", returns=list) == [1]
    for limits in (Limits(decoded_values=2100), Limits(decoded_values=None), None):
        with Plugin(ECHO, functions=[], limits=limits) as plugin:
            assert plugin.call("echo", output, returns=returns, codec=sent)


@pytest.mark.parametrize(
    "text",
    [
        b'"' + b"[]," * 5000 + b'"',
        b'["' + b'\\",[' * 5000 + b'"]',
        b'["' + b"\\\\" * 5000 + b'",1]',
    ],
    ids=range(3),
)
def test_what_is_in_a_text_is_no_value(text: bytes) -> None:
    with Plugin(ECHO, functions=[], limits=SMALL) as plugin:
        assert plugin.call("echo", text, returns=Any)


@pytest.mark.parametrize("hidden", [b"[],", b"\\u005b\\u005d,"])
def test_json_in_text_is_counted(hidden: bytes) -> None:
    """JSON inside a text that a model parses is counted."""
    with Plugin(ECHO, functions=[], limits=SMALL) as plugin:
        assert plugin.call("echo", b'{"text": "[[],[]]"}', returns=Hidden) == Hidden(text="[[],[]]")
        with pytest.raises(OutputError, match="decoded_values"):
            plugin.call("echo", b'{"text":"[' + hidden * 1000 + b'[]]"}', returns=Hidden)


@pytest.mark.parametrize(
    "kind",
    [
        Annotated[list, Json],
        list[list[int]],
        Order,
        Users,
        Annotated[Any, JSON],
        Annotated[Any, MSGPACK],
    ],
    ids=range(6),
)
def test_host_parameters_have_limits(kind: Any) -> None:
    """Arguments of a host function have the limits of the plugin that passes them."""
    data = PACKED if MSGPACK in getattr(kind, "__metadata__", ()) else LISTS
    data = b'{"items":' + data + b"}" if kind is Order else OBJECTS if kind is Users else data
    with make_serving_plugin(kind, Limits(decoded_values=2100)) as generous:
        assert generous.call("run", data) == b"read"
    with make_serving_plugin(kind, SMALL) as plugin:
        with pytest.raises(
            HostFunctionError,
            match=r"more values than the limit of 1000 \(`Limits.decoded_values`\)",
        ) as caught:
            plugin.call("run", data)
        assert isinstance(caught.value.__cause__, DecodeError)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32-le", "utf-8-sig"])
def test_json_in_any_encoding_is_counted(encoding: str) -> None:
    """JSON is counted in every text encoding."""
    odd = '["\u2200\u2222",' * 2  # in UTF-16 there are bytes of quotes in these
    with make_serving_plugin(Annotated[list, Json], SMALL) as plugin:
        assert plugin.call("run", (odd + "1]]").encode(encoding)) == b"read"
        with pytest.raises(HostFunctionError, match="decoded_values"):
            plugin.call("run", (odd + "[]," * 1000 + "1]]").encode(encoding))
        with pytest.raises(HostFunctionError, match="levels deep"):
            plugin.call("run", (odd + "[" * 300).encode(encoding))


def test_limit_in_every_way_to_call() -> None:
    """The limit applies to every way to call a plugin."""

    class Search:
        def echo(self, data: bytes) -> list[list[int]]: ...  # type: ignore[empty-body]

    refused = pytest.raises(OutputError, match="decoded_values")
    compiled = plugwasm.CompiledPlugin(ECHO, functions=[], limits=SMALL)
    with Plugin(compiled) as plugin, refused:
        plugin.bind(Search).echo(LISTS)
    with Plugin(compiled, observe=True) as plugin, refused:
        plugin.call("echo", LISTS, returns=plugwasm.Measured[list])
    with PluginPool(compiled, size=2) as pool:
        with refused:
            pool.call("echo", LISTS, returns=list)
        with refused:
            pool.bind(Search).echo(LISTS)
        with refused:
            list(pool.map("echo", [LISTS], returns=list))
    with IsolatedPlugin(ECHO, functions=[], limits=SMALL) as isolated, refused:
        isolated.call("echo", LISTS, returns=list)


def test_limit_in_plugin_set(tmp_path: Path) -> None:
    """The limit applies in a plugin set."""
    (tmp_path / "one.wasm").write_text(ECHO)
    with plugwasm.PluginSet(plugins=[tmp_path / "one.wasm"], functions=[], limits=SMALL) as plugins:
        (result,) = plugins.all("echo", LISTS, returns=list)
        assert isinstance(result.error, OutputError)
        assert "decoded_values" in str(result.error)
        assert plugins.all("echo", b"[1]", returns=list)[0].output == [1]
        assert plugins.first("echo", b"", returns=list) is None


@pytest.mark.parametrize(
    ("returns", "codec", "unit"),
    [
        ("Any", "None", "[],"),
        ("list[set]", "JSON", "[],"),
        ("Any", "MSGPACK", "\x90"),
        ("Users", "None", "{},"),
    ],
)
def test_empty_containers_bomb(returns: str, codec: str, unit: str) -> None:
    """Thirty megabytes of empty containers take no time and no memory."""
    program = f"""
import resource, sys, time
sys.path.insert(0, {str(ROOT)!r})
from typing import Any
from tests.security.test_typed import ECHO, JSON, MSGPACK, Sent, Users
import plugwasm
unit, codec = {unit!r}.encode("latin-1"), {codec}
if codec is MSGPACK:
    data = b"\\xdd" + (30_000_000).to_bytes(4, "big") + unit * 30_000_000
else:
    data = (b'{{"items":' if {returns} is Users else b"") + b"[" + unit * 10_000_000
with plugwasm.Plugin(ECHO, functions=[], limits=plugwasm.Limits(timeout=30)) as plugin:
    assert len(plugin.call("echo", data)) == len(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    try:
        plugin.call("echo", data, returns={returns}, codec=codec and Sent(codec))
    except plugwasm.OutputError as error:
        assert "limit of 1000000" in str(error), error
        print(time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert not done.returncode, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 10
    assert kilobytes < 100_000


# ---- hashes --------------------------------------------------------------------------------------

COUNT = 50_000


def colliding(shape: str = "%d") -> list[bytes]:
    return [(shape % (i * PRIME)).encode() for i in range(COUNT)]


NUMBERS = b"[" + b",".join(colliding()) + b"]"
NAMES = b"{" + b",".join(colliding('"%d":0')) + b"}"
UUIDS = [str(UUID(int=i * PRIME)).encode() for i in range(COUNT)]


@pytest.mark.parametrize(
    ("returns", "output"),
    [
        (set[int], NUMBERS),
        (frozenset[float | int], NUMBERS),
        (set[Decimal], NUMBERS),
        (set, NUMBERS),
        (set[int] | None, NUMBERS),
        (list[set[int]], b"[" + NUMBERS + b"]"),
        (set[Decimal], b"[" + b",".join(colliding('"%d"')) + b"]"),
        (dict[int, int], NAMES),
        (dict[Decimal, int], NAMES),
        (set[tuple[int, int]], b"[" + b",".join(colliding("[%d,0]")) + b"]"),
        (set[Pair], b"[" + b",".join(colliding("[%d,0]")) + b"]"),
        (set[Frozen], b"[" + b",".join(colliding('{"n":%d}')) + b"]"),
        (set[UUID], b'["' + b'","'.join(UUIDS) + b'"]'),
        (dict[UUID, int], b'{"' + b'":0,"'.join(UUIDS) + b'":0}'),
        (Numbers, b'{"items":' + NUMBERS + b"}"),
        (list[Numbers], b'[{"items":' + NUMBERS + b"}]"),
        (Keys, b'{"items":{"' + b'":0,"'.join(UUIDS) + b'":0}}'),
    ],
    ids=range(17),
)
def test_hash_collisions(returns: Any, output: bytes) -> None:
    """Numbers with equal hashes do not keep the host busy."""
    begin = time.process_time()
    with (
        Plugin(ECHO, functions=[]) as plugin,
        pytest.raises(OutputError, match=r"the limit of 10000, .*`Limits.decoded_keys`"),
    ):
        plugin.call("echo", output, returns=returns)
    with (
        make_serving_plugin(Annotated[returns, JSON]) as plugin,
        pytest.raises(HostFunctionError, match="decoded_keys"),
    ):
        plugin.call("run", output)
    assert time.process_time() - begin < 10


def test_messagepack_keys_without_type() -> None:
    """Without a type, MessagePack may have keys of all kinds, and they are limited."""
    tuples = msgspec.msgpack.encode(
        {
            (a * PRIME, b * PRIME, c * PRIME, d * PRIME): 0
            for a in range(8)
            for b in range(8)
            for c in range(8)
            for d in range(8)
        }
    )
    with Plugin(ECHO, functions=[]) as plugin:
        for returns in (Any, dict, list[Any] | dict[Any, int]):
            with pytest.raises(OutputError, match="decoded_keys"):
                plugin.call("echo", tuples, returns=returns, codec=Sent(MSGPACK))
        words = {str(i): i for i in range(20_000)}
        assert plugin.call("echo", words, returns=dict, codec=MSGPACK) == words


def test_sets_and_dicts_within_limit() -> None:
    """Sets and dicts within the limit are decoded, and those of text whatever their size."""
    with Plugin(ECHO, functions=[], limits=Limits(decoded_keys=1000)) as plugin:
        assert len(plugin.call("echo", list(range(1000)), returns=set[int])) == 1000
        assert (
            len(
                plugin.call(
                    "echo", {i: [1] * 30 for i in range(1000)}, returns=dict[int, list[int]]
                )
            )
            == 1000
        )
        assert len(plugin.call("echo", [str(i) for i in range(9000)], returns=set[str])) == 9000
        assert len(plugin.call("echo", [[i] for i in range(9000)], returns=list[set[int]])) == 9000
        for kind in (set[int], dict[int, int]):
            with pytest.raises(OutputError, match="limit of 1000, "):
                plugin.call(
                    "echo",
                    {str(i): i for i in range(1001)}
                    if kind == dict[int, int]
                    else list(range(1001)),
                    returns=kind,
                )
    with Plugin(ECHO, functions=[], limits=Limits(decoded_keys=None)) as plugin:
        assert len(plugin.call("echo", list(range(20_000)), returns=set[int])) == 20_000


# ---- time ----------------------------------------------------------------------------------------


class Slow:
    """A codec that is slow."""

    seconds = 0.6

    def encode(self, value: Any) -> bytes:
        return b"slow"

    def decode(self, data: bytes, type: Any) -> Any:
        time.sleep(self.seconds)
        return data


@pytest.mark.parametrize("observe", [False, True])
def test_reading_counts_towards_call_time(observe: bool) -> None:
    """Decoding an output counts towards the time of its call."""
    limits = Limits(timeout=0.5)
    with Plugin(ECHO, functions=[], limits=limits, name="echo", observe=observe) as plugin:
        with pytest.raises(
            TimeoutError,
            match=r"`echo` of plugin `echo` did not end before its deadline of 500 ms; .* not read",
        ) as caught:
            plugin.call("echo", 1, returns=list, codec=Slow())
        assert (caught.value.plugin, caught.value.function) == ("echo", "echo")
        assert plugin.call("echo", "[1]", returns=list) == [1]
        assert (
            plugin.call("echo", "x", parse=lambda output: time.sleep(0.6) or output) == b"x"
        )  # is the application's own
    with PluginPool(ECHO, functions=[], limits=limits, size=1) as pool, pytest.raises(TimeoutError):
        pool.call("echo", 1, returns=list, codec=Slow())


@pytest.mark.parametrize("observe", [False, True])
def test_reading_time_of_isolated_plugin(observe: bool) -> None:
    """Decoding an isolated plugin's output counts towards the time of its call too."""
    with IsolatedPlugin(ECHO, functions=[], limits=Limits(timeout=0.5), observe=observe) as plugin:
        assert plugin.call("echo", "[1]", returns=list) == [1]
        with pytest.raises(TimeoutError, match="not read by then"):
            plugin.call("echo", 1, returns=list, codec=Slow())


def test_late_output_is_not_read() -> None:
    """An output that arrives at the deadline is not decoded."""
    from plugwasm._host.codecs import make_output_reader
    from plugwasm._runtime.call_errors import parse_output

    compiled = plugwasm.CompiledPlugin(ECHO, functions=[])
    with pytest.raises(TimeoutError):
        parse_output(
            make_output_reader(list, None, None, "echo"),
            b"no JSON" * 10_000,
            time.monotonic() - 1,
            compiled,
            "echo",
        )


@pytest.mark.parametrize("size", [10, 100_000])
def test_late_parameter_skips_function(size: int) -> None:
    """A host function is not called if decoding its parameter took all the time."""
    called = []
    with (
        make_serving_plugin(
            Annotated[list, Slow()],
            Limits(timeout=0.5),
            lambda value: called.append(value) or b"read",
        ) as plugin,
        pytest.raises(TimeoutError),
    ):
        plugin.call("run", b"x" * size)
    assert size == 10 or not called


@pytest.mark.parametrize("digits", [0, 10**6])
def test_million_digits_are_refused(digits: int) -> None:
    """A number of a million digits is refused at once."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(digits)  # an application may have lifted Python's own limit
    begin = time.process_time()
    number = b"7" * 900_000
    try:
        with Plugin(ECHO, functions=[]) as plugin:
            for returns in (Any, int, float, set[int], Numbers):
                with pytest.raises(OutputError):
                    plugin.call(
                        "echo",
                        number if returns is not Numbers else b'{"items":[' + number + b"]}",
                        returns=returns,
                    )
        with make_serving_plugin(Annotated[Any, Json]) as plugin:
            with pytest.raises(HostFunctionError, match="a number of more than 4300 digits"):
                plugin.call("run", number)
            assert plugin.call("run", b"[" + b"7" * 4300 + b"]") == b"read"
    finally:
        sys.set_int_max_str_digits(before)
    assert time.process_time() - begin < 5


def test_validation_errors_are_limited() -> None:
    """The errors of a model are not listed when there are many."""
    with (
        Plugin(ECHO, functions=[]) as plugin,
        pytest.raises(OutputError, match="5000 values of it are not valid"),
    ):
        plugin.call("echo", b'{"items":[' + b"1," * 4999 + b"1]}", returns=Users)


# ---- those who watch -----------------------------------------------------------------------------


def test_observers_see_bytes_beyond_limit() -> None:
    """Observers see bytes instead of values beyond the limits."""
    seen = []

    class Watching(plugwasm.observing.Observer):
        wants_values = True

        def on_host_call(self, call: Any) -> None:
            seen.append(call.args[0])

    def function(value: Annotated[bytes, Json]) -> bytes:
        return b"read"

    function.__annotations__ = {"value": Annotated[list, Json], "return": bytes}
    with Plugin(
        PASSING, functions=[infer_function(None, "f", function)], limits=SMALL, observe=Watching()
    ) as plugin:
        assert plugin.call("run", b"[1]") == b"read"
        with pytest.raises(HostFunctionError):
            plugin.call("run", LISTS)
    assert seen == [[1], LISTS]
