"""What users buy and how they pay, in the admin: packages and merchants, orders and what providers said of them."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from billing.admin.books import CostAdmin, MoneyAdmin, yuan_column
from billing.models import MerchantAccount, Order, Package, PaymentEvent
from tenants.adminsite import TenantModelAdmin, register
from tenants.models import Membership

if TYPE_CHECKING:
    _MerchantAccountForm = forms.ModelForm[MerchantAccount]
else:
    _MerchantAccountForm = forms.ModelForm  # cannot be subscripted at run time

Role = Membership.Role


class PackageAdmin(TenantModelAdmin):
    """What users can buy."""

    list_display = (
        "slug",
        "name",
        yuan_column("price", _("price")),
        yuan_column("credits", _("balance bought")),
        yuan_column("bonus", _("bonus")),
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
    exclude = ("plan_terms",)  # shown with the subscription, in words
    list_display = (
        "out_trade_no",
        "created_at",
        "user",
        "package_name",
        yuan_column("price", _("price")),
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


register(Package, PackageAdmin)
register(MerchantAccount, MerchantAccountAdmin)
register(Order, OrderAdmin)
register(PaymentEvent, PaymentEventAdmin)
