"""The maximum nesting depth of JSON from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm._payload_bounds.nesting import MAX_LEVELS, is_json_too_deep


def nested(levels: int, open: str = "[", close: str = "]") -> bytes:
    return (open * levels + close * levels).encode()


@pytest.mark.parametrize(("open", "close"), [("[", "]"), ('{"a":', "}"), ('[{"[":[', "]}]")])
def test_the_boundary_is_exact(open: str, close: str) -> None:
    each = open.count("[") + open.count("{") - open.count('"[')
    assert not is_json_too_deep(nested(MAX_LEVELS // each, open, close).replace(b":}", b":1}"))
    assert is_json_too_deep(nested(MAX_LEVELS // each + 1, open, close))


def test_what_is_wide_is_not_deep() -> None:
    assert not is_json_too_deep(b"[" + b",".join([b"[]"] * 10_000) + b"]")


@pytest.mark.parametrize(
    "text",
    [
        '"' + "[" * 1000 + '"',
        '"\\"' + "[" * 1000 + '"',
        '"' + "[" * 1000,
        '"\\\\' + "{" * 1000 + '"',
    ],
)
def test_brackets_in_strings_are_ignored(text: str) -> None:
    """Brackets in strings do not count."""
    assert not is_json_too_deep(text.encode())


def test_brackets_after_a_string_do() -> None:
    assert is_json_too_deep(b'{"\\"":"\\\\",' + b"[" * MAX_LEVELS)


def test_unclosed_text_is_seen_at_once() -> None:
    """Text with only opening brackets is detected at once."""
    assert is_json_too_deep(b"[" * 10_000_000)


def depth(value: Any) -> int:
    """Return the depth without recursion, since Python allows little of it inside a test."""
    deepest, rest = 0, [(value, 1)]
    while rest:
        item, level = rest.pop()
        if isinstance(item, (dict, list)):
            deepest = max(deepest, level)
            rest += [
                (inner, level + 1) for inner in (item.values() if isinstance(item, dict) else item)
            ]
    return deepest


VALUES = st.recursive(
    st.text() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(VALUES, st.integers(0, MAX_LEVELS + 20))
def test_matches_parsed_document(value: Any, more: int) -> None:
    """The measured depth is that of the parsed document."""
    for i in range(more):
        value = [value] if i % 2 else {"key": value}
    assert is_json_too_deep(json.dumps(value).encode()) is (depth(value) > MAX_LEVELS)
