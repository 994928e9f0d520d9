"""Responses of servers: their form, their size, and invalid bytes."""

from __future__ import annotations

import gzip
import pickle
import socket
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm.errors import (
    EgressError,
)
from tests.support.egress import deadline, get, policy, send
from tests.support.http_server import (
    CHUNKED_HEAD,
    EMPTY_GZIP_MEMBER,
    Connection,
    Route,
    Server,
    chunked,
    claim_length,
    drip,
    endless,
    gzip_bomb,
    raw,
    reply,
)


def test_response_headers() -> None:
    """Response headers have lower-case names, and repeated ones are joined."""
    head = b"HTTP/1.1 200 OK\r\nX-One: a\r\nx-one: b\r\nX-Folded: a\r\n  b\r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n"
    with Server(raw(head)) as server:
        headers = get(server.url).headers
    assert headers == {"x-one": "a, b", "x-folded": "a b", "x-latin": "é", "content-length": "0"}


def test_body_without_length() -> None:
    """A body without a length ends with the connection."""
    with Server(raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")) as server:
        assert get(server.url).body == b"until the end"


def test_a_chunked_body_is_put_together() -> None:
    with Server(chunked([b"one", b"two" * 50_000, b"3"])) as server:
        assert get(server.url).body == b"one" + b"two" * 50_000 + b"3"


def test_interim_100_is_skipped() -> None:
    """Interim responses with status 100 are skipped."""
    with Server(
        raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    ) as server:
        assert get(server.url).body == b"ok"


@pytest.mark.parametrize(
    "encoding", ["gzip", "x-gzip", "deflate", "GZIP", "raw deflate", "gzip, gzip"]
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_gzip_and_deflate(encoding: str, is_chunked: bool) -> None:
    """gzip and deflate are decoded, and the headers are adjusted."""
    text = b"decoded " * 20_000
    body = text
    for word in encoding.lower().split(","):
        body = gzip.compress(body) if "gzip" in word else zlib.compress(body)
    if encoding == "raw deflate":
        encoding, body = "deflate", body[2:-4]
    headers = [("Content-Encoding", encoding)]
    parts = [body[start : start + 7] for start in range(0, len(body), 7)]
    with Server(
        chunked(parts, headers=headers) if is_chunked else reply(body, headers=headers)
    ) as server:
        response = get(server.url)
    assert response.body == text
    assert not {"content-encoding", "content-length"} & set(response.headers)
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_other_encoding_is_left_to_guest() -> None:
    """An encoding whose output cannot be bounded is left to the guest."""
    with Server(reply(b"\x0b\x02\x80abc\x03", headers=[("Content-Encoding", "br")])) as server:
        response = get(server.url, headers={"Accept-Encoding": "br"})
    assert (response.body, response.headers["content-encoding"]) == (b"\x0b\x02\x80abc\x03", "br")
    assert server.requests[0].headers["accept-encoding"] == "br"


LIMIT = 100_000


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
@pytest.mark.parametrize(
    "served",
    [
        reply,
        lambda body: chunked([body]),
        lambda body: raw(b"HTTP/1.1 200 OK\r\n\r\n" + body),
        lambda body: reply(gzip.compress(body), headers=[("Content-Encoding", "gzip")]),
        lambda body: chunked([gzip.compress(body)], headers=[("Content-Encoding", "gzip")]),
        lambda body: reply(zlib.compress(body), headers=[("Content-Encoding", "deflate")]),
    ],
    ids=["length", "chunked", "until close", "gzip", "gzip chunked", "deflate"],
)
def test_body_size_limit(served: Callable[[bytes], Route], size: int) -> None:
    """A body may be exactly as large as the limit."""
    with Server(served(bytes(size))) as server:
        if size == LIMIT:
            assert len(get(server.url, policy(max_response_bytes=LIMIT)).body) == LIMIT
        else:
            with pytest.raises(EgressError, match="larger than the 100000 bytes allowed"):
                get(server.url, policy(max_response_bytes=LIMIT))


def test_length_over_limit_is_refused() -> None:
    """A length over the limit is refused before the body is read."""
    with Server(
        drip(b"x" * 100, at_once=b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    ) as server:
        started = time.monotonic()
        with pytest.raises(EgressError, match="larger than"):
            get(server.url)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "served",
    [
        gzip_bomb(300 << 20),
        endless(bytes(65536)),
        endless(
            b"10000\r\n" + bytes(65536) + b"\r\n",
            head=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
    ],
    ids=["gzip bomb", "endless", "endless chunks"],
)
def test_bombs_take_little_memory(served: Route) -> None:
    import tracemalloc

    with Server(served) as server:
        get_one = policy(max_response_bytes=1 << 20)
        tracemalloc.start()
        with pytest.raises(EgressError, match="larger than"):
            get(server.url, get_one)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20


def test_negative_chunk_size() -> None:
    """A negative chunk size does not read until the end."""
    import tracemalloc

    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"
    with Server(endless(bytes(65536), head=head)) as server:
        tracemalloc.start()
        with pytest.raises(EgressError, match="is not HTTP"):
            get(server.url, policy(max_response_bytes=1 << 20))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1 << 20


GZIP_HEAD = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"


@pytest.mark.parametrize(
    "served",
    [
        endless(EMPTY_GZIP_MEMBER * 1000, head=GZIP_HEAD),
        endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, head=b""),
        endless(b"X: y\r\n", head=b"HTTP/1.1 200 OK\r\n"),
        endless(b"x" * 1000, head=b"HTTP/1.1 200 OK\r\nX: "),
        endless(b"x" * 1000, head=b"HTTP/1.1 "),
        endless(b"T: y\r\n" * 1000, head=CHUNKED_HEAD + b"\r\n0\r\n"),
        endless(b"1;" + b"e" * 60_000 + b"\r\nx\r\n", head=CHUNKED_HEAD + b"\r\n"),
        endless(bytes(65536), head=CHUNKED_HEAD + b"\r\n-1\r\n"),
    ],
    ids=[
        "empty members",
        "interim answers",
        "headers",
        "header",
        "status line",
        "trailers",
        "chunk extensions",
        "negative chunk",
    ],
)
def test_endless_streams_end(served: Route) -> None:
    """Endless responses end without a deadline."""
    with Server(served) as server, pytest.raises(EgressError):
        get(server.url, policy(max_response_bytes=10_000))


@pytest.mark.parametrize(
    "served",
    [
        raw(b""),
        raw(b"\r\n\r\n"),
        raw(b"not http at all\r\n\r\n"),
        raw(b"HTTP/2 200 OK\r\n\r\n"),
        raw(b"HTTP/1.1 99999 OK\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n"),
        raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
        claim_length(100, b"short"),
        raw(CHUNKED_HEAD + b"\r\n5\r\nab"),
        raw(CHUNKED_HEAD + b"\r\n5\r\nabcde\r\n"),
        raw(CHUNKED_HEAD + b"\r\nzz\r\nab\r\n0\r\n\r\n"),
        raw(CHUNKED_HEAD + b"\r\n-1\r\nab\r\n0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        reply(b"not gzip", headers=[("Content-Encoding", "gzip")]),
        reply(b"not deflate", headers=[("Content-Encoding", "deflate")]),
        reply(b"x", headers=[("Content-Encoding", ", ".join(["gzip"] * 6))]),
    ],
)
def test_broken_response_is_error(served: Route) -> None:
    """An invalid response is one of our errors."""
    with (
        Server(served) as server,
        pytest.raises(EgressError, match=r"GET http://127\.0\.0\.1:\d+/ failed: ") as caught,
    ):
        get(server.url)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


def test_body_beyond_length_is_not_read() -> None:
    """No more than the claimed length is read."""
    with Server(claim_length(3, b"abcdef")) as server:
        assert get(server.url).body == b"abc"


def test_early_response_is_read() -> None:
    """A response that comes before the request was read is still read."""

    def impatient(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.pause(30)

    with Server(on_connect=impatient) as server:
        response = send(policy(), "POST", server.url, {}, bytes(20 << 20), deadline(5))
    assert (response.status, response.body) == (413, b"big")


@given(
    data=st.binary(max_size=200),
    head=st.sampled_from(
        [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED_HEAD, CHUNKED_HEAD + b"\r\n", GZIP_HEAD]
    ),
)
def test_random_bytes(data: bytes, head: bytes) -> None:
    """Any bytes from a server are a response or one of our errors."""
    ANY.routes["*"] = raw(head + data)
    try:
        get(ANY.url)
    except EgressError:
        pass


@pytest.fixture(scope="module", autouse=True)
def one_server_for_the_property_test() -> object:
    global ANY
    with Server({}) as ANY:
        yield


ANY: Server
