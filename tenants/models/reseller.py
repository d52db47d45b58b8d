"""Resellers, in at most two levels."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _


class Reseller(models.Model):
    """Someone who opens tenants and sells to them, below the operator or below another reseller.

    Depth is at most 2 (docs/money.md, "Resale"): a CHECK holds depth and parent together, and a trigger of migration
    0001 refuses a parent that is not of depth 1.
    """

    slug = models.SlugField(_("slug"), max_length=40, unique=True)
    name = models.CharField(_("name"), max_length=80)
    parent = models.ForeignKey(
        "self", verbose_name=_("parent"), on_delete=models.PROTECT, null=True, blank=True, related_name="children"
    )
    depth = models.PositiveSmallIntegerField(_("depth"), choices=[(1, "1"), (2, "2")], default=1)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("reseller")
        verbose_name_plural = _("resellers")
        constraints: ClassVar[list[BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(depth=1, parent__isnull=True) | Q(depth=2, parent__isnull=False),
                name="tenants_reseller_depth",
                violation_error_message=_("A reseller without a parent has depth 1, one with a parent depth 2."),
            ),
            models.CheckConstraint(
                condition=Q(parent__isnull=True) | ~Q(parent=F("id")), name="tenants_reseller_not_own_parent"
            ),
        ]

    def __str__(self) -> str:
        return self.slug
