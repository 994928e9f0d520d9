"""Which addresses may be connected to, and that connections go to the addresses that were
checked."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugwasm._http import addresses
from plugwasm._http import connection as wire
from plugwasm.errors import (
    EgressDeniedError,
    EgressError,
)
from tests.support.egress import PUBLIC, Names, get, in_url, policy
from tests.support.http_server import (
    Server,
    reply,
)

NOT_PUBLIC = [
    *(
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.7",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
    ),
    *(
        "169.254.169.254",
        "169.254.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "168.63.129.16",
    ),
    *(
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.5",
    ),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *(
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "fd00::1",
        "fd00:ec2::254",
        "fc00::1",
        "ff02::1",
        "ff0e::1",
        "100::1",
        "4000::1",
        "5f00::1",
    ),
    *(
        "2001::1",
        "2001:db8::1",
        "2001:10::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff::1",
        "::127.0.0.1",
        "::8.8.8.8",
    ),
    *(
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::7f00:1",
    ),
]
IS_PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.0.1",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "11.0.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_private_address_needs_literal_grant(address: str) -> None:
    """A non-public address needs a literal grant."""
    with pytest.raises(EgressDeniedError, match="refused: its address"):
        policy("*")._policy.check_url(in_url(address))
    with pytest.raises(EgressDeniedError, match="refused: its address"):
        policy("*", "localhost", "plugin.test")._policy.check_addresses("plugin.test", [address])
    assert policy(address)._policy.check_url(in_url(address)).host
    assert (
        len(policy("plugin.test", address)._policy.check_addresses("plugin.test", [address])) == 1
    )


@pytest.mark.parametrize("address", IS_PUBLIC)
def test_a_public_address_needs_none(address: str) -> None:
    assert policy("*")._policy.check_url(in_url(address)).host == address
    assert policy("*")._policy.check_addresses("plugin.test", [address]) == (address,)


def test_one_bad_address_refuses_name() -> None:
    """One forbidden address among good ones is enough to refuse the name."""
    with pytest.raises(EgressDeniedError, match=r"its address 10\.0\.0\.1 is private"):
        policy("*")._policy.check_addresses("plugin.test", [PUBLIC, "10.0.0.1"])


def test_name_does_not_grant_private() -> None:
    """A literal grant of a name does not grant private addresses."""
    with pytest.raises(EgressDeniedError, match="name the address itself"):
        policy("plugin.test")._policy.check_addresses("plugin.test", ["10.0.0.1"])


def test_localhost_grants_loopback() -> None:
    """A grant of `localhost` grants loopback, for that name only."""
    rules = policy("localhost", "*")
    assert rules._policy.check_addresses("localhost", ["127.0.0.1", "127.9.9.9", "::1"]) == (
        "127.0.0.1",
        "127.9.9.9",
        "::1",
    )
    for host, address in [
        ("plugin.test", "127.0.0.1"),
        ("localhost", "10.0.0.1"),
        ("localhost", "::ffff:127.0.0.1"),
    ]:
        with pytest.raises(EgressDeniedError):
            rules._policy.check_addresses(host, [address])
    for pattern in ("*", "local*", "localhos?"):
        with pytest.raises(EgressDeniedError):
            policy(pattern)._policy.check_addresses("localhost", ["127.0.0.1"])


@pytest.mark.parametrize("text", ["", "junk", "fe80::1%eth0", "2606:4700::1111%eth0", "127.1"])
def test_resolver_result_is_validated(text: str) -> None:
    """A resolver's results must be addresses."""
    with pytest.raises(EgressDeniedError):
        policy("*")._policy.check_addresses("plugin.test", [text])


@given(st.ip_addresses())
def test_private_refused_under_wildcard(address: object) -> None:
    """Private and loopback addresses are refused under a wildcard."""
    why = addresses.why_not_public(address)  # type: ignore[arg-type]
    if address.is_private or address.is_loopback or address.is_multicast or not address.is_global:  # type: ignore[attr-defined]
        assert why is not None


def test_refused_target_is_not_connected(names: Names) -> None:
    """A refused target is never connected to."""
    with Server(reply()) as server:
        for url in (
            f"http://plugin.test:{server.port}/",
            server.url,
            f"http://localhost:{server.port}/",
        ):
            with pytest.raises(EgressDeniedError):
                get(url, policy("*"))
        with pytest.raises(EgressDeniedError):
            get(f"http://unlisted.test:{server.port}/", policy("plugin.test"))
    assert server.connections == 0
    assert names.asked == ["plugin.test", "localhost"]


def test_resolved_once_then_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once, and the checked address is connected to."""
    answers = [["127.0.0.1"], ["10.255.255.1"]]
    monkeypatch.setattr(wire, "look_up", lambda host, port: answers.pop(0))
    with Server(reply(b"pinned")) as server:
        assert (
            get(f"http://Plugin.test.:{server.port}/", policy("plugin.test", "127.0.0.1")).body
            == b"pinned"
        )
    assert len(answers) == 1
    assert server.requests[0].headers["host"] == f"plugin.test:{server.port}"


def test_next_address_is_tried(names: Names) -> None:
    """If one address does not answer, the next checked address is tried."""
    names.answers["plugin.test"] = ["127.0.0.2", "127.0.0.1"]
    with Server(reply(b"second")) as server:
        assert (
            get(
                f"http://plugin.test:{server.port}/",
                policy("plugin.test", "127.0.0.1", "127.0.0.2"),
            ).body
            == b"second"
        )


def test_refused_connection_is_error(names: Names) -> None:
    """The error for a refused connection says so."""
    with Server(reply()) as server:
        pass
    with pytest.raises(
        EgressError, match=rf"GET http://127\.0\.0\.1:{server.port}/x failed: Connection refused"
    ):
        get(server.url + "/x?y")


def test_unresolvable_name_is_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a name that does not resolve says so."""

    def fail(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    def find_nothing(host: str, port: int) -> list[str]:
        return []

    for seam in (fail, find_nothing):
        monkeypatch.setattr(wire, "look_up", seam)
        with pytest.raises(EgressError, match="does not resolve"):
            get("http://plugin.test/", policy("*"))


def test_system_resolver_knows_localhost() -> None:
    """The system resolver resolves `localhost`."""
    with Server(reply(b"home")) as server:
        assert get(f"http://localhost:{server.port}/", policy("localhost")).body == b"home"


def test_ipv6_host_header() -> None:
    """An IPv6 address has brackets in the Host header."""
    try:
        server = Server(reply(b"six"), host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server:
        assert get(server.url, policy("::1")).body == b"six"
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy environment variables are ignored."""
    with Server(reply(b"proxy")) as proxy, Server(reply(b"direct")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert get(server.url).body == b"direct"
    assert proxy.connections == 0
