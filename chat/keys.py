"""API keys of end users: made, changed and revoked by their users, and what may be spent on one.

    key_of()       the key that a secret belongs to, or a refusal; asked anew by every call, in every process
    budget_of()    what a call may still cost, with the key's row locked: calls of a key that has a limit wait for each
                   other
    lock(), note_spent()   what an answer's end adds to the key, in the transaction that settles it

Everything runs in the tenant's scope. The key's row is locked before any of the user's or the tenant's (the order is in
`billing.ledger`), and never so that a message cannot point at it meanwhile.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Case, F, IntegerField, Q, Sum, When
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.models import Hold
from chat import refusals
from chat.keyring import KEY_PREFIX
from chat.models import ApiKey, Message
from tenants.errors import ErrorCode, ProductError
from tenants.login import digest_of
from tenants.models import EndUser

SECRET_CHARACTERS: Final = 43  # of 32 random bytes
# How exact `last_used_at` is: a busy key's row is not written by every call.
USED_SECONDS: Final = 60


def make_key(
    *,
    user: EndUser,
    name: str,
    spend_limit: int | None = None,
    allowed_models: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Return a new key of `user`, and its secret, which nobody can be shown again.

    `spend_limit` in micro-yuan, in all; None: no limit but the balance. Raises ProductError INVALID
    "guest_without_keys", "api_key_invalid_expiry" or QUOTA "too_many_keys".
    """
    if user.is_guest:
        raise ProductError(
            ErrorCode.INVALID, _("Please sign up first: API keys are for registered users."), type="guest_without_keys"
        )
    _refuse_past(expires_at)
    has = ApiKey.objects.filter(user=user, revoked_at=None).count()
    if has >= settings.API_KEYS_PER_USER:
        raise ProductError(
            ErrorCode.QUOTA,
            _("You have as many API keys as one may have. Please revoke one first."),
            type="too_many_keys",
            scope="user",
            action="revoke",
            reset_at=None,
            used=has,
            limit=settings.API_KEYS_PER_USER,
        )
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey.objects.create(
        tenant_id=user.tenant_id,
        user=user,
        name=name,
        digest=digest_of(secret),
        last4=secret[-4:],
        allowed_models=list(allowed_models),
        spend_limit=spend_limit,
        expires_at=expires_at,
    )
    return key, secret


def find_key(*, user: EndUser, key_id: int) -> ApiKey:
    """Return the user's own key; raise ProductError 404."""
    key = ApiKey.objects.filter(pk=key_id, user=user).first()
    if key is None:
        raise ProductError(
            ErrorCode.NOT_FOUND, _("You have no such API key."), type="api_key_not_found", scope="api_key"
        )
    return key


def change_key(key: ApiKey, **changes: Any) -> None:
    """Change a key's `name`, `spend_limit`, `allowed_models` or `expires_at`; what it has spent stays."""
    _refuse_past(changes.get("expires_at"))
    ApiKey.objects.filter(pk=key.pk).update(**changes)
    key.refresh_from_db()


def revoke_key(key: ApiKey) -> bool:
    """End a key for good, from the next call on; False if it had been revoked before. Answers under way go on."""
    return ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=Now()) == 1


def _refuse_past(moment: datetime | None) -> None:
    if moment is not None and moment <= timezone.now():
        raise ProductError(
            ErrorCode.INVALID, _("This moment has passed."), type="api_key_invalid_expiry", scope="expires_at"
        )


def looks_like_key(secret: str) -> bool:
    """Whether it is worth asking the database about a secret."""
    return secret.startswith(KEY_PREFIX) and secret.isascii() and len(secret) == len(KEY_PREFIX) + SECRET_CHARACTERS


def key_of(*, tenant_id: int, secret: str) -> ApiKey:
    """Return the key, with its user, that a secret belongs to, by one query; note, now and then, that it is used.

    Raises ProductError LOGIN: "api_key_expired", or "api_key_invalid" for anything else that is wrong with it: revoked,
    of a blocked user, or another tenant's, which is not told apart from one that never was.
    """
    key = (
        ApiKey.objects.select_related("user")
        .filter(tenant_id=tenant_id, digest=digest_of(secret), revoked_at=None, user__is_active=True)
        .first()
        if looks_like_key(secret)
        else None
    )
    if key is None:
        raise refusals.api_key_invalid()
    if key.is_expired:
        raise ProductError(
            ErrorCode.LOGIN,
            _("This API key has expired. Please use another one."),
            type="api_key_expired",
            scope="api_key",
        )
    _note_use(key)
    return key


def _note_use(key: ApiKey) -> None:
    fresh = timedelta(seconds=USED_SECONDS)
    if key.last_used_at is None or timezone.now() - key.last_used_at > fresh:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=Now() - fresh)
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=Now())


def budget_of(key_id: int) -> int | None:
    """Return what a call of the key may cost at most, micro-yuan; None: it has no limit. Locks one that has.

    Part of the transaction that admits the call. Raises ProductError LOGIN for a key that was revoked meanwhile, and
    QUOTA "api_key_limit_reached" where there is nothing left.
    """
    if not ApiKey.objects.filter(pk=key_id, spend_limit__isnull=False).exists():
        return None
    key = lock(key_id)
    if key.revoked_at is not None:
        raise refusals.api_key_invalid()
    if key.spend_limit is None:
        return None
    taken = key.spent + _under_way(key)
    if taken >= key.spend_limit:
        raise refusals.api_key_limit_reached(used=taken, limit=key.spend_limit)
    return key.spend_limit - taken


def limit_reached(key_id: int) -> ProductError:
    """Return the refusal where what the key may still spend is too little for a call (102)."""
    key = ApiKey.objects.get(pk=key_id)
    return refusals.api_key_limit_reached(used=key.spent + _under_way(key), limit=key.spend_limit or 0)


def _under_way(key: ApiKey) -> int:
    """Return what the key's running calls may cost at most, or have cost where only their rows are still open."""
    running = Message.objects.filter(user_id=key.user_id, api_key=key, state=Message.State.RUNNING)
    costs = Case(
        When(state=Hold.State.HELD, then=F("amount")),
        When(state=Hold.State.POSTED, then=F("charge")),
        default=0,
        output_field=IntegerField(),
    )
    total = Hold.objects.filter(pk__in=running.values("pk")).aggregate(total=Sum(costs))["total"]
    return int(total or 0)


def lock(key_id: int) -> ApiKey:
    """Lock a key's row until the transaction ends; rows that point at it can still be written."""
    return ApiKey.objects.select_for_update(no_key=True).get(pk=key_id)


def note_spent(key_id: int, amount: int) -> None:
    """Add what an answer was charged, or what a charge was put right by, micro-yuan."""
    if amount:
        ApiKey.objects.filter(pk=key_id).update(spent=F("spent") + amount)
