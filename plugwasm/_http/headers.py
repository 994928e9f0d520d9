"""The headers of requests and responses: which a guest may set, which the application adds, which
the guest is shown.

Names are compared as many servers read them: without regard to case, and with "_" for "-".
Otherwise a guest could set `X_Tenant` where the application sets `X-Tenant`, and a CGI-like server
would not know which of them to believe.
"""

from __future__ import annotations

from ..errors import EgressError
from .url import Origin, check_list, setting_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .url import Target

__all__ = ["BODY_HEADERS", "CREDENTIALS", "HeaderRules", "is_token", "merge_headers"]

CREDENTIALS = frozenset({"authorization", "cookie"})
"""The headers of a guest that stay with their origin."""

BODY_HEADERS = frozenset(
    {"content-type", "content-encoding", "content-language", "content-location"}
)
"""The headers that describe a body, and are dropped with it."""

_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_FRAMING = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
    }
)
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 64 << 10


class HeaderRules:
    """An application's rules about headers.

    Attributes:
        added: The headers that the application adds, by origin as it was written.
        allowed: The names that a guest may set; None for all but those that frame a message.
        denied: The names that it may not set.
        hidden: The names of response headers that it is not shown.
    """

    __slots__ = ("_origins", "added", "allowed", "denied", "hidden")

    def __init__(
        self,
        added: Mapping[str, Mapping[str, str]] | None,
        allowed: Iterable[str] | None,
        denied: Iterable[str],
        hidden: Iterable[str],
    ) -> None:
        """Raise `OptionError`, naming the setting, if a value is not valid."""
        self.allowed: frozenset[str] | None = (
            None if allowed is None else _names(allowed, "allowed_headers")
        )
        self.denied: frozenset[str] = _names(denied, "denied_headers")
        self.hidden: frozenset[str] = _names(hidden, "hidden_headers")
        self.added: dict[str, dict[str, str]] = {}
        self._origins: list[tuple[Origin, dict[str, str]]] = []
        try:
            given = {origin: dict(headers) for origin, headers in (added or {}).items()}
        except (AttributeError, TypeError, ValueError):
            raise setting_error(
                "added_headers",
                "expected headers by origin, {'https://api.example.com': {'Authorization': …}}",
            ) from None
        for text, headers in given.items():
            setting = f"added_headers[{text!r}]"
            try:
                checked = _check_headers(headers)
            except _InvalidHeader as error:
                raise setting_error(setting, str(error)) from None
            self._origins.append((Origin(text, "added_headers"), checked))
            self.added[text] = checked

    def check(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that a guest sets. Raise `EgressError` if it may not set one."""
        for name in headers:
            if _key(name) in self.denied or (
                self.allowed is not None and _key(name) not in self.allowed
            ):
                raise EgressError(
                    f"headers: the guest may not set {name[:64]!r}: the application does not allow "
                    "it"
                )
        try:
            return _check_headers(headers)
        except _InvalidHeader as error:
            raise EgressError(f"headers: {error}") from None

    def added_for(self, target: Target) -> dict[str, str]:
        """Return the headers that the application adds to a request for this target."""
        return {
            name: value
            for origin, headers in self._origins
            if origin.matches(target)
            for name, value in headers.items()
        }

    def visible_headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the headers of a response as a guest sees them.

        Names are in lower case, repeated headers joined, folded ones on one line.
        """
        visible: dict[str, str] = {}
        for name, value in headers:
            key = name.lower()
            if _key(name) in self.hidden:
                continue
            if "\n" in value or "\r" in value:
                value = " ".join(value.replace("\r", "\n").replace("\n", " ").split())
            visible[key] = f"{visible[key]}, {value}" if key in visible else value
        return visible


def is_token(text: str) -> bool:
    """Return whether a text can be a method or the name of a header."""
    return bool(text) and text.isascii() and _TOKEN_CHARACTERS.issuperset(text.lower())


def merge_headers(headers: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """Return both; a name of `over` wins, in any spelling."""
    names = {_key(name) for name in over}
    return {name: value for name, value in headers.items() if _key(name) not in names} | dict(over)


class _InvalidHeader(ValueError):
    """A header that neither a guest nor an application may set; its text says why."""


def _key(name: str) -> str:
    return name.lower().replace("_", "-")


def _names(names: Iterable[str], setting: str) -> frozenset[str]:
    given = check_list(names, setting, "header names")
    for name in given:
        if not isinstance(name, str) or not is_token(name):
            raise setting_error(setting, f"{name!r} is not a header name")
    return frozenset(map(_key, given))


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    checked: dict[str, str] = {}
    seen: set[str] = set()
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not is_token(name):
            raise _InvalidHeader(f"{str(name)[:64]!r} is not a header name")
        key = _key(name)
        if key in _FRAMING or key.partition("-")[0] == "proxy":  # `Proxy` is `HTTP_PROXY` to a CGI
            raise _InvalidHeader(f"{name[:64]} may not be set")
        if key in seen:
            raise _InvalidHeader(f"{name[:64]} is given twice")
        try:
            text = value.strip(" \t")
            encoded = text.encode()
        except (UnicodeEncodeError, AttributeError):
            raise _InvalidHeader(f"the value of {name[:64]} is not text") from None
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in encoded):
            raise _InvalidHeader(
                f"the value of {name[:64]} has a line break or another control character"
            )
        seen.add(key)
        checked[name] = text
        size += len(name) + len(encoded) + 4
    if len(checked) > _MAX_HEADERS or size > _MAX_HEADER_BYTES:
        raise _InvalidHeader(f"more than {_MAX_HEADERS} of them, or than {_MAX_HEADER_BYTES} bytes")
    return checked
