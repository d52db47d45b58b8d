"""Caps of each kind: counted before money is frozen, exactly, and corrected to what an answer came to."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from billing import audit, caps, holds, quota
from billing.ledger import balances
from billing.models import Cap, CapUse, Hold
from billing.tests.conftest import Shop, open_shop
from billing.tests.test_concurrency import attempt, end_all, together
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tests.factories import credit, make_cap, make_plan, set_free_quota, subscribe

FULL = 8000
ANSWER = 5000  # what `Shop.settle` charges


def used(shop: Shop) -> list[int]:
    with scope.tenant(shop.tenant.pk):
        return list(CapUse.objects.order_by("pk").values_list("used", flat=True))


def refusal(shop: Shop, **fields: Any) -> ProductError:
    with pytest.raises(ProductError) as refused:
        shop.admit(**fields)
    return refused.value


def told(refused: ProductError) -> tuple[Any, ...]:
    return refused.code, refused.type, refused.scope, refused.action, refused.facts["used"], refused.facts["limit"]


def test_a_cap_on_every_user_counts_each_alone(shop: Shop) -> None:
    make_cap(shop.tenant, 2)
    other = shop.open_more()
    for user in (shop.user, other):
        credit(user, 10 * FULL)
    held = [shop.admit() for _ in range(2)]
    assert told(refusal(shop)) == (ErrorCode.QUOTA, "cap_reached", "user", "wait", 2, 2)
    assert shop.admit(user_id=other.pk).cap_counters != held[0].cap_counters
    assert used(shop) == [2, 1]
    assert balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk).pending == 2 * FULL


def test_a_cap_says_when_it_begins_anew(shop: Shop) -> None:
    credit(shop.user, 10 * FULL)
    for period, span in (("day", quota.quota_day), ("month", quota.quota_month)):
        cap = make_cap(shop.tenant, 0, period=period)
        refused = refusal(shop)
        assert refused.reset_at == span(now=datetime.now(tz=UTC), zone=shop.tenant.timezone).ends_at
        assert (refused.facts["measure"], refused.facts["period"]) == ("answers", period)
        with scope.tenant(shop.tenant.pk):
            cap.delete()


def test_a_cap_on_one_user_is_nobody_else_s(shop: Shop) -> None:
    make_cap(shop.tenant, 1, scope="one_user", user=shop.user)
    other = shop.open_more()
    for user in (shop.user, other):
        credit(user, 10 * FULL)
    shop.admit()
    assert refusal(shop).type == "cap_reached"
    assert [shop.admit(user_id=other.pk).cap_counters for _ in range(2)] == [[], []]


def test_a_cap_on_the_tenant_counts_all_users_together(shop: Shop) -> None:
    make_cap(shop.tenant, 3, scope="tenant")
    users = [shop.user, shop.open_more()]
    for user in users:
        credit(user, 10 * FULL)
    for user in (*users, shop.user):
        shop.admit(user_id=user.pk)
    assert told(refusal(shop)) == (ErrorCode.QUOTA, "cap_reached", "tenant", "contact", 3, 3)
    assert used(shop) == [3]


def test_a_cap_on_a_group_counts_that_group(shop: Shop) -> None:
    make_cap(shop.tenant, 1, quota_group="big")
    credit(shop.user, 10 * FULL)
    shop.admit(quota_group="big")
    assert refusal(shop, quota_group="big").facts["quota_group"] == "big"
    assert shop.admit(quota_group="small").cap_counters == []


def test_several_caps_all_hold(shop: Shop) -> None:
    make_cap(shop.tenant, 5)
    make_cap(shop.tenant, 1, period="month", quota_group="big")
    make_cap(shop.tenant, 3 * FULL, measure="spend", scope="tenant")
    credit(shop.user, 10 * FULL)
    assert len(shop.admit(quota_group="big").cap_counters) == 3
    assert refusal(shop, quota_group="big").facts["period"] == "month"
    assert used(shop) == [1, 1, FULL]  # what was refused is not counted anywhere


def test_a_cap_counts_answers_that_cost_nothing_too_and_spending_does_not(shop: Shop) -> None:
    make_cap(shop.tenant, 2)
    make_cap(shop.tenant, 1, measure="spend")
    set_free_quota(shop.tenant.pk, per_day=1)
    subscribe(shop.user, make_plan(shop.tenant))
    assert [shop.admit().free for _ in range(2)] == [True, True]
    assert told(refusal(shop)) == (ErrorCode.QUOTA, "cap_reached", "user", "wait", 2, 2)
    assert used(shop) == [2]


@pytest.mark.parametrize("whose", ["user", "tenant"])
def test_spending_counts_what_is_held_and_then_what_was_charged(shop: Shop, whose: str) -> None:
    make_cap(shop.tenant, FULL + ANSWER, measure="spend", scope=whose)
    credit(shop.user, 10 * FULL)
    first = shop.admit()
    assert used(shop) == [FULL]
    refused = refusal(shop)
    assert (refused.facts["used"], refused.facts["limit"]) == (str(FULL), str(FULL + ANSWER))
    shop.settle(first)
    assert used(shop) == [ANSWER]
    second = shop.admit()
    assert used(shop) == [ANSWER + FULL]
    shop.void(second)
    assert used(shop) == [ANSWER]


def test_a_charge_beyond_the_hold_counts_whole(shop: Shop) -> None:
    make_cap(shop.tenant, 10 * FULL, measure="spend")
    credit(shop.user, FULL)
    shop.settle(shop.admit(), completion=1500)
    assert used(shop) == [11_000]


def test_a_void_and_the_sweep_give_an_answer_back(shop: Shop) -> None:
    make_cap(shop.tenant, 2)
    make_cap(shop.tenant, 2, scope="tenant", period="month")
    credit(shop.user, 10 * FULL)
    first, _second = shop.admit(), shop.admit()
    shop.void(first)
    assert used(shop) == [1, 1]
    with scope.tenant(shop.tenant.pk):
        Hold.objects.filter(state="held").update(expires_at=Now() - timedelta(seconds=1))
    assert holds.expire_holds() == 1
    assert used(shop) == [0, 0]


def test_what_ends_after_midnight_is_corrected_on_the_day_of_its_hold(shop: Shop) -> None:
    make_cap(shop.tenant, 10 * FULL, measure="spend")
    credit(shop.user, 10 * FULL)
    hold = shop.admit()
    with scope.tenant(shop.tenant.pk):
        CapUse.objects.update(date=hold.quota_date - timedelta(days=1))
    shop.admit()
    shop.settle(hold)
    assert used(shop) == [ANSWER, FULL]


def test_a_cap_that_is_off_or_gone_counts_nothing(shop: Shop) -> None:
    cap = make_cap(shop.tenant, 1)
    credit(shop.user, 10 * FULL)
    hold = shop.admit()
    with scope.tenant(shop.tenant.pk):
        Cap.objects.update(is_enabled=False)
        assert shop.admit().cap_counters == []
        Cap.objects.get(pk=cap.pk).delete()
    shop.void(hold)
    assert used(shop) == []


def test_who_would_have_to_pay_for_nothing_is_told_of_the_cap(shop: Shop) -> None:
    make_cap(shop.tenant, FULL, measure="spend")
    credit(shop.user, 2000)
    assert refusal(shop, min_completion_tokens=500).type == "balance_short"
    assert refusal(shop, prompt_tokens=10_000).type == "cap_reached"  # a recharge would not help


def test_a_repeated_key_counts_once(shop: Shop) -> None:
    make_cap(shop.tenant, 5)
    credit(shop.user, 10 * FULL)
    shop.admit(key="again")
    with pytest.raises(holds.DuplicateKeyError):
        shop.admit(key="again")
    assert used(shop) == [1]


def test_another_tenant_s_caps_do_not_count(shop: Shop) -> None:
    other = open_shop()
    make_cap(shop.tenant, 0)
    make_cap(shop.tenant, 0, scope="tenant", measure="spend")
    credit(other.user, FULL)
    assert other.admit().cap_counters == []


@pytest.mark.parametrize(
    "wrong",
    [{"scope": "one_user"}, {"limit": -1}, {"measure": "tokens"}, {"period": "year"}],
)
def test_the_database_refuses_a_cap_that_is_none(shop: Shop, wrong: dict[str, Any]) -> None:
    make_cap(shop.tenant, 1)
    with scope.tenant(shop.tenant.pk), transaction.atomic(), pytest.raises(IntegrityError, match="billing_cap_"):
        Cap.objects.update(**wrong)


def test_two_caps_of_one_kind_are_one_too_many(shop: Shop) -> None:
    make_cap(shop.tenant, 1)
    with transaction.atomic(), pytest.raises(IntegrityError, match="billing_cap_once"):
        make_cap(shop.tenant, 2)


def test_caps_add_a_statement_each_and_none_adds_none(shop: Shop) -> None:
    credit(shop.user, 100 * FULL)
    shop.void(shop.admit())
    counts = []
    for period in ("day", "month", ""):
        with connection.execute_wrapper(counter := Statements()):
            shop.void(shop.admit())
        counts.append(counter.count)
        if period:
            make_cap(shop.tenant, 10**6, period=period)
    assert [more - counts[0] for more in counts] == [0, 2, 4]  # one to count, one to give back


class Statements:
    """Counts what is sent to the database."""

    count = 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
        self.count += 1
        return execute(sql, params, many, context)


@pytest.mark.parametrize("whose", ["user", "tenant"])
def test_fifty_starts_with_three_answers_under_a_cap(committed_shop: Shop, whose: str) -> None:
    shop = committed_shop
    make_cap(shop.tenant, 3, scope=whose)
    credit(shop.user, 100 * FULL)
    assert Counter(together([lambda: attempt(shop)] * 50)) == {"admitted": 3, "102 cap_reached": 47}
    assert used(shop) == [3]
    end_all(shop)
    assert used(shop) == [0]


def test_fifty_users_start_with_spending_for_three_under_the_tenant_s_cap(committed_shop: Shop) -> None:
    shop = committed_shop
    make_cap(shop.tenant, 3 * FULL + FULL - 1, scope="tenant", measure="spend")
    users = [shop.open_more() for _ in range(25)]
    for user in users:
        credit(user, 10 * FULL)
    jobs = [partial(attempt, shop, user_id=user.pk) for user in users] * 2
    assert Counter(together(jobs)) == {"admitted": 3, "102 cap_reached": 47}
    assert used(shop) == [3 * FULL]
    end_all(shop)


def test_chats_under_many_caps_never_wait_for_each_other_crosswise(committed_shop: Shop) -> None:
    """A deadlock would end a thread with an error of the database, which `together` raises."""
    shop = committed_shop
    for whose in ("user", "tenant"):
        for measure in ("answers", "spend"):
            for period in ("month", "day"):
                make_cap(shop.tenant, 10**9, scope=whose, measure=measure, period=period)
                make_cap(shop.tenant, 10**9, scope=whose, measure=measure, period=period, quota_group="big")
    users = [shop.user, shop.open_more()]
    for user in users:
        credit(user, 1000 * FULL)

    def chat(number: int) -> int:
        for turn in range(3):
            group = ("big", "small")[(number + turn) % 2]
            hold = shop.admit(user_id=users[number % 2].pk, quota_group=group)
            if (number + turn) % 3:
                shop.settle(hold, completion=500 if turn else 1100)
            else:
                shop.void(hold)
        return number

    assert together([partial(chat, number) for number in range(12)]) == list(range(12))


@pytest.mark.parametrize("measure", ["answers", "spend"])
def test_the_audit_finds_a_counter_that_is_wrong(shop: Shop, measure: str) -> None:
    make_cap(shop.tenant, 10 * FULL, measure=measure)
    credit(shop.user, 10 * FULL)
    shop.settle(shop.admit())
    shop.admit()
    with transaction.atomic():
        with scope.tenant(shop.tenant.pk):
            CapUse.objects.update(used=7)
            (counter,) = CapUse.objects.all()
        right = {"answers": 2, "spend": ANSWER + FULL}[measure]
        assert [
            (breach.invariant, breach.row, breach.found) for breach in audit.audit_tenant(tenant_id=shop.tenant.pk)
        ] == [("I13", f"cap counter {counter.pk}", f"used 7, answers come to {right}")]
        transaction.set_rollback(True)


def test_correcting_by_nothing_asks_nothing(shop: Shop, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        caps.correct(tenant_id=shop.tenant.pk, counters=[1], answers=0, spend=0)
