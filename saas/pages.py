"""The pages of a tenant's own hosts, in its brand; a platform host's first page is where its reader works."""

import uuid
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from billing import codes, rewards
from billing.models import Order
from chat import shares
from chat.views import CHAT_PATH
from saas import shell
from tenants import compliance, legal
from tenants.brand import brand_of
from tenants.errors import ProductError
from tenants.models import LegalText, StaffUser, Tenant


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show the client in the tenant's brand; where it was never built, whose service this is."""
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    if tenant is None:
        # Whoever is new here comes to become a reseller; the operator's people know where they work.
        is_operator = isinstance(request.user, StaffUser) and request.user.is_operator
        return redirect("admin:index" if is_operator else "portal:home")
    built = shell.assets()
    if built is not None:
        return shell.show(request, tenant, built)
    context = {**_shown(tenant), "chat_url": request.build_absolute_uri(CHAT_PATH)}
    return render(request, "pages/home.html", context)


@require_safe
@never_cache
def redeem_link(request: HttpRequest, code: str) -> HttpResponse:
    """Say what to do with a redeem code that came as a link.

    Nothing is redeemed, since messengers open links to preview them, nor looked up: whether a code exists is told to
    people who are logged in, and counted, only.
    """
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    known = codes.normal(code)
    if tenant is None or known is None:
        raise Http404
    return render(request, "pages/redeem.html", {**_shown(tenant), "code": codes.grouped(known)})


@require_safe
@never_cache
def invitation_link(request: HttpRequest, code: str) -> HttpResponse:
    """Say what to do with an invitation that came as a link; like a redeem code's, it does and looks up nothing."""
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    known = codes.normal(code, length=rewards.CODE_LENGTH)
    if tenant is None or known is None:
        raise Http404
    return render(request, "pages/invitation.html", {**_shown(tenant), "code": known})


@require_safe
@never_cache
def shared_conversation(request: HttpRequest, token: str) -> HttpResponse:
    """Show a conversation that its user shares, to whoever has the link, and nothing of the user."""
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    if tenant is None:
        raise Http404
    try:
        context = shares.shared_conversation(tenant=tenant, token=token)
    except ProductError as gone:
        raise Http404 from gone
    page = render(request, "pages/shared.html", {**_shown(tenant), **context, "token": token})
    # The page's address is what opens it: no other site may be told of it.
    page["Referrer-Policy"] = "no-referrer"
    return page


@require_safe
@never_cache
def payment_done(request: HttpRequest) -> HttpResponse:
    """Where a browser comes back to from a payment provider's page: say how the order stands, and nothing else of it.

    Coming back proves nothing, so nothing is done here: the provider tells of the payment, or is asked. Nobody is
    logged in, since the browser may not be the app's; an order that is not there looks like one that waits.
    """
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    if tenant is None:
        raise Http404
    try:
        found = Order.objects.filter(pk=uuid.UUID(request.GET.get("order", ""))).only("state").first()
    except ValueError:
        found = None
    state = found.state if found else Order.State.PENDING
    return render(request, "pages/paid.html", {**_shown(tenant), "state": state, "is_known": found is not None})


@require_safe
def legal_page(request: HttpRequest, kind: str) -> HttpResponse:
    """Show a tenant's terms or privacy policy, in the reader's language or the one that is asked for by `lang`."""
    tenant: Tenant | None = request.tenant  # type: ignore[attr-defined]
    if tenant is None:
        raise Http404
    wanted = request.GET.get("lang", "")
    with translation.override(wanted if wanted in legal.LANGUAGES else translation.get_language()):
        text = legal.current(tenant=tenant, kind=kind, language=translation.get_language() or tenant.language)
        context = {"text": text, "title": LegalText.Kind(kind).label, "blocks": list(legal.blocks(text.body))}
        page = render(request, "pages/legal.html", {**_shown(tenant), **context})
        page["Content-Language"] = translation.get_language() or text.language
        return page


def _shown(tenant: Tenant) -> dict[str, Any]:
    """Return what every page of a tenant shows: its brand, and what the law wants at its foot."""
    row = compliance.compliance_of(tenant)
    return {"brand": brand_of(tenant), "compliance": row, "age_notice": compliance.age_notice(row)}
