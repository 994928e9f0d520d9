"""Schemas: what they say, and errors that name the place."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugwasm._bindings.model import (
    Alias,
    Boolean,
    Bytes,
    Choice,
    Content,
    DateTime,
    Field,
    Float,
    Function,
    Integer,
    Interface,
    ListOf,
    MapOf,
    Nullable,
    Parameter,
    Record,
    Ref,
    Tag,
    Text,
    Union,
)
from plugwasm._bindings.schema import read_interface
from plugwasm.errors import SchemaError
from tests.bindings.builds import RICH
from tests.support.command_line import is_harmless

JSON = "application/json"


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def read(schemas: Any = None, exports: Any = None, **more: Any) -> Interface:
    """Read a schema of these parts."""
    document = {"version": "v1-draft", "exports": exports or {}, **more}
    if schemas is not None:
        document["components"] = {"schemas": schemas}
    return read_interface(json.dumps(document).encode(), "s.json")


def problems(schemas: Any = None, exports: Any = None, **more: Any) -> list[str]:
    """Return what is wrong with a schema."""
    with pytest.raises(SchemaError) as caught:
        read(schemas, exports, **more)
    assert all(problem in str(caught.value) for problem in caught.value.problems[:20])
    return list(caught.value.problems)


def record(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"properties": properties, "required": required or []}


def test_version_0() -> None:
    """Version v0 is a list of exports, without types."""
    made = read_interface(b"version: v0\nexports: [greet, count$Vowels, _x1]\n", "s")
    assert made == Interface("v0", (Function("greet"), Function("count$Vowels"), Function("_x1")))


def test_functions_and_parameters() -> None:
    """Exports and imports have inputs and outputs with content types, or none."""
    text = {"type": "string", "contentType": "text/plain; charset=utf-8", "description": "t"}
    made = read(
        {"User": record()},
        {
            "voidFunc": {"description": "d", "codeSamples": [{"lang": "rust", "source": "x"}]},
            "find": {"input": text, "output": {**ref("User"), "contentType": JSON}},
        },
        imports={"log": {"input": {"type": "buffer", "contentType": "application/x-binary"}}},
    )
    assert made.exports == (
        Function("voidFunc", description="d"),
        Function(
            "find", Parameter(Text(), Content.TEXT, "t"), Parameter(Ref("User"), Content.JSON)
        ),
    )
    assert made.imports == (Function("log", Parameter(Bytes(), Content.BYTES)),)


@pytest.mark.parametrize(
    ("node", "type"),
    [
        ({"type": "string"}, Text()),
        ({"type": "string", "format": "date-time"}, DateTime()),
        ({"type": "string", "format": "byte"}, Bytes()),
        ({"type": "buffer"}, Bytes()),
        ({"type": "integer"}, Integer(64, True)),
        ({"type": "integer", "format": "uint8"}, Integer(8, False)),
        ({"type": "number"}, Float(64)),
        ({"type": "number", "format": "float"}, Float(32)),
        ({"type": "boolean"}, Boolean()),
        ({"type": "array", "items": {"type": "boolean"}}, ListOf(Boolean())),
        ({"items": {"type": "boolean", "nullable": True}}, ListOf(Nullable(Boolean()))),
        ({"additionalProperties": {"type": "string"}}, MapOf(Text())),
        ({"type": "object", "additionalProperties": ref("Other")}, MapOf(Ref("Other"))),
        ({**ref("Other"), "description": "mine"}, Ref("Other")),
        (ref("Maybe"), Nullable(Ref("Maybe"))),
    ],
)
def test_types(node: dict[str, Any], type: Any) -> None:
    """Each form of a type, also where `type` follows from the rest, and where a ref is to what may
    be null.
    """
    made = read(
        {"A": record(["p"], p=node), "Other": record(), "Maybe": record() | {"nullable": True}}
    ).types["A"]
    assert isinstance(made, Record)
    assert made.fields[0].type == type


def test_named_types() -> None:
    """Objects, enums, aliases and unions; what is not required may be null."""
    made = read(
        {
            "User": record(["name"], name={"type": "string"}, age={"type": "integer"}),
            "Fruit": {"enum": ["a", "b"], "description": "d"},
            "Id": {"type": "integer", "nullable": True},
            "Cat": record(["kind"], kind={"type": "string"}),
            "Dog": record(),
            "Pet": {
                "oneOf": [ref("Cat"), ref("Dog")],
                "discriminator": {"propertyName": "kind", "mapping": {"c": "Cat"}},
            },
        }
    ).types
    assert made["User"] == Record(
        "User", (Field("name", Text(), True), Field("age", Nullable(Integer()), False))
    )
    assert made["Fruit"] == Choice("Fruit", ("a", "b"), "d")
    assert made["Id"] == Alias("Id", Integer())
    assert made["Pet"] == Union("Pet", "kind", ("Cat", "Dog"))
    assert made["Cat"] == Record("Cat", (), tag=Tag("kind", "c"))
    assert made["Dog"] == Record("Dog", (), tag=Tag("kind", "Dog"))


def test_recursion_is_marked() -> None:
    """A property by which an object would be within itself is marked; one in a list is not."""
    types = read_interface(RICH.read_bytes(), "rich.yaml").types
    boxed = {
        (name, field.name)
        for name, one in types.items()
        if isinstance(one, Record)
        for field in one.fields
        if field.boxed
    }
    assert boxed == {("Tree", "next"), ("Sum", "left"), ("Sum", "right")}


A = "components.schemas.A"
WRONG: dict[str, tuple[Any, str]] = {
    "type": ({"A": record(p={"type": "strings"})}, f"{A}.properties.p.type: expected"),
    "no type": ({"A": record(p={})}, f"{A}.properties.p.type: expected"),
    "type is a list": ({"A": record(p={"type": ["string"]})}, "got a list"),
    "unknown field": ({"A": record(p={"type": "string", "formats": "byte"})}, "mean `format`"),
    "format": (
        {"A": record(p={"type": "string", "format": "int32"})},
        f'{A}.properties.p.format: expected "date-time" or "byte", got "int32"',
    ),
    "boolean with format": (
        {"A": record(p={"type": "boolean", "format": "byte"})},
        f'{A}.properties.p.format: "boolean" has no formats, got "byte"',
    ),
    "array without items": ({"A": {"type": "array"}}, f"{A}.items: missing"),
    "items of a string": ({"A": {"type": "string", "items": {}}}, f"{A}.items: belongs to"),
    "nested object": ({"A": record(p=record())}, f"{A}.properties.p.properties: an object needs"),
    "nested enum": ({"A": record(p={"enum": ["a"]})}, f"{A}.properties.p.enum: an enum needs"),
    "nested union": ({"A": record(p={"oneOf": []})}, f"{A}.properties.p.oneOf: a union needs"),
    "ref": ({"A": record(p=ref("B"))}, f'{A}.properties.p.$ref: `components.schemas` has no "B"'),
    "ref elsewhere": (
        {"A": record(p={"$ref": "other.yaml#/B"})},
        f'{A}.properties.p.$ref: expected "#/components/schemas/…", got "other.yaml#/B"',
    ),
    "ref to an inner part": ({"A": record(p=ref("A/properties/p"))}, f"{A}.properties.p.$ref"),
    "ref is a number": ({"A": record(p={"$ref": 7})}, f"{A}.properties.p.$ref: expected"),
    "required": ({"A": record(["q"], p={"type": "string"})}, f"{A}.required[0]: "),
    "required is a list": (
        {"A": {"properties": {"p": {"type": "string"}}, "required": [["p"]]}},
        f"{A}.required[0]: ",
    ),
    "required is text": ({"A": {"properties": {}, "required": "p"}}, f"{A}.required: expected"),
    "nullable": ({"A": {"type": "string", "nullable": "yes"}}, f"{A}.nullable: expected true"),
    "name": ({"1A": record()}, "components.schemas.1A: a name has"),
    "name with a dot": ({"A": record(**{"a.b": {"type": "string"}})}, f"{A}.properties.a.b: a"),
    "long name": ({"A" * 101: record()}, "a name has up to 100"),
    "name that ends in a line end": ({"A\n": record()}, "components.schemas.A\\n: a name has"),
    "enum is empty": ({"A": {"enum": []}}, f"{A}.enum: expected a list of strings"),
    "enum of numbers": ({"A": {"enum": ["a", 1]}}, f"{A}.enum[1]: expected a string, got 1"),
    "enum twice": ({"A": {"enum": ["a", "a"]}}, f'{A}.enum[1]: "a" is there twice'),
    "enum of another type": ({"A": {"type": "integer", "enum": ["a"]}}, f"{A}.type: the values"),
    "enum with a surrogate": ({"A": {"enum": ["\ud800"]}}, f"{A}.enum[0]: the string has"),
    "schema is null": ({"A": None}, f"{A}: expected an object, got null"),
    "description": ({"A": {"type": "string", "description": 1}}, f"{A}.description: expected"),
    "alias of itself": ({"A": ref("A")}, f"{A}: refers to itself (A → A)"),
    "list of itself": ({"A": {"items": ref("A")}}, f"{A}: refers to itself (A → A)"),
    "aliases in a circle": (
        {"A": ref("B"), "B": {"additionalProperties": ref("A")}},
        f"{A}: refers to itself (A → B → A)",
    ),
    "endless": ({"A": record(["p"], p=ref("A"))}, f"{A}: no value of this type ends"),
    "endless in two": (
        {"A": record(["p"], p=ref("B")), "B": record(["p"], p=ref("A"))},
        f"{A}: no value of this type ends",
    ),
    "union without discriminator": ({"A": {"oneOf": [ref("A")]}}, f"{A}.discriminator: missing"),
    "union of nothing": ({"A": {"oneOf": []}}, f"{A}.oneOf: expected a list"),
}
UNION = {"oneOf": [ref("C"), ref("D")], "discriminator": {"propertyName": "kind"}}
C_AND_D = {"C": record(), "D": record()}
WRONG |= {
    "variant is no object": (
        {"A": UNION, "C": {"type": "string"}, "D": record()},
        f"{A}.oneOf[0]: `C` is no object",
    ),
    "variant twice": ({"A": {**UNION, "oneOf": [ref("C"), ref("C")]}, **C_AND_D}, "there twice"),
    "endless union": (
        {"A": UNION, "C": record(["p"], p=ref("A")), "D": record(["p"], p=ref("A"))},
        f"{A}: no value of this type ends",
    ),
    "two tags": (
        {"A": UNION, "B": {**UNION, "discriminator": {"propertyName": "type"}}, **C_AND_D},
        "components.schemas.B.oneOf[0]: `C` has the tag `kind: C` in another union",
    ),
    "tag twice": (
        {
            "A": {**UNION, "discriminator": {"propertyName": "kind", "mapping": {"D": "C"}}},
            **C_AND_D,
        },
        f"{A}.discriminator.mapping: two variants have the same tag",
    ),
    "mapping to something else": (
        {
            "A": {**UNION, "discriminator": {"propertyName": "kind", "mapping": {"x": "A"}}},
            **C_AND_D,
        },
        f"{A}.discriminator.mapping.x: `A` is none of the variants",
    ),
    "discriminator is a number": (
        {"A": UNION, "C": record(kind={"type": "integer"}), "D": record()},
        'components.schemas.C.properties.kind: the discriminator of `A` is a string that can be "C"',
    ),
    "discriminator without a name": (
        {"A": {**UNION, "discriminator": {}}, **C_AND_D},
        f"{A}.discriminator.propertyName: expected a name, got nothing",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_types(case: str) -> None:
    """Each kind of mistake in the types is told with its path."""
    schemas, message = WRONG[case]
    assert any(message in problem for problem in problems(schemas)), problems(schemas)


WRONG_FUNCTIONS: dict[str, tuple[Any, str]] = {
    "no content type": ({"input": {"type": "string"}}, "exports.f.input.contentType: expected"),
    "content type": (
        {"output": {"type": "string", "contentType": "text/html"}},
        '"text/plain; charset=utf-8" or "application/x-binary", got "text/html"',
    ),
    "content type is a list": ({"input": {"type": "string", "contentType": [1]}}, "contentType"),
    "object as text": (
        {"input": {**ref("User"), "contentType": "text/plain; charset=utf-8"}},
        "exports.f.input.contentType: text/plain carries",
    ),
    "number as bytes": (
        {"input": {"type": "integer", "contentType": "application/x-binary"}},
        "exports.f.input.contentType: application/x-binary carries",
    ),
    "null as text": (
        {"input": {"type": "string", "nullable": True, "contentType": "text/plain; charset=utf-8"}},
        "exports.f.input.nullable: null can only travel",
    ),
    "input is a list": ({"input": []}, "exports.f.input: expected an object, got an empty list"),
    "unknown field": ({"inptu": {}}, "exports.f.inptu: is no field of this object (did you mean"),
    "code sample": ({"codeSamples": [{"code": "x"}]}, "exports.f.codeSamples[0].code: is no field"),
}


@pytest.mark.parametrize("case", WRONG_FUNCTIONS)
def test_wrong_functions(case: str) -> None:
    """Each kind of mistake in a function is told with its path."""
    function, message = WRONG_FUNCTIONS[case]
    assert any(message in problem for problem in problems({"User": record()}, {"f": function})), (
        problems({"User": record()}, {"f": function})
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "expected an object, got null"),
        (b"[]", "expected an object, got an empty list"),
        (b"exports: {}", 'version: expected "v0" or "v1-draft", got nothing'),
        (b"version: v2\nexports: {}", 'version: expected "v0" or "v1-draft", got "v2"'),
        (b"version: [v0]\nexports: {}", "version: expected"),
        (b"version: v0", "exports: expected a list of names"),
        (b"version: v0\nexports: {a: }", "exports: expected a list of names, got an object"),
        (b"version: v0\nexports: [a, 1, a, b-c]", "exports[1]: expected a name, got an integer"),
        (b"version: v0\nexports: [a, 1, a, b-c]", "exports[2]: `a` is there twice"),
        (b"version: v0\nexports: [a, 1, a, b-c]", "exports[3]: a name has"),
        (b"version: v0\nexports: [memory]", "exports[0]: the name has a meaning of its own"),
        (b"version: v1-draft\nexports: {_start: }", "exports._start: the name has a meaning"),
        (b"version: v1-draft", "exports: missing"),
        (b"version: v1-draft\nexports: [a]", "exports: expected an object"),
        (b"version: v1-draft\nexports: {}\nimport: {}", "import: is no field of this object (did"),
        (b"version: v1-draft\nexports: {}\ncomponents: []", "components: expected an object"),
    ],
)
def test_wrong_documents(document: bytes, message: str) -> None:
    """A document that is no schema says what is missing; the line is there for YAML."""
    with pytest.raises(SchemaError) as caught:
        read_interface(document, "s.yaml")
    assert message in str(caught.value)


def test_all_problems_at_once() -> None:
    """All problems are in one error, with lines; the message has the first twenty."""
    fields = "".join(f"        p{n}: {{type: x{n}}}\n" for n in range(30))
    head = "version: v1-draft\nexports: {}\ncomponents:\n  schemas:\n    A:\n      properties:\n"
    text = head + fields
    with pytest.raises(SchemaError) as caught:
        read_interface(text.encode(), "s.yaml")
    assert len(caught.value.problems) == 30
    assert caught.value.problems[0].startswith("line 7: components.schemas.A.properties.p0.type: ")
    assert str(caught.value).endswith("; and 10 more")


def test_problems_are_in_order_of_lines() -> None:
    """Problems come in the order of the document, whatever is checked first."""
    text = (
        "version: v1-draft\nexports:\n  f: {input: {type: text, contentType: a}}\n"
        "  3bad: {}\ncomponents: {schemas: {A: {properties: {p: {type: date}}}}}\n"
    )
    with pytest.raises(SchemaError) as caught:
        read_interface(text.encode(), "s.yaml")
    lines = [int(problem.split()[1].rstrip(":")) for problem in caught.value.problems]
    assert lines == sorted(lines)
    assert (lines[0], lines[-1]) == (3, 5)


def test_messages_are_safe_to_print() -> None:
    """Names and values of a stranger are escaped and cut in messages."""
    hostile = "\x1b[2J\u202e" + "x" * 5000
    for problem in problems({"A": record(p={"type": hostile}), hostile: record()}):
        assert problem.isprintable()
        assert len(problem) < 800


def test_extension_fields_are_ignored() -> None:
    """Fields that begin with `x-` are for other tools."""
    assert read({"A": {**record(), "x-go": {"a": 1}}}, {"f": {"x-a": 1}}, **{"x-b": []})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$ref", "type", "items", "x", "enum"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
RICH_DATA = yaml.safe_load(RICH.read_text())


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_any_change_is_told(data: st.DataObject) -> None:
    """Whatever stands at some place of a schema: it is read, or the error is a SchemaError."""
    document = copy.deepcopy(RICH_DATA)
    node = document
    for _ in range(data.draw(st.integers(0, 6))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], (dict, list)):
            break
        node = node[key]
    new = data.draw(VALUES)
    if isinstance(node, dict):
        node[data.draw(st.sampled_from([*node, "$ref", "type", "enum", "oneOf"]))] = new
    else:
        node.append(new)
    try:
        read_interface(json.dumps(document).encode(), "s.json")
    except SchemaError as error:
        assert is_harmless(str(error))
        assert "\n" not in str(error)
