"""Interfaces: a class's methods as a plugin's exports, checked when they are bound, and as a
namespace of host functions."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import re
import subprocess
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

import pytest

import plugwasm
from plugwasm import (
    CompiledPlugin,
    CurrentPlugin,
    HostFunctionError,
    IsolatedPlugin,
    Plugin,
    PluginPool,
    codecs,
)
from plugwasm._host.registry import registered
from plugwasm.errors import InterfaceError, OutputError
from plugwasm.interfaces import bind, export, host_namespace
from tests.support.guests import export as exported
from tests.support.guests import guest
from tests.support.paths import ROOT

SHOP = guest(
    "".join(
        exported(name, "(call $echo)")
        for name in (
            "find",
            "text",
            "octets",
            "order",
            "optional",
            "anything",
            "by_name",
            "own name",
            "raw",
        )
    )
    + exported("nothing", "")
    + exported("words", '(call $give <<["a", "b"]>>)')
    + exported("wrong", '(call $give <<{"count": "many"}>>)')
    + exported("fail", "(call $error_set <<no luck>>)")
    + '(func (export "sum") (param i32) (result i32) (local.get 0))'
    + '(global (export "counter") i32 (i32.const 0))'
)
"""Most of it gives its input."""

T = TypeVar("T")


@dataclasses.dataclass
class Count:
    count: int


class Shop(Protocol):
    """An interface that plugins of the tests implement."""

    def text(self, value: str) -> str:
        """Return the text unchanged."""

    def octets(self, value: bytes) -> bytes: ...
    def order(self, value: Count) -> Count: ...
    def optional(self, value: str | None) -> str | None: ...
    def anything(self, value: Any) -> Any: ...
    def by_name(
        self, a: int, b: str = "default", *, c: list[int] | None = None
    ) -> dict[str, Any]: ...
    def nothing(self) -> None: ...
    def words(self) -> list[str]: ...
    def wrong(self) -> Count: ...
    def fail(self) -> None: ...
    @export("own name")
    def renamed(self, value: int) -> int: ...
    @export(codec=codecs.MSGPACK)
    def find(self, value: Count, more: int = 1) -> dict[str, Any]: ...
    @export(codec=codecs.RAW)
    def raw(self, value: bytes) -> str: ...

    _private: int


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with Plugin(SHOP, functions=[], name="shop") as plugin:
        yield plugin


@pytest.fixture
def shop(plugin: Plugin) -> Shop:
    return plugin.bind(Shop)


# What travels


def test_one_parameter(shop: Shop) -> None:
    """A single parameter is encoded by its annotation."""
    assert shop.text("ä") == "ä"
    assert shop.octets(b"\xff") == b"\xff"
    assert shop.octets(bytearray(b"ab")) == b"ab"
    assert shop.order(Count(5)) == Count(5)
    assert shop.renamed(7) == 7
    assert shop.renamed(value=7) == 7


def test_optional_or_untyped_is_json(shop: Shop, plugin: Plugin) -> None:
    """Optional text and unannotated values are encoded as JSON."""
    assert shop.optional("null") == "null"
    assert shop.optional(None) is None
    assert shop.anything("text") == "text"
    for method, argument, sent in (
        ("optional", "x", b'"x"'),
        ("anything", "x", b'"x"'),
        ("text", "x", b"x"),
    ):
        assert [
            record[1]
            for record in record_shop_calls(
                plugin, lambda shop, m=method, a=argument: getattr(shop, m)(a)
            )
        ] == [sent]


def record_shop_calls(plugin: Plugin, work: Any) -> list[tuple[str, Any]]:
    """Return the names and inputs of the calls that `work` makes through a shop."""
    calls: list[tuple[str, Any]] = []

    class Recording:
        name, exports = plugin.name, plugin.exports

        def call(self, name: str, data: Any, parse: Any) -> Any:
            calls.append((name, data.encode() if isinstance(data, str) else data))
            return plugin.call(name, data, parse)

    work(bind(Recording(), Shop))
    return calls


def test_several_parameters_are_object(shop: Shop) -> None:
    """Several parameters are sent as one object with their names and defaults."""
    assert shop.by_name(1) == {"a": 1, "b": "default", "c": None}
    assert shop.by_name(1, "x", c=[2]) == {"a": 1, "b": "x", "c": [2]}
    assert shop.by_name(b="x", a=1) == {"a": 1, "b": "x", "c": None}


def test_no_parameter_and_no_result(shop: Shop, plugin: Plugin) -> None:
    """No parameter sends an empty input, and the result None expects no output."""
    assert shop.nothing() is None  # type: ignore[func-returns-value]
    assert shop.words() == ["a", "b"]
    assert record_shop_calls(plugin, lambda shop: shop.nothing()) == [("nothing", b"")]


def test_codec_for_arguments_and_result(shop: Shop, plugin: Plugin) -> None:
    """A codec applies to the arguments and the result."""
    assert shop.find(Count(1)) == {"value": {"count": 1}, "more": 1}
    assert shop.raw(b"as it is") == "as it is"
    assert record_shop_calls(plugin, lambda shop: shop.find(Count(1), 2)) == [
        ("find", codecs.MSGPACK.encode({"value": {"count": 1}, "more": 2}))
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda shop: shop.text(),
        lambda shop: shop.text("a", "b"),
        lambda shop: shop.text(values="a"),
        lambda shop: shop.text(5),
        lambda shop: shop.text(b"a"),
        lambda shop: shop.octets("a"),
        lambda shop: shop.octets(5),
        lambda shop: shop.nothing("a"),
        lambda shop: shop.by_name(),
        lambda shop: shop.by_name(1, "b", [2]),
        lambda shop: shop.by_name(1, "b", d=2),
        lambda shop: shop.order(object()),
    ],
    ids=range(12),
)
def test_wrong_arguments_are_type_errors(shop: Any, call: Any) -> None:
    """Wrong arguments raise TypeError."""
    with pytest.raises(TypeError):
        call(shop)


def test_errors_name_plugin(shop: Shop) -> None:
    """Errors are those of `call` and name the plugin."""
    with pytest.raises(
        OutputError,
        match=r"`wrong` of plugin `shop`: the output is no `Count`: expected `int`, got `str` at `\$\.count`",
    ) as caught:
        shop.wrong()
    assert (caught.value.plugin, caught.value.function, caught.value.path) == (
        "shop",
        "wrong",
        "$.count",
    )
    with pytest.raises(plugwasm.GuestError, match="no luck"):
        shop.fail()
    with pytest.raises(OutputError, match="expected nothing, or null"):
        bind(Only({"nothing": b"something"}), Nothing).nothing()


class Nothing(Protocol):
    def nothing(self) -> None: ...


class Only:
    """An object whose only attribute is `call`."""

    def __init__(self, outputs: dict[str, bytes]) -> None:
        self.outputs = outputs

    def call(self, name: str, data: Any, parse: Any) -> Any:
        return parse(self.outputs[name])

    async def call_async(self, name: str, data: Any, parse: Any) -> Any:
        await asyncio.sleep(0)
        return parse(self.outputs[name])


# Binding


def test_bound_object_is_instance(shop: Shop, plugin: Plugin) -> None:
    """A bound object is an instance of the interface and keeps its docstrings."""
    assert Shop in type(shop).__mro__
    assert type(shop).__name__ == "Shop"
    assert type(shop).__doc__ == "An interface that plugins of the tests implement."
    assert shop.text.__doc__ == "Return the text unchanged."
    assert shop.text.__name__ == "text"
    assert repr(shop) == f"<Shop of {plugin!r}>"


def test_missing_exports_in_one_error(plugin: Plugin) -> None:
    """One error lists all missing exports with suggestions."""

    class Wanted(Protocol):
        def text(self, value: str) -> str: ...
        def textt(self, value: str) -> str: ...
        def quite_different(self) -> None: ...
        def sum(self, a: int) -> int: ...
        def counter(self) -> int: ...

    with pytest.raises(InterfaceError) as caught:
        plugin.bind(Wanted)
    assert caught.value.message == (
        "plugin `shop` does not have what the interface `Wanted` asks for: it exports no function `textt` (did you mean `text`?); "
        "it exports no function `quite_different`; its `sum` is (i32) -> (i32), but only () -> () and () -> (i32) can be called; "
        "it exports no function `counter`"
    )
    assert caught.value.missing == ("textt", "quite_different", "sum", "counter")
    assert caught.value.plugin == "shop"


class Stores(ABC):
    """An interface with methods that are implemented in Python."""

    @abstractmethod
    def text(self, value: str) -> str: ...

    @export("own name")
    @abstractmethod
    def number(self, value: int) -> int: ...

    def twice(self, value: str) -> str:
        return self.text(value) * 2

    @property
    def size(self) -> int:
        return 3


def test_abstract_methods_are_exports(plugin: Plugin) -> None:
    """If a class has abstract methods, only these are exports."""
    stores = plugin.bind(Stores)
    assert isinstance(stores, Stores)
    assert (stores.text("a"), stores.number(4), stores.twice("a"), stores.size) == ("a", 4, "aa", 3)
    with pytest.raises(TypeError, match="abstract"):
        Stores()  # type: ignore[abstract]


class Plain:
    def text(self, value: str) -> str:
        raise NotImplementedError


class Base(Protocol):
    def text(self, value: str) -> str: ...
    def octets(self, value: bytes) -> bytes: ...


class Derived(Base, Protocol):
    def octets(self, value: bytes) -> str: ...  # type: ignore[override]
    def words(self) -> list[str]: ...


class Boxed(Protocol, Generic[T]):
    def text(self, value: str) -> str: ...


def test_plain_and_inherited_methods(plugin: Plugin) -> None:
    """Methods of plain classes and inherited methods are bound."""
    assert plugin.bind(Plain).text("a") == "a"
    derived = plugin.bind(Derived)
    assert (derived.text("a"), derived.octets(b"a"), derived.words()) == ("a", "a", ["a", "b"])
    assert plugin.bind(Boxed).text("a") == "a"


def test_anything_with_call_can_be_bound(plugin: Plugin) -> None:
    """Any object with a `call` method can be bound."""
    assert bind(Only({"text": b"said"}), Plain).text("") == "said"
    with IsolatedPlugin(SHOP, functions=[], name="elsewhere") as isolated:
        shop = isolated.bind(Shop)
        assert shop.order(Count(2)) == Count(2)
        with pytest.raises(OutputError, match="`wrong` of plugin `elsewhere`"):
            shop.wrong()
        with pytest.raises(InterfaceError, match="`elsewhere`"):
            isolated.bind(Absent)


def test_bind_pool() -> None:
    """A pool can be bound and calls any free plugin."""
    with PluginPool(SHOP, functions=[], name="many", size=2) as pool:
        shop = bind(pool, Shop)
        assert shop.order(Count(2)) == Count(2)
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(shop.renamed, range(100))) == list(range(100))
        with pytest.raises(OutputError, match="`wrong` of plugin `many`"):
            shop.wrong()
        with pytest.raises(InterfaceError, match=r"`many`.*`absent`"):
            bind(pool, Absent)


class Absent(Protocol):
    def absent(self) -> None: ...


def test_bind_many_times() -> None:
    """A plugin can be bound many times, and only bound objects that live keep it alive."""
    compiled = CompiledPlugin(SHOP, functions=[])
    one, other = Plugin(compiled).bind(Shop), Plugin(compiled).bind(Shop)
    assert type(one) is type(other)
    assert one.text("a") == other.text("a")
    plugin = Plugin(compiled)
    gone = weakref.ref(plugin)
    bound = plugin.bind(Shop)
    del plugin
    gc.collect()
    assert bound.text("x") == "x"
    del bound
    gc.collect()
    assert gone() is None


# What cannot stand for an export


def make_class(body: str) -> Any:
    namespace: dict[str, Any] = {
        "Any": Any,
        "Protocol": Protocol,
        "export": export,
        "codecs": codecs,
    }
    exec(f"class Faulty(Protocol):\n    {body}", namespace)
    return namespace["Faulty"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def text(self, value) -> str: ...", "`Faulty.text`: annotate the parameter `value`"),
        ("def text(self, value: str): ...", "`Faulty.text`: annotate the result"),
        ("def text(self, *values: str) -> str: ...", "`values` cannot have stars"),
        ("def text(self, **values: str) -> str: ...", "`values` cannot have stars"),
        ("def text() -> str: ...", "`Faulty.text` has no `self`"),
        (
            "def text(self) -> 'Missing': ...",
            "`Faulty.text`: an annotation cannot be resolved.*'Missing'",
        ),
        ("def text(self) -> object.__class__: ...", "`Faulty.text`: "),
        ("@staticmethod\n    def text() -> str: ...", "`Faulty.text` is no method"),
        ("@property\n    def text(self) -> str: ...", "`Faulty.text` is no method"),
        ("text: str", "`Faulty.text` is no method"),
        (
            "@export(codec=codecs.RAW)\n    def text(self, a: str, b: str) -> str: ...",
            "RAW is for one parameter, not for 2",
        ),
        ("@export(codec=codecs.RAW)\n    def text(self, a: str) -> int: ...", "RAW gives str"),
        ("pass", "`Faulty` has no public methods"),
        ("def _text(self) -> str: ...", "`Faulty` has no public methods"),
    ],
)
def test_unsuitable_method_is_refused(plugin: Plugin, body: str, message: str) -> None:
    """A method that cannot be an export is refused, and the error says what to do."""
    with pytest.raises(TypeError, match=message):
        plugin.bind(make_class(body))


@pytest.mark.parametrize("interface", [5, "Shop", list[int], len, []], ids=repr)
def test_only_classes_are_interfaces(plugin: Plugin, interface: Any) -> None:
    with pytest.raises(TypeError, match="an interface is a class"):
        plugin.bind(interface)


# async


class Later(Protocol):
    async def text(self, value: str) -> str: ...
    def words(self) -> list[str]: ...


def test_async_methods_await_call_async() -> None:
    bound = bind(Only({"text": b"said", "words": b"[]"}), Later)
    assert bound.words() == []
    assert asyncio.run(bound.text("x")) == "said"


def test_async_methods_need_call_async() -> None:
    """Async methods need a plugin with `call_async`."""

    class Sync:
        def call(self, name: str, data: Any, parse: Any) -> Any: ...

    with pytest.raises(
        TypeError, match="`Later` has `async def` methods, but Sync has no `call_async`"
    ):
        bind(Sync(), Later)


# Host functions of an object

CALLER = guest(
    exported("run", "(call $give (call $greet (call $copy)))")
    + exported("bump", "(call $answer (call $add (i64.const 40) (i64.const 2)))")
    + exported("order", "(call $give (call $double (call $copy)))"),
    '(import "shop" "greet" (func $greet (param i64) (result i64)))',
    '(import "shop" "add numbers" (func $add (param i64 i64) (result i64)))',
    '(import "shop" "double" (func $double (param i64) (result i64)))',
)


class Desk:
    """Functions of the application that plugins can call."""

    limit = 10

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting
        self.sums: list[int] = []

    def greet(self, plugin: CurrentPlugin, who: str) -> str:
        return f"{self.greeting}, {who}, from {plugin.host_context()}"

    @export("add numbers")
    def add(self, a: int, b: int) -> int:
        self.sums.append(a + b)
        return a + b

    @staticmethod
    def double(value: Count) -> Count:
        return Count(value.count * 2)

    def _secret(self) -> str:
        return "never offered"


def test_host_functions_from_methods() -> None:
    """The public methods of an object become host functions."""
    desk = Desk("Good day")
    functions = host_namespace(desk, "shop")
    assert sorted((f.namespace, f.name) for f in functions) == [
        ("shop", "add numbers"),
        ("shop", "double"),
        ("shop", "greet"),
    ]
    with Plugin(CALLER, functions=functions) as plugin:
        assert plugin.call("run", "Ada", host_context="here") == b"Good day, Ada, from here"
        assert plugin.call("bump") == (42).to_bytes(8, "little")
        assert desk.sums == [42]
        assert json.loads(plugin.call("order", '{"count": 4}')) == {"count": 8}
        with pytest.raises(HostFunctionError, match="no `Count`: expected `int`, got `str` at"):
            plugin.call("order", '{"count": "x"}')
    assert functions[0] not in registered


def test_two_objects_serve_two_plugins() -> None:
    compiled = [
        CompiledPlugin(CALLER, functions=host_namespace(Desk(greeting), "shop"))
        for greeting in ("Hello", "Bye")
    ]
    assert [Plugin(c).call("run", "Ada", host_context=1) for c in compiled] == [
        b"Hello, Ada, from 1",
        b"Bye, Ada, from 1",
    ]


class Offered(Protocol):
    def add(self, a: int, b: int) -> int: ...


class Lacking(Offered, Protocol):
    def subtract(self, a: int, b: int) -> int: ...
    def limit(self) -> int: ...


def test_host_interface_narrows_methods() -> None:
    """An interface restricts which methods are offered."""
    assert [(f.namespace, f.name) for f in host_namespace(Desk(""), interface=Offered)] == [
        (None, "add numbers")
    ]
    with pytest.raises(TypeError, match="Desk lacks `subtract`, `limit` of `Lacking`"):
        host_namespace(Desk(""), interface=Lacking)


class Unannotated:
    def f(self, a): ...  # type: ignore[no-untyped-def]


class Encoded:
    @export(codec=codecs.MSGPACK)
    def f(self, a: str) -> str: ...  # type: ignore[empty-body]


def test_host_unsuitable_object_is_refused() -> None:
    """Objects whose methods cannot be host functions are refused."""
    with pytest.raises(TypeError, match=r"`f`.*`a` has no annotation"):
        host_namespace(Unannotated())
    with pytest.raises(TypeError, match=r"`Encoded\.f`: give a codec to each parameter"):
        host_namespace(Encoded())
    with pytest.raises(TypeError, match="int has no public methods"):
        host_namespace(5)
    with pytest.raises(TypeError, match="object has no public methods"):
        host_namespace(object())


def test_host_parameter_codec() -> None:
    """A method's parameter can have its own codec."""

    class Packed:
        def greet(self, who: Annotated[dict[str, int], codecs.MSGPACK]) -> str:
            return repr(who)

    source = guest(
        exported("run", "(call $give (call $greet <<abc>>))"),
        '(import "shop" "greet" (func $greet (param i64) (result i64)))',
    )
    with (
        Plugin(source, functions=host_namespace(Packed(), "shop")) as plugin,
        pytest.raises(HostFunctionError, match=r"no `dict\[str, int\]`"),
    ):
        plugin.call("run")


# What type checkers make of it

PROGRAM = """
from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Protocol, TypedDict

from plugwasm import IsolatedPlugin, Plugin
from plugwasm.codecs import JSON, MSGPACK, TypedCodec
from plugwasm.interfaces import bind, export, host_namespace

@dataclass
class Item: name: str
class Options(TypedDict): depth: int
class Search(Protocol):
    @export("f", codec=MSGPACK)
    def find(self, name: str, limit: int = 3) -> list[Item]: ...
    async def later(self) -> int: ...
class Abstract(ABC):
    @abstractmethod
    def find(self, name: str) -> Item: ...
class Own:
    def encode(self, value: object) -> bytes: return b""
    def decode(self, data: bytes, type: object) -> object: return None
class NoCodec:
    def encode(self, value: object) -> str: return ""

def use(plugin: Plugin, isolated: IsolatedPlugin, item: type[Item]) -> None:
    reveal_type(plugin.call("f"))  # bytes
    reveal_type(plugin.call("f", "x", bytes, 5))  # bytes
    reveal_type(plugin.call("f", {"a": 1}, codec=JSON))  # bytes
    reveal_type(plugin.call("f", parse=None))  # memoryview[int]
    reveal_type(plugin.call("f", "x", json.loads))  # Any
    reveal_type(plugin.call("f", parse=lambda data: data.decode()))  # str
    reveal_type(plugin.call("f", returns=int))  # int
    reveal_type(plugin.call("f", returns=item))  # program.Item
    reveal_type(plugin.call("f", returns=Options)["depth"])  # int
    reveal_type(plugin.call("f", returns=list[Item]))  # list[program.Item]
    reveal_type(plugin.call("f", returns=int | None))  # int | None
    reveal_type(plugin.call("f", returns=Annotated[int, "metres"]))  # int
    reveal_type(plugin.call("f", returns=type(None)))  # None
    reveal_type(plugin.call("f", Item("a"), returns=Item, codec=Own()))  # program.Item
    reveal_type(isolated.call("f"))  # bytes
    reveal_type(isolated.call("f", returns=Item))  # program.Item
    reveal_type(plugin.bind(Search))  # program.Search
    reveal_type(plugin.bind(Search).find("a"))  # list[program.Item]
    reveal_type(plugin.bind(Abstract).find("a"))  # program.Item
    reveal_type(isolated.bind(Search))  # program.Search
    reveal_type(bind(plugin, Search).find("a", limit=1))  # list[program.Item]
    reveal_type(host_namespace(plugin))  # list[plugwasm._host.functions.Function]
    plugin.bind(Search).find(5)  # error: arg-type
    plugin.bind(Search).found("a")  # error: attr-defined
    plugin.bind(5)  # error: arg-type
    text: str = plugin.call("f", returns=int)  # error: assignment
    plugin.call("f", returns=5)  # error: call-overload
    plugin.call("f", parse=len, returns=int)  # error: call-overload
    plugin.call("f", codec=NoCodec())  # error: call-overload
"""


@pytest.mark.slow
def test_mypy_strict(tmp_path: Path) -> None:
    """In strict mode, mypy infers the types and reports the mistakes."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        str(tmp_path / "cache"),
        "program.py",
    ]
    environment = {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=110, env=environment
    )
    assert run.returncode in (0, 1), run.stderr
    found: dict[int, list[str]] = {}
    for line in run.stdout.splitlines():
        if match := re.match(
            r"program\.py:(\d+): (?:note: Revealed type is \"(.*)\"|(error): .*\[(.*)\])$", line
        ):
            found.setdefault(int(match[1]), []).append(
                f"error: {match[4]}" if match[3] else match[2]
            )
    expected = {
        i: [line.partition("  # ")[2]]
        for i, line in enumerate(PROGRAM.splitlines(), 1)
        if "  # " in line
    }
    assert found == expected


def test_wrong_arguments_name_method() -> None:
    """The error for wrong arguments names the method."""

    class Echo(Protocol):
        def echo(self, text: str) -> str: ...

    echo = Plugin(guest(exported("echo", "(call $echo)"))).bind(Echo)
    for arguments in ((3,), ("x", "y"), ()):
        with pytest.raises(TypeError, match=r"^`Echo\.echo`: "):
            echo.echo(*arguments)


def test_method_without_self_is_found() -> None:
    """A method without `self` is reported when it is bound."""

    class Echo(Protocol):
        def echo(text: str) -> str: ...  # type: ignore[misc]

    with pytest.raises(TypeError, match=r"`Echo\.echo` has no `self`"):
        Plugin(guest(exported("echo", "(call $echo)"))).bind(Echo)


# ---- codecs in annotations, and annotations of an interface --------------------------------------


class Coded(Protocol):
    @export("text")
    def as_json(self, text: Annotated[str, codecs.JSON]) -> Annotated[str, codecs.JSON]: ...

    @export("text")
    def to_json(self, text: str) -> Annotated[str, codecs.JSON]: ...

    @export("octets")
    def packed(self, n: Annotated[Count, codecs.MSGPACK]) -> bytes: ...


def test_codecs_of_single_values() -> None:
    """A codec in an annotation is for that parameter, or for the result, and for nothing else."""
    with Plugin(SHOP) as plugin:
        coded = plugin.bind(Coded)
        assert coded.as_json('ü "') == 'ü "'
        assert coded.to_json('"in quotes"') == "in quotes"
        assert coded.packed(Count(3)) == codecs.MSGPACK.encode(Count(3))
        with pytest.raises(OutputError, match="JSON is malformed"):
            coded.to_json("no quotes")


def test_codec_of_one_of_several() -> None:
    """Several parameters travel as one object, so a codec for one of them is an error."""

    class Several(Protocol):
        def text(self, a: Annotated[str, codecs.JSON], b: int) -> str: ...

    with (
        Plugin(SHOP) as plugin,
        pytest.raises(TypeError, match=r"`a` cannot have a codec of its own"),
    ):
        plugin.bind(Several)


class Counter(Protocol):
    @export("count it")
    def count(self, value: Annotated[int, codecs.JSON]) -> Annotated[int, codecs.JSON]: ...
    def greet(self, plugin: CurrentPlugin, who: str) -> str: ...


def test_interface_annotates_for_objects() -> None:
    """The annotations and names of an interface hold for any object that implements it."""

    class Plain:
        def count(self, value):  # type: ignore[no-untyped-def]
            return value + 1

        def greet(self, plugin, who):  # type: ignore[no-untyped-def]
            return f"{who} of {plugin.host_context()}"

    class Other:
        def count(self, value: int) -> int:  # by itself, it would be a plain number
            return value + 1

        def greet(self, plugin: CurrentPlugin, who: str) -> str:
            return who

    for implementation in (Plain(), Other()):
        functions = host_namespace(implementation, interface=Counter)
        assert [(f.name, len(f.args), f.args[0].name) for f in functions] == [
            ("count it", 1, "I64"),
            ("greet", 1, "I64"),
        ]

    class Short:
        def count(self):  # type: ignore[no-untyped-def]
            return 1

        def greet(self, plugin, who):  # type: ignore[no-untyped-def]
            return who

    with pytest.raises(TypeError, match=r"`count it`: expected 1 parameters, as in the interface"):
        host_namespace(Short(), interface=Counter)
