"""Which addresses are public, and which of the others an application grants.

An address with an IPv4 address inside (IPv4-mapped, NAT64, 6to4) leads to that one, so it is
granted only if both are. The addresses of metadata services hand out credentials to whoever can
reach them, so no network grants them, unless it is that address alone.
"""

from __future__ import annotations

from .url import check_list, setting_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    Address = IPv4Address | IPv6Address

__all__ = ["Networks", "why_not_public"]

# Not public although `ipaddress` calls them global: IETF protocol assignments, 6to4 relays, Azure's
# metadata service; Teredo and other assignments, documentation, 6to4.
_NOT_PUBLIC = (
    ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"),
    ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16"),
)

# Link-local addresses (AWS, Azure, Google, most others), and what they have beside: AWS, Google;
# Alibaba, Azure, Oracle. With them the addresses whose inner IPv4 address cannot be told (NAT64 of
# one's own, Teredo).
_NEEDS_ITS_OWN_GRANT = (
    ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    ("fe80::/10", "fd00:ec2::/32", "fd20:ce::/32", "64:ff9b:1::/48", "2001::/32"),
)


def why_not_public(address: Address) -> str | None:
    """Return why an address is not public, in words; None if it is public."""
    from ipaddress import ip_network

    if address.version == 6:
        if address.scope_id is not None:
            return "an address with a zone"
        # They lead to an IPv4 address that these checks would not see.
        if (
            address.ipv4_mapped
            or address in ip_network("64:ff9b::/96")
            or address in ip_network("64:ff9b:1::/48")
        ):
            return "an IPv4 address inside an IPv6 one"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address (metadata services live there)"
    if address.is_multicast:
        return "a multicast address"
    if not address.is_global or address.is_reserved:
        return "private or reserved"
    if address.version == 6 and address not in ip_network("2000::/3"):
        return "reserved"
    if any(address in ip_network(network) for network in _NOT_PUBLIC[address.version == 6]):
        return "reserved"
    return None


class Networks:
    """Networks whose addresses may be reached although they are not public.

    Attributes:
        entries: In canonical form.
    """

    __slots__ = ("_networks", "entries")

    def __init__(self, entries: Iterable[str], setting: str) -> None:
        """Raise `OptionError`, naming the setting, if an entry is not valid."""
        self._networks = tuple(
            _network(entry, setting) for entry in check_list(entries, setting, "networks")
        )
        self.entries: tuple[str, ...] = tuple(map(str, self._networks))

    def allows(self, address: Address) -> bool:
        """Return whether an address may be reached."""
        from ipaddress import ip_network

        if address.version == 6 and address.scope_id is not None:
            return False
        holding = [network for network in self._networks if address in network]
        if any(network.num_addresses == 1 for network in holding):
            return True
        if not holding or any(
            address in ip_network(network) for network in _NEEDS_ITS_OWN_GRANT[address.version == 6]
        ):
            return False
        inner = _inner(address)
        return inner is None or why_not_public(inner) is None or self.allows(inner)


def _network(entry: str, setting: str) -> IPv4Network | IPv6Network:
    from ipaddress import ip_network

    try:
        if isinstance(entry, str) and "%" not in entry:
            return ip_network(entry)
    except ValueError as error:
        if "host bits" in str(error):
            raise setting_error(
                setting, f"{entry!r} has bits set to the right of its prefix"
            ) from None
    raise setting_error(setting, f"{entry!r} is not a network such as '10.0.0.0/8', nor an address")


def _inner(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to."""
    from ipaddress import IPv4Address, ip_network

    if address.version == 4:
        return None
    if address in ip_network("64:ff9b::/96"):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
