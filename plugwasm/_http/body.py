"""Types of a response's body. Imported by type checkers, and when an application names them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeAlias


class Readable(Protocol):
    """An object with the `read` of a binary file."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, and none at the end."""


Readable.__module__ = "plugwasm"

Body: TypeAlias = bytes | bytearray | memoryview | Readable | Iterable[bytes]
"""A whole body, or what it is read from."""
