"""Celery's side of billing: statistics after the money, and sweeps.

No task moves a user's money on its own account: `settle_rewards` carries out what a payment or a refund has written.
"""

import uuid
from threading import Lock, Timer
from typing import Final

import structlog
from celery import shared_task
from django.db import DatabaseError
from django.utils import timezone
from kombu.exceptions import OperationalError

from billing import bonuses, commission, holds, nightly, recharge, reconcile, refund, rewards, statements, usage, wallet

log = structlog.get_logger(__name__)

_SWEEP_BATCH: Final = 500


# Seconds for which posted holds are gathered: a message of the broker's for each would cost more than its settling.
GATHER_SECONDS: Final = 0.2
_gathering = Lock()
_gathered: list[tuple[str, int]] = []


def enqueue_record(*, tenant_id: int, hold_id: uuid.UUID) -> None:
    """Have a worker record a posted hold, soon. Call it after the commit. What this process loses the sweep finds."""
    with _gathering:
        _gathered.append((str(hold_id), tenant_id))
        is_first = len(_gathered) == 1
    if is_first:
        timer = Timer(GATHER_SECONDS, send_gathered)
        timer.daemon = True
        timer.start()


def send_gathered() -> None:
    """Send what was gathered, by one message. A broker that is away is the sweep's business."""
    with _gathering:
        posted = list(_gathered)
        _gathered.clear()
    if not posted:
        return
    try:
        record_usages.apply_async(args=(posted,), retry=False)
    except OperationalError as fault:
        log.warning(
            "usage not enqueued, the sweep will record it", holds=[hold_id for hold_id, _ in posted], fault=str(fault)
        )


@shared_task(name="billing.tasks.record_usages")
def record_usages(posted: list[tuple[str, int]]) -> int:
    """Record the usage of several posted holds (hold, tenant); return how many this delivery counted.

    Each in a transaction of its own, so that one that cannot be recorded now keeps none of the others waiting.
    """
    recorded = 0
    for hold_id, tenant_id in posted:
        try:
            recorded += record_usage(hold_id, tenant_id)
        except DatabaseError:
            log.exception("usage not recorded, the sweep will record it", hold_id=hold_id)
    return recorded


@shared_task(name="billing.tasks.record_usage")
def record_usage(hold_id: str, tenant_id: int) -> bool:
    """Record a posted hold's usage; delivered twice, it counts once. True if it was this delivery that counted."""
    return usage.record(tenant_id=tenant_id, hold_id=uuid.UUID(hold_id))


@shared_task(name="billing.tasks.sweep_unrecorded")
def sweep_unrecorded() -> int:
    """Record what was posted while no broker listened or a worker died; return how many.

    Done here and not enqueued: what could not be delivered once may not be deliverable now.
    """
    recorded = 0
    while due := usage.unrecorded(limit=_SWEEP_BATCH):
        fresh = sum(usage.record(tenant_id=tenant_id, hold_id=hold_id) for tenant_id, hold_id in due)
        recorded += fresh
        if not fresh:  # others are at work on the same rows
            break
    return recorded


@shared_task(name="billing.tasks.expire_holds")
def expire_holds() -> int:
    """End holds that nobody ended in time; return how many."""
    return holds.expire_holds()


@shared_task(name="billing.tasks.audit_ledger")
def audit_ledger() -> int:
    """Audit the whole ledger and keep the run; return how many breaches. Delivered twice, it looks twice: no harm."""
    return nightly.run().breaches


@shared_task(name="billing.tasks.poll_orders")
def poll_orders() -> int:
    """Ask providers for pending orders that are due, and close those whose time is over; return how many."""
    return recharge.poll_orders()


@shared_task(name="billing.tasks.fetch_bills")
def fetch_bills() -> int:
    """Fetch the providers' bills that are missing, and compare; return how many came."""
    return reconcile.reconcile_all()


@shared_task(name="billing.tasks.make_statements")
def make_statements() -> int:
    """Make the statements of the month before, those that there are not yet; return how many there are now.

    That month is the operator's: a tenant whose own ends later has its statement with a later run.
    """
    return statements.make_statements(month=statements.month_before((timezone.localtime() - statements.GRACE).date()))


@shared_task(name="billing.tasks.settle_rewards")
def settle_rewards() -> int:
    """Give invitations' rewards that are due, and take back those of refunded payments; return how many."""
    return rewards.settle_rewards()


@shared_task(name="billing.tasks.forget_rewards")
def forget_rewards() -> int:
    """Delete digests of devices and addresses that no limit looks at any more, and dead tickets; return how many."""
    return rewards.forget_origins() + bonuses.forget_tickets()


@shared_task(name="billing.tasks.poll_refunds")
def poll_refunds() -> int:
    """Ask providers for refunds under way that are due; return how many. Delivered twice, a refund still ends once."""
    return refund.poll_refunds()


@shared_task(name="billing.tasks.fold_commissions")
def fold_commissions() -> int:
    """Fold what resellers earned since the last day's fold; return how many. Delivered three times, it folds once."""
    return commission.fold_day()


@shared_task(name="billing.tasks.sweep_commissions")
def sweep_commissions() -> int:
    """Take back what refunds noted, then set free what was frozen long enough; return how many rows."""
    return commission.post_backs() + commission.release_matured()


@shared_task(name="billing.tasks.notify_low_wallets")
def notify_low_wallets() -> int:
    """Mail those whose wholesale wallet runs low; return how many wallets."""
    return wallet.notify_low_wallets()
