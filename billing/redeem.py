"""Redeem codes: batches are made and revoked by staff, each code is redeemed once by a user of the tenant.

    create_batch    makes codes
    revoke_batch    ends all of a batch's codes that nobody has redeemed
    revoke_code     ends one
    redeem          turns a code into balance

A code is claimed by one UPDATE whose conditions are the claimed row's own, so that of many who try at once PostgreSQL
lets one through, and the ledger's credit is in the same transaction. Lock order: the user's accounts, the code, then
the tenant's clearing account.
"""

from datetime import datetime
from typing import Literal

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from billing import codes, ledger
from billing.models import RedeemBatch, RedeemCode, Transfer
from billing.models.redeem import MAX_CODE_AMOUNT, MAX_COUNT
from tenants import scope
from tenants.errors import ErrorCode, ProductError

_INSERT_AT_ONCE = 1000


def create_batch(  # noqa: PLR0913  a batch's columns
    *,
    tenant_id: int,
    name: str,
    amount: int,
    kind: Literal["cash", "gift"],
    count: int,
    created_by: str,
    expires_at: datetime | None = None,
    per_user_limit: int | None = None,
) -> RedeemBatch:
    """Make `count` codes worth `amount` micro-yuan each; `batch.codes` has them.

    Raises ValueError for a count outside 1…10,000, an amount outside 1…10¹¹, an unknown kind, a limit below 1, or no
    name.
    """
    _require(name=name, amount=amount, kind=kind, count=count, per_user_limit=per_user_limit)
    with scope.tenant(tenant_id), transaction.atomic():
        batch = RedeemBatch.objects.create(
            tenant_id=tenant_id,
            name=name.strip(),
            amount=amount,
            kind=kind,
            count=count,
            expires_at=expires_at,
            per_user_limit=per_user_limit,
            created_by=created_by,
        )
        fresh = [codes.new_code() for _ in range(count)]
        RedeemCode.objects.bulk_create(
            [RedeemCode(tenant_id=tenant_id, batch=batch, code=code, digest=codes.digest_of(code)) for code in fresh],
            batch_size=_INSERT_AT_ONCE,
        )
    return batch


def revoke_batch(*, tenant_id: int, batch_id: int) -> int:
    """End every code of a batch that nobody has redeemed; return how many that were. What was redeemed stays."""
    with scope.tenant(tenant_id), transaction.atomic():
        # The batch's row first: two who revoke it at once then do not wait for each other's codes crosswise.
        RedeemBatch.objects.filter(pk=batch_id, revoked_at=None).update(revoked_at=Now())
        open_codes = RedeemCode.objects.filter(batch_id=batch_id, redeemed_at=None, revoked_at=None)
        return open_codes.update(revoked_at=Now())


def revoke_code(*, tenant_id: int, code_id: int) -> bool:
    """End one code; False if it was redeemed or revoked before."""
    with scope.tenant(tenant_id):
        mine = RedeemCode.objects.filter(pk=code_id, redeemed_at=None, revoked_at=None)
        return mine.update(revoked_at=Now()) == 1


def redeem(*, tenant_id: int, user_id: int, code: str) -> Transfer:
    """Credit a user with what a code is worth, once; guests too, since a code is paid for by whoever bought it.

    Raises ProductError INVALID: "redeem_code_unknown" (another tenant's code among them), "redeem_code_used",
    "redeem_code_expired", "redeem_code_revoked" or "redeem_limit_reached".
    """
    with scope.tenant(tenant_id), transaction.atomic():
        found = _find(code)
        # Locked first, so that a user's own redemptions come one after the other and the limit below counts them all.
        ledger.lock_user_accounts(tenant_id=tenant_id, user_id=user_id)
        if not _claim(found, user_id):
            raise _why_not(found.pk, user_id)
        _require_within_limit(found.batch, user_id)
        return ledger.credit_user(
            tenant_id=tenant_id,
            user_id=user_id,
            amount=found.batch.amount,
            kind="gift" if found.batch.kind == RedeemBatch.Kind.GIFT else "cash",
            source="redeem",
            ref=str(found.pk),
            reason=f"{found.batch.name} {found.ending}",
            actor=f"user {user_id}",
        )


def _find(typed: str) -> RedeemCode:
    code = codes.normal(typed)
    rows = RedeemCode.objects.select_related("batch")
    found = rows.filter(digest__in=codes.digests_of(code)).first() if code else None
    if found is None:
        raise ProductError(
            ErrorCode.INVALID,
            _("This code is not known here. Please check it and try again."),
            type="redeem_code_unknown",
            scope="code",
        )
    return found


def _claim(code: RedeemCode, user_id: int) -> bool:
    """Mark a code as redeemed; False if it may not be, or not any more.

    The batch is looked at in a subquery of its own: joined to it, Django would put all conditions into a subquery over
    the codes, which PostgreSQL does not ask again after it has waited for another's claim of the same row.
    """
    alive = RedeemBatch.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), pk=OuterRef("batch_id"))
    rows = RedeemCode.objects.filter(Exists(alive), pk=code.pk, redeemed_at=None, revoked_at=None)
    return rows.update(redeemed_by_id=user_id, redeemed_at=Now()) == 1


def _why_not(code_id: int, user_id: int) -> ProductError:
    """Say what kept a code from being claimed: whoever was faster has committed by now."""
    code = RedeemCode.objects.get(pk=code_id)
    if code.revoked_at is not None:
        msg = _("This code was withdrawn. Please ask where you got it.")
        return ProductError(ErrorCode.INVALID, msg, type="redeem_code_revoked", scope="code")
    if code.redeemed_at is not None:
        own = code.redeemed_by_id == user_id
        msg = _("You have redeemed this code before.") if own else _("Someone has redeemed this code before.")
        return ProductError(ErrorCode.INVALID, msg, type="redeem_code_used", scope="code")
    return ProductError(ErrorCode.INVALID, _("This code has expired."), type="redeem_code_expired", scope="code")


def _require_within_limit(batch: RedeemBatch, user_id: int) -> None:
    """Refuse a code that, with it claimed, makes more of a batch than one user may have."""
    limit = batch.per_user_limit
    if limit is None:
        return
    used = RedeemCode.objects.filter(batch=batch, redeemed_by_id=user_id).count()
    if used > limit:
        raise ProductError(
            ErrorCode.INVALID,
            _("You have redeemed as many codes of this kind as one person may."),
            type="redeem_limit_reached",
            scope="user",
            used=limit,
            limit=limit,
        )


def _require(*, name: str, amount: int, kind: str, count: int, per_user_limit: int | None) -> None:
    if not name.strip():
        raise ValueError("a batch of codes needs a name")
    if not 1 <= amount <= MAX_CODE_AMOUNT:
        raise ValueError(f"a code is worth 1 to {MAX_CODE_AMOUNT} whole micro-yuan, not {amount!r}")
    if kind not in RedeemBatch.Kind.values:
        raise ValueError(f"unknown kind of credit: {kind!r}")
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"a batch has 1 to {MAX_COUNT} codes, not {count!r}")
    if per_user_limit is not None and per_user_limit < 1:
        raise ValueError("a limit per user is 1 at least")
