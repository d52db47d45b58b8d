"""Monthly statements of tenants and resellers, from the ledger's entries.

    figures_of_tenant, figures_of_reseller    what happened in a span of time
    make_statement, make_statements           the same for a calendar month that is over, kept for good

Each account on a statement is proved before it is told: what it was at the beginning and the month's movements come to
what it was at the end, which is reckoned from its balance of today and what came after the month. A statement that
does not add up is not made (StatementError): someone has to look at the ledger first.

A tenant's statement tells nothing of what an answer cost the platform or brought a reseller.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from billing.models import AccountKind, DailyUsage, Statement, Transfer
from billing.models.account import RESELLER_KINDS
from tenants import scope
from tenants.models import Reseller, Tenant

log = structlog.get_logger(__name__)

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

    @classmethod
    def of_month(cls, month: date, zone: str) -> "Period":
        """Return the calendar month that `month` lies in, in an IANA time zone."""
        first = month.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
        began, ended = (datetime(day.year, day.month, 1, tzinfo=ZoneInfo(zone)) for day in (first, following))
        return cls(month=first, began=began, ended=ended)


# `later` is what came after the span: taken from the balance of today it gives the closing balance, which the opening
# balance and the movements then have to give too. One statement, since money moves between two.
_MOVEMENTS: Final = """
    WITH mine AS (SELECT account.* FROM billing_account account WHERE account.kind = ANY(%(kinds)s) AND {owner})
    SELECT balance.kind, balance.channel, balance.posted, moved.why,
        coalesce(moved.before, 0), coalesce(moved.within, 0), coalesce(moved.later, 0)
    FROM (SELECT kind, channel, sum(posted) AS posted FROM mine GROUP BY kind, channel) balance
    LEFT JOIN (
        SELECT mine.kind, mine.channel, transfer.kind AS why,
            sum(entry.amount) FILTER (WHERE transfer.created_at < %(began)s) AS before,
            sum(entry.amount) FILTER (
                WHERE transfer.created_at >= %(began)s AND transfer.created_at < %(ended)s) AS within,
            sum(entry.amount) FILTER (WHERE transfer.created_at >= %(ended)s) AS later
        FROM mine
        JOIN billing_entry entry ON entry.account_id = mine.id
        JOIN billing_transfer transfer ON transfer.id = entry.transfer_id
        GROUP BY mine.kind, mine.channel, transfer.kind
    ) moved ON (moved.kind, moved.channel) = (balance.kind, balance.channel)"""
_OF_TENANT: Final = "account.tenant_id = %(owner)s"
_OF_RESELLER: Final = "account.tenant_id IS NULL AND account.reseller_id = %(owner)s"


def figures_of_tenant(*, tenant: Tenant, period: Period) -> Figures:
    """Return a tenant's figures; in its scope or the platform's. Raises StatementError."""
    accounts = _accounts(_OF_TENANT, tenant.pk, TENANT_KINDS, period)
    days = DailyUsage.objects.filter(tenant=tenant)
    return Figures(accounts=accounts, usage=_usage(days, "sku", period), commission={})


def figures_of_reseller(*, reseller: Reseller, period: Period) -> Figures:
    """Return a reseller's figures; in the platform's scope. Raises StatementError."""
    accounts = _accounts(_OF_RESELLER, reseller.pk, RESELLER_KINDS, period)
    commission = _commission(reseller, period)
    days = DailyUsage.objects.filter(tenant__slug__in=commission)
    usage = _usage(days, "tenant__slug", period)
    return Figures(accounts=accounts, usage=usage, commission=commission)


def make_statement(*, month: date, tenant: Tenant | None = None, reseller: Reseller | None = None) -> Statement:
    """Return the statement of a month that is over, made now or before; in the platform's scope.

    Raises ValueError for a month that is not over, StatementError where the ledger does not add up.
    """
    owner = tenant or reseller
    if owner is None:
        raise ValueError("a statement is a tenant's or a reseller's")
    period = Period.of_month(month, tenant.timezone if tenant else settings.TIME_ZONE)
    if period.ended > timezone.now():
        raise ValueError(f"{period.month:%Y-%m} is not over")
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
                tenant=tenant, reseller=reseller, month=period.month, number=number, figures=figures.as_json()
            )
    except IntegrityError:  # another process was faster
        return Statement.objects.get(tenant=tenant, reseller=reseller, month=period.month)


def make_statements(*, month: date) -> int:
    """Make every tenant's and reseller's statement of a month; return how many there are. One that fails is logged."""
    made = 0
    with scope.platform("statements of every tenant and reseller"):
        owners: list[dict[str, Any]] = [{"tenant": tenant} for tenant in Tenant.objects.order_by("pk")]
        owners += [{"reseller": reseller} for reseller in Reseller.objects.order_by("pk")]
        for owner in owners:
            if next(iter(owner.values())).created_at >= _month_after(month):
                continue
            try:
                make_statement(month=month, **owner)
            except StatementError:
                log.exception("statement_not_made", month=str(month), **{k: v.slug for k, v in owner.items()})
            else:
                made += 1
    return made


def month_before(today: date) -> date:
    """Return the first day of the month before."""
    return (today.replace(day=1) - timedelta(days=1)).replace(day=1)


def _month_after(month: date) -> datetime:
    # The latest zone's: whoever opened in the month has a statement in every zone.
    return datetime.combine(
        (month.replace(day=1) + timedelta(days=31)).replace(day=1), datetime.min.time(), tzinfo=ZoneInfo("Etc/GMT+12")
    )


def _accounts(owned: str, owner: int, kinds: Iterable[AccountKind], period: Period) -> list[AccountFigures]:
    """Return the figures of each kind and channel, proved; those that never held anything are left out."""
    order = [str(kind) for kind in kinds]
    with connection.cursor() as cursor:
        cursor.execute(
            _MOVEMENTS.format(owner=owned),
            {"owner": owner, "kinds": order, "began": period.began, "ended": period.ended},
        )
        rows = cursor.fetchall()
    balances = {(kind, channel): int(posted) for kind, channel, posted, *_ in rows}
    figures = []
    for kind, channel in sorted(balances, key=lambda key: (order.index(key[0]), key[1])):
        mine = [row[3:] for row in rows if row[:2] == (kind, channel)]
        opening, moved, later = (int(sum(row[place] for row in mine)) for place in (1, 2, 3))
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
            JOIN billing_entry entry ON entry.account_id = account.id
            JOIN billing_transfer transfer ON transfer.id = entry.transfer_id
            WHERE account.kind = 'reseller_accrued' AND account.reseller_id = %(owner)s
            GROUP BY tenant.slug ORDER BY tenant.slug""",
            {"owner": reseller.pk, "began": period.began, "ended": period.ended},
        )
        return {slug: int(amount) for slug, amount in cursor.fetchall()}
