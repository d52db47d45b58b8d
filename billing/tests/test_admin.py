"""Staff look at money, nobody edits it by hand, and no tenant sees another's rows or the platform's cost."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import usage
from billing.models import Account, DailyUsage, Entry, Hold, PriceVersion, QuotaUse, Transfer, UsageRecord
from billing.tests.conftest import Shop, open_shop
from billing.yuan import show_yuan
from tenants import resolve, scope
from tenants.models import Membership
from tenants.scope import TenantOwned
from tests.factories import credit, host_of, make_operator, make_staff

MODELS = (Account, Transfer, Entry, PriceVersion, Hold, QuotaUse, UsageRecord, DailyUsage)

Model = type[TenantOwned]
Costed = type[Hold | UsageRecord | DailyUsage]


def busy_shop() -> Shop:
    """A shop with a row in every table, its amounts unlike any other number on a page."""
    shop = open_shop()
    credit(shop.user, 77_123_456)
    for free in (0, 1):
        hold = shop.admit(free_per_day=free)
        shop.settle(hold, prompt=7919, cached=0, completion=4127)
        usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    return shop


@pytest.fixture
def ours(db: None) -> Shop:
    return busy_shop()


@pytest.fixture
def theirs(db: None) -> Shop:
    return busy_shop()


def client_of(shop: Shop, role: str) -> Client:
    client = Client(HTTP_HOST=host_of(shop.tenant))
    client.force_login(make_staff(shop.tenant, role=role))
    return client


def path(site: str, model: Model, page: str = "changelist", *args: object) -> str:
    return reverse(f"{site}:billing_{model.__name__.lower()}_{page}", args=args)


@pytest.mark.parametrize("model", MODELS)
def test_the_tenant_s_finance_sees_its_own_rows(ours: Shop, theirs: Shop, model: Model) -> None:
    client = client_of(ours, Membership.Role.FINANCE)
    # What of the tenant's rows is the platform's business.
    hidden = {"account": "kind", "entry": "account__kind"}.get(model.__name__.lower())
    with scope.tenant(ours.tenant.pk):
        mine = model.objects.earliest("pk")
        count = model.objects.exclude(**({hidden: "platform_revenue"} if hidden else {"pk": None})).count()
    with scope.tenant(theirs.tenant.pk):
        other = model.objects.earliest("pk")
    page = client.get(path("tenant_admin", model))
    assert (page.status_code, page.context["cl"].result_count) == (200, count)
    assert client.get(path("tenant_admin", model, "change", mine.pk)).status_code == 200
    # Django sends who asks for a row that is not there back to the list.
    assert client.get(path("tenant_admin", model, "change", other.pk)).status_code == 404


@pytest.mark.parametrize("model", MODELS)
def test_the_operator_sees_everybody_s_rows_and_changes_none(ours: Shop, theirs: Shop, model: Model) -> None:
    client = Client(HTTP_HOST="localhost")
    client.force_login(make_operator())
    with scope.platform("test"):
        mine, count = model.objects.earliest("pk"), model.objects.count()
    page = client.get(path("admin", model))
    assert (page.status_code, page.context["cl"].result_count) == (200, count)
    assert client.get(path("admin", model, "change", mine.pk)).status_code == 200
    if model is not PriceVersion:  # which is published, and then never changed
        assert client.get(path("admin", model, "add")).status_code == 403
    refused = [
        client.post(path("admin", model, "change", mine.pk), {}),
        client.post(path("admin", model, "delete", mine.pk), {"post": "yes"}),
    ]
    assert [response.status_code for response in refused] == [403, 403]


@pytest.mark.parametrize("model", [Account, Transfer, Entry, PriceVersion])
def test_the_ledger_is_not_for_support(ours: Shop, model: Model) -> None:
    assert client_of(ours, Membership.Role.SUPPORT).get(path("tenant_admin", model)).status_code == 403
    assert client_of(ours, Membership.Role.CONTENT).get(path("tenant_admin", Hold)).status_code == 403


@pytest.mark.parametrize("model", [Hold, UsageRecord, DailyUsage])
def test_the_platform_s_cost_is_the_platform_s(ours: Shop, model: Costed) -> None:
    with scope.tenant(ours.tenant.pk):
        row = model.objects.earliest("pk")
    cost = show_yuan(row.cost)
    assert row.cost > 0
    operator = Client(HTTP_HOST="localhost")
    operator.force_login(make_operator())
    shown = operator.get(path("admin", model, "change", row.pk)).content.decode()
    hidden = client_of(ours, Membership.Role.OWNER).get(path("tenant_admin", model, "change", row.pk)).content.decode()
    assert (cost in shown, cost in hidden) == (True, False)


@pytest.mark.parametrize("model", MODELS)
def test_a_list_takes_as_many_queries_for_four_rows_as_for_one(ours: Shop, model: Model) -> None:
    client = client_of(ours, Membership.Role.OWNER)
    client.get(path("tenant_admin", model))  # a session's first page keeps that it is there
    counts = []
    for _ in range(2):
        resolve.forget()  # by a slow machine it may be forgotten in between: let both requests look the tenant up
        with CaptureQueriesContext(connection) as queries:
            client.get(path("tenant_admin", model))
        counts.append(len(queries))
        for _ in range(3):
            user = ours.open_more()
            credit(user, 1)
            hold = ours.admit(user_id=user.pk, free_per_day=1)
            ours.settle(hold)
            usage.record(tenant_id=ours.tenant.pk, hold_id=hold.pk)
    assert counts[0] == counts[1]
