"""A module from a URL: fetched whole, within a limit on its size and on the time that all of it takes.

The application chose the URL, so it may lie anywhere; what the server answers is only believed as far as the limits go. No message
repeats the parts of a URL that may be secret, nor a header.
"""

from __future__ import annotations

from plugwasm.errors import SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

FETCH_SECONDS: Final = 30.0
MAX_REDIRECTS: Final = 5


def shown_url(url: str) -> str:
    """``url`` without what may be secret in it: user, password, query and fragment."""
    scheme, separator, rest = url.partition("://")
    address = rest.partition("#")[0]
    address, query, _ = address.partition("?")
    host, slash, path = address.partition("/")
    host = host.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if colon and not host.endswith("]") and not port.isdigit():
        host = f"{name}:…"
    shown = f"{scheme}{separator}{host}{slash}{path}{query and '?…'}"
    printable = shown if shown.isprintable() else ascii(shown)
    return printable if len(printable) <= 300 else f"{printable[:300]}… ({len(shown)} characters)"


def fetch(
    url: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    *,
    limit: int,
    seconds: float = FETCH_SECONDS,
) -> bytes:
    """The body at ``url``, at most ``limit`` bytes of it, within ``seconds`` for all of it, else ``SourceError``.

    At most five redirects are followed, never from https to http; ``headers`` go to the first origin only.
    """
    import threading

    # Neither a name lookup nor a server that drips header bytes can be given a total time limit from inside, so it runs aside.
    download = _Download(url, headers or {}, method, seconds, limit)
    worker = threading.Thread(target=download.run, name="plugwasm-fetch", daemon=True)
    worker.start()
    try:
        worker.join(seconds)
    finally:
        late = worker.is_alive()
        if late:
            download.abandon()
    if late:
        raise _too_slow(url, seconds)
    if download.error is not None:
        raise download.error
    return download.body


def _too_slow(url: str, seconds: float) -> SourceError:
    return SourceError(f"cannot fetch {shown_url(url)}: it took longer than {seconds:g} seconds")


class _Download:
    """One download on a thread of its own, and the connections by which another thread can end it."""

    def __init__(self, url: str, headers: Mapping[str, str], method: str, seconds: float, limit: int) -> None:
        self.url = url
        self.headers = headers
        self.method = method
        self.seconds = seconds
        self.limit = limit
        self.body = b""
        self.error: BaseException | None = None
        self.connections: list[Any] = []
        self.sockets: list[Any] = []
        self.abandoned = False

    def abandon(self) -> None:
        import socket

        self.abandoned = True
        for sock in [connection.sock for connection in self.connections] + self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except (OSError, AttributeError):
                pass

    def run(self) -> None:
        from http.client import HTTPException

        from urllib3.exceptions import HTTPError, LocationParseError, ReadTimeoutError

        try:
            self.body = self._follow()
        except SourceError as error:
            self.error = error
        except (LocationParseError, HTTPException, ValueError):
            # Their messages repeat the URL or a header, and either may hold a secret.
            self.error = SourceError(f"cannot fetch {shown_url(self.url)}: the URL, a header or the answer is malformed")
        except (ReadTimeoutError, TimeoutError):
            self.error = _too_slow(self.url, self.seconds)
        except (HTTPError, OSError) as error:
            self.error = SourceError(f"cannot fetch {shown_url(self.url)}: {error}")
        except BaseException as error:
            self.error = error

    def _follow(self) -> bytes:
        from urllib.parse import urljoin

        from urllib3 import HTTPHeaderDict
        from urllib3.util import parse_url

        url, method = self.url, self.method
        headers = HTTPHeaderDict({"Accept-Encoding": "identity", "User-Agent": "plugwasm"})
        plain_headers = headers.copy()
        for name, value in self.headers.items():
            headers[name] = value
        for _ in range(MAX_REDIRECTS + 1):
            status, location, body = self._request(method, url, headers)
            if location is None:
                if status != 200:
                    raise SourceError(f"cannot fetch {shown_url(url)}: the server answered with status {status}")
                return body
            before, url = parse_url(url), urljoin(url, location)
            after = parse_url(url)
            if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme == "http"):
                raise SourceError(f"cannot fetch {shown_url(self.url)}: it redirects from {before.scheme} to {after.scheme}")
            if (before.scheme, before.host, before.port) != (after.scheme, after.host, after.port):
                headers = plain_headers
            if status == 303 or (status in (301, 302) and method == "POST"):
                method = "GET"
        raise SourceError(f"cannot fetch {shown_url(self.url)}: more than {MAX_REDIRECTS} redirects")

    def _request(self, method: str, url: str, headers: Any) -> tuple[int, str | None, bytes]:
        from urllib3 import Timeout, connection_from_url
        from urllib3.util import parse_url

        secure: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED"} if parse_url(url).scheme == "https" else {}
        download = self
        with connection_from_url(url, timeout=Timeout(self.seconds), **secure) as pool:

            class Tracked(pool.ConnectionCls):  # type: ignore[name-defined,misc]
                def __str__(self) -> str:  # what urllib3 begins its messages with
                    return f"{self.host}:{self.port}"

                def connect(self) -> None:
                    download.connections.append(self)
                    super().connect()
                    # The connection forgets its socket when an answer has no length, so it is kept here.
                    download.sockets.append(self.sock)
                    if download.abandoned:
                        self.close()
                        raise OSError("abandoned")

            pool.ConnectionCls = Tracked
            answer = pool.urlopen(method, parse_url(url).request_uri, headers=headers, redirect=False, retries=False, preload_content=False)
            try:
                if answer.status in (301, 302, 303, 307, 308) and "location" in answer.headers:
                    return answer.status, answer.headers["location"], b""
                return answer.status, None, self._body(url, answer) if answer.status == 200 else b""
            finally:
                answer.close()

    def _body(self, url: str, answer: Any) -> bytes:
        body = bytearray()
        if int(answer.headers.get("content-length", 0)) <= self.limit:
            for chunk in answer.stream(65536):
                body += chunk
                if len(body) > self.limit:
                    break
            else:
                return bytes(body)
        raise SourceError(f"cannot fetch {shown_url(url)}: it is larger than the limit of {self.limit} bytes")
