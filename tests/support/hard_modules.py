"""Binary modules that are expensive to compile or have large instances."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support.wasm_binary import (
    CONST,
    END,
    F64,
    I32,
    I64,
    KEEP,
    SOME,
    function_type,
    leb128,
    module,
    name,
    signed_leb128,
    vector,
)


def module_of_locals(body: bytes, locals: int, last: bytes = b"") -> bytes:
    """Return a function with so many locals, which all stay alive until its end."""
    used = b"".join(b"\x20" + leb128(i) + KEEP[I32] for i in range(locals))
    return module([body + last + used], locals=[(locals, I32)])


def passing_blocks(kind: int, blocks: int, values: int, type: int, nested: bool) -> bytes:
    """Return blocks or loops that each pass on so many values, in two or three bytes each."""
    begin = bytes([kind, 1])
    inner = begin * blocks + END * blocks if nested else (begin + END) * blocks
    types = [function_type(), function_type([type] * values, [type] * values)]
    return module([CONST[type] * values + inner + b"\x1a" * values], types=types)


def allocated_tables(tables: int, elements: int = 1_000_000) -> bytes:
    """Return a small module that makes the engine allocate so many elements for each table."""
    segments = [
        b"\2" + leb128(i) + b"\x41" + signed_leb128(elements - 1) + END + b"\0\1\0"
        for i in range(tables)
    ]
    return module(tables=[b"\x70\0" + leb128(elements)] * tables, elements=segments)


def calls(number: int, values: int, functions: int = 1) -> bytes:
    """Return functions that only call another, with so many values each time."""
    types = [function_type(), function_type([I32] * values, [I32] * values)]
    body = CONST[I32] * values + (b"\x10" + leb128(functions)) * number + KEEP[I32] * values
    return module([body] * functions + [b"\0"], types=types, of=[0] * functions + [1])


# ---- as heavy as what is light can be ------------------------------------------------------------


def _one(type: int, code: bytes) -> Callable[[int], bytes]:
    return lambda n: module(
        [b"\x20\0" + code * n + KEEP[type]], types=[function_type([type])], exports=()
    )


def _repeated(code: bytes) -> Callable[[int], bytes]:
    return lambda n: module([code * n])


def _called(values: int, indirect: bool) -> Callable[[int], bytes]:
    types = [function_type(), function_type([I32] * values, [I32] * values)]
    call = b"\x41\0\x11\1\0" if indirect else b"\x10\1"
    return lambda n: module(
        [CONST[I32] * values + call * n + KEEP[I32] * values, b"\0"], types=types, of=[0, 1]
    )


def _exported(values: int) -> Callable[[int], bytes]:
    return lambda n: module(
        [b"\0"] * n,
        types=[function_type([I64] * values, [I64])],
        exports=[name(i) + b"\0" + leb128(i) for i in range(n)],
    )


def _loops(locals: int, between: bytes = b"") -> Callable[[int], bytes]:
    sets = b"".join(b"\x20" + leb128(i) + b"\x21" + leb128((i + 1) % locals) for i in range(locals))
    return lambda n: module_of_locals(
        b"\x03\x40" * n + sets + (between + SOME + b"\x0d\0\x0b") * n, locals
    )


def _jumps(kind: int, locals: int) -> Callable[[int], bytes]:
    def made(n: int) -> bytes:
        jumps = b"".join(
            SOME + b"\x21" + leb128(i % locals) + SOME + b"\x0d" + leb128(i % n) for i in range(n)
        )
        return module_of_locals(bytes([kind, 0x40]) * n + jumps + END * n, locals)

    return made


def _alive(values: int, code: bytes) -> Callable[[int], bytes]:
    return lambda n: module([(SOME + b"\x41\1\x6a") * values + code * n + KEEP[I32] * values, b""])


def _labels(blocks: int) -> Callable[[int], bytes]:
    def made(n: int) -> bytes:
        table = (
            b"\x02\x40"
            + SOME
            + b"\x0e"
            + vector(leb128(i % blocks) for i in range(blocks))
            + b"\0\x0b"
        )
        return module([b"\x02\x40" * blocks + table * n + END * blocks])

    return made


FAMILIES: dict[str, Callable[[int], bytes]] = {
    "growing": lambda n: module([b"\x41\1" + b"\x40\0" * n + KEEP[I32]]),
    "growing with much alive": lambda n: module(
        [b"\x3f\0" * n + b"\x41\1" + b"\x40\0" * n + b"\x6a" * n + KEEP[I32]]
    ),
    "truncating signed": _one(F64, b"\xb0\xb9"),
    "truncating unsigned": _one(F64, b"\xb1\xba"),
    "truncating short": _one(F64, b"\xaa\xb7"),
    "saturating": _one(F64, b"\xfc\7\xba"),
    "dividing": _one(I64, b"\x20\0\x7f"),
    "remainders": _one(I64, b"\x20\0\x81"),
    "rounding": _one(F64, b"\x9e"),
    "copying signs": _one(F64, b"\x20\0\xa6"),
    "counting bits": _one(I64, b"\x7b"),
    "loading": _one(I32, b"\x28\0\xff\xff\xff\xff\x0f"),
    "storing": _repeated(SOME + SOME + b"\x3a\0\xff\xff\xff\xff\x0f"),
    "selecting": lambda n: module([SOME + (SOME + SOME + b"\x1b") * n + KEEP[I32]]),
    "reading tables": _one(I32, b"\x25\0\xd1"),
    "writing tables": _repeated(SOME + SOME + b"\x25\0\x26\0"),
    "copying tables": _repeated(SOME * 3 + b"\xfc\x0e\0\0"),
    "growing tables": _repeated(b"\xd0\x70" + SOME + b"\xfc\x0f\0\x24\0"),
    "filling memory": _repeated(SOME * 3 + b"\xfc\x0b\0"),
    "references": _repeated(SOME + b"\xd2\0\x26\0"),
    "calling nothing": _repeated(b"\x10\0"),
    **{f"calling with {n}": _called(n, False) for n in (4, 16, 32)},
    **{f"calling indirectly with {n}": _called(n, True) for n in (0, 8, 32)},
    **{f"exporting with {n}": _exported(n) for n in (0, 8, 32)},
    **{f"loops of {n} locals": _loops(n) for n in (1, 5, 20, 100)},
    "loops that call": _loops(5, b"\x10\0"),
    **{
        f"jumps to {kind} with {n} locals": _jumps(code, n)
        for kind, code in (("blocks", 2), ("loops", 3))
        for n in (1, 20, 100)
    },
    **{
        f"{n} values over loops": _alive(n, b"\x03\x40" + SOME + b"\x0d\0\x0b")
        for n in (1, 20, 200)
    },
    **{f"{n} values over calls": _alive(n, b"\x10\1") for n in (20, 200)},
    **{
        f"{n} values over loops that call": _alive(n, b"\x03\x40\x10\1" + SOME + b"\x0d\0\x0b")
        for n in (20, 200)
    },
    **{f"tables of {n} labels": _labels(n) for n in (2, 30, 300)},
    "nested loops": lambda n: module([b"\x03\x40" * n + END * n]),
    "nested conditions": lambda n: module([(SOME + b"\x04\x40") * n + END * n]),
    "conditions with results": lambda n: module(
        [(SOME + b"\x04\x7f") * n + SOME + (b"\x05" + SOME + END) * n + KEEP[I32]]
    ),
    "functions": lambda n: module([b""] * n),
    "functions that loop": lambda n: module([b"\x03\x40\x0c\0\x0b"] * n),
    "functions that grow": lambda n: module([SOME + b"\x40\0\x24\0"] * n),
    "types": lambda n: module(
        types=[function_type([tuple(KEEP)[i >> 2 * j & 3] for j in range(6)]) for i in range(n)],
        bodies=(),
        exports=(),
    ),
    "globals": lambda n: module(globals=[b"\x7f\1\x41\0\x0b"] * n),
    "data": lambda n: module(data=[b"\0\x41\0\x0b\1x"] * n),
    "elements": lambda n: module(elements=[b"\1\0\1\0"] * n),
    "imports": lambda n: module(
        (),
        imports=[b"\1a" + name(i) + b"\0\0" for i in range(n)],
        types=[function_type([I64] * 32)],
        exports=(),
    ),
}
"""Each makes a module of so much of something."""

_PIECES = (
    SOME + b"\x24\0",
    SOME + b"\x40\0\x24\0",
    SOME + SOME + b"\x6d\x24\0",
    b"\x23\3\xb0\x24\1",
    b"\x23\3\xaa\x24\0",
    SOME + b"\x28\0\0\x24\0",
    SOME + SOME + b"\x36\0\0",
    SOME + b"\x25\0\xd1\x24\0",
    b"\x10\0",
    SOME + b"\x11\0\0",
    SOME + b"\x21\0",
    b"\x20\1\x21\2",
    b"\x20\2\x22\3\x24\0",
)


def mixed(seed: int, size: int) -> bytes:
    """Return functions of random pieces, in nested blocks, loops and conditions."""
    chance = random.Random(seed)

    def code(left: int, depth: int) -> bytes:
        out = b""
        while len(out) < left:
            kind = chance.random()
            if kind < 0.6 or depth > 40:
                out += chance.choice(_PIECES)
            elif kind < 0.7 and depth:
                out += SOME + b"\x0d" + leb128(chance.randrange(depth))
            else:
                inner = code(chance.randrange(2, max(3, left // 2)), depth + 1)
                out += chance.choice((b"\x02\x40", b"\x03\x40", SOME + b"\x04\x40")) + inner + END
        return out

    return module(
        [code(size // 3, 0) for _ in range(3)], locals=[(chance.choice((4, 4, 10, 40)), I32)]
    )


def largest_fitting(made: Callable[[int], bytes], fits: Callable[[bytes], bool]) -> bytes:
    """Return the largest module of the family that fits."""
    least, most = 1, 4096
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(made(middle)) else (least, middle - 1)
    return made(least)
