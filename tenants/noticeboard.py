"""The staff's notices: put up, counted, taken for read. Mails about the same are billing's (`billing.notices.tell`).

Readers are a tenant's staff, a reseller's people, or the operator's. In the tenant's scope, or in the platform's.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import translation

from tenants import bell
from tenants.models import Membership, Notice, NoticesSeen, Reseller, StaffAnnouncement, StaffUser, Tenant

log = structlog.get_logger(__name__)

# Older ones are in the list, and remind nobody any more.
FRESH: Final = timedelta(days=90)
DAY: Final = timedelta(days=1)
# Above it nobody counts: "99" is a lot.
MOST_UNREAD: Final = 99

Text = Mapping[str, str]


def in_every_language(write: Callable[[], tuple[str, str]]) -> dict[str, Text]:
    """Return what `write`, called in each language, says: its subject and its body, by language."""
    texts: dict[str, Text] = {}
    for code, _name in settings.LANGUAGES:
        with translation.override(code):
            subject, body = write()
            texts[code] = {"subject": subject, "body": body}
    return texts


def put_up(  # noqa: PLR0913  a notice's columns
    *,
    kind: Notice.Kind,
    texts: Mapping[str, Text],
    tenant_id: int | None = None,
    reseller_id: int | None = None,
    roles: Iterable[str] = (),
    once_in: timedelta = DAY,
) -> Notice | None:
    """Leave a notice for a tenant's staff (of some roles, or all), for a reseller's people, or for the operator.

    None, and nothing is left, where one of the same subject is not older than `once_in`: what is told again and again
    would hide the rest.
    """
    [language, text] = next(iter(texts.items()))
    same = Notice.objects.filter(
        tenant=tenant_id,
        reseller=reseller_id,
        kind=kind,
        created_at__gt=Now() - once_in,
        texts__contains={language: {"subject": text["subject"]}},
    )
    if same.exists():
        return None
    made = Notice.objects.create(
        tenant_id=tenant_id, reseller_id=reseller_id, kind=kind, texts=dict(texts), roles=[str(role) for role in roles]
    )
    if reseller_id is None:
        transaction.on_commit(partial(bell.ring, [tenant_id]), robust=True)
    return made


def notices_of(*, tenant_id: int | None, role: str = "", reseller_id: int | None = None) -> QuerySet[Notice]:
    """Return the notices that a reader may see: a role's at a tenant, a reseller's, or the operator's."""
    rows = Notice.objects.filter(tenant=tenant_id, reseller=reseller_id)
    return rows if tenant_id is None else rows.filter(Q(roles=[]) | Q(roles__contains=[role]))


def unread(*, staff: StaffUser, tenant_id: int | None, reseller_id: int | None = None) -> int:
    """Return how many fresh notices a person of a tenant's, a reseller's or the operator's has not looked at."""
    role = ""
    if tenant_id is not None:
        member = Membership.objects.filter(staff=staff, tenant_id=tenant_id).first()
        if member is None:
            return 0
        role = member.role
    fresh = notices_of(tenant_id=tenant_id, role=role, reseller_id=reseller_id).filter(
        id__gt=last_seen(staff=staff, tenant_id=tenant_id), created_at__gt=Now() - FRESH
    )
    return fresh[:MOST_UNREAD].count()


def last_seen(*, staff: StaffUser, tenant_id: int | None) -> int:
    """Return the number of the last notice that somebody has looked at, 0 for none."""
    seen = NoticesSeen.objects.filter(staff=staff, tenant=tenant_id).values_list("last_id", flat=True)
    return seen.first() or 0


def mark_read(*, staff: StaffUser, tenant_id: int | None, last_id: int) -> None:
    """Take the notices up to one for read; never fewer than before."""
    seen, _created = NoticesSeen.objects.get_or_create(tenant_id=tenant_id, staff=staff)  # type: ignore[misc]  # None is meant
    moved = NoticesSeen.objects.filter(pk=seen.pk, last_id__lt=last_id).update(last_id=last_id)
    if moved:
        bell.ring([tenant_id])


def announce(*, announcement: StaffAnnouncement) -> int:
    """Give everybody whom an announcement is to a notice of it; in the platform's scope. Return how many notices."""
    texts: dict[str, Any] = {"zh-hans": {"subject": announcement.subject, "body": announcement.body}}
    if announcement.subject_en and announcement.body_en:
        texts["en"] = {"subject": announcement.subject_en, "body": announcement.body_en}
    tenants = Tenant.objects.exclude(status=Tenant.Status.CLOSED).order_by("pk") if announcement.to_tenants else []
    resellers = Reseller.objects.order_by("pk") if announcement.to_resellers else []
    about: dict[str, Any] = {"kind": Notice.Kind.ANNOUNCEMENT, "texts": texts}
    rows = [
        *(Notice(tenant=tenant, **about) for tenant in tenants),
        *(Notice(reseller=reseller, **about) for reseller in resellers),
    ]
    with transaction.atomic():
        Notice.objects.bulk_create(rows, batch_size=1000)
        told = [row.tenant_id for row in rows if row.tenant_id is not None]
        transaction.on_commit(partial(bell.ring, told), robust=True)
    log.info("staff_announced", announcement=announcement.pk, notices=len(rows), by=announcement.created_by)
    return len(rows)
