"""A payment of ¥0.01 that a person makes to try a tenant's merchant account, and that is paid back to them at once.

start      an order of ¥0.01 and what the person pays it with
go_on      ask the provider: pay back what was paid; say how it stands

The order is the tenant's like any other, of the checklist's own user and of a package that is not on sale.
"""

from dataclasses import dataclass
from typing import Final, Literal

import structlog
from uuid_utils.compat import uuid7

from billing import ledger, recharge, refund
from billing.models import Channel, MerchantAccount, Method, Order, Package, Refund
from billing.models.recharge import FEN
from billing.payments.provider import PaymentError
from lifecycle.addresses import main_host
from tenants import scope
from tenants.models import EndUser, Tenant

log = structlog.get_logger(__name__)

PACKAGE: Final = "checklist"
USERNAME: Final = "checklist"
ACTOR: Final = "checklist"
# The ways that a person at a desk can pay without being a user; Stripe takes no payment as small as that.
_WAYS: Final = {Channel.WECHAT: Method.NATIVE, Channel.ALIPAY: Method.PAGE}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the payment stands; `link` is what it is paid with, a page to open or a code to scan."""

    state: Literal["none", "open", "paid", "returned", "failed"]
    link: str = ""


def is_possible(*, tenant_id: int) -> bool:
    """Return whether the tenant has a merchant account that takes ¥0.01 from a desk."""
    return _account(tenant_id) is not None


def start(*, tenant: Tenant, address: str) -> Standing:
    """Make an order of ¥0.01 at the tenant's merchant account; raise ProductError as `recharge.try_payment`."""
    account = _account(tenant.pk)
    if account is None:
        return Standing(state="none")
    with scope.tenant(tenant.pk):
        package, _made = Package.objects.get_or_create(
            tenant=tenant,
            slug=PACKAGE,
            defaults={"name": "¥0.01", "price": FEN, "credits": FEN, "is_enabled": False},
        )
        _order, payment = recharge.try_payment(
            user=tester(tenant),
            package=package,
            account=account,
            method=_WAYS[Channel(account.channel)],
            address=address,
            # Providers tell by HTTPS only; where nobody hears them, the provider is asked.
            notify_base=f"https://{main_host(tenant.pk)}",
        )
    return Standing(state="open", link=payment.get("code_url") or payment.get("pay_url") or "")


def go_on(*, tenant: Tenant) -> Standing:
    """Look how the last order stands; ask for its refund once it is paid."""
    with scope.tenant(tenant.pk):
        order = Order.objects.filter(user=tester(tenant), package__slug=PACKAGE).order_by("-created_at").first()
        if order is None:
            return Standing(state="none")
        try:
            if order.state == Order.State.PENDING:
                recharge.check_order(order)
                order.refresh_from_db()
            if order.state == Order.State.PAID:
                return _pay_back(order)
        except PaymentError as fault:
            log.info("trial_payment_unknown", order=str(order.pk), fault=str(fault))
    return Standing(state="open" if order.state == Order.State.PENDING else "none")


def tester(tenant: Tenant) -> EndUser:
    """Return the tenant's user that the checklist chats and pays as; in its scope. Nobody can log in as it."""
    user, _made = EndUser.objects.get_or_create(
        tenant=tenant, username=USERNAME, defaults={"nickname": "Checklist", "is_guest": False}
    )
    return user


def afford(*, tenant: Tenant, amount: int) -> None:
    """Give the checklist's user gift balance up to `amount` micro-yuan; in the tenant's scope."""
    user = tester(tenant)
    missing = amount - ledger.balances(tenant_id=tenant.pk, user_id=user.pk).available
    if missing > 0:
        ledger.credit_user(
            tenant_id=tenant.pk,
            user_id=user.pk,
            amount=missing,
            kind="gift",
            ref=f"checklist:{uuid7().hex}",
            reason="checklist",
            actor=ACTOR,
        )


def _account(tenant_id: int) -> MerchantAccount | None:
    with scope.tenant(tenant_id):
        rows = MerchantAccount.objects.filter(is_enabled=True, channel__in=list(_WAYS))
        return rows.order_by("pk").first()


def _pay_back(order: Order) -> Standing:
    made = Refund.objects.filter(order=order).order_by("-created_at").first()
    if made is None:
        made = refund.request_refund(
            tenant_id=order.tenant_id,
            order_id=order.pk,
            amount=FEN,
            kind="provider",
            reason="checklist",
            actor=ACTOR,
            number=order.pk,  # whoever looks at the same time asks for the same refund
        )
    elif made.state == Refund.State.REQUESTED:
        refund.check_refund(made)
    made.refresh_from_db()
    if made.state == Refund.State.DONE:
        return Standing(state="returned")
    return Standing(state="failed" if made.state == Refund.State.FAILED else "paid")
