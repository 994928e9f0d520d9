"""Decisions made from bytes, so that mutating the bytes mutates the decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Choices:
    """Reads decisions from bytes.

    When they are used up, each further decision is the first alternative.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Return whether there are bytes left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def below(self, end: int) -> int:
        """Return one of 0 … end - 1."""
        return self.integer((max(end - 1, 1).bit_length() + 7) // 8) % end

    def integer(self, size: int) -> int:
        """Return an unsigned integer of `size` bytes."""
        return int.from_bytes(bytes(self.byte() for _ in range(size)), "little")

    def pick(self, alternatives: Sequence[T]) -> T:
        return alternatives[self.below(len(alternatives))]

    def rarely(self, one_in: int) -> bool:
        return self.below(one_in) == one_in - 1

    def take(self, most: int) -> bytes:
        """Return the next bytes themselves."""
        part = self._data[self._at : self._at + most]
        self._at += most
        return part

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def splice(self, base: bytes, tokens: Sequence[bytes], most: int = 8) -> bytes:
        """Return a copy of `base` with a few edits: bits flipped, bytes replaced, parts dropped,
        moved or doubled, tokens inserted."""
        edited = bytearray(base)
        for _ in range(1 + self.below(most)):
            at = self.integer(3) % (len(edited) + 1)
            size = self.below(17)
            match self.below(8):
                case 0 if at < len(edited):
                    edited[at] ^= 1 << self.below(8)
                case 1 if at < len(edited):
                    edited[at] = self.byte()
                case 2:
                    del edited[at : at + size]
                case 3:
                    edited[at:at] = self.take(size)
                case 4:
                    edited[at:at] = self.pick(tokens)
                case 5:
                    token = self.pick(tokens)
                    edited[at : at + len(token)] = token
                case 6:
                    source = self.integer(3) % (len(edited) + 1)
                    edited[at:at] = edited[source : source + 4 * size]
                case 7 if self.rarely(4):
                    del edited[at:]
        return bytes(edited)
