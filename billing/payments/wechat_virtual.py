"""WeChat virtual payment: products registered with WeChat, bought inside a mini-program by `wx.requestVirtualPayment`.

There is nothing to announce and nothing to close: the client pays with what is signed here, and WeChat hears of an
order when the person opens the payment. Delivery and refunds are told by the mini-program's message push.

Sources: https://developers.weixin.qq.com/miniprogram/dev/platform-capabilities/business-capabilities/virtual-payment.html
and …/miniprogram/dev/api/payment/wx.requestVirtualPayment.html; the numbers of iOS orders (7, 8) from
…/miniprogram/dev/server/API/VirtualPayment/api_query_order.html.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import orjson
import structlog
from django.conf import settings
from django.db.models import Q

from billing.models import MerchantAccount, Order, Refund
from billing.models.recharge import FEN
from billing.payments import wechat_push
from billing.payments.provider import (
    BillLine,
    Notice,
    NotificationRefusedError,
    Payer,
    PayerUnknownError,
    PaymentNotice,
    ProviderAwayError,
    ProviderRefusedError,
    RefundNotice,
    Reply,
)
from tenants import scope
from tenants.models import MiniProgram
from tenants.wechat import WeChatAwayError, client_for
from tenants.wechat_token import WeChatRefusedError, call

log = structlog.get_logger(__name__)

# Apple sells for nothing less, and WeChat refuses it there.
IOS_MINIMUM: Final = 1_000_000

_CHINA: Final = ZoneInfo("Asia/Shanghai")
_SESSION_OVER: Final = frozenset({87009, 268490009})
_BUSY: Final = frozenset({-1, 45009, 45011, 268490011, 268490014, 268490015, 268490016})
_WRONG: Final = 268490002  # any wrong parameter; what it is stands in the text only
_UNDER_WAY: Final = frozenset({268490004, 268490014})
_REFUND_NUMBER: Final = re.compile(r"[A-Za-z0-9_-]{8,32}")
_LONGEST_NUMBER: Final = 40  # of WeChat's own, so that event ids fit

# States and types of an order there. 7 is a refund that failed: the payment stands.
_PAID: Final = frozenset({2, 3, 4, 7})
_PAYMENTS: Final = frozenset({0, 7})
_REFUNDS: Final = frozenset({1, 8})
_REFUNDED: Final = frozenset({5, 8, 9, 10})
_REFUND_FAILED: Final = frozenset({6, 7})


class WeChatVirtual:
    """A mini-program's virtual payment, with an offer id for a merchant id."""

    def __init__(self, account: MerchantAccount) -> None:
        self._account = account
        self._is_sandbox = account.environment == MerchantAccount.Environment.SANDBOX

    def create_payment(self, order: Order, *, payer: Payer, notify_url: str) -> dict[str, str]:  # noqa: ARG002  # set at WeChat
        """Return the arguments of `wx.requestVirtualPayment`; raise PayerUnknownError for a session that is over."""
        self._require_session(payer)
        sign_data = orjson.dumps(
            {
                "offerId": self._account.merchant_id,
                "buyQuantity": 1,
                "env": self._env,
                "currencyType": "CNY",
                "productId": order.goods.virtual_product_id,
                "goodsPrice": order.price // FEN,
                "outTradeNo": order.out_trade_no,
                "attach": order.out_trade_no,
            }
        )
        return {
            "mode": "short_series_goods",
            "signData": sign_data.decode(),
            "paySig": self._sign("requestVirtualPayment", sign_data),
            "signature": _hmac(payer.session_key, sign_data),
        }

    def parse_callback(
        self,
        *,
        body: bytes,
        headers: Mapping[str, str],  # noqa: ARG002  # the contract's; the signature stands in the query
        query: Mapping[str, str],
    ) -> Notice | None:
        """Verify and read a message. One that is not encrypted is not believed: WeChat is asked for what it tells."""
        account = self._account
        message = wechat_push.read(body=body, query=query, token=account.message_token, key=account.message_key)
        digest = hashlib.sha256(body).hexdigest()
        try:
            match message.said["Event"]:
                case "xpay_goods_deliver_notify":
                    return self._delivery(message, digest)
                case "xpay_refund_notify":
                    return self._refund_told(message, digest)
                case event:
                    self._pass_by(str(event), message.said)
                    return None
        except (KeyError, TypeError, ValueError) as fault:
            raise NotificationRefusedError(f"not readable: {type(fault).__name__}") from None

    def prove_address(self, query: Mapping[str, str]) -> str:
        """Return the text that WeChat wants back when the address of the message push is set."""
        wechat_push.verify(query, token=self._account.message_token)
        return query.get("echostr", "")

    def reply(self, *, status: int, why: str = "") -> Reply:
        """Answer `success`, which fits messages of every form; anything else is sent again, fifteen times."""
        if not why:
            return Reply(status, "success", "text/plain")
        return Reply(status, orjson.dumps({"ErrCode": 1, "ErrMsg": why}).decode(), "application/json")

    def query(self, order: Order) -> PaymentNotice | None:
        """Ask for an order; None while, or because, it is not paid, or was refunded."""
        return self._payment(order.payer_openid, order.out_trade_no)

    def close(self, order: Order) -> bool:  # noqa: ARG002  # the contract's
        """Let WeChat be: it has no call for this. What is paid later is told, and credited."""
        return True

    def confirm_delivery(self, order: Order) -> None:
        """Tell WeChat that the order was delivered."""
        self._ask("notify_provide_goods", {"order_id": order.out_trade_no, "env": self._env})

    def refund(self, refund: Refund, *, notify_url: str) -> RefundNotice:  # noqa: ARG002  # set at WeChat
        """Start a refund, which WeChat ends later. What was paid on iOS only Apple refunds: WeChat refuses."""
        known = self.query_refund(refund)
        if known is not None:
            return known
        if not _REFUND_NUMBER.fullmatch(refund.out_refund_no):
            raise ProviderRefusedError("REFUND_NUMBER")
        order = refund.order
        paid = self._find(order.payer_openid, order_id=order.out_trade_no)
        if paid is None:
            raise ProviderRefusedError("ORDER_NOT_EXIST")
        question = {
            "openid": order.payer_openid,
            "order_id": order.out_trade_no,
            "refund_order_id": refund.out_refund_no,
            "left_fee": paid.get("left_fee", 0),
            "refund_fee": refund.amount // FEN,
            "biz_meta": "",
            "refund_reason": "0",
            "req_from": "3",
            "env": self._env,
        }
        answer = self._ask("refund_order", question, fine=_UNDER_WAY)
        number = str(answer.get("refund_wx_order_id") or refund.out_refund_no)
        return self._refund_notice(
            order_number=order.out_trade_no,
            refund_number=refund.out_refund_no,
            number=number,
            fen=refund.amount // FEN,
            state="pending",
            digest=_digest(answer),
        )

    def query_refund(self, refund: Refund) -> RefundNotice | None:
        """Ask what became of a refund; None if WeChat does not know it."""
        order = refund.order
        found = self._find(order.payer_openid, order_id=refund.out_refund_no)
        return self._refund_found(found, order.out_trade_no, refund.out_refund_no) if found else None

    def bill(self, day: date) -> list[BillLine]:
        """Ask for every order and refund of a day, one by one.

        WeChat's own bill (`download_bill`) is a sheet of sums whose columns are not documented. Nothing can be paid
        that we have not signed an order for, so the orders are known; what WeChat says of each is its own word.
        """
        lines: list[BillLine] = []
        with scope.tenant(self._account.tenant_id):
            for order in self._orders_around(day):
                try:
                    lines.extend(self._lines(order, day))
                except (TypeError, ValueError) as fault:
                    raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None
        return lines

    @property
    def _env(self) -> int:
        return 1 if self._is_sandbox else 0

    def _require_session(self, payer: Payer) -> None:
        """Raise PayerUnknownError unless WeChat still knows the session. A check that cannot be made stops nobody.

        https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-login/checkSessionKey.html
        """
        if not payer.session_key:
            raise PayerUnknownError("no session key")
        signature = _hmac(payer.session_key, b"")
        question = {"openid": payer.openid, "signature": signature, "sig_method": "hmac_sha256"}
        try:
            answer = self._call("/wxa/checksession", question)
        except (ProviderAwayError, ProviderRefusedError) as fault:
            log.warning("session not checked", account=self._account.pk, fault=str(fault))
            return
        if answer.get("errcode") in _SESSION_OVER:
            raise PayerUnknownError("the session is over")

    def _delivery(self, message: wechat_push.Message, digest: str) -> PaymentNotice:
        said = message.said
        number, openid = _text(said["OutTradeNo"]), _text(said["OpenId"])
        info = said.get("WeChatPayInfo") or {}
        transaction = str(info.get("TransactionId") or "")
        # Apple's payments have no number of WeChat Pay's; WeChat's own for the order is known by asking only.
        if not message.app_id or not transaction:
            notice = self._payment(openid, number)
            if notice is None:
                raise NotificationRefusedError("a payment that WeChat does not know of")
            return notice
        return self._payment_notice(
            order_number=number,
            transaction=transaction,
            fen=_whole(said["GoodsInfo"]["ActualPrice"]),
            app_id=message.app_id,
            is_ours=_whole(said["Env"]) == self._env and _whole(said["GoodsInfo"]["Quantity"]) == 1,
            digest=digest,
        )

    def _refund_told(self, message: wechat_push.Message, digest: str) -> RefundNotice:
        said = message.said
        order_number, number = _text(said["MchOrderId"]), _text(said["WxRefundId"])
        refund_number = str(said.get("MchRefundId") or "")
        if not self._is_our_refund(refund_number):
            refund_number = ""
        if not message.app_id:
            return self._refund_asked_for(_text(said["OpenId"]), order_number, number, refund_number)
        return self._refund_notice(
            order_number=order_number,
            refund_number=refund_number,
            number=number,
            fen=_whole(said["RefundFee"]),
            state="done" if _whole(said["RetCode"]) == 0 else "failed",
            app_id=message.app_id,
            digest=digest,
        )

    def _refund_asked_for(self, openid: str, order_number: str, number: str, refund_number: str) -> RefundNotice:
        """Return a refund as WeChat has it, if the order that it is said to be for was refunded so much at least."""
        found = self._find(openid, wx_order_id=number)
        paid = self._find(openid, order_id=order_number)
        if found is None or paid is None:
            raise NotificationRefusedError("a refund that WeChat does not know of")
        if _whole(paid["paid_fee"]) - _whole(paid["left_fee"]) < _whole(found["refund_fee"]):
            raise NotificationRefusedError("a refund of another order")
        return self._refund_found(found, order_number, refund_number)

    def _pass_by(self, event: str, said: Mapping[str, Any]) -> None:
        """Take what is about no money: a mini-program has one address for all that WeChat has to say."""
        if event == "xpay_complaint_notify":
            log.warning("payment complaint", account=self._account.pk, order_number=str(said.get("MchOrderId", "")))
        else:
            log.info("message passed by", account=self._account.pk, event_name=event[:64])

    def _is_our_refund(self, number: str) -> bool:
        """Whether we asked for a refund of that number: WeChat numbers those that it, or Apple, makes as well."""
        with scope.tenant(self._account.tenant_id):
            return bool(number) and Refund.objects.filter(out_refund_no=number).exists()

    def _payment(self, openid: str, number: str) -> PaymentNotice | None:
        found = self._find(openid, order_id=number)
        try:
            if found is None or found.get("order_type", 0) not in _PAYMENTS or found["status"] not in _PAID:
                return None
            return self._payment_notice(
                order_number=_text(found["order_id"]),
                transaction=str(found.get("wxpay_order_id") or "") or _text(found["wx_order_id"]),
                fen=_whole(found["paid_fee"]),
                app_id=self._account.app_id,
                is_ours=found.get("env_type", self._env + 1) == self._env + 1,
                digest=_digest(found),
            )
        except (KeyError, TypeError, ValueError) as fault:
            raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None

    def _payment_notice(  # noqa: PLR0913  # keywords only: what a payment is
        self, *, order_number: str, transaction: str, fen: int, app_id: str, is_ours: bool, digest: str
    ) -> PaymentNotice:
        return PaymentNotice(
            # The same however it is told, so that the second time is known to be one.
            event_id=f"paid:{order_number}:{_short(transaction)}",
            out_trade_no=order_number,
            transaction_id=transaction,
            # A payment in the other environment, or of more than one piece, is nobody's here.
            merchant_id=self._account.merchant_id if is_ours else "",
            app_id=app_id,
            amount=fen * FEN,
            currency="CNY",
            body_digest=digest,
        )

    def _refund_found(self, found: Mapping[str, Any], order_number: str, refund_number: str) -> RefundNotice:
        try:
            if found.get("order_type", 1) not in _REFUNDS:
                raise ProviderAwayError("another kind of order")
            status = found["status"]
            state: Literal["pending", "done", "failed"] = "pending"
            if status in _REFUNDED | _REFUND_FAILED:
                state = "done" if status in _REFUNDED else "failed"
            return self._refund_notice(
                order_number=order_number,
                refund_number=refund_number,
                number=_text(found["wx_order_id"]),
                fen=_whole(found["refund_fee"]),
                state=state,
                digest=_digest(found),
            )
        except (KeyError, TypeError, ValueError) as fault:
            raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None

    def _refund_notice(  # noqa: PLR0913  # keywords only: what a refund is
        self,
        *,
        order_number: str,
        refund_number: str,
        number: str,
        fen: int,
        state: Literal["pending", "done", "failed"],
        digest: str,
        app_id: str = "",
    ) -> RefundNotice:
        return RefundNotice(
            event_id=f"refund:{_short(number)}:{state}",
            out_trade_no=order_number,
            out_refund_no=refund_number,
            refund_id=number,
            merchant_id=self._account.merchant_id,
            app_id=app_id or self._account.app_id,
            amount=fen * FEN,
            currency="CNY",
            state=state,
            forced=not refund_number,
            body_digest=digest,
        )

    def _orders_around(self, day: date) -> list[Order]:
        """Return the account's orders that can have been paid or refunded on a day, by China's clock."""
        begin = datetime(day.year, day.month, day.day, tzinfo=_CHINA)
        near = (begin - timedelta(days=1), begin + timedelta(days=2))
        return list(
            Order.objects.filter(
                Q(created_at__range=near)
                | Q(paid_at__range=near)
                | Q(refunds__created_at__range=near)
                | Q(refunds__ended_at__range=near),
                merchant_account=self._account,
            )
            .exclude(payer_openid="")
            .distinct()
            .order_by("pk")
        )

    def _lines(self, order: Order, day: date) -> Iterator[BillLine]:
        paid = self._find(order.payer_openid, order_id=order.out_trade_no)
        if paid is not None and paid.get("status") in _PAID | _REFUNDED and _day(paid) == day:
            yield _line(order, paid, out_refund_no="", fen=_whole(paid.get("paid_fee")))
        for refund in order.refunds.exclude(kind=Refund.Kind.MANUAL).order_by("pk"):
            forced = refund.kind == Refund.Kind.FORCED
            name = {"wx_order_id": refund.refund_id} if forced else {"order_id": refund.out_refund_no}
            back = self._find(order.payer_openid, **name)
            if back is not None and back.get("status") in _REFUNDED and _day(back) == day:
                yield _line(order, back, out_refund_no=refund.out_refund_no, fen=-_whole(back.get("refund_fee")))

    def _find(self, openid: str, **name: str) -> dict[str, Any] | None:
        """Return an order, or a refund, as WeChat has it; None if it has not."""
        answer = self._ask("query_order", {"openid": openid, "env": self._env, **name}, fine=frozenset({_WRONG}))
        if answer.get("errcode") == _WRONG:
            # "No such data" has no number of its own.
            if any(words in str(answer.get("errmsg", "")).lower() for words in ("不存在", "not found", "not exist")):
                return None
            raise ProviderRefusedError(str(_WRONG))
        found = answer.get("order")
        if not isinstance(found, dict):
            raise ProviderAwayError("an answer without an order")
        return found

    def _ask(self, name: str, question: Mapping[str, Any], *, fine: frozenset[int] = frozenset()) -> dict[str, Any]:
        """Make a signed call of virtual payment; return its answer, which may refuse with a number in `fine`."""
        path, body = f"/xpay/{name}", orjson.dumps(question)
        answer = self._call(path, {"pay_sig": self._sign(path, body)}, body)
        errcode = answer.get("errcode", 0)
        if errcode == 0 or errcode in fine:
            return answer
        # WeChat's text may quote the request, so only its number is kept.
        raise (ProviderAwayError if errcode in _BUSY else ProviderRefusedError)(str(errcode)[:40])

    def _call(self, path: str, query: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
        account = self._account
        with scope.tenant(account.tenant_id):
            program = MiniProgram.objects.filter(app_id=account.app_id).first()
        if program is None or not program.secret:
            raise ProviderRefusedError("NO_APP_SECRET")
        try:
            return call(program, client_for(settings.WECHAT_API_URL), path, query=query, body=body)
        except WeChatAwayError as fault:
            raise ProviderAwayError(str(fault)) from None
        except WeChatRefusedError as refusal:
            raise ProviderRefusedError(str(refusal.code)) from None

    def _sign(self, uri: str, body: bytes) -> str:
        key = self._account.sandbox_app_key if self._is_sandbox else self._account.app_key
        if not key:
            raise ProviderRefusedError("NO_APP_KEY")
        return _hmac(key, uri.encode() + b"&" + body)


def _hmac(key: str, message: bytes) -> str:
    return hmac.new(key.encode(), message, hashlib.sha256).hexdigest()


def _digest(answer: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(answer)).hexdigest()


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\x00" in value:
        raise TypeError("names are texts")
    return value


def _short(number: str) -> str:
    if not 0 < len(number) <= _LONGEST_NUMBER:
        raise ValueError("no number of WeChat's is so long")
    return number


def _whole(value: object) -> int:
    """Read a whole number of fen or the like: a number in JSON, digits in XML."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a whole number is wanted")
    return value


def _day(found: Mapping[str, Any]) -> date:
    """Return the day of a payment or refund, in China."""
    return datetime.fromtimestamp(_whole(found.get("paid_time")), _CHINA).date()


def _line(order: Order, found: Mapping[str, Any], *, out_refund_no: str, fen: int) -> BillLine:
    number = str(found.get("wxpay_order_id") or found.get("wx_order_id") or "")
    return BillLine(
        out_trade_no=order.out_trade_no, out_refund_no=out_refund_no, transaction_id=number, amount=fen * FEN
    )
