"""The reseller's own tenants: the list, and a page of each, from which its wallet is filled."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.db.models import F
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST, require_safe
from uuid_utils.compat import uuid7

from billing import wallet
from billing.ledger import RefConflictError
from billing.models import Account, AccountKind
from billing.portal import figures, lists, own
from billing.portal.figures import Figures
from billing.portal.forms import yuan
from billing.portal.home import charts_of, shares_of_days, tiles_of, usage_url
from billing.portal.lists import Column
from billing.yuan import show_money
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Domain
from tenants.portal.access import PortalRequest, reseller_required, tenants_of
from tenants.portal.history import record

MARKS = {"active": "good", "trial": "wait", "suspended": "bad"}


def _page(row: dict[str, Any]) -> str:
    return reverse("portal:tenant", args=[row["tenant"].slug])


def _sums(row: dict[str, Any]) -> Figures:
    return row["sums"]  # type: ignore[no-any-return]


COLUMNS = (
    Column(label=gettext_lazy("tenant"), show=lambda row: row["tenant"].name, url=_page),
    Column(
        label=gettext_lazy("state"),
        show=lambda row: row["tenant"].get_status_display(),
        mark=lambda row: MARKS.get(row["tenant"].status, "off"),
    ),
    lists.count(gettext_lazy("users"), lambda row: _sums(row).users),
    lists.count(gettext_lazy("active users"), lambda row: _sums(row).active),
    lists.count(gettext_lazy("chats"), lambda row: _sums(row).answers),
    lists.money(gettext_lazy("wholesale charge"), lambda row: _sums(row).wholesale),
    lists.money(gettext_lazy("own share"), lambda row: _sums(row).share),
    lists.money(gettext_lazy("in its wallet"), lambda row: row["wallet"]),
    lists.moment(gettext_lazy("opened on"), lambda row: row["tenant"].created_at),
)


@reseller_required
@require_safe
def tenants(request: PortalRequest) -> HttpResponse:
    """List the reseller's own tenants."""
    days = figures.days_of(request.GET.get("days"))
    mine = list(tenants_of(request.reseller).order_by("name", "pk"))
    shares = own.shares_by_tenant(request.reseller, began=figures.began(days))
    with scope.several(tenant.pk for tenant in mine):
        each = figures.by_tenant(days=days, shares=shares)
        filled = _wallets()
    rows = [
        {"tenant": tenant, "sums": each.get(tenant.pk, Figures()), "wallet": filled.get(tenant.pk, 0)}
        for tenant in mine
    ]
    if lists.wants_file(request):
        return lists.file_of("tenants", COLUMNS, rows)
    context = {
        "title": _("Tenants"),
        "days": days,
        "ranges": figures.RANGES,
        "table": lists.paged(request, COLUMNS, rows),
    }
    return render(request, "portal/tenants.html", context)


@reseller_required
@require_safe
def tenant(request: PortalRequest, slug: str) -> HttpResponse:
    """Show one of the reseller's own tenants."""
    mine = get_object_or_404(tenants_of(request.reseller), slug=slug)
    days = figures.days_of(request.GET.get("days"))
    shares = own.shares_by_tenant(request.reseller, began=figures.began(days))
    earned = shares_of_days(request, days, [mine.pk])
    with scope.several([mine.pk]):
        sums = figures.by_tenant(days=days, shares={mine.pk: shares.get(mine.pk, 0)}).get(mine.pk, Figures())
        daily = figures.by_day(days=days, shares=earned)
        hosts = list(Domain.objects.order_by("pk").values_list("host", flat=True))
        filled = _wallets().get(mine.pk, 0)
    usage = usage_url(days=str(days), tenant=slug)
    context = {
        "title": mine.name,
        "tenant": mine,
        "mark": MARKS.get(mine.status, "off"),
        "days": days,
        "ranges": figures.RANGES,
        "tiles": tiles_of(sums, days=days, tenant=slug, users_url=usage),
        "charts": charts_of(daily, tenant=slug),
        "hosts": hosts,
        "opened": lists.shown_moment(mine.created_at),
        "wallet": show_money(filled),
        "own_wallet": show_money(own.accounts(request.reseller).wallet),
        "form": AllotForm(initial={"number": uuid7()}),
    }
    return render(request, "portal/tenant.html", context)


class AllotForm(forms.Form):
    """Asks how much goes into a tenant's wallet; `number` is the form's own, so that sent twice it moves once."""

    amount = yuan(gettext_lazy("amount, yuan"))
    number = forms.UUIDField(widget=forms.HiddenInput)


@reseller_required
@require_POST
def allot(request: PortalRequest, slug: str) -> HttpResponse:
    """Fill a tenant's wallet from the reseller's own."""
    mine = get_object_or_404(tenants_of(request.reseller), slug=slug)
    form = AllotForm(request.POST)
    if not form.is_valid():
        messages.error(request, " ".join(str(fault) for faults in form.errors.values() for fault in faults))
        return redirect("portal:tenant", slug)
    try:
        with transaction.atomic():
            wallet.allot(
                reseller_id=request.reseller.pk,
                tenant_id=mine.pk,
                amount=form.cleaned_data["amount"],
                ref=f"portal:{form.cleaned_data['number']}",
                reason="",
                actor=request.user.get_username(),
            )
            amount = show_money(form.cleaned_data["amount"])
            record(request, mine, _("%(amount)s were put into the tenant's wallet.") % {"amount": amount})
    except ProductError as refused:
        messages.error(request, str(refused.msg))
    except RefConflictError:
        messages.error(request, _("This form was sent before, with another amount."))
    else:
        messages.success(request, _("%(amount)s were put into the tenant's wallet.") % {"amount": amount})
    return redirect("portal:tenant", slug)


def _wallets() -> dict[int, int]:
    """Return what the wallets of the tenants in scope have, micro-yuan."""
    rows = Account.objects.filter(kind=AccountKind.TENANT_WHOLESALE).order_by()
    return dict(rows.values_list("tenant", F("posted") - F("pending")))
