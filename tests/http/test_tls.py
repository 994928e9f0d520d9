"""Requests over TLS."""

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


def test_https_checks_the_certificate_against_the_name_and_connects_to_the_vetted_address(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
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
def test_a_certificate_for_another_name_is_refused(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, host: str
) -> None:
    rules = Egress(allowed_hosts=[host, "127.0.0.1"], ssl_context=authority)
    with (
        Server(reply(), tls=server_tls) as server,
        pytest.raises(EgressError, match="certificate is not accepted"),
    ):
        get(f"https://{host}:{server.port}/", rules)
    assert server.requests == []


def test_a_certificate_that_no_authority_of_the_system_vouches_for_is_refused(
    server_tls: ssl.SSLContext, names: Names
) -> None:
    with (
        Server(reply(), tls=server_tls) as server,
        pytest.raises(EgressError, match="certificate is not accepted"),
    ):
        get(f"https://plugin.test:{server.port}/", policy("plugin.test", "127.0.0.1"))
    assert server.requests == []


def test_a_server_that_does_not_speak_tls_is_an_error(
    authority: ssl.SSLContext, names: Names
) -> None:
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    plain = Server(on_connect=lambda connection: connection.send(b"HTTP/1.1 200 OK\r\n\r\n"))
    with plain as server, pytest.raises(EgressError, match="TLS failed"):
        get(f"https://plugin.test:{server.port}/", rules)


def test_a_redirect_from_https_to_http_is_refused(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
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
def test_the_deadline_holds_for_a_drip_over_tls(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, every: float
) -> None:
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(drip(b"HTTP/1.1 200 OK\r\n" * 10, every=every), tls=server_tls) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send(rules, "GET", f"https://plugin.test:{server.port}/", {}, None, deadline(0.3))
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("seconds", [None, 0.3])
def test_a_server_that_sends_tickets_without_end_is_given_up(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, seconds: float | None
) -> None:
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


def test_an_answer_over_tls_that_comes_before_the_request_was_read_is_still_read(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
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


def test_the_end_of_a_request_over_tls_is_sent_while_the_answer_is_waited_for(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
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
    connection.hang_up()
    for each in (thread, timer):
        each.join()


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 3 << 20])
@pytest.mark.parametrize("closes_properly", [True, False])
def test_a_body_without_a_length_over_tls_ends_with_the_connection(
    authority: ssl.SSLContext,
    server_tls: ssl.SSLContext,
    names: Names,
    size: int,
    closes_properly: bool,
) -> None:
    def route(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size))
        if closes_properly:
            connection.sock.unwrap()  # type: ignore[attr-defined]

    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(route, tls=server_tls) as server:
        assert len(get(f"https://plugin.test:{server.port}/", rules).body) == size
