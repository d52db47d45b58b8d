"""Two tenants with look-alike rows: what shows of one while the other is asked for has leaked."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from cryptography.fernet import Fernet
from pytest_django import Settings

from tenants import resolve, scope
from tenants.models import EndUser, MiniProgram, SmsAccount, Tenant
from tenants.wechat import WeChatClient
from tests.doubles.aliyun import AliyunDouble, running_aliyun
from tests.doubles.wechat import WeChatDouble, running_wechat
from tests.doubles.xpay import XPayDouble, running_xpay
from tests.factories import host_of, make_mini_program, make_tenant, make_token, make_user

SECRET = "secret-of-the-mini-program"


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


@pytest.fixture
def xpay() -> Iterator[XPayDouble]:
    with running_xpay() as double:
        yield double


@pytest.fixture
def xpay_client(xpay: XPayDouble) -> Iterator[WeChatClient]:
    made = WeChatClient(xpay.url)
    yield made
    made.close()


@pytest.fixture
def program(db: None, _encryption: None, xpay: XPayDouble) -> MiniProgram:
    """A mini-program that the double knows."""
    program = make_mini_program(make_tenant(), secret=SECRET)
    xpay.secrets[program.app_id] = SECRET
    return program


@pytest.fixture
def aliyun(_encryption: None, settings: Settings) -> Iterator[AliyunDouble]:
    with running_aliyun() as double:
        settings.ALIYUN_SMS_URL = double.url
        yield double


@pytest.fixture
def texting(aliyun: AliyunDouble, db: None) -> AliyunDouble:
    """The platform has an account for text messages."""
    with scope.platform("a test's account for text messages"):
        SmsAccount.objects.create(**account_at(aliyun))
    return aliyun


def account_at(aliyun: AliyunDouble) -> dict[str, str]:
    """Return the columns of an account for text messages."""
    return {
        "provider": "aliyun",
        "access_key_id": aliyun.key_id,
        "access_key_secret": aliyun.secret,
        "sign_name": aliyun.sign_name,
        "template_code": "SMS_100001",
    }
