"""A URL that the egress policy grants has that host and port for every other parser.

All other URLs are an `EgressDeniedError`. The other parsers are `urllib.parse.urlsplit` and, where
`ada_url` is installed, that of browsers (WHATWG). Whether the host is granted is decided a second
time here, from the entries themselves. RFC 3986 (`urljoin`) says where a redirect leads: browsers
read `///host/` as another host and plugwasm as a path, which is safe, since the URL that was
checked is the one that is sent.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from plugwasm._http.client import check_redirect
from plugwasm._http.egress import Egress
from plugwasm.errors import EgressDeniedError

from .choices import Choices

if TYPE_CHECKING:
    from plugwasm._http.url import Target

try:
    from ada_url import URL as WHATWG
except ImportError:
    WHATWG = None

COVERED = ["plugwasm._http", "urllib3.util.url", "urllib.parse"]
SIZES = (0, 8)
GRANTS = (
    ("good.test", "*.good.test"),
    ("*",),
    ("127.0.0.1", "::1", "localhost", "10.0.0.7"),
    ("*good*", "8.8.8.8", "xn--bcher-kva.test"),
    ("goo?.test", "2001:4860::8888"),
)
_PORTS = {"http": 80, "https": 443}

_SCHEMES = (
    "http",
    "https",
    "HTTP",
    "hTTps",
    "ftp",
    "file",
    "javascript",
    "httpſ",
    "http\t",
    " http",
    "",
)
_SEPARATORS = ("://", ":/", ":", "//", ":\\\\", ":///", "://\\", ":\t//", ":////")
_USERS = (
    "",
    "",
    "",
    "good.test@",
    "good.test:80@",
    "good.test%40",
    "a:b@c@",
    "@",
    "good.test#@",
    "good.test?@",
    "good.test\\@",
    "good.test;@",
)
_HOSTS = (
    *(
        "good.test",
        "a.good.test",
        "GOOD.test.",
        "good.test..",
        "evil.test",
        "good.test.evil.test",
        "evilgood.test",
        "goop.test",
        "localhost",
    ),
    *(
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "127.0.0.01",
        "0",
        "0x0",
        "127.0.0.1.evil.test",
        "1.2.3",
    ),
    *(
        "10.0.0.7",
        "10.0.7",
        "167772167",
        "8.8.8.8",
        "8.8.8.8.",
        "134744072",
        "256.256.256.256",
        "1.2.3.4.5",
        "0x8.8.8.8",
        "８.8.8.8",
        "①.0.0.1",
    ),
    *(
        "[::1]",
        "[0:0::1]",
        "[::1%25lo]",
        "[::1%lo]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[2001:4860::8888]",
        "[2001:4860:0:0::8888]",
    ),
    *(
        "[::1",
        "::1",
        "[]",
        "[v1.x]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "[::1].good.test",
        "[good.test]",
    ),
    *(
        "xn--bcher-kva.test",
        "bücher.test",
        "BÜCHER.test",
        "bu\u0308cher.test",
        "ﬀ.test",
        "good。test",
        "good\u00adtest",
        "xn--.test",
        "xn--a.test",
    ),
    *(
        "169.254.169.254",
        "metadata.test",
        "good.test\0evil",
        "good.test%2eevil",
        "good%2etest",
        "%67ood.test",
        "good_test",
        "-good.test",
        "",
    ),
    *(
        "a" * 64 + ".test",
        ".".join(["a"] * 130),
        "*.good.test",
        "goo?.test",
        "good.test\x7f",
        "good.test\u2028",
        "good.test|",
        "good.test^",
        "{good}",
    ),
)
_PORT = (
    "",
    "",
    "",
    ":80",
    ":443",
    ":8080",
    ":0",
    ":00080",
    ":65535",
    ":65536",
    ":",
    ":-1",
    ":+80",
    ":8 0",
    ":８０",
    ":80:80",
    ":0x50",
    ":80@evil.test",
)
_TAILS = (
    "",
    "/",
    "/a/../b",
    "/%2e%2e/",
    "?q",
    "#f",
    "/@evil.test",
    "/\\evil.test",
    "\\@evil.test/",
    "/a b",
    "/ü",
    "/%zz",
    ";x",
    "/\r\nHost: x",
    "//",
)
_TAILS += ("?@evil.test/", "#@evil.test/", "/" + "a" * 70_000, '/{}|^`"<>', "/%00", "/\ud800")
_JOINS = (
    "/a",
    "//evil.test/",
    "///evil.test/",
    "\\\\evil.test",
    "/\\evil.test",
    "https:evil.test",
    "http:evil.test",
    "http:/evil.test",
    "?x",
    "#x",
    "..",
)
_JOINS += (
    "http:\\\\evil.test",
    "\t//evil.test",
    "h\nttp://good.test/",
    "http://go\tod.test/",
    "",
    ":80",
    "@evil.test",
    "//[::1]/",
    "//[",
    "javascript:1",
)
_WHOLE, _PARTS, _REDIRECT = range(3)
SEEDS = [
    *(
        bytes([_WHOLE, index % 5]) + f"http://{host}:80/a?b#c".encode(errors="surrogatepass")
        for index, host in enumerate(_HOSTS)
    ),
    *(
        bytes([_PARTS, grants, 0, 0, 0, host, host % 9])
        for grants in range(5)
        for host in range(0, len(_HOSTS), 7)
    ),
    *(bytes([_REDIRECT, grants, join]) for grants in range(5) for join in range(0, len(_JOINS), 3)),
]


_POLICIES = {grants: Egress()._policy.for_manifest(grants) for grants in GRANTS}


def check(data: bytes) -> None:
    grants, source, url = build(data)
    rules = _POLICIES[grants]
    try:
        target = (
            rules.check_url(url)
            if source is None
            else check_redirect(rules, rules.check_url(source), url)
        )
    except EgressDeniedError as error:
        assert len(str(error)) < 1000 or len(url) > 500
        return
    if source is not None:
        assert target.scheme == "https" or source.startswith("http:"), "a redirect out of https"
        url = urljoin(source, url)
    _agrees(urlsplit(url), target)
    if WHATWG is not None:
        _agrees_with_browsers(WHATWG(url), target)
    assert is_granted(target.host, grants), f"{target.host!r} is not among {grants}"
    # The URL that is sent is read the same again.
    sent = urlsplit(target.url)
    assert (sent.scheme, sent.hostname, sent.username, sent.password) == (
        target.scheme,
        target.host,
        None,
        None,
    )
    assert (sent.port or _PORTS[sent.scheme]) == target.port
    assert target.path.startswith("/")
    assert target.path.isascii()
    assert target.path.isprintable()
    assert " " not in target.path
    assert target.authority.isascii()
    assert rules.check_url(target.url).url == target.url


def _agrees(other: SplitResult, target: Target) -> None:
    assert other.scheme == target.scheme
    assert (other.port or _PORTS[other.scheme]) == target.port
    assert other.username is None, "a user name"
    host = (other.hostname or "").removesuffix(".")
    if ":" in target.host:
        assert IPv6Address(host) == IPv6Address(target.host)
    elif host.isascii():
        assert host == target.host


def _agrees_with_browsers(other: Any, target: Target) -> None:
    host = other.hostname.removesuffix(".")
    if host.startswith("["):
        assert IPv6Address(host[1:-1]) == IPv6Address(target.host), f"a browser reads {host}"
    else:
        assert host == target.host, f"a browser reads {host}, not {target.host}"
    port = int(other.port) if other.port else _PORTS[other.protocol.removesuffix(":")]
    assert (other.protocol, port) == (f"{target.scheme}:", target.port)
    assert (other.username, other.password) == ("", "")


def is_granted(host: str, grants: tuple[str, ...]) -> bool:
    """Decide a second time: a name by its entry or a pattern; a non-public address only by an entry
    that is exactly that address."""
    named = any(host == (str(ip_address(entry)) if ":" in entry else entry) for entry in grants)
    fits = any(
        re.fullmatch(re.escape(entry).replace(r"\*", ".*").replace(r"\?", "."), host)
        for entry in grants
    )
    try:
        address = ip_address(host)
    except ValueError:
        return named or fits
    return named or (fits and address.is_global and not address.is_multicast)


def describe(data: bytes) -> str:
    grants, source, url = build(data)
    step = "judge" if source is None else f"redirected from {source!r} to"
    return f"allowed_hosts={list(grants)}, {step} {url!r}"


def build(data: bytes) -> tuple[tuple[str, ...], str | None, str]:
    """Return the entries, for a redirect the URL that it comes from, and the URL."""
    choices = Choices(data)
    kind = choices.byte() % 3
    grants = GRANTS[choices.byte() % len(GRANTS)]
    if kind == _WHOLE:
        return grants, None, choices.rest().decode("utf-8", "surrogateescape")
    if kind == _PARTS:
        return grants, None, _url(choices)
    home = (
        next(entry for entry in grants if "*" not in entry and "?" not in entry)
        if grants != ("*",)
        else "good.test"
    )
    home = f"[{home}]" if ":" in home else home
    source = f"{choices.pick(('http', 'https'))}://{home}{choices.pick(('', ':8080'))}/a/b?c"
    join = (
        choices.pick(_JOINS)
        if choices.below(2)
        else _url(choices)
        if choices.below(2)
        else choices.rest().decode("utf-8", "surrogateescape")
    )
    return grants, source, _changed(choices, join)


def _url(choices: Choices) -> str:
    scheme = "http" if choices.below(4) else choices.pick(_SCHEMES)
    separator = "://" if choices.below(4) else choices.pick(_SEPARATORS)
    parts = (
        scheme,
        separator,
        choices.pick(_USERS),
        choices.pick(_HOSTS),
        choices.pick(_PORT),
        choices.pick(_TAILS),
    )
    return _changed(choices, "".join(parts))


def _changed(choices: Choices, text: str) -> str:
    for _ in range(choices.below(3)):
        at = choices.integer(2) % (len(text) + 1)
        text = (
            text[:at]
            + choices.pick("@:/\\?#%[].\t\n\r \0\x7f\u00ad。．／：＠é0xX-_*&=+,;")
            + text[at + choices.below(2) :]
        )
    return text
