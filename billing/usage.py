"""Statistics from posted holds. They follow the money and never lead it: a hold is posted long before it is counted."""

import uuid
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from billing.models import DailyUsage, Hold, UsageRecord
from tenants import scope

# A posted hold is recorded within a second or so when broker and worker are well; the sweep leaves it alone so long.
GRACE: Final = timedelta(seconds=30)


def record(*, tenant_id: int, hold_id: uuid.UUID) -> bool:
    """Record a posted hold's usage and add it to its day; False if that was done before, or the hold is not posted."""
    with scope.tenant(tenant_id), transaction.atomic():
        due = Hold.objects.filter(pk=hold_id, state=Hold.State.POSTED, recorded_at=None)
        hold = due.select_for_update().first()
        if hold is None:
            return False
        created = _record_once(hold)
        if created:
            _add_to_day(hold)
        due.update(recorded_at=Now())
        return created


def unrecorded(*, limit: int) -> list[tuple[int, uuid.UUID]]:
    """Return (tenant, hold) of holds posted a while ago and not recorded, oldest first, of every tenant."""
    with scope.platform("the outbox of every tenant's posted holds"):
        due = Hold.objects.filter(state=Hold.State.POSTED, recorded_at=None, ended_at__lt=Now() - GRACE)
        return list(due.order_by("ended_at").values_list("tenant_id", "pk")[:limit])


def _record_once(hold: Hold) -> bool:
    """Insert the hold's usage record unless there is one: the unique hold decides."""
    _, created = UsageRecord.objects.get_or_create(
        hold=hold,
        defaults={
            "tenant_id": hold.tenant_id,
            "user_id": hold.user_id,
            "day": hold.quota_date,
            "sku": hold.sku,
            "prompt_tokens": hold.posted_prompt,
            "cached_tokens": hold.posted_cached,
            "completion_tokens": hold.posted_completion,
            "usage_source": hold.usage_source,
            "retail_price_id": hold.retail_price_id,
            "wholesale_price_id": hold.wholesale_price_id,
            "cost_price_id": hold.cost_price_id,
            "free": hold.free,
            "charge": hold.charge,
            "wholesale_charge": hold.wholesale_charge,
            "reseller_id": hold.reseller_id,
            "own_share": hold.own_share,
            "parent_reseller_id": hold.parent_reseller_id,
            "parent_share": hold.parent_share,
            "cost": hold.cost,
        },
    )
    return created


def _add_to_day(hold: Hold) -> None:
    """Count the hold in its day's roll-up."""
    day, _ = DailyUsage.objects.get_or_create(tenant_id=hold.tenant_id, day=hold.quota_date, sku=hold.sku)
    DailyUsage.objects.filter(pk=day.pk).update(
        answers=F("answers") + 1,
        free_answers=F("free_answers") + int(hold.free),
        prompt_tokens=F("prompt_tokens") + hold.posted_prompt,
        cached_tokens=F("cached_tokens") + hold.posted_cached,
        completion_tokens=F("completion_tokens") + hold.posted_completion,
        charge=F("charge") + hold.charge,
        wholesale_charge=F("wholesale_charge") + hold.wholesale_charge,
        own_share=F("own_share") + hold.own_share,
        parent_share=F("parent_share") + hold.parent_share,
        cost=F("cost") + hold.cost,
    )
