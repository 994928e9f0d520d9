"""The interface of transports, which carry one checked request and return its response.

Applications can implement it.
"""

from __future__ import annotations

from ..errors import EgressError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Protocol

    from .body import Body
    from .url import Target
else:
    Protocol = object  # importing typing takes long, and a protocol needs none of it at run time

__all__ = ["EgressRequest", "EgressResponse", "Transport", "iter_chunks", "request_error"]

_CHUNK = 64 << 10


class Transport(Protocol):
    """Carries requests.

    One object is used by all plugins that share an `Egress`, from any of their threads.
    """

    def send(self, request: EgressRequest, /) -> EgressResponse:
        """Send this one request, and return its response as it came.

        An implementation must

        - connect to one of `request.addresses`, with `request.host` for TLS and the `Host` header
          (a transport that resolves the name again may reach an address that was not checked);
        - follow no redirect (each is checked first, and comes as a request of its own);
        - let no wait be longer than `request.remaining()` (Python code is not interrupted).

        An exception that it raises ends the call with an `EgressError`, of which it is the cause.
        """


Transport.__module__ = "plugwasm"


class EgressRequest:
    """One request that was checked and may be sent. Each hop of a redirect is one.

    Attributes:
        method: In upper case.
        url: In canonical form, without userinfo and fragment.
        scheme: "http" or "https".
        host: Lower-case ASCII name, or an address (IPv6 without brackets).
        port: 1 to 65535.
        path: Path and query.
        authority: The value for `Host`.
        headers: Those that the guest set and those that the application adds, without those that
            frame a message (`Host`, `Content-Length`, …).
        body: The body, or None.
        addresses: The addresses of the host, all of them checked; empty with
            `Egress(resolve=False)`.
        max_response_bytes: The largest body, decoded, that the guest is given.
        shown: The URL for logs, without its query.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "_remaining",
        "_resolve",
        "addresses",
        "authority",
        "body",
        "headers",
        "host",
        "max_response_bytes",
        "method",
        "path",
        "port",
        "scheme",
        "shown",
        "url",
    )

    def __init__(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        max_response_bytes: int,
        resolve: Callable[[], tuple[str, ...]],
        remaining: Callable[[], float | None],
    ) -> None:
        self.method: str = method
        self.headers: dict[str, str] = dict(headers)
        self.body: bytes | None = body
        self.max_response_bytes: int = max_response_bytes
        self.addresses: tuple[str, ...] = ()
        self.url: str = target.url
        self.scheme: str = target.scheme
        self.host: str = target.host
        self.port: int = target.port
        self.path: str = target.path
        self.authority: str = target.authority
        self.shown: str = target.shown
        self._resolve = resolve
        self._remaining = remaining

    def remaining(self) -> float | None:
        """Return the seconds left to the call, None for no end.

        Raises:
            TimeoutError: Its deadline has passed.
            CancelledError: It was cancelled.
        """
        return self._remaining()

    def resolve(self) -> tuple[str, ...]:
        """Return the checked addresses of the host. They are resolved now if they were not before.

        Raises:
            EgressDeniedError: One of them may not be connected to.
            OSError: The name does not resolve.
        """
        if not self.addresses:
            self.addresses = self._resolve()
        return self.addresses

    def __repr__(self) -> str:
        return f"<EgressRequest {self.method} {self.shown}>"


class EgressResponse:
    """A response as it came: neither redirected nor decoded.

    Args:
        status: 200 to 999.
        headers: By name, or pairs of name and value. They describe `body`: with `Content-Encoding`
            gzip or deflate it is decoded for the guest, so a client that decodes bodies itself must
            drop that header and `Content-Length`.
        body: Bytes; or an object that returns them when it is read (`read(size)`) or iterated, as
            far as the limits allow. If it has a `close`, that is called in any case.
    """

    __module__ = "plugwasm"

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: Body = b"",
    ) -> None:
        self.status: int = status
        self.headers: Mapping[str, str] | Iterable[tuple[str, str]] = headers
        self.body: Body = body

    def read(self) -> bytes:
        """Return the whole body, as it came, e.g. to record it.

        It is used up then, so return another `EgressResponse` in its place.
        """
        try:
            return b"".join(iter_chunks(self.body))
        finally:
            self.close()

    def close(self) -> None:
        """Close the body: no more of it will be read."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()

    def __repr__(self) -> str:
        return f"<EgressResponse {self.status}>"


def iter_chunks(body: Body) -> Iterable[bytes]:
    """Return the parts of a body in the order they come."""
    read = getattr(body, "read", None)
    if read is not None:
        return iter(lambda: read(_CHUNK), b"")
    if isinstance(body, (bytes, bytearray, memoryview)):
        whole = memoryview(body).cast("B")
        return (bytes(whole[start : start + _CHUNK]) for start in range(0, len(whole), _CHUNK))
    return iter(body)  # type: ignore[arg-type]


def request_error(request: EgressRequest, reason: str, *, limit: str | None = None) -> EgressError:
    """Return the error for a request that was sent, or was about to be, and failed."""
    return EgressError(
        f"{request.method} {request.shown} failed: {reason}", reason=reason, limit=limit
    )
