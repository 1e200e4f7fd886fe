"""Where a request may go: what addresses are public, where the recipe says that a host stands.

Rule: no address of a private network is connected to unless `[crawl.resolve]` names it, whatever a
name server or a redirect says (RFC 6890).
"""

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_PORTS = {"http": 80, "https": 443}
UNICAST = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Global by IANA's registries of special addresses, or unknown to older Pythons, and no web site's:
# protocol assignments (Teredo, ORCHID), 6to4 and its relays, AS112, AMT, documentation.
SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24",
         "2001::/23", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)  # fmt: skip
FAR = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that are nobody's (RFC 5737, RFC 3849), so that the way to them is the way out."""


class PrivateAddress(OSError):
    """A host stands in a private network."""


@dataclass(frozen=True)
class Pin:
    """One line of `[crawl.resolve]`: a host, or all below `name`, and where it stands."""

    port: int | None
    name: str
    wild: bool
    address: str
    address_port: int

    def fits(self, host: str, port: int) -> bool:
        """Whether the line speaks for a host, asked at a port."""
        if self.port is not None and port != self.port:
            return False
        host = host.lower()
        return host.endswith("." + self.name) if self.wild else host == self.name


def pinned(resolve: Mapping[str, str]) -> tuple[Pin, ...]:
    """The lines of `[crawl.resolve]`: those with a scheme first, then the longest names."""
    pins = []
    for pattern, address in resolve.items():
        scheme, _, name = pattern.rpartition("://")
        place, _, port = address.rpartition(":")
        wild = name.startswith("*.")
        name = name.removeprefix("*.")
        pins.append(Pin(DEFAULT_PORTS.get(scheme), name, wild, place.strip("[]"), int(port)))
    return tuple(sorted(pins, key=lambda pin: (pin.port is None, pin.wild, -len(pin.name))))


def is_public(address: str) -> bool:
    """Whether an IP address is globally routable unicast (RFC 6890), such as a web site may have.
    An IPv4 address in IPv6's clothes (mapped, NAT64) is judged as what it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped or ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(ip.packed[-4:])))
        if ip not in UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in SPECIAL)


def is_offline() -> bool:
    """Whether this machine has no way out. Nothing is sent: a datagram socket that connects only
    looks the way up."""
    for family, address in FAR:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect((address, 9))
            return False
    return True
