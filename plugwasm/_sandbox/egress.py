"""The one way out: which HTTP targets are granted, and the request that reaches them.

1. Nothing is reachable unless `allowed_hosts` grants its host.
2. A URL is parsed once. The canonical form that was judged is the form that is sent; what two parsers could read
   differently (userinfo, backslashes, odd spellings of an address, zones, escapes in the host) is refused.
3. A name is resolved once. Every address it has must be public, and the address that was vetted is the one connected to.
   An address that is not public is reachable only where `allowed_hosts` names it literally; "localhost" names loopback.
4. Every redirect is judged like a first request; none goes from https to http, and credentials stay with their origin.
5. No wait is longer than one slice before the deadline is looked at: resolving, connecting, TLS, sending, reading.
6. Sizes are counted as they arrive, on what a body decodes to; what a peer or a guest announces is only a claim.

`urllib3` parses URLs and decodes bodies, `http.client` frames messages, `ssl` checks certificates. `http.client` holds the
connection because urllib3's own would resolve the name again, and logs whole URLs when a server's header is malformed.
"""

from __future__ import annotations

import io

from plugwasm.errors import EgressDeniedError, EgressError, Error, ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    import socket
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from typing import NoReturn, TypeVar

    from _typeshed import WriteableBuffer

    _T = TypeVar("_T")
    Remaining = Callable[[], float | None]

__all__ = ["EgressPolicy", "Response", "Target", "resolve", "send"]

_MIB = 1 << 20
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DECODED = frozenset({"gzip", "x-gzip", "deflate"})  # zlib stops where it is told to; other decoders may not
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"})
_CREDENTIALS = frozenset({"authorization", "cookie"})
_BODY_HEADERS = frozenset({"content-type", "content-encoding", "content-language", "content-location"})

# Not public although `ipaddress` calls them global: IETF protocol assignments, 6to4 relays, Azure's metadata service;
# Teredo and other assignments, documentation, 6to4.
_NOT_PUBLIC = (
    ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"),
    ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16"),
)

_MAX_URL = 64 << 10
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 64 << 10
_MAX_HEAD = 256 << 10  # status line and headers of an answer, with the 100s before it
_MAX_ADDRESSES = 8
_CHUNK = 64 << 10
_SLICE = 0.05  # seconds: how late a deadline or a cancel may be seen
_CONNECT = 10.0  # seconds for each address, for resolving, and for the TLS handshake, even when there is no deadline
_IDLE = 30.0  # seconds without a byte in either direction, when there is no deadline


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


class Response:
    """What came back.

    Attributes:
        status: The status code.
        headers: By lower-case name; repeated ones joined by ", ". When the body was decoded, without the
            `content-encoding` and `content-length` that described the encoded one.
        body: The body, decoded.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"


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
        if _is_address(target.host):
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

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            import ssl

            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            self._set(_tls=context)
            return context
        return self._tls


# ---- Names, addresses, URLs


def _is_address(host: str) -> bool:
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


# ---- The request


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system gives them. Looked up here at each call, so that a test can replace it."""
    import socket

    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def send(policy: EgressPolicy, method: str, url: str, headers: Mapping[str, str], body: bytes | None, remaining: Remaining) -> Response:
    """Send a request where `policy` allows it, follow redirects, and read the answer.

    `Accept-Encoding` is "identity" and `User-Agent` "plugwasm" unless `headers` say otherwise. A body that comes as gzip or
    deflate is decoded all the same; one in another encoding is given as it is, with its `content-encoding`. Proxy variables
    of the environment are not looked at.

    Args:
        remaining: Called often. Gives the seconds left to the call (None: no deadline), raises when it is to end.

    Raises:
        EgressDeniedError: The target, or that of a redirect, is not granted.
        EgressError: A header or the method is not the guest's to set, a limit is passed, or the exchange failed.
        Error: Whatever `remaining` raises.
    """
    clock = _Clock(remaining)
    clock.left()
    verb = _checked_method(method)
    fields = _checked_headers(headers)
    if body is not None and len(body) > policy.max_request_bytes:
        raise EgressError(f"the request body has {len(body)} bytes, more than the {policy.max_request_bytes} allowed")
    target = policy.judge(url)
    for _ in range(policy.max_redirects + 1):
        answer = _exchange(policy, clock, verb, target, fields, body)
        if isinstance(answer, Response):
            return answer
        status, location = answer
        previous, target = target, _redirected(policy, target, location)
        dropped: frozenset[str] = frozenset()
        if (status == 303 and verb != "HEAD") or (status in (301, 302) and verb == "POST"):
            verb, body, dropped = "GET", None, _BODY_HEADERS
        if target.origin != previous.origin:
            dropped |= _CREDENTIALS
        fields = {name: value for name, value in fields.items() if name.lower() not in dropped}
    raise EgressError(f"{target.shown} was not fetched: more than {policy.max_redirects} redirects led to it")


def _redirected(policy: EgressPolicy, source: Target, location: str) -> Target:
    from urllib.parse import urljoin

    try:
        target = policy.judge(urljoin(source.url, location))
    except ValueError:
        raise EgressDeniedError(f"{source.shown} redirects to something that is not a URL") from None
    except EgressDeniedError as exc:
        raise EgressDeniedError(f"{source.shown} redirects to a target that is not granted: {exc.message}") from None
    if source.scheme == "https" and target.scheme == "http":
        raise EgressDeniedError(f"{source.shown} redirects to {target.shown}: from https to http is refused")
    return target


def _checked_method(method: str) -> str:
    verb = method.upper() if method.isascii() else ""
    if verb not in _METHODS:
        raise EgressError(f"method: expected one of {', '.join(sorted(_METHODS))}")
    return verb


def _checked_headers(headers: Mapping[str, str]) -> dict[str, bytes]:
    checked: dict[str, bytes] = {}
    seen: set[str] = set()
    size = 0
    for name, value in headers.items():
        key = name.lower()
        if not key or not _TOKEN_CHARACTERS.issuperset(key) or not name.isascii():
            raise EgressError(f"headers: {name[:64]!r} is not a header name")
        if key in _OWN_HEADERS or key.startswith("proxy-"):
            raise EgressError(f"headers: {name[:64]} is not the guest's to set")
        if key in seen:
            raise EgressError(f"headers: {name[:64]} is given twice")
        try:
            text = value.strip(" \t").encode()
        except UnicodeEncodeError:
            raise EgressError(f"headers: the value of {name[:64]} is not text") from None
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in text):
            raise EgressError(f"headers: the value of {name[:64]} has a line break or another control character")
        seen.add(key)
        checked[name] = text
        size += len(name) + len(text) + 4
    if len(checked) > _MAX_HEADERS or size > _MAX_HEADER_BYTES:
        raise EgressError(f"headers: more than {_MAX_HEADERS} of them, or than {_MAX_HEADER_BYTES} bytes")
    if "user-agent" not in seen:
        checked["User-Agent"] = b"plugwasm"
    return checked


def _exchange(
    policy: EgressPolicy, clock: _Clock, verb: str, target: Target, fields: dict[str, bytes], body: bytes | None
) -> Response | tuple[int, str]:
    """One request and its answer, or the status and the location of a redirect."""
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError

    wire: _Wire | None = None
    try:
        wire = _connect(policy, clock, target)
        return _converse(policy, wire, verb, target, fields, body)
    except Error:
        raise
    except (OSError, HTTPException, HTTPError, ValueError) as exc:
        if clock.ended is not None:  # urllib3 has wrapped the deadline's own error
            raise clock.ended from None
        raise EgressError(f"{verb} {target.shown} failed: {_reason(exc)}") from exc
    finally:
        if wire is not None:
            wire.hang_up()


def _reason(exc: Exception) -> str:
    import socket
    import ssl

    from urllib3.exceptions import DecodeError, ReadTimeoutError

    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed: {exc.reason or type(exc).__name__}"
    if isinstance(exc, socket.gaierror):
        return "the host name does not resolve"
    if isinstance(exc, (TimeoutError, ReadTimeoutError)):
        return "nothing came in time"
    if isinstance(exc, OSError):
        return exc.strerror or type(exc).__name__
    if isinstance(exc, DecodeError):
        return "the body is not what its Content-Encoding says"
    return f"the answer is broken off or is not HTTP ({type(exc).__name__})"


def _connect(policy: EgressPolicy, clock: _Clock, target: Target) -> _Wire:
    import errno
    import os
    import socket
    from functools import partial

    from urllib3.util.wait import wait_for_read, wait_for_write

    addresses = [target.host] if _is_address(target.host) else _resolved(clock, target)
    addresses = policy.vet(target.host, addresses)[:_MAX_ADDRESSES]
    failure: OSError = socket.gaierror()
    for index, address in enumerate(addresses):
        left = clock.left()
        limit = _CONNECT if left is None else min(_CONNECT, left / (len(addresses) - index))
        wire: _Wire | None = None
        try:
            wire = _Wire(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM), clock)
            wire.socket.setblocking(False)
            wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            failed = wire.socket.connect_ex((address, target.port))
            if failed in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                clock.wait(partial(wait_for_write, wire.socket), limit)
                failed = wire.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failed:
                raise OSError(failed, os.strerror(failed))
            break
        except BaseException as exc:
            if wire is not None:
                wire.hang_up()
            if isinstance(exc, Error) or not isinstance(exc, OSError):
                raise
            failure = exc
    else:
        raise failure
    if target.scheme == "https":
        try:
            tls = policy._tls_context().wrap_socket(wire.socket, server_hostname=target.host, do_handshake_on_connect=False)
            wire.socket = tls
            wire.until_done(tls.do_handshake, wait_for_read, _CONNECT)
        except BaseException:
            wire.hang_up()
            raise
    return wire


def _resolved(clock: _Clock, target: Target) -> list[str]:
    """The addresses of a name. `getaddrinfo` cannot be interrupted, so a thread waits for it and may be left behind."""
    import threading

    answers: list[list[str]] = []
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        try:
            answers.append(resolve(target.host, target.port))
        except Exception as exc:
            failures.append(exc)
        done.set()

    threading.Thread(target=ask, name="plugwasm-resolve", daemon=True).start()
    clock.wait(done.wait, _CONNECT if clock.left() is None else None)
    if failures:
        raise failures[0]
    return answers[0]


def _converse(
    policy: EgressPolicy, wire: _Wire, verb: str, target: Target, fields: dict[str, bytes], body: bytes | None
) -> Response | tuple[int, str]:
    import http.client

    connection = http.client.HTTPConnection(target.host, target.port)
    connection.auto_open = 0  # only what was vetted is ever connected to
    connection.sock = wire
    try:
        connection.request(verb, target.path, body or None, {"Host": target.authority, "Connection": "close", **fields})
    except (BrokenPipeError, ConnectionResetError):
        pass  # a server may answer, and hang up, without reading the whole body
    wire.allowance = _MAX_HEAD
    answer = connection.getresponse()
    try:
        if wire.at_end:  # within the headers, which `http.client` takes for the end of them
            raise EgressError(f"{verb} {target.shown} failed: the answer is broken off within its headers")
        if answer.status in _REDIRECTS and (location := answer.headers.get("location")):
            return answer.status, _text_of_location(location)
        if answer.status < 200:
            raise EgressError(f"{verb} {target.shown} failed: the server switched to a protocol that was not asked for")
        # One-byte chunks cost six bytes each; more than eight for one is a stream that goes on without saying anything.
        wire.allowance = wire.received + 8 * policy.max_response_bytes + _MAX_HEAD
        return _read(policy, verb, target, answer, wire)
    finally:
        answer.close()


def _text_of_location(location: str) -> str:
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _read(policy: EgressPolicy, verb: str, target: Target, answer: http.client.HTTPResponse, wire: _Wire) -> Response:
    from urllib3 import HTTPHeaderDict, HTTPResponse

    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        if "\n" in value or "\r" in value:  # a header folded over lines
            value = " ".join(value.replace("\r", "\n").replace("\n", " ").split())
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    if verb == "HEAD" or answer.status in (204, 304):
        return Response(answer.status, headers, b"")

    encodings = {word.strip() for word in headers.get("content-encoding", "identity").lower().split(",")}
    decode = encodings <= _DECODED
    source = HTTPResponse(
        body=answer,
        headers=HTTPHeaderDict(headers),
        status=answer.status,
        preload_content=False,
        decode_content=decode,
        original_response=answer,
        request_method=verb,
    )
    limit = policy.max_response_bytes
    over = f"{verb} {target.shown} failed: the body of the answer is larger than the {limit} bytes allowed"
    if not decode and (source.length_remaining or 0) > limit:
        raise EgressError(over)
    parts: list[bytes] = []
    size = 0
    for part in source.stream(_CHUNK, decode_content=decode):
        wire.clock.left()
        size += len(part)
        if size > limit:
            raise EgressError(over)
        parts.append(part)
    if decode:
        headers.pop("content-encoding")
        headers.pop("content-length", None)
    return Response(answer.status, headers, b"".join(parts))


# ---- Time, and the socket


class _Clock:
    """Cuts every wait into slices, so that a deadline or a cancel is seen while nothing happens."""

    __slots__ = ("ended", "remaining")

    def __init__(self, remaining: Remaining) -> None:
        self.remaining = remaining
        self.ended: Error | None = None

    def left(self) -> float | None:
        try:
            return self.remaining()
        except Error as exc:
            self.ended = exc
            raise

    def wait(self, ready: Callable[[float], bool], limit: float | None) -> None:
        """Until `ready` is true. Raises the built-in TimeoutError after `limit` seconds."""
        from time import monotonic

        end = None if limit is None else monotonic() + limit
        while True:
            left = self.left()
            pause = _SLICE if left is None else max(0.0, min(_SLICE, left))
            if ready(pause):
                return
            if end is not None and monotonic() >= end:
                raise TimeoutError


class _Wire(io.RawIOBase):
    """A connected socket, as much of it as `http.client` wants, on which no operation outlives the deadline.

    Attributes:
        received: Bytes read so far.
        at_end: Whether the server has closed its side, and all that it sent was read.
        allowance: How many may be read; None while nothing was asked.
    """

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self.socket = sock
        self.clock = clock
        self.received = 0
        self.at_end = False
        self.allowance: int | None = None

    def until_done(self, operation: Callable[[], _T], ready: Callable[..., bool], limit: float | None = None) -> _T:
        from functools import partial
        from ssl import SSLWantReadError, SSLWantWriteError

        from urllib3.util.wait import wait_for_read, wait_for_write

        if self.clock.left() is None and limit is None:
            limit = _IDLE
        while True:
            try:
                return operation()
            except BlockingIOError:
                until = ready
            except SSLWantReadError:
                until = wait_for_read
            except SSLWantWriteError:
                until = wait_for_write
            self.clock.wait(partial(until, self.socket), limit)

    def readinto(self, buffer: WriteableBuffer) -> int:
        from urllib3.util.wait import wait_for_read

        count = self.until_done(lambda: self.socket.recv_into(buffer), wait_for_read)
        self.received += count
        self.at_end = not count
        if self.allowance is not None and self.received > self.allowance:
            raise EgressError("the server sent more than any answer within the limits needs")
        return count

    def sendall(self, data: bytes) -> None:
        from functools import partial

        from urllib3.util.wait import wait_for_write

        view = memoryview(data)
        while view:
            view = view[self.until_done(partial(self.socket.send, view[:_CHUNK]), wait_for_write) :]

    def readable(self) -> bool:
        return True

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Reader(self, _CHUNK)

    def settimeout(self, seconds: float | None) -> None:
        pass  # time is kept by the clock

    def close(self) -> None:
        pass  # `http.client` closes a connection that will not be kept before it reads the body from it

    def hang_up(self) -> None:
        self.socket.close()


class _Reader(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # what a chunk of a negative size asks for: everything, without bound
            raise ValueError("unbounded read")
        return super().read(size)
