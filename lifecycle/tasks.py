"""Celery's side of tenants' lives: what has its day, and archives, which take their time."""

import uuid
from typing import Final

import structlog
from celery import shared_task
from kombu.exceptions import OperationalError

from lifecycle import archive, claims, erasure, life

log = structlog.get_logger(__name__)

_HOURS: Final = 6


def enqueue_export(*, tenant_id: int, export_id: uuid.UUID) -> None:
    """Ask a worker for an archive, after the commit. Where the broker is away the person asks again later."""
    try:
        export_tenant.apply_async(args=(str(export_id), tenant_id), retry=False)
    except OperationalError as fault:
        log.warning("export_not_enqueued", export=str(export_id), fault=str(fault))


@shared_task(name="lifecycle.tasks.export_tenant", time_limit=_HOURS * 3600)
def export_tenant(export_id: str, tenant_id: int) -> bool:
    """Make an archive. Delivered twice, one delivery makes it."""
    return archive.make(tenant_id=tenant_id, export_id=uuid.UUID(export_id))


@shared_task(name="lifecycle.tasks.sweep_trials")
def sweep_trials() -> int:
    """End trials that are over, and tell of those that end soon; return how many. Run twice, it happens once."""
    return life.sweep_trials()


@shared_task(name="lifecycle.tasks.prove_domains")
def prove_domains() -> int:
    """Look for the proofs of domains that were entered lately; return how many are there. Twice does no harm."""
    return claims.sweep()


@shared_task(name="lifecycle.tasks.forget_exports")
def forget_exports() -> int:
    """Throw away archives whose days are over; return how many."""
    return archive.forget()


@shared_task(name="lifecycle.tasks.sweep_deletions")
def sweep_deletions() -> int:
    """Delete tenants whose days of grace are over; return how many. Run twice, each is deleted once."""
    return erasure.sweep()
