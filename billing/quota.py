"""The free answers of a day: counted per user and quota group, in days of the tenant's time zone."""

from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import F

from billing.models import QuotaUse
from tenants import scope


class QuotaDay(NamedTuple):
    """A tenant's day: its date, and when the next one begins."""

    date: date
    ends_at: datetime


def quota_day(*, now: datetime, zone: str) -> QuotaDay:
    """Return the day that `now` (the database's clock, aware) is in, in an IANA time zone."""
    local = ZoneInfo(zone)
    today = now.astimezone(local).date()
    return QuotaDay(today, datetime.combine(today + timedelta(days=1), time.min, tzinfo=local))


_TAKE = """
INSERT INTO billing_quotause (tenant_id, user_id, quota_group, date, used) VALUES (%s, %s, %s, %s, 1)
ON CONFLICT (tenant_id, user_id, quota_group, date) DO UPDATE SET used = billing_quotause.used + 1
WHERE billing_quotause.used < %s
"""


def take(*, tenant_id: int, user_id: int, group: str, day: date, limit: int) -> bool:
    """Count one more free answer; False if the day's `limit` is used up. The row stays locked until the commit."""
    if limit < 1:
        return False
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [tenant_id, user_id, group, day, limit])
        return bool(cursor.rowcount == 1)


def give_back(*, tenant_id: int, user_id: int, group: str, day: date) -> None:
    """Uncount a free answer that was not given."""
    with scope.tenant(tenant_id):
        QuotaUse.objects.filter(user_id=user_id, quota_group=group, date=day, used__gt=0).update(used=F("used") - 1)


def used(*, tenant_id: int, user_id: int, group: str, day: date) -> int:
    """Return how many free answers the user has taken."""
    with scope.tenant(tenant_id):
        row = QuotaUse.objects.filter(user_id=user_id, quota_group=group, date=day).first()
    return row.used if row else 0
