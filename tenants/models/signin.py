"""How a tenant's users may sign in, and what is kept of them on their way in and out."""

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from tenants.models.enduser import EndUser
from tenants.models.tenant import Tenant
from tenants.scope import SameTenant, TenantOrPlatformOwned, TenantOwned
from tenants.secrets import EncryptedTextField

_DIGEST = r"^[0-9a-f]{64}$"


class SignInSettings(TenantOwned):
    """What ways in a tenant offers; without a row all that need no account with somebody."""

    tenant = models.OneToOneField(  # the same key, but one to one
        Tenant, verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="sign_in_settings"
    )
    by_phone = models.BooleanField(
        _("by a code to a phone"),
        default=True,
        help_text=_("Offered once there is an account for text messages: yours, or the platform's."),
    )
    by_email = models.BooleanField(
        _("by a code to an e-mail address"), default=True, help_text=_("Offered where the platform sends mail.")
    )
    by_password = models.BooleanField(_("by user name and password"), default=True)
    wechat_app_id = models.CharField(
        _("app id of the official account"),
        max_length=32,
        blank=True,
        default="",
        validators=[RegexValidator(r"\Awx[0-9a-z]{8,30}\Z", _("An app id such as wx1234567890abcdef is wanted."))],
        help_text=_(
            "For log-in with WeChat on web pages inside WeChat. "
            "Enter your host name there as domain of web authorization."
        ),
    )
    wechat_secret = EncryptedTextField(_("app secret of the official account"), blank=True, default="")
    wechat_asks_profile = models.BooleanField(
        _("ask for nickname"),
        default=False,
        help_text=_(
            "WeChat then asks the user first (snsapi_userinfo). It is needed to know users of the mini-program."
        ),
    )

    class Meta(TenantOwned.Meta):
        verbose_name = _("sign-in settings")
        verbose_name_plural = _("sign-in settings")

    @property
    def has_wechat(self) -> bool:
        """Whether log-in with WeChat on web pages is set up."""
        return bool(self.wechat_app_id and self.wechat_secret)


class SmsAccount(TenantOrPlatformOwned):
    """An account with a provider of text messages; without a tenant it serves all that have none of their own."""

    class Provider(models.TextChoices):
        """Whose it is: the keys of `tenants.sms`."""

        ALIYUN = "aliyun", _("Alibaba Cloud")
        CONSOLE = "console", _("the log, for trying out")

    provider = models.CharField(_("provider"), max_length=10, choices=Provider.choices, default=Provider.ALIYUN)
    access_key_id = models.CharField(_("AccessKey ID"), max_length=64, blank=True, default="")
    access_key_secret = EncryptedTextField(_("AccessKey secret"), blank=True, default="")
    sign_name = models.CharField(
        _("signature"), max_length=40, blank=True, default="", help_text=_("As the provider approved it.")
    )
    template_code = models.CharField(
        _("template"),
        max_length=40,
        blank=True,
        default="",
        help_text=_("Such as SMS_123456789; the code is its variable “code”."),
    )
    template_code_en = models.CharField(_("template in English"), max_length=40, blank=True, default="")
    is_enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("account for text messages")
        verbose_name_plural = _("accounts for text messages")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant"], nulls_distinct=False, name="tenants_smsaccount_one"),
            models.CheckConstraint(condition=Q(provider__in=["aliyun", "console"]), name="tenants_smsaccount_provider"),
        ]

    def clean(self) -> None:
        """Refuse what could not send."""
        wanted = ("access_key_id", "access_key_secret", "sign_name", "template_code")
        if self.provider == self.Provider.ALIYUN:
            missing: dict[str, Any] = {
                name: _("Alibaba Cloud wants this.") for name in wanted if not getattr(self, name)
            }
            if missing:
                raise ValidationError(missing)


class OneTimeCode(TenantOwned):
    """A code that was sent to a phone or an address; both are kept as keyed digests only.

    `guesses` counts every try, the right one too. It is over once it was used, or another was sent in its place.
    """

    class Channel(models.TextChoices):
        """What it was sent to."""

        PHONE = "phone", _("phone")
        EMAIL = "email", _("e-mail")

    class Purpose(models.TextChoices):
        """What it proves; it is good for nothing else."""

        SIGN_IN = "sign_in", _("signing in")
        RESET = "reset", _("a new password")
        BIND = "bind", _("binding to an account")
        CONFIRM = "confirm", _("confirming a change")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    channel = models.CharField(_("sent to"), max_length=5, choices=Channel.choices)
    purpose = models.CharField(_("purpose"), max_length=7, choices=Purpose.choices)
    # Whoever is logged in and asked for it, where that matters: nobody else can use it.
    user = models.ForeignKey(
        EndUser,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
    )
    target_digest = models.CharField(_("digest of the address"), max_length=64)
    code_digest = models.CharField(_("digest of the code"), max_length=64)
    guesses = models.PositiveSmallIntegerField(_("tries"), default=0)
    created_at = models.DateTimeField(_("sent"))
    expires_at = models.DateTimeField(_("expires"))
    ended_at = models.DateTimeField(_("used or replaced"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("one-time code")
        verbose_name_plural = _("one-time codes")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="tenants_onetimecode_user_same_tenant"),
            models.CheckConstraint(
                condition=Q(target_digest__regex=_DIGEST, code_digest__regex=_DIGEST), name="tenants_onetimecode_hashed"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "target_digest", "created_at"], name="tenants_onetimecode_target"),
            models.Index(fields=["tenant", "channel", "created_at"], name="tenants_onetimecode_day"),
        ]


class WeChatTrip(TenantOwned):
    """A browser's way to WeChat and back, once: `state` and browser as digests, and where the page goes on."""

    state_digest = models.CharField(_("digest of the state"), max_length=64)
    browser_digest = models.CharField(_("digest of the browser"), max_length=64)
    back_to = models.CharField(_("goes on at"), max_length=500)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires"))
    used_at = models.DateTimeField(_("used"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("way to WeChat")
        verbose_name_plural = _("ways to WeChat")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "state_digest"], name="tenants_wechattrip_state"),
            models.CheckConstraint(
                condition=Q(state_digest__regex=_DIGEST, browser_digest__regex=_DIGEST),
                name="tenants_wechattrip_hashed",
            ),
            # A path on the same host: no row can send a browser elsewhere.
            models.CheckConstraint(condition=Q(back_to__regex=r"^/([^/\\].*)?$"), name="tenants_wechattrip_local"),
        ]


class AccountDeletion(TenantOwned):
    """That a user deleted their account: when, what was erased, and what balance they gave up, micro-yuan."""

    user = models.ForeignKey(
        EndUser,
        verbose_name=_("user"),
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    erased = models.JSONField(_("erased"), default=dict)
    cash = models.BigIntegerField(_("balance given up, micro-yuan"), default=0)
    gift = models.BigIntegerField(_("gift balance given up, micro-yuan"), default=0)
    deleted_at = models.DateTimeField(_("deleted"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("account deletion")
        verbose_name_plural = _("account deletions")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="tenants_accountdeletion_user_same_tenant"),
            models.UniqueConstraint(fields=["tenant", "user"], name="tenants_accountdeletion_once"),
            models.CheckConstraint(condition=Q(cash__gte=0, gift__gte=0), name="tenants_accountdeletion_amounts"),
        ]
