"""The doors to an opening: the programs' API, the portal's wizard, the invitation; and who is kept out."""

from typing import Any

import pytest
from django.test import Client

from lifecycle import opening, programs
from lifecycle.models import Check, DomainClaim, OfferTemplate, Opening, ResellerToken
from lifecycle.tests.conftest import make_template
from tenants import scope
from tenants.models import Branding, Membership, MiniProgram, Tenant
from tests.factories import (
    PASSWORD,
    host_of,
    make_operator,
    make_partner,
    make_reseller,
    make_staff,
    make_tenant,
    unique,
)

db = pytest.mark.django_db


def program_of(reseller: Any) -> Client:
    _row, secret = programs.make_token(reseller=reseller, name="till", actor="test")
    return Client(headers={"host": "localhost", "Authorization": f"Bearer {secret}", "Accept-Language": "en"})


def post(client: Client, path: str, **body: Any) -> Any:
    return client.post(f"/api/opening/{path}", body, content_type="application/json")


# --- the API


@db
def test_a_program_opens_once_and_sees_its_own_resellers_tenants() -> None:
    template, parent, stranger = make_template(), make_reseller(), make_reseller()
    child = make_reseller(parent=parent)
    ours, theirs = program_of(parent), program_of(stranger)
    body = {"name": "Bamboo", "template": template.slug, "key": "k1", "markup_percent": 10}
    made = post(ours, "tenants", **body).json()
    again = post(ours, "tenants", **body).json()
    slug = made["data"]["tenant"]["slug"]
    assert (made["data"]["is_new"], made["data"]["tenant"]["reseller"]) == (True, parent.slug)
    assert (again["data"]["tenant"]["slug"], again["data"]["is_new"]) == (slug, False)
    assert (again["data"]["invitation_url"], "/admin/join/" in made["data"]["invitation_url"]) == ("", True)
    below = post(ours, "tenants", name="Child", template=template.slug, reseller=child.slug).json()
    assert below["data"]["tenant"]["reseller"] == child.slug
    seen = [row["slug"] for row in ours.get("/api/opening/tenants").json()["data"]]
    assert sorted(seen) == sorted([slug, below["data"]["tenant"]["slug"]])
    assert theirs.get("/api/opening/tenants").json()["data"] == []
    assert sorted(row["slug"] for row in program_of(None).get("/api/opening/tenants").json()["data"])[:0] == []
    refused = [
        theirs.get(f"/api/opening/tenants/{slug}"),
        theirs.get(f"/api/opening/tenants/{slug}/checklist"),
        post(theirs, f"tenants/{slug}/checklist"),
        post(theirs, "tenants", name="X", reseller=parent.slug),
    ]
    assert [(said.status_code, said.json()["type"]) for said in refused] == [
        *[(404, "tenant_not_found")] * 3,
        (404, "reseller_not_found"),
    ]
    steps = ours.get(f"/api/opening/tenants/{slug}/checklist").json()["data"]
    assert (steps["done"], [row["kind"] for row in steps["steps"]]) == (False, list(Check.Kind.values))
    looked = post(ours, f"tenants/{slug}/checklist?step=wallet").json()["data"]["steps"]
    assert {row["kind"]: row["state"] for row in looked}["wallet"] == "green"
    assert post(ours, f"tenants/{slug}/checklist?step=none").json()["type"] == "no_such_step"


@db
def test_without_a_programs_token_nobody_comes_in() -> None:
    tenant, reseller = make_tenant(), make_reseller()
    row, secret = programs.make_token(reseller=reseller, name="till", actor="test")
    at_tenants = Client(headers={"host": host_of(tenant), "Authorization": f"Bearer {secret}"})
    assert at_tenants.get("/api/opening/tenants").status_code == 404
    assert secret not in str(ResellerToken.objects.values().get(pk=row.pk))
    for bearer in ("", "Bearer bny_rs_" + "x" * 43, "Bearer x"):
        said = Client(headers={"host": "localhost", "Authorization": bearer}).get("/api/opening/tenants")
        assert (said.status_code, said.json()["type"]) == (401, "login_required")
    here = Client(headers={"host": "localhost", "Authorization": f"Bearer {secret}"})
    assert here.get("/api/opening/tenants").status_code == 200
    assert [programs.revoke_token(row) for _ in range(2)] == [True, False]
    assert here.get("/api/opening/tenants").status_code == 401


@db
def test_a_program_is_told_the_fields_that_are_wrong() -> None:
    template = make_template()
    said = post(program_of(make_reseller()), "tenants", name="B", template=template.slug, primary_color="red").json()
    assert (said["type"], said["fields"], said["code"]) == ("tenant_unfit", ["primary_color"], 10001)
    listed = program_of(None).get("/api/opening/templates").json()["data"]
    mine = next(row for row in listed if row["slug"] == template.slug)
    assert (mine["markup_percent"], mine["models"][0]["retail"]["prompt"]) == (50.0, "1500000")


@db
def test_a_host_proves_whose_it_is() -> None:
    first, second = make_tenant(), make_tenant()
    said = [
        Client(headers={"host": host_of(tenant)})
        .get("/api/opening/proof", {"nonce": "12345678"})
        .json()["data"]["proof"]
        for tenant in (first, first, second)
    ]
    assert (said[0] == said[1], said[0] == said[2], len(said[0])) == (True, False, 64)
    assert Client(headers={"host": "localhost"}).get("/api/opening/proof", {"nonce": "12345678"}).status_code == 404


# --- the wizard


def wizard_of(reseller: Any) -> Client:
    client = Client(headers={"host": "localhost", "Accept-Language": "en"})
    client.force_login(make_partner(reseller, language="en"))
    return client


@pytest.fixture
def template(db: None) -> OfferTemplate:
    with scope.platform("a test's default"):
        OfferTemplate.objects.update(is_default=False)
    return make_template(is_default=True)


def test_a_name_and_one_click_open_a_tenant(template: OfferTemplate) -> None:
    reseller = make_reseller()
    client = wizard_of(reseller)
    assert client.get("/portal/tenants/new/").status_code == 200
    page = client.post("/portal/tenants/new/", {"name": "Bamboo House", "language": "en", "open": "1"})
    tenant = Tenant.objects.get(reseller=reseller)
    assert (page.status_code, tenant.name, tenant.language) == (200, "Bamboo House", "en")
    assert page.content.decode().count("/admin/join/") == 2
    again = client.get(f"/portal/tenants/{tenant.slug}/checklist/")
    assert (again.status_code, "/admin/join/" in again.content.decode()) == (200, False)


def test_nothing_that_was_typed_is_lost(template: OfferTemplate) -> None:
    reseller = make_reseller()
    client, app_id = wizard_of(reseller), f"wx{unique('')[-12:]}"
    first = client.post("/portal/tenants/new/", {"name": "竹屋", "language": "zh-hans", "next": "1"})
    begun = Opening.objects.get(reseller=reseller)
    base = f"/portal/tenants/new/{begun.pk}"
    assert first["Location"] == f"{base}/brand/"
    assert (
        client.post(f"{base}/brand/", {"slogan": "grows", "primary_color": "#b45309"})["Location"] == f"{base}/address/"
    )
    wrong = client.post(f"{base}/address/", {"slug": "Not A Slug", "host": "https://chat.bamboo.example.net/x"})
    assert wrong["Location"] == f"{base}/address/?wrong"
    page = client.get(wrong["Location"]).content.decode()
    assert ('value="Not A Slug"' in page, "Small letters, digits and dashes" in page) == (True, True)
    client.post(f"{base}/mini-program/", {"app_id": app_id, "app_secret": "an-app-secret"})
    typed = {"channel": "wechat", "merchant_id": "19x", "api_v3_key": "short"}
    assert client.post(f"{base}/payment/", typed)["Location"] == f"{base}/payment/?wrong"
    page = client.get(f"{base}/payment/?wrong").content.decode()
    assert ('value="19x"' in page, "short" in page, "Kept. Type only" in page) == (True, False, True)
    opened = client.post(f"{base}/staff/", {"owner_email": "owner@example.com", "open": "1"})
    assert opened["Location"] == f"{base}/address/?wrong"
    client.post(f"{base}/address/", {"slug": "", "host": "https://chat.bamboo.example.net/x"})
    client.post(f"{base}/payment/", {"channel": ""})
    assert client.post(f"{base}/mini-program/", {"app_id": app_id, "app_secret": ""})["Location"] == f"{base}/payment/"
    begun.refresh_from_db()
    assert "an-app-secret" not in str(begun.answers)
    last = client.post(f"{base}/staff/", {"owner_email": "owner@example.com", "open": "1"})
    assert last.status_code == 200
    tenant = Tenant.objects.get(reseller=reseller)
    with scope.tenant(tenant.pk):
        assert [row.host for row in tenant.domains.all()] == [f"{tenant.slug}.example.com"]
        assert [row.host for row in DomainClaim.objects.all()] == ["chat.bamboo.example.net"]
        assert [(row.app_id, row.secret) for row in MiniProgram.objects.all()] == [(app_id, "an-app-secret")]
        assert [(row.slogan, row.primary_color) for row in Branding.objects.all()] == [("grows", "#b45309")]
    begun.refresh_from_db()
    assert (begun.slug, begun.secrets) == (tenant.slug, "")
    # Sent twice, it shows the one tenant.
    twice = client.post(f"{base}/staff/", {"owner_email": "owner@example.com", "open": "1"})
    assert twice["Location"] == f"/portal/tenants/{tenant.slug}/checklist/"
    assert client.get(f"{base}/name/")["Location"] == f"/portal/tenants/{tenant.slug}/checklist/"


def test_what_another_tenant_has_is_said_on_its_own_page(template: OfferTemplate) -> None:
    client, reseller, other = None, make_reseller(), make_tenant()
    client = wizard_of(reseller)
    client.post("/portal/tenants/new/", {"name": "B", "next": "1"})
    base = f"/portal/tenants/new/{Opening.objects.get(reseller=reseller).pk}"
    refused = client.post(f"{base}/address/", {"slug": other.slug, "open": "1"})
    assert refused["Location"] == f"{base}/address/"
    short = client.post(f"{base}/address/", {"slug": "", "next": "1"})
    assert short["Location"] == f"{base}/mini-program/"
    refused = client.post(f"{base}/models/", {"wallet": "5", "open": "1"})
    assert refused["Location"] == f"{base}/models/"
    assert Tenant.objects.filter(reseller=reseller).count() == 0
    pages = [client.get(f"{base}/{name}/").status_code for name in ("name", "brand", "payment", "models", "staff")]
    assert pages == [200] * 5


def test_another_resellers_openings_and_tenants_are_not_there(template: OfferTemplate) -> None:
    reseller = make_reseller()
    mine, theirs = wizard_of(reseller), wizard_of(make_reseller())
    mine.post("/portal/tenants/new/", {"name": "Unmistakable", "next": "1"})
    begun = Opening.objects.get(reseller=reseller)
    tenant = opening.open_for(
        application=opening.Application(name="B", template=template.slug), reseller=reseller, actor="t"
    ).tenant
    for client, wanted in ((mine, 200), (theirs, 404)):
        assert client.get(f"/portal/tenants/new/{begun.pk}/brand/").status_code == wanted
        assert client.get(f"/portal/tenants/{tenant.slug}/checklist/").status_code == wanted
    assert theirs.post(f"/portal/tenants/new/{begun.pk}/name/", {"name": "Stolen"}).status_code == 404
    assert theirs.post(f"/portal/tenants/{tenant.slug}/checklist/", {"do": "invite"}).status_code == 404
    assert "Unmistakable" in mine.get("/portal/tenants/new/").content.decode()
    assert "Unmistakable" not in theirs.get("/portal/tenants/new/").content.decode()
    begun.refresh_from_db()
    assert begun.answers["name"] == {"name": "Unmistakable"}
    stranger = Client(headers={"host": "localhost"})
    assert stranger.get("/portal/tenants/new/").status_code == 302
    stranger.force_login(make_staff(tenant))
    assert stranger.get("/portal/tenants/new/").status_code == 302


def test_the_checklist_answers_its_script_and_makes_invitations(template: OfferTemplate) -> None:
    reseller = make_reseller()
    client = wizard_of(reseller)
    client.post("/portal/tenants/new/", {"name": "B", "open": "1"})
    tenant = Tenant.objects.get(reseller=reseller)
    path = f"/portal/tenants/{tenant.slug}/checklist/"
    said = client.post(path, {"do": "look", "step": "wallet"}, headers={"Accept": "application/json"}).json()
    assert {row["kind"]: row["text"] for row in said["steps"]}["wallet"] == "¥1.00 are in the wallet."
    page = client.post(path, {"do": "invite"}).content.decode()
    assert page.count("/admin/join/") == 2
    assert client.post(path, {"do": "look", "step": "wallet"})["Location"] == path


# --- the invitation


def at(tenant: Tenant) -> Client:
    return Client(headers={"host": host_of(tenant), "Accept-Language": "en"})


def test_the_link_of_an_opening_makes_its_first_owner(template: OfferTemplate) -> None:
    reseller = make_reseller()
    opened = opening.open_for(
        application=opening.Application(name="B", template=template.slug), reseller=reseller, actor="test"
    )
    path, client, email = "/" + opened.invitation_url.split("/", 3)[3], at(opened.tenant), f"{unique('o')}@example.com"
    assert client.get(path).status_code == 200
    done = client.post(path, {"email": email.upper(), "password": PASSWORD, "again": PASSWORD})
    assert (done.status_code, done["Location"]) == (302, "/admin/")
    with scope.tenant(opened.tenant.pk):
        assert [(row.staff.username, row.role) for row in Membership.objects.all()] == [(email, "owner")]
    assert at(opened.tenant).get(path).status_code == 404


# --- the admins


@db
def test_the_operator_decides_with_a_second_look() -> None:
    tenant, operator = make_tenant(), make_operator()
    client = Client(headers={"host": "localhost", "Accept-Language": "en"})
    client.force_login(operator)
    path = f"/platform/tenants/tenant/{tenant.pk}/suspend/"
    assert client.get(path).status_code == 200
    looked = client.post(path, {"reason": "The bill is not paid."})
    tenant.refresh_from_db()
    assert (looked.status_code, tenant.status) == (200, "active")
    assert client.post(path, {"reason": "The bill is not paid.", "confirmed": "yes"}).status_code == 302
    tenant.refresh_from_db()
    assert (tenant.status, tenant.status_reason) == ("suspended", "The bill is not paid.")
    again = client.post(path, {"reason": "Again.", "confirmed": "yes"})
    assert "not in a state" in again.content.decode()
    reseller = make_reseller()
    moved = f"/platform/tenants/tenant/{tenant.pk}/move/"
    client.post(moved, {"reason": "sold", "reseller": reseller.pk, "confirmed": "yes"})
    tenant.refresh_from_db()
    assert tenant.reseller_id == reseller.pk
    form = client.get(f"/platform/tenants/tenant/{tenant.pk}/change/").content.decode()
    assert ('name="status"' in form, 'name="reseller"' in form) == (False, False)
    outsider = Client(headers={"host": "localhost"})
    outsider.force_login(make_staff(tenant))
    assert outsider.post(path, {"reason": "x", "confirmed": "yes"}).status_code == 302


@db
def test_owners_look_at_the_checklist_and_others_do_not() -> None:
    tenant, other = make_tenant(), make_tenant()
    owner, support = make_staff(tenant), make_staff(tenant, role="support")
    client = at(tenant)
    client.force_login(owner)
    assert client.get("/admin/lifecycle/check/").status_code == 200
    client.force_login(support)
    for refused in ("/admin/lifecycle/check/", "/admin/lifecycle/tenantexport/ask/"):
        assert (refused, client.get(refused).status_code) == (refused, 403)
    stranger = at(tenant)
    stranger.force_login(make_staff(other))
    assert stranger.get("/admin/lifecycle/check/").status_code == 302
