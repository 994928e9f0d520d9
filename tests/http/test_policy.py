"""What a policy allows: hosts, schemes, ports, methods, headers, private addresses; of the
application and of the manifest."""

from __future__ import annotations

import importlib
import pickle
import ssl

import pytest

from plugwasm._http.egress import Egress
from plugwasm._http.policy import RequestPolicy
from plugwasm.errors import (
    EgressDeniedError,
    EgressError,
    ManifestError,
    OptionError,
)
from tests.support.egress import Names, get, in_url, no_deadline, policy, send
from tests.support.http_server import (
    Server,
    redirect,
    reply,
)
from tests.support.paths import DATA

# ---- What is granted


def test_nothing_is_granted_by_default() -> None:
    with pytest.raises(EgressDeniedError, match="HTTP is off"):
        Egress()._policy.check_url("http://example.com/")


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
def test_entry_grants_matching_hosts(entry: str, host: str) -> None:
    """An entry allows the hosts that it matches."""
    policy(entry)._policy.check_url(f"http://{host}/")


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
        policy(entry)._policy.check_url(f"http://{host}/")


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
def test_entry_not_a_host_is_error(entry: str) -> None:
    """An entry that cannot be a host is an error."""
    with pytest.raises(OptionError, match="allowed_hosts"):
        policy(entry)


def test_reason_of_an_error() -> None:
    """The reason of an `OptionError` does not repeat the name of the option."""
    with pytest.raises(OptionError) as caught:
        Egress(allowed_hosts=["host:8080"])
    assert caught.value.message == f"allowed_hosts: {caught.value.reason}"
    with pytest.raises(OptionError) as caught:
        Egress(allowed_hosts=[f"{number}.*" for number in range(1001)])
    assert caught.value.reason == "expected at most 1000 patterns, got 1001"


def test_single_string_is_refused() -> None:
    """A single string is not a list of hosts."""
    with pytest.raises(OptionError, match="got one string"):
        Egress(allowed_hosts="*")


@pytest.mark.parametrize("limit", ["max_response_bytes", "max_request_bytes", "max_redirects"])
def test_a_limit_below_zero_is_refused(limit: str) -> None:
    with pytest.raises(OptionError, match=limit):
        policy(**{limit: -1})


def test_unicode_names() -> None:
    """Unicode names are matched in their ASCII form or refused with the reason."""
    try:
        importlib.import_module("idna")
    except ImportError:
        with pytest.raises(OptionError, match="xn--"):
            policy("bücher.de")
        with pytest.raises(EgressDeniedError, match="xn--"):
            policy("*")._policy.check_url("http://bücher.de/")
    else:
        assert policy("bücher.de")._policy.check_url("http://BÜCHER.de/").host == "xn--bcher-kva.de"
        assert (
            policy("*.bücher.de")._policy.check_url("http://a.xn--bcher-kva.de/").host
            == "a.xn--bcher-kva.de"
        )


def test_policy_is_frozen_and_pickles() -> None:
    """A policy is immutable and can be pickled."""
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
    assert again._policy.check_url("http://a.example.com/").host == "a.example.com"


def test_repr_hides_secrets() -> None:
    """`repr` shows the settings and no secrets."""
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
    assert "hunter2" not in repr(rules) + repr(rules._policy.for_manifest(["a.test"]))
    assert "a.test" in repr(rules._policy.for_manifest(["a.test"]))


def test_replace_keeps_other_settings() -> None:
    """`replace` returns a policy with the other settings unchanged."""
    rules = policy("*.test", ports=[80, range(8000, 8080)], private_addresses=["10.0.0.0/8"])
    other = rules.replace(ports=None)
    assert (rules.ports, other.ports, other.allowed_hosts) == (
        (80, range(8000, 8080)),
        None,
        ("*.test",),
    )
    assert other._policy.check_addresses("a.test", ["10.0.0.1"]) == ("10.0.0.1",)
    with pytest.raises(EgressDeniedError):
        other._policy.for_manifest(["a.test"]).check_url("http://b.test:99/")


def test_ssl_context_is_not_lost_by_pickle() -> None:
    """Pickling a policy with its own SSL context is refused rather than losing the context."""
    with pytest.raises(TypeError, match="SSLContext"):
        pickle.dumps(Egress(allowed_hosts=["*"], ssl_context=ssl.create_default_context()))


# ---- The application's say and the manifest's


def granted(rules: RequestPolicy, host: str) -> bool:
    try:
        rules.check_url(f"http://{host}/")
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
def test_application_and_manifest_both_grant(
    application: list[str] | None, manifest: list[str], hosts: set[str]
) -> None:
    """A host is reached if both the application and the manifest allow it."""
    rules = Egress(allowed_hosts=application)._policy.for_manifest(manifest)
    assert {
        host for host in ("a.test", "b.test", "c.example", "127.0.0.1") if granted(rules, host)
    } == hosts


def test_message_names_the_list() -> None:
    """The message says which list lacks the host."""
    rules = policy("a.test")._policy.for_manifest(["b.test", "a.test"])
    with pytest.raises(
        EgressDeniedError, match="no entry of the application's allowed_hosts matches it"
    ):
        rules.check_url("http://b.test/")
    with pytest.raises(EgressDeniedError, match="no entry of allowed_hosts matches it"):
        policy("*")._policy.for_manifest(["b.test"]).check_url("http://a.test/")


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
def test_manifest_lowers_response_size(
    application: int | None, manifest: int | None, limit: int
) -> None:
    """The manifest can lower the maximum size of a response and not raise it."""
    assert (
        Egress(max_response_bytes=application)
        ._policy.for_manifest(["*"], manifest)
        .max_response_bytes
        == limit
    )


def test_manifest_invalid_entry_is_refused() -> None:
    """The error for an invalid entry in a manifest names it."""
    with pytest.raises(ManifestError, match="allowed_hosts: 'a:80' has a port"):
        Egress()._policy.for_manifest(["a:80"])


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
def test_scheme_and_port_not_allowed(
    settings: dict[str, object], yes: list[str], no: list[str]
) -> None:
    """A scheme or port that the application does not allow is denied."""
    rules = Egress(allowed_hosts=["*"], **settings)._policy.for_manifest(["*"])  # type: ignore[arg-type]
    for url in yes:
        rules.check_url(url)
    for url in no:
        with pytest.raises(EgressDeniedError, match="is refused: the application"):
            rules.check_url(url)


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
def test_invalid_setting_is_refused(settings: dict[str, object]) -> None:
    """The error for an invalid setting names it."""
    with pytest.raises(OptionError, match=f"^({'|'.join(settings)})"):
        Egress(**settings)  # type: ignore[arg-type]


def test_allowed_methods() -> None:
    """Only the methods that the application names are allowed."""
    rules = policy(methods=["GET", "PROPFIND"])
    with Server(reply()) as server:
        send(rules, "propfind", server.url, {}, None, no_deadline)
        with pytest.raises(EgressError, match="method: expected one of GET, PROPFIND"):
            send(rules, "POST", server.url, {}, None, no_deadline)
        with pytest.raises(EgressError, match="method: expected one of DELETE, GET"):
            send(policy(), "PROPFIND", server.url, {}, None, no_deadline)
    assert [request.method for request in server.requests] == ["PROPFIND"]


def test_redirect_to_get_not_allowed() -> None:
    """A redirect that turns a POST into a GET is refused if GET is not allowed."""
    rules = policy(methods=["POST"])
    with (
        Server({"/": redirect("/next", status=303)}) as server,
        pytest.raises(EgressError, match="method: expected one of POST"),
    ):
        send(rules, "POST", server.url, {}, b"body", no_deadline)
    assert len(server.requests) == 1


def test_redirect_to_port_not_allowed() -> None:
    """A redirect to a port or a scheme that is not allowed is denied."""
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


def test_added_headers_stay_with_origin(names: Names) -> None:
    """Headers added by the application are sent to their origin only and win over the guest's."""
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


def test_added_headers_dropped_on_redirect(names: Names) -> None:
    """Added headers are not sent any more after a redirect to another origin."""
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


def test_guest_header_names() -> None:
    """The application decides which header names a guest may set."""
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
            with pytest.raises(EgressError, match=f"headers: the guest may not set '{name}'"):
                get(server.url, rules, {name: "1"})
        with pytest.raises(EgressError, match="Host may not be set"):
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
def test_network_grants_its_addresses(network: str, yes: list[str], no: list[str]) -> None:
    """A network allows the addresses in it except those of metadata services."""
    rules = policy("*", private_addresses=[network])._policy.for_manifest(["plugin.test", "*"])
    for address in yes:
        assert len(rules.check_addresses("plugin.test", [address])) == 1
        rules.check_url(in_url(address))
    for address in no:
        with pytest.raises(EgressDeniedError, match="refused: its address"):
            rules.check_addresses("plugin.test", [address])


def test_network_grants_inner_address() -> None:
    """An IPv4 address inside an IPv6 address needs a network of its own."""
    rules = policy("*", private_addresses=["64:ff9b::/96", "10.0.0.0/8"])
    assert rules._policy.check_addresses("plugin.test", ["64:ff9b::a00:1"])
    with pytest.raises(EgressDeniedError):
        rules._policy.check_addresses("plugin.test", ["64:ff9b::c0a8:1"])


def test_a_zone_is_never_granted() -> None:
    with pytest.raises(EgressDeniedError):
        policy("*", private_addresses=["fe80::1"])._policy.check_addresses(
            "plugin.test", ["fe80::1%eth0"]
        )


def test_a_network_does_not_grant_hosts() -> None:
    with pytest.raises(EgressDeniedError, match="is not granted"):
        policy("plugin.test", private_addresses=["10.0.0.0/8"])._policy.check_url(
            "http://10.0.0.7/"
        )
