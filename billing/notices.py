"""Mails about money to those who answer for it. A mail that fails is logged and costs nothing else."""

from collections.abc import Iterable
from smtplib import SMTPException
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import structlog
from django.core.mail import send_mail
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _

from billing.models import PriceVersion
from tenants.models import Membership, StaffUser, Tenant

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

log = structlog.get_logger(__name__)

MAIL_FAULTS: Final = (SMTPException, OSError)
_TREASURERS: Final = (Membership.Role.OWNER, Membership.Role.FINANCE)


def under_water(*, price: PriceVersion, slugs: Iterable[str]) -> None:
    """Tell tenants that a wholesale price leaves them selling below what they pay; in the platform's scope."""
    for tenant in Tenant.objects.filter(slug__in=list(slugs)):
        staff = treasurers(tenant_id=tenant.pk)
        moment = timezone.localtime(price.effective_at, ZoneInfo(tenant.timezone)).strftime("%Y-%m-%d %H:%M %Z")
        mail(
            staff=staff,
            language=tenant.language,
            subject=_("Your price of %(sku)s will be below what you pay"),
            body=_(
                "From %(moment)s on you pay more for “%(sku)s” than your users do, in some part at least. "
                "Please raise your price before then: “Price versions” in your admin."
            ),
            words={"sku": price.sku, "moment": moment},
        )


def treasurers(*, tenant_id: int) -> list[StaffUser]:
    """Return a tenant's owners and finance people who have a mail address; in the platform's scope or the tenant's."""
    members = Membership.objects.select_related("staff").filter(tenant_id=tenant_id, role__in=_TREASURERS)
    return [member.staff for member in members.order_by("pk") if member.staff.is_active and member.staff.email]


def mail(
    *,
    staff: Iterable[StaffUser],
    language: str,
    subject: "_StrOrPromise",
    body: "_StrOrPromise",
    words: dict[str, str],
) -> None:
    """Mail each of the staff in their own language, or in the one given."""
    for person in staff:
        with translation.override(person.language or language):
            told = (str(subject) % words, str(body) % words)
        try:
            send_mail(*told, None, [person.email])
        except MAIL_FAULTS:
            log.exception("notice_not_mailed", staff=person.pk)
