"""Balance that staff give a user by hand: with a reason, once, and no more than so much in a day."""

from datetime import datetime, time
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing import ledger
from billing.models import Entry, Transfer
from billing.models.account import USER_KINDS
from billing.yuan import MICRO, show_yuan
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, Membership, StaffUser, Tenant

log = structlog.get_logger(__name__)

_KINDS = (Transfer.Kind.CREDIT, Transfer.Kind.GIFT)
_REF = "admin:"


def credit_by_hand(  # noqa: PLR0913  who gives what to whom, and why
    *, user: EndUser, amount: int, kind: Literal["cash", "gift"], number: UUID, reason: str, staff: StaffUser
) -> Transfer:
    """Credit a user `amount` micro-yuan; the same `number` credits once.

    The operator's people have no limit; of a tenant's, one may give away `STAFF_CREDIT_YUAN_PER_DAY` in a day of the
    tenant's. Raises ProductError INVALID "staff_credit_limit", and as `ledger.credit_user`.
    """
    ref = f"{_REF}{number}"
    with scope.tenant(user.tenant_id), transaction.atomic():
        if settings.STAFF_CREDIT_YUAN_PER_DAY and not staff.is_operator:
            # Until the commit, a person's credits are counted one after the other.
            Membership.objects.select_for_update().filter(staff=staff).first()
            if not Transfer.objects.filter(kind__in=_KINDS, ref=ref).exists():
                _refuse_too_much(staff=staff, tenant=user.tenant, amount=amount)
        made = ledger.credit_user(
            tenant_id=user.tenant_id,
            user_id=user.pk,
            amount=amount,
            kind=kind,
            ref=ref,
            reason=reason,
            actor=staff.get_username()[:120],
        )
    log.info("user_credited", staff=staff.pk, tenant_id=user.tenant_id, user=user.pk, amount=amount)
    return made


def given_today(*, staff: StaffUser, tenant: Tenant) -> int:
    """Return what a person has given away since the tenant's midnight, micro-yuan; in the tenant's scope."""
    zone = ZoneInfo(tenant.timezone)
    midnight = datetime.combine(timezone.localdate(timezone=zone), time(), zone)
    given = Transfer.objects.filter(
        created_at__gte=midnight, kind__in=_KINDS, ref__startswith=_REF, actor=staff.get_username()[:120]
    )
    credited = Entry.objects.filter(transfer__in=given, account__kind__in=USER_KINDS)
    return credited.aggregate(sum=Sum("amount"))["sum"] or 0


def _refuse_too_much(*, staff: StaffUser, tenant: Tenant, amount: int) -> None:
    limit = settings.STAFF_CREDIT_YUAN_PER_DAY * MICRO
    left = max(0, limit - given_today(staff=staff, tenant=tenant))
    if amount > left:
        raise ProductError(
            ErrorCode.INVALID,
            _("You may give away ¥%(limit)s in a day, and have ¥%(left)s left today.")
            % {"limit": show_yuan(limit), "left": show_yuan(left)},
            type="staff_credit_limit",
            scope="staff",
        )
