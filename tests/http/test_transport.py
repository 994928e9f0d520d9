"""Transports of an application's own: what they are asked, what they may answer, and what stays judged, counted and timed by us."""

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
    """Answers from a function, and keeps what it was asked."""

    def __init__(self, answer: Callable[[EgressRequest], Any]) -> None:
        self.answer = answer
        self.requests: list[EgressRequest] = []

    def send(self, request: EgressRequest) -> EgressResponse:
        self.requests.append(request)
        return self.answer(request)  # type: ignore[no-any-return]


class Recorder:
    """Lets another transport do the work, and keeps what came."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.tape: list[tuple[str, str, int, bytes]] = []

    def send(self, request: EgressRequest) -> EgressResponse:
        response = self.inner.send(request)
        body = response.read()
        self.tape.append((request.method, request.url, response.status, body))
        return EgressResponse(response.status, response.headers, body)


class Pool:
    """The application's own urllib3 client, which connects to the address that was vetted."""

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


def test_a_mock_answers_without_any_network() -> None:
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


def test_names_are_resolved_and_vetted_before_a_transport_is_asked(
    names: dict[str, list[str]],
) -> None:
    mock = Mock(lambda request: EgressResponse(200))
    get(policy(mock, "plugin.test", "127.0.0.1", resolve=True))
    assert mock.requests[0].addresses == ("127.0.0.1",)
    names["plugin.test"] = ["8.8.8.8", "10.0.0.7"]
    with pytest.raises(EgressDeniedError, match="private"):
        get(policy(mock, "plugin.test", resolve=True))
    assert len(mock.requests) == 1


def test_a_transport_that_asks_for_addresses_itself_is_given_vetted_ones(
    names: dict[str, list[str]],
) -> None:
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
def test_what_is_not_granted_never_reaches_a_transport(url: str) -> None:
    mock = Mock(lambda request: EgressResponse(200))
    with pytest.raises(EgressDeniedError):
        get(policy(mock, "plugin.test", "10.*"), url)
    assert mock.requests == []


def test_each_hop_of_a_redirect_is_judged_and_is_a_request_of_its_own() -> None:
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


def test_a_recorder_wraps_the_usual_transport_and_its_tape_can_be_replayed(
    names: dict[str, list[str]],
) -> None:
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


def test_a_urllib3_client_connects_to_the_vetted_address_and_is_otherwise_itself(
    names: dict[str, list[str]],
) -> None:
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


def test_a_bomb_that_a_urllib3_client_fetches_is_stopped_at_the_limit() -> None:
    with (
        Server(gzip_bomb(20 << 20)) as server,
        pytest.raises(EgressError, match="larger than the 100000 bytes allowed"),
    ):
        get(policy(Pool(), "127.0.0.1", resolve=True, max_response_bytes=100_000), server.url)


def test_the_time_that_is_left_ends_the_wait_of_a_urllib3_client() -> None:
    with Server(silence) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="the call did not end"):
            get(policy(Pool(), "127.0.0.1", resolve=True), server.url, deadline(0.3))
        assert time.monotonic() - started < 3


def test_a_urllib3_client_that_cannot_connect_is_an_error_of_ours_with_its_own_as_the_cause() -> (
    None
):
    with Server(reply()) as server:
        pass
    with pytest.raises(EgressError, match=r"GET http://127\.0\.0\.1:\d+/ failed: ") as caught:
        get(policy(Pool(), "127.0.0.1", resolve=True), server.url + "/?token=hunter2")
    assert isinstance(caught.value.__cause__, urllib3.exceptions.HTTPError)
    assert "hunter2" not in str(caught.value)


# ---- What a transport may answer


class File:
    """A body that is read, and tells how much was."""

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
def test_a_body_is_counted_however_it_is_given(make: Callable[[int], Any], size: int) -> None:
    egress = policy(
        Mock(lambda request: EgressResponse(200, body=make(size))), max_response_bytes=1000
    )
    if size <= 1000:
        assert get(egress).body == bytes(size)
    else:
        with pytest.raises(EgressError, match="larger than the 1000 bytes allowed"):
            get(egress)


def test_a_body_without_end_is_read_no_further_than_the_limit() -> None:
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


def test_a_compressed_body_that_says_nothing_for_ever_ends() -> None:
    body = itertools.repeat(gzip.compress(b""))
    answer = EgressResponse(200, {"content-encoding": "gzip"}, body)
    with pytest.raises(EgressError, match="more than any answer within the limits needs"):
        get(policy(Mock(lambda request: answer), max_response_bytes=1000))


def test_the_deadline_is_looked_at_between_the_parts_of_a_body() -> None:
    def body() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b"x"

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        get(policy(Mock(lambda request: EgressResponse(200, body=body()))), remaining=deadline(0.2))
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("status", [200, 204])
def test_an_answer_that_comes_after_the_deadline_is_none(status: int) -> None:
    def late(request: EgressRequest) -> EgressResponse:
        time.sleep(0.2)
        return EgressResponse(status, body=b"late")

    with pytest.raises(TimeoutError):
        get(policy(Mock(late)), remaining=deadline(0.1))


@pytest.mark.parametrize("status", [200, 204, 302])
def test_a_body_is_closed_whether_it_is_wanted_or_not(status: int) -> None:
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
        (EgressResponse(200, {"a": 1}), "headers that are not text"),  # type: ignore[dict-item]
        (EgressResponse(200, {b"a": b"b"}), "headers that are not text"),  # type: ignore[dict-item]
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
def test_an_answer_that_is_none_is_an_error_that_says_what_is_wrong(answer: Any, says: str) -> None:
    with pytest.raises(EgressError, match=r"GET http://plugin\.test/ failed: ") as caught:
        get(policy(Mock(lambda request: answer)))
    assert says in str(caught.value)


def test_what_a_transport_raises_is_the_cause_of_an_error_that_does_not_repeat_its_text() -> None:
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
def test_interrupts_and_our_own_errors_pass_as_they_are(error: BaseException) -> None:
    def fail(request: EgressRequest) -> EgressResponse:
        raise error

    with pytest.raises(type(error)) as caught:
        get(policy(Mock(fail)))
    assert caught.value is error


# ---- Settings


class Plain:
    """Can be pickled."""

    def send(self, request: EgressRequest) -> EgressResponse:
        return EgressResponse(200)


def test_a_policy_with_a_transport_can_be_pickled_when_that_can() -> None:
    import pickle

    again = pickle.loads(pickle.dumps(policy(Plain())))
    assert get(again).status == 200
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        pickle.dumps(policy(Mock(lambda request: None)))


@pytest.mark.parametrize(
    "setting", [{"proxy": "http://proxy:1"}, {"ca_file": "x"}, {"client_certificate": "x"}]
)
def test_settings_of_the_transport_that_was_replaced_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(
        OptionError, match=f"{next(iter(setting))}: it is for the transport to know"
    ):
        Egress(transport=Plain(), **setting)


def test_an_object_that_cannot_send_is_no_transport() -> None:
    with pytest.raises(
        OptionError, match="transport: expected an object with a method `send`, got int"
    ):
        Egress(transport=7)  # type: ignore[arg-type]
