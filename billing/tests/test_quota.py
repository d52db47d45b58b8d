from datetime import UTC, date, datetime

import pytest
from django.db import IntegrityError, transaction

from billing import quota
from billing.models import QuotaUse
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tests.factories import credit, make_tenant

DAY = date(2026, 3, 1)


@pytest.mark.parametrize(
    ("now", "zone", "day", "ends_at"),
    [
        ("2026-03-01T15:59:59", "Asia/Shanghai", "2026-03-01", "2026-03-01T16:00:00"),
        ("2026-03-01T16:00:00", "Asia/Shanghai", "2026-03-02", "2026-03-02T16:00:00"),
        ("2026-03-01T23:59:59", "UTC", "2026-03-01", "2026-03-02T00:00:00"),
        ("2026-03-01T09:00:00", "Pacific/Kiritimati", "2026-03-01", "2026-03-01T10:00:00"),
        ("2026-03-01T10:00:00", "Pacific/Kiritimati", "2026-03-02", "2026-03-02T10:00:00"),
        # The clocks go forward, and the day has 23 hours; they go back, and it has 25.
        ("2026-03-08T06:00:00", "America/New_York", "2026-03-08", "2026-03-09T04:00:00"),
        ("2026-11-01T04:30:00", "America/New_York", "2026-11-01", "2026-11-02T05:00:00"),
    ],
)
def test_a_day_is_the_tenant_s(now: str, zone: str, day: str, ends_at: str) -> None:
    found = quota.quota_day(now=datetime.fromisoformat(now).replace(tzinfo=UTC), zone=zone)
    assert found.date == date.fromisoformat(day)
    assert found.ends_at.astimezone(UTC) == datetime.fromisoformat(ends_at).replace(tzinfo=UTC)


def test_two_tenants_have_two_midnights(db: None) -> None:
    east, west = (open_shop(timezone=zone) for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"))  # 25 hours apart
    for shop in (east, west):
        credit(shop.user, 8000)
    assert (east.admit().quota_date - west.admit().quota_date).days in {1, 2}


def take(shop: Shop, *, limit: int, group: str = "g", day: date = DAY) -> bool:
    return quota.take(tenant_id=shop.tenant.pk, user_id=shop.user.pk, group=group, day=day, limit=limit)


def used(shop: Shop, *, day: date = DAY) -> int:
    return quota.used(tenant_id=shop.tenant.pk, user_id=shop.user.pk, group="g", day=day)


def test_no_more_is_taken_than_the_limit(shop: Shop) -> None:
    assert [take(shop, limit=2) for _ in range(4)] == [True, True, False, False]
    assert used(shop) == 2
    assert take(shop, limit=3)  # raised during the day
    assert not take(shop, limit=1)  # lowered during the day
    assert used(shop) == 3


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit_is_no_quota(shop: Shop, limit: int) -> None:
    assert not take(shop, limit=limit)
    assert used(shop) == 0


def test_groups_and_days_are_counted_apart(shop: Shop) -> None:
    tomorrow = date(2026, 3, 2)
    assert [take(shop, limit=1), take(shop, limit=1, group="h"), take(shop, limit=1, day=tomorrow)] == [True] * 3
    assert (used(shop), used(shop, day=tomorrow)) == (1, 1)


def test_what_is_given_back_can_be_taken_again(shop: Shop) -> None:
    assert take(shop, limit=1)
    for _ in range(2):  # never below zero
        quota.give_back(tenant_id=shop.tenant.pk, user_id=shop.user.pk, group="g", day=DAY)
    assert used(shop) == 0
    assert [take(shop, limit=1), take(shop, limit=1)] == [True, False]


def test_the_database_refuses_a_quota_below_zero(shop: Shop) -> None:
    take(shop, limit=1)
    with (
        scope.tenant(shop.tenant.pk),
        transaction.atomic(),
        pytest.raises(IntegrityError, match="billing_quotause_used"),
    ):
        QuotaUse.objects.update(used=-1)


def test_another_tenant_sees_none_of_it(shop: Shop) -> None:
    take(shop, limit=1)
    assert quota.used(tenant_id=make_tenant().pk, user_id=shop.user.pk, group="g", day=DAY) == 0
