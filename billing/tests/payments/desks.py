"""What the tests that every payment channel has to pass need to know of each: how it is opened, paid and told of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import httpx
from pytest_django import Settings

from billing.payments.clients import client_for, close_client
from tests.doubles import alipay, stripe, wechatpay
from tests.doubles.wechatpay import rsa_key
from tests.factories import unique

Message = tuple[bytes, dict[str, str]]
Answer = tuple[int, Any]

FEN = 10_000

_numbers = count(1_900_000_001)


class Desk:
    """One provider's double, and the ways of its channel."""

    double: Any
    channel: ClassVar[str]
    method: ClassVar[str]
    taken: ClassVar[Answer]
    refused: ClassVar[Answer]
    # Ways in which an answer can be such that it changes nothing, and fields without which nothing verifies.
    troubles: ClassVar[tuple[str, ...]]
    secrets: ClassVar[tuple[str, ...]]

    def open(self) -> dict[str, str]:
        """Make a merchant that the provider knows; return the fields of its account."""
        raise NotImplementedError

    def show(self, number: str, payment: dict[str, str]) -> None:
        """Let the payer's browser open what the client was given."""
        raise NotImplementedError

    def pay(self, number: str) -> str:
        """Let the payer pay; return the provider's number of the payment."""
        raise NotImplementedError

    def tell(self, number: str, **what: Any) -> Message:
        """Return a notification of a payment.

        `what` may be event_id, merchant_id, amount (micro-yuan), out_trade_no, transaction_id, age (seconds), is_paid,
        and is_forged.
        """
        raise NotImplementedError

    def is_closed(self, number: str) -> bool:
        """Whether the provider takes no payment of an order any more."""
        raise NotImplementedError

    def refusal(self, why: str) -> Answer:
        """Return the answer to a notification that fits nothing."""
        raise NotImplementedError


@dataclass
class WeChatDesk(Desk):
    """WeChat Pay."""

    double: wechatpay.WeChatPayDouble

    channel = "wechat"
    method = "native"
    taken = (200, {"code": "SUCCESS", "message": ""})
    refused = (401, {"code": "FAIL", "message": "not accepted"})
    troubles = ("down", "forged", "unsigned", "old")
    secrets = ("platform_public_key", "api_v3_key")

    def open(self) -> dict[str, str]:
        merchant = wechatpay.Merchant(merchant_id=str(next(_numbers)), app_id=f"wx{unique('a')[2:]}0000")
        self.double.merchants[merchant.merchant_id] = merchant
        return {
            "merchant_id": merchant.merchant_id,
            "app_id": merchant.app_id,
            "certificate_serial": merchant.serial,
            "private_key": wechatpay.pem(merchant.key),
            "api_v3_key": merchant.api_v3_key,
            "platform_key_id": merchant.platform_key_id,
            "platform_public_key": wechatpay.public_pem(merchant.platform_key),
        }

    def show(self, number: str, payment: dict[str, str]) -> None:
        assert payment == {"code_url": f"weixin://wxpay/bizpayurl?pr={number[:8]}"}

    def pay(self, number: str) -> str:
        return self.double.pay(number).transaction_id

    def tell(self, number: str, *, is_paid: bool = True, is_forged: bool = False, **what: Any) -> Message:
        if "merchant_id" in what:
            what["mchid"] = what.pop("merchant_id")
        if "amount" in what:
            what["amount"] = {"total": what.pop("amount") // FEN, "currency": "CNY"}
        if not is_paid:
            what["trade_state"] = "USERPAYING"
        return self.double.notification(number, sign_with=rsa_key("somebody") if is_forged else None, **what)

    def is_closed(self, number: str) -> bool:
        return self.double.trades[number].state == "CLOSED"

    def refusal(self, why: str) -> Answer:
        return 409, {"code": "FAIL", "message": why}


@dataclass
class AlipayDesk(Desk):
    """Alipay."""

    double: alipay.AlipayDouble

    channel = "alipay"
    method = "wap"
    taken = (200, "success")
    refused = (401, "fail")
    troubles = ("down", "forged", "unsigned", "changed", "away")
    secrets = ("platform_public_key",)

    def open(self) -> dict[str, str]:
        number = next(_numbers)
        merchant = alipay.Merchant(merchant_id=f"2088{number:012d}", app_id=f"2021{number:012d}")
        self.double.merchants[merchant.app_id] = merchant
        return {
            "merchant_id": merchant.merchant_id,
            "app_id": merchant.app_id,
            "private_key": alipay.key_text(merchant.key),
            "platform_public_key": alipay.public_key_text(self.double.key),
        }

    def show(self, number: str, payment: dict[str, str]) -> None:
        self.double.open(payment["pay_url"])
        assert number in self.double.trades

    def pay(self, number: str) -> str:
        return self.double.pay(number).trade_no

    def tell(self, number: str, *, is_paid: bool = True, is_forged: bool = False, **what: Any) -> Message:
        names = {"event_id": "notify_id", "merchant_id": "seller_id", "transaction_id": "trade_no"}
        what = {names.get(name, name): value for name, value in what.items()}
        if "amount" in what:
            fen = what.pop("amount") // FEN
            what["total_amount"] = f"{fen // 100}.{fen % 100:02d}"
        if not is_paid:
            what["trade_status"] = "WAIT_BUYER_PAY"
        return self.double.notification(number, sign_with=rsa_key("somebody") if is_forged else None, **what)

    def is_closed(self, number: str) -> bool:
        return self.double.trades[number].state == "TRADE_CLOSED"

    def refusal(self, why: str) -> Answer:
        assert why
        return 409, "fail"


@dataclass
class StripeDesk(Desk):
    """Stripe."""

    double: stripe.StripeDouble

    channel = "stripe"
    method = "checkout"
    taken = (200, {"received": True})
    refused = (401, {"received": False, "why": "not accepted"})
    troubles = ("down", "busy", "garbage")
    secrets = ("webhook_secret", "secret_key")

    def open(self) -> dict[str, str]:
        merchant = stripe.Merchant(merchant_id=f"acct_1{next(_numbers)}")
        self.double.merchants[merchant.secret_key] = merchant
        return {
            "merchant_id": merchant.merchant_id,
            "app_id": "",
            "secret_key": merchant.secret_key,
            "webhook_secret": merchant.webhook_secret,
        }

    def show(self, number: str, payment: dict[str, str]) -> None:
        assert payment == {"checkout_url": self.double.sales[number].session["url"]}

    def pay(self, number: str) -> str:
        return str(self.double.pay(number).intent["id"])

    def tell(self, number: str, *, is_paid: bool = True, is_forged: bool = False, **what: Any) -> Message:
        event = {"age": what.pop("age", 0), "event_id": what.pop("event_id", "")}
        event["secret"] = "whsec_of_somebody" if is_forged else ""
        if "merchant_id" in what:
            event["account"] = what.pop("merchant_id")
        if "amount" in what:
            what["amount_total"] = what.pop("amount") // FEN
        if "out_trade_no" in what:
            what["metadata"] = {"out_trade_no": what.pop("out_trade_no")}
        if "transaction_id" in what:
            what["payment_intent"] = what.pop("transaction_id")
        if not is_paid:
            what["payment_status"] = "unpaid"
        return self.double.notification(number, event=event, **what)

    def is_closed(self, number: str) -> bool:
        return bool(self.double.sales[number].session["status"] == "expired")

    def refusal(self, why: str) -> Answer:
        return 409, {"received": False, "why": why}


@contextmanager
def client_of(url: str) -> Iterator[httpx.Client]:
    """Make the process's client now, since threads that ask first together would each make one; end it after."""
    yield client_for(url)
    close_client(url)  # the port may come again


@contextmanager
def wechat_desk(settings: Settings) -> Iterator[WeChatDesk]:
    with wechatpay.running_wechatpay() as double:
        settings.WECHAT_PAY_API_URL = double.url
        with client_of(double.url):
            yield WeChatDesk(double)


@contextmanager
def alipay_desk(settings: Settings) -> Iterator[AlipayDesk]:
    with alipay.running_alipay() as double:
        settings.ALIPAY_GATEWAY_URL = f"{double.url}/gateway.do"
        with client_of(settings.ALIPAY_GATEWAY_URL):
            yield AlipayDesk(double)


@contextmanager
def stripe_desk(settings: Settings) -> Iterator[StripeDesk]:
    with stripe.running_stripe() as double:
        settings.STRIPE_API_URL = double.url
        with client_of(double.url):
            yield StripeDesk(double)


DESKS: dict[str, Callable[[Settings], Any]] = {"wechat": wechat_desk, "alipay": alipay_desk, "stripe": stripe_desk}
