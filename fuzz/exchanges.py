"""Any request document and any answer give a response within the limits, or an EgressError.

A server received at most well-formed requests, to the granted host, without anything that the guest
may not set. The connections are socket pairs in this process; every step from the document to the
decoded body is the real one.
"""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from typing import TYPE_CHECKING
from unittest import mock

from plugwasm._host import http_request
from plugwasm._http import connection, socket_transport
from plugwasm._http.client import HttpClient
from plugwasm._http.egress import Egress
from plugwasm._http.request_owner import RequestOwner
from plugwasm.errors import EgressError

from .choices import Choices
from .urls import is_granted

if TYPE_CHECKING:
    from collections.abc import Sequence

COVERED = [
    "plugwasm._host.http_request",
    "plugwasm._http.client",
    "plugwasm._http.egress",
    "plugwasm._http.policy",
    "plugwasm._http.connection",
    "urllib3",
    "http.client",
]
SIZES = (3, 9)
GRANTS = ("good.test", "*.good.test")
PUBLIC = "93.184.215.14"
SECRET = "s3cr3t-9f1c"
MOST_BODY, MOST_SENT, MOST_REDIRECTS = 5000, 1000, 3
MOST_ANSWER = 50_000
"""Bytes that a socket pair holds before anybody reads."""

_TLS = b"\x16\x03"  # a handshake begins
_DOCUMENT = (
    b'{"url": "http://good.test/a?b", "method": "POST", "headers": {"Accept": "*/*", "X-Key": "v"}}'
)
_JSON = tuple(
    b'{ } [ ] : , " \\u0000 \\r\\n \\ud800 null 1e999 "url" "method" "headers" "header" "Host" '
    b'"http://good.test/" "GET" \xff \x00 [[[[[[ "Content-Length" "Transfer-Encoding" "Connection" '
    b'"Authorization" "Expect" "TE" "Proxy-X" "\xc3\xa9" "a:b"'.split(b" ")
)
_HTTP = (
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No\r\n\r\n",
        b"HTTP/0.9",
    ),
    *(
        b"\r\n\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"HTTP/1.1 999 X\r\n",
        b"HTTP/1.1 101 Switch\r\n\r\n",
        b"HTTP/1.1 -1 \r\n",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b" folded\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"-1\r\n",
        b"ffffffffffffffff\r\n",
    ),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: deflate, gzip\r\n",
        b"Content-Encoding: br\r\n",
        b"Content-Encoding: gzip, gzip\r\n",
    ),
    *(
        b"Set-Cookie: a=b\r\n",
        b"X:" + b"y" * 300 + b"\r\n",
        b":\r\n",
        b"no colon\r\n",
        b"Content-Type: multipart/x; boundary=a\r\n",
    ),
    *(
        gzip.compress(bytes(9000)),
        gzip.compress(b"hello"),
        zlib.compress(b"hello"),
        zlib.compress(bytes(20_000))[2:-4],
    ),
    *(
        b"Location: http://evil.test/\r\n",
        b"Location: https://a.good.test:8/\r\n",
        b"Location: //good.test/\xc3\xa9\r\n",
        b"Location: \xff\r\n",
    ),
)
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello" * 100),
    b"HTTP/1.1 302 Found\r\nLocation: http://a.good.test/next\r\n\r\n",
    b"HTTP/1.1 307 Again\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\n\r\nnothing",
    b"HTTP/1.1 303 See\r\nLocation: ?q\r\n\r\n",
)
_METHODS = (
    "GET",
    "POST",
    "put",
    "DELETE",
    "HEAD",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "G\r\nX",
    "",
    "ſ",
)
_NAMES = (
    "Accept",
    "X-Key",
    "authorization",
    "Cookie",
    "Host",
    "content-length",
    "Transfer-Encoding",
    "Connection",
    "Proxy-Authorization",
    "a b",
    "a:b",
    "",
)
_NAMES += (
    "X-\r\nY",
    "é",
    "user-agent",
    "User-Agent",
    "Content-Type",
    "Expect",
    "accept-encoding",
    "K",
    "TE",
    ":path",
)
_VALUES = (
    "v",
    "",
    "a\r\nb",
    "a\nb",
    "\0",
    "é",
    "gzip",
    "100-continue",
    "x" * 2000,
    " v ",
    "\t",
    "\ud800",
    "\u2028",
    "chunked",
)
_URLS = (
    "http://good.test/",
    "http://a.good.test:8080/x?y",
    "https://good.test/",
    "http://evil.test/",
    "http://good.test/a b",
    "http://good.test/é",
    "",
)
_RAW, _BROKEN, _BUILT = range(3)
SEEDS = [
    *(bytes([_RAW, len(_DOCUMENT)]) + _DOCUMENT + answer for answer in _ANSWERS),
    *(bytes([_BROKEN, *range(start, start + 60)]) for start in (0, 50, 100, 150)),
    *(bytes([_BUILT, *(start * step % 256 for step in range(60))]) for start in (1, 3, 7, 11, 19)),
]
_POLICY = Egress(
    max_response_bytes=MOST_BODY,
    max_request_bytes=MOST_SENT,
    max_redirects=MOST_REDIRECTS,
    added_headers={"http://good.test": {"Authorization": SECRET}},
    hidden_headers=["Set-Cookie"],
)
_CLIENT = HttpClient.for_plugin(_POLICY, GRANTS, None, RequestOwner)


def check(data: bytes) -> None:
    document, body, answers = build(data)
    peers = Peers(answers)
    try:
        _CLIENT.policy.check_body_size(len(body or b""))
        with (
            mock.patch.object(connection, "look_up", peers.resolve),
            mock.patch.object(socket_transport, "connect", peers.connect),
        ):
            response = http_request.perform(document, body, _CLIENT, lambda: 5.0)
    except EgressError as error:
        assert len(str(error)) < 3000, "a long error"
        assert SECRET not in str(error), "a secret in an error"
    else:
        assert len(response.body) <= MOST_BODY
        assert 200 <= response.status <= 999
        assert "set-cookie" not in response.headers
        assert all(
            name == name.lower() and not set(name + value) & set("\r\n")
            for name, value in response.headers.items()
        )
        json.dumps(response.headers).encode()
    requests = peers.requests()
    assert len(requests) <= MOST_REDIRECTS + 1
    is_home = True
    for host, port, request in requests:
        assert is_granted(host, GRANTS)
        is_home = is_home and (host, port) == ("good.test", 80)
        if request and not request.startswith(_TLS):
            _is_one_request(request, host if port == 80 else f"{host}:{port}", body)
            assert is_home or SECRET.encode() not in request, "a secret of one origin at another"


class Peers:
    """Stands for the network: names have an address, and connecting to it gets an answer."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.asked: list[str] = []
        self._answers = answers
        self._ends: list[tuple[str, int, socket.socket]] = []

    def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return [PUBLIC]

    def connect(
        self, clock: connection.CallClock, addresses: Sequence[str], port: int
    ) -> connection.Connection:
        assert list(addresses) == [PUBLIC], "connected to what was not resolved"
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(self._answers[len(self._ends) % len(self._answers)])
        theirs.shutdown(socket.SHUT_WR)
        self._ends.append((self.asked[-1], port, theirs))
        return connection.Connection(ours, clock)

    def requests(self) -> list[tuple[str, int, bytes]]:
        """Return what was sent, by host and port."""
        sent = []
        for host, port, end in self._ends:
            with end:
                sent.append((host, port, _read_all(end)))
        return sent


def _read_all(end: socket.socket) -> bytes:
    """Return what the client sent; it has closed the connection by now."""
    end.settimeout(5)
    parts = []
    try:
        while part := end.recv(65536):
            parts.append(part)
    except ConnectionResetError:  # it closed without reading the whole answer
        pass
    return b"".join(parts)


def _is_one_request(request: bytes, authority: str, body: bytes | None) -> None:
    head, separator, rest = request.partition(b"\r\n\r\n")
    assert separator, "a head without an end"
    first, *lines = head.split(b"\r\n")
    method, path, version = first.split(b" ")
    assert version == b"HTTP/1.1"
    assert method.isalpha()
    assert path.startswith(b"/")
    assert not set(head.replace(b"\r\n", b"")) & set(b"\r\n\0"), "a control character in the head"
    fields = [line.partition(b":") for line in lines]
    names = [name.lower() for name, colon, _ in fields]
    assert all(colon and name and not set(name) & set(b" \t") for name, colon, _ in fields)
    assert len(set(names)) == len(names), "a header twice"
    values = {name.lower(): value.strip() for name, _, value in fields}
    assert values[b"host"] == authority.encode()
    assert values[b"connection"] == b"close"
    assert b"transfer-encoding" not in values
    assert not any(
        name.startswith(b"proxy-") or name in (b"expect", b"te", b"upgrade", b"trailer")
        for name in names
    )
    assert int(values.get(b"content-length", b"0")) == len(rest)
    assert rest in (b"", body)


def describe(data: bytes) -> str:
    document, body, answers = build(data)
    return f"document {document!r}\nbody {body!r}\nanswers\n" + "\n".join(
        f"  {answer!r}" for answer in answers
    )


def build(data: bytes) -> tuple[bytes, bytes | None, list[bytes]]:
    """Return the document, the body, and the servers' answers in order."""
    choices = Choices(data)
    kind = choices.byte() % 3
    if kind == _RAW:
        size = choices.byte()
        document = choices.take(size) if size < 128 else _DOCUMENT
        return document, b"body", [choices.rest()[:MOST_ANSWER]]
    document = (
        _built(choices)
        if kind == _BUILT
        else choices.splice(_DOCUMENT, _JSON)
        if choices.rarely(3)
        else _DOCUMENT
    )
    body = choices.pick((None, b"", b"body", b"x" * MOST_SENT, b"x" * (MOST_SENT + 1)))
    answers = [_answer(choices) for _ in range(1 + choices.below(4))]
    return document, body, answers


def _built(choices: Choices) -> bytes:
    odd = choices.rarely(3)
    headers = {
        choices.pick(_NAMES if odd else _NAMES[:4]): choices.pick(_VALUES if odd else _VALUES[:2])
        for _ in range(choices.below(4))
    }
    document = {
        "url": choices.pick(_URLS if odd else _URLS[:3]),
        "method": choices.pick(_METHODS if odd else _METHODS[:7]),
        "headers": headers,
    }
    return json.dumps(document).encode()


def _answer(choices: Choices) -> bytes:
    if choices.rarely(3):
        return b"".join(choices.pick(_HTTP) for _ in range(choices.below(12)))[:MOST_ANSWER]
    answer = choices.pick(_ANSWERS)
    return choices.splice(answer, _HTTP)[:MOST_ANSWER] if choices.below(3) else answer
