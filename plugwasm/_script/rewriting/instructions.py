"""Read the instructions of functions: where each begins, its immediates, and what it does to the
operand stack. Only what LLVM makes of C is known, which is all that is read here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..._engine import wasm_encoding as wasm
from ..._engine.wasm_binary import read_leb128
from ..._engine.wasm_encoding import unsigned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

UNREACHABLE, BLOCK, LOOP, IF, ELSE, THROW, THROW_REF, END = (
    0x00,
    0x02,
    0x03,
    0x04,
    0x05,
    0x08,
    0x0A,
    0x0B,
)
BR, BR_IF, BR_TABLE, RETURN, CALL, CALL_INDIRECT = 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x11
DROP, SELECT, SELECT_TYPED, TRY_TABLE = 0x1A, 0x1B, 0x1C, 0x1F
LOCAL_GET, LOCAL_SET, LOCAL_TEE, GLOBAL_GET, GLOBAL_SET = 0x20, 0x21, 0x22, 0x23, 0x24
I32_STORE, I64_STORE, I32_CONST, I32_ADD, I32_SUB = 0x36, 0x37, 0x41, 0x6A, 0x6B
_I64_CONST, _F32_CONST, _F64_CONST, _PREFIX = 0x42, 0x43, 0x44, 0xFC

OPENS: Final = frozenset((BLOCK, LOOP, IF, TRY_TABLE))
LEAVES: Final = frozenset((UNREACHABLE, THROW, THROW_REF, BR, BR_TABLE, RETURN))
"""After one of these, nothing comes directly."""
CONSTANTS: Final = frozenset((I32_CONST, _I64_CONST, _F32_CONST, _F64_CONST))
NO_POINTER: Final = frozenset((*range(0x45, 0x67), *range(0x2C, 0x30), 0xC0, 0xC1))
"""Instructions whose i32 is none of an address: comparisons, and loads of 8 and 16 bits."""

_TYPES: Final = {0x7F: "i", 0x7E: "l", 0x7D: "f", 0x7C: "d", 0x70: "r", 0x6F: "r", 0x69: "r"}
_CODES: Final = {"i": 0x7F, "l": 0x7E, "f": 0x7D, "d": 0x7C, "r": 0x69}

BLOCK_TYPES: Final = {"": b"\x40", "i": b"\x7f", "l": b"\x7e", "f": b"\x7d", "d": b"\x7c"}
"""How a block is encoded that has these results."""
_PROLOGUE: Final = (GLOBAL_GET, I32_CONST, I32_SUB)
"""How a function begins that takes some of the stack in linear memory."""

_EFFECTS: Final[dict[int, tuple[str, str]]] = {}
"""What an instruction without control takes off the stack, the uppermost last, and puts on it."""
_MEMORY: Final = range(0x28, 0x3F)

for _first, _last, _effect in (
    (0x01, 0x01, ">"), (0x1A, 0x1A, "?>"),
    (0x28, 0x28, "i>i"), (0x29, 0x29, "i>l"), (0x2A, 0x2A, "i>f"), (0x2B, 0x2B, "i>d"),
    (0x2C, 0x2F, "i>i"), (0x30, 0x35, "i>l"), (0x36, 0x36, "ii>"), (0x37, 0x37, "il>"),
    (0x38, 0x38, "if>"), (0x39, 0x39, "id>"), (0x3A, 0x3B, "ii>"), (0x3C, 0x3E, "il>"),
    (0x3F, 0x3F, ">i"), (0x40, 0x40, "i>i"), (0x41, 0x41, ">i"), (0x42, 0x42, ">l"),
    (0x43, 0x43, ">f"), (0x44, 0x44, ">d"), (0x45, 0x45, "i>i"), (0x46, 0x4F, "ii>i"),
    (0x50, 0x50, "l>i"), (0x51, 0x5A, "ll>i"), (0x5B, 0x60, "ff>i"), (0x61, 0x66, "dd>i"),
    (0x67, 0x69, "i>i"), (0x6A, 0x78, "ii>i"), (0x79, 0x7B, "l>l"), (0x7C, 0x8A, "ll>l"),
    (0x8B, 0x91, "f>f"), (0x92, 0x98, "ff>f"), (0x99, 0x9F, "d>d"), (0xA0, 0xA6, "dd>d"),
    (0xA7, 0xA7, "l>i"), (0xA8, 0xA9, "f>i"), (0xAA, 0xAB, "d>i"), (0xAC, 0xAD, "i>l"),
    (0xAE, 0xAF, "f>l"), (0xB0, 0xB1, "d>l"), (0xB2, 0xB3, "i>f"), (0xB4, 0xB5, "l>f"),
    (0xB6, 0xB6, "d>f"), (0xB7, 0xB8, "i>d"), (0xB9, 0xBA, "l>d"), (0xBB, 0xBB, "f>d"),
    (0xBC, 0xBC, "f>i"), (0xBD, 0xBD, "d>l"), (0xBE, 0xBE, "i>f"), (0xBF, 0xBF, "l>d"),
    (0xC0, 0xC1, "i>i"), (0xC2, 0xC4, "l>l"), (0xFC00, 0xFC01, "f>i"), (0xFC02, 0xFC03, "d>i"),
    (0xFC04, 0xFC05, "f>l"), (0xFC06, 0xFC07, "d>l"), (0xFC08, 0xFC08, "iii>"),
    (0xFC09, 0xFC09, ">"), (0xFC0A, 0xFC0B, "iii>"),
):  # fmt: skip
    for _code in range(_first, _last + 1):
        _EFFECTS[_code] = tuple(_effect.split(">"))  # type: ignore[assignment]

_INDICES_OF_PREFIXED: Final = {8: 2, 9: 1, 10: 2, 11: 1}


class Instruction(NamedTuple):
    """An instruction.

    Attributes:
        code: Its opcode; after a prefix 0xFC, that and the number.
        start: The offset where it begins.
        end: The offset after it.
        operand: The number of a local, global, function, type, tag or label.
        labels: Of a br_table; of a try_table those of its catches.
        types: Of a block, what it takes and what it leaves.
    """

    code: int
    start: int
    end: int
    operand: int = 0
    labels: tuple[int, ...] = ()
    types: tuple[str, str] = ("", "")


class UnknownCodeError(Exception):
    """The module has an instruction that is not known."""


class Signatures:
    """The types of a module's functions, globals and tags."""

    def __init__(self, sections: dict[int, bytes]) -> None:
        self.types: list[tuple[str, str]] = []
        content = sections[1]
        number, at = read_leb128(content, 0)
        for _ in range(number):
            if content[at] != 0x60:
                raise UnknownCodeError(f"a type of kind {content[at]:#x}")
            params, at = _read_types(content, at + 1)
            results, at = _read_types(content, at)
            self.types.append((params, results))
        self.functions: list[tuple[str, str]] = []
        self.imported: int = 0
        if 2 in sections:
            self._read_imports(sections[2])
        number, at = read_leb128(sections[3], 0)
        for _ in range(number):
            index, at = read_leb128(sections[3], at)
            self.functions.append(self.types[index])
        self.globals: str = ""
        number, at = read_leb128(sections[6], 0)
        for _ in range(number):
            self.globals += _TYPES[sections[6][at]]
            at = sections[6].index(b"\x0b", at) + 1
        self.tags: list[str] = []
        if 13 in sections:
            number, at = read_leb128(sections[13], 0)
            for _ in range(number):
                index, at = read_leb128(sections[13], at + 1)
                self.tags.append(self.types[index][0])

    def _read_imports(self, content: bytes) -> None:
        number, at = read_leb128(content, 0)
        for _ in range(number):
            for _ in range(2):
                size, at = read_leb128(content, at)
                at += size
            if content[at] != 0:
                raise UnknownCodeError("an import that is no function")
            index, at = read_leb128(content, at + 1)
            self.functions.append(self.types[index])
            self.imported += 1

    def effect(self, one: Instruction, locals_: str) -> tuple[str, str]:
        """Return what an instruction takes off the stack, and what it puts on it.

        Not for blocks, branches and `select`.
        """
        code = one.code
        known = _EFFECTS.get(code)
        if known is not None:
            return known
        if code == LOCAL_GET:
            return "", locals_[one.operand]
        if code == LOCAL_SET:
            return "?", ""
        if code == GLOBAL_GET:
            return "", self.globals[one.operand]
        if code == GLOBAL_SET:
            return "?", ""
        if code == CALL:
            return self.functions[one.operand]
        if code == CALL_INDIRECT:
            params, results = self.types[one.operand]
            return params + "i", results
        if code == THROW:
            return self.tags[one.operand], ""
        if code == THROW_REF:
            return "r", ""
        raise UnknownCodeError(f"instruction {code:#x}")

    def read_body(self, code: bytes, at: int, end: int) -> list[Instruction]:
        """Return the instructions from one offset to another."""
        found = []
        while at < end:
            one = self._read_one(code, at)
            found.append(one)
            at = one.end
        return found

    def _read_one(self, code: bytes, start: int) -> Instruction:
        op, at = code[start], start + 1
        if 0x45 <= op <= 0xC4 or op in {0x00, 0x01, ELSE, END, RETURN, DROP, SELECT, THROW_REF}:
            return Instruction(op, start, at)
        if op in _MEMORY:
            _, at = read_leb128(code, at)
            _, at = read_leb128(code, at)
            return Instruction(op, start, at)
        if op in {LOCAL_GET, LOCAL_SET, LOCAL_TEE, GLOBAL_GET, GLOBAL_SET, CALL, BR, BR_IF, THROW}:
            index, at = read_leb128(code, at)
            return Instruction(op, start, at, index)
        if op in {I32_CONST, _I64_CONST}:
            while code[at] & 128:
                at += 1
            return Instruction(op, start, at + 1)
        if op in OPENS:
            return self._read_block(code, start)
        if op == CALL_INDIRECT:
            index, at = read_leb128(code, at)
            _, at = read_leb128(code, at)
            return Instruction(op, start, at, index)
        if op == BR_TABLE:
            number, at = read_leb128(code, at)
            labels = []
            for _ in range(number + 1):
                label, at = read_leb128(code, at)
                labels.append(label)
            return Instruction(op, start, at, labels=tuple(labels))
        if op in {0x3F, 0x40}:
            return Instruction(op, start, at + 1)
        if op in {_F32_CONST, _F64_CONST}:
            return Instruction(op, start, at + (4 if op == _F32_CONST else 8))
        if op == _PREFIX:
            number, at = read_leb128(code, at)
            for _ in range(_INDICES_OF_PREFIXED.get(number, 0)):
                _, at = read_leb128(code, at)
            if 0xFC00 + number in _EFFECTS:
                return Instruction(0xFC00 + number, start, at)
        raise UnknownCodeError(f"instruction {op:#x} at {start}")

    def _read_block(self, code: bytes, start: int) -> Instruction:
        op, at = code[start], start + 1
        kind = code[at]
        if kind == 0x40:
            types, at = ("", ""), at + 1
        elif kind in _TYPES:
            types, at = ("", _TYPES[kind]), at + 1
        else:
            index, at = read_leb128(code, at)
            types = self.types[index]
        labels = []
        if op == TRY_TABLE:
            number, at = read_leb128(code, at)
            for _ in range(number):
                catch, at = code[at], at + 1
                if catch < 2:
                    _, at = read_leb128(code, at)
                label, at = read_leb128(code, at)
                labels.append(label)
        return Instruction(op, start, at, 0, tuple(labels), types)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a module.

    Attributes:
        signatures: The types of the module's functions.
        body: What the module has of it: locals and instructions.
        params, results, declared: The types of its parameters, results and other locals.
        instructions: Its instructions, with offsets in `body`.
        locals: The types of its parameters and other locals.
    """

    signatures: Signatures
    body: bytes
    params: str
    results: str
    declared: str = field(init=False)
    instructions: list[Instruction] = field(init=False)
    locals: str = field(init=False)

    def __post_init__(self) -> None:
        declared, begin = read_locals(self.body, 0)
        object.__setattr__(self, "declared", declared)
        object.__setattr__(self, "locals", self.params + declared)
        read = self.signatures.read_body(self.body, begin, len(self.body))
        object.__setattr__(self, "instructions", read)

    def frame_size(self) -> int:
        """Return how much of the stack the compiler takes, which it does first if at all."""
        start = self.instructions[:3]
        if tuple(one.code for one in start) != _PROLOGUE:
            return 0
        size, _ = read_leb128(self.body, start[1].start + 1)
        return size


def read_functions(sections: dict[int, bytes], signatures: Signatures) -> list[Function]:
    """Return the functions of a module's own."""
    bodies = wasm.items(sections[wasm.CODE], wasm.skip_sized)
    return [
        Function(signatures, body[read_leb128(body, 0)[1] :], *types)
        for body, types in zip(bodies, signatures.functions[signatures.imported :], strict=True)
    ]


def encode_bodies(bodies: Iterable[bytes]) -> bytes:
    """Return the section of code with these bodies."""
    return wasm.vector([unsigned(len(body)) + body for body in bodies])


def _read_types(content: bytes, at: int) -> tuple[str, int]:
    number, at = read_leb128(content, at)
    return "".join(_TYPES[one] for one in content[at : at + number]), at + number


def read_locals(code: bytes, at: int) -> tuple[str, int]:
    """Return the types of the locals that a function declares, and the offset after them."""
    groups, at = read_leb128(code, at)
    types = ""
    for _ in range(groups):
        number, at = read_leb128(code, at)
        types += _TYPES[code[at]] * number
        at += 1
    return types, at


def encode_locals(types: str) -> bytes:
    """Encode the declaration of locals."""
    groups: list[tuple[int, int]] = []
    for letter in types:
        if groups and groups[-1][1] == _CODES[letter]:
            groups[-1] = (groups[-1][0] + 1, groups[-1][1])
        else:
            groups.append((1, _CODES[letter]))
    return unsigned(len(groups)) + b"".join(unsigned(n) + bytes((code,)) for n, code in groups)
