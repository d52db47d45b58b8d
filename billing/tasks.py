"""Celery's side of billing: statistics after the money, and sweeps. No task moves a user's money on its own account."""

import uuid
from typing import Final

import structlog
from celery import shared_task
from kombu.exceptions import OperationalError

from billing import commission, holds, nightly, recharge, usage, wallet

log = structlog.get_logger(__name__)

_SWEEP_BATCH: Final = 500


def enqueue_record(*, tenant_id: int, hold_id: uuid.UUID) -> None:
    """Ask a worker to record a posted hold. Call it after the commit; a broker that is away is the sweep's business."""
    try:
        record_usage.apply_async(args=(str(hold_id), tenant_id), retry=False)
    except OperationalError as fault:
        log.warning("usage not enqueued, the sweep will record it", hold_id=str(hold_id), fault=str(fault))


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
