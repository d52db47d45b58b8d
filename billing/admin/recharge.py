"""What users buy and how they pay, in the admin: packages and merchants, orders and what providers said of them."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from billing import recharge
from billing.admin.books import CostAdmin, MoneyAdmin, ShowsYuan, yuan_column
from billing.admin.fields import YuanField
from billing.admin.money import RefundingAdmin
from billing.models import Bill, BillLine, Channel, MerchantAccount, Order, Package, PaymentEvent
from billing.models.recharge import FEN, MAX_PRICE
from billing.payments import try_settings
from billing.payments.provider import PaymentError, ProviderRefusedError
from tenants.adminsite import SecretField, SecretsForm, SecretsModelAdmin, TenantModelAdmin, TriesRow, register
from tenants.filters import DaysFilter
from tenants.models import Domain, Membership

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    _PackageForm = forms.ModelForm[Package]
else:
    _PackageForm = forms.ModelForm  # cannot be subscripted at run time

log = structlog.get_logger(__name__)

Role = Membership.Role


class PackageForm(_PackageForm):
    """Takes amounts in yuan, as people write them."""

    price = YuanField(label=_("price, yuan"), least=FEN, most=MAX_PRICE)
    credits = YuanField(label=_("balance bought, yuan"), most=MAX_PRICE)
    bonus = YuanField(label=_("bonus, yuan"), initial="0", least=0, most=MAX_PRICE)

    class Meta:
        model = Package
        fields: ClassVar[list[str]] = [
            *("tenant", "slug", "name", "price", "credits", "bonus"),
            *("badge", "limit_per_user", "position", "virtual_product_id", "is_enabled"),
        ]


class PackageAdmin(ShowsYuan, TenantModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """What users can buy: a tenant sets its own, since it collects for them itself."""

    form = PackageForm
    editable_by = frozenset({Role.OWNER, Role.FINANCE})
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


class MerchantAccountForm(SecretsForm):
    """What is set up of a merchant account; `MerchantAccount.clean` says what each channel wants."""

    api_v3_key = SecretField(_("API v3 key"))
    private_key = SecretField(_("merchant's private key"), has_lines=True)
    secret_key = SecretField(_("secret key"))
    webhook_secret = SecretField(_("webhook's signing secret"))
    app_key = SecretField(_("app key"))
    sandbox_app_key = SecretField(_("app key of the sandbox"))
    message_token = SecretField(_("token of the message push"))
    message_key = SecretField(_("EncodingAESKey of the message push"))

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
            "environment",
            "is_enabled",
            "private_key",
            "api_v3_key",
            "secret_key",
            "webhook_secret",
            "app_key",
            "sandbox_app_key",
            "message_token",
            "message_key",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Orders were made by it.
        if self.instance.pk and "channel" in self.fields:
            self.fields["channel"].disabled = True

    def clean(self) -> dict[str, Any]:
        """Refuse an account that is there already; the scope knows the tenant where the form does not name it."""
        cleaned = super().clean()
        names = ("channel", "merchant_id", "app_id")
        others = MerchantAccount.objects.exclude(pk=self.instance.pk)
        if tenant := cleaned.get("tenant"):
            others = others.filter(tenant=tenant)
        if others.filter(**{name: cleaned.get(name) or "" for name in names}).exists():
            self.add_error("merchant_id", _("This account is set up already."))
        return cleaned


# What is asked for each channel, beside what all have.
_GROUPS: Final = (
    (
        frozenset({Channel.WECHAT, Channel.ALIPAY}),
        _("Keys of WeChat Pay and Alipay"),
        ("private_key", "platform_public_key"),
        _(
            "WeChat Pay: the private key of the merchant's certificate, and the platform's public key. Alipay: the"
            " app's private key, and Alipay's public key, which is not the app's."
        ),
    ),
    (
        frozenset({Channel.WECHAT}),
        _("WeChat Pay"),
        ("certificate_serial", "platform_key_id", "platform_certificates", "api_v3_key"),
        _("New merchants have a public key with an id; older ones certificates; some have both for a while."),
    ),
    (
        frozenset({Channel.STRIPE}),
        _("Stripe"),
        ("secret_key", "webhook_secret"),
        _("The webhook is set up at Stripe, with this account's address for notifications."),
    ),
    (
        frozenset({Channel.WECHAT_VIRTUAL}),
        _("WeChat virtual payment"),
        ("environment", "app_key", "sandbox_app_key", "message_token", "message_key"),
        _("The message push of the mini-program is set up at WeChat, with this account's address for notifications."),
    ),
)

# What a refusal means, in words; anything else is shown as the provider says it.
_REFUSALS: Final = {
    "NO_PRIVATE_KEY": _("the private key cannot be read"),
    "NO_SECRET_KEY": _("the secret key is missing"),
    "SIGN_ERROR": _("the private key or the serial number of the certificate is another merchant's"),
    "isv.invalid-signature": _("the private key is not the app's"),
    "isv.invalid-app-id": _("there is no such app id"),
    "AuthenticationError": _("the secret key is not accepted"),
    "OTHER_ACCOUNT": _("the secret key is another account's"),
}


class MerchantAccountAdmin(TriesRow, SecretsModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """A tenant's accounts with payment providers. What a channel has no use for is not shown.

    Its owners set up their own: the money is theirs. Orders name an account, so it is turned off, not deleted.
    """

    visible_to = frozenset({Role.OWNER, Role.FINANCE})
    editable_by = frozenset({Role.OWNER})
    try_label = _("Try the settings at the provider")
    form = MerchantAccountForm
    list_display = ("id", "channel", "merchant_id", "app_id", "environment", "is_enabled", "created_at")
    list_filter = ("channel", "is_enabled")
    actions = ("try_settings",)
    readonly_fields = ("notify_address",)

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Show a new account every channel's fields, and a known one its own."""
        channels = {obj.channel} if isinstance(obj, MerchantAccount) else set(Channel)
        about = _(
            "The merchant id is WeChat Pay's merchant number, virtual payment's offer id, Alipay's seller id (2088…),"
            " or Stripe's account id (acct_…), which has no app id."
        )
        owner = ("tenant",) if self._on_platform else ()
        first = (*owner, "channel", "merchant_id", "app_id", "is_enabled", *(("notify_address",) if obj else ()))
        groups: list[Any] = [(None, {"fields": first, "description": about})]
        groups += [
            (title, {"fields": fields, "description": text})
            for group, title, fields, text in _GROUPS
            if group & channels
        ]
        return self.shown_to(request, obj, groups)

    @admin.display(description=_("address for notifications"))
    def notify_address(self, row: MerchantAccount) -> str:
        """Show where the provider tells of payments: an address at the tenant's first host."""
        domain = Domain.objects.filter(tenant_id=row.tenant_id).order_by("id").first()
        path = recharge.notify_path(tenant=row.tenant, account=row)
        return f"https://{domain.host}{path}" if domain else path

    @admin.action(description=_("Try the settings at the provider"), permissions=["view"])
    def try_settings(self, request: HttpRequest, accounts: QuerySet[MerchantAccount]) -> None:
        """Ask each provider for an order that does not exist, and say in words what is wrong."""
        for account in accounts:
            said, level = self.try_row(request, account)
            self.message_user(request, said, level)

    def try_row(self, request: HttpRequest, row: MerchantAccount) -> tuple["_StrOrPromise", int]:
        """Ask the provider for an order that does not exist, and say in words what is wrong."""
        fault = _fault_of(row)
        about = {"account": f"{row.get_channel_display()} {row.merchant_id}", "fault": fault}
        log.info("merchant_settings_tried", account=row.pk, by=request.user.get_username(), fault=str(fault))
        self.log_change(request, row, str(_("The settings were tried.")))
        if fault:
            return _("%(account)s: %(fault)s.") % about, messages.ERROR
        return _("%(account)s: the provider answers, and takes these keys.") % about, messages.SUCCESS

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let the operator delete what no order names."""
        return self._on_platform and super().has_delete_permission(request, obj)


def _fault_of(account: MerchantAccount) -> "_StrOrPromise":
    """Return what is wrong with an account's settings, in words; empty if nothing is."""
    try:
        try_settings(account)
    except ProviderRefusedError as refusal:
        return _REFUSALS.get(refusal.code) or _("the provider refuses: %(code)s") % {"code": refusal.code}
    except PaymentError:
        return _("the provider does not answer, or its public key here is not the one that it signs with")
    return ""


class OrderAdmin(RefundingAdmin):
    """Purchases: nothing of them is edited; refunds are asked for from an order's page."""

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
        "refunded",
        "paid_at",
    )
    list_filter = ("state", "channel", "method", ("paid_at", DaysFilter))
    readonly_fields = ("refunded",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("out_trade_no", "transaction_id", "user__username", "user__phone", "user__email")
    ordering = ("-id",)  # they are numbered by their time

    def get_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        """Fetch the orders' refunds in one query."""
        rows: QuerySet[Order] = super().get_queryset(request)
        return rows.prefetch_related("refunds")


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


class BillAdmin(MoneyAdmin):
    """Providers' daily bills: what they collected and paid back. I11 holds their lines against the books."""

    list_display = (
        "day",
        "merchant_account",
        yuan_column("collected", _("collected")),
        yuan_column("refunded", _("paid back")),
        "not_ours",
        "fetched_at",
    )
    list_filter = ("merchant_account__channel",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "merchant_account")
    date_hierarchy = "day"
    ordering = ("-day", "-id")


class BillLineAdmin(MoneyAdmin):
    """What a bill says of one order."""

    list_display = ("id", "bill", "order_number", yuan_column("amount", _("amount")), "refund", "transaction_id")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "bill", "order", "refund")
    search_fields = ("order__out_trade_no", "transaction_id")
    ordering = ("-id",)

    @admin.display(description=_("order number"), ordering="order__out_trade_no")
    def order_number(self, row: BillLine) -> str:
        """Show which order the line is of."""
        return row.order.out_trade_no


register(Package, PackageAdmin)
register(MerchantAccount, MerchantAccountAdmin)
register(Order, OrderAdmin)
register(PaymentEvent, PaymentEventAdmin)
register(Bill, BillAdmin)
register(BillLine, BillLineAdmin)
