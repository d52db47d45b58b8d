"""What surrounds a request: its id, the API's edge, the tenant, the language; under WSGI's and ASGI's handlers."""

import asyncio
import json
import re
from typing import Any

import pytest
import structlog
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.test import Client
from django.urls import path
from django.utils.translation import get_language

from tenants import scope
from tenants.middleware import accept_request_id
from tenants.models import EndUser
from tenants.tests.conftest import House, make_house
from tests.factories import make_mini_program, make_tenant

pytestmark = pytest.mark.urls(__name__)


def _seen(request: HttpRequest) -> dict[str, Any]:
    tenant = request.tenant  # type: ignore[attr-defined]
    return {
        "tenant": tenant and tenant.slug,
        "users": [user.nickname for user in EndUser.objects.all()] if tenant else None,
        "language": get_language(),
        "log": structlog.contextvars.get_contextvars(),
    }


def look(request: HttpRequest) -> HttpResponse:
    return JsonResponse(_seen(request))


async def look_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    tenant = request.tenant  # type: ignore[attr-defined]
    users = [user.nickname async for user in EndUser.objects.all()]
    return JsonResponse({"tenant": tenant.slug, "users": users, "language": get_language()})


def lazily(request: HttpRequest) -> TemplateResponse:
    return TemplateResponse(request, "tenants/refused.html", {"msg": lambda: EndUser.objects.get().nickname})


def missing(request: HttpRequest) -> HttpResponse:
    raise Http404


def unscoped(request: HttpRequest) -> HttpResponse:
    return HttpResponse(EndUser.objects.count())


urlpatterns = [
    path("look", look),
    path("api/look", look),
    path("healthz", look),
    path("async", look_async),
    path("lazily", lazily),
    path("api/missing", missing),
    path("unscoped", unscoped),
]


def get(target: str, host: str, **headers: str) -> Any:
    return Client(headers={"host": host, **headers}).get(target)


def get_async(target: str, host: str) -> str:
    """Return the body of an answer of Django's ASGI handler; its threads see committed rows only."""

    async def main() -> str:
        question = {
            "type": "http",
            "method": "GET",
            "path": target,
            "query_string": b"",
            "headers": [(b"host", host.encode())],
        }
        application: Any = ApplicationCommunicator(ASGIHandler(), question)  # type: ignore[no-untyped-call]
        await application.send_input({"type": "http.request", "body": b"", "more_body": False})
        start = await application.receive_output()
        assert start["status"] == 200
        body: bytes = (await application.receive_output())["body"]
        await application.wait()
        return body.decode()

    return async_to_sync(main)()


def test_a_host_enters_its_tenant(aurora: House, lotus: House) -> None:
    for house in (aurora, lotus):
        seen = get("/look", house.host).json()
        assert (seen["tenant"], seen["users"]) == (house.tenant.slug, [house.alice.nickname])


def test_a_host_enters_its_tenant_under_asgi(committed_db: None) -> None:
    for house in (make_house(), make_house()):
        for target in ("/look", "/async"):
            seen = json.loads(get_async(target, house.host))
            assert (seen["tenant"], seen["users"]) == (house.tenant.slug, [house.alice.nickname])


def test_a_template_is_rendered_within_the_scope(committed_db: None) -> None:
    aurora = make_house()
    for page in (get("/lazily", aurora.host).content.decode(), get_async("/lazily", aurora.host)):
        assert f"<p>{aurora.alice.nickname}</p>" in page


def test_the_scope_ends_with_the_request(committed_db: None) -> None:
    aurora = make_house()
    get("/look", aurora.host)
    get_async("/look", aurora.host)
    with pytest.raises(scope.NoScopeError):
        scope.current_tenant_id()
    assert structlog.contextvars.get_contextvars() == {}


def test_a_platform_host_has_no_tenant_and_no_scope(aurora: House) -> None:
    assert get("/look", "localhost").json()["tenant"] is None
    with pytest.raises(scope.NoScopeError):
        get("/unscoped", "localhost")


def test_only_the_api_goes_by_app_id(aurora: House) -> None:
    app_id = make_mini_program(aurora.tenant).app_id
    referer = f"https://servicewechat.com/{app_id}/17/page-frame.html"
    for response in (
        get(f"/api/look?appid={app_id}", "localhost"),
        get("/api/look", "localhost", referer=referer),
        get("/api/look", "api.nobody.test", referer=referer),
    ):
        assert response.json()["tenant"] == aurora.tenant.slug
    assert get(f"/look?appid={app_id}", "localhost").json()["tenant"] is None
    assert get("/look", "localhost", referer=referer).json()["tenant"] is None


def test_a_host_that_is_nobodys(aurora: House) -> None:
    page, api = get("/look", "nobody.test"), get("/api/look", "nobody.test")
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert (api.status_code, api.json()["type"]) == (404, "tenant_not_found")
    for response in (page, api):
        assert aurora.tenant.slug not in response.content.decode()


def test_a_suspended_tenants_pages_say_so(db: None) -> None:
    tenant = make_tenant(status="suspended")
    page = get("/look", f"{tenant.slug}.test", **{"accept-language": "en"})
    assert (page.status_code, "suspended at present" in page.content.decode()) == (404, True)


def test_health_is_asked_under_any_name(db: None) -> None:
    response = get("/healthz", "10.0.0.7:8000")
    assert (response.status_code, response.json()["tenant"]) == (200, None)


@pytest.mark.parametrize(("header", "wanted"), [("en", "en"), ("zh-CN,zh;q=0.9", "zh-hans"), ("fr", "en"), ("", "en")])
def test_the_readers_language_or_the_tenants(header: str, wanted: str, aurora: House) -> None:
    assert aurora.tenant.language == "en"
    response = get("/look", aurora.host, **{"accept-language": header})
    assert response.json()["language"] == wanted
    assert (response["Content-Language"], "Accept-Language" in response["Vary"]) == (wanted, True)


def test_a_request_has_an_id_on_the_answer_and_in_the_log(aurora: House) -> None:
    response = get("/look", aurora.host)
    assert re.fullmatch(r"[0-9a-f]{32}", response["X-Request-Id"])
    log = response.json()["log"]
    assert log == {"request_id": response["X-Request-Id"], "tenant": aurora.tenant.slug}
    assert get("/look", aurora.host)["X-Request-Id"] != response["X-Request-Id"]


@pytest.mark.parametrize("given", ["abc", "A-1", "x" * 64])
def test_a_proxys_sane_id_is_kept(given: str, aurora: House) -> None:
    assert get("/look", aurora.host, **{"x-request-id": given})["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\n", "é", "<script>", "a/b", None])
def test_a_strange_id_is_replaced(given: str | None) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", accept_request_id(given))


def test_the_log_has_the_path_without_the_token(aurora: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tenants.middleware"):
        response = get(f"/look?token={aurora.token}", aurora.host)
    [event] = [record.msg for record in caplog.records if record.name == "tenants.middleware"]
    assert isinstance(event, dict)
    assert {name: event[name] for name in ("event", "method", "path", "status", "request_id")} == {
        "event": "request",
        "method": "GET",
        "path": "/look",
        "status": 200,
        "request_id": response["X-Request-Id"],
    }
    assert aurora.token not in caplog.text


def test_any_origin_may_read_the_api_and_only_the_api(aurora: House) -> None:
    response = get("/api/look", aurora.host)
    assert response["Access-Control-Allow-Origin"] == "*"
    assert "X-Request-Id" in response["Access-Control-Expose-Headers"]
    assert response["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Credentials" not in response
    assert "Access-Control-Allow-Origin" not in get("/look", aurora.host)


def test_a_preflight_is_answered_wherever_it_goes(db: None) -> None:
    for target in ("/api/look", "/api/auth/login", "/api/nothing"):
        response = Client(headers={"host": "nobody.test", "origin": "https://x.test"}).options(target)
        assert (response.status_code, response.content) == (204, b"")
        assert response["Access-Control-Allow-Origin"] == "*"
        assert response["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
        assert "Authorization" in response["Access-Control-Allow-Headers"]


def test_a_failure_outside_the_api_keeps_the_one_shape(aurora: House) -> None:
    for target in ("/api/missing", "/api/nothing/at/all"):
        response = get(target, aurora.host)
        assert response.json() == {
            "code": 404,
            "msg": "There is nothing at this address.",
            "type": "no_such_path",
            "scope": "",
            "action": "",
            "reset_at": None,
            "request_id": response["X-Request-Id"],
        }
        assert response.status_code == 404


def test_a_host_header_that_is_none(aurora: House) -> None:
    response = get("/api/look", "a b/c")
    assert (response.status_code, response.json()["code"]) == (400, 10001)
