"""The headers of a request and of its answer: what a guest may say, what the application adds, what the guest is shown.

Names are compared as many a server reads them: without regard to case, and with "_" for "-". Otherwise a guest could say `X_Tenant` where
the application says `X-Tenant`, and a CGI-like server behind would not know which of them to believe.
"""

from __future__ import annotations

from ..errors import EgressError, OptionError
from .url import Origin, check_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .url import Target

__all__ = ["BODY_HEADERS", "CREDENTIALS", "HeaderRules", "is_token", "merge_headers"]

CREDENTIALS = frozenset({"authorization", "cookie"})
"""What a guest says to one origin and not to the next."""

BODY_HEADERS = frozenset(
    {"content-type", "content-encoding", "content-language", "content-location"}
)
"""What describes a body, and goes with it."""

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
    """What an application says about headers.

    Attributes:
        added: By origin as it was written, the headers that the application adds.
        allowed: The names that a guest may set; None for all but those of the framing.
        denied: The names that it may not.
        hidden: The names of an answer's headers that it is not shown.
    """

    __slots__ = ("_origins", "added", "allowed", "denied", "hidden")

    def __init__(
        self,
        added: Mapping[str, Mapping[str, str]] | None,
        allowed: Iterable[str] | None,
        denied: Iterable[str],
        hidden: Iterable[str],
    ) -> None:
        """Raises OptionError, naming the setting."""
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
            raise OptionError(
                "added_headers: expected headers by origin, {'https://api.example.com': {'Authorization': …}}"
            ) from None
        for text, headers in given.items():
            setting = f"added_headers[{text!r}]"
            try:
                checked = _check_headers(headers)
            except _InvalidHeader as error:
                raise OptionError(f"{setting}: {error}") from None
            self._origins.append((Origin(text, "added_headers"), checked))
            self.added[text] = checked

    def check(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of a guest, if they are its to set. Raises EgressError."""
        for name in headers:
            if _key(name) in self.denied or (
                self.allowed is not None and _key(name) not in self.allowed
            ):
                raise EgressError(
                    f"headers: {name[:64]!r} is not the guest's to set: the application does not allow it"
                )
        try:
            return _check_headers(headers)
        except _InvalidHeader as error:
            raise EgressError(f"headers: {error}") from None

    def added_for(self, target: Target) -> dict[str, str]:
        """What the application adds to a request for this target."""
        return {
            name: value
            for origin, headers in self._origins
            if origin.matches(target)
            for name, value in headers.items()
        }

    def visible_headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The headers of an answer as a guest sees them: by lower-case name, repeated ones joined, folded ones on one line."""
        shown: dict[str, str] = {}
        for name, value in headers:
            key = name.lower()
            if _key(name) in self.hidden:
                continue
            if "\n" in value or "\r" in value:
                value = " ".join(value.replace("\r", "\n").replace("\n", " ").split())
            shown[key] = f"{shown[key]}, {value}" if key in shown else value
        return shown


def is_token(text: str) -> bool:
    """Whether this can be a method or the name of a header."""
    return bool(text) and text.isascii() and _TOKEN_CHARACTERS.issuperset(text.lower())


def merge_headers(headers: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    """Both, where a name of `finished` wins, however it is written."""
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
            raise OptionError(f"{setting}: {name!r} is not a header name")
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
            raise _InvalidHeader(f"{name[:64]} is not the guest's to set")
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
