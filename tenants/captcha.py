"""A captcha before a door, once it has seen failures: the contract, and one provider. Off by default.

Captcha         what a provider does
SiteVerify      the protocol that Cloudflare's Turnstile and hCaptcha share
chosen()        the one that is set up, or None
ask_if_due()    refuse whoever has to solve one and has not
"""

from functools import lru_cache
from typing import Final, Protocol

import httpx
import orjson
import structlog
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from tenants import throttle
from tenants.errors import ErrorCode, ProductError

logger = structlog.get_logger(__name__)

TIMEOUT_SECONDS: Final = 5.0
WINDOW_SECONDS: Final = 15 * 60


class Captcha(Protocol):
    """Somebody who tells people from programs."""

    def accepts(self, *, answer: str, address: str) -> bool:
        """Say whether the answer that a page brings from a client at `address` was solved, once and lately."""


class SiteVerify:
    """Asks an endpoint of the "siteverify" kind.

    Source: https://developers.cloudflare.com/turnstile/get-started/server-side-validation/
    """

    def __init__(self, *, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret

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
        provider=settings.CAPTCHA_PROVIDER,
        site_key=settings.CAPTCHA_SITE_KEY,
    )


def note_failure(*, door: str, who: tuple[str, ...]) -> None:
    """Remember that a door stayed shut, or that it was knocked at what costs money."""
    for one in who:
        throttle.note(what=f"failed:{door}", who=one, seconds=WINDOW_SECONDS)
