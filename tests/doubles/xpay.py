"""WeChat's virtual payment as its documentation describes it, beside the log-in of `tests.doubles.wechat`.

Real HTTP on the loopback interface for `/cgi-bin/stable_token`, `/wxa/checksession`, `/wxa/msg_sec_check` (version 2),
`/wxa/getwxacodeunlimit` and `/xpay/…`; every call needs a token that is in force, and the last kind a right `pay_sig`.
`open_payment` stands for the phone: it checks both signatures of `wx.requestVirtualPayment`, and only then is there an
order. `push` makes messages, plain or sealed, JSON or XML.
"""

import base64
import hashlib
import hmac
import io
import json
import re
import secrets
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from PIL import Image

from tests.doubles.wechat import WeChatDouble

NO_DATA = {"errcode": 268490002, "errmsg": "数据不存在 rid: 65f1a2b3-0c4d5e6f-7a8b9c0d"}


@dataclass(kw_only=True)
class Offer:
    """A mini-program that has opened virtual payment."""

    app_id: str
    offer_id: str
    app_keys: dict[int, str] = field(default_factory=lambda: {0: secrets.token_hex(16), 1: secrets.token_hex(16)})
    products: dict[str, int] = field(default_factory=dict)  # fen, by id
    message_token: str = field(default_factory=lambda: secrets.token_hex(12))
    message_key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode()[:43])


@dataclass(kw_only=True)
class VirtualOrder:
    """A payment or a refund at WeChat."""

    offer: Offer
    openid: str
    number: str
    wx_number: str
    fen: int
    env: int
    product: str = ""
    status: int = 1
    kind: int = 0
    transaction: str = ""
    paid_time: int = 0
    left_fen: int = 0
    pays_for: str = ""

    def said(self) -> dict[str, Any]:
        """Return the order as `query_order` gives it."""
        money = {"refund_fee": self.fen} if self.kind in {1, 8} else {"order_fee": self.fen, "paid_fee": self.fen}
        return {
            "order_id": self.number,
            "status": self.status,
            "biz_type": 0,
            "order_type": self.kind,
            "env_type": self.env + 1,
            "paid_time": self.paid_time,
            "left_fee": self.left_fen,
            "wx_order_id": self.wx_number,
            "wxpay_order_id": self.transaction,
            **money,
        }


@dataclass
class XPayDouble(WeChatDouble):
    """WeChat with virtual payment."""

    offers: dict[str, Offer] = field(default_factory=dict)  # by app id
    orders: dict[str, VirtualOrder] = field(default_factory=dict)  # by either number
    tokens: dict[str, str] = field(default_factory=dict)  # in force, by app id
    made: list[tuple[str, bool]] = field(default_factory=list)  # tokens asked for: app id, whether by force
    calls: list[str] = field(default_factory=list)
    refusals: deque[int] = field(default_factory=deque)  # error codes of the next calls of virtual payment
    suggestions: dict[str, tuple[str, int]] = field(default_factory=dict)  # suggest and label, by a part of the text
    active_openids: set[str] = field(default_factory=set)  # who was in the mini-program within two hours
    checked: list[dict[str, Any]] = field(default_factory=list)  # what msg_sec_check was asked
    pages: set[str] = field(default_factory=set)  # of the published version
    drawn: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # codes: app id, and what was asked
    stable_token_delay: float = 0.0
    lock: Lock = field(default_factory=Lock)

    # --- the phone

    def open_payment(self, arguments: dict[str, str], *, app_id: str, openid: str) -> str:
        """Open `wx.requestVirtualPayment`; return `ok` or WeChat's complaint."""
        offer, data = self.offers[app_id], arguments["signData"]
        said = json.loads(data)
        key = offer.app_keys[said["env"]]
        session_key = self.session_keys.get((app_id, openid), "")
        if not _same(arguments["paySig"], _hmac(key, f"requestVirtualPayment&{data}")):
            return "pay_sig"
        if not session_key or not _same(arguments["signature"], _hmac(session_key, data)):
            return "signature"
        if said["offerId"] != offer.offer_id or arguments["mode"] != "short_series_goods":
            return "offer"
        if offer.products.get(said["productId"]) != said["goodsPrice"] or said["buyQuantity"] != 1:
            return "product"
        if said["outTradeNo"] in self.orders:
            return "used"
        order = VirtualOrder(
            offer=offer,
            openid=openid,
            number=said["outTradeNo"],
            wx_number=f"XP{secrets.randbelow(10**20):020d}",
            fen=said["goodsPrice"],
            env=said["env"],
            product=said["productId"],
        )
        self.orders[order.number] = self.orders[order.wx_number] = order
        return "ok"

    def pay(self, number: str, *, with_apple: bool = False) -> VirtualOrder:
        """Let the person pay an open order; Apple's payments have no number of WeChat Pay's."""
        order = self.orders[number]
        order.status, order.left_fen, order.paid_time = 2, order.fen, int(time.time())
        order.kind = 7 if with_apple else 0
        order.transaction = "" if with_apple else f"42000{secrets.randbelow(10**23):023d}"
        return order

    def refund_by_apple(self, number: str) -> VirtualOrder:
        """Give the money back as Apple does: nobody here asked for it."""
        return self.end_refund(self._start_refund(self.orders[number], "", self.orders[number].fen, kind=8).wx_number)

    def end_refund(self, number: str, *, done: bool = True) -> VirtualOrder:
        """End a refund that was started."""
        refund = self.orders[number]
        refund.status, refund.paid_time = (5, int(time.time())) if done else (7, 0)
        paid = self.orders[refund.pays_for]
        if done:
            paid.left_fen -= refund.fen
            paid.status = 5 if paid.left_fen == 0 else paid.status
        return refund

    def _start_refund(self, paid: VirtualOrder, number: str, fen: int, *, kind: int = 1) -> VirtualOrder:
        refund = VirtualOrder(
            offer=paid.offer,
            openid=paid.openid,
            number=number,
            wx_number=f"XR{secrets.randbelow(10**20):020d}",
            fen=fen,
            env=paid.env,
            kind=kind,
            pays_for=paid.number,
        )
        self.orders[refund.wx_number] = refund
        if number:
            self.orders[number] = refund
        return refund

    # --- the message push

    def delivery(self, number: str, **changes: Any) -> dict[str, Any]:
        """Return what WeChat tells of a payment."""
        order = self.orders[number]
        pay = {"MchOrderNo": order.wx_number, "TransactionId": order.transaction, "PaidTime": order.paid_time}
        goods = {
            "ProductId": order.product,
            "Quantity": 1,
            "OrigPrice": order.fen,
            "ActualPrice": order.fen,
            "Attach": order.number,
        }
        return {
            **_envelope("xpay_goods_deliver_notify"),
            "OpenId": order.openid,
            "OutTradeNo": order.number,
            "Env": order.env,
            **({"WeChatPayInfo": pay} if order.transaction else {}),
            "GoodsInfo": {**goods, **changes.pop("goods", {})},
            **changes,
        }

    def refunded(self, number: str, **changes: Any) -> dict[str, Any]:
        """Return what WeChat tells of a refund that has ended."""
        refund = self.orders[number]
        paid = self.orders[refund.pays_for]
        return {
            **_envelope("xpay_refund_notify"),
            "OpenId": refund.openid,
            "WxRefundId": refund.wx_number,
            "MchRefundId": refund.number,
            "WxOrderId": paid.wx_number,
            "MchOrderId": paid.number,
            "RefundFee": refund.fen,
            "RetCode": 0 if refund.status == 5 else 1,
            "RetMsg": "success",
            "RefundStartTimestamp": int(time.time()),
            "RefundSuccTimestamp": refund.paid_time,
            "RetryTimes": 0,
            **changes,
        }

    def push(  # each is a way in which a message can be wrong
        self,
        said: dict[str, Any],
        *,
        offer: Offer,
        sealed: bool = True,
        xml: bool = False,
        age: int = 0,
        app_id: str = "",
        token: str | None = None,
        key: str = "",
    ) -> tuple[str, bytes]:
        """Return the query and the body of a message."""
        body = _xml(said) if xml else json.dumps(said, ensure_ascii=False)
        stamp, nonce = str(int(time.time()) - age), secrets.token_hex(5)
        token = offer.message_token if token is None else token
        query = {"timestamp": stamp, "nonce": nonce, "signature": _sha1(token, stamp, nonce)}
        if sealed:
            encrypted = _seal(body, key or offer.message_key, app_id or offer.app_id)
            outer = {"ToUserName": "gh_0123456789ab", "Encrypt": encrypted}
            body = _xml(outer) if xml else json.dumps(outer)
            query |= {"encrypt_type": "aes", "msg_signature": _sha1(token, stamp, nonce, encrypted)}
        return urlencode(query), body.encode()

    # --- the server

    def serve(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Answer one request."""
        if path == "/sns/jscode2session":
            return self.answer(path, query)
        with self.lock:
            self.calls.append(path.rpartition("/")[2])
        if self.raw:
            return self.raw.popleft()
        if path == "/cgi-bin/stable_token":
            time.sleep(self.stable_token_delay)  # so that whoever asks at the same time does meet
            said = self._stable_token(json.loads(body))
        elif query.get("access_token") not in self.tokens.values():
            said = {"errcode": 40001, "errmsg": "invalid credential, access_token is invalid or not latest"}
        elif path == "/wxa/checksession":
            said = self._check_session(query)
        elif path == "/wxa/msg_sec_check":
            said = self._check_text(json.loads(body))
        elif path == "/wxa/getwxacodeunlimit":
            return self._draw_code(self._app_of(query), json.loads(body))
        else:
            said = self._xpay(path, query, body)
        return 200, json.dumps(said, ensure_ascii=False).encode()

    def _stable_token(self, asked: dict[str, Any]) -> dict[str, Any]:
        app_id = asked["appid"]
        if asked["grant_type"] != "client_credential" or app_id not in self.secrets:
            return {"errcode": 40013, "errmsg": "invalid appid"}
        if asked["secret"] != self.secrets[app_id]:
            return {"errcode": 40125, "errmsg": "invalid appsecret"}
        with self.lock:
            self.made.append((app_id, asked["force_refresh"]))
            if asked["force_refresh"] or app_id not in self.tokens:
                self.tokens[app_id] = f"77_{secrets.token_urlsafe(48)}"
            return {"access_token": self.tokens[app_id], "expires_in": 7200}

    def _check_session(self, query: dict[str, str]) -> dict[str, Any]:
        app_id = self._app_of(query)
        session_key = self.session_keys.get((app_id, query["openid"]), "")
        assert query["sig_method"] == "hmac_sha256"
        if not session_key or not _same(query["signature"], _hmac(session_key, "")):
            return {"errcode": 87009, "errmsg": "invalid signature"}
        return {"errcode": 0, "errmsg": "ok"}

    def _check_text(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.checked.append(asked)
        if asked.get("version") != 2 or asked.get("scene") not in {1, 2, 3, 4} or len(asked["content"]) > 2500:
            return {"errcode": 40129, "errmsg": "invalid scene, version or size"}
        if asked["openid"] not in self.active_openids:
            return {"errcode": 61010, "errmsg": "code is expired rid: 65f1a2b3-0c4d5e6f-7a8b9c0d"}
        found = [said for part, said in self.suggestions.items() if part in asked["content"]]
        suggest, label = found[0] if found else ("pass", 100)
        return {
            "errcode": 0,
            "errmsg": "ok",
            "detail": [{"strategy": "content_model", "errcode": 0, "suggest": suggest, "label": label, "prob": 90}],
            "trace_id": "60ae120f-371d5872-7941a05b",
            "result": {"suggest": suggest, "label": label},
        }

    def _draw_code(self, app_id: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        """Draw a mini-program's code: here a square whose comment says where it leads."""
        with self.lock:
            self.drawn.append((app_id, asked))
        said: dict[str, Any] | None = None
        if not re.fullmatch(r"[0-9A-Za-z!#$&'()*+,/:;=?@\-._~]{1,32}", asked["scene"]):
            said = {"errcode": 40169, "errmsg": "invalid length for scene, or the data is not json string"}
        elif asked["page"].startswith("/") or (asked.get("check_path", True) and asked["page"] not in self.pages):
            said = {"errcode": 41030, "errmsg": "invalid page hint: [65f1a2b3]"}
        elif not 280 <= asked.get("width", 430) <= 1280 or asked.get("env_version", "release") != "release":
            said = {"errcode": 40097, "errmsg": "invalid args"}
        if said is not None:
            return 200, json.dumps(said).encode()
        file, width = io.BytesIO(), asked.get("width", 430)
        leads = f"{app_id} {asked['page']} {asked['scene']}".encode()
        Image.new("RGB", (width, width), "green").save(file, "JPEG", comment=leads)
        return 200, file.getvalue()

    def _xpay(self, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        offer = self.offers[self._app_of(query)]
        if not _same(query.get("pay_sig", ""), _hmac(offer.app_keys[asked["env"]], f"{path}&{body.decode()}")):
            return {"errcode": 268490003, "errmsg": "签名错误"}
        if self.refusals:
            return {"errcode": self.refusals.popleft(), "errmsg": "…"}
        match path:
            case "/xpay/query_order":
                return self._query(offer, asked)
            case "/xpay/refund_order":
                return self._refund(offer, asked)
            case "/xpay/notify_provide_goods":
                self.orders[asked["order_id"]].status = 4
                return {"errcode": 0, "errmsg": "ok"}
        raise AssertionError(path)

    def _query(self, offer: Offer, asked: dict[str, Any]) -> dict[str, Any]:
        found = self.orders.get(asked.get("order_id") or asked["wx_order_id"])
        if found is None or found.offer is not offer or (found.openid, found.env) != (asked["openid"], asked["env"]):
            return NO_DATA
        return {"errcode": 0, "errmsg": "ok", "order": found.said()}

    def _refund(self, offer: Offer, asked: dict[str, Any]) -> dict[str, Any]:
        paid = self.orders.get(asked["order_id"])
        assert paid is not None
        assert (paid.offer, paid.openid) == (offer, asked["openid"])
        assert 8 <= len(asked["refund_order_id"]) <= 32
        if paid.kind == 7:
            return {"errcode": 268490002, "errmsg": "苹果支付不支持退款"}
        if asked["left_fee"] != paid.left_fen:
            return {"errcode": 268490016, "errmsg": "left_fee"}
        if not 0 < asked["refund_fee"] <= paid.left_fen:
            return {"errcode": 268490002, "errmsg": "refund_fee"}
        if asked["refund_order_id"] in self.orders:
            return {"errcode": 268490014, "errmsg": "退款操作进行中"}
        refund = self._start_refund(paid, asked["refund_order_id"], asked["refund_fee"])
        return {
            "errcode": 0,
            "errmsg": "ok",
            "refund_order_id": refund.number,
            "refund_wx_order_id": refund.wx_number,
            "pay_order_id": paid.number,
            "pay_wx_order_id": paid.wx_number,
        }

    def _app_of(self, query: dict[str, str]) -> str:
        return next(app_id for app_id, token in self.tokens.items() if token == query["access_token"])


def _envelope(event: str) -> dict[str, Any]:
    return {
        "ToUserName": "gh_0123456789ab",
        "FromUserName": "oWeChatItself",
        "CreateTime": int(time.time()),
        "MsgType": "event",
        "Event": event,
    }


def _hmac(key: str, message: str) -> str:
    return hmac.new(key.encode(), message.encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one, other)


def _sha1(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324  # WeChat's choice


def _seal(message: str, key: str, app_id: str) -> str:
    raw = base64.b64decode(f"{key}=")
    content = message.encode()
    plain = secrets.token_bytes(16) + struct.pack(">I", len(content)) + content + app_id.encode()
    padding = 32 - len(plain) % 32
    encryptor = Cipher(AES256(raw), CBC(raw[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


def _xml(said: dict[str, Any]) -> str:
    def element(name: str, value: Any) -> str:
        if isinstance(value, dict):
            return f"<{name}>{''.join(element(*item) for item in value.items())}</{name}>"
        return f"<{name}>{value}</{name}>" if isinstance(value, int) else f"<{name}><![CDATA[{value}]]></{name}>"

    return element("xml", said)


@contextmanager
def running_xpay() -> Iterator[XPayDouble]:
    """Serve a double until the block ends."""
    double = XPayDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, said = double.serve(parts.path, dict(parse_qsl(parts.query)), body)
            self.send_response(status)
            self.send_header("Content-Type", "image/jpeg" if said.startswith(b"\xff\xd8\xff") else "text/plain")
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
