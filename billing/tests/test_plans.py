"""Plans: bought and renewed once, spent before everything else, given back where they were taken, ended by a refund."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from billing import audit, holds, plans, quota
from billing.ledger import Balances, balances
from billing.models import Hold, Order, Package, Plan, PlanAllowance, PlanUse, QuotaUse, Subscription, Transfer
from billing.tests.conftest import Shop, open_shop
from billing.tests.test_concurrency import attempt, end_all, together
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser
from tests.factories import (
    YUAN,
    credit,
    make_plan,
    make_user,
    order_plan,
    pay,
    set_free_quota,
    subscribe,
)

FULL = 8000  # what 1000 prompt and 1000 completion tokens cost
PRICE = 19_900_000
DAY = timedelta(days=1)


def used_of_plan(shop: Shop) -> list[tuple[str, Any, int]]:
    with scope.tenant(shop.tenant.pk):
        return list(PlanUse.objects.order_by("pk").values_list("quota_group", "date", "used"))


def used_free(shop: Shop) -> list[int]:
    with scope.tenant(shop.tenant.pk):
        return list(QuotaUse.objects.order_by("pk").values_list("used", flat=True))


def move(subscription: Subscription, by: timedelta) -> None:
    """Move a subscription in time."""
    with scope.tenant(subscription.tenant_id):
        found = Subscription.objects.get(pk=subscription.pk)
        Subscription.objects.filter(pk=found.pk).update(starts_at=found.starts_at + by, ends_at=found.ends_at + by)


def again(row: Subscription) -> Subscription:
    with scope.tenant(row.tenant_id):
        return Subscription.objects.get(pk=row.pk)


def refusal(shop: Shop, **fields: Any) -> ProductError:
    with pytest.raises(ProductError) as refused:
        shop.admit(**fields)
    return refused.value


def funding(hold: Hold) -> str:
    if hold.free:
        return "plan" if hold.subscription_id else "free"
    return "+".join(name for name in ("gift", "cash") if getattr(hold, f"{name}_amount"))


def test_a_plan_is_spent_first_then_free_quota_then_gift_then_cash(shop: Shop) -> None:
    set_free_quota(shop.tenant.pk, per_day=1)
    subscribe(shop.user, make_plan(shop.tenant))
    credit(shop.user, FULL + 3000, kind="gift")
    credit(shop.user, 2 * FULL)
    paid = [shop.admit() for _ in range(6)]
    assert [funding(hold) for hold in paid] == ["plan", "plan", "free", "gift", "gift+cash", "cash"]
    receipts = [shop.settle(hold) for hold in paid]
    assert [receipt and receipt.as_json()["funding"] for receipt in receipts] == [
        {"free": True, "plan": True, "gift": "0", "cash": "0"},
        {"free": True, "plan": True, "gift": "0", "cash": "0"},
        {"free": True, "plan": False, "gift": "0", "cash": "0"},
        {"free": False, "plan": False, "gift": "5000", "cash": "0"},
        {"free": False, "plan": False, "gift": "3000", "cash": "2000"},
        {"free": False, "plan": False, "gift": "0", "cash": "5000"},
    ]
    day = shop.hold(paid[0]).quota_date
    assert used_of_plan(shop) == [("default", day, 2)]
    assert used_free(shop) == [1]


def test_an_answer_of_a_plan_costs_the_user_nothing_and_the_tenant_its_wholesale(shop: Shop) -> None:
    subscribe(shop.user, make_plan(shop.tenant))
    before = shop.books()
    hold = shop.admit()
    receipt = shop.settle(hold)
    assert receipt is not None
    assert (receipt.charge, receipt.plan, receipt.balance) == (0, True, 0)
    after = shop.books()
    assert after["tenant_wholesale"][0] == before["tenant_wholesale"][0] - 2500
    assert after["tenant_revenue"] == before["tenant_revenue"] == (PRICE, 0)


def test_a_plan_s_price_is_revenue_and_fills_no_balance(shop: Shop) -> None:
    """What a package brings for its price, a multiple or a bonus, never leaks into a plan's price."""
    with scope.tenant(shop.tenant.pk):
        Package.objects.create(
            tenant=shop.tenant, slug="double", name="Double", price=10 * YUAN, credits=20 * YUAN, bonus=5 * YUAN
        )
    order = order_plan(shop.user, make_plan(shop.tenant))
    assert (order.price, order.credits, order.bonus) == (PRICE, 0, 0)
    pay(order)
    assert balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk) == Balances(cash=0, gift=0, pending=0)
    with scope.tenant(shop.tenant.pk):
        sale = Transfer.objects.get(kind="plan", ref=str(order.pk))
        entries = {row.account.kind: row.amount for row in sale.entries.select_related("account")}
        assert Transfer.objects.exclude(kind__in=["plan", "wallet_topup"]).count() == 0
    assert entries == {"psp_clearing": -PRICE, "tenant_revenue": PRICE}


def test_the_database_refuses_an_order_of_a_plan_that_fills_a_balance(shop: Shop) -> None:
    order = order_plan(shop.user, make_plan(shop.tenant))
    wrongs: list[dict[str, Any]] = [{"credits": 1}, {"bonus": 1}, {"plan": None}, {"plan_terms": {}}]
    for wrong in wrongs:
        with (
            scope.tenant(shop.tenant.pk),
            transaction.atomic(),
            pytest.raises(IntegrityError, match="billing_order_amounts"),
        ):
            Order.objects.filter(pk=order.pk).update(**wrong)


def test_later_edits_of_a_plan_change_nothing_that_was_ordered(shop: Shop) -> None:
    plan = make_plan(shop.tenant)
    order = order_plan(shop.user, plan)
    with scope.tenant(shop.tenant.pk):
        Plan.objects.filter(pk=plan.pk).update(days=1, price=YUAN, name="Other", is_enabled=False)
        PlanAllowance.objects.update(answers=1)
        pay(order)
        bought = Subscription.objects.get()
        (allowance,) = bought.allowances.values_list("quota_group", "answers", "period")
    assert (bought.name, bought.ends_at - bought.starts_at) == (plan.name, 30 * DAY)
    assert allowance == ("default", 2, "day")


def test_the_same_payment_told_twice_begins_one_subscription(shop: Shop) -> None:
    order = order_plan(shop.user, make_plan(shop.tenant))
    told = [pay(order, event=event).outcome for event in ("one", "one", "two")]
    assert told == ["credited", "credited", "repeated"]
    with scope.tenant(shop.tenant.pk):
        assert (Subscription.objects.count(), Transfer.objects.filter(kind="plan").count()) == (1, 1)


def test_the_same_payment_told_by_many_at_once_begins_one_subscription(committed_shop: Shop) -> None:
    shop = committed_shop
    order = order_plan(shop.user, make_plan(shop.tenant))
    told = Counter(together([lambda: str(pay(order).outcome)] * 8))
    assert told == {"credited": 1, "repeated": 7}
    with scope.tenant(shop.tenant.pk):
        assert (Subscription.objects.count(), Transfer.objects.filter(kind="plan").count()) == (1, 1)


def test_a_renewal_begins_where_the_present_one_ends(shop: Shop) -> None:
    plan = make_plan(shop.tenant)
    first, second, third = (subscribe(shop.user, plan) for _ in range(3))
    assert (second.starts_at, third.starts_at) == (first.ends_at, second.ends_at)
    assert third.ends_at - first.starts_at == 90 * DAY
    other = subscribe(shop.user, make_plan(shop.tenant))  # of another plan: now
    assert other.starts_at < first.starts_at + DAY


def test_a_renewal_after_the_end_begins_now(shop: Shop) -> None:
    plan = make_plan(shop.tenant)
    first = subscribe(shop.user, plan)
    move(first, -31 * DAY)
    second = subscribe(shop.user, plan)
    assert second.starts_at >= again(first).ends_at + DAY / 2


def test_renewals_at_once_follow_each_other(committed_shop: Shop) -> None:
    shop, plan = committed_shop, make_plan(committed_shop.tenant)
    orders = [order_plan(shop.user, plan) for _ in range(6)]
    together([lambda order=order: pay(order) for order in orders])  # type: ignore[misc]
    with scope.tenant(shop.tenant.pk):
        rows = list(Subscription.objects.order_by("starts_at"))
    assert [row.starts_at for row in rows[1:]] == [row.ends_at for row in rows[:-1]]


def test_only_a_good_subscription_counts(shop: Shop) -> None:
    bought = subscribe(shop.user, make_plan(shop.tenant))
    assert shop.admit().subscription_id == bought.pk
    for by in (-31 * DAY, 60 * DAY):  # over, and not begun
        move(bought, by)
        assert refusal(shop).type == "balance_short"
    move(bought, -29 * DAY)
    assert shop.admit().subscription_id == bought.pk


def test_groups_are_counted_apart_and_a_plan_without_the_group_is_none(shop: Shop) -> None:
    subscribe(shop.user, make_plan(shop.tenant, allowances={"big": (1, "day"), "small": (2, "term")}))
    shop.admit(quota_group="big")
    shop.admit(quota_group="small")
    assert refusal(shop, quota_group="big").type == "balance_short"
    assert refusal(shop).type == "balance_short"
    assert sorted((group, used) for group, _day, used in used_of_plan(shop)) == [("big", 1), ("small", 1)]


def test_the_plan_that_ends_first_is_spent_first(shop: Shop) -> None:
    long = subscribe(shop.user, make_plan(shop.tenant, days=60, allowances={"default": (1, "term")}))
    short = subscribe(shop.user, make_plan(shop.tenant, days=7, allowances={"default": (1, "term")}))
    assert [shop.admit().subscription_id for _ in range(2)] == [short.pk, long.pk]


def test_a_term_s_answers_are_counted_in_all_and_a_renewal_brings_new_ones(shop: Shop) -> None:
    plan = make_plan(shop.tenant, allowances={"default": (2, "term")})
    first, second = subscribe(shop.user, plan), subscribe(shop.user, plan)
    for _ in range(2):
        assert shop.admit().counter_date == quota.IN_ALL
    refused = refusal(shop, paid_way=False)
    assert (refused.code, refused.type, refused.scope, refused.action, refused.reset_at, refused.facts) == (
        ErrorCode.QUOTA,
        "quota_used_up",
        "plan",
        "wait",
        first.ends_at,
        {"used": 2, "limit": 2},
    )
    for each in (first, second):
        move(each, -30 * DAY)
    assert shop.admit(paid_way=False).subscription_id == second.pk


def test_a_day_s_answers_come_back_at_the_tenant_s_midnight(shop: Shop) -> None:
    bought = subscribe(shop.user, make_plan(shop.tenant))
    today = [shop.admit() for _ in range(2)]
    refused = refusal(shop, paid_way=False)
    day = quota.quota_day(now=today[0].created_at, zone=shop.tenant.timezone)
    assert (refused.scope, refused.action, refused.reset_at) == ("plan", "wait", day.ends_at)
    with scope.tenant(shop.tenant.pk):  # the same as midnight
        PlanUse.objects.update(date=day.date - DAY)
        Hold.objects.update(counter_date=day.date - DAY)
    tomorrow = shop.admit(paid_way=False)
    assert (tomorrow.subscription_id, tomorrow.counter_date) == (bought.pk, day.date)
    # Midnight has passed in mid-stream: what is given back goes to the day that it was taken on.
    assert shop.void(today[0])
    assert used_of_plan(shop) == [("default", day.date - DAY, 1), ("default", day.date, 1)]


def test_a_plan_that_ends_in_mid_stream_changes_nothing(shop: Shop) -> None:
    bought = subscribe(shop.user, make_plan(shop.tenant))
    settled, voided = shop.admit(), shop.admit()
    move(bought, -31 * DAY)
    receipt = shop.settle(settled)
    assert receipt is not None
    assert (receipt.charge, receipt.free, receipt.plan) == (0, True, True)
    assert shop.void(voided)
    assert [used for _group, _day, used in used_of_plan(shop)] == [1]


def test_a_void_gives_back_to_the_very_counter(shop: Shop) -> None:
    set_free_quota(shop.tenant.pk, per_day=1)
    subscribe(shop.user, make_plan(shop.tenant, allowances={"default": (1, "term")}))
    of_plan, free = shop.admit(), shop.admit()
    assert shop.void(free)
    assert ([used for *_, used in used_of_plan(shop)], used_free(shop)) == ([1], [0])
    assert shop.void(of_plan)
    assert ([used for *_, used in used_of_plan(shop)], used_free(shop)) == ([0], [0])
    assert [funding(shop.admit()) for _ in range(2)] == ["plan", "free"]


def test_the_sweep_gives_back_what_nobody_ended(shop: Shop) -> None:
    subscribe(shop.user, make_plan(shop.tenant))
    shop.admit()
    with scope.tenant(shop.tenant.pk):
        Hold.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert holds.expire_holds() == 1
    assert [used for *_, used in used_of_plan(shop)] == [0]


def test_twenty_starts_on_the_last_answer_of_a_plan(committed_shop: Shop) -> None:
    shop = committed_shop
    subscribe(shop.user, make_plan(shop.tenant, allowances={"default": (1, "term")}))
    got = Counter(together([lambda: attempt(shop, paid_way=False)] * 20))
    assert got == {"free": 1, "102 quota_used_up": 19}
    end_all(shop)


def test_a_guest_has_so_many_answers_in_all(shop: Shop) -> None:
    guest = make_user(shop.tenant, is_guest=True)
    set_free_quota(shop.tenant.pk, per_day=100, guests=2)
    asking: dict[str, Any] = {"user_id": guest.pk, "is_guest": True, "paid_way": False}
    first, second = shop.admit(**asking), shop.admit(**asking)
    assert (first.free, first.counter_date) == (True, quota.IN_ALL)
    with scope.tenant(shop.tenant.pk):  # the next day nothing comes back
        Hold.objects.update(quota_date=first.quota_date - DAY)
    refused = refusal(shop, **asking)
    assert (refused.code, refused.type, refused.scope, refused.action, refused.reset_at, refused.facts) == (
        ErrorCode.QUOTA,
        "quota_used_up",
        "user",
        "register",
        None,
        {"used": 2, "limit": 2},
    )
    assert shop.admit().free  # a user has another counter
    assert shop.void(second)
    assert shop.admit(**asking).free


def test_twenty_starts_on_a_guest_s_last_answer(committed_shop: Shop) -> None:
    shop = committed_shop
    guest = make_user(shop.tenant, is_guest=True)
    set_free_quota(shop.tenant.pk, per_day=0, guests=1)
    got = Counter(together([lambda: attempt(shop, user_id=guest.pk, is_guest=True)] * 20))
    assert got == {"free": 1, "102 quota_used_up": 19}
    end_all(shop)


def test_a_model_that_nothing_pays_for_is_to_be_left(shop: Shop) -> None:
    refused = refusal(shop, paid_way=False)
    assert (refused.code, refused.action, refused.reset_at, refused.facts) == (
        ErrorCode.QUOTA,
        "choose_model",
        None,
        {"used": 0, "limit": 0},
    )


def test_of_several_allowances_the_refusal_names_what_comes_back_first(shop: Shop) -> None:
    set_free_quota(shop.tenant.pk, per_day=1)
    subscribe(shop.user, make_plan(shop.tenant, allowances={"default": (1, "term")}))
    last = [shop.admit() for _ in range(2)][-1]
    refused = refusal(shop, paid_way=False)
    midnight = quota.quota_day(now=last.created_at, zone=shop.tenant.timezone).ends_at
    assert (refused.scope, refused.reset_at) == ("user", midnight)


def end(order: Order, amount: int) -> Subscription | None:
    return plans.end_for_refund(tenant_id=order.tenant_id, order_id=order.pk, amount=amount)


def bought_orders(shop: Shop, times: int) -> list[Order]:
    plan = make_plan(shop.tenant)
    orders = [order_plan(shop.user, plan) for _ in range(times)]
    for order in orders:
        pay(order)
    return orders


def terms(user: EndUser) -> list[tuple[float, float, bool]]:
    """When the user's subscriptions begin and end, in days from the first one, and whether they ended early."""
    with scope.tenant(user.tenant_id):
        rows = list(Subscription.objects.filter(user=user).order_by("pk"))
    origin = rows[0].starts_at
    return [
        (round((row.starts_at - origin) / DAY, 3), round((row.ends_at - origin) / DAY, 3), row.ended_at is not None)
        for row in rows
    ]


def test_a_whole_refund_ends_the_subscription_and_the_next_one_begins(shop: Shop) -> None:
    first, _second = bought_orders(shop, 2)
    hold = shop.admit()
    ended = end(first, PRICE)
    assert ended is not None
    assert terms(shop.user) == [(0, 30, True), (0, 30, False)]
    assert shop.admit().subscription_id != hold.subscription_id
    assert shop.void(hold)  # goes back where it came from
    assert end(first, PRICE) is None


def test_a_refund_of_what_has_not_begun_leaves_the_present_one(shop: Shop) -> None:
    _first, second, _third = bought_orders(shop, 3)
    end(second, PRICE)
    assert terms(shop.user) == [(0, 30, False), (30, 60, True), (30, 60, False)]


def test_a_refund_of_a_part_takes_the_same_part_of_the_time(shop: Shop) -> None:
    first, _second = bought_orders(shop, 2)
    end(first, PRICE // 2)
    assert terms(shop.user) == [(0, 15, False), (15, 45, False)]
    end(first, PRICE - PRICE // 2)
    assert terms(shop.user) == [(0, 15, True), (0, 30, False)]


def test_a_refund_after_the_end_changes_nothing(shop: Shop) -> None:
    (order,) = bought_orders(shop, 1)
    with scope.tenant(shop.tenant.pk):
        subscription = Subscription.objects.get()
    move(subscription, -31 * DAY)
    end(order, PRICE)
    assert again(subscription).ended_at is None


@pytest.mark.parametrize("amount", [0, PRICE + 1])
def test_a_refund_beyond_the_price_is_a_fault(shop: Shop, amount: int) -> None:
    (order,) = bought_orders(shop, 1)
    with pytest.raises(ValueError, match="a refund of"):
        end(order, amount)


def test_a_package_s_order_begins_no_plan(shop: Shop) -> None:
    with scope.tenant(shop.tenant.pk), pytest.raises(ValueError, match="for no plan"):
        plans.begin(order=Order(tenant=shop.tenant, user=shop.user))


def test_another_tenant_s_plans_are_not_seen(shop: Shop) -> None:
    other = open_shop()
    subscribe(shop.user, make_plan(shop.tenant))
    set_free_quota(shop.tenant.pk, per_day=5)
    assert refusal(other).type == "balance_short"
    with scope.tenant(other.tenant.pk):
        assert (Subscription.objects.count(), Plan.objects.count(), PlanUse.objects.count()) == (0, 0, 0)
    with pytest.raises(Order.DoesNotExist):
        plans.end_for_refund(
            tenant_id=other.tenant.pk, order_id=order_plan(shop.user, make_plan(shop.tenant)).pk, amount=1
        )


def broken(shop: Shop) -> list[str]:
    return sorted({breach.invariant for breach in audit.audit_tenant(tenant_id=shop.tenant.pk)})


@pytest.mark.parametrize(
    ("statement", "invariants"),
    [
        ("UPDATE billing_planuse SET used = used + 1 WHERE tenant_id = %s", ["I13"]),
        ("UPDATE billing_planuse SET quota_group = 'other' WHERE tenant_id = %s", ["I13"]),
        ("UPDATE billing_order SET price = price + 10000 WHERE tenant_id = %s", ["I7"]),
        ("UPDATE billing_subscription SET user_id = user_id + 1 WHERE tenant_id = %s", ["I7"]),
        ("UPDATE billing_order SET plan_id = plan_id + 1 WHERE tenant_id = %s", ["I7"]),
        ("DELETE FROM billing_order WHERE tenant_id = %s", ["I7"]),
        (
            (
                "INSERT INTO billing_transfer (tenant_id, kind, ref, actor, reason) SELECT tenant_id, 'topup', id, '',"
                " '' FROM billing_order WHERE tenant_id = %s"
            ),
            ["I1", "I7"],
        ),
    ],
)
def test_the_audit_finds_a_plan_that_is_not_as_it_was_sold(shop: Shop, statement: str, invariants: list[str]) -> None:
    subscribe(shop.user, make_plan(shop.tenant))
    shop.settle(shop.admit())
    assert broken(shop) == []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("billing_transfer", "billing_order", "billing_subscription", "billing_planuse"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        cursor.execute(statement, [shop.tenant.pk])
        assert broken(shop) == invariants
        transaction.set_rollback(True)


@pytest.mark.parametrize(
    ("now", "zone", "first", "ends_at"),
    [
        ("2026-01-31T15:59:59", "Asia/Shanghai", "2026-01-01", "2026-01-31T16:00:00"),
        ("2026-01-31T16:00:00", "Asia/Shanghai", "2026-02-01", "2026-02-28T16:00:00"),
        ("2026-12-31T23:59:59", "UTC", "2026-12-01", "2027-01-01T00:00:00"),
        ("2028-02-29T12:00:00", "UTC", "2028-02-01", "2028-03-01T00:00:00"),
        # The clocks change within the month: it ends an hour earlier, or later, than it began.
        ("2026-03-15T12:00:00", "America/New_York", "2026-03-01", "2026-04-01T04:00:00"),
        ("2026-11-15T12:00:00", "America/New_York", "2026-11-01", "2026-12-01T05:00:00"),
    ],
)
def test_a_month_is_the_tenant_s(now: str, zone: str, first: str, ends_at: str) -> None:
    found = quota.quota_month(now=datetime.fromisoformat(now).replace(tzinfo=UTC), zone=zone)
    assert found.date.isoformat() == first
    assert found.ends_at.astimezone(UTC) == datetime.fromisoformat(ends_at).replace(tzinfo=UTC)
