"""Make a Python function that C calls catch exceptions from its very first instruction on.

CPython runs pending signal handlers when it enters a function, before the first statement and so
before any `try` in it. While a guest runs, the next function to be entered is one of our callbacks:
the KeyboardInterrupt of a Ctrl-C would be raised there, ctypes would print and drop it, and the
guest would run on. `signal_safe` widens the function's first `try` to cover its entry too, by
moving the start of the first range in its exception table to 0; the stack is as empty at the entry
as it is at the `try`. Measured over 30 interrupts each on CPython 3.11, 3.12 and 3.13: 30 caught
with it, 0 without; and over hundreds on 3.14 and 3.15, with and without their JIT: all of them.

A trace function or profiler of Python (debuggers, `sys.settrace`, `sys.setprofile`) is itself a
function. It is called as ours is entered and as it returns, the handler runs in it, and what it
raises appears in ours. Python 3.11 looks such an exception up one instruction too early, which at
the entry is before the code; so there the code begins with an instruction that does nothing. From
3.12 on, what it raises as the function returns can be caught too, so the range covers the `return`
that follows; 3.11 leaves no way to catch that.

The format of the table: Objects/exception_handling_notes.txt in CPython's sources.

Decisions: docs/decisions.md, 6 and 32.4.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])


def _read_number(table: bytes, at: int) -> tuple[int, int]:
    byte = table[at]
    value = byte & 63
    while byte & 64:
        at += 1
        byte = table[at]
        value = value << 6 | byte & 63
    return value, at + 1


def _write_number(value: int, first: bool) -> bytes:
    digits = [value & 63]
    while value := value >> 6:
        digits.append(value & 63 | 64)
    digits.reverse()
    return bytes([digits[0] | (128 if first else 0), *digits[1:]])


def signal_safe(function: F) -> F:
    """Widen the function's first `try` to cover its entry, and return the function.

    The function must begin with that `try`, and be no closure or generator.
    """
    code = function.__code__
    table = code.co_exceptiontable
    if not table or code.co_freevars or code.co_cellvars or code.co_flags & 0x2A0:
        raise TypeError(
            f"{function.__qualname__} cannot be shielded: it must be a plain function that begins "
            "with `try`"
        )
    entries = _parse_table(table)
    start, length, target, *rest = entries[0]
    end = start + length
    if sys.version_info < (3, 12):
        # The lookup starts at the new instruction, which is number -1 of the old ones.
        entries[0] = [
            -1,
            end + 1,
            target,
            *rest,
        ]
        function.__code__ = code.replace(
            co_code=_NOP + code.co_code,
            co_linetable=_NOP_LINE + code.co_linetable,
            co_exceptiontable=_build_table(
                [[start + 1, length, target + 1, *rest] for start, length, target, *rest in entries]
            ),
        )
        return function
    while end < target and code.co_code[2 * end] in _RETURN_NONE:
        end += 1
    entries[0] = [0, end, target, *rest]
    function.__code__ = code.replace(co_exceptiontable=_build_table(entries))
    return function


def _parse_table(table: bytes) -> list[list[int]]:
    """Return start, length and handler of each range in instructions, and the rest of its entry."""
    numbers, at = [], 0
    while at < len(table):
        number, at = _read_number(table, at)
        numbers.append(number)
    return [numbers[i : i + 4] for i in range(0, len(numbers), 4)]


def _build_table(entries: list[list[int]]) -> bytes:
    return b"".join(
        _write_number(number, place == 0) for entry in entries for place, number in enumerate(entry)
    )


_NOP, _NOP_LINE = b"\x09\x00", b"\xf8"
"""An instruction of Python 3.11 that does nothing (NOP), and its entry in the table of lines: on no
line.
"""
_RETURN_NONE = frozenset((lambda: None).__code__.co_code[2::2])
"""The instructions of `return None`."""
