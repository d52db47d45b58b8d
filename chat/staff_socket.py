"""The staff's WebSocket, `/ws/staff`: live figures and the number of unread notices, for pages of the admins.

A browser sends the admin's session cookie with the handshake, and the page's origin, which must be this very host: a
foreign page must not listen with a member's session. Who may listen is asked of the admin site of the host, and again
every CHECK_SECONDS: whoever may not any more, or has not given the second factor that is wanted of them, is told
nothing more. What a client sends is not read.

Each message is `{"live": {…} or null, "unread": number}`; `null` where Redis is away.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson
import structlog
from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError
from django.http import HttpRequest, parse_cookie

from chat.door import headers_of
from chat.pulse import Seen, watch_here
from chat.threads import in_thread
from tenants import noticeboard, scope
from tenants.adminsite import site_here
from tenants.errors import ProductError
from tenants.models import StaffUser, Tenant
from tenants.resolve import host_name, is_platform_host, resolve_tenant

log = structlog.get_logger(__name__)

STAFF_SOCKET_PATH: Final = "/ws/staff"
CHECK_SECONDS: Final = 30.0
# Sockets of one process; one more is refused.
MOST_SOCKETS: Final = 1000

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class _Reader(NamedTuple):
    """Who listens: a tenant's staff, or the operator's (None), and how many notices are unread."""

    tenant_id: int | None
    unread: int


async def staff_socket(asgi_scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection until it ends."""
    await receive()
    headers = headers_of(asgi_scope)
    watch = watch_here()
    reader: _Reader | None = None
    if len(watch) < MOST_SOCKETS and _is_same_origin(headers):
        reader = await _admit(headers)
    if reader is None:
        # Before it was accepted: clients see 403, and learn no more.
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "websocket.accept"})
    listener = _Listener(headers, send, reader)
    with watch.watched_by(listener.take):
        telling = asyncio.ensure_future(listener.tell())
        leaving = asyncio.ensure_future(_departure(receive))
        try:
            await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            has_left = leaving.done()
        finally:
            telling.cancel()
            leaving.cancel()
            results = await asyncio.gather(telling, leaving, return_exceptions=True)
    for result in results:
        # A connection that broke while we wrote has left, like one that said so.
        if isinstance(result, Exception) and not isinstance(result, OSError):
            raise result
    if not has_left:
        with contextlib.suppress(OSError):
            await send({"type": "websocket.close", "code": 1008})


class _Listener:
    """One staff member's page. Of the readings that come while it is told of one, it is told the last."""

    def __init__(self, headers: Mapping[str, str], send: Send, reader: _Reader) -> None:
        self._headers = headers
        self._send = send
        self._reader = reader
        self._seen: Seen | None = None
        self._news = asyncio.Event()

    def take(self, seen: Seen) -> None:
        """Keep a reading for `tell`."""
        self._seen = seen
        self._news.set()

    async def tell(self) -> None:
        """Tell each reading, until the person may not listen any more."""
        loop = asyncio.get_running_loop()
        checked, rung = loop.time(), None
        while True:
            await self._news.wait()
            self._news.clear()
            seen = self._seen
            if seen is None:
                continue
            heard = seen.notice(tenant_id=self._reader.tenant_id)
            if (rung is not None and heard != rung) or loop.time() - checked > CHECK_SECONDS:
                reader = await _admit(self._headers)
                if reader is None:
                    return
                checked, self._reader = loop.time(), reader
            rung = heard
            now = seen.now(tenant_id=self._reader.tenant_id)
            told = {"live": None if now is None else asdict(now), "unread": self._reader.unread}
            await self._send({"type": "websocket.send", "text": orjson.dumps(told).decode()})


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _admit(headers: Mapping[str, str]) -> _Reader | None:
    """Return who the handshake is of, None for one who may not listen, or nobody can say so now."""
    try:
        return await in_thread(lambda: _look(headers))
    except DatabaseError:
        log.warning("staff_socket_unchecked", exc_info=True)
        return None


def _look(headers: Mapping[str, str]) -> _Reader | None:
    host = headers.get("host", "")
    try:
        tenant = None if is_platform_host(host) else resolve_tenant(host=host)
    except ProductError:
        return None
    request = _request_of(headers, tenant)
    with scope.platform("the operator's admin") if tenant is None else scope.tenant(tenant.pk):
        site = site_here(request)
        if not site.has_permission(request) or site.is_half_open(request) or not isinstance(request.user, StaffUser):
            return None
        if request.session.modified:
            # Its number among the person's sessions, where no page has given it one yet: once, not at each look.
            request.session.save()
        tenant_id = None if tenant is None else tenant.pk
        return _Reader(tenant_id, noticeboard.unread(staff=request.user, tenant_id=tenant_id))


def _request_of(headers: Mapping[str, str], tenant: Tenant | None) -> HttpRequest:
    """Return the handshake as the admin's own requests are: with its tenant, its session and its user."""
    request = HttpRequest()
    request.META = {"HTTP_HOST": headers.get("host", "")}
    request.COOKIES = parse_cookie(headers.get("cookie", ""))
    request.tenant = tenant  # type: ignore[attr-defined]  # as the middleware sets it
    sessions = import_module(settings.SESSION_ENGINE)
    request.session = sessions.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    request.user = get_user(request)
    return request


def _is_same_origin(headers: Mapping[str, str]) -> bool:
    """Whether the page is of the host that it connects to; a proxy may have left the port out of the host."""
    host = headers.get("host", "").lower()
    try:
        page = urlsplit(headers.get("origin", "").lower())
    except ValueError:
        return False
    if page.scheme not in {"http", "https"} or not page.hostname:
        return False
    return page.netloc == host or (":" not in host and page.hostname == host_name(host))
