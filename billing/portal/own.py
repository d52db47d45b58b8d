"""A reseller's own rows, and nobody else's: the only place of the portal that opens the platform's scope to read.

Commissions are of a tenant, which may have left the reseller since; accounts, top-ups, withdrawals and statements have
none. Every function takes the reseller and asks for its rows alone.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from django.db.models import F, Model, QuerySet, Sum

from billing.models import (
    Account,
    AccountKind,
    Commission,
    CommissionBack,
    Statement,
    Transfer,
    WalletNotice,
    WalletTopUp,
    Withdrawal,
)
from tenants import scope
from tenants.models import Reseller

RowT = TypeVar("RowT", bound=Model)


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """What a reseller has, micro-yuan; `accrued` is today's commission, `owed` is below zero."""

    accrued: int
    frozen: int
    free: int
    owed: int
    under_way: int
    wallet: int

    @property
    def withdrawable(self) -> int:
        """What can be asked for now."""
        return max(self.free + self.owed, 0)


@contextmanager
def _own() -> Iterator[None]:
    with scope.platform("a reseller's own rows"):
        yield


def accounts(reseller: Reseller) -> Accounts:
    """Return what the reseller has."""
    with _own():
        rows = (
            Account.objects.filter(reseller=reseller).values_list("kind").annotate(sum=Sum(F("posted") - F("pending")))
        )
        had: dict[str, int] = dict(rows)
    return Accounts(
        accrued=had.get(AccountKind.RESELLER_ACCRUED, 0),
        frozen=had.get(AccountKind.RESELLER_PENDING, 0),
        free=had.get(AccountKind.RESELLER_AVAILABLE, 0),
        owed=had.get(AccountKind.RESELLER_RECEIVABLE, 0),
        under_way=had.get(AccountKind.WITHDRAWAL_PAYABLE, 0),
        wallet=had.get(AccountKind.RESELLER_WALLET, 0),
    )


def shares_by_day(reseller: Reseller, *, began: date, tenants: Iterable[int] | None = None) -> dict[date, int]:
    """Return the reseller's share by the day it was earned on, what was taken back of it left out."""
    return _summed(reseller, "day", began=began, tenants=tenants)


def shares_by_tenant(reseller: Reseller, *, began: date) -> dict[int, int]:
    """Return the reseller's share by tenant, today's among it."""
    with _own():
        shares: dict[int, int] = _summed(reseller, "tenant", began=began)
        rows = Account.objects.filter(reseller=reseller, kind=AccountKind.RESELLER_ACCRUED)
        for tenant_id, accrued in rows.values_list("tenant", "posted"):
            shares[tenant_id] = shares.get(tenant_id, 0) + accrued
    return shares


def _summed(reseller: Reseller, by: str, *, began: date, tenants: Iterable[int] | None = None) -> dict[Any, int]:
    with _own():
        rows = Commission.objects.filter(reseller=reseller, day__gte=began)
        if tenants is not None:
            rows = rows.filter(tenant__in=list(tenants))
        return dict(rows.order_by(by).values_list(by).annotate(sum=Sum(F("amount") - F("taken_back"))))


def accrued_of(reseller: Reseller, *, tenants: Iterable[int]) -> int:
    """Return what tenants' answers have earned the reseller since the last fold."""
    with _own():
        rows = Account.objects.filter(reseller=reseller, kind=AccountKind.RESELLER_ACCRUED, tenant__in=list(tenants))
        return rows.aggregate(sum=Sum("posted", default=0))["sum"]  # type: ignore[no-any-return]


def commissions(reseller: Reseller) -> QuerySet[Commission]:
    """Return the reseller's commissions, the newest first."""
    with _own():
        return Commission.objects.filter(reseller=reseller).select_related("tenant").order_by("-day", "-pk")


def taken_back(reseller: Reseller) -> QuerySet[CommissionBack]:
    """Return what refunds took back of the reseller's commissions, the newest first."""
    with _own():
        return CommissionBack.objects.filter(reseller=reseller).select_related("tenant").order_by("-pk")


def withdrawals(reseller: Reseller) -> QuerySet[Withdrawal]:
    """Return the reseller's withdrawals, the newest first."""
    return Withdrawal.objects.filter(reseller=reseller).select_related("maker").order_by("-created_at")


def top_ups(reseller: Reseller) -> QuerySet[WalletTopUp]:
    """Return what the reseller says to have sent for its wallet, the newest first."""
    with _own():
        return WalletTopUp.objects.filter(reseller=reseller).select_related("requested_by").order_by("-pk")


def wallet_notice(reseller: Reseller) -> WalletNotice | None:
    """Return below which balance the reseller is told."""
    with _own():
        return WalletNotice.objects.filter(reseller=reseller).first()


def wallet_moves(reseller: Reseller) -> QuerySet[Transfer]:
    """Return what moved the reseller's wallet, with the `amount` that came (+) or went (-), the newest first."""
    with _own():
        mine = {"entries__account__reseller": reseller, "entries__account__kind": AccountKind.RESELLER_WALLET}
        return (
            Transfer.objects.filter(**mine)
            .annotate(amount=F("entries__amount"))
            .select_related("tenant")
            .order_by("-created_at", "-pk")
        )


def statements(reseller: Reseller) -> QuerySet[Statement]:
    """Return the reseller's monthly statements, the newest first."""
    with _own():
        return Statement.objects.filter(reseller=reseller).order_by("-month")
