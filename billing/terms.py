"""The terms that a user's next answer is had on: time, plans, free quota and caps, read by one statement.

They are rules; how much of each is used is decided by the counters (`billing.quota`, `billing.caps`), whose rows are
locked. Counting adds a statement for each rule that there is: a tenant without any pays for none.
"""

import json
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any, Final

from billing import quota
from billing.models import Cap, Period
from billing.models.resale import WHOLE_PPM
from tenants.table import Query, fetch


@dataclass(frozen=True, kw_only=True)
class PlanTerms:
    """A subscription that is good now, and how many answers of the group it brings."""

    subscription_id: int
    name: str
    answers: int
    period: str  # a Period
    ends_at: datetime


@dataclass(frozen=True, kw_only=True)
class CapTerms:
    """A cap that counts the answer; `limit` is a number of answers, or micro-yuan."""

    cap_id: int
    scope: str  # a Cap.Scope
    measure: str  # a Cap.Measure
    period: str  # a Cap.Period
    quota_group: str
    limit: int

    @property
    def is_tenant_s(self) -> bool:
        """Whether it counts all users together."""
        return self.scope == Cap.Scope.TENANT


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The database's time and what is in force then. Plans: the one that ends first, first. Caps: by their id."""

    now: datetime
    zone: str
    reseller_id: int | None
    own_ppm: int | None
    parent_reseller_id: int | None
    parent_ppm: int | None
    free_per_day: int
    guest_allowance: int
    plans: tuple[PlanTerms, ...]
    caps: tuple[CapTerms, ...]

    @cached_property
    def day(self) -> quota.QuotaDay:
        """The tenant's day."""
        return quota.quota_day(now=self.now, zone=self.zone)

    @cached_property
    def month(self) -> quota.QuotaMonth:
        """The tenant's month."""
        return quota.quota_month(now=self.now, zone=self.zone)

    def counted_on(self, plan: PlanTerms) -> date:
        """Return the date of the counter that a plan's answers are counted on now."""
        return self.day.date if plan.period == Period.DAY else quota.IN_ALL

    def plan_resets_at(self, plan: PlanTerms) -> datetime:
        """Return when a plan's counter begins anew, or the plan ends."""
        return min(self.day.ends_at, plan.ends_at) if plan.period == Period.DAY else plan.ends_at

    def span_of(self, cap: CapTerms) -> quota.QuotaDay | quota.QuotaMonth:
        """Return the day or month that a cap counts in now."""
        return self.day if cap.period == Cap.Period.DAY else self.month


_READ: Final = """
SELECT statement_timestamp(), tenant.timezone, coalesce(free.per_day, 0), coalesce(free.guest_allowance, 0),
    (SELECT json_agg(json_build_object('subscription_id', subscription.id, 'name', subscription.name,
            'answers', allowance.answers, 'period', allowance.period, 'ends_at', subscription.ends_at)
            ORDER BY subscription.ends_at, subscription.id)
        FROM billing_subscription subscription JOIN billing_subscriptionallowance allowance
            ON allowance.tenant_id = subscription.tenant_id AND allowance.subscription_id = subscription.id
            AND allowance.quota_group = %(group)s
        WHERE subscription.tenant_id = tenant.id AND subscription.user_id = %(user)s
            AND subscription.ended_at IS NULL
            AND subscription.starts_at <= statement_timestamp() AND subscription.ends_at > statement_timestamp()),
    (SELECT json_agg(json_build_object('cap_id', cap.id, 'scope', cap.scope, 'measure', cap.measure,
            'period', cap.period, 'quota_group', cap.quota_group, 'limit', cap."limit") ORDER BY cap.id)
        FROM billing_cap cap
        WHERE cap.tenant_id = tenant.id AND cap.is_enabled AND cap.quota_group IN ('', %(group)s)
            AND (cap.user_id IS NULL OR cap.user_id = %(user)s)),
    reseller.id, (SELECT own_ppm FROM billing_commissionterms
        WHERE reseller_id = reseller.id AND effective_at <= statement_timestamp()
        ORDER BY effective_at DESC, id DESC LIMIT 1),
    reseller.parent_id, (SELECT parent_ppm FROM billing_commissionterms
        WHERE reseller_id = reseller.parent_id AND effective_at <= statement_timestamp()
        ORDER BY effective_at DESC, id DESC LIMIT 1)
FROM tenants_tenant tenant LEFT JOIN billing_freequota free
    ON free.tenant_id = tenant.id AND free.quota_group = %(group)s
LEFT JOIN tenants_reseller reseller ON reseller.id = tenant.reseller_id
WHERE tenant.id = %(tenant)s
"""


def terms_of(*, tenant_id: int, user_id: int, group: str) -> Terms:
    """Return the terms for a user's answer of a quota group, now."""
    return fetch(terms_query(tenant_id=tenant_id, user_id=user_id, group=group))


def terms_query(*, tenant_id: int, user_id: int, group: str) -> Query[Terms]:
    """Return the query of the terms."""
    return Query(_READ, {"tenant": tenant_id, "user": user_id, "group": group}, _terms)


def _terms(rows: list[tuple[Any, ...]]) -> Terms:
    [row] = rows
    now, zone, free_per_day, guest_allowance, plans, caps, reseller_id, own_ppm, parent_id, parent_ppm = row
    if reseller_id is not None:
        own_ppm = own_ppm or 0
    if parent_id is not None:
        # The terms were seen to fit each other, but a reseller may since have got another parent.
        parent_ppm = min(parent_ppm or 0, WHOLE_PPM - own_ppm)
    return Terms(
        now=now,
        zone=zone,
        reseller_id=reseller_id,
        own_ppm=own_ppm,
        parent_reseller_id=parent_id,
        parent_ppm=parent_ppm,
        free_per_day=free_per_day,
        guest_allowance=guest_allowance,
        plans=tuple(_plan(found) for found in _rows(plans)),
        caps=tuple(CapTerms(**found) for found in _rows(caps)),
    )


def _rows(found: Any) -> list[dict[str, Any]]:
    """Return the objects of an aggregate: Django's cursors give JSON as text, others read it."""
    return (json.loads(found) if isinstance(found, str) else found) or []


def _plan(found: dict[str, Any]) -> PlanTerms:
    return PlanTerms(**{**found, "ends_at": datetime.fromisoformat(found["ends_at"])})
