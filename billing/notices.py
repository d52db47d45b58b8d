"""Mails about money to those who answer for it. A mail that fails is logged and costs nothing else.

tell         staff, by a mail and by a notice in their admin
mail         staff, each in their own language
write_to     somebody who is no staff yet
alert        the operator's `ALERT_EMAILS`
under_water  those who can mend that something is sold below what it costs
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext

from billing.models import PriceVersion
from tenants import noticeboard, staffing
from tenants.letters import Letter, send_letter
from tenants.models import Membership, Notice, StaffUser, Tenant
from tenants.staffing import reachable

_MOMENT: Final = "%Y-%m-%d %H:%M %Z"
_TREASURERS: Final = (Membership.Role.OWNER, Membership.Role.FINANCE)


def under_water(*, price: PriceVersion, under: Sequence[tuple[str, str]]) -> None:
    """Tell those who can mend it which prices one leaves below it (`pricing.under_water`); in the platform's scope.

    Of a wholesale price those are the tenants that sell below what they pay, of a cost the operator.
    """
    if price.level == PriceVersion.Level.COST and under:
        tell(
            kind=Notice.Kind.PRICE,
            write=partial(_costs_more, sku=price.sku, moment=price.effective_at, under=under),
        )
        return
    for tenant in Tenant.objects.filter(slug__in=[slug for _level, slug in under]):
        moment = timezone.localtime(price.effective_at, ZoneInfo(tenant.timezone)).strftime(_MOMENT)
        tell(
            kind=Notice.Kind.PRICE,
            tenant=tenant,
            write=partial(_sold_below, sku=price.sku, moment=moment),
        )


def named(prices: Iterable[tuple[str, str]]) -> str:
    """Name prices in the reader's language: the level of each, and whose it is unless everybody's."""
    labels = ((slug, PriceVersion.Level(level).label) for level, slug in prices)
    return ", ".join(f"{slug} ({label})" if slug else str(label) for slug, label in labels)


def treasurers(*, tenant_id: int) -> list[StaffUser]:
    """Return a tenant's owners and finance people who have a mail address; in the platform's scope or the tenant's."""
    members = Membership.objects.filter(tenant_id=tenant_id, role__in=_TREASURERS)
    return list(reachable().filter(pk__in=members.values("staff")))


def people_of(*, reseller_id: int) -> list[StaffUser]:
    """Return a reseller's people who have a mail address."""
    return list(reachable().filter(platform_memberships__reseller=reseller_id))


def tell(
    *, kind: Notice.Kind, write: Callable[[], Letter], tenant: Tenant | None = None, reseller_id: int | None = None
) -> int:
    """Leave a notice for a tenant's owners and finance, a reseller's people or the operator's, and mail it to them.

    Return how many mails were taken. In the platform's scope, or the tenant's own.
    """
    roles = _TREASURERS if tenant is not None else ()
    tenant_id = None if tenant is None else tenant.pk
    noticeboard.put_up(
        kind=kind,
        texts=noticeboard.in_every_language(write),
        tenant_id=tenant_id,
        reseller_id=reseller_id,
        roles=roles,
    )
    if tenant is not None:
        return mail(staff=treasurers(tenant_id=tenant.pk), language=tenant.language, write=write)
    return mail(staff=staffing.operators() if reseller_id is None else people_of(reseller_id=reseller_id), write=write)


def mail(*, staff: Iterable[StaffUser], language: str = "", write: Callable[[], Letter]) -> int:
    """Mail each of the staff in their own language, else in the one given, else the platform's; return how many.

    `write` is called in that language.
    """
    return sum(
        send_letter([person.email], language=person.language or language, write=write, staff=person.pk)
        for person in staff
    )


def write_to(*, address: str, language: str, write: Callable[[], Letter], **logged: object) -> bool:
    """Mail somebody who is no staff yet; False where the mail server does not take it."""
    return send_letter([address], language=language, write=write, **logged)


def alert(*, write: Callable[[], Letter], **logged: object) -> None:
    """Mail `ALERT_EMAILS`, in the platform's language."""
    if settings.ALERT_EMAILS:
        send_letter(settings.ALERT_EMAILS, language="", write=write, **logged)


def _sold_below(*, sku: str, moment: str) -> Letter:
    return Letter(
        gettext("Your price of %(sku)s will be below what you pay") % {"sku": sku},
        gettext(
            "From %(moment)s on you pay more for “%(sku)s” than your users do, in some part at least. "
            "Please raise your price before then: “Price versions” in your admin."
        )
        % {"sku": sku, "moment": moment},
    )


def _costs_more(*, sku: str, moment: datetime, under: Sequence[tuple[str, str]]) -> Letter:
    return Letter(
        gettext("%(sku)s will cost more than it brings") % {"sku": sku},
        gettext(
            "From %(moment)s on the platform pays more for “%(sku)s”, in some part at least, than these prices bring: "
            "%(prices)s. "
            "Please raise them before then: “Price versions” in the operator's admin."
        )
        % {"sku": sku, "moment": timezone.localtime(moment).strftime(_MOMENT), "prices": named(under)},
    )
