"""Refunds of WeChat Pay's orders, through the provider, by hand and forced; each test ends with an audit."""

import threading
from collections import Counter
from datetime import date
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from billing import holds, ledger, refund, tasks
from billing.models import Refund, Transfer
from billing.payments import provider_of
from billing.payments.provider import BillLine, ProviderAwayError, RefundNotice
from billing.refund import Worth
from billing.tests.payments.conftest import BONUS, CREDITS, PRICE, Till, open_package, open_till
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Domain, Tenant
from tests.doubles.wechatpay import rsa_key
from tests.factories import YUAN, credit, hold_request, host_of, make_sku, make_token, make_user, unique

FEN = 10_000
TAKEN = (200, {"code": "SUCCESS", "message": ""})
NOT_BELIEVED = (401, {"code": "FAIL", "message": "not accepted"})
NO_MONEY = ledger.Balances(cash=0, gift=0, pending=0)


def fail(why: str) -> tuple[int, dict[str, str]]:
    return 409, {"code": "FAIL", "message": why}


def transfers(till: Till) -> Counter[str]:
    """Count the transfers of refunds, by kind."""
    with scope.tenant(till.tenant.pk):
        return Counter(Transfer.objects.filter(kind__startswith="refund").values_list("kind", flat=True))


def now(till: Till, row: Refund) -> Refund:
    with scope.tenant(till.tenant.pk):
        return Refund.objects.get(pk=row.pk)


def refusal(till: Till, order: Any, amount: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ProductError) as refused:
        till.refund(order, amount, **fields)
    return refused.value.body("")["type"], refused.value.facts


def finish(till: Till, row: Refund, state: str = "SUCCESS") -> tuple[int, dict[str, Any]]:
    """Let WeChat end a refund and tell of it."""
    till.wechat.refunds[row.out_refund_no].state = state
    return till.deliver(till.wechat.refund_notification(row.out_refund_no))


def forced_notice(till: Till, order: Any, **changes: Any) -> RefundNotice:
    """What a provider says that has refunded on its own account."""
    return RefundNotice(
        **{
            "event_id": unique("event"),
            "out_trade_no": order.out_trade_no,
            "out_refund_no": "",
            "refund_id": "apple-1",
            "merchant_id": order.merchant_id,
            "app_id": order.app_id,
            "amount": order.price,
            "currency": "CNY",
            "state": "done",
            "forced": True,
            "body_digest": "0" * 64,
            **changes,
        }
    )


# The money


def test_a_full_refund_takes_all_back(till: Till) -> None:
    order = till.sold()
    row = till.refund(order, PRICE)
    clearing = f"wechat:{till.merchant.merchant_id}"
    assert (row.state, row.credits_back, row.bonus_back, row.shortfall) == ("requested", CREDITS, BONUS, 0)
    assert till.books() == {f"psp_clearing:{clearing}": -PRICE, f"refund_payable:{clearing}": PRICE}
    asked = till.wechat.refunds[row.out_refund_no].asked
    assert asked == {
        "out_trade_no": order.out_trade_no,
        "out_refund_no": row.out_refund_no,
        "amount": {"refund": PRICE // FEN, "total": PRICE // FEN, "currency": "CNY"},
        "notify_url": f"https://{host_of(till.tenant)}/api/payments/{till.tenant.slug}/wechat/{till.account.pk}/notify",
    }
    assert finish(till, row) == TAKEN
    assert (till.books(), till.refunds(), till.order(order.out_trade_no).state) == ({}, [(PRICE, "done")], "paid")
    assert now(till, row).refund_id == till.wechat.refunds[row.out_refund_no].refund_id
    assert transfers(till) == {"refund": 1, "refund_paid": 1}
    # The answer to our request was an event, too.
    assert till.events() == ["credited", "under_way", "refunded"]


def test_odd_parts_sum_up_to_the_whole(till: Till) -> None:
    order = till.sold(price=1_000_000, credits=1_000_001, bonus=333_333)
    till.wechat.refunds_end = "SUCCESS"
    for amount in (330_000, 330_000, 10_000, 330_000):
        assert till.refund(order, amount).state == "done"
    with scope.tenant(till.tenant.pk):
        rows = list(Refund.objects.order_by("created_at").values_list("credits_back", "bonus_back"))
    assert rows == [(330_000, 109_999), (330_000, 110_000), (10_000, 3_333), (330_001, 110_001)]
    assert (till.books(), till.balances()) == ({}, NO_MONEY)


@pytest.mark.parametrize(("credits_bought", "bonus"), [(9_000_000, 1), (12_345_678, 0), (1, 12_000_000)])
def test_what_a_top_up_put_elsewhere_comes_back(till: Till, credits_bought: int, bonus: int) -> None:
    order = till.sold(credits=credits_bought, bonus=bonus)
    till.wechat.refunds_end = "SUCCESS"
    for amount in (3_330_000, 3_330_000, 3_340_000):
        till.refund(order, amount)
    assert (till.books(), till.balances()) == ({}, NO_MONEY)


def test_parts_that_failed_are_counted_again(till: Till) -> None:
    order = till.sold(price=1_000_000, credits=700_001, bonus=99_999)
    rows = [till.refund(order, amount) for amount in (310_000, 330_000, 360_000)]
    assert finish(till, rows[1], "CLOSED") == TAKEN
    assert finish(till, rows[0]) == finish(till, rows[2]) == TAKEN
    till.wechat.refunds_end = "SUCCESS"
    till.refund(order, 330_000)
    assert (till.books(), till.balances()) == ({}, NO_MONEY)
    assert Counter(till.refunds())[(330_000, "failed")] == 1


@given(
    price=st.integers(1, 10**8),
    credits_bought=st.integers(1, 10**12),
    bonus=st.integers(0, 10**12),
    cuts=st.lists(st.integers(1, 10**8), max_size=12),
)
def test_parts_of_any_size_sum_up_exactly(price: int, credits_bought: int, bonus: int, cuts: list[int]) -> None:
    """Each part is within a micro-yuan for each part so far of its share, none is negative, nothing is left over."""
    whole = left = Worth(price * FEN, credits_bought, bonus)
    edges = sorted({cut * FEN for cut in cuts if cut < price} | {whole.money})
    for number, edge in enumerate(edges, start=1):
        part = left.share(edge - (whole.money - left.money))
        left = Worth(left.money - part.money, left.credits - part.credits, left.bonus - part.bonus)
        # What the tenant kept of the price, or added to it, never comes back twice.
        kept = part.money - part.credits
        assert kept >= 0 if whole.credits <= whole.money else kept <= 0
        for had, has in ((whole.credits, left.credits), (whole.bonus, left.bonus)):
            assert 0 <= has <= had
            assert 0 <= has - (had * left.money) / whole.money + 1 <= number + 2
    assert left == Worth(0, 0, 0)


def test_more_than_was_paid_is_refused(till: Till) -> None:
    order = till.sold()
    till.refund(order, 6 * YUAN)
    assert refusal(till, order, 4 * YUAN + FEN) == ("refund_too_large", {"left": str(4 * YUAN)})
    till.refund(order, 4 * YUAN)
    assert refusal(till, order, FEN) == ("refund_too_large", {"left": "0"})


@pytest.mark.parametrize("amount", [0, -FEN, 1, FEN + 1])
def test_parts_of_a_fen_are_a_fault(till: Till, amount: int) -> None:
    with pytest.raises(ValueError, match="whole fen"):
        till.refund(till.sold(), amount)


def test_a_reason_and_the_providers_number_are_wanted(till: Till) -> None:
    order = till.sold()
    for fields in ({"reason": " "}, {"kind": "forced"}, {"refund_id": "1"}):
        with pytest.raises(ValueError, match="whole fen, has a reason"):
            till.refund(order, FEN, **fields)
    assert till.refunds() == []


def test_an_order_that_is_not_paid_or_not_there_is_not_refunded(till: Till, other: Till) -> None:
    pending = till.order(till.number(till.buy()))
    assert refusal(till, pending, FEN) == ("order_not_paid", {})
    theirs = other.sold()
    assert refusal(till, theirs, FEN) == ("order_not_found", {})
    assert (other.refunds(), other.books()) == ([], other.bought())


def test_the_database_lets_no_refund_grow_change_or_end_twice(till: Till) -> None:
    order = till.sold()
    row = till.refund(order, 6 * YUAN)
    finish(till, row)
    changes: list[dict[str, Any]] = [
        {"amount": FEN},
        {"shortfall": 1},
        {"state": "failed"},
        {"state": "requested", "ended_at": None},
    ]
    for fields in changes:
        with (
            scope.tenant(till.tenant.pk),
            pytest.raises(IntegrityError, match="stays as it is"),
            transaction.atomic(),
        ):
            Refund.objects.filter(pk=row.pk).update(**fields)
    with scope.tenant(till.tenant.pk), pytest.raises(IntegrityError, match="more than was paid"), transaction.atomic():
        Refund.objects.create(tenant=till.tenant, order=order, out_refund_no="1", kind="manual", amount=5 * YUAN)


# What the user has spent


def test_what_was_spent_is_not_refunded(till: Till) -> None:
    order = till.sold()
    till.spend(5 * YUAN)  # the gift of ¥2, and ¥3 of the balance
    what = refundable(till, order)
    # ¥5.83 are worth ¥5.83 of the balance and ¥1.166 of a gift that is gone; of a fen more ¥7.0 is not enough.
    assert (what.left, what.largest) == (Worth(PRICE, CREDITS, BONUS), 5_830_000)
    assert what.give_back(PRICE) == refund.GiveBack(gift=0, cash=7 * YUAN, shortfall=5 * YUAN)
    assert refusal(till, order, PRICE) == ("refund_not_covered", {"largest": "5830000"})
    assert refusal(till, order, what.largest + FEN) == ("refund_not_covered", {"largest": "5830000"})
    finish(till, till.refund(order, what.largest))
    assert till.balances() == ledger.Balances(cash=7 * YUAN - 5_830_000 - 1_166_000, gift=0, pending=0)
    assert refundable(till, order).largest == 0


def refundable(till: Till, order: Any) -> refund.Refundable:
    with scope.tenant(till.tenant.pk):
        return refund.refundable(order)


def test_gifts_are_not_turned_into_money(till: Till) -> None:
    order = till.sold(bonus=0)
    till.spend(8 * YUAN)
    credit(till.user, 20 * YUAN, kind="gift")
    assert refusal(till, order, 3 * YUAN) == ("refund_not_covered", {"largest": str(2 * YUAN)})


def test_a_forced_refund_takes_what_there_is_and_the_tenant_bears_the_rest(till: Till) -> None:
    order = till.sold()
    till.spend(9 * YUAN)
    row = till.refund(order, PRICE, kind="forced", refund_id="charge-back 7")
    assert (row.state, row.shortfall, row.refund_id) == ("done", 9 * YUAN, "charge-back 7")
    assert till.balances() == NO_MONEY
    assert till.books()["shortfall:refund"] == -9 * YUAN
    assert (till.wechat.refunds, transfers(till)) == ({}, {"refund": 1, "refund_paid": 1})


def test_a_forced_refund_takes_gifts_too(till: Till) -> None:
    order = till.sold(bonus=0)
    till.spend(8 * YUAN)
    credit(till.user, 5 * YUAN, kind="gift")
    row = till.refund(order, PRICE, kind="forced", refund_id="1")
    assert (row.shortfall, till.balances()) == (3 * YUAN, NO_MONEY)


def test_what_an_answer_holds_is_not_refunded(till: Till) -> None:
    order = till.sold(bonus=0)
    sku = make_sku(till.tenant, retail=(YUAN, YUAN, 1_000_000 * YUAN))
    ledger.credit_tenant_wallet(tenant_id=till.tenant.pk, amount=100 * YUAN, ref=unique("r"), reason="", actor="test")
    hold = refund_hold(till, sku)
    assert refusal(till, order, 8 * YUAN) == ("refund_not_covered", {"largest": str(7 * YUAN)})
    row = till.refund(order, PRICE, kind="forced", refund_id="1")
    assert (row.shortfall, till.balances().pending) == (3 * YUAN, 3 * YUAN)
    assert hold.amount == 3 * YUAN


def refund_hold(till: Till, sku: str) -> Any:
    return holds.admit(hold_request(till.user, sku, prompt_tokens=0, max_completion_tokens=3, min_completion_tokens=3))


# By hand, and by the provider's force


def test_what_was_paid_by_hand_asks_nobody(till: Till) -> None:
    order = till.sold()
    row = till.refund(order, 5 * YUAN, kind="manual", reason="by bank")
    assert (row.state, row.next_poll_at, till.wechat.refunds) == ("done", None, {})
    clearing = f"psp_clearing:wechat:{till.merchant.merchant_id}"
    # The provider's bill knows nothing of it, so the provider's clearing account does not either.
    assert till.books() == {
        clearing: -PRICE,
        "psp_clearing:manual": 5 * YUAN,
        "psp_clearing:gift": -1 * YUAN,
        "user_cash": 5 * YUAN,
        "user_gift": 1 * YUAN,
    }


def test_a_provider_that_refunds_on_its_own_is_followed_once(till: Till) -> None:
    order = till.sold()
    notice = forced_notice(till, order, amount=4 * YUAN)
    again = forced_notice(till, order, amount=4 * YUAN)
    second = forced_notice(till, order, amount=6 * YUAN, refund_id="apple-2")
    got = [refund.settle_refund(account=till.account, notice=said).outcome for said in (notice, notice, again, second)]
    assert got == ["refunded", "refunded", "repeated", "refunded"]
    assert till.refunds() == [(4 * YUAN, "done"), (6 * YUAN, "done")]
    assert (till.books(), transfers(till)) == ({}, {"refund": 2, "refund_paid": 2})


def test_a_charge_back_that_staff_booked_is_not_booked_again(till: Till) -> None:
    order = till.sold()
    row = till.refund(order, PRICE, kind="forced", refund_id="apple-1")
    assert till.refund(order, PRICE, kind="forced", refund_id="apple-1").pk == row.pk
    assert refund.settle_refund(account=till.account, notice=forced_notice(till, order)).outcome == "repeated"
    with pytest.raises(ledger.RefConflictError):
        till.refund(order, FEN, kind="forced", refund_id="apple-1")
    assert till.refunds() == [(PRICE, "done")]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"forced": False}, "unknown_refund"),
        ({"out_refund_no": "not-ours"}, "unknown_refund"),
        ({"refund_id": ""}, "unknown_refund"),
        ({"state": "pending"}, "under_way"),
        ({"state": "failed"}, "under_way"),
        ({"amount": PRICE + FEN}, "other_amount"),
        ({"amount": 0}, "other_amount"),
        ({"currency": "USD"}, "other_amount"),
        ({"merchant_id": "1"}, "other_merchant"),
        ({"app_id": "wx1"}, "other_merchant"),
        ({"out_trade_no": "0" * 32}, "unknown_order"),
    ],
)
def test_what_is_no_forced_refund_takes_nothing(till: Till, changes: dict[str, Any], outcome: str) -> None:
    order = till.sold()
    event = refund.settle_refund(account=till.account, notice=forced_notice(till, order, **changes))
    assert (event.outcome, till.refunds(), till.books()) == (outcome, [], till.bought())


# WeChat Pay is asked


@pytest.mark.parametrize("trouble", ["away", "down", "forged", "unsigned", "old"])
def test_a_provider_that_is_away_is_asked_again(till: Till, trouble: str) -> None:
    """Whether it took the refund ("down") or not ("away"): it pays once."""
    order = till.sold()
    till.wechat.trouble.append(trouble)
    row = till.refund(order, PRICE)
    assert (row.state, tasks.poll_refunds()) == ("requested", 0)  # not due yet
    for refund_at_wechat in till.wechat.refunds.values():
        refund_at_wechat.state = "SUCCESS"
    till.wechat.refunds_end = "SUCCESS"
    till.refund_due()
    assert (tasks.poll_refunds(), till.refunds(), till.books()) == (1, [(PRICE, "done")], {})
    assert (len(till.wechat.refunds), transfers(till)) == (1, {"refund": 1, "refund_paid": 1})


def test_a_refund_takes_its_time(till: Till) -> None:
    row = till.refund(till.sold(), PRICE)
    for _ in range(2):
        till.refund_due()
        assert (tasks.poll_refunds(), till.refunds()) == (1, [(PRICE, "requested")])
    till.wechat.refunds[row.out_refund_no].state = "SUCCESS"
    till.refund_due()
    assert [tasks.poll_refunds() for _ in range(3)] == [1, 0, 0]
    assert (till.refunds(), till.events()) == ([(PRICE, "done")], ["credited", "under_way", "refunded"])


@pytest.mark.parametrize("code", ["NOT_ENOUGH", "USER_ACCOUNT_ABNORMAL"])
def test_a_refusal_returns_everything(till: Till, code: str) -> None:
    order = till.sold()
    till.wechat.refusals.append(code)
    row = till.refund(order, PRICE)
    assert (row.state, row.failure, till.books()) == ("failed", code, till.bought())
    assert transfers(till) == {"refund": 1, "refund_failed": 1}
    assert refundable(till, order).largest == PRICE
    till.wechat.refunds_end = "SUCCESS"
    assert till.refund(order, PRICE).state == "done"


def test_a_refusal_of_what_was_taken_before_is_not_believed(till: Till) -> None:
    """The first request was taken and its answer lost; the second one is refused."""
    order = till.sold()
    till.wechat.trouble.append("down")
    row = till.refund(order, PRICE)
    till.wechat.refusals.append("NOT_ENOUGH")
    with scope.tenant(till.tenant.pk):
        refund._ask(refund._loaded(row.pk))  # noqa: SLF001  # without the query that goes before it
    assert till.refunds() == [(PRICE, "requested")]
    assert finish(till, row) == TAKEN
    assert (till.refunds(), till.books()) == ([(PRICE, "done")], {})


def test_a_refund_that_wechat_closes_is_returned_once(till: Till) -> None:
    row = till.refund(till.sold(), PRICE)
    till.wechat.refunds[row.out_refund_no].state = "CLOSED"
    message = till.wechat.refund_notification(row.out_refund_no)
    assert [till.deliver(message) for _ in range(3)] == [TAKEN] * 3
    till.refund_due()
    assert (tasks.poll_refunds(), till.books()) == (0, till.bought())
    assert transfers(till) == {"refund": 1, "refund_failed": 1}


def test_a_card_that_takes_no_money_is_for_a_person_and_not_the_end(till: Till) -> None:
    row = till.refund(till.sold(), PRICE)
    assert (finish(till, row, "ABNORMAL"), till.refunds()) == (TAKEN, [(PRICE, "requested")])
    assert (finish(till, row), till.refunds(), till.books()) == (TAKEN, [(PRICE, "done")], {})


def test_the_same_number_refunds_once(till: Till) -> None:
    order, number = till.sold(), Refund().pk
    rows = [till.refund(order, YUAN, number=number) for _ in range(3)]
    assert {row.pk for row in rows} == {number}
    assert (till.refunds(), len(till.wechat.refunds)) == ([(YUAN, "requested")], 1)
    with pytest.raises(ledger.RefConflictError):
        till.refund(order, 2 * YUAN, number=number)


def test_a_tenant_without_a_domain_refunds_too(till: Till) -> None:
    order = till.sold()
    with scope.tenant(till.tenant.pk):
        Domain.objects.all().delete()
    row = till.refund(order, PRICE)
    assert "notify_url" not in till.wechat.refunds[row.out_refund_no].asked


@pytest.mark.parametrize("status", ["suspended", "closed"])
def test_a_tenant_that_serves_nobody_still_refunds(till: Till, status: str) -> None:
    order = till.sold()
    Tenant.objects.filter(pk=till.tenant.pk).update(status=status)
    first, second = till.refund(order, 4 * YUAN), till.refund(order, 6 * YUAN)
    assert finish(till, first) == TAKEN
    till.wechat.refunds[second.out_refund_no].state = "SUCCESS"
    till.refund_due()
    assert (tasks.poll_refunds(), till.books()) == (1, {})


# Notifications


def test_a_notification_is_taken_however_often(till: Till) -> None:
    row = till.refund(till.sold(), PRICE)
    till.wechat.refunds[row.out_refund_no].state = "SUCCESS"
    message = till.wechat.refund_notification(row.out_refund_no)
    assert [till.deliver(message) for _ in range(3)] == [TAKEN] * 3
    assert till.deliver(till.wechat.refund_notification(row.out_refund_no)) == TAKEN
    assert till.events() == ["credited", "under_way", "refunded", "repeated"]
    assert (till.books(), transfers(till)) == ({}, {"refund": 1, "refund_paid": 1})


@pytest.mark.parametrize("how", [{"sign_with": "somebody"}, {"age": 310}, {"age": -310}, {"age": 365 * 24 * 3600}])
def test_a_forged_or_old_notification_is_refused(till: Till, how: dict[str, Any]) -> None:
    row = till.refund(till.sold(), PRICE)
    till.wechat.refunds[row.out_refund_no].state = "SUCCESS"
    if "sign_with" in how:
        how = {"sign_with": rsa_key(how["sign_with"])}
    assert till.deliver(till.wechat.refund_notification(row.out_refund_no, **how)) == NOT_BELIEVED
    raw, headers = till.wechat.refund_notification(row.out_refund_no)
    assert till.deliver((raw + b" ", headers)) == NOT_BELIEVED
    assert (till.refunds(), till.events()) == ([(PRICE, "requested")], ["credited", "under_way"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"amount": {"refund": 1, "total": 1000}}, "other_amount"),
        ({"amount": {"refund": 1000, "total": 1000, "currency": "USD"}}, "other_amount"),
        ({"mchid": "1900009999"}, "other_merchant"),
        ({"out_trade_no": "0" * 32}, "unknown_order"),
        ({"out_refund_no": "f" * 32}, "unknown_refund"),
    ],
)
def test_a_notification_that_does_not_fit_changes_nothing_and_is_judged_again(
    till: Till, changes: dict[str, Any], why: str
) -> None:
    row = till.refund(till.sold(), PRICE)
    till.wechat.refunds[row.out_refund_no].state = "SUCCESS"
    message = till.wechat.refund_notification(row.out_refund_no, **changes)
    assert [till.deliver(message) for _ in range(2)] == [fail(why)] * 2
    assert (till.refunds(), till.events()) == ([(PRICE, "requested")], ["credited", "under_way", why])


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": {"refund": "1000", "total": 1000}},
        {"amount": {"refund": True, "total": 1000}},
        {"amount": None},
        {"refund_status": "SOMETHING"},
        {"refund_id": ""},
        {"out_refund_no": None},
    ],
)
def test_a_notification_that_cannot_be_read_is_not_believed(till: Till, changes: dict[str, Any]) -> None:
    row = till.refund(till.sold(), PRICE)
    assert till.deliver(till.wechat.refund_notification(row.out_refund_no, **changes)) == NOT_BELIEVED
    assert till.refunds() == [(PRICE, "requested")]


def test_a_refund_of_one_order_does_not_end_anothers(till: Till) -> None:
    first, second = till.sold(), till.sold(bonus=0)
    row = till.refund(first, PRICE)
    till.wechat.refunds[row.out_refund_no].state = "SUCCESS"
    message = till.wechat.refund_notification(row.out_refund_no, out_trade_no=second.out_trade_no)
    assert (till.deliver(message), till.refunds()) == (fail("unknown_refund"), [(PRICE, "requested")])


def test_another_tenants_notification_is_refused(till: Till, other: Till) -> None:
    row = other.refund(other.sold(), PRICE)
    other.wechat.refunds[row.out_refund_no].state = "SUCCESS"
    assert other.deliver(other.wechat.refund_notification(row.out_refund_no), to=till) == NOT_BELIEVED
    assert (other.refunds(), till.books()) == ([(PRICE, "requested")], {})


def test_a_merchant_that_two_tenants_share_ends_each_ones_refunds_only(till: Till) -> None:
    twin = open_till(till.wechat, merchant=till.merchant)
    row = twin.refund(twin.sold(), PRICE)
    twin.wechat.refunds[row.out_refund_no].state = "SUCCESS"
    message = twin.wechat.refund_notification(row.out_refund_no)
    assert (till.deliver(message), twin.refunds()) == (fail("unknown_order"), [(PRICE, "requested")])
    assert (twin.deliver(message), twin.refunds()) == (TAKEN, [(PRICE, "done")])


def test_ends_out_of_order(till: Till) -> None:
    """What comes after the end, and says another thing, changes nothing; another end is for a person to look at."""
    row = till.refund(till.sold(), PRICE)
    abnormal = till.wechat.refund_notification(row.out_refund_no, refund_status="ABNORMAL")
    assert finish(till, row) == TAKEN
    assert till.deliver(abnormal) == TAKEN
    assert finish(till, row, "CLOSED") == fail("other_end")
    assert (till.refunds(), till.books()) == ([(PRICE, "done")], {})
    assert till.events() == ["credited", "under_way", "refunded", "repeated", "other_end"]


# At once


def test_refunds_at_once_are_of_no_more_than_was_paid(committed_till: Till) -> None:
    till = committed_till
    order = till.sold()

    def ask() -> str:
        try:
            return str(till.refund(order, 4 * YUAN).amount)
        except ProductError as refused:
            return str(refused.body("")["type"])

    assert Counter(together([ask] * 6)) == {str(4 * YUAN): 2, "refund_too_large": 4}
    assert till.balances() == ledger.Balances(cash=2 * YUAN, gift=400_000, pending=0)


def test_refunds_of_two_orders_at_once_take_no_more_than_there_is(committed_till: Till) -> None:
    till = committed_till
    orders = [till.sold(bonus=0), till.sold(bonus=1)]
    till.spend(9 * YUAN)

    def ask(order: Any) -> str:
        try:
            return str(till.refund(order, PRICE).amount)
        except ProductError as refused:
            return str(refused.body("")["type"])

    got = Counter(together([lambda o=order: ask(o) for order in orders]))  # type: ignore[misc]
    assert got == {str(PRICE): 1, "refund_not_covered": 1}


def test_a_refund_and_answers_at_once(committed_till: Till) -> None:
    till = committed_till
    order = till.sold(bonus=0)
    sku = make_sku(till.tenant, retail=(YUAN, YUAN, 1_000_000 * YUAN))
    ledger.credit_tenant_wallet(tenant_id=till.tenant.pk, amount=100 * YUAN, ref=unique("r"), reason="", actor="test")

    def ask() -> str:
        try:
            return f"refund {till.refund(order, PRICE).amount}"
        except ProductError as refused:
            return str(refused.body("")["type"])

    def answer() -> str:
        try:
            return f"hold {refund_hold(till, sku).amount}"
        except ProductError as refused:
            return str(refused.body("")["type"])

    got = Counter(together([ask, answer, answer, answer]))
    won = {f"refund {PRICE}": 1, "balance_short": 3}
    lost = {"refund_not_covered": 1, f"hold {3 * YUAN}": 3}
    assert got in (won, lost)


def test_a_notification_polls_and_three_deliveries_of_the_task_at_once_end_it_once(committed_till: Till) -> None:
    till = committed_till
    for end, book in (("SUCCESS", "refund_paid"), ("CLOSED", "refund_failed")):
        row = till.refund(till.sold(), PRICE)
        till.wechat.refunds[row.out_refund_no].state = end
        till.refund_due()
        same = till.wechat.refund_notification(row.out_refund_no)
        jobs = [
            *[lambda m=same: till.deliver(m)[0]] * 3,
            *[lambda r=row: till.deliver(till.wechat.refund_notification(r.out_refund_no))[0]] * 2,
            *[lambda: 200 + 0 * tasks.poll_refunds()] * 3,
        ]
        assert Counter(together(jobs)) == {200: 8}
        assert transfers(till)[book] == 1


def test_one_forced_refund_told_of_many_times_at_once_is_one(committed_till: Till) -> None:
    till = committed_till
    order = till.sold()
    till.spend(3 * YUAN)
    notices = [forced_notice(till, order) for _ in range(6)]
    jobs = [lambda n=notice: refund.settle_refund(account=till.account, notice=n).outcome for notice in notices]
    assert Counter(together(jobs)) == {"refunded": 1, "repeated": 5}
    assert till.refunds() == [(PRICE, "done")]


def test_payments_and_refunds_of_many_users_never_wait_for_each_other_crosswise(committed_till: Till) -> None:
    """Each has two transfers, over the same of the tenant's rows; a deadlock would be an error of the database."""
    till = committed_till
    packages = [
        open_package(till.tenant, credits=worth, bonus=YUAN, slug=unique("pack")) for worth in (9 * YUAN, 11 * YUAN)
    ]

    def buy(package: Any) -> str:
        number = till.number(till.buy(package=package, token=make_token(make_user(till.tenant))))
        till.wechat.pay(number)
        return number

    def pay(number: str) -> Any:
        return till.deliver(till.wechat.notification(number))[0]

    def take_back(order: Any, kind: str) -> Any:
        refund_id = order.out_trade_no if kind == "forced" else ""
        return till.refund(order, PRICE, kind=kind, refund_id=refund_id).state

    for _ in range(4):
        paid = [buy(package) for package in packages * 4]
        assert [pay(number) for number in paid] == [200] * 8
        jobs: list[Any] = [partial(pay, buy(package)) for package in packages * 4]
        for number, kind in zip(paid, ["forced", "forced", "manual", "manual", "provider", "provider"], strict=False):
            jobs.append(partial(take_back, till.order(number), kind))
        assert Counter(together(jobs)) == {200: 8, "done": 4, "requested": 2}


def test_a_poll_passes_by_a_refund_that_another_has_claimed(committed_till: Till) -> None:
    till = committed_till
    row = till.refund(till.sold(), PRICE)
    till.refund_due()
    locked, over = threading.Event(), threading.Event()

    def another() -> int:
        with scope.tenant(till.tenant.pk), transaction.atomic():
            Refund.objects.select_for_update().get(pk=row.pk)
            locked.set()
            over.wait(20)
        return 0

    def sweep() -> int:
        locked.wait(20)
        try:
            return tasks.poll_refunds()
        finally:
            over.set()

    assert together([another, sweep]) == [0, 0]
    assert tasks.poll_refunds() == 1


# The user looks


def test_a_user_sees_the_refunds_of_an_order(till: Till, other: Till) -> None:
    order = till.sold()
    till.wechat.refusals.append("NOT_ENOUGH")
    till.refund(order, YUAN)
    finish(till, till.refund(order, 2 * YUAN))
    till.refund(order, 3 * YUAN)
    path = f"/api/billing/orders/{order.pk}"
    status, said = till.api("GET", path)
    shown = [(row["amount"], row["state"], row["ended_at"] is None) for row in said["data"]["refunds"]]
    assert (status, said["data"]["state"], said["data"]["refunded"]) == (200, "paid", str(5 * YUAN))
    assert shown == [
        (str(YUAN), "failed", False),
        (str(2 * YUAN), "done", False),
        (str(3 * YUAN), "requested", True),
    ]
    assert set(said["data"]["refunds"][0]) == {"amount", "state", "created_at", "ended_at"}
    stranger = make_token(make_user(till.tenant))
    assert till.api("GET", path, token=stranger)[1]["type"] == "order_not_found"
    assert other.api("GET", path)[1]["type"] == "order_not_found"
    assert till.api("POST", f"{path}/refund", {})[0] == 404


# The bill

TITLES = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额,"
    "微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
SUMMARY = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额\r\n"
    "`3,`20.00,`4.00,`0.00,`0.12000,`20.00,`4.00\r\n"
)


def line(**values: str) -> str:
    row = dict.fromkeys(TITLES.split(","), "") | {
        "商品名称": "十元, 送两元",
        "订单金额": "0.00",
        "申请退款金额": "0.00",
    }
    return "`" + ",`".join((row | values).values()) + "\r\n"


def test_a_bill_is_read(till: Till) -> None:
    paid = line(微信订单号="42", 商户订单号="a1", 交易状态="SUCCESS", 应结订单金额="9.50", 订单金额="10.00")
    back = line(
        微信订单号="42",
        商户订单号="a1",
        交易状态="REFUND",
        商户退款单号="b1",
        退款状态="PROCESSING",
        申请退款金额="4.00",
    )
    lost = line(
        微信订单号="42", 商户订单号="a1", 交易状态="REFUND", 商户退款单号="b2", 退款状态="FAIL", 申请退款金额="1.00"
    )
    till.wechat.bills["2026-11-23"] = f"\ufeff{TITLES}\r\n{paid}{back}{lost}{SUMMARY}".encode()
    assert provider_of(till.account).bill(date(2026, 11, 23)) == [
        BillLine(out_trade_no="a1", out_refund_no="", transaction_id="42", amount=10 * YUAN),
        BillLine(out_trade_no="a1", out_refund_no="b1", transaction_id="42", amount=-4 * YUAN),
    ]
    assert provider_of(till.account).bill(date(2026, 11, 22)) == []


@pytest.mark.parametrize(
    "bill",
    [
        b"",
        b"no bill",
        f"{TITLES}\r\n`1,`2\r\n".encode(),
        f"{TITLES}\r\n{line(交易状态='SUCCESS', 订单金额='x')}".encode(),
    ],
)
def test_a_bill_that_is_not_there_or_none_is_no_empty_one(till: Till, bill: bytes) -> None:
    till.wechat.bills["2026-11-23"] = bill
    if bill == b"no bill":
        assert provider_of(till.account).bill(date(2026, 11, 23)) == []
        return
    with pytest.raises(ProviderAwayError):
        provider_of(till.account).bill(date(2026, 11, 23))
