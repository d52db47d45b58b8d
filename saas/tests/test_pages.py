"""The pages of each kind of host."""

import pytest
from cryptography.fernet import Fernet
from django.test import Client
from pytest_django import Settings

from billing.models import RedeemCode
from tenants import scope
from tenants.models import Branding
from tests.factories import host_of, make_codes, make_tenant

pytestmark = pytest.mark.django_db


def test_a_tenants_host_shows_its_own_brand() -> None:
    ours, theirs = make_tenant(), make_tenant()
    with scope.tenant(ours.pk):
        Branding.objects.filter(tenant=ours).update(title="Ours <b>", primary_color="#123456", slogan="Hello")
    page = Client(headers={"Host": host_of(ours)}).get("/").content.decode()
    assert "<h1>Ours &lt;b&gt;</h1>" in page
    assert "--brand: #123456" in page
    assert f"http://{host_of(ours)}/api/chat/stream" in page
    assert theirs.name not in page


def test_a_platform_host_leads_to_the_operators_admin() -> None:
    reply = Client(headers={"Host": "localhost"}).get("/")
    assert (reply.status_code, reply["Location"]) == (302, "/platform/")


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
