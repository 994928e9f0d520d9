"""The types of Wasm values, and conversion between Python's numbers and the raw 64 bits that a call
passes.
"""

from __future__ import annotations

import enum
import operator
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Val", "ValType"]


class ValType(enum.Enum):
    """The types of Wasm values. `PTR` is `I64`: a handle, which is the offset of a block of the
    plugin's memory.
    """

    __module__ = "plugwasm"

    I32 = 0
    I64 = 1
    PTR = 1  # noqa: PIE796  # an alias
    F32 = 2
    F64 = 3
    V128 = 4
    FUNC_REF = 5
    EXTERN_REF = 6


class Val:
    """A Wasm value and its type. Assign to `value` to set a result."""

    __module__ = "plugwasm"

    __slots__ = ("t", "value")

    def __init__(self, t: ValType, v: Any) -> None:
        self.t: ValType = t
        self.value: Any = v

    def __repr__(self) -> str:
        return f"Val({self.t}, {self.value})"


WASM_TYPES = {ValType.I32: "i32", ValType.I64: "i64", ValType.F32: "f32", ValType.F64: "f64"}
VAL_TYPES = {kind: type for type, kind in WASM_TYPES.items()}


def _read_i32(raw: int) -> int:
    raw &= 0xFFFFFFFF
    return raw - (1 << 32) if raw >> 31 else raw


def _read_f32(raw: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", raw & 0xFFFFFFFF))[0]
    return value


def read_f64(raw: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", raw))[0]
    return value


def _write_f32(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


def write_f64(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little", signed=True)


def _write_int(bits: int) -> Callable[[Any], int]:
    low, high = -(1 << bits - 1), 1 << bits

    def write(value: Any) -> int:
        number: int = operator.index(value)
        if not low <= number < high:
            raise OverflowError(f"{number} does not fit into {bits} bits")
        return number & ((1 << bits) - 1)

    return write


READ: dict[ValType, Callable[[int], Any]] = {
    ValType.I32: _read_i32,
    ValType.I64: int,
    ValType.F32: _read_f32,
    ValType.F64: read_f64,
}
WRITE: dict[ValType, Callable[[Any], int]] = {
    ValType.I32: _write_int(32),
    ValType.I64: _write_int(64),
    ValType.F32: _write_f32,
    ValType.F64: write_f64,
}
