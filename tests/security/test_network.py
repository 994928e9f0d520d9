"""Cases 5 and 26 to 31 of the faults that a host must survive: plugins' HTTP requests to a real
server that misbehaves.

`tests/http` has more variants of these rules, without a plugin.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import plugwasm
from plugwasm import Plugin
from plugwasm._http import connection as wire
from plugwasm._http.egress import Egress
from plugwasm._http.transport import EgressRequest, EgressResponse
from tests.support.guests import export, guest, manifest, number
from tests.support.http_server import (
    Connection,
    Request,
    Route,
    Server,
    chunked,
    claim_length,
    drip,
    endless,
    gzip_bomb,
    raw,
    redirect,
    reply,
    silence,
    tunnel,
)
from tests.support.paths import DATA
from tests.support.threads import InThread
from tests.support.waiting import soon

CLIENT = guest(
    """
    (func $document (result i64) (local $to i64) (local $i i64)
      (local.set $to (call $alloc (i64.sub (call $input_length) (i64.const 8))))
      (block $done (loop $next
        (br_if $done (i64.ge_u (i64.add (local.get $i) (i64.const 8)) (call $input_length)))
        (call $store_u8 (i64.add (local.get $to) (local.get $i)) (call $input_load_u8 (i64.add (local.get $i) (i64.const 8))))
        (local.set $i (i64.add (local.get $i) (i64.const 1)))
        (br $next)))
      (local.get $to))
    """
    + export(
        "send",
        "(call $give (call $http_request (call $document) (call $alloc (call $input_load_u64 (i64.const 0)))))",
    )
    + export("status", "(call $answer (i64.extend_i32_u (call $http_status_code)))")
)
"""`send` makes the request whose document is the input from its ninth byte on; the first eight are the size of a body of zeros."""


def client(*hosts: str, egress: Egress | None = None, **fields: Any) -> Plugin:
    return Plugin(manifest(CLIENT, allowed_hosts=list(hosts), **fields), egress=egress)


def send(plugin: Plugin, url: str, *, body: int = 0, **document: Any) -> bytes:
    return plugin.call(
        "send", body.to_bytes(8, "little") + json.dumps({"url": url, **document}).encode()
    )


class Names:
    """A resolver whose answers a test sets: one after the other, the last one repeated."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.answers.get(host, [["127.0.0.1"]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Resolve every name to the test server, unless a test sets another answer."""
    resolver = Names()
    monkeypatch.setattr(wire, "look_up", resolver)
    return resolver


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(
        lambda request, connection: reply(request.headers["host"].encode())(request, connection)
    ) as server:
        yield server


# ---- 5: servers that take their time


def answer_late(request: Request, connection: Connection) -> None:
    connection.pause(0.6)
    reply(b"late")(request, connection)


def never_accept_tls(connection: Connection) -> None:
    connection.pause(60)


SLOW: dict[str, Route] = {
    "sends a byte a second": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", every=1),
    "drips headers": drip(b"X: y\r\n" * 500, every=0.02, at_once=b"HTTP/1.1 200 OK\r\n"),
    "drips its body": drip(
        b"x" * 1000, every=0.02, at_once=b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    ),
    "never answers": silence,
    "answers after the deadline": answer_late,
    "redirects to itself, slowly": lambda request, connection: (
        connection.pause(0.1),
        redirect("/")(request, connection),
    )[0],
}


@pytest.mark.parametrize("route", SLOW.values(), ids=SLOW)
def test_deadline_ends_wait_for_server(route: Route) -> None:
    """A call ends at its deadline whatever the server does."""
    with (
        Server({"/": route, "/fast": reply(b"fast")}) as server,
        client("127.0.0.1", timeout_ms=300) as plugin,
    ):
        started = time.monotonic()
        with pytest.raises(plugwasm.TimeoutError) as caught:
            send(plugin, server.url)
        assert 0.29 < time.monotonic() - started < 3
        assert (caught.value.plugin, caught.value.function) == ("plugin", "send")
        assert send(plugin, server.url + "/fast") == b"fast"


def test_deadline_ends_tls_handshake() -> None:
    """A call ends at its deadline if the server never finishes the TLS handshake."""
    with (
        Server(on_connect=never_accept_tls) as server,
        client("plugin.test", "127.0.0.1", timeout_ms=300) as plugin,
    ):
        started = time.monotonic()
        with pytest.raises(plugwasm.TimeoutError):
            send(plugin, f"https://plugin.test:{server.port}/")
        assert time.monotonic() - started < 3


def test_deadline_ends_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ends at its deadline if its host name is never resolved."""
    release = threading.Event()
    monkeypatch.setattr(wire, "look_up", lambda host, port: [str(release.wait(60))])
    with client("plugin.test", timeout_ms=300) as plugin:
        started = time.monotonic()
        with pytest.raises(plugwasm.TimeoutError):
            send(plugin, "http://plugin.test/")
        assert time.monotonic() - started < 3
    release.set()


def test_slow_answer_within_deadline() -> None:
    """A slow response within the deadline is returned."""
    slow = drip(b"abc", every=0.1, at_once=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
    with Server(slow) as server, client("127.0.0.1", timeout_ms=30_000) as plugin:
        assert send(plugin, server.url) == b"abc"


def test_cancel_ends_wait_for_server() -> None:
    """A cancellation ends the wait for a server."""
    with Server({"/": silence, "/fast": reply(b"fast")}) as server, client("127.0.0.1") as plugin:
        call = InThread(send, plugin, server.url)
        assert soon(lambda: server.requests)
        plugin.cancel_handle().cancel()
        with pytest.raises(plugwasm.CancelledError):
            call.result()
        assert send(plugin, server.url + "/fast") == b"fast"


# ---- 26: one canonical form


@pytest.mark.parametrize(
    ("hosts", "authority", "host"),
    [
        (["plugin.test"], "plugin.test", "plugin.test"),
        (["plugin.test"], "PLUGIN.TEST", "plugin.test"),
        (["plugin.test"], "plugin.test.", "plugin.test"),
        (["PLUGIN.test."], "plugin.test", "plugin.test"),
        (["*.test"], "a.b.test", "a.b.test"),
        (["xn--bcher-kva.test"], "XN--BCHER-KVA.test", "xn--bcher-kva.test"),
        ([], "127.0.0.1", "127.0.0.1"),
    ],
)
def test_granted_host_in_any_spelling(
    server: Server, hosts: list[str], authority: str, host: str
) -> None:
    """A granted host is reached however it is spelt."""
    with client(*hosts, "127.0.0.1") as plugin:
        assert (
            send(plugin, f"http://{authority}:{server.port}/") == f"{host}:{server.port}".encode()
        )
        assert number(plugin.call("status")) == 200


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://evil.test:{}/",
            "http://plugin.test.evil.test:{}/",
            "http://notplugin.test:{}/",
            "http://127.0.0.2:{}/",
        ),
        *(
            "http://plugin.test@evil.test:{}/",
            "http://plugin.test:{0}@evil.test:{0}/",
            "http://user:secret@plugin.test:{}/",
        ),
        *(
            "http://evil.test:{}\\@plugin.test/",
            "http:\\\\plugin.test:{}\\",
            "http://plugin.test\\.evil.test:{}/",
        ),
        *(
            "http://plugin.test%2eevil.test:{}/",
            "http://plugin.test%00.evil.test:{}/",
            "http://plugin.test#@evil.test\r\n:{}/",
        ),
        *(
            "http://2130706433:{}/",
            "http://0x7f000001:{}/",
            "http://017700000001:{}/",
            "http://127.1:{}/",
            "http://0177.0.0.1:{}/",
        ),
        *(
            "http://0:{}/",
            "http://0.0.0.0:{}/",
            "http://１２７.0.0.1:{}/",
            "http://127。0。0。1:{}/",
        ),
        *(
            "http://[::1]:{}/",
            "http://[::ffff:127.0.0.1]:{}/",
            "http://[::]:{}/",
            "http://[::1%25lo]:{}/",
            "http://[64:ff9b::7f00:1]:{}/",
        ),
        *(
            "http://plugin.test:0{}0/",
            "http://plugin.test:-{}/",
            "http://plugin.test:{0}:{0}/",
            "http://plugin.test:{}x/",
        ),
        *(
            "ftp://plugin.test:{}/",
            "file:///etc/passwd",
            "//plugin.test:{}/",
            "plugin.test:{}",
            "",
            "http://",
        ),
    ],
)
def test_lookalike_host_is_denied(server: Server, names: Names, url: str) -> None:
    """A host that only resembles a granted one is denied, and nothing is sent."""
    with (
        client("plugin.test", "127.0.0.1") as plugin,
        pytest.raises(plugwasm.EgressDeniedError) as caught,
    ):
        send(plugin, url.format(server.port))
    assert "secret" not in str(caught.value)
    assert (server.connections, names.asked) == (0, [])


def test_unicode_host(server: Server) -> None:
    """A Unicode name is converted to Punycode or refused with the reason."""
    with client("xn--bcher-kva.test", "127.0.0.1") as plugin:
        try:
            body = send(plugin, f"http://BÜCHER.test:{server.port}/")
        except plugwasm.EgressDeniedError as error:
            assert "xn--" in str(error), "that is what can be written instead"
        else:
            assert body == f"xn--bcher-kva.test:{server.port}".encode()


def test_ipv6_literals() -> None:
    """IPv6 literals are granted and denied like names."""
    try:
        server = Server(reply(b"six"), host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server:
        with client("0:0:0:0:0:0:0:1") as plugin:
            assert send(plugin, f"http://[0::1]:{server.port}/") == b"six"
        with client("::2", "*") as plugin, pytest.raises(plugwasm.EgressDeniedError):
            send(plugin, f"http://[::1]:{server.port}/")


@pytest.mark.parametrize(("allowed", "is_granted"), [(0, True), (1, False), (-1, False)])
def test_the_application_can_name_ports(server: Server, allowed: int, is_granted: bool) -> None:
    with client("127.0.0.1", egress=Egress(ports=[server.port + allowed])) as plugin:
        if is_granted:
            assert send(plugin, server.url)
        else:
            with pytest.raises(
                plugwasm.EgressDeniedError, match=f"does not allow port {server.port}"
            ):
                send(plugin, server.url)
    assert server.connections == is_granted


# ---- 27: redirects


@pytest.mark.parametrize(
    "location",
    [
        "http://evil.test/",
        "//evil.test/",
        "http://127.0.0.2/",
        "http://127.0.0.1@evil.test/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
    ],
)
def test_redirects_end_at_denied_host(names: Names, location: str) -> None:
    """A chain of redirects ends at a host that is not granted."""
    routes = {"/": redirect("/a"), "/a": redirect("/b"), "/b": redirect(location)}
    with (
        Server(routes) as server,
        client("127.0.0.1") as plugin,
        pytest.raises(plugwasm.EgressDeniedError, match="redirects to a target"),
    ):
        send(plugin, server.url)
    assert [request.target for request in server.requests] == ["/", "/a", "/b"]
    assert names.asked == []


def test_redirect_from_https_is_denied() -> None:
    """A redirect from HTTPS to HTTP is denied, and one from HTTP to HTTPS is followed."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(DATA / "tls-server.pem")
    egress = Egress(ca_file=DATA / "tls-ca.pem")
    with (
        Server(reply()) as plain,
        Server(redirect(f"http://plugin.test:{plain.port}/"), tls=tls) as safe,
        client("plugin.test", "127.0.0.1", egress=egress) as plugin,
    ):
        with pytest.raises(plugwasm.EgressDeniedError, match="from https to http"):
            send(plugin, f"https://plugin.test:{safe.port}/")
        assert plain.connections == 0
        plain.routes["*"], safe.routes["/end"] = (
            redirect(f"https://plugin.test:{safe.port}/end"),
            reply(b"safe"),
        )
        assert send(plugin, f"http://plugin.test:{plain.port}/") == b"safe"


def test_redirect_limit() -> None:
    """Ten redirects are followed. The eleventh is not, nor is a loop."""

    def count_down(request: Request, connection: Connection) -> None:
        left = int(request.target[1:])
        (redirect(f"/{left - 1}") if left else reply(b"end"))(request, connection)

    with (
        Server({"*": count_down, "/loop": redirect("/loop")}) as server,
        client("127.0.0.1") as plugin,
    ):
        assert send(plugin, server.url + "/10") == b"end"
        for path in ("/11", "/loop"):
            with pytest.raises(plugwasm.EgressError, match="more than 10 redirects"):
                send(plugin, server.url + path)
    assert len(server.requests) == 3 * 11


def test_redirect_not_followed(server: Server) -> None:
    """If redirects are not followed, the plugin sees the redirect."""
    server.routes["/"] = redirect("http://evil.test/")
    with client("127.0.0.1", egress=Egress(max_redirects=0)) as plugin:
        assert send(plugin, server.url + "/") == b"moved"
        assert number(plugin.call("status")) == 302


# ---- 28: what names resolve to


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.7",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "168.63.129.16",
        ),
        *(
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fe80::1%lo",
        ),
    ],
)
def test_name_of_private_address_is_denied(server: Server, names: Names, address: str) -> None:
    """A name that resolves to a non-public address is denied."""
    names.answers["plugin.test"] = [["8.8.8.8", address]]
    with (
        client("plugin.test", "*", "localhost") as plugin,
        pytest.raises(plugwasm.EgressDeniedError, match=r"the host plugin\.test is refused"),
    ):
        send(plugin, f"http://plugin.test:{server.port}/")
    assert server.connections == 0


@pytest.mark.parametrize(
    ("hosts", "egress", "url"),
    [
        (["plugin.test", "127.0.0.1"], None, "http://plugin.test:{}/"),
        (["localhost"], None, "http://localhost:{}/"),
        (["plugin.test"], Egress(private_addresses=["127.0.0.0/8"]), "http://plugin.test:{}/"),
        (
            ["*"],
            Egress(allowed_hosts=["127.0.*"], private_addresses=["127.0.0.1"]),
            "http://127.0.0.1:{}/",
        ),
    ],
)
def test_granted_address_is_reached(
    server: Server, hosts: list[str], egress: Egress | None, url: str
) -> None:
    """A grant for the address itself allows it."""
    with client(*hosts, egress=egress) as plugin:
        assert send(plugin, url.format(server.port))


def test_manifest_cannot_grant_address(server: Server) -> None:
    """A manifest cannot grant an address that the application's own list does not name."""
    with (
        client("127.0.0.1", egress=Egress(allowed_hosts=["*"])) as plugin,
        pytest.raises(plugwasm.EgressDeniedError, match="loopback"),
    ):
        send(plugin, server.url)


def test_rebinding_after_vetting(server: Server, names: Names) -> None:
    """The connection goes to the address that was checked, even if the name would resolve to
    another by then."""
    names.answers["plugin.test"] = [["127.0.0.1"], ["10.0.0.7"]]
    with client("plugin.test", "127.0.0.1") as plugin:
        assert send(plugin, f"http://plugin.test:{server.port}/")
        assert names.asked == ["plugin.test"]
        with pytest.raises(plugwasm.EgressDeniedError, match=r"10\.0\.0\.7"):
            send(plugin, f"http://plugin.test:{server.port}/")


def test_rebinding_between_hops(names: Names) -> None:
    """A name that resolves to another address after a redirect is checked again."""
    names.answers["plugin.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    with (
        Server(redirect("/again")) as server,
        client("plugin.test", "127.0.0.1") as plugin,
        pytest.raises(plugwasm.EgressDeniedError, match="metadata"),
    ):
        send(plugin, f"http://plugin.test:{server.port}/")
    assert len(server.requests) == 1


# ---- 29: the size of answers

LIMIT = 100_000


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize(
    "served",
    [
        reply,
        lambda body: raw(b"HTTP/1.1 200 OK\r\n\r\n" + body),
        lambda body: chunked([body]),
        lambda body: reply(gzip.compress(body), headers=[("Content-Encoding", "gzip")]),
        lambda body: reply(
            gzip.compress(gzip.compress(body)), headers=[("Content-Encoding", "gzip, gzip")]
        ),
    ],
    ids=["with a length", "without", "chunked", "gzip", "gzip twice"],
)
def test_answer_size_limit(served: Any, size: int) -> None:
    """A response may be exactly as large as the limit."""
    with (
        Server(served(bytes(size))) as server,
        client("127.0.0.1", memory={"max_http_response_bytes": LIMIT}) as plugin,
    ):
        if size <= LIMIT:
            assert send(plugin, server.url) == bytes(size)
        else:
            with pytest.raises(plugwasm.EgressError, match="larger than the 100000 bytes allowed"):
                send(plugin, server.url)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 16)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", bytes(1 << 16)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + bytes(1 << 16) + b"\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(bytes(1 << 20))),
    ],
    ids=["without a length", "with a length", "chunked", "gzip"],
)
def test_reading_stops_at_the_limit(head: bytes, part: bytes) -> None:
    sent = 0

    def route(request: Request, connection: Connection) -> None:
        nonlocal sent
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        connection.send(head)
        while True:
            connection.send(part)
            sent += len(part)

    with (
        Server(route) as server,
        client("127.0.0.1", memory={"max_http_response_bytes": LIMIT}) as plugin,
        pytest.raises(plugwasm.EgressError, match="larger than the 100000 bytes allowed"),
    ):
        send(plugin, server.url)
    assert sent < 32 << 20, "no more than what socket buffers hold"


def test_bomb_stops_at_limit() -> None:
    """A decompression bomb takes no more memory than the limit."""
    import tracemalloc

    with (
        Server(gzip_bomb(40 << 20)) as server,
        client("127.0.0.1", memory={"max_http_response_bytes": 1 << 20}) as plugin,
    ):
        tracemalloc.start()
        with pytest.raises(plugwasm.EgressError, match="larger than"):
            send(plugin, server.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "served",
    [
        claim_length(10, b"short"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nab"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        endless(b"X: y\r\n", head=b"HTTP/1.1 200 OK\r\n"),
        endless(
            b"1;" + b"e" * 60_000 + b"\r\nx\r\n",
            head=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        raw(b"SSH-2.0-OpenSSH\r\n"),
        raw(b""),
    ],
    ids=[
        "short",
        "two lengths",
        "short chunk",
        "negative chunk",
        "200 headers",
        "endless headers",
        "chunk extensions",
        "not HTTP",
        "nothing",
    ],
)
def test_lying_answer_is_error(served: Route) -> None:
    """A response with false sizes or encodings is an error, and the plugin stays usable."""
    with (
        Server({"/": served, "/good": reply(b"good")}) as server,
        client("127.0.0.1", memory={"max_http_response_bytes": LIMIT}, timeout_ms=30_000) as plugin,
    ):
        with pytest.raises(plugwasm.EgressError, match=r"failed: |more bytes than a response"):
            send(plugin, server.url)
        assert send(plugin, server.url + "/good") == b"good"


# ---- 30: headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("X", value)
            for value in (
                "a\r\nHost: evil.test",
                "a\nb",
                "a\rb",
                "a\r\n\r\nGET /b HTTP/1.1",
                "a\x00b",
                "a\x7f",
            )
        ),
        *(
            (name, "x")
            for name in ("X\r\nHost", "X:", "X Y", "", "X\x00", "Ｈost", "Host ", "\tHost")
        ),
        *(
            (name, "evil.test")
            for name in (
                "Host",
                "hOST",
                "Content-Length",
                "Transfer-Encoding",
                "Connection",
                "TE",
                "Upgrade",
                "Expect",
            )
        ),
        *(
            (name, "evil.test")
            for name in (
                "Proxy-Authorization",
                "Proxy-Connection",
                "proxy-anything",
                "Keep-Alive",
                "Trailer",
            )
        ),
    ],
)
def test_injecting_header_is_refused(server: Server, name: str, value: str) -> None:
    """A header that could inject another request is refused."""
    with client("127.0.0.1") as plugin, pytest.raises(plugwasm.EgressError, match="headers: "):
        send(plugin, server.url, headers={name: value})
    assert server.connections == 0


def test_other_headers_arrive(server: Server) -> None:
    """Other headers arrive unchanged."""
    with client("127.0.0.1") as plugin:
        send(plugin, server.url, headers={"X-Guest": "a\tb: c", "Authorization": "mine"})
    (request,) = server.requests
    assert (request.headers["x-guest"], request.headers["authorization"]) == ("a\tb: c", "mine")
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


def test_application_headers_stay_hidden(names: Names) -> None:
    """Headers of the application are sent to their origin only, and the plugin never sees them."""
    with Server(
        lambda request, connection: reply(json.dumps(sorted(request.headers)).encode())(
            request, connection
        )
    ) as server:
        server.routes["/away"] = redirect(f"http://other.test:{server.port}/")
        egress = Egress(added_headers={f"http://plugin.test:{server.port}": {"X-Key": "secret"}})
        with client("*.test", "127.0.0.1", egress=egress) as plugin:
            assert "x-key" in json.loads(send(plugin, f"http://plugin.test:{server.port}/"))
            assert "x-key" not in json.loads(send(plugin, f"http://other.test:{server.port}/"))
            assert "x-key" not in json.loads(send(plugin, f"http://plugin.test:{server.port}/away"))


# ---- 31: the size of requests, and proxies


@pytest.mark.parametrize(
    ("size", "fits"), [(0, True), (999, True), (1000, True), (1001, False), (1 << 20, False)]
)
def test_request_body_limit(server: Server, size: int, fits: bool) -> None:
    """A request body may be exactly as large as the limit."""
    with client("127.0.0.1", egress=Egress(max_request_bytes=1000)) as plugin:
        if fits:
            send(plugin, server.url, body=size, method="POST")
            assert server.requests[0].body == bytes(size)
        else:
            with pytest.raises(
                plugwasm.EgressError,
                match=f"the request body has {size} bytes, more than the 1000 allowed",
            ):
                send(plugin, server.url, body=size, method="POST")
            assert server.connections == 0


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ({f"X-{index}": "y" for index in range(100)}, True),
        ({f"X-{index}": "y" for index in range(101)}, False),
        ({"X": "y" * 65_531}, True),
        ({"X": "y" * 65_532}, False),
        ({f"X-{index}": "y" * 6000 for index in range(11)}, False),
    ],
    ids=["100", "101", "64 KiB", "a byte more", "many that are large"],
)
def test_header_limits(server: Server, headers: dict[str, str], fits: bool) -> None:
    """The number and size of headers may be exactly as large as the limits."""
    with client("127.0.0.1") as plugin:
        if fits:
            send(plugin, server.url, headers=headers)
        else:
            with pytest.raises(
                plugwasm.EgressError, match="headers: more than 100 of them, or than 65536 bytes"
            ):
                send(plugin, server.url, headers=headers)
    assert server.connections == fits


def test_proxy_variables_when_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy environment variables are used only on request."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(tunnel) as proxy:
        for name in (
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ):
            monkeypatch.setenv(name, proxy.url)
        with client("127.0.0.1") as plugin:
            assert send(plugin, server.url)
        assert proxy.connections == 0
        with client("127.0.0.1", egress=Egress(proxy="environment")) as plugin:
            assert send(plugin, server.url)
        assert proxy.connections == 1


# ---- what the application puts in the way


def test_policy_limits_are_shared() -> None:
    """Plugins with one policy share its limits and its transport."""

    class Counting:
        now = most = 0
        lock = threading.Lock()

        def send(self, request: EgressRequest) -> EgressResponse:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.02)
            with self.lock:
                self.now -= 1
            return EgressResponse(200, body=b"counted")

    transport = Counting()
    egress = Egress(transport=transport, resolve=False, max_concurrent=2)

    def work() -> bytes:
        with client("plugin.test", egress=egress) as plugin:
            return send(plugin, "http://plugin.test/")

    assert [call.result() for call in [InThread(work) for _ in range(8)]] == [b"counted"] * 8
    assert transport.most == 2


def test_transport_exception_is_cause() -> None:
    """An exception of a transport is the cause of the error that the caller sees."""

    class Broken:
        def send(self, request: EgressRequest) -> EgressResponse:
            raise LookupError("in the application")

    with client("plugin.test", egress=Egress(transport=Broken(), resolve=False)) as plugin:
        with pytest.raises(
            plugwasm.EgressError, match="the transport raised LookupError"
        ) as caught:
            send(plugin, "http://plugin.test/")
        assert isinstance(caught.value.__cause__, LookupError)
