"""Two tenants with look-alike rows: what shows of one while the other is asked for has leaked."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cryptography.fernet import Fernet
from pytest_django import Settings

from tenants import resolve
from tenants.models import EndUser, Tenant
from tests.doubles.wechat import WeChatDouble, running_wechat
from tests.factories import host_of, make_tenant, make_token, make_user


@dataclass(frozen=True)
class House:
    """A tenant with one user, `alice`, who is logged in."""

    tenant: Tenant
    host: str
    alice: EndUser
    token: str


def make_house() -> House:
    """Return a new tenant with its alice."""
    tenant = make_tenant()
    alice = make_user(tenant, username="alice", nickname=f"Alice of {tenant.slug}")
    return House(tenant, host_of(tenant), alice, make_token(alice))


@pytest.fixture
def aurora(db: None) -> House:
    return make_house()


@pytest.fixture
def lotus(db: None) -> House:
    return make_house()


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    resolve.forget()
    yield
    resolve.forget()


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Settings) -> None:
    """The real hasher is slow on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def _encryption(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def wechat(settings: Settings) -> Iterator[WeChatDouble]:
    with running_wechat() as double:
        settings.WECHAT_API_URL = double.url
        yield double
