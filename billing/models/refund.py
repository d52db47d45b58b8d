"""Refunds of orders: what went back to the payer, and what was taken back of the balance for it.

Amounts are whole micro-yuan. `billing.refund` is the only writer.
"""

from typing import ClassVar, Final

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing.models.recharge import FEN, Order
from tenants.scope import SameTenant, TenantOwned


class Refund(TenantOwned):
    """A part or all of what was paid for an order, on its way back.

    `credits_back` and `bonus_back` are what the refund is worth in balance and gift balance; `shortfall` is what of
    both the user had spent already, where the refund could not be refused. Triggers keep all of it, and how it ended,
    and let no order be refunded beyond its price.
    """

    class Kind(models.TextChoices):
        """Who pays it back."""

        PROVIDER = "provider", _("by the payment provider")
        MANUAL = "manual", _("by hand")
        FORCED = "forced", _("forced by the provider")

    class State(models.TextChoices):
        """A refund ends in one of the last two, once."""

        REQUESTED = "requested", _("requested")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    order = models.ForeignKey(
        Order,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="refunds",
        verbose_name=_("order"),
    )
    out_refund_no = models.CharField(_("refund number"), max_length=64)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    credits_back = models.BigIntegerField(_("of the balance, micro-yuan"), default=0)
    bonus_back = models.BigIntegerField(_("of the gift balance, micro-yuan"), default=0)
    shortfall = models.BigIntegerField(_("spent before, micro-yuan"), default=0)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.REQUESTED)
    reason = models.CharField(_("reason"), max_length=80)
    requested_by = models.CharField(_("requested by"), max_length=160)
    refund_id = models.CharField(_("provider's number"), max_length=64, blank=True, default="")
    failure = models.CharField(_("why it failed"), max_length=80, blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    next_poll_at = models.DateTimeField(_("asked for next"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("refund")
        verbose_name_plural = _("refunds")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="order", name="billing_refund_order_fk"),
            models.UniqueConstraint(fields=["tenant", "out_refund_no"], name="billing_refund_number"),
            # What a provider tells of twice is one refund.
            models.UniqueConstraint(
                fields=["tenant", "order", "refund_id"], condition=~Q(refund_id=""), name="billing_refund_once"
            ),
            models.CheckConstraint(
                condition=Q(amount__gte=FEN, credits_back__gte=0, bonus_back__gte=0, shortfall__gte=0)
                & Q(shortfall__lte=F("credits_back") + F("bonus_back")),
                name="billing_refund_amounts",
            ),
            models.CheckConstraint(
                condition=Q(state="requested", ended_at__isnull=True)
                | Q(state__in=["done", "failed"], ended_at__isnull=False),
                name="billing_refund_state",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "order"], name="billing_refund_order"),
            # For the sweep over all tenants; as small as what is under way.
            models.Index(fields=["next_poll_at"], condition=Q(state="requested"), name="billing_refund_open"),
        ]

    @property
    def clearing_channel(self) -> str:
        """The clearing account that the money leaves: the merchant's, which the provider's bill is compared with.

        What was paid by hand is on no provider's bill.
        """
        return MANUAL_CHANNEL if self.kind == self.Kind.MANUAL else self.order.clearing_channel


MANUAL_CHANNEL: Final = "manual"
