"""Alipay's gateway over real HTTP on the loopback interface, for merchants whose keys are made for the test.

Requests must be signed as Alipay asks (RSA2 over the sorted parameters), or are refused; answers and notifications are
signed as Alipay's are. What the test wants to go wrong it says: by the arguments of `notification`, and by `trouble`
for the next answers.
"""

import base64
import io
import json
import secrets
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.doubles.serving import Asked, Said, serving
from tests.doubles.wechatpay import rsa_key

CHINA = timezone(timedelta(hours=8))
TIME = "%Y-%m-%d %H:%M:%S"
COLUMNS = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,"
    "卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)


def key_text(key: RSAPrivateKey) -> str:
    """Return a private key as Alipay's tool makes it: PKCS #1 in base64, no PEM."""
    return base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())).decode()


def public_key_text(key: RSAPrivateKey) -> str:
    """Return a public key as Alipay's pages show it."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public).decode()


@dataclass(kw_only=True)
class Merchant:
    """A merchant as Alipay knows it."""

    merchant_id: str
    app_id: str
    key: RSAPrivateKey = field(default_factory=lambda: rsa_key("alipay-app"))


@dataclass(kw_only=True)
class Trade:
    """An order at Alipay, from when its address was opened."""

    merchant: Merchant
    asked: dict[str, Any]
    trade_no: str
    state: str = "WAIT_BUYER_PAY"
    refunds: dict[str, str] = field(default_factory=dict)


@dataclass
class AlipayDouble:
    """Alipay: its merchants, their trades, and what goes wrong next."""

    url: str = ""
    key: RSAPrivateKey = field(default_factory=lambda: rsa_key("alipay"))
    merchants: dict[str, Merchant] = field(default_factory=dict)
    trades: dict[str, Trade] = field(default_factory=dict)
    trouble: deque[str] = field(default_factory=deque)  # of the next answers: "down", "forged", "unsigned", "changed"
    pays_before_close: set[str] = field(default_factory=set)  # orders that are paid just before they are closed
    slow_refunds: bool = False  # refunds are taken, and not done at once
    refund_requests: list[Mapping[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, pay_url: str) -> Trade:
        """Do what a payer's browser does that opens a payment's address."""
        pairs = parse_qsl(urlsplit(pay_url).query, keep_blank_values=True, strict_parsing=True)
        said = dict(pairs)
        assert len(pairs) == len(said)
        merchant = self._authenticated(said)
        assert merchant is not None
        asked = json.loads(said["biz_content"])
        product = {"alipay.trade.wap.pay": "QUICK_WAP_WAY", "alipay.trade.page.pay": "FAST_INSTANT_TRADE_PAY"}
        assert asked["product_code"] == product[said["method"]]
        assert said["notify_url"].startswith("https://")
        assert said["return_url"].startswith("https://")
        assert asked.get("quit_url", "https://").startswith("https://")
        assert datetime.strptime(asked["time_expire"], TIME).replace(tzinfo=CHINA) > datetime.now(CHINA)
        number = f"2026112522{secrets.randbelow(10**18):018d}"
        trade = self.trades.setdefault(
            asked["out_trade_no"], Trade(merchant=merchant, asked={**asked, **said}, trade_no=number)
        )
        assert trade.asked["total_amount"] == asked["total_amount"]
        return trade

    def pay(self, out_trade_no: str) -> Trade:
        """Let the person pay an order."""
        trade = self.trades[out_trade_no]
        assert trade.state in {"WAIT_BUYER_PAY", "TRADE_CLOSED"}
        trade.state = "TRADE_SUCCESS"
        return trade

    def notification(
        self,
        out_trade_no: str,
        /,
        *,
        age: int = 0,
        sign_with: RSAPrivateKey | None = None,
        leave_out: tuple[str, ...] = (),
        **changes: Any,
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of a notification; `changes` are to what it says of the order."""
        trade = self.trades[out_trade_no]
        sent = datetime.now(CHINA) - timedelta(seconds=age)
        said = {
            "gmt_create": "2026-11-25 22:00:00",
            "charset": "utf-8",
            "gmt_payment": "2026-11-25 22:00:05",
            "notify_time": sent.strftime(TIME),
            "subject": trade.asked["subject"],
            "buyer_id": "2088102116773037",
            "invoice_amount": trade.asked["total_amount"],
            "version": "1.0",
            "notify_id": secrets.token_hex(17),
            "fund_bill_list": f'[{{"amount":"{trade.asked["total_amount"]}","fundChannel":"ALIPAYACCOUNT"}}]',
            "notify_type": "trade_status_sync",
            "out_trade_no": out_trade_no,
            "total_amount": trade.asked["total_amount"],
            "trade_status": trade.state,
            "trade_no": trade.trade_no,
            "auth_app_id": trade.merchant.app_id,
            "receipt_amount": trade.asked["total_amount"],
            "point_amount": "0.00",
            "buyer_pay_amount": trade.asked["total_amount"],
            "app_id": trade.merchant.app_id,
            "seller_id": trade.merchant.merchant_id,
            "body": "",
            **changes,
        }
        signed = self.sign(_signable(said), sign_with)
        form = {**said, "sign_type": "RSA2", "sign": signed}
        raw = "&".join(f"{name}={quote_plus(value)}" for name, value in form.items() if name not in leave_out)
        return raw.encode(), {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}

    def refund_notification(self, out_trade_no: str, request: str, **changes: Any) -> tuple[bytes, dict[str, str]]:
        """Return what Alipay tells of a refund: the sum of all, and no amount of this one."""
        trade = self.trades[out_trade_no]
        fee: dict[str, Any] = {
            "refund_fee": _sum(trade.refunds.values()),
            "out_biz_no": request,
            "gmt_refund": "2026-11-25 23:00:00.1",
        }
        return self.notification(out_trade_no, **{**fee, **changes})

    def refund_by_hand(self, out_trade_no: str, amount: str) -> str:
        """Let the merchant pay something back on Alipay's own pages; return the request's number."""
        request = f"HAND{secrets.token_hex(8)}"
        self.trades[out_trade_no].refunds[request] = amount
        return request

    def sign(self, message: bytes, key: RSAPrivateKey | None = None) -> str:
        return base64.b64encode((key or self.key).sign(message, PKCS1v15(), SHA256())).decode()

    def answer(self, asked: Asked) -> Said:
        """Answer one request."""
        parts = urlsplit(asked.target)
        if asked.method == "GET" and parts.path in {"/gateway.do", "/paid"}:
            return self._page(parts.path, asked.target, parts.query)
        if parts.path == "/bill.zip":
            return Said(body=self._bill(), headers={"Content-Type": "application/zip"})
        trouble = self.trouble.popleft() if self.trouble else ""
        if trouble == "down":
            return Said(status=503, body=b"upstream connect failure")
        said = dict(parse_qsl(parts.query, strict_parsing=True))
        assert said["charset"] == "utf-8"
        said |= parse_qsl(asked.body.decode("ascii"), strict_parsing=True)
        node = f"{said['method'].replace('.', '_')}_response"
        merchant = self._authenticated(said)
        self.requests.append(said["method"])
        if merchant is None:
            wrong = {"code": "40002", "msg": "Invalid Arguments", "sub_code": "isv.invalid-signature"}
            return Said(body=f'{{"{node}":{json.dumps(wrong)}}}'.encode())  # not signed, as Alipay's is not
        handler = getattr(self, f"_{said['method'].replace('.', '_')}")
        result = (
            {"code": "20000", "msg": "x"} if trouble == "away" else handler(merchant, json.loads(said["biz_content"]))
        )
        # Alipay escapes slashes, and only the bytes as they came verify.
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
        signature = self.sign(text.encode(), rsa_key("somebody") if trouble == "forged" else None)
        text = text.replace('"code":', '"code" :') if trouble == "changed" else text
        tail = "" if trouble == "unsigned" else f',"sign":"{signature}"'
        return Said(body=f'{{"{node}":{text}{tail}}}'.encode(), headers={"Content-Type": "text/html;charset=utf-8"})

    def _page(self, path: str, target: str, query: str) -> Said:
        """Show a payer's browser what is to be paid, and take it."""
        if path == "/gateway.do":
            trade = self.open(target)
            number, total = trade.asked["out_trade_no"], trade.asked["total_amount"]
            shown = f'<h1>Alipay</h1><p><a href="/paid?number={number}">Pay {total}</a></p>'
        else:
            self.pay(dict(parse_qsl(query))["number"])
            shown = "<h1>Alipay</h1><p>Thank you</p>"
        page = f'<!doctype html><html lang="en"><title>Alipay</title><link rel="icon" href="data:,">{shown}</html>'
        return Said(body=page.encode(), headers={"Content-Type": "text/html;charset=utf-8"})

    def _alipay_trade_query(self, merchant: Merchant, asked: Mapping[str, str]) -> dict[str, str]:
        trade = self._trade(merchant, asked)
        if trade is None:
            return _failed("ACQ.TRADE_NOT_EXIST")
        return {
            **_OK,
            "buyer_logon_id": "csq***@sandbox.com",
            "out_trade_no": asked["out_trade_no"],
            "total_amount": trade.asked["total_amount"],
            "trade_no": trade.trade_no,
            "trade_status": trade.state,
        }

    def _alipay_trade_close(self, merchant: Merchant, asked: Mapping[str, str]) -> dict[str, str]:
        trade = self._trade(merchant, asked)
        if trade is None:
            return _failed("ACQ.TRADE_NOT_EXIST")
        if asked["out_trade_no"] in self.pays_before_close:
            self.pay(asked["out_trade_no"])
        if trade.state != "WAIT_BUYER_PAY":
            return _failed("ACQ.TRADE_STATUS_ERROR")
        trade.state = "TRADE_CLOSED"
        return {**_OK, "out_trade_no": asked["out_trade_no"], "trade_no": trade.trade_no}

    def _alipay_trade_refund(self, merchant: Merchant, asked: Mapping[str, str]) -> dict[str, str]:
        trade = self._trade(merchant, asked)
        if trade is None:
            return _failed("ACQ.TRADE_NOT_EXIST")
        self.refund_requests.append(asked)
        request, is_new = asked["out_request_no"], asked["out_request_no"] not in trade.refunds
        if is_new and _fen(asked["refund_amount"]) > _fen(trade.asked["total_amount"]) - sum(
            map(_fen, trade.refunds.values())
        ):
            return _failed("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
        trade.refunds.setdefault(request, asked["refund_amount"])
        if _sum(trade.refunds.values()) == trade.asked["total_amount"]:
            trade.state = "TRADE_CLOSED"
        return {
            **_OK,
            "out_trade_no": asked["out_trade_no"],
            "trade_no": trade.trade_no,
            "refund_fee": _sum(trade.refunds.values()),
            "fund_change": "Y" if is_new and not self.slow_refunds else "N",
        }

    def _alipay_trade_fastpay_refund_query(self, merchant: Merchant, asked: Mapping[str, str]) -> dict[str, str]:
        trade = self._trade(merchant, asked)
        if trade is None:
            return _failed("ACQ.TRADE_NOT_EXIST")
        amount = trade.refunds.get(asked["out_request_no"])
        if amount is None:
            return dict(_OK)
        found = {
            **_OK,
            "out_request_no": asked["out_request_no"],
            "out_trade_no": asked["out_trade_no"],
            "refund_amount": amount,
            "total_amount": trade.asked["total_amount"],
            "trade_no": trade.trade_no,
        }
        return found if self.slow_refunds else {**found, "refund_status": "REFUND_SUCCESS"}

    def _alipay_data_dataservice_bill_downloadurl_query(
        self, merchant: Merchant, asked: Mapping[str, str]
    ) -> dict[str, str]:
        assert asked["bill_type"] == "trade"
        if not any(trade.state != "WAIT_BUYER_PAY" for trade in self.trades.values()):
            return _failed("isp.bill_not_exist")
        return {**_OK, "bill_download_url": f"{self.url}/bill.zip?bizType=trade&userId={merchant.merchant_id}"}

    def _bill(self) -> bytes:
        rows = []
        for number, trade in self.trades.items():
            tail = ",0.00" * 6
            rows.append(
                f"{trade.trade_no}\t,{number}\t,交易,十元,x,x,,,,,*花(1***),{trade.asked['total_amount']}{tail},,0,0,,0,0,"
            )
            rows += [
                f"{trade.trade_no}\t,{number}\t,退款,十元,x,x,,,,,*花(1***),-{amount}{tail},,0,0,{request}\t,0,0,"
                for request, amount in trade.refunds.items()
            ]
        head = ["#支付宝业务明细查询", "#账号：[20881021167730370156]", "#-----业务明细列表-----", COLUMNS]
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as files:
            files.writestr("2088_20261125_业务明细(汇总).csv", "#支付宝业务汇总查询\r\n".encode("gbk"))
            files.writestr("2088_20261125_业务明细.csv", "\r\n".join([*head, *rows, "#-----结束-----"]).encode("gbk"))
        return made.getvalue()

    def _trade(self, merchant: Merchant, asked: Mapping[str, str]) -> Trade | None:
        trade = self.trades.get(asked["out_trade_no"])
        return trade if trade is not None and trade.merchant is merchant else None

    def _authenticated(self, said: Mapping[str, str]) -> Merchant | None:
        merchant = self.merchants.get(said["app_id"])
        assert (said["sign_type"], said["version"], said["format"]) == ("RSA2", "1.0", "JSON")
        sent = datetime.strptime(said["timestamp"], TIME).replace(tzinfo=CHINA)
        if merchant is None or abs(datetime.now(CHINA) - sent) > timedelta(minutes=15):
            return None
        signed = {name: value for name, value in said.items() if name != "sign" and value}
        try:
            key = merchant.key.public_key()
            key.verify(base64.b64decode(said["sign"]), _signable(signed), PKCS1v15(), SHA256())
        except InvalidSignature:
            return None
        return merchant


_OK = {"code": "10000", "msg": "Success"}


def _failed(word: str) -> dict[str, str]:
    return {"code": "40004", "msg": "Business Failed", "sub_code": word, "sub_msg": "交易不存在"}


def _signable(said: Mapping[str, str]) -> bytes:
    return "&".join(f"{name}={said[name]}" for name in sorted(said)).encode()


def _fen(yuan: str) -> int:
    return int(yuan.replace(".", ""))


def _sum(amounts: Any) -> str:
    total = sum(map(_fen, amounts))
    return f"{total // 100}.{total % 100:02d}"


@contextmanager
def running_alipay() -> Iterator[AlipayDouble]:
    """Serve a double until the block ends."""
    double = AlipayDouble()
    with serving(double.answer) as url:
        double.url = url
        yield double
