"""A captcha is asked for after failures, and only where one is set up."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tenants.models import Tenant
from tenants.tests.visitor import Visitor, kind
from tests.doubles.captcha import CaptchaDouble, running_captcha
from tests.factories import PASSWORD, make_tenant, make_user

pytestmark = pytest.mark.django_db

WRONG = "wrong"


@pytest.fixture
def captcha(settings: Settings) -> Iterator[CaptchaDouble]:
    with running_captcha() as double:
        settings.CAPTCHA_VERIFY_URL = double.url
        settings.CAPTCHA_SECRET, settings.CAPTCHA_SITE_KEY = double.secret, "the-site-key"
        yield double


@pytest.fixture
def tenant() -> Tenant:
    tenant = make_tenant()
    make_user(tenant, username="alice", password=PASSWORD)
    return tenant


def guess(tenant: Tenant, password: str = WRONG, captcha: str = "", address: str = "203.0.113.1") -> str:
    visitor = Visitor(tenant, address=address)
    return kind(visitor.post("login", identifier="alice", password=password, captcha=captcha))


def test_it_is_asked_for_after_three_failures(captcha: CaptchaDouble, tenant: Tenant) -> None:
    assert [guess(tenant) for _ in range(4)] == ["wrong_password"] * 3 + ["captcha_needed"]
    refused = Visitor(tenant).post("login", identifier="alice", password=PASSWORD).json()
    assert (refused["action"], refused["provider"], refused["site_key"]) == ("captcha", "turnstile", "the-site-key")
    # of the account whoever asks, and of the address whatever it asks for
    assert guess(tenant, address="203.0.113.2") == "captcha_needed"
    bob = Visitor(tenant).post("login", identifier="bob", password="x")
    assert kind(bob) == "captcha_needed"
    assert guess(tenant, PASSWORD, "made-up") == "captcha_needed"
    solved = captcha.solve()
    assert guess(tenant, PASSWORD, solved) == "ok"
    assert guess(tenant, PASSWORD, solved) == "captcha_needed"  # once
    assert captcha.asked[-1] == {"secret": captcha.secret, "response": solved, "remoteip": "203.0.113.1"}


def test_another_tenant_is_not_concerned(captcha: CaptchaDouble, tenant: Tenant) -> None:
    for _ in range(4):
        guess(tenant)
    other = make_tenant()
    make_user(other, username="alice", password=PASSWORD)
    assert guess(other, PASSWORD) == "ok"


def test_without_one_only_the_limits_stand(tenant: Tenant) -> None:
    assert [guess(tenant) for _ in range(6)] == ["wrong_password"] * 6


def test_where_the_provider_is_ill_people_get_in(captcha: CaptchaDouble, tenant: Tenant) -> None:
    captcha.is_ill = True
    for _ in range(3):
        guess(tenant)
    assert (guess(tenant, PASSWORD), guess(tenant, PASSWORD, "anything")) == ("captcha_needed", "ok")
