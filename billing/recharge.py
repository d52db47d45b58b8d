"""Recharging a balance, or buying a plan: an order, its payment at a provider, and what it brings, once.

    create_order      a user wants a package or a plan; what the client needs to pay it
    take_callback     a provider's notification: verified, then settled
    settle_payment    the one place where a payment becomes credit: by notification, poll or re-check
    check_order       ask the provider: lost notifications are found so, and expired orders closed
    poll_orders       `check_order` for every order that is due, of all tenants

Calls to a provider are never made within a transaction. Lock order: the order, then as in `billing.ledger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing import ledger, plans
from billing.models import Channel, MerchantAccount, Method, Order, Package, PaymentEvent, Plan
from billing.payments import provider_of
from billing.payments.provider import NotificationRefusedError, Payer, PaymentError, PaymentNotice
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, Tenant, WeChatIdentity

log = structlog.get_logger(__name__)

ORDER_SECONDS: Final = 15 * 60
# An open order is given again while it has this long to live: time enough to pay it.
REUSE_SECONDS: Final = 60
# Seconds after an order was made at which the provider is asked; after these at expiry, then until it has answered.
POLL_SECONDS: Final = (10, 30, 120, 600)
RETRY_SECONDS: Final = 60
# How long after its expiry an order that no provider answers for stays pending. Closed, it can still be paid.
GIVE_UP_SECONDS: Final = 24 * 60 * 60
_POLL_BATCH: Final = 50

ACTOR: Final = "payment"


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """What a user asks for: the slug of a package, or that of a plan.

    `address` is the client's; `notify_base` is where providers reach us, `https://…`.
    """

    package: str = ""
    plan: str = ""
    channel: str
    method: str
    address: str
    notify_base: str


def create_order(*, user: EndUser, purchase: Purchase) -> tuple[Order, dict[str, str]]:
    """Return an order and what the client needs to pay it; in the user's tenant's scope, outside of transactions.

    A user's open order for the same thing and way of paying is given again. Raises ProductError: NOT_FOUND
    "package_not_found", "plan_not_found" or "channel_not_found", INVALID "wechat_login_needed", QUOTA
    "package_limit_reached" or "plan_limit_reached", UPSTREAM "payment_unavailable".
    """
    account, openid = _account_for(user=user, purchase=purchase)
    order = _open_order(user=user, purchase=purchase, account=account)
    payer = Payer(address=purchase.address, openid=openid)
    tenant = Tenant.objects.get(pk=user.tenant_id)
    notify_url = f"{purchase.notify_base}{notify_path(tenant=tenant, account=account)}"
    try:
        return order, provider_of(account).create_payment(order, payer=payer, notify_url=notify_url)
    except PaymentError as fault:
        log.warning("payment not created", order=str(order.pk), fault=str(fault))
        raise unavailable() from None


def notify_path(*, tenant: Tenant, account: MerchantAccount) -> str:
    """Return where the provider tells of payments to this account."""
    return f"/api/payments/{tenant.slug}/{account.channel}/{account.pk}/notify"


def take_callback(*, account: MerchantAccount, body: bytes, headers: Mapping[str, str]) -> PaymentEvent:
    """Verify a notification and settle it; raise NotificationRefusedError for one that is not the provider's."""
    notice = provider_of(account).parse_callback(body=body, headers=headers)
    if not isinstance(notice, PaymentNotice):
        raise NotificationRefusedError("no payment")
    return settle_payment(account=account, notice=notice)


def settle_payment(*, account: MerchantAccount, notice: PaymentNotice) -> PaymentEvent:
    """Credit an order for a verified payment, once, however often and by however many it is told; return the event.

    A payment that fits no order, or not exactly, credits nothing; it is judged again when it is told again, since
    the reason may have been mended. A closed order is credited like an open one: the money is there.
    """
    with scope.tenant(account.tenant_id), transaction.atomic():
        order = Order.objects.select_for_update().filter(out_trade_no=notice.out_trade_no).first()
        event, is_new = PaymentEvent.objects.get_or_create(
            tenant_id=account.tenant_id,
            merchant_account=account,
            event_id=notice.event_id,
            defaults={
                "order": order,
                "body_digest": notice.body_digest,
                "outcome": PaymentEvent.Outcome.UNKNOWN_ORDER,
            },
        )
        if not is_new and event.is_taken:
            return event
        event.order, event.body_digest = order, notice.body_digest
        event.outcome = _judge(order, account, notice)
        if order is not None and event.outcome == PaymentEvent.Outcome.CREDITED:
            _credit(order, notice)
        event.save(update_fields=["order", "body_digest", "outcome"])
    say = log.info if event.is_taken else log.error
    say("payment", outcome=event.outcome, order_number=notice.out_trade_no, transaction=notice.transaction_id)
    return event


def check_order(order: Order) -> None:
    """Ask the provider for an order: settle it if it is paid, close it there and here if its time is over.

    In the order's tenant's scope, outside of transactions. Raises PaymentError where the provider does not help.
    """
    account = order.merchant_account
    provider = provider_of(account)
    notice = provider.query(order)
    if notice is None and _expired(order).exists() and not provider.close(order):
        notice = provider.query(order)  # paid in between
    if notice is not None:
        settle_payment(account=account, notice=notice)
        return
    _close(order)


def poll_orders() -> int:
    """Check every pending order that is due, in all tenants; return how many were. Several may run at once.

    When to ask next is committed before asking, so that a process that dies here delays an order and loses none.
    """
    with scope.platform("orders nobody told us about, in every tenant"):
        due = _claim_due()
    for order in due:
        with scope.tenant(order.tenant_id):
            try:
                check_order(order)
            except PaymentError as fault:
                log.warning("order not checked", order=str(order.pk), fault=str(fault))
                _close(order, overdue_seconds=GIVE_UP_SECONDS)
            except ledger.LedgerError:
                log.exception("order cannot be credited", order=str(order.pk))
    return len(due)


def _account_for(*, user: EndUser, purchase: Purchase) -> tuple[MerchantAccount, str]:
    """Return the merchant account to pay to, and the payer's open id there if the way of paying wants one."""
    accounts = list(MerchantAccount.objects.filter(channel=purchase.channel, is_enabled=True).order_by("pk"))
    if not accounts or purchase.channel not in Channel.values or purchase.method not in Method.values:
        raise ProductError(
            ErrorCode.NOT_FOUND, _("This way of paying is not offered here."), type="channel_not_found", scope="tenant"
        )
    if purchase.method != Method.JSAPI:
        return accounts[0], ""
    known = dict(WeChatIdentity.objects.filter(user=user).values_list("app_id", "openid"))
    for account in accounts:
        if account.app_id in known:
            return account, known[account.app_id]
    raise ProductError(
        ErrorCode.INVALID,
        _("Please log in with WeChat to pay there."),
        type="wechat_login_needed",
        scope="user",
        action="login",
    )


@transaction.atomic
def _open_order(*, user: EndUser, purchase: Purchase, account: MerchantAccount) -> Order:
    """Return the user's open order of this kind, or a new one. The user's row is locked: a limit counts one by one."""
    EndUser.objects.select_for_update(no_key=True).get(pk=user.pk)
    item = _item(purchase)
    what = {"plan" if isinstance(item, Plan) else "package": item}
    mine = Order.objects.filter(user=user, **what)
    terms = {
        **_terms(item),
        "merchant_account": account,
        "channel": account.channel,
        "method": purchase.method,
        "merchant_id": account.merchant_id,
        "app_id": account.app_id,
    }
    alive = Q(state=Order.State.PENDING, expires_at__gt=Now() + timedelta(seconds=REUSE_SECONDS))
    found = mine.filter(alive, **terms).order_by("-created_at").first()
    if found is not None:
        return found
    _require_below_limit(item, mine)
    number = uuid7()
    Order.objects.create(
        tenant_id=user.tenant_id,
        id=number,
        out_trade_no=number.hex,
        user=user,
        expires_at=Now() + timedelta(seconds=ORDER_SECONDS),
        next_poll_at=Now() + timedelta(seconds=POLL_SECONDS[0]),
        **what,
        **terms,
    )
    return Order.objects.get(pk=number)


def _item(purchase: Purchase) -> Package | Plan:
    """Return what is on sale under the slug."""
    if purchase.plan:
        plan = Plan.objects.filter(slug=purchase.plan, is_enabled=True).first()
        if plan is None:
            raise ProductError(
                ErrorCode.NOT_FOUND, _("There is no such plan. Please choose another."), type="plan_not_found"
            )
        return plan
    package = Package.objects.filter(slug=purchase.package, is_enabled=True).first()
    if package is None:
        raise ProductError(
            ErrorCode.NOT_FOUND, _("There is no such package. Please choose another."), type="package_not_found"
        )
    return package


def _terms(item: Package | Plan) -> dict[str, Any]:
    """Return what an order copies. A plan fills no balance, whatever packages bring for their price."""
    if isinstance(item, Plan):
        bought = {"credits": 0, "bonus": 0, "plan_terms": plans.terms_to_sell(item)}
    else:
        bought = {"credits": item.credits, "bonus": item.bonus, "plan_terms": {}}
    return {"package_name": item.name, "price": item.price, **bought}


def _require_below_limit(item: Package | Plan, mine: QuerySet[Order]) -> None:
    """Count what was bought and what still may be: a pending order may be paid."""
    limit = item.limit_per_user
    used = mine.exclude(state=Order.State.CLOSED).count() if limit else 0
    if not limit or used < limit:
        return
    pending = mine.filter(state=Order.State.PENDING).order_by("expires_at").first()
    action, reset_at = ("wait", pending.expires_at) if pending else ("choose_other", None)
    if isinstance(item, Plan):
        raise ProductError(
            ErrorCode.QUOTA,
            _("This plan can be bought %(limit)d times only.") % {"limit": limit},
            type="plan_limit_reached",
            scope="plan",
            action=action,
            reset_at=reset_at,
            used=used,
            limit=limit,
        )
    raise ProductError(
        ErrorCode.QUOTA,
        _("This package can be bought %(limit)d times only.") % {"limit": limit},
        type="package_limit_reached",
        scope="package",
        action=action,
        reset_at=reset_at,
        used=used,
        limit=limit,
    )


def _judge(order: Order | None, account: MerchantAccount, notice: PaymentNotice) -> PaymentEvent.Outcome:
    """Compare a payment with the order that it names."""
    outcome = PaymentEvent.Outcome
    if order is None:
        return outcome.UNKNOWN_ORDER
    ours = (order.merchant_account_id, order.merchant_id, order.app_id)
    if ours != (account.pk, notice.merchant_id, notice.app_id):
        return outcome.OTHER_MERCHANT
    if (order.price, "CNY") != (notice.amount, notice.currency):
        return outcome.OTHER_AMOUNT
    paid = Order.objects.filter(
        channel=order.channel, merchant_id=order.merchant_id, transaction_id=notice.transaction_id
    ).first()
    if paid is None and order.state != Order.State.PAID:
        return outcome.CREDITED
    return outcome.REPEATED if paid == order else outcome.OTHER_TRANSACTION


def _credit(order: Order, notice: PaymentNotice) -> None:
    """Mark a locked order paid and give its user what it is for: a plan, or balance and, for a bonus, gift balance."""
    unpaid = Order.objects.filter(pk=order.pk).exclude(state=Order.State.PAID)
    changed = unpaid.update(state=Order.State.PAID, paid_at=Now(), closed_at=None, transaction_id=notice.transaction_id)
    if changed != 1:
        raise ledger.LedgerError(f"order {order.pk} is paid already")
    if order.plan_id is not None:
        plans.begin(order=order)
        return
    ledger.credit_user(
        tenant_id=order.tenant_id,
        user_id=order.user_id,
        amount=order.credits,
        kind="cash",
        ref=str(order.pk),
        reason=order.package_name,
        actor=ACTOR,
        payment=ledger.Payment(channel=order.clearing_channel, amount=order.price),
    )
    if order.bonus:
        ledger.credit_user(
            tenant_id=order.tenant_id,
            user_id=order.user_id,
            amount=order.bonus,
            kind="gift",
            ref=f"order:{order.pk}",
            reason=order.package_name,
            actor=ACTOR,
        )


def _expired(order: Order, *, overdue_seconds: int = 0) -> QuerySet[Order]:
    """Return the order if it is pending and its time is over, by the database's clock."""
    over = Now() - timedelta(seconds=overdue_seconds)
    return Order.objects.filter(pk=order.pk, state=Order.State.PENDING, expires_at__lte=over)


def _close(order: Order, *, overdue_seconds: int = 0) -> None:
    _expired(order, overdue_seconds=overdue_seconds).update(state=Order.State.CLOSED, closed_at=Now())


@transaction.atomic
def _claim_due() -> list[Order]:
    """Return the orders that are due, after setting when each is due next; others' claims are passed by."""
    pending = Order.objects.filter(state=Order.State.PENDING, next_poll_at__lte=Now())
    due = list(pending.annotate(now=Now()).select_for_update(skip_locked=True).order_by("next_poll_at")[:_POLL_BATCH])
    for order in due:
        Order.objects.filter(pk=order.pk).update(next_poll_at=_next_poll(order, order.now))
    return list(due)


def _next_poll(order: Order, now: datetime) -> datetime:
    """Return when to ask next; what was missed, because nobody polled, is not made up for."""
    planned = [order.created_at + timedelta(seconds=seconds) for seconds in POLL_SECONDS]
    ahead = [at for at in (*planned, order.expires_at) if at > now]
    return min(ahead, default=now + timedelta(seconds=RETRY_SECONDS))


def unavailable() -> ProductError:
    """Return the refusal where a provider does not help."""
    return ProductError(
        ErrorCode.UPSTREAM,
        _("The payment service does not answer just now. Please try again."),
        type="payment_unavailable",
        scope="tenant",
        action="retry",
    )
