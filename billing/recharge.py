"""Recharging a balance, or buying a plan: an order, its payment at a provider, and what it brings, once.

    create_order      a user wants a package or a plan; what the client needs to pay it
    ways_to_pay       what a tenant offers, for the client to choose from
    settle_payment    the one place where a payment becomes credit: by notification, poll or re-check
    check_order       ask the provider: lost notifications are found so, and expired orders closed
    poll_orders       `check_order` for every order that is due, of all tenants

Calls to a provider are never made within a transaction. Lock order: the order, then as in `billing.ledger`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing import ledger, plans, rewards
from billing.models import METHODS, Channel, MerchantAccount, Method, Order, Package, PaymentEvent, Plan
from billing.payments import provider_of
from billing.payments.provider import (
    REFERENCE,
    Payer,
    PayerUnknownError,
    PaymentError,
    PaymentNotice,
    PaymentProvider,
    WantsDelivery,
)
from billing.payments.wechat_virtual import IOS_MINIMUM
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, MiniProgram, Tenant, WeChatIdentity

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

    `app_id` is the mini-program's that asks, if one does, and `platform` what it runs on, in WeChat's words.
    Browsers come back to `notify_base` too.

    `address` is the client's; `notify_base` is where providers reach us, `https://…`.
    """

    package: str = ""
    plan: str = ""
    channel: str
    method: str
    address: str
    notify_base: str
    app_id: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class WayToPay:
    """A channel and how it can be paid there; a package below `minimum`, micro-yuan, cannot."""

    channel: str
    methods: list[str]
    minimum: int


def ways_to_pay(*, tenant: Tenant, app_id: str, platform: str) -> list[WayToPay]:
    """Return what the tenant offers here, the default first; in its scope.

    In a mini-program (`app_id`) that is virtual payment where the tenant has it, and ordinary WeChat Pay beside it
    where the tenant chose so, or alone where there is no other. Elsewhere it is everything else.
    """
    offered: dict[str, set[str]] = {}
    accounts = list(MerchantAccount.objects.filter(is_enabled=True))
    for account in accounts:
        for method in METHODS[Channel(account.channel)]:
            if _fits(method, account, app_id) and not _is_for_virtual_only(tenant, account, method, accounts):
                offered.setdefault(account.channel, set()).add(method)
    order = [Channel.WECHAT_VIRTUAL, *(channel for channel in Channel if channel != Channel.WECHAT_VIRTUAL)]
    return [
        WayToPay(
            channel=channel,
            methods=[method for method in METHODS[channel] if method in offered[channel]],
            minimum=IOS_MINIMUM if _is_sold_by_apple(channel, platform) else 0,
        )
        for channel in order
        if channel in offered
    ]


def create_order(*, user: EndUser, purchase: Purchase) -> tuple[Order, dict[str, str]]:
    """Return an order and what the client needs to pay it; in the user's tenant's scope, outside of transactions.

    A user's open order for the same thing and way of paying is given again. Raises ProductError: NOT_FOUND
    "package_not_found", "plan_not_found", "channel_not_found" or "package_without_channel", INVALID
    "method_not_of_channel", "wechat_login_needed" or "ios_minimum", QUOTA "package_limit_reached" or
    "plan_limit_reached", UPSTREAM "payment_unavailable".
    """
    tenant = Tenant.objects.get(pk=user.tenant_id)
    account, payer = _account_for(user=user, tenant=tenant, purchase=purchase)
    order = _open_order(user=user, purchase=purchase, account=account, payer=payer)
    return _announce(order, tenant=tenant, account=account, payer=payer, base=purchase.notify_base)


def try_payment(  # noqa: PLR0913  whose, of what, and how
    *, user: EndUser, package: Package, account: MerchantAccount, method: str, address: str, notify_base: str
) -> tuple[Order, dict[str, str]]:
    """Return an order that tries one merchant account, on sale or not, and what pays it; else as `create_order`."""
    tenant = Tenant.objects.get(pk=user.tenant_id)
    payer = Payer(address=address)
    order = _new_order(
        user=user,
        what={"package": package},
        terms={**_terms(package), **_paid_to(account, method, payer)},
    )
    return _announce(order, tenant=tenant, account=account, payer=payer, base=notify_base)


def _announce(
    order: Order, *, tenant: Tenant, account: MerchantAccount, payer: Payer, base: str
) -> tuple[Order, dict[str, str]]:
    """Tell the provider of an order; return it and what pays it."""
    payer = replace(payer, return_url=f"{base}/pay/done?order={order.pk}")
    notify_url = f"{base}{notify_path(tenant=tenant, account=account)}"
    try:
        payment = provider_of(account).create_payment(order, payer=payer, notify_url=notify_url)
    except PayerUnknownError as fault:
        log.info("payer to log in anew", order=str(order.pk), fault=str(fault))
        # Nobody can pay it, so it must not count against a limit.
        Order.objects.filter(pk=order.pk, state=Order.State.PENDING).update(state=Order.State.CLOSED, closed_at=Now())
        raise _login_needed() from None
    except PaymentError as fault:
        log.warning("payment not created", order=str(order.pk), fault=str(fault))
        raise unavailable() from None
    if (reference := payment.pop(REFERENCE, "")) and not _keep_reference(order, reference):
        raise unavailable()
    return order, payment


def notify_path(*, tenant: Tenant, account: MerchantAccount) -> str:
    """Return where the provider tells of payments to this account."""
    return f"/api/payments/{tenant.slug}/{account.channel}/{account.pk}/notify"


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
        event = settle_payment(account=account, notice=notice)
        if event.is_taken:
            _confirm_delivery(provider, order)
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


def _account_for(*, user: EndUser, tenant: Tenant, purchase: Purchase) -> tuple[MerchantAccount, Payer]:
    """Return the merchant account to pay to, and the payer as the way of paying wants to know them."""
    enabled = list(MerchantAccount.objects.filter(is_enabled=True).order_by("pk"))
    accounts = [
        account
        for account in enabled
        if account.channel == purchase.channel and not _is_for_virtual_only(tenant, account, purchase.method, enabled)
    ]
    if not accounts:
        raise ProductError(
            ErrorCode.NOT_FOUND, _("This way of paying is not offered here."), type="channel_not_found", scope="tenant"
        )
    if purchase.method not in METHODS[Channel(purchase.channel)]:
        raise ProductError(
            ErrorCode.INVALID, _("This payment provider has no such way of paying."), type="method_not_of_channel"
        )
    if purchase.method not in {Method.JSAPI, Method.VIRTUAL}:
        return accounts[0], Payer(address=purchase.address)
    known = {identity.app_id: identity for identity in WeChatIdentity.objects.filter(user=user).order_by("pk")}
    # Of several apps the one that asks is meant.
    for account in sorted(accounts, key=lambda account: account.app_id != purchase.app_id):
        if identity := known.get(account.app_id):
            return account, Payer(address=purchase.address, openid=identity.openid, session_key=identity.session_key)
    raise _login_needed()


def _fits(method: str, account: MerchantAccount, app_id: str) -> bool:
    """Whether a way of paying works where the client is: in the mini-program `app_id`, or in none."""
    if app_id:
        return method in {Method.VIRTUAL, Method.JSAPI} and account.app_id == app_id
    if method == Method.JSAPI:
        return not MiniProgram.objects.filter(app_id=account.app_id).exists()
    return method != Method.VIRTUAL


def _is_for_virtual_only(tenant: Tenant, account: MerchantAccount, method: str, enabled: list[MerchantAccount]) -> bool:
    """Whether an app has virtual payment, and the tenant did not choose ordinary WeChat Pay beside it."""
    if method != Method.JSAPI or tenant.mini_program_jsapi:
        return False
    return account.app_id in {other.app_id for other in enabled if other.channel == Channel.WECHAT_VIRTUAL}


def _is_sold_by_apple(channel: str, platform: str) -> bool:
    return channel == Channel.WECHAT_VIRTUAL and platform == "ios"


def _login_needed() -> ProductError:
    return ProductError(
        ErrorCode.INVALID,
        _("Please log in with WeChat to pay there."),
        type="wechat_login_needed",
        scope="user",
        action="login",
    )


def _confirm_delivery(provider: PaymentProvider, order: Order) -> None:
    """Tell a provider that wants to know. One that does not hear it sends its notification again."""
    if not isinstance(provider, WantsDelivery):
        return
    try:
        provider.confirm_delivery(order)
    except PaymentError as fault:
        log.warning("delivery not confirmed", order=str(order.pk), fault=str(fault))


@transaction.atomic
def _open_order(*, user: EndUser, purchase: Purchase, account: MerchantAccount, payer: Payer) -> Order:
    """Return the user's open order of this kind, or a new one. The user's row is locked: a limit counts one by one."""
    EndUser.objects.select_for_update(no_key=True).get(pk=user.pk)
    item = _item(purchase)
    _require_payable(item, purchase)
    what = {"plan" if isinstance(item, Plan) else "package": item}
    mine = Order.objects.filter(user=user, **what)
    terms = {**_terms(item), **_paid_to(account, purchase.method, payer)}
    alive = Q(state=Order.State.PENDING, expires_at__gt=Now() + timedelta(seconds=REUSE_SECONDS))
    found = mine.filter(alive, **terms).order_by("-created_at").first()
    # WeChat takes a number once, so that one whose payment was opened may be spent; but a limit leaves no other.
    if found is not None and (account.channel != Channel.WECHAT_VIRTUAL or item.limit_per_user):
        return found
    _require_below_limit(item, mine)
    return _new_order(user=user, what=what, terms=terms)


def _paid_to(account: MerchantAccount, method: str, payer: Payer) -> dict[str, Any]:
    """Return what an order copies of where it is paid, and by whom."""
    return {
        "merchant_account": account,
        "channel": account.channel,
        "method": method,
        "merchant_id": account.merchant_id,
        "app_id": account.app_id,
        "payer_openid": payer.openid,
    }


def _new_order(*, user: EndUser, what: dict[str, Any], terms: dict[str, Any]) -> Order:
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


def _require_payable(item: Package | Plan, purchase: Purchase) -> None:
    """Refuse what virtual payment would: what WeChat does not know, or one too cheap for Apple."""
    if purchase.channel != Channel.WECHAT_VIRTUAL:
        return
    if not item.virtual_product_id:
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This package cannot be paid in this way. Please choose another."),
            type="package_without_channel",
            scope="package",
        )
    if _is_sold_by_apple(purchase.channel, purchase.platform) and item.price < IOS_MINIMUM:
        raise ProductError(
            ErrorCode.INVALID,
            _("On an iPhone or iPad only packages from ¥1 can be bought. Please choose another."),
            type="ios_minimum",
            scope="package",
            minimum=str(IOS_MINIMUM),
        )


def _keep_reference(order: Order, reference: str) -> bool:
    """Keep the provider's name of an order; False if it has another: that one may be in a payer's hands already."""
    same = Order.objects.filter(pk=order.pk, provider_ref__in=["", reference])
    return same.update(provider_ref=reference) == 1


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
    # Before the ledger: it locks what comes before the users' accounts.
    rewards.vest_invitation(tenant_id=order.tenant_id, invitee_id=order.user_id, ref=str(order.pk))
    if order.plan_id is not None:
        plans.begin(order=order)
        return
    if order.bonus:
        _lock_accounts(order)
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


def _lock_accounts(order: Order) -> None:
    """Lock what balance and bonus move, in the ledger's order: they are two transfers."""
    tenant_id = order.tenant_id
    channels = [order.clearing_channel, ledger.GIFT]
    if order.credits > order.price:
        channels.append(ledger.DISCOUNT)
    accounts = [ledger.clearing_account(tenant_id=tenant_id, channel=channel) for channel in sorted(channels)]
    if order.credits < order.price:
        accounts.append(ledger.tenant_accounts(tenant_id=tenant_id).revenue)
    ledger.lock_in_order(accounts=[*ledger.lock_user_accounts(tenant_id=tenant_id, user_id=order.user_id), *accounts])


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
