"""The pages of each kind of host."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from billing.models import MerchantAccount, Order, Package, RedeemCode
from tenants import scope
from tenants.models import Branding, Tenant
from tests.factories import host_of, make_codes, make_operator, make_partner, make_reseller, make_tenant, make_user

pytestmark = pytest.mark.django_db


def test_a_tenants_host_shows_its_own_brand(settings: Settings, tmp_path: Path) -> None:
    settings.CLIENT_DIR = tmp_path  # where no client was built
    ours, theirs = make_tenant(), make_tenant()
    with scope.tenant(ours.pk):
        Branding.objects.filter(tenant=ours).update(title="Ours <b>", primary_color="#123456", slogan="Hello")
    page = Client(headers={"Host": host_of(ours)}).get("/").content.decode()
    assert "<h1>Ours &lt;b&gt;</h1>" in page
    assert "--brand: #123456" in page
    assert f"http://{host_of(ours)}/api/chat/stream" in page
    assert theirs.name not in page


def test_a_platform_host_leads_resellers_to_their_portal_and_the_operator_to_its_admin() -> None:
    client = Client(headers={"Host": "localhost"})
    assert client.get("/")["Location"] == "/portal/"
    client.force_login(make_partner(make_reseller()))
    assert client.get("/")["Location"] == "/portal/"
    client.force_login(make_operator())
    assert client.get("/")["Location"] == "/platform/"


def test_an_unknown_host_shows_nobody() -> None:
    assert Client(headers={"Host": "nobody.example.com"}).get("/").status_code == 404


@pytest.mark.parametrize(("language", "said"), [("en", "Your redeem code:"), ("zh-hans", "您的兑换码：")])
def test_a_redeem_link_shows_what_to_do_and_redeems_nothing(language: str, said: str, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant = make_tenant(language=language)
    (code,) = make_codes(tenant)
    client = Client(headers={"Host": host_of(tenant)})
    pages = [client.get(f"/r/{typed}") for typed in (code, code.replace("-", "").lower(), "2222-2222-2222-2222")]
    assert [page.status_code for page in pages] == [200, 200, 200]
    for page in pages[:2]:
        shown = page.content.decode()
        assert (f"<h1>{tenant.name}</h1>" in shown, f"<code>{code}</code>" in shown, said in shown) == (
            True,
            True,
            True,
        )
    # Whoever is not logged in does not learn which codes exist.
    assert pages[2].content.decode().replace("2222-2222-2222-2222", code) == pages[0].content.decode()
    assert "no-store" in pages[0]["Cache-Control"]
    with scope.tenant(tenant.pk):
        assert RedeemCode.objects.get().redeemed_at is None


@pytest.mark.parametrize("typed", ["short", "<script>", "0000-0000-0000-0000"])
def test_a_link_that_cannot_be_a_code_is_not_there(typed: str) -> None:
    assert Client(headers={"Host": host_of(make_tenant())}).get(f"/r/{typed}").status_code == 404


def test_a_platform_host_has_no_redeem_links() -> None:
    assert Client(headers={"Host": "localhost"}).get("/r/7KQM-X2VB-9RTC-4WHN").status_code == 404


def pending_order(tenant: Tenant) -> Order:
    """An order that a browser comes back for."""
    user = make_user(tenant)
    with scope.tenant(tenant.pk):
        terms = {"price": 10_000, "credits": 10_000}
        package = Package.objects.create(tenant=tenant, slug="1", name="Secret package", **terms)
        account = MerchantAccount.objects.create(tenant=tenant, channel="stripe", merchant_id="acct_1")
        return Order.objects.create(
            tenant=tenant,
            out_trade_no="1",
            user=user,
            package=package,
            package_name=package.name,
            bonus=0,
            merchant_account=account,
            channel="stripe",
            method="checkout",
            merchant_id="acct_1",
            expires_at=Now(),
            next_poll_at=Now() + timedelta(days=1),
            **terms,
        )


CONFIRMING = "Your payment is being confirmed."


def test_the_page_after_paying_says_how_the_order_stands() -> None:
    tenant = make_tenant()
    order = pending_order(tenant)
    client = Client(headers={"Host": host_of(tenant)})
    path = f"/pay/done?order={order.pk}"
    page = client.get(path).content.decode()
    assert [words in page for words in (CONFIRMING, '<meta http-equiv="refresh" content="5">')] == [True, True]
    assert [words in page for words in ("Secret package", str(order.user.username), "acct_1")] == [False] * 3
    for fields, said in (
        ({"state": "closed", "closed_at": Now()}, "This order is closed."),
        (
            {"state": "paid", "closed_at": None, "paid_at": Now(), "transaction_id": "1"},
            "Your payment has arrived and is in your balance.",
        ),
    ):
        with scope.tenant(tenant.pk):
            Order.objects.filter(pk=order.pk).update(**fields)
        page = client.get(path).content.decode()
        assert [words in page for words in (said, CONFIRMING, "http-equiv")] == [True, False, False]


def test_the_page_after_paying_knows_its_own_tenant_s_orders_only() -> None:
    theirs, ours = make_tenant(), make_tenant()
    order = pending_order(theirs)
    with scope.tenant(theirs.pk):
        Order.objects.update(state="paid", paid_at=Now(), transaction_id="1")
    client = Client(headers={"Host": host_of(ours)})
    for wanted in (f"?order={order.pk}", "?order=nonsense", "", "?order=%00"):
        page = client.get(f"/pay/done{wanted}").content.decode()
        assert [words in page for words in (CONFIRMING, "http-equiv")] == [True, False]
    assert Client(headers={"Host": "localhost"}).get(f"/pay/done?order={order.pk}").status_code == 404
    assert client.post("/pay/done").status_code == 405
