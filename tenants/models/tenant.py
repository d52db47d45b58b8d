"""A tenant, its brand, and the names it is reached by."""

import re
import zoneinfo
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _

from tenants.models.reseller import Reseller
from tenants.scope import TenantOwned
from tenants.secrets import EncryptedTextField

LANGUAGES = [("zh-hans", _("Simplified Chinese")), ("en", _("English"))]

APP_ID = re.compile(r"wx[0-9a-z]{8,30}")
HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def validate_timezone(name: str) -> None:
    """Accept an IANA name that this machine knows."""
    if name not in zoneinfo.available_timezones():
        raise ValidationError(_("“%(name)s” is not a time zone, such as Asia/Shanghai."), params={"name": name})


def validate_host(host: str) -> None:
    """Accept a host name as requests are matched with it: lower case, without port or final dot."""
    if not HOST.fullmatch(host):
        raise ValidationError(_("A host name in lower case without a port, such as chat.example.com, is wanted."))


class Tenant(models.Model):
    """A brand of its own: one site, one purse, its own users."""

    class Status(models.TextChoices):
        """Only trial and active tenants serve their users."""

        TRIAL = "trial", _("on trial")
        ACTIVE = "active", _("active")
        SUSPENDED = "suspended", _("suspended")
        CLOSED = "closed", _("closed")

    class OnDisconnect(models.TextChoices):
        """What an answer does when its reader leaves (docs/money.md)."""

        FINISH = "finish", _("finish the answer")
        STOP = "stop", _("stop the answer")

    slug = models.SlugField(_("slug"), max_length=40, unique=True)
    name = models.CharField(_("name"), max_length=80)
    reseller = models.ForeignKey(
        Reseller, verbose_name=_("reseller"), on_delete=models.PROTECT, null=True, blank=True, related_name="tenants"
    )
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.TRIAL)
    # Both are lifecycle's to write, with the status: its history says who did and when.
    status_reason = models.CharField(_("reason of the state"), max_length=200, blank=True, default="", editable=False)
    trial_ends_on = models.DateField(_("last day of the trial"), null=True, blank=True, editable=False)
    timezone = models.CharField(_("time zone"), max_length=64, default="Asia/Shanghai", validators=[validate_timezone])
    language = models.CharField(_("language"), max_length=10, choices=LANGUAGES, default="zh-hans")
    allow_guest = models.BooleanField(_("guests may try"), default=False)
    on_disconnect = models.CharField(
        _("when the reader leaves"), max_length=10, choices=OnDisconnect.choices, default=OnDisconnect.FINISH
    )
    mini_program_jsapi = models.BooleanField(
        _("ordinary WeChat Pay in the mini-program too"),
        default=False,
        help_text=_("Beside virtual payment, which WeChat demands there for virtual goods."),
    )
    # Raised by a trigger with each change to what moderates the tenant: processes that keep it look here.
    moderation_revision = models.BigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("tenant")
        verbose_name_plural = _("tenants")
        constraints: ClassVar[list[BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(status__in=["trial", "active", "suspended", "closed"]), name="tenants_tenant_status"
            ),
            models.CheckConstraint(condition=Q(language__in=["zh-hans", "en"]), name="tenants_tenant_language"),
            models.CheckConstraint(condition=Q(on_disconnect__in=["finish", "stop"]), name="tenants_tenant_disconnect"),
        ]

    def __str__(self) -> str:
        return self.slug


class Branding(TenantOwned):
    """What a tenant's pages look like."""

    tenant = models.OneToOneField(  # the same key, but one to one
        Tenant, verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="branding"
    )
    title = models.CharField(_("title"), max_length=80)
    slogan = models.CharField(_("slogan"), max_length=160, blank=True, default="")
    logo_url = models.URLField(_("logo"), blank=True, default="")
    primary_color = models.CharField(
        _("primary colour"),
        max_length=7,
        default="#0f766e",
        validators=[RegexValidator(r"\A#[0-9a-fA-F]{6}\Z", _("A colour such as #0f766e is wanted."))],
    )
    welcome = models.TextField(_("welcome"), blank=True, default="")

    class Meta(TenantOwned.Meta):
        verbose_name = _("branding")
        verbose_name_plural = _("branding")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(
                condition=Q(primary_color__regex=r"^#[0-9a-fA-F]{6}$"), name="tenants_branding_colour"
            ),
        ]


class Domain(TenantOwned):
    """A host name of a tenant's site. Unique everywhere: it is what tells tenants apart."""

    tenant = models.ForeignKey(
        Tenant, verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="domains", db_index=False
    )
    host = models.CharField(_("host"), max_length=253, unique=True, validators=[validate_host])
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("domain")
        verbose_name_plural = _("domains")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            # Look-ups are by the lower-case name; another spelling in the table would never be found.
            models.CheckConstraint(condition=Q(host__regex=r"^[a-z0-9.-]+$"), name="tenants_domain_host"),
        ]


class MiniProgram(TenantOwned):
    """A tenant's WeChat mini-program. Its app id is unique everywhere: it, too, names the tenant."""

    tenant = models.ForeignKey(
        Tenant, verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="mini_programs", db_index=False
    )
    app_id = models.CharField(
        _("app id"),
        max_length=32,
        unique=True,
        validators=[RegexValidator(r"\Awx[0-9a-z]{8,30}\Z", _("An app id such as wx1234567890abcdef is wanted."))],
    )
    secret = EncryptedTextField(_("app secret"), blank=True, default="")
    name = models.CharField(_("name"), max_length=80, blank=True, default="")
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("mini-program")
        verbose_name_plural = _("mini-programs")
