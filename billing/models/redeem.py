"""Redeem codes: what a tenant prints on cards, sells or gives away, and its users turn into balance."""

from typing import TYPE_CHECKING, ClassVar, Final

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from billing.codes import grouped
from tenants.scope import SameTenant, TenantOwned
from tenants.secrets import EncryptedTextField

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

MAX_COUNT: Final = 10_000
MAX_CODE_AMOUNT: Final = 100_000 * 1_000_000  # ¥100,000: more on one code is a typing mistake


class RedeemBatch(TenantOwned):
    """Codes made together, each worth the same. Nothing of it changes but that it may be revoked."""

    class Kind(models.TextChoices):
        """Which balance a code fills."""

        CASH = "cash", _("balance")
        GIFT = "gift", _("gift balance")

    name = models.CharField(_("name"), max_length=100)
    amount = models.BigIntegerField(_("amount of each code, micro-yuan"))
    kind = models.CharField(_("fills the"), max_length=4, choices=Kind.choices, default=Kind.CASH)
    count = models.IntegerField(_("number of codes"), validators=[MinValueValidator(1), MaxValueValidator(MAX_COUNT)])
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True, help_text=_("Empty: never."))
    per_user_limit = models.IntegerField(
        _("codes per user"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("How many codes of this batch one user may redeem. Empty: any number."),
    )
    created_by = models.CharField(_("created by"), max_length=160, editable=False)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True, editable=False)

    if TYPE_CHECKING:
        codes: RelatedManager["RedeemCode"]

    class Meta(TenantOwned.Meta):
        verbose_name = _("batch of redeem codes")
        verbose_name_plural = _("batches of redeem codes")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(condition=Q(kind__in=["cash", "gift"]), name="billing_redeembatch_kind"),
            models.CheckConstraint(
                condition=Q(amount__gte=1, amount__lte=MAX_CODE_AMOUNT), name="billing_redeembatch_amount"
            ),
            models.CheckConstraint(condition=Q(count__gte=1, count__lte=MAX_COUNT), name="billing_redeembatch_count"),
            models.CheckConstraint(
                condition=Q(per_user_limit__isnull=True) | Q(per_user_limit__gte=1), name="billing_redeembatch_limit"
            ),
        ]


class RedeemCode(TenantOwned):
    """One code: worth its batch's amount, once. A trigger keeps who redeemed it, and when, as they were written."""

    batch = models.ForeignKey(
        RedeemBatch,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="codes",
        verbose_name=_("batch"),
    )
    code = EncryptedTextField(_("code"), editable=False)
    digest = models.CharField(_("digest"), max_length=64, editable=False)
    redeemed_by = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("redeemed by"),
    )
    redeemed_at = models.DateTimeField(_("redeemed at"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("redeem code")
        verbose_name_plural = _("redeem codes")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="batch", name="billing_redeemcode_batch_fk"),
            SameTenant(field="redeemed_by", name="billing_redeemcode_user_fk"),
            models.UniqueConstraint(fields=["tenant", "digest"], name="billing_redeemcode_digest"),
            models.CheckConstraint(condition=Q(digest__regex=r"^[0-9a-f]{64}$"), name="billing_redeemcode_hashed"),
            models.CheckConstraint(
                condition=Q(redeemed_at__isnull=True, redeemed_by__isnull=True)
                | Q(redeemed_at__isnull=False, redeemed_by__isnull=False, revoked_at__isnull=True),
                name="billing_redeemcode_state",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "batch", "redeemed_by"], name="billing_redeemcode_batch"),
            models.Index(fields=["tenant", "redeemed_by"], name="billing_redeemcode_user"),
        ]

    @property
    def written(self) -> str:
        """The code as people are shown it. Only its buyer should be."""
        return grouped(self.code)

    @property
    def ending(self) -> str:
        """What tells codes apart without giving one away."""
        return f"…{self.code[-4:]}"
