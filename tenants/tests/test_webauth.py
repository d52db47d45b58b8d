"""Logging in with WeChat on web pages: to the consent page and back, in a browser that keeps cookies."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils import timezone

from tenants import scope, webauth
from tenants.models import EndUser, SignInSettings, Tenant, WeChatIdentity, WeChatTrip
from tenants.tests.visitor import WECHAT_AGENT, Visitor, kind
from tests.doubles.wechat import WeChatDouble
from tests.factories import host_of, make_mini_program, make_tenant, make_token, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("_encryption")]

APP = "wxabcdef1234567890"


def set_up(tenant: Tenant, wechat: WeChatDouble, app_id: str = APP, **chosen: Any) -> Tenant:
    wechat.secrets[app_id] = "official-secret"
    with scope.tenant(tenant.pk):
        SignInSettings.objects.create(tenant=tenant, wechat_app_id=app_id, wechat_secret="official-secret", **chosen)
    return tenant


@pytest.fixture
def tenant(wechat: WeChatDouble) -> Tenant:
    return set_up(make_tenant(), wechat)


def browser(tenant: Tenant, agent: str = WECHAT_AGENT, token: str = "") -> Visitor:
    return Visitor(tenant, agent=agent, token=token)


def travel(visitor: Visitor, wechat: WeChatDouble, to: str = "/", **person: Any) -> Any:
    """Go to WeChat, agree, and come back; return the answer that sends the page on."""
    consent = visitor.get("wechat/h5/start", to=to)["Location"]
    return come_back(visitor, wechat.consent(consent, **{"openid": "o1", **person}))


def come_back(visitor: Visitor, url: str) -> Any:
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    return visitor.get("wechat/h5/back", **query)


def test_the_whole_way(tenant: Tenant, wechat: WeChatDouble) -> None:
    visitor = browser(tenant)
    assert visitor.get("methods").json()["data"]["methods"][0] == "wechat_h5"
    start = visitor.get("wechat/h5/start", to="/chat?x=1")
    url = urlsplit(start["Location"])
    query = parse_qs(url.query)
    assert (start.status_code, f"{url.scheme}://{url.netloc}{url.path}") == (
        302,
        "https://open.weixin.qq.com/connect/oauth2/authorize",
    )
    assert (query["appid"], query["scope"], query["redirect_uri"]) == (
        [APP],
        ["snsapi_base"],
        [f"http://{host_of(tenant)}/api/auth/wechat/h5/back"],
    )
    back = come_back(visitor, wechat.consent(start["Location"], openid="o1"))
    assert (back.status_code, back["Location"]) == (302, "/chat?x=1&wechat=done")
    cookie = visitor.client.cookies["wechat_browser"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/api/auth/")
    user = visitor.enter("wechat/h5/finish")
    assert kind(visitor.get("me")) == "ok"
    other = browser(tenant)
    travel(other, wechat)
    assert other.enter("wechat/h5/finish")["id"] == user["id"]
    session = visitor.get("sessions").json()["data"][-1]
    assert (session["label"], session["device"]) == ("wechat_h5", "WeChat, iPhone")


def test_it_is_good_once(tenant: Tenant, wechat: WeChatDouble) -> None:
    visitor = browser(tenant)
    consent = wechat.consent(visitor.get("wechat/h5/start")["Location"], openid="o1")
    come_back(visitor, consent)
    assert come_back(visitor, consent)["Location"] == "/?wechat=wechat_state_invalid"
    carried = visitor.client.cookies["wechat_code"].value
    browser_secret = visitor.client.cookies["wechat_browser"].value
    visitor.enter("wechat/h5/finish")
    assert kind(visitor.post("wechat/h5/finish")) == "wechat_state_invalid"  # the cookies are gone
    visitor.client.cookies["wechat_code"] = carried
    visitor.client.cookies["wechat_browser"] = browser_secret
    assert kind(visitor.post("wechat/h5/finish")) == "wechat_code_invalid"  # and WeChat's code is used


def test_another_browser_brings_nothing_back(tenant: Tenant, wechat: WeChatDouble) -> None:
    """An attacker's own consent, sent to somebody as a link, does not log them in as the attacker."""
    attacker, victim = browser(tenant), browser(tenant)
    consent = wechat.consent(attacker.get("wechat/h5/start")["Location"], openid="attacker")
    victim.get("wechat/h5/start")
    assert come_back(victim, consent)["Location"] == "/?wechat=wechat_state_invalid"
    assert kind(victim.post("wechat/h5/finish")) == "wechat_state_invalid"
    # the attacker's parcel in the victim's browser is of no use either
    come_back(attacker, consent)
    victim.client.cookies["wechat_code"] = attacker.client.cookies["wechat_code"].value
    assert kind(victim.post("wechat/h5/finish")) == "wechat_state_invalid"


def test_another_tenants_state_and_code(tenant: Tenant, wechat: WeChatDouble) -> None:
    other = set_up(make_tenant(), wechat)
    visitor, there = browser(tenant), browser(other)
    consent = wechat.consent(visitor.get("wechat/h5/start")["Location"], openid="o1")
    there.client.cookies["wechat_browser"] = visitor.client.cookies["wechat_browser"].value
    assert come_back(there, consent)["Location"] == "/?wechat=wechat_state_invalid"
    come_back(visitor, consent)
    there.client.cookies["wechat_code"] = visitor.client.cookies["wechat_code"].value
    assert kind(there.post("wechat/h5/finish")) == "wechat_state_invalid"
    with scope.tenant(other.pk):
        assert EndUser.objects.count() == 0


@pytest.mark.parametrize("state", ["", "x", "0" * 64, "0" * 65, "é" * 64])
def test_a_state_that_is_none(state: str, tenant: Tenant, wechat: WeChatDouble) -> None:
    visitor = browser(tenant)
    visitor.get("wechat/h5/start")
    answer = visitor.get("wechat/h5/back", code="c", state=state)
    assert (answer["Location"], wechat.asked) == ("/?wechat=wechat_state_invalid", [])


def test_a_way_that_took_too_long(tenant: Tenant, wechat: WeChatDouble) -> None:
    visitor = browser(tenant)
    consent = wechat.consent(visitor.get("wechat/h5/start")["Location"], openid="o1")
    with scope.tenant(tenant.pk):
        for trip in WeChatTrip.objects.all():
            WeChatTrip.objects.filter(pk=trip.pk).update(expires_at=trip.created_at)
    assert come_back(visitor, consent)["Location"] == "/?wechat=wechat_state_invalid"


ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example/",
    "https:evil.example",
    "javascript:alert(1)",
    " //evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/%09/evil.example\r\nSet-Cookie: a=b",
    "evil",
    "",
    "/" + "x" * 600,
    "/\x00",
]


@pytest.mark.parametrize("to", ELSEWHERE)
def test_the_page_goes_on_nowhere_but_here(to: str, tenant: Tenant, wechat: WeChatDouble) -> None:
    visitor = browser(tenant)
    assert travel(visitor, wechat, to=to)["Location"] == "/?wechat=done"
    outside = browser(tenant, agent="Mozilla/5.0 Chrome/130")
    assert outside.get("wechat/h5/start", to=to)["Location"] == "/?wechat=wechat_browser_needed"


@pytest.mark.parametrize(
    ("to", "gone_on"),
    [
        ("/chat", "/chat?wechat=done"),
        ("/#/pages/chat?c=1", "/?wechat=done#/pages/chat?c=1"),
        ("/a?b=//evil.example", "/a?b=//evil.example&wechat=done"),
        ("/.//evil.example", "/.//evil.example?wechat=done"),
    ],
)
def test_pages_of_ours(to: str, gone_on: str, tenant: Tenant, wechat: WeChatDouble) -> None:
    assert travel(browser(tenant), wechat, to=to)["Location"] == gone_on


def test_the_database_keeps_no_way_to_another_host(tenant: Tenant) -> None:
    from django.db import IntegrityError, transaction  # noqa: PLC0415  here alone

    for path in ("//evil.example", "https://evil.example", "/\\evil.example"):
        with scope.tenant(tenant.pk), pytest.raises(IntegrityError), transaction.atomic():
            WeChatTrip.objects.create(
                tenant=tenant, state_digest="0" * 64, browser_digest="0" * 64, back_to=path, expires_at=timezone.now()
            )


def test_outside_wechat_it_is_not_offered(tenant: Tenant) -> None:
    outside = browser(tenant, agent="Mozilla/5.0 (Windows NT 10.0) Chrome/130")
    assert "wechat_h5" not in outside.get("methods").json()["data"]["methods"]
    assert webauth.is_inside_wechat(f"{WECHAT_AGENT} miniProgram/wxabc") is False
    without = browser(make_tenant())
    assert without.get("wechat/h5/start")["Location"] == "/?wechat=method_not_offered"
    assert "wechat_h5" not in without.get("methods").json()["data"]["methods"]


def test_whoever_declines_comes_back_with_nothing(tenant: Tenant, wechat: WeChatDouble) -> None:
    visitor = browser(tenant)
    state = parse_qs(urlsplit(visitor.get("wechat/h5/start", to="/chat")["Location"]).query)["state"][0]
    assert visitor.get("wechat/h5/back", state=state)["Location"] == "/chat?wechat=wechat_declined"
    assert kind(visitor.post("wechat/h5/finish")) == "wechat_state_invalid"


def test_a_profile_is_asked_for_where_the_tenant_wants_it(wechat: WeChatDouble) -> None:
    tenant = set_up(make_tenant(), wechat, wechat_asks_profile=True)
    program = make_mini_program(tenant, secret="s")
    wechat.secrets[program.app_id] = "s"
    code = wechat.wx_login(app_id=program.app_id, openid="mini", unionid="union")
    phone = Visitor(tenant).enter("wechat", code=code)
    visitor = browser(tenant)
    travel(visitor, wechat, openid="o1", unionid="union", nickname="小明")
    assert visitor.enter("wechat/h5/finish")["id"] == phone["id"]  # one person, by WeChat's union id
    fresh = browser(tenant)
    travel(fresh, wechat, openid="o2", unionid="union2", nickname="小红")
    assert fresh.enter("wechat/h5/finish")["nickname"] == "小红"
    with scope.tenant(tenant.pk):
        rows = list(WeChatIdentity.objects.order_by("pk").values_list("app_id", "openid", "unionid"))
    assert rows == [(program.app_id, "mini", "union"), (APP, "o1", "union"), (APP, "o2", "union2")]


def test_a_preview_of_the_page_makes_nobody(tenant: Tenant, wechat: WeChatDouble) -> None:
    visitor = browser(tenant)
    travel(visitor, wechat, snapshot=True)
    assert kind(visitor.post("wechat/h5/finish")) == "wechat_snapshot"
    with scope.tenant(tenant.pk):
        assert EndUser.objects.count() == 0


def test_what_wechat_refuses(tenant: Tenant, wechat: WeChatDouble) -> None:
    for errcode, refusal in (
        (40029, "wechat_code_invalid"),
        (45011, "wechat_too_often"),
        (40125, "wechat_misconfigured"),
    ):
        visitor = browser(tenant)
        travel(visitor, wechat)
        wechat.failures.append(errcode)
        assert kind(visitor.post("wechat/h5/finish")) == refusal


def test_a_guest_keeps_what_they_have(tenant: Tenant, wechat: WeChatDouble) -> None:
    guest = make_user(tenant, is_guest=True)
    visitor = browser(tenant, token=make_token(guest))
    travel(visitor, wechat)
    assert visitor.enter("wechat/h5/finish")["id"] == guest.pk


def test_an_app_id_leads_no_browser_to_another_tenant(tenant: Tenant, wechat: WeChatDouble) -> None:
    program = make_mini_program(tenant)
    from django.test import Client  # noqa: PLC0415  here alone

    client = Client(headers={"host": "localhost", "user-agent": WECHAT_AGENT})
    answer = client.get(f"/api/auth/wechat/h5/start?appid={program.app_id}")
    assert (answer.status_code, answer.json()["type"]) == (404, "tenant_not_found")
