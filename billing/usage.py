"""Statistics from posted holds. They follow the money and never lead it: a hold is posted long before it is counted."""

import uuid
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from billing.models import DailyUsage, DailyUsers, Hold, UsageAdjustment, UsageRecord
from billing.models.adjustment import Figures, adjustment_of, figures_of
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
        figures = figures_of(hold, adjustment_of(hold))
        created = _record_once(hold, figures)
        if created:
            _add_to_day(hold, figures, answers=1)
            _count_user(hold)
        due.update(recorded_at=Now())
        return created


def correct(*, hold: Hold, adjustment: UsageAdjustment) -> None:
    """Let the statistics of a locked hold say what its adjustment makes of it.

    One that is not recorded yet will be recorded so. The record itself changes, so that whoever adds up records has
    nothing more to know; what it said before stands on the hold.
    """
    if hold.recorded_at is None:
        return
    before, after = figures_of(hold, None), figures_of(hold, adjustment)
    corrected = UsageRecord.objects.filter(hold=hold).update(**_columns(after))
    if corrected != 1:
        raise LookupError(f"hold {hold.pk} is recorded and has no usage record")
    _add_to_day(hold, after, before, answers=0)


def unrecorded(*, limit: int) -> list[tuple[int, uuid.UUID]]:
    """Return (tenant, hold) of holds posted a while ago and not recorded, oldest first, of every tenant."""
    with scope.platform("the outbox of every tenant's posted holds"):
        due = Hold.objects.filter(state=Hold.State.POSTED, recorded_at=None, ended_at__lt=Now() - GRACE)
        return list(due.order_by("ended_at").values_list("tenant_id", "pk")[:limit])


def _columns(figures: Figures) -> dict[str, int | str]:
    """Return what a usage record says of figures."""
    return {
        "prompt_tokens": figures.prompt,
        "cached_tokens": figures.cached,
        "completion_tokens": figures.completion,
        "usage_source": figures.source,
        "charge": figures.charge,
        "wholesale_charge": figures.wholesale,
        "cost": figures.cost,
    }


def _record_once(hold: Hold, figures: Figures) -> bool:
    """Insert the hold's usage record unless there is one: the unique hold decides."""
    _, created = UsageRecord.objects.get_or_create(
        hold=hold,
        defaults={
            "tenant_id": hold.tenant_id,
            "user_id": hold.user_id,
            "day": hold.quota_date,
            "sku": hold.sku,
            "retail_price_id": hold.retail_price_id,
            "wholesale_price_id": hold.wholesale_price_id,
            "cost_price_id": hold.cost_price_id,
            "free": hold.free,
            "reseller_id": hold.reseller_id,
            "own_share": hold.own_share,
            "parent_reseller_id": hold.parent_reseller_id,
            "parent_share": hold.parent_share,
            **_columns(figures),
        },
    )
    return created


def _count_user(hold: Hold) -> None:
    """Count the hold's user in its day, once.

    The day's row is locked before other records are looked for: so of two first records of one user the second sees
    the other's.
    """
    day, _ = DailyUsers.objects.get_or_create(tenant_id=hold.tenant_id, day=hold.quota_date)
    locked = DailyUsers.objects.filter(pk=day.pk)
    locked.select_for_update().get()
    theirs = UsageRecord.objects.filter(user_id=hold.user_id, day=hold.quota_date)
    if not theirs.exclude(hold=hold).exists():
        locked.update(active=F("active") + 1)


def _add_to_day(hold: Hold, now: Figures, before: Figures | None = None, *, answers: int) -> None:
    """Count the hold in its day's roll-up, or what it has changed by since it was counted."""
    day, _ = DailyUsage.objects.get_or_create(tenant_id=hold.tenant_id, day=hold.quota_date, sku=hold.sku)
    counted, known = _columns(now), _columns(before) if before else {}
    sums = ("prompt_tokens", "cached_tokens", "completion_tokens", "charge", "wholesale_charge", "cost")
    DailyUsage.objects.filter(pk=day.pk).update(
        answers=F("answers") + answers,
        free_answers=F("free_answers") + answers * int(hold.free),
        own_share=F("own_share") + answers * hold.own_share,
        parent_share=F("parent_share") + answers * hold.parent_share,
        **{name: F(name) + int(counted[name]) - int(known.get(name, 0)) for name in sums},
    )
