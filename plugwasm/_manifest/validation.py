"""Rules of manifest fields beyond their types: ranges, counts, lengths, the syntax of hosts,
headers and hashes.

Decisions: docs/decisions.md, 36.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .._http.url import InvalidHostEntry, canonical_host_entry
from .download import redact_url
from .messages import field_error, quote

MAX_MODULES: Final = 256
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 64 * 2**10
MAX_CONFIG: Final = 10_000
MAX_HOSTS: Final = 1000
MAX_PATHS: Final = 100
"""The most entries.

A directory takes a descriptor of the process; the others take time and memory.
"""
MAX_LENGTHS: Final = {
    "name": 4096,
    "path": 4096,
    "url": 64 * 2**10,
    "allowed_hosts": 254,
    "allowed_paths": 4100,
}
"""The most characters. A host name has 253, and one more with a dot at its end."""

_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_HEADER_VALUE: Final = frozenset(
    "\t" + "".join(chr(code) for code in (*range(0x20, 0x7F), *range(0x80, 0x100)))
)


def is_encodable(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def check_range(field: str, value: object, maximum: int) -> None:
    if isinstance(value, int) and not 0 <= value <= maximum:
        got = str(value) if abs(value) < 2**128 else "one of more digits"
        raise field_error(field, f"expected an integer from 0 to {maximum}, got {got}")


def check_count(field: str, value: object, most: int, what: str) -> None:
    if isinstance(value, (list, tuple, Mapping)) and len(value) > most:
        raise field_error(field, f"expected at most {most} {what}, got {len(value)}")


def check_host(field: str, entry: str) -> None:
    """Check an entry of `allowed_hosts`. The message repeats it without a password."""
    try:
        canonical_host_entry(entry)
    except InvalidHostEntry as error:
        alone = _host_of(entry)
        hint = f"; write {quote(alone)}" if alone else ""
        raise field_error(
            field,
            "expected the name of a host or a pattern; "
            f"{quote(redact_url(entry))} {error.reason}{hint}",
        ) from None


def _host_of(entry: str) -> str | None:
    """Return the host of a URL, or of a host with a port or a path, if it is valid alone."""
    host = entry.partition("://")[2] or entry
    host = host.partition("/")[0].partition("?")[0].rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if colon and (port.isdigit() or port in ("", "*")):
        host = name
    try:
        canonical_host_entry(host)
    except InvalidHostEntry:
        return None
    return host


def check_paths(paths: Mapping[str, str]) -> None:
    named: dict[str, str] = {}
    for path, guest_path in paths.items():
        for text in (path, guest_path):
            check_length("allowed_paths", text, MAX_LENGTHS["allowed_paths"])
            if isinstance(text, str) and "\0" in text:
                raise field_error(
                    f"allowed_paths[{quote(path)}]",
                    "expected paths, got one with a zero byte, which none has",
                )
        if isinstance(path, str) and not path.removeprefix("ro:"):
            raise field_error(
                f"allowed_paths[{quote(path)}]",
                "expected a directory of the host, got an empty path; the current one is `.`",
            )
        if (
            isinstance(path, str)
            and isinstance(guest_path, str)
            and (first := named.setdefault(guest_path, path)) != path
        ):
            raise field_error(
                f"allowed_paths[{quote(path)}]",
                f"expected another path, got {quote(guest_path)}, which {quote(first)} has already",
            )


def check_length(field: str, value: object, most: int) -> None:
    if isinstance(value, str) and len(value) > most:
        raise field_error(field, f"expected at most {most} characters, got {len(value)}")


def check_total(field: str, values: Mapping[str, str], most: int) -> None:
    size = sum(len(text) for pair in values.items() for text in pair if isinstance(text, str))
    if size > most:
        raise field_error(
            field, f"expected at most {most} characters, names and values together, got {size}"
        )


def check_headers(headers: Mapping[str, str]) -> None:
    check_count("headers", headers, MAX_HEADERS, "headers")
    check_total("headers", headers, MAX_HEADER_BYTES)
    for name, value in headers.items():
        if isinstance(name, str) and not (name and _TOKEN.issuperset(name)):
            raise field_error(
                f"headers[{quote(name)}]",
                "expected the name of an HTTP header, got other characters in it",
            )
        if isinstance(value, str) and not _HEADER_VALUE.issuperset(value):
            raise field_error(
                f"headers[{quote(name)}]",
                "expected Latin-1 text without control characters, got others (not shown)",
            )


def normalize_hash(text: str) -> str:
    if len(text) != 64:
        raise field_error("hash", f"expected 64 hexadecimal digits, got {len(text)} characters")
    if not frozenset("0123456789abcdefABCDEF").issuperset(text):
        raise field_error("hash", "expected 64 hexadecimal digits, got other characters among them")
    return text.lower()
