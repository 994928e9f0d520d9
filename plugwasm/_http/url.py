"""URLs, host names and patterns over them in one canonical form: the form that is checked is the
form that is sent.

Whatever two parsers could read differently (userinfo, backslashes, odd spellings of an address,
zones, escapes in the host) is refused.
"""

from __future__ import annotations

from ..errors import EgressDeniedError, OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = [
    "PORTS",
    "HostRules",
    "InvalidHostEntry",
    "Origin",
    "Target",
    "canonical_host_entry",
    "check_list",
    "is_address",
    "setting_error",
]

PORTS = {"http": 80, "https": 443}
"""The known schemes, and the port of each."""

_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_MAX_URL = 64 << 10
_MAX_AUTHORITY = 1000  # a name has 253 at most, and decoding one that is not ASCII takes long
_MAX_NAME = 253
_MAX_PATTERNS = 1000  # of one list; the longest, matched with the longest name, takes 0.1 ms


class Target:
    """The parts of a URL in canonical form.

    Attributes:
        scheme: "http" or "https".
        host: Lower-case ASCII name without a trailing dot, or an address (IPv6 without brackets).
        port: 1 to 65535.
        path: Path and query as they are sent, without the fragment.
    """

    __slots__ = ("host", "path", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, path: str) -> None:
        self.scheme: str = scheme
        self.host: str = host
        self.port: int = port
        self.path: str = path

    @classmethod
    def parse(cls, url: str) -> Target:
        """Return the target of a URL.

        Raise `EgressDeniedError` if it can be read in more than one way.
        """
        if len(url) > _MAX_URL:
            raise EgressDeniedError(f"the URL is refused: it is longer than {_MAX_URL} characters")
        if " " in url or "\\" in url or not url.isprintable():
            raise EgressDeniedError(
                "the URL is refused: it has a space, a backslash or a character that does not print"
            )
        scheme, separator, rest = url.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in PORTS:
            raise EgressDeniedError(
                "the URL is refused: it does not begin with http:// or https://"
            )
        authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
        if len(authority) > _MAX_AUTHORITY:
            raise EgressDeniedError(
                f"the URL is refused: its host is longer than {_MAX_AUTHORITY} characters"
            )
        if "@" in authority:
            raise EgressDeniedError(
                "the URL is refused: it holds a user name or a password; use a header"
            )
        if "%" in authority:
            raise EgressDeniedError(
                "the URL is refused: its host has a percent sign (an escape, or the zone of an "
                "address)"
            )
        from urllib3.util import parse_url

        try:
            parsed = parse_url(url)
            port = PORTS[scheme] if parsed.port is None else parsed.port
            host = _canonical_host(parsed.host or "")
        except ValueError as error:
            if not authority.isascii():
                why = (
                    "its host name is not ASCII; write it in its ASCII form (xn--…), "
                    "or let the application install `idna`"
                )
            elif type(error) is ValueError:
                why = str(error)
            else:
                why = "its host or port is not valid"
            raise EgressDeniedError(f"the URL is refused: {why}") from None
        if port == 0:
            raise EgressDeniedError("the URL is refused: its port is 0")
        return cls(scheme, host, port, parsed.request_uri)

    @property
    def authority(self) -> str:
        """The `Host` header, with the port only if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def shown(self) -> str:
        """The URL for messages and logs, without the query, which may hold secrets."""
        return self.url.partition("?")[0]

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __repr__(self) -> str:
        return f"<Target {self.shown}>"


class HostRules:
    """The hosts that one list of names, addresses and patterns grants.

    A list comes from a manifest, and a stranger chooses the hosts that are matched with it. So the
    time of a match is bounded when the list is made: by the length of an entry, the number of
    patterns, and matching that never backtracks (`_Pattern`).

    Attributes:
        entries: In canonical form, each once.
        literals: The entries that name one host. Only these grant an address that is not public.
    """

    __slots__ = ("_patterns", "entries", "literals")

    def __init__(self, entries: Iterable[str], setting: str = "allowed_hosts") -> None:
        """Raise `OptionError`, naming the setting, if an entry is not valid."""
        self.entries: tuple[str, ...] = tuple(
            dict.fromkeys(
                _check_entry(entry, setting) for entry in check_list(entries, setting, "host names")
            )
        )
        patterns = [entry for entry in self.entries if "*" in entry or "?" in entry]
        if len(patterns) > _MAX_PATTERNS:
            raise setting_error(
                setting, f"expected at most {_MAX_PATTERNS} patterns, got {len(patterns)}"
            )
        self._patterns = tuple(map(_Pattern, patterns))
        self.literals: frozenset[str] = frozenset(self.entries).difference(patterns)

    def allows(self, host: str) -> bool:
        """Return whether a canonical host is named, or matches a pattern."""
        return host in self.literals or any(pattern.matches(host) for pattern in self._patterns)


class _Pattern:
    """A pattern over host names, as an automaton.

    Bit i of its state is set if the first i characters of the pattern are matched, `*` not counted.
    All ways in which a name may match are followed at once. A name takes one step of integer
    arithmetic for each of its characters, whatever the pattern is.
    """

    __slots__ = ("_any", "_bits", "_end", "_stays")

    def __init__(self, text: str) -> None:
        bit = 1
        self._any = self._stays = 0
        self._bits: dict[str, int] = {}
        for character in text:
            if character == "*":
                self._stays |= bit
                continue
            if character == "?":
                self._any |= bit
            else:
                self._bits[character] = self._bits.get(character, 0) | bit
            bit <<= 1
        self._end = bit

    def matches(self, name: str) -> bool:
        state, of, any_, stays = 1, self._bits.get, self._any, self._stays
        for character in name:
            state = (state & (of(character, 0) | any_)) << 1 | (state & stays)
            if not state:
                return False
        return bool(state & self._end)


class Origin:
    """A scheme, a host or a pattern over hosts, and a port, e.g. `"https://*.example.com:8443"`."""

    __slots__ = ("_hosts", "_port", "_scheme")

    def __init__(self, text: str, setting: str) -> None:
        """Raise `OptionError`, naming the setting, if the text is not an origin."""
        scheme, separator, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
        scheme = scheme.lower()
        if not separator or scheme not in PORTS:
            raise setting_error(
                setting, f"{text!r} is not an origin, such as 'https://api.example.com'"
            )
        host, colon, digits = rest.removesuffix("/").rpartition(":")
        if not colon or rest.endswith("]"):
            host, digits = rest.removesuffix("/"), str(PORTS[scheme])
        if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536):
            raise setting_error(setting, f"{text!r} has no port between 1 and 65535")
        self._scheme = scheme
        self._hosts = HostRules([host], setting)
        self._port = int(digits)

    def matches(self, target: Target) -> bool:
        """Return whether a target has this origin."""
        return (
            target.scheme == self._scheme
            and target.port == self._port
            and self._hosts.allows(target.host)
        )


def check_list(given: Iterable[_T], setting: str, what: str) -> list[_T]:
    """Return what an application passed as a list. Raise `OptionError`, naming the setting, if it
    is none.

    One string is a mistake, although it can be iterated.
    """
    try:
        if not isinstance(given, (str, bytes)):
            return list(given)
    except TypeError:
        pass
    got = "one string" if isinstance(given, str) else type(given).__name__
    raise setting_error(setting, f"expected a list of {what}, got {got}")


def setting_error(setting: str, reason: str) -> OptionError:
    """Return the error for a setting of `Egress` that is not valid."""
    return OptionError(f"{setting}: {reason}", reason=reason)


def is_address(host: str) -> bool:
    """Return whether a canonical host is an address, not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _canonical_host(host: str) -> str:
    """Return a lower-case ASCII name or an address in its one spelling.

    Raise ValueError with the reason.
    """
    if ":" in host or host.startswith("["):
        from ipaddress import IPv6Address

        if "%" in host:
            raise ValueError("an IPv6 address with a zone is not accepted")
        try:
            return str(IPv6Address(host.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise ValueError("that is not an IPv6 address") from None
    host = host.removesuffix(".")
    if not _HOST_CHARACTERS.issuperset(host):
        raise ValueError("a host name has only ASCII letters, digits, '-', '_' and '.'")
    labels = host.split(".")
    if len(host) > _MAX_NAME or not all(0 < len(label) < 64 for label in labels):
        raise ValueError("a label of the host name is empty or too long")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        from ipaddress import IPv4Address

        try:
            return str(IPv4Address(host))
        except ValueError:
            raise ValueError("an IPv4 address must be written as four decimal numbers") from None
    return host


def canonical_host_entry(entry: str) -> str:
    """Return an entry of `allowed_hosts` in its one spelling. Raise `InvalidHostEntry`."""
    if len(entry) > _MAX_AUTHORITY:
        raise InvalidHostEntry(
            f"{entry[:64]!r}…",
            f"is not a host name: it has {len(entry)} characters, more than {_MAX_NAME}",
        )
    text = entry.lower()
    try:
        if not text.isascii():
            text = ".".join(
                label if label.isascii() else _encode_label(label) for label in text.split(".")
            )
        if "*" not in text and "?" not in text:
            return _canonical_host(text)
        text = text.removesuffix(".")
        if not _HOST_CHARACTERS.issuperset(text.replace("*", "").replace("?", "")):
            raise ValueError("a pattern has only the characters of a host name, '*' and '?'")
        if len(text) > _MAX_NAME:
            raise ValueError(f"a pattern has at most {_MAX_NAME} characters, as a host name has")
        return text
    except ValueError as error:
        if "://" in text or "/" in text:
            reason = "is a URL; expected its host alone"
        elif text.count(":") == 1:
            reason = "has a port; expected the host alone (`Egress.ports` says which ports)"
        else:
            reason = f"is not a host name: {error}"
        raise InvalidHostEntry(repr(entry), reason) from None


class InvalidHostEntry(Exception):
    """An entry that is neither a host nor a pattern over hosts.

    Attributes:
        entry: The entry as a message quotes it.
        reason: What is wrong with it, in words that follow the entry.
    """

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(f"{entry} {reason}")
        self.entry = entry
        self.reason = reason


def _check_entry(entry: str, setting: str) -> str:
    if not isinstance(entry, str):
        raise setting_error(setting, f"expected host names, got {entry!r}")
    try:
        return canonical_host_entry(entry)
    except InvalidHostEntry as error:
        raise setting_error(setting, str(error)) from None


def _encode_label(label: str) -> str:
    from urllib3.util import parse_url

    try:
        return parse_url(f"http://{label}/").host or ""
    except ValueError:
        raise ValueError(
            "not encodable; write it in its ASCII form (xn--…), or install `idna`"
        ) from None
