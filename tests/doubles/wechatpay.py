"""WeChat Pay v3 over real HTTP on the loopback interface, for merchants whose keys are made for the test.

Requests must be signed as WeChat asks (RSA with SHA-256 over method, path, time, nonce and body), or are refused;
answers and notifications are signed and sealed (AES-256-GCM) as WeChat's are. What the test wants to go wrong it says:
by the arguments of `notification`, and by `trouble` for the next answers.
"""

import base64
import hashlib
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

SCHEME = "WECHATPAY2-SHA256-RSA2048"


@lru_cache
def rsa_key(name: str) -> RSAPrivateKey:
    """Return the key of that name, made once for each process: making one takes a while."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: RSAPrivateKey) -> str:
    """Return a private key as merchants paste it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: RSAPrivateKey) -> str:
    """Return the public half of a key as WeChat gives it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@lru_cache
def certificate(name: str, *, days: int = 365) -> x509.Certificate:
    """Return a certificate of the key of that name that is valid for `days` from yesterday."""
    key, began = rsa_key(name), datetime.now(UTC) - timedelta(days=1)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tenpay.com Root CA")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(began)
    return builder.not_valid_after(began + timedelta(days=days)).sign(key, SHA256())


def certificate_pem(made: x509.Certificate) -> str:
    """Return a certificate as text."""
    return made.public_bytes(Encoding.PEM).decode()


@dataclass(kw_only=True)
class Merchant:
    """A merchant as WeChat knows it, and the keys that WeChat signs with for it."""

    merchant_id: str
    app_id: str
    api_v3_key: str = field(default_factory=lambda: secrets.token_hex(16))
    key: RSAPrivateKey = field(default_factory=lambda: rsa_key("merchant"))
    serial: str = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"
    platform_key: RSAPrivateKey = field(default_factory=lambda: rsa_key("platform"))
    platform_key_id: str = ""

    def __post_init__(self) -> None:
        self.platform_key_id = self.platform_key_id or f"PUB_KEY_ID_0{self.merchant_id}"


@dataclass(kw_only=True)
class Trade:
    """An order at WeChat."""

    merchant: Merchant
    asked: dict[str, Any]
    method: str
    state: str = "NOTPAY"
    transaction_id: str = ""


@dataclass(kw_only=True)
class Refund:
    """A refund at WeChat."""

    trade: Trade
    asked: dict[str, Any]
    refund_id: str
    state: str = "PROCESSING"


@dataclass
class WeChatPayDouble:
    """WeChat Pay: its merchants, their orders, and what goes wrong next."""

    url: str = ""
    merchants: dict[str, Merchant] = field(default_factory=dict)
    trades: dict[str, Trade] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    refunds_end: str = "PROCESSING"  # what a refund is as soon as it is asked for
    refusals: deque[str] = field(default_factory=deque)  # of the next refunds, such as "NOT_ENOUGH"
    bills: dict[str, bytes] = field(default_factory=dict)  # by day
    # Of the next answers: "away" (nothing was done), "down" (done, and the answer lost), "forged", "unsigned", "old".
    trouble: deque[str] = field(default_factory=deque)
    pays_before_close: set[str] = field(default_factory=set)  # orders that are paid just before they are closed
    on_refund: Callable[[], None] | None = None  # called when a refund was made, before the answer that says so
    requests: list[tuple[str, str]] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def pay(self, out_trade_no: str) -> Trade:
        """Let the person pay an order."""
        trade = self.trades[out_trade_no]
        assert trade.state in {"NOTPAY", "CLOSED"}
        trade.state, trade.transaction_id = "SUCCESS", f"42000{secrets.randbelow(10**23):023d}"
        return trade

    def transaction(self, out_trade_no: str, /, **changes: Any) -> dict[str, Any]:
        """Return an order as WeChat describes it."""
        trade = self.trades[out_trade_no]
        said: dict[str, Any] = {
            "appid": trade.asked["appid"],
            "mchid": trade.merchant.merchant_id,
            "out_trade_no": out_trade_no,
            "trade_state": trade.state,
            "trade_state_desc": "支付成功" if trade.state == "SUCCESS" else "订单未支付",
        }
        if trade.transaction_id:
            total = trade.asked["amount"]["total"]
            amount = {"total": total, "payer_total": total, "currency": "CNY", "payer_currency": "CNY"}
            said |= {"transaction_id": trade.transaction_id, "trade_type": trade.method.upper(), "amount": amount}
            said |= {"bank_type": "OTHERS", "success_time": "2026-11-23T21:00:00+08:00", "payer": {"openid": "o1"}}
        return said | changes

    def notification(  # each is a way in which a notification can be wrong
        self,
        out_trade_no: str,
        /,
        *,
        merchant: Merchant | None = None,
        age: int = 0,
        event_id: str = "",
        sign_with: RSAPrivateKey | None = None,
        serial: str = "",
        seal_with: str = "",
        event_type: str = "TRANSACTION.SUCCESS",
        **changes: Any,
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of a notification; `changes` are to what it says of the order."""
        merchant = merchant or self.trades[out_trade_no].merchant
        return self._sealed(
            self.transaction(out_trade_no, **changes),
            "transaction",
            event_type=event_type,
            merchant=merchant,
            age=age,
            event_id=event_id,
            sign_with=sign_with,
            serial=serial,
            seal_with=seal_with,
        )

    def _sealed(
        self,
        said: dict[str, Any],
        what: str,
        *,
        event_type: str,
        merchant: Merchant,
        age: int = 0,
        event_id: str = "",
        sign_with: RSAPrivateKey | None = None,
        serial: str = "",
        seal_with: str = "",
    ) -> tuple[bytes, dict[str, str]]:
        plain = json.dumps(said, ensure_ascii=False).encode()
        nonce = secrets.token_hex(6)
        sealed = AESGCM((seal_with or merchant.api_v3_key).encode()).encrypt(nonce.encode(), plain, what.encode())
        body = {
            "id": event_id or secrets.token_hex(18),
            "create_time": "2026-11-23T21:00:00+08:00",
            "resource_type": "encrypt-resource",
            "event_type": event_type,
            "summary": "支付成功" if what == "transaction" else "退款成功",
            "resource": {
                "original_type": what,
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": base64.b64encode(sealed).decode(),
                "associated_data": what,
                "nonce": nonce,
            },
        }
        raw = json.dumps(body, ensure_ascii=False, indent=1).encode()  # spaces: only the raw bytes verify
        return raw, self.signed(raw, merchant, age=age, sign_with=sign_with, serial=serial)

    def refund(self, out_refund_no: str, /, **changes: Any) -> dict[str, Any]:
        """Return a refund as WeChat describes it to the one who asks."""
        refund = self.refunds[out_refund_no]
        total, amount = refund.asked["amount"]["total"], refund.asked["amount"]["refund"]
        said: dict[str, Any] = {
            "refund_id": refund.refund_id,
            "out_refund_no": out_refund_no,
            "transaction_id": refund.trade.transaction_id,
            "out_trade_no": refund.asked["out_trade_no"],
            "channel": "ORIGINAL",
            "user_received_account": "支付用户零钱",
            "create_time": "2026-11-23T22:00:00+08:00",
            "status": refund.state,
            "amount": {
                "total": total,
                "refund": amount,
                "payer_total": total,
                "payer_refund": amount,
                "settlement_refund": amount,
                "settlement_total": total,
                "discount_refund": 0,
                "currency": "CNY",
            },
        }
        return said | changes

    def refund_notification(
        self,
        out_refund_no: str,
        /,
        *,
        merchant: Merchant | None = None,
        age: int = 0,
        event_id: str = "",
        sign_with: RSAPrivateKey | None = None,
        **changes: Any,
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of a notification of a refund; `changes` are to what it says."""
        said = self.refund(out_refund_no)
        trade = self.refunds[out_refund_no].trade
        told: dict[str, Any] = {
            "mchid": trade.merchant.merchant_id,
            "refund_status": said["status"],
            "success_time": "2026-11-23T22:00:05+08:00",
            "amount": {name: said["amount"][name] for name in ("total", "refund", "payer_total", "payer_refund")},
        }
        for name in ("out_trade_no", "transaction_id", "out_refund_no", "refund_id", "user_received_account"):
            told[name] = said[name]
        told |= changes
        return self._sealed(
            told,
            "refund",
            event_type=f"REFUND.{told['refund_status']}",
            merchant=merchant or trade.merchant,
            age=age,
            event_id=event_id,
            sign_with=sign_with,
        )

    def signed(
        self,
        raw: bytes,
        merchant: Merchant,
        *,
        age: int = 0,
        sign_with: RSAPrivateKey | None = None,
        serial: str = "",
    ) -> dict[str, str]:
        """Return the headers of a body that WeChat sends to a merchant."""
        stamp, nonce = str(int(time.time()) - age), secrets.token_urlsafe(16)
        message = f"{stamp}\n{nonce}\n".encode() + raw + b"\n"
        signature = (sign_with or merchant.platform_key).sign(message, PKCS1v15(), SHA256())
        return {
            "Wechatpay-Serial": serial or merchant.platform_key_id,
            "Wechatpay-Signature": base64.b64encode(signature).decode(),
            "Wechatpay-Signature-Type": SCHEME,
            "Wechatpay-Timestamp": stamp,
            "Wechatpay-Nonce": nonce,
        }

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes, Merchant]:
        """Answer one request; the merchant is the one to sign for."""
        merchant = self._authenticated(method, target, headers.get("authorization", ""), body)
        if merchant is None:
            return 401, _refusal("SIGN_ERROR"), next(iter(self.merchants.values()))
        parts = urlsplit(target)
        self.requests.append((method, parts.path))
        if "/out-trade-no/" not in parts.path:
            return *self._other(method, parts.path, parse_qs(parts.query), merchant, body), merchant
        wanted = re.fullmatch(r"/v3/pay/transactions/out-trade-no/([0-9a-f]{32})(/close)?", parts.path)
        trade = self.trades.get(wanted[1]) if wanted else None
        if wanted is None or trade is None or trade.merchant is not merchant:
            return 404, _refusal("ORDER_NOT_EXIST"), merchant
        if wanted[2]:
            assert json.loads(body) == {"mchid": merchant.merchant_id}
            if wanted[1] in self.pays_before_close:
                self.pay(wanted[1])
            if trade.state in {"SUCCESS", "REFUND"}:
                return 400, _refusal("ORDERPAID"), merchant
            trade.state = "CLOSED"
            return 204, b"", merchant
        assert parse_qs(parts.query) == {"mchid": [merchant.merchant_id]}
        return 200, json.dumps(self.transaction(wanted[1]), ensure_ascii=False).encode(), merchant

    def _create(self, method: str, merchant: Merchant, asked: dict[str, Any]) -> tuple[int, bytes]:
        number = asked["out_trade_no"]
        known = self.trades.get(number)
        wrong = (
            asked["mchid"] != merchant.merchant_id
            or asked["appid"] != merchant.app_id
            or not asked["notify_url"].startswith("https://")
            or not isinstance(asked["amount"]["total"], int)
            or asked["amount"]["total"] < 1
            or datetime.fromisoformat(asked["time_expire"]) < datetime.now(UTC) + timedelta(seconds=50)
            or (method == "jsapi") != bool(asked.get("payer", {}).get("openid"))
            or (method == "h5") != bool(asked.get("scene_info", {}).get("payer_client_ip"))
        )
        if wrong or (known is not None and known.asked != asked):
            return 400, _refusal("PARAM_ERROR" if wrong else "INVALID_REQUEST")
        self.trades.setdefault(number, Trade(merchant=merchant, asked=asked, method=method))
        gives = {
            "native": {"code_url": f"weixin://wxpay/bizpayurl?pr={number[:8]}"},
            "jsapi": {"prepay_id": f"wx23{number}"},
            "h5": {"h5_url": f"https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx{number}"},
        }
        return 200, json.dumps(gives[method]).encode()

    def _other(
        self, method: str, path: str, query: dict[str, list[str]], merchant: Merchant, body: bytes
    ) -> tuple[int, bytes]:
        """Answer what is not of an order that is there."""
        if made := re.fullmatch(r"/v3/pay/transactions/(native|jsapi|h5)", path):
            return self._create(made[1], merchant, json.loads(body))
        if path.startswith("/v3/bill"):
            return self._bill(path, query)
        with self.lock:
            return self._refund(path, merchant, json.loads(body) if method == "POST" else None)

    def _refund(self, path: str, merchant: Merchant, asked: dict[str, Any] | None) -> tuple[int, bytes]:
        """Take a refund, the same one again too, or tell of one."""
        if asked is None:
            known = self.refunds.get(path.removeprefix("/v3/refund/domestic/refunds/"))
            if known is None or known.trade.merchant is not merchant:
                return 404, _refusal("RESOURCE_NOT_EXISTS")
            return 200, json.dumps(self.refund(known.asked["out_refund_no"]), ensure_ascii=False).encode()
        assert path == "/v3/refund/domestic/refunds"
        if self.refusals:
            return 403, _refusal(self.refusals.popleft())
        number, amount = asked["out_refund_no"], asked["amount"]
        trade = self.trades.get(asked["out_trade_no"])
        if trade is None or trade.merchant is not merchant:
            return 404, _refusal("RESOURCE_NOT_EXISTS")
        known = self.refunds.get(number)
        others = [
            row.asked["amount"]["refund"]
            for name, row in self.refunds.items()
            if row.trade is trade and name != number and row.state != "CLOSED"
        ]
        wrong = (
            trade.state not in {"SUCCESS", "REFUND"}
            or not re.fullmatch(r"[\w|*@-]{1,64}", number)
            or not str(asked.get("notify_url", "https://")).startswith("https://")
            or amount["currency"] != "CNY"
            or amount["total"] != trade.asked["amount"]["total"]
            or not isinstance(amount["refund"], int)
            or not 1 <= amount["refund"] <= amount["total"] - sum(others)
            or (known is not None and known.asked != asked)
        )
        if wrong:
            return 400, _refusal("INVALID_REQUEST")
        if known is None:
            refund_id = f"50300{secrets.randbelow(10**23):023d}"
            self.refunds[number] = Refund(trade=trade, asked=asked, refund_id=refund_id, state=self.refunds_end)
            trade.state = "REFUND"
            if self.on_refund is not None:
                self.on_refund()
        return 200, json.dumps(self.refund(number), ensure_ascii=False).encode()

    def _bill(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        """Say where a day's bill is, or give it."""
        if path == "/v3/billdownload/file":
            return 200, self.bills[query["token"][0]]
        assert path == "/v3/bill/tradebill"
        assert query["bill_type"] == ["ALL"]
        (day,) = query["bill_date"]
        if day not in self.bills:
            return 400, _refusal("NO_STATEMENT_EXIST")
        if not self.bills[day]:
            return 400, _refusal("STATEMENT_CREATING")
        digest = hashlib.sha1(self.bills[day], usedforsecurity=False).hexdigest()
        where = f"https://api.mch.weixin.qq.com/v3/billdownload/file?token={day}"
        return 200, json.dumps({"download_url": where, "hash_type": "SHA1", "hash_value": digest}).encode()

    def _authenticated(self, method: str, target: str, authorization: str, body: bytes) -> Merchant | None:
        scheme, _, rest = authorization.partition(" ")
        said = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        merchant = self.merchants.get(said.get("mchid", ""))
        if merchant is None or scheme != SCHEME or said["serial_no"] != merchant.serial:
            return None
        message = f"{method}\n{target}\n{said['timestamp']}\n{said['nonce_str']}\n".encode() + body + b"\n"
        try:
            merchant.key.public_key().verify(base64.b64decode(said["signature"]), message, PKCS1v15(), SHA256())
        except InvalidSignature:
            return None
        with self.lock:
            fresh = said["nonce_str"] not in self.nonces and abs(time.time() - int(said["timestamp"])) < 300
            self.nonces.add(said["nonce_str"])
        return merchant if fresh else None


def _refusal(code: str) -> bytes:
    return json.dumps({"code": code, "message": "…"}).encode()


@contextmanager
def running_wechatpay() -> Iterator[WeChatPayDouble]:
    """Serve a double until the block ends."""
    double = WeChatPayDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            trouble = double.trouble.popleft() if double.trouble else ""
            if trouble == "away":  # before the request was done; with "down" it was, and the answer is lost
                self.send_error(503)
                return
            status, said, merchant = double.answer(self.command, self.path, headers, body)
            if trouble == "down":
                status, said = 503, b"upstream connect failure"
            signed = double.signed(
                said,
                merchant,
                age=301 if trouble == "old" else 0,
                sign_with=rsa_key("somebody") if trouble == "forged" else None,
            )
            self.send_response(status)
            for name, value in {} if trouble == "unsigned" else signed.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            """Say nothing: a test's output is its own."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # our client keeps its connections

    server = Server(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
