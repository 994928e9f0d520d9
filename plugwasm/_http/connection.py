"""Name lookups and connections on which no operation outlives the deadline of the call.

Every wait (for the resolver, the connection, TLS, room to send, bytes to read) is cut into slices,
so that a deadline or a cancel is seen while nothing happens. `policy` decides what may be connected
to.
"""

from __future__ import annotations

import io

from ..errors import EgressError, Error
from .url import is_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from _typeshed import WriteableBuffer

    from .lookups import Lookup
    from .request_owner import RequestOwner
    from .tls import TlsSocket

    _T = TypeVar("_T")
    Remaining = Callable[[], float | None]

__all__ = ["SENT_TOO_MUCH", "CallClock", "Connection", "connect", "look_up", "resolve_host"]

SENT_TOO_MUCH = "the server sent more bytes than a response within the limits can have"

_MAX_ADDRESSES = 8
_MAX_LOOKUPS = 128  # at once, of all plugins; how they are shared among them: `lookups`
_LOOKUP_THREAD = "plugwasm-resolve"
_CHUNK = 64 << 10
_SLICE = 0.05  # seconds: how late a deadline or a cancel may be seen
_CONNECT = 10.0
"""Seconds for each address, for resolving, and for the TLS handshake, even without a deadline."""
_IDLE = 30.0
"""Seconds without a byte in either direction, if there is no deadline."""


def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name from the system. Tests replace this function."""
    import socket

    return list(
        dict.fromkeys(
            str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    )


def resolve_host(
    clock: CallClock, host: str, port: int, owner: RequestOwner | None = None
) -> list[str]:
    """Return the addresses of a name.

    `getaddrinfo` cannot be interrupted, so a thread waits for it and may be left behind.

    Args:
        owner: Whose lookup it is; no owner may have more than its share (`lookups`). None stands
            for the application.

    Raises:
        OSError: It has none, or the answer did not come in time.
        Error: Whatever the clock raises.
    """
    import threading

    from .._platform.fork import ResolverUse
    from .lookups import Lookup

    if is_address(host):
        return [host]
    answers: list[list[str]] = []
    failures: list[Exception] = []
    done = threading.Event()
    lookup = Lookup(owner)

    def ask() -> None:
        try:
            with ResolverUse():
                answers.append(look_up(host, port))
        except Exception as error:
            failures.append(error)
        finally:
            lookup.finish()
            done.set()

    limit = _CONNECT if clock.remaining() is None else None
    thread = threading.Thread(target=ask, name=_LOOKUP_THREAD, daemon=True)
    try:
        clock.wait_until(lambda pause: _may_look_up(lookup, pause), limit)
        thread.start()
    except BaseException:
        if thread.ident is None:  # else the thread does it
            lookup.finish()
        raise
    clock.wait_until(done.wait, limit)
    if failures:
        raise failures.pop()  # not kept here: its traceback has this frame
    return answers[0]


def _may_look_up(lookup: Lookup, pause: float) -> bool:
    """Return whether there is room for one more lookup; wait a little if not."""
    from time import sleep

    from .lookups import try_start

    if try_start(lookup, _MAX_LOOKUPS):
        return True
    sleep(pause)
    return False


def connect(clock: CallClock, addresses: Sequence[str], port: int) -> Connection:
    """Return a connection to the first of the addresses that accepts one.

    Raises:
        OSError: None of them does.
        Error: Whatever the clock raises.
    """
    import socket

    addresses = addresses[:_MAX_ADDRESSES]
    failure: OSError = socket.gaierror()
    for index, address in enumerate(addresses):
        left = clock.remaining()
        limit = _CONNECT if left is None else min(_CONNECT, left / (len(addresses) - index))
        try:
            return _connected(clock, address, port, limit)
        except Error:
            raise
        except OSError as error:
            failure = error
    try:
        raise failure
    finally:
        del failure  # its traceback has this frame


def _connected(clock: CallClock, address: str, port: int, limit: float) -> Connection:
    import errno
    import os
    import socket
    from functools import partial

    from urllib3.util.wait import wait_for_write

    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failed = sock.connect_ex((address, port))
        if failed in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            clock.wait_until(partial(wait_for_write, sock), limit)
            failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
    except BaseException:
        sock.close()
        raise
    return Connection(sock, clock)


class CallClock:
    """Cuts every wait into slices, so that a deadline or a cancel is seen while nothing happens.

    Attributes:
        remaining: Returns the seconds left to the call, None for no end; raises when it is to end.
    """

    __slots__ = ("remaining",)

    def __init__(self, remaining: Remaining) -> None:
        self.remaining = remaining

    def wait_until(self, ready: Callable[[float], bool], limit: float | None) -> None:
        """Wait until `ready` returns True. Raise the built-in TimeoutError after `limit` seconds.

        Args:
            ready: Waits for so many seconds at most, and returns whether the wait is over.
            limit: None for no limit but that of the call.
        """
        from time import monotonic

        end = None if limit is None else monotonic() + limit
        while True:
            left = self.remaining()
            pause = _SLICE if left is None else max(0.0, min(_SLICE, left))
            if ready(pause):
                return
            if end is not None and monotonic() >= end:
                raise TimeoutError


def _wait_for_either(sock: socket.socket, timeout: float) -> bool:
    from urllib3.util.wait import wait_for_socket

    return wait_for_socket(sock, read=True, write=True, timeout=timeout)


class Connection(io.RawIOBase):
    """A connected socket on which no operation outlives the deadline, as far as `http.client` needs
    one.

    Attributes:
        received: The bytes read so far.
        at_end: Whether the server has closed its side, and all that it sent was read.
        allowance: How many bytes may be read in all; None before a request was sent.
    """

    def __init__(self, sock: socket.socket, clock: CallClock) -> None:
        self.socket: socket.socket | TlsSocket = sock
        self.clock = clock
        self.received = 0
        self.at_end = False
        self.allowance: int | None = None

    def run_until_done(
        self, operation: Callable[[], _T], ready: Callable[..., bool], limit: float | None = None
    ) -> _T:
        from functools import partial
        from ssl import SSLWantReadError, SSLWantWriteError

        from urllib3.util.wait import wait_for_read, wait_for_write

        from .tls import MadeProgress, WantReadOrWrite

        if self.clock.remaining() is None and limit is None:
            limit = _IDLE
        while True:
            try:
                return operation()
            except MadeProgress:  # its amount between two waits is bounded
                continue
            except BlockingIOError:
                until = ready
            except SSLWantReadError:
                until = wait_for_read
            except SSLWantWriteError:
                until = wait_for_write
            except WantReadOrWrite:
                until = _wait_for_either
            self.clock.wait_until(partial(until, self.socket), limit)

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Do the handshake, in which the server proves to be `name`."""
        from urllib3.util.wait import wait_for_read

        from .tls import TlsSocket

        tls = TlsSocket(self.socket, context, name)  # type: ignore[arg-type]
        self.socket = tls
        self.run_until_done(tls.do_handshake, wait_for_read, _CONNECT)

    def readinto(self, buffer: WriteableBuffer) -> int:
        from urllib3.util.wait import wait_for_read

        count = self.run_until_done(lambda: self.socket.recv_into(buffer), wait_for_read)
        self.received += count
        self.at_end = not count
        if self.allowance is not None and self.received > self.allowance:
            raise EgressError(SENT_TOO_MUCH)
        return count

    def sendall(self, data: bytes) -> None:
        from functools import partial

        from urllib3.util.wait import wait_for_write

        view = memoryview(data)
        while view:
            view = view[
                self.run_until_done(partial(self.socket.send, view[:_CHUNK]), wait_for_write) :
            ]

    def readable(self) -> bool:
        return True

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Reader(self, _CHUNK)

    def settimeout(self, seconds: float | None) -> None:
        pass  # the clock keeps the deadline

    def close(self) -> None:
        pass  # `http.client` calls it before it reads the body, if the connection will not be kept

    def disconnect(self) -> None:
        """Close the socket. `close` does not, for `http.client` calls it too early."""
        self.socket.close()


class _Reader(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        # A chunk of a negative size would ask for everything, without bound.
        if size is None or size < 0:
            raise ValueError("unbounded read")
        return super().read(size)
