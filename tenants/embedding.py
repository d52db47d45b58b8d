"""Which pages may hold a tenant's pages in a frame, and call its API from a browser.

A tenant that names no origins: its pages stand in nobody's frame, and any page may call the API, as docs/protocol.md
has it. One that names some: those pages, and its own host's, and no other.
"""

from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from tenants.models import Embedding, Tenant
from tenants.resolve import host_name

# WeChat's own page frame, the origin of every mini-program.
WECHAT_ORIGIN: Final = "https://servicewechat.com"
ANYBODY: Final = "*"


def origins_of(tenant: Tenant | None) -> tuple[str, ...]:
    """Return the origins that a tenant names; those of one that was resolved are with it (tenants/resolve.py)."""
    if tenant is None:
        return ()
    try:
        return tuple(tenant.embedding.origins)
    except Embedding.DoesNotExist:
        return ()


def allowed_origin(*, tenant: Tenant | None, origin: str, host: str) -> str:
    """Return who may read an answer to a page of `origin`: "*" for anybody, that origin, or "" for no page."""
    listed = origins_of(tenant)
    if not listed:
        return ANYBODY
    return origin if origin and is_welcome(listed, origin=origin, host=host) else ""


def is_welcome(listed: tuple[str, ...], *, origin: str, host: str) -> bool:
    """Whether a page may call: a listed one, the host's own, WeChat's, or one that the operator names."""
    if origin in {*listed, WECHAT_ORIGIN, *settings.WEBSOCKET_ORIGINS}:
        return True
    page = _host_in(origin)
    return page != "" and page == host_name(host)


def frame_ancestors(tenant: Tenant | None) -> str:
    """Return the directive of the Content-Security-Policy that says in whose frames a page may stand."""
    listed = origins_of(tenant)
    return " ".join(("frame-ancestors", "'self'", *listed)) if listed else "frame-ancestors 'none'"


def _host_in(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
