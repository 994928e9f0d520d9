"""Read facts about a module that the C API does not tell from its bytes (WebAssembly 3.0, chapter
5).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

(
    CUSTOM,
    TYPE,
    IMPORT,
    FUNCTION,
    TABLE,
    MEMORY,
    GLOBAL,
    EXPORT,
    START,
    ELEMENT,
    CODE,
    DATA,
    _,
    TAG,
) = range(14)
"""The numbers of sections."""

MAX_NAME = 4096
"""The most bytes of a name in the name section."""

_STATE = {IMPORT: 448, TABLE: 64, GLOBAL: 16, ELEMENT: 112, DATA: 16, TAG: 16}
"""Bytes that the engine and the host keep in an instance for each entry of these sections:
measured, and rounded up.
"""
_REFERENCE = 32
"""Bytes for each function that can be referred to."""
_ELEMENT_OF_SEGMENT = 16
_STRUCT, _ARRAY = 0x5F, 0x5E
_NUMBERS_GO_ON = bytes(range(128, 256))

Facts = tuple[int, int, int, int, int, int, int]
INLINED = 4
"""The flag of a module that the kernel's functions are inlined in. The other facts are those of the
original.
"""


def read_facts(wasm: bytes) -> Facts:
    """Return facts about a valid module.

    Returns:
        How many memories it defines; their initial pages together, and those of the largest; flags:
        1 if it has a start function, 2 if it may have objects that are garbage collected; the most
        bytes that an instance takes outside of memories and tables; how many tables it defines; and
        how many types, imports and exports it has together.
    """
    count = total = largest = start = state = tables = functions = references = entries = 0
    for section, at, end in iter_sections(wasm):
        if section in (CUSTOM, CODE):
            continue
        number, at = read_leb128(wasm, at)
        if section in (TYPE, IMPORT, EXPORT):
            entries += number
        if section == TYPE and (_STRUCT in wasm[at:end] or _ARRAY in wasm[at:end]):
            start |= 2  # such a byte may also be part of a number, which does no harm
        state += _STATE.get(section, 0) * number
        if section == MEMORY:
            for _ in range(number):
                flags = wasm[at]
                first, at = read_leb128(wasm, at + 1)
                total, largest = total + first, max(largest, first)
                if flags & 1:
                    _, at = read_leb128(wasm, at)
                if flags & 8:
                    _, at = read_leb128(wasm, at)
            count += number
        elif section == START:
            start |= 1
        elif section == TABLE:
            tables = number
        elif section in (IMPORT, FUNCTION):
            functions += number
        elif section == EXPORT:
            references += number
        elif section == ELEMENT:
            # Each element ends with a byte below 128, as all numbers do. Counting those is fast,
            # and overestimates.
            elements = len(wasm[at:end].translate(None, _NUMBERS_GO_ON))
            references += elements
            state += _ELEMENT_OF_SEGMENT * elements
    return (
        count,
        total,
        largest,
        start,
        state + _REFERENCE * min(references, functions),
        tables,
        entries,
    )


def mark_inlined(facts: Facts) -> Facts:
    """Return the facts with the flag `INLINED`."""
    return (*facts[:3], facts[3] | INLINED, *facts[4:])


MANY_SEGMENTS = 100
MUCH_DATA = 2**16
"""With more segments than `MANY_SEGMENTS`, or more bytes of data than this, a module is better off
with images of its memories: measured (docs/decisions.md, 47).
"""


def benefits_from_images(module: bytes) -> bool:
    """Return whether a module, in either format, has so much initial data that images are worth it.

    For an invalid module any answer does.
    """
    if not module.startswith(b"\0asm"):
        return module.count(b"(data") > MANY_SEGMENTS or (
            len(module) > 2 * MUCH_DATA and b"(data" in module
        )
    if len(module) <= MANY_SEGMENTS:
        return False
    try:
        for section, at, end in iter_sections(module):
            if section == DATA and (
                end - at > MUCH_DATA or read_leb128(module, at)[0] > MANY_SEGMENTS
            ):
                return True
    except IndexError:
        pass
    return False


def shares_memory(wasm: bytes) -> bool:
    """Return whether a valid module defines a shared memory. (An imported one cannot be provided by
    anyone.)
    """
    for section, at, _ in iter_sections(wasm):
        if section == MEMORY:
            number, at = read_leb128(wasm, at)
            for _ in range(number):
                flags = wasm[at]
                if flags & 2:
                    return True
                _, at = read_leb128(wasm, at + 1)
                if flags & 1:
                    _, at = read_leb128(wasm, at)
                if flags & 8:
                    _, at = read_leb128(wasm, at)
    return False


def strip_long_names(wasm: bytes) -> bytes:
    """Return the module without its function names if one of them is very long.

    A backtrace has a copy of the name for each frame.
    """
    kept, begin = [wasm[:8]], 8
    try:
        for section, at, end in iter_sections(wasm):
            if end > len(wasm):
                return wasm  # truncated as well
            if not (section == CUSTOM and _has_long_names(wasm, at, end)):
                kept.append(wasm[begin:end])
            begin = end
    except IndexError:
        return wasm  # truncated: the engine will report it
    return b"".join(kept)


def _has_long_names(wasm: bytes, at: int, end: int) -> bool:
    """Return whether a custom section is a name section with a long name of the module or a
    function, or cannot be read.
    """
    length, at = read_leb128(wasm, at)
    if wasm[at : at + length] != b"name":
        return False
    at += length
    try:
        while at < end:
            kind = wasm[at]
            size, at = read_leb128(wasm, at + 1)
            after = at + size
            count, at = read_leb128(wasm, at) if kind == 1 else (int(kind == 0), at)
            for _ in range(count):
                if kind == 1:
                    _, at = read_leb128(wasm, at)
                size, at = read_leb128(wasm, at)
                if size > MAX_NAME:
                    return True
                at += size
            at = after
    except IndexError:
        return True
    return False


def iter_sections(wasm: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each section, and the offsets where its content starts and ends."""
    at = 8
    while at < len(wasm):
        section = wasm[at]
        size, at = read_leb128(wasm, at + 1)
        yield section, at, at + size
        at += size


def read_leb128(wasm: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned LEB128 number at an offset, and the offset after it."""
    value = shift = 0
    while True:
        byte = wasm[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            # No number of the format is longer, and one of a megabyte would take minutes to build.
            raise IndexError
