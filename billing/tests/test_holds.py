from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import translation

from billing import audit, holds, quota
from billing.ledger import Balances, balances
from billing.models import Account, Hold, QuotaUse, Transfer
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tests.factories import (
    YUAN,
    admit,
    credit,
    fill_wallet,
    hold_request,
    make_price,
    make_sku,
    make_tenant,
    make_user,
    unique,
)

# Of the default price list: 1000 prompt tokens and 1000 completion tokens.
PROMPT, FULL, WHOLESALE = 2000, 8000, 4000


def balance(shop: Shop) -> Balances:
    return balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk)


def wallet(shop: Shop) -> tuple[int, int]:
    return shop.books()["tenant_wholesale"]


def used(shop: Shop) -> list[int]:
    with scope.tenant(shop.tenant.pk):
        return list(QuotaUse.objects.values_list("used", flat=True))


def entries_of(hold: Hold) -> dict[str, int]:
    with scope.tenant(hold.tenant_id):
        transfer = Transfer.objects.get(kind="answer", ref=str(hold.pk))
        rows = transfer.entries.values_list("account__kind", "account__channel", "amount")
        return {f"{kind}:{channel}".rstrip(":"): amount for kind, channel, amount in rows}


def refusal(shop: Shop, **fields: Any) -> ProductError:
    with pytest.raises(ProductError) as refused:
        shop.admit(**fields)
    return refused.value


def test_a_hold_freezes_what_the_answer_may_cost(shop: Shop) -> None:
    credit(shop.user, 10_000)
    hold = shop.hold(shop.admit(key="k", quota_group="big"))
    assert (hold.state, hold.key, hold.sku, hold.free, hold.quota_group) == ("held", "k", shop.sku, False, "big")
    assert (hold.amount, hold.gift_amount, hold.cash_amount, hold.wholesale_amount) == (FULL, 0, FULL, WHOLESALE)
    assert (hold.prompt_tokens, hold.max_completion_tokens) == (1000, 1000)
    assert balance(shop) == Balances(cash=10_000, gift=0, pending=FULL)
    assert wallet(shop) == (1000 * YUAN, WHOLESALE)


def test_a_hold_takes_the_caller_s_id(shop: Shop) -> None:
    credit(shop.user, 10_000)
    request = shop.request()
    assert holds.admit(request).pk == request.hold_id


def test_gift_is_spent_before_cash(shop: Shop) -> None:
    credit(shop.user, 3000, kind="gift")
    credit(shop.user, 10_000)
    hold = shop.admit()
    assert (hold.gift_amount, hold.cash_amount) == (3000, 5000)
    receipt = shop.settle(hold, completion=500)
    assert receipt is not None
    assert (receipt.gift, receipt.cash) == (3000, 2000)
    assert balance(shop) == Balances(cash=8000, gift=0, pending=0)


def test_free_quota_is_spent_before_gift(shop: Shop) -> None:
    credit(shop.user, 3000, kind="gift")
    hold = shop.admit(free_per_day=1)
    assert (hold.free, hold.amount, hold.wholesale_amount) == (True, 0, WHOLESALE)
    assert used(shop) == [1]
    assert balance(shop) == Balances(cash=0, gift=3000, pending=0)


def test_when_free_quota_is_used_up_money_pays(shop: Shop) -> None:
    credit(shop.user, FULL)
    assert [shop.admit(free_per_day=2).free for _ in range(3)] == [True, True, False]
    assert used(shop) == [2]
    assert balance(shop).pending == FULL


def test_quota_groups_are_counted_apart(shop: Shop) -> None:
    free = [shop.admit(free_per_day=1, quota_group=group, paid_way=False).free for group in ("big", "small")]
    assert free == [True, True]
    assert used(shop) == [1, 1]


def test_a_balance_that_does_not_pay_for_the_shortest_answer_is_101(shop: Shop) -> None:
    credit(shop.user, PROMPT + 59)  # ten tokens come to 60
    refused = refusal(shop)
    assert (refused.code, refused.type, refused.scope, refused.action, refused.reset_at) == (
        ErrorCode.RECHARGE,
        "balance_short",
        "user",
        "recharge",
        None,
    )
    has = str(PROMPT + 59)
    assert refused.facts == {"used": "0", "limit": has, "balance": has, "needed": str(PROMPT + 60)}
    assert balance(shop).pending == 0
    assert wallet(shop) == (1000 * YUAN, 0)


def test_a_budget_cuts_and_refuses_as_a_balance_does(shop: Shop) -> None:
    credit(shop.user, 10 * FULL)
    hold = shop.admit(budget=PROMPT + 605)
    assert (hold.max_completion_tokens, hold.amount) == (100, PROMPT + 600)
    with pytest.raises(holds.BudgetShortError):
        shop.admit(budget=PROMPT + 59)
    assert balance(shop).pending == PROMPT + 600
    assert wallet(shop)[1] == hold.wholesale_amount
    # Where the balance is the shorter of the two, it is the balance that helps.
    poor = shop.open_more()
    credit(poor, PROMPT)
    with pytest.raises(ProductError) as refused:
        admit(hold_request(poor, shop.sku, budget=PROMPT + 59))
    assert refused.value.type == "balance_short"


def test_what_is_frozen_cannot_be_spent_again(shop: Shop) -> None:
    credit(shop.user, FULL + PROMPT)
    shop.admit()
    refused = refusal(shop)
    assert (refused.code, refused.facts["balance"]) == (ErrorCode.RECHARGE, str(PROMPT))


def test_an_answer_is_cut_to_what_is_affordable(shop: Shop) -> None:
    credit(shop.user, 1000, kind="gift")
    credit(shop.user, PROMPT - 1000 + 605)
    hold = shop.admit()
    assert (hold.max_completion_tokens, hold.amount) == (100, PROMPT + 600)
    assert hold.wholesale_amount == 1000 + 300
    assert balance(shop) == Balances(cash=1605, gift=1000, pending=2600)


@pytest.mark.parametrize(
    ("guest", "action", "text"),
    [(True, "register", "Your trial is used up. Please sign up to go on."),
     (False, "wait", "Today's free answers are used up. Please come back tomorrow.")],
)  # fmt: skip
def test_without_a_paid_way_a_used_up_quota_is_102(shop: Shop, guest: bool, action: str, text: str) -> None:  # noqa: FBT001
    credit(shop.user, 10 * FULL)  # money does not help here
    fields = {"free_per_day": 2, "is_guest": guest, "paid_way": guest}
    assert [shop.admit(**fields).free for _ in range(2)] == [True, True]
    before = datetime.now(tz=UTC)
    refused = refusal(shop, **fields)
    assert (refused.code, refused.type, refused.scope, refused.action) == (
        ErrorCode.QUOTA,
        "quota_used_up",
        "user",
        action,
    )
    assert refused.facts == {"used": 2, "limit": 2}
    days = (quota.quota_day(now=moment, zone="Asia/Shanghai").ends_at for moment in (before, datetime.now(tz=UTC)))
    # A guest's answers are counted in all, so that none come back.
    assert refused.reset_at in ({None} if guest else set(days))
    with translation.override("en"):
        assert refused.body("r")["msg"] == text
    assert used(shop) == [2]


def test_where_there_is_no_free_quota_nothing_resets(shop: Shop) -> None:
    refused = refusal(shop, is_guest=True)
    assert (refused.code, refused.action, refused.reset_at) == (ErrorCode.QUOTA, "register", None)
    assert refused.facts == {"used": 0, "limit": 0}


@pytest.mark.parametrize("free_per_day", [0, 5])
def test_an_empty_wallet_of_the_tenant_is_102_and_nothing_stays(db: None, free_per_day: int) -> None:
    shop = Shop(tenant=(tenant := make_tenant()), user=make_user(tenant), sku=make_sku(tenant))
    credit(shop.user, FULL)
    with transaction.atomic():  # goes on after the refusal
        refused = refusal(shop, free_per_day=free_per_day)
    assert (refused.code, refused.type, refused.scope, refused.action) == (
        ErrorCode.QUOTA,
        "tenant_wallet_empty",
        "tenant",
        "contact",
    )
    assert balance(shop) == Balances(cash=FULL, gift=0, pending=0)
    assert used(shop) == []
    with scope.tenant(tenant.pk):
        assert Hold.objects.count() == 0


def test_a_wallet_that_covers_the_answer_exactly_is_enough(db: None) -> None:
    shop = open_shop()
    credit(shop.user, 2 * FULL)
    with scope.tenant(shop.tenant.pk):
        hold = shop.admit()
        Account.objects.filter(kind="tenant_wholesale").update(posted=2 * WHOLESALE - 1)
        assert refusal(shop).type == "tenant_wallet_empty"
        Account.objects.filter(kind="tenant_wholesale").update(posted=2 * WHOLESALE)
        assert shop.admit().wholesale_amount == hold.wholesale_amount


def test_a_model_without_a_price_cannot_be_called(shop: Shop) -> None:
    credit(shop.user, FULL)
    refused = refusal(shop, sku=unique("sku"))
    assert (refused.code, refused.type) == (ErrorCode.NOT_FOUND, "model_without_price")


def test_a_model_that_costs_nothing_needs_no_balance(shop: Shop) -> None:
    sku = unique("sku")
    for level, owner in (("cost", {}), ("wholesale", {}), ("retail", {"tenant_id": shop.tenant.pk})):
        make_price(level, sku=sku, rates=(0, 0, 0), **owner)
    hold = shop.admit(sku=sku)
    assert (hold.amount, hold.max_completion_tokens) == (0, 1000)
    receipt = shop.settle(hold)
    assert receipt is not None
    assert receipt.charge == 0
    assert shop.hold(hold).state == "posted"


def test_a_key_is_held_once_and_names_its_hold(shop: Shop) -> None:
    credit(shop.user, 2 * FULL)
    hold = shop.admit(key="again")
    with pytest.raises(holds.DuplicateKeyError) as again:
        shop.admit(key="again", max_completion_tokens=500)
    assert again.value.hold_id == hold.pk
    shop.settle(hold)
    with pytest.raises(holds.DuplicateKeyError):
        shop.admit(key="again")
    assert balance(shop).pending == 0


def test_a_repeated_key_is_told_before_the_balance_is_looked_at(shop: Shop) -> None:
    credit(shop.user, FULL)
    shop.admit(key="again")
    with pytest.raises(holds.DuplicateKeyError):
        shop.admit(key="again")


def test_another_tenant_may_use_the_same_key(shop: Shop) -> None:
    credit(shop.user, FULL)
    shop.admit(key="mine")
    other = open_shop()
    credit(other.user, FULL)
    assert other.admit(key="mine").amount == FULL


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens": -1},
        {"prompt_tokens": 10**8 + 1},
        {"max_completion_tokens": 10**8 + 1},
        {"min_completion_tokens": 1001},
        {"min_completion_tokens": -1},
    ],
)
def test_a_request_out_of_bounds_is_refused(shop: Shop, fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="out of bounds|longer than"):  # noqa: RUF043
        shop.request(**fields)


def test_an_answer_is_charged_what_it_used(shop: Shop) -> None:
    credit(shop.user, 10_000)
    hold = shop.admit()
    receipt = shop.settle(hold, prompt=900, cached=400, completion=300)
    # 500 fresh at 2, 400 cached at 1, 300 at 6.
    assert receipt is not None
    assert receipt.as_json() == {
        "prompt_tokens": 900,
        "cached_tokens": 400,
        "completion_tokens": 300,
        "usage_source": "upstream",
        "unit_prices": {
            "prompt": "2000000",
            "cached": "1000000",
            "completion": "6000000",
            "per_call": "0",
            "multiplier_ppm": "1000000",
        },
        "charge": "3200",
        "funding": {"free": False, "plan": False, "gift": "0", "cash": "3200"},
        "balance": "6800",
        "reason": "stop",
    }
    assert balance(shop) == Balances(cash=6800, gift=0, pending=0)
    assert entries_of(hold) == {
        "user_cash": -3200,
        "tenant_revenue": 3200,
        "tenant_wholesale": -1600,
        "platform_revenue": 1600,
    }
    assert wallet(shop) == (1000 * YUAN - 1600, 0)
    posted = shop.hold(hold)
    assert (posted.state, posted.reason, posted.usage_source) == ("posted", "stop", "upstream")
    assert (posted.charge, posted.wholesale_charge, posted.cost, posted.shortfall) == (3200, 1600, 800, 0)
    assert (posted.posted_prompt, posted.posted_cached, posted.posted_completion) == (900, 400, 300)
    assert posted.recorded_at is None


def test_a_free_answer_costs_the_tenant(shop: Shop) -> None:
    hold = shop.admit(free_per_day=1)
    receipt = shop.settle(hold, completion=1000)
    assert receipt is not None
    assert (receipt.charge, receipt.free, receipt.balance) == (0, True, 0)
    assert entries_of(hold) == {"tenant_wholesale": -WHOLESALE, "platform_revenue": WHOLESALE}
    assert used(shop) == [1]


def test_a_price_edit_in_mid_stream_changes_nothing(shop: Shop) -> None:
    credit(shop.user, 10 * FULL)
    hold = shop.admit()
    make_price("retail", sku=shop.sku, rates=(9 * YUAN, YUAN, 9 * YUAN), tenant_id=shop.tenant.pk)
    receipt = shop.settle(hold, completion=1000)
    assert receipt is not None
    assert receipt.charge == FULL
    dearer = shop.settle(shop.admit(), completion=1000)
    assert dearer is not None
    assert dearer.charge == 18_000


def test_a_charge_beyond_the_hold_takes_what_else_there_is(shop: Shop) -> None:
    credit(shop.user, FULL)
    hold = shop.admit()
    credit(shop.user, 500, kind="gift")
    credit(shop.user, 1000)
    receipt = shop.settle(hold, completion=1200)
    assert receipt is not None
    assert (receipt.charge, receipt.gift, receipt.cash, receipt.shortfall) == (9200, 500, 8700, 0)
    assert balance(shop) == Balances(cash=300, gift=0, pending=0)


def test_a_charge_beyond_everything_is_a_shortfall_not_a_debt(shop: Shop) -> None:
    credit(shop.user, FULL + PROMPT + 60)
    hold, other = shop.admit(), shop.admit(max_completion_tokens=10)
    receipt = shop.settle(hold, completion=1500)
    assert receipt is not None
    # What the other hold has frozen is not touched.
    assert (receipt.charge, receipt.cash, receipt.shortfall, receipt.balance) == (11_000, 8000, 3000, 0)
    assert balance(shop) == Balances(cash=PROMPT + 60, gift=0, pending=PROMPT + 60)
    assert entries_of(hold) == {
        "user_cash": -8000,
        "shortfall:retail": -3000,
        "tenant_revenue": 11_000,
        "tenant_wholesale": -5500,
        "platform_revenue": 5500,
    }
    shop.void(other)


def test_the_tenant_s_wallet_never_falls_below_zero_either(db: None) -> None:
    tenant = make_tenant()
    shop = Shop(tenant=tenant, user=make_user(tenant), sku=make_sku(tenant))
    credit(shop.user, 2 * FULL)
    fill_wallet(tenant, WHOLESALE + 100)
    hold = shop.admit()
    shop.settle(hold, completion=1500)
    assert entries_of(hold) == {
        "user_cash": -11_000,
        "tenant_revenue": 11_000,
        "tenant_wholesale": -WHOLESALE - 100,
        "shortfall:wholesale": -1400,
        "platform_revenue": 5500,
    }
    assert shop.books()["shortfall:wholesale"] == (-1400, 0)
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


def test_a_void_frees_everything(shop: Shop) -> None:
    credit(shop.user, 3000, kind="gift")
    credit(shop.user, 10_000)
    before = shop.books()
    hold = shop.admit()
    assert shop.void(hold)
    assert shop.books() == before
    voided = shop.hold(hold)
    assert (voided.state, voided.reason, voided.charge) == ("voided", "failed", 0)
    assert voided.ended_at is not None


def test_a_void_gives_the_free_answer_back(shop: Shop) -> None:
    hold = shop.admit(free_per_day=1, paid_way=False)
    assert shop.void(hold)
    assert used(shop) == [0]
    assert shop.admit(free_per_day=1, paid_way=False).free


def test_a_hold_ends_once(shop: Shop) -> None:
    credit(shop.user, 3 * FULL)
    posted, voided = shop.admit(), shop.admit()
    assert (shop.settle(posted) is None, shop.settle(posted) is None) == (False, True)
    assert (shop.void(voided), shop.void(voided)) == (True, False)
    assert (shop.void(posted), shop.settle(voided)) == (False, None)
    assert balance(shop) == Balances(cash=3 * FULL - 5000, gift=0, pending=0)


def test_another_tenant_cannot_end_a_hold(shop: Shop) -> None:
    credit(shop.user, FULL)
    hold = shop.admit()
    stranger = open_shop()
    assert (stranger.settle(hold), stranger.void(hold)) == (None, False)
    assert holds.dispatch(tenant_id=stranger.tenant.pk, hold_id=hold.pk) is False
    assert shop.hold(hold).state == "held"


def test_dispatch_is_noted_once_and_only_while_held(shop: Shop) -> None:
    credit(shop.user, FULL)
    hold = shop.admit()
    assert shop.hold(hold).dispatched_at is None
    assert holds.dispatch(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    first = shop.hold(hold).dispatched_at
    assert first is not None
    assert holds.dispatch(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    assert shop.hold(hold).dispatched_at == first
    shop.void(hold)
    assert not holds.dispatch(tenant_id=shop.tenant.pk, hold_id=hold.pk)


def test_dispatch_insists_on_its_own_commit(committed_shop: Shop) -> None:
    credit(committed_shop.user, FULL)
    hold = committed_shop.admit()
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        holds.dispatch(tenant_id=committed_shop.tenant.pk, hold_id=hold.pk)
    committed_shop.void(hold)


@pytest.mark.parametrize(
    "usage", [{"completion": -1}, {"cached": 1001}, {"completion": 10**8 + 1}, {"source": "a guess"}]
)
def test_usage_out_of_bounds_is_refused_before_money_moves(shop: Shop, usage: dict[str, Any]) -> None:
    credit(shop.user, FULL)
    hold = shop.admit()
    with pytest.raises(ValueError, match="out of bounds|not a valid UsageSource"):  # noqa: RUF043
        shop.settle(hold, **usage)
    assert shop.hold(hold).state == "held"


def database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        time: datetime = cursor.fetchone()[0]
    return time


def test_whatever_an_upstream_calls_its_end_the_hold_ends(shop: Shop) -> None:
    credit(shop.user, 2 * FULL)
    settled, voided = shop.admit(), shop.admit()
    odd = "st\0op" + "!" * 100
    used_up = holds.Usage(prompt=10, completion=10, source="upstream")
    receipt = holds.settle(tenant_id=shop.tenant.pk, hold_id=settled.pk, usage=used_up, reason=odd)
    assert receipt is not None
    assert holds.void(tenant_id=shop.tenant.pk, hold_id=voided.pk, reason=odd)
    kept = "stop" + "!" * 60
    assert [receipt.reason, shop.hold(settled).reason, shop.hold(voided).reason] == [kept] * 3


def test_a_hold_expires_by_the_database_s_clock(shop: Shop, settings: Any) -> None:
    settings.HOLD_SECONDS = 60
    credit(shop.user, 2 * FULL)
    before = database_time()
    hold, other = shop.admit(), shop.admit()
    assert before < hold.created_at < other.created_at < database_time()
    assert hold.expires_at - hold.created_at == timedelta(seconds=60)
    with scope.tenant(shop.tenant.pk):
        Hold.objects.filter(pk=hold.pk).update(expires_at=Now() - timedelta(milliseconds=1))
    assert holds.expire_holds() == 1
    assert [shop.hold(each).state for each in (hold, other)] == ["voided", "held"]
    assert shop.hold(hold).reason == holds.EXPIRED
    assert balance(shop).pending == FULL
    assert holds.expire_holds() == 0


def test_holds_of_every_tenant_expire_and_give_their_quota_back(shop: Shop) -> None:
    other = open_shop()
    for each in (shop, other):
        each.admit(free_per_day=1)
        with scope.tenant(each.tenant.pk):
            Hold.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert holds.expire_holds() == 2
    assert (used(shop), used(other)) == ([0], [0])


def test_a_hold_that_cannot_be_voided_does_not_keep_the_others(db: None) -> None:
    broken, sound = open_shop(), open_shop()
    for each in (broken, sound):
        credit(each.user, FULL)
        each.admit()
        with scope.tenant(each.tenant.pk):
            Hold.objects.update(expires_at=Now() - timedelta(seconds=1 if each is sound else 2))
    with scope.tenant(broken.tenant.pk):
        Account.objects.filter(kind="user_cash").update(pending=0)  # somebody broke the books
    assert holds.expire_holds() == 1
    assert (balance(sound).pending, wallet(broken)[1]) == (0, WHOLESALE)
    assert [breach.invariant for breach in audit.audit_tenant(tenant_id=broken.tenant.pk)] == ["I4"]
