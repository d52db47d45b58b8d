"""Alipay: payment in mobile browsers (wap) and on desktops (page), for direct merchants with keys, not certificates.

Sources: https://opendocs.alipay.com/open/203/107090 (wap), …/270/105899 (page), …/common/02mse3 (signing),
…/common/02mse7 (verifying), …/203/105286 (notifications).

A payment is an address that the payer's browser opens: Alipay hears of an order when it is opened, not when it is made,
and takes it until the order's time is over, which stands in the signed address.

Why not a library: docs/adr/0008-own-adapter-for-alipay.md.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from django.conf import settings

from billing.models import MerchantAccount, Method, Order, Refund
from billing.payments.alipay_bill import bill_lines
from billing.payments.clients import client_for
from billing.payments.provider import (
    BillLine,
    Notice,
    NotificationIgnoredError,
    NotificationRefusedError,
    Payer,
    PaymentNotice,
    ProviderAwayError,
    ProviderRefusedError,
    RefundNotice,
    Reply,
)
from billing.yuan import parse_yuan, show_yuan
from tenants import scope

# Alipay sends a notification again for up to 25 hours, under the same id; one hour is for clocks. Copies of what
# was taken are known by that id, so the window guards the size of the past that counts, and nothing else.
OLDEST: Final = timedelta(hours=26)
EARLIEST: Final = timedelta(minutes=15)
CHINA: Final = timezone(timedelta(hours=8))

_TIME: Final = "%Y-%m-%d %H:%M:%S"
_PRODUCTS: Final = {
    Method.WAP: ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    Method.PAGE: ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
}
_PAID: Final = frozenset({"TRADE_SUCCESS", "TRADE_FINISHED"})
_OK: Final = "10000"
# Codes that say nothing of the request: the gateway's own, and a business's breakdown.
_AWAY_CODE: Final = "20000"
_AWAY: Final = frozenset({"ACQ.SYSTEM_ERROR", "SYSTEM_ERROR", "isp.unknow-error", "aop.ACQ.SYSTEM_ERROR"})
_NO_TRADE: Final = "ACQ.TRADE_NOT_EXIST"
_NOT_OPEN: Final = frozenset({"ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID"})


class Alipay:
    """A merchant account at Alipay: `merchant_id` is the seller's id, `platform_public_key` is Alipay's."""

    def __init__(self, account: MerchantAccount) -> None:
        self._account = account

    def create_payment(self, order: Order, *, payer: Payer, notify_url: str) -> dict[str, str]:
        """Return `pay_url`, which the payer's browser opens; nothing is asked of Alipay."""
        method, product = _PRODUCTS[Method(order.method)]
        content = {
            "out_trade_no": order.out_trade_no,
            "total_amount": show_yuan(order.price),
            "subject": order.package_name,
            "product_code": product,
            "time_expire": order.expires_at.astimezone(CHINA).strftime(_TIME),
        }
        if order.method == Method.WAP:
            content["quit_url"] = payer.return_url
        pages = {"notify_url": notify_url, "return_url": payer.return_url}
        signed = self._signed(method, content, **pages)
        return {"pay_url": f"{settings.ALIPAY_GATEWAY_URL}?{urlencode(signed)}"}

    def parse_callback(
        self,
        *,
        body: bytes,
        headers: Mapping[str, str],  # noqa: ARG002  # the body has it all
        query: Mapping[str, str],  # noqa: ARG002  # as above
    ) -> Notice:
        """Verify and read a notification, which is a form; a refund's amount is asked for, since it gives sums only."""
        said = _form(body)
        self._verify_form(said)
        try:
            _require_fresh(said["notify_time"])
            if said.get("gmt_refund") or said.get("refund_fee"):
                return self._told_refund(said, body)
            if said["trade_status"] not in _PAID:
                raise NotificationIgnoredError(f"no payment: {said['trade_status']!r}")
            return self._payment(
                said,
                event_id=said["notify_id"],
                merchant_id=said["seller_id"],
                app_id=said["app_id"],
                digest=_digest(body),
            )
        except (KeyError, ValueError) as fault:
            raise NotificationRefusedError(f"not readable: {type(fault).__name__}") from None

    def reply(self, *, status: int, why: str = "") -> Reply:
        """Answer `success`, after which Alipay is content, or `fail`, after which it comes again."""
        return Reply(status, "fail" if why else "success", "text/plain; charset=utf-8")

    def query(self, order: Order) -> PaymentNotice | None:
        """Ask for an order; None while, or because, it is not paid, or was refunded in full."""
        try:
            answer, raw = self._ask("alipay.trade.query", {"out_trade_no": order.out_trade_no})
        except ProviderRefusedError as refusal:
            if refusal.code == _NO_TRADE:
                return None
            raise
        if answer.get("trade_status") not in _PAID:
            return None
        try:
            return self._payment(
                answer,
                event_id=f"query:{answer['trade_no']}",
                merchant_id=self._account.merchant_id,
                app_id=self._account.app_id,
                digest=_digest(raw),
            )
        except (KeyError, TypeError, ValueError) as fault:
            raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None

    def close(self, order: Order) -> bool:
        """Close an order. One that was never opened is unknown there, and its address is no longer taken."""
        try:
            self._ask("alipay.trade.close", {"out_trade_no": order.out_trade_no})
        except ProviderRefusedError as refusal:
            if refusal.code == _NO_TRADE:
                return True
            # Paid, or closed already: the caller asks which.
            if refusal.code in _NOT_OPEN:
                return False
            raise
        return True

    def refund(self, refund: Refund, *, notify_url: str) -> RefundNotice:  # noqa: ARG002  # goes to the payment's address
        """Ask for a refund; Alipay pays one `out_request_no` back once, and says of a second try that nothing moved.

        Alipay would show its payer a reason, which is staff's: it is not sent.
        """
        order = refund.order
        wanted = {
            "out_trade_no": order.out_trade_no,
            "refund_amount": show_yuan(refund.amount),
            "out_request_no": refund.out_refund_no,
        }
        answer, raw = self._ask("alipay.trade.refund", wanted)
        if answer.get("fund_change") == "Y":
            return self._asked_refund(refund, answer, raw, state="done")
        return self.query_refund(refund) or self._asked_refund(refund, answer, raw, state="pending")

    def query_refund(self, refund: Refund) -> RefundNotice | None:
        """Ask for a refund: it is done once Alipay says REFUND_SUCCESS, and unknown while it does not name it."""
        found = self._find_refund(refund.order.out_trade_no, refund.out_refund_no)
        if found is None:
            return None
        answer, raw = found
        done = answer.get("refund_status") == "REFUND_SUCCESS"
        return self._asked_refund(refund, answer, raw, state="done" if done else "pending")

    def bill(self, day: date) -> list[BillLine]:
        """Return the trades and refunds of a day, from the file that Alipay makes in the next morning."""
        wanted = {"bill_type": "trade", "bill_date": day.isoformat()}
        try:
            answer, _raw = self._ask("alipay.data.dataservice.bill.downloadurl.query", wanted)
        except ProviderRefusedError as refusal:
            if refusal.code.lower().replace("-", "_").endswith("bill_not_exist"):
                return []
            raise
        try:
            return bill_lines(_word(answer["bill_download_url"]))
        except (KeyError, ValueError) as fault:
            raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None

    def _payment(
        self, said: Mapping[str, Any], *, event_id: str, merchant_id: str, app_id: str, digest: str
    ) -> PaymentNotice:
        """Read what notifications and answers have in common; raise KeyError or ValueError."""
        number = _word(said["trade_no"])
        return PaymentNotice(
            event_id=_word(event_id),
            out_trade_no=_word(said["out_trade_no"]),
            transaction_id=number,
            merchant_id=merchant_id,
            app_id=app_id,
            amount=parse_yuan(said["total_amount"]),
            currency="CNY",
            body_digest=digest,
        )

    def _told_refund(self, said: Mapping[str, str], body: bytes) -> RefundNotice:
        """Read a notification of a refund: ours, or one that the merchant made on Alipay's own pages."""
        request, order_number = said.get("out_biz_no", ""), _word(said["out_trade_no"])
        found = self._find_refund(order_number, request) if request else None
        if found is None:
            raise ProviderAwayError("a refund that Alipay does not find")
        answer, _raw = found
        with scope.tenant(self._account.tenant_id):
            is_ours = Refund.objects.filter(out_refund_no=request).exists()
        return RefundNotice(
            event_id=_word(said["notify_id"]),
            out_trade_no=order_number,
            out_refund_no=request if is_ours else "",
            refund_id=request,
            merchant_id=said["seller_id"],
            app_id=said["app_id"],
            amount=parse_yuan(answer["refund_amount"]),
            currency="CNY",
            state="done" if answer.get("refund_status") == "REFUND_SUCCESS" else "pending",
            forced=not is_ours,
            body_digest=_digest(body),
        )

    def _asked_refund(self, refund: Refund, answer: Mapping[str, Any], raw: bytes, *, state: Any) -> RefundNotice:
        """Return what an answer tells of a refund; what it costs is what we asked, unless the answer names it."""
        try:
            amount = parse_yuan(answer["refund_amount"]) if "refund_amount" in answer else refund.amount
        except ValueError:
            raise ProviderAwayError("an amount that is not readable") from None
        return RefundNotice(
            event_id=f"refund:{refund.out_refund_no}:{state}",
            out_trade_no=refund.order.out_trade_no,
            out_refund_no=refund.out_refund_no,
            refund_id=refund.out_refund_no,
            merchant_id=self._account.merchant_id,
            app_id=self._account.app_id,
            amount=amount,
            currency="CNY",
            state=state,
            forced=False,
            body_digest=_digest(raw),
        )

    def _find_refund(self, out_trade_no: str, request: str) -> tuple[dict[str, Any], bytes] | None:
        try:
            wanted = {"out_trade_no": out_trade_no, "out_request_no": request}
            answer, raw = self._ask("alipay.trade.fastpay.refund.query", wanted)
        except ProviderRefusedError as refusal:
            if refusal.code == _NO_TRADE:
                return None
            raise
        # Of a refund that is not there Alipay says nothing, and says it with a code of success.
        return (answer, raw) if answer.get("out_request_no") == request else None

    def _ask(self, method: str, content: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
        """Make a signed request; return the answer and the bytes that Alipay signed."""
        said = self._signed(method, content)
        # As in Alipay's own clients: what the gateway reads is in the address, what the method reads in the form.
        form = {"biz_content": said.pop("biz_content")}
        gateway = settings.ALIPAY_GATEWAY_URL
        try:
            reply = client_for(gateway).post(f"{gateway}?{urlencode(said)}", data=form)
        except httpx.HTTPError as fault:
            raise ProviderAwayError(type(fault).__name__) from None
        if not reply.is_success:
            raise ProviderAwayError(f"status {reply.status_code}")
        answer, raw, signature = _node(reply.content, f"{method.replace('.', '_')}_response")
        code, word = str(answer.get("code", "")), str(answer.get("sub_code", ""))[:40]
        try:
            self._verify(raw, signature)
        except NotificationRefusedError as fault:
            # The gateway does not sign what it says of requests that it could not read: keys, permissions.
            if word.startswith("isv.") and not signature:
                raise ProviderRefusedError(word) from None
            raise ProviderAwayError(f"an answer that cannot be believed: {fault}") from None
        if code == _AWAY_CODE or word in _AWAY or not code:
            raise ProviderAwayError(f"{code} {word}")
        if code != _OK:
            raise ProviderRefusedError(word or code)
        named = content.get("out_trade_no")
        if named is not None and answer.get("out_trade_no", named) != named:
            raise ProviderAwayError("the answer to another question")
        return answer, raw

    def _signed(self, method: str, content: Mapping[str, str], **more: str) -> dict[str, str]:
        """Return a request's parameters: its own, the gateway's, and the signature over all of them."""
        said = {
            "app_id": self._account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": datetime.now(CHINA).strftime(_TIME),
            "version": "1.0",
            "biz_content": json.dumps(content, ensure_ascii=False, separators=(",", ":")),
            **more,
        }
        said = {name: value for name, value in said.items() if value}
        signature = _private_key(self._account.private_key).sign(_signable(said), PKCS1v15(), SHA256())
        return {**said, "sign": base64.b64encode(signature).decode()}

    def _verify_form(self, said: Mapping[str, str]) -> None:
        if said.get("sign_type") != "RSA2" or said.get("charset", "utf-8").lower() != "utf-8":
            raise NotificationRefusedError("another kind of signature or of text")
        signed = {name: value for name, value in said.items() if name not in {"sign", "sign_type"}}
        self._verify(_signable(signed), said.get("sign", ""))

    def _verify(self, message: bytes, signature: str) -> None:
        """Raise NotificationRefusedError unless Alipay signed exactly these bytes."""
        key = _public_key(self._account.platform_public_key)
        try:
            key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
        except (binascii.Error, ValueError, InvalidSignature):
            raise NotificationRefusedError("not signed by Alipay") from None


def _private_key(text: str) -> RSAPrivateKey:
    """Read a key as Alipay's tool makes it, which is base64 alone, or as PEM; raise ProviderRefusedError."""
    try:
        pem = "-----BEGIN" in text
        key = load_pem_private_key(text.encode(), None) if pem else load_der_private_key(_der(text), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ProviderRefusedError("NO_PRIVATE_KEY")
    return key


def _public_key(text: str) -> RSAPublicKey:
    """Read Alipay's key, base64 alone or PEM; raise NotificationRefusedError where there is none."""
    try:
        key = load_pem_public_key(text.encode()) if "-----BEGIN" in text else load_der_public_key(_der(text))
    except ValueError:
        key = None
    if not isinstance(key, RSAPublicKey):
        raise NotificationRefusedError("the merchant has no public key of Alipay's")
    return key


def _der(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


def _signable(said: Mapping[str, str]) -> bytes:
    return "&".join(f"{name}={value}" for name, value in sorted(said.items())).encode()


def _form(body: bytes) -> dict[str, str]:
    """Read a form whose names are each there once."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise NotificationRefusedError("not a form") from None
    said = dict(pairs)
    if len(said) != len(pairs):
        raise NotificationRefusedError("a form that says a thing twice")
    return said


def _require_fresh(text: str) -> None:
    age = datetime.now(CHINA) - datetime.strptime(text, _TIME).replace(tzinfo=CHINA)
    if not -EARLIEST <= age <= OLDEST:
        raise NotificationRefusedError("outside the window of time")


def _node(body: bytes, name: str) -> tuple[dict[str, Any], bytes, str]:
    """Return an answer, the bytes that its signature is over, and the signature: text between braces, as it came."""
    try:
        text = body.decode()
        whole = json.loads(text)
        name = name if name in whole else "error_response"
        begin = text.index(f'"{name}":') + len(f'"{name}":')
        answer, end = json.JSONDecoder().raw_decode(text, begin)
        signature = whole.get("sign", "")
    except (AttributeError, TypeError, ValueError) as fault:
        raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None
    if not isinstance(answer, dict) or not isinstance(signature, str):
        raise ProviderAwayError("an answer that is no object")
    return answer, text[begin:end].encode(), signature


def _word(text: object) -> str:
    if not isinstance(text, str) or not text or "\x00" in text:
        raise ValueError("names are texts")
    return text


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
