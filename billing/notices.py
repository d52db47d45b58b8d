"""Mails about money to those who answer for it. A mail that fails is logged and costs nothing else.

mail         staff, each in their own language
alert        the operator's `ALERT_EMAILS`
under_water  tenants that a price leaves selling below what they pay
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from smtplib import SMTPException
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db.models import QuerySet
from django.utils import timezone, translation
from django.utils.translation import gettext

from billing.models import PriceVersion
from tenants.models import Membership, StaffUser, Tenant

log = structlog.get_logger(__name__)

_TREASURERS: Final = (Membership.Role.OWNER, Membership.Role.FINANCE)


class Letter(NamedTuple):
    """A mail's text."""

    subject: str
    body: str


def under_water(*, price: PriceVersion, slugs: Iterable[str]) -> None:
    """Tell tenants that a wholesale price leaves them selling below what they pay; in the platform's scope."""
    for tenant in Tenant.objects.filter(slug__in=list(slugs)):
        moment = timezone.localtime(price.effective_at, ZoneInfo(tenant.timezone)).strftime("%Y-%m-%d %H:%M %Z")
        mail(
            staff=treasurers(tenant_id=tenant.pk),
            language=tenant.language,
            write=partial(_sold_below, sku=price.sku, moment=moment),
        )


def treasurers(*, tenant_id: int) -> list[StaffUser]:
    """Return a tenant's owners and finance people who have a mail address; in the platform's scope or the tenant's."""
    members = Membership.objects.filter(tenant_id=tenant_id, role__in=_TREASURERS)
    return list(_reachable().filter(pk__in=members.values("staff")))


def people_of(*, reseller_id: int) -> list[StaffUser]:
    """Return a reseller's people who have a mail address."""
    return list(_reachable().filter(platform_memberships__reseller=reseller_id))


def mail(*, staff: Iterable[StaffUser], language: str = "", write: Callable[[], Letter]) -> int:
    """Mail each of the staff in their own language, else in the one given, else the platform's; return how many.

    `write` is called in that language.
    """
    return sum(
        _sent([person.email], language=person.language or language, write=write, staff=person.pk) for person in staff
    )


def alert(*, write: Callable[[], Letter], **logged: int) -> None:
    """Mail `ALERT_EMAILS`, in the platform's language."""
    if settings.ALERT_EMAILS:
        _sent(settings.ALERT_EMAILS, language="", write=write, **logged)


def _sent(addresses: Sequence[str], *, language: str, write: Callable[[], Letter], **logged: int) -> bool:
    """Send one mail; False, and a line in the log, where the mail server does not take it."""
    with translation.override(language or settings.LANGUAGE_CODE):
        letter = write()
    try:
        send_mail(letter.subject, letter.body, None, addresses)
    except (SMTPException, OSError):
        log.exception("notice_not_mailed", **logged)
        return False
    return True


def _reachable() -> QuerySet[StaffUser]:
    return StaffUser.objects.filter(is_active=True).exclude(email="").order_by("pk")


def _sold_below(*, sku: str, moment: str) -> Letter:
    return Letter(
        gettext("Your price of %(sku)s will be below what you pay") % {"sku": sku},
        gettext(
            "From %(moment)s on you pay more for “%(sku)s” than your users do, in some part at least. "
            "Please raise your price before then: “Price versions” in your admin."
        )
        % {"sku": sku, "moment": moment},
    )
