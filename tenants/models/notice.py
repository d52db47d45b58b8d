"""What staff are told in their admin: notices, up to where each has read them, and the operator's announcements."""

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.constraints import BaseConstraint
from django.db.models.functions import Now
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from tenants.models.reseller import Reseller
from tenants.models.staff import StaffUser
from tenants.scope import TenantOrPlatformOwned


class Notice(TenantOrPlatformOwned):
    """Something that a tenant's staff, a reseller's people or (neither is named) the operator's should know.

    It is written in every language at once, since each reader has one of their own.
    """

    class Kind(models.TextChoices):
        """What it is about."""

        LOW_BALANCE = "low_balance", _("low balance")
        PRICE = "price", _("prices")
        EXPIRY = "expiry", _("expiry")
        FAILURE = "failure", _("failure")
        WITHDRAWAL = "withdrawal", _("withdrawal")
        REPORT = "report", _("report")
        APPLICATION = "application", _("application")
        DOMAIN = "domain", _("domain")
        ANNOUNCEMENT = "announcement", _("announcement")

    reseller = models.ForeignKey(
        Reseller,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller"),
    )
    kind = models.CharField(_("about"), max_length=16, choices=Kind.choices)
    roles = ArrayField(models.CharField(max_length=10), default=list, blank=True, verbose_name=_("for roles"))
    texts = models.JSONField(_("texts"), default=dict)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.CheckConstraint(
                condition=Q(tenant__isnull=True) | Q(reseller__isnull=True), name="tenants_notice_one_reader"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "reseller", "id"], name="tenants_notice_latest"),
        ]

    @property
    def subject(self) -> str:
        """Its first line, in the reader's language."""
        return self._said("subject")

    @property
    def body(self) -> str:
        """What it says, in the reader's language."""
        return self._said("body")

    def _said(self, part: str) -> str:
        texts: dict[str, Any] = self.texts
        text: dict[str, str] = texts.get(translation.get_language() or "") or next(iter(texts.values()), {})
        return str(text.get(part, ""))


class NoticesSeen(TenantOrPlatformOwned):
    """Up to which notice a member of staff has looked at those of a tenant, or of the platform."""

    staff = models.ForeignKey(StaffUser, on_delete=models.CASCADE, related_name="+", verbose_name=_("staff user"))
    last_id = models.BigIntegerField(_("last notice"), default=0)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("seen notices")
        verbose_name_plural = _("seen notices")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "staff"], nulls_distinct=False, name="tenants_noticesseen_once"),
        ]


class StaffAnnouncement(models.Model):
    """What the operator tells the staff of all tenants, or all resellers; each gets a notice of their own."""

    subject = models.CharField(_("title in Chinese"), max_length=120)
    body = models.TextField(_("text in Chinese"))
    subject_en = models.CharField(_("title in English"), max_length=120, blank=True, default="")
    body_en = models.TextField(_("text in English"), blank=True, default="")
    to_tenants = models.BooleanField(_("to tenants' staff"), default=True)
    to_resellers = models.BooleanField(_("to resellers"), default=True)
    created_by = models.CharField(_("by"), max_length=150, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("announcement to staff")
        verbose_name_plural = _("announcements to staff")
        constraints: ClassVar[list[BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(to_tenants=True) | Q(to_resellers=True),
                name="tenants_staffannouncement_somebody",
                violation_error_message=_("Somebody has to be told: tenants' staff or resellers."),
            ),
        ]

    def __str__(self) -> str:
        return self.subject
