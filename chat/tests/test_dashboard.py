"""The first page of the admins: what it shows to whom, and where its figures lead."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import audit, figures, usage
from billing.figures import Span
from billing.models import DailyUsers, Hold, Order
from billing.tests.conftest import Shop, open_shop
from chat.admin_dashboard import span_of
from tenants import scope
from tenants.models import EndUser, Membership
from tests.factories import credit, host_of, make_operator, make_plan, make_staff, order_plan, pay

pytestmark = pytest.mark.django_db

SHANGHAI = ZoneInfo("Asia/Shanghai")


def client_of(shop: Shop, role: str = "owner") -> Client:
    client = Client(headers={"host": host_of(shop.tenant)})
    client.force_login(make_staff(shop.tenant, role=role))
    return client


def operator() -> Client:
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    return client


def answer(shop: Shop, **usage_of_it: Any) -> Hold:
    hold = shop.admit()
    shop.settle(hold, prompt=7919, cached=0, completion=4127, **usage_of_it)
    usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    return hold


def fail(shop: Shop, reason: str) -> None:
    from billing import holds  # noqa: PLC0415  beside its only use

    holds.void(tenant_id=shop.tenant.pk, hold_id=shop.admit().pk, reason=reason)


def busy_shop() -> Shop:
    """A shop with two answers, a payment, and one failure of each of two reasons, one of which is nobody's fault."""
    shop = open_shop()
    credit(shop.user, 77_000_000)
    for _ in range(2):
        answer(shop)
    pay(order_plan(shop.user, make_plan(shop.tenant)))
    fail(shop, "upstream_timeout")
    fail(shop, "client_left")
    return shop


@pytest.fixture
def ours() -> Shop:
    return busy_shop()


@pytest.fixture
def theirs() -> Shop:
    return busy_shop()


def shown(page: str) -> dict[str, list[str]]:
    """Return the figures of each card."""
    cards = re.findall(
        r'<h2 class="font-semibold mb-2 text-important">([^<]+)</h2>(.*?)(?=<h2 |</section>)', page, re.DOTALL
    )
    return {title: re.findall(r'class="bn-figure[^>]*>([^<]+)<', rest) for title, rest in cards if "bn-chart" in rest}


def links(page: str) -> list[str]:
    return [
        href.replace("&amp;", "&")
        for href in re.findall(r'<a class="(?:bn-figure[^"]*|underline)" href="([^"]+)"', page)
    ]


def rows_on(page: str) -> int:
    found = re.search(r'id="changelist-form"', page)
    assert found
    return len(re.findall(r'<th class="[^"]*field-|name="_selected_action"', page))


def test_an_owner_sees_the_figures_of_the_own_tenant(ours: Shop, theirs: Shop) -> None:
    page = client_of(ours).get("/admin/?days=1").content.decode()
    assert shown(page) == {
        "Revenue": ["¥0.08"],
        "Cost and margin": ["¥0.04", "¥0.04"],
        "Recharges": ["¥19.90", "1"],
        "Users": ["1", "1"],
        "Chats": ["2", "0"],
        "Tokens": ["15,838", "8,254"],
        "Errors": ["1"],
    }
    assert "no answer in time" in page
    assert ours.sku in page
    assert [word for word in (theirs.sku, theirs.tenant.name) if word in page] == []


def test_the_operator_sees_all_tenants_and_what_they_bring(ours: Shop, theirs: Shop) -> None:
    page = operator().get("/platform/?days=1").content.decode()
    assert (ours.sku in page, theirs.sku in page) == (True, True)
    assert int(shown(page)["Chats"][0].replace(",", "")) >= 4
    span = Span(first=timezone.localdate(), last=timezone.localdate(), zone=SHANGHAI)
    with scope.tenant(ours.tenant.pk):
        known = figures.read(days=span, items=span)
    sums = known.by_sku[ours.sku]
    assert (sums["wholesale_charge"], sums["cost"], sums["charge"]) == (40_600, 20_300, 81_200)


@pytest.mark.parametrize(
    ("role", "cards"),
    [
        ("owner", ["Revenue", "Cost and margin", "Recharges", "Users", "Chats", "Tokens", "Errors"]),
        ("finance", ["Revenue", "Cost and margin", "Recharges", "Users", "Chats", "Tokens", "Errors"]),
        ("support", ["Users", "Chats", "Tokens", "Errors"]),
        ("content", ["Chats", "Tokens", "Errors"]),
    ],
)
def test_each_role_sees_its_own_cards(ours: Shop, role: str, cards: list[str]) -> None:
    page = client_of(ours, role).get("/admin/?days=7").content.decode()
    assert list(shown(page)) == cards
    has_money = role in {Membership.Role.OWNER, Membership.Role.FINANCE}
    assert [("¥" in page), (">margin<" in page)] == [has_money, has_money]


@pytest.mark.parametrize("role", Membership.Role.values)
def test_every_figure_leads_to_a_list_that_the_role_may_see(ours: Shop, role: str) -> None:
    client = client_of(ours, role)
    found = links(client.get("/admin/?days=7").content.decode())
    assert bool(found) == (role != Membership.Role.CONTENT)
    assert {href: client.get(href).status_code for href in found} == dict.fromkeys(found, 200)


def test_a_list_has_what_the_figure_counts(ours: Shop, theirs: Shop) -> None:
    client, today = client_of(ours), timezone.localdate(timezone=SHANGHAI)
    span = {"today": today, "before": today - timedelta(days=1)}
    for path, count in (
        ("tenants/enduser/?active_from={today}&active_to={today}", 1),
        ("tenants/enduser/?active_from={before}&active_to={before}", 0),
        ("tenants/enduser/?created_at_from={today}&created_at_to={today}", 1),
        ("tenants/enduser/?created_at_from={before}&created_at_to={before}", 0),
        ("billing/order/?state__exact=paid&paid_at_from={today}&paid_at_to={today}", 1),
        ("billing/order/?state__exact=paid&paid_at_from={before}&paid_at_to={before}", 0),
        ("billing/hold/?failed=yes&quota_date_from={today}&quota_date_to={today}", 1),
        ("billing/hold/?failed=yes&quota_date_from={before}&quota_date_to={before}", 0),
        ("billing/dailyusage/?day_from={today}&day_to={today}", 1),
        ("billing/dailyusage/?day_from={before}&day_to={before}", 0),
    ):
        response = client.get("/admin/" + path.format(**span))
        assert (path, response.context["cl"].result_count) == (path, count)


@pytest.mark.parametrize(
    "query", ["active_from=x&active_to=", "created_at_from=2026-13-01", "created_at_to=9999-12-31"]
)
def test_days_that_are_none_keep_all(ours: Shop, query: str) -> None:
    response = client_of(ours).get(f"/admin/tenants/enduser/?{query}")
    assert (response.status_code, response.context["cl"].result_count) == (200, 1)


def test_the_page_takes_as_many_queries_for_many_rows_as_for_few(ours: Shop) -> None:
    client = client_of(ours)
    client.get("/admin/?days=90")
    with CaptureQueriesContext(connection) as few:
        client.get("/admin/?days=1")
    for _ in range(3):
        user = ours.open_more()
        credit(user, 10_000_000)
        pay(order_plan(user, make_plan(ours.tenant)))
        answer(ours)
        fail(ours, "upstream_rate")
    with CaptureQueriesContext(connection) as many:
        client.get("/admin/?days=90")
    assert len(many) == len(few) <= 18


def test_a_user_is_active_once_a_day(ours: Shop) -> None:
    with scope.tenant(ours.tenant.pk):
        assert list(DailyUsers.objects.values_list("active", flat=True)) == [1]
    other = ours.open_more()
    credit(other, 10_000_000)
    hold = ours.admit(user_id=other.pk)
    ours.settle(hold)
    for _ in range(2):
        usage.record(tenant_id=ours.tenant.pk, hold_id=hold.pk)
    with scope.tenant(ours.tenant.pk):
        assert list(DailyUsers.objects.values_list("active", flat=True)) == [2]
    assert audit.audit_tenant(tenant_id=ours.tenant.pk) == []


def test_payments_and_new_users_are_of_the_tenants_day(ours: Shop) -> None:
    just_after_midnight = datetime(2026, 3, 1, 0, 0, 1, tzinfo=SHANGHAI)
    assert just_after_midnight.astimezone(UTC).date() == date(2026, 2, 28)
    with scope.tenant(ours.tenant.pk):
        EndUser.objects.update(created_at=just_after_midnight)
        Order.objects.update(created_at=just_after_midnight)
        first, second = date(2026, 2, 28), date(2026, 3, 1)
        span = Span(first=first, last=second, zone=SHANGHAI)
        known = figures.read(days=span, items=span)
        assert known.series(span, "new_users") == [0, 1]
        utc = Span(first=first, last=second, zone=ZoneInfo("UTC"))
        assert figures.read(days=utc, items=utc).series(utc, "new_users") == [1, 0]


TODAY = timezone.localdate(timezone=SHANGHAI)


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ({}, -29, 0),
        ({"days": "1"}, 0, 0),
        ({"days": "7"}, -6, 0),
        ({"days": "90"}, -89, 0),
        ({"days": "1000000"}, -29, 0),
        ({"days": "x"}, -29, 0),
        ({"from": "2026-01-01", "to": "not a day"}, -29, 0),
    ],
)
def test_the_span_that_a_query_asks_for(query: dict[str, str], first: int, last: int) -> None:
    span = span_of(query, zone=SHANGHAI)
    today = timezone.localdate(timezone=SHANGHAI)
    assert (span.first, span.last) == (today + timedelta(days=first), today + timedelta(days=last))


def test_a_span_of_ones_own_is_a_year_at_most() -> None:
    span = span_of({"from": "2020-01-01", "to": "2026-01-31"}, zone=SHANGHAI)
    assert (span.first, span.last, span.length) == (date(2025, 1, 31), date(2026, 1, 31), 366)
    turned = span_of({"from": "2026-01-31", "to": "2026-01-01"}, zone=SHANGHAI)
    assert turned.length == 30


def test_other_tenants_staff_see_nothing(ours: Shop, theirs: Shop) -> None:
    client = Client(headers={"host": host_of(ours.tenant)})
    client.force_login(make_staff(theirs.tenant))
    assert client.get("/admin/?days=1").status_code == 302
