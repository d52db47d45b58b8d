"""Billing's rows, to look at. None is edited by hand: the ledger changes balances, a new version changes a price."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from billing.models import (
    Account,
    DailyUsage,
    Entry,
    Hold,
    MerchantAccount,
    Order,
    Package,
    PaymentEvent,
    PriceVersion,
    QuotaUse,
    Transfer,
    UsageRecord,
)
from billing.yuan import show_yuan
from tenants.adminsite import ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.models import Membership

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    _MerchantAccountForm = forms.ModelForm[MerchantAccount]
else:
    _MerchantAccountForm = forms.ModelForm  # cannot be subscripted at run time

Role = Membership.Role


def _yuan(field: str, label: "_StrOrPromise") -> Callable[[models.Model], str]:
    """Make a column that shows an amount of micro-yuan in yuan, and sorts by it."""

    @admin.display(description=label, ordering=field)
    def column(row: models.Model) -> str:
        return f"¥{show_yuan(getattr(row, field))}"

    return column


class MoneyAdmin(ReadOnlyTenantModelAdmin):
    """Rows about money: for owners and finance."""

    visible_to: ClassVar[frozenset[str]] = frozenset({Role.OWNER, Role.FINANCE})
    list_filter_submit = False
    show_full_result_count = False


class CostAdmin(MoneyAdmin):
    """Rows that know what an answer cost the platform, which is not the tenant's business; support may look."""

    visible_to: ClassVar[frozenset[str]] = frozenset({Role.OWNER, Role.FINANCE, Role.SUPPORT})
    platform_only: ClassVar[tuple[str, ...]] = ("cost", "cost_price")

    def get_exclude(self, request: HttpRequest, obj: models.Model | None = None) -> tuple[str, ...]:
        """Hide the platform's cost on the tenant's site."""
        return () if self._on_platform else self.platform_only


class AccountAdmin(MoneyAdmin):
    """Balances."""

    list_display = ("id", "kind", "user", "channel", _yuan("posted", _("posted")), _yuan("pending", _("frozen")))
    list_filter = ("kind",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username", "user__phone", "user__email")


class TransferAdmin(MoneyAdmin):
    """What moved money, and who did it."""

    list_display = ("id", "created_at", "kind", "ref", "actor", "reason")
    list_filter = ("kind",)
    search_fields = ("ref", "actor", "reason")
    ordering = ("-id",)


class EntryAdmin(MoneyAdmin):
    """What transfers did to accounts."""

    list_display = ("id", "transfer_kind", "transfer_ref", "account_kind", _yuan("amount", _("amount")))
    list_filter = ("account__kind",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "transfer", "account")
    search_fields = ("transfer__ref",)
    ordering = ("-id",)

    @admin.display(description=_("transfer"), ordering="transfer__kind")
    def transfer_kind(self, row: Entry) -> str:
        """Say why money moved, in the reader's language."""
        return row.transfer.get_kind_display()

    @admin.display(description=_("reference"), ordering="transfer__ref")
    def transfer_ref(self, row: Entry) -> str:
        """Show what the transfer was for."""
        return row.transfer.ref

    @admin.display(description=_("account"), ordering="account__kind")
    def account_kind(self, row: Entry) -> str:
        """Say what balance it is, in the reader's language."""
        return row.account.get_kind_display()


class PriceVersionAdmin(MoneyAdmin):
    """The price list: at a tenant's site its own retail prices."""

    list_display = (
        "id",
        "sku",
        "level",
        "effective_at",
        _yuan("prompt_rate", _("prompt, per million tokens")),
        _yuan("cached_rate", _("cached prompt, per million tokens")),
        _yuan("completion_rate", _("completion, per million tokens")),
        _yuan("per_call", _("per call")),
    )
    list_filter = ("level",)
    search_fields = ("sku",)
    ordering = ("sku", "level", "-effective_at", "-id")


class HoldAdmin(CostAdmin):
    """Answers and what was frozen and charged for them."""

    list_display = (
        "id",
        "created_at",
        "user",
        "sku",
        "state",
        "free",
        _yuan("amount", _("held")),
        _yuan("charge", _("charge")),
        _yuan("wholesale_charge", _("wholesale charge")),
    )
    list_filter = ("state", "free")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("id", "user__username", "sku")
    ordering = ("-created_at",)


class QuotaUseAdmin(MoneyAdmin):
    """Free answers used."""

    visible_to: ClassVar[frozenset[str]] = CostAdmin.visible_to
    list_display = ("user", "quota_group", "date", "used")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username",)
    ordering = ("-date", "-id")


class UsageRecordAdmin(CostAdmin):
    """What was used."""

    list_display = (
        "id",
        "created_at",
        "user",
        "sku",
        "prompt_tokens",
        "completion_tokens",
        "free",
        _yuan("charge", _("charge")),
    )
    list_filter = ("usage_source", "free")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username", "sku")
    ordering = ("-id",)


class DailyUsageAdmin(CostAdmin):
    """Days added up."""

    platform_only: ClassVar[tuple[str, ...]] = ("cost",)
    list_display = (
        "day",
        "sku",
        "answers",
        "free_answers",
        "prompt_tokens",
        "completion_tokens",
        _yuan("charge", _("charge")),
        _yuan("wholesale_charge", _("wholesale charge")),
    )
    search_fields = ("sku",)
    ordering = ("-day", "sku")


class PackageAdmin(TenantModelAdmin):
    """What users can buy."""

    list_display = (
        "slug",
        "name",
        _yuan("price", _("price")),
        _yuan("credits", _("balance bought")),
        _yuan("bonus", _("bonus")),
        "badge",
        "limit_per_user",
        "position",
        "is_enabled",
    )
    list_filter = ("is_enabled",)
    search_fields = ("slug", "name")
    ordering = ("position", "pk")


class MerchantAccountForm(_MerchantAccountForm):
    """Takes new secrets, and never shows those that are stored."""

    api_v3_key = forms.CharField(
        label=_("API v3 key"),
        required=False,
        strip=True,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "off"}),
        help_text=_("Stored encrypted and never shown. Leave empty to keep the present one."),
    )
    private_key = forms.CharField(
        label=_("merchant's private key"),
        required=False,
        strip=True,
        widget=UnfoldAdminTextareaWidget(attrs={"autocomplete": "off"}),
        help_text=_("Stored encrypted and never shown. Leave empty to keep the present one."),
    )

    class Meta:
        model = MerchantAccount
        fields: ClassVar[list[str]] = [
            "tenant",
            "channel",
            "merchant_id",
            "app_id",
            "certificate_serial",
            "platform_key_id",
            "platform_public_key",
            "platform_certificates",
            "is_enabled",
            "private_key",
            "api_v3_key",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The stored key would be the text area's first value.
        for name in MerchantAccountAdmin.secrets:
            self.initial.pop(name, None)

    def clean_api_v3_key(self) -> str:
        """Keep the stored key where none was typed."""
        return self.cleaned_data["api_v3_key"] or self.instance.api_v3_key

    def clean_private_key(self) -> str:
        """Keep the stored key where none was typed."""
        return self.cleaned_data["private_key"] or self.instance.private_key


class MerchantAccountAdmin(TenantModelAdmin):
    """A tenant's accounts with payment providers."""

    visible_to = frozenset({Role.OWNER, Role.FINANCE})
    shown: ClassVar[tuple[str, ...]] = (
        "tenant",
        "channel",
        "merchant_id",
        "app_id",
        "certificate_serial",
        "platform_key_id",
        "platform_public_key",
        "platform_certificates",
        "is_enabled",
    )
    secrets: ClassVar[tuple[str, ...]] = ("private_key", "api_v3_key")
    form = MerchantAccountForm
    list_display = ("id", "channel", "merchant_id", "app_id", "is_enabled", "created_at")

    def get_fields(self, request: HttpRequest, obj: MerchantAccount | None = None) -> Any:
        """Leave the secrets out wherever the form would only show them."""
        editing = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        return (*self.shown, *self.secrets) if editing else self.shown


class OrderAdmin(MoneyAdmin):
    """Purchases."""

    visible_to: ClassVar[frozenset[str]] = CostAdmin.visible_to
    list_display = (
        "out_trade_no",
        "created_at",
        "user",
        "package_name",
        _yuan("price", _("price")),
        "channel",
        "method",
        "state",
        "paid_at",
    )
    list_filter = ("state", "channel", "method")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("out_trade_no", "transaction_id", "user__username", "user__phone", "user__email")
    ordering = ("-created_at",)


class PaymentEventAdmin(MoneyAdmin):
    """What providers said of payments."""

    visible_to: ClassVar[frozenset[str]] = CostAdmin.visible_to
    list_display = ("id", "received_at", "event_id", "order_number", "outcome")
    list_filter = ("outcome",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "order")
    search_fields = ("event_id", "order__out_trade_no")
    ordering = ("-id",)

    @admin.display(description=_("order number"), ordering="order__out_trade_no")
    def order_number(self, row: PaymentEvent) -> str:
        """Show which order the payment is for."""
        return row.order.out_trade_no if row.order else ""


register(Account, AccountAdmin)
register(Transfer, TransferAdmin)
register(Entry, EntryAdmin)
register(PriceVersion, PriceVersionAdmin)
register(Hold, HoldAdmin)
register(QuotaUse, QuotaUseAdmin)
register(UsageRecord, UsageRecordAdmin)
register(DailyUsage, DailyUsageAdmin)
register(Package, PackageAdmin)
register(MerchantAccount, MerchantAccountAdmin)
register(Order, OrderAdmin)
register(PaymentEvent, PaymentEventAdmin)
