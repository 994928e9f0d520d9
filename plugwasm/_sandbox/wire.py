"""A connection to an address that was vetted, on which no operation outlives the deadline of the call.

A name is resolved once, here; the policy vets its addresses, and one of those is connected to. Every wait (for the resolver, the
connection, TLS, room to send, bytes to read) is cut into slices, so that a deadline or a cancel is seen while nothing happens.
"""

from __future__ import annotations

import io

from plugwasm._sandbox.egress import is_address
from plugwasm.errors import EgressError, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import TypeVar

    from _typeshed import WriteableBuffer

    from plugwasm._sandbox.egress import EgressPolicy, Target

    _T = TypeVar("_T")
    Remaining = Callable[[], float | None]

__all__ = ["Clock", "Wire", "connect", "resolve"]

_MAX_ADDRESSES = 8
_CHUNK = 64 << 10
_SLICE = 0.05  # seconds: how late a deadline or a cancel may be seen
_CONNECT = 10.0  # seconds for each address, for resolving, and for the TLS handshake, even when there is no deadline
_IDLE = 30.0  # seconds without a byte in either direction, when there is no deadline


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system gives them. Looked up here at each call, so that a test can replace it."""
    import socket

    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def connect(policy: EgressPolicy, clock: Clock, target: Target) -> Wire:
    """A connection to one of the target's addresses, all of which `policy` has vetted; for https, with TLS done.

    Raises:
        EgressDeniedError: One of the addresses is not granted.
        OSError: None of them could be reached, or the certificate is not accepted.
        Error: Whatever the clock raises.
    """
    import errno
    import os
    import socket
    from functools import partial

    from urllib3.util.wait import wait_for_read, wait_for_write

    addresses = [target.host] if is_address(target.host) else _resolved(clock, target)
    addresses = policy.vet(target.host, addresses)[:_MAX_ADDRESSES]
    failure: OSError = socket.gaierror()
    for index, address in enumerate(addresses):
        left = clock.left()
        limit = _CONNECT if left is None else min(_CONNECT, left / (len(addresses) - index))
        wire: Wire | None = None
        try:
            wire = Wire(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM), clock)
            wire.socket.setblocking(False)
            wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            failed = wire.socket.connect_ex((address, target.port))
            if failed in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                clock.wait(partial(wait_for_write, wire.socket), limit)
                failed = wire.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise OSError(failed, os.strerror(failed))
            break
        except BaseException as exc:
            if wire is not None:
                wire.hang_up()
            if isinstance(exc, Error) or not isinstance(exc, OSError):
                raise
            failure = exc
    else:
        raise failure
    if target.scheme == "https":
        try:
            tls = policy.tls_context().wrap_socket(wire.socket, server_hostname=target.host, do_handshake_on_connect=False)
            wire.socket = tls
            wire.until_done(tls.do_handshake, wait_for_read, _CONNECT)
        except BaseException:
            wire.hang_up()
            raise
    return wire


def _resolved(clock: Clock, target: Target) -> list[str]:
    """The addresses of a name. `getaddrinfo` cannot be interrupted, so a thread waits for it and may be left behind."""
    import threading

    answers: list[list[str]] = []
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        try:
            answers.append(resolve(target.host, target.port))
        except Exception as exc:
            failures.append(exc)
        done.set()

    threading.Thread(target=ask, name="plugwasm-resolve", daemon=True).start()
    clock.wait(done.wait, _CONNECT if clock.left() is None else None)
    if failures:
        raise failures[0]
    return answers[0]


class Clock:
    """Cuts every wait into slices, so that a deadline or a cancel is seen while nothing happens."""

    __slots__ = ("ended", "remaining")

    def __init__(self, remaining: Remaining) -> None:
        self.remaining = remaining
        self.ended: Error | None = None

    def left(self) -> float | None:
        try:
            return self.remaining()
        except Error as exc:
            self.ended = exc
            raise

    def wait(self, ready: Callable[[float], bool], limit: float | None) -> None:
        """Until `ready` is true. Raises the built-in TimeoutError after `limit` seconds."""
        from time import monotonic

        end = None if limit is None else monotonic() + limit
        while True:
            left = self.left()
            pause = _SLICE if left is None else max(0.0, min(_SLICE, left))
            if ready(pause):
                return
            if end is not None and monotonic() >= end:
                raise TimeoutError


class Wire(io.RawIOBase):
    """A connected socket, as much of it as `http.client` wants, on which no operation outlives the deadline.

    Attributes:
        received: Bytes read so far.
        at_end: Whether the server has closed its side, and all that it sent was read.
        allowance: How many may be read; None while nothing was asked.
    """

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self.socket = sock
        self.clock = clock
        self.received = 0
        self.at_end = False
        self.allowance: int | None = None

    def until_done(self, operation: Callable[[], _T], ready: Callable[..., bool], limit: float | None = None) -> _T:
        from functools import partial
        from ssl import SSLWantReadError, SSLWantWriteError

        from urllib3.util.wait import wait_for_read, wait_for_write

        if self.clock.left() is None and limit is None:
            limit = _IDLE
        while True:
            try:
                return operation()
            except BlockingIOError:
                until = ready
            except SSLWantReadError:
                until = wait_for_read
            except SSLWantWriteError:
                until = wait_for_write
            self.clock.wait(partial(until, self.socket), limit)

    def readinto(self, buffer: WriteableBuffer) -> int:
        from urllib3.util.wait import wait_for_read

        count = self.until_done(lambda: self.socket.recv_into(buffer), wait_for_read)
        self.received += count
        self.at_end = not count
        if self.allowance is not None and self.received > self.allowance:
            raise EgressError("the server sent more than any answer within the limits needs")
        return count

    def sendall(self, data: bytes) -> None:
        from functools import partial

        from urllib3.util.wait import wait_for_write

        view = memoryview(data)
        while view:
            view = view[self.until_done(partial(self.socket.send, view[:_CHUNK]), wait_for_write) :]

    def readable(self) -> bool:
        return True

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Reader(self, _CHUNK)

    def settimeout(self, seconds: float | None) -> None:
        pass  # time is kept by the clock

    def close(self) -> None:
        pass  # `http.client` closes a connection that will not be kept before it reads the body from it

    def hang_up(self) -> None:
        self.socket.close()


class _Reader(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # what a chunk of a negative size asks for: everything, without bound
            raise ValueError("unbounded read")
        return super().read(size)
