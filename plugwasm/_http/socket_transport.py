"""The default transport: HTTP/1.1 over a socket, with one connection for each request.

`http.client` frames messages and `ssl` checks certificates. urllib3's connections are not used
because they would resolve the name again, wait in ways that a deadline cannot interrupt, and log
whole URLs when a server's header is malformed.

Decisions: docs/decisions.md, 9.2.
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
"""The most bytes of the status line and headers of a response, with the 1xx responses before it."""


class HttpTransport:
    """Sends requests over sockets, to addresses that were checked. It can be pickled unless it has
    an `ssl_context`.

    Args:
        ssl_context: How certificates are checked, and all else about TLS. If not given: by the
            authorities of the system, TLS 1.2 or later.
        ca_file: A file of certificates (PEM): trust these authorities instead of the system's.
        client_certificate: A file with certificate and key (PEM), or the two files, or these and
            the key's password. Every https server may ask for it, and learns its content.
        proxy: "http://host:port", with "user:password@" if it needs them; or "environment" for the
            one that the usual variables name. If not given, none: the environment is not read.

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
        if self._proxy:
            parts.append(repr(self._proxy))
        return f"<{' '.join(['HttpTransport', *parts])}>"

    def __reduce__(self) -> tuple[Callable[[], HttpTransport], tuple[()]]:
        from functools import partial

        return partial(type(self), **self._settings), ()  # type: ignore[arg-type]

    def send(self, request: EgressRequest, /) -> EgressResponse:
        """Send one request over a connection of its own, and return the response once its headers
        have come.
        """
        clock = CallClock(request.remaining)
        proxy = select_proxy(self._proxy, request)
        is_absolute = proxy is not None and request.scheme == "http" and not request.addresses
        if proxy is None:
            connection = connect(clock, request.resolve(), request.port)
        else:
            connection = proxy.connect(clock) if is_absolute else proxy.tunnel(clock, request)
        try:
            if request.scheme == "https":
                connection.start_tls(self._tls(), request.host)
            answer = _send_and_read_head(connection, request, proxy if is_absolute else None)
        except BaseException:
            connection.disconnect()
            raise
        return EgressResponse(answer.status, answer.headers.items(), _Content(answer, connection))

    def _tls(self) -> ssl.SSLContext:
        """Return the TLS context, made when it is first needed."""
        if self._context is None:
            self._context = _tls_context(None, None)
        return self._context


def _tls_context(ca_file: Path | None, certificate: Certificate | None) -> ssl.SSLContext:
    import ssl

    if not (ca_file is None or isinstance(ca_file, (str, os.PathLike))):
        raise OptionError(f"ca_file: expected the path of a file, got {type(ca_file).__name__}")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise OptionError(
            f"ca_file: it holds no certificates that can be read: {error.strerror or error}"
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    # RFC 9525: a certificate names its hosts in `subjectAltName` only.
    context.hostname_checks_common_name = False
    if certificate is not None:
        file, key, password, *_ = (
            (*certificate, None, None)
            if isinstance(certificate, tuple)
            else (certificate, None, None)
        )
        try:
            context.load_cert_chain(file, key, password or _no_password)
        except (OSError, TypeError, ValueError) as error:
            why = (
                getattr(error, "strerror", None)
                or "it is no certificate with its key, or the password is not right"
            )
            raise OptionError(f"client_certificate: it cannot be used: {why}") from None
    return context


def _no_password() -> str:
    return ""  # else OpenSSL asks for one on the terminal


def _send_and_read_head(
    connection: Connection, request: EgressRequest, proxy: Proxy | None
) -> http.client.HTTPResponse:
    """Send the request and read the head of the response.

    `proxy` is one that takes requests in absolute form, or None.
    """
    import http.client

    http_connection = http.client.HTTPConnection(request.host, request.port)
    http_connection.auto_open = 0  # only checked addresses are ever connected to
    http_connection.sock = connection
    headers = {"Host": request.authority, "Connection": "close"}
    if proxy is not None:
        headers.update(proxy.headers)
    encoded = {name: value.encode() for name, value in (headers | request.headers).items()}
    try:
        http_connection.request(
            request.method,
            request.url if proxy is not None else request.path,
            request.body or None,
            encoded,
        )
    except (BrokenPipeError, ConnectionResetError):
        pass  # a server may answer, and close the connection, without reading the whole body
    connection.allowance = connection.received + MAX_HEAD
    answer = http_connection.getresponse()
    if (
        connection.at_end
    ):  # `http.client` takes an end within the headers for the end of the headers
        raise request_error(request, "the answer is broken off within its headers")
    if answer.status < 200:
        raise request_error(request, "the server switched to a protocol that was not asked for")
    if proxy is not None and answer.status == 407:
        raise request_error(request, f"the proxy {proxy.authority} asks for credentials")
    # One-byte chunks cost six bytes each; more than eight for one is a stream that goes on without
    # content.
    connection.allowance = connection.received + 8 * request.max_response_bytes + MAX_HEAD
    return answer


class _Content:
    """The body of a response; closing it closes the connection."""

    __slots__ = ("_answer", "_connection")

    def __init__(self, answer: http.client.HTTPResponse, connection: Connection) -> None:
        self._answer = answer
        self._connection = connection

    def read(self, size: int, /) -> bytes:
        return self._answer.read(size)

    def close(self) -> None:
        try:
            self._answer.close()
        finally:
            self._connection.disconnect()
