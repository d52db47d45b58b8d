"""WeChat virtual payment: what the phone gets, what the message push may say, and what nobody told."""

import json
import uuid
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from billing import ledger, recharge, tasks
from billing.models import MerchantAccount, Order, Refund, Subscription
from billing.payments.provider import (
    NotificationRefusedError,
    Payer,
    ProviderAwayError,
    ProviderRefusedError,
    RefundNotice,
)
from billing.payments.wechat_push import MOST_BYTES
from billing.payments.wechat_virtual import WeChatVirtual
from billing.tests.payments.conftest import BONUS, CREDITS, PRICE, Till, VirtualTill, open_package, open_virtual
from billing.tests.payments.test_books import operator
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.models import MiniProgram, Tenant, WeChatIdentity
from tenants.wechat import WeChatSession
from tests.doubles.xpay import XPayDouble
from tests.factories import YUAN, make_plan, make_token, make_user

TAKEN = (200, "success")
NOT_BELIEVED = (401, '{"ErrCode":1,"ErrMsg":"not accepted"}')


def fail(why: str, status: int = 409) -> tuple[int, str]:
    return status, f'{{"ErrCode":1,"ErrMsg":"{why}"}}'


def untouched(till: Till) -> bool:
    return (till.states(), till.books(), till.events()) == (["pending"], {}, [])


# --- ordering


def test_the_arguments_of_request_virtual_payment(virtual: VirtualTill) -> None:
    status, said = virtual.ask()
    payment = said["data"]["payment"]
    number = virtual.number(said["data"])
    assert (status, sorted(payment)) == (200, ["mode", "paySig", "signData", "signature"])
    assert json.loads(payment["signData"]) == {
        "offerId": virtual.offer.offer_id,
        "buyQuantity": 1,
        "env": 0,
        "currencyType": "CNY",
        "productId": "ten",
        "goodsPrice": 1000,
        "outTradeNo": number,
        "attach": number,
    }
    assert virtual.xpay.open_payment(payment, app_id=virtual.offer.app_id, openid=virtual.openid) == "ok"
    assert virtual.order(number).payer_openid == virtual.openid


def test_a_number_is_not_given_again(virtual: VirtualTill) -> None:
    """WeChat takes each once, and the payment may have been opened."""
    assert virtual.open() != virtual.open()
    assert virtual.states() == ["pending", "pending"]


def test_a_package_with_a_limit_is(virtual: VirtualTill) -> None:
    package = open_package(virtual.tenant, limit_per_user=1, virtual_product_id="ten")
    first = virtual.ask(package=package.slug)[1]["data"]["order"]
    assert virtual.ask(package=package.slug)[1]["data"]["order"] == first


def test_a_user_without_a_session_is_to_log_in(virtual: VirtualTill) -> None:
    refused = (400, 10001, "wechat_login_needed", "login")
    with scope.tenant(virtual.tenant.pk):
        WeChatIdentity.objects.update(session_key="")
    status, said = virtual.ask()
    assert (status, said["code"], said["type"], said["action"]) == refused
    stranger = make_token(make_user(virtual.tenant))
    body = {"package": virtual.package.slug, "channel": "wechat_virtual", "method": "virtual"}
    status, said = virtual.api("POST", "/api/billing/orders", body, token=stranger)
    assert (status, said["code"], said["type"], said["action"]) == refused


def test_a_session_that_is_over_is_refused_before_the_phone_does(virtual: VirtualTill) -> None:
    package = open_package(virtual.tenant, limit_per_user=1, virtual_product_id="ten")
    virtual.xpay.session_keys[virtual.offer.app_id, virtual.openid] = "bmV3ZXIgdGhhbiBvdXJzIQ=="
    status, said = virtual.ask(package=package.slug)
    assert (status, said["type"], virtual.states()) == (400, "wechat_login_needed", ["closed"])
    virtual.log_in()
    virtual.open(package=package.slug)  # the order that nobody could pay does not count
    assert virtual.states() == ["closed", "pending"]


def test_a_session_that_cannot_be_checked_stops_nobody(virtual: VirtualTill) -> None:
    virtual.ask()
    virtual.xpay.raw.append((502, b"<html>"))
    virtual.open()


def test_an_iphone_pays_one_yuan_at_least(virtual: VirtualTill) -> None:
    virtual.offer.products["cheap"] = 99
    cheap = open_package(virtual.tenant, price=990_000, virtual_product_id="cheap")
    status, said = virtual.ask(package=cheap.slug, platform="ios")
    assert (status, said["code"], said["type"], said["minimum"]) == (400, 10001, "ios_minimum", "1000000")
    assert virtual.states() == []
    virtual.open(package=cheap.slug, platform="android")
    virtual.open(platform="ios")


def test_a_package_that_wechat_does_not_know_is_refused(virtual: VirtualTill) -> None:
    package = open_package(virtual.tenant)
    status, said = virtual.ask(package=package.slug)
    assert (status, said["type"]) == (404, "package_without_channel")
    assert {row["slug"]: row["virtual"] for row in virtual.api("GET", "/api/billing/packages")[1]["data"]} == {
        package.slug: False,
        virtual.package.slug: True,
    }


def test_a_plan_is_sold_by_its_product(virtual: VirtualTill) -> None:
    virtual.offer.products["month"] = 1990
    plan = make_plan(virtual.tenant, virtual_product_id="month")
    unknown = make_plan(virtual.tenant)
    status, said = virtual.ask(package="", plan=unknown.slug)
    assert (status, said["type"]) == (404, "package_without_channel")
    number = virtual.open(package="", plan=plan.slug)
    virtual.xpay.pay(number)
    assert virtual.send(virtual.xpay.delivery(number)) == TAKEN
    with scope.tenant(virtual.tenant.pk):
        assert Subscription.objects.get().plan_id == plan.pk
    assert {row["slug"]: row["virtual"] for row in virtual.api("GET", "/api/billing/plans")[1]["data"]} == {
        plan.slug: True,
        unknown.slug: False,
    }


@pytest.mark.parametrize("method", ["native", "jsapi", "h5"])
def test_no_other_way_of_paying_fits_the_channel(virtual: VirtualTill, method: str) -> None:
    said = (
        "channel_not_found" if method == "jsapi" else "method_not_of_channel"
    )  # that one is WeChat Pay's, in a channel
    assert virtual.ask(method=method)[1]["type"] in {said, "method_not_of_channel"}


@pytest.mark.parametrize("fields", [{"app_key": ""}, {"environment": "sandbox", "sandbox_app_key": ""}])
def test_an_account_without_its_key_gives_no_payment(virtual: VirtualTill, fields: dict[str, str]) -> None:
    virtual.change(**fields)
    assert virtual.ask()[1]["type"] == "payment_unavailable"


# --- the message push


@pytest.mark.parametrize("xml", [False, True])
def test_a_payment_is_credited(virtual: VirtualTill, *, xml: bool) -> None:
    number = virtual.paid()
    calls = len(virtual.xpay.calls)
    assert virtual.send(virtual.xpay.delivery(number), xml=xml) == TAKEN
    order = virtual.order(number)
    assert (order.state, order.transaction_id) == ("paid", virtual.at_wechat(number).transaction)
    assert (virtual.books(), virtual.events()) == (virtual.bought(), ["credited"])
    assert virtual.balances() == ledger.Balances(cash=CREDITS, gift=BONUS, pending=0)
    assert len(virtual.xpay.calls) == calls  # an encrypted message is believed


@pytest.mark.parametrize("xml", [False, True])
def test_a_plain_message_is_credited_as_wechat_says_when_asked(virtual: VirtualTill, *, xml: bool) -> None:
    virtual.change(message_key="")
    number = virtual.paid()
    assert virtual.send(virtual.xpay.delivery(number), sealed=False, xml=xml) == TAKEN
    assert (virtual.books(), virtual.events()) == (virtual.bought(), ["credited"])
    assert virtual.xpay.calls[-1] == "query_order"


def test_a_plain_message_credits_nothing_that_was_not_paid(virtual: VirtualTill) -> None:
    """Its signature does not cover the body: whoever saw one address could write another."""
    virtual.change(message_key="")
    number = virtual.open()
    said = virtual.xpay.delivery(number) | {"WeChatPayInfo": {"TransactionId": "4200000001"}}
    assert virtual.send(said, sealed=False) == NOT_BELIEVED
    assert virtual.send(said | {"OutTradeNo": "0" * 32}, sealed=False) == NOT_BELIEVED
    assert untouched(virtual)
    virtual.xpay.pay(number)
    assert virtual.send(said | {"GoodsInfo": {"ActualPrice": 1, "Quantity": 1}}, sealed=False) == TAKEN
    assert virtual.books() == virtual.bought()


def test_a_plain_message_where_wechat_is_away_is_sent_again(virtual: VirtualTill) -> None:
    virtual.change(message_key="")
    number = virtual.paid()
    virtual.xpay.raw.append((502, b"<html>"))
    assert virtual.send(virtual.xpay.delivery(number), sealed=False) == fail("come again", 503)
    assert untouched(virtual)
    assert virtual.send(virtual.xpay.delivery(number), sealed=False) == TAKEN


def test_with_a_key_no_plain_message_is_believed(virtual: VirtualTill) -> None:
    assert virtual.send(virtual.xpay.delivery(virtual.paid()), sealed=False) == NOT_BELIEVED
    assert untouched(virtual)


def test_without_a_key_no_encrypted_message_is_believed(virtual: VirtualTill) -> None:
    virtual.change(message_key="")
    assert virtual.send(virtual.xpay.delivery(virtual.paid())) == NOT_BELIEVED
    assert untouched(virtual)


def test_a_replayed_message_is_taken_and_credits_nothing(virtual: VirtualTill) -> None:
    number = virtual.paid()
    query, body = virtual.xpay.push(virtual.xpay.delivery(number), offer=virtual.offer)
    assert [virtual.post(query, body) for _ in range(3)] == [TAKEN] * 3
    assert virtual.send(virtual.xpay.delivery(number, RetryTimes=1)) == TAKEN
    assert (virtual.books(), virtual.events()) == (virtual.bought(), ["credited"])


@pytest.mark.parametrize("push", [{"token": "somebody-s"}, {"token": ""}, {"key": "A" * 43}])
@pytest.mark.parametrize("xml", [False, True])
def test_a_forged_message_is_refused(virtual: VirtualTill, *, push: dict[str, Any], xml: bool) -> None:
    assert virtual.send(virtual.xpay.delivery(virtual.paid()), xml=xml, **push) == NOT_BELIEVED
    assert untouched(virtual)


@pytest.mark.parametrize("sealed", [True, False])
def test_an_account_without_a_token_believes_nothing(virtual: VirtualTill, *, sealed: bool) -> None:
    virtual.change(message_token="", message_key=virtual.offer.message_key if sealed else "")
    assert virtual.send(virtual.xpay.delivery(virtual.paid()), sealed=sealed, token="") == NOT_BELIEVED
    assert untouched(virtual)


@pytest.mark.parametrize("name", ["timestamp", "nonce", "msg_signature"])
@pytest.mark.parametrize("value", [None, "", "é"])
def test_a_message_without_a_part_of_its_signature_is_refused(
    virtual: VirtualTill, name: str, value: str | None
) -> None:
    query, body = virtual.xpay.push(virtual.xpay.delivery(virtual.paid()), offer=virtual.offer)
    said = {key: values[0] for key, values in parse_qs(query).items() if key != name}
    assert virtual.post(urlencode(said | ({} if value is None else {name: value})), body) == NOT_BELIEVED
    assert untouched(virtual)


@pytest.mark.parametrize("age", [310, 365 * 24 * 3600, -310])
@pytest.mark.parametrize("sealed", [True, False])
def test_an_old_message_is_refused_and_one_from_the_future_too(virtual: VirtualTill, *, age: int, sealed: bool) -> None:
    virtual.change(message_key=virtual.offer.message_key if sealed else "")
    assert virtual.send(virtual.xpay.delivery(virtual.paid()), age=age, sealed=sealed) == NOT_BELIEVED
    assert untouched(virtual)


def test_one_of_a_few_minutes_is_taken(virtual: VirtualTill) -> None:
    assert virtual.send(virtual.xpay.delivery(virtual.paid()), age=280) == TAKEN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"<xml>",
        b"\xff",
        b'{"Encrypt":7}',
        b'{"Encrypt":"?"}',
        b'{"Encrypt":""}',
        b'<!DOCTYPE x [<!ENTITY a "b">]><xml><Encrypt>&a;</Encrypt></xml>',
        b" " * (MOST_BYTES + 1),
    ],
)
def test_what_is_no_message_is_refused(virtual: VirtualTill, body: bytes) -> None:
    query, _ = virtual.xpay.push({}, offer=virtual.offer)
    assert virtual.post(query, body) == NOT_BELIEVED


@pytest.mark.parametrize(
    "changes",
    [
        {"OutTradeNo": 7},
        {"OutTradeNo": ""},
        {"OutTradeNo": "a\x00b"},
        {"OpenId": None},
        {"Env": "x"},
        {"GoodsInfo": None},
        {"goods": {"ActualPrice": "10.00"}},
        {"goods": {"ActualPrice": 1000.0}},
        {"goods": {"ActualPrice": True}},
        {"goods": {"ActualPrice": -1000}},
        {"WeChatPayInfo": {"TransactionId": "4" * 41}},
    ],
)
def test_a_message_that_cannot_be_read_credits_nothing(virtual: VirtualTill, changes: dict[str, Any]) -> None:
    number = virtual.paid()
    status, _ = virtual.send(virtual.xpay.delivery(number, **changes))
    assert (status in {401, 409}, virtual.states(), virtual.books()) == (True, ["pending"], {})


@pytest.mark.parametrize("fen", [999, 1001, 1, 0])
def test_another_amount_credits_nothing(virtual: VirtualTill, fen: int) -> None:
    said = virtual.xpay.delivery(virtual.paid(), goods={"ActualPrice": fen})
    assert virtual.send(said) == fail("other_amount")
    assert (virtual.states(), virtual.books(), virtual.events()) == (["pending"], {}, ["other_amount"])


def test_two_pieces_are_not_what_was_ordered(virtual: VirtualTill) -> None:
    assert virtual.send(virtual.xpay.delivery(virtual.paid(), goods={"Quantity": 2})) == fail("other_merchant")
    assert virtual.books() == {}


def test_another_app_s_message_credits_nothing(virtual: VirtualTill) -> None:
    assert virtual.send(virtual.xpay.delivery(virtual.paid()), app_id="wx00000000000000ff") == fail("other_merchant")
    assert (virtual.states(), virtual.books(), virtual.events()) == (["pending"], {}, ["other_merchant"])


def test_the_sandbox_s_money_credits_no_production_account(virtual: VirtualTill) -> None:
    number = virtual.paid()
    virtual.at_wechat(number).env = 1
    assert virtual.send(virtual.xpay.delivery(number)) == fail("other_merchant")
    assert (virtual.states(), virtual.books()) == (["pending"], {})
    # Nor when it is asked for.
    virtual.let_pass(number, 901)
    tasks.poll_orders()
    assert (virtual.states(), virtual.books()) == (["closed"], {})
    virtual.change(message_key="")
    assert virtual.send(virtual.xpay.delivery(number), sealed=False) == NOT_BELIEVED


def test_a_sandbox_account_takes_the_sandbox_s_money_only(db: None, xpay: XPayDouble) -> None:
    till = open_virtual(xpay, environment="sandbox")
    number = till.paid()
    assert till.at_wechat(number).env == 1
    assert till.send(till.xpay.delivery(number, Env=0)) == fail("other_merchant")
    assert till.send(till.xpay.delivery(number)) == TAKEN
    assert till.books() == till.bought()


def test_an_order_of_the_sandbox_is_not_paid_with_the_production_key(virtual: VirtualTill) -> None:
    virtual.change(environment="sandbox")
    payment = virtual.ask()[1]["data"]["payment"]
    forged = payment | {"signData": payment["signData"].replace('"env":1', '"env":0')}
    assert virtual.xpay.open_payment(forged, app_id=virtual.offer.app_id, openid=virtual.openid) == "pay_sig"


def test_another_tenant_s_message_is_refused(virtual: VirtualTill, virtual_other: VirtualTill) -> None:
    number = virtual_other.paid()
    assert virtual_other.send(virtual_other.xpay.delivery(number), to=virtual) == NOT_BELIEVED
    # Nor does a message of one's own name another's order.
    assert virtual.send(virtual.xpay.delivery(number)) == fail("unknown_order")
    assert (virtual.books(), virtual_other.books(), virtual_other.states()) == ({}, {}, ["pending"])


def test_a_payment_of_apple_s_has_a_number_by_asking_only(virtual: VirtualTill) -> None:
    number = virtual.paid(with_apple=True)
    assert virtual.send(virtual.xpay.delivery(number)) == TAKEN
    assert virtual.order(number).transaction_id == virtual.at_wechat(number).wx_number
    assert virtual.send(virtual.xpay.delivery(number)) == TAKEN
    assert (virtual.books(), virtual.events()) == (virtual.bought(), ["credited"])


def test_payments_out_of_order(virtual: VirtualTill) -> None:
    first, second = virtual.paid(), virtual.paid()
    for number in (second, first, second):
        assert virtual.send(virtual.xpay.delivery(number)) == TAKEN
    assert (virtual.books(), virtual.states()) == (virtual.bought(2), ["paid", "paid"])


def test_a_second_payment_of_a_paid_order_is_not_credited(virtual: VirtualTill) -> None:
    number = virtual.paid()
    assert virtual.send(virtual.xpay.delivery(number)) == TAKEN
    twice = virtual.xpay.delivery(number) | {"WeChatPayInfo": {"TransactionId": "4200000000000000000000000001"}}
    assert virtual.send(twice) == fail("other_transaction")
    assert virtual.books() == virtual.bought()


def test_a_payment_after_the_end_is_credited(virtual: VirtualTill) -> None:
    number = virtual.open()
    virtual.let_pass(number, 901)
    tasks.poll_orders()
    assert virtual.states() == ["closed"]
    virtual.xpay.pay(number)
    assert virtual.send(virtual.xpay.delivery(number)) == TAKEN
    assert (virtual.states(), virtual.books()) == (["paid"], virtual.bought())


def test_a_payment_after_the_end_that_nobody_told_is_found_by_a_recheck(virtual: VirtualTill) -> None:
    number = virtual.open()
    virtual.close(number)
    virtual.xpay.pay(number)
    order = virtual.order(number)
    assert virtual.api("POST", f"/api/billing/orders/{order.pk}/recheck")[1]["data"]["state"] == "paid"
    assert virtual.books() == virtual.bought()


@pytest.mark.parametrize("event", ["xpay_complaint_notify", "user_enter_tempsession", "xpay_coin_pay_notify"])
def test_what_is_about_no_money_is_taken_and_changes_nothing(virtual: VirtualTill, event: str) -> None:
    number = virtual.open()
    assert virtual.send({"Event": event, "MchOrderId": number, "OpenId": virtual.openid}) == TAKEN
    assert untouched(virtual)
    assert virtual.send({"Event": event}, token="somebody-s") == NOT_BELIEVED


def test_the_address_is_proved(virtual: VirtualTill, till: Till) -> None:
    query, _ = virtual.xpay.push({}, offer=virtual.offer)
    forged, _ = virtual.xpay.push({}, offer=virtual.offer, token="somebody-s")
    path = recharge.notify_path(tenant=virtual.tenant, account=virtual.account)

    def get(path: str, query: str) -> tuple[int, str, str]:
        answer = Client().get(f"{path}?{query}&echostr=42<b>", headers={"host": "pay.test"})
        return answer.status_code, answer.content.decode(), answer.headers["Content-Type"]

    assert get(path, query) == (200, "42<b>", "text/plain; charset=utf-8")
    refused = (401, '{"ErrCode":1,"ErrMsg":"not accepted"}', "application/json")
    assert (get(path, forged), get(path, "")) == (refused, refused)
    assert get(recharge.notify_path(tenant=till.tenant, account=till.account), query)[0] == 404
    virtual.change(is_enabled=False)
    assert get(path, query)[0] == 404


# --- what nobody told


def test_a_payment_that_nobody_told_of_is_found_and_its_delivery_confirmed(virtual: VirtualTill) -> None:
    number = virtual.paid()
    virtual.let_pass(number, 10)
    assert (tasks.poll_orders(), virtual.states(), virtual.books()) == (1, ["paid"], virtual.bought())
    assert (virtual.at_wechat(number).status, virtual.xpay.calls[-1]) == (4, "notify_provide_goods")
    assert virtual.send(virtual.xpay.delivery(number)) == TAKEN
    assert (virtual.books(), virtual.events()) == (virtual.bought(), ["credited"])


def test_a_confirmation_that_fails_undoes_nothing(virtual: VirtualTill) -> None:
    number = virtual.paid()
    virtual.let_pass(number, 10)
    virtual.xpay.raw.extend([(200, json.dumps({"errcode": 0, "order": virtual.at_wechat(number).said()}).encode())])
    virtual.xpay.refusals.append(268490015)
    assert (tasks.poll_orders(), virtual.states(), virtual.books()) == (1, ["paid"], virtual.bought())


def test_an_order_whose_payment_was_never_opened_is_closed(virtual: VirtualTill) -> None:
    number = virtual.number(virtual.ask()[1]["data"])
    virtual.let_pass(number, 901)
    assert (tasks.poll_orders(), virtual.states(), virtual.books()) == (1, ["closed"], {})


@pytest.mark.parametrize("errcode", [-1, 268490003, 268490015, 45009])
def test_an_order_that_wechat_does_not_answer_for_stays_open(virtual: VirtualTill, errcode: int) -> None:
    number = virtual.open()
    virtual.let_pass(number, 901)
    virtual.xpay.refusals.append(errcode)
    assert (tasks.poll_orders(), virtual.states()) == (1, ["pending"])


def test_a_wrong_question_is_not_taken_for_an_unpaid_order(virtual: VirtualTill) -> None:
    number = virtual.open()
    virtual.let_pass(number, 901)
    virtual.xpay.refusals.append(268490002)
    assert (tasks.poll_orders(), virtual.states()) == (1, ["pending"])


def test_a_token_that_is_over_delays_nothing(virtual: VirtualTill) -> None:
    number = virtual.paid()
    virtual.xpay.tokens[virtual.offer.app_id] = "77_another"
    virtual.let_pass(number, 10)
    assert (tasks.poll_orders(), virtual.states()) == (1, ["paid"])
    assert virtual.xpay.calls[-4:] == ["query_order", "stable_token", "query_order", "notify_provide_goods"]


def test_a_message_and_a_poll_at_once_credit_once(committed_virtual: VirtualTill) -> None:
    till = committed_virtual
    number = till.paid()
    order = till.order(number)
    message = till.xpay.push(till.xpay.delivery(number), offer=till.offer)

    def check() -> str:
        with scope.tenant(till.tenant.pk):
            recharge.check_order(Order.objects.select_related("merchant_account").get(pk=order.pk))
        return "checked"

    def told() -> str:
        return till.post(*message)[1]

    got = together([check, told, check, told])
    assert sorted(got) == ["checked", "checked", "success", "success"]
    assert (till.states(), till.books(), till.events()) == (["paid"], till.bought(), ["credited"])


# --- choosing


def ways(till: VirtualTill, query: str = "") -> list[dict[str, Any]]:
    status, said = till.api("GET", f"/api/billing/channels{query}")
    assert status == 200
    return list(said["data"])


def test_what_is_offered_where(virtual: VirtualTill, virtual_other: VirtualTill) -> None:
    inside = f"?appid={virtual.offer.app_id}"
    virtual_way = {"channel": "wechat_virtual", "methods": ["virtual"], "minimum": "0"}
    assert (ways(virtual, inside), ways(virtual)) == ([virtual_way], [])
    with scope.tenant(virtual.tenant.pk):
        common = {"tenant": virtual.tenant, "channel": "wechat", "certificate_serial": "1", "merchant_id": "19"}
        MerchantAccount.objects.create(**common, app_id=virtual.offer.app_id)
    outside = {"channel": "wechat", "methods": ["native", "h5"], "minimum": "0"}
    assert (ways(virtual, inside), ways(virtual)) == ([virtual_way], [outside])
    assert ways(virtual, f"{inside}&platform=ios") == [{**virtual_way, "minimum": "1000000"}]
    jsapi = {"package": virtual.package.slug, "channel": "wechat", "method": "jsapi"}
    assert virtual.api("POST", "/api/billing/orders", jsapi)[1]["type"] == "channel_not_found"
    # The tenant's choice.
    Tenant.objects.filter(pk=virtual.tenant.pk).update(mini_program_jsapi=True)
    beside = {"channel": "wechat", "methods": ["jsapi"], "minimum": "0"}
    assert (ways(virtual, inside), ways(virtual)) == ([virtual_way, beside], [outside])
    # Without virtual payment there is no other.
    Tenant.objects.filter(pk=virtual.tenant.pk).update(mini_program_jsapi=False)
    virtual.change(is_enabled=False)
    assert ways(virtual, inside) == [beside]
    # In a browser inside WeChat, by an app id that is no mini-program's.
    with scope.tenant(virtual.tenant.pk):
        MerchantAccount.objects.create(**common, app_id="wx00000000000000ff")
    assert ways(virtual) == [{**outside, "methods": ["native", "jsapi", "h5"]}]
    assert ways(virtual_other, f"?appid={virtual_other.offer.app_id}") == [virtual_way]


# --- refunds, on the provider's side


def told(till: VirtualTill, said: dict[str, Any], **push: Any) -> RefundNotice:
    """Return what the provider makes of a message about a refund."""
    query, body = till.xpay.push(said, offer=till.offer, **push)
    values = {name: values[0] for name, values in parse_qs(query).items()}
    notice = WeChatVirtual(till.account).parse_callback(body=body, headers={}, query=values)
    assert isinstance(notice, RefundNotice)
    return notice


def asked_back(till: VirtualTill, number: str, *, amount: int = PRICE, **fields: Any) -> Refund:
    """Write down a refund, as the service that asks for it does first."""
    with scope.tenant(till.tenant.pk):
        order = Order.objects.get(out_trade_no=number)
        made = Refund.objects.create(
            tenant=till.tenant,
            order=order,
            out_refund_no=uuid.uuid4().hex,
            amount=amount,
            **{"kind": "provider", "reason": "test", "requested_by": "test", **fields},
        )
        return Refund.objects.select_related("order").get(pk=made.pk)


def credited(till: VirtualTill, *, with_apple: bool = False) -> str:
    number = till.paid(with_apple=with_apple)
    assert till.send(till.xpay.delivery(number)) == TAKEN
    return number


def test_a_refund_forced_by_apple(virtual: VirtualTill) -> None:
    number = credited(virtual, with_apple=True)
    refund = virtual.xpay.refund_by_apple(number)
    notice = told(virtual, virtual.xpay.refunded(refund.wx_number))
    assert (notice.forced, notice.state, notice.amount, notice.currency) == (True, "done", PRICE, "CNY")
    assert (notice.out_trade_no, notice.out_refund_no, notice.refund_id) == (number, "", refund.wx_number)
    assert notice.event_id == f"refund:{refund.wx_number}:done"
    assert (notice.merchant_id, notice.app_id) == (virtual.offer.offer_id, virtual.offer.app_id)


def test_a_refund_is_started_and_ends_later(virtual: VirtualTill) -> None:
    number = credited(virtual)
    refund, provider = asked_back(virtual, number, amount=3 * YUAN), WeChatVirtual(virtual.account)
    assert provider.query_refund(refund) is None
    started = provider.refund(refund, notify_url="")
    at_wechat = virtual.at_wechat(refund.out_refund_no)
    assert (started.state, started.refund_id, started.forced) == ("pending", at_wechat.wx_number, False)
    assert (started.out_trade_no, started.out_refund_no, started.amount) == (number, refund.out_refund_no, 3 * YUAN)
    # Asked for again, it is the same one.
    assert provider.refund(refund, notify_url="").state == "pending"
    assert virtual.xpay.calls.count("refund_order") == 1
    virtual.xpay.end_refund(refund.out_refund_no)
    assert virtual.at_wechat(number).left_fen == 700
    done = provider.query_refund(refund)
    assert done is not None
    assert (done.state, done.amount, done.event_id) == ("done", 3 * YUAN, f"refund:{at_wechat.wx_number}:done")
    message = told(virtual, virtual.xpay.refunded(refund.out_refund_no))
    assert (message.event_id, message.out_refund_no, message.forced) == (done.event_id, refund.out_refund_no, False)
    # The rest, and no more.
    assert provider.refund(asked_back(virtual, number, amount=7 * YUAN), notify_url="").state == "pending"


def test_a_refund_that_fails(virtual: VirtualTill) -> None:
    number = credited(virtual)
    refund, provider = asked_back(virtual, number), WeChatVirtual(virtual.account)
    provider.refund(refund, notify_url="")
    virtual.xpay.end_refund(refund.out_refund_no, done=False)
    found = provider.query_refund(refund)
    assert (found and found.state, virtual.at_wechat(number).left_fen) == ("failed", 1000)
    assert told(virtual, virtual.xpay.refunded(refund.out_refund_no)).state == "failed"


def test_what_apple_sold_only_apple_refunds(virtual: VirtualTill) -> None:
    refund = asked_back(virtual, credited(virtual, with_apple=True))
    with pytest.raises(ProviderRefusedError, match="268490002"):
        WeChatVirtual(virtual.account).refund(refund, notify_url="")


@pytest.mark.parametrize("errcode", [-1, 268490015, 268490016])
def test_a_refund_that_may_be_asked_for_again(virtual: VirtualTill, errcode: int) -> None:
    refund, provider = asked_back(virtual, credited(virtual)), WeChatVirtual(virtual.account)
    virtual.xpay.refusals.append(errcode)
    with pytest.raises(ProviderAwayError):
        provider.refund(refund, notify_url="")
    assert provider.refund(refund, notify_url="").state == "pending"


def test_a_refund_under_a_number_that_wechat_cannot_take(virtual: VirtualTill) -> None:
    refund = asked_back(virtual, credited(virtual))
    refund.out_refund_no = "1"
    with pytest.raises(ProviderRefusedError, match="REFUND_NUMBER"):
        WeChatVirtual(virtual.account).refund(refund, notify_url="")


def test_a_refund_that_nobody_here_asked_for_is_forced_whatever_its_number(virtual: VirtualTill) -> None:
    """WeChat numbers those that are made in its own pages; another tenant's number is none of ours either."""
    number = credited(virtual)
    refund = virtual.xpay.refund_by_apple(number)
    notice = told(virtual, virtual.xpay.refunded(refund.wx_number, MchRefundId="WX2026112500001"))
    assert (notice.forced, notice.out_refund_no, notice.refund_id) == (True, "", refund.wx_number)


def test_a_plain_message_of_a_refund_is_as_wechat_says_when_asked(virtual: VirtualTill) -> None:
    number, other = credited(virtual), credited(virtual)
    refund = virtual.xpay.refund_by_apple(number)
    virtual.change(message_key="")
    said = virtual.xpay.refunded(refund.wx_number)
    notice = told(virtual, said | {"RefundFee": 1, "RetCode": 1}, sealed=False)
    assert (notice.amount, notice.state, notice.forced) == (PRICE, "done", True)
    for forged in ({"MchOrderId": other}, {"WxRefundId": "XR0"}, {"MchOrderId": "0" * 32}):
        with pytest.raises(NotificationRefusedError):
            told(virtual, said | forged, sealed=False)


def test_the_bill_of_a_day(virtual: VirtualTill, virtual_other: VirtualTill) -> None:
    first, second, unpaid = credited(virtual), credited(virtual), virtual.open()
    credited(virtual_other)
    refund, provider = asked_back(virtual, first, amount=3 * YUAN), WeChatVirtual(virtual.account)
    provider.refund(refund, notify_url="")
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date()

    def bill(day: date) -> list[tuple[str, str, int]]:
        return sorted((line.out_trade_no, line.out_refund_no, line.amount) for line in provider.bill(day))

    payments = [(first, "", PRICE), (second, "", PRICE)]
    assert bill(today) == sorted(payments)  # the refund is under way
    virtual.xpay.end_refund(refund.out_refund_no)
    forced = virtual.xpay.refund_by_apple(second)
    asked_back(virtual, second, kind="forced", refund_id=forced.wx_number)
    with scope.tenant(virtual.tenant.pk):
        own = Refund.objects.get(kind="forced").out_refund_no
    wanted = [*payments, (first, refund.out_refund_no, -3 * YUAN), (second, own, -PRICE)]
    assert (bill(today), unpaid in str(bill(today))) == (sorted(wanted), False)
    assert (bill(today - timedelta(days=1)), bill(today - timedelta(days=9))) == ([], [])
    virtual.xpay.refusals.append(-1)
    with pytest.raises(ProviderAwayError):
        provider.bill(today)


# --- secrets


def test_secrets_stay_out_of_the_logs_and_the_database(
    virtual: VirtualTill, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    number = virtual.paid()
    virtual.send(virtual.xpay.delivery(number), token="somebody-s")
    virtual.xpay.raw.append((502, b"<html>"))
    virtual.let_pass(number, 10)
    tasks.poll_orders()
    virtual.send(virtual.xpay.delivery(number))
    with scope.tenant(virtual.tenant.pk):
        session_key = WeChatIdentity.objects.get().session_key
        secret = MiniProgram.objects.get().secret
    offer = virtual.offer
    hidden = [
        session_key,
        secret,
        offer.message_token,
        offer.message_key,
        *offer.app_keys.values(),
        virtual.xpay.tokens[offer.app_id],
    ]
    written = caplog.text + "".join(capsys.readouterr())
    assert (len(set(hidden)), [text for text in hidden if not text or text in written]) == (7, [])
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (m.*)::text || (i.*)::text FROM billing_merchantaccount m JOIN tenants_wechatidentity i"
            " USING (tenant_id) WHERE m.tenant_id = %s",
            [virtual.tenant.pk],
        )
        stored = "".join(row[0] for row in cursor.fetchall())
    assert (offer.offer_id in stored, [text for text in hidden if text in stored]) == (True, [])


def test_the_admin_shows_no_secret_and_keeps_what_is_not_typed(virtual: VirtualTill) -> None:
    client = operator()
    names = ("app_key", "sandbox_app_key", "message_token", "message_key")
    with scope.tenant(virtual.tenant.pk):
        identity = WeChatIdentity.objects.get()
    account_page = reverse("admin:billing_merchantaccount_change", args=[virtual.account.pk])
    secrets = [getattr(virtual.account, name) for name in names]
    for page, hidden in (
        (account_page, secrets),
        (reverse("admin:tenants_wechatidentity_change", args=[identity.pk]), [identity.session_key]),
    ):
        answer = client.get(page)
        shown = answer.content.decode()
        assert (answer.status_code, virtual.offer.app_id in shown) == (200, True)
        assert [secret for secret in [*hidden, "gAAAA"] if secret in shown] == []
    body = {
        "tenant": str(virtual.tenant.pk),
        "channel": "wechat_virtual",
        "merchant_id": virtual.offer.offer_id,
        "app_id": virtual.offer.app_id,
        "certificate_serial": "-",
        "environment": "sandbox",
        "is_enabled": "on",
        "app_key": "fresh",
    }
    assert client.post(account_page, body).status_code == 302
    with scope.tenant(virtual.tenant.pk):
        virtual.account.refresh_from_db()
    kept = [getattr(virtual.account, name) for name in names]
    assert (virtual.account.environment, kept) == ("sandbox", ["fresh", *secrets[1:]])


def test_a_session_key_is_in_no_repr() -> None:
    said = (Payer(openid="o1", session_key="c2VjcmV0"), WeChatSession(openid="o1", session_key="c2VjcmV0"))
    assert [repr(one) for one in said] == [
        "Payer(address='', openid='o1', return_url='')",
        "WeChatSession(openid='o1', unionid='')",
    ]
