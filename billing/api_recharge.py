"""The JSON API of buying: packages, orders, and where payment providers tell of payments."""

import uuid
from datetime import datetime
from typing import Annotated, Any

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext_lazy as _
from ninja import Router, Schema
from pydantic import Field, PlainSerializer, ValidationInfo, field_validator

from billing import recharge
from billing.models import Channel, MerchantAccount, Method, Order, Package
from billing.payments import provider_of
from billing.payments.provider import NotificationRefusedError, PaymentError
from tenants import scope, throttle
from tenants.api import Envelope, Text, current_tenant, ok, signed_in, user_of
from tenants.errors import ErrorCode, ProductError
from tenants.models import Tenant
from tenants.resolve import host_name

log = structlog.get_logger(__name__)

router = Router(tags=["recharge"], auth=signed_in)
payments = Router(tags=["payments"])

# New orders of one user in an hour, and re-checks of one order in a minute: each asks the provider.
ORDERS_PER_HOUR = 30
RECHECKS_PER_MINUTE = 6

# A 64-bit integer does not fit into JavaScript's numbers.
Amount = Annotated[int, PlainSerializer(str, return_type=str)]


class PackageOut(Schema):
    """What can be bought; amounts in micro-yuan."""

    slug: str
    name: str
    price: Amount
    credits: Amount
    bonus: Amount
    badge: str
    limit_per_user: int


class OrderIn(Schema):
    """Which package or plan, and how it is to be paid."""

    package: Annotated[Text, Field(max_length=40)] = ""
    plan: Annotated[Text, Field(max_length=40, validate_default=True)] = ""
    channel: Channel
    method: Method

    @field_validator("plan")
    @classmethod
    def _one_of_two(cls, plan: str, others: ValidationInfo) -> str:
        """Want a package or a plan, not both."""
        if bool(plan) == bool(others.data.get("package")):
            raise ValueError("a package or a plan is wanted")
        return plan


class OrderOut(Schema):
    """An order as its user sees it; amounts in micro-yuan."""

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


class NewOrderOut(Schema):
    """An order, and what the client needs to pay it: `code_url`, `h5_url` or the arguments of `wx.requestPayment`."""

    order: OrderOut
    payment: dict[str, str]


@router.get("/packages", response=Envelope[list[PackageOut]])
def packages(request: HttpRequest) -> Any:  # noqa: ARG001  # ninja hands it over
    """Return what can be bought here."""
    return ok(list(Package.objects.filter(is_enabled=True).order_by("position", "price", "pk")))


@router.post("/orders", response=Envelope[NewOrderOut])
def create(request: HttpRequest, payload: OrderIn) -> Any:
    """Order a package or a plan; an open order of the same kind is given again."""
    user = user_of(request)
    throttle.count(what="order", who=f"{current_tenant(request).slug}:{user.pk}", limit=ORDERS_PER_HOUR, seconds=3600)
    purchase = recharge.Purchase(
        **payload.dict(),
        address=str(request.META.get("REMOTE_ADDR", "")),
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
    """Take a provider's notification; 2xx only for what was taken. Nobody is logged in: the signature says who it is.

    It answers for suspended tenants too, on any host: the money has been paid.
    """
    account = _enabled_account(slug, channel, account_id)
    if account is None:
        return JsonResponse({"code": "FAIL", "message": "no such account"}, status=404)
    try:
        event = recharge.take_callback(account=account, body=request.body, headers=request.headers)
    except NotificationRefusedError as refusal:
        log.warning("notification refused", tenant=slug, account=account.pk, why=str(refusal))
        return _reply(account, 401, "not accepted")
    return _reply(account, 200) if event.is_taken else _reply(account, 409, event.outcome)


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
