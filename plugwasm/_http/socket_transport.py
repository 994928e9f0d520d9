"""The transport that is used unless the application has its own: HTTP/1.1 over a socket, one connection for each request.

`http.client` frames messages and `ssl` checks certificates. urllib3's connections are not used because they would resolve the name again,
wait in ways that a deadline cannot interrupt, and log whole URLs when a server's header is malformed.
"""

from __future__ import annotations

import os

from ..errors import OptionError
from .connection import CallClock, connect
from .proxy import ENVIRONMENT, Proxy, select_proxy
from .transport import EgressResponse, request_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    import ssl
    from collections.abc import Callable
    from typing import TypeAlias

    from .connection import Connection
    from .transport import EgressRequest

    Path: TypeAlias = str | os.PathLike[str]
    Certificate: TypeAlias = Path | tuple[Path, Path] | tuple[Path, Path, str]

__all__ = ["MAX_HEAD", "HttpTransport"]

MAX_HEAD = 256 << 10
"""Bytes of the status line and headers of an answer, with the 100s before it."""


class HttpTransport:
    """Sends requests over sockets, to addresses that were vetted. Can be pickled unless it holds an `ssl_context`.

    Args:
        ssl_context: How certificates are checked, and all else about TLS. If not given: by the authorities of the system, TLS 1.2 or later.
        ca_file: A file of certificates (PEM): trust these authorities instead of the system's.
        client_certificate: A file with certificate and key (PEM), or the two files, or these and the key's password. Every server that is
            asked by https may ask for it, and learns its content.
        proxy: "http://host:port", with "user:password@" if it needs them; or "environment" for what the usual variables say. If not given,
            none: the environment is not looked at.

    Raises:
        OptionError: A setting is not valid, or a file cannot be read; the message says which.
    """

    __module__ = "plugwasm"

    __slots__ = ("_context", "_proxy", "_settings")

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: Path | None = None,
        client_certificate: Certificate | None = None,
        proxy: str | None = None,
    ) -> None:
        self._settings = {
            "ssl_context": ssl_context,
            "ca_file": ca_file,
            "client_certificate": client_certificate,
            "proxy": proxy,
        }
        if ssl_context is not None and (ca_file is not None or client_certificate is not None):
            raise OptionError(
                "ssl_context: expected it alone; load ca_file and client_certificate into it"
            )
        self._proxy = proxy if proxy is None or proxy == ENVIRONMENT else Proxy(proxy)
        if ssl_context is not None:
            import ssl

            if not isinstance(ssl_context, ssl.SSLContext):
                raise OptionError(
                    f"ssl_context: expected an ssl.SSLContext, got {type(ssl_context).__name__}"
                )
        self._context = ssl_context
        if ca_file is not None or client_certificate is not None:
            self._context = _tls_context(ca_file, client_certificate)

    def __repr__(self) -> str:
        parts = [
            name for name, value in self._settings.items() if value is not None and name != "proxy"
        ]
        return f"<HttpTransport {' '.join([*parts, *([repr(self._proxy)] if self._proxy else [])])}>".replace(
            " >", ">"
        )

    def __reduce__(self) -> tuple[Callable[[], HttpTransport], tuple[()]]:
        from functools import partial

        return partial(type(self), **self._settings), ()  # type: ignore[arg-type]

    def send(self, request: EgressRequest, /) -> EgressResponse:
        """Send one request over a connection of its own, and give the answer as soon as its headers have come."""
        clock = CallClock(request.remaining)
        proxy = select_proxy(self._proxy, request)
        is_absolute = proxy is not None and request.scheme == "http" and not request.addresses
        if proxy is None:
            wire = connect(clock, request.resolve(), request.port)
        else:
            wire = proxy.connect(clock) if is_absolute else proxy.tunnel(clock, request)
        try:
            if request.scheme == "https":
                wire.start_tls(self._tls(), request.host)
            answer = _converse(wire, request, proxy if is_absolute else None)
        except BaseException:
            wire.hang_up()
            raise
        return EgressResponse(answer.status, answer.headers.items(), _Content(answer, wire))

    def _tls(self) -> ssl.SSLContext:
        """Made when it is first needed."""
        if self._context is None:
            self._context = _tls_context(None, None)
        return self._context


def _tls_context(ca_file: Path | None, certificate: Certificate | None) -> ssl.SSLContext:
    import ssl

    if not (ca_file is None or isinstance(ca_file, (str, os.PathLike))):
        raise OptionError(f"ca_file: expected the path of a file, got {type(ca_file).__name__}")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise OptionError(
            f"ca_file: it holds no certificates that can be read: {exc.strerror or exc}"
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.hostname_checks_common_name = (
        False  # RFC 9525: a certificate names its hosts in `subjectAltName` only
    )
    if certificate is not None:
        file, key, password, *_ = (
            (*certificate, None, None)
            if isinstance(certificate, tuple)
            else (certificate, None, None)
        )
        try:
            context.load_cert_chain(file, key, password or _no_password)
        except (OSError, TypeError, ValueError) as exc:
            why = (
                getattr(exc, "strerror", None)
                or "it is no certificate with its key, or the password is not right"
            )
            raise OptionError(f"client_certificate: it cannot be used: {why}") from None
    return context


def _no_password() -> str:
    return ""  # rather than be asked for one on the terminal


def _converse(
    wire: Connection, request: EgressRequest, proxy: Proxy | None
) -> http.client.HTTPResponse:
    """Sends the request and reads the head of the answer. With a proxy, one that takes requests in absolute form."""
    import http.client

    connection = http.client.HTTPConnection(request.host, request.port)
    connection.auto_open = 0  # only what was vetted is ever connected to
    connection.sock = wire
    headers = {"Host": request.authority, "Connection": "close"}
    if proxy is not None:
        headers.update(proxy.headers)
    encoded = {name: value.encode() for name, value in (headers | request.headers).items()}
    try:
        connection.request(
            request.method,
            request.url if proxy is not None else request.path,
            request.body or None,
            encoded,
        )
    except (BrokenPipeError, ConnectionResetError):
        pass  # a server may answer, and hang up, without reading the whole body
    wire.allowance = wire.received + MAX_HEAD
    answer = connection.getresponse()
    if wire.at_end:  # within the headers, which `http.client` takes for the end of them
        raise request_error(request, "the answer is broken off within its headers")
    if answer.status < 200:
        raise request_error(request, "the server switched to a protocol that was not asked for")
    if proxy is not None and answer.status == 407:
        raise request_error(request, f"the proxy {proxy.authority} asks for credentials")
    # One-byte chunks cost six bytes each; more than eight for one is a stream that goes on without saying anything.
    wire.allowance = wire.received + 8 * request.max_response_bytes + MAX_HEAD
    return answer


class _Content:
    """The body of an answer, and the end of its connection."""

    __slots__ = ("_answer", "_wire")

    def __init__(self, answer: http.client.HTTPResponse, wire: Connection) -> None:
        self._answer = answer
        self._wire = wire

    def read(self, size: int, /) -> bytes:
        return self._answer.read(size)

    def close(self) -> None:
        try:
            self._answer.close()
        finally:
            self._wire.hang_up()
