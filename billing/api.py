"""The JSON API of a user's own money."""

from typing import Annotated, Any, Literal

from django.conf import settings
from django.http import HttpRequest
from ninja import Router, Schema
from pydantic import Field

from billing import ledger, redeem
from billing.models import AccountKind
from tenants import throttle
from tenants.api import Envelope, Text, address_of, current_tenant, ok, signed_in, user_of

router = Router(tags=["billing"], auth=signed_in)

REDEEM_WINDOW_SECONDS = 15 * 60


class BalanceOut(Schema):
    """What the user has, micro-yuan; `pending` of it is frozen by answers that are under way."""

    cash: str
    gift: str
    pending: str
    available: str


class RedeemIn(Schema):
    """A code as its buyer types it, or the link to it."""

    code: Annotated[Text, Field(min_length=1, max_length=300)]


class RedeemedOut(Schema):
    """What a code brought, and what can be spent now; micro-yuan."""

    credited: str
    kind: Literal["cash", "gift"]
    balance: str


@router.get("/balance", response=Envelope[BalanceOut])
def balance(request: HttpRequest) -> Any:
    """Return what the user has."""
    user = user_of(request)
    has = ledger.balances(tenant_id=user.tenant_id, user_id=user.pk)
    return ok({"available": str(has.available), **{name: str(amount) for name, amount in has._asdict().items()}})


@router.post("/redeem", response=Envelope[RedeemedOut])
def redeem_code(request: HttpRequest, payload: RedeemIn) -> Any:
    """Turn a code into balance, once."""
    user, slug = user_of(request), current_tenant(request).slug
    # Many people share an address; a guesser who has many accounts has few addresses.
    for who, limit in ((f"user {user.pk}", settings.REDEEM_TRIES), (address_of(request), settings.REDEEM_TRIES * 10)):
        throttle.count(what="redeem", who=f"{slug}:{who}", limit=limit, seconds=REDEEM_WINDOW_SECONDS)
    transfer = redeem.redeem(tenant_id=user.tenant_id, user_id=user.pk, code=payload.code)
    received = transfer.entries.select_related("account").get(account__user=user)
    return ok(
        {
            "credited": str(received.amount),
            "kind": "gift" if received.account.kind == AccountKind.USER_GIFT else "cash",
            "balance": str(ledger.balances(tenant_id=user.tenant_id, user_id=user.pk).available),
        }
    )
