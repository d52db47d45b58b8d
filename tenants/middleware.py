"""What surrounds every page and JSON answer: the request's id, the API's edge, the tenant's scope and the language.

The chat path is not below these (saas/asgi.py); it calls the same functions itself.

Each is a middleware for sync and async alike, made of one context manager or function that both forms use. A streamed
body is iterated after they have ended: it must capture what it needs.
"""

import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from inspect import iscoroutinefunction
from typing import Any, Final

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.decorators import sync_and_async_middleware
from django.utils.translation import gettext_lazy as _

from tenants import embedding, scope
from tenants.errors import ErrorCode, ProductError
from tenants.login import choose_language
from tenants.models import Tenant
from tenants.resolve import app_id_of_referer, is_platform_host, resolve_tenant

Handler = Callable[[HttpRequest], Any]

logger = structlog.get_logger(__name__)

API_PREFIX = "/api/"
# Asked by load balancers under whatever name the machine has: no tenant is wanted there.
TENANTLESS_PATHS = frozenset({"/healthz"})
# Payment providers name the tenant in the path, and may come by any host, for a suspended tenant too: money was paid.
CALLBACK_PREFIX = "/api/payments/"
# The pages of a tenant's staff, who may come in while it is suspended. Style sheets and scripts need no tenant.
STAFF_PREFIXES = ("/admin/",)
# In a request's ASGI scope: its body was too large, and is not there (saas/bodies.py).
BODY_IS_CUT: Final = "banyan.body_is_cut"
# docs/protocol.md, "Request": no credentials, because tokens are not cookies.
EXPOSED_HEADERS = {"Access-Control-Expose-Headers": "X-Message-Id, X-Conversation-Id, X-Request-Id"}
PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Token, X-Request-Id, Accept-Language",
    "Access-Control-Max-Age": "86400",
}


def cors_headers(allowed: str) -> dict[str, str]:
    """Return the headers that say who may read an answer (`tenants.embedding.allowed_origin`)."""
    if allowed == embedding.ANYBODY:
        return {"Access-Control-Allow-Origin": allowed, **EXPOSED_HEADERS}
    # A cache must not give one page what was said to another.
    named = {"Access-Control-Allow-Origin": allowed} if allowed else {}
    return {**named, **EXPOSED_HEADERS, "Vary": "Origin"}


_SANE_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def accept_request_id(given: str | None) -> str:
    """Return the id that a proxy gave the request if it is a sane one, else a new one."""
    return given if given and _SANE_ID.fullmatch(given) else uuid.uuid4().hex


@sync_and_async_middleware
def request_id(get_response: Handler) -> Handler:
    """Give the request an id, on the answer and on every log line until then; log the request, without its query."""

    def begin(request: HttpRequest) -> tuple[str, float]:
        request.request_id = accept_request_id(request.headers.get("X-Request-Id"))  # type: ignore[attr-defined]
        return request.request_id, time.monotonic()  # type: ignore[attr-defined]

    def end(request: HttpRequest, response: HttpResponseBase, began: float) -> HttpResponseBase:
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        # Health is asked every few seconds, by machines.
        log = logger.debug if request.path in TENANTLESS_PATHS else logger.info
        log(
            "request",
            method=request.method,
            path=request.path,
            status=response.status_code,
            ms=round((time.monotonic() - began) * 1000),
        )
        return response

    async def asynchronous(request: HttpRequest) -> HttpResponseBase:
        id_, began = begin(request)
        with structlog.contextvars.bound_contextvars(request_id=id_):
            return end(request, await get_response(request), began)

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        id_, began = begin(request)
        with structlog.contextvars.bound_contextvars(request_id=id_):
            return end(request, get_response(request), began)

    return asynchronous if iscoroutinefunction(get_response) else synchronous


@sync_and_async_middleware
def api_edge(get_response: Handler) -> Handler:
    """Answer the API's preflights, say which pages may read its answers, and keep every failure in the one object."""
    preflight_async = sync_to_async(_preflight, thread_sensitive=True)

    async def asynchronous(request: HttpRequest) -> HttpResponseBase:
        if _is_preflight(request):
            return await preflight_async(request)
        return _finish(request, await get_response(request))

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return _preflight(request) if _is_preflight(request) else _finish(request, get_response(request))

    return asynchronous if iscoroutinefunction(get_response) else synchronous


def _is_preflight(request: HttpRequest) -> bool:
    return request.method == "OPTIONS" and request.path.startswith(API_PREFIX)


def _preflight(request: HttpRequest) -> HttpResponseBase:
    try:
        tenant = _resolve(request)
    except ProductError:  # nobody's host: the request itself will hear it
        tenant = None
    return HttpResponse(status=204, headers={**cors_headers(_allowed(request, tenant)), **PREFLIGHT_HEADERS})


def _finish(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if not request.path.startswith(API_PREFIX):
        return response
    if response.status_code >= 400 and not _is_made_for_programs(response):  # noqa: PLR2004  # failures begin at 400
        response = _as_json(request, response)
    headers = cors_headers(_allowed(request, getattr(request, "tenant", None)))
    if "Vary" in headers:
        patch_vary_headers(response, [headers.pop("Vary")])
    for name, value in headers.items():
        response[name] = value
    response.headers.setdefault("Cache-Control", "no-store")  # answers are a person's own
    return response


@sync_and_async_middleware
def enter_tenant(get_response: Handler) -> Handler:
    """Resolve the tenant, enter its scope, and speak its language or the reader's.

    `request.tenant` is None on the platform's hosts, where no scope is entered: nothing of a tenant is read there
    by chance.
    """
    resolve_async = sync_to_async(_resolve, thread_sensitive=True)

    async def asynchronous(request: HttpRequest) -> HttpResponseBase:
        try:
            request.tenant = await resolve_async(request)  # type: ignore[attr-defined]
        except ProductError as refusal:
            return _refuse(request, refusal)
        with _surroundings(request):
            return _speaking(request, await get_response(request))

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        try:
            request.tenant = _resolve(request)  # type: ignore[attr-defined]
        except ProductError as refusal:
            return _refuse(request, refusal)
        with _surroundings(request):
            return _speaking(request, get_response(request))

    return asynchronous if iscoroutinefunction(get_response) else synchronous


def _allowed(request: HttpRequest, tenant: Tenant | None) -> str:
    """Return which page may read the answer to a request."""
    return embedding.allowed_origin(
        tenant=tenant, origin=request.headers.get("Origin", ""), host=request.META.get("HTTP_HOST", "")
    )


def _resolve(request: HttpRequest) -> Tenant | None:
    """Return the tenant of a request, if that is whole. Only the API goes by app id: pages belong to their host."""
    if BODY_IS_CUT in getattr(request, "scope", ()):
        raise ProductError(
            ErrorCode.INVALID,
            _("The request is too large. Please send a smaller file, or less at once."),
            type="too_large",
            scope="body",
        )
    if request.path in TENANTLESS_PATHS or request.path.startswith(CALLBACK_PREFIX):
        return None
    host, app_id, referer = request.get_host(), None, None
    if request.path.startswith(API_PREFIX):
        app_id, referer = request.GET.get("appid"), request.headers.get("Referer")
    if is_platform_host(host) and not (app_id or app_id_of_referer(referer)):
        return None
    return resolve_tenant(host=host, app_id=app_id, referer=referer, for_staff=request.path.startswith(STAFF_PREFIXES))


@contextmanager
def _surroundings(request: HttpRequest) -> Iterator[None]:
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    with (
        translation.override(language_of(request)),
        scope.tenant(tenant.pk) if tenant else nullcontext(),
        structlog.contextvars.bound_contextvars(**({"tenant": tenant.slug} if tenant else {})),
    ):
        yield


def language_of(request: HttpRequest) -> str:
    """Return the language of a request whose user is not known (yet)."""
    tenant: Tenant | None = getattr(request, "tenant", None)
    return choose_language(
        request.headers.get("Accept-Language"),
        tenant_language=tenant.language if tenant else settings.LANGUAGE_CODE,
    )


def _speaking(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if not request.path.startswith(API_PREFIX):
        patch_vary_headers(response, ("Accept-Language",))
        _frame(request, response)
    response.headers.setdefault("Content-Language", translation.get_language() or settings.LANGUAGE_CODE)
    return response


def _frame(request: HttpRequest, response: HttpResponseBase) -> None:
    """Say in whose frames a page may stand: nobody's where staff work, else as the tenant names them."""
    is_for_users = not request.path.startswith(STAFF_PREFIXES)
    directive = embedding.frame_ancestors(request.tenant if is_for_users else None)  # type: ignore[attr-defined]
    response.headers.setdefault("Content-Security-Policy", directive)
    if not directive.endswith("'none'"):
        # What older browsers go by knows no list.
        response.headers.pop("X-Frame-Options", None)


def _refuse(request: HttpRequest, refusal: ProductError) -> HttpResponse:
    """Answer in place of the view: there is no tenant to show anything of."""
    with translation.override(language_of(request)):
        body = refusal.body(request.request_id)  # type: ignore[attr-defined]
        if request.path.startswith(API_PREFIX):
            return JsonResponse(body, status=refusal.status)
        page = render(request, "tenants/refused.html", {"msg": body["msg"]}, status=refusal.status)
        page["Content-Security-Policy"] = embedding.frame_ancestors(None)
        return page


def _is_made_for_programs(response: HttpResponseBase) -> bool:
    """Whether an answer is one of ours: JSON, or the plain word that a payment provider waits for."""
    return response.get("Content-Type", "").startswith(("application/json", "text/plain"))


def _as_json(request: HttpRequest, response: HttpResponseBase) -> HttpResponse:
    """Replace the page that Django, or a library, made of a failure; the status stays, and so does Allow."""
    match response.status_code:
        case 404:
            failure = ProductError(ErrorCode.NOT_FOUND, _("There is nothing at this address."), type="no_such_path")
        case 405:
            failure = ProductError(
                ErrorCode.INVALID, _("This address does not take this kind of request."), type="method_not_allowed"
            )
        case status if status >= 500:  # noqa: PLR2004  # ours, not the client's
            failure = ProductError(
                ErrorCode.OTHER, _("Something went wrong here. Please try again later."), type="internal"
            )
        case _:
            failure = ProductError(ErrorCode.INVALID, _("The request cannot be understood."), type="invalid_request")
    with translation.override(language_of(request)):
        replaced = JsonResponse(failure.body(request.request_id), status=response.status_code)  # type: ignore[attr-defined]
    if "Allow" in response:
        replaced["Allow"] = response["Allow"]
    return replaced
