"""A tenant's states, and who may change them to what: trial, active, suspended, closed.

activate     the trial, or a suspension, is over: it serves its users
set_trial    on trial until a day
suspend      its users are turned away with a message, its staff may look, everything is kept
resume       back to what it was before the suspension
sweep_trials trials that are over end in a suspension; those that end soon are told of
tell         who answers for a tenant, by mail and by a notice

Each is one conditional UPDATE and an event in one transaction, so that two people who decide at once decide once. A
closed tenant stays closed (`lifecycle.erasure`). How it gets about: every process forgets a tenant within
`resolve.REMEMBER_SECONDS`.
"""

from collections.abc import Callable, Collection
from datetime import date, timedelta
from functools import partial
from typing import Any, Final

import structlog
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from billing import notices
from lifecycle import history
from lifecycle.addresses import address_of, main_host
from lifecycle.models import TenantDeletion, TenantEvent
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.letters import Letter
from tenants.models import Notice, Tenant
from tenants.resolve import forget

log = structlog.get_logger(__name__)

Status, Kind = Tenant.Status, TenantEvent.Kind

ACTOR: Final = "lifecycle"
# Why a trial's end suspends: said in the language of whoever reads it.
TRIAL_ENDED: Final = gettext_noop("The trial has ended.")
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
    """Turn a tenant's users away; nothing is deleted, its staff and its reseller are told why.

    Answers that are under way end as they would.

    Raises ProductError INVALID "tenant_state", and "reason_wanted" without a reason: its staff read it.
    """
    _require(reason)
    with transaction.atomic():
        tenant = _suspend(tenant_id, reason=reason, actor=actor)
        transaction.on_commit(partial(tell, tenant, partial(_suspended, tenant)), robust=True)
    return tenant


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
            suspended = _suspend(tenant.pk, reason=TRIAL_ENDED, actor=ACTOR)
        except ProductError:  # somebody was quicker
            continue
        _tell_of_trial(suspended, days=0)
        done += 1
    soon = Tenant.objects.filter(
        status=Status.TRIAL, trial_ends_on__range=(today, today + timedelta(days=max(NOTICE_DAYS)))
    )
    for tenant in soon.order_by("pk"):
        done += _give_notice(tenant, today)
    return done


def _suspend(tenant_id: int, *, reason: str, actor: str) -> Tenant:
    return _change(
        tenant_id,
        {Status.TRIAL, Status.ACTIVE},
        Kind.SUSPENDED,
        actor=actor,
        reason=reason,
        status=Status.SUSPENDED,
        status_reason=reason.strip()[: history.REASON_LENGTH],
    )


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
    _tell_of_trial(tenant, days=left)
    return True


def tell(tenant: Tenant, write: Callable[[], Letter]) -> int:
    """Tell a tenant's owners and finance, and its reseller's people, by mail and where they log in; return mails."""
    with scope.tenant(tenant.pk):
        told = notices.tell(kind=Notice.Kind.EXPIRY, tenant=tenant, write=write)
    if tenant.reseller_id:
        with scope.platform("a notice to a reseller"):
            told += notices.tell(kind=Notice.Kind.EXPIRY, reseller_id=tenant.reseller_id, write=write)
    return told


def _tell_of_trial(tenant: Tenant, *, days: int) -> None:
    told = tell(tenant, partial(_trial_ended if tenant.status == Status.SUSPENDED else _trial_ends, tenant))
    log.info("trial_told", tenant_slug=tenant.slug, days=days, mails=told)


def facts_of(tenant: Tenant) -> dict[str, Any]:
    """Return what letters about a tenant name it by."""
    return {"name": tenant.name, "url": f"{address_of(main_host(tenant.pk))}/admin/"}


def _trial_ends(tenant: Tenant) -> Letter:
    facts = {**facts_of(tenant), "until": tenant.trial_ends_on}
    return Letter(
        gettext("The trial of %(name)s ends on %(until)s") % facts,
        gettext(
            "The trial of “%(name)s” ends on %(until)s. After that day its users are turned away; nothing is lost. "
            "Ask your provider to activate it.\n\n%(url)s"
        )
        % facts,
    )


def _trial_ended(tenant: Tenant) -> Letter:
    facts = {**facts_of(tenant), "until": tenant.trial_ends_on}
    return Letter(
        gettext("The trial of %(name)s has ended") % facts,
        gettext(
            "The trial of “%(name)s” ended on %(until)s. Its users are turned away; nothing is lost. "
            "Ask your provider to activate it.\n\n%(url)s"
        )
        % facts,
    )


def _suspended(tenant: Tenant) -> Letter:
    facts = {**facts_of(tenant), "reason": tenant.status_reason}
    return Letter(
        gettext("%(name)s is suspended") % facts,
        gettext(
            "“%(name)s” is suspended: its users are turned away, nothing is lost. The reason: %(reason)s\n\n%(url)s"
        )
        % facts,
    )
