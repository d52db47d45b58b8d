"""Signing end users in, and the tokens that prove it.

Everything that reads or writes a row runs in the tenant's scope. A token is shown once, when it is issued; the
database has its SHA-256.
"""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _
from django.utils.translation import trans_real

from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import AccessToken, EndUser, MiniProgram, Tenant, WeChatIdentity
from tenants.table import Joined, Query, Table, fetch
from tenants.wechat import WeChatClient, WeChatSession

TOKEN_PREFIX = "bny_"  # noqa: S105  # what every token begins with, for secret scanners and saas.logging
_TOKEN = re.compile(r"bny_[A-Za-z0-9_-]{43}\Z")
_BEARER = re.compile(r"bearer +(?P<token>\S+)\s*\Z", re.IGNORECASE)
_PHONE_MARKS = re.compile(r"[\s()-]")
_OWNERS = Joined(person=Table(EndUser))
# Every request of a user runs it.
_OF_TOKEN = _OWNERS.select("""
, token.expires_at FROM tenants_accesstoken token
JOIN tenants_enduser person ON person.tenant_id = token.tenant_id AND person.id = token.user_id
WHERE token.tenant_id = %(tenant)s AND token.digest = %(digest)s AND token.revoked_at IS NULL AND person.is_active
""")


def token_of(headers: Mapping[str, str], parameters: Mapping[str, Any]) -> str | None:
    """Return the token a request carries, in the order of docs/protocol.md; None if there is none.

    `headers` by lower-case name. EventSource cannot set headers, hence the parameter.
    """
    bearer = _BEARER.match(headers.get("authorization", ""))
    token = (bearer and bearer["token"]) or headers.get("token") or parameters.get("token")
    return token.strip() if isinstance(token, str) and token.strip() else None


def choose_language(accept_language: str | None, *, tenant_language: str, user_language: str = "") -> str:
    """Return the language to answer in: the user's, else the header's first that we have, else the tenant's."""
    if user_language:
        return user_language
    for wanted, _weight in trans_real.parse_accept_lang_header(accept_language or ""):
        if wanted == "*":
            break
        try:
            return translation.get_supported_language_variant(wanted)
        except LookupError:
            continue
    return tenant_language


def digest_of(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def issue_token(*, user: EndUser, label: str = "", days: int | None = None, device: str = "") -> str:
    """Return a new token of `user`, good for `days` (settings.TOKEN_DAYS where not given), on a `device`."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    now = timezone.now()
    AccessToken.objects.create(
        tenant_id=user.tenant_id,
        user=user,
        digest=digest_of(token),
        label=label[:64],
        device=device[:64],
        expires_at=now + timedelta(days=settings.TOKEN_DAYS if days is None else days),
    )
    return token


def revoke_token(*, tenant_id: int, token: str) -> bool:
    """End one log-in; False if there was none to end."""
    rows = AccessToken.objects.filter(tenant_id=tenant_id, digest=digest_of(token), revoked_at=None)
    return rows.update(revoked_at=timezone.now()) == 1


def revoke_tokens(*, user: EndUser, but: str | None = None) -> int:
    """End a user's log-ins, all or all but one token's; return how many."""
    rows = AccessToken.objects.filter(tenant_id=user.tenant_id, user=user, revoked_at=None)
    if but is not None:
        rows = rows.exclude(digest=digest_of(but))
    return rows.update(revoked_at=timezone.now())


def user_of_token(*, tenant_id: int, token: str | None) -> EndUser:
    """Return the user a token stands for, by one query; raises as `user_query`."""
    return fetch(user_query(tenant_id=tenant_id, token=token))


def user_query(*, tenant_id: int, token: str | None) -> Query[EndUser]:
    """Return the query of the user a token stands for.

    Raises ProductError LOGIN, now or when it is read: "token_expired", or "login_required" for anything else that is
    wrong with it: another tenant's token is not told apart from one that never was.
    """
    if token is None or not _TOKEN.match(token):
        raise login_required()
    scope.require_owner(tenant_id)
    return Query(_OF_TOKEN, {"tenant": tenant_id, "digest": digest_of(token)}, _owner)


def _owner(rows: list[tuple[Any, ...]]) -> EndUser:
    found = _OWNERS.first(rows)
    if found is None:
        raise login_required()
    user: EndUser
    user, expires_at = found
    if expires_at <= timezone.now():
        raise ProductError(
            ErrorCode.LOGIN, _("Your log-in has expired. Please log in again."), type="token_expired", action="login"
        )
    return user


def log_in_with_password(*, tenant: Tenant, identifier: str, password: str) -> EndUser:
    """Return the tenant's user with this user name, phone or e-mail, if the password is theirs.

    Raises ProductError INVALID "wrong_password", the same for a name that does not exist, or "user_blocked".
    """
    user = EndUser.objects.filter(tenant_id=tenant.pk, **_identified(identifier)).first()
    # Without a user check_password takes as long and says no, so that the time does not tell which names exist.
    if not check_password(password, user.password if user else "") or user is None:
        raise ProductError(
            ErrorCode.INVALID, _("The name or the password is wrong."), type="wrong_password", scope="user"
        )
    return welcome(user)


def register(  # noqa: PLR0913  what a user begins with
    *,
    tenant: Tenant,
    username: str,
    password: str,
    nickname: str = "",
    language: str = "",
    guest: EndUser | None = None,
) -> EndUser:
    """Return a new user of `tenant`, with a user name and a password; a `guest` becomes that user, balance and all.

    Phone and e-mail are not taken here: nobody may claim one without a proof that it is theirs.

    Raises ProductError INVALID: "username_invalid", "username_taken" or "weak_password".
    """
    user = EndUser(
        tenant=tenant,
        username=_normal(username),
        nickname=nickname.strip()[:64],
        language=language,
        last_seen_at=timezone.now(),
    )
    with _refusing("username_invalid"):
        user.clean_fields(exclude=["password"])
    with _refusing("weak_password"):
        validate_password(password)
    user.password = make_password(password)
    try:
        with transaction.atomic():
            named = {name: getattr(user, name) for name in ("username", "password", "nickname", "language")}
            if guest is not None and name_guest(guest, **named):
                return EndUser.objects.get(pk=guest.pk)
            user.save(force_insert=True)
    except IntegrityError:
        raise ProductError(
            ErrorCode.INVALID, _("This user name is taken. Please choose another."), type="username_taken", scope="user"
        ) from None
    return user


def start_guest(*, tenant: Tenant) -> EndUser:
    """Return a new guest of `tenant`; raise ProductError LOGIN "guest_not_allowed" if it wants none."""
    if not tenant.allow_guest:
        raise ProductError(
            ErrorCode.LOGIN, _("Please log in first: there is no trial here."), type="guest_not_allowed", action="login"
        )
    return EndUser.objects.create(tenant_id=tenant.pk, is_guest=True, last_seen_at=timezone.now())


def name_guest(guest: EndUser, **values: object) -> bool:
    """Make a guest a named user, with these columns; False if it is no guest (any more).

    The guest's tokens end: whoever knew one must not be let into what is a person's account from here on.
    """
    rows = EndUser.objects.filter(pk=guest.pk, is_guest=True, is_active=True)
    if not rows.update(is_guest=False, last_seen_at=timezone.now(), **values):
        return False
    revoke_tokens(user=guest)
    return True


def log_in_with_wechat(
    *, tenant: Tenant, app_id: str | None, code: str, client: WeChatClient, guest: EndUser | None = None
) -> EndUser:
    """Return the user behind a mini-program's `wx.login` code, made at the first log-in; a `guest` becomes that user.

    Raises ProductError: NOT_FOUND "mini_program_not_found", or what `WeChatClient.session` raises.
    """
    program, session = mini_program_session(tenant=tenant, app_id=app_id, code=code, client=client)
    return user_of_wechat(tenant_id=tenant.pk, app_id=program.app_id, session=session, guest=guest)


def mini_program_session(
    *, tenant: Tenant, app_id: str | None, code: str, client: WeChatClient
) -> tuple[MiniProgram, WeChatSession]:
    """Return which mini-program a `wx.login` code is of, and whom it stands for; raises as `log_in_with_wechat`."""
    program = find_program(tenant=tenant, app_id=app_id)
    return program, client.session(app_id=program.app_id, secret=program.secret, code=code)


def find_program(*, tenant: Tenant, app_id: str | None) -> MiniProgram:
    """Return the tenant's mini-program of that app id; raise ProductError NOT_FOUND "mini_program_not_found"."""
    programs = MiniProgram.objects.filter(tenant_id=tenant.pk, **({"app_id": app_id} if app_id else {}))
    found = list(programs[:2])
    # Without an app id the tenant's only mini-program is meant; of several, none can be guessed.
    if len(found) != 1:
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This mini-program is not known here."),
            type="mini_program_not_found",
            scope="tenant",
        )
    return found[0]


def user_of_wechat(
    *, tenant_id: int, app_id: str, session: WeChatSession, guest: EndUser | None = None, nickname: str = ""
) -> EndUser:
    """Find or make the user of an open id, and keep the session key. Of two first log-ins at once one makes.

    A `guest` becomes the user where the open id is new. Raises ProductError INVALID "user_blocked".
    """
    identities = WeChatIdentity.objects.select_related("user").filter(tenant_id=tenant_id)
    mine = identities.filter(app_id=app_id, openid=session.openid)
    if known := mine.first():
        mine.update(session_key=session.session_key, unionid=known.unionid or session.unionid)
        return welcome(known.user)
    try:
        with transaction.atomic():
            sibling = identities.exclude(unionid="").filter(unionid=session.unionid).order_by("id").first()
            user = sibling.user if sibling else _first_of_wechat(tenant_id, nickname[:64], guest)
            add_wechat(user=user, app_id=app_id, session=session)
    except IntegrityError:
        mine.update(session_key=session.session_key)
        return welcome(mine.get().user)
    return welcome(user)


def _first_of_wechat(tenant_id: int, nickname: str, guest: EndUser | None) -> EndUser:
    if guest is not None and name_guest(guest, **({"nickname": nickname} if nickname else {})):
        return EndUser.objects.get(pk=guest.pk)
    return EndUser.objects.create(tenant_id=tenant_id, nickname=nickname)


def add_wechat(*, user: EndUser, app_id: str, session: WeChatSession) -> WeChatIdentity:
    """Let an open id stand for a user; IntegrityError where it stands for one already."""
    return WeChatIdentity.objects.create(
        tenant_id=user.tenant_id,
        user=user,
        app_id=app_id,
        openid=session.openid,
        unionid=session.unionid,
        session_key=session.session_key,
    )


def welcome(user: EndUser) -> EndUser:
    """Refuse a blocked user, who has proved to be themselves; note the log-in of any other."""
    if not user.is_active:
        raise ProductError(
            ErrorCode.INVALID,
            _("This account is blocked. Please ask the service's support."),
            type="user_blocked",
            scope="user",
        )
    EndUser.objects.filter(pk=user.pk).update(last_seen_at=timezone.now())
    return user


def _normal(name: str) -> str:
    """Return a name as it is stored: full-width forms, case and outer blanks make no difference."""
    return unicodedata.normalize("NFKC", name).strip().lower()


def normal_phone(phone: str) -> str:
    """Return a phone number as it is stored: digits, with + and country for other countries than China."""
    return _PHONE_MARKS.sub("", _normal(phone)).removeprefix("+86")


def normal_email(email: str) -> str:
    """Return an e-mail address as it is stored."""
    return _normal(email)


def _identified(identifier: str) -> dict[str, str]:
    """Return the look-up for what a person typed: the three shapes never overlap (see EndUser)."""
    name = _normal(identifier).replace("\x00", "")
    if "@" in name:
        return {"email": name}
    if name[:1].isdigit() or name[:1] in ("+", "("):
        return {"phone": normal_phone(name)}
    return {"username": name}


@contextmanager
def _refusing(type_: str) -> Iterator[None]:
    """Tell the person what a validator found."""
    try:
        yield
    except ValidationError as invalid:
        raise ProductError(ErrorCode.INVALID, " ".join(invalid.messages), type=type_, scope="user") from None


def login_required() -> ProductError:
    """-1: no token, or one that is not good here."""
    return ProductError(ErrorCode.LOGIN, _("Please log in first."), type="login_required", action="login")
