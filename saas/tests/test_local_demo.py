"""The demo data, opened in the test's own transaction."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.utils import timezone
from pytest_django import Settings

from billing import ledger, pricing, quota
from billing.models import FreeQuota, Plan, PlanAllowance, Transfer
from chat.models import ModelOffer, UpstreamAccount
from saas.local.demo import FREE_PER_DAY, open_demo
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.login import user_of_token
from tenants.models import EndUser, PlatformMembership, StaffUser, Tenant
from tests.factories import admit, hold_request

pytestmark = pytest.mark.django_db

BUILT_IN = {"OPENAI_BASE_URL": "http://127.0.0.1:8123/v1", "OPENAI_API_KEY": "k1", "OPENAI_MODEL": "smollm2-135m"}
NAMED = {"OPENAI_BASE_URL": "https://api.example.com/v1", "OPENAI_API_KEY": "k2", "OPENAI_MODEL": "vendor/gpt-4.1"}


@pytest.fixture(autouse=True)
def key(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


def name_model(settings: Settings, values: dict[str, str]) -> None:
    for name, value in values.items():
        setattr(settings, name, value)


def tenant_and_users(slug: str) -> tuple[Tenant, dict[str, EndUser]]:
    tenant = Tenant.objects.get(slug=slug)
    with scope.tenant(tenant.pk):
        return tenant, {str(user.username): user for user in EndUser.objects.all()}


def offers(tenant: Tenant) -> list[tuple[str, str, str, bool, bool]]:
    with scope.tenant(tenant.pk):
        rows = ModelOffer.objects.select_related("account").order_by("pk")
        return [(row.slug, row.account.base_url, row.account.api_key, row.is_default, row.is_enabled) for row in rows]


@pytest.mark.parametrize("slug", ["aurora", "lotus"])
def test_alice_can_pay_and_bob_has_nothing(settings: Settings, tmp_path: Path, slug: str) -> None:
    name_model(settings, BUILT_IN)
    open_demo(secrets=tmp_path)
    tenant, users = tenant_and_users(slug)
    have = {name: ledger.balances(tenant_id=tenant.pk, user_id=user.pk).available for name, user in users.items()}
    today = quota.quota_day(now=timezone.now(), zone=tenant.timezone).date
    bobs = quota.used(tenant_id=tenant.pk, user_id=users["bob"].pk, group="default", day=today)

    assert have == {"alice": 20_000_000, "bob": 0}
    assert bobs == FREE_PER_DAY
    with scope.tenant(tenant.pk):
        request = {"free_per_day": FREE_PER_DAY, "prompt_tokens": 100, "max_completion_tokens": 100}
        admitted = admit(hold_request(users["alice"], "smollm2-135m", **request))
        with pytest.raises(ProductError) as refusal:
            admit(hold_request(users["bob"], "smollm2-135m", **request))
    assert (admitted.free, refusal.value.code) == (False, ErrorCode.RECHARGE)


def test_the_tenants_differ_in_brand_and_price(settings: Settings, tmp_path: Path) -> None:
    name_model(settings, BUILT_IN)
    screen = open_demo(secrets=tmp_path)
    aurora, _users = tenant_and_users("aurora")
    lotus, _users = tenant_and_users("lotus")
    prices = []
    for tenant in (aurora, lotus):
        with scope.tenant(tenant.pk):
            found = pricing.current_prices(tenant_id=tenant.pk, sku="smollm2-135m")
        prices.append((found.retail.completion_rate, found.wholesale.completion_rate))
    colors = []
    for tenant in (aurora, lotus):
        with scope.tenant(tenant.pk):
            colors.append(tenant.branding.primary_color)

    assert screen.hosts == ["aurora.localhost", "lotus.localhost"]
    assert prices == [(40_000_000, 16_000_000), (60_000_000, 16_000_000)]
    assert colors == ["#4f46e5", "#be185d"]


@pytest.mark.parametrize(("slug", "price"), [("aurora", 19_900_000), ("lotus", 29_900_000)])
def test_each_tenant_gives_a_few_answers_away_and_sells_a_month(
    settings: Settings, tmp_path: Path, slug: str, price: int
) -> None:
    name_model(settings, BUILT_IN)
    for _ in range(2):
        open_demo(secrets=tmp_path)
    tenant, _users = tenant_and_users(slug)
    with scope.tenant(tenant.pk):
        rules = list(FreeQuota.objects.values_list("quota_group", "per_day", "guest_allowance"))
        plans = list(Plan.objects.values_list("slug", "price", "days", "is_enabled"))
        allowances = list(PlanAllowance.objects.values_list("plan__slug", "quota_group", "answers", "period"))

    assert rules == [("default", FREE_PER_DAY, FREE_PER_DAY)]
    assert plans == [("monthly", price, 30, True)]
    assert allowances == [("monthly", "default", 100, "day")]


def test_the_screens_passwords_and_token_open_what_they_say(settings: Settings, tmp_path: Path) -> None:
    name_model(settings, BUILT_IN)
    screen = open_demo(secrets=tmp_path)
    operator = StaffUser.objects.get(username="admin")
    aurora, users = tenant_and_users("aurora")

    assert [StaffUser.objects.get(username=name).check_password(word) for _where, name, word in screen.logins] == [
        True,
        True,
        True,
        True,
    ]
    assert (operator.is_operator, PlatformMembership.objects.filter(staff=operator).count()) == (True, 1)
    with scope.tenant(aurora.pk):
        assert user_of_token(tenant_id=aurora.pk, token=screen.token) == users["alice"]


def test_a_second_start_adds_nothing_and_keeps_what_people_changed(settings: Settings, tmp_path: Path) -> None:
    name_model(settings, BUILT_IN)
    first = open_demo(secrets=tmp_path)
    aurora, users = tenant_and_users("aurora")
    Tenant.objects.filter(pk=aurora.pk).update(name="Renamed")
    with scope.tenant(aurora.pk):
        transfers = Transfer.objects.count()
    second = open_demo(secrets=tmp_path)
    aurora, users_again = tenant_and_users("aurora")

    assert second == first
    assert (aurora.name, users_again) == ("Renamed", users)
    with scope.tenant(aurora.pk):
        assert Transfer.objects.count() == transfers


def test_a_token_that_was_revoked_is_replaced(settings: Settings, tmp_path: Path) -> None:
    name_model(settings, BUILT_IN)
    first = open_demo(secrets=tmp_path)
    (tmp_path / "token_alice").write_text("bny_of_another_database")
    second = open_demo(secrets=tmp_path)

    assert first.token != second.token
    assert (tmp_path / "token_alice").read_text() == second.token


def test_the_built_in_models_new_address_is_followed(settings: Settings, tmp_path: Path) -> None:
    name_model(settings, BUILT_IN)
    open_demo(secrets=tmp_path)
    name_model(settings, {**BUILT_IN, "OPENAI_BASE_URL": "http://127.0.0.1:9999/v1"})
    open_demo(secrets=tmp_path)
    aurora, _users = tenant_and_users("aurora")

    assert offers(aurora) == [("smollm2-135m", "http://127.0.0.1:9999/v1", "k1", True, True)]


def test_a_model_that_is_named_later_becomes_the_default_and_back(settings: Settings, tmp_path: Path) -> None:
    aurora_offers = []
    for values in (BUILT_IN, NAMED, BUILT_IN):
        name_model(settings, values)
        open_demo(secrets=tmp_path)
        aurora, _users = tenant_and_users("aurora")
        aurora_offers.append([(slug, default, enabled) for slug, _url, _key, default, enabled in offers(aurora)])

    assert aurora_offers == [
        [("smollm2-135m", True, True)],
        [("smollm2-135m", False, False), ("vendor-gpt-4-1", True, True)],
        [("smollm2-135m", True, True), ("vendor-gpt-4-1", False, True)],
    ]


def test_a_default_of_the_tenants_own_stays(settings: Settings, tmp_path: Path) -> None:
    name_model(settings, BUILT_IN)
    open_demo(secrets=tmp_path)
    aurora, _users = tenant_and_users("aurora")
    with scope.platform("the operator adds a model"):
        own = UpstreamAccount.objects.create(name="Own", base_url="https://own.example.com/v1", api_key="")
    with scope.tenant(aurora.pk):
        ModelOffer.objects.update(is_default=False)
        ModelOffer.objects.create(
            tenant=aurora, slug="own", name="Own", sku="own", account=own, upstream_model="own", is_default=True
        )
    open_demo(secrets=tmp_path)

    assert [(slug, default) for slug, _url, _key, default, _on in offers(aurora)] == [
        ("smollm2-135m", False),
        ("own", True),
    ]
