"""What protects staff's accounts: second factors, recovery codes, sessions; and what they changed."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _

from tenants.models.staff import Membership, StaffUser
from tenants.scope import TenantOrPlatformOwned, TenantOwned
from tenants.secrets import EncryptedTextField


class SecondFactor(models.Model):
    """A staff user's authenticator app (TOTP, RFC 6238)."""

    staff = models.OneToOneField(StaffUser, on_delete=models.CASCADE, related_name="second_factor")
    key = EncryptedTextField()
    # None while its key was shown, but no code of it has come back.
    confirmed_at = models.DateTimeField(null=True)
    # The 30 seconds of the last code that was taken: none is taken twice.
    last_step = models.BigIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0)
    locked_until = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("second factor")
        verbose_name_plural = _("second factors")

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"


class RecoveryCode(models.Model):
    """Opens the second door once, where the telephone is lost; the database has its SHA-256."""

    staff = models.ForeignKey(StaffUser, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("recovery code")
        verbose_name_plural = _("recovery codes")
        constraints: ClassVar[list[BaseConstraint]] = [
            models.UniqueConstraint(fields=["staff", "digest"], name="tenants_recoverycode_once"),
        ]

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"


class StaffSession(models.Model):
    """A log-in of a staff user. Its number is in the session, the session's key is not here."""

    staff = models.ForeignKey(StaffUser, on_delete=models.CASCADE, related_name="sessions")
    host = models.CharField(max_length=253)
    address = models.CharField(max_length=64)
    device = models.CharField(max_length=80)
    created_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"


class StaffRules(TenantOwned):
    """What a tenant demands of its staff."""

    second_factor_roles = ArrayField(
        models.CharField(max_length=10, choices=Membership.Role.choices),
        verbose_name=_("roles that must use a second factor"),
        default=list,
        blank=True,
    )

    class Meta(TenantOwned.Meta):
        verbose_name = _("rules for staff")
        verbose_name_plural = _("rules for staff")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant"], name="tenants_staffrules_once"),
        ]


class ChangeEntry(TenantOrPlatformOwned):
    """A change that staff made, with what was before and after.

    By trigger it is never changed itself, and goes only with its tenant (`lifecycle.erasure`). It names rows and people
    by number and name, not by key: it outlives them.
    """

    class Action(models.TextChoices):
        """What was done."""

        ADDED = "added", _("added")
        CHANGED = "changed", _("changed")
        DELETED = "deleted", _("deleted")

    at = models.DateTimeField(_("when"), auto_now_add=True)
    staff_number = models.BigIntegerField(_("staff number"), null=True)
    actor = models.CharField(_("who"), max_length=150)
    action = models.CharField(_("action"), max_length=10, choices=Action.choices)
    model = models.CharField(_("kind"), max_length=80)
    row = models.CharField(_("number"), max_length=64)
    changes = models.JSONField(_("changes"), default=dict)
    note = models.TextField(_("note"), blank=True, default="")
    address = models.CharField(_("address"), max_length=64, blank=True, default="")
    request_id = models.CharField(_("request"), max_length=64, blank=True, default="")

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("change")
        verbose_name_plural = _("changes")
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "-at"], name="tenants_changeentry_at"),
            models.Index(fields=["tenant", "model", "row"], name="tenants_changeentry_row"),
        ]
