"""A tenant that sells a package, beside it the double of its payment provider; each test ends with an audit.

`till` sells over WeChat Pay, for what is its own; `counter` over each channel in turn, for what all have to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
import pytest
from cryptography.fernet import Fernet
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from billing import audit, holds, ledger, recharge, refund, usage
from billing.models import Account, MerchantAccount, Order, Package, PaymentEvent, Refund
from billing.tests.payments.desks import DESKS, Desk, Message, WeChatDesk, wechat_desk
from tenants import login, resolve, scope
from tenants import wechat as wechat_api
from tenants.models import EndUser, Tenant
from tests.doubles.wechatpay import Merchant, WeChatPayDouble, pem, public_pem
from tests.doubles.xpay import Offer, VirtualOrder, XPayDouble, running_xpay
from tests.factories import (
    YUAN,
    fill_wallet,
    hold_request,
    host_of,
    make_mini_program,
    make_sku,
    make_tenant,
    make_token,
    make_user,
    unique,
)

PRICE, CREDITS, BONUS = 10 * YUAN, 10 * YUAN, 2 * YUAN

_numbers = count(1_900_000_001)


def open_account(tenant: Tenant, merchant: Merchant, **fields: Any) -> MerchantAccount:
    """Let a tenant collect on a merchant's account, by the platform's public key."""
    with scope.tenant(tenant.pk):
        return MerchantAccount.objects.create(
            **{
                "tenant": tenant,
                "channel": "wechat",
                "merchant_id": merchant.merchant_id,
                "app_id": merchant.app_id,
                "certificate_serial": merchant.serial,
                "private_key": pem(merchant.key),
                "api_v3_key": merchant.api_v3_key,
                "platform_key_id": merchant.platform_key_id,
                "platform_public_key": public_pem(merchant.platform_key),
                **fields,
            }
        )


def open_package(tenant: Tenant, **fields: Any) -> Package:
    """Sell ¥10 with a bonus of ¥2, for ¥10."""
    values = {"slug": unique("pack"), "name": "十元", "price": PRICE, "credits": CREDITS, "bonus": BONUS, **fields}
    with scope.tenant(tenant.pk):
        return Package.objects.create(tenant=tenant, **values)


@dataclass(kw_only=True)
class Counter:
    """A tenant's way to sell, and its first buyer."""

    desk: Desk
    tenant: Tenant
    user: EndUser
    token: str
    account: MerchantAccount
    package: Package
    client: Client = field(default_factory=Client)

    def api(self, method: str, path: str, body: Any = None, *, token: str = "") -> tuple[int, dict[str, Any]]:
        """Call the JSON API as the buyer; return the status and the answer."""
        headers = {"host": host_of(self.tenant), "authorization": f"Bearer {token or self.token}"}
        answer = self.client.generic(
            method,
            path,
            data=b"" if body is None else orjson.dumps(body),
            content_type="application/json",
            headers=headers,
        )
        return answer.status_code, answer.json()

    def buy(self, *, method: str = "", package: Package | None = None, token: str = "") -> dict[str, Any]:
        """Order a package; return the order and the payment."""
        body = {
            "package": (package or self.package).slug,
            "channel": self.desk.channel,
            "method": method or self.desk.method,
        }
        status, said = self.api("POST", "/api/billing/orders", body, token=token)
        assert status == 200, said
        return dict(said["data"])

    def number(self, bought: dict[str, Any]) -> str:
        """Return a bought order's number at the provider."""
        return str(bought["order"]["id"]).replace("-", "")

    def paid(self) -> str:
        """Buy and pay; return the order's number."""
        bought = self.buy()
        number = self.number(bought)
        self.desk.show(number, bought["payment"])
        self.desk.pay(number)
        return number

    def deliver(self, message: Message, *, to: "Counter | None" = None) -> tuple[int, Any]:
        """Bring a notification to the address that a tenant gave the provider, on a host that is nobody's."""
        till = to or self
        path = recharge.notify_path(tenant=till.tenant, account=till.account)
        raw, headers = message
        kind = headers.get("Content-Type", "application/json")
        answer = Client().post(path, raw, content_type=kind, headers={"host": "pay.test", **headers})
        is_json = answer["Content-Type"].startswith("application/json")
        return answer.status_code, answer.json() if is_json else answer.content.decode()

    def order(self, number: str) -> Order:
        """Return an order as it is now."""
        with scope.tenant(self.tenant.pk):
            return Order.objects.get(out_trade_no=number)

    def states(self) -> list[str]:
        """Return the states of all orders, the oldest first."""
        with scope.tenant(self.tenant.pk):
            return list(Order.objects.order_by("created_at").values_list("state", flat=True))

    def events(self) -> list[str]:
        """Return what came of what the provider said."""
        with scope.tenant(self.tenant.pk):
            return list(PaymentEvent.objects.order_by("pk").values_list("outcome", flat=True))

    def books(self) -> dict[str, int]:
        """Return every account of the tenant that is not empty."""
        with scope.tenant(self.tenant.pk):
            rows = Account.objects.exclude(posted=0)
            return {f"{row.kind}:{row.channel}".rstrip(":"): row.posted for row in rows}

    def bought(self, times: int = 1) -> dict[str, int]:
        """Return what the books say after the package was bought so many times."""
        sums = {
            f"psp_clearing:{self.desk.channel}:{self.account.merchant_id}": -PRICE,
            "user_cash": CREDITS,
            "psp_clearing:gift": -BONUS,
            "user_gift": BONUS,
        }
        return {name: amount * times for name, amount in sums.items()}

    def balances(self) -> ledger.Balances:
        return ledger.balances(tenant_id=self.tenant.pk, user_id=self.user.pk)

    def refund(self, order: Order, amount: int, **fields: Any) -> Refund:
        """Refund a part of an order as staff does."""
        asked = {"kind": "provider", "reason": "not wanted", "actor": "test", **fields}
        return refund.request_refund(tenant_id=self.tenant.pk, order_id=order.pk, amount=amount, **asked)

    def refunds(self) -> list[tuple[int, str]]:
        """Return amount and state of every refund, the oldest first."""
        with scope.tenant(self.tenant.pk):
            return list(Refund.objects.order_by("created_at", "pk").values_list("amount", "state"))

    def refund_due(self) -> None:
        """Let every refund under way be asked for now."""
        with scope.tenant(self.tenant.pk):
            Refund.objects.filter(state="requested").update(next_poll_at=Now())

    def spend(self, amount: int) -> None:
        """Let the user use up an amount, gift first, as an answer does."""
        sku = make_sku(self.tenant, retail=(YUAN, YUAN, 1_000_000 * YUAN))
        fill_wallet(self.tenant)
        asked = {"prompt_tokens": 0, "max_completion_tokens": amount // YUAN, "min_completion_tokens": 1}
        hold = holds.admit(hold_request(self.user, sku, **asked))
        used = holds.Usage(prompt=0, completion=amount // YUAN, source="upstream")
        holds.settle(tenant_id=self.tenant.pk, hold_id=hold.pk, usage=used, reason="stop")
        usage.record(tenant_id=self.tenant.pk, hold_id=hold.pk)

    def let_pass(self, number: str, seconds: int) -> None:
        """Move an order into the past."""
        past = timedelta(seconds=seconds)
        order = self.order(number)
        with scope.tenant(self.tenant.pk):
            Order.objects.filter(pk=order.pk).update(
                created_at=order.created_at - past,
                expires_at=order.expires_at - past,
                next_poll_at=order.next_poll_at - past,
            )

    def close(self, number: str) -> None:
        """Close an order as its expiry does, without the provider."""
        with scope.tenant(self.tenant.pk):
            Order.objects.filter(out_trade_no=number).update(state="closed", closed_at=Now())


@dataclass(kw_only=True)
class Till(Counter):
    """One over WeChat Pay."""

    wechat: WeChatPayDouble
    merchant: Merchant

    def sold(self, **package: Any) -> Order:
        """Sell a package, the usual one unless told otherwise, and bring the payment; return the order."""
        number = self.number(self.buy(package=open_package(self.tenant, **package) if package else None))
        self.wechat.pay(number)
        assert self.deliver(self.wechat.notification(number))[0] == 200
        return self.order(number)


def open_counter(desk: Desk, fields: dict[str, str] | None = None) -> Counter:
    """Open a tenant that sells; with a merchant of its own unless one's fields are given."""
    tenant = make_tenant()
    user = make_user(tenant)
    with scope.tenant(tenant.pk):
        fields = fields or desk.open()
        account = MerchantAccount.objects.create(tenant=tenant, channel=desk.channel, **fields)
    return Counter(
        desk=desk,
        tenant=tenant,
        user=user,
        token=make_token(user),
        account=account,
        package=open_package(tenant),
    )


def open_till(wechat: WeChatPayDouble, *, merchant: Merchant | None = None) -> Till:
    """Open a tenant that sells; with a merchant of its own unless one is given."""
    tenant = make_tenant()
    if merchant is None:
        merchant = Merchant(merchant_id=str(next(_numbers)), app_id=f"wx{unique('a')[2:]}0000")
    wechat.merchants[merchant.merchant_id] = merchant
    user = make_user(tenant)
    return Till(
        desk=WeChatDesk(wechat),
        wechat=wechat,
        tenant=tenant,
        user=user,
        token=make_token(user),
        merchant=merchant,
        account=open_account(tenant, merchant),
        package=open_package(tenant),
    )


@dataclass(kw_only=True)
class VirtualTill(Till):
    """A mini-program that sells by virtual payment, and a buyer who has logged in there."""

    xpay: XPayDouble
    offer: Offer
    openid: str

    def log_in(self) -> None:
        """Log the buyer in, as `wx.login` and our log-in do."""
        code = self.xpay.wx_login(app_id=self.offer.app_id, openid=self.openid)
        with scope.tenant(self.tenant.pk):
            login.log_in_with_wechat(
                tenant=self.tenant, app_id=self.offer.app_id, code=code, client=wechat_api.client_for(self.xpay.url)
            )

    def ask(self, **changes: str) -> tuple[int, dict[str, Any]]:
        """Order the package, and return whatever comes."""
        body = {"package": self.package.slug, "channel": "wechat_virtual", "method": "virtual", **changes}
        return self.api("POST", "/api/billing/orders", body)

    def open(self, **changes: str) -> str:
        """Order the package and open the payment on the phone; return the order's number."""
        status, said = self.ask(**changes)
        assert status == 200, said
        opened = self.xpay.open_payment(said["data"]["payment"], app_id=self.offer.app_id, openid=self.openid)
        assert opened == "ok"
        return self.number(said["data"])

    def paid(self, *, with_apple: bool = False) -> str:
        """Order and pay; return the order's number."""
        number = self.open()
        self.xpay.pay(number, with_apple=with_apple)
        return number

    def send(self, said: dict[str, Any], *, to: "VirtualTill | None" = None, **push: Any) -> tuple[int, str]:
        """Bring a message to the address that the mini-program's push was given."""
        query, body = self.xpay.push(said, offer=self.offer, **push)
        return self.post(query, body, to=to)

    def post(self, query: str, body: bytes, *, to: "VirtualTill | None" = None) -> tuple[int, str]:
        """Bring bytes there."""
        till = to or self
        path = recharge.notify_path(tenant=till.tenant, account=till.account)
        answer = Client().post(f"{path}?{query}", body, content_type="text/xml", headers={"host": "pay.test"})
        return answer.status_code, answer.content.decode()

    def at_wechat(self, number: str) -> VirtualOrder:
        """Return an order as WeChat has it."""
        return self.xpay.orders[number]

    def change(self, **fields: Any) -> None:
        """Change the merchant account."""
        with scope.tenant(self.tenant.pk):
            MerchantAccount.objects.filter(pk=self.account.pk).update(**fields)
            self.account.refresh_from_db()

    def bought(self, times: int = 1) -> dict[str, int]:
        """Return what the books say after the package was bought so many times."""
        sums = {
            f"psp_clearing:wechat_virtual:{self.offer.offer_id}": -PRICE,
            "user_cash": CREDITS,
            "psp_clearing:gift": -BONUS,
            "user_gift": BONUS,
        }
        return {name: amount * times for name, amount in sums.items()}


def open_virtual(xpay: XPayDouble, *, environment: str = "production") -> VirtualTill:
    """Open a tenant that sells in its mini-program, to a buyer who has just logged in there."""
    tenant = make_tenant()
    program = make_mini_program(tenant, secret="app-secret-of-the-mini-program")
    xpay.secrets[program.app_id] = program.secret
    offer = Offer(app_id=program.app_id, offer_id=str(next(_numbers)), products={"ten": PRICE // 10_000})
    xpay.offers[program.app_id] = offer
    merchant = Merchant(merchant_id=offer.offer_id, app_id=program.app_id)
    account = open_account(
        tenant,
        merchant,
        channel="wechat_virtual",
        certificate_serial="",
        private_key="",
        api_v3_key="",
        platform_key_id="",
        platform_public_key="",
        environment=environment,
        app_key=offer.app_keys[0],
        sandbox_app_key=offer.app_keys[1],
        message_token=offer.message_token,
        message_key=offer.message_key,
    )
    package = open_package(tenant, virtual_product_id="ten")
    openid = unique("o")
    code = xpay.wx_login(app_id=program.app_id, openid=openid)
    with scope.tenant(tenant.pk):
        user = login.log_in_with_wechat(
            tenant=tenant, app_id=program.app_id, code=code, client=wechat_api.client_for(xpay.url)
        )
    wechat = WeChatPayDouble()
    return VirtualTill(
        desk=WeChatDesk(wechat),
        wechat=wechat,
        tenant=tenant,
        user=user,
        token=make_token(user),
        merchant=merchant,
        account=account,
        package=package,
        xpay=xpay,
        offer=offer,
        openid=openid,
    )


AnyCounter = TypeVar("AnyCounter", bound=Counter)


@contextmanager
def audited(till: AnyCounter) -> Iterator[AnyCounter]:
    """Whatever a test did there, the books are right at its end."""
    yield till
    assert audit.audit_tenant(tenant_id=till.tenant.pk) == []


@pytest.fixture
def encryption(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def wechat(settings: Settings, encryption: None) -> Iterator[WeChatPayDouble]:
    resolve.forget()
    with wechat_desk(settings) as opened:
        yield opened.double


@pytest.fixture(params=list(DESKS))
def desk(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Desk]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    resolve.forget()
    with DESKS[request.param](settings) as opened:
        yield opened


@pytest.fixture
def counter(db: None, desk: Desk) -> Iterator[Counter]:
    with audited(open_counter(desk)) as opened:
        yield opened


@pytest.fixture
def other_counter(db: None, desk: Desk) -> Iterator[Counter]:
    with audited(open_counter(desk)) as opened:
        yield opened


@pytest.fixture
def committed_counter(committed_db: None, desk: Desk) -> Iterator[Counter]:
    with audited(open_counter(desk)) as opened, put_away(opened):
        yield opened


@pytest.fixture
def till(db: None, wechat: WeChatPayDouble) -> Iterator[Till]:
    with audited(open_till(wechat)) as opened:
        yield opened


@pytest.fixture
def other(db: None, wechat: WeChatPayDouble) -> Iterator[Till]:
    with audited(open_till(wechat)) as opened:
        yield opened


@pytest.fixture
def committed_till(committed_db: None, wechat: WeChatPayDouble) -> Iterator[Till]:
    with audited(open_till(wechat)) as opened, put_away(opened):
        yield opened


@contextmanager
def put_away(till: Counter) -> Iterator[None]:
    """Close what a test has committed: it stays, and other tests must not poll it."""
    try:
        yield
    finally:
        with scope.tenant(till.tenant.pk):
            Order.objects.filter(state="pending").update(state="closed", closed_at=Now())
            Refund.objects.filter(state="requested").update(next_poll_at=None)


@pytest.fixture
def xpay(settings: Settings, encryption: None) -> Iterator[XPayDouble]:
    resolve.forget()
    with running_xpay() as double:
        settings.WECHAT_API_URL = double.url
        wechat_api.client_for(double.url)
        yield double
        wechat_api.close_client(double.url)


@pytest.fixture
def virtual(db: None, xpay: XPayDouble) -> Iterator[VirtualTill]:
    with audited(open_virtual(xpay)) as opened:
        yield opened
        forget_unbooked(opened)


def forget_unbooked(till: Counter) -> None:
    """Remove refunds that a test of the provider alone wrote: no service has booked them, and the guard steps aside."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_refund DISABLE TRIGGER USER")
        cursor.execute(
            "DELETE FROM billing_refund refund WHERE tenant_id = %s AND NOT EXISTS (SELECT FROM billing_transfer"
            " transfer WHERE transfer.tenant_id = refund.tenant_id AND transfer.ref = refund.id::text)",
            [till.tenant.pk],
        )
        cursor.execute("ALTER TABLE billing_refund ENABLE TRIGGER USER")


@pytest.fixture
def virtual_other(db: None, xpay: XPayDouble) -> Iterator[VirtualTill]:
    with audited(open_virtual(xpay)) as opened:
        yield opened


@pytest.fixture
def committed_virtual(committed_db: None, xpay: XPayDouble) -> Iterator[VirtualTill]:
    with audited(open_virtual(xpay)) as opened:
        try:
            yield opened
        finally:
            with scope.tenant(opened.tenant.pk):  # as above
                Order.objects.filter(state="pending").update(state="closed", closed_at=Now())


def path_of(url: str) -> str:
    """Return the path of an address."""
    return urlsplit(url).path
