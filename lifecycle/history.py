"""What happened to tenants: written within the change itself, so that there is none without its who and why."""

from typing import Any, Final

import structlog

from lifecycle.models import TenantEvent
from tenants import scope
from tenants.models import Tenant

log = structlog.get_logger(__name__)

REASON_LENGTH: Final = 200  # of the columns


def record(*, tenant: Tenant, kind: TenantEvent.Kind, actor: str, reason: str = "", **facts: Any) -> TenantEvent:
    """Add an event of a tenant, whose row is as it is after it; within the caller's transaction."""
    with scope.tenant(tenant.pk):
        event = TenantEvent.objects.create(
            tenant=tenant,
            kind=kind,
            status=tenant.status,
            reason=reason.strip()[:REASON_LENGTH],
            actor=actor,
            facts=facts,
        )
    log.info("tenant_life", what=str(kind), tenant_slug=tenant.slug, actor=actor)
    return event
