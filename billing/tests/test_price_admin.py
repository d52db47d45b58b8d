"""Prices are published in the admin: against floors, naming the tenants under water first, and by the right people."""

import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone, translation
from pytest_django import DjangoAssertNumQueries, DjangoCaptureOnCommitCallbacks

from billing import pricing
from billing.admin.prices import split_shares
from billing.models import PriceVersion
from billing.pricing import Quantities, amount, current_prices
from tenants import scope
from tenants.errors import ProductError
from tenants.models import StaffUser, Tenant
from tests.factories import (
    YUAN,
    host_of,
    make_operator,
    make_partner,
    make_price,
    make_reseller,
    make_sku,
    make_staff,
    make_tenant,
    make_terms,
    unique,
)

pytestmark = pytest.mark.django_db

RATES = {"prompt": "2", "cached": "1", "completion": "6", "call": "0", "multiplier": "1"}


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant()


def staff_of(tenant: Tenant, role: str = "owner") -> Client:
    client = Client(headers={"host": host_of(tenant), "accept-language": "en"})
    client.force_login(make_staff(tenant, role=role))
    return client


def operator() -> Client:
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    return client


def publish(client: Client, site: str, **fields: Any) -> tuple[int, list[str], str]:
    """Send the form; return the status, what it complains of, and whom it told of."""
    answer = client.post(f"/{site}/billing/priceversion/add/", {**RATES, **fields})
    if answer.status_code == 302:
        return 302, [], ""
    form = answer.context["adminform"].form
    faults = [f"{name}: {fault}" for name, faults in form.errors.items() for fault in faults]
    return answer.status_code, faults, str(form["told"].value() or "") if "told" in form.fields else ""


def retail(tenant: Tenant, sku: str) -> PriceVersion:
    return current_prices(tenant_id=tenant.pk, sku=sku).retail


def test_a_tenants_owner_publishes_in_yuan(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    fields = {
        "sku": sku,
        "prompt": "3.5",
        "cached": "1.000001",
        "completion": "9",
        "call": "0.01",
        "multiplier": "1.25",
    }
    assert publish(staff_of(tenant), "admin", **fields) == (302, [], "")
    made = retail(tenant, sku)
    assert (made.prompt_rate, made.cached_rate, made.completion_rate) == (3_500_000, 1_000_001, 9_000_000)
    assert (made.per_call, made.multiplier_ppm) == (10_000, 1_250_000)


@pytest.mark.parametrize("role", ["support", "content"])
def test_others_of_the_tenant_publish_nothing(tenant: Tenant, role: str) -> None:
    sku = make_sku(tenant)
    assert staff_of(tenant, role).post("/admin/billing/priceversion/add/", {**RATES, "sku": sku}).status_code == 403


def test_a_tenant_cannot_publish_for_another_or_at_another_level(tenant: Tenant) -> None:
    sku, other = make_sku(tenant), make_tenant()
    fields = {"sku": sku, "tenant": str(other.pk), "level": "cost", "reseller": str(make_reseller().pk)}
    assert publish(staff_of(tenant), "admin", **fields)[0] == 302
    with scope.platform("a test"):
        made = PriceVersion.objects.order_by("-pk")[0]
    assert (made.level, made.tenant_id, made.reseller_id) == ("retail", tenant.pk, None)


def test_a_price_below_the_floor_names_the_field_and_the_floor(tenant: Tenant) -> None:
    sku = make_sku(tenant)  # ¥1, ¥0.50 and ¥3 wholesale
    status, faults, _told = publish(staff_of(tenant), "admin", sku=sku, prompt="0.99", cached="0.5", completion="3")
    assert (status, faults) == (200, ["prompt: At least 1.00 is wanted: less is below what the item costs."])
    # The multiplier counts: three quarters of ¥4 are ¥3.
    fields = {"sku": sku, "prompt": "1.4", "cached": "0.7", "completion": "4", "multiplier": "0.75"}
    assert publish(staff_of(tenant), "admin", **fields) == (302, [], "")


def test_what_resellers_get_counts_for_the_floor_of_wholesale(tenant: Tenant) -> None:
    sku, reseller = make_sku(tenant), make_reseller()  # ¥0.50, ¥0.25 and ¥1.50 cost
    make_terms(reseller, own_ppm=100_000)
    fields = {"level": "wholesale", "sku": sku, "reseller": str(reseller.pk), "cached": "0.3"}
    status, faults, _told = publish(operator(), "platform", prompt="0.555555", **fields)
    floor = "At least 0.555556 is wanted: less is below what the item costs."
    assert (status, faults) == (200, [f"prompt: {floor} Resellers get their shares of this price."])
    assert publish(operator(), "platform", prompt="0.555556", **fields) == (302, [], "")


@pytest.mark.parametrize("typed", ["", "-1", "1e3", "1,5", "0.0000001", "abc"])
def test_what_is_no_amount_is_refused(tenant: Tenant, typed: str) -> None:
    status, faults, _told = publish(staff_of(tenant), "admin", sku=make_sku(tenant), prompt=typed)
    assert (status, [fault.split(":")[0] for fault in faults]) == (200, ["prompt"])


def test_a_floor_to_come_counts_while_the_price_would_be_in_force(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    rise, later = timezone.now() + timedelta(days=3), timezone.now() + timedelta(days=9)
    make_price("wholesale", sku=sku, rates=(5 * YUAN, YUAN, 6 * YUAN), effective_at=rise)
    status, faults, _told = publish(staff_of(tenant), "admin", sku=sku)
    assert (status, len(faults)) == (200, 1)
    assert faults[0].startswith("prompt: At least 5.00 is wanted: from ")
    # A higher price that takes over in time makes room for a lower one before it.
    make_price("retail", sku=sku, rates=(5 * YUAN, YUAN, 6 * YUAN), tenant_id=tenant.pk, effective_at=rise)
    assert publish(staff_of(tenant), "admin", sku=sku) == (302, [], "")
    with pytest.raises(ProductError, match="price_below_floor"):
        make_price("retail", sku=sku, rates=(2 * YUAN, YUAN, 6 * YUAN), tenant_id=tenant.pk, effective_at=later)


def test_tenants_under_water_are_named_before_it_happens_and_told(
    tenant: Tenant, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    sku, other = make_sku(tenant), make_tenant(language="zh-hans")
    make_price("retail", sku=sku, rates=(9 * YUAN, 9 * YUAN, 9 * YUAN), tenant_id=other.pk)
    owner = make_staff(tenant)
    StaffUser.objects.filter(pk=owner.pk).update(email="owner@example.com")
    client, fields = operator(), {"level": "wholesale", "sku": sku, "prompt": "2.5"}
    status, faults, told = publish(client, "platform", **fields)
    assert (status, told, len(faults)) == (200, tenant.slug, 1)
    assert faults[0].endswith(f"until they raise theirs: {tenant.slug}.")
    # A tick without having been told, or of other tenants, does not count.
    assert publish(client, "platform", accept="on", **fields)[0] == 200
    assert publish(client, "platform", accept="on", told="another", **fields)[0] == 200
    assert mail.outbox == []
    with django_capture_on_commit_callbacks() as held:
        assert publish(client, "platform", accept="on", told=told, **fields) == (302, [], "")
    assert mail.outbox == []  # none goes out before the commit
    with scope.platform("the operator's admin"):
        for tell in held:
            tell()
    assert [(message.to, sku in message.subject) for message in mail.outbox] == [(["owner@example.com"], True)]
    page = staff_of(tenant).get("/admin/billing/priceversion/").content.decode()
    assert re.search(rf"Your price of {sku} is below what you pay", page)
    assert "is below what you pay" not in staff_of(other).get("/admin/billing/priceversion/").content.decode()


def test_a_cost_that_is_not_covered_is_named_before_it_happens_and_the_operator_told(
    tenant: Tenant, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    reseller = make_reseller()
    sku, colleague, partner = make_sku(tenant), make_operator(), make_partner(reseller)
    make_price("wholesale", sku=sku, rates=(YUAN, YUAN, 6 * YUAN), reseller_id=reseller.pk)
    for staff in (colleague, partner, make_staff(tenant)):
        StaffUser.objects.filter(pk=staff.pk).update(email=f"{staff.pk}@example.com", language="en")
    client, fields = operator(), {"level": "cost", "sku": sku, "prompt": "1.5"}
    status, faults, told = publish(client, "platform", **fields)
    names = f"wholesale: tenant to platform, {reseller.slug} (wholesale: tenant to platform)"
    complaint = "accept: With this cost these prices bring less than the platform pays, until they rise"
    assert (status, told, faults) == (200, names, [f"{complaint}: {names}."])
    assert publish(client, "platform", accept="on", told="another", **fields)[0] == 200
    with django_capture_on_commit_callbacks() as held:
        assert publish(client, "platform", accept="on", told=told, **fields) == (302, [], "")
    with scope.platform("the operator's admin"):
        for tell in held:
            tell()
    (letter,) = mail.outbox
    assert (letter.to, letter.subject) == ([f"{colleague.pk}@example.com"], f"{sku} will cost more than it brings")
    assert f"than these prices bring: {names}. Please" in str(letter.body)
    falls = {"level": "cost", "sku": sku, "prompt": "0.5", "cached": "0", "completion": "0"}
    assert publish(client, "platform", **falls)[0] == 302


def test_prices_that_begin_later_can_be_under_water_too(tenant: Tenant) -> None:
    sku = unique("sku")
    make_price("cost", sku=sku, rates=(1, 1, 1))
    make_price("wholesale", sku=sku, rates=(2, 2, 2))
    make_price("retail", sku=sku, rates=(9, 9, 9), tenant_id=tenant.pk)
    soon = timezone.now() + timedelta(days=2)
    make_price("retail", sku=sku, rates=(3, 3, 3), tenant_id=tenant.pk, effective_at=soon)

    def wholesale(**fields: Any) -> PriceVersion:
        rates = {"prompt_rate": 5, "cached_rate": 5, "completion_rate": 5}
        return PriceVersion(level="wholesale", sku=sku, **{"effective_at": timezone.now(), **rates, **fields})

    assert pricing.tenants_under_water(wholesale=wholesale()) == [tenant.slug]
    # One that is over before the lower price begins puts nobody under water.
    make_price("wholesale", sku=sku, rates=(2, 2, 2), effective_at=soon - timedelta(days=1))
    assert pricing.tenants_under_water(wholesale=wholesale()) == []


def test_a_resellers_own_price_keeps_its_tenants_out_of_everybodys(tenant: Tenant) -> None:
    reseller = make_reseller()
    theirs = make_tenant(reseller=reseller)
    sku = make_sku(tenant)
    make_price("retail", sku=sku, rates=(2 * YUAN, YUAN, 6 * YUAN), tenant_id=theirs.pk)
    later = timezone.now() + timedelta(days=2)
    make_price("wholesale", sku=sku, rates=(YUAN, YUAN, 3 * YUAN), reseller_id=reseller.pk, effective_at=later)
    rise = {"level": "wholesale", "sku": sku, "prompt_rate": 3 * YUAN, "cached_rate": YUAN, "completion_rate": 6 * YUAN}
    now = PriceVersion(effective_at=timezone.now(), **rise)
    assert pricing.tenants_under_water(wholesale=now) == sorted([tenant.slug, theirs.slug])
    then = PriceVersion(effective_at=later + timedelta(days=1), **rise)
    assert pricing.tenants_under_water(wholesale=then) == [tenant.slug]


def test_naming_them_takes_as_many_queries_for_many_tenants_as_for_one(
    tenant: Tenant, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    sku = make_sku(tenant)
    dear = PriceVersion(
        level="wholesale",
        sku=sku,
        prompt_rate=9 * YUAN,
        cached_rate=0,
        completion_rate=0,
        effective_at=timezone.now(),
    )
    costly = PriceVersion(
        level="cost", sku=sku, prompt_rate=9 * YUAN, cached_rate=0, completion_rate=0, effective_at=timezone.now()
    )
    named = {tenant.slug}
    for _ in range(3):
        with django_assert_num_queries(2):
            assert set(pricing.tenants_under_water(wholesale=dear)) == named
        with django_assert_num_queries(3):
            under = pricing.under_water(price=costly)
        assert set(under) == {("wholesale", ""), *(("retail", slug) for slug in named)}
        more = make_tenant(reseller=make_reseller())
        make_price("retail", sku=sku, rates=(2 * YUAN, YUAN, 6 * YUAN), tenant_id=more.pk)
        named.add(more.slug)
    make_sku(make_tenant())  # on everybody's price list, and not sold by the tenant
    for sku in [make_sku(tenant) for _ in range(3)]:
        with django_assert_num_queries(3):
            assert pricing.below_floor(tenant_id=tenant.pk) == []
        with django_assert_num_queries(3):
            assert pricing.paid_now(tenant_id=tenant.pk)[sku].prompt_rate == YUAN


def test_the_running_minute_is_now_and_times_are_the_tenants() -> None:
    tenant = make_tenant(timezone="America/New_York")
    sku, client = make_sku(tenant), staff_of(tenant)
    there = timezone.now().astimezone(ZoneInfo("America/New_York"))
    present = {"from_moment_0": f"{there:%Y-%m-%d}", "from_moment_1": f"{there:%H:%M:%S}"}
    assert publish(client, "admin", sku=sku, **{**present, "prompt": "3"}) == (302, [], "")
    assert retail(tenant, sku).prompt_rate == 3 * YUAN
    year = there.year + 1
    later = {"from_moment_0": f"{year}-01-01", "from_moment_1": "00:00"}
    assert publish(client, "admin", sku=sku, **later) == (302, [], "")
    with scope.tenant(tenant.pk):
        last = PriceVersion.objects.latest("effective_at").effective_at
    assert last == datetime(year, 1, 1, 5, tzinfo=UTC)
    assert f"{year}" in client.get("/admin/billing/priceversion/").content.decode()


def test_shares_are_reckoned_as_those_of_answers_are() -> None:
    # A third of 10 micro-yuan, three times: 3 each, not 10 of 30.
    assert split_shares(wholesale=10, answers=3, shares=[("near", 333_334), ("far", 0)]) == [("near", 9), ("far", 0)]


def test_the_command_publishes_for_later(tenant: Tenant) -> None:
    sku, out = make_sku(tenant), StringIO()
    rates = ["--prompt", "3", "--cached", "1", "--completion", "6", "--tenant", tenant.slug]
    call_command("publish_price", "retail", sku, *rates, "--from", "2100-01-01T00:00+00:00", stdout=out)
    assert retail(tenant, sku).prompt_rate == 2 * YUAN
    with scope.tenant(tenant.pk):
        assert PriceVersion.objects.latest("effective_at").effective_at == datetime(2100, 1, 1, tzinfo=UTC)
    for wrong in ("2020-01-01T00:00", "tomorrow"):
        with pytest.raises(CommandError) as refusal:
            call_command("publish_price", "retail", sku, *rates, "--from", wrong)
        assert refusal.value.returncode == 2


def test_the_list_says_which_version_counts(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    make_price("retail", sku=sku, rates=(3 * YUAN, YUAN, 6 * YUAN), tenant_id=tenant.pk)
    later = timezone.now() + timedelta(days=2)
    make_price("retail", sku=sku, rates=(4 * YUAN, YUAN, 6 * YUAN), tenant_id=tenant.pk, effective_at=later)
    rows = staff_of(tenant).get("/admin/billing/priceversion/").context["cl"].result_list
    states = {row.prompt_rate: row.is_superseded for row in rows}
    assert states == {4 * YUAN: False, 3 * YUAN: False, 2 * YUAN: True}


def test_a_published_version_is_neither_changed_nor_deleted(tenant: Tenant) -> None:
    made = retail(tenant, make_sku(tenant))
    client = staff_of(tenant)
    page = client.get(f"/admin/billing/priceversion/{made.pk}/change/")
    assert page.status_code == 200
    assert client.post(f"/admin/billing/priceversion/{made.pk}/change/", RATES).status_code == 403
    assert client.post(f"/admin/billing/priceversion/{made.pk}/delete/", {"post": "yes"}).status_code == 403


def test_the_operator_publishes_all_levels_and_only_what_makes_sense(tenant: Tenant) -> None:
    client, sku = operator(), unique("sku")
    low, mid = (
        {"prompt": "0.5", "cached": "0.2", "completion": "1"},
        {"prompt": "1", "cached": "0.5", "completion": "3"},
    )
    assert publish(client, "platform", level="retail", sku=sku, tenant=str(tenant.pk))[0] == 200  # nothing below it
    assert publish(client, "platform", level="cost", sku=sku, **low)[0] == 302
    assert publish(client, "platform", level="wholesale", sku=sku, **mid)[0] == 302
    assert publish(client, "platform", level="retail", sku=sku, tenant=str(tenant.pk))[0] == 302
    reseller = str(make_reseller().pk)
    wrong = [
        {"level": "retail"},
        {"level": "cost", "tenant": str(tenant.pk)},
        {"level": "retail", "tenant": str(tenant.pk), "reseller": reseller},
        {"level": "cost", "reseller": reseller},
        {"level": "cost", "cached": "3"},
        {"level": "cost", "from_moment_0": "2020-01-01", "from_moment_1": "00:00"},
        {"level": "cost", "prompt": "999999999", "multiplier": "1000"},
    ]
    assert [publish(client, "platform", sku=sku, **fields)[0] for fields in wrong] == [200] * len(wrong)
    assert amount(retail(tenant, sku), Quantities(prompt=10**6, completion=0)) == 2 * YUAN


# --- the calculator ---

CHAT = {"answers": "10", "prompt": "1000", "cached": "0", "completion": "500"}


def told(page: Any) -> tuple[dict[str, str], list[tuple[str, str, float]]]:
    """Return what the calculator's page says, in English: each side's amount; who keeps what, and how much of all."""
    with translation.override("en"):
        sides = {str(name): amount for name, amount in page.context["sides"]}
        return sides, [(str(part["name"]), part["amount"], part["percent"]) for part in page.context["kept"]]


def test_the_calculator_shows_each_partys_part(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    page = operator().get("/platform/billing/priceversion/calculator/", {**CHAT, "sku": sku, "tenant": tenant.slug})
    # ten times ¥0.005 retail, half of it wholesale, a quarter of it cost
    sides, kept = told(page)
    assert sides == {"the user pays": "¥0.05", "the tenant pays": "¥0.025", "the platform pays": "¥0.0125"}
    assert kept == [
        ("tenant's margin", "¥0.025", 50.0),
        ("platform's margin", "¥0.0125", 25.0),
        ("provider", "¥0.0125", 25.0),
    ]


def test_a_tenant_sees_its_own_two_sides_only(tenant: Tenant) -> None:
    sku, other = make_sku(tenant), make_tenant()
    page = staff_of(tenant).get("/admin/billing/priceversion/calculator/", {**CHAT, "sku": sku, "tenant": other.slug})
    sides, kept = told(page)
    assert sides == {"the user pays": "¥0.05", "the tenant pays": "¥0.025"}
    assert [name for name, _amount, _percent in kept] == ["tenant's margin", "wholesale"]
    assert "0.0125" not in page.content.decode()
    assert staff_of(tenant, "content").get("/admin/billing/priceversion/calculator/").status_code == 403


def test_the_calculator_says_what_is_wrong(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    client = staff_of(tenant)
    page = client.get("/admin/billing/priceversion/calculator/", {**CHAT, "sku": sku, "cached": "1001"})
    assert "Not more can be cached than there are." in page.content.decode()
    make_price("cost", sku="unpriced", rates=(1, 1, 1))
    make_price("wholesale", sku="unpriced", rates=(2, 2, 2))
    page = client.get("/admin/billing/priceversion/calculator/", {**CHAT, "sku": "unpriced"})
    assert "This model is not on sale at the moment." in page.content.decode()


# --- the command ---


def test_the_command_publishes_and_names_whom_it_would_harm(tenant: Tenant) -> None:
    sku, out = make_sku(tenant), StringIO()
    rates = ["--prompt", "2.5", "--cached", "1", "--completion", "6"]
    with pytest.raises(CommandError, match=f"under water: retail {tenant.slug};"):
        call_command("publish_price", "wholesale", sku, *rates, stdout=out)
    call_command("publish_price", "wholesale", sku, *rates, "--under-water", stdout=out)
    assert out.getvalue() == f"wholesale {sku}: 2.50 / 6.00\n"
    with translation.override("en"), pytest.raises(CommandError, match="below what the item costs"):
        call_command("publish_price", "retail", sku, *rates[:1], "1", *rates[2:], "--tenant", tenant.slug)


def test_the_command_names_whose_prices_a_cost_would_leave_below(tenant: Tenant) -> None:
    sku, out = make_sku(tenant), StringIO()
    rates = ["--prompt", "2.5", "--cached", "0", "--completion", "0"]
    with pytest.raises(CommandError, match=f"under water: retail {tenant.slug}, wholesale;"):
        call_command("publish_price", "cost", sku, *rates, stdout=out)
    call_command("publish_price", "cost", sku, *rates, "--under-water", stdout=out)
    assert out.getvalue() == f"cost {sku}: 2.50 / 0.00\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["retail", "x"],
        ["cost", "x", "--tenant", "nobody"],
        ["cost", "x", "--reseller", "nobody"],
        ["cost", "x", "--multiplier", "much"],
    ],
)
def test_the_command_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    with pytest.raises(CommandError) as refusal:
        call_command("publish_price", *arguments, "--prompt", "1", "--cached", "1", "--completion", "1")
    assert refusal.value.returncode == 2
