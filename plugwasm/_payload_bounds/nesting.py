"""Limit how deep JSON and MessagePack from outside are nested.

Parsers recurse on the native stack, which a few hundred kilobytes of nested arrays can use up.
"""

from __future__ import annotations

from .value_count import MSGPACK_SIZES, read_msgpack_header

MAX_LEVELS = 256
"""The deepest nesting that is read. A level takes a parser some 300 bytes of stack."""


def is_json_too_deep(text: bytes) -> bool:
    """Return whether arrays and objects of a JSON text are nested more than `MAX_LEVELS` deep."""
    if text.count(b"[") + text.count(b"{") <= MAX_LEVELS:
        return False
    import re

    depth = 0
    # Match strings, which may contain brackets, and brackets. An unterminated string matches the
    # rest; the parser will reject it.
    for token in re.finditer(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', text, re.DOTALL):
        start = text[token.start()]
        if start in b"[{":
            depth += 1
            if depth > MAX_LEVELS:
                return True
        elif start in b"]}":
            depth -= 1
    return False


_CONTAINERS = bytes(range(0x80, 0xA0)) + b"\xdc\xdd\xde\xdf"


def is_msgpack_too_deep(data: bytes) -> bool:
    """Return whether arrays and maps of a MessagePack value nest more than `MAX_LEVELS` deep."""
    if len(data) - len(data.translate(None, _CONTAINERS)) <= MAX_LEVELS:
        return False
    around: list[int] = []  # values left in each open container, outermost first
    left, at, end = 1, 0, len(data)
    while at < end:
        while not left:
            if not around:
                return False  # the parser will reject the rest
            left = around.pop()
        left -= 1
        first = data[at]
        if 0x80 <= first < 0xA0:
            at += 1
            values = (first & 15) * (1 if first & 16 else 2)
            if not values and len(around) < MAX_LEVELS:
                continue
        elif size := MSGPACK_SIZES[first]:
            at += size
            continue
        else:
            at, values = read_msgpack_header(data, at)
        if values < 0:
            continue
        around.append(left)
        left = values
        if len(around) > MAX_LEVELS:
            return True
    return False
