"""What is kept of a person, given to them as one archive, and erased when they go.

Each room adds its own part by `add_part`, when the apps are ready: this one knows neither conversations nor money.

    archive()     everything, as JSON's types
    stakes()      what a deletion would cost, and what stands in its way
    delete()      the person goes; the ledger's rows stay, of nobody
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from django.db import transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from tenants import avatars, pictures
from tenants.errors import ErrorCode, ProductError
from tenants.identities import identities_of
from tenants.models import AccessToken, AccountDeletion, EndUser, OneTimeCode, Tenant, WeChatIdentity

logger = structlog.get_logger(__name__)

FORMAT: Final = "banyan-user-archive"
VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Stakes:
    """What a user would give up, micro-yuan and names of plans, and what has to end first (stable words)."""

    cash: int = 0
    gift: int = 0
    plans: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()

    @property
    def is_worth_something(self) -> bool:
        """Whether leaving costs anything."""
        return bool(self.cash or self.gift or self.plans)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One room's share. `erase` says what it erased, by name and number; it runs in the deletion's transaction."""

    name: str
    export: Callable[[EndUser], Mapping[str, Any]]
    erase: Callable[[EndUser], Mapping[str, int]]
    stakes: Callable[[EndUser], Stakes] | None = None


@dataclass(frozen=True, kw_only=True)
class Departed:
    """The proof of a deletion: `seal` is ours over the rest, and the tenant's record says the same."""

    number: int
    deleted_at: datetime
    erased: Mapping[str, int]
    cash: int
    gift: int
    seal: str


_parts: dict[str, Part] = {}


def add_part(part: Part) -> None:
    """Add a room's part; again, in its place."""
    _parts[part.name] = part


def archive(*, tenant: Tenant, user: EndUser) -> dict[str, Any]:
    """Return everything that is kept of a user, as JSON's types; in the tenant's scope."""
    told: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": timezone.now().isoformat(),
        "service": tenant.name,
        **_export(user),
    }
    for part in _parts.values():
        told |= part.export(user)
    return told


def stakes(user: EndUser) -> Stakes:
    """Return what a deletion would cost a user, and what stands in its way."""
    found = [part.stakes(user) for part in _parts.values() if part.stakes is not None]
    return Stakes(
        cash=sum(one.cash for one in found),
        gift=sum(one.gift for one in found),
        plans=tuple(name for one in found for name in one.plans),
        waits_for=tuple(word for one in found for word in one.waits_for),
    )


def delete(*, tenant: Tenant, user: EndUser, forfeits: bool) -> Departed:
    """Erase a person and return the proof; the caller has had them prove who they are.

    What is left of balance and plans is lost, and only by consent: `forfeits`. It stays on the accounts of nobody, for
    the books.

    Raises ProductError INVALID: "deletion_waits" (an answer, an order or a refund is under way), or
    "deletion_forfeits" (with what would be lost).
    """
    with transaction.atomic():
        user = EndUser.objects.select_for_update().get(pk=user.pk, deleted_at=None)
        lost = stakes(user)
        _refuse_to_delete(lost, forfeits=forfeits)
        erased: dict[str, int] = {}
        for part in _parts.values():
            erased |= part.erase(user)
        erased |= _erase(user)
        row = AccountDeletion.objects.create(
            tenant_id=tenant.pk,
            user=user,
            erased=erased,
            cash=lost.cash,
            gift=lost.gift,
            deleted_at=timezone.now(),
        )
    logger.info("account_deleted", user=user.pk, cash=lost.cash, gift=lost.gift)
    return proof_of(row)


def proof_of(row: AccountDeletion) -> Departed:
    """Return the proof of a deletion, the same whenever it is made."""
    sealed = f"{row.tenant_id}:{row.pk}:{row.user_id}:{row.deleted_at.isoformat()}:{row.cash}:{row.gift}"
    return Departed(
        number=row.pk,
        deleted_at=row.deleted_at,
        erased=row.erased,
        cash=row.cash,
        gift=row.gift,
        seal=salted_hmac("tenants.personal", sealed, algorithm="sha256").hexdigest(),
    )


def _refuse_to_delete(lost: Stakes, *, forfeits: bool) -> None:
    if lost.waits_for:
        raise ProductError(
            ErrorCode.INVALID,
            _("Something is still under way: an answer, an order or a refund. Please try again once it has ended."),
            type="deletion_waits",
            scope="user",
            action="wait",
            waits_for=list(lost.waits_for),
        )
    if lost.is_worth_something and not forfeits:
        raise ProductError(
            ErrorCode.INVALID,
            _("Your balance and plans would be lost. Please use them up, ask for a refund, or agree to lose them."),
            type="deletion_forfeits",
            scope="user",
            action="forfeit",
            cash=str(lost.cash),
            gift=str(lost.gift),
            plans=list(lost.plans),
        )


def _export(user: EndUser) -> dict[str, Any]:
    return {
        "account": {
            "id": user.pk,
            "username": user.username,
            "phone": user.phone,
            "email": user.email,
            "nickname": user.nickname,
            "language": user.language,
            "is_guest": user.is_guest,
            "has_password": bool(user.password),
            "created_at": user.created_at.isoformat(),
            "last_seen_at": user.last_seen_at and user.last_seen_at.isoformat(),
        },
        "avatar": _avatar(user),
        "identities": [{"kind": each.kind, "shown": each.shown} for each in identities_of(user)],
        "wechat": list(WeChatIdentity.objects.filter(user=user).order_by("pk").values("app_id", "openid", "unionid")),
        "sessions": [
            {"label": row.label, "device": row.device, "since": row.created_at.isoformat()} for row in _sessions(user)
        ],
    }


def _avatar(user: EndUser) -> dict[str, str] | None:
    found = avatars.of(user)
    if found is None:
        return None
    data = base64.b64encode(found.data).decode()
    return {"media_type": pictures.MEDIA_TYPE, "data": data, "at": found.created_at.isoformat()}


def _sessions(user: EndUser) -> Iterable[AccessToken]:
    return AccessToken.objects.filter(user=user).order_by("pk")


def _erase(user: EndUser) -> dict[str, int]:
    """Take the person out of this room's rows."""
    erased = {
        "wechat_identities": WeChatIdentity.objects.filter(user=user).delete()[0],
        "sessions": AccessToken.objects.filter(user=user).delete()[0],
        "codes": OneTimeCode.objects.filter(user=user).delete()[0],
        "avatars": int(avatars.remove(user)),
    }
    now = timezone.now()
    nothing: dict[str, Any] = {"username": None, "phone": None, "email": None, "nickname": "", "password": ""}
    erased["profile"] = EndUser.objects.filter(pk=user.pk).update(
        **nothing, language="", is_active=False, last_seen_at=None, deleted_at=now
    )
    return erased
