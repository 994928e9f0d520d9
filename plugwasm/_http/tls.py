"""TLS over a socket that does not block, in portions.

`ssl.SSLSocket` reads records until one has content, all in one call of OpenSSL. A server that sends
tickets or key updates faster than they are read would keep that call from returning, whatever the
deadline. So here `ssl` works on memory, and gets what comes from the socket in portions, which are
counted, and between which the deadline is checked.

Decisions: docs/decisions.md, 9.3.
"""

from __future__ import annotations

import ssl

from ..errors import EgressError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import TypeVar

    from _typeshed import WriteableBuffer

    _T = TypeVar("_T")

__all__ = ["MadeProgress", "TlsSocket", "WantReadOrWrite"]

_PORTION = 64 << 10
_MAX_SILENCE = 1 << 20  # bytes without content; a handshake takes a few KiB, a record at most 16


class MadeProgress(Exception):
    """The operation is to be tried again at once."""


class WantReadOrWrite(Exception):
    """The operation is to be tried again once the socket can be read or written."""


class TlsSocket:
    """The part of `ssl.SSLSocket` that a connection needs.

    Its methods raise what the methods of `SSLSocket` raise, and the two exceptions above.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._pending = b""
        self._silence = 0
        self._is_deaf = False

    def do_handshake(self) -> None:
        self._run_or_receive(self._tls.do_handshake)

    def recv_into(self, buffer: WriteableBuffer) -> int:
        size = len(memoryview(buffer))
        try:
            count: int = self._run_or_receive(lambda: self._tls.read(size, buffer))  # type: ignore[assignment]
        except ssl.SSLEOFError:
            return 0  # HTTP says itself where a message ends
        self._silence = 0
        return count

    def send(self, data: memoryview) -> int:
        if not self._flush():
            raise ssl.SSLWantWriteError
        if self._is_deaf:
            raise BrokenPipeError
        return self._run_or_receive(lambda: self._tls.write(data))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _run_or_receive(self, operation: Callable[[], _T]) -> _T:
        """Do the operation if enough bytes have come.

        If not, read one portion from the socket and raise.
        """
        try:
            return operation()
        except ssl.SSLWantReadError:
            pass
        finally:
            is_flushed = self._flush()
        try:
            data = self._socket.recv(_PORTION)
        except BlockingIOError:
            raise (ssl.SSLWantReadError if is_flushed else WantReadOrWrite) from None
        self._silence += len(data)
        if self._silence > _MAX_SILENCE:
            raise EgressError(f"the server sent {_MAX_SILENCE} bytes of TLS without any content")
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        raise MadeProgress

    def _flush(self) -> bool:
        """Send what is pending. Return whether all of it was sent."""
        while pending := self._pending or self._outgoing.read():
            try:
                self._pending = pending[self._socket.send(pending) :]
            except BlockingIOError:
                self._pending = pending
                return False
            except (BrokenPipeError, ConnectionResetError):
                self._is_deaf = True  # but the server may have answered before
                self._pending = b""
        return True
