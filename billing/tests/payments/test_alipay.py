"""What is Alipay's own: addresses that are signed, forms that are verified, refunds, bills."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

import httpx
import orjson
import pytest
from cryptography.fernet import Fernet
from django.db import connection
from pytest_django import Settings

from billing.models import MerchantAccount, Refund
from billing.payments import provider_of
from billing.payments.provider import BillLine, PaymentNotice, ProviderAwayError, ProviderRefusedError, RefundNotice
from billing.tests.payments.conftest import PRICE, Counter, audited, open_counter
from billing.tests.payments.desks import AlipayDesk, alipay_desk
from tenants import resolve, scope
from tests.doubles.alipay import AlipayDouble
from tests.doubles.wechatpay import pem, public_pem, rsa_key
from tests.factories import YUAN, host_of

CHINA = timezone(timedelta(hours=8))
TAKEN, REFUSED = (200, "success"), (401, "fail")


@pytest.fixture
def desk(settings: Settings) -> Any:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    resolve.forget()
    with alipay_desk(settings) as opened:
        yield opened


@pytest.fixture
def alipay(desk: AlipayDesk) -> AlipayDouble:
    return desk.double


@pytest.fixture
def shop(db: None, desk: AlipayDesk) -> Any:
    with audited(open_counter(desk)) as opened:
        yield opened


def change(shop: Counter, **fields: str) -> None:
    with scope.tenant(shop.tenant.pk):
        MerchantAccount.objects.update(**fields)
        shop.account = MerchantAccount.objects.get(pk=shop.account.pk)


def refund_of(shop: Counter, number: str, amount: int = 3 * YUAN) -> Refund:
    with connection.cursor() as cursor:  # a test of the provider alone: no service books it, so the guard steps aside
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_refund DISABLE TRIGGER USER")
    with scope.tenant(shop.tenant.pk):
        return Refund.objects.create(
            tenant=shop.tenant,
            order=shop.order(number),
            out_refund_no="refund-1",
            kind="provider",
            amount=amount,
            reason="asked for",
            requested_by="somebody",
        )


@pytest.mark.parametrize(
    ("method", "name", "product"),
    [("wap", "alipay.trade.wap.pay", "QUICK_WAP_WAY"), ("page", "alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY")],
)
def test_the_address_that_a_payer_opens(
    shop: Counter, alipay: AlipayDouble, method: str, name: str, product: str
) -> None:
    bought = shop.buy(method=method)
    number = shop.number(bought)
    address = bought["payment"]["pay_url"]
    assert (list(bought["payment"]), alipay.requests) == (["pay_url"], [])
    alipay.open(address)  # verifies the signature
    said = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
    host, back = host_of(shop.tenant), f"/pay/done?order={bought['order']['id']}"
    path = f"/api/payments/{shop.tenant.slug}/alipay/{shop.account.pk}/notify"
    assert (said["method"], said["notify_url"], said["return_url"]) == (
        name,
        f"https://{host}{path}",
        f"https://{host}{back}",
    )
    expires = shop.order(number).expires_at.astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S")
    quits = {"quit_url": f"https://{host}{back}"} if method == "wap" else {}
    assert orjson.loads(said["biz_content"]) == {
        "out_trade_no": number,
        "total_amount": "10.00",
        "subject": "十元",
        "product_code": product,
        "time_expire": expires,
        **quits,
    }


def test_keys_may_be_pasted_as_pem(shop: Counter) -> None:
    change(shop, private_key=pem(rsa_key("alipay-app")), platform_public_key=public_pem(rsa_key("alipay")))
    assert shop.deliver(shop.desk.tell(shop.paid())) == TAKEN


def test_a_name_of_other_letters_is_signed_as_the_gateway_reads_it(shop: Counter, alipay: AlipayDouble) -> None:
    with scope.tenant(shop.tenant.pk):
        type(shop.package).objects.update(name="充值&返 10% = “好” +1")
    number = shop.paid()
    assert alipay.trades[number].asked["subject"] == "充值&返 10% = “好” +1"
    assert shop.deliver(shop.desk.tell(number)) == TAKEN


@pytest.mark.parametrize("status", ["WAIT_BUYER_PAY", "TRADE_CLOSED", "TRADE_PENDING"])
def test_a_status_that_is_no_payment_is_not_asked_for_again(shop: Counter, alipay: AlipayDouble, status: str) -> None:
    number = shop.paid()
    assert shop.deliver(alipay.notification(number, trade_status=status)) == TAKEN
    assert (shop.states(), shop.books(), shop.events()) == (["pending"], {}, [])


@pytest.mark.parametrize("status", ["TRADE_SUCCESS", "TRADE_FINISHED"])
def test_both_of_a_payment_s_names_pay(shop: Counter, alipay: AlipayDouble, status: str) -> None:
    assert shop.deliver(alipay.notification(shop.paid(), trade_status=status)) == TAKEN
    assert shop.books() == shop.bought()


@pytest.mark.parametrize("total", ["10", "10.0", "10.00"])
def test_an_amount_is_read_exactly(shop: Counter, alipay: AlipayDouble, total: str) -> None:
    assert shop.deliver(alipay.notification(shop.paid(), total_amount=total)) == TAKEN


@pytest.mark.parametrize("total", ["1e1", "10.00 ", "+10", "-10.00", "１０.00", "10,00", "", "0x0a", "10.0000000"])
def test_an_amount_that_is_none_is_not_read(shop: Counter, alipay: AlipayDouble, total: str) -> None:
    assert shop.deliver(alipay.notification(shop.paid(), total_amount=total)) == REFUSED
    assert (shop.states(), shop.books()) == (["pending"], {})


@pytest.mark.parametrize("fields", [{"app_id": "2021000000000000"}, {"seller_id": "2088000000000000"}])
def test_another_app_s_or_seller_s_payment_credits_nothing(
    shop: Counter, alipay: AlipayDouble, fields: dict[str, Any]
) -> None:
    assert shop.deliver(alipay.notification(shop.paid(), **fields)) == (409, "fail")
    assert (shop.books(), shop.events()) == ({}, ["other_merchant"])


@pytest.mark.parametrize(
    "name", ["sign", "sign_type", "notify_time", "notify_id", "app_id", "seller_id", "trade_no", "trade_status"]
)
def test_a_form_that_lacks_a_field_is_refused(shop: Counter, alipay: AlipayDouble, name: str) -> None:
    assert shop.deliver(alipay.notification(shop.paid(), leave_out=(name,))) == REFUSED
    assert (shop.states(), shop.books()) == (["pending"], {})


def test_a_form_that_says_a_thing_twice_is_refused(shop: Counter, alipay: AlipayDouble) -> None:
    raw, headers = alipay.notification(shop.paid())
    for more in (b"&total_amount=10.00", b"&sign=x", b"&another=1", b"&", b"&%FF=1"):
        assert shop.deliver((raw + more, headers)) == REFUSED
    assert shop.deliver((raw, headers)) == TAKEN


def test_the_older_signature_is_refused(shop: Counter, alipay: AlipayDouble) -> None:
    raw, headers = alipay.notification(shop.paid())
    assert shop.deliver((raw.replace(b"sign_type=RSA2", b"sign_type=RSA"), headers)) == REFUSED
    assert shop.deliver(alipay.notification(next(iter(alipay.trades)), charset="gbk")) == REFUSED


def test_one_from_the_future_is_refused(shop: Counter) -> None:
    number = shop.paid()
    assert shop.deliver(shop.desk.tell(number, age=-16 * 60)) == REFUSED
    assert shop.deliver(shop.desk.tell(number, age=-10 * 60)) == TAKEN


def test_the_order_of_a_form_s_fields_means_nothing(shop: Counter, alipay: AlipayDouble) -> None:
    raw, headers = alipay.notification(shop.paid())
    assert shop.deliver((b"&".join(reversed(raw.split(b"&"))), headers)) == TAKEN


def test_a_browser_gets_nothing_from_the_notification_s_address(shop: Counter) -> None:
    """What a browser brings back to the return page is no notification."""
    number = shop.paid()
    back = f"/pay/done?order={shop.order(number).pk}&trade_status=TRADE_SUCCESS&out_trade_no={number}"
    answer = shop.client.get(back, headers={"host": host_of(shop.tenant)})
    assert (answer.status_code, shop.states(), shop.books()) == (200, ["pending"], {})


def test_a_refund_is_asked_for_once_and_found(shop: Counter, alipay: AlipayDouble) -> None:
    number = shop.paid()
    shop.deliver(shop.desk.tell(number))
    refund, provider = refund_of(shop, number), provider_of(shop.account)
    with scope.tenant(shop.tenant.pk):
        assert provider.query_refund(refund) is None
        first = provider.refund(refund, notify_url="")
        again = provider.refund(refund, notify_url="")
        found = provider.query_refund(refund)
    assert alipay.trades[number].refunds == {"refund-1": "3.00"}
    assert (
        alipay.refund_requests
        == [  # no reason: its payer would read it
            {"out_trade_no": number, "refund_amount": "3.00", "out_request_no": "refund-1"}
        ]
        * 2
    )
    for notice in (first, again, found):
        assert notice is not None
        assert (notice.state, notice.amount, notice.out_trade_no, notice.out_refund_no, notice.forced) == (
            "done",
            3 * YUAN,
            number,
            "refund-1",
            False,
        )
        assert (notice.merchant_id, notice.app_id) == (shop.account.merchant_id, shop.account.app_id)
    with scope.tenant(shop.tenant.pk):
        Refund.objects.all().delete()


def test_a_refund_that_takes_its_time_is_pending(shop: Counter, alipay: AlipayDouble) -> None:
    number = shop.paid()
    refund, provider = refund_of(shop, number), provider_of(shop.account)
    alipay.slow_refunds = True
    with scope.tenant(shop.tenant.pk):
        assert provider.refund(refund, notify_url="").state == "pending"
        alipay.slow_refunds = False
        found = provider.query_refund(refund)
        assert found is not None
        assert found.state == "done"
        with pytest.raises(ProviderRefusedError) as refused:
            provider.refund(Refund(order=refund.order, out_refund_no="2", amount=PRICE, reason="x"), notify_url="")
        assert refused.value.code == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
        Refund.objects.all().delete()


def notice_of(shop: Counter, message: tuple[bytes, dict[str, str]]) -> PaymentNotice | RefundNotice:
    told = provider_of(shop.account).parse_callback(body=message[0], headers=message[1], query={})
    assert told is not None
    return told


def test_what_is_told_of_a_refund_is_no_payment(shop: Counter, alipay: AlipayDouble) -> None:
    """It says the sum of all refunds: this one's amount is asked for."""
    number = shop.paid()
    refund = refund_of(shop, number)
    with scope.tenant(shop.tenant.pk):
        provider_of(shop.account).refund(refund, notify_url="")
    by_hand = alipay.refund_by_hand(number, "1.50")
    ours = notice_of(shop, alipay.refund_notification(number, "refund-1", notify_id="told-1"))
    theirs = notice_of(shop, alipay.refund_notification(number, by_hand, notify_id="told-2"))
    assert isinstance(ours, RefundNotice)
    assert isinstance(theirs, RefundNotice)
    assert (ours.event_id, ours.out_refund_no, ours.amount, ours.state, ours.forced) == (
        "told-1",
        "refund-1",
        3 * YUAN,
        "done",
        False,
    )
    assert (theirs.event_id, theirs.out_refund_no, theirs.refund_id, theirs.amount, theirs.forced) == (
        "told-2",
        "",
        by_hand,
        1_500_000,
        True,
    )
    with scope.tenant(shop.tenant.pk):
        Refund.objects.all().delete()


def test_a_refund_that_cannot_be_asked_for_is_told_of_again(shop: Counter, alipay: AlipayDouble) -> None:
    number = shop.paid()
    by_hand = alipay.refund_by_hand(number, "1.50")
    alipay.trouble.append("down")
    assert shop.deliver(alipay.refund_notification(number, by_hand)) == (503, "fail")
    assert shop.deliver(alipay.refund_notification(number, "no-such-refund")) == (503, "fail")
    assert (shop.states(), shop.books()) == (["pending"], {})


def test_an_order_that_was_refunded_in_full_by_hand_is_closed(shop: Counter, alipay: AlipayDouble) -> None:
    number = shop.paid()
    alipay.trades[number].state = "TRADE_CLOSED"
    with scope.tenant(shop.tenant.pk):
        assert provider_of(shop.account).query(shop.order(number)) is None
        assert provider_of(shop.account).close(shop.order(number)) is False


def test_a_day_s_bill(shop: Counter, alipay: AlipayDouble) -> None:
    provider, day = provider_of(shop.account), date(2026, 11, 25)
    assert provider.bill(day) == []  # Alipay makes none of a day without trades
    number = shop.paid()
    by_hand = alipay.refund_by_hand(number, "1.50")
    trade = alipay.trades[number].trade_no
    assert provider.bill(day) == [
        BillLine(out_trade_no=number, out_refund_no="", transaction_id=trade, amount=PRICE),
        BillLine(out_trade_no=number, out_refund_no=by_hand, transaction_id=trade, amount=-1_500_000),
    ]


@pytest.mark.parametrize("trouble", ["down", "forged", "unsigned", "changed", "away"])
def test_an_answer_that_cannot_be_believed_gives_no_bill(shop: Counter, alipay: AlipayDouble, trouble: str) -> None:
    alipay.trouble.append(trouble)
    with pytest.raises(ProviderAwayError):
        provider_of(shop.account).bill(date(2026, 11, 25))


def test_the_double_knows_a_signed_request_from_another(shop: Counter, alipay: AlipayDouble) -> None:
    """Else the tests above would prove nothing."""
    address = shop.buy()["payment"]["pay_url"]
    for changed in (address.replace("10.00", "0.01"), address.replace("wap.pay", "page.pay")):
        with pytest.raises(AssertionError):
            alipay.open(changed)
    body = {"biz_content": '{"out_trade_no":"1"}'}
    said = {"method": "alipay.trade.query", "app_id": shop.account.app_id, "sign": "eHg=", "sign_type": "RSA2"}
    said |= {"charset": "utf-8", "version": "1.0", "format": "JSON"}
    said["timestamp"] = datetime.now(UTC).astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S")
    query = "&".join(f"{name}={quote_plus(value)}" for name, value in said.items())
    answer = httpx.post(f"{alipay.url}/gateway.do?{query}", data=body).json()
    assert answer["alipay_trade_query_response"]["sub_code"] == "isv.invalid-signature"
