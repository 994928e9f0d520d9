"""What a function in Python gets and returns as JSON: the same as CPython's `json` reads and writes."""

import json
import random

import pytest

from plugwasm import GuestError, Plugin
from tests.support.scripts import make_python

SOURCE = """
import json
from dataclasses import dataclass

@dataclass
class Point:
    x: int
    y: int

def same(value):
    return value

def loads(text: str):
    return json.loads(text)

def kinds():
    return [Point(1, 2), (1, 2), {"p": Point(3, 4)}, [{5}]]

def keys():
    return {1: 1, None: 2, True: 3, 1.5: 4, "a": 5}

def bad_key():
    return {(1, 2): 3}

def strange():
    return [object()]

def infinite():
    return [float("inf")]

def changes():
    class Removes(dict):
        pass
    return {"a": [1, 2, 3], "b": Removes(c=1)}

def repeat(value):
    for _ in range(200):
        text = extism._to_json(value)
        assert json.loads(text) == value
    return text

import extism
"""

VALUES = [
    None, True, False, 0, -1, 7, 999999999, -999999999, 1073741823, 1073741824, -1073741825, 2**53,
    2**64, -(10**30), 1.5, -0.25, 1e20, 1e-7, "", "a", "ä€😀", 'quote " back \\ slash /',
    "\n\r\t\b\f\x00\x1f\x7f", [], {}, [[]], [{}], {"": ""}, [1, [2, [3, {"a": [4]}]]],
    {"a": {"a": {"a": "a"}}}, {f"key {i}": i for i in range(500)}, ["x" * 5000, "y" * 20],
]  # fmt: skip


@pytest.fixture(scope="module")
def plugin():
    """A plugin of `SOURCE`."""
    with make_python(SOURCE) as made:
        yield made


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:24])
@pytest.mark.parametrize("escaped", [True, False])
def test_values_come_back(plugin: Plugin, value: object, escaped: bool) -> None:
    """Values survive being read and written, with characters escaped or as they are."""
    text = json.dumps([value], ensure_ascii=escaped, indent=1 if escaped else None)
    assert json.loads(plugin.call("same", text)) == [value]


def test_random_values_come_back(plugin: Plugin) -> None:
    """Nested values with repeated keys, keys that share a place, and objects of many sizes."""
    draw = random.Random(7)
    names = [draw.choice("abcdefgh") * draw.randrange(12) + str(i % 7) for i in range(60)]

    def make(depth: int) -> object:
        kind = draw.randrange(6 if depth else 4)
        if kind == 4:
            return [make(depth - 1) for _ in range(draw.randrange(9))]
        if kind == 5:
            return {draw.choice(names): make(depth - 1) for _ in range(draw.randrange(20))}
        return (draw.randrange(-(10**12), 10**12), draw.random() < 0.5, None, draw.choice(names))[
            kind
        ]

    for _ in range(100):
        value = [make(4)]
        assert json.loads(plugin.call("same", value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "[1 2]", "[1,]", "[,1]", "[1", "[1}", "{", '{"a" 1}', '{"a":1,}', '{"a":}', "{a:1}",
        "{1:2}", '"', '"\\x"', '"\\u12"', '"\\u12g4"', '"a\nb"', "01", "-", "1.", ".5", "1e", "+1",
        "--1", "nul", "truee", "NaN", "Infinity", "1 2", "[] []", "'a'", "\ufeff1", "#", " ",
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(plugin: Plugin, text: str) -> None:
    """As by CPython, for inputs and for `json.loads`; only NaN and Infinity are refused besides."""
    with pytest.raises(GuestError, match="the input is not JSON, at offset"):
        plugin.call("same", text)
    with pytest.raises(GuestError, match="the text is not JSON, at offset"):
        plugin.call("loads", text)
    assert plugin.call("same", "1") == b"1"


def test_surrogates_are_joined(plugin: Plugin) -> None:
    """A pair is one character; half of one, which UTF-8 does not have, is U+FFFD."""
    text = '["\\ud83d\\ude00", "\\ud83d", "\\ude00", "\\ud83d\\u0041", "\\ud83dx"]'
    assert plugin.call("same", text, returns=list) == [
        "😀",
        "\ufffd",
        "\ufffd",
        "\ufffdA",
        "\ufffdx",
    ]


def test_input_that_is_not_utf8(plugin: Plugin) -> None:
    """It is an error that says so, as is an input that is empty."""
    with pytest.raises(GuestError, match="the input is not UTF-8"):
        plugin.call("same", b'"\xff"')
    with pytest.raises(GuestError, match="the input is empty, but JSON was expected"):
        plugin.call("same", b"")


def test_the_last_of_equal_keys_counts(plugin: Plugin) -> None:
    """As in CPython, also if one of them is written with an escape."""
    assert plugin.call("same", '{"a": 1, "b": 2, "\\u0061": 3}', returns=dict) == {"a": 3, "b": 2}


def test_other_values_are_written(plugin: Plugin) -> None:
    """Dataclasses, tuples and sets, wherever they are; keys that are no text become text."""
    assert plugin.call("kinds", returns=list) == [
        {"x": 1, "y": 2}, [1, 2], {"p": {"x": 3, "y": 4}}, [[5]],
    ]  # fmt: skip
    keys = {"1": 3, "null": 2, "1.5": 4, "a": 5}
    assert plugin.call("keys", returns=dict) == keys
    assert plugin.call("changes", returns=dict) == {"a": [1, 2, 3], "b": {"c": 1}}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("bad_key", "TypeError: tuple is not a key that JSON has"),
        ("strange", "TypeError: object is not something that JSON has"),
        ("infinite", "ValueError: JSON has no numbers that are infinite"),
    ],
)
def test_what_json_does_not_have(plugin: Plugin, function: str, message: str) -> None:
    """It is an error, and no output that nobody can read."""
    with pytest.raises(GuestError, match=message):
        plugin.call(function)


def test_values_survive_collections(plugin: Plugin) -> None:
    """Reading and writing make much garbage, and are interrupted by collections everywhere."""
    value = [{"name": "ä" * 30, "n": [i, 2**40 + i, i / 8]} for i in range(60)]
    assert json.loads(plugin.call("repeat", value)) == value
