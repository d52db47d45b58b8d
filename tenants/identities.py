"""What a user can be known by: phone, e-mail, user name with password, WeChat's open ids; and proofs of being the user.

    arrive()      the user whom a proved phone or address stands for, made at the first time
    prove()       that whoever holds the token is the user, before something delicate
    bind_address(), bind_wechat(), unbind()    an identity more or less; never one that is another user's, nor the last
    set_password(), reset_password()

Everything runs in the tenant's scope. Nothing is ever merged: an identity of another account is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants import codes, throttle
from tenants.codes import Purpose
from tenants.errors import ErrorCode, ProductError
from tenants.login import add_wechat, name_guest, revoke_tokens, welcome
from tenants.models import EndUser, Tenant, WeChatIdentity
from tenants.wechat import WeChatSession

logger = structlog.get_logger(__name__)

PROOF_WINDOW_SECONDS: Final = 15 * 60


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One way in which a user is known. `shown` hides most of a phone or an address."""

    id: str
    kind: str
    shown: str
    since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a user brings to show who they are: the password, or a code sent to their own phone or address."""

    password: str = ""
    channel: str = ""
    code: str = ""


def arrive(
    *,
    tenant: Tenant,
    channel: str,
    target: str,
    guest: EndUser | None = None,
    admit_new: Callable[[], None] = lambda: None,
    **values: str,
) -> EndUser:
    """Return the user of a phone or an address that was proved; a `guest` becomes that user where it is nobody's yet.

    `values` are columns of a new user; `admit_new` may refuse one. Raises ProductError INVALID "user_blocked".
    """
    mine = EndUser.objects.filter(tenant_id=tenant.pk, **{channel: target})
    if known := mine.first():
        return welcome(known)
    columns = {channel: target, **{name: value for name, value in values.items() if value}}
    try:
        with transaction.atomic():
            if guest is not None and name_guest(guest, **columns):
                return EndUser.objects.get(pk=guest.pk)
            admit_new()
            return EndUser.objects.create(tenant_id=tenant.pk, last_seen_at=timezone.now(), **columns)
    except IntegrityError:  # of two first log-ins at once one makes
        return welcome(mine.get())


def identities_of(user: EndUser) -> list[Identity]:
    """Return what a user is known by."""
    found = [
        Identity(id=kind, kind=kind, shown=_veiled(kind, value))
        for kind in (codes.Channel.PHONE, codes.Channel.EMAIL)
        if (value := getattr(user, kind))
    ]
    if user.username:
        found.append(Identity(id="username", kind="username", shown=user.username))
    found += [
        Identity(
            id=f"wechat-{row.pk}", kind="wechat", shown=f"{row.app_id[:4]}…{row.app_id[-4:]}", since=row.created_at
        )
        for row in WeChatIdentity.objects.filter(tenant_id=user.tenant_id, user=user).order_by("pk")
    ]
    return found


def ways_in(user: EndUser) -> int:
    """Return by how many of their identities a user can come in: a user name opens nothing without a password."""
    return sum(each.kind != "username" or bool(user.password) for each in identities_of(user))


def prove(*, tenant: Tenant, user: EndUser, logged_in_at: datetime, proof: Proof) -> None:
    """Accept the password, a code sent to the user, or a log-in of a moment ago.

    Raises ProductError INVALID: "proof_needed" (it names the `ways`), "wrong_password" or "code_wrong"; QUOTA
    "too_many_tries" or "too_many_guesses".
    """
    if proof.password:
        who = f"{tenant.slug}:user {user.pk}"
        throttle.count(what="proof", who=who, limit=settings.LOGIN_TRIES, seconds=PROOF_WINDOW_SECONDS)
        if not check_password(proof.password, user.password):
            raise ProductError(ErrorCode.INVALID, _("The password is wrong."), type="wrong_password", scope="user")
        return
    target = getattr(user, proof.channel) if proof.channel in codes.Channel.values else None
    if target and proof.code:
        codes.check_code(
            tenant=tenant, channel=proof.channel, to=target, code=proof.code, purpose=Purpose.CONFIRM, user=user
        )
        return
    if not user.is_guest and logged_in_at + timedelta(seconds=settings.FRESH_SECONDS) > timezone.now():
        return
    ways = [kind for kind in (*codes.Channel.values, "password") if getattr(user, kind)]
    raise ProductError(
        ErrorCode.INVALID,
        _("Please show that it is you: by your password, by a code, or by logging in again."),
        type="proof_needed",
        scope="user",
        action="prove",
        ways=[*ways, "login"],
    )


def bind_address(*, user: EndUser, channel: str, target: str) -> EndUser:
    """Give a user a phone or an address that was proved, in place of another; a guest becomes a named user.

    Raises ProductError INVALID "identity_taken".
    """
    try:
        with transaction.atomic():
            if user.is_guest:
                EndUser.objects.filter(pk=user.pk, is_guest=True).update(is_guest=False)
            EndUser.objects.filter(pk=user.pk, deleted_at=None).update(**{channel: target})
    except IntegrityError:
        raise _taken() from None
    logger.info("identity_bound", user=user.pk, kind=channel)
    return EndUser.objects.get(pk=user.pk)


def bind_wechat(*, user: EndUser, app_id: str, session: WeChatSession) -> EndUser:
    """Let an open id stand for a user too; a guest becomes a named user. Raises ProductError INVALID "identity_taken".

    A person whom WeChat's union id shows to have another account here is not bound to a second one.
    """
    rows = WeChatIdentity.objects.filter(tenant_id=user.tenant_id)
    if session.unionid and rows.filter(unionid=session.unionid).exclude(user=user).exists():
        raise _taken()
    known = rows.filter(app_id=app_id, openid=session.openid).first()
    if known is not None and known.user_id == user.pk:
        return user
    try:
        with transaction.atomic():
            EndUser.objects.filter(pk=user.pk, is_guest=True).update(is_guest=False)
            add_wechat(user=user, app_id=app_id, session=session)
    except IntegrityError:
        raise _taken() from None
    logger.info("identity_bound", user=user.pk, kind="wechat")
    return EndUser.objects.get(pk=user.pk)


def unbind(*, user: EndUser, identity_id: str) -> EndUser:
    """Take an identity away; raise ProductError NOT_FOUND "identity_not_found", or INVALID "identity_last"."""
    with transaction.atomic():
        # Two at once must not each leave the other's as the last.
        user = EndUser.objects.select_for_update().get(pk=user.pk)
        found = {each.id: each for each in identities_of(user)}
        if identity_id not in found:
            raise ProductError(
                ErrorCode.NOT_FOUND, _("There is no such way to log in."), type="identity_not_found", scope="user"
            )
        counts = found[identity_id].kind != "username" or bool(user.password)
        if ways_in(user) - counts < 1:
            raise ProductError(
                ErrorCode.INVALID,
                _("This is the last way into your account. Please add another first."),
                type="identity_last",
                scope="user",
            )
        if found[identity_id].kind == "wechat":
            WeChatIdentity.objects.filter(user=user, pk=identity_id.removeprefix("wechat-")).delete()
        else:
            EndUser.objects.filter(pk=user.pk).update(**{identity_id: None})
    logger.info("identity_unbound", user=user.pk, kind=found[identity_id].kind)
    return EndUser.objects.get(pk=user.pk)


def require_password(password: str, user: EndUser | None = None) -> None:
    """Raise ProductError INVALID "weak_password" for one that Django's validators refuse."""
    try:
        validate_password(password, user)  # type: ignore[arg-type]  # it looks at attributes only
    except ValidationError as weak:
        raise ProductError(ErrorCode.INVALID, " ".join(weak.messages), type="weak_password", scope="user") from None


def set_password(*, user: EndUser, password: str, keep_token: str | None = None) -> None:
    """Give a user a new password and end their log-ins, but for one token's; raises as `require_password`."""
    require_password(password, user)
    EndUser.objects.filter(pk=user.pk, deleted_at=None).update(password=make_password(password))
    revoke_tokens(user=user, but=keep_token)
    logger.info("password_set", user=user.pk)


def reset_password(*, tenant: Tenant, channel: str, to: str, code: str, password: str) -> EndUser:
    """Set a new password for whoever has the phone or the address; all their log-ins end.

    Whether an account goes with it is said only to whom it belongs. Raises ProductError as `codes.check_code` with
    purpose RESET, `require_password`, and NOT_FOUND "account_unknown".
    """
    require_password(password)
    target = codes.check_code(tenant=tenant, channel=channel, to=to, code=code, purpose=Purpose.RESET)
    user = EndUser.objects.filter(tenant_id=tenant.pk, **{channel: target}).first()
    if user is None:
        raise ProductError(
            ErrorCode.NOT_FOUND, _("There is no account with it here yet."), type="account_unknown", scope="user"
        )
    welcome(user)
    set_password(user=user, password=password)
    return user


def _veiled(kind: str, value: str) -> str:
    if kind == codes.Channel.PHONE:
        return f"{value[:-8]}****{value[-4:]}"
    name, _at, host = value.partition("@")
    return f"{name[:1]}***@{host}"


def _taken() -> ProductError:
    return ProductError(
        ErrorCode.INVALID,
        _(
            "This belongs to another account here, and accounts are not merged. "
            "Please log in to that one, or unbind it there first."
        ),
        type="identity_taken",
        scope="user",
    )
