"""Monthly statements of tenants and resellers, from the ledger's entries.

    figures_of_tenant, figures_of_reseller    what happened in a span of time
    make_statement, make_statements           the same for a calendar month that is over, kept for good

Each account on a statement is proved before it is told: what it was at the beginning and the month's movements come to
what it was at the end, which is reckoned from its balance of today and what came after the month. It begins with what
the statement before it closed with, and in that very moment, whatever became of the owner's time zone; the first one
with all that came before. A statement that does not add up is not made (StatementError): someone has to look at the
ledger first.

A transfer belongs to the month in which its transaction began. A month is over once its end is `GRACE` past: no task
runs so long, so none of the month's transactions can still be under way.

A tenant's statement tells nothing of what an answer cost the platform or brought a reseller.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Q, Sum
from django.utils import timezone

from billing.models import AccountKind, DailyUsage, Statement, Transfer
from billing.models.account import RESELLER_KINDS
from tenants import scope
from tenants.models import Reseller, Tenant

log = structlog.get_logger(__name__)

GRACE: Final = timedelta(hours=1)

# What a tenant's statement shows; users' balances are added up over all users.
TENANT_KINDS: Final = (
    AccountKind.TENANT_WHOLESALE,
    AccountKind.TENANT_REVENUE,
    AccountKind.USER_CASH,
    AccountKind.USER_GIFT,
    AccountKind.PSP_CLEARING,
    AccountKind.REFUND_PAYABLE,
    AccountKind.SHORTFALL,
)
# What a reseller's shows; what its tenants' answers accrued and no day has collected yet is added up over them.
STATED_RESELLER_KINDS: Final = (AccountKind.RESELLER_ACCRUED, *RESELLER_KINDS)
# Where a month is over first.
_FIRST_ZONE: Final = "Etc/GMT-14"


class StatementError(RuntimeError):
    """The ledger and its entries disagree: `manage.py audit_ledger` says where."""


@dataclass(frozen=True, kw_only=True)
class AccountFigures:
    """One kind of account (and channel) over the span; `movements` by the transfers' kind. Micro-yuan."""

    kind: str
    channel: str
    opening: int
    movements: dict[str, int]
    closing: int


@dataclass(frozen=True, kw_only=True)
class UsageFigures:
    """What was sold of one sku, or (for a reseller) by one tenant. Micro-yuan and tokens."""

    name: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    charge: int
    wholesale_charge: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A statement's content. `commission` is a reseller's share by tenant; empty on a tenant's statement."""

    accounts: list[AccountFigures]
    usage: list[UsageFigures]
    commission: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON column keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Figures":
        """Return what `as_json` made."""
        return cls(
            accounts=[AccountFigures(**row) for row in kept["accounts"]],
            usage=[UsageFigures(**row) for row in kept["usage"]],
            commission=dict(kept["commission"]),
        )

    def moved(self, account: AccountKind, *kinds: Transfer.Kind, channel: str | None = None) -> int:
        """Return what transfers of these kinds moved on accounts of that kind, of all channels or one."""
        rows = [row for row in self.accounts if row.kind == account and channel in (None, row.channel)]
        return sum(row.movements.get(kind, 0) for row in rows for kind in kinds)


@dataclass(frozen=True, kw_only=True)
class Period:
    """A span of time: from `began` on and before `ended`; `month` is its first day in the owner's calendar."""

    month: date
    began: datetime
    ended: datetime
    zone: str

    @property
    def is_over(self) -> bool:
        """Whether nothing can be added to it any more."""
        return self.ended + GRACE <= timezone.now()

    @classmethod
    def of_statement(cls, statement: Statement) -> "Period":
        """Return the span that a statement was made of."""
        kept = statement.figures["period"]
        began, ended = (datetime.fromisoformat(kept[end]) for end in ("began", "ended"))
        return cls(month=statement.month, began=began, ended=ended, zone=kept["zone"])

    @classmethod
    def of_month(cls, month: date, zone: str) -> "Period":
        """Return the calendar month that `month` lies in, in an IANA time zone."""
        first = month.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
        began, ended = (datetime(day.year, day.month, 1, tzinfo=ZoneInfo(zone)) for day in (first, following))
        return cls(month=first, began=began, ended=ended, zone=zone)

    def after(self, before: Statement | None) -> "Period":
        """Return the same beginning where the statement of the month before ended."""
        if before is None or before.month != month_before(self.month):
            return self
        return replace(self, began=Period.of_statement(before).ended)

    def as_json(self) -> dict[str, str]:
        """Return what `of_statement` reads."""
        return {"began": self.began.isoformat(), "ended": self.ended.isoformat(), "zone": self.zone}


# `later` is what came after the span: taken from the balance of today it gives the closing balance, which the opening
# balance and the movements then have to give too. One statement, since money moves between two. What came before the
# span is asked for where no statement says it, so that a month takes the month's rows and not the whole ledger's.
_MOVEMENTS: Final = """
    WITH mine AS MATERIALIZED (
        SELECT account.* FROM billing_account account WHERE account.kind = ANY(%(kinds)s) AND {accounts})
    SELECT balance.kind, balance.channel, balance.posted, moved.why,
        coalesce(moved.before, 0), coalesce(moved.within, 0), coalesce(moved.later, 0)
    FROM (SELECT kind, channel, sum(posted) AS posted FROM mine GROUP BY kind, channel) balance
    LEFT JOIN (
        SELECT mine.kind, mine.channel, transfer.kind AS why,
            sum(entry.amount) FILTER (WHERE transfer.created_at < %(began)s) AS before,
            sum(entry.amount) FILTER (
                WHERE transfer.created_at >= %(began)s AND transfer.created_at < %(ended)s) AS within,
            sum(entry.amount) FILTER (WHERE transfer.created_at >= %(ended)s) AS later
        FROM billing_transfer transfer
        JOIN billing_entry entry ON entry.transfer_id = transfer.id AND {entries}
        JOIN mine ON mine.id = entry.account_id
        WHERE {transfers} AND (%(whole)s OR transfer.created_at >= %(began)s)
        GROUP BY mine.kind, mine.channel, transfer.kind
    ) moved ON (moved.kind, moved.channel) = (balance.kind, balance.channel)"""
_OF_TENANT: Final = {
    "accounts": "account.tenant_id = %(owner)s",
    "entries": "entry.tenant_id = %(owner)s",
    "transfers": "transfer.tenant_id = %(owner)s",
}
# A reseller's money is moved by the platform's transfers, and by those of the tenants that have an account for it or
# are below it. The tenant comes first in every index.
_BELOW: Final = """(
    SELECT account.tenant_id FROM billing_account account
    WHERE account.reseller_id = %(owner)s AND account.tenant_id IS NOT NULL
    UNION SELECT tenant.id FROM tenants_tenant tenant JOIN tenants_reseller reseller ON reseller.id = tenant.reseller_id
    WHERE %(owner)s IN (reseller.id, reseller.parent_id))"""
_OF_RESELLER: Final = {
    "accounts": "account.reseller_id = %(owner)s",
    "entries": "entry.tenant_id IS NOT DISTINCT FROM transfer.tenant_id",
    "transfers": f"(transfer.tenant_id IS NULL OR transfer.tenant_id IN {_BELOW})",
}


def figures_of_tenant(*, tenant: Tenant, period: Period) -> Figures:
    """Return a tenant's figures; in its scope or the platform's. Raises StatementError."""
    before = statement_before(month=period.month, tenant=tenant)
    accounts = _accounts(_OF_TENANT, tenant.pk, TENANT_KINDS, period, before)
    days = DailyUsage.objects.filter(tenant=tenant)
    return Figures(accounts=accounts, usage=_usage(days, "sku", period), commission={})


def figures_of_reseller(*, reseller: Reseller, period: Period) -> Figures:
    """Return a reseller's figures; in the platform's scope. Raises StatementError.

    Usage is that of the tenants which are below the reseller today; one that has left is named for its commission only.
    """
    before = statement_before(month=period.month, reseller=reseller)
    accounts = _accounts(_OF_RESELLER, reseller.pk, STATED_RESELLER_KINDS, period, before)
    commission = _commission(reseller, period)
    days = DailyUsage.objects.filter(Q(tenant__reseller=reseller) | Q(tenant__reseller__parent=reseller))
    usage = _usage(days, "tenant__slug", period)
    named = {row.name for row in usage}
    usage += [
        UsageFigures(name=slug, answers=0, prompt_tokens=0, completion_tokens=0, charge=0, wholesale_charge=0)
        for slug in commission
        if slug not in named
    ]
    return Figures(accounts=accounts, usage=usage, commission=commission)


def statement_before(
    *, month: date, tenant: Tenant | None = None, reseller: Reseller | None = None
) -> Statement | None:
    """Return the owner's last statement before a month; in the owner's scope or the platform's."""
    kept = Statement.objects.filter(tenant=tenant, reseller=reseller, month__lt=month)
    return kept.order_by("-month").first()


def make_statement(*, month: date, tenant: Tenant | None = None, reseller: Reseller | None = None) -> Statement:
    """Return the statement of a month that is over, made now or before; in the platform's scope.

    Raises ValueError for a month that is not over, StatementError where the ledger does not add up.
    """
    owner = tenant or reseller
    if owner is None:
        raise ValueError("a statement is a tenant's or a reseller's")
    period = Period.of_month(month, tenant.timezone if tenant else settings.TIME_ZONE)
    if not period.is_over:
        raise ValueError(f"{period.month:%Y-%m} is not over")
    period = period.after(statement_before(month=period.month, tenant=tenant, reseller=reseller))
    made = Statement.objects.filter(tenant=tenant, reseller=reseller, month=period.month).first()
    if made is not None:
        return made
    if tenant is not None:
        figures = figures_of_tenant(tenant=tenant, period=period)
    else:
        figures = figures_of_reseller(reseller=owner, period=period)  # type: ignore[arg-type]  # no tenant, so this
    number = f"{period.month:%Y%m}-{'R-' if reseller else ''}{owner.slug}"
    try:
        with transaction.atomic():
            return Statement.objects.create(
                tenant=tenant,
                reseller=reseller,
                month=period.month,
                number=number,
                figures={**figures.as_json(), "period": period.as_json()},
            )
    except IntegrityError:  # another process was faster
        return Statement.objects.get(tenant=tenant, reseller=reseller, month=period.month)


def make_statements(*, month: date) -> int:
    """Make every tenant's and reseller's statement of a month; return how many there are. One that fails is logged.

    Owners whose month is not over yet, in their time zone, are left for the next time. Raises ValueError for a month
    that is over nowhere.
    """
    if not Period.of_month(month, _FIRST_ZONE).is_over:
        raise ValueError(f"{month:%Y-%m} is not over")
    with scope.platform("statements of every tenant and reseller"):
        kept = set(Statement.objects.filter(month=month.replace(day=1)).values_list("tenant", "reseller"))
        made = len(kept)
        owners: list[dict[str, Any]] = [{"tenant": tenant} for tenant in Tenant.objects.order_by("pk")]
        owners += [{"reseller": reseller} for reseller in Reseller.objects.order_by("pk")]
        for owner in owners:
            if _key_of(**owner) not in kept:
                made += _make_due(month, owner)
    return made


def _key_of(*, tenant: Tenant | None = None, reseller: Reseller | None = None) -> tuple[int | None, int | None]:
    return tenant.pk if tenant else None, reseller.pk if reseller else None


def _make_due(month: date, owner: dict[str, Any]) -> bool:
    """Make one owner's statement if it was there in the month and the month is over; True if there is one now."""
    [person] = owner.values()
    period = Period.of_month(month, getattr(person, "timezone", settings.TIME_ZONE))
    if person.created_at >= period.ended or not period.is_over:
        return False
    try:
        make_statement(month=month, **owner)
    except StatementError:
        log.exception("statement_not_made", month=str(month), **{name: each.slug for name, each in owner.items()})
        return False
    return True


def month_before(today: date) -> date:
    """Return the first day of the month before."""
    return (today.replace(day=1) - timedelta(days=1)).replace(day=1)


def _accounts(
    owned: Mapping[str, str], owner: int, kinds: Iterable[AccountKind], period: Period, before: Statement | None
) -> list[AccountFigures]:
    """Return the figures of each kind and channel, proved; those that never held anything are left out."""
    order = [str(kind) for kind in kinds]
    known: dict[tuple[str, str], int] | None = None
    if before is not None and Period.of_statement(before).ended == period.began:
        known = {(row.kind, row.channel): row.closing for row in Figures.from_json(before.figures).accounts}
    with connection.cursor() as cursor:
        cursor.execute(
            _MOVEMENTS.format(**owned),
            {
                "owner": owner,
                "kinds": order,
                "began": period.began,
                "ended": period.ended,
                "whole": known is None,
            },
        )
        rows = cursor.fetchall()
    balances = {(kind, channel): int(posted) for kind, channel, posted, *_ in rows}
    figures = []
    for kind, channel in sorted(balances, key=lambda key: (order.index(key[0]), key[1])):
        mine = [row[3:] for row in rows if row[:2] == (kind, channel)]
        opening, moved, later = (int(sum(row[place] for row in mine)) for place in (1, 2, 3))
        if known is not None:
            opening = known.get((kind, channel), 0)
        closing = balances[kind, channel] - later
        if opening + moved != closing:
            raise StatementError(f"{kind} {channel}: {opening} and {moved} do not come to {closing}")
        movements = {why: int(within) for why, _, within, _ in sorted(mine, key=str) if within}
        if opening or movements or closing:
            figures.append(
                AccountFigures(kind=kind, channel=channel, opening=opening, movements=movements, closing=closing)
            )
    return figures


def _usage(days: Any, name: str, period: Period) -> list[UsageFigures]:
    """Add the roll-ups of the span's days up, by sku or by tenant."""
    last = (period.ended - timedelta(microseconds=1)).astimezone(period.began.tzinfo).date()
    rows = days.filter(day__gte=period.month, day__lte=last).order_by(name).values_list(name)
    sums = ("answers", "prompt_tokens", "completion_tokens", "charge", "wholesale_charge")
    return [
        UsageFigures(name=row[0], **{field: int(value) for field, value in zip(sums, row[1:], strict=True)})
        for row in rows.annotate(*(Sum(field) for field in sums))
    ]


def _commission(reseller: Reseller, period: Period) -> dict[str, int]:
    """Return what answers in the span earned the reseller, by tenant's slug."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT tenant.slug, coalesce(sum(entry.amount) FILTER (WHERE transfer.kind IN ('answer', 'adjustment')
                AND transfer.created_at >= %(began)s AND transfer.created_at < %(ended)s), 0)
            FROM billing_account account
            JOIN tenants_tenant tenant ON tenant.id = account.tenant_id
            JOIN billing_entry entry ON entry.tenant_id = account.tenant_id AND entry.account_id = account.id
            JOIN billing_transfer transfer
                ON transfer.tenant_id = entry.tenant_id AND transfer.id = entry.transfer_id
            WHERE account.kind = 'reseller_accrued' AND account.reseller_id = %(owner)s
            GROUP BY tenant.slug ORDER BY tenant.slug""",
            {"owner": reseller.pk, "began": period.began, "ended": period.ended},
        )
        return {slug: int(amount) for slug, amount in cursor.fetchall() if amount}
