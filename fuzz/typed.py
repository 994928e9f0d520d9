"""Any output is read as a value of the type within the limits, or is an `OutputError`.

More is never built. The outputs are JSON and MessagePack of many shapes with changes: parts that
are cut, moved or doubled, containers by the hundred, numbers at their limits, keys with equal
hashes. What msgspec itself reads and is well within the limits is read, with the same result.
"""

from __future__ import annotations

from typing import Any

import msgspec

import plugwasm
from plugwasm._host.codecs import make_output_reader
from plugwasm.codecs import JSON, MSGPACK
from plugwasm.errors import OutputError

from .choices import Choices

COVERED = ["plugwasm._payload_bounds.value_count", "plugwasm._host.hashing"]
SIZES = (3, 9)
VALUES, KEYS = 2000, 40
PRIME = 2**61 - 1

TYPES: tuple[Any, ...] = (
    *(
        object,
        list[int],
        list[list[object]],
        dict[str, object],
        dict[int, int],
        set[int],
        frozenset[tuple[int, ...]],
    ),
    *(
        dict[str, set[int]],
        list[dict[int, str]],
        int | None,
        str,
        float,
        bytes,
        tuple[int, str],
        list[int] | dict[str, int],
    ),
)
VALUES_TO_SEND: tuple[object, ...] = (
    *(
        [],
        {},
        [[]] * 50,
        [{}] * 50,
        list(range(60)),
        [PRIME * i for i in range(4)] * 12,
        {"a": [1, 2.5, None, True, "é\\u005b"]},
    ),
    *(
        {str(i): i for i in range(50)},
        [[i, str(i)] for i in range(20)],
        "[" * 30,
        'text " , : [ { \\',
        -(2**63),
        2**64 - 1,
        1.5e300,
        None,
    ),
)
_JSON_TOKENS = (
    *(b"[],", b"[[[[", b"]]", b"{}", b'"":', b'"a":1,', b",", b"0,"),
    *(b"1e999", b"-0", b"\\u005b", b"\xff", str(PRIME * 3).encode() + b","),
)
_PACKED_TOKENS = (
    *(b"\x90", b"\x80", b"\x91", b"\x92\x90", b"\xdd\xff\xff\xff\xff"),
    *(b"\xdf\x00\x01\x00\x00", b"\xdc\x08\x00", b"\xc0", b"\xcf" + b"\x1f" * 8),
)
SEEDS = [
    bytes([kind, value, *range(value, value + 24)])
    for kind in range(2)
    for value in range(len(VALUES_TO_SEND))
]


_LIMITS = plugwasm.Limits(decoded_values=VALUES, decoded_keys=KEYS)


def check(data: bytes) -> None:
    output, type, is_json = build(data)
    try:
        value = make_output_reader(type, JSON if is_json else MSGPACK, "plugin", "function")(
            output, _LIMITS
        )
    except OutputError as error:
        assert len(str(error)) < 20_000
        is_read, value = False, None
    else:
        is_read = True
        assert _count(value) <= VALUES + 1
    try:
        expected = (msgspec.json if is_json else msgspec.msgpack).decode(output, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if _count(expected) < VALUES / 4 and len(output) < VALUES and not _has_keys(expected):
        assert is_read, "it is well within the limits"
        assert value == expected or value != value


def describe(data: bytes) -> str:
    output, type, is_json = build(data)
    return f"{'JSON' if is_json else 'MessagePack'} as {type}: {output!r}"


def build(data: bytes) -> tuple[bytes, Any, bool]:
    """Return an output, the type that it is read as, and whether it is JSON."""
    choices = Choices(data)
    is_json = choices.byte() % 2 == 0
    value = choices.pick(VALUES_TO_SEND)
    type = choices.pick(TYPES)
    encoded = msgspec.json.encode(value) if is_json else msgspec.msgpack.encode(value)
    output = choices.splice(encoded, _JSON_TOKENS if is_json else _PACKED_TOKENS)
    if choices.rarely(4):
        part = choices.pick(_JSON_TOKENS if is_json else _PACKED_TOKENS) * choices.integer(2)
        output = (
            b"[" + part + b"[]]"
            if is_json
            else b"\xdd" + choices.integer(2).to_bytes(4, "big") + part
        )
    return output, type, is_json


def _count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(_count(part) for part in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return 1 + sum(map(_count, value))
    return 1


def _has_keys(value: object) -> bool:
    """Return whether there is a set, or a dict with keys other than text."""
    if isinstance(value, (set, frozenset)):
        return True
    if isinstance(value, dict):
        return any(not isinstance(key, str) for key in value) or any(map(_has_keys, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_keys, value))
