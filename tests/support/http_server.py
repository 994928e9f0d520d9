"""A real HTTP server on the loopback interface that can misbehave, for tests of HTTP clients.

    with Server({"/": reply(b"hello"), "/slow": drip(b"hello", every=1.0)}) as server:
        fetch(server.url + "/")
        assert server.requests[0].target == "/"

A route is a function that gets the request and the connection, and writes raw bytes, which need not
be HTTP. One connection carries one request. Leaving the block ends every route, also those that
send slowly or nothing.
"""

from __future__ import annotations

import gzip
import select
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple, Self


class Request(NamedTuple):
    """A request as it arrived: header names are lower-case; values and target are the bytes on
    the wire, decoded as latin-1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    head: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Connection:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self.sock = sock
        self._stopping = stopping

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def pause(self, seconds: float) -> None:
        """Sleep, but no longer than the server lives."""
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"

Route = Callable[[Request, Connection], None]


class Server:
    """A server with these routes by path (without the query; "*" is any other), and a thread for each
    connection.

    With `on_connect`, that function gets the connection at once, before TLS and without a request.

    Attributes:
        port: The port on `host`.
        url: "http://host:port", or https with `tls`.
        requests: The requests received, in order.
        connections: How many connections were accepted, with TLS or a request or without.
    """

    def __init__(
        self,
        routes: Mapping[str, Route] | Route = MappingProxyType({}),
        *,
        tls: ssl.SSLContext | None = None,
        on_connect: Callable[[Connection], None] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.routes = {"*": routes} if callable(routes) else dict(routes)
        self.requests: list[Request] = []
        self.connections = 0
        self._tls = tls
        self._on_connect = on_connect
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64
        )
        self._listener.settimeout(0.05)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.url = (
            f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        )

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, name="test-server")
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            self._accepting.join()  # it sees at once that the connection is the last one
        self._accepting.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._stopping.is_set():
                sock.close()
                return
            self.connections += 1
            thread = threading.Thread(
                target=self._serve, args=(sock,), name="test-server-connection"
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        try:
            if self._on_connect is not None:
                self._on_connect(Connection(sock, self._stopping))
                return
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            request = _read_request(sock)
            if request is not None:
                self.requests.append(request)
                route = (
                    self.routes.get(request.path) or self.routes.get("*") or reply(b"", status=404)
                )
                route(request, Connection(sock, self._stopping))
        except (OSError, ValueError):
            pass  # the client went away, or did not like the certificate: its side of the story is the test's
        finally:
            sock.close()


def _read_request(sock: socket.socket) -> Request | None:
    with sock.makefile("rb") as stream:
        lines: list[bytes] = []
        while (line := stream.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not lines:
            return None
        method, target, _ = lines[0].decode("latin-1").split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body, b"".join(lines))


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} Because", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def reply(
    body: bytes = b"", *, status: int = 200, headers: Iterable[tuple[str, str]] = ()
) -> Route:
    """Answer with an ordinary response."""
    head = _head(status, [("Content-Length", str(len(body))), *headers])
    return lambda request, connection: connection.send(
        head + (b"" if request.method == "HEAD" else body)
    )


def redirect(location: str, *, status: int = 302) -> Route:
    return reply(b"moved", status=status, headers=[("Location", location)])


def raw(data: bytes) -> Route:
    """Send exactly these bytes, then close the connection."""
    return lambda request, connection: connection.send(data)


def drip(data: bytes, *, every: float = 1.0, at_once: bytes = b"") -> Route:
    """Send `at_once`, then `data` one byte at a time."""

    def route(request: Request, connection: Connection) -> None:
        connection.send(at_once)
        for index in range(len(data)):
            connection.send(data[index : index + 1])
            connection.pause(every)

    return route


def silence(request: Request, connection: Connection) -> None:
    """Read the request and never answer."""
    connection.pause(60)


def chunked(parts: Iterable[bytes], *, headers: Iterable[tuple[str, str]] = ()) -> Route:
    """Answer with a chunked body, one chunk for each part."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return raw(_head(200, [("Transfer-Encoding", "chunked"), *headers]) + body)


def claim_length(length: int, body: bytes) -> Route:
    """Answer with a body whose length differs from its header."""
    return raw(_head(200, [("Content-Length", str(length))]) + body)


def endless(part: bytes, *, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Route:
    """Send `head`, then `part` again and again."""

    def route(request: Request, connection: Connection) -> None:
        connection.send(head)
        while True:
            connection.send(part)
            connection.pause(0)

    return route


def gzip_bomb(size: int) -> Route:
    """Answer with a gzip body that decodes to `size` zero bytes, about a thousand times what is
    sent."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    body = (
        b"".join(
            packer.compress(bytes(min(1 << 20, size - start))) for start in range(0, size, 1 << 20)
        )
        + packer.flush()
    )
    return reply(body, headers=[("Content-Encoding", "gzip")])


# Decodes to nothing, as often as it is repeated.
EMPTY_GZIP_MEMBER = gzip.compress(b"")


def tunnel(request: Request, connection: Connection) -> None:
    """Do what an HTTP proxy does for CONNECT: connect to the address in the request, and pass
    bytes in both directions."""
    host, _, port = request.target.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as far:
        connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        ends = {connection.sock: far, far: connection.sock}
        while True:
            ready, _, _ = select.select(list(ends), [], [], 0.05)
            for sock in ready:
                data = sock.recv(65536)
                if not data:
                    return
                ends[sock].sendall(data)
            connection.pause(0)
