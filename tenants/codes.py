"""One-time codes to phones and e-mail addresses: six digits that live for minutes, are good once and bear few guesses.

    send_code()   to whoever has the phone or the address, whether or not an account goes with it
    check_code()  the address that a right code proves

Rows hold keyed digests, of the code and of where it went. What is counted here is counted by rows, since messages cost
money: Redis counts only what one network address asks for. Nothing is sent inside a transaction.
"""

import logging
import re
import secrets
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import F, Sum
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from tenants import letters, sms, throttle
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.login import normal_email, normal_phone
from tenants.models import EndUser, OneTimeCode, SignInSettings, Tenant
from tenants.sms_failure import SmsFailedError, SmsFailure
from tenants.table import fetch, one_at_a_time

logger = structlog.get_logger(__name__)

Channel = OneTimeCode.Channel
Purpose = OneTimeCode.Purpose

DIGITS: Final = 6
# Of one code; then all of one phone or address in an hour.
GUESSES: Final = 5
GUESSES_AN_HOUR: Final = 10
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
# So long rows are kept: limits look back a day.
KEEP: Final = timedelta(days=2)

# Of mainland China without the country, of others with it; `normal_phone` made it so.
_PHONE: Final = re.compile(r"1[3-9][0-9]{9}|\+[1-9][0-9]{6,14}")


class Sent(NamedTuple):
    """That a code is on its way."""

    expires_at: datetime
    resend_at: datetime


def settings_of(tenant: Tenant) -> SignInSettings:
    """Return what ways in a tenant offers; in its scope."""
    return SignInSettings.objects.filter(tenant_id=tenant.pk).first() or SignInSettings(tenant_id=tenant.pk)


def offers(tenant: Tenant, chosen: SignInSettings, channel: str) -> bool:
    """Whether a tenant's users may come by a code to a phone, or to an address."""
    if channel == Channel.PHONE:
        return chosen.by_phone and sms.provider_of(tenant.pk) is not None
    return chosen.by_email and letters.reaches_people()


def normal_target(channel: str, to: str) -> str:
    """Return a phone or an address as it is stored; raise ProductError INVALID "phone_invalid" or "email_invalid"."""
    if channel == Channel.PHONE:
        phone = normal_phone(to)
        if not _PHONE.fullmatch(phone):
            raise ProductError(
                ErrorCode.INVALID, _("This is not a mobile phone number."), type="phone_invalid", scope="user"
            )
        return phone
    email = normal_email(to)
    try:
        validate_email(email)
    except ValidationError:
        raise ProductError(
            ErrorCode.INVALID, _("This is not an e-mail address."), type="email_invalid", scope="user"
        ) from None
    return email


def send_code(  # noqa: PLR0913  who asks, for what, from where
    *, tenant: Tenant, channel: str, to: str, purpose: str, address: str, language: str, user: EndUser | None = None
) -> Sent:
    """Send a code for a purpose, and end the one before it; a code for a `user` is of use to them alone.

    Raises ProductError: INVALID as `normal_target`, or "method_not_offered"; QUOTA "too_many_tries" (a network
    address) or "too_many_codes" (a phone or address, or the tenant); UPSTREAM "code_not_sent".
    """
    target = normal_target(channel, to)
    if not offers(tenant, settings_of(tenant), channel):
        raise not_offered()
    throttle.count(what="code_address", who=f"{tenant.slug}:{address}", limit=settings.CODES_PER_ADDRESS, seconds=3600)
    code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
    with transaction.atomic():
        _one_at_a_time(tenant)
        row = _admit(tenant, channel, target, purpose, code, user)
    try:
        _deliver(tenant, channel, target, code, language)
    except ProductError:
        # What did not go out does not count against anybody; and nobody knows the code.
        OneTimeCode.objects.filter(pk=row.pk).delete()
        raise
    logger.info("code_sent", channel=channel, purpose=purpose)
    return Sent(row.expires_at, row.created_at + timedelta(seconds=settings.CODE_RESEND_SECONDS))


def check_code(  # noqa: PLR0913  who proves what
    *, tenant: Tenant, channel: str, to: str, code: str, purpose: str, user: EndUser | None = None
) -> str:
    """Use a code up, and return the phone or address that it proves, as it is stored.

    Must not run inside a transaction: a wrong guess has to be remembered, whatever the caller then does.

    Raises ProductError: INVALID as `normal_target`, or "code_wrong", the same for a code that was used, is too old, was
    guessed at too often or never was; QUOTA "too_many_guesses" where a phone or address saw too many of them.
    """
    target = normal_target(channel, to)
    digest, now = _target_digest(tenant, channel, target), timezone.now()
    _refuse_guessers(tenant, digest, now)
    row = (
        OneTimeCode.objects.filter(tenant_id=tenant.pk, target_digest=digest, purpose=purpose, user=user)
        .filter(ended_at=None, expires_at__gt=now)
        .order_by("-created_at")
        .first()
    )
    if row is None:
        raise _wrong()
    mine = OneTimeCode.objects.filter(pk=row.pk, ended_at=None)
    # Counted before it is looked at, so that guesses made at once are no more than those made one by one.
    if not mine.filter(guesses__lt=GUESSES).update(guesses=F("guesses") + 1):
        raise _wrong()
    if not constant_time_compare(row.code_digest, _code_digest(str(row.pk), code)) or not mine.update(ended_at=now):
        raise _wrong()
    return target


def forget() -> int:
    """Delete the current scope's codes that no limit looks at any more; return how many."""
    return OneTimeCode.objects.filter(created_at__lt=timezone.now() - KEEP).delete()[0]


def _admit(  # noqa: PLR0913, PLR0917  a row's columns
    tenant: Tenant, channel: str, target: str, purpose: str, code: str, user: EndUser | None
) -> OneTimeCode:
    digest, now = _target_digest(tenant, channel, target), timezone.now()
    to_target = OneTimeCode.objects.filter(tenant_id=tenant.pk, target_digest=digest)
    last = to_target.order_by("-created_at").values_list("created_at", flat=True).first()
    wait = timedelta(seconds=settings.CODE_RESEND_SECONDS)
    if last is not None and last + wait > now:
        raise _too_many("user", 1, 1, last + wait)
    of_tenant = OneTimeCode.objects.filter(tenant_id=tenant.pk, channel=channel)
    for scope, rows, limit in (
        ("user", to_target, settings.CODES_PER_TARGET),
        ("tenant", of_tenant, settings.CODES_PER_TENANT),
    ):
        recent = rows.filter(created_at__gt=now - DAY)
        if (used := recent.count()) >= limit:
            first = recent.order_by("created_at")[max(used - limit, 0)].created_at if limit else now
            raise _too_many(scope, used, limit, first + DAY)
    # Another session's code for another account stays: each is of use to its own user alone.
    to_target.filter(purpose=purpose, user=user, ended_at=None).update(ended_at=now)
    row_id = uuid7()
    return OneTimeCode.objects.create(
        id=row_id,
        tenant_id=tenant.pk,
        channel=channel,
        purpose=purpose,
        user=user,
        target_digest=digest,
        code_digest=_code_digest(str(row_id), code),
        created_at=now,
        expires_at=now + timedelta(seconds=settings.CODE_SECONDS),
    )


def _refuse_guessers(tenant: Tenant, digest: str, now: datetime) -> None:
    """Lock a phone or address out for a while after many guesses, whichever codes they were at."""
    recent = OneTimeCode.objects.filter(tenant_id=tenant.pk, target_digest=digest, created_at__gt=now - HOUR)
    used = recent.aggregate(all=Sum("guesses"))["all"] or 0
    if used < GUESSES_AN_HOUR:
        return
    guessed = recent.filter(guesses__gt=0).order_by("created_at").values_list("created_at", flat=True)
    raise ProductError(
        ErrorCode.QUOTA,
        _("Too many wrong codes. Please wait a while and ask for a new one."),
        type="too_many_guesses",
        scope="user",
        action="wait",
        reset_at=guessed[0] + HOUR,
        used=used,
        limit=GUESSES_AN_HOUR,
    )


def _one_at_a_time(tenant: Tenant) -> None:
    """Let a tenant's requests for codes count one after the other; the lock ends with the transaction."""
    fetch(one_at_a_time("tenants.codes", tenant.pk))


def _deliver(tenant: Tenant, channel: str, target: str, code: str, language: str) -> None:
    if channel == Channel.EMAIL:
        if not letters.send_letter([target], language=language, write=partial(_letter, tenant.name, code)):
            raise _not_sent()
        return
    provider = sms.provider_of(tenant.pk)
    if provider is None:
        raise not_offered()
    try:
        provider.send(phone=target, code=code, language=language)
    except SmsFailedError as failed:
        level = logging.ERROR if failed.failure is SmsFailure.SETUP else logging.WARNING
        logger.log(level, "sms_failed", failure=str(failed.failure), said=failed.said)
        raise _not_sent() from None


def _letter(service: str, code: str) -> Letter:
    minutes = max(settings.CODE_SECONDS // 60, 1)
    return Letter(
        gettext("%(service)s: your code is %(code)s") % {"service": service, "code": code},
        gettext(
            "Your code for %(service)s is %(code)s. It is good for %(minutes)s minutes, once. "
            "Give it to nobody. If you have not asked for it, there is nothing to do."
        )
        % {"service": service, "code": code, "minutes": minutes},
    )


def _target_digest(tenant: Tenant, channel: str, target: str) -> str:
    return salted_hmac("tenants.codes.target", f"{tenant.pk}:{channel}:{target}", algorithm="sha256").hexdigest()


def _code_digest(row_id: str, code: str) -> str:
    return salted_hmac("tenants.codes.code", f"{row_id}:{code.strip()}", algorithm="sha256").hexdigest()


def not_offered() -> ProductError:
    """Return the refusal of a way in that the tenant does not offer."""
    return ProductError(
        ErrorCode.INVALID,
        _("This way to log in is not offered here. Please choose another."),
        type="method_not_offered",
        scope="tenant",
    )


def _wrong() -> ProductError:
    return ProductError(
        ErrorCode.INVALID,
        _("The code is wrong or too old. Please check it, or ask for a new one."),
        type="code_wrong",
        scope="user",
    )


def _not_sent() -> ProductError:
    return ProductError(
        ErrorCode.UPSTREAM,
        _("The code could not be sent just now. Please try again, or choose another way to log in."),
        type="code_not_sent",
    )


def _too_many(scope: str, used: int, limit: int, reset_at: datetime) -> ProductError:
    return ProductError(
        ErrorCode.QUOTA,
        _("Too many codes were asked for. Please wait a while and try again."),
        type="too_many_codes",
        scope=scope,
        action="wait",
        reset_at=reset_at,
        used=used,
        limit=limit,
    )
