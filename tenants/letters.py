"""Mail to people, in their language: the one place that hands anything to Django's mailer.

A mail that fails is logged and costs nothing else. `billing.notices` writes to staff by it, `tenants.codes` to users.
"""

from collections.abc import Callable, Sequence
from smtplib import SMTPException
from typing import NamedTuple

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.utils import translation

log = structlog.get_logger(__name__)


class Letter(NamedTuple):
    """A mail's text."""

    subject: str
    body: str


def send_letter(addresses: Sequence[str], *, language: str, write: Callable[[], Letter], **logged: object) -> bool:
    """Send one mail; False, and a line in the log, where the mail server does not take it.

    `write` is called in `language`, or the platform's where that is empty.
    """
    with translation.override(language or settings.LANGUAGE_CODE):
        letter = write()
    try:
        send_mail(letter.subject, letter.body, None, addresses)
    except (SMTPException, OSError):
        log.exception("notice_not_mailed", **logged)
        return False
    return True


def reaches_people() -> bool:
    """Whether mail is sent, and not only printed; while one develops printing will do."""
    return settings.DEBUG or not settings.EMAIL_BACKEND.endswith(".console.EmailBackend")
