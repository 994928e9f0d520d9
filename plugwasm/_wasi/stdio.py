"""A guest's standard streams: empty input, and output that goes to the application.

They claim to be terminals, so a libc in the guest flushes at the end of each line.
"""

from __future__ import annotations

from . import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_LINE = 8 * 1024


class Stream:
    """Descriptor 0, 1 or 2 as it is when a guest starts."""

    __slots__ = ("flags", "inheriting", "number", "on_output", "rights")

    filetype = abi.CHARACTER_DEVICE
    read_only = False
    fd = -1

    def __init__(self, number: int, on_output: Callable[[int, bytes], None]) -> None:
        self.number = number
        self.on_output = on_output
        self.rights = abi.OUTPUT_RIGHTS if number else abi.INPUT_RIGHTS
        self.inheriting = 0
        self.flags = 0

    def read(self, buffers: Sequence[memoryview], offset: int | None) -> int:
        return 0

    def write(self, buffers: Sequence[memoryview], offset: int | None) -> int:
        data = b"".join(buffers)
        if data:
            self.on_output(self.number, data)
        return len(data)

    def close(self) -> None:
        pass


class LineSplitter:
    """Splits a stream of chunks into lines.

    Args:
        on_line: Called with each line, without its end ("\\n" or "\\r\\n"), and the number of bytes
            that were cut off it.
        limit: How many bytes of a line are kept.
    """

    __slots__ = ("_held", "_limit", "_lost", "_on_line")

    def __init__(self, on_line: Callable[[bytes, int], None], limit: int = MAX_LINE) -> None:
        self._on_line = on_line
        self._limit = limit
        self._held = b""
        self._lost = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk, and pass on the lines that end in it."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._hold(chunk, start, end)
            self._pass_on()
            start = end + 1
        self._hold(chunk, start, len(chunk))

    def flush(self) -> None:
        """Pass on the beginning of a line that has not ended, e.g. at the end of a call."""
        if self._held or self._lost:
            self._pass_on()

    def _hold(self, chunk: bytes, start: int, end: int) -> None:
        room = self._limit - len(self._held)
        if end - start > room:
            self._lost += end - start - room
            end = start + room
        self._held += chunk[start:end]

    def _pass_on(self) -> None:
        line, lost = self._held, self._lost
        self._held = b""
        self._lost = 0
        if not lost and line.endswith(b"\r"):
            line = line[:-1]
        self._on_line(line, lost)
