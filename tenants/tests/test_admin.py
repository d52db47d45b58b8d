"""The two admin sites: who may enter where, and whose rows show."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from tenants import scope
from tenants.adminsite import TenantModelAdmin, tenant_site
from tenants.models import Domain, EndUser, Membership, MiniProgram, StaffUser, Tenant
from tenants.scope import TenantOwned
from tenants.tests.conftest import House
from tests.factories import PASSWORD, make_mini_program, make_operator, make_staff, make_user

pytestmark = pytest.mark.django_db


def browser(host: str, staff: StaffUser | None = None) -> Client:
    """Return a client on a host, with a session of `staff`."""
    client = Client(headers={"host": host})
    if staff:
        client.force_login(staff)
    return client


def log_in(host: str, site: str, username: str, password: str) -> Any:
    body = {"username": username, "password": password}
    return Client(headers={"host": host}).post(f"/{site}/login/", body)


def registered(site: AdminSite) -> dict[type[Model], Any]:
    """Return the models on a site."""
    return site._registry  # noqa: SLF001  # there is no public way to list them


def tenant_pages() -> Iterator[str]:
    """Every list on the tenant's site."""
    for model in registered(tenant_site):
        yield f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def test_an_operator_enters_on_the_platforms_hosts_only(aurora: House) -> None:
    operator = make_operator()
    assert browser("localhost", operator).get("/platform/").status_code == 200
    assert browser(aurora.host, operator).get("/platform/").status_code == 404
    assert browser(aurora.host, operator).get("/platform/login/").status_code == 404
    assert browser("nobody.test", operator).get("/platform/").status_code == 404


def test_an_operator_sees_every_tenants_rows(aurora: House, lotus: House) -> None:
    page = browser("localhost", make_operator()).get("/platform/tenants/enduser/").content.decode()
    for house in (aurora, lotus):
        assert (house.alice.nickname in page, house.tenant.slug in page) == (True, True)


def test_every_list_and_form_of_the_operators_site_opens(aurora: House) -> None:
    staff = StaffUser.objects.create_superuser("root-of-the-test", password=PASSWORD)
    client = browser("localhost", staff)
    for model, model_admin in registered(admin.site).items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert client.get(reverse(f"{name}_changelist")).status_code == 200, model
        request = client.get(reverse(f"{name}_changelist")).wsgi_request
        wanted = 200 if model_admin.has_add_permission(request) else 403
        assert client.get(reverse(f"{name}_add")).status_code == wanted, model


def test_only_operators_enter_the_platform(aurora: House) -> None:
    member = make_staff(aurora.tenant)
    response = browser("localhost", member).get("/platform/tenants/enduser/")
    assert (response.status_code, response["Location"]) == (
        302,
        "/platform/login/?next=/platform/tenants/enduser/",
    )
    flagged = StaffUser.objects.create_user("flagged-as-staff", password=PASSWORD, is_staff=True)
    assert browser("localhost", flagged).get("/platform/").status_code == 302


def test_an_operator_cannot_make_superusers() -> None:
    client = browser("localhost", make_operator())
    assert client.get("/platform/tenants/staffuser/").status_code == 200
    assert client.get("/platform/tenants/staffuser/add/").status_code == 403
    assert client.get("/platform/tenants/platformmembership/add/").status_code == 403


def test_staff_see_their_tenants_rows_and_no_others(aurora: House, lotus: House) -> None:
    client = browser(aurora.host, make_staff(aurora.tenant))
    page = client.get("/admin/tenants/enduser/").content.decode()
    assert (aurora.alice.nickname in page, lotus.alice.nickname in page) == (True, False)
    domains = client.get("/admin/tenants/domain/").content.decode()
    assert (aurora.host in domains, lotus.host in domains) == (True, False)


def test_every_list_of_the_tenants_site_opens_and_names_nobody_else(aurora: House, lotus: House) -> None:
    make_staff(lotus.tenant)
    make_mini_program(lotus.tenant)
    client = browser(aurora.host, make_staff(aurora.tenant))
    for page in ("/admin/", *tenant_pages()):
        response = client.get(page)
        assert (page, response.status_code) == (page, 200)
        found = response.content.decode()
        assert (page, [word for word in (lotus.tenant.slug, lotus.tenant.name) if word in found]) == (page, [])


def test_another_tenants_row_is_not_there(aurora: House, lotus: House) -> None:
    client = browser(aurora.host, make_staff(aurora.tenant))
    for view in ("change", "history", "delete"):
        mine = client.get(f"/admin/tenants/enduser/{aurora.alice.pk}/{view}/")
        theirs = client.get(f"/admin/tenants/enduser/{lotus.alice.pk}/{view}/")
        assert mine.status_code == (403 if view == "delete" else 200)
        assert theirs.status_code in {302, 403, 404}
        assert lotus.alice.nickname not in theirs.content.decode()


def test_search_and_filters_stay_within_the_tenant(aurora: House, lotus: House) -> None:
    make_user(lotus.tenant, username="zoe", nickname="Zoe of the lotus")
    client = browser(aurora.host, make_staff(aurora.tenant))
    for query in ("?q=zoe", f"?tenant__id__exact={lotus.tenant.pk}", "?is_guest__exact=0", "?o=1", "?all="):
        page = client.get(f"/admin/tenants/enduser/{query}", follow=True).content.decode()
        assert (query, "Zoe of the lotus" in page, lotus.alice.nickname in page) == (query, False, False)


def test_other_tenants_staff_are_refused(aurora: House, lotus: House) -> None:
    stranger = make_staff(lotus.tenant)
    for page in ("/admin/", *tenant_pages(), f"/admin/tenants/enduser/{aurora.alice.pk}/change/"):
        response = browser(aurora.host, stranger).get(page)
        assert (response.status_code, response["Location"]) == (302, f"/admin/login/?next={page}")


def test_a_membership_that_ends_ends_at_once(aurora: House) -> None:
    staff = make_staff(aurora.tenant)
    client = browser(aurora.host, staff)
    assert client.get("/admin/").status_code == 200
    with scope.tenant(aurora.tenant.pk):
        Membership.objects.filter(staff=staff).delete()
    assert client.get("/admin/").status_code == 302


def test_staff_of_two_tenants_see_each_on_its_own_host(aurora: House, lotus: House) -> None:
    staff = make_staff(aurora.tenant, lotus.tenant)
    for mine, other in ((aurora, lotus), (lotus, aurora)):
        page = browser(mine.host, staff).get("/admin/tenants/enduser/").content.decode()
        assert (mine.alice.nickname in page, other.alice.nickname in page) == (True, False)
        # unfold's global search caches by user only: the page it would leak through is off
        assert browser(mine.host, staff).get("/admin/search/?s=alice&extended").status_code == 404


def test_the_operators_people_use_their_own_site(aurora: House) -> None:
    assert browser(aurora.host, make_operator()).get("/admin/").status_code == 302
    assert browser("localhost", make_operator()).get("/admin/").status_code == 404
    assert browser("localhost", make_staff(aurora.tenant)).get("/admin/").status_code == 404


@pytest.mark.parametrize(
    ("role", "pages"),
    [
        ("owner", {"enduser", "membership", "miniprogram", "branding"}),
        ("finance", {"enduser", "branding"}),
        ("support", {"enduser", "branding"}),
        ("content", {"miniprogram", "branding"}),
    ],
)
def test_a_role_opens_its_own_lists(role: str, pages: set[str], aurora: House) -> None:
    client = browser(aurora.host, make_staff(aurora.tenant, role=role))
    opened = {
        name
        for name in ("enduser", "membership", "miniprogram", "branding")
        if client.get(f"/admin/tenants/{name}/").status_code == 200
    }
    assert opened == pages


def test_staff_look_and_change_nothing_yet(aurora: House) -> None:
    client = browser(aurora.host, make_staff(aurora.tenant))
    change = f"/admin/tenants/enduser/{aurora.alice.pk}/change/"
    assert client.post(change, {"nickname": "changed"}).status_code == 403
    assert client.get("/admin/tenants/enduser/add/").status_code == 403
    assert client.get("/admin/tenants/domain/add/").status_code == 403
    with scope.tenant(aurora.tenant.pk):
        assert EndUser.objects.get().nickname == aurora.alice.nickname


def test_logging_in_at_the_tenants_site(aurora: House, lotus: House) -> None:
    member, stranger, operator = make_staff(aurora.tenant), make_staff(lotus.tenant), make_operator()
    assert log_in(aurora.host, "admin", member.username, PASSWORD)["Location"] == "/admin/"
    refused = "Please enter the correct username and password"
    for username, password in (
        (member.username, "wrong"),
        (stranger.username, PASSWORD),
        (operator.username, PASSWORD),
        ("nobody", PASSWORD),
    ):
        response = log_in(aurora.host, "admin", username, password)
        assert (response.status_code, "sessionid" in response.cookies) == (200, False)
        assert refused in response.content.decode()


def test_logging_in_at_the_operators_site(aurora: House) -> None:
    operator, member = make_operator(), make_staff(aurora.tenant)
    assert log_in("localhost", "platform", operator.username, PASSWORD)["Location"] == "/platform/"
    assert "sessionid" not in log_in("localhost", "platform", member.username, PASSWORD).cookies


def test_end_users_can_never_log_in(aurora: House) -> None:
    make_user(aurora.tenant, username="carol", password=PASSWORD)
    for host, site in ((aurora.host, "admin"), ("localhost", "platform")):
        assert "sessionid" not in log_in(host, site, "carol", PASSWORD).cookies
    client = Client(headers={"host": aurora.host, "authorization": f"Bearer {aurora.token}", "token": aurora.token})
    assert client.get(f"/admin/?token={aurora.token}").status_code == 302


def test_no_password_digest_or_secret_shows_on_any_page(aurora: House, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    user = make_user(aurora.tenant, username="carol", password=PASSWORD)
    program = make_mini_program(aurora.tenant, secret="the-secret-of-wechat")
    with scope.tenant(aurora.tenant.pk):
        token = aurora.alice.access_tokens.get()
    rows = (f"enduser/{user.pk}", f"miniprogram/{program.pk}", f"accesstoken/{token.pk}")
    for client, site in (
        (browser(aurora.host, make_staff(aurora.tenant)), "admin"),
        (browser("localhost", make_operator()), "platform"),
    ):
        for row in rows:
            response = client.get(f"/{site}/tenants/{row}/change/")
            assert (row, response.status_code) == (row, 200)
            page = response.content.decode()
            assert [word for word in (user.password, token.digest, "the-secret-of-wechat") if word in page] == []


def test_an_operator_sets_a_secret_and_an_empty_one_keeps_it(aurora: House, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    program = make_mini_program(aurora.tenant, secret="first")
    client = browser("localhost", make_operator())
    row = {"tenant": aurora.tenant.pk, "app_id": program.app_id, "name": "Mini"}
    for typed, stored in (("", "first"), ("second", "second"), ("", "second")):
        response = client.post(f"/platform/tenants/miniprogram/{program.pk}/change/", {**row, "secret": typed})
        assert response.status_code == 302
        with scope.tenant(aurora.tenant.pk):
            assert MiniProgram.objects.get().secret == stored


def test_an_operator_adds_a_domain(aurora: House) -> None:
    client = browser("localhost", make_operator())
    host = f"www.{aurora.host}"
    response = client.post("/platform/tenants/domain/add/", {"tenant": aurora.tenant.pk, "host": host})
    assert response.status_code == 302
    with scope.tenant(aurora.tenant.pk):
        assert set(Domain.objects.values_list("host", flat=True)) == {aurora.host, host}


def test_a_list_costs_as_many_queries_for_three_tenants_rows_as_for_one(
    aurora: House, lotus: House, django_assert_max_num_queries: Any
) -> None:
    client = browser("localhost", make_operator())
    client.get("/platform/tenants/accesstoken/")
    with django_assert_max_num_queries(9) as one:
        client.get("/platform/tenants/accesstoken/")
    for _ in range(5):
        make_user(aurora.tenant)
    with django_assert_max_num_queries(len(one)):
        client.get("/platform/tenants/accesstoken/")


# What is between the platform and its resellers: rows of a tenant that its own site must not show.
OPERATOR_ONLY = {"billing.Commission", "billing.CommissionBack", "lifecycle.TenantDeletion"}
# Of kinds that may belong to a tenant, but by a CHECK never do.
PLATFORMS = {"lifecycle.OfferTemplate"}


def test_what_belongs_to_tenants_is_registered_on_both_sites_or_none() -> None:
    """A tenant's model registered on the operator's site alone, or by another base, would escape the rules above."""
    for model in apps.get_models():
        if issubclass(model, TenantOwned):
            on_both = (registered(admin.site).get(model), registered(tenant_site).get(model))
            allowed = [[True]] if model._meta.label in OPERATOR_ONLY else [[True, True], []]
            allowed = [[False]] if model._meta.label in PLATFORMS else allowed
            assert [isinstance(entry, TenantModelAdmin) for entry in on_both if entry] in allowed
    assert {model._meta.label for model in registered(tenant_site)} & (OPERATOR_ONLY | PLATFORMS) == set()
    assert {model for model in registered(tenant_site) if not issubclass(model, TenantOwned)} == set()
    assert Tenant not in registered(tenant_site)
