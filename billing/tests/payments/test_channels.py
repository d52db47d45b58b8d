"""What every payment channel has to do with what it is told and asked, in the provider's own words and signatures."""

from collections import Counter as Tally
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.test import Client

from billing import ledger, recharge, tasks
from billing.models import MerchantAccount, Order
from billing.tests.payments.conftest import BONUS, CREDITS, PRICE, Counter, open_counter
from billing.tests.payments.desks import FEN
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.models import Tenant
from tests.factories import unique


def untouched(counter: Counter) -> bool:
    return (counter.states(), counter.books()) == (["pending"], {})


def change(counter: Counter, **fields: object) -> None:
    """Change the merchant account as the admin does."""
    with scope.tenant(counter.tenant.pk):
        MerchantAccount.objects.filter(pk=counter.account.pk).update(**fields)


def test_a_payment_is_credited(counter: Counter) -> None:
    bought = counter.buy()
    number = counter.number(bought)
    counter.desk.show(number, bought["payment"])
    transaction = counter.desk.pay(number)
    assert counter.deliver(counter.desk.tell(number)) == counter.desk.taken
    order = counter.order(number)
    assert (order.state, order.transaction_id) == ("paid", transaction)
    assert (counter.books(), counter.events()) == (counter.bought(), ["credited"])
    assert counter.balances() == ledger.Balances(cash=CREDITS, gift=BONUS, pending=0)


def test_a_replayed_notification_is_taken_and_credits_nothing(counter: Counter) -> None:
    message = counter.desk.tell(counter.paid())
    assert [counter.deliver(message) for _ in range(3)] == [counter.desk.taken] * 3
    assert (counter.books(), counter.events()) == (counter.bought(), ["credited"])


def test_a_second_notification_of_the_same_payment_credits_nothing(counter: Counter) -> None:
    number = counter.paid()
    assert [counter.deliver(counter.desk.tell(number)) for _ in range(2)] == [counter.desk.taken] * 2
    assert (counter.books(), counter.events()) == (counter.bought(), ["credited", "repeated"])


def test_a_forged_notification_is_refused(counter: Counter) -> None:
    message = counter.desk.tell(counter.paid(), is_forged=True)
    assert counter.deliver(message) == counter.desk.refused
    assert (untouched(counter), counter.events()) == (True, [])


def test_a_byte_changed_is_refused(counter: Counter) -> None:
    raw, headers = counter.desk.tell(counter.paid())
    for changed in (raw + b" ", raw[:-1], raw[:60] + bytes([raw[60] ^ 1]) + raw[61:], b"", b"\xff"):
        assert counter.deliver((changed, headers)) == counter.desk.refused
    assert untouched(counter)
    assert counter.deliver((raw, headers)) == counter.desk.taken


def test_a_notification_without_its_signature_is_refused(counter: Counter) -> None:
    raw, headers = counter.desk.tell(counter.paid())
    bare = {name: value for name, value in headers.items() if name == "Content-Type"}
    unsigned = b"&".join(part for part in raw.split(b"&") if not part.startswith(b"sign="))
    assert counter.deliver((unsigned, bare)) == counter.desk.refused
    assert untouched(counter)


def test_an_old_notification_is_refused(counter: Counter) -> None:
    """What is old the provider's own rules say: five minutes, or the 25 hours that Alipay comes again in."""
    number = counter.paid()
    limit = 26 * 3600 if counter.desk.channel == "alipay" else 300
    for age in (limit + 20, 365 * 24 * 3600):
        assert counter.deliver(counter.desk.tell(number, age=age)) == counter.desk.refused
    assert untouched(counter)
    assert counter.deliver(counter.desk.tell(number, age=limit - 20)) == counter.desk.taken


@pytest.mark.parametrize("amount", [PRICE - FEN, PRICE + FEN, FEN, 0])
def test_another_amount_credits_nothing(counter: Counter, amount: int) -> None:
    message = counter.desk.tell(counter.paid(), amount=amount)
    assert counter.deliver(message) == counter.desk.refusal("other_amount")
    assert (untouched(counter), counter.events()) == (True, ["other_amount"])


def test_another_merchant_s_payment_credits_nothing(counter: Counter, other_counter: Counter) -> None:
    message = counter.desk.tell(counter.paid(), merchant_id=other_counter.account.merchant_id)
    assert counter.deliver(message) == counter.desk.refusal("other_merchant")
    assert (untouched(counter), counter.events()) == (True, ["other_merchant"])


def test_another_tenant_s_notification_credits_nothing(counter: Counter, other_counter: Counter) -> None:
    """Alipay signs for all merchants with one key: there it is believed, and fits no order here."""
    message = other_counter.desk.tell(other_counter.paid())
    is_believed = counter.desk.channel == "alipay"
    answer = counter.desk.refusal("unknown_order") if is_believed else counter.desk.refused
    assert other_counter.deliver(message, to=counter) == answer
    assert (counter.books(), counter.events()) == ({}, ["unknown_order"] if is_believed else [])
    assert untouched(other_counter)
    assert other_counter.deliver(message) == counter.desk.taken


def test_a_merchant_that_two_tenants_share_pays_each_ones_orders_only(counter: Counter) -> None:
    names = (
        "merchant_id",
        "app_id",
        "certificate_serial",
        "private_key",
        "api_v3_key",
        "platform_key_id",
        "platform_public_key",
        "secret_key",
        "webhook_secret",
    )
    twin = open_counter(counter.desk, {name: getattr(counter.account, name) for name in names})
    message = twin.desk.tell(twin.paid())
    assert counter.deliver(message) == counter.desk.refusal("unknown_order")
    assert (counter.books(), counter.events(), twin.states()) == ({}, ["unknown_order"], ["pending"])
    assert twin.deliver(message) == twin.desk.taken
    assert (twin.books(), counter.books()) == (twin.bought(), {})


def test_a_payment_of_an_order_that_is_not_there_credits_nothing(counter: Counter) -> None:
    message = counter.desk.tell(counter.paid(), out_trade_no="0" * 32)
    assert [counter.deliver(message) for _ in range(2)] == [counter.desk.refusal("unknown_order")] * 2
    assert (untouched(counter), counter.events()) == (True, ["unknown_order"])


def test_a_second_payment_of_a_paid_order_is_not_taken_silently(counter: Counter) -> None:
    number = counter.paid()
    assert counter.deliver(counter.desk.tell(number)) == counter.desk.taken
    message = counter.desk.tell(number, transaction_id="4200000000000000000000000001")
    assert counter.deliver(message) == counter.desk.refusal("other_transaction")
    assert counter.books() == counter.bought()


def test_one_payment_pays_one_order(counter: Counter) -> None:
    first = counter.paid()
    assert counter.deliver(counter.desk.tell(first)) == counter.desk.taken
    second = counter.paid()
    message = counter.desk.tell(second, transaction_id=counter.order(first).transaction_id)
    assert counter.deliver(message) == counter.desk.refusal("other_transaction")
    assert (counter.books(), counter.states()) == (counter.bought(), ["paid", "pending"])


def test_notifications_out_of_order(counter: Counter) -> None:
    """The older of two orders is told of last, and a try at paying after the payment."""
    first = counter.paid()
    counter.let_pass(first, 60 * 14 + 30)  # too old to be given again
    second = counter.paid()
    assert first != second
    late = counter.desk.tell(first, is_paid=False)
    assert counter.deliver(counter.desk.tell(second)) == counter.desk.taken
    assert counter.deliver(counter.desk.tell(first)) == counter.desk.taken
    # WeChat Pay tells of payments only: of anything else it is not believed. The others are told not to come again.
    is_wechat = counter.desk.channel == "wechat"
    assert counter.deliver(late) == (counter.desk.refused if is_wechat else counter.desk.taken)
    assert (counter.states(), counter.books()) == (["paid", "paid"], counter.bought(2))
    assert counter.events() == ["credited"] * 2


def test_what_is_not_paid_yet_credits_nothing(counter: Counter) -> None:
    number = counter.number(counter.buy())
    bought = counter.buy()
    counter.desk.show(number, bought["payment"])
    counter.deliver(counter.desk.tell(number, is_paid=False, transaction_id="1"))
    assert (untouched(counter), counter.events()) == (True, [])


def test_a_payment_after_close_is_credited(counter: Counter) -> None:
    number = counter.paid()
    counter.close(number)
    assert counter.deliver(counter.desk.tell(number)) == counter.desk.taken
    assert (counter.states(), counter.books()) == (["paid"], counter.bought())


def test_a_payment_to_a_suspended_tenant_is_credited(counter: Counter) -> None:
    number = counter.paid()
    Tenant.objects.filter(pk=counter.tenant.pk).update(status="suspended")
    assert counter.deliver(counter.desk.tell(number)) == counter.desk.taken
    assert counter.books() == counter.bought()


def test_a_disabled_account_is_not_there(counter: Counter) -> None:
    message = counter.desk.tell(counter.paid())
    change(counter, is_enabled=False)
    assert counter.deliver(message) == (404, {"code": "FAIL", "message": "no such account"})
    assert untouched(counter)
    # Nor is another channel's address.
    change(counter, is_enabled=True)
    path = recharge.notify_path(tenant=counter.tenant, account=counter.account)
    others = {"wechat", "alipay", "stripe", "wechat_virtual"} - {counter.desk.channel}
    kind = message[1].get("Content-Type", "application/json")
    wrong = [path.replace(f"/{counter.desk.channel}/", f"/{channel}/") for channel in sorted(others)]
    answers = [Client().post(there, message[0], content_type=kind, headers=message[1]) for there in wrong]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert untouched(counter)


def test_an_empty_secret_never_verifies_and_a_new_one_does_at_once(counter: Counter) -> None:
    number = counter.paid()
    for name in counter.desk.secrets:
        for value in ("", " ", "nonsense"):
            if (name, value) == ("secret_key", "nonsense"):
                continue  # it signs nothing
            change(counter, **{name: value})
            assert counter.deliver(counter.desk.tell(number)) == counter.desk.refused
        change(counter, **{name: getattr(counter.account, name)})
    assert (untouched(counter), counter.events()) == (True, [])
    assert counter.deliver(counter.desk.tell(number)) == counter.desk.taken


def test_event_ids_are_a_merchant_account_s_own(counter: Counter, other_counter: Counter) -> None:
    name = unique("event")
    ours, theirs = counter.paid(), other_counter.paid()
    assert other_counter.deliver(counter.desk.tell(theirs, event_id=name)) == counter.desk.taken
    assert counter.deliver(counter.desk.tell(ours, event_id=name)) == counter.desk.taken
    assert (counter.books(), other_counter.books()) == (counter.bought(), other_counter.bought())


def test_a_payment_that_nobody_told_of_is_found(counter: Counter) -> None:
    number = counter.paid()
    counter.let_pass(number, 10)
    assert (tasks.poll_orders(), counter.states(), counter.books()) == (1, ["paid"], counter.bought())
    assert counter.deliver(counter.desk.tell(number)) == counter.desk.taken
    assert (counter.books(), counter.events()) == (counter.bought(), ["credited", "repeated"])


@pytest.mark.parametrize("is_shown", [True, False])
def test_an_order_whose_time_is_over_is_closed_there_and_here(counter: Counter, is_shown: bool) -> None:  # noqa: FBT001
    bought = counter.buy()
    number = counter.number(bought)
    if is_shown:
        counter.desk.show(number, bought["payment"])
    counter.let_pass(number, 901)
    assert (tasks.poll_orders(), counter.states(), counter.books()) == (1, ["closed"], {})
    # Alipay has never heard of an order whose address nobody opened, and takes it no longer.
    assert (counter.desk.channel == "alipay" and not is_shown) or counter.desk.is_closed(number)


def test_an_order_that_is_paid_while_it_is_being_closed_is_credited(counter: Counter) -> None:
    bought = counter.buy()
    number = counter.number(bought)
    counter.desk.show(number, bought["payment"])
    counter.let_pass(number, 901)
    counter.desk.double.pays_before_close.add(number)
    tasks.poll_orders()
    assert (counter.states(), counter.books()) == (["paid"], counter.bought())


def test_an_answer_that_cannot_be_believed_changes_nothing(counter: Counter) -> None:
    number = counter.paid()
    path = f"/api/billing/orders/{counter.order(number).pk}/recheck"
    for trouble in counter.desk.troubles:
        counter.desk.double.trouble.append(trouble)
        status, said = counter.api("POST", path)
        assert (status, said["type"], counter.books()) == (502, "payment_unavailable", {})
    assert untouched(counter)
    assert counter.api("POST", path)[1]["data"]["state"] == "paid"
    assert counter.books() == counter.bought()


def test_an_open_order_is_given_again_with_the_same_way_to_pay(counter: Counter) -> None:
    first, again = counter.buy(), counter.buy()
    assert first["order"] == again["order"]
    for bought in (first, again):
        counter.desk.show(counter.number(bought), bought["payment"])
    counter.desk.pay(counter.number(first))
    counter.deliver(counter.desk.tell(counter.number(first)))
    assert counter.books() == counter.bought()


def test_a_way_of_paying_of_another_channel_is_refused(counter: Counter) -> None:
    ways = {"wechat": "native", "alipay": "page", "stripe": "checkout", "wechat_virtual": "virtual"}
    del ways[counter.desk.channel]
    body = {"package": counter.package.slug, "channel": counter.desk.channel}
    answers = [counter.api("POST", "/api/billing/orders", {**body, "method": way}) for way in ways.values()]
    assert [(status, said["code"], said["type"]) for status, said in answers] == [
        (400, 10001, "method_not_of_channel")
    ] * 3
    assert counter.states() == []


def test_polls_notifications_and_re_checks_at_once_credit_once(committed_counter: Counter) -> None:
    counter = committed_counter
    for times in range(1, 3):
        number = counter.paid()
        with scope.tenant(counter.tenant.pk):
            Order.objects.filter(out_trade_no=number).update(next_poll_at=Now() - timedelta(seconds=1))
        order = counter.order(number)
        same = counter.desk.tell(number)
        jobs = [
            *[lambda m=same: counter.deliver(m)[0]] * 3,
            *[lambda n=number: counter.deliver(counter.desk.tell(n))[0]] * 2,
            *[lambda: 200 + 0 * recharge.poll_orders()] * 2,
            *[lambda o=order: counter.api("POST", f"/api/billing/orders/{o.pk}/recheck")[0]] * 2,
        ]
        assert Tally(together(jobs)) == {200: 9}
        assert counter.books() == counter.bought(times)
    assert counter.states() == ["paid"] * 2
    assert Tally(counter.events())["credited"] == 2
