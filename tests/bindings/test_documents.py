"""The text of a schema: YAML and JSON as plain data, bounded, without YAML's surprises."""

from __future__ import annotations

import builtins
import json
from typing import Any

import pytest

from plugwasm._bindings import document
from plugwasm._bindings.document import read_document
from plugwasm.errors import SchemaError


def test_yaml_scalars_are_the_core_ones() -> None:
    """Words and dates that YAML 1.1 converts stay text; null, booleans and numbers do not."""
    text = b"[no, yes, on, y, 2024-01-01, 1_000, 0o7, 1:30, null, ~, true, False, 7, -1.5e3, '7']"
    values = ["no", "yes", "on", "y", "2024-01-01", "1_000", "0o7", "1:30"]
    assert read_document(text, "s").data == [*values, None, None, True, False, 7, -1500.0, "7"]


def test_yaml_and_json_agree() -> None:
    """The same data comes of both; a byte-order mark is no part of it."""
    data = {"a": [1, {"b": None}, "x\ny"], "c": {}, "d": []}
    text = b"\xef\xbb\xbf" + json.dumps(data).encode()
    assert read_document(text, "s.json").data == data
    assert read_document(b'a:\n- 1\n- b:\n- "x\\ny"\nc: {}\nd: []\n', "s.yaml").data == data


def test_lines_of_values() -> None:
    """The line of a value is known, or else that of the closest value around it."""
    made = read_document(b"a:\n  b: 1\n  c:\n  - x\n  - y: 2\n", "s")
    assert [made.line(("a", "b")), made.line(("a", "c", "[1]", "y"))] == [2, 5]
    assert made.line(("a", "b", "none", "none")) == 2


BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
REFUSED = {
    "alias": (BOMB, r"line 2: an alias"),
    "merge": (b"a: {x: 1}\n<<: {y: 2}\n", r"line 2: merging"),
    "tag": (b"a: !!python/object/apply:os.system ['true']\n", r"line 1: a tag"),
    "binary tag": (b"a: !!binary aGk=\n", r"line 1: a tag"),
    "same key": (b"a: 1\nb: 2\na: 3\n", r"line 3: the key `a` is there twice"),
    "same key in JSON": (b'{"a": 1, "a": 2}', r"the key `a` is there twice"),
    "key is a list": (b"? [a]\n: 1\n", r"line 1: a key is text"),
    "two documents": (b"a: 1\n---\nb: 2\n", r"line 2: expected one document"),
    "deep": (b"[" * 70 + b"]" * 70, r"more than 64 levels"),
    "deep in JSON": (b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", r"more than 64 levels"),
    "many": (b"[" + b"1," * 60_000 + b"1]", r"more than 50000 values"),
    "many in JSON": (b'{"a":[' + b"1," * 60_000 + b"1]}", r"more than 50000 values"),
    "large": (b"a: " + b"x" * 2**19, r"at most 524288 bytes"),
    "not UTF-8": (b"a: \xff\n", r"not UTF-8 \(at byte 3\)"),
    "not YAML": (b"a: [1\nb: 2\n", r"line 2: the text is not YAML"),
    "not JSON": (b'{"a": 1,\n "b" 2}', r"line 2: the text is not JSON"),
    "control character": (b"a: \x01\n", r"the text is not YAML"),
    "tab": (b"a:\n\tb: 1\n", r"line 2: the text is not YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_text(case: str) -> None:
    """Text that is neither, or has more than a schema needs, is refused with the place."""
    text, message = REFUSED[case]
    with pytest.raises(SchemaError, match=message) as caught:
        read_document(text, "s.yaml")
    assert str(caught.value).startswith("s.yaml: ")
    assert str(caught.value).isprintable()


def test_huge_numbers_are_no_burden() -> None:
    """A number of very many digits stays text in YAML, and is refused in JSON."""
    digits = b"9" * 100_000
    assert read_document(b"a: " + digits, "s").data == {"a": digits.decode()}
    with pytest.raises(SchemaError, match=r"s: .*digits"):
        read_document(b'{"a": ' + digits + b"}", "s")


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML is missing, the error says how to install it; JSON is still read."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SchemaError, match=r"pip install 'plugwasm\[generate\]'"):
        read_document(b"a: 1", "s.yaml")
    assert read_document(b"{}", "s.json").data == {}


def test_bounds_are_what_is_said() -> None:
    """Just within the bounds, a text is read."""
    levels = document.MAX_LEVELS
    assert read_document(b"[" * levels + b"]" * levels, "s").data
    assert len(read_document(b"[" + b"1," * 40_000 + b"1]", "s").data) == 40_001
