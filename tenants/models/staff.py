"""People who log into an admin, and where they may."""

from typing import ClassVar

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.db.models.constraints import BaseConstraint
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from tenants.models.reseller import Reseller
from tenants.models.tenant import LANGUAGES
from tenants.scope import TenantOwned


class StaffUser(AbstractUser):
    """Someone who works for the operator, a reseller or a tenant; never an end user.

    Being one opens nothing: each admin asks for a membership.
    """

    language = models.CharField(_("language"), max_length=10, choices=LANGUAGES, blank=True, default="")

    class Meta:
        verbose_name = _("staff user")
        verbose_name_plural = _("staff users")

    @cached_property
    def is_operator(self) -> bool:
        """Whether the operator's admin is theirs; asked once per request, since each request loads its own user."""
        return self.is_active and (
            self.is_superuser
            or PlatformMembership.objects.filter(staff=self, role=PlatformMembership.Role.OPERATOR).exists()
        )


class Membership(TenantOwned):
    """A staff user's role in one tenant."""

    class Role(models.TextChoices):
        """What someone does for a tenant."""

        OWNER = "owner", _("owner")
        FINANCE = "finance", _("finance")
        SUPPORT = "support", _("support")
        CONTENT = "content", _("content")

    staff = models.ForeignKey(
        StaffUser, verbose_name=_("staff user"), on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "staff"], name="tenants_membership_once"),
            models.CheckConstraint(
                condition=Q(role__in=["owner", "finance", "support", "content"]), name="tenants_membership_role"
            ),
        ]


class PlatformMembership(models.Model):
    """A staff user's role above the tenants: the operator's, or a reseller's."""

    class Role(models.TextChoices):
        """What someone does for the platform."""

        OPERATOR = "operator", _("operator")
        RESELLER = "reseller", _("reseller")

    staff = models.ForeignKey(
        StaffUser, verbose_name=_("staff user"), on_delete=models.CASCADE, related_name="platform_memberships"
    )
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    reseller = models.ForeignKey(
        Reseller,
        verbose_name=_("reseller"),
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="memberships",
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("platform membership")
        verbose_name_plural = _("platform memberships")
        constraints: ClassVar[list[BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["staff", "role", "reseller"], name="tenants_platformmembership_once", nulls_distinct=False
            ),
            models.CheckConstraint(
                condition=Q(role="reseller", reseller__isnull=False) | Q(role="operator", reseller__isnull=True),
                name="tenants_platformmembership_reseller",
                violation_error_message=_("A reseller's membership names the reseller, an operator's names none."),
            ),
        ]

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"
