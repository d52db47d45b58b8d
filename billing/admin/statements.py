"""Monthly statements in the admin: a page to print and a file, of months that are over and of the present one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from billing import statements
from billing.admin.books import MoneyAdmin
from billing.models import AccountKind, Statement, Transfer
from billing.models.account import USER_KINDS
from billing.statements import Figures, Period, StatementError
from billing.yuan import show_money, show_yuan
from tenants.adminsite import register
from tenants.models import Reseller, Tenant
from tenants.sheets import csv_response

logger = structlog.get_logger(__name__)

Kind = Transfer.Kind


@dataclass(frozen=True, kw_only=True)
class StatementPage:
    """What both the page and the file show, here and in the resellers' portal."""

    owner: Tenant | Reseller
    period: Period
    figures: Figures
    number: str = ""

    @property
    def title(self) -> str:
        """Name the page."""
        return f"{self.owner.name} {self.period.month:%Y-%m}"

    def summary(self) -> list[tuple[str, int]]:
        """Return what the month came to, micro-yuan."""
        if isinstance(self.owner, Reseller):
            return self._of_reseller()
        moved = self.figures.moved
        charged = moved(AccountKind.TENANT_REVENUE, Kind.ANSWER, Kind.ADJUSTMENT)
        owed = -moved(AccountKind.TENANT_WHOLESALE, Kind.ANSWER, Kind.ADJUSTMENT)
        owed -= moved(AccountKind.SHORTFALL, Kind.ANSWER, Kind.ADJUSTMENT, channel="wholesale")
        lines = [
            (_("recharged by users"), -moved(AccountKind.PSP_CLEARING, Kind.TOPUP)),
            (_("plans sold"), -moved(AccountKind.PSP_CLEARING, Kind.PLAN)),
            (_("paid back to users"), moved(AccountKind.PSP_CLEARING, Kind.REFUND, Kind.REFUND_PAID)),
            (_("answers, charged to users"), charged),
            (_("answers, wholesale"), owed),
            (_("margin on answers"), charged - owed),
            (_("given to users: codes, gifts, rewards"), self._given()),
            (
                _("wholesale wallet topped up"),
                moved(AccountKind.TENANT_WHOLESALE, Kind.WALLET_TOPUP, Kind.WALLET_ALLOT),
            ),
            (_("charged beyond balances"), -moved(AccountKind.SHORTFALL, *Kind)),
        ]
        return [(str(label), amount) for label, amount in lines]

    def _given(self) -> int:
        rewards = (Kind.GIFT, Kind.REDEEM, Kind.SIGN_IN, Kind.INVITATION, Kind.AD, Kind.REWARD_BACK)
        return sum(self.figures.moved(account, *rewards) for account in USER_KINDS)

    def _of_reseller(self) -> list[tuple[str, int]]:
        lines = [
            (_("wholesale of the tenants' answers"), sum(row.wholesale_charge for row in self.figures.usage)),
            (_("commission earned"), sum(self.figures.commission.values())),
            (_("commission set free"), self.figures.moved(AccountKind.RESELLER_AVAILABLE, Kind.COMMISSION_RELEASE)),
            (_("paid out"), -self.figures.moved(AccountKind.WITHDRAWAL_PAYABLE, Kind.WITHDRAWAL_PAID)),
        ]
        return [(str(label), amount) for label, amount in lines]

    def usage_head(self) -> list[str]:
        """Return the head of the table of usage."""
        first = _("tenant") if isinstance(self.owner, Reseller) else _("price list item")
        last = _("commission") if isinstance(self.owner, Reseller) else _("charge")
        columns = (first, _("answers"), _("prompt tokens"), _("completion tokens"), last, _("wholesale charge"))
        return [str(column) for column in columns]

    def usage(self) -> list[tuple[str, ...]]:
        """Return the lines under `usage_head`; amounts in yuan. A reseller is not told what users were charged."""
        return [
            (
                row.name,
                str(row.answers),
                str(row.prompt_tokens),
                str(row.completion_tokens),
                show_yuan(self.figures.commission.get(row.name, 0) if isinstance(self.owner, Reseller) else row.charge),
                show_yuan(row.wholesale_charge),
            )
            for row in self.figures.usage
        ]

    def accounts(self, show: Callable[[int], str]) -> list[dict[str, Any]]:
        """Return each account with its movements, in words and as `show` writes amounts."""
        return [
            {
                "label": " · ".join(filter(None, (str(AccountKind(row.kind).label), row.channel))),
                "opening": show(row.opening),
                "movements": [(str(Kind(kind).label), show(amount)) for kind, amount in row.movements.items()],
                "closing": show(row.closing),
            }
            for row in self.figures.accounts
        ]


class StatementAdmin(MoneyAdmin):
    """Statements: a tenant's own on its site, everybody's on the operator's."""

    list_display = ("number", "month", "reseller", "created_at", "open")
    list_display_links = None
    list_filter = ("month",)
    search_fields = ("number",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "reseller")
    ordering = ("-month", "number")
    exclude = ("figures",)  # the page to print shows them, in words
    list_before_template = "statements/so_far.html"  # type: ignore[assignment]  # unfold says None, and takes a name

    def get_list_display(self, request: HttpRequest) -> Any:
        """Leave resellers out on a tenant's site, which has none."""
        columns = super().get_list_display(request)
        return columns if self._on_platform else tuple(column for column in columns if column != "reseller")

    def get_urls(self) -> list[Any]:
        """Add the pages to print."""
        wrap = self.admin_site.admin_view
        pages = [
            path("so-far/", wrap(self.so_far), name="billing_statement_so_far"),
            path("<int:pk>/page/", wrap(self.page), name="billing_statement_page"),
        ]
        return pages + super().get_urls()

    @admin.display(description=_("statement"))
    def open(self, row: Statement) -> SafeString:
        """Link to the page and to the file."""
        url = self._url("page", row.pk)
        return format_html('<a href="{}">{}</a> · <a href="{}?format=csv">CSV</a>', url, _("open"), url)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Offer the present month's figures above the list."""
        owners: list[tuple[str, str]] = [("", str(_("The month so far")))]
        if self._on_platform:
            owners = [
                (f"?tenant={slug}", slug) for slug in Tenant.objects.order_by("slug").values_list("slug", flat=True)
            ]
            owners += [
                (f"?reseller={slug}", slug) for slug in Reseller.objects.order_by("slug").values_list("slug", flat=True)
            ]
        so_far: dict[str, Any] = {"so_far_url": self._url("so_far"), "so_far_owners": owners}
        return super().changelist_view(request, {**(extra_context or {}), **so_far})

    def page(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show a statement that was made."""
        row = self.get_queryset(request).filter(pk=pk).first()
        if row is None or not self.has_view_permission(request, row):
            raise Http404
        figures, period = Figures.from_json(row.figures), Period.of_statement(row)
        owner = row.tenant or row.reseller
        return self._answer(request, StatementPage(owner=owner, period=period, figures=figures, number=row.number))

    def so_far(self, request: HttpRequest) -> HttpResponse:
        """Show the present month of the site's tenant, or on the operator's site of whom the address names."""
        if not self.has_view_permission(request):
            raise Http404
        owner = self._owner(request)
        whose: dict[str, Any] = {"tenant" if isinstance(owner, Tenant) else "reseller": owner}
        zone = owner.timezone if isinstance(owner, Tenant) else settings.TIME_ZONE
        period = Period.of_month(timezone.now().astimezone(ZoneInfo(zone)).date(), zone)
        period = period.after(statements.statement_before(month=period.month, **whose))
        try:
            if isinstance(owner, Tenant):
                figures = statements.figures_of_tenant(tenant=owner, period=period)
            else:
                figures = statements.figures_of_reseller(reseller=owner, period=period)
        except StatementError:
            logger.exception("statement_not_made", month=str(period.month), owner=owner.slug)
            messages.error(
                request, _("The ledger does not add up at the moment. The operator has to look at it first.")
            )
            return HttpResponseRedirect(self._url("changelist"))
        return self._answer(request, StatementPage(owner=owner, period=period, figures=figures))

    def _owner(self, request: HttpRequest) -> Tenant | Reseller:
        if not self._on_platform:
            return request.tenant  # type: ignore[attr-defined, no-any-return]  # the middleware's
        found: Tenant | Reseller | None
        if "reseller" in request.GET:
            found = Reseller.objects.filter(slug=request.GET["reseller"]).first()
        else:
            found = Tenant.objects.filter(slug=request.GET.get("tenant", "")).first()
        if found is None:
            raise Http404
        return found

    def _answer(self, request: HttpRequest, shown: StatementPage) -> HttpResponse:
        return answer(request, shown, back=self._url("changelist"))

    def _url(self, name: str, *args: object) -> str:
        return reverse(f"{self.admin_site.name}:billing_statement_{name}", args=args)


def answer(request: HttpRequest, shown: StatementPage, *, back: str) -> HttpResponse:
    """Show a statement, or give it as a file; `back` is where its list is."""
    if request.GET.get("format") == "csv":
        return _file(shown)
    summary = shown.summary()
    most = max((abs(amount) for _label, amount in summary), default=0) or 1
    context = {
        "title": shown.title,
        "owner": shown.owner.name,
        "month": f"{shown.period.month:%Y-%m}",
        "number": shown.number,
        "began": show_moment(shown.period.began, shown.period.zone),
        "ended": show_moment(shown.period.ended, shown.period.zone),
        "summary": [
            {"label": label, "amount": show_money(amount), "percent": abs(amount) * 100 // most}
            for label, amount in summary
        ],
        "usage_title": _("By tenant") if isinstance(shown.owner, Reseller) else _("By model"),
        "usage_head": shown.usage_head(),
        "usage": shown.usage(),
        "accounts": shown.accounts(show_money),
        "back": back,
    }
    return render(request, "statements/statement.html", context)


def show_moment(moment: datetime, zone: str) -> str:
    """Return a moment as clocks in an IANA time zone show it."""
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M %Z}"


def _file(shown: StatementPage) -> HttpResponse:
    """Return the same as lines: what it is of, the name, the amount in yuan."""
    lines: list[tuple[object, ...]] = [(_("Summary"), label, show_yuan(amount)) for label, amount in shown.summary()]
    for row in shown.usage():
        lines += [(row[0], name, value) for name, value in zip(shown.usage_head()[1:], row[1:], strict=True)]
    for account in shown.accounts(show_yuan):
        lines.append((account["label"], _("opening balance"), account["opening"]))
        lines += [(account["label"], label, amount) for label, amount in account["movements"]]
        lines.append((account["label"], _("closing balance"), account["closing"]))
    name = f"statement-{shown.number or f'{shown.period.month:%Y%m}-{shown.owner.slug}-so-far'}"
    return csv_response(
        name=name,
        head=(_("of"), _("what"), _("yuan or count")),
        rows=[tuple(str(cell) for cell in line) for line in lines],
    )


register(Statement, StatementAdmin)
