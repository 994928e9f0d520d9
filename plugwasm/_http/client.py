"""The HTTP client of guests: from the parts of a request to the response.

A request goes only where the policy (`policy`, rules 1 to 3) lets it, carried by a transport
(`transport`), one hop at a time.

4. Every redirect is checked like a first request; none goes from https to http. A guest's
   credentials and the headers that the application adds stay with their origin.
5. No wait is longer than one slice before the deadline is checked: the queue, resolving,
   connecting, TLS, sending, reading (`connection`).
6. Sizes are counted as bytes arrive, on what a body decodes to; what a peer, a guest or a transport
   announces is only a claim.

Decisions: docs/decisions.md, 9.1 and 9.6.
"""

from __future__ import annotations

from ..errors import EgressDeniedError, EgressError, Error
from .connection import SENT_TOO_MUCH, CallClock, resolve_host
from .headers import BODY_HEADERS, CREDENTIALS, merge_headers
from .rate_limit import shared_limiter
from .request_owner import RequestOwner
from .socket_transport import MAX_HEAD
from .transport import EgressRequest, EgressResponse, iter_chunks, request_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .connection import Remaining
    from .egress import Egress
    from .policy import RequestPolicy
    from .url import Target

__all__ = ["HttpClient", "Response", "check_redirect"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DECODED = frozenset({"gzip", "x-gzip", "deflate"})
"""zlib stops where it is told to; other decoders may not."""
_MAX_HEADERS = 1000  # of a response; `HttpTransport` accepts a hundred
_CHUNK = 64 << 10


class Response:
    """An HTTP response as a guest gets it.

    Attributes:
        status: The status code.
        headers: By lower-case name; repeated ones joined by ", ". When the body was decoded,
            without the `content-encoding` and `content-length` that described the encoded one.
        body: The body, decoded.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status: int = status
        self.headers: dict[str, str] = headers
        self.body: bytes = body

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"


class HttpClient:
    """Sends the requests of one plugin, or of one download, within its policy.

    It has the parts with state: the transport, and the limiter that all clients with the same
    `Egress` share.

    Args:
        make_owner: Called for the first request that is sent. A plugin whose requests are all
            denied needs no owner, and finding its family reads all of its modules.

    Attributes:
        policy: What the requests may be.
    """

    __slots__ = (
        "_egress",
        "_limiter",
        "_make_owner",
        "_owner",
        "_resolves",
        "_transport",
        "policy",
    )

    def __init__(
        self, egress: Egress, policy: RequestPolicy, make_owner: Callable[[], RequestOwner]
    ) -> None:
        self.policy: RequestPolicy = policy
        self._make_owner = make_owner
        self._owner: RequestOwner | None = None
        self._egress = egress  # kept alive: the limiter is shared as long
        self._limiter = shared_limiter(egress)
        self._transport = egress.transport
        self._resolves = egress.resolve

    @classmethod
    def for_plugin(
        cls,
        egress: Egress,
        allowed_hosts: Sequence[str],
        max_response_bytes: int | None,
        make_owner: Callable[[], RequestOwner],
    ) -> HttpClient:
        """Return the client of a plugin, with what its manifest asks for.

        Raises:
            ManifestError: An entry of `allowed_hosts` is not valid.
        """
        policy = egress._policy.for_manifest(allowed_hosts, max_response_bytes)
        return cls(egress, policy, make_owner)

    @classmethod
    def for_download(cls, egress: Egress, host: str, max_bytes: int) -> HttpClient:
        """Return a client that downloads a module from this host (`RequestPolicy.for_download`)."""
        policy = egress._policy.for_download(host, max_bytes)
        return cls(egress, policy, lambda: RequestOwner(("download", host)))

    @property
    def owner(self) -> RequestOwner:
        """Whose requests these are, where plugins share something: the queue, name lookups."""
        if self._owner is None:
            self._owner = self._make_owner()
        return self._owner

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        remaining: Remaining,
        *,
        private_headers: bool = False,
    ) -> Response:
        """Send a request if the policy allows it, follow redirects, and read the response.

        `Accept-Encoding` is "identity" and `User-Agent` "plugwasm" unless `headers` say otherwise.
        A body that comes as gzip or deflate is decoded all the same; one in another encoding is
        returned as it is, with its `content-encoding`.

        Args:
            method: In upper or lower case.
            url: Any spelling; the canonical form is sent.
            headers: What the guest sets.
            body: Its size was checked before it was copied (`RequestPolicy.check_body_size`).
            remaining: Called often. Returns the seconds left to the call (None: no deadline), and
                raises when it is to end.
            private_headers: Whether all of `headers` stay with the first origin, not only
                credentials.

        Raises:
            EgressDeniedError: The target, or that of a redirect, is not granted.
            EgressError: The guest may not set a header or the method, a limit is exceeded, or the
                exchange failed.
            Error: Whatever `remaining` raises.
        """
        policy = self.policy
        clock = CallClock(remaining)
        clock.remaining()
        verb = policy.check_method(method)
        own = {"Accept-Encoding": "identity", "User-Agent": "plugwasm"}
        fields = merge_headers(own, policy.check_headers(headers))
        target = policy.check_url(url)
        is_first_origin = True  # no redirect has led to another one
        for _ in range(policy.max_redirects + 1):
            sent = (
                merge_headers(fields, policy.added_headers(target)) if is_first_origin else fields
            )
            answer = self._exchange(clock, verb, target, sent, body)
            if isinstance(answer, Response):
                return answer
            status, location = answer
            previous, target = target, check_redirect(policy, target, location)
            dropped: frozenset[str] = frozenset()
            if (status == 303 and verb != "HEAD") or (status in (301, 302) and verb == "POST"):
                verb, body, dropped = policy.check_method("GET"), None, BODY_HEADERS
            if target.origin != previous.origin:
                is_first_origin = False
                dropped |= CREDENTIALS
                if private_headers:
                    fields = own
            fields = {name: value for name, value in fields.items() if name.lower() not in dropped}
        raise EgressError(
            f"{target.shown} was not fetched: more than {policy.max_redirects} redirects led to it"
        )

    def _exchange(
        self,
        clock: CallClock,
        verb: str,
        target: Target,
        fields: dict[str, str],
        body: bytes | None,
    ) -> Response | tuple[int, str]:
        """Send one request. Return its response, or the status and location of a redirect."""
        policy = self.policy

        def resolve() -> tuple[str, ...]:
            addresses = resolve_host(clock, target.host, target.port, self.owner)
            return policy.check_addresses(target.host, addresses)

        request = EgressRequest(
            verb,
            target,
            fields,
            body or None,
            max_response_bytes=policy.max_response_bytes,
            resolve=resolve,
            remaining=clock.remaining,
        )
        ticket = object()
        try:
            self._limiter.acquire(ticket, clock, self.owner)
            if self._resolves:
                request.resolve()
            response = self._transport.send(request)
            if not isinstance(response, EgressResponse):
                raise request_error(
                    request,
                    f"the transport gave no EgressResponse, but {type(response).__name__}",
                )
            try:
                return _read_response(policy, clock, request, response)
            finally:
                response.close()
        except Error:
            raise
        except Exception as error:
            clock.remaining()  # raises if that is why the transport gave up
            raise request_error(request, _reason(error)) from error
        finally:
            self._limiter.release(ticket)


def check_redirect(policy: RequestPolicy, source: Target, location: str) -> Target:
    """Return the target of a redirect. Raise `EgressDeniedError` if it is not granted."""
    from urllib.parse import urljoin

    try:
        target = policy.check_url(urljoin(source.url, location))
    except ValueError:
        raise EgressDeniedError(
            f"{source.shown} redirects to something that is not a URL"
        ) from None
    except EgressDeniedError as error:
        raise EgressDeniedError(
            f"{source.shown} redirects to a target that is not granted: {error.message}"
        ) from None
    if source.scheme == "https" and target.scheme == "http":
        raise EgressDeniedError(
            f"{source.shown} redirects from https to http, to {target.shown}, which is refused"
        )
    return target


def _reason(error: Exception) -> str:
    """Return why a request failed, in words without the URL."""
    import socket
    import ssl
    from http.client import HTTPException

    from urllib3.exceptions import DecodeError, HTTPError, ReadTimeoutError

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {getattr(error, 'verify_message', '')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {getattr(error, 'reason', None) or type(error).__name__}"
    if isinstance(error, socket.gaierror):
        return "the host name does not resolve"
    if isinstance(error, (TimeoutError, ReadTimeoutError)):
        return "nothing came in time (timeout)"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, DecodeError):
        return "the body is not what its Content-Encoding says"
    if isinstance(error, (HTTPException, HTTPError, ValueError)):
        return f"the answer is broken off or is not HTTP ({type(error).__name__})"
    # Not its text, which may hold the URL, and secrets in it.
    return f"the transport raised {type(error).__name__}"


def _read_response(
    policy: RequestPolicy, clock: CallClock, request: EgressRequest, response: EgressResponse
) -> Response | tuple[int, str]:
    """Return the response for the guest, or the status and location of a redirect."""
    from itertools import islice

    clock.remaining()
    status = response.status
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise request_error(
            request, f"the transport gave no status from 200 to 999, but {status!r}"
        )
    pairs = list(islice(_pairs(response.headers), _MAX_HEADERS + 1))
    if len(pairs) > _MAX_HEADERS:
        raise request_error(request, f"the answer has more than {_MAX_HEADERS} headers")
    if not all(isinstance(name, str) and isinstance(value, str) for name, value in pairs):
        raise request_error(request, "the transport gave headers that are not text")
    if sum(len(name) + len(value) for name, value in pairs) > MAX_HEAD:
        raise request_error(request, f"the answer has more than {MAX_HEAD} bytes of headers")
    if policy.max_redirects and status in _REDIRECTS:
        for name, value in pairs:
            if name.lower() == "location" and value:
                return status, _decode_location(value)
    return _read_body(policy, clock, request, int(status), pairs, response)


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return headers.items() if hasattr(headers, "items") else headers


def _decode_location(location: str) -> str:
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location


def _read_body(
    policy: RequestPolicy,
    clock: CallClock,
    request: EgressRequest,
    status: int,
    pairs: list[tuple[str, str]],
    response: EgressResponse,
) -> Response:
    from urllib3 import HTTPHeaderDict, HTTPResponse

    visible = policy.visible_headers(pairs)
    if request.method == "HEAD" or status in (204, 304):
        return Response(status, visible, b"")
    headers = HTTPHeaderDict(pairs)
    encodings = {
        word.strip() for word in headers.get("content-encoding", "identity").lower().split(",")
    }
    decode = encodings <= _DECODED
    limit = policy.max_response_bytes
    source = HTTPResponse(
        body=_BodyFile(request, iter_chunks(response.body), clock, 8 * limit + MAX_HEAD),  # type: ignore[arg-type]
        headers=headers,
        status=status,
        preload_content=False,
        decode_content=decode,
        request_method=request.method,
    )
    size = 0 if decode else source.length_remaining or 0  # what the server announces
    parts: list[bytes] = []
    received = 0
    while True:
        if max(size, received) > limit:
            raise request_error(
                request,
                f"the body of the answer is larger than the {limit} bytes allowed",
                limit="max_response_bytes",
            )
        part = source.read(_CHUNK)
        if not part:
            break
        received += len(part)
        parts.append(part)
    if decode:
        visible.pop("content-encoding", None)
        visible.pop("content-length", None)
    return Response(status, visible, b"".join(parts))


class _BodyFile:
    """The body of a response as the file that urllib3 reads: under the deadline, and within an
    allowance.
    """

    closed = False

    def __init__(
        self, request: EgressRequest, parts: Iterable[bytes], clock: CallClock, allowance: int
    ) -> None:
        self._request = request
        self._parts: Iterator[bytes] = iter(parts)
        self._clock = clock
        self._allowance = allowance

    def read(self, size: int | None = None, /) -> bytes:
        for part in self._parts:
            self._clock.remaining()
            if not isinstance(part, (bytes, bytearray, memoryview)):
                raise request_error(
                    self._request,
                    f"the transport gave a body that is not bytes, but {type(part).__name__}",
                )
            self._allowance -= len(part)
            if self._allowance < 0:
                raise EgressError(SENT_TOO_MUCH)
            if part:
                return bytes(part)
        self._clock.remaining()
        return b""

    def close(self) -> None:
        self.closed = True
