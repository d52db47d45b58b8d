"""The JSON API of buying: packages, orders, and where payment providers tell of payments and refunds."""

import uuid
from datetime import datetime
from typing import Annotated, Any

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext_lazy as _
from ninja import Router, Schema
from pydantic import Field, ValidationInfo, field_validator

from billing import callbacks, recharge
from billing.for_sale import ForSale, Platform, Version, nothing_for_sale
from billing.models import Channel, MerchantAccount, Method, Order, Package, Refund
from billing.payments import provider_of
from billing.payments.provider import NotificationIgnoredError, NotificationRefusedError, PaymentError, ProvesAddress
from tenants import compliance, scope, throttle
from tenants.api import Amount, Envelope, Text, current_tenant, ok, signed_in, user_of
from tenants.errors import ErrorCode, ProductError
from tenants.models import Tenant
from tenants.resolve import app_id_of_referer, host_name

log = structlog.get_logger(__name__)

router = Router(tags=["recharge"], auth=signed_in)
payments = Router(tags=["payments"])

# New orders of one user in an hour, and re-checks of one order in a minute: each asks the provider.
ORDERS_PER_HOUR = 30
RECHECKS_PER_MINUTE = 6


class PackageOut(Schema):
    """What can be bought; amounts in micro-yuan."""

    slug: str
    name: str
    price: Amount
    credits: Amount
    bonus: Amount
    badge: str
    limit_per_user: int
    virtual: bool

    @staticmethod
    def resolve_virtual(package: Package) -> bool:
        """Say whether it can be bought by virtual payment."""
        return bool(package.virtual_product_id)


class WayToPayOut(Schema):
    """A channel that is offered, the ways of paying there, and what a package must cost at least, in micro-yuan."""

    channel: str
    methods: list[str]
    minimum: Amount


class OrderIn(Schema):
    """Which package or plan, and how it is to be paid: each channel has ways of its own (`billing.models.METHODS`)."""

    package: Annotated[Text, Field(max_length=40)] = ""
    plan: Annotated[Text, Field(max_length=40, validate_default=True)] = ""
    channel: Channel
    method: Method
    platform: Platform = ""
    version: Version = ""

    @field_validator("plan")
    @classmethod
    def _one_of_two(cls, plan: str, others: ValidationInfo) -> str:
        """Want a package or a plan, not both."""
        if bool(plan) == bool(others.data.get("package")):
            raise ValueError("a package or a plan is wanted")
        return plan


class RefundOut(Schema):
    """A refund as its user sees it; `amount` in micro-yuan."""

    amount: Amount
    state: str
    created_at: datetime
    ended_at: datetime | None


class OrderOut(Schema):
    """An order as its user sees it; amounts in micro-yuan. `refunded` is what went back, or is on its way."""

    id: uuid.UUID
    name: str = Field(alias="package_name")
    price: Amount
    credits: Amount
    bonus: Amount
    channel: str
    method: str
    state: str
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    refunded: Amount
    refunds: list[RefundOut]

    @staticmethod
    def resolve_refunds(order: Order) -> list[Refund]:
        """Return the order's refunds, the oldest first."""
        return list(order.refunds.order_by("created_at", "pk"))

    @staticmethod
    def resolve_refunded(order: Order) -> int:
        """Add up what was refunded, micro-yuan."""
        return sum(row.amount for row in order.refunds.all() if row.state != Refund.State.FAILED)


class NewOrderOut(Schema):
    """An order, and what the client needs to pay it.

    That is `code_url`, `h5_url` or the arguments of WeChat's own call for WeChat Pay and virtual payment, `pay_url` for
    Alipay and `checkout_url` for Stripe; a browser opens either and comes back to `/pay/done?order=…`.
    """

    order: OrderOut
    payment: dict[str, str]


@router.get("/packages", response=ForSale[list[PackageOut]], exclude_unset=True)
def packages(request: HttpRequest, platform: Platform = "", version: Version = "") -> Any:
    """Return what can be bought here."""
    if hidden := nothing_for_sale(request, platform=platform, version=version):
        return hidden
    return ok(list(Package.objects.filter(is_enabled=True).order_by("position", "price", "pk")))


@router.get("/channels", response=ForSale[list[WayToPayOut]], exclude_unset=True)
def channels(request: HttpRequest, platform: Platform = "", version: Version = "") -> Any:
    """Return the ways of paying that are offered here, the default first."""
    if hidden := nothing_for_sale(request, platform=platform, version=version):
        return hidden
    tenant = Tenant.objects.get(pk=current_tenant(request).pk)  # not as it was remembered
    return ok(recharge.ways_to_pay(tenant=tenant, app_id=_mini_program(request), platform=platform))


@router.post("/orders", response=Envelope[NewOrderOut])
def create(request: HttpRequest, payload: OrderIn) -> Any:
    """Order a package or a plan; an open order of the same kind is given again."""
    user = user_of(request)
    client = compliance.client_of(request, platform=payload.platform, version=payload.version)
    compliance.require_purchases(current_tenant(request), client)
    throttle.count(what="order", who=f"{current_tenant(request).slug}:{user.pk}", limit=ORDERS_PER_HOUR, seconds=3600)
    purchase = recharge.Purchase(
        **payload.dict(exclude={"version"}),
        address=str(request.META.get("REMOTE_ADDR", "")),
        app_id=_mini_program(request),
        # Providers call by HTTPS only; the host is one that answers here, as tenants.middleware has seen to.
        notify_base=f"https://{host_name(request.get_host())}",
    )
    order, payment = recharge.create_order(user=user, purchase=purchase)
    return ok({"order": order, "payment": payment})


@router.get("/orders/{order_id}", response=Envelope[OrderOut])
def order(request: HttpRequest, order_id: str) -> Any:
    """Return one of the user's own orders."""
    return ok(_mine(request, order_id))


@router.post("/orders/{order_id}/recheck", response=Envelope[OrderOut])
def recheck(request: HttpRequest, order_id: str) -> Any:
    """Ask the provider about an order, for the one who has paid and sees no credit; return the order."""
    found = _mine(request, order_id)
    if found.state != Order.State.PAID:
        throttle.count(what="recheck", who=str(found.pk), limit=RECHECKS_PER_MINUTE, seconds=60)
        try:
            recharge.check_order(found)
        except PaymentError as fault:
            log.warning("order not checked", order=str(found.pk), fault=str(fault))
            raise recharge.unavailable() from None
    return ok(_mine(request, order_id))


@payments.post("/{slug}/{channel}/{account_id}/notify")
def notify(request: HttpRequest, slug: str, channel: str, account_id: str) -> HttpResponse:
    """Take a provider's notification. Nobody is logged in: the signature says who it is.

    2xx only for what was taken, and for what is believed and none of our books' business, such as a new customer.
    It answers for suspended tenants too, on any host: the money has been paid.
    """
    account = _enabled_account(slug, channel, account_id)
    if account is None:
        return _no_account()
    try:
        event = callbacks.take_callback(
            account=account, body=request.body, headers=request.headers, query=request.GET.dict()
        )
    except NotificationRefusedError as refusal:
        log.warning("notification refused", tenant=slug, account=account.pk, why=str(refusal))
        return _reply(account, 401, "not accepted")
    except NotificationIgnoredError as news:
        log.info("notification ignored", tenant=slug, account=account.pk, why=str(news))
        return _reply(account, 200)
    except PaymentError as fault:
        log.warning("notification not settled", tenant=slug, account=account.pk, why=str(fault))
        return _reply(account, 503, "come again")
    return _reply(account, 200) if event is None or event.is_taken else _reply(account, 409, event.outcome)


@payments.get("/{slug}/{channel}/{account_id}/notify")
def prove_address(request: HttpRequest, slug: str, channel: str, account_id: str) -> HttpResponse:
    """Prove to a provider that asks for it that the address is ours, by what only the two of us know."""
    account = _enabled_account(slug, channel, account_id)
    if account is None:
        return _no_account()
    provider = provider_of(account)
    if not isinstance(provider, ProvesAddress):
        return _no_account()
    try:
        return HttpResponse(provider.prove_address(request.GET.dict()), content_type="text/plain; charset=utf-8")
    except NotificationRefusedError as refusal:
        log.warning("address not proved", tenant=slug, account=account_id, why=str(refusal))
        return _reply(account, 401, "not accepted")


def _no_account() -> HttpResponse:
    return JsonResponse({"code": "FAIL", "message": "no such account"}, status=404)


def _mini_program(request: HttpRequest) -> str:
    """Return the app id of the mini-program that asks; empty for a browser."""
    return request.GET.get("appid") or app_id_of_referer(request.headers.get("Referer")) or ""


def _reply(account: MerchantAccount, status: int, why: str = "") -> HttpResponse:
    said = provider_of(account).reply(status=status, why=why)
    return HttpResponse(said.body, status=said.status, content_type=said.content_type)


def _enabled_account(slug: str, channel: str, account_id: str) -> MerchantAccount | None:
    tenant = Tenant.objects.filter(slug=slug).first() if "\x00" not in slug else None
    if tenant is None or not (account_id.isascii() and account_id.isdigit() and len(account_id) < 19):  # noqa: PLR2004  # fits a BIGINT
        return None
    with scope.tenant(tenant.pk):
        enabled = MerchantAccount.objects.filter(is_enabled=True, channel=channel.replace("\x00", ""))
        return enabled.filter(pk=int(account_id)).first()


def _mine(request: HttpRequest, order_id: str) -> Order:
    user = user_of(request)
    try:
        found = Order.objects.select_related("merchant_account").filter(user=user, pk=uuid.UUID(order_id)).first()
    except ValueError:
        found = None
    if found is None:
        raise ProductError(ErrorCode.NOT_FOUND, _("There is no such order."), type="order_not_found")
    return found
