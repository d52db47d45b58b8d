"""Membership plans: what an order of one brings, when it is paid and when it is given back.

    terms_to_sell     what an order of a plan copies
    begin             a paid order's money and subscription
    end_for_refund    a refunded order's subscription ends, or ends earlier

A plan fills no balance. Its price is the tenant's revenue at once, and what its allowances bring is counted in answers:
nothing that packages bring for their price, a bonus or a multiple, has a place here.
"""

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Max
from django.db.models.functions import Now

from billing import ledger
from billing.models import Order, Plan, Subscription, SubscriptionAllowance, Transfer
from tenants import scope
from tenants.models import Tenant

ACTOR = "payment"


def terms_to_sell(plan: Plan) -> dict[str, Any]:
    """Return what an order keeps of a plan: its days and its allowances, as they are now."""
    allowances = plan.allowances.order_by("quota_group").values("quota_group", "answers", "period")
    return {"days": plan.days, "allowances": list(allowances)}


def begin(*, order: Order) -> Subscription:
    """Book the price of a locked order that has just been paid, and begin its subscription; in its transaction.

    It begins now, or where the user's present subscriptions of the same plan end. The lock on the user's accounts
    makes two renewals at once follow each other. An order begins one subscription: a second one breaks a unique
    constraint. Raises ValueError for a package's order.
    """
    if order.plan_id is None:
        raise ValueError(f"order {order.pk} is for no plan")
    ledger.lock_user_accounts(tenant_id=order.tenant_id, user_id=order.user_id)
    now = _now(order.tenant_id)
    present = Subscription.objects.filter(user_id=order.user_id, plan_id=order.plan_id, ended_at=None)
    last = present.aggregate(last=Max("ends_at"))["last"]
    starts_at = max(now, last) if last else now
    subscription = Subscription.objects.create(
        tenant_id=order.tenant_id,
        user_id=order.user_id,
        plan_id=order.plan_id,
        order=order,
        name=order.package_name,
        starts_at=starts_at,
        ends_at=starts_at + timedelta(days=order.plan_terms["days"]),
    )
    SubscriptionAllowance.objects.bulk_create(
        SubscriptionAllowance(tenant_id=order.tenant_id, subscription=subscription, **allowance)
        for allowance in order.plan_terms["allowances"]
    )
    # Last: the tenant's rows.
    clearing = ledger.clearing_account(tenant_id=order.tenant_id, channel=order.clearing_channel)
    revenue = ledger.tenant_accounts(tenant_id=order.tenant_id).revenue
    ledger.move(
        tenant_id=order.tenant_id,
        kind=Transfer.Kind.PLAN,
        ref=str(order.pk),
        reason=order.package_name,
        actor=ACTOR,
        movements=[
            ledger.Movement(account=clearing, amount=-order.price),
            ledger.Movement(account=revenue, amount=order.price),
        ],
    )
    return subscription


def end_for_refund(*, tenant_id: int, order_id: uuid.UUID, amount: int) -> Subscription | None:
    """Take back what `amount` micro-yuan of an order paid for; return the subscription, None if it began none.

    The same part of the bought time goes from its end, at most up to now: all of it for the whole price. Subscriptions
    that were to follow begin so much earlier. To be called once for each refund, by whoever books it, in its
    transaction, before the tenant's rows are moved; moves no money itself. Answers under way are not touched.

    Raises ValueError for an amount outside 1…price.
    """
    with scope.tenant(tenant_id), transaction.atomic():
        order = Order.objects.get(pk=order_id)
        if not 1 <= amount <= order.price:
            raise ValueError(f"a refund of {amount} of an order of {order.price}")
        if order.plan_id is None:
            return None
        ledger.lock_user_accounts(tenant_id=tenant_id, user_id=order.user_id)
        subscription = Subscription.objects.filter(order=order, ended_at=None).first()
        if subscription is None:
            return None
        _shorten(subscription, part=amount, whole=order.price, days=order.plan_terms["days"], now=_now(tenant_id))
        return Subscription.objects.get(pk=subscription.pk)


def _shorten(subscription: Subscription, *, part: int, whole: int, days: int, now: datetime) -> None:
    seconds = days * 24 * 60 * 60 * part // whole
    end = max(subscription.ends_at - timedelta(seconds=seconds), subscription.starts_at, now)
    row = Subscription.objects.filter(pk=subscription.pk, ended_at=None)
    if end >= subscription.ends_at:
        return  # it was over already
    if part == whole or end <= max(subscription.starts_at, now):
        end = max(subscription.starts_at, now)
        row.update(ended_at=Now())
    else:
        row.update(ends_at=end)
    _draw_near(subscription, by=subscription.ends_at - end)


def _draw_near(subscription: Subscription, *, by: timedelta) -> None:
    """Let what was to begin at the old end, or later, begin so much earlier."""
    Subscription.objects.filter(
        user_id=subscription.user_id,
        plan_id=subscription.plan_id,
        ended_at=None,
        starts_at__gte=subscription.ends_at,
    ).update(starts_at=F("starts_at") - by, ends_at=F("ends_at") - by)


def _now(tenant_id: int) -> datetime:
    """Return the database's time."""
    now: datetime = Tenant.objects.values_list(Now(), flat=True).get(pk=tenant_id)
    return now
