"""A tenant's own people say what it sells, in yuan; support looks, and nobody sees another tenant's."""

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import translation

from billing.models import Package
from tenants import scope
from tenants.models import Membership, Tenant
from tests.factories import YUAN, host_of, make_operator, make_staff, make_tenant

Role = Membership.Role
FORM = {
    "slug": "ten",
    "name": "Ten",
    "price": "9.90",
    "credits": "10",
    "bonus": "0.5",
    "badge": "",
    "limit_per_user": "0",
    "position": "1",
    "virtual_product_id": "",
    "is_enabled": "on",
}
WANTED = "An amount such as 10 or 0.50 is wanted, from %s to 1000000.00, with at most %d decimals."

pytestmark = pytest.mark.django_db


def client_of(tenant: Tenant, role: str) -> Client:
    client = Client(headers={"host": host_of(tenant), "accept-language": "en"})
    client.force_login(make_staff(tenant, role=role))
    return client


def path(name: str, *args: object, site: str = "tenant_admin") -> str:
    return reverse(f"{site}:billing_package_{name}", args=args)


def packages(tenant: Tenant) -> list[Package]:
    with scope.tenant(tenant.pk):
        return list(Package.objects.order_by("pk"))


@pytest.mark.parametrize("role", [Role.OWNER, Role.FINANCE])
def test_owners_and_finance_sell_packages_in_yuan(role: str) -> None:
    tenant = make_tenant()
    client = client_of(tenant, role)
    assert client.post(path("add"), FORM).status_code == 302
    (made,) = packages(tenant)
    assert (made.tenant_id, made.price, made.credits, made.bonus) == (tenant.pk, 9_900_000, 10 * YUAN, 500_000)
    shown = client.get(path("change", made.pk)).content.decode()
    assert [f'value="{text}"' in shown for text in ("9.90", "10.00", "0.50")] == [True, True, True]
    assert client.post(path("change", made.pk), {**FORM, "price": "8"}).status_code == 302
    assert packages(tenant)[0].price == 8 * YUAN
    # Only what changed is said to have: 10 is what 10.00 was.
    with translation.override("en"):
        assert LogEntry.objects.latest("pk").get_change_message() == "Changed price, yuan."


@pytest.mark.parametrize(
    ("field", "typed", "least", "places"),
    [
        ("price", "0", "0.01", 2),
        ("price", "0.005", "0.01", 2),
        ("price", "10.001", "0.01", 2),
        ("price", "1000000.01", "0.01", 2),
        ("price", "ten", "0.01", 2),
        ("credits", "0", "0.000001", 6),
        ("bonus", "-1", "0.00", 6),
    ],
)
def test_what_is_no_amount_is_refused_at_its_field(field: str, typed: str, least: str, places: int) -> None:
    tenant = make_tenant()
    answer = client_of(tenant, Role.OWNER).post(path("add"), {**FORM, field: typed})
    errors = answer.context["adminform"].form.errors
    assert (errors, packages(tenant)) == ({field: [WANTED % (least, places)]}, [])
    assert f'value="{typed}"' in answer.content.decode()


def test_support_looks_in_yuan_and_changes_nothing() -> None:
    tenant = make_tenant()
    client_of(tenant, Role.OWNER).post(path("add"), FORM)
    (made,) = packages(tenant)
    client = client_of(tenant, Role.SUPPORT)
    page = client.get(path("change", made.pk)).content.decode()
    assert ("price, yuan" in page.lower(), "9.90" in page, "9900000" in page) == (True, True, False)
    refused = [client.post(path("change", made.pk), FORM), client.post(path("add"), FORM)]
    assert ([answer.status_code for answer in refused], packages(tenant)) == ([403, 403], [made])


def test_a_package_is_nobody_elses_business() -> None:
    tenant, other = make_tenant(), make_tenant()
    client_of(tenant, Role.OWNER).post(path("add"), FORM)
    (made,) = packages(tenant)
    client = client_of(other, Role.OWNER)
    assert client.get(path("changelist")).context["cl"].result_count == 0
    assert client.post(path("change", made.pk), {**FORM, "price": "1"}).status_code == 404
    # A member sells for the own tenant, whatever the form says.
    client.post(path("add"), {**FORM, "tenant": str(tenant.pk)})
    assert ([row.price for row in packages(tenant)], len(packages(other))) == ([9_900_000], 1)


def test_the_operator_says_whose_it_is() -> None:
    tenant = make_tenant()
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    assert client.post(path("add", site="admin"), {**FORM, "tenant": str(tenant.pk)}).status_code == 302
    assert [row.price for row in packages(tenant)] == [9_900_000]
