"""What resellers earn: the terms, the commissions, what was taken back of them, and how they are paid out.

Amounts are whole micro-yuan, shares are millionths (ppm). `billing.commission_terms`, `billing.commission` and
`billing.withdrawal` are the only writers. Rows without a tenant are the operator's business and the reseller's.
"""

from typing import ClassVar, Final

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing.models.hold import Hold
from tenants.models import Reseller, StaffUser
from tenants.scope import SameTenant, TenantOwned
from tenants.secrets import EncryptedTextField

WHOLE_PPM: Final = 1_000_000
MAX_FREEZE_DAYS: Final = 365
# ¥100, so that a bank's fee does not eat a payout.
MIN_WITHDRAWAL: Final = 100 * 1_000_000


class CommissionTerms(models.Model):
    """What a reseller gets, from `effective_at` until a later version's. Never changed: a hold pins both shares.

    `own_ppm` is its share of what its own tenants pay for their answers, `parent_ppm` that of what the tenants of its
    children pay; both of the wholesale charge.
    """

    reseller = models.ForeignKey(
        Reseller, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("reseller")
    )
    own_ppm = models.IntegerField(_("share of its own tenants' wholesale, millionths"))
    parent_ppm = models.IntegerField(_("share of its children's tenants' wholesale, millionths"), default=0)
    freeze_days = models.IntegerField(_("days that a commission is frozen"), default=7)
    min_withdrawal = models.BigIntegerField(_("smallest withdrawal, micro-yuan"), default=MIN_WITHDRAWAL)
    withdrawal_fee_ppm = models.IntegerField(_("fee of a withdrawal, millionths"), default=0)
    effective_at = models.DateTimeField(_("effective from"))
    created_at = models.DateTimeField(_("created"))
    created_by = models.CharField(_("by"), max_length=160)

    class Meta:
        verbose_name = _("commission terms")
        verbose_name_plural = _("commission terms")
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(own_ppm__gte=0, own_ppm__lte=WHOLE_PPM)
                & Q(parent_ppm__gte=0, parent_ppm__lte=WHOLE_PPM)
                & Q(withdrawal_fee_ppm__gte=0, withdrawal_fee_ppm__lt=WHOLE_PPM),
                name="billing_terms_shares",
            ),
            models.CheckConstraint(
                condition=Q(freeze_days__gte=0, freeze_days__lte=MAX_FREEZE_DAYS, min_withdrawal__gte=1),
                name="billing_terms_bounds",
            ),
            models.CheckConstraint(
                condition=Q(effective_at__gte=F("created_at")), name="billing_terms_never_backdated"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["reseller", "-effective_at", "-id"], name="billing_terms_current"),
        ]

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"


class Commission(TenantOwned):
    """What one tenant's answers of a day earned one reseller: frozen, then set free. The operator's rows.

    Of `amount`, `netted` went to what the reseller owed, and `taken_back` was taken back while it was frozen.
    """

    class State(models.TextChoices):
        """A disputed commission stays frozen past its day."""

        FROZEN = "frozen", _("frozen")
        DISPUTED = "disputed", _("held back")
        RELEASED = "released", _("set free")

    class Level(models.IntegerChoices):
        """How the reseller is related to the tenant."""

        OWN = 1, _("own tenant")
        CHILD = 2, _("child's tenant")

    reseller = models.ForeignKey(
        Reseller, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("reseller")
    )
    day = models.DateField(_("earned on"))
    level = models.PositiveSmallIntegerField(_("level"), choices=Level.choices)
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    netted = models.BigIntegerField(_("of it netted with what was owed, micro-yuan"), default=0)
    taken_back = models.BigIntegerField(_("of it taken back, micro-yuan"), default=0)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.FROZEN)
    release_at = models.DateTimeField(_("frozen until"))
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    released_at = models.DateTimeField(_("set free at"), null=True, blank=True)
    disputed_by = models.CharField(_("held back by"), max_length=160, blank=True, default="")
    dispute = models.CharField(_("why it is held back"), max_length=200, blank=True, default="")

    class Meta(TenantOwned.Meta):
        verbose_name = _("commission")
        verbose_name_plural = _("commissions")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "reseller", "day"], name="billing_commission_once"),
            models.CheckConstraint(condition=Q(level__in=[1, 2]), name="billing_commission_level"),
            models.CheckConstraint(
                condition=Q(amount__gt=0, netted__gte=0, taken_back__gte=0)
                & Q(amount__gte=F("netted") + F("taken_back")),
                name="billing_commission_amounts",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["frozen", "disputed"], released_at__isnull=True)
                | Q(state="released", released_at__isnull=False),
                name="billing_commission_state",
            ),
        ]
        indexes: ClassVar = [
            # Both are for the platform's sweeps, and stay as small as what is frozen.
            models.Index(fields=["release_at"], condition=Q(state="frozen"), name="billing_commission_frozen"),
            models.Index(
                fields=["reseller"], condition=Q(state__in=["frozen", "disputed"]), name="billing_commission_open"
            ),
        ]

    @property
    def frozen(self) -> int:
        """What is, or was, set free of it, micro-yuan."""
        return self.amount - self.netted - self.taken_back


class ConsumptionBack(TenantOwned):
    """How much of one answer's charge a refund gave back, and what that takes of the resellers' shares of it.

    `ref` names the refund. Only ever added, like the ledger's rows: over all refunds an answer is given back once.
    """

    hold = models.ForeignKey(
        Hold,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="given_back",
        verbose_name=_("hold"),
    )
    ref = models.CharField(_("reference"), max_length=120)
    spent = models.BigIntegerField(_("charge given back, micro-yuan"))
    own_back = models.BigIntegerField(_("of the reseller's share, micro-yuan"), default=0)
    parent_back = models.BigIntegerField(_("of its parent's share, micro-yuan"), default=0)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("consumption given back")
        verbose_name_plural = _("consumption given back")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="hold", name="billing_consumptionback_hold_fk"),
            models.UniqueConstraint(fields=["tenant", "hold", "ref"], name="billing_consumptionback_once"),
            models.CheckConstraint(
                condition=Q(spent__gt=0, own_back__gte=0, parent_back__gte=0), name="billing_consumptionback_amounts"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "ref"], name="billing_consumptionback_ref")]


class CommissionBack(TenantOwned):
    """What one refund takes back from one reseller: written within the refund, posted by the platform's sweep.

    An outbox, since a refund runs in its tenant's scope, which does not reach a reseller's accounts.
    """

    reseller = models.ForeignKey(
        Reseller, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("reseller")
    )
    ref = models.CharField(_("reference"), max_length=120)
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    actor = models.CharField(_("by"), max_length=120)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    posted_at = models.DateTimeField(_("posted"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("commission to take back")
        verbose_name_plural = _("commissions to take back")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "ref", "reseller"], name="billing_commissionback_once"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="billing_commissionback_amount"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["id"], condition=Q(posted_at__isnull=True), name="billing_commissionback_outbox"),
        ]


class PayoutBatch(models.Model):
    """Withdrawals that are paid out together, by one file for the bank."""

    created_by = models.CharField(_("by"), max_length=160)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    sent_by = models.CharField(_("sent by"), max_length=160, blank=True, default="")
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)

    class Meta:
        verbose_name = _("payout batch")
        verbose_name_plural = _("payout batches")

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"


class Withdrawal(models.Model):
    """A reseller takes commission out: `amount` leaves its balance, `fee` of it stays with the platform.

    Whoever asks is the maker, whoever decides the checker, and they are two people.
    """

    class State(models.TextChoices):
        """A withdrawal ends in one of the last three, once; in the last two the amount is returned."""

        REQUESTED = "requested", _("requested")
        APPROVED = "approved", _("approved")
        SENT = "sent", _("sent")
        PAID = "paid", _("paid")
        FAILED = "failed", _("failed")
        REJECTED = "rejected", _("rejected")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    reseller = models.ForeignKey(
        Reseller, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("reseller")
    )
    amount = models.BigIntegerField(_("amount, micro-yuan"))
    fee = models.BigIntegerField(_("of it the fee, micro-yuan"))
    payee = EncryptedTextField(_("payee"))
    bank = EncryptedTextField(_("bank"))
    bank_account = EncryptedTextField(_("account number"))
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.REQUESTED)
    maker = models.ForeignKey(
        StaffUser, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("asked for by")
    )
    checker = models.ForeignKey(
        StaffUser,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("decided by"),
    )
    batch = models.ForeignKey(
        PayoutBatch,
        on_delete=models.PROTECT,
        related_name="withdrawals",
        null=True,
        blank=True,
        verbose_name=_("payout batch"),
    )
    note = models.CharField(_("note"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    class Meta:
        verbose_name = _("withdrawal")
        verbose_name_plural = _("withdrawals")
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(amount__gt=0, fee__gte=0) & Q(amount__gt=F("fee")), name="billing_withdrawal_amounts"
            ),
            models.CheckConstraint(
                condition=Q(checker__isnull=True) | ~Q(checker=F("maker")), name="billing_withdrawal_four_eyes"
            ),
            models.CheckConstraint(
                condition=Q(state="requested", checker__isnull=True, decided_at__isnull=True, batch__isnull=True)
                | Q(state="rejected", batch__isnull=True, checker__isnull=False, decided_at__isnull=False)
                | Q(state="approved", checker__isnull=False, decided_at__isnull=False)
                | Q(
                    state__in=["sent", "paid", "failed"],
                    checker__isnull=False,
                    decided_at__isnull=False,
                    batch__isnull=False,
                ),
                name="billing_withdrawal_decided",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["requested", "approved", "sent"], ended_at__isnull=True)
                | Q(state__in=["paid", "failed", "rejected"], ended_at__isnull=False),
                name="billing_withdrawal_end",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["reseller", "-created_at"], name="billing_withdrawal_recent")]

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"

    @property
    def payout(self) -> int:
        """What the payee gets, micro-yuan."""
        return self.amount - self.fee
