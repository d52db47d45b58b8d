"""Where tenants are reached, and how we visit them ourselves: only at addresses that a tenant's name may lead to.

Below TENANT_DOMAIN names are ours and lead where the operator's DNS says. Any other name is somebody else's word: it is
looked up once, must be public (or among UPSTREAM_PRIVATE_NETWORKS), and that very address is then connected to.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import idna
from django.conf import settings

from chat.upstream.addresses import check_address
from tenants import scope
from tenants.models import Domain
from tenants.models.tenant import validate_host
from tenants.resolve import host_name, is_platform_host

TIMEOUT: Final = httpx.Timeout(10.0, read=90.0)
_LOCAL: Final = (".localhost", "localhost")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tenant's host is: its address in numbers, as it was looked up just now."""

    host: str
    scheme: str
    address: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether it is this machine's own name, which nobody can have a certificate for."""
        return self.host.endswith(_LOCAL)

    def url(self, path: str) -> str:
        """Return where to connect to for a path."""
        name = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.scheme}://{name}:{self.port}{path}"


def typed_host(text: str) -> str:
    """Return a host name as people paste it (scheme, port and path, any letters) as requests are matched with it.

    Names in other letters become what DNS has of them (`xn--…`). Raises ValidationError for what is none.
    """
    name = host_name(re.sub(r"^[a-z]+://", "", text.strip(), flags=re.IGNORECASE).split("/")[0])
    with suppress(idna.IDNAError):  # what follows says it in its words
        name = idna.encode(name, uts46=True).decode() if name else ""
    if name:
        validate_host(name)
    return name


def spoken(host: str) -> str:
    """Return a host name in its own letters, followed by what DNS has of it where that is another."""
    try:
        name = idna.decode(host)
    except idna.IDNAError:
        return host
    return host if name == host else f"{name} ({host})"


def is_ours(host: str) -> bool:
    """Whether a name is the operator's own, or one that some tenant has or will have from its first moment."""
    return is_platform_host(host) or f".{host}".endswith(f".{settings.TENANT_DOMAIN}")


def own_host(slug: str) -> str:
    """Return the subdomain that a tenant has from its first moment."""
    return f"{slug}.{settings.TENANT_DOMAIN}"


def address_of(host: str) -> str:
    """Return a host's address for a browser, without a path."""
    return str(settings.TENANT_URL).format(host=host)


def main_host(tenant_id: int) -> str:
    """Return a tenant's first host; empty if it has none."""
    with scope.tenant(tenant_id):
        found = Domain.objects.order_by("pk").values_list("host", flat=True).first()
    return found or ""


def look_up(host: str) -> Place:
    """Return where a host is; raise OSError if its name leads nowhere, or where it may not."""
    parts = urlsplit(address_of(host))
    name, port = parts.hostname or host, parts.port or (443 if parts.scheme == "https" else 80)
    address = _numeric(name, port)
    is_ours = name != host or name.endswith(f".{settings.TENANT_DOMAIN}")
    if not is_ours:
        check_address(address, settings.UPSTREAM_PRIVATE_NETWORKS)
    return Place(host=host, scheme=parts.scheme, address=address, port=port)


@contextmanager
def visit(place: Place, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
    """Ask a tenant's host for a path, without following it elsewhere; the body is read by the caller.

    Raises httpx.HTTPError. The certificate is checked for the host's name, while the socket goes to the address.
    """
    headers = {"Host": f"{place.host}:{place.port}" if place.port not in {80, 443} else place.host}
    headers |= request.pop("headers", {})
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
        asked = client.build_request(
            method, place.url(path), headers=headers, extensions={"sni_hostname": place.host}, **request
        )
        response = client.send(asked, stream=True)
        try:
            yield response
        finally:
            response.close()


def _numeric(name: str, port: int) -> str:
    if name.endswith(_LOCAL):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        return str(found[0][4][0])
