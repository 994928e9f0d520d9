"""Downloads a module from a URL, within a limit on its size and on the whole time.

A download is a request of the host that a manifest asks for. So it is checked and sent like a
request of a guest (`_http.client`):

1. With the application's `Egress`, it goes only where that grants, by its rules about addresses,
   ports and schemes, over its transport.
2. Without one, the manifest counts as the application's own: any public host may be asked. An
   address that is not public is reached if the URL has it literally, or as "localhost", or (but no
   link-local one) by a name of one label, such as that of a container. No other name leads to one,
   and no redirect.
3. It has only headers that a guest could set. They stay with the first origin.

No message repeats the parts of a URL that may be secret, a header, or anything of the response.

Decisions: docs/decisions.md, 29.5 and 29.6.
"""

from __future__ import annotations

from ..errors import SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, NoReturn

    from .._http.egress import Egress
    from ..errors import EgressError

DOWNLOAD_SECONDS: Final = 30.0


def redact_url(url: str) -> str:
    """Return a URL without what may be secret: user, password, query and fragment."""
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


def download_module(
    url: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    *,
    limit: int,
    seconds: float = DOWNLOAD_SECONDS,
    egress: Egress | None = None,
) -> bytes:
    """Return the body at a URL.

    At most five redirects are followed, never from https to http.

    Args:
        url: May have a user and a password.
        headers: Are sent to the first origin only.
        method: "GET" or "POST".
        limit: The most bytes.
        seconds: For all of it.
        egress: The application's, if any.

    Raises:
        SourceError: It cannot be downloaded, is too large, or takes too long.
    """
    from time import monotonic

    from .._http.client import HttpClient
    from .._http.egress import Egress
    from .._http.url import Target
    from ..errors import EgressError

    end = monotonic() + seconds

    def remaining() -> float:
        left = end - monotonic()
        if left <= 0:
            raise SourceError(
                f"cannot fetch {redact_url(url)}: it took longer than {seconds:g} seconds (timeout)"
            )
        return left

    try:
        address, credentials = _without_userinfo(url)
        client = HttpClient.for_download(egress or Egress(), Target.parse(address).host, limit)
        answer = client.send(
            method,
            address,
            credentials | dict(headers or {}),
            None,
            remaining,
            private_headers=True,
        )
    except EgressError as error:
        _raise_source_error(url, error, limit, egress)
    if answer.status != 200:
        raise SourceError(
            f"cannot fetch {redact_url(url)}: the server answered with status {answer.status}"
        )
    return answer.body


def _without_userinfo(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without user and password, and these as a header."""
    scheme, separator, rest = url.partition("://")
    authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    userinfo, at, host = authority.rpartition("@")
    if not at:
        return url, {}
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes

    user, _, password = userinfo.partition(":")
    encoded = b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
    return f"{scheme}{separator}{host}{rest[len(authority) :]}", {
        "Authorization": f"Basic {encoded}"
    }


def _raise_source_error(
    url: str, error: EgressError, limit: int, egress: Egress | None
) -> NoReturn:
    """Raise the ``SourceError`` for a download that failed."""
    import ssl

    from ..errors import EgressDeniedError

    reason = error.reason or error.message
    cause = error.__cause__
    if error.limit == "max_response_bytes":
        reason = f"it is larger than the limit of {limit} bytes"
    elif isinstance(cause, ssl.SSLError) and cause.reason:
        reason += f" ({cause.reason})"
    elif isinstance(error, EgressDeniedError):
        reason += (
            "; what a manifest makes the host fetch is judged by the application's `egress`"
            if egress is not None
            else "; to fetch modules from inside, pass an `egress` that grants it"
        )
    raise SourceError(f"cannot fetch {redact_url(url)}: {reason}") from cause
