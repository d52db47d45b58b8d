"""Mails to people who are known by an address alone. One that fails is logged and costs nothing else."""

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


def send(addresses: Sequence[str], *, language: str, write: Callable[[], Letter], **logged: int) -> bool:
    """Send one mail, written in a language or in the platform's; False, and a log line, where nobody takes it."""
    with translation.override(language or settings.LANGUAGE_CODE):
        letter = write()
    try:
        send_mail(letter.subject, letter.body, None, addresses)
    except (SMTPException, OSError):
        log.exception("notice_not_mailed", **logged)
        return False
    return True
