"""What users buy and how it was paid: packages, tenants' merchant accounts, orders, and what providers said of them.

Amounts are whole micro-yuan (¥1 = 1,000,000). `billing.recharge` alone writes orders, it and
`billing.refund` write events.
"""

import re
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, cast

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Mod, Now
from django.db.models.lookups import Exact
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from tenants.scope import SameTenant, TenantOwned
from tenants.secrets import EncryptedTextField

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

FEN: Final = 10_000  # what providers count in
MAX_PRICE: Final = 10**12  # a million yuan: more is a typing mistake


class Channel(models.TextChoices):
    """A payment provider."""

    WECHAT = "wechat", _("WeChat Pay")
    WECHAT_VIRTUAL = "wechat_virtual", _("WeChat virtual payment")
    ALIPAY = "alipay", _("Alipay")
    STRIPE = "stripe", _("Stripe")


class Method(models.TextChoices):
    """How the person pays: each needs something else from the provider."""

    NATIVE = "native", _("QR code")
    JSAPI = "jsapi", _("inside WeChat")
    H5 = "h5", _("mobile browser")
    VIRTUAL = "virtual", _("inside a mini-program")
    WAP = "wap", _("Alipay in a mobile browser")
    PAGE = "page", _("Alipay on a desktop")
    CHECKOUT = "checkout", _("Stripe's page")


# The ways of paying that each provider has.
METHODS: Final = {
    Channel.WECHAT: (Method.NATIVE, Method.JSAPI, Method.H5),
    Channel.WECHAT_VIRTUAL: (Method.VIRTUAL,),
    Channel.ALIPAY: (Method.WAP, Method.PAGE),
    Channel.STRIPE: (Method.CHECKOUT,),
}


class Goods(TenantOwned):
    """What a tenant has on sale: its name in links, its price, and to whom it is offered."""

    slug = models.SlugField(_("slug"), max_length=40)
    name = models.CharField(_("name"), max_length=80)
    price = models.BigIntegerField(_("price, micro-yuan"))
    badge = models.CharField(_("badge"), max_length=20, blank=True, default="")
    limit_per_user = models.PositiveIntegerField(_("times per user, 0 for any"), default=0)
    position = models.IntegerField(_("position"), default=0)
    virtual_product_id = models.CharField(
        _("product at WeChat"),
        max_length=64,
        blank=True,
        default="",
        validators=[RegexValidator(r"\A[A-Za-z0-9_-]+\Z", _("Letters, digits, dashes and underscores only."))],
        help_text=_("For virtual payment: the id of the product, registered with WeChat for exactly this price."),
    )
    is_enabled = models.BooleanField(_("on sale"), default=True)

    class Meta(TenantOwned.Meta):
        abstract = True
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "slug"], name="billing_%(class)s_slug"),
            models.CheckConstraint(
                condition=Q(price__gte=FEN, price__lte=MAX_PRICE),
                name="billing_%(class)s_price",
                violation_error_message=_("A price is between ¥0.01 and ¥1,000,000."),
            ),
            models.CheckConstraint(
                condition=Exact(Mod("price", Value(FEN)), 0),  # no provider could collect parts of a fen
                name="billing_%(class)s_fen",
                violation_error_message=_("A price is in whole fen, that is 10,000 micro-yuan."),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Package(Goods):
    """What a user can buy: `credits` go to the balance, `bonus` to the gift balance."""

    credits = models.BigIntegerField(_("balance bought, micro-yuan"))
    bonus = models.BigIntegerField(_("bonus, micro-yuan"), default=0)

    class Meta(Goods.Meta):
        abstract = False
        verbose_name = _("package")
        verbose_name_plural = _("packages")
        constraints: ClassVar = [
            *Goods.Meta.constraints,
            models.CheckConstraint(
                condition=Q(credits__gte=1, credits__lte=MAX_PRICE, bonus__gte=0, bonus__lte=MAX_PRICE),
                name="billing_package_amounts",
                violation_error_message=_("The balance is at least 1 micro-yuan, the bonus at least 0."),
            ),
        ]


class Form(NamedTuple):
    """What a field of a merchant account has to look like at one provider; `wanted` says it to a person."""

    pattern: str
    wanted: "_StrPromise"


_ANYTHING: Final = r"(?s).+"
_NEEDED: Final = _("This is needed for this channel.")

# What a merchant account needs for each channel. Whether a key opens anything only the provider can tell.
NEEDED: Final[dict[str, dict[str, Form]]] = {
    Channel.WECHAT: {
        "merchant_id": Form(r"\d{1,32}", _("The merchant id of WeChat Pay is digits only, such as 1900000001.")),
        "app_id": Form(r"wx[0-9a-zA-Z]{8,30}", _("An app id such as wx1234567890abcdef is wanted.")),
        "certificate_serial": Form(r"[0-9a-fA-F]{1,64}", _("The serial number of the certificate is wanted, in hex.")),
        "private_key": Form(_ANYTHING, _NEEDED),
        "api_v3_key": Form(r".{32}", _("The API v3 key has 32 characters.")),
    },
    Channel.WECHAT_VIRTUAL: {
        "merchant_id": Form(r"\d{1,32}", _("The offer id of virtual payment is digits only.")),
        "app_id": Form(r"wx[0-9a-zA-Z]{8,30}", _("An app id such as wx1234567890abcdef is wanted.")),
        "message_token": Form(_ANYTHING, _NEEDED),
    },
    Channel.ALIPAY: {
        "merchant_id": Form(r"2088\d{12}", _("The merchant id of Alipay is 16 digits that begin with 2088.")),
        "app_id": Form(r"\d{16}", _("The app id of Alipay is 16 digits.")),
        "private_key": Form(_ANYTHING, _NEEDED),
        "platform_public_key": Form(_ANYTHING, _("Alipay's public key is needed, which is not the app's.")),
    },
    Channel.STRIPE: {
        "merchant_id": Form(r"acct_[0-9A-Za-z]{1,50}", _("The account id of Stripe begins with acct_.")),
        "app_id": Form("", _("Stripe has no app id: leave this empty.")),
        "secret_key": Form(r"(sk|rk)_(test|live)_\w{1,200}", _("The secret key of Stripe begins with sk_ or rk_.")),
        "webhook_secret": Form(r"whsec_\S{1,200}", _("The signing secret of Stripe's webhook begins with whsec_.")),
    },
}


class MerchantAccount(TenantOwned):
    """A tenant's account with a payment provider; read at each use, so a change needs no restart.

    Which of its fields a channel uses is in `NEEDED`: `merchant_id` is Alipay's seller id and Stripe's account id.

    WeChat Pay signs with a public key of its own (`platform_key_id`), or with a platform certificate, or with both by
    turns while a merchant changes over: either kind is looked up by the id that came with the signature.

    WeChat virtual payment has its offer id for a merchant id, an app key for each environment, and the token and the
    key of the mini-program's message push.
    """

    class Environment(models.TextChoices):
        """Where virtual payment's money is: what is paid in the sandbox is none."""

        PRODUCTION = "production", _("production")
        SANDBOX = "sandbox", _("sandbox")

    channel = models.CharField(_("channel"), max_length=20, choices=Channel.choices)
    merchant_id = models.CharField(_("merchant id"), max_length=64)
    app_id = models.CharField(_("app id"), max_length=32, blank=True, default="")
    certificate_serial = models.CharField(
        _("serial number of the merchant's certificate"), max_length=64, blank=True, default=""
    )
    private_key = EncryptedTextField(_("merchant's private key"), blank=True, default="")
    api_v3_key = EncryptedTextField(_("API v3 key"), blank=True, default="")
    secret_key = EncryptedTextField(_("secret key"), blank=True, default="")
    webhook_secret = EncryptedTextField(_("webhook's signing secret"), blank=True, default="")
    platform_key_id = models.CharField(_("id of the platform's public key"), max_length=64, blank=True, default="")
    platform_public_key = models.TextField(_("platform's public key"), blank=True, default="")
    platform_certificates = models.TextField(_("platform's certificates"), blank=True, default="")
    environment = models.CharField(
        _("environment"),
        max_length=10,
        choices=Environment.choices,
        default=Environment.PRODUCTION,
        help_text=_("Virtual payment only. Balance bought in the sandbox is real and the money is not: for tests."),
    )
    app_key = EncryptedTextField(_("app key"), blank=True, default="")
    sandbox_app_key = EncryptedTextField(_("app key of the sandbox"), blank=True, default="")
    message_token = EncryptedTextField(_("token of the message push"), blank=True, default="")
    message_key = EncryptedTextField(_("EncodingAESKey of the message push"), blank=True, default="")
    is_enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("merchant account")
        verbose_name_plural = _("merchant accounts")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["tenant", "channel", "merchant_id", "app_id"], name="billing_merchantaccount_once"
            ),
        ]

    def clean(self) -> None:
        """Say of each field what this account's channel wants there."""
        forms = NEEDED.get(self.channel, {})
        wrong = {
            name: form.wanted for name, form in forms.items() if not re.fullmatch(form.pattern, getattr(self, name))
        }
        if self.channel == Channel.WECHAT and not (self.platform_public_key or self.platform_certificates):
            wrong["platform_public_key"] = _("The platform's public key or its certificates are needed.")
        if wrong:
            raise ValidationError(dict(wrong))


class Order(TenantOwned):
    """One purchase, of a package or of a plan. What was sold, for how much and to which merchant is a copy.

    So later edits change nothing. `plan_terms` is what a plan's order brings: its days and allowances, empty for a
    package. A trigger (migration 0005) keeps a paid order paid.
    """

    class State(models.TextChoices):
        """A closed order may still be paid: the money is then credited all the same."""

        PENDING = "pending", _("waiting for payment")
        PAID = "paid", _("paid")
        CLOSED = "closed", _("closed")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    out_trade_no = models.CharField(_("order number"), max_length=32)
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    package = models.ForeignKey(
        Package,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("package"),
    )
    plan = models.ForeignKey(
        "billing.Plan",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("plan"),
    )
    plan_terms = models.JSONField(_("plan's terms"), default=dict, blank=True)
    package_name = models.CharField(_("name of what was sold"), max_length=80)
    price = models.BigIntegerField(_("price, micro-yuan"))
    credits = models.BigIntegerField(_("balance bought, micro-yuan"))
    bonus = models.BigIntegerField(_("bonus, micro-yuan"))
    merchant_account = models.ForeignKey(
        MerchantAccount,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("merchant account"),
    )
    channel = models.CharField(_("channel"), max_length=20, choices=Channel.choices)
    method = models.CharField(_("way of paying"), max_length=10, choices=Method.choices)
    merchant_id = models.CharField(_("merchant id"), max_length=64)
    app_id = models.CharField(_("app id"), max_length=32, blank=True)
    provider_ref = models.CharField(_("provider's name of the order"), max_length=120, blank=True, default="")
    payer_openid = models.CharField(_("payer's open id"), max_length=64, blank=True, default="", editable=False)
    state = models.CharField(_("state"), max_length=7, choices=State.choices, default=State.PENDING)
    transaction_id = models.CharField(_("provider's number"), max_length=64, blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    expires_at = models.DateTimeField(_("expires"))
    paid_at = models.DateTimeField(_("paid at"), null=True, blank=True)
    closed_at = models.DateTimeField(_("closed at"), null=True, blank=True)
    next_poll_at = models.DateTimeField(_("asked for next"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_order_user_fk"),
            SameTenant(field="package", name="billing_order_package_fk"),
            SameTenant(field="plan", name="billing_order_plan_fk"),
            SameTenant(field="merchant_account", name="billing_order_merchant_fk"),
            models.UniqueConstraint(fields=["tenant", "out_trade_no"], name="billing_order_number"),
            # A payment pays one order.
            models.UniqueConstraint(
                fields=["tenant", "channel", "merchant_id", "transaction_id"],
                condition=~Q(transaction_id=""),
                name="billing_order_transaction",
            ),
            # A plan fills no balance: what a package brings for its price has nothing to do with it.
            models.CheckConstraint(
                condition=Q(price__gte=FEN)
                & (
                    Q(package__isnull=False, plan__isnull=True, credits__gte=1, bonus__gte=0, plan_terms={})
                    | (Q(package__isnull=True, plan__isnull=False, credits=0, bonus=0) & ~Q(plan_terms={}))
                ),
                name="billing_order_amounts",
            ),
            models.CheckConstraint(
                condition=(Q(state="paid", paid_at__isnull=False) & ~Q(transaction_id=""))
                | Q(state="pending", paid_at__isnull=True, closed_at__isnull=True, transaction_id="")
                | Q(state="closed", paid_at__isnull=True, closed_at__isnull=False, transaction_id=""),
                name="billing_order_state",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "user", "package"], name="billing_order_user"),
            models.Index(fields=["tenant", "user", "plan"], name="billing_order_user_plan"),
            # The dashboard adds up what was paid from here alone.
            models.Index(
                fields=["tenant", "paid_at"], include=["price"], condition=Q(state="paid"), name="billing_order_paid"
            ),
            # For the sweep over all tenants; as small as what is open.
            models.Index(fields=["next_poll_at"], condition=Q(state="pending"), name="billing_order_open"),
        ]

    @property
    def goods(self) -> Goods:
        """What was sold, as it is now: a package or a plan, never both (a constraint)."""
        return cast("Goods", self.plan or self.package)

    @property
    def clearing_channel(self) -> str:
        """The ledger's clearing account of this merchant, which the provider's bill is compared with."""
        return f"{self.channel}:{self.merchant_id}"


class PaymentEvent(TenantOwned):
    """What a provider truly said, once for each of its event ids: the answer to a replay."""

    class Outcome(models.TextChoices):
        """What came of it; the provider need not repeat the first five."""

        CREDITED = "credited", _("credited")
        REPEATED = "repeated", _("known already")
        REFUNDED = "refunded", _("refunded")
        RETURNED = "returned", _("refund failed, returned to the user")
        UNDER_WAY = "under_way", _("refund under way")
        UNKNOWN_ORDER = "unknown_order", _("no such order")
        OTHER_MERCHANT = "other_merchant", _("another merchant's or app's")
        OTHER_AMOUNT = "other_amount", _("another amount or currency")
        OTHER_TRANSACTION = "other_transaction", _("another payment, or another order's")
        UNKNOWN_REFUND = "unknown_refund", _("no such refund")
        OTHER_END = "other_end", _("another end of the refund than before")

    merchant_account = models.ForeignKey(
        MerchantAccount,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("merchant account"),
    )
    order = models.ForeignKey(
        Order,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("order"),
    )
    event_id = models.CharField(_("provider's event"), max_length=80)
    body_digest = models.CharField(_("digest of the message"), max_length=64)
    outcome = models.CharField(_("outcome"), max_length=20, choices=Outcome.choices)
    received_at = models.DateTimeField(_("received"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("payment event")
        verbose_name_plural = _("payment events")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="merchant_account", name="billing_paymentevent_merchant_fk"),
            SameTenant(field="order", name="billing_paymentevent_order_fk"),
            models.UniqueConstraint(
                fields=["tenant", "merchant_account", "event_id"], name="billing_paymentevent_once"
            ),
            models.CheckConstraint(condition=Q(body_digest__regex=r"^[0-9a-f]{64}$"), name="billing_paymentevent_hash"),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "order"], name="billing_paymentevent_order")]

    @property
    def is_taken(self) -> bool:
        """Whether the provider may be told that it need not send it again."""
        return self.outcome in TAKEN


TAKEN: Final = frozenset(
    {
        PaymentEvent.Outcome.CREDITED,
        PaymentEvent.Outcome.REPEATED,
        PaymentEvent.Outcome.REFUNDED,
        PaymentEvent.Outcome.RETURNED,
        PaymentEvent.Outcome.UNDER_WAY,
    }
)
