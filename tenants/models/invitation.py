"""Invitations of staff: one-time links to a role in one tenant."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _

from tenants.models.staff import Membership, StaffUser
from tenants.scope import TenantOwned


class StaffInvitation(TenantOwned):
    """A link that makes whoever opens it a member; the database has its token's SHA-256."""

    email = models.EmailField(
        _("e-mail"), blank=True, default="", help_text=_("Empty: you are shown the link, once, to pass it on.")
    )
    role = models.CharField(_("role"), max_length=10, choices=Membership.Role.choices)
    digest = models.CharField(max_length=64, editable=False)
    invited_by = models.ForeignKey(
        StaffUser, verbose_name=_("invited by"), on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires"))
    accepted_at = models.DateTimeField(_("accepted"), null=True, editable=False)
    accepted_by = models.ForeignKey(
        StaffUser, verbose_name=_("accepted by"), on_delete=models.SET_NULL, null=True, related_name="+"
    )
    revoked_at = models.DateTimeField(_("withdrawn"), null=True, editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("staff invitation")
        verbose_name_plural = _("staff invitations")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "digest"], name="tenants_staffinvitation_digest"),
            models.CheckConstraint(
                condition=Q(role__in=["owner", "finance", "support", "content"]), name="tenants_staffinvitation_role"
            ),
            models.CheckConstraint(
                condition=Q(accepted_at=None) | Q(revoked_at=None), name="tenants_staffinvitation_ends_once"
            ),
        ]
