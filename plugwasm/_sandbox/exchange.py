"""An HTTP request of a guest, from its parts to the answer: checked, sent, led by redirects, read within limits.

It goes only where the policy (`egress`, rules 1 to 3) lets it, over a connection on which nothing outlives the deadline (`wire`).

4. Every redirect is judged like a first request; none goes from https to http, and credentials stay with their origin.
5. No wait is longer than one slice before the deadline is looked at: resolving, connecting, TLS, sending, reading.
6. Sizes are counted as they arrive, on what a body decodes to; what a peer or a guest announces is only a claim.

`urllib3` parses URLs and decodes bodies, `http.client` frames messages, `ssl` checks certificates. `http.client` holds the
connection because urllib3's own would resolve the name again, and logs whole URLs when a server's header is malformed.
"""

from __future__ import annotations

from plugwasm._sandbox.wire import Clock, connect
from plugwasm.errors import EgressDeniedError, EgressError, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    from collections.abc import Mapping

    from plugwasm._sandbox.egress import EgressPolicy, Target
    from plugwasm._sandbox.wire import Remaining, Wire

__all__ = ["Response", "send"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DECODED = frozenset({"gzip", "x-gzip", "deflate"})  # zlib stops where it is told to; other decoders may not
_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"})
_CREDENTIALS = frozenset({"authorization", "cookie"})
_BODY_HEADERS = frozenset({"content-type", "content-encoding", "content-language", "content-location"})

_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 64 << 10
_MAX_HEAD = 256 << 10  # status line and headers of an answer, with the 100s before it
_CHUNK = 64 << 10


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
    clock = Clock(remaining)
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
    policy: EgressPolicy, clock: Clock, verb: str, target: Target, fields: dict[str, bytes], body: bytes | None
) -> Response | tuple[int, str]:
    """One request and its answer, or the status and the location of a redirect."""
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError

    wire: Wire | None = None
    try:
        wire = connect(policy, clock, target)
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


def _converse(
    policy: EgressPolicy, wire: Wire, verb: str, target: Target, fields: dict[str, bytes], body: bytes | None
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


def _read(policy: EgressPolicy, verb: str, target: Target, answer: http.client.HTTPResponse, wire: Wire) -> Response:
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
