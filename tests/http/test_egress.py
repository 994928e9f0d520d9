"""What a plugin may reach by HTTP, and how: rules 1 to 6 of `plugwasm._http.policy` and `exchange`, against a real server."""

from __future__ import annotations

import gzip
import importlib
import pickle
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugwasm._http import addresses, client
from plugwasm._http import connection as wire
from plugwasm._http.client import Response
from plugwasm._http.policy import Egress
from plugwasm.errors import (
    CancelledError,
    EgressDeniedError,
    EgressError,
    ManifestError,
    OptionError,
    TimeoutError,
)
from tests.support.http_server import (
    EMPTY_GZIP_MEMBER,
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
)
from tests.support.paths import DATA

PUBLIC = "93.184.215.14"


def no_deadline() -> None:
    return None


def deadline(seconds: float) -> Callable[[], float]:
    end = time.monotonic() + seconds

    def remaining() -> float:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the call did not end in time")
        return left

    return remaining


def policy(*hosts: str, **settings: Any) -> Egress:
    return Egress(allowed_hosts=hosts or ["127.0.0.1"], **settings)


def get(
    url: str, rules: Egress | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    return client.send_request(rules or policy(), "GET", url, headers or {}, None, no_deadline)


class Names:
    """A resolver whose answers are set by the test, and that counts what it is asked."""

    def __init__(self, **answers: Sequence[str]) -> None:
        self.answers = {
            name.replace("_", "."): list(addresses) for name, addresses in answers.items()
        }
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers[host]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    resolver = Names(plugin_test=["127.0.0.1"], other_test=["127.0.0.1"], localhost=["127.0.0.1"])
    monkeypatch.setattr(wire, "look_up", resolver)
    return resolver


# ---- What is granted


def test_nothing_is_granted_by_default() -> None:
    with pytest.raises(EgressDeniedError, match="HTTP is off"):
        Egress().judge("http://example.com/")


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.COM"),
        ("example.com.", "example.com"),
        ("example.com", "example.com."),
        ("*", "example.com"),
        ("*.example.com", "a.b.example.com"),
        ("*.EXAMPLE.com.", "a.example.com."),
        ("api-?.example.com", "api-1.example.com"),
        ("*example.com", "badexample.com"),
        ("xn--bcher-kva.de", "XN--BCHER-KVA.de"),
        ("10.0.0.7", "10.0.0.7"),
        ("::1", "[::1]"),
        ("[::1]", "[0:0:0:0:0:0:0:1]"),
        ("fd00::7", "[FD00:0::7]"),
        ("8.8.*", "8.8.4.4"),
        ("my_service", "my_service"),
    ],
)
def test_an_entry_grants_the_hosts_that_fit_it(entry: str, host: str) -> None:
    policy(entry).judge(f"http://{host}/")


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("example.com", "www.example.com"),
        ("example.com", "example.com.evil.test"),
        ("example.com", "notexample.com"),
        ("*.example.com", "example.com"),
        ("*.example.com", "example.com.evil.test"),
        ("api-?.example.com", "api-.example.com"),
        ("api-?.example.com", "api-12.example.com"),
        ("example.com", "exampleacom"),
        ("127.0.0.1", "127.0.0.2"),
        ("localhost", "127.0.0.1"),
        ("::1", "[::2]"),
    ],
)
def test_an_entry_grants_no_other_host(entry: str, host: str) -> None:
    with pytest.raises(EgressDeniedError, match="is not granted"):
        policy(entry).judge(f"http://{host}/")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        ".",
        "host:8080",
        "https://example.com",
        "example.com/path",
        "user@example.com",
        "exa mple.com",
        "exa[mx]ple.com",
        "*:80",
        "2001:db8:*",
        "a..b",
        "127.1",
        "0x7f.0.0.1",
        "fe80::1%eth0",
        "x" * 64 + ".com",
        "exam\x00ple.com",
        7,
    ],
)
def test_an_entry_that_is_no_host_is_an_error_rather_than_a_grant_of_nothing(entry: str) -> None:
    with pytest.raises(OptionError, match="allowed_hosts"):
        policy(entry)


def test_one_string_is_not_a_list_of_hosts() -> None:
    with pytest.raises(OptionError, match="got one string"):
        Egress(allowed_hosts="*")


@pytest.mark.parametrize("limit", ["max_response_bytes", "max_request_bytes", "max_redirects"])
def test_a_limit_below_zero_is_refused(limit: str) -> None:
    with pytest.raises(OptionError, match=limit):
        policy(**{limit: -1})


def test_unicode_names_are_granted_and_judged_in_their_ascii_form_or_refused_with_the_reason() -> (
    None
):
    try:
        importlib.import_module("idna")
    except ImportError:
        with pytest.raises(OptionError, match="xn--"):
            policy("bücher.de")
        with pytest.raises(EgressDeniedError, match="xn--"):
            policy("*").judge("http://bücher.de/")
    else:
        assert policy("bücher.de").judge("http://BÜCHER.de/").host == "xn--bcher-kva.de"
        assert (
            policy("*.bücher.de").judge("http://a.xn--bcher-kva.de/").host == "a.xn--bcher-kva.de"
        )


def test_a_policy_cannot_be_changed_and_survives_pickling() -> None:
    rules = policy("*.Example.com", "::1", max_response_bytes=5, max_redirects=3)
    with pytest.raises(AttributeError, match="cannot be changed"):
        rules.allowed_hosts = ("*",)
    again = pickle.loads(pickle.dumps(rules))
    assert again.allowed_hosts == ("*.example.com", "::1")
    assert (again.max_response_bytes, again.max_request_bytes, again.max_redirects) == (
        5,
        50 << 20,
        3,
    )
    assert again.judge("http://a.example.com/").host == "a.example.com"


def test_repr_shows_what_was_set_and_no_secrets() -> None:
    rules = Egress(
        allowed_hosts=["*"],
        ports=[443],
        added_headers={"https://api.test": {"Authorization": "hunter2"}},
        proxy="http://user:hunter2@proxy.test",
        denied_headers=["B", "A"],
    )
    expected = "Egress(allowed_hosts=['*'], ports=[443], proxy=…, added_headers={'https://api.test': ['Authorization']}, denied_headers=['a', 'b'])"
    assert sorted(repr(rules)) == sorted(expected)
    assert repr(Egress()) == "Egress()"
    assert "hunter2" not in repr(rules) + repr(rules.for_manifest(["a.test"]))
    assert "a.test" in repr(rules.for_manifest(["a.test"]))


def test_replacing_settings_gives_another_policy_with_the_rest_as_it_was() -> None:
    rules = policy("*.test", ports=[80, range(8000, 8080)], private_addresses=["10.0.0.0/8"])
    other = rules.replace(ports=None)
    assert (rules.ports, other.ports, other.allowed_hosts) == (
        (80, range(8000, 8080)),
        None,
        ("*.test",),
    )
    assert other.vet("a.test", ["10.0.0.1"]) == ("10.0.0.1",)
    with pytest.raises(EgressDeniedError):
        rules.for_manifest(["a.test"]).replace(ports=None).judge("http://b.test:99/")


def test_a_policy_with_its_own_ssl_context_does_not_lose_it_by_pickling() -> None:
    with pytest.raises(TypeError, match="SSLContext"):
        pickle.dumps(Egress(allowed_hosts=["*"], ssl_context=ssl.create_default_context()))


# ---- The application's say and the manifest's


def granted(rules: Egress, host: str) -> bool:
    try:
        rules.judge(f"http://{host}/")
    except EgressDeniedError:
        return False
    return True


@pytest.mark.parametrize(
    ("application", "manifest", "hosts"),
    [
        (None, ["*.test"], {"a.test", "b.test"}),
        (None, [], set()),
        (None, ["127.0.0.1"], {"127.0.0.1"}),
        (["*"], ["*"], {"a.test", "b.test", "c.example"}),
        (["*"], ["127.0.0.1"], set()),
        (["127.0.0.1"], ["*"], set()),
        (["*", "127.0.0.1"], ["127.0.0.1", "a.test"], {"a.test", "127.0.0.1"}),
        (["a.test"], ["*"], {"a.test"}),
        (["*"], ["a.test"], {"a.test"}),
        (["a.*"], ["*.test"], {"a.test"}),
        ([], ["*"], set()),
        (["a.test"], ["b.test"], set()),
    ],
)
def test_a_host_is_reached_when_the_application_and_the_manifest_grant_it(
    application: list[str] | None, manifest: list[str], hosts: set[str]
) -> None:
    rules = Egress(allowed_hosts=application).for_manifest(manifest)
    assert {
        host for host in ("a.test", "b.test", "c.example", "127.0.0.1") if granted(rules, host)
    } == hosts


def test_the_message_says_whose_list_it_is() -> None:
    rules = policy("a.test").for_manifest(["b.test", "a.test"])
    with pytest.raises(
        EgressDeniedError, match="no entry of the application's allowed_hosts fits it"
    ):
        rules.judge("http://b.test/")
    with pytest.raises(EgressDeniedError, match="no entry of allowed_hosts fits it"):
        policy("*").for_manifest(["b.test"]).judge("http://a.test/")


@pytest.mark.parametrize(
    ("application", "manifest", "limit"),
    [
        (None, None, 50 << 20),
        (None, 5, 5),
        (None, 1 << 40, 1 << 40),
        (10, None, 10),
        (10, 5, 5),
        (10, 15, 10),
        (1 << 30, None, 1 << 30),
        (0, 5, 0),
    ],
)
def test_the_manifest_can_lower_the_size_of_an_answer_and_not_raise_it(
    application: int | None, manifest: int | None, limit: int
) -> None:
    assert (
        Egress(max_response_bytes=application).for_manifest(["*"], manifest).max_response_bytes
        == limit
    )


def test_a_manifest_with_an_entry_that_is_none_is_refused_by_naming_it() -> None:
    with pytest.raises(ManifestError, match="allowed_hosts: 'a:80' has a port"):
        Egress().for_manifest(["a:80"])


# ---- Schemes, ports, methods


@pytest.mark.parametrize(
    ("settings", "yes", "no"),
    [
        (
            {"schemes": ["https"]},
            ["https://a.test/", "https://a.test:80/"],
            ["http://a.test/", "http://a.test:443/"],
        ),
        ({"schemes": ("http",)}, ["http://a.test/"], ["https://a.test/"]),
        (
            {"ports": [443]},
            ["https://a.test/", "http://a.test:443/"],
            ["http://a.test/", "https://a.test:444/", "https://a.test:442/"],
        ),
        ({"ports": {80, 443}}, ["http://a.test/", "https://a.test/"], ["http://a.test:8080/"]),
        (
            {"ports": [range(8000, 8003)]},
            ["http://a.test:8000/", "http://a.test:8002/"],
            ["http://a.test:7999/", "http://a.test:8003/"],
        ),
        ({"ports": range(1, 65536)}, ["http://a.test:65535/"], []),
        ({"ports": []}, [], ["http://a.test/"]),
    ],
)
def test_a_scheme_or_port_that_the_application_does_not_allow_is_denied(
    settings: dict[str, object], yes: list[str], no: list[str]
) -> None:
    rules = Egress(allowed_hosts=["*"], **settings).for_manifest(["*"])  # type: ignore[arg-type]
    for url in yes:
        rules.judge(url)
    for url in no:
        with pytest.raises(EgressDeniedError, match="is refused: the application"):
            rules.judge(url)


@pytest.mark.parametrize(
    "settings",
    [
        *({"schemes": value} for value in ("http", 7, [], ["ftp"], ["HTTP"], [7])),
        *(
            {"ports": value}
            for value in (
                [0],
                [65536],
                ["80"],
                [True],
                [range(5)],
                [range(65000, 65537)],
                [range(5, 5)],
                [80.0],
                443,
                "80",
            )
        ),
        *(
            {"methods": value}
            for value in ("GET", [], ["get"], ["CONNECT"], ["TRACE"], ["A B"], [7], [""])
        ),
        *(
            {"private_addresses": value}
            for value in (
                "10.0.0.0/8",
                ["10.0.0.1/8"],
                ["10.0.0.0/33"],
                ["a.test"],
                [7],
                ["fe80::1%eth0"],
                [""],
            )
        ),
        *({"allowed_headers": value} for value in ("X", ["a b"], [7], ["a:"])),
        *({name: ["é"]} for name in ("denied_headers", "hidden_headers")),
        *(
            {"added_headers": value}
            for value in (
                {"a.test": {"X": "y"}},
                {"ftp://a": {}},
                {"https://a:0": {}},
                {"https://a:b": {}},
                {7: {}},
                [7],
            )
        ),
        *(
            {"added_headers": {"https://a.test": value}}
            for value in (
                {"Host": "x"},
                {"X": "a\nb"},
                {"X": 7},
                {"a b": "c"},
                "X",
                {"Proxy-A": "b"},
            )
        ),
        {"added_headers": {"https://a.test/path": {"X": "y"}}},
        {"max_redirects": None},
        {"max_request_bytes": None},
        {"max_response_bytes": "5"},
        {"max_redirects": True},
        {"resolve": None},
        {"ca_file": "no-such-file"},
        {"ca_file": __file__},
        {"client_certificate": "no-such-file"},
        {"client_certificate": str(DATA / "tls-ca.pem")},
        {"client_certificate": 7},
        {"ca_file": "x", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
    ],
    ids=lambda settings: ascii(settings)[:60],
)
def test_a_setting_that_is_not_valid_is_refused_by_naming_it(settings: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=f"^({'|'.join(settings)})"):
        Egress(**settings)  # type: ignore[arg-type]


def test_methods_are_those_that_the_application_names() -> None:
    rules = policy(methods=["GET", "PROPFIND"])
    with Server(reply()) as server:
        client.send_request(rules, "propfind", server.url, {}, None, no_deadline)
        with pytest.raises(EgressError, match="method: expected one of GET, PROPFIND"):
            client.send_request(rules, "POST", server.url, {}, None, no_deadline)
        with pytest.raises(EgressError, match="method: expected one of DELETE, GET"):
            client.send_request(policy(), "PROPFIND", server.url, {}, None, no_deadline)
    assert [request.method for request in server.requests] == ["PROPFIND"]


def test_a_redirect_that_makes_a_get_of_a_post_is_refused_where_no_get_is_allowed() -> None:
    rules = policy(methods=["POST"])
    with (
        Server({"/": redirect("/next", status=303)}) as server,
        pytest.raises(EgressError, match="method: expected one of POST"),
    ):
        client.send_request(rules, "POST", server.url, {}, b"body", no_deadline)
    assert len(server.requests) == 1


def test_a_redirect_to_a_port_or_a_scheme_that_is_not_allowed_is_denied() -> None:
    with Server(reply()) as other, Server(redirect(other.url)) as server:
        with pytest.raises(
            EgressDeniedError, match=rf"redirects to .* does not allow port {other.port}"
        ):
            get(server.url, policy(ports=[server.port]))
        server.routes["*"] = redirect(f"https://127.0.0.1:{other.port}/")
        with pytest.raises(EgressDeniedError, match=r"redirects to .* allows http only"):
            get(server.url, policy(schemes=["http"]))
    assert other.connections == 0


# ---- Headers of the application


def test_added_headers_are_sent_to_their_origin_only_and_win(names: Names) -> None:
    with Server(reply()) as other, Server(reply()) as server:
        added = {
            f"http://*.test:{server.port}": {
                "AUTHORIZATION": "of the application",
                "X-Key": "hunter2",
            }
        }
        rules = policy("plugin.test", "other.test", "127.0.0.1").replace(added_headers=added)
        get(
            f"http://plugin.test:{server.port}/",
            rules,
            {"Authorization": "of the guest", "X_Key": "of the guest", "X-Guest": "yes"},
        )
        get(f"http://127.0.0.1:{server.port}/", rules, {"Authorization": "of the guest"})
        get(f"http://plugin.test:{other.port}/", rules)
    first, second = server.requests
    assert first.head.lower().count(b"authorization") == 1
    assert "x_key" not in first.headers
    assert (first.headers["authorization"], first.headers["x-key"], first.headers["x-guest"]) == (
        "of the application",
        "hunter2",
        "yes",
    )
    assert second.headers["authorization"] == "of the guest"
    assert not {"x-key", "authorization"} & set(second.headers.keys() - {"authorization"})
    assert not {"x-key", "authorization"} & set(other.requests[0].headers)


def test_added_headers_are_not_sent_any_more_once_a_redirect_led_away(names: Names) -> None:
    with Server({"/end": reply()}) as server:
        here, there = f"http://plugin.test:{server.port}", f"http://other.test:{server.port}"
        server.routes |= {
            "/": redirect("/kept"),
            "/kept": redirect(there + "/away"),
            "/away": redirect(here + "/end"),
        }
        rules = policy("*.test", "127.0.0.1").replace(
            added_headers={here: {"X-Key": "secret"}, there: {"X-Other": "secret"}}
        )
        get(here + "/", rules)
    assert [set(request.headers) & {"x-key", "x-other"} for request in server.requests] == [
        {"x-key"},
        {"x-key"},
        set(),
        set(),
    ]


def test_the_names_that_a_guest_may_set_are_for_the_application_to_say() -> None:
    with Server(reply()) as server:
        only = policy().replace(allowed_headers=["X-Guest", "accept"])
        get(server.url, only, {"x-guest": "1", "Accept": "2"})
        none = policy().replace(denied_headers=["x-DEBUG", "X_Trace"])
        get(server.url, none, {"X-Guest": "1"})
        for rules, name in (
            (only, "X-Other"),
            (only, "User-Agent"),
            (none, "X-Debug"),
            (none, "X_Debug"),
            (none, "x-trace"),
            (policy().replace(allowed_headers=[]), "A"),
        ):
            with pytest.raises(EgressError, match=f"headers: '{name}' is not the guest's to set"):
                get(server.url, rules, {name: "1"})
        with pytest.raises(EgressError, match="Host is not the guest's to set"):
            get(server.url, policy().replace(allowed_headers=["host"]), {"Host": "evil.test"})
    assert len(server.requests) == 2


def test_hidden_headers_are_not_shown() -> None:
    with Server(
        reply(b"", headers=[("Set-Cookie", "a=b"), ("SET-COOKIE", "c=d"), ("X-Kept", "yes")])
    ) as server:
        headers = get(server.url, policy().replace(hidden_headers=["Set-Cookie"])).headers
    assert "set-cookie" not in headers
    assert headers["x-kept"] == "yes"


# ---- Private addresses


@pytest.mark.parametrize(
    ("network", "yes", "no"),
    [
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["192.168.0.1", "127.0.0.1"]),
        ("10.0.0.7", ["10.0.0.7"], ["10.0.0.6", "10.0.0.8"]),
        ("127.0.0.0/8", ["127.0.0.1"], ["::1", "0.0.0.0", "::ffff:127.0.0.1"]),
        (
            "0.0.0.0/0",
            ["127.0.0.1", "10.0.0.1"],
            [
                "169.254.169.254",
                "169.254.0.1",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "::1",
            ],
        ),
        ("169.254.0.0/16", [], ["169.254.169.254", "169.254.170.2"]),
        ("169.254.169.254", ["169.254.169.254"], ["169.254.169.253"]),
        ("169.254.169.254/32", ["169.254.169.254"], ["169.254.169.255"]),
        ("fd00::/8", ["fd00::1", "fdff::"], ["fd00:ec2::254", "fc00::1", "fe80::1"]),
        (
            "::/0",
            ["::1", "fd00::1", "2002:808:808::", "64:ff9b::808:808", "::ffff:8.8.8.8"],
            ["fd00:ec2::254", "fd20:ce::254", "fe80::1"],
        ),
        (
            "::/0",
            [],
            [
                "2002:7f00:1::",
                "64:ff9b::a00:1",
                "::ffff:10.0.0.1",
                "64:ff9b::a9fe:a9fe",
                "2001::1",
                "64:ff9b:1::808:808",
            ],
        ),
        ("fd00:ec2::254", ["fd00:ec2::254"], ["fd00:ec2::253"]),
        (
            "64:ff9b::/96",
            ["64:ff9b::808:808"],
            ["64:ff9b::7f00:1", "64:ff9b:1::808:808", "::ffff:8.8.8.8"],
        ),
        ("2002::/16", ["2002:808:808::"], ["2002:a00:1::"]),
        ("64:ff9b::7f00:1", ["64:ff9b::7f00:1"], ["64:ff9b::7f00:2"]),
    ],
)
def test_a_network_grants_the_addresses_in_it_but_for_those_of_metadata_services(
    network: str, yes: list[str], no: list[str]
) -> None:
    rules = policy("*", private_addresses=[network]).for_manifest(["plugin.test", "*"])
    for address in yes:
        assert len(rules.vet("plugin.test", [address])) == 1
        rules.judge(in_url(address))
    for address in no:
        with pytest.raises(EgressDeniedError, match="refused: its address"):
            rules.vet("plugin.test", [address])


def test_an_inner_address_is_granted_by_a_network_around_it() -> None:
    rules = policy("*", private_addresses=["64:ff9b::/96", "10.0.0.0/8"])
    assert rules.vet("plugin.test", ["64:ff9b::a00:1"])
    with pytest.raises(EgressDeniedError):
        rules.vet("plugin.test", ["64:ff9b::c0a8:1"])


def test_a_zone_is_never_granted() -> None:
    with pytest.raises(EgressDeniedError):
        policy("*", private_addresses=["fe80::1"]).vet("plugin.test", ["fe80::1%eth0"])


def test_a_network_does_not_grant_hosts() -> None:
    with pytest.raises(EgressDeniedError, match="is not granted"):
        policy("plugin.test", private_addresses=["10.0.0.0/8"]).judge("http://10.0.0.7/")


# ---- One canonical parse


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://Example.COM", "http://example.com/"),
        ("HTTP://example.com:80/a", "http://example.com/a"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("http://example.com:0080/", "http://example.com/"),
        ("http://example.com:/", "http://example.com/"),
        ("https://example.com:80/a", "https://example.com:80/a"),
        ("http://example.com./a#frag", "http://example.com/a"),
        ("http://example.com?q=1#frag", "http://example.com/?q=1"),
        ("http://example.com#@evil.test", "http://example.com/"),
        ("http://example.com?@evil.test", "http://example.com/?@evil.test"),
        ("http://example.com/a/../../b", "http://example.com/b"),
        ("http://example.com//evil.test/", "http://example.com//evil.test/"),
        ("http://example.com/é?ü", "http://example.com/%C3%A9?%C3%BC"),
        ("http://[2606:4700:0:0::1111]:8080/", "http://[2606:4700::1111]:8080/"),
        ("http://8.8.8.8/", "http://8.8.8.8/"),
    ],
)
def test_a_url_has_one_canonical_form(url: str, sent: str) -> None:
    target = policy("*").judge(url)
    assert target.url == sent
    assert policy("*").judge(target.url).url == sent


NASTY = [
    "",
    "example.com",
    "//example.com/",
    "/path",
    "http:example.com",
    "http:/example.com",
    "http:///example.com",
    "http://",
    "http://.",
    "http://?",
    "http://#",
    "http://:80/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "ws://example.com/",
    "http+unix://%2Ftmp%2Fsock/",
    " http://example.com/",
    "http://example.com /",
    "http://exam\tple.com/",
    "http://example.com/\r\nHost: evil.test",
    "http://example.com/\x00",
    "http://example.com/\x7f",
    "http://example.com/\x85",
    "http://example.com/\u2028",
    "http://example.com/\ud800",
    "http://exam\u200bple.com/",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://@example.com/",
    "http://example.com@evil.test/",
    "http://example.com:80@evil.test/",
    "http://evil.test\\@example.com/",
    "http:\\\\example.com\\",
    "http://example.com\\.evil.test/",
    "http://example.com%2eevil.test/",
    "http://%65xample.com/",
    "http://example.com%00.evil.test/",
    "http://exa%mple.com/",
    "http://example..com/",
    "http://.example.com/",
    "http://example.com../",
    "http://exa$mple.com/",
    "http://exa,mple.com/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:-1/",
    "http://example.com:8o/",
    "http://example.com:80:80/",
    "http://example.com:٨٠/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://127.0.0.0x1/",
    "http://1.2.3.4.5/",
    "http://256.1.1.1/",
    "http://example.1/",
    "http://0/",
    "http://0x/",
    "http://1.2.3.4567/",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://①.example.com/",
    "http://[::1/",
    "http://::1/",
    "http://[::1]x/",
    "http://[::1%25eth0]/",
    "http://[2606:4700::1111%eth0]/",
    "http://[1.2.3.4]/",
    "http://[v1.x]/",
    "http://[:::]/",
    "http://[]/",
    "http://[example.com]/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 127 + "com/",
    "http://" + "é" * 60_000 + "/",
    "http://example.com/" + "a" * (64 << 10),
]


@pytest.mark.parametrize("url", NASTY)
def test_a_url_that_can_be_read_in_two_ways_is_refused_even_where_every_host_is_granted(
    url: str,
) -> None:
    with pytest.raises(EgressDeniedError, match="the URL is refused"):
        policy("*", "127.0.0.1", "localhost").judge(url)


pieces = st.sampled_from(
    [
        *"@:/\\?#[]%.-_0178axX\t \r\n",
        "http",
        "https",
        "://",
        "example.com",
        "127.0.0.1",
        "::1",
        "%2e",
        "é",
        "。",
    ]
)
urls = st.one_of(
    st.text(),
    st.lists(pieces, max_size=12).map("".join),
    st.lists(pieces, max_size=10).map(lambda parts: "http://" + "".join(parts)),
    st.builds(
        "{}://{}:{}{}".format,
        st.sampled_from(["http", "HTTPS"]),
        st.from_regex(r"[a-z0-9.-]{1,20}"),
        st.integers(0, 70000),
        st.text(),
    ),
)


@given(urls)
@example("http://a.b:80/c")
@example("http://[::FFFF]:8/")
def test_a_second_parser_sees_the_same_host_and_port_or_the_url_is_refused(url: str) -> None:
    rules = policy("*", "127.0.0.1", "::1")
    try:
        target = rules.judge(url)
    except EgressDeniedError:
        return
    other = urlsplit(url)
    assert other.scheme == target.scheme
    assert (other.port or {"http": 80, "https": 443}[other.scheme]) == target.port
    if ":" in target.host:
        from ipaddress import IPv6Address

        assert IPv6Address(other.hostname or "") == IPv6Address(target.host)
    elif url.isascii():
        assert (other.hostname or "").removesuffix(".") == target.host
    sent = urlsplit(target.url)
    assert (sent.hostname, sent.username) == (target.host, None)
    assert target.path.isascii()
    assert target.path.isprintable()
    assert target.path.startswith("/")
    assert rules.judge(target.url).url == target.url


def test_a_host_that_is_too_long_is_refused_before_anything_is_made_of_it() -> None:
    with pytest.raises(EgressDeniedError, match="its host is longer than 1000 characters"):
        policy("*").judge("http://" + "é" * 1001 + "/")


def test_refusals_do_not_repeat_what_may_be_secret() -> None:
    with Server(raw(b"nonsense")) as server, pytest.raises(EgressError) as failed:
        get(server.url + "/path?token=hunter2", headers={"Authorization": "Bearer hunter3"})
    with pytest.raises(EgressDeniedError) as denied:
        get("http://user:hunter4@127.0.0.1/?token=hunter2")
    assert "/path" in str(failed.value)
    assert "hunter" not in str(failed.value) + str(denied.value)


# ---- Addresses

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


def in_url(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_needs_a_literal_grant(address: str) -> None:
    with pytest.raises(EgressDeniedError, match="refused: its address"):
        policy("*").judge(in_url(address))
    with pytest.raises(EgressDeniedError, match="refused: its address"):
        policy("*", "localhost", "plugin.test").vet("plugin.test", [address])
    assert policy(address).judge(in_url(address)).host
    assert len(policy("plugin.test", address).vet("plugin.test", [address])) == 1


@pytest.mark.parametrize("address", IS_PUBLIC)
def test_a_public_address_needs_none(address: str) -> None:
    assert policy("*").judge(in_url(address)).host == address
    assert policy("*").vet("plugin.test", [address]) == (address,)


def test_one_bad_address_among_good_ones_is_enough_to_refuse_the_name() -> None:
    with pytest.raises(EgressDeniedError, match=r"its address 10\.0\.0\.1 is private"):
        policy("*").vet("plugin.test", [PUBLIC, "10.0.0.1"])


def test_a_name_that_is_granted_literally_does_not_grant_private_addresses() -> None:
    with pytest.raises(EgressDeniedError, match="name the address itself"):
        policy("plugin.test").vet("plugin.test", ["10.0.0.1"])


def test_localhost_grants_loopback_and_only_to_itself() -> None:
    rules = policy("localhost", "*")
    assert rules.vet("localhost", ["127.0.0.1", "127.9.9.9", "::1"]) == (
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
            rules.vet(host, [address])
    for pattern in ("*", "local*", "localhos?"):
        with pytest.raises(EgressDeniedError):
            policy(pattern).vet("localhost", ["127.0.0.1"])


@pytest.mark.parametrize("text", ["", "junk", "fe80::1%eth0", "2606:4700::1111%eth0", "127.1"])
def test_what_a_resolver_says_must_be_an_address(text: str) -> None:
    with pytest.raises(EgressDeniedError):
        policy("*").vet("plugin.test", [text])


@given(st.ip_addresses())
def test_any_address_that_is_private_or_loopback_is_refused_under_a_wildcard(
    address: object,
) -> None:
    why = addresses.why_not_public(address)  # type: ignore[arg-type]
    if address.is_private or address.is_loopback or address.is_multicast or not address.is_global:  # type: ignore[attr-defined]
        assert why is not None


def test_a_refused_target_is_never_connected_to(names: Names) -> None:
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


def test_the_name_is_resolved_once_and_the_vetted_address_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [["127.0.0.1"], ["10.255.255.1"]]
    monkeypatch.setattr(wire, "look_up", lambda host, port: answers.pop(0))
    with Server(reply(b"pinned")) as server:
        assert (
            get(f"http://Plugin.test.:{server.port}/", policy("plugin.test", "127.0.0.1")).body
            == b"pinned"
        )
    assert len(answers) == 1
    assert server.requests[0].headers["host"] == f"plugin.test:{server.port}"


def test_the_next_vetted_address_is_tried_when_one_does_not_answer(names: Names) -> None:
    names.answers["plugin.test"] = ["127.0.0.2", "127.0.0.1"]
    with Server(reply(b"second")) as server:
        assert (
            get(
                f"http://plugin.test:{server.port}/",
                policy("plugin.test", "127.0.0.1", "127.0.0.2"),
            ).body
            == b"second"
        )


def test_an_address_that_refuses_connections_is_an_error_that_says_so(names: Names) -> None:
    with Server(reply()) as server:
        pass
    with pytest.raises(
        EgressError, match=rf"GET http://127\.0\.0\.1:{server.port}/x failed: Connection refused"
    ):
        get(server.url + "/x?y")


def test_a_name_that_does_not_resolve_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    def find_nothing(host: str, port: int) -> list[str]:
        return []

    for seam in (fail, find_nothing):
        monkeypatch.setattr(wire, "look_up", seam)
        with pytest.raises(EgressError, match="does not resolve"):
            get("http://plugin.test/", policy("*"))


def test_the_system_resolver_knows_localhost() -> None:
    with Server(reply(b"home")) as server:
        assert get(f"http://localhost:{server.port}/", policy("localhost")).body == b"home"


def test_ipv6_goes_out_with_brackets_in_the_host_header() -> None:
    try:
        server = Server(reply(b"six"), host="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with server:
        assert get(server.url, policy("::1")).body == b"six"
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


def test_proxy_variables_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(reply(b"proxy")) as proxy, Server(reply(b"direct")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert get(server.url).body == b"direct"
    assert proxy.connections == 0


# ---- What a guest may say


def test_the_request_is_exactly_what_was_asked_for() -> None:
    with Server(reply()) as server:
        headers = {"X-Guest": "  é ✓\t", "Content-Type": "text/x"}
        client.send_request(
            policy(), "post", server.url + "/a?b#c", headers, b"\x00body", no_deadline
        )
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
def test_every_ordinary_method_is_sent_with_and_without_a_body(
    method: str, body: bytes | None
) -> None:
    with Server(reply(b"answer")) as server:
        response = client.send_request(policy(), method, server.url, {}, body, no_deadline)
    assert (server.requests[0].method, server.requests[0].body) == (method, body or b"")
    assert response.body == (b"" if method == "HEAD" else b"answer")


@pytest.mark.parametrize(
    "method",
    ["", "CONNECT", "TRACE", "BREW", "GET ", "GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "ſ", "G\x00ET"],
)
def test_other_methods_are_refused(method: str) -> None:
    with Server(reply()) as server, pytest.raises(EgressError, match="method: expected one of"):
        client.send_request(policy(), method, server.url, {}, None, no_deadline)
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
def test_headers_that_are_not_the_guests_to_set_are_refused(headers: dict[str, str]) -> None:
    with Server(reply()) as server, pytest.raises(EgressError, match="headers: "):
        client.send_request(policy(), "GET", server.url, headers, None, no_deadline)
    assert server.connections == 0


def test_as_many_headers_as_are_allowed_are_sent() -> None:
    with Server(reply()) as server:
        get(server.url, headers={f"X-{index}": "v" * 600 for index in range(100)})
    assert sum(name.startswith("x-") for name in server.requests[0].headers) == 100


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_headers_that_pass_cannot_make_another_line(headers: dict[str, str]) -> None:
    try:
        checked = Egress().judge_headers(headers)
    except EgressError:
        return
    for name, value in checked.items():
        assert name.isascii()
        assert not set(name) & set(" :\r\n\t")
        assert not any(byte < 32 and byte != 9 for byte in value.encode())


def test_a_request_body_may_be_as_large_as_the_limit_and_no_larger() -> None:
    rules = policy(max_request_bytes=1000)
    with Server(reply()) as server:
        client.send_request(rules, "POST", server.url, {}, bytes(1000), no_deadline)
        with pytest.raises(EgressError, match="1001 bytes, more than the 1000 allowed"):
            client.send_request(rules, "POST", server.url, {}, bytes(1001), no_deadline)
    assert len(server.requests) == 1


def test_a_large_body_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000
    with Server(reply()) as server:
        client.send_request(policy(), "PUT", server.url, {}, body, no_deadline)
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
def test_a_redirect_is_followed_with_the_method_its_status_asks_for(
    status: int, method: str, then: str
) -> None:
    with Server({"/": redirect("/there", status=status), "/there": reply(b"found")}) as server:
        headers = {"Content-Type": "text/x", "Authorization": "secret"}
        response = client.send_request(policy(), method, server.url, headers, b"body", no_deadline)
    _, second = server.requests
    assert response.status == 200
    assert (second.target, second.method, second.body) == (
        "/there",
        then,
        b"body" if then == method else b"",
    )
    assert ("content-type" in second.headers) is (then == method)
    assert second.headers["authorization"] == "secret"


def test_credentials_stay_with_their_origin(names: Names) -> None:
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
def test_a_redirect_to_what_is_not_granted_is_denied(location: str) -> None:
    with (
        Server({"/": redirect("/next"), "/next": redirect(location)}) as server,
        pytest.raises(EgressDeniedError, match="redirects to"),
    ):
        get(server.url)
    assert [request.target for request in server.requests] == ["/", "/next"]


def test_the_name_of_a_redirect_is_resolved_and_vetted_too(names: Names) -> None:
    names.answers["other.test"] = ["169.254.169.254"]
    with (
        Server(redirect("http://other.test/latest/meta-data")) as server,
        pytest.raises(EgressDeniedError, match="link-local"),
    ):
        get(server.url, policy("127.0.0.1", "*.test"))


def test_ten_redirects_are_followed_and_the_eleventh_is_not() -> None:
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


def test_where_no_redirects_are_followed_a_redirect_is_given_as_it_is() -> None:
    with Server(redirect("http://evil.test/")) as server:
        response = get(server.url, policy(max_redirects=0))
    assert (response.status, response.headers["location"], response.body) == (
        302,
        "http://evil.test/",
        b"moved",
    )
    assert len(server.requests) == 1


def test_a_location_in_utf8_is_read_as_such() -> None:
    with Server({"/": redirect("/caf\u00c3\u00a9"), "/caf%C3%A9": reply(b"coffee")}) as server:
        assert get(server.url).body == b"coffee"


@pytest.mark.parametrize("status", [300, 304, 404, 500])
def test_other_statuses_are_answers(status: int) -> None:
    with Server(reply(status=status)) as server:
        assert get(server.url).status == status


# ---- Answers


def test_response_headers_have_lower_case_names_and_repeated_ones_are_joined() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-One: a\r\nx-one: b\r\nX-Folded: a\r\n  b\r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n"
    with Server(raw(head)) as server:
        headers = get(server.url).headers
    assert headers == {"x-one": "a, b", "x-folded": "a b", "x-latin": "é", "content-length": "0"}


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    with Server(raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")) as server:
        assert get(server.url).body == b"until the end"


def test_a_chunked_body_is_put_together() -> None:
    with Server(chunked([b"one", b"two" * 50_000, b"3"])) as server:
        assert get(server.url).body == b"one" + b"two" * 50_000 + b"3"


def test_interim_100_answers_are_skipped() -> None:
    with Server(
        raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    ) as server:
        assert get(server.url).body == b"ok"


@pytest.mark.parametrize(
    "encoding", ["gzip", "x-gzip", "deflate", "GZIP", "raw deflate", "gzip, gzip"]
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_gzip_and_deflate_are_decoded_and_the_headers_say_so(
    encoding: str, is_chunked: bool
) -> None:
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


def test_an_encoding_that_cannot_be_bounded_is_left_to_the_guest() -> None:
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
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(
    served: Callable[[bytes], Route], size: int
) -> None:
    with Server(served(bytes(size))) as server:
        if size == LIMIT:
            assert len(get(server.url, policy(max_response_bytes=LIMIT)).body) == LIMIT
        else:
            with pytest.raises(EgressError, match="larger than the 100000 bytes allowed"):
                get(server.url, policy(max_response_bytes=LIMIT))


def test_a_length_over_the_limit_is_refused_before_the_body_is_read() -> None:
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


def test_a_chunk_of_a_negative_size_is_not_read_until_the_end() -> None:
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
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


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
def test_streams_that_never_come_to_the_point_end_without_a_deadline(served: Route) -> None:
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
def test_an_answer_that_is_broken_is_an_error_of_ours(served: Route) -> None:
    with (
        Server(served) as server,
        pytest.raises(EgressError, match=r"GET http://127\.0\.0\.1:\d+/ failed: ") as caught,
    ):
        get(server.url)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


def test_more_than_the_claimed_length_is_not_read() -> None:
    with Server(claim_length(3, b"abcdef")) as server:
        assert get(server.url).body == b"abc"


def test_an_answer_that_comes_before_the_request_was_read_is_still_read() -> None:
    def impatient(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.pause(30)

    with Server(on_connect=impatient) as server:
        response = client.send_request(
            policy(), "POST", server.url, {}, bytes(20 << 20), deadline(5)
        )
    assert (response.status, response.body) == (413, b"big")


@given(
    data=st.binary(max_size=200),
    head=st.sampled_from(
        [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED_HEAD, CHUNKED_HEAD + b"\r\n", GZIP_HEAD]
    ),
)
def test_any_bytes_from_a_server_are_an_answer_or_an_error_of_ours(
    data: bytes, head: bytes
) -> None:
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


# ---- Time


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
            client.send_request(policy(), "GET", server.url, {}, None, deadline(0.3))
        took = time.monotonic() - started
    if served is not HANGS["interim answers"]:
        assert isinstance(caught.value, TimeoutError)
        assert took >= 0.29
    assert took < 3


def test_the_deadline_ends_the_sending_of_a_body_that_nobody_reads() -> None:
    with Server(on_connect=deaf) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            client.send_request(policy(), "POST", server.url, {}, bytes(40 << 20), deadline(0.3))
        assert time.monotonic() - started < 3


def test_the_deadline_ends_a_tls_handshake_that_nobody_answers(
    authority: ssl.SSLContext, names: Names
) -> None:
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(on_connect=deaf) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            client.send_request(
                rules, "GET", f"https://plugin.test:{server.port}/", {}, None, deadline(0.3)
            )
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
            client.send_request(
                policy(), "GET", f"http://127.0.0.1:{port}/", {}, None, deadline(0.3)
            )
        assert 0.25 < time.monotonic() - started < 3


def test_an_address_that_hangs_leaves_time_for_the_next_one(names: Names) -> None:
    names.answers["plugin.test"] = ["127.0.0.2", "127.0.0.1"]
    rules = policy("plugin.test", "127.0.0.1", "127.0.0.2")
    with Server(reply(b"second")) as server, black_hole("127.0.0.2", server.port):
        response = client.send_request(
            rules, "GET", f"http://plugin.test:{server.port}/", {}, None, deadline(1.0)
        )
    assert response.body == b"second"


def test_the_deadline_ends_a_lookup_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        release.wait(30)
        return []

    monkeypatch.setattr(wire, "look_up", hang)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        client.send_request(policy("*"), "GET", "http://plugin.test/", {}, None, deadline(0.3))
    assert time.monotonic() - started < 3
    release.set()


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    with Server(reply()) as server, pytest.raises(TimeoutError):
        client.send_request(policy(), "GET", server.url, {}, None, deadline(-1))
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
            client.send_request(policy(), "GET", server.url, {}, None, remaining)
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
            client.send_request(policy("*"), "GET", "http://plugin.test/", {}, None, deadline(0.1))
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


# ---- TLS


@pytest.fixture
def authority() -> ssl.SSLContext:
    """Trusts the test authority only, which vouches for plugin.test. Made with openssl; valid for a hundred years."""
    return ssl.create_default_context(cafile=str(DATA / "tls-ca.pem"))


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "tls-server.pem")
    return context


def test_https_checks_the_certificate_against_the_name_and_connects_to_the_vetted_address(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
    asked_for: list[str | None] = []
    server_tls.sni_callback = lambda sock, name, context: asked_for.append(name)
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    body = bytes(range(256)) * 2000
    with Server(
        lambda request, connection: reply(request.body)(request, connection), tls=server_tls
    ) as server:
        response = client.send_request(
            rules, "POST", f"https://Plugin.TEST:{server.port}/", {}, body, no_deadline
        )
    assert response.body == body
    assert server.requests[0].headers["host"] == f"plugin.test:{server.port}"
    assert asked_for == ["plugin.test"]


@pytest.mark.parametrize("host", ["other.test", "127.0.0.1", "localhost"])
def test_a_certificate_for_another_name_is_refused(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, host: str
) -> None:
    rules = Egress(allowed_hosts=[host, "127.0.0.1"], ssl_context=authority)
    with (
        Server(reply(), tls=server_tls) as server,
        pytest.raises(EgressError, match="certificate is not accepted"),
    ):
        get(f"https://{host}:{server.port}/", rules)
    assert server.requests == []


def test_a_certificate_that_no_authority_of_the_system_vouches_for_is_refused(
    server_tls: ssl.SSLContext, names: Names
) -> None:
    with (
        Server(reply(), tls=server_tls) as server,
        pytest.raises(EgressError, match="certificate is not accepted"),
    ):
        get(f"https://plugin.test:{server.port}/", policy("plugin.test", "127.0.0.1"))
    assert server.requests == []


def test_a_server_that_does_not_speak_tls_is_an_error(
    authority: ssl.SSLContext, names: Names
) -> None:
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    plain = Server(on_connect=lambda connection: connection.send(b"HTTP/1.1 200 OK\r\n\r\n"))
    with plain as server, pytest.raises(EgressError, match="TLS failed"):
        get(f"https://plugin.test:{server.port}/", rules)


def test_a_redirect_from_https_to_http_is_refused(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with (
        Server(reply()) as plain,
        Server(redirect(f"http://plugin.test:{plain.port}/"), tls=server_tls) as server,
    ):
        with pytest.raises(EgressDeniedError, match="from https to http"):
            get(f"https://plugin.test:{server.port}/", rules)
        assert plain.connections == 0
        plain.routes["*"] = redirect(f"https://plugin.test:{server.port}/end")
        server.routes["/end"] = reply(b"safer")
        assert get(f"http://plugin.test:{plain.port}/", rules).body == b"safer"


@pytest.mark.parametrize("every", [0.05])
def test_the_deadline_holds_for_a_drip_over_tls(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, every: float
) -> None:
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(drip(b"HTTP/1.1 200 OK\r\n" * 10, every=every), tls=server_tls) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            client.send_request(
                rules, "GET", f"https://plugin.test:{server.port}/", {}, None, deadline(0.3)
            )
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("seconds", [None, 0.3])
def test_a_server_that_sends_tickets_without_end_is_given_up(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names, seconds: float | None
) -> None:
    server_tls.num_tickets = 30_000  # about 7 MB
    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    remaining = no_deadline if seconds is None else deadline(seconds)
    with (
        Server(silence, tls=server_tls) as server,
        pytest.raises(EgressError if seconds is None else (EgressError, TimeoutError)) as caught,
    ):
        client.send_request(
            rules, "GET", f"https://plugin.test:{server.port}/", {}, None, remaining
        )
    if seconds is None:
        assert "bytes of TLS without any content" in str(caught.value)


def test_an_answer_over_tls_that_comes_before_the_request_was_read_is_still_read(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext, names: Names
) -> None:
    def impatient(connection: Connection) -> None:
        sock = server_tls.wrap_socket(connection.sock, server_side=True)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        sock.shutdown(socket.SHUT_WR)
        connection.pause(0.5)
        sock.close()

    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(on_connect=impatient) as server:
        response = client.send_request(
            rules, "POST", f"https://plugin.test:{server.port}/", {}, bytes(20 << 20), deadline(20)
        )
    assert (response.status, response.body) == (413, b"big")


def test_the_end_of_a_request_over_tls_is_sent_while_the_answer_is_waited_for(
    authority: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    size = 1 << 18
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that a portion does not fit
    near.setblocking(False)
    may_read = threading.Event()

    def serve() -> None:
        far.settimeout(20)
        with server_tls.wrap_socket(far, server_side=True) as sock:
            may_read.wait(20)
            left = size
            while left:
                left -= len(sock.recv(min(left, 1 << 16)))
            sock.sendall(b"whole")

    thread = threading.Thread(target=serve)
    thread.start()
    connection = wire.Connection(near, wire.CallClock(deadline(20)))
    connection.start_tls(authority, "plugin.test")
    timer = threading.Timer(0.1, may_read.set)
    timer.start()
    connection.sendall(bytes(size))
    answer = bytearray(5)
    assert connection.readinto(answer) == 5
    assert answer == b"whole"
    connection.hang_up()
    for each in (thread, timer):
        each.join()


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 3 << 20])
@pytest.mark.parametrize("closes_properly", [True, False])
def test_a_body_without_a_length_over_tls_ends_with_the_connection(
    authority: ssl.SSLContext,
    server_tls: ssl.SSLContext,
    names: Names,
    size: int,
    closes_properly: bool,
) -> None:
    def route(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size))
        if closes_properly:
            connection.sock.unwrap()  # type: ignore[attr-defined]

    rules = Egress(allowed_hosts=["plugin.test", "127.0.0.1"], ssl_context=authority)
    with Server(route, tls=server_tls) as server:
        assert len(get(f"https://plugin.test:{server.port}/", rules).body) == size
