"""Payments that nobody told of are found by asking, by beat and by the user; orders are closed when time is up."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from billing import recharge, tasks
from billing.models import MerchantAccount, Order, PaymentEvent
from billing.payments.provider import PaymentNotice
from billing.tests.payments.conftest import PRICE, Till, open_package
from billing.tests.test_concurrency import together
from tenants import scope
from tests.factories import make_token, make_user


def sent(till: Till) -> list[str]:
    """Return what WeChat was asked, after the orders were made."""
    return ["close" if path.endswith("/close") else "query" for _, path in till.wechat.requests if "out-trade" in path]


def poll(till: Till) -> int:
    """Poll what is due; other tests' committed orders never are."""
    return tasks.poll_orders()


def test_a_payment_that_nobody_told_of_is_found(till: Till) -> None:
    number = till.number(till.buy())
    till.wechat.pay(number)
    assert (poll(till), till.books()) == (0, {})  # not due yet
    till.let_pass(number, 10)
    assert (poll(till), till.states(), till.books()) == (1, ["paid"], till.bought())
    assert till.deliver(till.wechat.notification(number))[0] == 200
    assert (till.books(), till.events()) == (till.bought(), ["credited", "repeated"])


def test_when_an_order_is_asked_for(till: Till) -> None:
    """At 10 s, 30 s, 2 min, 10 min, at expiry, and then it is closed at WeChat and here."""
    number = till.number(till.buy())
    asked_at = []
    for second in (*range(0, 60, 5), *range(60, 960, 20)):
        if poll(till):
            asked_at.append(second)
        till.let_pass(number, 5 if second < 55 else 20)
    assert asked_at == [10, 30, 120, 600, 900]
    assert sent(till) == ["query"] * 5 + ["close"]
    assert (till.states(), till.wechat.trades[number].state, poll(till)) == (["closed"], "CLOSED", 0)
    assert till.books() == {}


def test_an_expired_order_that_was_paid_is_credited_and_not_closed(till: Till) -> None:
    number = till.number(till.buy())
    till.wechat.pay(number)
    till.let_pass(number, 901)
    poll(till)
    assert (till.states(), till.books(), sent(till)) == (["paid"], till.bought(), ["query"])


def test_an_order_that_is_paid_while_it_is_being_closed_is_credited(till: Till) -> None:
    number = till.number(till.buy())
    till.let_pass(number, 901)
    till.wechat.pays_before_close.add(number)
    poll(till)
    assert sent(till) == ["query", "close", "query"]
    assert (till.states(), till.books()) == (["paid"], till.bought())


def test_an_order_that_was_refunded_by_hand_is_closed(till: Till) -> None:
    number = till.number(till.buy())
    till.wechat.pay(number).state = "REFUND"
    till.let_pass(number, 901)
    poll(till)
    assert (till.states(), till.books()) == (["closed"], {})


def test_an_order_that_wechat_never_heard_of_is_closed(till: Till) -> None:
    till.wechat.trouble.append("down")
    till.api("POST", "/api/billing/orders", {"package": till.package.slug, "channel": "wechat", "method": "native"})
    (number,) = till.wechat.trades
    del till.wechat.trades[number]
    till.let_pass(number, 901)
    poll(till)
    assert till.states() == ["closed"]


@pytest.mark.parametrize("trouble", ["down", "forged", "unsigned", "old"])
def test_an_answer_that_cannot_be_believed_changes_nothing(till: Till, trouble: str) -> None:
    number = till.number(till.buy())
    till.wechat.pay(number)
    till.let_pass(number, 901)
    till.wechat.trouble.append(trouble)
    assert (poll(till), till.states(), till.books()) == (1, ["pending"], {})
    assert poll(till) == 0
    # Due again after the expiry's poll, and then each minute until there is an answer.
    till.let_pass(number, 900)
    assert (poll(till), till.states(), till.books()) == (1, ["paid"], till.bought())


def test_a_provider_that_is_away_for_a_day_is_given_up_and_a_late_payment_still_counts(till: Till) -> None:
    number = till.number(till.buy())
    till.let_pass(number, 900 + 24 * 3600 + 1)
    till.wechat.trouble.append("down")
    poll(till)
    assert till.states() == ["closed"]
    till.wechat.pay(number)
    assert till.api("POST", f"/api/billing/orders/{till.order(number).pk}/recheck")[1]["data"]["state"] == "paid"
    assert till.books() == till.bought()


def test_a_disabled_account_s_orders_are_still_asked_for(till: Till) -> None:
    number = till.number(till.buy())
    till.wechat.pay(number)
    with scope.tenant(till.tenant.pk):
        MerchantAccount.objects.update(is_enabled=False)
    till.let_pass(number, 10)
    poll(till)
    assert (till.states(), till.books()) == (["paid"], till.bought())


def test_a_query_that_tells_of_another_amount_credits_nothing(till: Till) -> None:
    number = till.number(till.buy())
    till.wechat.trades[number].asked["amount"]["total"] = 1
    till.wechat.pay(number)
    till.let_pass(number, 10)
    poll(till)
    assert (till.states(), till.books(), till.events()) == (["pending"], {}, ["other_amount"])


def test_the_user_asks_for_a_re_check(till: Till) -> None:
    bought = till.buy()
    number, path = till.number(bought), f"/api/billing/orders/{bought['order']['id']}/recheck"
    assert till.api("POST", path)[1]["data"] == bought["order"]
    till.wechat.pay(number)
    status, said = till.api("POST", path)
    assert (status, said["data"]["state"], till.books()) == (200, "paid", till.bought())
    # Paid: nothing is asked any more, however often.
    assert [till.api("POST", path)[0] for _ in range(9)] == [200] * 9
    assert sent(till) == ["query"] * 2


def test_a_re_check_of_a_closed_order_finds_a_late_payment(till: Till) -> None:
    bought = till.buy()
    number = till.number(bought)
    till.close(number)
    till.wechat.pay(number)
    said = till.api("POST", f"/api/billing/orders/{bought['order']['id']}/recheck")[1]
    assert (said["data"]["state"], till.books()) == ("paid", till.bought())


def test_re_checks_are_throttled_and_say_when_wechat_is_away(till: Till) -> None:
    path = f"/api/billing/orders/{till.buy()['order']['id']}/recheck"
    till.wechat.trouble.append("down")
    got = [till.api("POST", path)[1].get("type", "ok") for _ in range(20)]
    assert got[0] == "payment_unavailable"
    # At most two windows of six.
    assert ("too_many_tries" in got, len(sent(till)) <= 12) == (True, True)


def test_a_crashed_poll_is_made_up_for(till: Till) -> None:
    """When to ask next is written before asking."""
    number = till.number(till.buy())
    till.let_pass(number, 10)
    with scope.platform("what a process does that dies then"):
        due = recharge._claim_due()  # noqa: SLF001  # half of a poll
    assert [order.out_trade_no for order in due] == [number]
    till.wechat.pay(number)
    assert poll(till) == 0
    till.let_pass(number, 20)
    assert (poll(till), till.books()) == (1, till.bought())


def test_a_poll_passes_by_an_order_that_another_has_claimed(committed_till: Till) -> None:
    till = committed_till
    number = till.number(till.buy())
    with scope.tenant(till.tenant.pk):
        Order.objects.filter(out_trade_no=number).update(next_poll_at=Now() - timedelta(seconds=1))
    locked, over = threading.Event(), threading.Event()

    def another() -> int:
        try:
            with scope.tenant(till.tenant.pk), transaction.atomic():
                Order.objects.select_for_update().get(out_trade_no=number)
                locked.set()
                over.wait(20)
            return 0
        finally:
            connection.close()

    def sweep() -> int:
        locked.wait(20)
        try:
            return recharge.poll_orders()
        finally:
            over.set()
            connection.close()

    assert together([another, sweep]) == [0, 0]
    assert recharge.poll_orders() == 1


def test_a_limit_holds_however_many_ask_at_once(committed_till: Till) -> None:
    till = committed_till
    package = open_package(till.tenant, limit_per_user=2)
    methods = ["native", "h5"] * 6
    body = {"package": package.slug, "channel": "wechat"}

    def ask(method: str) -> str:
        return str(till.api("POST", "/api/billing/orders", {**body, "method": method})[1].get("type", "ok"))

    assert set(together([lambda m=m: ask(m) for m in methods])) == {"ok"}  # type: ignore[misc]
    assert sorted(till.states()) == ["pending"] * 2

    single = open_package(till.tenant, limit_per_user=1)
    user = make_user(till.tenant)
    token = make_token(user)

    def ask_single(method: str) -> str:
        said = till.api("POST", "/api/billing/orders", {**body, "package": single.slug, "method": method}, token=token)
        return str(said[1].get("type", "ok"))

    got = Counter(together([lambda m=m: ask_single(m) for m in methods]))  # type: ignore[misc]
    assert got == {"ok": 6, "package_limit_reached": 6}
    with scope.tenant(till.tenant.pk):
        assert Order.objects.filter(package=single).count() == 1


def test_a_notice_for_two_processes_is_one_event(committed_till: Till) -> None:
    """Of an order that is not there, so that no row of its own keeps the two apart."""
    till = committed_till
    notice = PaymentNotice(
        event_id="the same",
        out_trade_no="0" * 32,
        transaction_id="1",
        merchant_id=till.merchant.merchant_id,
        app_id=till.merchant.app_id,
        amount=PRICE,
        currency="CNY",
        body_digest="0" * 64,
    )
    jobs = [lambda: recharge.settle_payment(account=till.account, notice=notice).outcome] * 6
    assert together(jobs) == ["unknown_order"] * 6
    with scope.tenant(till.tenant.pk):
        assert PaymentEvent.objects.count() == 1
