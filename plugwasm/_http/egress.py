"""`Egress`: an application's rules for HTTP requests of plugins, as a value.

It holds settings only. `policy` decides by them, `client` sends, and `rate_limit` keeps count of
the requests of the plugins that share one object.
"""

from __future__ import annotations

from .addresses import Networks
from .headers import HeaderRules, is_token
from .policy import RequestPolicy
from .socket_transport import HttpTransport
from .url import PORTS, HostRules, check_list, setting_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, NoReturn

    from .socket_transport import Certificate, Path
    from .transport import Transport

__all__ = ["Egress"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_FORBIDDEN_METHODS = frozenset({"CONNECT", "TRACE"})
"""A tunnel to anywhere; an echo of headers that the guest must not see."""


class Egress:
    """The rules for HTTP requests of plugins. Immutable. Every default is the safe choice.

    The manifest says which hosts a plugin reaches; this object says so for the application, and no
    manifest can get what it does not grant. Plugins that share one object share its limits in
    number and rate. It can be pickled if `ssl_context` and `transport` can.

    Args:
        allowed_hosts: Host names, addresses, or patterns over them in which `*` stands for any run
            of characters (dots too) and `?` for one. Case and a trailing dot do not matter; Unicode
            names need the `idna` package. An entry has no scheme, port or path. If given, a host
            must be granted by both this list and the manifest's; if not, the manifest decides.
        schemes: "http", "https" or both.
        ports: Numbers and ranges (`range(8000, 9000)`). If not given, all.
        methods: In upper case; other than the usual ones may be named, but not CONNECT or TRACE.
        private_addresses: Networks ("10.0.0.0/8") and addresses that granted hosts may have
            although they are not public. The addresses of metadata services, and link-local ones,
            must be named one by one.
        max_redirects: How many are followed, each checked like a first request. With 0, the plugin
            is given a redirect as it is.
        max_request_bytes: The largest body that a plugin may send.
        max_response_bytes: The largest body, decoded, that a plugin is given, unless the manifest
            wants less. 50 MiB if neither gives one.
        added_headers: Headers by origin, whose host may be a pattern:
            `{"https://api.example.com": {"Authorization": "Bearer …"}}`. They replace the plugin's
            own, are never shown to it, and are not sent after a redirect has led to another origin.
        allowed_headers: The names that a plugin may set. If not given, all but those that frame a
            message (`Host`, `Content-Length`, …).
        denied_headers: The names that it may not set.
        hidden_headers: The names of response headers that it is not shown.
        max_concurrent: How many requests may be under way, of all plugins that share this object in
            one process. A plugin waits for its turn within its deadline, or half a minute if it has
            none. Plugins take turns; once there are two, none has all places.
        max_per_second: How many may start in any second, redirects included; the same holds.
        ssl_context, ca_file, client_certificate, proxy: See `HttpTransport`.
        resolve: Whether names are resolved, and their addresses checked, before the transport is
            called. False leaves that to a proxy or to the transport; then names are checked, and
            addresses only if a URL has one.
        transport: Carries requests instead of `HttpTransport`.

    Raises:
        OptionError: A setting is not valid; the message says which.
    """

    __module__ = "plugwasm"

    __slots__ = (
        "__weakref__",
        "_policy",
        "_settings",
        "allowed_hosts",
        "max_redirects",
        "max_request_bytes",
        "max_response_bytes",
        "methods",
        "ports",
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
    _policy: RequestPolicy
    """The settings, parsed."""
    _settings: dict[str, Any]

    def __init__(
        self,
        *,
        allowed_hosts: Sequence[str] | None = None,
        schemes: Iterable[str] = ("http", "https"),
        ports: Iterable[int | range] | None = None,
        methods: Iterable[str] = _METHODS,
        private_addresses: Sequence[str] = (),
        max_redirects: int = 10,
        max_request_bytes: int = 50 << 20,
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
                raise setting_error(name, f"expected a number of at least {least}, got {limit!r}")
        if not isinstance(resolve, bool):
            raise setting_error("resolve", f"expected True or False, got {resolve!r}")
        hosts = None if allowed_hosts is None else HostRules(allowed_hosts)
        networks = Networks(private_addresses, "private_addresses")
        headers = HeaderRules(added_headers, allowed_headers, denied_headers, hidden_headers)
        connection_settings = {
            "ssl_context": ssl_context,
            "ca_file": ca_file,
            "client_certificate": client_certificate,
            "proxy": proxy,
        }
        if transport is not None:
            _check_transport(transport, connection_settings)
        settings: dict[str, Any] = {
            "allowed_hosts": None if hosts is None else hosts.entries,
            "schemes": _check_words(schemes, "schemes", PORTS.__contains__, "http and https"),
            "ports": None if ports is None else _check_ports(ports),
            "methods": _check_words(
                methods, "methods", _is_method, "methods in upper case, but not CONNECT and TRACE"
            ),
            "max_redirects": max_redirects,
            "max_request_bytes": max_request_bytes,
            "max_response_bytes": max_response_bytes,
            "resolve": resolve,
            "transport": transport,
            "private_addresses": networks.entries,
            "added_headers": headers.added,
            "allowed_headers": headers.allowed,
            "denied_headers": headers.denied,
            "hidden_headers": headers.hidden,
            "max_concurrent": max_concurrent,
            "max_per_second": max_per_second,
            **connection_settings,
        }
        public = {name: settings[name] for name in self.__slots__ if name in settings}
        policy = RequestPolicy(
            application_hosts=hosts,
            schemes=settings["schemes"],
            ports=settings["ports"],
            methods=settings["methods"],
            networks=networks,
            headers=headers,
            max_redirects=max_redirects,
            max_request_bytes=max_request_bytes,
            max_response_bytes=max_response_bytes,
            max_concurrent=max_concurrent,
            max_per_second=max_per_second,
        )
        values = public | {
            "max_response_bytes": policy.max_response_bytes,
            "_policy": policy,
            "transport": HttpTransport(**connection_settings) if transport is None else transport,  # type: ignore[arg-type]
            "_settings": settings,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> Egress:
        """Return a copy with other values for some settings.

        It has limits in number and rate of its own.
        """
        return type(self)(**self._settings | changes)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"an Egress cannot be changed; make another with `egress.replace({name}=…)`"
        )

    def __repr__(self) -> str:
        defaults = type(self).__init__.__kwdefaults__ or {}
        parts = [
            f"{name}={_format_setting(name, value)}"
            for name, value in self._settings.items()
            if value != defaults[name] and value not in (frozenset(), {})
        ]
        return f"Egress({', '.join(parts)})"

    def __reduce__(self) -> tuple[Callable[..., Egress], tuple[Any, ...]]:
        from functools import partial

        return partial(type(self), **self._settings), ()


def _check_transport(transport: object, connection_settings: Mapping[str, object]) -> None:
    if not callable(getattr(transport, "send", None)):
        raise setting_error(
            "transport",
            f"expected an object with a method `send`, got {type(transport).__name__}",
        )
    for name, value in connection_settings.items():
        if value is not None:
            raise setting_error(
                name, "it is for the default transport only, and `transport` replaces that"
            )


def _check_words(
    given: Iterable[str], setting: str, is_one: Callable[[str], bool], expected: str
) -> tuple[str, ...]:
    words = tuple(check_list(given, setting, expected))
    if not words or not all(isinstance(word, str) and is_one(word) for word in words):
        raise setting_error(setting, f"expected a list of {expected}, got {given!r}")
    return words


def _is_method(word: str) -> bool:
    return is_token(word) and word == word.upper() and word not in _FORBIDDEN_METHODS


def _check_ports(given: Iterable[int | range]) -> tuple[int | range, ...]:
    ports = tuple(
        [given] if isinstance(given, range) else check_list(given, "ports", "numbers and ranges")
    )
    for entry in ports:
        bounds = (entry[0], entry[-1]) if isinstance(entry, range) and entry else (entry,)
        if not all(
            isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536
            for port in bounds
        ):
            raise setting_error(
                "ports", f"expected numbers from 1 to 65535, or ranges of them, got {entry!r}"
            )
    return ports


def _format_setting(name: str, value: Any) -> str:
    """Return a setting for `repr`, without what may be secret."""
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
