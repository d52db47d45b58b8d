"""End users, who chat: not Django users, so that no admin can ever let one in."""

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.constraints import BaseConstraint
from django.utils.translation import gettext_lazy as _

from tenants.models.tenant import LANGUAGES
from tenants.scope import SameTenant, TenantOwned
from tenants.secrets import EncryptedTextField


class EndUser(TenantOwned):
    """A person within one tenant; the same person in two tenants is two users.

    User name, phone and e-mail are stored as `tenants.login` normalises them. Their shapes never overlap (a CHECK
    keeps user names from looking like the others), so nobody can take a name that is someone's phone number.
    """

    username = models.CharField(
        _("user name"),
        max_length=32,
        null=True,
        blank=True,
        validators=[
            RegexValidator(
                r"\A[^\W\d_][\w.-]{1,31}\Z",
                _("A user name has 2 to 32 letters, digits, dots, dashes or underscores and begins with a letter."),
            )
        ],
    )
    phone = models.CharField(_("phone"), max_length=20, null=True, blank=True)
    email = models.EmailField(_("e-mail"), null=True, blank=True)
    nickname = models.CharField(_("nickname"), max_length=64, blank=True, default="")
    password = models.CharField(_("password"), max_length=128, blank=True, default="")
    language = models.CharField(_("language"), max_length=10, choices=LANGUAGES, blank=True, default="")
    is_guest = models.BooleanField(_("guest"), default=False)
    is_active = models.BooleanField(_("active"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    last_seen_at = models.DateTimeField(_("last log-in"), null=True, blank=True)
    # By the user (tenants.personal): the row stays for the ledger, and has nothing of the person any more.
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True, editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("user")
        verbose_name_plural = _("users")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "username"], name="tenants_enduser_username"),
            models.UniqueConstraint(fields=["tenant", "phone"], name="tenants_enduser_phone"),
            models.UniqueConstraint(fields=["tenant", "email"], name="tenants_enduser_email"),
            models.CheckConstraint(
                condition=Q(username__isnull=True) | Q(username__regex=r"^[^0-9+@][^@]*$"),
                name="tenants_enduser_username_shape",
            ),
            models.CheckConstraint(
                condition=Q(phone__isnull=True) | Q(phone__regex=r"^\+?[0-9]{5,19}$"),
                name="tenants_enduser_phone_shape",
            ),
            models.CheckConstraint(
                condition=Q(email__isnull=True) | Q(email__regex=r"^[^@]+@[^@]+$"), name="tenants_enduser_email_shape"
            ),
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=True)
                | Q(
                    username__isnull=True,
                    phone__isnull=True,
                    email__isnull=True,
                    nickname="",
                    password="",
                    is_active=False,
                ),
                name="tenants_enduser_deleted",
            ),
        ]
        # The dashboard counts new users from here alone.
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "created_at"], name="tenants_enduser_new"),
        ]

    def __str__(self) -> str:
        # What the admin's lists show; phone and e-mail stay out, since a log may hold this.
        return self.nickname or self.username or f"#{self.pk}"


class WeChatIdentity(TenantOwned):
    """Who WeChat says a user is, for one of the tenant's app ids."""

    user = models.ForeignKey(
        EndUser,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="wechat_identities",
    )
    app_id = models.CharField(_("app id"), max_length=32)
    openid = models.CharField(_("open id"), max_length=64)
    unionid = models.CharField(_("union id"), max_length=64, blank=True, default="")
    # WeChat's of the last log-in: virtual payment is signed with it.
    session_key = EncryptedTextField(_("session key"), blank=True, default="", editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("WeChat identity")
        verbose_name_plural = _("WeChat identities")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="tenants_wechatidentity_user_same_tenant"),
            models.UniqueConstraint(fields=["tenant", "app_id", "openid"], name="tenants_wechatidentity_openid"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "user"], name="tenants_wechatidentity_user"),
            models.Index(fields=["tenant", "unionid"], name="tenants_wechatidentity_union"),
        ]


class AccessToken(TenantOwned):
    """A log-in of a user. Only the token's SHA-256 is kept: it is 256 random bits, so no slow hash is needed."""

    user = models.ForeignKey(
        EndUser,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="access_tokens",
    )
    digest = models.CharField(_("digest"), max_length=64)
    label = models.CharField(_("label"), max_length=64, blank=True, default="")
    device = models.CharField(_("device"), max_length=64, blank=True, default="")
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires"))
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("access token")
        verbose_name_plural = _("access tokens")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="tenants_accesstoken_user_same_tenant"),
            models.UniqueConstraint(fields=["tenant", "digest"], name="tenants_accesstoken_digest"),
            models.CheckConstraint(condition=Q(digest__regex=r"^[0-9a-f]{64}$"), name="tenants_accesstoken_hashed"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "user"], name="tenants_accesstoken_user"),
        ]
