"""Opening a tenant: what it begins with, what it is refused for, and that the same key opens once."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone
from pytest_django import Settings

from billing import audit, pricing, wallet
from billing.models import FreeQuota, MerchantAccount, PriceVersion
from chat.models import ModelOffer, Role
from lifecycle import opening
from lifecycle.models import Check, DomainClaim, Opening, TenantEvent
from lifecycle.opening import Application, open_for
from lifecycle.tests.conftest import make_template
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import Branding, Domain, MiniProgram, Reseller, StaffInvitation, Tenant
from tests.factories import YUAN, make_price, make_reseller, make_tenant, unique


def open_one(reseller: Reseller | None = None, *, key: str = "", **fields: Any) -> opening.Opened:
    return open_for(
        application=Application(**{"name": "Bamboo House", **fields}), reseller=reseller, actor="test", key=key
    )


@pytest.mark.django_db
def test_only_a_name_is_needed() -> None:
    template = make_template(models=2, is_default=True)
    reseller = make_reseller()
    opened = open_one(reseller)
    tenant = opened.tenant
    assert (opened.host, opened.is_new) == (f"{tenant.slug}.example.com", True)
    assert opened.invitation_url.startswith(f"https://{opened.host}/admin/join/")
    assert (tenant.status, tenant.reseller, tenant.slug.startswith("bamboo-house")) == ("trial", reseller, True)
    assert tenant.trial_ends_on is not None
    with scope.tenant(tenant.pk):
        assert [row.host for row in Domain.objects.all()] == [opened.host]
        assert [row.title for row in Branding.objects.all()] == ["Bamboo House"]
        offers = list(ModelOffer.objects.order_by("pk").values_list("slug", "is_default", "account__name"))
        assert offers == [("model-0", True, template.slug), ("model-1", False, template.slug)]
        rates = {(p.prompt_rate, p.cached_rate, p.completion_rate) for p in PriceVersion.objects.all()}
        assert rates == {(YUAN * 3 // 2, YUAN * 3 // 4, YUAN * 9 // 2)}
        assert list(FreeQuota.objects.values_list("quota_group", "per_day", "guest_allowance")) == [("default", 3, 3)]
        assert [role.is_default for role in Role.objects.all()] == [True]
        assert {row.kind for row in Check.objects.all()} == set(Check.Kind.values)
        assert [(row.kind, row.status, row.actor) for row in TenantEvent.objects.all()] == [("opened", "trial", "test")]
    assert wallet.balance_of(tenant_id=tenant.pk) == YUAN
    assert pricing.below_floor(tenant_id=tenant.pk) == []
    assert audit.audit_tenant(tenant_id=tenant.pk) == []


@pytest.mark.django_db
def test_everything_that_was_typed_is_there() -> None:
    template, reseller = make_template(), make_reseller()
    wallet.credit_reseller_wallet(reseller_id=reseller.pk, amount=50 * YUAN, ref="1", reason="", actor="test")
    app_id, slug = f"wx{unique('')[-12:]}", unique("bamboo")
    merchant = {
        "channel": "alipay",
        "merchant_id": "2088101568338364",
        "app_id": "2021000000000001",
        "private_key": "key",
        "platform_public_key": "key",
    }
    opened = open_one(
        reseller,
        slug=slug,
        host=f"{slug}.example.net",
        slogan="grows",
        primary_color="#123456",
        logo_url="https://example.com/logo.png",
        app_id=app_id,
        app_secret="secret",
        merchant=merchant,
        template=template.slug,
        markup_ppm=1_000_000,
        wallet=20 * YUAN,
    )
    with scope.tenant(opened.tenant.pk):
        assert [row.host for row in Domain.objects.all()] == [f"{slug}.example.com"]
        assert [row.host for row in DomainClaim.objects.all()] == [f"{slug}.example.net"]
        assert [(row.app_id, row.secret) for row in MiniProgram.objects.all()] == [(app_id, "secret")]
        assert [(row.channel, row.private_key) for row in MerchantAccount.objects.all()] == [("alipay", "key")]
        assert [row.prompt_rate for row in PriceVersion.objects.all()] == [2 * YUAN]
        assert [(row.slogan, row.primary_color) for row in Branding.objects.all()] == [("grows", "#123456")]
    assert wallet.balance_of(tenant_id=opened.tenant.pk) == 21 * YUAN
    assert wallet.balance_of(reseller_id=reseller.pk) == 30 * YUAN


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "kind", "wrong"),
    [
        ({"slug": "admin"}, "tenant_unfit", ["slug"]),
        ({"primary_color": "red"}, "tenant_unfit", ["primary_color"]),
        ({"host": "no host"}, "tenant_unfit", ["host"]),
        ({"host": "somebody.example.com"}, "tenant_unfit", ["host"]),
        ({"host": "localhost"}, "tenant_unfit", ["host"]),
        ({"timezone": "Mars/Base"}, "tenant_unfit", ["timezone"]),
        ({"app_id": "1"}, "tenant_unfit", ["app_id"]),
        ({"merchant": {"channel": "stripe", "merchant_id": "1"}}, "tenant_unfit", None),
        ({"template": "nothing-like-it"}, "template_missing", None),
        ({"wallet": 5}, "reseller_wallet_short", None),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(fields: dict[str, Any], kind: str, wrong: list[str] | None) -> None:
    template, reseller = make_template(), make_reseller()
    with pytest.raises(ProductError) as refused:
        open_one(reseller, **{"template": template.slug, **fields})
    assert refused.value.type == kind
    if wrong is not None:
        assert refused.value.facts["fields"] == wrong
    assert Tenant.objects.filter(reseller=reseller).count() == 0
    assert Opening.objects.filter(reseller=reseller).count() == 0


@pytest.mark.django_db
def test_taken_names_are_refused() -> None:
    template, other = make_template(), make_tenant()
    for name, value in (("slug", other.slug), ("host", f"{other.slug}.test")):
        with pytest.raises(ProductError) as refused:
            open_one(None, **{"template": template.slug, name: value})
        assert refused.value.type == "tenant_unfit"


@pytest.mark.django_db
def test_a_name_in_chinese_gets_a_slug_of_its_own() -> None:
    template = make_template()
    first, second = (open_one(name="竹屋", template=template.slug).tenant for _ in range(2))
    assert (re.fullmatch(r"ai-[a-z2-9]{6}", first.slug) is not None, first.slug != second.slug) == (True, True)
    assert open_one(name="Café", template=template.slug).tenant.slug.startswith("cafe")


@pytest.mark.django_db
def test_prices_stay_above_a_rise_that_is_published_already() -> None:
    template = make_template()
    with scope.platform("a test's template"):
        sku = template.models.get().sku
    later = timezone.now() + timedelta(days=3)
    make_price("wholesale", sku=sku, rates=(5 * YUAN, YUAN, 9 * YUAN), effective_at=later, multiplier_ppm=1_100_001)
    tenant = open_one(template=template.slug, markup_ppm=0).tenant
    with scope.tenant(tenant.pk):
        assert [(p.prompt_rate, p.completion_rate) for p in PriceVersion.objects.all()] == [(5_510_000, 9_910_000)]
    assert pricing.below_floor(tenant_id=tenant.pk) == []


@pytest.mark.django_db
def test_a_resellers_own_wholesale_price_is_the_floor() -> None:
    template, reseller = make_template(), make_reseller()
    with scope.platform("a test's template"):
        sku = template.models.get().sku
    make_price("wholesale", sku=sku, rates=(2 * YUAN, YUAN, 4 * YUAN), reseller_id=reseller.pk)
    tenant = open_one(reseller, template=template.slug, markup_ppm=0).tenant
    with scope.tenant(tenant.pk):
        assert [p.prompt_rate for p in PriceVersion.objects.all()] == [2 * YUAN]


@pytest.mark.django_db
def test_without_a_wholesale_price_nothing_opens() -> None:
    template = make_template(models=0)
    with pytest.raises(ProductError) as refused:
        open_one(template=template.slug)
    assert refused.value.type == "template_not_on_sale"


@pytest.mark.django_db
def test_a_reseller_has_so_many_trials(settings: Settings) -> None:
    settings.TRIAL_TENANTS = 1
    template, reseller = make_template(), make_reseller()
    open_one(reseller, template=template.slug)
    with pytest.raises(ProductError) as refused:
        open_one(reseller, template=template.slug)
    assert (refused.value.code, refused.value.type) == (ErrorCode.QUOTA, "trial_tenants_limit")
    assert refused.value.facts == {"used": 1, "limit": 1}
    assert open_one(reseller, template=template.slug, trial=False).tenant.status == "active"
    assert open_one(make_reseller(), template=template.slug).is_new


@pytest.mark.django_db
def test_the_same_key_opens_once_and_is_no_other_tenants() -> None:
    template, reseller = make_template(), make_reseller()
    first = open_one(reseller, key="k", template=template.slug)
    again = open_one(reseller, key="k", template=template.slug)
    assert (again.tenant, again.is_new, again.invitation_url) == (first.tenant, False, "")
    with pytest.raises(ProductError) as refused:
        open_one(reseller, key="k", template=template.slug, name="Another")
    assert refused.value.type == "opening_key_used"
    assert open_one(make_reseller(), key="k", template=template.slug).is_new
    with scope.tenant(first.tenant.pk):
        assert StaffInvitation.objects.count() == 1


@pytest.mark.usefixtures("committed_db")
def test_eight_at_once_with_one_key_open_one_tenant() -> None:
    template, reseller = make_template(models=2), make_reseller()

    def go(_number: int) -> opening.Opened:
        try:
            return open_one(reseller, key="k", template=template.slug)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(go, range(8)))
    assert len({one.tenant.pk for one in opened}) == 1
    assert sorted(one.is_new for one in opened) == [False] * 7 + [True]
    assert audit.audit_tenant(tenant_id=opened[0].tenant.pk) == []


@pytest.mark.usefixtures("committed_db")
def test_eight_at_once_pass_no_limit_and_spend_no_more_than_there_is(settings: Settings) -> None:
    settings.TRIAL_TENANTS = 3
    template, reseller = make_template(models=2), make_reseller()
    wallet.credit_reseller_wallet(reseller_id=reseller.pk, amount=25 * YUAN, ref="1", reason="", actor="test")

    def go(number: int) -> str:
        try:
            return open_one(reseller, name=f"B {number}", template=template.slug, wallet=10 * YUAN).tenant.slug
        except ProductError as refused:
            return refused.type
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        said = sorted(pool.map(go, range(8)))
    opened = list(Tenant.objects.filter(reseller=reseller))
    assert len(opened) == 2
    assert len([one for one in said if one == "reseller_wallet_short"]) == 6
    assert wallet.balance_of(reseller_id=reseller.pk) == 5 * YUAN
    assert [audit.audit_tenant(tenant_id=tenant.pk) for tenant in opened] == [[], []]


@pytest.mark.django_db
def test_the_command_opens_and_says_how_the_list_stands() -> None:
    template, reseller, said = make_template(), make_reseller(), StringIO()
    call_command(
        "onboard_tenant",
        "Bamboo",
        "--template",
        template.slug,
        "--reseller",
        reseller.slug,
        "--markup",
        "20",
        "--no-check",
        stdout=said,
    )
    tenant = Tenant.objects.get(reseller=reseller)
    lines = said.getvalue().splitlines()
    assert lines[:2] == [f"tenant      {tenant.slug}", f"address     https://{tenant.slug}.example.com"]
    assert "/admin/join/" in lines[2]
    with scope.tenant(tenant.pk):
        assert [p.prompt_rate for p in PriceVersion.objects.all()] == [1_200_000]
    for wrong in (["--reseller", "nobody"], ["--wallet", "much"], ["--markup", "-1"], ["--template", "none"]):
        with pytest.raises(CommandError):
            call_command("onboard_tenant", "Bamboo", "--no-check", "--template", template.slug, *wrong, stdout=said)
