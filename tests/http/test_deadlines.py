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
def test_the_deadline_ends_the_wait_for_a_server_that(served: Route) -> None:
    with Server(served) as server:
        started = time.monotonic()
        with pytest.raises((TimeoutError, EgressError)) as caught:
            send(policy(), "GET", server.url, {}, None, deadline(0.3))
        took = time.monotonic() - started
    if served is not HANGS["interim answers"]:
        assert isinstance(caught.value, TimeoutError)
        assert took >= 0.29
    assert took < 3


def test_the_deadline_ends_the_sending_of_a_body_that_nobody_reads() -> None:
    with Server(on_connect=deaf) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send(policy(), "POST", server.url, {}, bytes(40 << 20), deadline(0.3))
        assert time.monotonic() - started < 3


def test_the_deadline_ends_a_tls_handshake_that_nobody_answers(
    authority: ssl.SSLContext, names: Names
) -> None:
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(on_connect=deaf) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send(rules, "GET", f"https://plugin.test:{server.port}/", {}, None, deadline(0.3))
        assert time.monotonic() - started < 3


@contextmanager
def black_hole(host: str, port: int = 0) -> Iterator[int]:
    """A full backlog: the kernel drops what comes next, so that a connect neither succeeds nor fails."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        time.sleep(0.05)
        yield full.getsockname()[1]


def test_the_deadline_ends_a_connection_that_nobody_accepts() -> None:
    with black_hole("127.0.0.1") as port:
        started = time.monotonic()
        with pytest.raises((TimeoutError, EgressError)):
            send(policy(), "GET", f"http://127.0.0.1:{port}/", {}, None, deadline(0.3))
        assert 0.25 < time.monotonic() - started < 3


def test_an_address_that_hangs_leaves_time_for_the_next_one(names: Names) -> None:
    names.answers["plugin.test"] = ["127.0.0.2", "127.0.0.1"]
    rules = policy("plugin.test", "127.0.0.1", "127.0.0.2")
    with Server(reply(b"second")) as server, black_hole("127.0.0.2", server.port):
        response = send(rules, "GET", f"http://plugin.test:{server.port}/", {}, None, deadline(1.0))
    assert response.body == b"second"


def test_the_deadline_ends_a_lookup_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    with Server(reply()) as server, pytest.raises(TimeoutError):
        send(policy(), "GET", server.url, {}, None, deadline(-1))
    assert server.connections == 0


@pytest.mark.parametrize("served", [silence, HANGS["drips the body"]])
def test_a_cancel_is_seen_while_waiting_and_reaches_the_caller_as_itself(served: Route) -> None:
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
def test_without_a_deadline_a_server_that_says_nothing_is_given_up(
    served: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_IDLE", 0.2)
    with Server(served) as server, pytest.raises(EgressError, match="nothing came in time"):
        get(server.url)


def test_lookups_that_hang_do_not_add_up_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    asked: list[str] = []

    def hang(host: str, port: int) -> list[str]:
        asked.append(host)
        release.wait(30)
        return []

    monkeypatch.setattr(wire, "look_up", hang)
    alive = sum(thread.name == wire._LOOKUP for thread in threading.enumerate())
    monkeypatch.setattr(wire, "_MAX_LOOKUPS", alive + 2)
    for _ in range(4):
        with pytest.raises(TimeoutError):
            send(policy("*"), "GET", "http://plugin.test/", {}, None, deadline(0.1))
    assert len(asked) == 2
    release.set()
    monkeypatch.setattr(wire, "_MAX_LOOKUPS", 64)


def test_without_a_deadline_a_lookup_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(wire, "_CONNECT", 0.2)
    monkeypatch.setattr(wire, "look_up", lambda host, port: [str(release.wait(30))])
    with pytest.raises(EgressError, match="nothing came in time"):
        get("http://plugin.test/", policy("*"))
    release.set()
