"""Payment providers' daily bills: what they say they collected and paid back, against what the books say.

Amounts are whole micro-yuan. `billing.reconcile` is the only writer.
"""

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from billing.models.recharge import MerchantAccount, Order
from billing.models.refund import Refund
from tenants.scope import SameTenant, TenantOwned


class Bill(TenantOwned):
    """A provider's bill of one merchant account and day, which is China's; fetched anew at will."""

    merchant_account = models.ForeignKey(
        MerchantAccount,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("merchant account"),
    )
    day = models.DateField(_("day"))
    collected = models.BigIntegerField(_("collected, micro-yuan"), default=0)
    refunded = models.BigIntegerField(_("paid back, micro-yuan"), default=0)
    not_ours = models.IntegerField(_("lines of no order here"), default=0)
    fetched_at = models.DateTimeField(_("fetched"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("provider's bill")
        verbose_name_plural = _("providers' bills")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="merchant_account", name="billing_bill_merchant_fk"),
            models.UniqueConstraint(fields=["tenant", "merchant_account", "day"], name="billing_bill_day"),
        ]


class BillLine(TenantOwned):
    """A line of a bill that names one of our orders: a payment (above 0) or a refund (below 0)."""

    bill = models.ForeignKey(
        Bill,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="lines",
        verbose_name=_("provider's bill"),
    )
    order = models.ForeignKey(
        Order,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("order"),
    )
    refund = models.ForeignKey(
        Refund,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("refund"),
    )
    transaction_id = models.CharField(_("provider's number"), max_length=64)
    amount = models.BigIntegerField(_("amount, micro-yuan"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("line of a bill")
        verbose_name_plural = _("lines of bills")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="bill", name="billing_billline_bill_fk"),
            SameTenant(field="order", name="billing_billline_order_fk"),
            SameTenant(field="refund", name="billing_billline_refund_fk"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "bill"], name="billing_billline_bill"),
            models.Index(fields=["tenant", "order"], name="billing_billline_order"),
        ]
