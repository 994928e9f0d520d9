"""URLs have one canonical form or are refused."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugwasm.errors import (
    EgressDeniedError,
    EgressError,
)
from tests.support.egress import get, policy
from tests.support.http_server import (
    Server,
    raw,
)


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
    target = policy("*")._policy.check_url(url)
    assert target.url == sent
    assert policy("*")._policy.check_url(target.url).url == sent


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
def test_ambiguous_url_is_refused(url: str) -> None:
    """A URL that parsers could read in two ways is refused even if every host is allowed."""
    with pytest.raises(EgressDeniedError, match="the URL is refused"):
        policy("*", "127.0.0.1", "localhost")._policy.check_url(url)


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
def test_second_parser_agrees(url: str) -> None:
    """A second parser finds the same host and port, or the URL is refused."""
    rules = policy("*", "127.0.0.1", "::1")
    try:
        target = rules._policy.check_url(url)
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
    assert rules._policy.check_url(target.url).url == target.url


def test_host_too_long_is_refused() -> None:
    """A host that is too long is refused before it is processed."""
    with pytest.raises(EgressDeniedError, match="its host is longer than 1000 characters"):
        policy("*")._policy.check_url("http://" + "é" * 1001 + "/")


def test_refusals_hide_secrets() -> None:
    """Error messages do not repeat parts of a URL that may be secret."""
    with Server(raw(b"nonsense")) as server, pytest.raises(EgressError) as failed:
        get(server.url + "/path?token=hunter2", headers={"Authorization": "Bearer hunter3"})
    with pytest.raises(EgressDeniedError) as denied:
        get("http://user:hunter4@127.0.0.1/?token=hunter2")
    assert "/path" in str(failed.value)
    assert "hunter" not in str(failed.value) + str(denied.value)
