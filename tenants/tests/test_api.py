"""The JSON API's envelope and errors, and signing in over HTTP."""

import json
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from tenants import scope
from tenants.models import AccessToken, EndUser
from tenants.tests.conftest import House
from tests.doubles.wechat import WeChatDouble
from tests.factories import PASSWORD, host_of, make_mini_program, make_tenant, make_token, make_user

pytestmark = pytest.mark.django_db


def post(target: str, body: Any = None, *, host: str, **headers: str) -> Any:
    """Post JSON, or a text as it is."""
    text = body if isinstance(body, str) else json.dumps(body)
    client = Client(headers={"host": host, **headers}, raise_request_exception=False)
    return client.post(target, text, content_type="application/json")


def get(target: str, *, host: str, **headers: str) -> Any:
    return Client(headers={"host": host, **headers}, raise_request_exception=False).get(target)


def failure(response: Any) -> tuple[int, int, str]:
    """Return status, code and type of the one error object, whose every field is there."""
    body = response.json()
    assert set(body) - {"fields"} == {"code", "msg", "type", "scope", "action", "reset_at", "request_id"}
    assert (type(body["code"]), body["request_id"]) == (int, response["X-Request-Id"])
    return response.status_code, body["code"], body["type"]


LOGIN_REQUIRED = (401, -1, "login_required")


def test_logging_in_and_who_am_i_and_logging_out() -> None:
    tenant = make_tenant()
    host = host_of(tenant)
    user = make_user(tenant, username="alice", password=PASSWORD, nickname="Alice")
    me = {
        "id": user.pk,
        "username": "alice",
        "phone": None,
        "email": None,
        "nickname": "Alice",
        "language": "",
        "is_guest": False,
        "avatar_url": None,
    }

    response = post("/api/auth/login", {"identifier": "Alice", "password": PASSWORD}, host=host)
    token = response.json()["data"]["token"]
    assert response.json() == {"code": 1, "msg": "ok", "data": {"token": token, "user": me}}

    bearer = {"authorization": f"Bearer {token}"}
    assert get("/api/auth/me", host=host, **bearer).json() == {"code": 1, "msg": "ok", "data": me}
    assert get("/api/auth/me", host=host, token=token).json()["data"] == me
    assert get(f"/api/auth/me?token={token}", host=host).json()["data"] == me

    assert post("/api/auth/logout", host=host, **bearer).json() == {"code": 1, "msg": "ok", "data": None}
    assert failure(get("/api/auth/me", host=host, **bearer)) == LOGIN_REQUIRED


def test_without_a_token() -> None:
    host = host_of(make_tenant())
    assert failure(get("/api/auth/me", host=host)) == LOGIN_REQUIRED
    assert failure(post("/api/auth/logout", host=host)) == LOGIN_REQUIRED


def test_another_tenants_token_opens_nothing_and_ends_nothing(aurora: House, lotus: House) -> None:
    bearer = {"authorization": f"Bearer {aurora.token}"}
    refused = get("/api/auth/me", host=lotus.host, **bearer)
    assert failure(refused) == LOGIN_REQUIRED
    assert [word for word in (aurora.alice.nickname, aurora.tenant.slug) if word in refused.content.decode()] == []
    assert failure(post("/api/auth/logout", host=lotus.host, **bearer)) == LOGIN_REQUIRED
    assert get("/api/auth/me", host=aurora.host, **bearer).json()["data"]["id"] == aurora.alice.pk


def test_a_token_on_a_host_that_is_nobodys(aurora: House) -> None:
    for host in ("localhost", "nobody.test"):
        refused = get("/api/auth/me", host=host, token=aurora.token)
        assert failure(refused) == (404, 404, "tenant_not_found")


def test_another_tenants_user_and_password(aurora: House) -> None:
    tenant = make_tenant()
    make_user(tenant, username="zoe", password=PASSWORD)
    answer = post("/api/auth/login", {"identifier": "zoe", "password": PASSWORD}, host=aurora.host)
    assert failure(answer) == (400, 10001, "wrong_password")


def test_registering() -> None:
    tenant = make_tenant()
    host = host_of(tenant)
    body = {"username": "Alice", "password": PASSWORD, "nickname": "A", "language": "en"}
    data = post("/api/auth/register", body, host=host).json()["data"]
    assert (data["user"]["username"], data["user"]["language"]) == ("alice", "en")
    assert get("/api/auth/me", host=host, token=data["token"]).json()["data"] == data["user"]
    assert failure(post("/api/auth/register", body, host=host)) == (400, 10001, "username_taken")


def test_guests() -> None:
    allowed, refused = host_of(make_tenant(allow_guest=True)), host_of(make_tenant(allow_guest=False))
    data = post("/api/auth/guest", host=allowed).json()["data"]
    assert (data["user"]["is_guest"], data["user"]["username"]) == (True, None)
    assert get("/api/auth/me", host=allowed, token=data["token"]).json()["data"] == data["user"]
    assert failure(post("/api/auth/guest", host=refused)) == (401, -1, "guest_not_allowed")


@pytest.mark.usefixtures("_encryption")
def test_wechat(wechat: WeChatDouble) -> None:
    tenant = make_tenant()
    program = make_mini_program(tenant, secret="s")
    wechat.secrets[program.app_id] = "s"
    referer = f"https://servicewechat.com/{program.app_id}/17/page-frame.html"
    ways: list[tuple[str, dict[str, str], dict[str, str]]] = [
        ("/api/auth/wechat", {}, {"host": host_of(tenant)}),
        ("/api/auth/wechat", {"appid": program.app_id}, {"host": host_of(tenant)}),
        ("/api/auth/wechat", {"appid": program.app_id}, {"host": "localhost"}),
        (f"/api/auth/wechat?appid={program.app_id}", {}, {"host": "localhost"}),
        ("/api/auth/wechat", {}, {"host": "localhost", "referer": referer}),
    ]
    ids = set()
    for target, extra, headers in ways:
        code = wechat.wx_login(app_id=program.app_id, openid="o1")
        data = post(target, {"code": code, **extra}, **headers).json()["data"]
        ids.add(data["user"]["id"])
        assert get("/api/auth/me", host=host_of(tenant), token=data["token"]).json()["data"] == data["user"]
    with scope.tenant(tenant.pk):
        assert ids == set(EndUser.objects.values_list("id", flat=True))


@pytest.mark.usefixtures("_encryption")
def test_wechat_in_a_body_that_contradicts_the_address(wechat: WeChatDouble, aurora: House, lotus: House) -> None:
    mine, theirs = make_mini_program(aurora.tenant, secret="s"), make_mini_program(lotus.tenant, secret="s")
    for host, target in (
        (aurora.host, "/api/auth/wechat"),
        ("localhost", f"/api/auth/wechat?appid={mine.app_id}"),
    ):
        refused = post(target, {"code": "c", "appid": theirs.app_id}, host=host)
        assert failure(refused) == (404, 404, "tenant_not_found")
    assert wechat.asked == []


LOGIN = {"identifier": "alice", "password": PASSWORD}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["identifier", "password"]),
        ({"identifier": "alice"}, ["password"]),
        ({**LOGIN, "identifier": None}, ["identifier"]),
        ({**LOGIN, "identifier": ""}, ["identifier"]),
        ({**LOGIN, "identifier": "   "}, ["identifier"]),
        ({**LOGIN, "identifier": 7}, ["identifier"]),
        ({**LOGIN, "identifier": ["alice"]}, ["identifier"]),
        ({**LOGIN, "identifier": "a\x00"}, ["identifier"]),
        ({**LOGIN, "identifier": "x" * 255}, ["identifier"]),
        ({**LOGIN, "password": "x" * 129}, ["password"]),
        ({**LOGIN, "password": "p\x00"}, ["password"]),
        ('{"identifier": "\\ud800", "password": "x"}', ["identifier"]),
        ([], ["identifier", "password"]),
        (7, ["identifier", "password"]),
    ],
)
def test_wrong_fields_are_named_and_not_repeated(body: Any, fields: list[str], aurora: House) -> None:
    response = post("/api/auth/login", body, host=aurora.host)
    assert failure(response) == (400, 10001, "invalid_request")
    assert response.json()["fields"] == fields
    assert response.json()["msg"] == f"Missing or wrong: {', '.join(fields)}."
    assert PASSWORD not in response.content.decode()


@pytest.mark.parametrize("body", ["", "{", "null", "\x00", '{"identifier": NaN', "é" * 9])
def test_what_is_no_json(body: str, aurora: House) -> None:
    assert failure(post("/api/auth/login", body, host=aurora.host)) == (400, 10001, "invalid_request")


def test_bytes_that_are_no_text(aurora: House) -> None:
    client = Client(headers={"host": aurora.host}, raise_request_exception=False)
    response = client.generic("POST", "/api/auth/login", b"\xff\xfe{", "application/json")
    assert failure(response) == (400, 10001, "invalid_request")


@pytest.mark.parametrize("appid", ["%00", "%ED%A0%80", "nonsense", "x" * 3000, "wx0000000000000000"])
def test_an_app_id_that_is_nobodys(appid: str, aurora: House) -> None:
    response = get(f"/api/auth/me?appid={appid}", host=aurora.host, token=aurora.token)
    assert failure(response) == (404, 404, "tenant_not_found")


def test_paths_and_methods_that_do_not_exist(aurora: House) -> None:
    assert failure(get("/api/nothing", host=aurora.host)) == (404, 404, "no_such_path")
    assert failure(get("/api/auth/login", host=aurora.host)) == (405, 10001, "method_not_allowed")
    assert get("/api/auth/login", host=aurora.host)["Allow"] == "POST"
    assert failure(get("/api/docs", host=aurora.host)) == (404, 404, "no_such_path")


def test_a_fault_of_ours_is_logged_and_shows_nothing_of_itself(
    wechat: WeChatDouble, aurora: House, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The key that a secret was stored under is gone."""
    settings.ENCRYPTION_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    make_mini_program(aurora.tenant, secret="s")
    settings.ENCRYPTION_KEYS = []
    response = post("/api/auth/wechat", {"code": "c"}, host=aurora.host)
    assert failure(response) == (500, 0, "internal")
    assert response.json()["msg"] == "Something went wrong here. Please try again later."
    assert "ENCRYPTION_KEYS is empty" in caplog.text


@pytest.mark.parametrize(
    ("stored", "header", "msg"),
    [
        ("", "en", "The name or the password is wrong."),
        ("", "fr", "The name or the password is wrong."),
    ],
)
def test_messages_come_in_the_readers_language(stored: str, header: str, msg: str, aurora: House) -> None:
    response = post("/api/auth/login", LOGIN, host=aurora.host, **{"accept-language": header})
    assert response.json()["msg"] == msg


def test_a_users_own_language_comes_first(aurora: House) -> None:
    user = make_user(aurora.tenant, language="zh-hans")
    response = get("/api/auth/me", host=aurora.host, token=make_token(user), **{"accept-language": "en"})
    assert response["Content-Language"] == "zh-hans"
    assert get("/api/auth/me", host=aurora.host, token=aurora.token)["Content-Language"] == "en"


def test_the_label_of_a_token_says_how_it_came_about(aurora: House) -> None:
    make_user(aurora.tenant, username="bob", password=PASSWORD)
    post("/api/auth/login", {"identifier": "bob", "password": PASSWORD}, host=aurora.host)
    with scope.tenant(aurora.tenant.pk):
        assert AccessToken.objects.latest("id").label == "password"
