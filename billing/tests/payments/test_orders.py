"""Ordering: what is asked of WeChat Pay, what the client gets, whose order it is, limits per user, and the API."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from django.db import IntegrityError, connection, transaction

from billing.models import MerchantAccount, Order
from billing.tests.payments.conftest import PRICE, Till, open_package
from tenants import scope
from tenants.models import WeChatIdentity
from tests.factories import make_token, make_user


def ask(till: Till, **changes: str) -> tuple[int, str]:
    """Order the package; return the status and the refusal's type."""
    body = {"package": till.package.slug, "channel": "wechat", "method": "native", **changes}
    status, said = till.api("POST", "/api/billing/orders", body)
    return status, said.get("type", "ok")


def test_what_is_on_sale(till: Till, other: Till) -> None:
    first = open_package(till.tenant, name="首充", badge="首充特惠", position=-1, limit_per_user=1)
    open_package(till.tenant, is_enabled=False)
    status, said = till.api("GET", "/api/billing/packages")
    rows = [
        {
            "slug": package.slug,
            "name": package.name,
            "price": "10000000",
            "credits": "10000000",
            "bonus": "2000000",
            "badge": package.badge,
            "limit_per_user": package.limit_per_user,
            "virtual": False,
        }
        for package in (first, till.package)
    ]
    assert (status, said) == (200, {"code": 1, "msg": "ok", "data": rows})


def test_a_native_order(till: Till) -> None:
    bought = till.buy()
    number = till.number(bought)
    order = till.order(number)
    assert bought["payment"] == {"code_url": f"weixin://wxpay/bizpayurl?pr={number[:8]}"}
    assert {name: value for name, value in bought["order"].items() if not name.endswith("_at")} == {
        "id": str(order.pk),
        "name": "十元",
        "price": "10000000",
        "credits": "10000000",
        "bonus": "2000000",
        "channel": "wechat",
        "method": "native",
        "state": "pending",
        "refunded": "0",
        "refunds": [],
    }
    asked = till.wechat.trades[number].asked
    assert (asked["amount"], asked["description"]) == ({"total": PRICE // 10_000, "currency": "CNY"}, "十元")
    assert asked["notify_url"] == (
        f"https://{till.tenant.slug}.test/api/payments/{till.tenant.slug}/wechat/{till.account.pk}/notify"
    )
    assert (order.expires_at - order.created_at).total_seconds() == 15 * 60
    assert till.api("GET", f"/api/billing/orders/{order.pk}")[1]["data"] == bought["order"]


def test_an_h5_order_names_the_payer_s_address(till: Till) -> None:
    bought = till.buy(method="h5")
    number = till.number(bought)
    asked = till.wechat.trades[number].asked
    assert asked["scene_info"] == {"payer_client_ip": "127.0.0.1", "h5_info": {"type": "Wap"}}
    assert bought["payment"] == {"h5_url": f"https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx{number}"}


def test_a_jsapi_order_is_signed_for_the_client(till: Till) -> None:
    assert ask(till, method="jsapi") == (400, "wechat_login_needed")
    with scope.tenant(till.tenant.pk):
        WeChatIdentity.objects.create(
            tenant=till.tenant, user=till.user, app_id=till.merchant.app_id, openid="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
        )
    bought = till.buy(method="jsapi")
    payment = bought["payment"]
    number = till.number(bought)
    assert till.wechat.trades[number].asked["payer"] == {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}
    assert (payment["package"], payment["appId"], payment["signType"]) == (
        f"prepay_id=wx23{number}",
        till.merchant.app_id,
        "RSA",
    )
    message = f"{payment['appId']}\n{payment['timeStamp']}\n{payment['nonceStr']}\n{payment['package']}\n".encode()
    signature = base64.b64decode(payment["paySign"])
    till.merchant.key.public_key().verify(signature, message, PKCS1v15(), SHA256())


def test_an_open_order_is_given_again(till: Till) -> None:
    first, again = till.buy(), till.buy()
    assert first == again
    assert till.buy(method="h5")["order"]["id"] != first["order"]["id"]
    till.let_pass(till.number(first), 14 * 60 + 1)
    assert till.buy()["order"]["id"] != first["order"]["id"]
    with scope.tenant(till.tenant.pk):
        type(till.package).objects.filter(pk=till.package.pk).update(price=2 * PRICE)
    assert till.buy()["order"]["price"] == str(2 * PRICE)


def test_a_package_with_a_limit(till: Till) -> None:
    package = open_package(till.tenant, limit_per_user=1)
    first = till.number(till.buy(package=package))
    assert ask(till, package=package.slug, method="h5") == (429, "package_limit_reached")
    _, said = till.api("POST", "/api/billing/orders", {"package": package.slug, "channel": "wechat", "method": "h5"})
    assert {name: said[name] for name in ("code", "scope", "action", "used", "limit")} == {
        "code": 102,
        "scope": "package",
        "action": "wait",
        "used": 1,
        "limit": 1,
    }
    till.close(first)
    second = till.number(till.buy(package=package))
    till.wechat.pay(second)
    assert till.deliver(till.wechat.notification(second))[0] == 200
    assert ask(till, package=package.slug) == (429, "package_limit_reached")
    # Another user has not bought it yet.
    user = make_user(till.tenant)
    till.buy(package=package, token=make_token(user))


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"package": "no-such"}, (404, "package_not_found")),
        ({"channel": "stripe"}, (404, "channel_not_found")),
        ({"channel": "cheque"}, (400, "invalid_request")),
        ({"method": "app"}, (400, "invalid_request")),
        ({"package": ""}, (400, "invalid_request")),
    ],
)
def test_what_is_not_offered_is_refused(till: Till, changes: dict[str, str], refusal: tuple[int, str]) -> None:
    assert ask(till, **changes) == refusal
    assert till.states() == []


def test_another_tenant_s_package_is_not_there(till: Till, other: Till) -> None:
    assert ask(till, package=other.package.slug) == (404, "package_not_found")


def test_a_disabled_channel_is_not_there(till: Till) -> None:
    with scope.tenant(till.tenant.pk):
        MerchantAccount.objects.update(is_enabled=False)
    assert ask(till) == (404, "channel_not_found")
    assert till.states() == []


@pytest.mark.parametrize("trouble", ["down", "forged", "unsigned", "old"])
def test_an_answer_that_cannot_be_believed_gives_no_payment(till: Till, trouble: str) -> None:
    till.wechat.trouble.append(trouble)
    assert ask(till) == (502, "payment_unavailable")
    assert till.states() == ["pending"]
    # The next try is the same order.
    till.buy()
    assert till.states() == ["pending"]


@pytest.mark.parametrize(
    "fields", [{"private_key": ""}, {"private_key": "nonsense"}, {"certificate_serial": "0"}, {"merchant_id": "1"}]
)
def test_a_merchant_that_is_set_up_wrongly_gives_no_payment(till: Till, fields: dict[str, str]) -> None:
    with scope.tenant(till.tenant.pk):
        MerchantAccount.objects.update(**fields)
    assert ask(till) == (502, "payment_unavailable")


def test_nobody_else_sees_an_order(till: Till, other: Till) -> None:
    order_id = till.buy()["order"]["id"]
    neighbour = make_token(make_user(till.tenant))
    seen = [
        till.api(method, f"/api/billing/orders/{order_id}{tail}", token=token)
        for method, tail in (("GET", ""), ("POST", "/recheck"))
        for token in (neighbour, other.token, "x")
    ]
    assert [(status, said["type"]) for status, said in seen] == [
        (404, "order_not_found"),
        (401, "login_required"),
        (401, "login_required"),
    ] * 2
    assert other.api("GET", f"/api/billing/orders/{order_id}")[0] == 404
    assert till.api("GET", "/api/billing/orders/nonsense")[1]["type"] == "order_not_found"


def test_orders_are_throttled(till: Till) -> None:
    got = [ask(till)[1] for _ in range(31)]
    assert got == ["ok"] * 30 + ["too_many_tries"]


def test_a_row_cannot_point_at_another_tenant_s(till: Till, other: Till) -> None:
    number = till.number(till.buy())
    strangers: list[dict[str, Any]] = [
        {"user": other.user},
        {"package": other.package},
        {"merchant_account": other.account},
    ]
    for fields in strangers:
        with scope.platform("a test of keys"), transaction.atomic():
            Order.objects.filter(out_trade_no=number).update(**fields)
            with connection.cursor() as cursor, pytest.raises(IntegrityError, match=r"billing_order_\w+_fk"):
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            transaction.set_rollback(True)


def test_a_price_with_parts_of_a_fen_is_refused(till: Till) -> None:
    for price in (0, 5_000, PRICE + 1):
        with pytest.raises(IntegrityError, match=r"billing_package_(fen|price)"), transaction.atomic():
            open_package(till.tenant, price=price)
