"""How often one may try, and what happens without Redis."""

from typing import Any

import pytest
from django.test import Client

from tenants import throttle
from tenants.errors import ProductError
from tenants.models import EndUser
from tenants.scope import tenant as scope_of
from tests.factories import host_of, make_tenant, make_user, unique


def count(who: str, limit: int = 2) -> None:
    throttle.count(what="test", who=who, limit=limit, seconds=86_400)


def test_the_limit_is_exact_and_each_ones_own() -> None:
    who = unique("who")
    count(who)
    count(who)
    with pytest.raises(ProductError) as caught:
        count(who)
    refusal = caught.value
    assert (int(refusal.code), refusal.type, refusal.facts) == (102, "too_many_tries", {"used": 2, "limit": 2})
    assert refusal.reset_at is not None
    count(unique("who"))


def test_without_redis_everybody_is_let_through(settings: Any) -> None:
    location = "redis://127.0.0.1:1/0"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location}}
    who = unique("who")
    for _ in range(5):
        count(who)


@pytest.mark.django_db
def test_guesses_at_a_password_end(settings: Any) -> None:
    settings.LOGIN_TRIES = 3
    tenant = make_tenant()
    user = make_user(tenant, password="the right one 1")
    client = Client(headers={"Host": host_of(tenant), "Accept-Language": "en"})

    def guess(password: str) -> tuple[int, int]:
        body = {"identifier": user.username, "password": password}
        reply = client.post("/api/auth/login", body, content_type="application/json")
        return reply.status_code, reply.json()["code"]

    assert [guess(f"wrong {number}") for number in range(3)] == [(400, 10001)] * 3
    assert guess("the right one 1") == (429, 102)


@pytest.mark.django_db
def test_one_address_makes_so_many_guests(settings: Any) -> None:
    settings.NEW_USERS_PER_DAY = 2
    tenant, other = make_tenant(allow_guest=True), make_tenant(allow_guest=True)

    def guest(host: str) -> int:
        return Client(headers={"Host": host}).post("/api/auth/guest").status_code

    assert [guest(host_of(tenant)) for _ in range(3)] == [200, 200, 429]
    assert guest(host_of(other)) == 200
    with scope_of(tenant.pk):
        assert EndUser.objects.count() == 2
