"""The guest's HTTP request document, and the response to it.

The document comes from a guest, so it is read strictly: its size, its fields and their types. The
egress policy decides where it may go and what may be in it.
"""

from __future__ import annotations

from .._payload_bounds.nesting import MAX_LEVELS, is_json_too_deep
from .._payload_bounds.value_count import json_exceeds
from ..errors import EgressError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._http.client import HttpClient, Response
    from .._http.connection import Remaining

__all__ = ["check_document_size", "perform"]

MAX_DOCUMENT = 1 << 20
MAX_VALUES = 1 << 16
_FIELDS = ("url", "method", "headers", "header")  # some PDKs say "header"; Extism hosts take either


def perform(
    request_json: bytes, body: bytes | None, client: HttpClient, remaining: Remaining
) -> Response:
    """Do what a request document (`{"url": …, "method": "GET", "headers": {…}}`) asks for.

    `method` is GET and `headers` empty when they are missing or null.

    Args:
        request_json: UTF-8 JSON. Its size was checked before it was copied
            (`check_document_size`).
        body: The body to send; None and empty are the same. Its size was checked likewise
            (`RequestPolicy.check_body_size`).
        remaining: Gives the seconds left to the call (None: no deadline), raises when it is to end.

    Raises:
        EgressError: The document is not valid (the message names the field), or the request failed.
        EgressDeniedError: Its target is not granted.
    """
    url, method, headers = _parse(request_json)
    return client.send(method, url, headers, body, remaining)


def check_document_size(size: int) -> None:
    """Raise `EgressError` if a request document is too large to be read."""
    if size > MAX_DOCUMENT:
        raise EgressError(
            f"the HTTP request document has {size} bytes, more than the {MAX_DOCUMENT} allowed"
        )


def _parse(request_json: bytes) -> tuple[str, str, dict[str, str]]:
    if is_json_too_deep(request_json):
        raise EgressError(f"the HTTP request document is nested more than {MAX_LEVELS} levels deep")
    if json_exceeds(request_json, MAX_VALUES):
        raise EgressError(f"the HTTP request document has more than {MAX_VALUES} values")
    import msgspec

    try:
        document = msgspec.json.decode(request_json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise EgressError(f"the HTTP request document is not JSON: {exc}") from None
    if not isinstance(document, dict):
        raise _field_error("the document", "an object", document)
    for name in document:
        if name not in _FIELDS:
            raise EgressError(
                f"the HTTP request document has an unknown field {name[:64]!r}; it may have url, "
                "method, headers"
            )
    if "header" in document and "headers" in document:
        raise EgressError("the HTTP request document has both headers and header")

    url = document.get("url")
    if not isinstance(url, str):
        raise _field_error("url", "a string", url)
    method = document.get("method")
    if method is None:
        method = "GET"
    elif not isinstance(method, str):
        raise _field_error("method", "a string", method)
    headers = document.get("headers", document.get("header"))
    if headers is None:
        headers = {}
    elif not isinstance(headers, dict):
        raise _field_error("headers", "an object of strings", headers)
    for name, value in headers.items():
        if not isinstance(value, str):
            raise _field_error(f"headers.{name[:64]!r}", "a string", value)
    return url, method, headers


def _field_error(field: str, expected: str, got: object) -> EgressError:
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "nothing",
    }
    return EgressError(
        f"the HTTP request document: {field}: expected {expected}, got "
        f"{kinds.get(type(got), 'a number')}"
    )
