"""A request ends at its deadline, whatever the server does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from plugwasm._http import connection as wire
from plugwasm._http.egress import Egress
from plugwasm.errors import (
    CancelledError,
    EgressError,
    TimeoutError,
)
from tests.support.egress import Names, deadline, get, policy, send
from tests.support.http_server import (
    CHUNKED_HEAD,
    Connection,
    Request,
    Route,
    Server,
    drip,
    endless,
    redirect,
    reply,
    silence,
)


def redirect_slowly(request: Request, connection: Connection) -> None:
    connection.pause(0.12)
    redirect("/")(request, connection)


HANGS: dict[str, Route] = {
    "silence": silence,
    "drips the status line": drip(b"HTTP/1.1 200 OK\r\n" * 5, every=0.05),
    "drips the headers": drip(b"X: y\r\n" * 50, every=0.05, at_once=b"HTTP/1.1 200 OK\r\n"),
    "drips the body": drip(
        b"x" * 100, every=0.05, at_once=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    ),
    "drips chunks": drip(b"1\r\nx\r\n" * 50, every=0.05, at_once=CHUNKED_HEAD + b"\r\n"),
    "drips until close": drip(b"x" * 100, every=0.05, at_once=b"HTTP/1.1 200 OK\r\n\r\n"),
    "stops in the body": drip(
        b"xx", every=60, at_once=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    ),
    "redirects slowly": redirect_slowly,
    "interim answers": endless(b"HTTP/1.1 100 Continue\r\n\r\n", head=b""),
    "one byte a second": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", every=1),
}


def deaf(connection: Connection) -> None:
    connection.pause(30)


@pytest.mark.parametrize("served", HANGS.values(), ids=HANGS)
def test_deadline_ends_wait_for_server(served: Route) -> None:
    """The deadline ends the wait for a server, whatever the server does."""
    with Server(served) as server:
        started = time.monotonic()
        with pytest.raises((TimeoutError, EgressError)) as caught:
            send(policy(), "GET", server.url, {}, None, deadline(0.3))
        took = time.monotonic() - started
    if served is not HANGS["interim answers"]:
        assert isinstance(caught.value, TimeoutError)
        assert took >= 0.29
    assert took < 3


def test_deadline_ends_sending_body() -> None:
    """The deadline ends the sending of a body that nobody reads."""
    with Server(on_connect=deaf) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send(policy(), "POST", server.url, {}, bytes(40 << 20), deadline(0.3))
        assert time.monotonic() - started < 3


def test_deadline_ends_tls_handshake(authority: ssl.SSLContext, names: Names) -> None:
    """The deadline ends a TLS handshake that nobody answers."""
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(on_connect=deaf) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send(rules, "GET", f"https://plugin.test:{server.port}/", {}, None, deadline(0.3))
        assert time.monotonic() - started < 3


@contextmanager
def black_hole(host: str, port: int = 0) -> Iterator[int]:
    """Listen with a full backlog: the kernel drops further connections, so connecting neither
    succeeds nor fails."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        time.sleep(0.05)
        yield full.getsockname()[1]


def test_deadline_ends_connecting() -> None:
    """The deadline ends a connection attempt that nobody accepts."""
    with black_hole("127.0.0.1") as port:
        started = time.monotonic()
        with pytest.raises((TimeoutError, EgressError)):
            send(policy(), "GET", f"http://127.0.0.1:{port}/", {}, None, deadline(0.3))
        assert 0.25 < time.monotonic() - started < 3


def test_hanging_address_leaves_time(names: Names) -> None:
    """An address that hangs leaves time for the next one."""
    names.answers["plugin.test"] = ["127.0.0.2", "127.0.0.1"]
    rules = policy("plugin.test", "127.0.0.1", "127.0.0.2")
    with Server(reply(b"second")) as server, black_hole("127.0.0.2", server.port):
        response = send(rules, "GET", f"http://plugin.test:{server.port}/", {}, None, deadline(1.0))
    assert response.body == b"second"


def test_deadline_ends_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline ends a name lookup that does not end by itself."""
    release = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        release.wait(30)
        return []

    monkeypatch.setattr(wire, "look_up", hang)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        send(policy("*"), "GET", "http://plugin.test/", {}, None, deadline(0.3))
    assert time.monotonic() - started < 3
    release.set()


def test_passed_deadline_sends_nothing() -> None:
    """After the deadline, nothing is sent."""
    with Server(reply()) as server, pytest.raises(TimeoutError):
        send(policy(), "GET", server.url, {}, None, deadline(-1))
    assert server.connections == 0


@pytest.mark.parametrize("served", [silence, HANGS["drips the body"]])
def test_cancel_while_waiting(served: Route) -> None:
    """A cancellation ends the wait and reaches the caller unchanged."""
    cancelled = threading.Event()

    def remaining() -> None:
        if cancelled.is_set():
            raise CancelledError("cancelled by its handle")

    with Server(served) as server:
        timer = threading.Timer(0.2, cancelled.set)
        timer.start()
        started = time.monotonic()
        with pytest.raises(CancelledError, match="by its handle"):
            send(policy(), "GET", server.url, {}, None, remaining)
        assert time.monotonic() - started < 3
        timer.join()


@pytest.mark.parametrize("served", [silence, HANGS["stops in the body"]])
def test_default_timeout_of_server(served: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline, the wait for a silent server has a default timeout."""
    monkeypatch.setattr(wire, "_IDLE", 0.2)
    with Server(served) as server, pytest.raises(EgressError, match="nothing came in time"):
        get(server.url)


def test_hanging_lookups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of hanging lookups is bounded."""
    release = threading.Event()
    asked: list[str] = []

    def hang(host: str, port: int) -> list[str]:
        asked.append(host)
        release.wait(30)
        return []

    monkeypatch.setattr(wire, "look_up", hang)
    alive = sum(thread.name == wire._LOOKUP_THREAD for thread in threading.enumerate())
    monkeypatch.setattr(wire, "_MAX_LOOKUPS", alive + 2)
    for _ in range(4):
        with pytest.raises(TimeoutError):
            send(policy("*"), "GET", "http://plugin.test/", {}, None, deadline(0.1))
    assert len(asked) == 2
    release.set()
    monkeypatch.setattr(wire, "_MAX_LOOKUPS", 64)


def test_default_timeout_of_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline, a lookup has a default timeout."""
    release = threading.Event()
    monkeypatch.setattr(wire, "_CONNECT", 0.2)
    monkeypatch.setattr(wire, "look_up", lambda host, port: [str(release.wait(30))])
    with pytest.raises(EgressError, match="nothing came in time"):
        get("http://plugin.test/", policy("*"))
    release.set()
