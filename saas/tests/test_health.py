"""`/healthz` on any host: 200 only when a chat can be served."""

import json
import socket

import pytest
from django.test import Client
from pytest_django import Settings

from chat.models import ModelOffer, UpstreamAccount
from tenants import scope
from tests.factories import make_tenant, unique

pytestmark = pytest.mark.django_db


@pytest.fixture
def offer() -> ModelOffer:
    """The only enabled offer there is."""
    tenant = make_tenant()
    with scope.platform("other tests' offers are out of the way"):
        ModelOffer.objects.update(is_enabled=False)
        account = UpstreamAccount.objects.create(name=unique("account"), base_url="http://127.0.0.1:1/v1")
        return ModelOffer.objects.create(
            tenant=tenant, slug="m", name="M", sku="m", account=account, upstream_model="m", is_default=True
        )


def ask(host: str = "10.0.0.7:8000") -> tuple[int, object]:
    reply = Client(headers={"Host": host}).get("/healthz")
    return reply.status_code, json.loads(reply.content)


def test_it_is_well_where_a_model_is_offered(offer: ModelOffer) -> None:
    assert ask() == (200, {"status": "ok", "database": "ok", "redis": "ok"})
    assert ask("nobody.example.com") == ask("localhost") == ask()


def test_nothing_can_be_served_without_a_model(offer: ModelOffer) -> None:
    with scope.platform("a test"):
        ModelOffer.objects.filter(pk=offer.pk).update(is_enabled=False)

    assert ask() == (503, {"status": "unavailable", "database": "no model offer", "redis": "ok"})


def test_nothing_can_be_served_where_the_models_account_is_off(offer: ModelOffer) -> None:
    with scope.platform("a test"):
        UpstreamAccount.objects.filter(pk=offer.account_id).update(is_enabled=False)

    assert ask() == (503, {"status": "unavailable", "database": "no model offer", "redis": "ok"})


def test_nothing_can_be_served_without_redis(offer: ModelOffer, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://:pw@127.0.0.1:{port}/0"}
    settings.CACHES = {"default": cache}

    assert ask() == (503, {"status": "unavailable", "database": "ok", "redis": "unreachable"})


def test_only_reading_is_possible() -> None:
    assert Client().post("/healthz").status_code == 405
