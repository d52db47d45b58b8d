import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from django.db.models.functions import Now
from structlog.testing import capture_logs

from billing import tasks, usage
from billing.models import DailyUsage, Hold, UsageRecord
from billing.tests.conftest import Shop, open_shop
from saas.celery import app
from tenants import scope
from tests.factories import credit


@pytest.fixture
def posted(shop: Shop) -> Hold:
    credit(shop.user, 100_000)
    hold = shop.admit()
    shop.settle(hold, prompt=900, cached=400, completion=300)
    return hold


def age(shop: Shop, **ago: int) -> None:
    with scope.tenant(shop.tenant.pk):
        Hold.objects.filter(state="posted").update(ended_at=Now() - timedelta(**ago))


def records(shop: Shop) -> list[UsageRecord]:
    with scope.tenant(shop.tenant.pk):
        return list(UsageRecord.objects.order_by("pk"))


def days(shop: Shop) -> list[dict[str, Any]]:
    with scope.tenant(shop.tenant.pk):
        return [
            {name: value for name, value in row.items() if name not in {"id", "tenant_id"}}
            for row in DailyUsage.objects.order_by("pk").values()
        ]


def test_a_posted_hold_is_recorded_once_however_often_it_is_delivered(shop: Shop, posted: Hold) -> None:
    assert [tasks.record_usage(str(posted.pk), shop.tenant.pk) for _ in range(3)] == [True, False, False]
    (record,) = records(shop)
    hold = shop.hold(posted)
    assert (record.hold_id, record.user_id, record.day, record.sku) == (
        hold.pk,
        shop.user.pk,
        hold.quota_date,
        shop.sku,
    )
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (900, 400, 300)
    assert (record.charge, record.wholesale_charge, record.cost) == (3200, 1600, 800)
    assert (record.usage_source, record.free) == ("upstream", False)
    assert record.retail_price_id == hold.retail_price_id
    assert hold.recorded_at is not None


def test_the_day_adds_up(shop: Shop, posted: Hold) -> None:
    free = shop.admit(free_per_day=1)
    shop.settle(free, completion=100)
    for hold in (posted, free, posted):
        tasks.record_usage(str(hold.pk), shop.tenant.pk)
    assert days(shop) == [
        {
            "day": posted.quota_date,
            "sku": shop.sku,
            "answers": 2,
            "free_answers": 1,
            "prompt_tokens": 1900,
            "cached_tokens": 400,
            "completion_tokens": 400,
            "charge": 3200,
            "wholesale_charge": 1600 + 1300,
            "own_share": 0,
            "parent_share": 0,
            "cost": 800 + 650,
        }
    ]


def test_a_record_without_its_mark_is_not_counted_again(shop: Shop, posted: Hold) -> None:
    usage.record(tenant_id=shop.tenant.pk, hold_id=posted.pk)
    before = days(shop)
    with scope.tenant(shop.tenant.pk):
        Hold.objects.update(recorded_at=None)
    assert usage.record(tenant_id=shop.tenant.pk, hold_id=posted.pk) is False
    assert (len(records(shop)), days(shop)) == (1, before)
    assert shop.hold(posted).recorded_at is not None


def test_only_a_posted_hold_of_the_tenant_is_recorded(shop: Shop, posted: Hold) -> None:
    held, voided = shop.admit(), shop.admit()
    shop.void(voided)
    other = open_shop()
    for hold_id in (held.pk, voided.pk, uuid.uuid4()):
        assert usage.record(tenant_id=shop.tenant.pk, hold_id=hold_id) is False
    assert usage.record(tenant_id=other.tenant.pk, hold_id=posted.pk) is False
    assert (records(shop), records(other), days(shop)) == ([], [], [])


def test_the_sweep_records_what_no_broker_delivered(shop: Shop, posted: Hold) -> None:
    other = open_shop()
    credit(other.user, 8000)
    other.settle(other.admit())
    for each in (shop, other):
        age(each, seconds=31)
    assert tasks.sweep_unrecorded() >= 2  # earlier tests may have left committed ones
    assert ([len(records(each)) for each in (shop, other)], [len(days(each)) for each in (shop, other)]) == (
        [1, 1],
        [1, 1],
    )
    assert tasks.sweep_unrecorded() == 0


def test_the_sweep_leaves_fresh_ones_to_the_worker(shop: Shop, posted: Hold) -> None:
    age(shop, seconds=25)
    tasks.sweep_unrecorded()
    assert records(shop) == []


def test_the_sweep_works_through_more_than_one_batch(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_SWEEP_BATCH", 2)
    credit(shop.user, 100_000)
    for _ in range(5):
        shop.settle(shop.admit())
    age(shop, seconds=31)
    tasks.sweep_unrecorded()
    assert len(records(shop)) == 5


@pytest.fixture
def broker_away() -> Iterator[None]:
    """A Celery application like ours whose broker refuses connections."""
    away = Celery("away")
    away.config_from_object("django.conf:settings", namespace="CELERY")
    away.conf.update(broker_url="redis://127.0.0.1:1/0")
    yield
    app.set_current()
    away.close()


def test_what_is_gathered_is_recorded_once_and_a_stray_keeps_none_waiting(shop: Shop, posted: Hold) -> None:
    other = open_shop()
    batch = [(str(uuid.uuid4()), shop.tenant.pk), (str(posted.pk), other.tenant.pk), (str(posted.pk), shop.tenant.pk)]
    assert [tasks.record_usages(batch) for _ in range(2)] == [1, 0]
    assert (len(records(shop)), len(records(other))) == (1, 0)


def test_a_broker_that_is_away_costs_nothing_but_time(shop: Shop, posted: Hold, broker_away: None) -> None:
    with capture_logs() as logs:
        tasks.enqueue_record(tenant_id=shop.tenant.pk, hold_id=posted.pk)
        tasks.send_gathered()
    assert [(line["event"], line["holds"]) for line in logs] == [
        ("usage not enqueued, the sweep will record it", [str(posted.pk)])
    ]
    age(shop, seconds=31)
    tasks.sweep_unrecorded()
    assert len(records(shop)) == 1


def test_beat_names_tasks_that_exist() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert scheduled - set(app.tasks) == set()
    # Of ours, a task that nobody schedules is called by name after an answer.
    ours = {name for name in app.tasks if name.startswith("billing.tasks.")}
    assert ours - scheduled == {"billing.tasks.record_usage", "billing.tasks.record_usages"}
