"""Where memories differ, to write one back into a module."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 65536
_CHUNK = 4096
_RUN = 32


def find_changes(before: bytes, after: bytes, gap: int) -> Iterator[tuple[int, bytes]]:
    """Yield where two memories differ: offsets and the new bytes, in order.

    Memory that there was not before was zero. Less than `gap` equal bytes between two that differ
    are yielded with them.
    """
    start = end = -1
    for at in range(0, len(after), _CHUNK):
        new = after[at : at + _CHUNK]
        old = before[at : at + _CHUNK].ljust(len(new), b"\0")
        if old == new:
            continue
        for run in range(0, len(new), _RUN):
            if old[run : run + _RUN] == new[run : run + _RUN]:
                continue
            if start < 0:
                start = at + run
            elif at + run - end >= gap:
                yield start, after[start:end]
                start = at + run
            end = at + run + _RUN
    if start >= 0:
        yield start, after[start:end]
