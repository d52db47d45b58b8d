"""Second factors of staff: codes of an authenticator app (TOTP, RFC 6238) and recovery codes.

begin      a key to scan, which is nothing yet
confirm    turns it on, by a code of it; gives recovery codes, shown this once
check      takes a code, once, or says until when nobody is asked again
turn_off   ends it, whoever decides that

Guesses are counted in the database, not in Redis: a six-digit code would not stand them while Redis is away.
"""

import base64
import hashlib
import hmac
import secrets
import struct
import time
from datetime import timedelta
from typing import Final
from urllib.parse import quote, urlencode

import segno
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.errors import ErrorCode, ProductError
from tenants.models import RecoveryCode, SecondFactor, StaffUser

STEP_SECONDS: Final = 30
_DIGITS: Final = 6
# A telephone's clock may be half a minute off.
_DRIFT: Final = 1
_TRIES: Final = 5
_LOCK: Final = timedelta(minutes=15)
_CODES: Final = 10


def code_of(key: str, step: int) -> str:
    """Return the code of a base32 key in a step of 30 seconds, as RFC 6238 and 4226 have it (SHA-1, six digits)."""
    digest = hmac.digest(base64.b32decode(key), struct.pack(">Q", step), "sha1")
    offset = digest[-1] & 0x0F
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return str(number % 10**_DIGITS).zfill(_DIGITS)


def present_step() -> int:
    """Return the number of the present 30 seconds."""
    return int(time.time()) // STEP_SECONDS


def is_on(staff: StaffUser) -> bool:
    """Whether a staff user has a second factor."""
    return SecondFactor.objects.filter(staff=staff).exclude(confirmed_at=None).exists()


def begin(staff: StaffUser) -> SecondFactor:
    """Return the factor that a staff user is setting up; its key stays the same until it is confirmed."""
    factor, _made = SecondFactor.objects.get_or_create(
        staff=staff, defaults={"key": base64.b32encode(secrets.token_bytes(20)).decode()}
    )
    return factor


def picture(factor: SecondFactor, *, issuer: str) -> str:
    """Return the key as an SVG of a QR code, drawn here: no other host learns it."""
    label = quote(f"{issuer}:{factor.staff.get_username()}")
    address = f"otpauth://totp/{label}?{urlencode({'secret': factor.key, 'issuer': issuer})}"
    # On white in the dark theme, too: not every camera reads the negative.
    return segno.make(address, error="m").svg_inline(scale=5, border=3, dark="#000", light="#fff")


def confirm(staff: StaffUser, code: str) -> list[str]:
    """Turn a factor on by a code of it; return new recovery codes.

    Raises ProductError INVALID "second_factor_wrong" or QUOTA "too_many_tries".
    """
    if is_on(staff):
        raise _wrong()
    check(staff, code)
    SecondFactor.objects.filter(staff=staff, confirmed_at=None).update(confirmed_at=timezone.now())
    return new_recovery_codes(staff)


def new_recovery_codes(staff: StaffUser) -> list[str]:
    """Return ten codes, each good once, in place of those from before."""
    codes = [f"{text[:5]}-{text[5:]}" for text in (secrets.token_hex(5) for _number in range(_CODES))]
    with transaction.atomic():
        RecoveryCode.objects.filter(staff=staff).delete()
        RecoveryCode.objects.bulk_create(RecoveryCode(staff=staff, digest=_digest(code)) for code in codes)
    return codes


def check(staff: StaffUser, code: str) -> None:
    """Take a code of the app or a recovery code, each once.

    Raises ProductError INVALID "second_factor_wrong"; QUOTA "too_many_tries", after five wrong ones for a quarter of
    an hour, for right ones too.
    """
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().filter(staff=staff).first()
        if factor is None:
            raise _wrong()
        locked_until = factor.locked_until
        if locked_until is None or locked_until <= timezone.now():
            locked_until = None
            taken = _take(factor, code)
            _count(factor, taken=taken)
    # Outside: what was counted must stay.
    if locked_until is not None:
        raise ProductError(
            ErrorCode.QUOTA,
            _("Too many tries. Please wait a while and try again."),
            type="too_many_tries",
            scope="second_factor",
            action="wait",
            reset_at=locked_until,
            used=_TRIES,
            limit=_TRIES,
        )
    if not taken:
        raise _wrong()


def turn_off(staff: StaffUser) -> bool:
    """End a staff user's second factor and its recovery codes; False if there was none."""
    with transaction.atomic():
        RecoveryCode.objects.filter(staff=staff).delete()
        return SecondFactor.objects.filter(staff=staff).delete()[0] > 0


def _take(factor: SecondFactor, code: str) -> bool:
    typed = code.replace(" ", "").strip()
    now = present_step()
    for step in range(now - _DRIFT, now + _DRIFT + 1):
        if step > factor.last_step and hmac.compare_digest(code_of(factor.key, step).encode(), typed.encode()):
            factor.last_step = step
            return True
    unused = RecoveryCode.objects.filter(staff=factor.staff_id, digest=_digest(typed), used_at=None)
    return factor.confirmed_at is not None and unused.update(used_at=timezone.now()) == 1


def _count(factor: SecondFactor, *, taken: bool) -> None:
    """Keep what a try came to; the row is locked."""
    failures = 0 if taken else factor.failures + 1
    locked = failures >= _TRIES
    SecondFactor.objects.filter(pk=factor.pk).update(
        last_step=factor.last_step,
        failures=0 if locked else failures,
        locked_until=timezone.now() + _LOCK if locked else None,
    )


def _digest(code: str) -> str:
    """Return what is stored of a recovery code: forty random bits, behind the count of guesses."""
    return hashlib.sha256(code.lower().replace("-", "").encode()).hexdigest()


def _wrong() -> ProductError:
    return ProductError(
        ErrorCode.INVALID,
        _("This code is wrong, was used before, or is too old. Please type the one that is shown now."),
        type="second_factor_wrong",
        scope="second_factor",
    )
