"""What a tenant's owner sets up alone: brand, mini-program, merchant account, each tried where it can be."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as configured
from django.contrib.messages import get_messages
from django.test import Client
from pytest_django import Settings

from billing.models import MerchantAccount
from billing.payments import clients
from tenants import scope, wechat
from tenants.models import Branding, ChangeEntry, Domain, Membership, MiniProgram, Tenant
from tests.doubles import wechatpay
from tests.doubles.xpay import running_xpay
from tests.factories import host_of, make_mini_program, make_operator, make_staff, make_tenant

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _clients() -> Iterator[None]:
    """Close the connections to doubles, which outlive the tests' settings."""
    yield
    hang_up()


def hang_up() -> None:
    wechat.close_client(configured.WECHAT_API_URL)
    clients.close_client(configured.WECHAT_PAY_API_URL)


def staff(tenant: Tenant, role: str = "owner") -> Client:
    client = Client(headers={"host": host_of(tenant), "accept-language": "en"})
    client.force_login(make_staff(tenant, role=role))
    return client


def tried(client: Client, path: str) -> list[str]:
    """Press the button of a row; return what it says now."""
    answer = client.post(path, follow=True)
    return [str(said) for said in get_messages(answer.wsgi_request)] if answer.redirect_chain else []


def brand(tenant: Tenant) -> Branding:
    with scope.tenant(tenant.pk):
        return Branding.objects.get()


NEW_BRAND = {"title": "Aurora", "slogan": "light", "primary_color": "#123456", "welcome": "Hello", "logo_url": ""}


def test_owners_and_people_for_content_change_the_brand_with_a_preview() -> None:
    tenant, other = make_tenant(), make_tenant()
    row = brand(tenant)
    path = f"/admin/tenants/branding/{row.pk}/change/"
    for role in Membership.Role.values:
        client = staff(tenant, role)
        page = client.get(path).content.decode()
        assert ("data-preview" in page, "banyan/opening.js" in page) == (True, True)
        may = role in {"owner", "content"}
        assert client.post(path, {**NEW_BRAND, "title": role}).status_code == (302 if may else 403)
        assert brand(tenant).title == (role if may else "owner")
    assert staff(other).post(path, NEW_BRAND).status_code == 404
    owner = staff(tenant)
    assert "A colour such as" in owner.post(path, {**NEW_BRAND, "primary_color": "red"}).content.decode()
    assert owner.post("/admin/tenants/branding/add/", NEW_BRAND).status_code == 403
    assert owner.post(f"/admin/tenants/branding/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    with scope.tenant(tenant.pk):
        titles = [entry.changes.get("title") for entry in ChangeEntry.objects.order_by("pk")]
    assert titles == [[tenant.name, "owner"], ["owner", "content"]]


def test_an_owner_sets_up_a_mini_program_and_tries_it(settings: Settings) -> None:
    tenant, other = make_tenant(), make_tenant()
    client = staff(tenant)
    body = {"app_id": f"wx{tenant.pk:016x}", "name": "Ours", "secret": "s3cret-of-ours"}
    assert client.post("/admin/tenants/miniprogram/add/", body).status_code == 302
    with scope.tenant(tenant.pk):
        row = MiniProgram.objects.get()
    assert (row.app_id, row.secret) == (body["app_id"], "s3cret-of-ours")
    base = f"/admin/tenants/miniprogram/{row.pk}"
    page = client.get(f"{base}/change/").content.decode()
    assert ("s3cret-of-ours" in page, "Try app id and secret at WeChat" in page) == (False, True)
    with running_xpay() as double:
        settings.WECHAT_API_URL = double.url
        assert tried(client, f"{base}/try/") == [
            f"WeChat knows no app id {row.app_id}. Copy it from the mini-program's console."
        ]
        double.secrets[row.app_id] = "another"
        assert tried(client, f"{base}/try/") == [
            f"The secret of {row.app_id} is wrong. Reset it in the mini-program's console and paste it."
        ]
        double.secrets[row.app_id] = "s3cret-of-ours"
        assert tried(client, f"{base}/try/") == [f"WeChat accepts the app id {row.app_id} and its secret."]
        # Looking at the address does nothing, and others have no button there.
        assert client.get(f"{base}/try/")["Location"] == f"{base}/change/"
        for stranger in (staff(other), staff(tenant, "content"), staff(tenant, "finance")):
            assert (stranger.post(f"{base}/try/").status_code, tried(stranger, f"{base}/try/")) == (404, [])
    hang_up()
    assert tried(client, f"{base}/try/") == ["WeChat does not answer just now. Look again in a minute."]
    # A secret that is not typed stays, and so does the app id.
    assert (
        client.post(f"{base}/change/", {"app_id": "wxanother000000000", "name": "New", "secret": ""}).status_code == 302
    )
    with scope.tenant(tenant.pk):
        row = MiniProgram.objects.get()
    assert (row.app_id, row.name, row.secret) == (body["app_id"], "New", "s3cret-of-ours")
    assert client.post(f"{base}/delete/", {"post": "yes"}).status_code == 403


def test_another_tenants_app_id_is_refused_in_words() -> None:
    ours, theirs = make_tenant(), make_tenant()
    app_id = make_mini_program(theirs).app_id
    answer = staff(ours).post("/admin/tenants/miniprogram/add/", {"app_id": app_id, "name": "", "secret": ""})
    assert (answer.status_code, "This app id is in use already." in answer.content.decode()) == (200, True)
    with scope.tenant(ours.pk):
        assert MiniProgram.objects.count() == 0


def test_an_owner_sets_up_a_merchant_account_and_tries_it(settings: Settings) -> None:
    tenant, other = make_tenant(), make_tenant()
    client = staff(tenant)
    merchant = wechatpay.Merchant(merchant_id=str(1_900_000_000 + tenant.pk), app_id="wx0123456789abcdef")
    body: dict[str, Any] = {
        "channel": "wechat",
        "merchant_id": merchant.merchant_id,
        "app_id": merchant.app_id,
        "is_enabled": "on",
        "environment": "production",
        "certificate_serial": merchant.serial,
        "private_key": wechatpay.pem(merchant.key),
        "api_v3_key": merchant.api_v3_key,
        "platform_key_id": merchant.platform_key_id,
        "platform_public_key": wechatpay.public_pem(merchant.platform_key),
    }
    with wechatpay.running_wechatpay() as provider:
        settings.WECHAT_PAY_API_URL = provider.url
        provider.merchants[merchant.merchant_id] = merchant
        assert client.post("/admin/billing/merchantaccount/add/", body).status_code == 302
        with scope.tenant(tenant.pk):
            row = MerchantAccount.objects.get()
        base = f"/admin/billing/merchantaccount/{row.pk}"
        assert "Try the settings at the provider" in client.get(f"{base}/change/").content.decode()
        name = f"WeChat Pay {merchant.merchant_id}"
        assert tried(client, f"{base}/try/") == [f"{name}: the provider answers, and takes these keys."]
        assert (
            client.post(f"{base}/change/", {**body, "certificate_serial": "00", "private_key": ""}).status_code == 302
        )
        wrong = "the private key or the serial number of the certificate is another merchant's"
        assert tried(staff(tenant, "finance"), f"{base}/try/") == [f"{name}: {wrong}."]
        before = len(provider.requests)
        for stranger in (staff(other), staff(tenant, "support")):
            assert (stranger.post(f"{base}/try/").status_code, tried(stranger, f"{base}/try/")) == (404, [])
        assert len(provider.requests) == before
    twice = client.post("/admin/billing/merchantaccount/add/", body)
    assert (twice.status_code, "This account is set up already." in twice.content.decode()) == (200, True)
    # Another tenant's account of the same merchant is its own affair.
    assert staff(other).post("/admin/billing/merchantaccount/add/", body).status_code == 302
    assert staff(tenant, "finance").post(f"{base}/change/", body).status_code == 403
    assert client.post(f"{base}/delete/", {"post": "yes"}).status_code == 403


def test_a_host_is_looked_at_as_the_checklist_does() -> None:
    tenant, other = make_tenant(host="nobody-here.invalid"), make_tenant()
    with scope.tenant(tenant.pk):
        row = Domain.objects.get()
    path = f"/admin/tenants/domain/{row.pk}/try/"
    assert tried(staff(tenant), path) == [
        "nobody-here.invalid leads nowhere yet. Add a DNS record for it; it may take an hour to be known."
    ]
    for stranger in (staff(other), staff(tenant, "content")):
        assert stranger.post(path).status_code == 404
    operator = Client(headers={"host": "localhost", "accept-language": "en"})
    operator.force_login(make_operator())
    assert len(tried(operator, f"/platform/tenants/domain/{row.pk}/try/")) == 1


def test_tries_are_counted() -> None:
    tenant = make_tenant(host="nobody-here.invalid")
    with scope.tenant(tenant.pk):
        row = Domain.objects.get()
    client = staff(tenant)
    said = [tried(client, f"/admin/tenants/domain/{row.pk}/try/")[-1] for _ in range(21)]
    assert len(set(said[:20])) == 1
    assert said[20] != said[0]
