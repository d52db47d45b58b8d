"""What is Stripe's own: sessions, both modes, other things that an account sells, refunds, disputes, bills."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from cryptography.fernet import Fernet
from django.db.models import F
from pytest_django import Settings

from billing import recharge
from billing.models import MerchantAccount, Order, Refund
from billing.payments import provider_of
from billing.payments.provider import BillLine, NotificationIgnoredError, PaymentNotice, RefundNotice
from billing.tests.payments.conftest import PRICE, Counter, audited, open_counter
from billing.tests.payments.desks import Message, StripeDesk, stripe_desk
from tenants import resolve, scope
from tests.doubles.stripe import Merchant, StripeDouble
from tests.factories import YUAN, host_of

CHINA = timezone(timedelta(hours=8))
FEN = 10_000
TAKEN = (200, {"received": True})
REFUSED = (401, {"received": False, "why": "not accepted"})


@pytest.fixture
def desk(settings: Settings) -> Any:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    resolve.forget()
    with stripe_desk(settings) as opened:
        yield opened


@pytest.fixture
def stripe(desk: StripeDesk) -> StripeDouble:
    return desk.double


@pytest.fixture
def shop(db: None, desk: StripeDesk) -> Any:
    with audited(open_counter(desk)) as opened:
        yield opened


def merchant_of(shop: Counter) -> Merchant:
    double: StripeDouble = shop.desk.double
    return double.merchants[shop.account.secret_key]


def event(shop: Counter, kind: str, thing: dict[str, Any], **what: Any) -> Message:
    double: StripeDouble = shop.desk.double
    return double.event(merchant_of(shop), kind, thing, **what)


def notice_of(shop: Counter, message: Message) -> PaymentNotice | RefundNotice:
    told = provider_of(shop.account).parse_callback(body=message[0], headers=message[1], query={})
    assert told is not None
    return told


def refund_of(shop: Counter, number: str, name: str = "refund-1", amount: int = 3 * YUAN) -> Refund:
    return Refund(order=shop.order(number), out_refund_no=name, amount=amount, reason="asked for")


def settled(shop: Counter) -> str:
    number = shop.paid()
    assert shop.deliver(shop.desk.tell(number)) == TAKEN
    return number


def test_a_session_is_asked_for(shop: Counter, stripe: StripeDouble) -> None:
    bought = shop.buy()
    number = shop.number(bought)
    order, asked = shop.order(number), stripe.sales[number].asked
    back = f"https://{host_of(shop.tenant)}/pay/done?order={bought['order']['id']}"
    assert bought["payment"] == {"checkout_url": stripe.sales[number].session["url"]}
    assert order.provider_ref == stripe.sales[number].session["id"]
    assert asked == {
        "mode": "payment",
        "client_reference_id": number,
        "metadata[out_trade_no]": number,
        "payment_intent_data[metadata][out_trade_no]": number,
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "cny",
        "line_items[0][price_data][unit_amount]": "1000",
        "line_items[0][price_data][product_data][name]": "十元",
        "adaptive_pricing[enabled]": "false",
        "expires_at": str(int((order.expires_at + timedelta(minutes=30)).timestamp())),
        "success_url": back,
        "cancel_url": back,
    }


def test_a_session_s_life_is_long_enough_however_late_it_is_asked_for(shop: Counter, stripe: StripeDouble) -> None:
    """Stripe wants 30 minutes from when it makes the session, and an order may be announced in its last minutes."""
    stripe.trouble.append("down")
    body = {"package": shop.package.slug, "channel": "stripe", "method": "checkout"}
    assert shop.api("POST", "/api/billing/orders", body)[0] == 502
    with scope.tenant(shop.tenant.pk):
        late = timedelta(minutes=13)
        Order.objects.update(created_at=F("created_at") - late, expires_at=F("expires_at") - late)
    shop.buy()
    assert (shop.states(), len(stripe.sales)) == (["pending"], 1)


def test_an_order_that_was_paid_meanwhile_cannot_be_paid_again(shop: Counter, stripe: StripeDouble) -> None:
    number = shop.paid()
    body = {"package": shop.package.slug, "channel": "stripe", "method": "checkout"}
    assert shop.api("POST", "/api/billing/orders", body)[1]["type"] == "payment_unavailable"
    assert (shop.states(), list(stripe.sales)) == (["pending"], [number])


def test_two_requests_for_one_order_get_one_session(shop: Counter, stripe: StripeDouble) -> None:
    """The second one read the order before the first one's session was kept; it may come by another host."""
    number = shop.number(shop.buy())
    first = shop.order(number).provider_ref
    with scope.tenant(shop.tenant.pk):
        Order.objects.update(provider_ref="")
    assert shop.number(shop.buy()) == number
    assert shop.order(number).provider_ref == first
    order = shop.order(number)
    order.provider_ref = ""
    with scope.tenant(shop.tenant.pk):
        assert recharge._keep_reference(order, "cs_another") is False  # noqa: SLF001  # the half of a race
    assert shop.order(number).provider_ref == first


def test_money_of_the_test_mode_is_none(shop: Counter) -> None:
    number = shop.paid()
    session = shop.desk.double.sales[number].session
    assert shop.deliver(event(shop, "checkout.session.completed", session, livemode=False)) == REFUSED
    with scope.tenant(shop.tenant.pk):
        MerchantAccount.objects.update(secret_key="sk_test_1")
    assert shop.deliver(event(shop, "checkout.session.completed", session)) == REFUSED
    assert (shop.states(), shop.books()) == (["pending"], {})


def test_a_payment_that_takes_days_is_credited_when_it_has_come(shop: Counter) -> None:
    number = shop.paid()
    session = shop.desk.double.sales[number].session
    unpaid = {**session, "payment_status": "unpaid"}
    assert shop.deliver(event(shop, "checkout.session.completed", unpaid)) == TAKEN
    assert (shop.states(), shop.books()) == (["pending"], {})
    assert shop.deliver(event(shop, "checkout.session.async_payment_succeeded", session)) == TAKEN
    assert shop.books() == shop.bought()


def test_what_the_account_sells_elsewhere_is_none_of_ours(shop: Counter, stripe: StripeDouble) -> None:
    """A payment link of the merchant's, whose payer can set the reference: only what we wrote counts."""
    number = shop.paid()
    link = {**stripe.sales[number].session, "metadata": {}}
    for kind, thing in (
        ("checkout.session.completed", link),
        ("customer.created", {"id": "cus_1", "object": "customer"}),
        ("checkout.session.expired", stripe.sales[number].session),
    ):
        assert shop.deliver(event(shop, kind, thing)) == TAKEN
    assert (shop.states(), shop.books(), shop.events()) == (["pending"], {}, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_total": "1000"},
        {"amount_total": 1000.0},
        {"amount_total": True},
        {"currency": None},
        {"payment_intent": ""},
    ],
)
def test_what_is_no_payment_is_not_read(shop: Counter, stripe: StripeDouble, changes: dict[str, Any]) -> None:
    assert shop.deliver(stripe.notification(shop.paid(), **changes)) == REFUSED
    assert (shop.states(), shop.books()) == (["pending"], {})


@pytest.mark.parametrize("currency", ["usd", "jpy", "hkd"])
def test_another_currency_credits_nothing(shop: Counter, stripe: StripeDouble, currency: str) -> None:
    answer = shop.deliver(stripe.notification(shop.paid(), currency=currency))
    assert answer == (409, {"received": False, "why": "other_amount"})
    assert (shop.states(), shop.books()) == (["pending"], {})


@pytest.mark.parametrize(
    "body", [b"[]", b'{"object":"event"}', b'{"object":"event","livemode":true,"type":1}', b"null"]
)
def test_a_signed_body_that_is_no_event_is_refused(shop: Counter, stripe: StripeDouble, body: bytes) -> None:
    headers = stripe.signed(body, shop.account.webhook_secret)
    assert shop.deliver((body, headers)) == REFUSED


def test_a_refund_is_made_once_whatever_stripe_remembers(shop: Counter, stripe: StripeDouble) -> None:
    number = settled(shop)
    provider, refund = provider_of(shop.account), refund_of(shop, number)
    with scope.tenant(shop.tenant.pk):
        assert provider.query_refund(refund) is None
        first = provider.refund(refund, notify_url="")
        stripe.remembered.clear()  # a day later
        again = provider.refund(refund, notify_url="")
    assert first == again == provider.query_refund(refund)
    assert [(one["amount"], one["metadata"]) for one in stripe.sales[number].refunds] == [
        (300, {"out_trade_no": number, "out_refund_no": "refund-1"})
    ]
    assert (first.state, first.amount, first.currency, first.forced) == ("done", 3 * YUAN, "CNY", False)
    assert (first.out_trade_no, first.out_refund_no) == (number, "refund-1")
    assert first.merchant_id == shop.account.merchant_id


def test_a_refund_is_found_among_many(shop: Counter, stripe: StripeDouble) -> None:
    number = settled(shop)
    provider = provider_of(shop.account)
    for count in range(5):
        provider.refund(refund_of(shop, number, f"refund-{count}", 10 * FEN), notify_url="")
    found = provider.query_refund(refund_of(shop, number, "refund-0", 10 * FEN))
    assert found is not None
    assert found.refund_id == stripe.sales[number].refunds[0]["id"]
    assert len(stripe.sales[number].refunds) == 5


def told(notice: PaymentNotice | RefundNotice) -> tuple[Any, ...]:
    assert isinstance(notice, RefundNotice)
    return notice.out_refund_no, notice.state, notice.amount, notice.forced


def test_what_is_told_of_refunds(shop: Counter, stripe: StripeDouble) -> None:
    number = settled(shop)
    stripe.slow_refunds = True
    provider_of(shop.account).refund(refund_of(shop, number), notify_url="")
    ours = stripe.sales[number].refunds[0]
    assert told(notice_of(shop, event(shop, "refund.created", ours))) == ("refund-1", "pending", 3 * YUAN, False)
    done = event(shop, "refund.updated", {**ours, "status": "succeeded"}, event_id="evt_9")
    assert told(notice_of(shop, done)) == ("refund-1", "done", 3 * YUAN, False)
    assert notice_of(shop, done).event_id == "evt_9"
    failed = event(shop, "refund.failed", {**ours, "status": "failed"})
    assert told(notice_of(shop, failed)) == ("refund-1", "failed", 3 * YUAN, False)
    stripe.slow_refunds = False
    by_hand = stripe.refund_by_hand(number, 150)
    # Its order is the payment's; and of a charge the newest refund is asked for.
    for kind, thing in (("refund.created", by_hand), ("charge.refunded", stripe.sales[number].charge or {})):
        notice = notice_of(shop, event(shop, kind, thing))
        assert told(notice) == ("", "done", 1_500_000, True)
        assert notice.out_trade_no == number


def test_a_dispute_takes_the_money_back_once_it_is_lost(shop: Counter, stripe: StripeDouble) -> None:
    number = settled(shop)
    opened = stripe.dispute(number)
    states = {
        ("charge.dispute.created", "needs_response"): "pending",
        ("charge.dispute.closed", "lost"): "done",
        ("charge.dispute.closed", "won"): "failed",
    }
    for (kind, status), state in states.items():
        notice = notice_of(shop, event(shop, kind, stripe.dispute(number, status, opened["id"])))
        assert told(notice) == ("", state, PRICE, True)
        assert isinstance(notice, RefundNotice)
        assert (notice.refund_id, notice.out_trade_no) == (opened["id"], number)


def test_refunds_and_disputes_of_other_sales_are_none_of_ours(shop: Counter, stripe: StripeDouble) -> None:
    number = settled(shop)
    by_hand, lost = stripe.refund_by_hand(number, 150), stripe.dispute(number, "lost")
    stripe.sales[number].intent["metadata"] = {}
    for kind, thing in (("refund.created", by_hand), ("charge.dispute.closed", lost)):
        with pytest.raises(NotificationIgnoredError):
            notice_of(shop, event(shop, kind, thing))


def test_what_cannot_be_asked_for_is_told_of_again(shop: Counter, stripe: StripeDouble) -> None:
    by_hand = stripe.refund_by_hand(settled(shop), 150)
    stripe.trouble.append("down")
    assert shop.deliver(event(shop, "refund.created", by_hand)) == (503, {"received": False, "why": "come again"})


def test_an_order_that_was_refunded_in_full_by_hand_is_not_credited_by_a_poll(
    shop: Counter, stripe: StripeDouble
) -> None:
    number = shop.paid()
    stripe.refund_by_hand(number, PRICE // FEN)
    with scope.tenant(shop.tenant.pk):
        assert provider_of(shop.account).query(shop.order(number)) is None


def test_a_day_s_bill_is_in_what_was_charged(shop: Counter, stripe: StripeDouble) -> None:
    """The balance is kept in another currency, and the list has several pages."""
    numbers = [settled(shop) for _ in range(3)]
    provider = provider_of(shop.account)
    provider.refund(refund_of(shop, numbers[0]), notify_url="")
    stripe.refund_by_hand(numbers[1], 150)
    stripe.dispute(numbers[2])
    merchant = merchant_of(shop)
    stripe.movements.append((merchant, {**stripe.movements[0][1], "id": "txn_payout", "source": {"object": "payout"}}))
    dollars = {**stripe.movements[0][1]["source"], "currency": "usd"}
    stripe.movements.append((merchant, {**stripe.movements[0][1], "id": "txn_dollars", "source": dollars}))
    paid = {number: stripe.sales[number].intent["id"] for number in numbers}
    lines = [
        *[BillLine(out_trade_no=n, out_refund_no="", transaction_id=paid[n], amount=PRICE) for n in numbers],
        *[
            BillLine(out_trade_no=n, out_refund_no=own, transaction_id=paid[n], amount=amount)
            for n, own, amount in zip(numbers, ("refund-1", "", ""), (-3 * YUAN, -1_500_000, -PRICE), strict=True)
        ],
    ]
    today = datetime.now(UTC).astimezone(CHINA).date()
    assert list(reversed(provider.bill(today))) == lines
    assert provider.bill(today - timedelta(days=1)) == []


def test_the_address_of_stripe_s_own_page_is_not_in_the_order(shop: Counter) -> None:
    bought = shop.buy()
    assert orjson.dumps(bought["order"]).find(b"cs_live") == -1
