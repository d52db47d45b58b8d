"""The JSON API of plans and allowances: what is on sale, what a user has bought, and what is left of it."""

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest
from ninja import Router, Schema

from billing import standing
from billing.for_sale import ForSale, Platform, Version, nothing_for_sale
from billing.models import Cap, Plan, Subscription
from billing.standing import CapStanding, GroupStanding, PlanStanding
from tenants.api import Amount, Envelope, ok, signed_in, user_of

router = Router(tags=["plans"], auth=signed_in)


class AllowanceOut(Schema):
    """So many answers of a group, each day or once in the plan's time."""

    quota_group: str
    answers: int
    period: Literal["day", "term"]


class PlanOut(Schema):
    """A plan on sale; its price in micro-yuan."""

    slug: str
    name: str
    price: Amount
    days: int
    badge: str
    limit_per_user: int
    virtual: bool
    allowances: list[AllowanceOut]


class SubscriptionOut(Schema):
    """A plan that was bought. It is good from `starts_at` to `ends_at`, unless `ended_at` says that it ended before."""

    plan: str
    name: str
    starts_at: datetime
    ends_at: datetime
    ended_at: datetime | None
    allowances: list[AllowanceOut]


class StandingOut(Schema):
    """How much is used; it begins anew at `reset_at`, or never."""

    used: int
    limit: int
    reset_at: datetime | None


class PlanStandingOut(StandingOut):
    """What is left of a subscription's allowance."""

    name: str
    period: Literal["day", "term"]


class GroupOut(Schema):
    """What the user has of one model group without paying for each answer."""

    quota_group: str
    free: StandingOut | None
    plans: list[PlanStandingOut]


class CapOut(Schema):
    """A cap on the user; `used` and `limit` of spending are strings of micro-yuan."""

    measure: Literal["answers", "spend"]
    period: Literal["day", "month"]
    quota_group: str
    used: int | str
    limit: int | str
    reset_at: datetime | None


class QuotaOut(Schema):
    """Allowances by model group, and caps."""

    groups: list[GroupOut]
    caps: list[CapOut]


@router.get("/plans", response=ForSale[list[PlanOut]], exclude_unset=True)
def plans(request: HttpRequest, platform: Platform = "", version: Version = "") -> Any:
    """Return the plans that can be bought here."""
    if hidden := nothing_for_sale(request, platform=platform, version=version):
        return hidden
    return ok([_plan(plan) for plan in standing.on_sale()])


@router.get("/subscriptions", response=Envelope[list[SubscriptionOut]])
def subscriptions(request: HttpRequest) -> Any:
    """Return what the user has bought, the latest end first."""
    return ok([_subscription(row) for row in standing.subscriptions_of(user_of(request))])


@router.get("/quota", response=Envelope[QuotaOut])
def quota(request: HttpRequest) -> Any:
    """Return what the user may have without paying for each answer, and at most."""
    user = user_of(request)
    groups = [_group(group) for group in standing.groups_of(user)]
    return ok({"groups": groups, "caps": [_cap(cap) for cap in standing.caps_of(user)]})


def _allowances(owner: Plan | Subscription) -> list[dict[str, Any]]:
    rows = sorted(owner.allowances.all(), key=lambda row: row.quota_group)
    return [{"quota_group": row.quota_group, "answers": row.answers, "period": row.period} for row in rows]


def _plan(plan: Plan) -> dict[str, Any]:
    names = ("slug", "name", "price", "days", "badge", "limit_per_user")
    shown = {name: getattr(plan, name) for name in names}
    return {**shown, "virtual": bool(plan.virtual_product_id), "allowances": _allowances(plan)}


def _subscription(row: Subscription) -> dict[str, Any]:
    names = ("name", "starts_at", "ends_at", "ended_at")
    return {"plan": row.plan.slug, **{name: getattr(row, name) for name in names}, "allowances": _allowances(row)}


def _group(group: GroupStanding) -> dict[str, Any]:
    return {
        "quota_group": group.quota_group,
        "free": group.free and group.free._asdict(),
        "plans": [_plan_standing(plan) for plan in group.plans],
    }


def _plan_standing(plan: PlanStanding) -> dict[str, Any]:
    return {"name": plan.name, "period": plan.period, **plan.standing._asdict()}


def _cap(capped: CapStanding) -> dict[str, Any]:
    cap, figures = capped
    shown: dict[str, Any] = figures._asdict()
    if cap.measure == Cap.Measure.SPEND:
        shown |= {"used": str(figures.used), "limit": str(figures.limit)}
    return {"measure": cap.measure, "period": cap.period, "quota_group": cap.quota_group, **shown}
