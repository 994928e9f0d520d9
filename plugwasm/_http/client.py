"""An HTTP request of a guest, from its parts to the answer: checked, judged, sent, led by redirects, read within limits.

It goes only where the policy (`policy`, rules 1 to 3) lets it, carried by a transport (`transport`), one hop at a time.

4. Every redirect is judged like a first request; none goes from https to http. A guest's credentials and the headers that the application
   adds stay with their origin.
5. No wait is longer than one slice before the deadline is looked at: the queue, resolving, connecting, TLS, sending, reading
   (`connection`).
6. Sizes are counted as they arrive, on what a body decodes to; what a peer, a guest or a transport announces is only a claim.
"""

from __future__ import annotations

from ..errors import EgressDeniedError, EgressError, Error
from .connection import CallClock, resolve_host
from .headers import BODY_HEADERS, CREDENTIALS, merge_headers
from .socket_transport import MAX_HEAD
from .transport import EgressRequest, EgressResponse, iter_chunks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .connection import Remaining
    from .policy import Egress
    from .url import Target

__all__ = ["Response", "send_request"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DECODED = frozenset(
    {"gzip", "x-gzip", "deflate"}
)  # zlib stops where it is told to; other decoders may not
_MAX_HEADERS = 1000  # of an answer; `HttpTransport` takes a hundred
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


def send_request(
    egress: Egress,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    remaining: Remaining,
    *,
    private_headers: bool = False,
) -> Response:
    """Send a request where `egress` allows it, follow redirects, and read the answer.

    `Accept-Encoding` is "identity" and `User-Agent` "plugwasm" unless `headers` say otherwise. A body that comes as gzip or
    deflate is decoded all the same; one in another encoding is given as it is, with its `content-encoding`.

    Args:
        remaining: Called often. Gives the seconds left to the call (None: no deadline), raises when it is to end.
        private_headers: Whether all of `headers` stay with the first origin, not only credentials.

    Raises:
        EgressDeniedError: The target, or that of a redirect, is not granted.
        EgressError: A header or the method is not the guest's to set, a limit is passed, or the exchange failed.
        Error: Whatever `remaining` raises.
    """
    clock = CallClock(remaining)
    clock.remaining()
    verb = egress.judge_method(method)
    own = {"Accept-Encoding": "identity", "User-Agent": "plugwasm"}
    fields = merge_headers(own, egress.judge_headers(headers))
    egress.judge_body(len(body or b""))
    target = egress.judge(url)
    is_home = True  # no redirect has led to another origin
    for _ in range(egress.max_redirects + 1):
        sent = merge_headers(fields, egress.added_for(target)) if is_home else fields
        answer = _exchange(egress, clock, verb, target, sent, body)
        if isinstance(answer, Response):
            return answer
        status, location = answer
        previous, target = target, _redirected(egress, target, location)
        dropped: frozenset[str] = frozenset()
        if (status == 303 and verb != "HEAD") or (status in (301, 302) and verb == "POST"):
            verb, body, dropped = egress.judge_method("GET"), None, BODY_HEADERS
        if target.origin != previous.origin:
            is_home = False
            dropped |= CREDENTIALS
            if private_headers:
                fields = own
        fields = {name: value for name, value in fields.items() if name.lower() not in dropped}
    raise EgressError(
        f"{target.shown} was not fetched: more than {egress.max_redirects} redirects led to it"
    )


def _redirected(egress: Egress, source: Target, location: str) -> Target:
    from urllib.parse import urljoin

    try:
        target = egress.judge(urljoin(source.url, location))
    except ValueError:
        raise EgressDeniedError(
            f"{source.shown} redirects to something that is not a URL"
        ) from None
    except EgressDeniedError as exc:
        raise EgressDeniedError(
            f"{source.shown} redirects to a target that is not granted: {exc.message}"
        ) from None
    if source.scheme == "https" and target.scheme == "http":
        raise EgressDeniedError(
            f"{source.shown} redirects from https to http, to {target.shown}, which is refused"
        )
    return target


def _exchange(
    egress: Egress,
    clock: CallClock,
    verb: str,
    target: Target,
    fields: dict[str, str],
    body: bytes | None,
) -> Response | tuple[int, str]:
    """One request and its answer, or the status and the location of a redirect."""

    def resolve() -> tuple[str, ...]:
        return egress.vet(target.host, resolve_host(clock, target.host, target.port, egress.owner))

    request = EgressRequest(
        verb,
        target,
        fields,
        body or None,
        max_response_bytes=egress.max_response_bytes,
        resolve=resolve,
        remaining=clock.remaining,
    )
    failed = f"{verb} {target.shown} failed"
    ticket = object()
    try:
        egress.rate_limiter.acquire(ticket, clock, egress.owner)
        if egress.resolve:
            request.resolve()
        response = egress.transport.send(request)
        if not isinstance(response, EgressResponse):
            raise EgressError(
                f"{failed}: the transport gave no EgressResponse, but {type(response).__name__}"
            )
        try:
            return _answer(egress, clock, request, response)
        finally:
            response.close()
    except Error:
        raise
    except Exception as exc:
        clock.remaining()  # whoever gave up because there was no time left, or wrapped the error that said so
        raise EgressError(f"{failed}: {_reason(exc)}") from exc
    finally:
        egress.rate_limiter.release(ticket)


def _reason(exc: Exception) -> str:
    import socket
    import ssl
    from http.client import HTTPException

    from urllib3.exceptions import DecodeError, HTTPError, ReadTimeoutError

    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {getattr(exc, 'verify_message', '')}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed: {getattr(exc, 'reason', None) or type(exc).__name__}"
    if isinstance(exc, socket.gaierror):
        return "the host name does not resolve"
    if isinstance(exc, (TimeoutError, ReadTimeoutError)):
        return "nothing came in time (timeout)"
    if isinstance(exc, OSError):
        return exc.strerror or type(exc).__name__
    if isinstance(exc, DecodeError):
        return "the body is not what its Content-Encoding says"
    if isinstance(exc, (HTTPException, HTTPError, ValueError)):
        return f"the answer is broken off or is not HTTP ({type(exc).__name__})"
    return f"the transport raised {type(exc).__name__}"  # not its text, which may hold the URL, and secrets in it


def _answer(
    egress: Egress, clock: CallClock, request: EgressRequest, response: EgressResponse
) -> Response | tuple[int, str]:
    """What the guest is given of a response, or the status and the location of a redirect."""
    from itertools import islice

    clock.remaining()
    failed = f"{request.method} {request.shown} failed"
    status = response.status
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise EgressError(f"{failed}: the transport gave no status from 200 to 999, but {status!r}")
    pairs = list(islice(_pairs(response.headers), _MAX_HEADERS + 1))
    if len(pairs) > _MAX_HEADERS:
        raise EgressError(f"{failed}: the answer has more than {_MAX_HEADERS} headers")
    if not all(isinstance(name, str) and isinstance(value, str) for name, value in pairs):
        raise EgressError(f"{failed}: the transport gave headers that are not text")
    if sum(len(name) + len(value) for name, value in pairs) > MAX_HEAD:
        raise EgressError(f"{failed}: the answer has more than {MAX_HEAD} bytes of headers")
    if egress.max_redirects and status in _REDIRECTS:
        for name, value in pairs:
            if name.lower() == "location" and value:
                return status, _text_of_location(value)
    return _read(egress, clock, request, int(status), pairs, response)


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return headers.items() if hasattr(headers, "items") else headers


def _text_of_location(location: str) -> str:
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _read(
    egress: Egress,
    clock: CallClock,
    request: EgressRequest,
    status: int,
    pairs: list[tuple[str, str]],
    response: EgressResponse,
) -> Response:
    from urllib3 import HTTPHeaderDict, HTTPResponse

    shown = egress.visible_headers(pairs)
    if request.method == "HEAD" or status in (204, 304):
        return Response(status, shown, b"")
    headers = HTTPHeaderDict(pairs)
    encodings = {
        word.strip() for word in headers.get("content-encoding", "identity").lower().split(",")
    }
    decode = encodings <= _DECODED
    limit = egress.max_response_bytes
    failed = f"{request.method} {request.shown} failed"
    over = f"{failed}: the body of the answer is larger than the {limit} bytes allowed"
    source = HTTPResponse(
        body=_Source(iter_chunks(response.body), clock, 8 * limit + MAX_HEAD, failed),  # type: ignore[arg-type]
        headers=headers,
        status=status,
        preload_content=False,
        decode_content=decode,
        request_method=request.method,
    )
    if not decode and (source.length_remaining or 0) > limit:
        raise EgressError(over)
    parts: list[bytes] = []
    size = 0
    while part := source.read(_CHUNK):
        size += len(part)
        if size > limit:
            raise EgressError(over)
        parts.append(part)
    if decode:
        shown.pop("content-encoding", None)
        shown.pop("content-length", None)
    return Response(status, shown, b"".join(parts))


class _Source:
    """The body of a response as the file that urllib3 wants, read under the deadline, and only so far."""

    closed = False

    def __init__(
        self, parts: Iterable[bytes], clock: CallClock, allowance: int, failed: str
    ) -> None:
        self._parts: Iterator[bytes] = iter(parts)
        self._clock = clock
        self._allowance = allowance
        self._failed = failed

    def read(self, size: int | None = None, /) -> bytes:
        for part in self._parts:
            self._clock.remaining()
            if not isinstance(part, (bytes, bytearray, memoryview)):
                raise EgressError(
                    f"{self._failed}: the transport gave a body that is not bytes, but {type(part).__name__}"
                )
            self._allowance -= len(part)
            if self._allowance < 0:
                raise EgressError("the server sent more than any answer within the limits needs")
            if part:
                return bytes(part)
        self._clock.remaining()
        return b""

    def close(self) -> None:
        self.closed = True
