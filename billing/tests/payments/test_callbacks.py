"""Notifications of WeChat Pay, in what is its own: headers, sealing, keys. What all channels do is in test_channels."""

import base64
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client

from billing import ledger, recharge
from billing.models import MerchantAccount, Order
from billing.tests.payments.conftest import BONUS, CREDITS, PRICE, Till, open_package, path_of
from tenants import scope
from tests.doubles.wechatpay import certificate, certificate_pem, rsa_key

TAKEN = (200, {"code": "SUCCESS", "message": ""})
NOT_BELIEVED = (401, {"code": "FAIL", "message": "not accepted"})


def fail(why: str) -> tuple[int, dict[str, str]]:
    return 409, {"code": "FAIL", "message": why}


def paid(till: Till) -> str:
    """Buy and pay; return the order's number."""
    number = till.number(till.buy())
    till.wechat.pay(number)
    return number


def untouched(till: Till) -> bool:
    return (till.states(), till.books()) == (["pending"], {})


def test_a_payment_is_credited(till: Till) -> None:
    number = paid(till)
    assert path_of(till.wechat.trades[number].asked["notify_url"]) == recharge.notify_path(
        tenant=till.tenant, account=till.account
    )
    assert till.deliver(till.wechat.notification(number)) == TAKEN
    order = till.order(number)
    assert (order.state, order.transaction_id) == ("paid", till.wechat.trades[number].transaction_id)
    assert order.paid_at is not None
    assert till.books() == till.bought()
    assert till.balances() == ledger.Balances(cash=CREDITS, gift=BONUS, pending=0)
    assert till.events() == ["credited"]


@pytest.mark.parametrize("name", ["Wechatpay-Serial", "Wechatpay-Signature", "Wechatpay-Timestamp", "Wechatpay-Nonce"])
@pytest.mark.parametrize("value", [None, "", "WECHATPAY/SIGNTEST/x"])
def test_a_notification_without_one_of_its_headers_is_refused(till: Till, name: str, value: str | None) -> None:
    raw, headers = till.wechat.notification(paid(till))
    del headers[name]
    assert till.deliver((raw, headers if value is None else {**headers, name: value})) == NOT_BELIEVED
    assert untouched(till)


def test_the_kind_of_signature_may_be_left_out_and_no_other_is_taken(till: Till) -> None:
    raw, headers = till.wechat.notification(paid(till))
    other = headers | {"Wechatpay-Signature-Type": "WECHATPAY2-SM2-WITH-SM3"}
    assert till.deliver((raw, other)) == NOT_BELIEVED
    assert untouched(till)
    del headers["Wechatpay-Signature-Type"]
    assert till.deliver((raw, headers)) == TAKEN
    assert till.books() == till.bought()


def test_a_byte_changed_is_refused(till: Till) -> None:
    raw, headers = till.wechat.notification(paid(till))
    assert till.deliver((raw.replace(b"\n", b""), headers)) == NOT_BELIEVED  # the same JSON
    assert till.deliver((raw + b" ", headers)) == NOT_BELIEVED
    assert untouched(till)
    assert till.deliver((raw, headers)) == TAKEN


@pytest.mark.parametrize("age", [310, 365 * 24 * 3600, -310])
def test_an_old_notification_is_refused_and_one_from_the_future_too(till: Till, age: int) -> None:
    assert till.deliver(till.wechat.notification(paid(till), age=age)) == NOT_BELIEVED
    assert untouched(till)


def test_one_of_a_few_minutes_is_taken(till: Till) -> None:
    assert till.deliver(till.wechat.notification(paid(till), age=280)) == TAKEN


@pytest.mark.parametrize("total", [PRICE // 10_000 - 1, PRICE // 10_000 + 1, 1, 0, -1])
def test_another_amount_credits_nothing(till: Till, total: int) -> None:
    amount = {"total": total, "payer_total": total, "currency": "CNY"}
    assert till.deliver(till.wechat.notification(paid(till), amount=amount)) == fail("other_amount")
    assert (untouched(till), till.events()) == (True, ["other_amount"])


@pytest.mark.parametrize("total", ["1000", 1000.0, True, None])
def test_an_amount_that_is_no_whole_number_is_not_read(till: Till, total: object) -> None:
    message = till.wechat.notification(paid(till), amount={"total": total, "currency": "CNY"})
    assert till.deliver(message) == NOT_BELIEVED
    assert untouched(till)


def test_another_currency_credits_nothing(till: Till) -> None:
    amount = {"total": PRICE // 10_000, "currency": "IDR"}
    assert till.deliver(till.wechat.notification(paid(till), amount=amount)) == fail("other_amount")
    assert untouched(till)


@pytest.mark.parametrize("changes", [{"mchid": "1900009999"}, {"appid": "wx00000000000000ff"}])
def test_another_merchant_s_or_app_s_payment_credits_nothing(till: Till, changes: dict[str, Any]) -> None:
    assert till.deliver(till.wechat.notification(paid(till), **changes)) == fail("other_merchant")
    assert (untouched(till), till.events()) == (True, ["other_merchant"])


def test_what_was_refused_is_judged_again_once_it_is_mended(till: Till) -> None:
    number = paid(till)
    message = till.wechat.notification(number)
    with scope.tenant(till.tenant.pk):
        Order.objects.filter(out_trade_no=number).update(app_id="wx-typing-mistake")
    assert till.deliver(message) == fail("other_merchant")
    with scope.tenant(till.tenant.pk):
        Order.objects.filter(out_trade_no=number).update(app_id=till.merchant.app_id)
    assert till.deliver(message) == TAKEN
    assert (till.books(), till.events()) == (till.bought(), ["credited"])


@pytest.mark.parametrize(
    "changes",
    [{"trade_state": "NOTPAY"}, {"trade_state": "REFUND"}, {"event_type": "REFUND.SUCCESS"}, {"transaction_id": ""}],
)
def test_what_is_no_payment_is_not_taken(till: Till, changes: dict[str, Any]) -> None:
    assert till.deliver(till.wechat.notification(paid(till), **changes)) == NOT_BELIEVED
    assert untouched(till)


@pytest.mark.parametrize(
    "path",
    [
        "/api/payments/nobody/wechat/{account}/notify",
        "/api/payments/{slug}/alipay/{account}/notify",
        "/api/payments/{slug}/wechat/0/notify",
        "/api/payments/{slug}/wechat/{other}/notify",
        "/api/payments/{slug}/wechat/99999999999999999999/notify",
        "/api/payments/{slug}/wechat/%00/notify",
        "/api/payments/%00/wechat/{account}/notify",
    ],
)
def test_an_address_that_is_nobody_s_is_not_there(till: Till, other: Till, path: str) -> None:
    raw, headers = till.wechat.notification(paid(till))
    where = path.format(slug=till.tenant.slug, account=till.account.pk, other=other.account.pk)
    answer = Client().post(where, raw, content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json()) == (404, {"code": "FAIL", "message": "no such account"})
    assert untouched(till)


def change(till: Till, **fields: object) -> None:
    """Change the merchant account as the admin does."""
    with scope.tenant(till.tenant.pk):
        MerchantAccount.objects.filter(pk=till.account.pk).update(**fields)


def test_an_empty_secret_never_verifies(till: Till) -> None:
    number = paid(till)
    sealed_with_nothing = till.wechat.notification(number, seal_with="0" * 32)
    for fields in (
        {"platform_public_key": ""},
        {"platform_public_key": "", "platform_key_id": ""},
        {"platform_key_id": "", "platform_public_key": till.account.platform_public_key},
        {"platform_key_id": till.account.platform_key_id, "api_v3_key": ""},
        {"api_v3_key": "short"},
    ):
        change(till, **fields)
        for message in (till.wechat.notification(number), sealed_with_nothing):
            assert till.deliver(message) == NOT_BELIEVED
        raw, headers = till.wechat.notification(number)
        assert till.deliver((raw, headers | {"Wechatpay-Serial": ""})) == NOT_BELIEVED
    assert untouched(till)
    # The new key is in force at once.
    change(till, api_v3_key=till.merchant.api_v3_key)
    assert till.deliver(till.wechat.notification(number)) == TAKEN


def test_a_notification_sealed_with_another_key_is_refused(till: Till) -> None:
    assert till.deliver(till.wechat.notification(paid(till), seal_with="f" * 32)) == NOT_BELIEVED
    assert untouched(till)


def test_a_key_that_is_none_refuses_and_does_not_break(till: Till) -> None:
    number = paid(till)
    change(till, platform_public_key="-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----")
    assert till.deliver(till.wechat.notification(number)) == NOT_BELIEVED


def test_a_merchant_that_changes_over_gets_both_kinds_of_signature(till: Till) -> None:
    made, old = certificate("tenpay"), certificate("tenpay-old", days=0)
    change(till, platform_certificates=certificate_pem(old) + certificate_pem(made))
    by_certificate = paid(till)
    message = till.wechat.notification(by_certificate, sign_with=rsa_key("tenpay"), serial=f"{made.serial_number:040X}")
    assert till.deliver(message) == TAKEN
    by_key = till.number(till.buy())
    till.wechat.pay(by_key)
    expired = till.wechat.notification(by_key, sign_with=rsa_key("tenpay-old"), serial=f"{old.serial_number:040X}")
    crossed = till.wechat.notification(by_key, sign_with=rsa_key("tenpay"))
    assert [till.deliver(message) for message in (expired, crossed)] == [NOT_BELIEVED] * 2
    assert till.deliver(till.wechat.notification(by_key)) == TAKEN
    assert till.books() == till.bought(2)


@pytest.mark.parametrize(
    ("credited", "books"),
    [
        (12_000_000, {"psp_clearing:discount": -2_000_000, "user_cash": 12_000_000}),
        (9_000_000, {"tenant_revenue": 1_000_000, "user_cash": 9_000_000}),
    ],
)
def test_clearing_is_what_was_collected_where_the_balance_is_another(
    till: Till, credited: int, books: dict[str, int]
) -> None:
    number = till.number(till.buy(package=open_package(till.tenant, credits=credited, bonus=0)))
    till.wechat.pay(number)
    assert till.deliver(till.wechat.notification(number)) == TAKEN
    assert till.books() == {f"psp_clearing:wechat:{till.merchant.merchant_id}": -PRICE, **books}


def test_the_database_keeps_a_paid_order_paid(till: Till) -> None:
    number = paid(till)
    till.deliver(till.wechat.notification(number))
    for fields in ({"state": "closed", "paid_at": None, "transaction_id": ""}, {"price": 20_000}, {"bonus": 1}):
        with (
            scope.tenant(till.tenant.pk),
            pytest.raises(IntegrityError, match="is paid and stays so"),
            transaction.atomic(),
        ):
            Order.objects.filter(out_trade_no=number).update(**fields)


def test_no_secret_is_in_the_database_in_clear(till: Till) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(a)::text FROM billing_merchantaccount a WHERE id = %s", [till.account.pk])
        stored = cursor.fetchone()[0]
    assert till.merchant.merchant_id in stored
    body = till.account.private_key.splitlines()[1]
    assert [secret in stored for secret in (till.merchant.api_v3_key, body)] == [False, False]
    assert base64.b64encode(till.merchant.api_v3_key.encode()).decode() not in stored
