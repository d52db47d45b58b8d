"""Upstream accounts in the admin: their keys, what members may do, the connection test, the page of health."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse
from django.utils import translation
from pytest_django import Settings
from redis import Redis

from chat.models import ModelOffer, ModelRoute, UpstreamAccount
from chat.upstream.sharing import reports_key
from tenants import scope
from tenants.models import Membership, Tenant
from tests.doubles.upstream import ScriptedUpstream
from tests.factories import host_of, make_operator, make_staff, make_tenant, unique
from tests.servers import free_port

KEY = "sk-nobody-may-see-this"
FORM = {
    "name": "y",
    "dialect": "openai",
    "base_url": "https://a.example/v1",
    "api_key": "",
    "is_enabled": "on",
    "model_names": "{}",
    "parameter_rules": "",
    "max_concurrent": "0",
    "max_per_minute": "0",
}

pytestmark = pytest.mark.django_db


def member_of(tenant: Tenant, role: str = "owner") -> Client:
    """Return a browser of a member at the tenant's own site."""
    client = Client(headers={"host": host_of(tenant), "accept-language": "en"})
    client.force_login(make_staff(tenant, role=role))
    return client


def operator() -> Client:
    client = Client(headers={"host": "localhost", "accept-language": "en"})
    client.force_login(make_operator())
    return client


def account_of(tenant: Tenant | None, **fields: Any) -> UpstreamAccount:
    with scope.platform("a test's account"):
        values = {"name": unique("account"), "base_url": "https://a.example/v1", **fields}
        return UpstreamAccount.objects.create(tenant=tenant, **values)


def messages_of(page: Any) -> list[str]:
    return [str(message) for message in page.context["messages"]]


def test_an_owner_brings_a_key_of_the_tenants_own(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant, stranger = make_tenant(), make_tenant()
    owner = member_of(tenant)
    add = reverse("tenant_admin:chat_upstreamaccount_add")
    assert owner.post(add, {**FORM, "api_key": KEY, "tenant": str(stranger.pk)}).status_code == 302
    with scope.platform("test"):
        made = UpstreamAccount.objects.get(name="y")
    assert (made.tenant_id, made.api_key, made.parameter_rules) == (tenant.pk, KEY, {})
    page = reverse("tenant_admin:chat_upstreamaccount_change", args=[made.pk])
    assert owner.post(page, {**FORM, "name": "z"}).status_code == 302
    for role in ("finance", "support", "content"):
        assert member_of(tenant, role).post(page, FORM).status_code == 403
    assert member_of(stranger).post(page, FORM).status_code == 404
    with scope.tenant(tenant.pk):
        assert UpstreamAccount.objects.get().name == "z"


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"base_url": "http://127.0.0.1:5432/v1"}, {"base_url"}),
        ({"base_url": "http://[::ffff:169.254.169.254]/v1"}, {"base_url"}),
        ({"dialect": "azure"}, {"api_version"}),
        ({"parameter_rules": '{"force": {"n": 9}}'}, {"parameter_rules"}),
        ({"model_names": '["a"]'}, {"model_names"}),
    ],
)
def test_what_a_tenants_account_may_not_be(fields: dict[str, str], faults: set[str]) -> None:
    tenant = make_tenant()
    page = member_of(tenant).post(reverse("tenant_admin:chat_upstreamaccount_add"), {**FORM, **fields})

    assert (page.status_code, set(page.context["adminform"].errors)) == (200, faults)


def test_an_operators_account_may_lead_inside() -> None:
    name = unique("inside")
    body = {**FORM, "name": name, "base_url": "http://127.0.0.1:8001/v1", "tenant": ""}
    assert operator().post(reverse("admin:chat_upstreamaccount_add"), body).status_code == 302
    with scope.platform("test"):
        assert UpstreamAccount.objects.filter(name=name, tenant=None).count() == 1


# --- routes ---


def test_an_owner_routes_an_offer_to_the_tenants_own_account_only() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    platforms, own, foreign = account_of(None), account_of(tenant), account_of(stranger)
    with scope.tenant(tenant.pk):
        offer = ModelOffer.objects.create(
            tenant=tenant, slug="m", name="M", sku="m", upstream_model="m", account=platforms
        )
    owner, add = member_of(tenant), reverse("tenant_admin:chat_modelroute_add")
    form = {"offer": offer.pk, "upstream_model": "", "priority": "50", "weight": "100", "is_enabled": "on"}
    assert [owner.post(add, {**form, "account": row.pk}).status_code for row in (platforms, foreign, own)] == [
        200,
        200,
        302,
    ]
    with scope.tenant(tenant.pk):
        assert [(row.account_id, row.priority) for row in ModelRoute.objects.all()] == [(own.pk, 50)]
        with pytest.raises(scope.WrongScopeError):
            ModelRoute(tenant=tenant, offer=offer, account=foreign).save()
    page = member_of(stranger).get(reverse("tenant_admin:chat_modelroute_changelist")).content.decode()
    assert own.name not in page


# --- the connection test ---


@pytest.fixture
def upstream_here() -> Iterator[ScriptedUpstream]:
    """Run the scripted provider in a thread of this process."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    upstream, done = ScriptedUpstream(), asyncio.Event()

    async def serve() -> None:
        async with upstream:
            started.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert started.wait(20)
    yield upstream
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


def tried(client: Client, site: str, account: UpstreamAccount) -> list[str]:
    body = {"action": "try_connection", "_selected_action": [str(account.pk)]}
    return messages_of(client.post(reverse(f"{site}:chat_upstreamaccount_changelist"), body, follow=True))


def test_the_connection_test_says_how_it_went(upstream_here: ScriptedUpstream) -> None:
    url, client = upstream_here.base_url, operator()
    for fields, said in (
        ({"test_model": "echo"}, "echo answers, its first token after"),
        ({"test_model": "echo", "dialect": "anthropic"}, "echo answers, its first token after"),
        ({"test_model": "m", "model_names": {"m": "http-401"}}, "the key is not accepted (HTTP 401)."),
        ({"test_model": "http-402"}, "the account is out of money (HTTP 402)."),
        ({"test_model": "html"}, "what answers there does not speak this dialect (HTTP 200)."),
        ({}, "name a model for tests, or let an offer use the account."),
    ):
        account = account_of(None, base_url=url, **fields)
        [message] = tried(client, "admin", account)
        assert message.startswith(f"{account.name}: ")
        assert said in message
    assert [seen.path for seen in upstream_here.requests].count("/v1/messages") == 1


def test_a_tenants_test_reaches_nothing_inside(upstream_here: ScriptedUpstream, settings: Settings) -> None:
    tenant = make_tenant()
    account = account_of(tenant, base_url=upstream_here.base_url, test_model="echo")
    assert tried(member_of(tenant), "tenant_admin", account) == [
        f"{account.name}: echo does not answer: no connection, or it broke off."
    ]
    assert tried(member_of(tenant, "support"), "tenant_admin", account) == []
    assert upstream_here.requests == []
    settings.UPSTREAM_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    tried(member_of(tenant), "tenant_admin", account)
    assert len(upstream_here.requests) == 1


# --- health ---


def test_the_page_of_health_shows_each_site_its_own() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    own, foreign, platforms = account_of(tenant), account_of(stranger), account_of(None)
    names = [own.name, foreign.name, platforms.name]
    page = operator().get(reverse("admin:chat_upstreamaccount_health"))
    assert [name in page.content.decode() for name in names] == [True, True, True]
    path = reverse("tenant_admin:chat_upstreamaccount_health")
    for role in Membership.Role.values:
        page = member_of(tenant, role).get(path)
        assert (page.status_code, [name in page.content.decode() for name in names]) == (200, [True, False, False])
    assert Client(headers={"host": host_of(tenant)}).get(path).status_code == 302


def test_the_page_of_health_shows_what_processes_report() -> None:
    account = account_of(None)
    at = time.time()
    report = {
        "buckets": [[int(at // 10), 9, 6, 2, 4, 1000]],
        "in_flight": 3,
        "verdict": [True, at, at + 100, 1],
        "rest_until": 0.0,
        "last_failure": ["timeout", at],
    }
    reports = {"at": at, "accounts": {f"account-{account.pk}": report}}
    with Redis.from_url(django_settings.REDIS_URL) as redis:
        for process in ("test-1", "test-2"):
            redis.hset(reports_key(django_settings.DATABASES["default"]["NAME"]), process, json.dumps(reports))
        page = operator().get(reverse("admin:chat_upstreamaccount_health"))
        redis.hdel(reports_key(django_settings.DATABASES["default"]["NAME"]), "test-1", "test-2")
    [row] = [row for row in page.context["rows"] if row["account"].pk == account.pk]
    shown = {name: row[name] for name in ("in_flight", "calls", "failed_percent", "first_token_ms", "is_well")}
    assert shown == {"in_flight": 6, "calls": 18, "failed_percent": 25, "first_token_ms": 250, "is_well": False}
    with translation.override("en"):
        said = (str(row["state"]), str(row["last_failure"]))
    assert said == ("left alone after failures", "no answer in time")


def test_without_redis_the_page_says_so(settings: Settings) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    page = operator().get(reverse("admin:chat_upstreamaccount_health"))

    assert page.context["is_shared"] is False


def test_a_key_is_kept_and_shown_to_nobody(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        account = UpstreamAccount.objects.create(tenant=tenant, name="x", base_url="https://a.example/v1", api_key=KEY)
    browser = operator()
    path = reverse("admin:chat_upstreamaccount_change", args=[account.pk])
    pages = [browser.get(path)]
    for role in Membership.Role.values:
        member = Client(headers={"host": host_of(tenant)})
        member.force_login(make_staff(tenant, role=role))
        pages.append(member.get(reverse("tenant_admin:chat_upstreamaccount_change", args=[account.pk])))
    shown = [page.content.decode() for page in pages]
    assert [("a.example" in page, KEY in page, "gAAAA" in page) for page in shown] == [(True, False, False)] * len(
        pages
    )
    body = {**FORM, "tenant": str(tenant.pk)}
    for typed, kept in (("", KEY), ("sk-new", "sk-new")):
        assert browser.post(path, {**body, "api_key": typed}).status_code == 302
        with scope.tenant(tenant.pk):
            changed = UpstreamAccount.objects.get(pk=account.pk)
        assert (changed.name, changed.api_key) == ("y", kept)
