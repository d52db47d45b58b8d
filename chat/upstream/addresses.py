"""Where a URL that a tenant has set may lead: to public addresses, and where the operator allows it.

The address is looked at when the socket for it is made, after every look-up and for every try: a name that resolves to
something else the second time, or to several addresses, gets no further than one that says so at once.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

# What ipaddress takes for public, in one Python or another: Azure's own service for its machines, those of protocols
# (Oracle's metadata among them), carriers' (Alibaba's metadata), and local translation (RFC 8215).
_PRIVATE: Final = tuple(
    ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24", "100.64.0.0/10", "64:ff9b:1::/48")
)
_UNICAST: Final = ipaddress.ip_network("2000::/3")  # all that has been given out of IPv6
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")  # IPv4 in IPv6, in its oldest form


class ForbiddenAddressError(OSError):
    """A tenant's URL leads to an address that it may not reach."""


def is_public(address: Address) -> bool:
    """Return whether an address is anybody's to reach: not private, loopback, link-local, metadata or multicast."""
    if isinstance(address, IPv6Address) and (within := _within(address)) is not None:
        return is_public(within)
    return (
        address.is_global
        and not address.is_multicast
        and (address in _UNICAST if isinstance(address, IPv6Address) else not address.is_reserved)
        and not any(address in network for network in _PRIVATE)
    )


def _within(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to."""
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def check_address(host: str, allowed: Iterable[str]) -> None:
    """Raise ForbiddenAddressError unless the numeric address is public or within one of the `allowed` networks."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if is_public(address):
        return
    for network in allowed:
        if address in ipaddress.ip_network(network, strict=False):
            return
    raise ForbiddenAddressError(f"{address} is not an address that a tenant's URL may lead to")


def guarded_socket(allowed: frozenset[str]) -> Callable[[Any], socket.socket]:
    """Return what makes a connection's socket for aiohttp, from the address that it is about to connect to."""

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _name, where = info
        check_address(str(where[0]), allowed)
        return socket.socket(family, kind, protocol)

    return make


def is_forbidden_literal(url: str, allowed: Iterable[str]) -> bool:
    """Return whether a URL names, in numbers or as localhost, what it may not reach; other names are not looked up."""
    try:
        host = urlsplit(url).hostname or ""
        if host.rstrip(".") == "localhost" or host.endswith(".localhost"):
            host = "127.0.0.1"
        check_address(host, allowed)
    except ForbiddenAddressError:
        return True
    except ValueError:
        return False  # a name
    return False
