"""Which pages may hold a tenant's in a frame, and call its API from a browser: those that it names, and no other's."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from pytest_django import Settings

from tenants import embedding, resolve, scope
from tenants.models import Embedding, Tenant
from tenants.models.site import validate_origin
from tests.factories import host_of, make_mini_program, make_operator, make_staff, make_tenant

pytestmark = pytest.mark.django_db

SHOP, OTHER = "https://shop.example.com", "https://other.example.com"


def embed(tenant: Tenant, *origins: str) -> None:
    with scope.tenant(tenant.pk):
        Embedding.objects.create(tenant=tenant, origins=list(origins))
    resolve.forget()


def ask(host: str, path: str = "/api/site", *, origin: str = "", method: str = "get") -> Any:
    headers = {"host": host, **({"origin": origin} if origin else {})}
    return getattr(Client(headers=headers), method)(path)


def seen(answer: Any) -> tuple[str | None, str | None]:
    """Return who may read an answer, and whether caches keep it apart by origin."""
    return answer.get("Access-Control-Allow-Origin"), answer.get("Vary")


@pytest.mark.parametrize("method", ["get", "options"])
def test_without_a_list_any_page_may_call_and_none_may_frame(method: str) -> None:
    tenant = make_tenant()
    for origin in ("", SHOP, "null"):
        assert seen(ask(host_of(tenant), origin=origin, method=method)) == ("*", None)
    page = ask(host_of(tenant), "/terms")
    assert (page["Content-Security-Policy"], page["X-Frame-Options"]) == ("frame-ancestors 'none'", "DENY")


@pytest.mark.parametrize("method", ["get", "options"])
def test_with_a_list_those_pages_may_call_and_frame_and_no_other(method: str, settings: Settings) -> None:
    settings.WEBSOCKET_ORIGINS = ["https://h5.operator.example"]
    ours, theirs = make_tenant(), make_tenant()
    embed(ours, SHOP, "https://www.example.com:8443")
    embed(theirs, OTHER)
    host = host_of(ours)
    for origin in (
        SHOP,
        "https://www.example.com:8443",
        f"https://{host}",
        "https://servicewechat.com",
        "https://h5.operator.example",
    ):
        assert seen(ask(host, origin=origin, method=method)) == (origin, "Origin")
    for origin in (OTHER, "https://evil.example", "null", "http://shop.example.com", f"{SHOP}.evil.example", ""):
        assert seen(ask(host, origin=origin, method=method)) == (None, "Origin")
    # And the other way round.
    assert seen(ask(host_of(theirs), origin=OTHER, method=method)) == (OTHER, "Origin")
    assert seen(ask(host_of(theirs), origin=SHOP, method=method)) == (None, "Origin")


def test_pages_for_users_name_who_may_frame_them_and_pages_for_staff_nobody() -> None:
    ours, theirs = make_tenant(), make_tenant()
    embed(ours, SHOP)
    embed(theirs, OTHER)
    for tenant, origin in ((ours, SHOP), (theirs, OTHER)):
        for path in ("/", "/terms", "/pay/done", "/no/such/page"):
            page = ask(host_of(tenant), path)
            # The client's page, where it is built, says more than that.
            assert page["Content-Security-Policy"].split("; ")[-1] == f"frame-ancestors 'self' {origin}"
            assert "X-Frame-Options" not in page
        staff = ask(host_of(tenant), "/admin/login/")
        assert (staff["Content-Security-Policy"], staff["X-Frame-Options"]) == ("frame-ancestors 'none'", "DENY")
    for host in ("localhost", "nobody.example"):
        assert ask(host, "/platform/login/")["Content-Security-Policy"] == "frame-ancestors 'none'"


def test_an_app_id_on_the_platforms_host_brings_its_own_tenants_list() -> None:
    ours, theirs = make_tenant(), make_tenant()
    embed(ours, SHOP)
    path = f"/api/site?appid={make_mini_program(ours).app_id}"
    assert seen(ask("localhost", path, origin=SHOP)) == (SHOP, "Origin")
    assert seen(ask("localhost", path, origin=OTHER)) == (None, "Origin")
    path = f"/api/site?appid={make_mini_program(theirs).app_id}"
    assert seen(ask("localhost", path, origin=SHOP)) == ("*", None)


def test_a_failure_is_read_by_the_same_pages() -> None:
    tenant = make_tenant()
    embed(tenant, SHOP)
    for path, status in (("/api/auth/me", 401), ("/api/nothing", 404)):
        answer = ask(host_of(tenant), path, origin=SHOP)
        assert (answer.status_code, seen(answer)) == (status, (SHOP, "Origin"))
        assert seen(ask(host_of(tenant), path, origin=OTHER)) == (None, "Origin")


@pytest.mark.parametrize("origin", ["https://a.example", "https://a.b.example.com", "https://a.example:8443"])
def test_origins_that_are_taken(origin: str) -> None:
    validate_origin(origin)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://a.example",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example?x",
            "https://a.example#x",
        ),
        *("https://*.example.com", "https://*.com.cn", "https://*", "*", "'self'", "https:", "https://", "a.example"),
        *("https://u@a.example", "https://u:p@a.example", "https://a.example:0", "https://a.example:65536"),
        *("https://A.example", "https://a.example:", "https://a..example", "https://localhost", "https://com"),
        *(
            "https://10.0.0.1",
            "https://[::1]",
            "https://a.example; script-src *",
            "https://a.example https://b.example",
        ),
        *("https://a_b.example", "https://例.example", "https://a.example\n", "data:", "null"),
    ],
)
def test_origins_that_are_none(origin: str) -> None:
    with pytest.raises(ValidationError):
        validate_origin(origin)


def test_owners_name_origins_one_a_line() -> None:
    tenant, other = make_tenant(), make_tenant()
    client = Client(headers={"host": host_of(tenant)})
    client.force_login(make_staff(tenant))
    wrong = client.post("/admin/tenants/embedding/add/", {"origins": f"{SHOP}\nhttps://*.com.cn\nhttp://x.example"})
    said = wrong.content.decode()
    assert (wrong.status_code, "“https://*.com.cn” is no origin" in said, "“http://x.example” is no" in said) == (
        200,
        True,
        True,
    )
    typed = f" HTTPS://Shop.Example.com/ \n\n{SHOP}:443\nhttps://b.example:8443"
    assert client.post("/admin/tenants/embedding/add/", {"origins": typed}).status_code == 302
    with scope.tenant(tenant.pk):
        row = Embedding.objects.get()
    assert row.origins == [SHOP, "https://b.example:8443"]
    assert seen(ask(host_of(tenant), origin=SHOP)) == (SHOP, "Origin")
    assert seen(ask(host_of(other), origin=SHOP)) == ("*", None)
    assert client.post(f"/admin/tenants/embedding/{row.pk}/change/", {"origins": ""}).status_code == 302
    assert seen(ask(host_of(tenant), origin=OTHER)) == ("*", None)
    for role, statuses in (("support", (200, 403)), ("finance", (403, 403)), ("content", (403, 403))):
        client.force_login(make_staff(tenant, role=role))
        path = f"/admin/tenants/embedding/{row.pk}/change/"
        assert (role, client.get(path).status_code, client.post(path).status_code) == (role, *statuses)


def test_more_origins_than_anybody_has_are_refused() -> None:
    tenant = make_tenant()
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    many = "\n".join(f"https://a{number}.example" for number in range(51))
    answer = client.post("/platform/tenants/embedding/add/", {"tenant": tenant.pk, "origins": many})
    assert (answer.status_code, "At most 50 origins are taken." in answer.content.decode()) == (200, True)


def test_what_a_tenant_names_comes_with_it() -> None:
    tenant = make_tenant()
    embed(tenant, SHOP)
    found = resolve.resolve_tenant(host=host_of(tenant))
    assert embedding.origins_of(found) == (SHOP,)  # in no scope, and so without a query
