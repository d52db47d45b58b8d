"""Answers that cost the user nothing: free quota per user and group, allowances of plans.

Days and months are those of the tenant's time zone. Each counter is one row, raised by a conditional upsert, and stays
locked until the commit; what is taken on one day is given back to that day.
"""

from datetime import date, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import F

from billing.models import PlanUse, QuotaUse
from tenants import scope

# The day of what is not counted by days: a guest's answers, and a plan's allowance for its whole time.
IN_ALL: Final = date.min


class QuotaDay(NamedTuple):
    """A tenant's day: its date, and when the next one begins."""

    date: date
    ends_at: datetime


class QuotaMonth(NamedTuple):
    """A tenant's month: its first day, and when the next one begins."""

    date: date
    ends_at: datetime


def quota_day(*, now: datetime, zone: str) -> QuotaDay:
    """Return the day that `now` (the database's clock, aware) is in, in an IANA time zone."""
    local = ZoneInfo(zone)
    today = now.astimezone(local).date()
    return QuotaDay(today, _midnight(today + timedelta(days=1), local))


def quota_month(*, now: datetime, zone: str) -> QuotaMonth:
    """Return the month that `now` is in, likewise."""
    local = ZoneInfo(zone)
    first = now.astimezone(local).date().replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return QuotaMonth(first, _midnight(following, local))


def _midnight(day: date, local: ZoneInfo) -> datetime:
    return datetime.combine(day, time.min, tzinfo=local)


_TAKE: Final = """
INSERT INTO billing_quotause (tenant_id, user_id, quota_group, date, used) VALUES (%s, %s, %s, %s, 1)
ON CONFLICT (tenant_id, user_id, quota_group, date) DO UPDATE SET used = billing_quotause.used + 1
WHERE billing_quotause.used < %s
"""
_TAKE_OF_PLAN: Final = """
INSERT INTO billing_planuse (tenant_id, subscription_id, quota_group, date, used) VALUES (%s, %s, %s, %s, 1)
ON CONFLICT (tenant_id, subscription_id, quota_group, date) DO UPDATE SET used = billing_planuse.used + 1
WHERE billing_planuse.used < %s
"""


def take(*, tenant_id: int, user_id: int, group: str, day: date, limit: int) -> bool:
    """Count one more free answer; False if the day's `limit` is used up. The row stays locked until the commit."""
    return _count(_TAKE, (tenant_id, user_id, group, day), limit)


def take_of_plan(*, tenant_id: int, subscription_id: int, group: str, day: date, limit: int) -> bool:
    """Count one more answer of a plan, likewise."""
    return _count(_TAKE_OF_PLAN, (tenant_id, subscription_id, group, day), limit)


def _count(statement: str, counter: tuple[int, int, str, date], limit: int) -> bool:
    """Run a conditional upsert of a counter."""
    if limit < 1:
        return False
    with connection.cursor() as cursor:
        cursor.execute(statement, [*counter, limit])
        return bool(cursor.rowcount == 1)


def give_back(*, tenant_id: int, user_id: int, group: str, day: date) -> None:
    """Uncount a free answer that was not given."""
    with scope.tenant(tenant_id):
        QuotaUse.objects.filter(user_id=user_id, quota_group=group, date=day, used__gt=0).update(used=F("used") - 1)


def give_back_to_plan(*, tenant_id: int, subscription_id: int, group: str, day: date) -> None:
    """Uncount an answer of a plan, likewise."""
    with scope.tenant(tenant_id):
        counters = PlanUse.objects.filter(subscription_id=subscription_id, quota_group=group, date=day)
        counters.filter(used__gt=0).update(used=F("used") - 1)


def used(*, tenant_id: int, user_id: int, group: str, day: date) -> int:
    """Return how many free answers the user has taken."""
    with scope.tenant(tenant_id):
        row = QuotaUse.objects.filter(user_id=user_id, quota_group=group, date=day).first()
    return row.used if row else 0


def used_of_plan(*, tenant_id: int, subscription_id: int, group: str, day: date) -> int:
    """Return how many answers of a plan are taken."""
    with scope.tenant(tenant_id):
        row = PlanUse.objects.filter(subscription_id=subscription_id, quota_group=group, date=day).first()
    return row.used if row else 0
