"""Several accounts behind one offer: what they are asked, in which order, and what a user notices of it: nothing."""

import time
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from billing import audit
from chat.models import ModelOffer, ModelRoute, UpstreamAccount
from chat.routes import available, sale_query, targets_of
from chat.upstream.base import Limits, Timeouts
from tenants import scope
from tenants.table import fetch
from tests.clients.raw import ask
from tests.factories import unique
from tests.servers import web_server
from tests.shop import Shop, open_shop

pytestmark = pytest.mark.usefixtures("committed_db")


def add_route(shop: Shop, offer: ModelOffer, *, own: bool = False, **fields: Any) -> UpstreamAccount:
    """Add another account behind an offer: the platform's, or the tenant's own."""
    of_account = {name: fields.pop(name) for name in list(fields) if name not in {"upstream_model", "priority"}}
    with scope.platform("a test's account"):
        values = {"name": unique("account"), "base_url": shop.account.base_url, **of_account}
        account = UpstreamAccount.objects.create(tenant=shop.tenant if own else None, **values)
    with scope.tenant(shop.tenant.pk):
        ModelRoute.objects.create(tenant=shop.tenant, offer=offer, account=account, **fields)
    return account


def found(shop: Shop, slug: str) -> ModelOffer:
    return available(ModelOffer.objects.all()).get(slug=slug)


def test_what_rows_become(settings: Settings, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    settings.UPSTREAM_PRIVATE_NETWORKS = ["10.0.0.0/8"]
    shop = open_shop("http://127.0.0.1:1/v1")
    offer = shop.offer("m")
    with scope.tenant(shop.tenant.pk):
        with django_assert_num_queries(1):
            [only] = targets_of(found(shop, "m"))
        assert (only.name, only.model, only.priority, only.may_reach) == (f"account-{shop.account.pk}", "m", 100, None)
    azure = add_route(
        shop,
        offer,
        own=True,
        priority=50,
        base_url="https://x.openai.azure.com",
        dialect="azure",
        api_version="2024-10-21",
        model_names={"m": "deployment-1"},
        parameter_rules={"drop": ["seed"]},
        max_concurrent=3,
        max_per_minute=60,
        first_token_seconds=7,
    )
    add_route(shop, offer, upstream_model="other")
    add_route(shop, offer, is_enabled=False)
    with scope.tenant(shop.tenant.pk), django_assert_num_queries(2):
        own, first, second = targets_of(found(shop, "m"))
    assert own == only
    assert (first.name, first.model, first.dialect, first.api_version) == (
        f"account-{azure.pk}",
        "deployment-1",
        "azure",
        "2024-10-21",
    )
    assert (first.rules, first.limits, first.priority) == ({"drop": ["seed"]}, Limits(3, 60), 50)
    assert first.timeouts == Timeouts(connect=10, first_token=7, idle=60, total=600)
    assert first.may_reach == frozenset({"10.0.0.0/8"})
    assert (second.model, second.priority, second.may_reach) == ("other", 200, None)


def test_an_offer_is_there_while_any_account_is(upstream_url: str) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("m")
    with scope.platform("an account is switched off"):
        UpstreamAccount.objects.filter(pk=shop.account.pk).update(is_enabled=False)
    with scope.tenant(shop.tenant.pk):
        assert not available(ModelOffer.objects.all()).exists()
    spare = add_route(shop, offer)
    with scope.tenant(shop.tenant.pk):
        assert [target.name for target in targets_of(found(shop, "m"))] == [f"account-{spare.pk}"]


@pytest.mark.parametrize("is_wxapp", [0, 1])
def test_a_user_notices_nothing_of_an_account_that_fails(upstream_url: str, chat_port: int, is_wxapp: int) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("http-401", slug="m")
    add_route(shop, offer, upstream_model="http-503", priority=150)
    add_route(shop, offer, upstream_model="echo", dialect="anthropic")
    reply = ask(chat_port, shop.host, {"message": "hi", "model": "m", "is_wxapp": is_wxapp}, token=shop.alice.token)

    assert b'"content":"hi"' in reply.body
    assert [(message.answer, message.state) for message in shop.messages()] == [("hi", "done")]
    assert [hold.state for hold in shop.holds()] == ["posted"]
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_where_every_account_fails_nothing_is_charged(upstream_url: str, chat_port: int) -> None:
    shop = open_shop(upstream_url)
    offer = shop.offer("http-401", slug="m")
    add_route(shop, offer, upstream_model="http-503")
    for _ in range(2):  # the second time the first account is not even asked
        reply = ask(chat_port, shop.host, {"message": "hi", "model": "m"}, token=shop.alice.token)
        assert b'"type":"upstream_failed"' in reply.body
    assert [(hold.state, hold.charge) for hold in shop.holds()] == [("voided", 0)] * 2
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_what_one_process_learns_of_an_account_the_others_know(upstream_url: str, upstream_requests: Any) -> None:
    shop = open_shop(upstream_url)
    shop.offer("http-500", slug="m")
    question = unique("question")
    with web_server("uvicorn") as here, web_server("uvicorn") as there:
        for _ in range(12):
            ask(here, shop.host, {"message": question, "model": "m"}, token=shop.alice.token)
        time.sleep(2)  # the other process has long read the report by then
        reply = ask(there, shop.host, {"message": question, "model": "m"}, token=shop.alice.token)
    assert b'"type":"upstream_failed"' in reply.body
    asked = [seen for seen in upstream_requests() if seen["messages"][-1]["content"] == question]
    assert len(asked) == 10
    assert [(hold.state, hold.charge) for hold in shop.holds()] == [("voided", 0)] * 13


def test_a_tenants_account_that_leads_inside_is_not_reached(
    upstream_url: str, chat_port: int, upstream_requests: Any
) -> None:
    shop = open_shop(upstream_url)
    model = unique("count") + ":3"
    offer = shop.offer("http-500", slug="m")
    add_route(shop, offer, own=True, upstream_model=model)
    reply = ask(chat_port, shop.host, {"message": "hi", "model": "m"}, token=shop.alice.token)

    assert b'"type":"upstream_failed"' in reply.body
    assert model not in {seen["model"] for seen in upstream_requests()}


def test_the_offer_of_a_question_is_one_that_is_available(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    shop, other = open_shop("http://127.0.0.1:1/v1"), open_shop("http://127.0.0.1:1/v1")
    other.offer("foreign")
    offers = {name: shop.offer(name) for name in ("own", "routed", "off", "closed", "dead-route")}
    with scope.tenant(shop.tenant.pk):
        ModelOffer.objects.filter(slug=offers["off"].slug).update(is_enabled=False)
        ModelOffer.objects.filter(slug=offers["own"].slug).update(is_default=True)
    closed = add_route(shop, offers["routed"])
    with scope.platform("a test's account"):
        dead = UpstreamAccount.objects.create(name="dead", base_url=shop.account.base_url, is_enabled=False)
    with scope.tenant(shop.tenant.pk):
        for name in ("routed", "closed", "dead-route"):
            ModelOffer.objects.filter(slug=offers[name].slug).update(account=dead)
        ModelRoute.objects.create(tenant=shop.tenant, offer=offers["dead-route"], account=closed, is_enabled=False)
        slugs = [offer.slug for offer in offers.values()]
        available_slugs = set(available(ModelOffer.objects.all()).values_list("slug", flat=True))
        found_slugs = {slug for slug in slugs if fetch(sale_query(tenant_id=shop.tenant.pk, slug=slug))}
        assert found_slugs == available_slugs == {offers["own"].slug, offers["routed"].slug}
        assert fetch(sale_query(tenant_id=shop.tenant.pk, slug="foreign")) is None
        for slug in found_slugs:
            with django_assert_num_queries(1):
                sale = fetch(sale_query(tenant_id=shop.tenant.pk, slug=slug))
            assert sale is not None
            assert targets_of(sale.offer) == targets_of(found(shop, slug))
        default = fetch(sale_query(tenant_id=shop.tenant.pk, slug=""))
        assert default is not None
        assert default.offer.slug == offers["own"].slug
        assert default.rules.tenant_id is None
