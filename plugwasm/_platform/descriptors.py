"""File descriptors in a process that may close all of them and open others with the same numbers,
as daemons do.

Decisions: docs/decisions.md, 33.7.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket


class Descriptor:
    """An open descriptor, usable as long as its number refers to the file that was opened.

    Invariant: whoever writes, reads, signals or closes takes the number from `number` each time.
    That costs an `fstat`, 0.5 µs.
    """

    __slots__ = ("_identity", "_number")

    def __init__(self, number: int) -> None:
        status = os.fstat(number)
        self._identity = status.st_dev, status.st_ino
        self._number = number

    @property
    def number(self) -> int:
        """The number, or -1 once it was found to be closed or to refer to another file."""
        if self._number >= 0 and not self._is_same(self._number):
            self._invalidate()
        return self._number

    def _is_same(self, number: int) -> bool:
        try:
            status = os.fstat(number)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _invalidate(self) -> None:
        self._number = -1

    def close(self) -> None:
        """Close the descriptor, unless the number refers to another file. May be called twice."""
        number = self.number
        self._invalidate()
        if number >= 0:
            os.close(number)


class SocketDescriptor(Descriptor):
    """The descriptor of a socket, which is detached once the number refers to another file."""

    __slots__ = ("socket",)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.fileno())
        self.socket = sock

    def _invalidate(self) -> None:
        super()._invalidate()
        self.socket.detach()
