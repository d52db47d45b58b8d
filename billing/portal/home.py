"""The portal's first page, how a reseller's tenants do, and the list of days that its pictures lead to."""

from collections.abc import Callable
from datetime import date
from typing import Any
from urllib.parse import urlencode

from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.dateparse import parse_date
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from billing.models import DailyUsage
from billing.portal import charts, figures, lists, own
from billing.portal.figures import Figures
from billing.portal.lists import Column
from billing.yuan import show_money
from tenants import scope
from tenants.models import Tenant
from tenants.portal.access import PortalRequest, reseller_required, tenants_of


@reseller_required
@require_safe
def home(request: PortalRequest) -> HttpResponse:
    """Show how the reseller's own tenants do, and what the reseller has."""
    days = figures.days_of(request.GET.get("days"))
    tenants = {tenant.pk: tenant for tenant in tenants_of(request.reseller)}
    shares = own.shares_by_tenant(request.reseller, began=figures.began(days))
    earned = shares_of_days(request, days, tenants)
    with scope.several(tenants):
        each = figures.by_tenant(days=days, shares={pk: share for pk, share in shares.items() if pk in tenants})
        daily = figures.by_day(days=days, shares=earned)
    context = {
        "title": _("Home"),
        "days": days,
        "ranges": figures.RANGES,
        "tiles": _tiles(figures.together(each.values()), tenants, days),
        "charts": charts_of(daily),
        "best": _best(each, tenants),
        "has_tenants": bool(tenants),
        "money": money_tiles(own.accounts(request.reseller)),
    }
    return render(request, "portal/home.html", context)


def shares_of_days(request: PortalRequest, days: int, tenants: Any) -> dict[date, int]:
    """Return what some tenants earned the reseller each day; today's is what has not been folded yet."""
    shares = own.shares_by_day(request.reseller, began=figures.began(days), tenants=tenants)
    today = figures.today()
    shares[today] = shares.get(today, 0) + own.accrued_of(request.reseller, tenants=tenants)
    return shares


def charts_of(daily: list[tuple[date, Figures]], tenant: str = "") -> list[charts.Chart]:
    """Draw what happened each day, of one tenant or of all."""

    def days(value: Callable[[Figures], int], text: Callable[[int], str]) -> list[charts.Point]:
        return [
            charts.Point(
                label=f"{day:%m-%d}",
                value=value(each),
                text=text(value(each)),
                url=usage_url(day=day.isoformat(), tenant=tenant),
            )
            for day, each in daily
        ]

    return [
        charts.bars(_("Chats per day"), days(lambda each: each.answers, str)),
        charts.bars(_("Wholesale per day"), days(lambda each: each.wholesale, show_money), style="second"),
        charts.bars(_("Own share per day"), days(lambda each: each.share, show_money), style="third"),
        charts.bars(_("New users per day"), days(lambda each: each.new, str)),
    ]


def tiles_of(sums: Figures, *, days: int, tenant: str = "", users_url: str) -> list[tuple[str, str, str]]:
    """Return the key figures: what it is, how much, and the list behind it."""
    usage = usage_url(days=str(days), tenant=tenant)
    commissions = f"{reverse('portal:commissions')}?{urlencode({'tenant': tenant})}" if tenant else _url("commissions")
    return [
        (_("users"), str(sums.users), users_url),
        (_("new users"), str(sums.new), users_url),
        (_("active users"), str(sums.active), users_url),
        (_("chats"), str(sums.answers), usage),
        (_("tokens"), str(sums.tokens), usage),
        (_("wholesale charge"), show_money(sums.wholesale), usage),
        (_("own share"), show_money(sums.share), commissions),
    ]


def _tiles(sums: Figures, tenants: dict[int, Tenant], days: int) -> list[tuple[str, str, str]]:
    listed = f"{_url('tenants')}?days={days}"
    serving = sum(tenant.status in {Tenant.Status.ACTIVE, Tenant.Status.TRIAL} for tenant in tenants.values())
    return [
        (_("tenants that serve"), f"{serving} / {len(tenants)}", listed),
        *tiles_of(sums, days=days, users_url=listed),
    ]


def money_tiles(has: own.Accounts) -> list[tuple[str, str, str]]:
    """Return what the reseller has: what it is, how much, and the list behind it."""
    tiles = [
        (_("wholesale wallet"), has.wallet, _url("wallet")),
        (_("commission of today"), has.accrued, _url("commissions")),
        (_("frozen"), has.frozen, f"{_url('commissions')}?state=frozen"),
        (_("free to withdraw"), has.withdrawable, _url("withdrawals")),
        (_("withdrawals under way"), has.under_way, _url("withdrawals")),
    ]
    if has.owed:
        tiles.append((_("owed: taken back after it was free"), has.owed, f"{_url('commissions')}#taken-back"))
    return [(name, show_money(amount), url) for name, amount, url in tiles]


def _best(each: dict[int, Figures], tenants: dict[int, Tenant]) -> list[dict[str, Any]]:
    """Return the tenants that pay most, as bars."""
    rows = sorted(((tenants[pk], sums) for pk, sums in each.items()), key=lambda row: -row[1].wholesale)[:5]
    most = max((sums.wholesale for _tenant, sums in rows), default=0) or 1
    return [
        {
            "tenant": tenant,
            "url": reverse("portal:tenant", args=[tenant.slug]),
            "amount": show_money(sums.wholesale),
            "percent": sums.wholesale * 100 // most,
        }
        for tenant, sums in rows
    ]


USAGE_COLUMNS = (
    Column(label=gettext_lazy("day"), show=lambda row: row["day"].isoformat()),
    Column(
        label=gettext_lazy("tenant"),
        show=lambda row: row["tenant__slug"],
        url=lambda row: reverse("portal:tenant", args=[row["tenant__slug"]]),
    ),
    Column(label=gettext_lazy("price list item"), show=lambda row: row["sku"]),
    lists.count(gettext_lazy("chats"), lambda row: row["chats"]),
    lists.count(gettext_lazy("prompt tokens"), lambda row: row["asked"]),
    lists.count(gettext_lazy("completion tokens"), lambda row: row["said"]),
    lists.money(gettext_lazy("wholesale charge"), lambda row: row["paid"]),
)


@reseller_required
@require_safe
def usage(request: PortalRequest) -> HttpResponse:
    """List what the reseller's own tenants used: by day, tenant and item."""
    tenants = tenants_of(request.reseller)
    with scope.several(tenants.values_list("pk", flat=True)):
        rows = _chosen(request).order_by("-day", "tenant__slug", "sku").values("day", "tenant__slug", "sku")
        rows = rows.annotate(
            chats=Sum("answers"),
            asked=Sum("prompt_tokens"),
            said=Sum("completion_tokens"),
            paid=Sum("wholesale_charge"),
        )
        if lists.wants_file(request):
            return lists.file_of("usage", USAGE_COLUMNS, rows)
        context = {
            "title": _("Usage"),
            "days": figures.days_of(request.GET.get("days")),
            "day": request.GET.get("day", ""),
            "tenant": request.GET.get("tenant", ""),
            "tenants": tenants.order_by("slug"),
            "table": lists.paged(request, USAGE_COLUMNS, rows),
            "file": f"?{urlencode({**request.GET.dict(), 'format': 'csv'})}",
        }
        return render(request, "portal/usage.html", context)


def _chosen(request: HttpRequest) -> Any:
    """Return the rows that the address asks for: of a day or of the last ones, of a tenant or of all in scope."""
    rows = DailyUsage.objects.all()
    try:
        day = parse_date(request.GET.get("day", ""))
    except ValueError:
        day = None
    if day:
        rows = rows.filter(day=day)
    else:
        rows = rows.filter(day__gte=figures.began(figures.days_of(request.GET.get("days"))))
    if tenant := lists.asked(request, "tenant"):
        rows = rows.filter(tenant__slug=tenant)
    return rows


def usage_url(**asked: str) -> str:
    """Return the address of the list of usage."""
    return f"{_url('usage')}?{urlencode({name: value for name, value in asked.items() if value})}"


def _url(name: str) -> str:
    return reverse(f"portal:{name}")
