"""Stripe's API over real HTTP on the loopback interface, and its events, signed with secrets made for the test.

Requests must bear a known secret key; forms are Stripe's (`line_items[0][price_data][currency]`), and so are sessions,
payment intents, charges, refunds, balance transactions and failures, as far as anyone here asks for them. What the
test wants to go wrong it says: by the arguments of `event`, and by `trouble` for the next answers.
"""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from tests.doubles.serving import Asked, Said, serving

HALF_AN_HOUR = 1800


@dataclass(kw_only=True)
class Merchant:
    """An account at Stripe."""

    merchant_id: str
    secret_key: str = field(default_factory=lambda: f"sk_live_{secrets.token_hex(12)}")
    webhook_secret: str = field(default_factory=lambda: f"whsec_{secrets.token_hex(16)}")


@dataclass(kw_only=True)
class Sale:
    """A session and what became of it."""

    merchant: Merchant
    asked: dict[str, str]
    session: dict[str, Any]
    intent: dict[str, Any]
    charge: dict[str, Any] | None = None
    refunds: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class StripeDouble:
    """Stripe: its accounts, their sales, and what goes wrong next."""

    url: str = ""
    merchants: dict[str, Merchant] = field(default_factory=dict)  # by secret key
    sales: dict[str, Sale] = field(default_factory=dict)  # by our order number
    trouble: deque[str] = field(default_factory=deque)  # of the next answers: "down", "busy", "garbage"
    pays_before_close: set[str] = field(default_factory=set)
    slow_refunds: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    remembered: dict[str, tuple[dict[str, str], dict[str, Any]]] = field(default_factory=dict)
    movements: list[tuple[Merchant, dict[str, Any]]] = field(default_factory=list)

    def pay(self, out_trade_no: str) -> Sale:
        """Let the person pay an order."""
        sale = self.sales[out_trade_no]
        assert sale.session["payment_status"] == "unpaid"
        sale.session |= {
            "status": "complete",
            "payment_status": "paid",
            "url": None,
            "payment_intent": sale.intent["id"],
        }
        sale.charge = {
            "id": f"ch_{secrets.token_hex(12)}",
            "object": "charge",
            "amount": sale.session["amount_total"],
            "currency": sale.session["currency"],
            "metadata": sale.intent["metadata"],
            "payment_intent": sale.intent["id"],
            "refunded": False,
        }
        sale.intent |= {"status": "succeeded", "latest_charge": sale.charge["id"]}
        self._move(sale.merchant, sale.charge, sale.charge["amount"], "charge")
        return sale

    def refund_by_hand(self, out_trade_no: str, amount: int) -> dict[str, Any]:
        """Let the merchant pay something back on Stripe's own pages."""
        return self._refund(self.sales[out_trade_no], amount, {})

    def dispute(self, out_trade_no: str, status: str = "needs_response", dispute_id: str = "") -> dict[str, Any]:
        """Return a charge-back of all that was paid."""
        sale = self.sales[out_trade_no]
        assert sale.charge is not None
        made = {
            "id": dispute_id or f"du_{secrets.token_hex(12)}",
            "object": "dispute",
            "amount": sale.charge["amount"],
            "currency": sale.charge["currency"],
            "charge": sale.charge["id"],
            "payment_intent": sale.intent["id"],
            "metadata": {},
            "status": status,
        }
        if not dispute_id:
            self._move(sale.merchant, made, -made["amount"], "adjustment")
        return made

    def notification(
        self, out_trade_no: str, /, *, kind: str = "checkout.session.completed", event: Any = None, **changes: Any
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of an event of an order's session; `changes` are to the session."""
        sale = self.sales[out_trade_no]
        return self.event(sale.merchant, kind, {**sale.session, **changes}, **(event or {}))

    def event(
        self,
        merchant: Merchant,
        kind: str,
        thing: Mapping[str, Any],
        *,
        age: int = 0,
        secret: str = "",
        event_id: str = "",
        livemode: bool = True,
        account: str = "",
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of an event."""
        body: dict[str, Any] = {
            "id": event_id or f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "api_version": "2026-10-28.endive",
            "created": int(time.time()),
            "data": {"object": dict(thing)},
            "livemode": livemode,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }
        if account:
            body["account"] = account
        raw = json.dumps(body, indent=2).encode()  # spaces: only the raw bytes verify
        return raw, self.signed(raw, secret or merchant.webhook_secret, age=age)

    def signed(self, raw: bytes, secret: str, *, age: int = 0) -> dict[str, str]:
        """Return the headers of a body that is signed with a secret."""
        stamp = str(int(time.time()) - age)
        made = hmac.new(secret.encode(), f"{stamp}.".encode() + raw, hashlib.sha256)
        return {"Stripe-Signature": f"t={stamp},v1={made.hexdigest()},v0={'0' * 64}"}

    def answer(self, asked: Asked) -> Said:
        """Answer one request."""
        trouble = self.trouble.popleft() if self.trouble else ""
        if trouble == "down":
            return Said(status=503, body=b"<html>upstream connect failure</html>")
        if trouble == "garbage":
            return Said(body=b"[1, 2]", headers={"Content-Type": "application/json"})
        status, said = self._answer(asked) if trouble != "busy" else (429, _failed("rate_limit"))
        headers = {"Content-Type": "application/json", "Request-Id": f"req_{secrets.token_hex(7)}"}
        return Said(status=status, body=json.dumps(said).encode(), headers=headers)

    def _answer(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        merchant = self.merchants.get(asked.headers.get("authorization", "").removeprefix("Bearer "))
        assert asked.headers["stripe-version"]
        if merchant is None:
            return 401, {"error": {"type": "invalid_request_error", "message": "Invalid API Key provided: sk_live_***"}}
        parts = urlsplit(asked.target)
        self.requests.append((asked.method, parts.path))
        form = dict(parse_qsl(asked.body.decode(), strict_parsing=True)) if asked.body else {}
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        key = asked.headers.get("idempotency-key", "")
        if key and asked.method == "POST" and key in self.remembered:
            known, said = self.remembered[key]
            return (200, said) if known == form else (400, _failed("idempotency_key_in_use", kind="idempotency_error"))
        status, said = self._route(merchant, asked.method, parts.path, form, query)
        if key and asked.method == "POST" and status == 200:
            self.remembered[key] = (form, json.loads(json.dumps(said)))
        return status, said

    def _route(  # noqa: PLR0911  # one for each address
        self, merchant: Merchant, method: str, path: str, form: dict[str, str], query: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        match method, path.removeprefix("/v1/").split("/"):
            case "GET", ["account"]:
                return 200, {"id": merchant.merchant_id, "object": "account"}
            case "POST", ["checkout", "sessions"]:
                return self._create(merchant, form)
            case "GET", ["checkout", "sessions", id_]:
                return self._found(self._sale(merchant, "session", id_), query)
            case "POST", ["checkout", "sessions", id_, "expire"]:
                return self._expire(self._sale(merchant, "session", id_))
            case "GET", ["payment_intents", id_]:
                sale = self._sale(merchant, "intent", id_)
                return (200, sale.intent) if sale else (404, _failed("resource_missing"))
            case "POST", ["refunds"]:
                return self._make_refund(merchant, form)
            case "GET", ["refunds"]:
                sale = self._sale(merchant, "intent", query.get("payment_intent", "")) or self._sale(
                    merchant, "charge", query.get("charge", "")
                )
                return 200, _page(path, list(reversed(sale.refunds)) if sale else [], query)
            case "GET", ["balance_transactions"]:
                assert query["expand[0]"] == "data.source"
                since, until = int(query["created[gte]"]), int(query["created[lt]"])
                assert until - since == 24 * 3600
                rows = [row for owner, row in self.movements if owner is merchant and since <= row["created"] < until]
                return 200, _page(path, list(reversed(rows)), query)
        raise AssertionError((method, path))

    def _create(self, merchant: Merchant, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        number = form["client_reference_id"]
        assert form["metadata[out_trade_no]"] == form["payment_intent_data[metadata][out_trade_no]"] == number
        assert (form["mode"], form["adaptive_pricing[enabled]"]) == ("payment", "false")
        assert form["success_url"].startswith("https://")
        if int(form["expires_at"]) < time.time() + HALF_AN_HOUR or int(form["expires_at"]) > time.time() + 24 * 3600:
            return 400, _failed("parameter_invalid_integer")
        metadata = {"out_trade_no": number}
        id_ = f"cs_live_{secrets.token_hex(24)}"
        session = {
            "id": id_,
            "object": "checkout.session",
            "amount_total": int(form["line_items[0][price_data][unit_amount]"]) * int(form["line_items[0][quantity]"]),
            "client_reference_id": number,
            "currency": form["line_items[0][price_data][currency]"],
            "expires_at": int(form["expires_at"]),
            "livemode": True,
            "metadata": metadata,
            "payment_intent": None,
            "payment_status": "unpaid",
            "status": "open",
            "url": f"https://checkout.stripe.com/c/pay/{id_}",
        }
        intent = {"id": f"pi_{secrets.token_hex(12)}", "object": "payment_intent", "metadata": metadata}
        self.sales[number] = Sale(merchant=merchant, asked=form, session=session, intent=intent)
        return 200, session

    def _found(self, sale: Sale | None, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if sale is None:
            return 404, _failed("resource_missing")
        if query.get("expand[0]") != "payment_intent.latest_charge" or sale.charge is None:
            return 200, sale.session
        return 200, {**sale.session, "payment_intent": {**sale.intent, "latest_charge": sale.charge}}

    def _expire(self, sale: Sale | None) -> tuple[int, dict[str, Any]]:
        if sale is None:
            return 404, _failed("resource_missing")
        number = sale.session["client_reference_id"]
        if number in self.pays_before_close:
            self.pay(number)
        if sale.session["status"] != "open":
            return 400, _failed("")
        sale.session |= {"status": "expired", "url": None}
        return 200, sale.session

    def _make_refund(self, merchant: Merchant, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        sale = self._sale(merchant, "intent", form["payment_intent"])
        if sale is None or sale.charge is None:
            return 404, _failed("resource_missing")
        amount, gone = int(form["amount"]), sum(one["amount"] for one in sale.refunds)
        if amount + gone > sale.charge["amount"]:
            return 400, _failed("charge_already_refunded")
        names = {found[1]: value for name, value in form.items() if (found := re.fullmatch(r"metadata\[(\w+)\]", name))}
        return 200, self._refund(sale, amount, names)

    def _refund(self, sale: Sale, amount: int, metadata: dict[str, str]) -> dict[str, Any]:
        assert sale.charge is not None
        made = {
            "id": f"re_{secrets.token_hex(12)}",
            "object": "refund",
            "amount": amount,
            "charge": sale.charge["id"],
            "currency": sale.charge["currency"],
            "metadata": metadata,
            "payment_intent": sale.intent["id"],
            "status": "pending" if self.slow_refunds else "succeeded",
        }
        sale.refunds.append(made)
        sale.charge["refunded"] = sum(one["amount"] for one in sale.refunds) == sale.charge["amount"]
        self._move(sale.merchant, made, -amount, "refund")
        return made

    def _move(self, merchant: Merchant, source: dict[str, Any], amount: int, kind: str) -> None:
        """Move an account's balance, which is kept in another currency."""
        row = {
            "id": f"txn_{secrets.token_hex(12)}",
            "object": "balance_transaction",
            "amount": amount * 11 // 100,
            "currency": "hkd",
            "created": int(time.time()),
            "source": source,
            "type": kind,
        }
        self.movements.append((merchant, row))

    def _sale(self, merchant: Merchant, what: str, id_: str) -> Sale | None:
        for sale in self.sales.values():
            thing = getattr(sale, what)
            if sale.merchant is merchant and thing is not None and thing["id"] == id_:
                return sale
        return None


def _failed(code: str, *, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {
        "error": {"code": code, "type": kind, "message": "No such thing"} if code else {"type": kind, "message": "x"}
    }


def _page(path: str, rows: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """Return a page of a list, of two at most whatever was asked for, so that every list has several."""
    ids = [row["id"] for row in rows]
    start = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
    size = min(2, int(query["limit"]))
    page = rows[start : start + size]
    return {"object": "list", "data": page, "has_more": start + size < len(rows), "url": path}


@contextmanager
def running_stripe() -> Iterator[StripeDouble]:
    """Serve a double until the block ends."""
    double = StripeDouble()
    with serving(double.answer) as url:
        double.url = url
        yield double
