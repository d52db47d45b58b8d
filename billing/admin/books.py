"""Billing's rows, to look at. None is edited by hand: the ledger changes balances, a new version changes a price."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from billing import audit, figures
from billing.models import (
    Account,
    AccountKind,
    AuditRun,
    DailyUsage,
    Entry,
    Hold,
    QuotaUse,
    Transfer,
    UsageAdjustment,
    UsageRecord,
)
from billing.yuan import show_money, show_yuan
from tenants.adminsite import ReadOnlyOperatorModelAdmin, ReadOnlyTenantModelAdmin, register
from tenants.exports import ExportsRows
from tenants.filters import DaysFilter, LongPaginator
from tenants.models import Membership

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


Role = Membership.Role

# What becomes of the wholesale charge is between the platform and its resellers: a tenant's site shows none of it.
_OURS: Final = (AccountKind.RESELLER_ACCRUED, AccountKind.PLATFORM_REVENUE)
_BETWEEN_US: Final = (Transfer.Kind.COMMISSION, Transfer.Kind.COMMISSION_BACK)


def yuan_column(field: str, label: "_StrOrPromise") -> Callable[[models.Model], str]:
    """Make a column that shows an amount of micro-yuan in yuan, and sorts by it."""

    @admin.display(description=label, ordering=field)
    def column(row: models.Model) -> str:
        return show_money(getattr(row, field))

    return column


class ShowsYuan:
    """Pages of rows that the person may not change: amounts in yuan, and shares in percent.

    A column says by its name that it holds micro-yuan, or millionths; people read neither.
    """

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Put what people read in the place of such columns."""
        groups = super().get_fieldsets(request, obj)  # type: ignore[misc]  # the admin class's
        if obj is None or self.has_change_permission(request, obj):  # type: ignore[attr-defined]  # as above
            return groups
        columns = {column.name: column for column in obj._meta.concrete_fields}
        return [
            (title, {**group, "fields": [_as_read(columns.get(name), name) for name in group["fields"]]})
            for title, group in groups
        ]


def _as_read(column: "models.Field[Any, Any] | None", name: Any) -> Any:
    """Return what shows a column: its name, or for an amount or a share a function of its row."""
    called = "" if column is None else str(column.verbose_name)
    for stored, read, step in ((_("micro-yuan"), _("yuan"), 1), (_("millionths"), _("percent"), 100)):
        if str(stored) in called:
            return _reader(name, called.replace(str(stored), str(read)), step)
    return name


def _reader(name: str, label: str, step: int) -> Callable[[models.Model], str]:
    @admin.display(description=label)
    def reader(row: models.Model) -> str:
        value = getattr(row, name)
        if value is None:
            return ""
        return " ".join(show_yuan(amount * step) for amount in (value if isinstance(value, list) else [value]))

    return reader


class MoneyAdmin(ShowsYuan, ExportsRows, ReadOnlyTenantModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """Rows about money: for owners and finance."""

    visible_to: ClassVar[frozenset[str]] = frozenset({Role.OWNER, Role.FINANCE})
    list_filter_submit = True
    show_full_result_count = False


class CostAdmin(MoneyAdmin):
    """Rows that know what an answer cost the platform and earned resellers: not the tenant's business.

    Support may look at the rest.
    """

    visible_to: ClassVar[frozenset[str]] = frozenset({Role.OWNER, Role.FINANCE, Role.SUPPORT})
    platform_only: ClassVar[tuple[str, ...]] = (
        "cost",
        "cost_price",
        "reseller",
        "own_ppm",
        "own_share",
        "parent_reseller",
        "parent_ppm",
        "parent_share",
    )

    def get_exclude(self, request: HttpRequest, obj: models.Model | None = None) -> tuple[str, ...]:
        """Hide the platform's cost and the resellers' shares on the tenant's site."""
        return () if self._on_platform else self.platform_only


class AccountAdmin(MoneyAdmin):
    """Balances."""

    list_display = (
        "id",
        "kind",
        "user",
        "channel",
        yuan_column("posted", _("posted")),
        yuan_column("pending", _("frozen")),
    )
    list_filter = ("kind",)
    paginator = LongPaginator
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username", "user__phone", "user__email")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        """Leave out what is not the tenant's business."""
        rows: QuerySet[Account] = super().get_queryset(request)
        return rows if self._on_platform else rows.exclude(kind__in=_OURS)


class TransferAdmin(MoneyAdmin):
    """What moved money, and who did it."""

    list_display = ("id", "created_at", "kind", "ref", "actor", "reason")
    list_filter = ("kind", ("created_at", DaysFilter))
    search_fields = ("ref", "actor", "reason")
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transfer]:
        """Leave out what is not the tenant's business."""
        rows: QuerySet[Transfer] = super().get_queryset(request)
        return rows if self._on_platform else rows.exclude(kind__in=_BETWEEN_US)


class EntryAdmin(MoneyAdmin):
    """What transfers did to accounts."""

    list_display = ("id", "transfer_kind", "transfer_ref", "account_kind", yuan_column("amount", _("amount")))
    list_filter = ("account__kind",)
    paginator = LongPaginator
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "transfer", "account")
    search_fields = ("transfer__ref",)
    ordering = ("-id",)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Let a user's page lead to the user's entries."""
        return lookup == "account__user__id__exact" or super().lookup_allowed(lookup, value, request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entry]:
        """Leave out what is not the tenant's business, and others' side of it."""
        rows: QuerySet[Entry] = super().get_queryset(request)
        return rows if self._on_platform else rows.exclude(account__tenant=None).exclude(account__kind__in=_OURS)

    @admin.display(description=_("transfer"), ordering="transfer__kind")
    def transfer_kind(self, row: Entry) -> str:
        """Say why money moved, in the reader's language."""
        return row.transfer.get_kind_display()

    @admin.display(description=_("reference"), ordering="transfer__ref")
    def transfer_ref(self, row: Entry) -> str:
        """Show what the transfer was for."""
        return row.transfer.ref

    @admin.display(description=_("account"), ordering="account__kind")
    def account_kind(self, row: Entry) -> str:
        """Say what balance it is, in the reader's language."""
        return row.account.get_kind_display()


class FailedFilter(admin.SimpleListFilter):
    """Keeps what the dashboard counts as errors."""

    title = _("failed")
    parameter_name = "failed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, "_StrOrPromise"]]:
        """Offer the one choice."""
        return [("yes", _("failed"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Hold]) -> QuerySet[Hold]:
        """Keep failures, and not what users or tenants ended."""
        return figures.failed(queryset) if self.value() == "yes" else queryset


class HoldAdmin(CostAdmin):
    """Answers and what was frozen and charged for them."""

    list_display = (
        "id",
        "created_at",
        "user",
        "sku",
        "state",
        "free",
        yuan_column("amount", _("held")),
        yuan_column("charge", _("charge")),
        yuan_column("wholesale_charge", _("wholesale charge")),
    )
    list_filter = ("state", FailedFilter, "free", ("quota_date", DaysFilter))
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("=id", "user__username", "sku")
    ordering = ("-id",)  # they are numbered by their time


class QuotaUseAdmin(MoneyAdmin):
    """Free answers used."""

    visible_to: ClassVar[frozenset[str]] = CostAdmin.visible_to
    list_display = ("user", "quota_group", "date", "used")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username",)
    ordering = ("-date", "-id")


class UsageRecordAdmin(CostAdmin):
    """What was used."""

    list_display = (
        "id",
        "created_at",
        "user",
        "sku",
        "prompt_tokens",
        "completion_tokens",
        "free",
        yuan_column("charge", _("charge")),
    )
    list_filter = ("usage_source", "free", ("day", DaysFilter))
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username", "sku")
    ordering = ("-id",)


class UsageAdjustmentAdmin(CostAdmin):
    """Answers whose usage came after they were charged at their checkpoint."""

    list_display = (
        "id",
        "created_at",
        "hold",
        "prompt_tokens",
        "completion_tokens",
        yuan_column("charge", _("charge added")),
        yuan_column("wholesale_charge", _("wholesale charge added")),
    )
    platform_only: ClassVar[tuple[str, ...]] = ("cost",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "hold")
    search_fields = ("hold__id",)
    ordering = ("-id",)


class DailyUsageAdmin(CostAdmin):
    """Days added up."""

    platform_only: ClassVar[tuple[str, ...]] = ("cost", "own_share", "parent_share")
    list_display = (
        "day",
        "sku",
        "answers",
        "free_answers",
        "prompt_tokens",
        "completion_tokens",
        yuan_column("charge", _("charge")),
        yuan_column("wholesale_charge", _("wholesale charge")),
    )
    list_filter = (("day", DaysFilter),)
    search_fields = ("sku",)
    ordering = ("-day", "sku")


@admin.register(AuditRun)
class AuditRunAdmin(ReadOnlyOperatorModelAdmin):
    """What the nightly audit found: on the operator's site only, since it speaks of every tenant."""

    list_display = ("started_at", "ended_at", "breaches", "rows_checked")
    fields = ("started_at", "ended_at", "breaches", "what_was_checked", "which_rows_break")
    ordering = ("-started_at",)

    @admin.display(description=_("rows checked"))
    def rows_checked(self, run: AuditRun) -> int:
        """Add the checks' rows up."""
        return sum(check["rows"] for check in run.checked)

    @admin.display(description=_("checked"))
    def what_was_checked(self, run: AuditRun) -> SafeString:
        """Show each check: what is always true, of how many rows, and for how many it is not."""
        meanings = {check.invariant: check.meaning for check in audit.CHECKS}
        return _table(
            (_("invariant"), "", _("rows checked"), _("breaches")),
            [
                (check["invariant"], meanings.get(check["invariant"], ""), check["rows"], check["breaches"])
                for check in run.checked
            ],
        )

    @admin.display(description=_("breaking rows"))
    def which_rows_break(self, run: AuditRun) -> SafeString | str:
        """Show the first breaches of each check, as they were found."""
        if not run.details:
            return "-"
        return _table(
            (_("invariant"), _("tenant"), _("row"), _("found")),
            [
                (breach["invariant"], breach["tenant"] or _("platform"), breach["row"], breach["found"])
                for breach in run.details
            ],
        )


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> SafeString:
    """Return a table as HTML, every cell escaped."""
    return format_html(
        "<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>",
        format_html_join("", "<th>{}</th>", ((cell,) for cell in head)),
        format_html_join(
            "", "<tr>{}</tr>", ((format_html_join("", "<td>{}</td>", ((c,) for c in row)),) for row in rows)
        ),
    )


register(Account, AccountAdmin)
register(Transfer, TransferAdmin)
register(Entry, EntryAdmin)
register(Hold, HoldAdmin)
register(QuotaUse, QuotaUseAdmin)
register(UsageRecord, UsageRecordAdmin)
register(UsageAdjustment, UsageAdjustmentAdmin)
register(DailyUsage, DailyUsageAdmin)
