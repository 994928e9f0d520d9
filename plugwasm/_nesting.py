"""How deep JSON or MessagePack from outside is nested. Parsers follow it on the native stack, which a few hundred kilobytes can use up."""

from __future__ import annotations

MAX_LEVELS = 256
"""What is read; a level takes a parser some 300 bytes of stack."""


def is_too_deep(text: bytes) -> bool:
    """Whether the arrays and objects of a JSON text are more than `MAX_LEVELS` within each other."""
    if text.count(b"[") + text.count(b"{") <= MAX_LEVELS:
        return False
    import re

    depth = 0
    # A string, which may hold brackets, or a bracket. A string that does not end takes the rest, and is for the parser to refuse.
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
# Bytes of a scalar, by its first byte; 0 for what has a length.
_SIZES = [1] * 256
_SIZES[0x80:0xA0] = [0] * 32
_SIZES[0xA0:0xC0] = range(1, 33)
_SIZES[0xC4:0xCA] = [0] * 6
_SIZES[0xCA:0xD4] = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9]
_SIZES[0xD4:0xD9] = [3, 4, 6, 10, 18]
_SIZES[0xD9:0xE0] = [0] * 7
# First byte: bytes of the length, bytes besides, how many values each of it stands for.
_LENGTHS = {
    **dict(zip(range(0xC4, 0xC7), ((1, 0, 0), (2, 0, 0), (4, 0, 0)), strict=True)),
    **dict(zip(range(0xC7, 0xCA), ((1, 1, 0), (2, 1, 0), (4, 1, 0)), strict=True)),
    **dict(zip(range(0xD9, 0xE0), ((1, 0, 0), (2, 0, 0), (4, 0, 0), (2, 0, 1), (4, 0, 1), (2, 0, 2), (4, 0, 2)), strict=True)),
}


def is_too_deep_msgpack(data: bytes) -> bool:
    """Whether the arrays and maps of a MessagePack value are more than `MAX_LEVELS` within each other."""
    if len(data) - len(data.translate(None, _CONTAINERS)) <= MAX_LEVELS:
        return False
    around: list[int] = []  # values to come in each container that is open, from the outside
    left, at, end = 1, 0, len(data)
    while at < end:
        while not left:
            if not around:
                return False  # what follows is for the parser to refuse
            left = around.pop()
        left -= 1
        first = data[at]
        size = _SIZES[first]
        if size:
            at += size
            continue
        if first < 0xA0:
            at += 1
            values = (first & 15) * (1 if first & 16 else 2)
        else:
            width, more, each = _LENGTHS[first]
            length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
            at += 1 + width + more
            if not each:
                at += length
                continue
            values = length * each
        around.append(left)
        left = values
        if len(around) > MAX_LEVELS:
            return True
    return False
