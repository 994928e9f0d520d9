"""What the engine does not tell of a module: read off the binary format (WebAssembly 3.0, chapter 5), as far as it is needed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CUSTOM, TYPE, MEMORY, START, CODE = 0, 1, 5, 8, 10
_FUNCTION_TYPE = 0x60
_PLAIN_TYPES = frozenset((0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70, 0x6F))

MAX_NAME = 4096
"""Bytes of a name in the section of names."""
LIGHT_BYTES = 4096
"""Of all but custom sections."""
_LIGHT_VALUES = 32
_LIGHT_LOCALS = 4096


def facts(wasm: bytes) -> tuple[int, int, int, int]:
    """Of a valid module: how many memories it defines (not imports), the pages at first of all and of the largest, and whether it starts
    with a function."""
    count = total = largest = start = 0
    for section, at, _ in sections(wasm):
        start |= section == START
        if section == CODE:
            break
        if section == MEMORY:
            number, at = leb128(wasm, at)
            for _ in range(number):
                flags = wasm[at]
                first, at = leb128(wasm, at + 1)
                total, largest = total + first, max(largest, first)
                if flags & 1:
                    _, at = leb128(wasm, at)
                if flags & 8:
                    _, at = leb128(wasm, at)
            count += number
    return count, total, largest, start


def without_long_names(wasm: bytes) -> bytes:
    """The module without its names for functions if one of them is very long: a backtrace has a copy of the name for each frame."""
    kept, begin = [wasm[:8]], 8
    try:
        for section, at, end in sections(wasm):
            if not (section == CUSTOM and _has_long_names(wasm, at, end)):
                kept.append(wasm[begin:end])
            begin = end
    except IndexError:
        return wasm  # broken off: the engine will find that out
    return b"".join(kept)


def _has_long_names(wasm: bytes, at: int, end: int) -> bool:
    """Whether a custom section is one of names, and has a long one for the module or a function, or cannot be read."""
    length, at = leb128(wasm, at)
    if wasm[at : at + length] != b"name":
        return False
    at += length
    try:
        while at < end:
            kind = wasm[at]
            size, at = leb128(wasm, at + 1)
            after = at + size
            count, at = leb128(wasm, at) if kind == 1 else (int(kind == 0), at)
            for _ in range(count):
                if kind == 1:
                    _, at = leb128(wasm, at)
                size, at = leb128(wasm, at)
                if size > MAX_NAME:
                    return True
                at += size
            at = after
    except IndexError:
        return True
    return False


def is_light(wasm: bytes) -> bool:
    """Whether it is certain, before the module is even known to be valid, that compiling it takes little time and memory.

    Bytes are not enough to tell: a type can have a thousand parameters that each call moves, and five bytes declare 50,000 locals.
    """
    if len(wasm) > 16 * LIGHT_BYTES:
        return False  # counts are claims: following them must not take long either
    size = 0
    try:
        for section, at, end in sections(wasm):
            size += end - at if section != CUSTOM else 0
            if size > LIGHT_BYTES or (section == TYPE and not _has_light_types(wasm, at)):
                return False
            if section == CODE and _locals(wasm, at) > _LIGHT_LOCALS:
                return False
    except IndexError:
        pass  # broken off: the engine will find that out soon enough
    return True


def _has_light_types(wasm: bytes, at: int) -> bool:
    count, at = leb128(wasm, at)
    for _ in range(count):
        if wasm[at] != _FUNCTION_TYPE:
            return False
        at += 1
        for _ in ("parameters", "results"):
            values, at = leb128(wasm, at)
            if values > _LIGHT_VALUES or not _PLAIN_TYPES.issuperset(wasm[at : at + values]):
                return False
            at += values
    return True


def _locals(wasm: bytes, at: int) -> int:
    functions, at = leb128(wasm, at)
    total = 0
    for _ in range(functions):
        size, at = leb128(wasm, at)
        end = at + size
        groups, at = leb128(wasm, at)
        for _ in range(groups):
            count, at = leb128(wasm, at)
            total += count
            if total > _LIGHT_LOCALS:
                return total  # what follows may be broken, which the engine finds out only when it has compiled this
            at += 1
        at = end
    return total


def sections(wasm: bytes) -> Iterator[tuple[int, int, int]]:
    """The number of each section, where its content starts, and where that ends."""
    at = 8
    while at < len(wasm):
        section = wasm[at]
        size, at = leb128(wasm, at + 1)
        yield section, at, at + size
        at += size


def leb128(wasm: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = wasm[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError  # no number of the format is longer, and one of a megabyte would take minutes to make
