"""Where a user comes from, as it is kept: keyed digests of a device's id and of a network address.

They answer one question, whether two users share a device or an address of the same tenant, and nothing else: the key
comes from settings.SECRET_KEY, and the tenant is hashed too, so that neither a dump of the database nor another
tenant's rows tell who is who. After a change of that key the old digests count while the old one stands in
settings.SECRET_KEY_FALLBACKS.

A device's id is the client's word, and a farmer's client may lie. An address is not: of IPv6 the first 64 bits are
taken, since a single phone has all addresses behind them.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from django.conf import settings
from django.utils.crypto import salted_hmac

_SALT: Final = "billing.origins"
_NETWORK_BITS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A device and an address: under each the digests that it may be stored as, the present one first.

    Empty where nothing is known.
    """

    devices: list[str]
    addresses: list[str]

    @property
    def device(self) -> str:
        """The device's digest, as it is stored."""
        return self.devices[0] if self.devices else ""

    @property
    def address(self) -> str:
        """The address's digest, as it is stored."""
        return self.addresses[0] if self.addresses else ""


def origin_of(*, tenant_id: int, device_id: str, address: str) -> Origin:
    """Return the digests of what a client said of its device, and of the address that it came from."""
    return Origin(
        devices=_digests(f"{tenant_id}:device:{device_id}") if device_id else [],
        addresses=_digests(f"{tenant_id}:address:{network}") if (network := network_of(address)) else [],
    )


def network_of(address: str) -> str:
    """Return what one person's addresses have in common; "" for what is none."""
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(ip, IPv6Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return f"{IPv6Address(int(ip) >> _NETWORK_BITS << _NETWORK_BITS)}/{_NETWORK_BITS}"


def _digests(text: str) -> list[str]:
    """HMAC-SHA256 under a key made of the salt and each secret key."""
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return [salted_hmac(_SALT, text, secret=key, algorithm="sha256").hexdigest() for key in keys]
