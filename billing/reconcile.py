"""Comparing the books with the providers' daily bills, which is how a payment that nobody told of is found at last.

    reconcile      fetch one account's bill of a day, settle what it shows as paid and the books do not, and keep it
    reconcile_all  the same for every account and each day of the last week that has no bill yet

The verdict is invariant I11 of `billing.audit`, which looks at what is kept here.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from billing import recharge
from billing.models import Bill, BillLine, MerchantAccount, Order, Refund
from billing.payments import provider_of
from billing.payments.provider import BillLine as ProvidersLine
from billing.payments.provider import PaymentError
from tenants import scope

log = structlog.get_logger(__name__)

# Providers close their day by China's clock, and give a bill out in the next day's morning.
ZONE: Final = ZoneInfo("Asia/Shanghai")
LOOK_BACK_DAYS: Final = 7


def reconcile(*, account: MerchantAccount, day: date) -> Bill:
    """Fetch a bill and keep it in place of an earlier one of that day; in the account's tenant's scope.

    Raises PaymentError where the provider does not help. Outside of transactions.
    """
    lines = provider_of(account).bill(day)
    orders = _orders(account, lines)
    _settle_unpaid(lines, orders)
    return _keep(account, day, lines, orders)


def reconcile_all(*, today: date | None = None) -> int:
    """Fetch every bill of the last week that is missing, of all tenants; return how many came."""
    today = today or timezone.now().astimezone(ZONE).date()
    with scope.platform("bills of every tenant's merchant accounts"):
        accounts = list(MerchantAccount.objects.filter(is_enabled=True).order_by("pk"))
    fetched = 0
    for account in accounts:
        with scope.tenant(account.tenant_id):
            for day in _missing(account, today):
                try:
                    reconcile(account=account, day=day)
                except PaymentError as fault:
                    log.warning("bill_not_fetched", account=account.pk, day=str(day), fault=str(fault))
                    break
                fetched += 1
    return fetched


def _missing(account: MerchantAccount, today: date) -> list[date]:
    """Return the days of the last week, from the account's first on, of which there is no bill."""
    first = max(today - timedelta(days=LOOK_BACK_DAYS), account.created_at.astimezone(ZONE).date())
    days = [first + timedelta(days=number) for number in range((today - first).days)]
    known = set(Bill.objects.filter(merchant_account=account, day__in=days).values_list("day", flat=True))
    return [day for day in days if day not in known]


def _orders(account: MerchantAccount, lines: Sequence[ProvidersLine]) -> dict[str, Order]:
    """Return the account's orders that the lines name, by number."""
    wanted = {line.out_trade_no for line in lines}
    named = Order.objects.select_related("merchant_account").filter(merchant_account=account, out_trade_no__in=wanted)
    return {order.out_trade_no: order for order in named}


def _settle_unpaid(lines: Sequence[ProvidersLine], orders: dict[str, Order]) -> None:
    """Ask the provider for orders that it billed and that are not paid here: its signed word settles them."""
    for line in lines:
        order = orders.get(line.out_trade_no)
        if order is None or line.amount <= 0 or order.state == Order.State.PAID:
            continue
        log.error("payment_found_in_bill", order=str(order.pk))
        recharge.check_order(order)


def _keep(account: MerchantAccount, day: date, lines: Sequence[ProvidersLine], orders: dict[str, Order]) -> Bill:
    """Write the bill and its lines in place of those that were fetched before."""
    ours = [line for line in lines if line.out_trade_no in orders]
    figures = {
        "collected": sum(line.amount for line in lines if line.amount > 0),
        "refunded": -sum(line.amount for line in lines if line.amount < 0),
        "not_ours": len(lines) - len(ours),
        "fetched_at": Now(),
    }
    with transaction.atomic():
        key = {"tenant_id": account.tenant_id, "merchant_account": account, "day": day}
        bill, made = Bill.objects.select_for_update().get_or_create(**key, defaults=figures)
        if not made:
            Bill.objects.filter(pk=bill.pk).update(**figures)
            BillLine.objects.filter(bill=bill).delete()
        refunds = _Refunds(list(orders.values()))
        BillLine.objects.bulk_create(
            BillLine(
                tenant_id=account.tenant_id,
                bill=bill,
                order=orders[line.out_trade_no],
                refund=refunds.named_by(line) if line.amount < 0 else None,
                transaction_id=line.transaction_id,
                amount=line.amount,
            )
            for line in ours
        )
    return Bill.objects.get(pk=bill.pk)


class _Refunds:
    """The refunds of some orders, each to be found once: forced ones have no number of ours."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self._left = list(Refund.objects.select_related("order").filter(order__in=orders).order_by("pk"))

    def named_by(self, line: ProvidersLine) -> Refund | None:
        """Return the refund that a line tells of."""
        for refund in self._left:
            fits = refund.order.out_trade_no == line.out_trade_no and refund.amount == -line.amount
            named = refund.out_refund_no == line.out_refund_no
            if named or (fits and refund.kind == Refund.Kind.FORCED):
                self._left.remove(refund)
                return refund
        return None
