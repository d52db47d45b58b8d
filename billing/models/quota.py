"""Free answers used."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from tenants.scope import SameTenant, TenantOwned


class QuotaUse(TenantOwned):
    """How many free answers of a group a user has taken on a day of the tenant's time zone."""

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
