"""A tenant's states, and who may change them to what: trial, active, suspended, closed.

activate     the trial, or a suspension, is over: it serves its users
set_trial    on trial until a day
suspend      its users are turned away with a message, its staff may look, everything is kept
resume       back to what it was before the suspension
sweep_trials trials that are over end in a suspension; those that end soon are told of by mail

Each is one conditional UPDATE and an event in one transaction, so that two people who decide at once decide once. A
closed tenant stays closed (`lifecycle.erasure`). How it gets about: every process forgets a tenant within
`resolve.REMEMBER_SECONDS`.
"""

from collections.abc import Collection
from datetime import date, timedelta
from typing import Any, Final

import structlog
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from billing import notices
from lifecycle import history
from lifecycle.addresses import address_of, main_host
from lifecycle.models import TenantDeletion, TenantEvent
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.models import StaffUser, Tenant
from tenants.resolve import forget

log = structlog.get_logger(__name__)

Status, Kind = Tenant.Status, TenantEvent.Kind

ACTOR: Final = "lifecycle"
# Why a trial's end suspends: a word for the programs that read it.
TRIAL_ENDED: Final = "The trial has ended."
# How many days before its end a trial is told of.
NOTICE_DAYS: Final = (7, 3, 1)


def activate(*, tenant_id: int, reason: str, actor: str) -> Tenant:
    """Let a tenant serve its users without an end. Raises ProductError INVALID "tenant_state"."""
    return _change(
        tenant_id,
        {Status.TRIAL, Status.SUSPENDED},
        Kind.ACTIVATED,
        actor=actor,
        reason=reason,
        status=Status.ACTIVE,
        status_reason="",
        trial_ends_on=None,
    )


def set_trial(*, tenant_id: int, ends_on: date, reason: str, actor: str) -> Tenant:
    """Put a tenant on trial until the end of a day, by the operator's calendar; also to prolong a trial that has ended.

    Raises ProductError INVALID "tenant_state", or "trial_over" for a day that is past.
    """
    if ends_on < timezone.localdate():
        raise ProductError(ErrorCode.INVALID, _("A trial ends today or later."), type="trial_over")
    return _change(
        tenant_id,
        {Status.TRIAL, Status.ACTIVE, Status.SUSPENDED},
        Kind.TRIAL_SET,
        actor=actor,
        reason=reason,
        status=Status.TRIAL,
        status_reason="",
        trial_ends_on=ends_on,
    )


def suspend(*, tenant_id: int, reason: str, actor: str) -> Tenant:
    """Turn a tenant's users away; nothing is deleted, its staff see why. Answers that are under way end as they would.

    Raises ProductError INVALID "tenant_state", and "reason_wanted" without a reason: its staff read it.
    """
    _require(reason)
    return _change(
        tenant_id,
        {Status.TRIAL, Status.ACTIVE},
        Kind.SUSPENDED,
        actor=actor,
        reason=reason,
        status=Status.SUSPENDED,
        status_reason=reason.strip()[: history.REASON_LENGTH],
    )


def resume(*, tenant_id: int, reason: str, actor: str) -> Tenant:
    """Let a suspended tenant serve again: as on trial if its trial has days left, else as active.

    Raises ProductError INVALID "tenant_state".
    """
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        has_days = tenant.trial_ends_on is not None and tenant.trial_ends_on >= timezone.localdate()
        return _change(
            tenant_id,
            {Status.SUSPENDED},
            Kind.RESUMED,
            actor=actor,
            reason=reason,
            status=Status.TRIAL if has_days else Status.ACTIVE,
            status_reason="",
            trial_ends_on=tenant.trial_ends_on if has_days else None,
        )


def sweep_trials(*, today: date | None = None) -> int:
    """Suspend every tenant whose trial is over, and tell of those that end soon; return how many of both.

    Told once for each day of `NOTICE_DAYS`, that the sweep missed or not; run twice, it happens once.
    """
    today = today or timezone.localdate()
    done = 0
    over = Tenant.objects.filter(status=Status.TRIAL, trial_ends_on__lt=today).order_by("pk")
    for tenant in over:
        try:
            suspended = suspend(tenant_id=tenant.pk, reason=TRIAL_ENDED, actor=ACTOR)
        except ProductError:  # somebody was quicker
            continue
        _tell(suspended, days=0)
        done += 1
    soon = Tenant.objects.filter(
        status=Status.TRIAL, trial_ends_on__range=(today, today + timedelta(days=max(NOTICE_DAYS)))
    )
    for tenant in soon.order_by("pk"):
        done += _give_notice(tenant, today)
    return done


def _change(
    tenant_id: int, before: Collection[str], kind: TenantEvent.Kind, *, actor: str, reason: str, **values: Any
) -> Tenant:
    with transaction.atomic():
        if values["status"] != Status.SUSPENDED:
            _require_no_deletion(tenant_id)
        changed = Tenant.objects.filter(pk=tenant_id, status__in=before).update(**values)
        if changed != 1:
            raise ProductError(
                ErrorCode.INVALID,
                _("The tenant is not in a state in which this can be done. Load the page again."),
                type="tenant_state",
            )
        tenant = Tenant.objects.get(pk=tenant_id)
        history.record(tenant=tenant, kind=kind, actor=actor, reason=reason)
        transaction.on_commit(forget)
    return tenant


def _require_no_deletion(tenant_id: int) -> None:
    with scope.tenant(tenant_id):
        waiting = TenantDeletion.objects.filter(state=TenantDeletion.State.WAITING).exists()
    if waiting:
        raise ProductError(
            ErrorCode.INVALID,
            _("This tenant is to be deleted. Call the deletion off first."),
            type="deletion_waiting",
        )


def _require(reason: str) -> None:
    if not reason.strip():
        raise ProductError(ErrorCode.INVALID, _("A reason is wanted."), type="reason_wanted")


def _give_notice(tenant: Tenant, today: date) -> bool:
    """Tell of a trial that ends soon, once for each of the days; False if it was told."""
    if tenant.trial_ends_on is None:
        return False
    left = (tenant.trial_ends_on - today).days
    day = min(days for days in NOTICE_DAYS if days >= left)
    facts: dict[str, Any] = {"ends_on": tenant.trial_ends_on.isoformat(), "days": day}
    with transaction.atomic():
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        with scope.tenant(tenant.pk):
            if TenantEvent.objects.filter(kind=Kind.TRIAL_NOTICE, facts=facts).exists():
                return False
        history.record(tenant=tenant, kind=Kind.TRIAL_NOTICE, actor=ACTOR, **facts)
    _tell(tenant, days=left)
    return True


def _tell(tenant: Tenant, *, days: int) -> None:
    """Mail the tenant's owners and finance, and its reseller's people."""

    def write() -> Letter:
        url = f"{address_of(main_host(tenant.pk))}/admin/"
        facts = {"name": tenant.name, "until": tenant.trial_ends_on, "url": url}
        if tenant.status == Status.SUSPENDED:
            return Letter(
                gettext("The trial of %(name)s has ended") % facts,
                gettext(
                    "The trial of “%(name)s” ended on %(until)s. Its users are turned away; nothing is lost. "
                    "Ask your provider to activate it.\n\n%(url)s"
                )
                % facts,
            )
        return Letter(
            gettext("The trial of %(name)s ends on %(until)s") % facts,
            gettext(
                "The trial of “%(name)s” ends on %(until)s. After that day its users are turned away; nothing is lost. "
                "Ask your provider to activate it.\n\n%(url)s"
            )
            % facts,
        )

    with scope.tenant(tenant.pk):
        staff = notices.treasurers(tenant_id=tenant.pk)
    people: list[StaffUser] = notices.people_of(reseller_id=tenant.reseller_id) if tenant.reseller_id else []
    everybody = {person.pk: person for person in [*staff, *people]}
    told = notices.mail(staff=everybody.values(), language=tenant.language, write=write)
    log.info("trial_told", tenant_slug=tenant.slug, days=days, mails=told)
