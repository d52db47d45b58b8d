"""Free answers: how many there are, and how many of them are used."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from tenants.scope import SameTenant, TenantOwned


class FreeQuota(TenantOwned):
    """What a tenant gives away of a quota group: so many answers a day to a user, so many in all to a guest."""

    quota_group = models.CharField(_("quota group"), max_length=40, default="default")
    per_day = models.PositiveIntegerField(_("free answers per user and day"), default=0)
    guest_allowance = models.PositiveIntegerField(
        _("free answers per guest, in all"),
        default=0,
        help_text=_("A guest who has used these up is asked to sign up."),
    )

    class Meta(TenantOwned.Meta):
        verbose_name = _("free quota")
        verbose_name_plural = _("free quotas")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["tenant", "quota_group"],
                name="billing_freequota_group",
                violation_error_message=_("This quota group has its free quota already."),
            ),
        ]


class QuotaUse(TenantOwned):
    """How many free answers of a group a user has taken on a day of the tenant's time zone.

    A guest's are counted in all, on the one day `billing.quota.IN_ALL`.
    """

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    quota_group = models.CharField(_("quota group"), max_length=40)
    date = models.DateField(_("day in the tenant's time zone"))
    used = models.IntegerField(_("used"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("free quota used")
        verbose_name_plural = _("free quota used")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_quotause_user_fk"),
            models.UniqueConstraint(fields=["tenant", "user", "quota_group", "date"], name="billing_quotause_day"),
            models.CheckConstraint(condition=Q(used__gte=0), name="billing_quotause_used"),
        ]
