"""What a plugin may reach by HTTP: the policy that judges where a request goes, by its URL and then by its addresses.

1. Nothing is reachable unless `allowed_hosts` grants its host: the manifest's, and the application's where it has one.
2. A URL is parsed once. The canonical form that was judged is the form that is sent (`target`).
3. A name is resolved once. Every address it has must be public (`addresses`), and the address that was vetted is the one connected to.
   An address that is not public is reachable only where `allowed_hosts` names it literally ("localhost" names loopback), or where
   `private_addresses` has a network around it.

`client` sends what was judged here; rules 4 to 6 stand there.
"""

from __future__ import annotations

from ..errors import EgressDeniedError, EgressError, ManifestError, OptionError
from .addresses import Networks, why_not_public
from .headers import HeaderRules, is_token
from .rate_limit import RateLimiter
from .request_owner import RequestOwner
from .socket_transport import HttpTransport
from .url import PORTS, HostRules, Target, check_list, is_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from typing import Any, NoReturn

    from .socket_transport import Certificate, Path
    from .transport import Transport

__all__ = ["Egress"]

_MIB = 1 << 20
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_MAX_RESPONSE = 50 * _MIB
_METHODS_OF_MODULES = ("GET", "POST")
_MOST_HOPS_OF_MODULE = 5
_LOOPBACK = {"localhost": ("127.0.0.1", "::1")}
_INSIDE = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
_NEVER = frozenset(
    {"CONNECT", "TRACE"}
)  # a tunnel to anywhere; an echo of headers that the guest must not see


class Egress:
    """What plugins may reach by HTTP, and how. Immutable. All that is not said here is as safe as it can be.

    The manifest says which hosts a plugin reaches; this object says so for the application, and what it does not grant, no manifest can.
    Plugins that share one object share its limits in number and rate. Can be pickled if `ssl_context` and `transport` can.

    Args:
        allowed_hosts: Host names, addresses, or patterns over them in which `*` stands for any run of characters (dots too) and `?` for
            one. Case and a trailing dot do not matter; Unicode names need the `idna` package. An entry has no scheme, port or path. If
            given, a host must be granted by both this list and the manifest's; if not, the manifest decides.
        schemes: "http", "https" or both.
        ports: Numbers and ranges (`range(8000, 9000)`). If not given, all.
        methods: In upper case; other than the usual ones may be named, but not CONNECT or TRACE.
        private_addresses: Networks ("10.0.0.0/8") and addresses that granted hosts may have although they are not public. The addresses of
            metadata services, and link-local ones, must be named one by one.
        max_redirects: How many are followed, each judged like a first request. 0: a redirect is given to the plugin as it is.
        max_request_bytes: The largest body that a plugin may send.
        max_response_bytes: The largest body, decoded, that a plugin is given, unless the manifest wants less. 50 MiB if neither says.
        added_headers: Headers by origin (`{"https://api.example.com": {"Authorization": "Bearer …"}}`; the host may be a pattern). They
            replace the plugin's own, are never shown to it, and are not sent any more once a redirect has led to another origin.
        allowed_headers: The names that a plugin may set. If not given, all but those that frame a message (`Host`, `Content-Length`, …).
        denied_headers: Names that it may not set.
        hidden_headers: The names of an answer's headers that it is not shown.
        max_concurrent: How many requests may be under way, of all plugins that share this object in one process. A plugin waits for its
            turn within its deadline, or half a minute when it has none. Plugins take turns; once there are two, none has all places.
        max_per_second: How many may start in any second, redirects included; the same holds.
        ssl_context, ca_file, client_certificate, proxy: See `HttpTransport`.
        resolve: Whether names are resolved, and their addresses vetted, before the transport is asked. False leaves that to a proxy or to
            the transport; then names are judged, and addresses only where a URL has one.
        transport: What carries requests instead of `HttpTransport`.

    Raises:
        OptionError: A setting is not valid; the message says which.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "_base",
        "_headers",
        "_inside",
        "_limit_of_manifest",
        "_networks",
        "_owner",
        "_rules",
        "_settings",
        "allowed_hosts",
        "max_redirects",
        "max_request_bytes",
        "max_response_bytes",
        "methods",
        "ports",
        "rate_limiter",
        "resolve",
        "schemes",
        "transport",
    )

    allowed_hosts: tuple[str, ...] | None
    schemes: tuple[str, ...]
    ports: tuple[int | range, ...] | None
    methods: tuple[str, ...]
    max_redirects: int
    max_request_bytes: int
    max_response_bytes: int
    resolve: bool
    transport: Transport
    rate_limiter: RateLimiter
    _settings: dict[str, Any]
    _headers: HeaderRules
    _inside: str | None
    _networks: Networks
    _owner: RequestOwner
    _rules: tuple[HostRules, ...]
    _base: Egress | None
    _limit_of_manifest: int | None

    def __init__(
        self,
        *,
        allowed_hosts: Sequence[str] | None = None,
        schemes: Iterable[str] = ("http", "https"),
        ports: Iterable[int | range] | None = None,
        methods: Iterable[str] = _METHODS,
        private_addresses: Sequence[str] = (),
        max_redirects: int = 10,
        max_request_bytes: int = 50 * _MIB,
        max_response_bytes: int | None = None,
        added_headers: Mapping[str, Mapping[str, str]] | None = None,
        allowed_headers: Iterable[str] | None = None,
        denied_headers: Iterable[str] = (),
        hidden_headers: Iterable[str] = (),
        max_concurrent: int | None = None,
        max_per_second: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: Path | None = None,
        client_certificate: Certificate | None = None,
        proxy: str | None = None,
        resolve: bool = True,
        transport: Transport | None = None,
    ) -> None:
        for name, limit, least in (
            ("max_redirects", max_redirects, 0),
            ("max_request_bytes", max_request_bytes, 0),
            ("max_response_bytes", max_response_bytes, 0),
            ("max_concurrent", max_concurrent, 1),
            ("max_per_second", max_per_second, 1),
        ):
            is_optional = name not in ("max_redirects", "max_request_bytes")
            if not (is_optional and limit is None) and (
                not isinstance(limit, int) or isinstance(limit, bool) or limit < least
            ):
                raise OptionError(f"{name}: expected a number of at least {least}, got {limit!r}")
        if not isinstance(resolve, bool):
            raise OptionError(f"resolve: expected True or False, got {resolve!r}")
        rules = None if allowed_hosts is None else HostRules(allowed_hosts)
        networks = Networks(private_addresses, "private_addresses")
        headers = HeaderRules(added_headers, allowed_headers, denied_headers, hidden_headers)
        wire = {
            "ssl_context": ssl_context,
            "ca_file": ca_file,
            "client_certificate": client_certificate,
            "proxy": proxy,
        }
        if transport is not None:
            if not callable(getattr(transport, "send", None)):
                raise OptionError(
                    f"transport: expected an object with a method `send`, got {type(transport).__name__}"
                )
            for name in [name for name, value in wire.items() if value is not None]:
                raise OptionError(
                    f"{name}: it is for the transport to know, and the application has its own"
                )
        public: dict[str, Any] = {
            "allowed_hosts": None if rules is None else rules.entries,
            "schemes": _words(schemes, "schemes", PORTS.__contains__, "http and https"),
            "ports": None if ports is None else _ports(ports),
            "methods": _words(
                methods, "methods", _is_method, "methods in upper case, but not CONNECT and TRACE"
            ),
            "max_redirects": max_redirects,
            "max_request_bytes": max_request_bytes,
            "max_response_bytes": max_response_bytes,
            "resolve": resolve,
            "transport": transport,
        }
        settings = public | {
            "private_addresses": networks.entries,
            "added_headers": headers.added,
            "allowed_headers": headers.allowed,
            "denied_headers": headers.denied,
            "hidden_headers": headers.hidden,
            "max_concurrent": max_concurrent,
            "max_per_second": max_per_second,
        }
        self._set(
            **public,
            _settings=settings | wire,
            _headers=headers,
            _networks=networks,
            _base=None,
            _limit_of_manifest=None,
        )
        self._set(
            _owner=RequestOwner(),
            _inside=None,
            _rules=() if rules is None else (rules,),
            rate_limiter=RateLimiter(max_concurrent, max_per_second),
        )
        self._set(transport=HttpTransport(**wire) if transport is None else transport)  # type: ignore[arg-type]
        self._set(
            max_response_bytes=_MAX_RESPONSE if max_response_bytes is None else max_response_bytes
        )

    def for_manifest(
        self, allowed_hosts: Sequence[str], max_response_bytes: int | None = None
    ) -> Egress:
        """This policy for the plugin of a manifest: it reaches what both grant.

        The smaller limit holds (None: the manifest has none). What is returned shares this object's limits in number and rate.

        Raises:
            ManifestError: An entry is not valid; the message says which.
        """
        try:
            rules = HostRules(allowed_hosts)
        except OptionError as exc:
            raise ManifestError(exc.message, field="allowed_hosts") from None
        known = [
            limit for limit in (self._limit_of_manifest, max_response_bytes) if limit is not None
        ]
        own: int | None = self._settings["max_response_bytes"]
        derived = object.__new__(type(self))
        derived._set(**{name: getattr(self, name) for name in self.__slots__})
        derived._set(
            _base=self,
            _rules=(*self._rules, rules),
            allowed_hosts=rules.entries,
            _limit_of_manifest=min(known, default=None),
        )
        derived._set(
            max_response_bytes=min(known if own is None else [own, *known], default=_MAX_RESPONSE),
            _owner=RequestOwner(),
        )
        return derived

    def for_owner(self, owner: RequestOwner) -> Egress:
        """This policy for requests of this owner."""
        derived = object.__new__(type(self))
        derived._set(**{name: getattr(self, name) for name in self.__slots__} | {"_owner": owner})
        return derived

    def for_module(self, host: str, max_bytes: int) -> Egress:
        """This policy for the download of a module from a host that a manifest names, as `fetch` does it.

        The application's `allowed_hosts` decide where it has some. Else any host is granted, and `host` by its name; where that is one
        label, and so no name of the Internet, it may have a private address. A download is a GET or a POST, has the limits in number and
        rate of this object, but a limit of its own on the size.
        """
        derived = self.for_owner(RequestOwner(("download", host)))
        rules = self._rules
        if not rules:
            rules = (HostRules(["*", host, *_LOOPBACK.get(host, ())]),)
            derived._set(_inside=host if "." not in host and ":" not in host else None)
        derived._set(
            _rules=rules,
            max_response_bytes=max_bytes,
            max_redirects=min(self.max_redirects, _MOST_HOPS_OF_MODULE),
        )
        derived._set(
            methods=tuple(method for method in self.methods if method in _METHODS_OF_MODULES)
        )
        return derived

    @property
    def owner(self) -> RequestOwner:
        """Whose requests these are, where plugins share something: the queue of `gate`, the lookups of names."""
        return self._owner

    def replace(self, **changes: Any) -> Egress:
        """The same with other values for some. It has limits in number and rate of its own."""
        if self._base is not None:
            return self._base.replace(**changes).for_manifest(
                self.allowed_hosts or (), self._limit_of_manifest
            )
        return type(self)(**self._settings | changes)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"an Egress cannot be changed; make another with `egress.replace({name}=…)`"
        )

    def __repr__(self) -> str:
        defaults = type(self).__init__.__kwdefaults__ or {}
        changed = {
            name: value
            for name, value in self._settings.items()
            if value != defaults[name] and value not in (frozenset(), {})
        }
        parts = [f"{name}={_shown(name, value)}" for name, value in changed.items()]
        if self._base is not None:
            parts.append(f"manifest={list(self.allowed_hosts or ())!r}")
        return f"Egress({', '.join(parts)})"

    def __reduce__(self) -> tuple[Callable[..., Egress], tuple[Any, ...]]:
        from functools import partial

        if self._base is not None:
            return type(self).for_manifest, (
                self._base,
                self.allowed_hosts,
                self._limit_of_manifest,
            )
        return partial(type(self), **self._settings), ()

    # ---- judging ------------------------------------------------------------------------------------------------------------------

    def judge(self, url: str) -> Target:
        """The target that `url` denotes, if it is granted.

        Raises:
            EgressDeniedError: It is not, or the URL is not one that can be read in only one way.
        """
        if not self._rules or not all(rules.entries for rules in self._rules):
            raise EgressDeniedError("HTTP is off for this plugin: allowed_hosts grants no host")
        target = Target.parse(url)
        for index, rules in enumerate(self._rules):
            if not rules.allows(target.host):
                whose = "" if index == len(self._rules) - 1 else "the application's "
                raise EgressDeniedError(
                    f"the host {target.host} is not granted: no entry of {whose}allowed_hosts fits it"
                )
        if target.scheme not in self.schemes:
            raise EgressDeniedError(
                f"{target.shown} is refused: the application allows {' and '.join(self.schemes)} only"
            )
        if self.ports is not None and not any(
            target.port in entry if isinstance(entry, range) else target.port == entry
            for entry in self.ports
        ):
            raise EgressDeniedError(
                f"{target.shown} is refused: the application does not allow port {target.port}"
            )
        if is_address(target.host):
            self.vet(target.host, [target.host])
        return target

    def judge_method(self, method: str) -> str:
        """The method in upper case. Raises EgressError when it is not allowed."""
        verb = method.upper() if method.isascii() else ""
        if verb not in self.methods:
            raise EgressError(f"method: expected one of {', '.join(sorted(self.methods))}")
        return verb

    def judge_body(self, size: int) -> None:
        """Raises EgressError when a request's body has more bytes than are allowed."""
        if size > self.max_request_bytes:
            raise EgressError(
                f"the request body has {size} bytes, more than the {self.max_request_bytes} allowed"
            )

    def judge_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers that a guest sets. Raises EgressError when one is not its to set."""
        return self._headers.check(headers)

    def added_for(self, target: Target) -> dict[str, str]:
        """The headers that the application adds to a request for this target."""
        return self._headers.added_for(target)

    def visible_headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The headers of an answer, as a guest sees them."""
        return self._headers.visible_headers(headers)

    def vet(self, host: str, addresses: Iterable[str]) -> tuple[str, ...]:
        """The addresses of a granted host, in canonical form, if all of them may be connected to.

        Raises:
            EgressDeniedError: One of them is not public and not granted.
        """
        from ipaddress import ip_address

        vetted = []
        for text in addresses:
            try:
                address = ip_address(text)
            except ValueError:
                raise EgressDeniedError(
                    f"the host {host} is refused: it resolves to {text!r}, which is no address"
                ) from None
            why = why_not_public(address)
            if why and not (
                self._networks.allows(address)
                or self._is_named(host, address)
                or self._is_inside(host, address)
            ):
                raise EgressDeniedError(
                    f"the host {host} is refused: its address {address} is {why}; to grant it, name the address itself in allowed_hosts"
                )
            vetted.append(str(address))
        return tuple(vetted)

    def _is_named(self, host: str, address: IPv4Address | IPv6Address) -> bool:
        """Whether each list names this address, or names "localhost" where it is that host's."""
        loopback = address.is_loopback if address.version == 4 else str(address) == "::1"
        names = {str(address), "localhost"} if loopback and host == "localhost" else {str(address)}
        return all(not names.isdisjoint(rules.literals) for rules in self._rules)

    def _is_inside(self, host: str, address: IPv4Address | IPv6Address) -> bool:
        return host == self._inside and Networks(_INSIDE, "").allows(address)


def _words(
    given: Iterable[str], setting: str, is_one: Callable[[str], bool], expected: str
) -> tuple[str, ...]:
    words = tuple(check_list(given, setting, expected))
    if not words or not all(isinstance(word, str) and is_one(word) for word in words):
        raise OptionError(f"{setting}: expected a list of {expected}, got {given!r}")
    return words


def _is_method(word: str) -> bool:
    return is_token(word) and word == word.upper() and word not in _NEVER


def _ports(given: Iterable[int | range]) -> tuple[int | range, ...]:
    ports = tuple(
        [given] if isinstance(given, range) else check_list(given, "ports", "numbers and ranges")
    )
    for entry in ports:
        bounds = (entry[0], entry[-1]) if isinstance(entry, range) and entry else (entry,)
        if not all(
            isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536
            for port in bounds
        ):
            raise OptionError(
                f"ports: expected numbers from 1 to 65535, or ranges of them, got {entry!r}"
            )
    return ports


def _shown(name: str, value: Any) -> str:
    """A setting as `repr` has it: without what may be secret."""
    if name == "added_headers":
        return repr({origin: sorted(headers) for origin, headers in value.items()})
    if name in ("ssl_context", "client_certificate", "proxy", "transport"):
        return f"<{type(value).__name__}>" if name != "proxy" else "…"
    return repr(
        sorted(value)
        if isinstance(value, frozenset)
        else list(value)
        if isinstance(value, tuple)
        else value
    )
