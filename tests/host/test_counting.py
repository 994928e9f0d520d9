"""The number of values in JSON and MessagePack, and how many of them go into sets and dicts,
counted before any is built."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugwasm._host.hashing import (
    SLOW,
    HashedParts,
    find_hashed_parts,
    find_hashed_parts_of_model,
    json_exceeds_keys,
    msgpack_exceeds_keys,
)
from plugwasm._payload_bounds import value_count
from plugwasm._payload_bounds.value_count import json_exceeds, msgpack_exceeds

TEXTS = st.text() | st.text('[]{},:"\\ é\n') | st.just('\\"') | st.text("\\", max_size=9)
SCALARS = (
    TEXTS
    | st.integers(-(2**63), 2**64 - 1)
    | st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=40
)


def count(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(count, value.values()))
    return 1


@settings(deadline=None)
@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans(), st.integers(1, 20))
def test_json_values(value: Any, indent: Any, ascii: bool, chunk: int) -> None:
    """The values in JSON are counted exactly."""
    before, value_count._CHUNK = value_count._CHUNK, chunk
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
        assert not json_exceeds(text, count(value))
        assert json_exceeds(text, count(value) - 1)
    finally:
        value_count._CHUNK = before


@settings(deadline=None)
@given(VALUES)
def test_messagepack_values(value: Any) -> None:
    """The values in MessagePack are counted exactly."""
    data = msgspec.msgpack.encode(value)
    assert not msgpack_exceeds(data, count(value))
    assert msgpack_exceeds(data, count(value) - 1)


@settings(deadline=None)
@given(VALUES.filter(lambda value: count(value) > 4), st.data())
def test_values_before_fault(value: Any, data: Any) -> None:
    """Values before an encoding error are counted."""
    text = json.dumps([value, value]).encode()
    cut = data.draw(st.sampled_from([b"\\", b'\\"', b"\x00", b"]", b'"', b"x"]))
    assert json_exceeds(text[:-1] + cut + b"," * 5, 2 * count(value))


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_random_bytes(data: bytes, most: int) -> None:
    """Counting arbitrary bytes is harmless."""
    hashed = HashedParts(frozenset(range(9)), frozenset(range(9)), True)
    for look in (json_exceeds, msgpack_exceeds):
        assert look(data, most) in (True, False)
    for hashes in (json_exceeds_keys, msgpack_exceeds_keys):
        assert hashes(data, hashed, most) in (True, False)


T = TypeVar("T")


class Box(msgspec.Struct, Generic[T]):
    x: T


@dataclasses.dataclass
class Row:
    ids: set[int]
    words: list[str]


@dataclasses.dataclass
class Tree:
    kids: list[Tree]
    ids: frozenset[int]


class Model(pydantic.BaseModel):
    type: dict[str, int]
    ids: list[set[float]]


class Keyed(pydantic.BaseModel):
    rows: dict[UUID, int]


def of(kind: Any, is_json: bool = True) -> HashedParts:
    return find_hashed_parts(msgspec.inspect.type_info(kind), is_json)


@pytest.mark.parametrize(
    "kind",
    [Any, dict, list, dict[str, int], set[str], set[bytes | bool], frozenset[str] | None, Box[int]],
    ids=str,
)
def test_text_types_need_no_json_count(kind: Any) -> None:
    """Types that hold only text need no count in JSON."""
    assert not of(kind).any


@pytest.mark.parametrize(
    ("kind", "sets", "dicts", "weight"),
    [
        (set[int], {1}, set(), 1),
        (set, {1}, set(), 1),
        (set[str | float], {1}, set(), 1),
        (set[tuple[str, int]], {1}, set(), 1),
        (dict[int, frozenset[float]], {2}, {1}, 1),
        (list[Row], {3}, set(), 1),
        (Box[Box[set[int]]], {3}, set(), 1),
        (tuple[Box[int], Box[set[int]]], {3}, set(), 1),
        (dict[UUID, int], set(), {1}, SLOW),
    ],
    ids=str,
)
def test_types_with_sets_and_dicts(kind: Any, sets: set[int], dicts: set[int], weight: int) -> None:
    """The types that may contain sets and dicts are known."""
    assert of(kind) == HashedParts(frozenset(sets), frozenset(dicts), False, weight)


def test_recursive_type_may_hold_sets() -> None:
    """A recursive type may contain sets anywhere."""
    assert len(of(Tree).sets) == len(of(list[Model]).sets) == len(of(Keyed | None).dicts) == 256
    assert find_hashed_parts_of_model(Keyed.__pydantic_core_schema__, True).weight == SLOW
    assert find_hashed_parts_of_model(object(), True).any


@pytest.mark.parametrize("kind", [Any, dict, list[dict[Any, int]], Box[Any], set])
def test_messagepack_dict_keys(kind: Any) -> None:
    """MessagePack may contain dicts with keys of any kind."""
    assert of(kind, is_json=False).untyped


@pytest.mark.parametrize(
    ("kind", "value", "size"),
    [
        (set[int], list(range(100)), 100),
        (set[tuple[int, int]], [[i, 1] for i in range(100)], 300),
        (dict[int, list[int]], {str(i): [1, 2, 3] for i in range(100)}, 100),
        (list[set[int]], [list(range(60)), [], list(range(80)), []], 100),
        (
            list[Row],
            [{"ids": list(range(60)), "words": ["a"] * 9}, {"words": [], "ids": list(range(80))}],
            100,
        ),
        (dict[UUID, int], {str(UUID(int=i)): 1 for i in range(100)}, 800),
    ],
    ids=str,
)
def test_hashed_sizes_are_squared(kind: Any, value: Any, size: int) -> None:
    """The squared sizes of sets and dicts are added up."""
    slack = 3 if size == 300 else 1  # for containers in sets, and empty ones, it is an upper bound
    for text, hashes, is_json in (
        (json.dumps(value).encode(), json_exceeds_keys, True),
        (msgspec.msgpack.encode(value), msgpack_exceeds_keys, False),
    ):
        hashed = of(kind, is_json)
        assert not hashes(text, hashed, size + slack)
        assert hashes(text, hashed, size - SLOW)
        if is_json:  # also when the end is missing
            assert json_exceeds_keys(text[:-1], hashed, size - 2 * SLOW)


def test_messagepack_keys_that_are_not_text() -> None:
    """In MessagePack without a type, keys that are not text count."""
    hashed = of(Any, is_json=False)
    words = msgspec.msgpack.encode([{str(i): i for i in range(1000)}, list(range(1000))])
    assert not msgpack_exceeds_keys(words, hashed, 1)
    for keys, size in (
        (range(100), 100),
        ([(i, i) for i in range(100)], 300),
        ([i / 3 for i in range(100)], 100),
    ):
        data = msgspec.msgpack.encode(dict.fromkeys(keys, "x"))
        assert not msgpack_exceeds_keys(data, hashed, size)
        assert msgpack_exceeds_keys(data, hashed, size - 1)
