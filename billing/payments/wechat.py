"""WeChat Pay v3: Native (QR code), JSAPI (inside WeChat) and H5 (mobile browsers), for direct merchants.

Sources: https://pay.weixin.qq.com/doc/v3/merchant/4012791874 (Native), …/4012791856 (JSAPI), …/4012791832 (H5),
…/4012365342 (signing requests), …/4013053420 (verifying), …/4012071382 (decrypting notifications).

Why not a library: docs/adr/0006-own-adapter-for-wechat-pay.md.
"""

import base64
import binascii
import hashlib
import secrets
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

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

from billing.models import MerchantAccount, Method, Order
from billing.models.recharge import FEN
from billing.payments.provider import (
    NotificationRefusedError,
    Payer,
    PaymentNotice,
    ProviderAwayError,
    ProviderRefusedError,
    Reply,
)

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS: Final = 5.0
# A signature is good for so long, either way: WeChat's own rule, which its libraries do not keep.
WINDOW_SECONDS: Final = 300
SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
API_V3_KEY_BYTES: Final = 32

_NOT_THERE: Final = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST"})
_CLOSED: Final = _NOT_THERE | {"ORDER_CLOSED", "ORDERCLOSED"}
_PAID: Final = frozenset({"ORDERPAID", "ORDER_PAID"})


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
    ) -> PaymentNotice:
        """Verify, decrypt and read a notification; `headers` by any spelling of their names."""
        self._verify(body, headers)
        try:
            event = orjson.loads(body)
            if event["event_type"] != "TRANSACTION.SUCCESS":
                raise NotificationRefusedError(f"no payment: {event['event_type']!r}")
            transaction = orjson.loads(self._decrypt(event["resource"]))
            notice = _notice(transaction, event_id=event["id"], body=body)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            raise NotificationRefusedError(f"not readable: {type(fault).__name__}") from None
        if notice is None:
            raise NotificationRefusedError(f"no payment: {transaction.get('trade_state')!r}")
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
        content = orjson.dumps(body) if body is not None else b""
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
        try:
            self._verify(answer.content, answer.headers)
        except NotificationRefusedError as fault:
            raise ProviderAwayError(f"an answer that cannot be believed: {fault}") from None
        return answer.content

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


@lru_cache(maxsize=4)
def client_for(base_url: str) -> httpx.Client:
    """Return the process's client for an API host: making one costs 25 ms."""
    return httpx.Client(base_url=base_url, timeout=TIMEOUT_SECONDS)


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
