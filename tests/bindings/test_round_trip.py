"""Values of all shapes go through generated bindings: host in Python, plugins in each language."""

from __future__ import annotations

import datetime
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import plugwasm
from plugwasm._bindings.files import generate
from plugwasm._manifest.resolve import resolve
from plugwasm.cli.inspection import collect_facts
from tests.bindings.builds import BUILDS, LANGUAGES, RICH, build

pytestmark = [
    pytest.mark.slow,  # compiles plugins
    pytest.mark.toolchain,
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The generated module for the host."""
    folder = tmp_path_factory.mktemp("python")
    generate(RICH, "python", folder)
    spec = importlib.util.spec_from_file_location("rich_bindings", folder / "bindings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rich_bindings"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["rich_bindings"]


class Host:
    """The functions that plugins call. `seen` has what they were given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def visit(self, input: Any) -> Any:
        self.seen.append(input)
        input.text += "!"
        return input

    def translate(self, input: str) -> str:
        return input.upper()

    def eat_fruit(self, input: Any) -> bool:
        self.seen.append(input)
        return bool(input.value == "red orange")

    def mix_bytes(self, input: bytes) -> bytes:
        return input[::-1]

    def add_one(self, input: int) -> int:
        return input + 1

    def ping(self) -> None:
        self.seen.append("ping")


class Plugin:
    """A plugin through its bindings, and the host's side of it."""

    def __init__(self, language: str, host: ModuleType, calls: Any, offered: Host) -> None:
        self.language = language
        self.host = host
        self.calls = calls
        self.offered = offered


@pytest.fixture
def plugin(module: tuple[str, Path], host: ModuleType) -> Iterator[Plugin]:
    language, path = module
    offered = Host()
    with plugwasm.Plugin(
        path, wasi=BUILDS[language].wasi, functions=host.host_functions(offered)
    ) as made:
        yield Plugin(language, host, host.bind(made), offered)


NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 250_000, tzinfo=datetime.UTC)


def everything(host: ModuleType, **more: Any) -> Any:
    """Return an object with values at the ends of their ranges."""
    fields: dict[str, Any] = {
        "a_boolean": True,
        "a_float": 0.5,
        "a_double": -1.5e-300,
        "an_int8": -128,
        "a_uint8": 255,
        "an_int16": -(2**15),
        "a_uint16": 2**16 - 1,
        "an_int32": -(2**31),
        "a_uint32": 2**32 - 1,
        "an_int64": -(2**63),
        "a_uint64": 2**64 - 1,
        "text": 'ü € 😀 "quoted" \\ \n\x01\x7f</script>',
        "when": NOON,
        "data": bytes(range(256)),
        "fruit": host.Fruit.APFEL,
        "tags": ["", "a", "ü"],
        "octets": [0, 1, 255],
        "scores": {"Ada": 3, "ü": -1, "": 0},
        "point": host.Point(x=0.1, y=-2.0),
        "nullable": None,
        "matrix": [[1.0, 2.5], [], [1e21]],
        "by_name": {"origin": host.Point(x=0, y=0)},
        "free": {"a": [1, "two", None, {"b": True}], "c": 2.5},
        "id": 2**53 + 1,
        "type": "t",
    }
    return host.Everything(**(fields | more))


def filled(host: ModuleType) -> Any:
    """Return an object with all of its optional properties."""
    return everything(
        host,
        nullable="",
        class_="c",
        maybe_boolean=False,
        maybe_number=0,
        maybe_text="",
        maybe_fruit=host.Fruit.NO,
        maybe_point=host.Point(x=1, y=2),
        maybe_tags=["a", None],
        maybe_scores={},
        maybe_data=b"",
        maybe_when=NOON,
        maybe_free={},
        shape=host.Square(side=2, label="s"),
    )


def empty(host: ModuleType) -> Any:
    """Return an object with nothing in its collections."""
    return everything(
        host, text="", data=b"", tags=[], octets=[], scores={}, matrix=[], by_name={}, free={}
    )


@pytest.fixture(scope="module", params=LANGUAGES)
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The language, and its plugin's file."""
    language = request.param
    return language, build(language, tmp_path_factory.mktemp(language))


reads_json = pytest.mark.parametrize(
    "module", [one for one in LANGUAGES if BUILDS[one].reads_json], indirect=True
)
"""For all languages but those whose bindings pass JSON on as text."""


@pytest.mark.parametrize("make", [everything, filled, empty])
def test_object_of_every_kind(plugin: Plugin, make: Any) -> None:
    """An object with properties of all kinds comes back equal, each at the ends of its range."""
    given = make(plugin.host)
    assert plugin.calls.echo_everything(given) == given


def test_optional_is_absent(plugin: Plugin) -> None:
    """A property that is not set is absent in JSON, one that is required and null is null."""
    target = plugin.calls._plugwasm_target
    given = msgspec.json.encode(everything(plugin.host))
    output = msgspec.json.decode(target.call("echoEverything", given))
    assert "maybeText" not in output
    assert "shape" not in output
    assert output["nullable"] is None


@reads_json
def test_null_for_absent_is_read(plugin: Plugin) -> None:
    """Null for a property that may be absent is read as absent."""
    target = plugin.calls._plugwasm_target
    given = msgspec.to_builtins(everything(plugin.host)) | {
        "maybeText": None,
        "maybePoint": None,
        "maybeTags": None,
        "shape": None,
    }
    assert "maybeText" not in msgspec.json.decode(target.call("echoEverything", given))


@reads_json
def test_unknown_property_is_ignored(plugin: Plugin) -> None:
    """A property that the schema does not have is no error: newer hosts may send it."""
    target = plugin.calls._plugwasm_target
    output = target.call("echoShape", {"other": [{"a": [1]}], "radius": 2.5, "kind": "circle"})
    assert msgspec.json.decode(output) == {"kind": "circle", "radius": 2.5}


def test_variants_of_unions(plugin: Plugin) -> None:
    """Each variant of a union comes back as itself."""
    host = plugin.host
    for shape in (host.Circle(radius=0.25), host.Square(side=3), host.Square(side=3, label="x")):
        assert plugin.calls.echo_shape(shape) == shape


def test_types_within_themselves(plugin: Plugin) -> None:
    """Trees and unions that contain themselves come back."""
    host = plugin.host
    tree = host.Tree(value=1, children=[])
    for value in range(20):
        tree = (
            host.Tree(value=value, children=[tree, tree], next=None)
            if value < 5
            else host.Tree(value=value, children=[], next=tree)
        )
    assert plugin.calls.echo_tree(tree) == tree
    tree = host.Tree(value=1, children=[])
    for _ in range(30):  # two levels each
        tree = host.Tree(value=1, children=[tree])
    assert plugin.calls.echo_tree(tree) == tree
    sum = host.Sum(left=host.Literal(value=1), right=host.Literal(value=2))
    sum = host.Sum(left=sum, right=host.Sum(left=sum, right=host.Literal(value=0.5)))
    assert plugin.calls.echo_expression(sum) == sum


@pytest.mark.parametrize("text", ["", "a", "ü € 😀", '"', "\\\n\x00", "x" * 70_000])
def test_text_as_text_and_json(plugin: Plugin, text: str) -> None:
    """Text comes back, as text and as JSON."""
    assert plugin.calls.echo_text(text) == text
    assert plugin.calls.echo_json_text(text) == text


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff\xfe", bytes(range(256)) * 100])
def test_bytes_as_bytes_and_json(plugin: Plugin, data: bytes) -> None:
    """Bytes come back, as they are and in base64."""
    assert plugin.calls.echo_bytes(data) == data
    assert plugin.calls.echo_json_bytes(data) == data


def test_collections(plugin: Plugin) -> None:
    """Lists and maps come back, also empty ones."""
    fruit = list(plugin.host.Fruit)
    assert plugin.calls.echo_list(fruit) == fruit
    assert plugin.calls.echo_list([]) == []
    assert plugin.calls.echo_map({"a": 1, "b\n": -(2**31)}) == {"a": 1, "b\n": -(2**31)}
    assert plugin.calls.echo_map({}) == {}


def test_enums_as_text_and_json(plugin: Plugin) -> None:
    """Each value of an enum is converted from text to JSON and back."""
    for fruit in plugin.host.Fruit:
        assert plugin.calls.fruit_to_json(fruit) == fruit
        assert plugin.calls.fruit_to_text(fruit) == fruit


def test_numbers_and_null(plugin: Plugin) -> None:
    """Booleans, numbers as text, and null come back."""
    assert plugin.calls.negate(True) is False
    assert plugin.calls.negate(False) is True
    assert plugin.calls.double(-(2**31)) == -(2**32)
    assert plugin.calls.maybe(None) is None
    for number in (0.0, -0.5, 1e300, 5e-324, 0.1, 1 / 3, 123456789.125):
        assert plugin.calls.maybe(number) == number


def test_host_functions(plugin: Plugin) -> None:
    """Imports are called with typed values, and their results are typed."""
    host, seen = plugin.host, plugin.offered.seen
    given = filled(host)
    assert plugin.calls.call_host(given).text == given.text + "!"
    assert isinstance(seen.pop(), host.Everything)
    assert plugin.calls.call_host_text("grün") == "GRÜN"
    assert plugin.calls.call_host_fruit(host.Fruit.RED_ORANGE) is True
    assert plugin.calls.call_host_fruit(host.Fruit.APPLE) is False
    assert seen == [host.Fruit.RED_ORANGE, host.Fruit.APPLE]
    assert plugin.calls.call_host_bytes(b"\0\1\2") == b"\2\1\0"
    assert plugin.calls.call_host_number(2**62) == 2**62 + 1
    assert plugin.calls.nothing() is None
    assert seen[2:] == ["ping"]


def test_errors_of_the_plugin(plugin: Plugin) -> None:
    """An error has its code and message; the plugin goes on."""
    with pytest.raises(plugwasm.GuestError, match="failed: x") as caught:
        plugin.calls.fail("x")
    assert caught.value.code == 7
    assert plugin.calls.echo_text("still here") == "still here"


BAD_INPUTS = {
    "no JSON": ("echoShape", b"{"),
    "nothing": ("echoShape", b""),
    "more behind": ("negate", b"true true"),
    "another type": ("negate", b'"true"'),
    "no variant": ("echoShape", b'{"kind":"triangle"}'),
    "no tag": ("echoShape", b'{"radius":1}'),
    "a property is missing": ("echoShape", b'{"kind":"circle"}'),
    "null for a property": ("echoShape", b'{"kind":"circle","radius":null}'),
    "all properties are missing": ("echoEverything", b"{}"),
    "a list for an object": ("echoTree", b"[1]"),
    "null": ("negate", b"null"),
    "null for an object": ("echoTree", b" null "),
    "null for a list": ("echoList", b"null"),
    "not UTF-8": ("echoText", b"\xff"),
    "not UTF-8 in JSON": ("echoJsonText", b'"\xff"'),
    "a list for text": ("echoJsonText", b"[97]"),
    "a number for text": ("echoJsonText", b"7"),
    "text for a list": ("echoList", b'"apple"'),
    "text for an integer": ("echoMap", b'{"a":"1"}'),
    "a number for an enum": ("echoList", b"[0]"),
    "wrong value": ("echoShape", b'{"kind":"circle","radius":"1"}'),
    "no such value": ("echoList", b'["apple","pear"]'),
    "no such text": ("fruitToJson", b"pear"),
    "too large": ("echoMap", b'{"a":2147483648}'),
    "a fraction": ("echoMap", b'{"a":1.5}'),
    "no base64": ("echoJsonBytes", b'"%%%%"'),
    "not a list": ("echoList", b"{}"),
    "deep": ("echoTree", b'{"value":1,"children":[' * 20_000),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
@reads_json
def test_input_of_another_form(plugin: Plugin, case: str) -> None:
    """An input of another form is an error of the call, and nothing worse: the next call works."""
    refuses(plugin, *BAD_INPUTS[case])


BAD_SCALARS = {
    "no boolean": ("negate", b'"true"'),
    "nothing for a boolean": ("negate", b""),
    "more behind a boolean": ("negate", b"true true"),
    "no such text": ("fruitToJson", b"pear"),
    "too large": ("double", b"2147483648"),
    "too small": ("double", b"-2147483649"),
    "much too large": ("double", b"9" * 40),
    "a fraction": ("double", b"1.5"),
    "a zero in front": ("double", b"01"),
    "only a sign": ("double", b"-"),
    "nothing": ("double", b""),
}


@pytest.mark.parametrize("case", BAD_SCALARS)
def test_scalar_of_another_form(plugin: Plugin, case: str) -> None:
    """The same for single values, which bindings of all languages read."""
    refuses(plugin, *BAD_SCALARS[case])


def refuses(plugin: Plugin, function: str, data: bytes) -> None:
    target = plugin.calls._plugwasm_target
    with pytest.raises(plugwasm.GuestError):
        target.call(function, data)
    assert plugin.calls.echo_text("still here") == "still here"


@pytest.mark.parametrize("language", LANGUAGES)
def test_stubs_compile_and_say_so(language: str, tmp_path: Path) -> None:
    """What is generated compiles as it is; its functions say that they are not written yet."""
    path = build(language, tmp_path, stubs=True)
    with (
        plugwasm.Plugin(path, wasi=BUILDS[language].wasi) as plugin,
        pytest.raises(plugwasm.GuestError, match="echoText is not written yet"),
    ):
        plugin.call("echoText", "a")


CORNERS = RICH.with_name("corners.yaml")
V0 = b"version: v0\nexports: [run]\n"
NOTHING = b"version: v1-draft\nexports: {}\ncomponents: {schemas: {A: {properties: {}}}}\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_hard_names_and_texts_compile(language: str, tmp_path: Path) -> None:
    """Names that are taken, and texts with all kinds of characters, compile without a warning."""
    path = build(language, tmp_path, CORNERS, stubs=True)
    (facts,) = collect_facts(resolve(path))["modules"]
    exports = {export["name"] for export in facts["exports"]}
    assert {"import", "delete", "type", "$dollar$", "_x", "Json", "union"} <= exports


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("schema", [V0, NOTHING], ids=["v0", "nothing"])
def test_small_schemas_compile(language: str, schema: bytes, tmp_path: Path) -> None:
    """A list of names, and a schema without functions, compile without a warning."""
    (tmp_path / "s.yaml").write_bytes(schema)
    build(language, tmp_path / "project", tmp_path / "s.yaml", stubs=True)


def test_hard_names_in_python(tmp_path: Path) -> None:
    """The host's module for them can be imported, and its values are those of the schema."""
    generate(CORNERS, "python", tmp_path)
    module = ModuleType("corner_bindings")
    sys.modules["corner_bindings"] = module
    namespace = vars(module)
    exec(compile((tmp_path / "bindings.py").read_text(), "bindings.py", "exec"), namespace)
    try:
        node = namespace["Branch"](left=namespace["Leaf"]())
        assert msgspec.json.encode(node) == (b'{"$type":"Branch","left":{"$type":"leaf \\"\\\\?"}}')
        assert msgspec.json.decode(msgspec.json.encode(node), type=namespace["Node"]) == node
        assert "back\\slash \\" in [kind.value for kind in namespace["Kind"]]
    finally:
        del sys.modules["corner_bindings"]
