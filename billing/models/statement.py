"""Monthly statements of tenants and resellers. Written once, by `billing.statements`."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from tenants.scope import TenantOrPlatformOwned


class Statement(TenantOrPlatformOwned):
    """A month of one tenant, or (without a tenant) of one reseller. A trigger refuses every change.

    `figures` is what `billing.statements.Figures` holds, as JSON, with the `period` that they are of; amounts in
    micro-yuan.
    """

    reseller = models.ForeignKey(
        "tenants.Reseller",
        on_delete=models.PROTECT,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller"),
    )
    month = models.DateField(_("first day of the month"))
    number = models.CharField(_("number"), max_length=60)
    figures = models.JSONField(_("figures"))
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("monthly statement")
        verbose_name_plural = _("monthly statements")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["tenant", "reseller", "month"], nulls_distinct=False, name="billing_statement_month"
            ),
            models.CheckConstraint(
                condition=Q(tenant__isnull=False, reseller__isnull=True)
                | Q(tenant__isnull=True, reseller__isnull=False),
                name="billing_statement_owner",
            ),
            models.CheckConstraint(condition=Q(month__day=1), name="billing_statement_first_day"),
        ]
