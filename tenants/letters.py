"""Mail to people, written in their language. A mail that fails is logged and costs nothing else."""

from collections.abc import Callable, Mapping, Sequence
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


def send(
    addresses: Sequence[str],
    *,
    language: str = "",
    write: Callable[[], Letter],
    logged: Mapping[str, object] | None = None,
) -> bool:
    """Send one mail, in the language given or the platform's; `write` is called in it.

    False, and a line in the log with `logged`, where the mail server does not take it.
    """
    with translation.override(language or settings.LANGUAGE_CODE):
        letter = write()
    try:
        send_mail(letter.subject, letter.body, None, addresses)
    except (SMTPException, OSError):
        log.exception("notice_not_mailed", **(logged or {}))
        return False
    return True
