"""How end users come in, and which of them have left."""

from typing import Any, ClassVar

import structlog
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from tenants.adminsite import (
    ReadOnlyTenantModelAdmin,
    SecretField,
    SecretsForm,
    SecretsModelAdmin,
    register,
)
from tenants.models import AccountDeletion, Membership, SignInSettings, SmsAccount

log = structlog.get_logger(__name__)

Role = Membership.Role


class SignInSettingsForm(SecretsForm):
    """What ways in a tenant offers."""

    wechat_secret = SecretField(_("app secret of the official account"))

    class Meta:
        model = SignInSettings
        fields: ClassVar[list[str]] = [
            "tenant",
            "by_phone",
            "by_email",
            "by_password",
            "wechat_app_id",
            "wechat_secret",
            "wechat_asks_profile",
        ]


class _OneEach(SecretsModelAdmin):
    """Settings of which a tenant has one row, for its owners and the operator."""

    visible_to = frozenset({Role.OWNER.value})
    editable_by: ClassVar[frozenset[str]] = frozenset({Role.OWNER.value})

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let a tenant's owner add the first."""
        return super().has_add_permission(request) and not self.has_its_row(request)

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: Any) -> None:
        """Save, and say so in the log."""
        super().save_model(request, obj, form, change)
        log.info("sign_in_setup_changed", model=obj._meta.label, row=obj.pk, by=request.user.get_username())


class SignInSettingsAdmin(_OneEach):
    """What ways in a tenant offers."""

    form = SignInSettingsForm
    list_display = ("__str__", "by_phone", "by_email", "by_password", "wechat_app_id")

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Group what is asked; the tenant is the operator's to choose."""
        owner = ("tenant",) if self._on_platform else ()
        groups: list[Any] = [
            (None, {"fields": (*owner, "by_phone", "by_email", "by_password")}),
            (_("WeChat on web pages"), {"fields": ("wechat_app_id", "wechat_secret", "wechat_asks_profile")}),
        ]
        return self.shown_to(request, obj, groups)


class SmsAccountForm(SecretsForm):
    """What is set up of an account for text messages."""

    access_key_secret = SecretField(_("AccessKey secret"))

    class Meta:
        model = SmsAccount
        fields: ClassVar[list[str]] = [
            "tenant",
            "provider",
            "access_key_id",
            "access_key_secret",
            "sign_name",
            "template_code",
            "template_code_en",
            "is_enabled",
        ]


class SmsAccountAdmin(_OneEach):
    """Accounts for text messages: a tenant's own, and on the operator's site the one for all others."""

    form = SmsAccountForm
    list_display = ("provider", "sign_name", "template_code", "is_enabled", "created_at")


class AccountDeletionAdmin(ReadOnlyTenantModelAdmin):
    """Who has left, by number: there is no person any more."""

    list_display = ("user_number", "deleted_at", "yuan", "gift_yuan")
    fields = ("user_number", "deleted_at", "erased", "yuan", "gift_yuan")
    visible_to = frozenset({Role.OWNER.value, Role.FINANCE.value, Role.SUPPORT.value})

    @admin.display(description=_("user"))
    def user_number(self, row: AccountDeletion) -> str:
        """Return the number of who was there."""
        return f"#{row.user_id}"

    @admin.display(description=_("balance given up, yuan"))
    def yuan(self, row: AccountDeletion) -> str:
        """Return the balance that was given up."""
        return f"{row.cash // 1_000_000}.{row.cash % 1_000_000:06d}"

    @admin.display(description=_("gift balance given up, yuan"))
    def gift_yuan(self, row: AccountDeletion) -> str:
        """Return the gift balance that was given up."""
        return f"{row.gift // 1_000_000}.{row.gift % 1_000_000:06d}"


register(SignInSettings, SignInSettingsAdmin)
register(SmsAccount, SmsAccountAdmin)
register(AccountDeletion, AccountDeletionAdmin)
