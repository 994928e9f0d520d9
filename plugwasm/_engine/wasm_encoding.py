"""The binary format of Wasm, as far as modules are taken apart and put together here."""

from __future__ import annotations

from .wasm_binary import (
    CODE,
    CUSTOM,
    DATA,
    ELEMENT,
    EXPORT,
    FUNCTION,
    GLOBAL,
    IMPORT,
    MEMORY,
    START,
    TABLE,
    TAG,
    TYPE,
    iter_sections,
    read_leb128,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "CODE",
    "CUSTOM",
    "DATA",
    "DATA_COUNT",
    "ELEMENT",
    "EXPORT",
    "FUNCREF",
    "FUNCTION",
    "GLOBAL",
    "I32",
    "I64",
    "IMPORT",
    "MEMORY",
    "START",
    "TABLE",
    "TYPE",
    "VALUE_TYPES",
    "append",
    "body",
    "count",
    "function_type",
    "items",
    "iter_sections",
    "join",
    "name",
    "read_leb128",
    "signed",
    "skip_export",
    "skip_import",
    "skip_sized",
    "split",
    "unsigned",
    "vector",
]

DATA_COUNT = 12

I32, I64, F32, F64, FUNCREF = 0x7F, 0x7E, 0x7D, 0x7C, 0x70
VALUE_TYPES = {"i32": I32, "i64": I64, "f32": F32, "f64": F64}

_ORDER = (
    TYPE,
    IMPORT,
    FUNCTION,
    TABLE,
    MEMORY,
    TAG,
    GLOBAL,
    EXPORT,
    START,
    ELEMENT,
    DATA_COUNT,
    CODE,
    DATA,
)


def unsigned(value: int) -> bytes:
    """Encode an unsigned number (LEB128)."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """Encode a signed number (LEB128)."""
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value & 127)
    return bytes(out)


def vector(parts: Sequence[bytes]) -> bytes:
    """Encode a number of items."""
    return unsigned(len(parts)) + b"".join(parts)


def name(text: str) -> bytes:
    """Encode a name."""
    encoded = text.encode()
    return unsigned(len(encoded)) + encoded


def function_type(params: Iterable[int], results: Iterable[int]) -> bytes:
    """Encode the type of a function."""
    return (
        b"\x60"
        + vector([bytes((one,)) for one in params])
        + vector([bytes((one,)) for one in results])
    )


def body(*instructions: bytes, locals: bytes = b"\x00") -> bytes:
    """Encode a function by its locals, encoded as groups, and its instructions."""
    code = locals + b"".join(instructions) + b"\x0b"
    return unsigned(len(code)) + code


def split(wasm: bytes) -> dict[int, bytes]:
    """Return the content of each section, custom sections left out."""
    return {kind: wasm[at:end] for kind, at, end in iter_sections(wasm) if kind != CUSTOM}


def join(sections: dict[int, bytes]) -> bytes:
    """Return the module that has these sections."""
    out = [b"\0asm\1\0\0\0"]
    for kind in _ORDER:
        if kind in sections:
            content = sections[kind]
            out += (bytes((kind,)), unsigned(len(content)), content)
    return b"".join(out)


def items(section: bytes, read: Callable[[bytes, int], int]) -> list[bytes]:
    """Return the items of the content of a section.

    Args:
        read: Returns the offset after the item that starts at an offset.
    """
    found = []
    number, at = read_leb128(section, 0)
    for _ in range(number):
        end = read(section, at)
        found.append(section[at:end])
        at = end
    return found


def skip_import(section: bytes, at: int) -> int:
    """Read an import of a function. Engines import nothing else."""
    for _ in ("module", "name"):
        size, at = read_leb128(section, at)
        at += size
    assert section[at] == 0
    return read_leb128(section, at + 1)[1]


def skip_export(section: bytes, at: int) -> int:
    """Read an export."""
    size, at = read_leb128(section, at)
    return read_leb128(section, at + size + 1)[1]


def skip_sized(section: bytes, at: int) -> int:
    """Read an item that begins with its size, as functions do."""
    size, at = read_leb128(section, at)
    return at + size


def append(section: bytes, more: Sequence[bytes]) -> bytes:
    """Add items to the content of a section that is a vector."""
    number, at = read_leb128(section, 0)
    return unsigned(number + len(more)) + section[at:] + b"".join(more)


def count(section: bytes) -> int:
    """Return how many items the content of a section has."""
    return read_leb128(section, 0)[0]
