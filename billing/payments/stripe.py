"""Stripe: Checkout, its own page for cards and wallets, on a tenant's own account (no Connect), in CNY.

Sources: https://docs.stripe.com/api/checkout/sessions, …/api/refunds, …/api/balance_transactions, …/webhooks,
…/api/idempotent_requests. Why its library: docs/adr/0009-stripes-own-library.md.

Stripe does not find a session by our number, so an order keeps the session's id (`provider_ref`). A session lives
for 30 minutes at least, longer than an order: it is expired when the order is closed, and what is paid all the same is
credited, as with every provider.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final, Literal

import httpx
import orjson
import stripe
from django.conf import settings

from billing.models import MerchantAccount, Order, Refund
from billing.models.recharge import FEN
from billing.payments.clients import client_for
from billing.payments.provider import (
    REFERENCE,
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

# It would write an id of this machine into the home folder and send it along.
stripe.enable_telemetry = False

TOLERANCE_SECONDS: Final = 300
# A session's shortest life is 30 minutes, counted from when Stripe makes it, which is before the order's time is over.
SESSION_AFTER_ORDER: Final = timedelta(minutes=30)
CHINA: Final = timezone(timedelta(hours=8))

_PAID: Final = frozenset({"checkout.session.completed", "checkout.session.async_payment_succeeded"})
_REFUNDS: Final = frozenset({"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"})
_DISPUTES: Final = frozenset({"charge.dispute.created", "charge.dispute.closed"})
_MISSING: Final = "resource_missing"

State = Literal["pending", "done", "failed"]
_STATES: Final[dict[str, State]] = {"succeeded": "done", "failed": "failed", "canceled": "failed"}


class StripePayments:
    """A merchant account at Stripe: `merchant_id` is the account's id."""

    def __init__(self, account: MerchantAccount) -> None:
        self._account = account

    def create_payment(self, order: Order, *, payer: Payer, notify_url: str) -> dict[str, str]:  # noqa: ARG002  # the webhook's address is set up at Stripe
        """Open a session; return `checkout_url`. The same order gets the same session, whoever asks first."""
        with _asking():
            if order.provider_ref:
                session = self._client().v1.checkout.sessions.retrieve(order.provider_ref)
            else:
                session = self._open_session(order, payer.return_url)
            return {"checkout_url": _word(session.url), REFERENCE: _word(session.id)}

    def parse_callback(
        self,
        *,
        body: bytes,
        headers: Mapping[str, str],
        query: Mapping[str, str],  # noqa: ARG002  # the contract's; nothing stands there
    ) -> Notice:
        """Verify and read an event; what an event leaves out, such as a refund's order, is asked for."""
        event = self._verified(body, headers)
        try:
            kind, thing = event["type"], event["data"]["object"]
            # Another account's event comes from a platform that is connected to this one: compared as a merchant is.
            about = {
                "event_id": _word(event["id"]),
                "merchant_id": _word(event.get("account") or self._account.merchant_id),
                "body_digest": _digest(body),
            }
            if kind in _PAID:
                return self._told_payment(thing, about)
            if kind in _REFUNDS:
                return self._told_refund(thing, about)
            if kind == "charge.refunded":
                return self._told_refund(self._newest_refund(thing), about)
            if kind in _DISPUTES:
                return self._told_dispute(thing, about)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            raise NotificationRefusedError(f"not readable: {type(fault).__name__}") from None
        raise NotificationIgnoredError(f"no payment: {kind!r}")

    def reply(self, *, status: int, why: str = "") -> Reply:
        """Answer an event: Stripe looks at the status only, and shows the rest to the merchant."""
        said = {"received": not why, "why": why} if why else {"received": True}
        return Reply(status, orjson.dumps(said).decode(), "application/json")

    def query(self, order: Order) -> PaymentNotice | None:
        """Ask for an order's session; None while, or because, it is not paid, or was refunded in full."""
        session = self._session(order)
        if session is None or session["payment_status"] != "paid":
            return None
        with _asking():
            if session["metadata"]["out_trade_no"] != order.out_trade_no:
                raise ProviderAwayError("the answer to another question")
            intent = session["payment_intent"]
            if (intent.get("latest_charge") or {}).get("refunded"):
                return None
            return _payment(
                session,
                event_id=f"query:{intent['id']}",
                merchant_id=self._account.merchant_id,
                body_digest=_digest(orjson.dumps(session)),
            )

    def close(self, order: Order) -> bool:
        """Expire an order's session, if one was made; False once it is complete: the caller asks whether it is paid."""
        if not order.provider_ref:
            return True
        try:
            with _asking():
                self._client().v1.checkout.sessions.expire(order.provider_ref)
        except ProviderRefusedError:
            session = self._session(order)
            if session is None:
                return True
            if session["status"] == "open":
                raise
            return bool(session["status"] == "expired")
        return True

    def refund(self, refund: Refund, *, notify_url: str) -> RefundNotice:  # noqa: ARG002  # as for payments
        """Ask for a refund. Stripe forgets idempotency keys after a day, so one that is there already is looked for."""
        known = self.query_refund(refund)
        if known is not None:
            return known
        order = refund.order
        with _asking():
            made = self._client().v1.refunds.create(
                {
                    "payment_intent": order.transaction_id,
                    "amount": refund.amount // FEN,
                    "metadata": {"out_trade_no": order.out_trade_no, "out_refund_no": refund.out_refund_no},
                },
                {"idempotency_key": f"refund-{refund.out_refund_no}"},
            )
            return self._asked_refund(made.to_dict())

    def query_refund(self, refund: Refund) -> RefundNotice | None:
        """Look for a refund among those of its payment."""
        with _asking():
            listed = self._client().v1.refunds.list(
                {"payment_intent": refund.order.transaction_id, "limit": 100},
            )
            for one in listed.auto_paging_iter():
                found = one.to_dict()
                if (found.get("metadata") or {}).get("out_refund_no") == refund.out_refund_no:
                    return self._asked_refund(found)
        return None

    def bill(self, day: date) -> list[BillLine]:
        """Return what moved the account's balance on a day of China's: charges, refunds and disputes in CNY.

        A balance may be kept in another currency, so amounts are those of what was charged, not of the balance.
        """
        began = datetime(day.year, day.month, day.day, tzinfo=CHINA)
        ended = began + timedelta(days=1)
        with _asking():
            listed = self._client().v1.balance_transactions.list(
                {
                    "created": {"gte": int(began.timestamp()), "lt": int(ended.timestamp())},
                    "limit": 100,
                    "expand": ["data.source"],
                }
            )
            lines = [self._bill_line(row.to_dict()) for row in listed.auto_paging_iter()]
        return [line for line in lines if line is not None]

    def require_own_account(self) -> None:
        """Raise ProviderRefusedError if the secret key is another account's; a restricted key may not say."""
        try:
            with _asking():
                own = self._client().v1.accounts.retrieve_current().id
        except ProviderRefusedError as refusal:
            if refusal.code != "PermissionError":
                raise
            return
        if own != self._account.merchant_id:
            raise ProviderRefusedError("OTHER_ACCOUNT")

    def _open_session(self, order: Order, return_url: str) -> Any:
        """Make a session, once for an order and the address to come back to: a repeated key with other words fails."""
        key = hashlib.sha256(return_url.encode()).hexdigest()[:16]
        name = {"out_trade_no": order.out_trade_no}
        return self._client().v1.checkout.sessions.create(
            {
                "mode": "payment",
                "client_reference_id": order.out_trade_no,
                "metadata": name,
                "payment_intent_data": {"metadata": name},
                "line_items": [
                    {
                        "quantity": 1,
                        "price_data": {
                            "currency": "cny",
                            "unit_amount": order.price // FEN,
                            "product_data": {"name": order.package_name},
                        },
                    }
                ],
                # Else Stripe may charge in the payer's currency.
                "adaptive_pricing": {"enabled": False},
                "expires_at": int((order.expires_at + SESSION_AFTER_ORDER).timestamp()),
                "success_url": return_url,
                "cancel_url": return_url,
            },
            {"idempotency_key": f"order-{order.out_trade_no}-{key}"},
        )

    def _session(self, order: Order) -> dict[str, Any] | None:
        if not order.provider_ref:
            return None
        try:
            with _asking():
                wanted = ["payment_intent.latest_charge"]
                found = self._client().v1.checkout.sessions.retrieve(order.provider_ref, {"expand": wanted})
                return found.to_dict()
        except ProviderRefusedError as refusal:
            if refusal.code == _MISSING:
                return None
            raise

    def _verified(self, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the event that Stripe signed; raise NotificationRefusedError for anything else."""
        said = {name.lower(): value for name, value in headers.items()}
        secret, key = self._account.webhook_secret, self._account.secret_key
        if not secret.strip() or not key.strip():
            raise NotificationRefusedError("the merchant has no signing secret, or no key")
        try:
            stripe.WebhookSignature.verify_header(
                body, said.get("stripe-signature", ""), secret, tolerance=TOLERANCE_SECONDS
            )
            event = orjson.loads(body)
        except (stripe.SignatureVerificationError, ValueError):
            raise NotificationRefusedError("not signed by Stripe, or not readable") from None
        if not isinstance(event, dict) or event.get("object") != "event":
            raise NotificationRefusedError("not an event")
        # The money of test mode is none.
        if event.get("livemode") is not ("_live_" in key):
            raise NotificationRefusedError("of the other mode")
        return event

    def _told_payment(self, session: dict[str, Any], about: dict[str, str]) -> PaymentNotice:
        # Not `client_reference_id`: on a merchant's payment links that is the payer's to set.
        if session["payment_status"] != "paid" or not (session.get("metadata") or {}).get("out_trade_no"):
            raise NotificationIgnoredError("not paid yet, or not an order of ours")
        return _payment(session, **about)

    def _told_refund(self, refund: dict[str, Any], about: dict[str, str]) -> RefundNotice:
        number = self._order_number(refund)
        if number is None:
            raise NotificationIgnoredError("a refund of no order of ours")
        return _refund(refund, number, **about)

    def _told_dispute(self, dispute: dict[str, Any], about: dict[str, str]) -> RefundNotice:
        """Read a charge-back. Until it is decided it may be won, and then nothing is lost."""
        number = self._order_number(dispute)
        if number is None:
            raise NotificationIgnoredError("a dispute of no order of ours")
        decided: dict[str, State] = {"lost": "done", "won": "failed", "warning_closed": "failed"}
        return RefundNotice(
            out_trade_no=number,
            out_refund_no="",
            refund_id=_word(dispute["id"]),
            app_id="",
            amount=_fen(dispute["amount"]) * FEN,
            currency=_word(dispute["currency"]).upper(),
            state=decided.get(dispute["status"], "pending"),
            forced=True,
            **about,
        )

    def _asked_refund(self, refund: dict[str, Any]) -> RefundNotice:
        return _refund(
            refund,
            _word(refund["metadata"]["out_trade_no"]),
            event_id=f"refund:{refund['id']}:{refund['status']}",
            merchant_id=self._account.merchant_id,
            body_digest=_digest(orjson.dumps(refund)),
        )

    def _newest_refund(self, charge: dict[str, Any]) -> dict[str, Any]:
        """Return the last refund of a charge, which newer events of Stripe do not hold."""
        with _asking():
            return self._client().v1.refunds.list({"charge": _word(charge["id"]), "limit": 1}).data[0].to_dict()

    def _order_number(self, thing: Mapping[str, Any]) -> str | None:
        """Return the order that a refund or a dispute is of: its own word, or the payment's."""
        number = (thing.get("metadata") or {}).get("out_trade_no")
        if not number and thing.get("payment_intent"):
            with _asking():
                intent = self._client().v1.payment_intents.retrieve(_id(thing["payment_intent"])).to_dict()
            number = (intent.get("metadata") or {}).get("out_trade_no")
        return _word(number) if number else None

    def _bill_line(self, row: dict[str, Any]) -> BillLine | None:
        """Read a movement of the balance; None for fees, payouts and other currencies."""
        source = row["source"]
        if not isinstance(source, dict) or source["object"] not in {"charge", "refund", "dispute"}:
            return None
        if source["currency"] != "cny":
            return None
        # A refund that failed and a dispute that was won come back as movements of their own.
        amount = _fen(source["amount"]) * FEN * (1 if row["amount"] > 0 else -1)
        own = (source.get("metadata") or {}).get("out_refund_no", "") if source["object"] == "refund" else ""
        return BillLine(
            out_trade_no=self._order_number(source) or "",
            out_refund_no=own,
            transaction_id=_id(source["payment_intent"]) if source.get("payment_intent") else source["id"],
            amount=amount,
        )

    def _client(self) -> stripe.StripeClient:
        if not self._account.secret_key.strip():
            raise ProviderRefusedError("NO_SECRET_KEY")
        return stripe.StripeClient(
            self._account.secret_key.strip(),
            base_addresses={"api": settings.STRIPE_API_URL},
            http_client=_Transport(),
            max_network_retries=0,  # the caller has its own patience
        )


class _Transport(stripe.HTTPClient):
    """Stripe's library over the process's own client: its timeout, its connections, and no warning of httpx's."""

    name = "httpx"

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        client = client_for(settings.STRIPE_API_URL)
        try:
            answer = client.request(method, url, headers=headers, content=post_data)
        except httpx.HTTPError as fault:
            raise stripe.APIConnectionError(type(fault).__name__) from None  # type: ignore[no-untyped-call]
        return answer.text, answer.status_code, answer.headers


@contextmanager
def _asking() -> Iterator[None]:
    """Turn what Stripe's library raises into the contract's two failures; its texts may quote keys and are not kept."""
    try:
        yield
    except (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError) as fault:
        raise ProviderAwayError(f"{type(fault).__name__} {fault.http_status or ''}".strip()) from None
    except stripe.StripeError as fault:
        raise ProviderRefusedError(str(fault.code or type(fault).__name__)[:40]) from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as fault:
        raise ProviderAwayError(f"not readable: {type(fault).__name__}") from None


def _payment(session: Mapping[str, Any], *, event_id: str, merchant_id: str, body_digest: str) -> PaymentNotice:
    return PaymentNotice(
        event_id=event_id,
        out_trade_no=_word(session["metadata"]["out_trade_no"]),
        transaction_id=_id(session["payment_intent"]),
        merchant_id=merchant_id,
        app_id="",
        amount=_fen(session["amount_total"]) * FEN,
        currency=_word(session["currency"]).upper(),
        body_digest=body_digest,
    )


def _refund(
    refund: Mapping[str, Any], out_trade_no: str, *, event_id: str, merchant_id: str, body_digest: str
) -> RefundNotice:
    """Read a refund; one without our number was made on Stripe's own pages."""
    own = (refund.get("metadata") or {}).get("out_refund_no") or ""
    return RefundNotice(
        event_id=event_id,
        out_trade_no=out_trade_no,
        out_refund_no=own,
        refund_id=_word(refund["id"]),
        merchant_id=merchant_id,
        app_id="",
        amount=_fen(refund["amount"]) * FEN,
        currency=_word(refund["currency"]).upper(),
        state=_STATES.get(refund["status"], "pending"),
        forced=not own,
        body_digest=body_digest,
    )


def _id(thing: Any) -> str:
    """Return the id of what Stripe gives as an id, or whole."""
    return _word(thing["id"] if isinstance(thing, dict) else thing)


def _word(text: object) -> str:
    if not isinstance(text, str) or not text or "\x00" in text:
        raise TypeError("names are texts")
    return text


def _fen(amount: object) -> int:
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise TypeError("an amount is a whole number of fen")
    return amount


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
