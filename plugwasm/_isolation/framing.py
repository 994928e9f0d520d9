"""Messages over a stream socket: a length of four bytes, then bytes that begin with the kind.

Bytes are read with `recv`, which discards descriptors that come along: a peer cannot leave any with
the reader.

`multiprocessing.connection` has no deadline inside a message: a peer that announces one and falls
silent would hold the reader for good.

Decisions: docs/decisions.md, 31.3.
"""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec

    Poll = Callable[[], object]

NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
"""Applications that embed Python may not ignore SIGPIPE."""
HEADER = 4
MAX_MESSAGE = 2**32 - 1
SHORT = 2**16 - HEADER
_CHUNK = 2**16
_LONG_ARRAYS = (0xDC, 0xDD)
_KEPT = 2**24
"""Bytes of a buffer that is used again; fresh memory costs several times as much as copying."""


def _do_nothing() -> None:
    pass


class ChannelClosed(Exception):
    """The other side has closed the connection."""


class MessageTooLarge(Exception):
    """The other side announced more than it may send, or what may not come now."""


class Channel:
    """One end of the connection. Not safe to use from two threads at once.

    Args:
        sock: The socket. If it has a timeout, the `poll` function of `send` and `receive` is called
            each time that it passes, and ends the waiting by raising.
        limit: The most bytes of an incoming message.
    """

    __slots__ = ("_buffer", "_encoder", "_end", "_limit", "_out", "_sock", "_spare", "_start")

    def __init__(self, sock: socket.socket, encoder: msgspec.msgpack.Encoder, limit: int) -> None:
        self._sock = sock
        self._encoder = encoder
        self._limit = limit
        self._out = bytearray(HEADER)
        self._buffer = bytearray(_CHUNK)
        self._spare: bytearray | None = None
        self._start = self._end = 0

    def send(self, message: object, poll: Poll = _do_nothing) -> None:
        """Send a message.

        Raises:
            ChannelClosed: Nobody reads it.
        """
        out = self._out
        self._encoder.encode_into(message, out, HEADER)
        length = len(out) - HEADER
        if length > MAX_MESSAGE:
            self._out = bytearray(HEADER)
            raise OverflowError(f"a message of {length} bytes cannot be sent")
        out[:HEADER] = length.to_bytes(HEADER, "big")
        done, size = 0, len(out)
        with memoryview(out) as view:
            while done < size:
                try:
                    done += self._sock.send(view[done:] if done else view, NO_SIGNAL)
                except TimeoutError:
                    poll()
                except OSError:
                    raise ChannelClosed from None
        if size > _KEPT:
            self._out = bytearray(HEADER)

    def receive(
        self, poll: Poll = _do_nothing, limits: Mapping[int, int] | None = None
    ) -> memoryview:
        """Return the next message.

        A message of up to `SHORT` bytes is in a buffer that the next ones are read into; a longer
        one has its own.

        Args:
            poll: Called now and then while the message does not come.
            limits: The most bytes of messages longer than `SHORT`, by their kind; other kinds may
                not be longer. If not given, all may have as many bytes as the channel allows.

        Raises:
            ChannelClosed: There will be no message.
            MessageTooLarge: It is longer than the limit.
        """
        if self._start == self._end:
            self._start = self._end = 0
        self._fill(HEADER, poll)
        start = self._start
        length = int.from_bytes(self._buffer[start : start + HEADER], "big")
        if length > self._limit:
            raise MessageTooLarge(f"a message of {length} bytes, where {self._limit} are the most")
        self._start = start = start + HEADER
        if limits is not None and length > SHORT:
            self._check_kind(length, limits, poll)
            start = self._start
        if length > len(self._buffer) - start:
            return self._receive_large(length, poll)
        self._fill(length, poll)
        self._start = start + length
        return memoryview(self._buffer)[start : start + length]

    def _check_kind(self, length: int, limits: Mapping[int, int], poll: Poll) -> None:
        """Check the length by the first two bytes: the head of a short array and the kind.

        The decoder refuses all else.
        """
        self._fill(2, poll)
        head, kind = self._buffer[self._start : self._start + 2]
        limit = (
            limits.get(kind, SHORT)
            if head & 0xF0 == 0x90
            else SHORT
            if head in _LONG_ARRAYS
            else max(limits.values())
        )
        if length > limit:
            raise MessageTooLarge(
                f"a message of {length} bytes, where {limit} are the most of its kind"
            )

    def _receive_large(self, length: int, poll: Poll) -> memoryview:
        # The buffer grows with what has come, not with what was announced.
        large, self._spare = _unused(self._spare), None
        done = self._end - self._start
        if len(large) < done:
            large += bytes(done)
        large[:done] = self._buffer[self._start : self._end]
        self._start = self._end = 0
        while done < length:
            poll()
            if done == len(large):
                large += bytes(min(length - done, max(done, 16 * _CHUNK)))
            with memoryview(large) as view:
                done += self._read(view[done:length], poll)
        if len(large) <= _KEPT:
            self._spare = large
        return memoryview(large)[:length]

    def _fill(self, size: int, poll: Poll) -> None:
        """Read until that many bytes are in the buffer at `_start`; they must fit."""
        if self._start + size > len(self._buffer):
            kept = self._buffer[self._start : self._end]
            self._buffer[: len(kept)] = kept
            self._start, self._end = 0, len(kept)
        while self._end - self._start < size:
            with memoryview(self._buffer) as view:
                self._end += self._read(view[self._end :], poll)
            if self._end - self._start < size:
                poll()  # what comes in drops is never silent

    def _read(self, into: memoryview, poll: Poll) -> int:
        while True:
            try:
                count = self._sock.recv_into(into)
            except TimeoutError:
                poll()
            except OSError:
                raise ChannelClosed from None
            else:
                if not count:
                    raise ChannelClosed
                return count


def _unused(buffer: bytearray | None) -> bytearray:
    """Return the buffer if nobody refers to its content; else a new one."""
    if buffer:
        try:
            buffer.append(buffer.pop())  # refused while there are views
        except BufferError:
            pass
        else:
            return buffer
    return bytearray()
