"""An application's own transports: what they receive and may return, and that requests are still
checked, counted and timed."""

from __future__ import annotations

import gzip
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

from plugwasm._http import connection
from plugwasm._http.client import Response
from plugwasm._http.egress import Egress
from plugwasm._http.socket_transport import HttpTransport
from plugwasm._http.transport import EgressRequest, EgressResponse
from plugwasm.errors import (
    CancelledError,
    EgressDeniedError,
    EgressError,
    OptionError,
    TimeoutError,
)
from tests.support.egress import deadline, no_deadline, send
from tests.support.http_server import Server, gzip_bomb, redirect, reply, silence


class Mock:
    """A transport that answers from a function and keeps its requests."""

    def __init__(self, answer: Callable[[EgressRequest], Any]) -> None:
        self.answer = answer
        self.requests: list[EgressRequest] = []

    def send(self, request: EgressRequest) -> EgressResponse:
        self.requests.append(request)
        return self.answer(request)  # type: ignore[no-any-return]


class Recorder:
    """A transport that passes requests to another and keeps the responses."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.tape: list[tuple[str, str, int, bytes]] = []

    def send(self, request: EgressRequest) -> EgressResponse:
        response = self.inner.send(request)
        body = response.read()
        self.tape.append((request.method, request.url, response.status, body))
        return EgressResponse(response.status, response.headers, body)


class Pool:
    """A transport with the application's own urllib3 client, which connects to the checked
    address."""

    def __init__(self) -> None:
        self.pools = urllib3.PoolManager(retries=False)

    def send(self, request: EgressRequest) -> EgressResponse:
        tls = (
            {"server_hostname": request.host, "assert_hostname": request.host}
            if request.scheme == "https"
            else {}
        )
        pool = self.pools.connection_from_host(
            request.addresses[0], request.port, request.scheme, tls
        )
        response = pool.urlopen(
            request.method,
            request.path,
            body=request.body,
            headers={**request.headers, "Host": request.authority},
            timeout=request.remaining() or 30,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        return EgressResponse(response.status, response.headers, response)


def policy(transport: Any, *hosts: str, **settings: Any) -> Egress:
    return Egress(
        allowed_hosts=hosts or ["plugin.test"],
        transport=transport,
        **{"resolve": False, **settings},
    )


def get(
    egress: Egress,
    url: str = "http://plugin.test/",
    remaining: Callable[[], float | None] = no_deadline,
) -> Response:
    return send(egress, "GET", url, {"X-Guest": "yes"}, None, remaining)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    answers = {"plugin.test": ["127.0.0.1"]}
    monkeypatch.setattr(connection, "look_up", lambda host, port: answers[host])
    return answers


# ---- What a transport is asked


def test_mock_answers_without_network() -> None:
    """A mock answers without a network."""
    mock = Mock(lambda request: EgressResponse(201, {"X-One": "1"}, b"made up"))
    response = send(
        policy(mock),
        "post",
        "http://Plugin.TEST:8080/a?b#c",
        {"X-Guest": "é"},
        b"body",
        no_deadline,
    )
    assert (response.status, response.headers, response.body) == (201, {"x-one": "1"}, b"made up")
    (request,) = mock.requests
    assert (request.method, request.url, request.body) == (
        "POST",
        "http://plugin.test:8080/a?b",
        b"body",
    )
    assert (request.scheme, request.host, request.port, request.path) == (
        "http",
        "plugin.test",
        8080,
        "/a?b",
    )
    assert request.authority == "plugin.test:8080"
    assert request.headers == {
        "Accept-Encoding": "identity",
        "User-Agent": "plugwasm",
        "X-Guest": "é",
    }
    assert (request.addresses, request.max_response_bytes, request.remaining()) == (
        (),
        50 << 20,
        None,
    )
    assert repr(request) == "<EgressRequest POST http://plugin.test:8080/a>"


def test_names_are_vetted_before(names: dict[str, list[str]]) -> None:
    """Names are resolved and checked before a transport is called."""
    mock = Mock(lambda request: EgressResponse(200))
    get(policy(mock, "plugin.test", "127.0.0.1", resolve=True))
    assert mock.requests[0].addresses == ("127.0.0.1",)
    names["plugin.test"] = ["8.8.8.8", "10.0.0.7"]
    with pytest.raises(EgressDeniedError, match="private"):
        get(policy(mock, "plugin.test", resolve=True))
    assert len(mock.requests) == 1


def test_transport_gets_vetted_addresses(names: dict[str, list[str]]) -> None:
    """A transport that asks for addresses receives checked ones."""
    mock = Mock(lambda request: EgressResponse(200, body=repr(request.resolve()).encode()))
    assert get(policy(mock, "plugin.test", "127.0.0.1")).body == b"('127.0.0.1',)"
    with pytest.raises(EgressDeniedError, match="loopback"):
        get(policy(mock, "plugin.test"))


@pytest.mark.parametrize(
    "url",
    [
        "http://other.test/",
        "http://10.0.0.7/",
        "http://plugin.test@other.test/",
        "ftp://plugin.test/",
    ],
)
def test_denied_host_never_reaches_transport(url: str) -> None:
    """A request to a denied host never reaches a transport."""
    mock = Mock(lambda request: EgressResponse(200))
    with pytest.raises(EgressDeniedError):
        get(policy(mock, "plugin.test", "10.*"), url)
    assert mock.requests == []


def test_each_redirect_is_checked() -> None:
    """Each hop of a redirect is checked and is a separate request."""
    mock = Mock(
        lambda request: EgressResponse(
            302, [("LOCATION", "/end" if request.path == "/" else "http://other.test/")]
        )
    )
    with pytest.raises(
        EgressDeniedError,
        match=r"http://plugin\.test/end redirects to a target that is not granted",
    ):
        get(policy(mock))
    assert [request.url for request in mock.requests] == [
        "http://plugin.test/",
        "http://plugin.test/end",
    ]


def test_recorder_wraps_default_transport(names: dict[str, list[str]]) -> None:
    """A recorder can wrap the default transport, and its recording can be replayed."""
    body = gzip.compress(b"text")  # once, for it has the time in it
    with Server(
        {"/": redirect("/end"), "/end": reply(body, headers=[("Content-Encoding", "gzip")])}
    ) as server:
        recorder = Recorder(HttpTransport())
        url = f"http://plugin.test:{server.port}"
        response = get(policy(recorder, "plugin.test", "127.0.0.1"), url + "/")
    assert response.body == b"text"
    assert recorder.tape == [("GET", url + "/", 302, b"moved"), ("GET", url + "/end", 200, body)]
    tape = iter(recorder.tape)
    replayed = policy(
        Mock(lambda request: EgressResponse(200, {"Content-Encoding": "gzip"}, [*tape][1][3]))
    )
    assert get(replayed).body == b"text"


# ---- urllib3


def test_urllib3_connects_to_vetted_address(names: dict[str, list[str]]) -> None:
    """A urllib3 client connects to the checked address and otherwise works as usual."""
    routes = {
        "/": redirect("/end"),
        "/end": reply(gzip.compress(b"text"), headers=[("Content-Encoding", "gzip")]),
    }
    with Server(routes) as server:
        response = get(
            policy(Pool(), "plugin.test", "127.0.0.1", resolve=True),
            f"http://plugin.test:{server.port}/",
        )
    assert (response.status, response.body) == (200, b"text")
    assert server.requests[0].headers["host"] == f"plugin.test:{server.port}"
    assert server.requests[1].headers["x-guest"] == "yes"


def test_urllib3_bomb_stops_at_limit() -> None:
    """A decompression bomb fetched by a urllib3 client is stopped at the limit."""
    with (
        Server(gzip_bomb(20 << 20)) as server,
        pytest.raises(EgressError, match="larger than the 100000 bytes allowed"),
    ):
        get(policy(Pool(), "127.0.0.1", resolve=True, max_response_bytes=100_000), server.url)


def test_urllib3_deadline() -> None:
    """The remaining time ends the wait of a urllib3 client."""
    with Server(silence) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="the call did not end"):
            get(policy(Pool(), "127.0.0.1", resolve=True), server.url, deadline(0.3))
        assert time.monotonic() - started < 3


def test_urllib3_connection_error() -> None:
    """A failed connection of a urllib3 client is one of our errors with its error as the cause."""
    with Server(reply()) as server:
        pass
    with pytest.raises(EgressError, match=r"GET http://127\.0\.0\.1:\d+/ failed: ") as caught:
        get(policy(Pool(), "127.0.0.1", resolve=True), server.url + "/?token=hunter2")
    assert isinstance(caught.value.__cause__, urllib3.exceptions.HTTPError)
    assert "hunter2" not in str(caught.value)


# ---- What a transport may answer


class File:
    """A body that can be read and counts the bytes read."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.is_closed = False

    def read(self, size: int) -> bytes:
        part = min(self.left, size)
        self.left -= part
        return bytes(part)

    def close(self) -> None:
        self.is_closed = True


BODIES: dict[str, Callable[[int], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "view": lambda size: memoryview(bytes(size)),
    "list": lambda size: [bytes(size // 2), b"", bytes(size - size // 2)],
    "generator": lambda size: (bytes(1) for _ in range(size)),
    "file": File,
}


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("size", [0, 999, 1000, 1001])
def test_body_is_counted_in_any_form(make: Callable[[int], Any], size: int) -> None:
    """A body is counted in whatever form it is returned."""
    egress = policy(
        Mock(lambda request: EgressResponse(200, body=make(size))), max_response_bytes=1000
    )
    if size <= 1000:
        assert get(egress).body == bytes(size)
    else:
        with pytest.raises(EgressError, match="larger than the 1000 bytes allowed"):
            get(egress)


def test_endless_body_stops_at_limit() -> None:
    """An endless body is read no further than the limit."""
    taken = itertools.count()

    def body() -> Iterator[bytes]:
        while True:
            next(taken)
            yield bytes(1000)

    with pytest.raises(EgressError, match="larger than"):
        get(
            policy(
                Mock(lambda request: EgressResponse(200, body=body())), max_response_bytes=100_000
            )
        )
    assert next(taken) < 300


def test_endless_compressed_body_ends() -> None:
    """A compressed body that never produces output ends."""
    body = itertools.repeat(gzip.compress(b""))
    answer = EgressResponse(200, {"content-encoding": "gzip"}, body)
    with pytest.raises(EgressError, match="more bytes than a response within the limits can have"):
        get(policy(Mock(lambda request: answer), max_response_bytes=1000))


def test_deadline_between_body_parts() -> None:
    """The deadline is checked between the parts of a body."""

    def body() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b"x"

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        get(policy(Mock(lambda request: EgressResponse(200, body=body()))), remaining=deadline(0.2))
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("status", [200, 204])
def test_response_after_deadline(status: int) -> None:
    """A response that comes after the deadline is not used."""

    def late(request: EgressRequest) -> EgressResponse:
        time.sleep(0.2)
        return EgressResponse(status, body=b"late")

    with pytest.raises(TimeoutError):
        get(policy(Mock(late)), remaining=deadline(0.1))


@pytest.mark.parametrize("status", [200, 204, 302])
def test_body_is_always_closed(status: int) -> None:
    """A body is closed whether it is used or not."""
    files: list[File] = []

    def answer(request: EgressRequest) -> EgressResponse:
        files.append(File(10))
        return EgressResponse(status if len(files) == 1 else 200, {"location": "/"}, files[-1])

    get(policy(Mock(answer)))
    with pytest.raises(EgressError):
        get(policy(Mock(answer), max_response_bytes=5))
    assert len(files) == (3 if status == 302 else 2)
    assert all(file.is_closed for file in files)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "gave no EgressResponse, but NoneType"),
        (b"body", "gave no EgressResponse, but bytes"),
        (EgressResponse(99), "no status from 200 to 999, but 99"),
        (EgressResponse(101), "no status from 200 to 999"),
        (EgressResponse(1000), "no status"),
        (EgressResponse("200"), "no status"),  # type: ignore[arg-type]
        (EgressResponse(200, {"a": 1}), "headers that are not text"),
        (EgressResponse(200, {b"a": b"b"}), "headers that are not text"),
        (EgressResponse(200, [("a",)]), "not HTTP"),  # type: ignore[list-item]
        (EgressResponse(200, itertools.repeat(("", ""))), "more than 1000 headers"),
        (EgressResponse(200, 7), "raised TypeError"),  # type: ignore[arg-type]
        (EgressResponse(200, {"a": "b" * (300 << 10)}), "more than 262144 bytes of headers"),
        (EgressResponse(200, body="text"), "a body that is not bytes, but str"),  # type: ignore[arg-type]
        (EgressResponse(200, body=None), "raised TypeError"),  # type: ignore[arg-type]
        (EgressResponse(200, body=[None]), "a body that is not bytes, but NoneType"),  # type: ignore[list-item]
        (EgressResponse(200, {"content-length": "5"}, b"abc"), "broken off"),
        (
            EgressResponse(200, {"content-encoding": "gzip"}, b"abc"),
            "not what its Content-Encoding says",
        ),
    ],
)
def test_invalid_response_is_error(answer: Any, says: str) -> None:
    """The error for an invalid response says what is wrong."""
    with pytest.raises(EgressError, match=r"GET http://plugin\.test/ failed: ") as caught:
        get(policy(Mock(lambda request: answer)))
    assert says in str(caught.value)


def test_exception_is_cause_without_text() -> None:
    """A transport's exception is the cause of an error that does not repeat its text."""

    def fail(request: EgressRequest) -> EgressResponse:
        raise LookupError("hunter2")

    with pytest.raises(EgressError, match="failed: the transport raised LookupError") as caught:
        get(policy(Mock(fail)))
    assert isinstance(caught.value.__cause__, LookupError)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        CancelledError("cancelled"),
        EgressDeniedError("not today"),
    ],
)
def test_interrupts_and_own_errors_pass(error: BaseException) -> None:
    """KeyboardInterrupt and our own errors pass unchanged."""

    def fail(request: EgressRequest) -> EgressResponse:
        raise error

    with pytest.raises(type(error)) as caught:
        get(policy(Mock(fail)))
    assert caught.value is error


# ---- Settings


class Plain:
    """A transport that can be pickled."""

    def send(self, request: EgressRequest) -> EgressResponse:
        return EgressResponse(200)


def test_policy_pickles_with_transport() -> None:
    """A policy can be pickled if its transport can."""
    import pickle

    again = pickle.loads(pickle.dumps(policy(Plain())))
    assert get(again).status == 200
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        pickle.dumps(policy(Mock(lambda request: None)))


@pytest.mark.parametrize(
    "setting", [{"proxy": "http://proxy:1"}, {"ca_file": "x"}, {"client_certificate": "x"}]
)
def test_default_settings_are_refused(setting: dict[str, Any]) -> None:
    """Settings of the default transport are refused together with another transport."""
    with pytest.raises(
        OptionError, match=f"{next(iter(setting))}: it is for the default transport only"
    ):
        Egress(transport=Plain(), **setting)


def test_invalid_transport_is_refused() -> None:
    """An object without `send` is no transport."""
    with pytest.raises(
        OptionError, match="transport: expected an object with a method `send`, got int"
    ):
        Egress(transport=7)  # type: ignore[arg-type]
