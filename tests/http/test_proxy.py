"""Requests through an HTTP proxy: what the proxy receives, what is checked before, and what
nobody else receives."""

from __future__ import annotations

import ssl
import time
from base64 import b64encode

import pytest

from plugwasm._http import connection as wire
from plugwasm._http.client import Response
from plugwasm._http.egress import Egress
from plugwasm.errors import EgressDeniedError, EgressError, OptionError, TimeoutError
from tests.support.egress import send
from tests.support.http_server import (
    Connection,
    Request,
    Server,
    drip,
    endless,
    raw,
    redirect,
    reply,
    silence,
    tunnel,
)
from tests.support.paths import DATA


def policy(proxy: str, *hosts: str, **settings: object) -> Egress:
    return Egress(allowed_hosts=hosts or ["plugin.test", "127.0.0.1"], proxy=proxy, **settings)  # type: ignore[arg-type]


def get(url: str, egress: Egress, method: str = "GET", seconds: float | None = None) -> Response:
    end = time.monotonic() + (seconds or 0)

    def remaining() -> float | None:
        if seconds is None:
            return None
        if (left := end - time.monotonic()) <= 0:
            raise TimeoutError("the call did not end in time")
        return left

    return send(egress, method, url, {"Authorization": "for the server"}, None, remaining)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    answers = {"plugin.test": ["127.0.0.1"], "proxy.test": ["127.0.0.1"]}

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[host]

    asked = answers["asked"] = []
    monkeypatch.setattr(wire, "look_up", resolve)
    return answers


def test_https_through_tunnel(names: dict[str, list[str]], server_tls: ssl.SSLContext) -> None:
    """HTTPS goes through a tunnel to the checked address, and the certificate is checked against
    the name."""
    asked_for: list[str | None] = []
    server_tls.sni_callback = lambda sock, name, context: asked_for.append(name)
    with Server(tunnel) as proxy, Server(reply(b"secret"), tls=server_tls) as server:
        egress = policy(proxy.url, ca_file=str(DATA / "tls-ca.pem"))
        assert get(f"https://plugin.test:{server.port}/a?b", egress).body == b"secret"
    assert names["asked"] == ["plugin.test"]
    assert (
        proxy.requests[0].head.split(b"\r\n")[0]
        == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1".encode()
    )
    assert "authorization" not in proxy.requests[0].headers
    assert asked_for == ["plugin.test"]
    assert server.requests[0].target == "/a?b"
    assert server.requests[0].headers["host"] == f"plugin.test:{server.port}"


def test_proxy_cannot_pass_for_server(
    names: dict[str, list[str]], server_tls: ssl.SSLContext
) -> None:
    """The proxy cannot impersonate the server."""
    with (
        Server(tunnel) as proxy,
        Server(reply(b"secret"), tls=server_tls) as server,
        pytest.raises(EgressError, match="certificate is not accepted"),
    ):
        get(f"https://plugin.test:{server.port}/", policy(proxy.url))
    assert server.requests == []


def test_http_through_tunnel(names: dict[str, list[str]]) -> None:
    """HTTP goes through a tunnel too, so the checked address is the one connected to."""
    with Server(tunnel) as proxy, Server(reply(b"plain")) as server:
        assert get(f"http://plugin.test:{server.port}/", policy(proxy.url)).body == b"plain"
    assert (proxy.requests[0].method, proxy.requests[0].target) == (
        "CONNECT",
        f"127.0.0.1:{server.port}",
    )
    assert server.requests[0].headers["host"] == f"plugin.test:{server.port}"


def test_proxy_that_resolves_gets_name(names: dict[str, list[str]]) -> None:
    """A proxy that resolves names receives the name, and no other resolver is asked."""
    with Server(
        lambda request, connection: reply(request.method.encode())(request, connection)
    ) as proxy:
        egress = policy(proxy.url, resolve=False)
        assert get("http://plugin.test:8080/a?b", egress).body == b"GET"
        with pytest.raises(EgressError):
            get("https://plugin.test/", egress)
    first, second = proxy.requests
    assert (first.target, first.headers["host"]) == (
        "http://plugin.test:8080/a?b",
        "plugin.test:8080",
    )
    assert (second.method, second.target, second.headers["host"]) == (
        "CONNECT",
        "plugin.test:443",
        "plugin.test:443",
    )
    assert names["asked"] == []


@pytest.mark.parametrize("resolve", [True, False])
@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.7/",
        "https://[::1]/",
        "http://other.test/",
        "ftp://plugin.test/",
        "http://plugin.test:81/",
    ],
)
def test_denied_host_never_reaches_proxy(url: str, resolve: bool) -> None:
    """A request to a denied host never reaches the proxy."""
    with Server(reply(b"proxy")) as proxy, pytest.raises(EgressDeniedError):
        get(url, policy(proxy.url, "plugin.test", "10.*", ports=[80, 443], resolve=resolve))
    assert proxy.connections == 0


def test_private_name_never_reaches_proxy(names: dict[str, list[str]]) -> None:
    """A request to a name with a private address never reaches the proxy."""
    names["plugin.test"] = ["10.0.0.7"]
    with Server(tunnel) as proxy, pytest.raises(EgressDeniedError, match="private"):
        get("http://plugin.test/", policy(proxy.url))
    assert proxy.connections == 0


def test_redirects_are_checked() -> None:
    """Redirects are checked behind a proxy too."""
    with (
        Server(redirect("http://169.254.169.254/")) as proxy,
        pytest.raises(EgressDeniedError, match="link-local"),
    ):
        get("http://plugin.test/", policy(proxy.url, "*", resolve=False))
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("resolve", [True, False])
def test_password_goes_to_proxy_only(names: dict[str, list[str]], resolve: bool) -> None:
    """The proxy's password is sent to the proxy only."""
    with Server({"*": tunnel if resolve else reply()}) as proxy, Server(reply()) as server:
        url = f"http://user:hunter%402@127.0.0.1:{proxy.port}"
        response = get(f"http://plugin.test:{server.port}/", policy(url, resolve=resolve))
    assert (
        proxy.requests[0].headers["proxy-authorization"]
        == "Basic " + b64encode(b"user:hunter@2").decode()
    )
    assert all("proxy-authorization" not in request.headers for request in server.requests)
    for shown in (repr(policy(url)), repr(policy(url).transport)):
        assert "proxy" in shown.lower()
        assert "hunter" not in shown
    assert response.status == 200


def test_proxy_itself_needs_no_grant(names: dict[str, list[str]]) -> None:
    """The proxy itself may be a name and need not be allowed."""
    with Server(tunnel) as proxy, Server(reply(b"far")) as server:
        assert (
            get(
                f"http://plugin.test:{server.port}/", policy(f"http://proxy.test:{proxy.port}/")
            ).body
            == b"far"
        )


def test_proxy_refusal_is_error(names: dict[str, list[str]]) -> None:
    """The error for a refusal by the proxy names the proxy."""
    names["plugin.test"] = ["127.0.0.1", "127.0.0.2"]
    with (
        Server(reply(b"no", status=403)) as proxy,
        pytest.raises(
            EgressError,
            match=rf"the proxy 127\.0\.0\.1:{proxy.port} did not connect to it: 403 'Because'",
        ),
    ):
        get(
            "http://plugin.test/?secret", policy(proxy.url, "plugin.test", "127.0.0.1", "127.0.0.2")
        )
    assert len(proxy.requests) == 1


def test_next_address_is_tried(names: dict[str, list[str]]) -> None:
    """If the proxy does not reach one address, the next one is tried."""
    names["plugin.test"] = ["127.0.0.2", "127.0.0.1"]

    def route(request: Request, connection: Connection) -> None:
        (reply(status=502) if request.target.startswith("127.0.0.2") else tunnel)(
            request, connection
        )

    with Server(route) as proxy, Server(reply(b"second")) as server:
        egress = policy(proxy.url, "plugin.test", "127.0.0.1", "127.0.0.2")
        assert get(f"http://plugin.test:{server.port}/", egress).body == b"second"


def test_proxy_authentication_is_error() -> None:
    """A proxy's demand for credentials is an error and is not shown to the guest as a response."""
    with Server(reply(b"", status=407, headers=[("Proxy-Authenticate", "Basic")])) as proxy:
        for url in ("http://plugin.test/", "https://plugin.test/"):
            with pytest.raises(EgressError, match=r"407|asks for credentials"):
                get(url, policy(proxy.url, resolve=False))


@pytest.mark.parametrize(
    "served",
    [
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\nX: y"),
        raw(b"nonsense\r\n\r\n"),
        endless(b"X: " + b"y" * 1000 + b"\r\n", head=b"HTTP/1.1 200 OK\r\n"),
        endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, head=b""),
    ],
    ids=["nothing", "half a head", "nonsense", "endless headers", "endless interim answers"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_invalid_proxy_answer_is_error(served: object, scheme: str) -> None:
    """An invalid answer of the proxy is one of our errors."""
    with Server(served) as proxy, pytest.raises(EgressError):  # type: ignore[arg-type]
        get(f"{scheme}://127.0.0.1/", policy(proxy.url))


@pytest.mark.parametrize(
    "served", [silence, drip(b"HTTP/1.1 200 OK\r\n" * 50, every=0.05)], ids=["silence", "drip"]
)
def test_deadline_covers_proxy(served: object) -> None:
    """The deadline covers the exchange with the proxy."""
    with Server(served) as proxy:  # type: ignore[arg-type]
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            get("https://127.0.0.1/", policy(proxy.url), seconds=0.3)
        assert time.monotonic() - started < 3


def test_environment_proxy_when_asked(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxy environment variables are used on request."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Server(tunnel) as proxy, Server(reply(b"far")) as server:
        url = f"http://plugin.test:{server.port}/"
        egress = policy("environment")
        assert get(url, egress).body == b"far"
        assert proxy.connections == 0
        monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
        assert get(url, egress).body == b"far"
        assert proxy.connections == 1
        monkeypatch.setenv("no_proxy", "plugin.test")
        assert get(url, egress).body == b"far"
        assert get(url, egress.replace(resolve=False)).body == b"far", (
            "what does not go through the proxy is resolved and vetted here"
        )
        assert proxy.connections == 1
        monkeypatch.setenv("no_proxy", "elsewhere.test")
        monkeypatch.setenv("http_proxy", "socks5://user:hunter2@127.0.0.1:1080")
        with pytest.raises(EgressError, match="in the environment, proxy: expected") as caught:
            get(url, egress)
        assert "hunter2" not in str(caught.value)


def test_name_without_proxy_is_vetted(names: dict[str, list[str]]) -> None:
    """A name for which there is no proxy is checked, whatever the `resolve` option says."""
    names["plugin.test"] = ["10.0.0.7"]
    with pytest.raises(EgressDeniedError, match="private"):
        get("http://plugin.test/", Egress(allowed_hosts=["plugin.test"], resolve=False))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy",
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy",
        "http://",
        "http://proxy/path",
        "http://proxy?x",
        "http://proxy:0",
        7,
    ],
)
def test_invalid_proxy_is_refused(url: str) -> None:
    """An invalid proxy is refused, and the error does not repeat it."""
    with pytest.raises(OptionError, match=r"proxy: expected 'http://host:port' or 'environment'"):
        policy(url)
