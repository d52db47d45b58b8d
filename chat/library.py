"""What a tenant writes for its users and its models: categories of assistants, chat rules, announcements.

Models of chat that need none of the others; `chat.models` brings them in for Django.
"""

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.models import Tenant
from tenants.scope import SameTenant, TenantOwned


class RoleCategory(TenantOwned):
    """A shelf of assistants, as users see it."""

    slug = models.SlugField(_("slug"), max_length=64)
    name = models.CharField(_("name"), max_length=40)
    position = models.IntegerField(_("position"), default=0, help_text=_("Smaller numbers come first."))

    class Meta(TenantOwned.Meta):
        verbose_name = _("assistant category")
        verbose_name_plural = _("assistant categories")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "slug"], name="chat_rolecategory_slug"),
        ]

    def __str__(self) -> str:
        return self.name


class ChatRules(TenantOwned):
    """What is true for every chat of a tenant: instructions that its users never see, and how much is remembered."""

    tenant = models.OneToOneField(  # the same key, but one to one
        Tenant, verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="+"
    )
    instructions = models.TextField(
        _("instructions to every model"),
        blank=True,
        default="",
        help_text=_("Stand before an assistant's own. Users never see them."),
    )
    context_turns = models.PositiveSmallIntegerField(
        _("earlier turns sent along at most"),
        null=True,
        blank=True,
        help_text=_("Empty: as many as the model's window takes, at most 50. A model offer may say otherwise."),
    )
    context_tokens = models.PositiveIntegerField(
        _("tokens of earlier turns sent along at most"),
        null=True,
        blank=True,
        help_text=_("Empty: as many as the model's window takes. A model offer may say otherwise."),
    )

    class Meta(TenantOwned.Meta):
        verbose_name = _("chat rules")
        verbose_name_plural = _("chat rules")


class _Announcement(models.Model):
    """Something that users are told, between two moments."""

    title = models.CharField(_("title"), max_length=120)
    body = models.TextField(_("text"))
    starts_at = models.DateTimeField(_("from"), default=timezone.now)
    ends_at = models.DateTimeField(_("until"), null=True, blank=True, help_text=_("Empty: until it is turned off."))
    is_enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.title


def _ends_after_it_starts(name: str) -> models.CheckConstraint:
    return models.CheckConstraint(
        condition=models.Q(ends_at__isnull=True) | models.Q(ends_at__gt=models.F("starts_at")),
        name=name,
        violation_error_message=_("An announcement ends after it starts."),
    )


class Announcement(_Announcement, TenantOwned):
    """A tenant's announcement, to its own users."""

    class Meta(TenantOwned.Meta):
        verbose_name = _("announcement")
        verbose_name_plural = _("announcements")
        constraints: ClassVar = [*TenantOwned.Meta.constraints, _ends_after_it_starts("chat_announcement_span")]
        indexes: ClassVar = [models.Index(fields=["tenant", "-starts_at"], name="chat_announcement_latest")]


class PlatformAnnouncement(_Announcement):
    """The operator's announcement, to every tenant's users."""

    class Meta:
        verbose_name = _("platform announcement")
        verbose_name_plural = _("platform announcements")
        constraints: ClassVar = [_ends_after_it_starts("chat_platformannouncement_span")]


class AnnouncementRead(TenantOwned):
    """That a user has read an announcement: the tenant's or the platform's."""

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    announcement = models.ForeignKey(
        Announcement,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="reads",
        null=True,
        verbose_name=_("announcement"),
    )
    platform_announcement = models.ForeignKey(
        PlatformAnnouncement,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="reads",
        null=True,
        verbose_name=_("platform announcement"),
    )
    read_at = models.DateTimeField(_("read"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("read announcement")
        verbose_name_plural = _("read announcements")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_announcementread_user_fk"),
            SameTenant(field="announcement", name="chat_announcementread_announcement_fk"),
            models.UniqueConstraint(fields=["tenant", "user", "announcement"], name="chat_announcementread_once"),
            models.UniqueConstraint(
                fields=["tenant", "user", "platform_announcement"], name="chat_announcementread_platform_once"
            ),
            models.CheckConstraint(
                condition=models.Q(announcement__isnull=True, platform_announcement__isnull=False)
                | models.Q(announcement__isnull=False, platform_announcement__isnull=True),
                name="chat_announcementread_of_one",
            ),
        ]
