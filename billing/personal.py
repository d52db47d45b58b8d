"""Money's part of what is kept of a person (`tenants.personal`): their books, to take along, which stay here too."""

from collections.abc import Mapping
from typing import Any

from django.db.models.functions import Now

from billing import ledger
from billing.models import (
    Account,
    Entry,
    Hold,
    Invitation,
    InvitationCode,
    Order,
    Refund,
    RewardOrigin,
    SignIn,
    Subscription,
)
from billing.models.account import USER_KINDS
from tenants.models import EndUser
from tenants.personal import Part, Stakes


def export(user: EndUser) -> Mapping[str, Any]:
    """Return balances, every movement of them, orders with refunds, and plans; amounts are texts of micro-yuan."""
    has = ledger.balances(tenant_id=user.tenant_id, user_id=user.pk)
    return {
        "balance": {"cash": str(has.cash), "gift": str(has.gift), "pending": str(has.pending)},
        "ledger": [_movement(row) for row in _entries(user)],
        "orders": [_order(row) for row in Order.objects.filter(user=user).order_by("created_at", "pk")],
        "plans": [
            {"name": row.name, "starts_at": row.starts_at.isoformat(), "ends_at": row.ends_at.isoformat()}
            for row in Subscription.objects.filter(user=user).order_by("pk")
        ],
        "sign_ins": [row.isoformat() for row in SignIn.objects.filter(user=user).values_list("date", flat=True)],
        "invitation_codes": list(InvitationCode.objects.filter(user=user).values_list("code", flat=True)),
        "invited": Invitation.objects.filter(inviter=user).count(),
    }


def stakes(user: EndUser) -> Stakes:
    """Return what would be lost; locks the user's accounts where a transaction runs, so that nothing is added to it."""
    accounts = list(Account.objects.filter(user=user, kind__in=USER_KINDS).select_for_update().order_by("-kind"))
    has = {row.kind: row.posted for row in accounts}
    waits = {
        "answer": Hold.objects.filter(user=user, state=Hold.State.HELD).exists(),
        "order": Order.objects.filter(user=user, state=Order.State.PENDING).exists(),
        "refund": Refund.objects.filter(order__user=user, state=Refund.State.REQUESTED).exists(),
    }
    running = Subscription.objects.filter(user=user, ends_at__gt=Now())
    return Stakes(
        cash=has.get("user_cash", 0),
        gift=has.get("user_gift", 0),
        plans=tuple(running.order_by("pk").values_list("name", flat=True)),
        waits_for=tuple(word for word, is_so in waits.items() if is_so),
    )


def erase(user: EndUser) -> Mapping[str, int]:
    """Take out of the books what only tells who somebody was: rows of money keep their user, who is nobody now."""
    return {
        "reward_origins": RewardOrigin.objects.filter(user=user).delete()[0],
        "payers": Order.objects.filter(user=user).exclude(payer_openid="").update(payer_openid=""),
        "invitation_origins": Invitation.objects.filter(invitee=user).update(device_digest="", address_digest=""),
    }


PART = Part(name="billing", export=export, erase=erase, stakes=stakes)


def _entries(user: EndUser) -> Any:
    mine = Entry.objects.filter(account__user=user, account__kind__in=USER_KINDS)
    return mine.select_related("transfer", "account").order_by("pk")


def _movement(row: Entry) -> dict[str, Any]:
    return {
        "at": row.transfer.created_at.isoformat(),
        "account": row.account.kind.removeprefix("user_"),
        "kind": row.transfer.kind,
        "amount": str(row.amount),
    }


def _order(row: Order) -> dict[str, Any]:
    refunds = Refund.objects.filter(order=row).order_by("created_at", "pk")
    return {
        "id": str(row.pk),
        "name": row.package_name,
        "price": str(row.price),
        "channel": row.channel,
        "state": row.state,
        "created_at": row.created_at.isoformat(),
        "paid_at": row.paid_at and row.paid_at.isoformat(),
        "refunds": [{"amount": str(refund.amount), "state": refund.state} for refund in refunds],
    }
