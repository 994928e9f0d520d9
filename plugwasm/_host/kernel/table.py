"""The host's view of the table of config and vars, the start of the kernel's bookkeeping (see
table.wat, which has the layout and its rules).

Decisions: docs/decisions.md, 48.
"""

from __future__ import annotations

from itertools import count
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE_BYTES = 28672
HEARD, GENERATION, HAS_VARS, RECALL, CALLS_LEFT, CHANGES, HALF, MAX_BYTES, MAX_VARS = range(9)
"""Words of 32 bits."""

NOBODY = 6
"""In `HEARD`: nobody would hear a message of any level."""
MAX_NAME = 512
"""Bytes of the name of a var that can be in the table."""

_FIRST_HALF, _HALF_BYTES, _LISTS = 1024, 13824, 64
_MASK_31, _MASK_32 = 2**31 - 1, 2**32 - 1
_PADDING = tuple(map(bytes, range(8)))
_heads = Struct(f"<{_LISTS}I")
_entry = Struct("<6I")
ENTRY_BYTES = _entry.size
"""Bytes of an entry before its name."""
_generations = count(1)


class Table:
    """The table of one kernel.

    Attributes:
        words: The first words, which the guest may read at any time.
    """

    __slots__ = ("_page", "words")

    def __init__(self, page: memoryview) -> None:
        self._page = page
        self.words: memoryview = page[:64].cast("I")

    def drop_config(self) -> None:
        """Have the host asked for each setting again.

        Any thread may call this, after it has changed the config. Generations are never the same
        again, so that two threads cannot undo each other's.
        """
        self.words[GENERATION] = next(_generations) & _MASK_31

    def write_vars(
        self, entries: Mapping[bytes, bytes], at: int, most: int, limits: tuple[int, int]
    ) -> int:
        """Write vars to the table while the kernel asks for them.

        Args:
            entries: The vars.
            at, most: Where to, and how many bytes at most.
            limits: The most bytes and the most vars that there may be.

        Returns:
            Where they end, or 0 if they have no room.
        """
        parts: list[bytes] = []
        for order, (name, value) in enumerate(entries.items()):
            length, value_length = len(name), len(value)
            if length > MAX_NAME:
                return 0
            parts += (
                _entry.pack(0, 0, 0, order, length, value_length),
                name,
                _PADDING[-length & 7],
                value,
                _PADDING[-value_length & 7],
            )
        data = b"".join(parts)
        if len(data) > most:
            return 0
        self._page[at : at + len(data)] = data
        self.words[MAX_BYTES], self.words[MAX_VARS] = (min(most, _MASK_32) for most in limits)
        return at + len(data)

    def copy_half(self) -> tuple[int, bytes]:
        """Return the half in use: where it begins, and a copy."""
        start = self.words[HALF] or _FIRST_HALF
        return start, self._page[start : start + _HALF_BYTES].tobytes()


def parse_vars(start: int, half: bytes) -> dict[bytes, bytes]:
    """Return the vars in a half of the table, which begins at `start`."""
    found = []
    for entry in _heads.unpack_from(half):
        while entry:
            entry, _, kind, order, length, value_length = _entry.unpack_from(
                half, at := entry - start
            )
            if kind == 0:
                at += ENTRY_BYTES
                value_at = at + length + (-length & 7)
                found.append(
                    (order, half[at : at + length], half[value_at : value_at + value_length])
                )
    found.sort()
    return {name: value for _, name, value in found}
