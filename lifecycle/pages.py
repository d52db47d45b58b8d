"""Pages in the resellers' portal: the wizard and the checklist."""

import uuid
from typing import Any

import segno
import structlog
from django import forms
from django.contrib import messages
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from billing import wallet
from billing.yuan import show_yuan
from lifecycle import checks, opening, wizard
from lifecycle.addresses import address_of, main_host, own_host
from lifecycle.models import Check, Opening
from tenants import invitations, throttle
from tenants.api import address_of as address_of_client
from tenants.errors import ProductError
from tenants.models import Membership, Reseller, StaffUser, Tenant
from tenants.portal.access import PortalRequest, reseller_required

log = structlog.get_logger(__name__)

_MINUTE_SECONDS = 60
_CHECKS_PER_MINUTE = 30
# Unfinished openings that the first page offers to go on with.
_SHOWN = 5


@reseller_required
@require_http_methods(["GET", "HEAD", "POST"])
def begin(request: PortalRequest) -> HttpResponse:
    """Ask for the name; with it the opening begins to be kept."""
    step = wizard.STEPS[0]
    if request.method == "POST":
        begun = wizard.begin(reseller=request.reseller, staff=request.user)
        return _take(request, begun, step)
    unfinished = Opening.objects.filter(reseller=request.reseller, slug="").exclude(answers={})
    return _page(request, None, step, step.form(), unfinished=unfinished.order_by("-created_at")[:_SHOWN])


@reseller_required
@require_http_methods(["GET", "HEAD", "POST"])
def step(request: PortalRequest, number: uuid.UUID, name: str) -> HttpResponse:
    """Show a step with what was typed there, or take what is typed now."""
    begun = Opening.objects.filter(reseller=request.reseller, pk=number).first()
    if begun is None or name not in wizard.BY_NAME:
        raise Http404
    if begun.slug and request.method != "POST":
        return redirect("portal:checklist", begun.slug)
    at = wizard.BY_NAME[name]
    if request.method == "POST":
        return _take(request, begun, at)
    return _page(request, begun, at, wizard.form_of(at, begun, check="wrong" in request.GET))


@reseller_required
@require_http_methods(["GET", "HEAD", "POST"])
def checklist(request: PortalRequest, slug: str) -> HttpResponse:
    """Show a tenant's checklist, look at a step, begin the payment, or make a new invitation."""
    tenant = _tenant(request.reseller, slug)
    if request.method != "POST":
        return _checklist(request, tenant)
    return act_on_checklist(request, tenant, _checklist)


def act_on_checklist(request: HttpRequest, tenant: Tenant, show: Any) -> HttpResponse:
    """Do what a button of the checklist asks for; `show(request, tenant, **more)` makes the page around it."""
    actor = request.user.get_username()
    try:
        throttle.count(what="checklist", who=tenant.slug, limit=_CHECKS_PER_MINUTE, seconds=_MINUTE_SECONDS)
        match request.POST.get("do"):
            case "pay":
                standing = checks.start_payment(tenant=tenant, actor=actor, address=address_of_client(request))
                return show(request, tenant, **_to_pay(standing.link))  # type: ignore[no-any-return]
            case "invite":
                staff = request.user if isinstance(request.user, StaffUser) else None
                origin = address_of(main_host(tenant.pk))
                link = invitations.invite(tenant=tenant, role=Membership.Role.OWNER, by=staff, origin=origin)
                checks.run(tenant=tenant, actor=actor, kind=Check.Kind.STAFF)
                return show(request, tenant, invitation_url=link)  # type: ignore[no-any-return]
            case _:
                kind = request.POST.get("step", "")
                found = checks.run(tenant=tenant, actor=actor, kind=kind if kind in Check.Kind.values else "")
    except ProductError as refused:
        if "application/json" in request.headers.get("Accept", ""):
            return JsonResponse({"msg": str(refused.msg)}, status=refused.status)
        messages.error(request, str(refused.msg))
        return show(request, tenant)  # type: ignore[no-any-return]
    if "application/json" in request.headers.get("Accept", ""):
        return JsonResponse({"done": checks.is_done(found), "steps": [_row(one) for one in found]})
    return redirect(request.get_full_path())


def _take(request: PortalRequest, begun: Opening, at: wizard.StepOfWizard) -> HttpResponse:
    """Keep what was typed, then say what is wrong, go on, or open."""
    begun = wizard.keep(begun=begun, step=at, typed=request.POST.dict())
    if not begun.slug and not wizard.form_of(at, begun, check=True).is_valid():
        return redirect(f"{_url(begun, at)}?wrong")
    if "open" in request.POST or begun.slug:
        return _open(request, begun)
    wanted = request.POST.get("to", "")
    following = wizard.STEPS[min(wizard.STEPS.index(at) + 1, len(wizard.STEPS) - 1)]
    return redirect(_url(begun, wizard.BY_NAME.get(wanted, following)))


def _open(request: PortalRequest, begun: Opening) -> HttpResponse:
    wrong = None if begun.slug else wizard.first_wrong(begun)
    if wrong is not None:
        return redirect(f"{_url(begun, wrong)}?wrong")
    if begun.slug:
        return redirect("portal:checklist", begun.slug)
    try:
        opened = opening.open_for(
            application=wizard.application(begun),
            reseller=request.reseller,
            actor=request.user.get_username(),
            key=begun.key,
        )
    except ProductError as refused:
        messages.error(request, str(refused.msg))
        return redirect(_url(begun, wizard.step_of(refused)))
    log.info("tenant_opened", staff=request.user.pk, tenant_slug=opened.tenant.slug)
    # Not by a redirect: the link is shown this once, and stands nowhere that it could be read again.
    return _checklist(request, opened.tenant, invitation_url=opened.invitation_url, is_new=True)


def _url(begun: Opening, at: wizard.StepOfWizard) -> str:
    return reverse("portal:opening_step", args=[begun.pk, at.name])


def _page(
    request: PortalRequest, begun: Opening | None, at: wizard.StepOfWizard, form: forms.Form, **more: Any
) -> HttpResponse:
    done = set(begun.answers) if begun else set()
    context = {
        "title": _("Open a tenant"),
        "begun": begun,
        "at": at,
        "form": form,
        "steps": [
            {
                "step": one,
                "number": number,
                "url": _url(begun, one) if begun else "",
                "is_current": one.name == at.name,
                "is_done": one.name in done,
            }
            for number, one in enumerate(wizard.STEPS, 1)
        ],
        "is_last": at.name == wizard.STEPS[-1].name,
        "brand": wizard.brand_of(begun),
        "own_wallet": show_yuan(wallet.balance_of(reseller_id=request.reseller.pk)),
        "domain": own_host("").lstrip("."),
        **(_prices(request.reseller, form) if at.name == "models" else {}),
        **more,
    }
    return render(request, "portal/opening_step.html", context)


def _prices(reseller: Reseller, form: forms.Form) -> dict[str, Any]:
    """Return the price list of each template at the markup that was typed, for the page to reckon anew."""
    typed = str(form["markup"].value() or "")
    listed = []
    for template in opening.templates():
        markup = int(typed) * 10_000 if typed.isdigit() and len(typed) < 5 else template.markup_ppm  # noqa: PLR2004
        rows = opening.price_list(
            template=template, reseller_id=reseller.pk, markup_ppm=min(markup, opening.MAX_MARKUP_PERCENT * 10_000)
        )
        listed.append(
            {
                "template": template,
                "markup": template.markup_ppm // 10_000,
                "rows": [
                    {
                        "model": row.model,
                        "cells": [
                            {"pays": show_yuan(pays), "sells": show_yuan(sells), "micro": pays}
                            for pays, sells in zip(row.wholesale[:3], row.retail[:3], strict=True)
                        ],
                    }
                    for row in rows
                ],
            }
        )
    return {"price_lists": listed}


def _tenant(reseller: Reseller, slug: str) -> Tenant:
    found = Tenant.objects.filter(Q(reseller=reseller) | Q(reseller__parent=reseller), slug=slug).first()
    if found is None:
        raise Http404
    return found


def checklist_context(tenant: Tenant, **more: Any) -> dict[str, Any]:
    """Return what a checklist's page shows, in the portal and in the admin alike."""
    found = checks.steps(tenant=tenant)
    host = main_host(tenant.pk)
    return {
        "tenant": tenant,
        "steps": [_row(one) for one in found],
        "done": checks.is_done(found),
        "address": address_of(host),
        "socket_address": address_of(host).replace("http", "ws", 1),
        **more,
    }


def _checklist(request: HttpRequest, tenant: Tenant, **more: Any) -> HttpResponse:
    context = checklist_context(tenant, title=tenant.name, **more)
    response = render(request, "portal/checklist.html", context)
    # The page may hold an invitation: no other site may be told where it came from, and no cache may keep it.
    response["Referrer-Policy"] = "no-referrer"
    return response


def _row(one: checks.Step) -> dict[str, Any]:
    marks = {Check.State.GREEN: "good", Check.State.RED: "bad", Check.State.LATER: "", Check.State.WAITING: "wait"}
    return {
        "kind": one.kind,
        "name": str(one.name),
        "state": one.state,
        "mark": marks[Check.State(one.state)],
        "label": str(Check.State(one.state).label),
        "text": one.text,
    }


def _to_pay(link: str) -> dict[str, Any]:
    """Return a link to a payment page, or a code to scan."""
    if not link.startswith("weixin:"):
        return {"pay_url": link}
    return {"pay_code": segno.make(link, error="m").svg_inline(scale=5, border=2, light="#fff")}
