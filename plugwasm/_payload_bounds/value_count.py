"""Count the values of JSON and MessagePack from outside before anything is built of them.

A value is anything that becomes an object: a number, a text, an array, each key of an object, and
so on. It takes at least one byte in MessagePack, or two in JSON with its separator, but 16 to 230
bytes in Python. The count includes all that a parser can have read when it meets the first error,
so a text that is invalid further on is bounded as well. Counting stops once the bound is exceeded.

Decisions: docs/decisions.md, 27.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 2**16
_SPACE = b" \t\r\n"
_MARKS = (b",", b":", b"[", b"{")
"""A mark stands before each value but the first of a container, whose bracket counts instead."""


def json_exceeds(text: bytes, most: int) -> bool:
    """Return whether a JSON text has more than `most` values."""
    if len(text) <= most or max_json_values(text) <= most:
        return False
    count, before = 1, b""
    for part in iter_outside_strings(text):
        pairs = before + part
        count += sum(map(part.count, _MARKS)) - pairs.count(b"[]") - pairs.count(b"{}")
        before = part[-1:] or before
        if count - (before in (b"[", b"{")) > most:  # that one may be empty
            return True
    return count > most


def max_json_values(text: bytes) -> int:
    """Return the most values that a JSON text can have.

    Marks within strings count too, so JSON that is embedded in strings is covered.
    """
    return 1 + sum(map(text.count, _MARKS)) + text.count(b"\\u")


def iter_outside_strings(text: bytes) -> Iterator[bytes]:
    """Yield a JSON text in parts, without whitespace and with a quote in place of each string."""
    at, inside = 0, 0
    while at < len(text):
        chunk = text[at : at + _CHUNK]
        at += len(chunk)
        if b"\\" in chunk:
            if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2:  # in the middle of an escape
                chunk += text[at : at + 1]
                at += 1
            chunk = chunk.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = chunk.split(b'"')
        outside = b'"'.join(parts[inside::2]).translate(None, _SPACE)
        yield b'"' + outside if inside else outside
        inside = (inside + len(parts) - 1) % 2


# ---- MessagePack ---------------------------------------------------------------------------------

# Size in bytes of a scalar, by its first byte; 0 for values that have a length.
MSGPACK_SIZES = [1] * 256
MSGPACK_SIZES[0x80:0xA0] = [0] * 32
MSGPACK_SIZES[0xA0:0xC0] = range(1, 33)
MSGPACK_SIZES[0xC4:0xCA] = [0] * 6
MSGPACK_SIZES[0xCA:0xD4] = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9]
MSGPACK_SIZES[0xD4:0xD9] = [3, 4, 6, 10, 18]
MSGPACK_SIZES[0xD9:0xE0] = [0] * 7
# First byte: width of the length, further bytes, and how many values one unit of it stands for.
MSGPACK_LENGTHS = {
    **dict(zip(range(0xC4, 0xC7), ((1, 0, 0), (2, 0, 0), (4, 0, 0)), strict=True)),
    **dict(zip(range(0xC7, 0xCA), ((1, 1, 0), (2, 1, 0), (4, 1, 0)), strict=True)),
    **dict(
        zip(
            range(0xD9, 0xE0),
            ((1, 0, 0), (2, 0, 0), (4, 0, 0), (2, 0, 1), (4, 0, 1), (2, 0, 2), (4, 0, 2)),
            strict=True,
        )
    ),
}


def read_msgpack_header(data: bytes, at: int) -> tuple[int, int]:
    """Read the header at `at` of a value that has a length.

    Returns:
        The offset where the content of an array or a map begins, and how many values it holds.
        For other values, the offset after the value, and -1.
    """
    first = data[at]
    if first < 0xA0:
        return at + 1, (first & 15) * (1 if first & 16 else 2)
    width, more, each = MSGPACK_LENGTHS[first]
    length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    at += 1 + width + more
    return (at, length * each) if each else (at + length, -1)


def msgpack_exceeds(data: bytes, most: int) -> bool:
    """Return whether a MessagePack value contains more than `most` values, itself included."""
    if len(data) <= most:
        return False
    count, left, at, end = 0, 1, 0, len(data)
    while at < end and left:
        count += 1
        if count > most:
            return True
        left -= 1
        first = data[at]
        if 0x80 <= first < 0xA0:
            at += 1
            left += (first & 15) * (1 if first & 16 else 2)
        elif size := MSGPACK_SIZES[first]:
            at += size
        else:
            at, values = read_msgpack_header(data, at)
            if values > 0:
                left += values
    return False
