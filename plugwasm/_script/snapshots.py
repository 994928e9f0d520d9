"""Where memories differ, to write one back into a module.

A snapshot is the heap of an engine: its memory without the stack, which comes first and is empty
between two calls.
"""

from __future__ import annotations

from .pins import STACK_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 65536
_CHUNK = 4096
_PART = 512
_RUN = 32
_MOST = 2**20
"""Bytes that are yielded at once, so that whoever counts them can stop."""


def find_changes(before: bytes, after: bytes, gap: int) -> Iterator[tuple[int, bytes]]:
    """Yield where two heaps differ: addresses and the new bytes, in order.

    What there was not before was zero. Less than `gap` equal bytes between two that differ are
    yielded with them. Long ones are yielded in parts.
    """
    start = end = -1
    for run in _differing(before, after):
        if start < 0:
            start = run
        elif run - end >= gap or end - start >= _MOST:
            yield STACK_BYTES + start, after[start:end]
            start = run
        end = run + _RUN
    if start >= 0:
        yield STACK_BYTES + start, after[start:end]


def _differing(before: bytes, after: bytes) -> Iterator[int]:
    """Yield the offsets of runs that differ."""
    for chunk in range(0, len(after), _CHUNK):
        new = after[chunk : chunk + _CHUNK]
        old = before[chunk : chunk + _CHUNK].ljust(len(new), b"\0")
        if old == new:
            continue
        for part in range(0, len(new), _PART):
            if old[part : part + _PART] == new[part : part + _PART]:
                continue
            for run in range(part, part + _PART, _RUN):
                if old[run : run + _RUN] != new[run : run + _RUN]:
                    yield chunk + run
