"""A captcha before a door, once it has seen failures: the contract, and two kinds of it. Off by default.

Captcha         what a provider does
ProofOfWork     no provider: the device works for a second, and no other host is asked
SiteVerify      the protocol that Cloudflare's Turnstile and hCaptcha share
chosen()        the one that is set up, or None
ask_if_due()    refuse whoever has to solve one and has not
"""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx
import orjson
import structlog
from django.conf import settings
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.translation import gettext_lazy as _

from tenants import throttle
from tenants.errors import ErrorCode, ProductError

logger = structlog.get_logger(__name__)

TIMEOUT_SECONDS: Final = 5.0
WINDOW_SECONDS: Final = 15 * 60
# What `CAPTCHA_PROVIDER` calls the proof of work.
ALTCHA: Final = "altcha"
# So many hashes a device computes at most: about a second on a phone. Whoever tries passwords pays it for each try.
MOST_WORK: Final = 100_000
# So long a device may take.
WORK_SECONDS: Final = 10 * 60
_SALT: Final = "tenants.captcha"
_EXPIRES: Final = re.compile(r"[0-9a-f]{24}\?expires=([0-9]{1,12})&")


class Captcha(Protocol):
    """Somebody who tells people from programs."""

    def asks(self) -> dict[str, Any]:
        """Return what a client needs to know to show it: whose it is, and what of that one."""

    def accepts(self, *, answer: str, address: str) -> bool:
        """Say whether the answer that a page brings from a client at `address` was solved, once and lately."""


class ProofOfWork:
    """Asks for a number that only trying finds: ALTCHA's protocol, which its open widgets speak.

    Source: https://altcha.org/docs/v1/server-integration/ (version 1: SHA-256 of salt and number). The salt ends with
    "&", so that digits can wander from the number to the moment it expires in neither direction.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def asks(self) -> dict[str, Any]:
        """Return a new challenge."""
        salt = f"{secrets.token_hex(12)}?expires={int(self._clock()) + WORK_SECONDS}&"
        challenge = _digest(salt, secrets.randbelow(MOST_WORK + 1))
        work = {
            "algorithm": "SHA-256",
            "challenge": challenge,
            "maxnumber": MOST_WORK,
            "salt": salt,
            "signature": _signed(challenge),
        }
        return {"provider": ALTCHA, "site_key": "", "challenge": work}

    def accepts(self, *, answer: str, address: str) -> bool:  # noqa: ARG002  where the work is done does not matter
        """Say whether it is the number that one of our challenges, not expired and not used, asks for."""
        try:
            brought = orjson.loads(base64.b64decode(answer, validate=True))
            salt, number, challenge = str(brought["salt"]), int(brought["number"]), str(brought["challenge"])
            signature = str(brought["signature"])
        except (ValueError, TypeError, KeyError):
            return False
        expires = _EXPIRES.fullmatch(salt)
        return (
            expires is not None
            and int(expires[1]) >= self._clock()
            and constant_time_compare(_signed(challenge), signature)
            and constant_time_compare(_digest(salt, number), challenge)
            and throttle.once(what="captcha", who=challenge, seconds=WORK_SECONDS)
        )


def _digest(salt: str, number: int) -> str:
    return hashlib.sha256(f"{salt}{number}".encode()).hexdigest()


def _signed(challenge: str) -> str:
    return salted_hmac(_SALT, challenge, algorithm="sha256").hexdigest()


class SiteVerify:
    """Asks an endpoint of the "siteverify" kind.

    Source: https://developers.cloudflare.com/turnstile/get-started/server-side-validation/
    """

    def __init__(self, *, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret

    def asks(self) -> dict[str, Any]:
        """Return whose widget it is, the key that it wants, and where its script is."""
        return {
            "provider": settings.CAPTCHA_PROVIDER,
            "site_key": settings.CAPTCHA_SITE_KEY,
            "script": settings.CAPTCHA_SCRIPT_URL,
        }

    def accepts(self, *, answer: str, address: str) -> bool:
        """Say whether it was solved. Where the provider is away everybody passes: the limits on tries stand anyway."""
        form = {"secret": self._secret, "response": answer, "remoteip": address}
        try:
            said = orjson.loads(_client().post(self._url, data=form).content)
        except (httpx.HTTPError, orjson.JSONDecodeError) as failure:
            logger.error("captcha_away", fault=type(failure).__name__)  # noqa: TRY400  # httpx's text would quote the form
            return True
        if not isinstance(said, dict):
            logger.error("captcha_away", fault="no object")
            return True
        codes = said.get("error-codes") or []
        if {"missing-input-secret", "invalid-input-secret"} & set(codes):
            logger.error("captcha_misconfigured", codes=codes)
            return True
        return said.get("success") is True


@lru_cache(maxsize=1)
def _client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT_SECONDS)


def chosen() -> Captcha | None:
    """Return the captcha that the operator has set up; None without one."""
    if settings.CAPTCHA_PROVIDER == ALTCHA:
        return ProofOfWork()
    if not settings.CAPTCHA_VERIFY_URL or not settings.CAPTCHA_SECRET:
        return None
    return SiteVerify(url=settings.CAPTCHA_VERIFY_URL, secret=settings.CAPTCHA_SECRET)


def ask_if_due(*, door: str, who: tuple[str, ...], answer: str, address: str) -> None:
    """Raise ProductError INVALID "captcha_needed" if one of `who` has failed at a door too often for no captcha.

    An answer that is brought is used up, whether it opens the door or not.
    """
    captcha = chosen()
    if captcha is None:
        return
    failures = max(throttle.noted(what=f"failed:{door}", who=one, seconds=WINDOW_SECONDS) for one in who)
    if failures < settings.CAPTCHA_AFTER or (answer and captcha.accepts(answer=answer, address=address)):
        return
    raise ProductError(
        ErrorCode.INVALID,
        _("Please show that you are a person, then try again."),
        type="captcha_needed",
        scope="user",
        action="captcha",
        **captcha.asks(),
    )


def page_hosts() -> list[str]:
    """Return the origins whose script and frames a page needs for the widget: what the operator has set up, or none."""
    if settings.CAPTCHA_PROVIDER == ALTCHA or chosen() is None or not settings.CAPTCHA_SCRIPT_URL:
        return []
    script = urlsplit(settings.CAPTCHA_SCRIPT_URL)
    return [f"{script.scheme}://{script.netloc}", *settings.CAPTCHA_HOSTS]


def note_failure(*, door: str, who: tuple[str, ...]) -> None:
    """Remember that a door stayed shut, or that it was knocked at what costs money."""
    for one in who:
        throttle.note(what=f"failed:{door}", who=one, seconds=WINDOW_SECONDS)
