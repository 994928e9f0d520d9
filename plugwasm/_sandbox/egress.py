"""What a plugin may reach by HTTP: the policy that judges where a request goes, by its URL and then by its addresses.

1. Nothing is reachable unless `allowed_hosts` grants its host.
2. A URL is parsed once. The canonical form that was judged is the form that is sent; what two parsers could read
   differently (userinfo, backslashes, odd spellings of an address, zones, escapes in the host) is refused.
3. A name is resolved once. Every address it has must be public, and the address that was vetted is the one connected to.
   An address that is not public is reachable only where `allowed_hosts` names it literally; "localhost" names loopback.

`exchange` sends what was judged here, and `wire` connects to what was vetted here; rules 4 to 6 stand there.
"""

from __future__ import annotations

from plugwasm.errors import EgressDeniedError, ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from typing import NoReturn

__all__ = ["EgressPolicy", "Target", "is_address"]

_MIB = 1 << 20
_PORTS = {"http": 80, "https": 443}
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_MAX_URL = 64 << 10

# Not public although `ipaddress` calls them global: IETF protocol assignments, 6to4 relays, Azure's metadata service;
# Teredo and other assignments, documentation, 6to4.
_NOT_PUBLIC = (
    ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"),
    ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16"),
)


class Target:
    """What a URL denotes, in the one form that is both judged and sent.

    Attributes:
        scheme: "http" or "https".
        host: Lower-case ASCII name without a trailing dot, or an address (IPv6 without brackets).
        port: 1 to 65535.
        path: Path and query as they go on the wire; the fragment is gone.
        literal: Whether `allowed_hosts` names this very host, rather than a pattern that it fits.
    """

    __slots__ = ("host", "literal", "path", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, path: str, literal: bool = False) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path
        self.literal = literal

    @property
    def authority(self) -> str:
        """The `Host` header: the port only if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def shown(self) -> str:
        """The URL for messages and logs: without the query, which may hold secrets."""
        return self.url.partition("?")[0]

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __repr__(self) -> str:
        return f"<Target {self.shown}>"


class EgressPolicy:
    """What a plugin may reach by HTTP. Immutable; can be pickled unless it holds an `ssl_context`.

    Args:
        allowed_hosts: Host names, addresses, or patterns over them in which `*` stands for any run of characters (dots
            too) and `?` for one. Case and a trailing dot do not matter; Unicode names need the `idna` package. An entry
            has no scheme, port or path: every port of a granted host is granted. Empty: HTTP is off.
        max_response_bytes: The largest body, decoded, that a plugin is given.
        max_request_bytes: The largest body that a plugin may send.
        max_redirects: How many redirects are followed.
        ssl_context: How certificates are checked, instead of by the system's authorities.

    Raises:
        ManifestError: An entry or a limit is not valid; the message says which.
    """

    __slots__ = (
        "_globs",
        "_literals",
        "_tls",
        "allowed_hosts",
        "max_redirects",
        "max_request_bytes",
        "max_response_bytes",
        "ssl_context",
    )

    allowed_hosts: tuple[str, ...]
    max_response_bytes: int
    max_request_bytes: int
    max_redirects: int
    ssl_context: ssl.SSLContext | None
    _literals: frozenset[str]
    _globs: tuple[str, ...]
    _tls: ssl.SSLContext | None

    def __init__(
        self,
        *,
        allowed_hosts: Sequence[str] = (),
        max_response_bytes: int = 50 * _MIB,
        max_request_bytes: int = 50 * _MIB,
        max_redirects: int = 10,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        limits = {
            "max_response_bytes": max_response_bytes,
            "max_request_bytes": max_request_bytes,
            "max_redirects": max_redirects,
        }
        for name, limit in limits.items():
            if not isinstance(limit, int) or limit < 0:
                raise ManifestError(f"{name}: expected a number of at least 0, got {limit!r}")
        if isinstance(allowed_hosts, str):
            raise ManifestError("allowed_hosts: expected a list of host names, got one string")
        entries = tuple(dict.fromkeys(_canonical_entry(entry) for entry in allowed_hosts))
        globs = tuple(entry for entry in entries if "*" in entry or "?" in entry)
        self._set(allowed_hosts=entries, ssl_context=ssl_context, _tls=ssl_context, **limits)
        self._set(_globs=globs, _literals=frozenset(entries).difference(globs))

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an EgressPolicy cannot be changed ({name}); make another one")

    def __repr__(self) -> str:
        return f"EgressPolicy(allowed_hosts={list(self.allowed_hosts)!r})"

    def __reduce__(self) -> tuple[Callable[[], EgressPolicy], tuple[()]]:
        from functools import partial

        names = ("allowed_hosts", "max_response_bytes", "max_request_bytes", "max_redirects", "ssl_context")
        return partial(type(self), **{name: getattr(self, name) for name in names}), ()

    def judge(self, url: str) -> Target:
        """The target that `url` denotes, if it is granted.

        Raises:
            EgressDeniedError: It is not, or the URL is not one that can be read in only one way.
        """
        if not self.allowed_hosts:
            raise EgressDeniedError("HTTP is off for this plugin: allowed_hosts grants no host")
        target = _parse(url)
        target.literal = target.host in self._literals
        if not target.literal and not self._fits_pattern(target.host):
            raise EgressDeniedError(f"the host {target.host} is not granted: no entry of allowed_hosts fits it")
        if is_address(target.host):
            self.vet(target.host, [target.host])
        return target

    def _fits_pattern(self, host: str) -> bool:
        from fnmatch import fnmatchcase

        return any(fnmatchcase(host, pattern) for pattern in self._globs)

    def vet(self, host: str, addresses: Iterable[str]) -> list[str]:
        """The addresses of a granted host, in canonical form, if all of them may be connected to.

        Raises:
            EgressDeniedError: One of them is not public and not granted literally.
        """
        from ipaddress import ip_address

        vetted = []
        for text in addresses:
            try:
                address = ip_address(text)
            except ValueError:
                raise EgressDeniedError(f"the host {host} is refused: it resolves to {text!r}, which is no address") from None
            why = _why_not_public(address)
            if why and str(address) not in self._literals and not self._is_granted_loopback(host, address):
                raise EgressDeniedError(
                    f"the host {host} is refused: its address {address} is {why}; to grant it, name the address itself in allowed_hosts"
                )
            vetted.append(str(address))
        return vetted

    def _is_granted_loopback(self, host: str, address: IPv4Address | IPv6Address) -> bool:
        loopback = address.is_loopback if address.version == 4 else str(address) == "::1"
        return loopback and host == "localhost" and host in self._literals

    def tls_context(self) -> ssl.SSLContext:
        """How certificates are checked; made when it is first needed."""
        if self._tls is None:
            import ssl

            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            self._set(_tls=context)
            return context
        return self._tls


# ---- Names, addresses, URLs


def is_address(host: str) -> bool:
    """Whether a canonical host is an address, not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _canonical_host(host: str) -> str:
    """The one spelling of a lower-case ASCII name or an address. Raises ValueError, saying what is wrong with it."""
    if ":" in host or host.startswith("["):
        from ipaddress import IPv6Address

        if "%" in host:
            raise ValueError("an IPv6 address with a zone is not accepted")
        try:
            return str(IPv6Address(host.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise ValueError("that is not an IPv6 address") from None
    host = host.removesuffix(".")
    if not _HOST_CHARACTERS.issuperset(host):
        raise ValueError("a host name has only ASCII letters, digits, '-', '_' and '.'")
    labels = host.split(".")
    if len(host) > 253 or not all(0 < len(label) < 64 for label in labels):
        raise ValueError("a label of the host name is empty or too long")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        from ipaddress import IPv4Address

        try:
            return str(IPv4Address(host))
        except ValueError:
            raise ValueError("an IPv4 address must be written as four decimal numbers") from None
    return host


def _canonical_entry(entry: str) -> str:
    if not isinstance(entry, str):
        raise ManifestError(f"allowed_hosts: expected host names, got {entry!r}")
    text = entry.lower()
    try:
        if not text.isascii():
            text = ".".join(label if label.isascii() else _encode_label(label) for label in text.split("."))
        if "*" not in text and "?" not in text:
            return _canonical_host(text)
        text = text.removesuffix(".")
        if not _HOST_CHARACTERS.issuperset(text.replace("*", "").replace("?", "")):
            raise ValueError("a pattern has only the characters of a host name, '*' and '?'")
        return text
    except ValueError as exc:
        raise ManifestError(f"allowed_hosts: {entry!r} is not a host name without scheme and port: {exc}") from None


def _encode_label(label: str) -> str:
    from urllib3.util import parse_url

    try:
        return parse_url(f"http://{label}/").host or ""
    except ValueError:
        raise ValueError("not encodable; write it in its ASCII form (xn--…), or install `idna`") from None


def _parse(url: str) -> Target:
    if len(url) > _MAX_URL:
        raise EgressDeniedError(f"the URL is refused: it is longer than {_MAX_URL} characters")
    if " " in url or "\\" in url or not url.isprintable():
        raise EgressDeniedError("the URL is refused: it has a space, a backslash or a character that does not print")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise EgressDeniedError("the URL is refused: it does not begin with http:// or https://")
    authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    if "@" in authority:
        raise EgressDeniedError("the URL is refused: it holds a user name or a password; use a header")
    if "%" in authority:
        raise EgressDeniedError("the URL is refused: its host has a percent sign (an escape, or the zone of an address)")
    from urllib3.util import parse_url

    try:
        parsed = parse_url(url)
        port = _PORTS[scheme] if parsed.port is None else parsed.port
        host = _canonical_host(parsed.host or "")
    except ValueError as exc:
        if not authority.isascii():
            why = "its host name is not ASCII; write it in its ASCII form (xn--…), or let the application install `idna`"
        elif type(exc) is ValueError:
            why = str(exc)
        else:
            why = "its host or port is not valid"
        raise EgressDeniedError(f"the URL is refused: {why}") from None
    if port == 0:
        raise EgressDeniedError("the URL is refused: its port is 0")
    return Target(scheme, host, port, parsed.request_uri)


def _why_not_public(address: IPv4Address | IPv6Address) -> str | None:
    from ipaddress import ip_network

    if address.version == 6:
        if address.scope_id is not None:
            return "an address with a zone"
        # NAT64 and IPv4-mapped: what they lead to is an IPv4 address that these checks would not see.
        if address.ipv4_mapped or address in ip_network("64:ff9b::/96") or address in ip_network("64:ff9b:1::/48"):
            return "an IPv4 address inside an IPv6 one"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address (metadata services live there)"
    if address.is_multicast:
        return "a multicast address"
    if not address.is_global or address.is_reserved:
        return "private or reserved"
    if address.version == 6 and address not in ip_network("2000::/3"):
        return "reserved"
    if any(address in ip_network(network) for network in _NOT_PUBLIC[address.version == 6]):
        return "reserved"
    return None
