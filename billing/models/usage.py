"""What was used and what it came to: written by Celery from posted holds, never read to decide about money."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from billing.models.hold import Hold, UsageSource
from billing.models.price import PriceVersion
from tenants.models import Reseller
from tenants.scope import SameTenant, TenantOwned


class UsageRecord(TenantOwned):
    """One posted hold's usage, at the prices that the hold pinned. Amounts in micro-yuan."""

    hold = models.OneToOneField(
        Hold, on_delete=models.PROTECT, db_constraint=False, related_name="usage_record", verbose_name=_("hold")
    )
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    day = models.DateField(_("day in the tenant's time zone"))
    sku = models.CharField(_("price list item"), max_length=80)
    prompt_tokens = models.BigIntegerField(_("prompt tokens"))
    cached_tokens = models.BigIntegerField(_("cached tokens"))
    completion_tokens = models.BigIntegerField(_("completion tokens"))
    usage_source = models.CharField(_("counted by"), max_length=8, choices=UsageSource.choices)
    retail_price = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("retail price")
    )
    wholesale_price = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("wholesale price")
    )
    cost_price = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("cost price")
    )
    free = models.BooleanField(_("paid by a plan or the free quota"))
    charge = models.BigIntegerField(_("charge, micro-yuan"))
    wholesale_charge = models.BigIntegerField(_("wholesale charge, micro-yuan"))
    reseller = models.ForeignKey(
        Reseller,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller"),
    )
    own_share = models.BigIntegerField(_("reseller's share, micro-yuan"), default=0, db_default=0)
    parent_reseller = models.ForeignKey(
        Reseller,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller's parent"),
    )
    parent_share = models.BigIntegerField(_("parent's share, micro-yuan"), default=0, db_default=0)
    cost = models.BigIntegerField(_("platform's cost, micro-yuan"))
    created_at = models.DateTimeField(_("recorded"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("usage record")
        verbose_name_plural = _("usage records")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="hold", name="billing_usage_hold_fk"),
            SameTenant(field="user", name="billing_usage_user_fk"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "user", "day"], name="billing_usage_user_day"),
        ]


class DailyUsage(TenantOwned):
    """A day's usage records of one sku, added up. A day is the tenant's, not the server's."""

    day = models.DateField(_("day in the tenant's time zone"))
    sku = models.CharField(_("price list item"), max_length=80)
    answers = models.BigIntegerField(_("answers"), default=0)
    free_answers = models.BigIntegerField(_("of them free"), default=0)
    prompt_tokens = models.BigIntegerField(_("prompt tokens"), default=0)
    cached_tokens = models.BigIntegerField(_("cached tokens"), default=0)
    completion_tokens = models.BigIntegerField(_("completion tokens"), default=0)
    charge = models.BigIntegerField(_("charge, micro-yuan"), default=0)
    wholesale_charge = models.BigIntegerField(_("wholesale charge, micro-yuan"), default=0)
    own_share = models.BigIntegerField(_("reseller's share, micro-yuan"), default=0, db_default=0)
    parent_share = models.BigIntegerField(_("parent's share, micro-yuan"), default=0, db_default=0)
    cost = models.BigIntegerField(_("platform's cost, micro-yuan"), default=0)

    class Meta(TenantOwned.Meta):
        verbose_name = _("daily usage")
        verbose_name_plural = _("daily usage")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "day", "sku"], name="billing_dailyusage_day"),
        ]


class DailyUsers(TenantOwned):
    """How many users a day's usage records are of: what no sum of other roll-ups tells."""

    day = models.DateField(_("day in the tenant's time zone"))
    active = models.BigIntegerField(_("active users"), default=0)

    class Meta(TenantOwned.Meta):
        verbose_name = _("users of a day")
        verbose_name_plural = _("users of days")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "day"], name="billing_dailyusers_day"),
        ]
