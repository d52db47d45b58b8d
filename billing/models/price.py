"""The price list: immutable versions of what one unit of a sku costs."""

from typing import ClassVar, Final

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from tenants.scope import TenantOrPlatformOwned

# Bounds that keep every possible charge far inside a 64-bit integer: 10⁸ tokens at the highest rates and multiplier
# come to 3·10¹⁶ micro-yuan.
MAX_TOKENS: Final = 10**8
MAX_RATE: Final = 10**12
MAX_PER_CALL: Final = 10**12
MAX_MULTIPLIER_PPM: Final = 10**8


def _between(field: str, low: int, high: int) -> Q:
    return Q(**{f"{field}__gte": low, f"{field}__lte": high})


class PriceVersion(TenantOrPlatformOwned):
    """A price from `effective_at` until a later version's. Never changed: a hold pins the versions that it was made by.

    Rates are micro-yuan per million tokens, `per_call` micro-yuan, the multiplier (of the rates alone) in millionths.
    """

    class Level(models.TextChoices):
        """Who pays whom."""

        COST = "cost", _("cost: platform to provider")
        WHOLESALE = "wholesale", _("wholesale: tenant to platform")
        RETAIL = "retail", _("retail: user to tenant")

    level = models.CharField(_("level"), max_length=10, choices=Level.choices)
    reseller = models.ForeignKey(
        "tenants.Reseller",
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        help_text=_("Wholesale only: whose tenants pay this price. Empty: every tenant without a price of its own."),
        verbose_name=_("reseller"),
    )
    sku = models.CharField(_("price list item"), max_length=80)
    prompt_rate = models.BigIntegerField(_("prompt, micro-yuan per million tokens"))
    cached_rate = models.BigIntegerField(_("cached prompt, micro-yuan per million tokens"))
    completion_rate = models.BigIntegerField(_("completion, micro-yuan per million tokens"))
    per_call = models.BigIntegerField(_("per call, micro-yuan"), default=0)
    multiplier_ppm = models.BigIntegerField(_("multiplier, millionths"), default=1_000_000)
    effective_at = models.DateTimeField(_("effective from"))
    created_at = models.DateTimeField(_("created"))
    created_by = models.CharField(_("by"), max_length=120)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("price version")
        verbose_name_plural = _("price versions")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.CheckConstraint(
                condition=Q(level="cost", tenant__isnull=True, reseller__isnull=True)
                | Q(level="wholesale", tenant__isnull=True)
                | Q(level="retail", tenant__isnull=False, reseller__isnull=True),
                name="billing_price_owner",
            ),
            models.CheckConstraint(
                condition=_between("prompt_rate", 0, MAX_RATE)
                & _between("cached_rate", 0, MAX_RATE)
                & _between("completion_rate", 0, MAX_RATE)
                & _between("per_call", 0, MAX_PER_CALL)
                & _between("multiplier_ppm", 0, MAX_MULTIPLIER_PPM),
                name="billing_price_bounds",
            ),
            # A hold reckons with an uncached prompt; a dearer cached one would break through it.
            models.CheckConstraint(condition=Q(cached_rate__lte=F("prompt_rate")), name="billing_price_cached"),
            models.CheckConstraint(
                condition=Q(effective_at__gte=F("created_at")), name="billing_price_never_backdated"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["tenant", "sku", "level", "reseller", "-effective_at", "-id"], name="billing_price_current"
            ),
        ]
