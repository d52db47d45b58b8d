"""Where a user stands: what each allowance has left and when it begins anew, and the caps that count the user."""

from datetime import datetime
from typing import NamedTuple

from billing import caps, quota
from billing.models import Cap, FreeQuota, Plan, Subscription, SubscriptionAllowance
from billing.terms import CapTerms, Terms, terms_of
from tenants.models import EndUser


class Standing(NamedTuple):
    """One allowance or cap: `used` of `limit`, anew at `reset_at` (None: never)."""

    used: int
    limit: int
    reset_at: datetime | None


class PlanStanding(NamedTuple):
    """What a subscription has left of a group."""

    name: str
    period: str
    standing: Standing


class GroupStanding(NamedTuple):
    """What a user has of one quota group without paying for each answer; `free` is None where there is none."""

    quota_group: str
    free: Standing | None
    plans: list[PlanStanding]


class CapStanding(NamedTuple):
    """What a cap has counted of a user."""

    cap: CapTerms
    standing: Standing


def groups_of(user: EndUser) -> list[GroupStanding]:
    """Return what a user has of every quota group; in the user's tenant's scope."""
    return [_group(user, terms, group) for group, terms in _terms_by_group(user).items()]


def caps_of(user: EndUser) -> list[CapStanding]:
    """Return the caps that count the user alone: what a whole tenant uses is not its users' business."""
    found = {}
    for terms in (_terms(user, ""), *_terms_by_group(user).values()):
        for cap in caps.in_force(terms, scopes=(Cap.Scope.USER, Cap.Scope.ONE_USER)):
            used = caps.used_of(tenant_id=user.tenant_id, user_id=user.pk, terms=terms, cap=cap)
            found[cap.cap_id] = CapStanding(cap, Standing(used, cap.limit, terms.span_of(cap).ends_at))
    return [found[cap_id] for cap_id in sorted(found)]


def on_sale() -> list[Plan]:
    """Return the plans that can be bought, with their allowances; in a tenant's scope."""
    plans = Plan.objects.filter(is_enabled=True).prefetch_related("allowances")
    return list(plans.order_by("position", "price", "pk"))


def subscriptions_of(user: EndUser) -> list[Subscription]:
    """Return what a user has bought, the latest end first, with allowances; in the user's tenant's scope."""
    mine = Subscription.objects.filter(user=user).select_related("plan").prefetch_related("allowances")
    return list(mine.order_by("-ends_at", "-pk"))


def _terms(user: EndUser, group: str) -> Terms:
    return terms_of(tenant_id=user.tenant_id, user_id=user.pk, group=group)


def _terms_by_group(user: EndUser) -> dict[str, Terms]:
    """Return the terms of each group that has a rule for this user."""
    named = {
        *FreeQuota.objects.values_list("quota_group", flat=True),
        *SubscriptionAllowance.objects.filter(subscription__user=user).values_list("quota_group", flat=True),
        *Cap.objects.exclude(quota_group="").values_list("quota_group", flat=True),
    }
    return {group: _terms(user, group) for group in sorted(named)}


def _group(user: EndUser, terms: Terms, group: str) -> GroupStanding:
    limit = terms.guest_allowance if user.is_guest else terms.free_per_day
    day = quota.IN_ALL if user.is_guest else terms.day.date
    free = None
    if limit:
        used = quota.used(tenant_id=user.tenant_id, user_id=user.pk, group=group, day=day)
        free = Standing(used, limit, None if user.is_guest else terms.day.ends_at)
    plans = [
        PlanStanding(
            plan.name,
            plan.period,
            Standing(
                quota.used_of_plan(
                    tenant_id=user.tenant_id,
                    subscription_id=plan.subscription_id,
                    group=group,
                    day=terms.counted_on(plan),
                ),
                plan.answers,
                terms.plan_resets_at(plan),
            ),
        )
        for plan in terms.plans
    ]
    return GroupStanding(group, free, plans)
