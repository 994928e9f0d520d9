"""Limit how much of JSON or MessagePack from outside goes into sets and dicts.

Python's hashes of numbers, and of what is made of numbers, follow from the values alone: all
multiples of 2**61-1 have the same hash, and with a little computing others that collide can be
found. Building a set of n such values takes n²/2 comparisons, which nothing can interrupt. Hashes
of text and bytes are keyed with a key that is made for each process, unless PYTHONHASHSEED sets it.

So only a certain number of all other keys is read. For a set, all that is in it counts, because
comparing its elements may mean comparing all of that; for a dict, its keys. The squares are added
up: two sets with 7,071 values take as long as one with 10,000.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._payload_bounds.nesting import MAX_LEVELS
from .._payload_bounds.value_count import (
    MSGPACK_SIZES,
    iter_outside_strings,
    json_exceeds,
    max_json_values,
    msgpack_exceeds,
    read_msgpack_header,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW = 8
"""How often a value counts that Python code compares: a UUID, or an object of a class of the
application.
"""

_KEYED_TYPES = frozenset(("StrType", "BytesType", "ByteArrayType", "MemoryViewType"))
_SMALL_TYPES = frozenset(("NoneType", "BoolType", "EnumType", "LiteralType"))
"""Types that have only a few values."""
_NUMBER_TYPES = frozenset(
    ("IntType", "FloatType", "DecimalType", "DateTimeType", "TimeType", "DateType", "TimeDeltaType")
)
_COMPOUND_TYPES = frozenset(("UnionType", "VarTupleType", "TupleType", "FrozenSetType", "ListType"))
"""Types whose values are compared by what is in them."""


_NOWHERE: frozenset[int] = frozenset()
_ANYWHERE = frozenset(range(1, MAX_LEVELS + 1))


class HashedParts(NamedTuple):
    """The parts of a type that go into sets and dicts.

    Attributes:
        sets: Depths at which there may be sets of more than text; 1 is the whole.
        dicts: Depths at which there may be dicts whose keys are read as more than text.
        untyped: Whether there are dicts whose key types depend on the data.
        weight: How often each value counts.
        embedded: Whether texts may be JSON that is read as well.
    """

    sets: frozenset[int] = _NOWHERE
    dicts: frozenset[int] = _NOWHERE
    untyped: bool = False
    weight: int = 1
    embedded: bool = False

    def or_(self, other: HashedParts) -> HashedParts:
        """Return the union of both."""
        return HashedParts(
            self.sets | other.sets,
            self.dicts | other.dicts,
            self.untyped or other.untyped,
            max(self.weight, other.weight),
            self.embedded or other.embedded,
        )

    def anywhere(self) -> HashedParts:
        """Return the same parts at any depth, for a type whose depth is not known."""
        return self._replace(sets=self.sets and _ANYWHERE, dicts=self.dicts and _ANYWHERE)

    @property
    def any(self) -> bool:
        """Whether there is anything to count."""
        return bool(self.sets or self.dicts or self.untyped)


# ---- types ---------------------------------------------------------------------------------------


def find_hashed_parts(info: Any, is_json: bool) -> HashedParts:
    """Return the hashed parts of a type, given by `msgspec.inspect.type_info`."""
    walk = _TypeWalk(is_json)
    found = walk.of(info, 1, ())
    return found.anywhere() if walk.is_recursive else found


class _TypeWalk:
    """A walk through a type. A container of the data is one level deeper."""

    def __init__(self, is_json: bool) -> None:
        self.is_json = is_json
        self.is_recursive = False
        self._seen: set[tuple[int, int]] = set()

    def of(self, info: Any, depth: int, within: tuple[int, ...]) -> HashedParts:
        # Compare by identity: msgspec makes one object for each type within a type, and each form
        # of a generic class is a type of its own.
        this = id(info)
        self.is_recursive |= this in within
        if this in within or (this, depth) in self._seen:
            return HashedParts()
        self._seen.add((this, depth))
        kind = type(info).__name__
        if kind == "CustomType" and hasattr(info.cls, "__pydantic_core_schema__"):
            return find_hashed_parts_of_model(info.cls.__pydantic_core_schema__, self.is_json)
        found = HashedParts(untyped=kind == "AnyType" and not self.is_json)
        if kind in ("SetType", "FrozenSetType") and (weight := _key_weight(info.item_type)):
            found = found.or_(HashedParts(sets=frozenset((depth,)), weight=weight))
        elif kind == "DictType" and type(info.key_type).__name__ == "AnyType":
            found = found.or_(HashedParts(untyped=not self.is_json))
        elif kind == "DictType" and (weight := _key_weight(info.key_type)):
            found = found.or_(HashedParts(dicts=frozenset((depth,)), weight=weight))
        for part in _iter_inner_types(info):
            found = found.or_(self.of(part, depth + (kind != "UnionType"), (*within, this)))
        return found


def _iter_inner_types(info: Any) -> list[Any]:
    """Return the types within a type."""
    found = []
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for part in value if isinstance(value, tuple) else (value,):
            if type(part).__name__ == "Field":
                part = part.type
            if type(part).__module__ == "msgspec.inspect" and type(part).__name__.endswith("Type"):
                found.append(part)
    return found


def _key_weight(info: Any) -> int:
    """Return how often values of that type count as keys; 0 for those that cannot do harm."""
    kind = type(info).__name__
    if kind in _KEYED_TYPES or kind in _SMALL_TYPES:
        return 0
    if kind in _NUMBER_TYPES or kind == "AnyType":
        return 1
    if kind in _COMPOUND_TYPES:
        return max(map(_key_weight, _iter_inner_types(info)), default=0)
    return SLOW


def find_hashed_parts_of_model(schema: Any, is_json: bool) -> HashedParts:
    """Return the hashed parts of a core schema of pydantic, at any depth."""
    if not isinstance(schema, dict):  # pydantic has not built it yet
        return HashedParts(_ANYWHERE, _ANYWHERE, True, SLOW, True)
    kind = schema.get("type")
    found = HashedParts(untyped=kind == "any" and not is_json, embedded=kind == "json")
    if kind in ("set", "frozenset") and (
        weight := _key_weight_of_model(schema.get("items_schema"))
    ):
        found = found.or_(HashedParts(sets=_ANYWHERE, weight=weight))
    elif kind == "dict":
        keys = schema.get("keys_schema", {"type": "any"})
        if keys["type"] == "any":
            found = found.or_(HashedParts(untyped=not is_json))
        elif weight := _key_weight_of_model(keys):
            found = found.or_(HashedParts(dicts=_ANYWHERE, weight=weight))
    left = [part for name, part in schema.items() if name not in ("metadata", "serialization")]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            found = found.or_(find_hashed_parts_of_model(part, is_json))
        elif isinstance(part, (list, tuple)):
            left += part
    return found


def _key_weight_of_model(schema: Any) -> int:
    """Return the weight of a schema, as `_key_weight`."""
    kind = schema["type"] if isinstance(schema, dict) else "any"
    if kind in ("str", "bytes", "none", "bool", "literal", "enum"):
        return 0
    return 1 if kind in ("any", "int", "float", "date", "time", "datetime", "timedelta") else SLOW


# ---- data ----------------------------------------------------------------------------------------


def json_exceeds_keys(text: bytes, hashed: HashedParts, most: int) -> bool:
    """Return whether more of a JSON text goes into sets and dicts than `most`."""
    few = most // hashed.weight
    if hashed.embedded and max_json_values(text) > few:
        return True
    if len(text) <= few or not json_exceeds(text, few):
        return False
    import re

    sets, dicts = hashed.sets, hashed.dicts
    # `marks` counts separators and opening brackets; `begin` is its value at the innermost
    # container, and `commas` counts the separators of that container's elements.
    total, room, marks, begin, commas, is_object = 0, few * few, 0, 0, 0, False
    around: list[tuple[int, int, bool]] = []
    tokens = (
        token[0] for part in _iter_marks(text) for token in re.finditer(rb"[\[{]|[\]}]|[,:]+", part)
    )
    for token in tokens:
        first = token[0]
        if first in b"[{":
            marks += 1
            around.append((begin, commas, is_object))
            begin, commas, is_object = marks, 0, first == 0x7B
        elif first in b"]}":
            if not around:
                break
            if is_object:
                if len(around) in dicts:
                    total += (commas + 1) ** 2
            elif len(around) in sets:
                total += (marks - begin + 1) ** 2
            if total > room:
                return True
            begin, commas, is_object = around.pop()
        else:
            marks += len(token)
            commas += token.count(b",") if is_object else 0
    for depth in range(len(around), 0, -1):  # a truncated text
        total += (
            (commas + 1) ** 2 * (depth in dicts)
            if is_object
            else (marks - begin + 1) ** 2 * (depth in sets)
        )
        begin, commas, is_object = around.pop()
    return total > room


def _iter_marks(text: bytes) -> Iterator[bytes]:
    return (part.translate(None, _NO_MARKS) for part in iter_outside_strings(text))


_NO_MARKS = bytes(set(range(256)) - set(b"[]{},:"))
_TEXT = frozenset((0xC0, 0xC2, 0xC3, *range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB))
"""First bytes of text, bytes and types with few values in MessagePack."""


class _OpenContainer:
    """A container that is being read: what is in it, and how much of that are keys."""

    __slots__ = ("begin", "is_key", "is_map", "keys", "left")

    def __init__(self, left: int, is_map: bool, begin: int, is_key: bool) -> None:
        self.left, self.is_map, self.begin, self.is_key, self.keys = left, is_map, begin, is_key, 0


def msgpack_exceeds_keys(data: bytes, hashed: HashedParts, most: int) -> bool:
    """Return whether more of a MessagePack value goes into sets and dicts than `most`."""
    few = most // hashed.weight
    if hashed.embedded and max_json_values(data) > few:
        return True
    if len(data) <= few or not msgpack_exceeds(data, few):
        return False
    if not (hashed.sets or hashed.dicts) and len(data.translate(None, _MAPS)) == len(data):
        return False
    total, room, values, at, end = 0, few * few, 0, 0, len(data)
    top = _OpenContainer(1, False, 0, False)
    around: list[_OpenContainer] = []

    def leave() -> None:
        nonlocal top, total
        size = top.keys if top.is_map else values - top.begin if len(around) in hashed.sets else 0
        total += size * size
        outer = around.pop()
        if top.is_key:
            outer.keys += values - top.begin
        top = outer

    while at < end and total <= room:
        while not top.left and around:
            leave()
        if not top.left:
            break
        values += 1
        first = data[at]
        is_key = top.is_map and top.left % 2 == 0
        if is_key and ((hashed.untyped and first not in _TEXT) or len(around) in hashed.dicts):
            top.keys += 1
        top.left -= 1
        if size := MSGPACK_SIZES[first]:
            at += size
            continue
        at, inner = read_msgpack_header(data, at)
        if inner > 0:
            around.append(top)
            top = _OpenContainer(inner, first in _MAPS, values, is_key)
    while around:
        leave()
    return total > room


_MAPS = bytes((*range(0x80, 0x90), 0xDE, 0xDF))
"""First bytes of maps."""
