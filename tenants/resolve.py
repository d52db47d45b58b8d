"""Which tenant a request is for: from its host name, its mini-program's app id, or the referer that WeChat sets.

A plain, synchronous function of strings, so that the chat path can call it in a worker thread.
"""

import re
import time
from collections import OrderedDict
from threading import Lock

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from tenants.errors import ErrorCode, ProductError
from tenants.models import Tenant
from tenants.models.tenant import APP_ID, HOST

# How long a look-up is believed: a suspension or a new domain takes at most so long to show in every process.
REMEMBER_SECONDS = 3.0
# Host names come from outside, so what is remembered about them is bounded.
REMEMBER_MOST = 4096

_WECHAT_REFERER = re.compile(
    r"https://servicewechat\.com/(?P<app_id>wx[0-9a-z]{8,30})/(?P<version>[^/]+)/page-frame\.html\Z"
)
_NAMES = {"host": (HOST, "domains__host"), "app_id": (APP_ID, "mini_programs__app_id")}
_PORT = re.compile(r":\d*\Z")

_lock = Lock()
_remembered: OrderedDict[tuple[str, str], tuple[float, Tenant | None]] = OrderedDict()


def host_name(host: str) -> str:
    """Return a Host header's name: lower case, without port and final dot."""
    return _PORT.sub("", host.strip().lower()).removesuffix(".")


def is_platform_host(host: str) -> bool:
    """Whether the operator's own pages answer on this host."""
    return host_name(host) in settings.PLATFORM_HOSTS


def app_id_of_referer(referer: str | None) -> str | None:
    """Return the app id in a referer of the form that WeChat itself sets, else None."""
    found = _WECHAT_REFERER.match(referer or "")
    return found["app_id"] if found else None


def version_of_referer(referer: str | None) -> str:
    """Return the mini-program's version in such a referer, "" without one: "0" is one that is not released."""
    found = _WECHAT_REFERER.match(referer or "")
    return found["version"] if found else ""


def resolve_tenant(
    *, host: str, app_id: str | None = None, referer: str | None = None, for_staff: bool = False
) -> Tenant:
    """Return the tenant that a request is for; treat it as read-only, since requests share it.

    A suspended tenant is there for its staff alone (`for_staff`), who see why and what to do.

    The app id (parameter, or WeChat's referer; where both are given they must agree) decides, and the host where there
    is none. A host that is a tenant's own must agree with the app id: else one tenant's pages would act for another.

    Raises ProductError NOT_FOUND: "tenant_not_found" (unknown, contradictory or closed) or "tenant_suspended".
    """
    by_host = None if is_platform_host(host) else _look_up("host", host_name(host))
    app_ids = {given for given in (app_id, app_id_of_referer(referer)) if given}
    if not app_ids:
        return _open(by_host, for_staff=for_staff)
    by_app_id = _look_up("app_id", app_ids.pop())
    if app_ids or (by_host is not None and by_app_id is not None and by_host.pk != by_app_id.pk):
        raise not_found()
    return _open(by_app_id, for_staff=for_staff)


def not_found() -> ProductError:
    """Return the refusal where no tenant is meant, or none that serves users."""
    return ProductError(
        ErrorCode.NOT_FOUND,
        _("There is no service at this address. Please check the link."),
        type="tenant_not_found",
        scope="tenant",
    )


def forget() -> None:
    """Drop what is remembered, in this process: after a change that must show at once."""
    with _lock:
        _remembered.clear()


def _look_up(kind: str, name: str) -> Tenant | None:
    key, now = (kind, name), time.monotonic()
    with _lock:
        at, tenant = _remembered.get(key, (float("-inf"), None))
    if now - at < REMEMBER_SECONDS:
        return tenant
    shape, column = _NAMES[kind]
    # What cannot be a name is not asked for: PostgreSQL refuses some characters with an exception.
    # Who may hold its pages comes with it: every answer of its API asks.
    rows = Tenant.objects.select_related("embedding").filter(**{column: name})
    tenant = rows.first() if shape.fullmatch(name) else None
    with _lock:
        _remembered[key] = (now, tenant)
        _remembered.move_to_end(key)
        while len(_remembered) > REMEMBER_MOST:
            _remembered.popitem(last=False)
    return tenant


def _open(tenant: Tenant | None, *, for_staff: bool) -> Tenant:
    if tenant is None or tenant.status == Tenant.Status.CLOSED:
        raise not_found()
    if tenant.status == Tenant.Status.SUSPENDED and not for_staff:
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This service is suspended at present. Please ask its provider."),
            type="tenant_suspended",
            scope="tenant",
        )
    return tenant
