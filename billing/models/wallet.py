"""Around the wholesale wallets: who says to have paid something in, and when to tell that one runs low.

Amounts are whole micro-yuan. A row is of one tenant's wallet, or, without a tenant, of one reseller's.
`billing.wallet` is the only writer.
"""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from tenants.models import Reseller, StaffUser
from tenants.scope import TenantOrPlatformOwned

_ONE_OWNER = Q(tenant__isnull=False, reseller__isnull=True) | Q(tenant__isnull=True, reseller__isnull=False)


class WalletTopUp(TenantOrPlatformOwned):
    """Someone says to have sent money by bank: the operator looks for it, then confirms or rejects."""

    class State(models.TextChoices):
        """A request ends in one of the last two, once."""

        REQUESTED = "requested", _("requested")
        CONFIRMED = "confirmed", _("confirmed")
        REJECTED = "rejected", _("rejected")

    reseller = models.ForeignKey(
        Reseller,
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller"),
        help_text=_("Whose wallet it is where it is not a tenant's."),
    )
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    bank_reference = models.CharField(
        _("reference of the bank transfer"),
        max_length=80,
        help_text=_("As the bank prints it, with the day, so that nobody else's looks the same."),
    )
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.REQUESTED)
    requested_by = models.ForeignKey(
        StaffUser, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("requested by")
    )
    decided_by = models.ForeignKey(
        StaffUser,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("decided by"),
    )
    note = models.CharField(_("note"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("wallet top-up")
        verbose_name_plural = _("wallet top-ups")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.CheckConstraint(condition=_ONE_OWNER, name="billing_wallettopup_owner"),
            models.CheckConstraint(
                condition=Q(amount__gt=0) & ~Q(bank_reference=""), name="billing_wallettopup_amount"
            ),
            models.CheckConstraint(
                condition=Q(decided_by__isnull=True) | ~Q(decided_by=F("requested_by")),
                name="billing_wallettopup_four_eyes",
            ),
            models.CheckConstraint(
                condition=Q(state="requested", decided_by__isnull=True, decided_at__isnull=True)
                | Q(state__in=["confirmed", "rejected"], decided_by__isnull=False, decided_at__isnull=False),
                name="billing_wallettopup_state",
            ),
            # Not by tenant: one bank transfer fills one wallet, whoever claims it.
            models.UniqueConstraint(
                fields=["bank_reference"], condition=Q(state="confirmed"), name="billing_wallettopup_paid_once"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "-created_at"], name="billing_wallettopup_recent")]


class WalletNotice(TenantOrPlatformOwned):
    """Below which balance of a wallet its people are told by mail: once, until it was filled above it again."""

    reseller = models.ForeignKey(
        Reseller,
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller"),
        help_text=_("Whose wallet it is where it is not a tenant's."),
    )
    threshold = models.BigIntegerField(_("told below, micro-yuan"))
    notified_at = models.DateTimeField(_("told at"), null=True, blank=True, editable=False)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("notice of a low wallet")
        verbose_name_plural = _("notices of low wallets")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["tenant", "reseller"], nulls_distinct=False, name="billing_walletnotice_one_each"
            ),
            models.CheckConstraint(condition=_ONE_OWNER, name="billing_walletnotice_owner"),
            models.CheckConstraint(condition=Q(threshold__gt=0), name="billing_walletnotice_threshold"),
        ]
