"""Requests over TLS: certificates, deadlines, and responses that come early."""

from __future__ import annotations

import socket
import ssl
import threading
import time

import pytest

from plugwasm._http import connection as wire
from plugwasm._http.egress import Egress
from plugwasm.errors import (
    EgressDeniedError,
    EgressError,
    TimeoutError,
)
from tests.support.egress import Names, deadline, get, no_deadline, policy, send
from tests.support.http_server import (
    Connection,
    Request,
    Server,
    drip,
    redirect,
    reply,
    silence,
)


def test_certificate_of_vetted_address(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
    """HTTPS checks the certificate against the name and connects to the checked address."""
    asked_for: list[str | None] = []
    server_tls.sni_callback = lambda sock, name, context: asked_for.append(name)
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    body = bytes(range(256)) * 2000
    with Server(
        lambda request, connection: reply(request.body)(request, connection), tls=server_tls
    ) as server:
        response = send(rules, "POST", f"https://Plugin.TEST:{server.port}/", {}, body, no_deadline)
    assert response.body == body
    assert server.requests[0].headers["host"] == f"plugin.test:{server.port}"
    assert asked_for == ["plugin.test"]


@pytest.mark.parametrize("host", ["other.test", "127.0.0.1", "localhost"])
def test_certificate_for_other_name(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, host: str
) -> None:
    """A certificate for another name is refused."""
    rules = Egress(allowed_hosts=[host, "127.0.0.1"], ssl_context=authority)
    with (
        Server(reply(), tls=server_tls) as server,
        pytest.raises(EgressError, match="certificate is not accepted"),
    ):
        get(f"https://{host}:{server.port}/", rules)
    assert server.requests == []


def test_untrusted_certificate(server_tls: ssl.SSLContext, names: Names) -> None:
    """A certificate that no authority of the system has signed is refused."""
    with (
        Server(reply(), tls=server_tls) as server,
        pytest.raises(EgressError, match="certificate is not accepted"),
    ):
        get(f"https://plugin.test:{server.port}/", policy("plugin.test", "127.0.0.1"))
    assert server.requests == []


def test_server_without_tls_is_error(authority: ssl.SSLContext, names: Names) -> None:
    """A server that does not speak TLS is an error."""
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    plain = Server(on_connect=lambda connection: connection.send(b"HTTP/1.1 200 OK\r\n\r\n"))
    with plain as server, pytest.raises(EgressError, match="TLS failed"):
        get(f"https://plugin.test:{server.port}/", rules)


def test_redirect_to_http_is_refused(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
    """A redirect from HTTPS to HTTP is refused."""
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with (
        Server(reply()) as plain,
        Server(redirect(f"http://plugin.test:{plain.port}/"), tls=server_tls) as server,
    ):
        with pytest.raises(EgressDeniedError, match="from https to http"):
            get(f"https://plugin.test:{server.port}/", rules)
        assert plain.connections == 0
        plain.routes["*"] = redirect(f"https://plugin.test:{server.port}/end")
        server.routes["/end"] = reply(b"safer")
        assert get(f"http://plugin.test:{plain.port}/", rules).body == b"safer"


@pytest.mark.parametrize("every", [0.05])
def test_deadline_of_dripping_server(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, every: float
) -> None:
    """The deadline applies to a server that sends slowly over TLS."""
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(drip(b"HTTP/1.1 200 OK\r\n" * 10, every=every), tls=server_tls) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send(rules, "GET", f"https://plugin.test:{server.port}/", {}, None, deadline(0.3))
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("seconds", [None, 0.3])
def test_endless_tickets_are_given_up(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, seconds: float | None
) -> None:
    """A server that sends endless session tickets is an error."""
    server_tls.num_tickets = 30_000  # about 7 MB
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    remaining = no_deadline if seconds is None else deadline(seconds)
    with (
        Server(silence, tls=server_tls) as server,
        pytest.raises(EgressError if seconds is None else (EgressError, TimeoutError)) as caught,
    ):
        send(rules, "GET", f"https://plugin.test:{server.port}/", {}, None, remaining)
    if seconds is None:
        assert "bytes of TLS without any content" in str(caught.value)


def test_early_response_is_read(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
    """A response over TLS that comes before the request was read is still read."""

    def impatient(connection: Connection) -> None:
        sock = server_tls.wrap_socket(connection.sock, server_side=True)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        sock.shutdown(socket.SHUT_WR)
        connection.pause(0.5)
        sock.close()

    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(on_connect=impatient) as server:
        response = send(
            rules, "POST", f"https://plugin.test:{server.port}/", {}, bytes(20 << 20), deadline(20)
        )
    assert (response.status, response.body) == (413, b"big")


def test_request_end_sent_while_waiting(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    """The end of a request over TLS is sent while the response is awaited."""
    size = 1 << 18
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that a portion does not fit
    near.setblocking(False)
    may_read = threading.Event()

    def serve() -> None:
        far.settimeout(20)
        with server_tls.wrap_socket(far, server_side=True) as sock:
            may_read.wait(20)
            left = size
            while left:
                left -= len(sock.recv(min(left, 1 << 16)))
            sock.sendall(b"whole")

    thread = threading.Thread(target=serve)
    thread.start()
    connection = wire.Connection(near, wire.CallClock(deadline(20)))
    connection.start_tls(authority, "plugin.test")
    timer = threading.Timer(0.1, may_read.set)
    timer.start()
    connection.sendall(bytes(size))
    answer = bytearray(5)
    assert connection.readinto(answer) == 5
    assert answer == b"whole"
    connection.disconnect()
    for each in (thread, timer):
        each.join()


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 3 << 20])
@pytest.mark.parametrize("closes_properly", [True, False])
def test_body_without_length(
    authority: ssl.SSLContext,
    server_tls: ssl.SSLContext,
    names: Names,
    size: int,
    closes_properly: bool,
) -> None:
    """A body without a length over TLS ends with the connection."""

    def route(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size))
        if closes_properly:
            connection.sock.unwrap()  # type: ignore[attr-defined]

    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(route, tls=server_tls) as server:
        assert len(get(f"https://plugin.test:{server.port}/", rules).body) == size
