"""Late usage: an answer that the sweep charged at its checkpoint, and whose end became known after all, is put right.

    adjust    one transfer for the difference, one row that says so; the statistics follow in the same transaction

The database was away for longer than a hold lives; the sweep charged what was known; then the turn came from the spool.
Only such a hold is adjusted, and once. One that was voided stays void: its user was told that nothing was charged.
"""

import uuid

from django.db import transaction

from billing import holds, ledger, usage
from billing.holds import Receipt, Usage
from billing.ledger import Movement, TenantAccounts, UserAccounts
from billing.models import Hold, Transfer, UsageAdjustment, UsageSource
from billing.models.adjustment import adjustment_of
from tenants import scope


def adjust(*, tenant_id: int, hold_id: uuid.UUID, usage: Usage) -> Receipt | None:
    """Charge or give back what `usage` differs from the checkpoint that was charged; None where it applies to nothing.

    At the prices that the hold pinned. More takes what is available, gift before cash, and the rest is booked as
    shortfall; less goes back in the reverse order: shortfall, cash, gift. Raises LedgerError where the books cannot
    take it; then nothing has changed.
    """
    with scope.tenant(tenant_id), transaction.atomic():
        hold = _lock_interrupted(hold_id)
        if hold is None or adjustment_of(hold) is not None:
            return None
        _post(hold, _adjustment(hold, usage))
    return holds.receipt_of(tenant_id=tenant_id, hold_id=hold_id)


def _lock_interrupted(hold_id: uuid.UUID) -> Hold | None:
    """Lock a hold that was charged at its checkpoint: whoever adjusts it too, or records it, waits."""
    interrupted = Hold.objects.filter(
        pk=hold_id, state=Hold.State.POSTED, reason=holds.INTERRUPTED, usage_source=UsageSource.ESTIMATE
    )
    return holds.with_prices(interrupted).select_for_update(of=("self",)).first()


def _adjustment(hold: Hold, usage: Usage) -> UsageAdjustment:
    """Return what is to be written; who pays for it is not reckoned yet."""
    due = holds.rate(hold, usage)
    return UsageAdjustment(
        tenant_id=hold.tenant_id,
        hold=hold,
        prompt_tokens=usage.prompt,
        cached_tokens=usage.cached,
        completion_tokens=usage.completion,
        usage_source=usage.source,
        charge=due.charge - hold.charge,
        wholesale_charge=due.wholesale - hold.wholesale_charge,
        cost=due.cost - hold.cost,
        gift_charge=0,
        cash_charge=0,
        shortfall=0,
        wholesale_shortfall=0,
    )


def _post(hold: Hold, adjustment: UsageAdjustment) -> None:
    """Move the money, write the row, and let the statistics follow. The tenant's rows come last."""
    accounts = ledger.lock_user_accounts(tenant_id=hold.tenant_id, user_id=hold.user_id)
    before = hold.wholesale_charge
    shares = holds.shares_added(hold, before=before, after=before + adjustment.wholesale_charge)
    tenant = ledger.tenant_accounts(tenant_id=hold.tenant_id, resellers=list(shares))
    retail = _retail(hold, adjustment, accounts, tenant)
    usage.correct(hold=hold, adjustment=adjustment)
    movements = [*retail, *_wholesale(hold, adjustment, tenant)]
    adjustment.save(force_insert=True)
    if any(movement.amount for movement in movements):
        ledger.move(
            tenant_id=hold.tenant_id,
            kind=Transfer.Kind.ADJUSTMENT,
            ref=str(hold.pk),
            reason=holds.ADJUSTED,
            actor="system",
            movements=movements,
        )


def _retail(hold: Hold, adjustment: UsageAdjustment, accounts: UserAccounts, tenant: TenantAccounts) -> list[Movement]:
    """Split the user's difference. A free answer has none."""
    rest = adjustment.charge
    if rest >= 0:
        adjustment.gift_charge = min(rest, accounts.gift.available)
        adjustment.cash_charge = min(rest - adjustment.gift_charge, accounts.cash.available)
        adjustment.shortfall = rest - adjustment.gift_charge - adjustment.cash_charge
    else:
        adjustment.shortfall = max(rest, -hold.shortfall)
        adjustment.cash_charge = max(rest - adjustment.shortfall, -hold.cash_charge)
        adjustment.gift_charge = rest - adjustment.shortfall - adjustment.cash_charge
    return [
        Movement(account=accounts.gift, amount=-adjustment.gift_charge),
        Movement(account=accounts.cash, amount=-adjustment.cash_charge),
        Movement(account=tenant.retail_shortfall, amount=-adjustment.shortfall),
        Movement(account=tenant.revenue, amount=adjustment.charge),
    ]


def _wholesale(hold: Hold, adjustment: UsageAdjustment, tenant: TenantAccounts) -> list[Movement]:
    """Split the tenant's difference, whatever its user's is."""
    more = adjustment.wholesale_charge
    if more > 0:
        adjustment.wholesale_shortfall = max(more - ledger.lock(account=tenant.wallet).available, 0)
    else:
        adjustment.wholesale_shortfall = max(more, -hold.wholesale_shortfall)
    before = hold.wholesale_charge
    return [
        Movement(account=tenant.wallet, amount=adjustment.wholesale_shortfall - more),
        Movement(account=tenant.wholesale_shortfall, amount=-adjustment.wholesale_shortfall),
        *holds.wholesale_income(hold, tenant, before=before, after=before + more),
    ]
