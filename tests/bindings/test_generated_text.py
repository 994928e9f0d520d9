"""A schema's text never becomes code: descriptions, values, tags and names of a stranger."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugwasm._bindings import text
from plugwasm._bindings.files import LANGUAGES, generate_files
from plugwasm._bindings.names import camel, pascal, snake, upper_snake
from plugwasm.errors import SchemaError
from tests.bindings.builds import RICH

HOSTILE = (
    'end */ of "comment""" \\',
    "a\nstd::process::exit(1);",
    "a\r\nexit\u2028exit\u2029exit\x85exit\x0bexit\x0cexit",
    '"""\nimport os\nos.system("true")\n"""',
    "*/ int x; /*\n#include </etc/passwd>\n//go:embed secret",
    "go:build ignore\n+build ignore\nline /etc/passwd:1",
    "trigraph ??/",
    "\u202e\u2066 turned \x00\x1b[2J\ud800",
    "' + 1 + '",
    '${x} {x} %s \\u0041 \\x41 @import("x")',
    "# heading\n- item\n    code\n[a]: b\n\n\n\nend",
)


LITERALS = {
    "assemblyscript": text.assemblyscript_literal,
    "c": text.c_literal,
    "cpp": text.c_literal,
    "go": text.go_literal,
    "python": text.python_literal,
    "rust": text.literal,
    "zig": text.literal,
}


def schema(description: str, value: str = "v", tag: str = "t") -> bytes:
    """Return a schema with these texts wherever it has a text."""

    def say(node: Any) -> Any:
        if isinstance(node, list):
            return [say(one) for one in node]
        if not isinstance(node, dict):
            return node
        made = {key: say(one) for key, one in node.items()}
        if "type" in made or "$ref" in made or "properties" in made or "contentType" in made:
            made["description"] = description
        return made

    json_type = "application/json"
    string = {"type": "string"}
    document = {
        "version": "v1-draft",
        "exports": {
            "run": {
                "description": description,
                "codeSamples": [{"lang": "rust", "source": description, "label": description}],
                "input": {"$ref": "#/components/schemas/User", "contentType": json_type},
                "output": {"type": "string", "contentType": json_type},
            }
        },
        "imports": {
            "log": {"description": description, "input": string | {"contentType": json_type}}
        },
        "components": {
            "schemas": {
                "User": {"properties": {"name": string, "age": string}, "required": ["name"]},
                "Kind": {"enum": [value, "other"], "description": description},
                "Alias": string,
                "Variant": {"properties": {"a": string}},
                "Any": {
                    "description": description,
                    "oneOf": [{"$ref": "#/components/schemas/Variant"}],
                    "discriminator": {
                        "propertyName": "kind",
                        "mapping": {tag: "#/components/schemas/Variant"},
                    },
                },
            }
        },
    }
    return json.dumps(say(document)).encode()


def code_of(language: str, content: str) -> list[str]:
    """Return the lines of a file that are neither comments nor empty. Go's directives are code:
    comments without a blank (`//go:…`).
    """
    if language == "python":
        tree = ast.parse(content)
        for node in ast.walk(tree):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.Module)):
                node.body = [
                    one
                    for one in node.body
                    if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
                ] or [ast.Pass()]
        return ast.unparse(tree).splitlines()
    lines = (" ".join(line.split()) for line in content.split("\n"))
    return [line for line in lines if line and not re.match(r"//(/|!| |$)", line)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_descriptions_are_comments_only(language: str, hostile: str) -> None:
    """Without comments, what is generated is the same for any descriptions."""
    plain = generate_files(schema(""), "s.json", language)
    made = generate_files(schema(hostile), "s.json", language)
    assert list(made) == list(plain)
    for path, file in made.items():
        assert code_of(language, file.content) == code_of(language, plain[path].content), path
        for line in file.content.split("\n"):
            assert line.replace("\t", "").isprintable(), (path, line)
            if language == "python":
                continue
            assert not (line.lstrip().startswith("//") and line.endswith(("\\", "??/"))), line
            assert language != "go" or not re.match(r"\s*//\s*\+build", line), line


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_values_and_tags_are_literals(language: str, hostile: str) -> None:
    """Values of enums and tags of unions are escaped literals, and are nowhere else."""
    hostile = hostile.replace("\ud800", "")
    made = generate_files(schema("", hostile, hostile), "s.json", language)
    expected = LITERALS[language](hostile)
    assert any(expected in file.content for file in made.values())
    for path, file in made.items():
        assert hostile not in file.content.replace(expected, ""), path
        for line in file.content.split("\n"):
            assert line.replace("\t", "").isprintable(), (path, line)


def test_python_has_the_values() -> None:
    """In the module for the host, each literal is the value of the schema."""
    for hostile in HOSTILE:
        hostile = hostile.replace("\ud800", "")
        made = generate_files(schema("", hostile, hostile), "s.json", "python")
        tree = ast.parse(made["bindings.py"].content)
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        assert texts.count(hostile) == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_file_name_of_the_schema(language: str) -> None:
    """The name of the schema's file is in a comment, in one line."""
    made = generate_files(schema(""), "s\nexit(1)\\", language)
    plain = generate_files(schema(""), "s", language)
    for path, file in made.items():
        assert code_of(language, file.content) == code_of(language, plain[path].content)


@pytest.mark.parametrize("language", LANGUAGES)
def test_output_is_deterministic(language: str) -> None:
    """The same schema gives the same files, byte for byte."""
    content = RICH.read_bytes()
    assert generate_files(content, "a", language) == generate_files(content, "a", language)


# ---- literals and comments -----------------------------------------------------------------------

SIMPLE = {'\\"': '"', "\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\?": "?"}


def decode_braces(made: str) -> str:
    """Read a literal of Rust or Zig."""
    return re.sub(
        r"\\u\{([0-9a-f]+)\}|\\.",
        lambda m: chr(int(m[1], 16)) if m[1] else SIMPLE[m[0]],
        made[1:-1],
    )


def decode_c(made: str) -> str:
    """Read a literal of C."""
    octets = re.sub(
        rb"\\([0-7]{3})|\\.",
        lambda m: bytes([int(m[1], 8)]) if m[1] else SIMPLE[m[0].decode()].encode(),
        made[1:-1].encode("ascii"),
    )
    return octets.decode()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXTS)
@example('\\"')
@example("??/")
@example("\U000e0001\u202e\x00\x7f123")
def test_literals_mean_the_text(value: str) -> None:
    """A literal is one line of printable characters, and means the text."""
    assert ast.literal_eval(text.go_literal(value)) == value
    assert ast.literal_eval(text.python_literal(value)) == value
    assert decode_braces(text.literal(value)) == value
    assert decode_c(text.c_literal(value)) == value
    assert "??" not in text.c_literal(value)
    made = text.assemblyscript_literal(value)
    assert json.loads(made) == value
    for one in (made, text.literal(value), text.c_literal(value), text.python_literal(value)):
        assert one.isprintable()


@given(st.text(max_size=200))
@example("a\\\n")
@example('"')
@example('""""')
@example('\\"')
def test_docstrings_are_one_string(value: str) -> None:
    """A docstring is one string, whatever the text: nothing ends it early."""
    lines = text.python_docstring(value, "    ")
    tree = ast.parse("\n".join(["def f():", *lines, "    return 1"]))
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    assert len(function.body) == 1 + bool(lines)


@given(st.text(max_size=200))
def test_comments_are_comments(value: str) -> None:
    """Each line of a comment begins with its mark and goes on nowhere."""
    for line in text.comment(value, "//", "  "):
        assert line.startswith("  //")
        assert line.isprintable()
        assert not line.endswith(("\\", "??/"))


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "in_snake", "in_pascal"),
    [
        ("countVowels", "count_vowels", "CountVowels"),
        ("HTTPServer", "http_server", "HttpServer"),
        ("user_id", "user_id", "UserId"),
        ("anInt32", "an_int32", "AnInt32"),
        ("__x$y", "x_y", "XY"),
        ("$", "value", "Value"),
        ("red orange", "red_orange", "RedOrange"),
        ("", "empty", "Empty"),
        ("Äpfel", "apfel", "Apfel"),
        ("+", "value", "Value"),
    ],
)
def test_cases(name: str, in_snake: str, in_pascal: str) -> None:
    """Names are split where their case, `_` or another character splits them."""
    assert snake(name) == in_snake
    assert upper_snake(name) == in_snake.upper()
    assert pascal(name) == in_pascal
    assert camel(name) == in_pascal[0].lower() + in_pascal[1:]


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_that_are_taken(language: str) -> None:
    """Keywords and names of the generated file itself are no obstacle."""
    words = "class self type fn func int String None Exports Result match Vec list str export"
    string = {"type": "string"}
    document = {
        "version": "v1-draft",
        "exports": {word: {} for word in ("import", "self", "loop", "list", "default")},
        "components": {
            "schemas": {
                "Exports": {"properties": dict.fromkeys(words.split(), string)},
                "Result": string,
                "String": {"enum": ["Self", "class", "None"]},
            }
        },
    }
    made = generate_files(json.dumps(document).encode(), "s.json", language)
    if language == "python":
        ast.parse(made["bindings.py"].content)


@pytest.mark.parametrize("language", ["python", "rust"])
def test_names_that_collide(language: str) -> None:
    """Two names that would be the same are an error with the place and both names."""
    string = {"type": "string"}
    document = {
        "version": "v1-draft",
        "exports": {"aB": {}, "a_b": {}},
        "components": {"schemas": {"U": {"properties": {"userName": string, "user_name": string}}}},
    }
    with pytest.raises(SchemaError) as caught:
        generate_files(json.dumps(document).encode(), "s.json", language)
    assert len(caught.value.problems) == 2
    assert caught.value.problems[1].startswith(
        "components.schemas.U.properties: `userName` and `user_name` would both be `user_name` in "
    )


def test_values_that_collide_get_numbers() -> None:
    """Values of an enum that would have one name get numbers, in the order of the schema."""
    made = generate_files(
        b"version: v1-draft\nexports: {}\ncomponents: {schemas: {E: {enum: ['+', '-', '', '1']}}}",
        "s.yaml",
        "python",
    )["bindings.py"].content
    for line in ('VALUE = "+"', 'VALUE_2 = "-"', 'EMPTY = ""', 'VALUE_1 = "1"'):
        assert f"    {line}\n" in made


def test_writes_only_what_it_may(tmp_path: Path) -> None:
    """Bindings are written anew; a developer's file is written once and kept."""
    from plugwasm._bindings.files import generate

    first = {one.path.name: one.what for one in generate(RICH, "rust", tmp_path / "a")}
    assert set(first.values()) == {"written"}
    (tmp_path / "a/src/lib.rs").write_text("mine")
    (tmp_path / "a/src/bindings.rs").write_text("old")
    second = {one.path.name: one.what for one in generate(RICH, "rust", tmp_path / "a")}
    assert second == {
        "bindings.rs": "changed",
        "lib.rs": "kept",
        "Cargo.toml": "kept",
        "plugin.toml": "kept",
    }
    assert (tmp_path / "a/src/lib.rs").read_text() == "mine"
    assert {one.what for one in generate(RICH, "rust", tmp_path / "a")} == {"unchanged", "kept"}
    assert not list(tmp_path.rglob("*.part"))
