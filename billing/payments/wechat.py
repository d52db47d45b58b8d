"""WeChat Pay v3: Native (QR code), JSAPI (inside WeChat) and H5 (mobile browsers), for direct merchants.

Sources: https://pay.weixin.qq.com/doc/v3/merchant/4012791874 (Native), …/4012791856 (JSAPI), …/4012791832 (H5),
…/4012365342 (signing requests), …/4013053420 (verifying), …/4012071382 (decrypting notifications); refunds:
https://pay.weixin.qq.com/docs/merchant/apis/jsapi-payment/create.html and query-by-out-refund-no.html and
refund-result-notice.html beside it; bills: get-trade-bill.html and download-bill.html there.

Why not a library: docs/adr/0006-own-adapter-for-wechat-pay.md.
"""

import base64
import binascii
import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx
import orjson
import structlog
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificates
from django.conf import settings
from django.utils import timezone

from billing.models import MerchantAccount, Method, Order, Refund
from billing.models.recharge import FEN
from billing.payments.clients import client_for
from billing.payments.provider import (
    BillLine,
    Notice,
    NotificationRefusedError,
    Payer,
    PaymentNotice,
    ProviderAwayError,
    ProviderRefusedError,
    RefundNotice,
    Reply,
)
from billing.yuan import parse_yuan

log = structlog.get_logger(__name__)

# A signature is good for so long, either way: WeChat's own rule, which its libraries do not keep.
WINDOW_SECONDS: Final = 300
SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
API_V3_KEY_BYTES: Final = 32

_NOT_THERE: Final = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST"})
_CLOSED: Final = _NOT_THERE | {"ORDER_CLOSED", "ORDERCLOSED"}
_PAID: Final = frozenset({"ORDERPAID", "ORDER_PAID"})
_NO_REFUND: Final = frozenset({"RESOURCE_NOT_EXISTS", "REFUND_NOT_EXISTS", "REFUNDNOTEXIST"})

# ABNORMAL is not the end: the payer's card could not take the money, and the merchant sends it elsewhere, by hand at
# WeChat, after which the refund is a SUCCESS. To give the balance back meanwhile would pay twice.
_REFUND_STATES: Final[dict[str, Literal["pending", "done", "failed"]]] = {
    "PROCESSING": "pending",
    "ABNORMAL": "pending",
    "SUCCESS": "done",
    "CLOSED": "failed",
}


class WeChatPay:
    """A merchant account at WeChat Pay."""

    def __init__(self, account: MerchantAccount) -> None:
        self._account = account

    def create_payment(self, order: Order, *, payer: Payer, notify_url: str) -> dict[str, str]:
        """Announce an order; return `code_url`, `h5_url`, or what `wx.requestPayment` wants."""
        body = {
            "appid": order.app_id,
            "mchid": order.merchant_id,
            "description": order.package_name,
            "out_trade_no": order.out_trade_no,
            "time_expire": timezone.localtime(order.expires_at).isoformat(timespec="seconds"),
            "notify_url": notify_url,
            "amount": {"total": order.price // FEN, "currency": "CNY"},
        }
        if order.method == Method.JSAPI:
            body["payer"] = {"openid": payer.openid}
        if order.method == Method.H5:
            body["scene_info"] = {"payer_client_ip": payer.address, "h5_info": {"type": "Wap"}}
        answer = _object(self._ask("POST", f"/v3/pay/transactions/{order.method}", body))
        if order.method == Method.JSAPI:
            return self._request_payment(order, _text(answer, "prepay_id"))
        wanted = "code_url" if order.method == Method.NATIVE else "h5_url"
        return {wanted: _text(answer, wanted)}

    def parse_callback(
        self,
        *,
        body: bytes,
        headers: Mapping[str, str],
        query: Mapping[str, str],  # noqa: ARG002  # the contract's; nothing stands there
    ) -> Notice:
        """Verify, decrypt and read a notification; `headers` by any spelling of their names."""
        self._verify(body, headers)
        try:
            event = orjson.loads(body)
            kind = event["event_type"]
            if kind != "TRANSACTION.SUCCESS" and not kind.startswith("REFUND."):
                raise NotificationRefusedError(f"no payment and no refund: {kind!r}")
            said = orjson.loads(self._decrypt(event["resource"]))
            if kind.startswith("REFUND."):
                return self._refund_notice(said, event_id=event["id"], body=body)
            notice = _notice(said, event_id=event["id"], body=body)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            raise NotificationRefusedError(f"not readable: {type(fault).__name__}") from None
        if notice is None:
            raise NotificationRefusedError(f"no payment: {said.get('trade_state')!r}")
        return notice

    def reply(self, *, status: int, why: str = "") -> Reply:
        """Answer in WeChat Pay's form: https://pay.weixin.qq.com/doc/v3/merchant/4012791902."""
        body = {"code": "FAIL", "message": why} if why else {"code": "SUCCESS", "message": ""}
        return Reply(status, orjson.dumps(body).decode(), "application/json")

    def query(self, order: Order) -> PaymentNotice | None:
        """Ask for an order; None while, or because, it is not paid, or was refunded by hand."""
        path = f"/v3/pay/transactions/out-trade-no/{order.out_trade_no}?mchid={order.merchant_id}"
        try:
            answer = self._ask("GET", path)
        except ProviderRefusedError as refusal:
            if refusal.code in _NOT_THERE:
                return None
            raise
        try:
            return _notice(_object(answer), event_id="", body=answer)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None

    def close(self, order: Order) -> bool:
        """Close an order; one that WeChat does not know, or has closed itself, is closed."""
        path = f"/v3/pay/transactions/out-trade-no/{order.out_trade_no}/close"
        try:
            self._ask("POST", path, {"mchid": order.merchant_id})
        except ProviderRefusedError as refusal:
            if refusal.code not in _CLOSED | _PAID:
                raise
            return refusal.code in _CLOSED
        return True

    def refund(self, refund: Refund, *, notify_url: str) -> RefundNotice:
        """Ask for a refund. WeChat would show its payer the reason, which is staff's: it is not sent."""
        body = {
            "out_trade_no": refund.order.out_trade_no,
            "out_refund_no": refund.out_refund_no,
            "amount": {"refund": refund.amount // FEN, "total": refund.order.price // FEN, "currency": "CNY"},
        }
        if notify_url:
            body["notify_url"] = notify_url
        return self._refund_answer(self._ask("POST", "/v3/refund/domestic/refunds", body))

    def query_refund(self, refund: Refund) -> RefundNotice | None:
        """Ask for a refund; None if WeChat never heard of it."""
        try:
            answer = self._ask("GET", f"/v3/refund/domestic/refunds/{refund.out_refund_no}")
        except ProviderRefusedError as refusal:
            if refusal.code in _NO_REFUND:
                return None
            raise
        return self._refund_answer(answer)

    def bill(self, day: date) -> list[BillLine]:
        """Return what was paid and refunded on a day. WeChat has it from ten o'clock of the next one, for three months.

        ProviderAwayError while WeChat is still making it, or where the file is not the one that WeChat vouches for.
        """
        try:
            answer = _object(self._ask("GET", f"/v3/bill/tradebill?bill_date={day.isoformat()}&bill_type=ALL"))
        except ProviderRefusedError as refusal:
            if refusal.code == "NO_STATEMENT_EXIST":
                return []  # nothing was paid that day
            if refusal.code == "STATEMENT_CREATING":
                raise ProviderAwayError(refusal.code) from None
            raise
        if _text(answer, "hash_type") != "SHA1":
            raise ProviderAwayError("another kind of digest")
        where = urlsplit(_text(answer, "download_url"))
        # The file itself is not signed; its digest is in the answer, which is.
        file = self._send("GET", f"{where.path}?{where.query}", b"").content
        if hashlib.sha1(file, usedforsecurity=False).hexdigest() != _text(answer, "hash_value").lower():
            raise ProviderAwayError("a bill with another digest")
        try:
            return list(_bill_lines(file.decode("utf-8-sig")))
        except (KeyError, StopIteration, ValueError) as fault:
            raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None

    def _refund_answer(self, answer: bytes) -> RefundNotice:
        try:
            return self._refund_notice(_object(answer), event_id="", body=answer)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None

    def _refund_notice(self, said: dict[str, Any], *, event_id: str, body: bytes) -> RefundNotice:
        """Read a refund. Raises KeyError, TypeError or ValueError where it is not one.

        WeChat names the merchant in notifications only, and the app never: its answers are to this merchant's requests.
        """
        status = said["refund_status"] if event_id else said["status"]
        amount = said["amount"]["refund"]
        if not isinstance(amount, int) or isinstance(amount, bool):
            raise TypeError("an amount is a whole number of fen")
        number, ours = said["refund_id"], said["out_refund_no"]
        merchant_id = said["mchid"] if event_id else self._account.merchant_id
        if not all(isinstance(word, str) and word for word in (number, ours, said["out_trade_no"], merchant_id)):
            raise TypeError("names are texts")
        if status == "ABNORMAL":
            log.error("refund_abnormal", merchant=merchant_id, refund_number=ours, what="settle it at WeChat by hand")
        return RefundNotice(
            event_id=event_id or f"refund:{number}:{status}",
            out_trade_no=said["out_trade_no"],
            out_refund_no=ours,
            refund_id=number,
            merchant_id=merchant_id,
            app_id="",
            amount=amount * FEN,
            currency=str(said["amount"].get("currency", "CNY")),
            state=_REFUND_STATES[status],
            forced=False,
            body_digest=hashlib.sha256(body).hexdigest(),
        )

    def _request_payment(self, order: Order, prepay_id: str) -> dict[str, str]:
        """Return the arguments of `wx.requestPayment` and of WeChat's bridge in web pages."""
        stamp, nonce, package = str(int(time.time())), secrets.token_hex(16), f"prepay_id={prepay_id}"
        signed = self._sign(f"{order.app_id}\n{stamp}\n{nonce}\n{package}\n".encode())
        return {
            "appId": order.app_id,
            "timeStamp": stamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": signed,
        }

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """Make a signed request; return the verified answer, empty where WeChat has nothing to say."""
        answer = self._send(method, path, orjson.dumps(body) if body is not None else b"")
        try:
            self._verify(answer.content, answer.headers)
        except NotificationRefusedError as fault:
            raise ProviderAwayError(f"an answer that cannot be believed: {fault}") from None
        return answer.content

    def _send(self, method: str, path: str, content: bytes) -> httpx.Response:
        """Make a signed request; return the answer, which is not verified."""
        headers = {
            "Authorization": self._authorization(method, path, content),
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "banyan",
        }
        if self._account.platform_key_id:
            headers["Wechatpay-Serial"] = self._account.platform_key_id
        try:
            answer = client_for(settings.WECHAT_PAY_API_URL).request(method, path, content=content, headers=headers)
        except httpx.HTTPError as fault:
            raise ProviderAwayError(type(fault).__name__) from None
        if not answer.is_success:
            raise _failure(answer)
        return answer

    def _authorization(self, method: str, path: str, content: bytes) -> str:
        stamp, nonce = str(int(time.time())), secrets.token_hex(16)
        signature = self._sign(f"{method}\n{path}\n{stamp}\n{nonce}\n".encode() + content + b"\n")
        parts = {
            "mchid": self._account.merchant_id,
            "nonce_str": nonce,
            "timestamp": stamp,
            "serial_no": self._account.certificate_serial,
            "signature": signature,
        }
        return f"{SCHEME} " + ",".join(f'{name}="{value}"' for name, value in parts.items())

    def _sign(self, message: bytes) -> str:
        try:
            key = load_pem_private_key(self._account.private_key.encode(), password=None)
        except (ValueError, TypeError):
            raise ProviderRefusedError("NO_PRIVATE_KEY") from None
        if not isinstance(key, RSAPrivateKey):
            raise ProviderRefusedError("NO_PRIVATE_KEY")
        return base64.b64encode(key.sign(message, PKCS1v15(), SHA256())).decode()

    def _verify(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Raise NotificationRefusedError unless WeChat signed exactly these bytes within the window."""
        said = {name.lower(): value for name, value in headers.items()}
        # Absent in some notifications; the signature is checked as RSA with SHA-256 either way.
        if said.get("wechatpay-signature-type", SCHEME) != SCHEME:
            raise NotificationRefusedError("another kind of signature")
        stamp, nonce = said.get("wechatpay-timestamp", ""), said.get("wechatpay-nonce", "")
        if not stamp.isascii() or not stamp.isdigit() or abs(time.time() - int(stamp)) > WINDOW_SECONDS:
            raise NotificationRefusedError("outside the window of time")
        key = self._platform_keys().get(_key_id(said.get("wechatpay-serial", "")))
        if key is None:
            raise NotificationRefusedError("signed with a key that is not this merchant's")
        try:
            signature = base64.b64decode(said.get("wechatpay-signature", ""), validate=True)
            key.verify(signature, f"{stamp}\n{nonce}\n".encode() + body + b"\n", PKCS1v15(), SHA256())
        except (binascii.Error, InvalidSignature):
            raise NotificationRefusedError("not signed by WeChat") from None

    def _platform_keys(self) -> dict[str, RSAPublicKey]:
        """Return the keys that WeChat may sign with, by `_key_id`; unset ones are not among them."""
        keys: dict[str, Any] = {}
        account = self._account
        try:
            if account.platform_key_id and account.platform_public_key:
                keys[_key_id(account.platform_key_id)] = load_pem_public_key(account.platform_public_key.encode())
            if account.platform_certificates:
                now = timezone.now()
                for certificate in load_pem_x509_certificates(account.platform_certificates.encode()):
                    if certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
                        keys[_key_id(f"{certificate.serial_number:X}")] = certificate.public_key()
        except ValueError:
            log.error("merchant_misconfigured", merchant=account.merchant_id, what="platform key or certificate")  # noqa: TRY400  # a traceback would add nothing
        return {name: key for name, key in keys.items() if isinstance(key, RSAPublicKey)}

    def _decrypt(self, resource: dict[str, str]) -> bytes:
        key = self._account.api_v3_key.encode()
        if len(key) != API_V3_KEY_BYTES:
            raise NotificationRefusedError("the merchant has no API v3 key")
        if resource["algorithm"] != "AEAD_AES_256_GCM":
            raise NotificationRefusedError("another kind of encryption")
        sealed = base64.b64decode(resource["ciphertext"], validate=True)
        extra = (resource.get("associated_data") or "").encode()
        try:
            return AESGCM(key).decrypt(resource["nonce"].encode(), sealed, extra)
        except InvalidTag:
            raise NotificationRefusedError("not sealed with the merchant's API v3 key") from None


def _key_id(name: str) -> str:
    """Return a public key's id, or a certificate's serial number, in one spelling."""
    return name.upper().lstrip("0")


def _failure(answer: httpx.Response) -> ProviderAwayError | ProviderRefusedError:
    """Tell a refusal from a breakdown. WeChat's message may quote the request, so only its code is kept."""
    try:
        code = str(orjson.loads(answer.content)["code"])[:40]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code = ""
    if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS or not code:
        return ProviderAwayError(f"status {answer.status_code} {code}")
    return ProviderRefusedError(code)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(raw)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise ProviderAwayError("an answer that is no object")
    return said


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise ProviderAwayError(f"an answer without {name}")
    return value


def _notice(transaction: dict[str, Any], *, event_id: str, body: bytes) -> PaymentNotice | None:
    """Read a transaction; None if it is no payment. Raises KeyError, TypeError or ValueError where it is not one."""
    if transaction["trade_state"] != "SUCCESS":
        return None
    total = transaction["amount"]["total"]
    if not isinstance(total, int) or isinstance(total, bool):
        raise TypeError("an amount is a whole number of fen")
    number = transaction["transaction_id"]
    words = (number, transaction["out_trade_no"], transaction["mchid"], transaction["appid"], event_id)
    if not all(isinstance(word, str) for word in words) or not number:
        raise TypeError("names are texts")
    return PaymentNotice(
        event_id=event_id or f"query:{number}",
        out_trade_no=transaction["out_trade_no"],
        transaction_id=number,
        merchant_id=transaction["mchid"],
        app_id=transaction["appid"],
        amount=total * FEN,
        currency=str(transaction["amount"].get("currency", "CNY")),
        body_digest=hashlib.sha256(body).hexdigest(),
    )


def _bill_lines(text: str) -> Iterator[BillLine]:
    """Read a bill: a line of titles, a line for each payment and refund, and a summary of two lines.

    Values begin with a backtick, so that a comma in a product's name cannot be taken for a border. Raises KeyError,
    ValueError or StopIteration for anything else.
    """
    lines = iter(text.splitlines())
    titles = next(lines).split(",")
    for line in lines:
        if not line.startswith("`"):
            return  # the summary's titles
        row = dict(zip(titles, line.removeprefix("`").split(",`"), strict=True))
        if row["交易状态"] == "SUCCESS":
            out_refund_no, amount = "", parse_yuan(row["订单金额"])
        elif row["退款状态"] != "FAIL":
            out_refund_no, amount = row["商户退款单号"], -parse_yuan(row["申请退款金额"])
        else:
            continue
        yield BillLine(
            out_trade_no=row["商户订单号"],
            out_refund_no=out_refund_no,
            transaction_id=row["微信订单号"],
            amount=amount,
        )
