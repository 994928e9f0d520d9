"""Which requests one plugin, or one download, may send: hosts, ports, methods, headers, sizes and
addresses.

1. A plugin can reach a host only if the manifest's `allowed_hosts` grants it, and the application's
   too if there is one (`RequestPolicy.check_url`).
2. A URL is parsed once. The canonical form that is checked is the form that is sent (`url`).
3. A name is resolved once. All of its addresses must be public (`addresses`), and the address that
   was checked is the one connected to (`RequestPolicy.check_addresses`). An address that is not
   public is reachable only if `allowed_hosts` names it literally ("localhost" names loopback), or
   if `private_addresses` has a network around it.

A policy is made from the application's `Egress` and, like it, has no state: no connections and no
counts. `client` sends the requests that were checked here, and has rules 4 to 6.

Decisions: docs/decisions.md, 9.1, 9.4 and 29.5.
"""

from __future__ import annotations

from ..errors import EgressDeniedError, EgressError, ManifestError, OptionError
from .addresses import Networks, why_not_public
from .url import HostRules, Target, is_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from .headers import HeaderRules

__all__ = ["DEFAULT_RESPONSE_BYTES", "RequestPolicy"]

DEFAULT_RESPONSE_BYTES = 50 << 20
"""The largest response body if neither the application nor the manifest says."""

_DOWNLOAD_METHODS = ("GET", "POST")
_MAX_DOWNLOAD_REDIRECTS = 5
_LOOPBACK = {"localhost": ("127.0.0.1", "::1")}
_INTERNAL = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")


class RequestPolicy:
    """The rules for the requests of one plugin, or of one download. Immutable.

    Attributes:
        methods: In upper case.
        max_redirects: How many are followed.
        max_request_bytes: The largest request body.
        max_response_bytes: The largest response body, decoded.
        max_concurrent: How many requests may be under way; None for any number.
        max_per_second: How many may start in a second; None for any number.
    """

    __slots__ = (
        "_application_hosts",
        "_headers",
        "_internal_host",
        "_manifest_hosts",
        "_networks",
        "_ports",
        "_response_bytes",
        "_schemes",
        "max_concurrent",
        "max_per_second",
        "max_redirects",
        "max_request_bytes",
        "max_response_bytes",
        "methods",
    )

    def __init__(
        self,
        *,
        application_hosts: HostRules | None,
        schemes: tuple[str, ...],
        ports: tuple[int | range, ...] | None,
        methods: tuple[str, ...],
        networks: Networks,
        headers: HeaderRules,
        max_redirects: int,
        max_request_bytes: int,
        max_response_bytes: int | None,
        max_concurrent: int | None,
        max_per_second: int | None,
    ) -> None:
        self._application_hosts = application_hosts
        self._manifest_hosts: HostRules | None = None
        self._internal_host: str | None = None
        """The host of a download, if it has no dot: it may have a private address."""
        self._schemes = schemes
        self._ports = ports
        self.methods: tuple[str, ...] = methods
        self._networks = networks
        self._headers = headers
        self.max_redirects: int = max_redirects
        self.max_request_bytes: int = max_request_bytes
        self._response_bytes = max_response_bytes
        self.max_response_bytes: int = (
            DEFAULT_RESPONSE_BYTES if max_response_bytes is None else max_response_bytes
        )
        self.max_concurrent: int | None = max_concurrent
        self.max_per_second: int | None = max_per_second

    # ---- whose requests --------------------------------------------------------------------------

    def for_manifest(
        self, allowed_hosts: Sequence[str], max_response_bytes: int | None = None
    ) -> RequestPolicy:
        """Return the policy for the plugin of a manifest: it reaches what both grant.

        Args:
            allowed_hosts: The manifest's list.
            max_response_bytes: The manifest's limit, if any. The smaller one holds.

        Raises:
            ManifestError: An entry is not valid; the message says which.
        """
        try:
            hosts = HostRules(allowed_hosts)
        except OptionError as error:
            raise ManifestError(error.message, field="allowed_hosts", reason=error.reason) from None
        limits = [x for x in (self._response_bytes, max_response_bytes) if x is not None]
        return self._replace(
            _manifest_hosts=hosts, max_response_bytes=min(limits, default=DEFAULT_RESPONSE_BYTES)
        )

    def for_download(self, host: str, max_bytes: int) -> RequestPolicy:
        """Return the policy for downloading a module from `host`, which a manifest names.

        The application's `allowed_hosts` decides, if there is one. Otherwise every host is granted,
        and `host` literally: if it is "localhost" or an address, that need not be public. If it is
        a name without a dot, such as a container's, it may have a private address. A download is a
        GET or a POST, with a size limit of its own.
        """
        hosts, internal = self._application_hosts, None
        if hosts is None:
            hosts = HostRules(["*", host, *_LOOPBACK.get(host, ())])
            internal = host if "." not in host and ":" not in host else None
        return self._replace(
            _application_hosts=hosts,
            _internal_host=internal,
            methods=tuple(method for method in self.methods if method in _DOWNLOAD_METHODS),
            max_redirects=min(self.max_redirects, _MAX_DOWNLOAD_REDIRECTS),
            max_response_bytes=max_bytes,
        )

    def _replace(self, **changes: object) -> RequestPolicy:
        from copy import copy

        derived = copy(self)
        for name, value in changes.items():
            setattr(derived, name, value)
        return derived

    # ---- checks ----------------------------------------------------------------------

    def no_host_error(self) -> EgressDeniedError | None:
        """Return the error that every request would get because no host is granted, or None."""
        if self._manifest_hosts is not None and not self._manifest_hosts.entries:
            return EgressDeniedError(
                "the plugin made an HTTP request, but no host is granted to it (`allowed_hosts`)"
            )
        lists = self._host_lists()
        if not lists or not all(hosts.entries for hosts in lists):
            return EgressDeniedError("HTTP is off for this plugin: allowed_hosts grants no host")
        return None

    def check_url(self, url: str) -> Target:
        """Return the target that a URL denotes.

        Raises:
            EgressDeniedError: It is not granted, or the URL can be read in more than one way.
        """
        if (error := self.no_host_error()) is not None:
            raise error
        target = Target.parse(url)
        lists = self._host_lists()
        for hosts in lists:
            if not hosts.allows(target.host):
                # Of two lists, the first is the application's. The author of the plugin knows only
                # the second, the manifest's.
                whose = "" if hosts is lists[-1] else "the application's "
                raise EgressDeniedError(
                    f"the host {target.host} is not granted: "
                    f"no entry of {whose}allowed_hosts matches it"
                )
        if target.scheme not in self._schemes:
            raise EgressDeniedError(
                f"{target.shown} is refused: the application allows "
                f"{' and '.join(self._schemes)} only"
            )
        if self._ports is not None and not any(
            target.port in entry if isinstance(entry, range) else target.port == entry
            for entry in self._ports
        ):
            raise EgressDeniedError(
                f"{target.shown} is refused: the application does not allow port {target.port}"
            )
        if is_address(target.host):
            self.check_addresses(target.host, [target.host])
        return target

    def check_method(self, method: str) -> str:
        """Return the method in upper case. Raise `EgressError` if it is not allowed."""
        verb = method.upper() if method.isascii() else ""
        if verb not in self.methods:
            raise EgressError(f"method: expected one of {', '.join(sorted(self.methods))}")
        return verb

    def check_body_size(self, size: int) -> None:
        """Raise `EgressError` if a request body has more bytes than are allowed."""
        if size > self.max_request_bytes:
            raise EgressError(
                f"the request body has {size} bytes, more than the {self.max_request_bytes} allowed"
            )

    def check_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that a guest sets. Raise `EgressError` if it may not set one."""
        return self._headers.check(headers)

    def check_addresses(self, host: str, addresses: Iterable[str]) -> tuple[str, ...]:
        """Return the addresses of a granted host in canonical form.

        Raises:
            EgressDeniedError: One of them is neither public nor granted.
        """
        from ipaddress import ip_address

        checked = []
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
                or self._is_internal(host, address)
            ):
                raise EgressDeniedError(
                    f"the host {host} is refused: its address {address} is {why}; "
                    "to grant it, name the address itself in allowed_hosts"
                )
            checked.append(str(address))
        return tuple(checked)

    # ---- headers ----------------------------------------------------

    def added_headers(self, target: Target) -> dict[str, str]:
        """Return the headers that the application adds to a request for this target."""
        return self._headers.added_for(target)

    def visible_headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the headers of a response as a guest sees them."""
        return self._headers.visible_headers(headers)

    def _host_lists(self) -> list[HostRules]:
        """Return the lists that must all grant a host."""
        return [x for x in (self._application_hosts, self._manifest_hosts) if x is not None]

    def _is_named(self, host: str, address: IPv4Address | IPv6Address) -> bool:
        """Return whether every list has this address as a literal entry.

        For the host "localhost", the entry "localhost" stands for its loopback addresses.
        """
        loopback = address.is_loopback if address.version == 4 else str(address) == "::1"
        names = {str(address), "localhost"} if loopback and host == "localhost" else {str(address)}
        return all(not names.isdisjoint(hosts.literals) for hosts in self._host_lists())

    def _is_internal(self, host: str, address: IPv4Address | IPv6Address) -> bool:
        return host == self._internal_host and Networks(_INTERNAL, "").allows(address)

    def __repr__(self) -> str:
        hosts = [list(hosts.entries) for hosts in self._host_lists()]
        return f"<RequestPolicy hosts={' and '.join(map(repr, hosts))}>"
