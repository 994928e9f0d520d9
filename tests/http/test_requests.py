"""Which requests a guest may send, and where redirects may lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm._http.egress import Egress
from plugwasm.errors import (
    EgressDeniedError,
    EgressError,
)
from tests.support.egress import Names, get, no_deadline, policy, send
from tests.support.http_server import (
    Connection,
    Request,
    Server,
    redirect,
    reply,
)

# ---- What a guest may say


def test_request_bytes() -> None:
    """The bytes of the request are exactly as expected."""
    with Server(reply()) as server:
        headers = {"X-Guest": "  é ✓\t", "Content-Type": "text/x"}
        send(policy(), "post", server.url + "/a?b#c", headers, b"\x00body", no_deadline)
    assert server.requests[0].head.split(b"\r\n") == [
        b"POST /a?b HTTP/1.1",
        b"Content-Length: 5",
        f"Host: 127.0.0.1:{server.port}".encode(),
        b"Connection: close",
        b"Accept-Encoding: identity",
        b"User-Agent: plugwasm",
        "X-Guest: é ✓".encode(),
        b"Content-Type: text/x",
        b"",
    ]
    assert server.requests[0].body == b"\x00body"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("body", [None, b"", b"text"])
def test_ordinary_methods(method: str, body: bytes | None) -> None:
    """Every ordinary method is sent, with and without a body."""
    with Server(reply(b"answer")) as server:
        response = send(policy(), method, server.url, {}, body, no_deadline)
    assert (server.requests[0].method, server.requests[0].body) == (method, body or b"")
    assert response.body == (b"" if method == "HEAD" else b"answer")


@pytest.mark.parametrize(
    "method",
    ["", "CONNECT", "TRACE", "BREW", "GET ", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "ſ", "G\x00ET"],
)
def test_other_methods_are_refused(method: str) -> None:
    with Server(reply()) as server, pytest.raises(EgressError, match="method: expected one of"):
        send(policy(), method, server.url, {}, None, no_deadline)
    assert server.connections == 0


BAD_HEADERS = [
    *(
        {name: "x"}
        for name in (
            "Host",
            "host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Upgrade",
        )
    ),
    *(
        {name: "x"}
        for name in (
            "TE",
            "Trailer",
            "Expect",
            "Proxy-Authorization",
            "PROXY-anything",
            "proxy-connection",
        )
    ),
    *(
        {name: "x"}
        for name in (
            "",
            " ",
            "a b",
            "a:",
            "a\r\nb",
            "a\x00",
            "é",
            "\u212a",
            "(a)",
            "Host ",
            ":authority",
            "a\n",
        )
    ),
    *(
        {"X": value}
        for value in (
            "a\r\nHost: evil",
            "a\nb",
            "a\rb",
            "a\x00b",
            "a\x0bb",
            "a\x1bb",
            "a\x7fb",
            "a\r\n b",
            "\n",
            "\ud800",
        )
    ),
    *(
        {name: "x"}
        for name in ("Content_Length", "TRANSFER_ENCODING", "Proxy", "Proxy_Authorization")
    ),
    {"X-A": "1", "x-a": "2"},
    {"X-A": "1", "X_A": "2"},
    {f"X-{index}": "v" for index in range(101)},
    {"X": "v" * (64 << 10)},
]


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=lambda headers: ascii(headers)[:40])
def test_forbidden_headers_are_refused(headers: dict[str, str]) -> None:
    """Headers that a guest may not set are refused."""
    with Server(reply()) as server, pytest.raises(EgressError, match="headers: "):
        send(policy(), "GET", server.url, headers, None, no_deadline)
    assert server.connections == 0


def test_header_count_up_to_limit() -> None:
    """The maximum number of headers can be sent."""
    with Server(reply()) as server:
        get(server.url, headers={f"X-{index}": "v" * 600 for index in range(100)})
    assert sum(name.startswith("x-") for name in server.requests[0].headers) == 100


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_headers_cannot_inject_lines(headers: dict[str, str]) -> None:
    """Headers that are accepted cannot inject another line."""
    try:
        checked = Egress()._policy.check_headers(headers)
    except EgressError:
        return
    for name, value in checked.items():
        assert name.isascii()
        assert not set(name) & set(" :\r\n\t")
        assert not any(byte < 32 and byte != 9 for byte in value.encode())


def test_request_body_limit() -> None:
    """A request body may be exactly as large as the limit."""
    rules = policy(max_request_bytes=1000)
    with Server(reply()) as server:
        send(rules, "POST", server.url, {}, bytes(1000), no_deadline)
        with pytest.raises(EgressError, match="1001 bytes, more than the 1000 allowed"):
            send(rules, "POST", server.url, {}, bytes(1001), no_deadline)
    assert len(server.requests) == 1


def test_a_large_body_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000
    with Server(reply()) as server:
        send(policy(), "PUT", server.url, {}, body, no_deadline)
    assert server.requests[0].body == body


# ---- Redirects


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        *(
            (301, "GET", "GET"),
            (301, "POST", "GET"),
            (301, "PUT", "PUT"),
            (302, "POST", "GET"),
            (302, "HEAD", "HEAD"),
        ),
        *(
            (303, "POST", "GET"),
            (303, "PUT", "GET"),
            (303, "HEAD", "HEAD"),
            (307, "POST", "POST"),
            (308, "PUT", "PUT"),
        ),
    ],
)
def test_redirect_method(status: int, method: str, then: str) -> None:
    """A redirect is followed with the method that its status requires."""
    with Server({"/": redirect("/there", status=status), "/there": reply(b"found")}) as server:
        headers = {"Content-Type": "text/x", "Authorization": "secret"}
        response = send(policy(), method, server.url, headers, b"body", no_deadline)
    _, second = server.requests
    assert response.status == 200
    assert (second.target, second.method, second.body) == (
        "/there",
        then,
        b"body" if then == method else b"",
    )
    assert ("content-type" in second.headers) is (then == method)
    assert second.headers["authorization"] == "secret"


def test_credentials_stay_with_origin(names: Names) -> None:
    """Credentials are sent to their origin only."""
    rules = policy("plugin.test", "other.test", "127.0.0.1")
    headers = {"AUTHORIZATION": "secret", "Cookie": "secret", "X-Kept": "yes"}
    with Server(reply()) as there, Server({"/name": reply()}) as server:
        server.routes["/"] = redirect(f"http://other.test:{server.port}/name")
        server.routes["/port"] = redirect(f"http://plugin.test:{there.port}/")
        get(f"http://plugin.test:{server.port}/", rules, headers)
        get(f"http://plugin.test:{server.port}/port", rules, headers)
    assert server.requests[0].headers["authorization"] == "secret"
    for request in (server.requests[1], there.requests[0]):
        assert not {"authorization", "cookie"} & set(request.headers)
        assert request.headers["x-kept"] == "yes"


@pytest.mark.parametrize(
    "location",
    [
        *(
            "http://evil.test/",
            "//evil.test/",
            "http://127.0.0.1@evil.test/",
            "http://10.0.0.7/",
            "http://2130706433/",
        ),
        *(
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "javascript:x",
            "http://127.0.0.1\\@evil.test/",
            "http://[::1",
        ),
    ],
)
def test_redirect_to_denied_host(location: str) -> None:
    """A redirect to a host that is not allowed is denied."""
    with (
        Server({"/": redirect("/next"), "/next": redirect(location)}) as server,
        pytest.raises(EgressDeniedError, match="redirects to"),
    ):
        get(server.url)
    assert [request.target for request in server.requests] == ["/", "/next"]


def test_redirect_name_is_vetted(names: Names) -> None:
    """The host name of a redirect is resolved and checked too."""
    names.answers["other.test"] = ["169.254.169.254"]
    with (
        Server(redirect("http://other.test/latest/meta-data")) as server,
        pytest.raises(EgressDeniedError, match="link-local"),
    ):
        get(server.url, policy("127.0.0.1", "*.test"))


def test_redirect_limit() -> None:
    """Ten redirects are followed, and the eleventh is not."""

    def count_down(request: Request, connection: Connection) -> None:
        left = int(request.target[1:])
        (redirect(f"/{left - 1}") if left else reply(b"end"))(request, connection)

    with Server(count_down) as server:
        assert get(server.url + "/10").body == b"end"
        with pytest.raises(EgressError, match="more than 10 redirects"):
            get(server.url + "/11")
    assert len(server.requests) == 11 + 11


def test_a_loop_of_redirects_ends() -> None:
    with Server(redirect("/")) as server, pytest.raises(EgressError, match="more than 2 redirects"):
        get(server.url, policy(max_redirects=2))
    assert len(server.requests) == 3


def test_redirect_not_followed() -> None:
    """If redirects are not followed, the redirect is the response."""
    with Server(redirect("http://evil.test/")) as server:
        response = get(server.url, policy(max_redirects=0))
    assert (response.status, response.headers["location"], response.body) == (
        302,
        "http://evil.test/",
        b"moved",
    )
    assert len(server.requests) == 1


def test_location_in_utf8() -> None:
    """A Location header in UTF-8 is decoded as such."""
    with Server({"/": redirect("/caf\u00c3\u00a9"), "/caf%C3%A9": reply(b"coffee")}) as server:
        assert get(server.url).body == b"coffee"


@pytest.mark.parametrize("status", [300, 304, 404, 500])
def test_other_statuses_are_answers(status: int) -> None:
    with Server(reply(status=status)) as server:
        assert get(server.url).status == status
