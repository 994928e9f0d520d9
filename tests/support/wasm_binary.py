"""Write modules in the binary format, with instructions as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

I32, I64, F32, F64, V128, FUNCREF, EXTERNREF = 0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70, 0x6F
END = b"\x0b"
BLOCK, LOOP = 2, 3
CONST = {
    I32: b"\x41\0",
    I64: b"\x42\0",
    F32: b"\x43" + bytes(4),
    F64: b"\x44" + bytes(8),
    V128: b"\xfd\x0c" + bytes(16),
}
KEEP = {I32: b"\x24\0", I64: b"\x24\1", F32: b"\x24\2", F64: b"\x24\3"}
"""Sets a global, so that the compiler cannot leave out what was computed."""
GLOBALS = [bytes([t]) + b"\1" + CONST[t] + END for t in KEEP]
SOME = b"\x23\0"
"""The value of the first global, which the compiler does not know."""


def leb128(number: int) -> bytes:
    """Encode an unsigned number as LEB128."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def section(number: int, content: bytes) -> bytes:
    """Encode a section."""
    return bytes([number]) + leb128(len(content)) + content


def vector(items: Iterable[bytes]) -> bytes:
    found = list(items)
    return leb128(len(found)) + b"".join(found)


def signed_leb128(number: int) -> bytes:
    """Encode a non-negative number as signed LEB128."""
    return (
        leb128(number) if number < 64 else bytes([number & 127 | 128]) + signed_leb128(number >> 7)
    )


def function_type(params: Sequence[int] = (), results: Sequence[int] = ()) -> bytes:
    return b"\x60" + vector(bytes([t]) for t in params) + vector(bytes([t]) for t in results)


def name(number: int) -> bytes:
    text = b"%x" % number
    return leb128(len(text)) + text


def module(
    bodies: Sequence[bytes] = (b"",),
    *,
    types: Sequence[bytes] = (function_type(),),
    of: Sequence[int] | None = None,
    locals: Sequence[tuple[int, int]] = (),
    exports: Iterable[bytes] = (b"\1f\0\0",),
    **sections: Iterable[bytes],
) -> bytes:
    """Return a module of functions with these bodies. All have the first type unless `of` lists
    their types."""
    declared = vector(leb128(count) + bytes([t]) for count, t in locals)
    code = [leb128(len(declared) + len(body) + 1) + declared + body + END for body in bodies]
    content = {
        1: types,
        2: sections.get("imports"),
        3: [leb128(t) for t in of or [0] * len(bodies)],
        4: sections.get("tables", [b"\x70\0\1"]),
        5: sections.get("memories", [b"\0\1"]),
        6: sections.get("globals", GLOBALS),
        7: exports,
        9: sections.get("elements"),
        10: code,
        11: sections.get("data"),
    }
    return b"\0asm\1\0\0\0" + b"".join(
        section(number, vector(items)) for number, items in content.items() if items is not None
    )
