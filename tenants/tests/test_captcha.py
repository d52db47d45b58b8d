"""A captcha is asked for after failures, and only where one is set up."""

import base64
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from pytest_django import Settings

from tenants import captcha as captchas
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


def solved(work: dict[str, Any], **changes: Any) -> str:
    """Return what a device gives after its work."""
    numbers = range(work["maxnumber"] + 1)
    number = next(n for n in numbers if hashlib.sha256(f"{work['salt']}{n}".encode()).hexdigest() == work["challenge"])
    brought = {name: work[name] for name in ("algorithm", "challenge", "salt", "signature")} | {"number": number}
    return base64.b64encode(orjson.dumps(brought | changes)).decode()


@pytest.fixture
def work(settings: Settings) -> None:
    settings.CAPTCHA_PROVIDER = "altcha"


@pytest.mark.usefixtures("work")
def test_a_device_can_work_instead_once(tenant: Tenant) -> None:
    assert [guess(tenant) for _ in range(3)] == ["wrong_password"] * 3
    refused = Visitor(tenant).post("login", identifier="alice", password=PASSWORD).json()
    assert (refused["type"], refused["provider"], refused["site_key"]) == ("captcha_needed", "altcha", "")
    answer = solved(refused["challenge"])
    assert guess(tenant, PASSWORD, answer) == "ok"
    assert guess(tenant, PASSWORD, answer) == "captcha_needed"


@pytest.mark.usefixtures("work")
def test_a_log_in_with_it_is_one_try(tenant: Tenant, settings: Settings) -> None:
    settings.LOGIN_TRIES = 4
    assert [guess(tenant) for _ in range(3)] == ["wrong_password"] * 3

    def work_of() -> Any:
        return Visitor(tenant).post("login", identifier="alice", password=WRONG).json()["challenge"]

    answers = [solved(work_of()) for _ in range(2)]
    assert guess(tenant, WRONG, answers[0]) == "wrong_password"
    # Who has no tries left is not helped by more work, done or made up.
    assert [guess(tenant, PASSWORD, answer) for answer in (answers[1], "made-up")] == ["too_many_tries"] * 2


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    "changes",
    [
        {"number": -1},
        {"number": "many"},
        {"signature": "0" * 64},
        {"challenge": hashlib.sha256(b"mine1").hexdigest(), "salt": "mine", "number": 1},
    ],
)
def test_work_that_was_not_done_or_not_asked_for_opens_nothing(changes: dict[str, Any]) -> None:
    work = captchas.ProofOfWork().asks()["challenge"]
    assert not captchas.ProofOfWork().accepts(answer=solved(work, **changes), address="")
    for nonsense in ("", "nonsense", "e30=", base64.b64encode(b"[1]").decode()):
        assert not captchas.ProofOfWork().accepts(answer=nonsense, address="")


def test_work_expires_and_its_moment_cannot_be_moved() -> None:
    work = captchas.ProofOfWork().asks()["challenge"]
    answer = solved(work)
    later = captchas.ProofOfWork(clock=lambda: time.time() + captchas.WORK_SECONDS + 2)
    assert not later.accepts(answer=answer, address="")
    brought = orjson.loads(base64.b64decode(answer))
    number = str(brought["number"])
    moved = {"salt": brought["salt"] + number[:1], "number": int(number[1:] or 0)}
    assert not captchas.ProofOfWork().accepts(answer=solved(work, **moved), address="")


def test_a_page_may_load_what_the_operator_has_named_and_nothing_else(
    settings: Settings, captcha: CaptchaDouble
) -> None:
    assert captcha.url
    assert captchas.page_hosts() == []
    settings.CAPTCHA_SCRIPT_URL = "https://challenges.example/turnstile/v0/api.js"
    settings.CAPTCHA_HOSTS = ["https://more.example"]
    assert captchas.page_hosts() == ["https://challenges.example", "https://more.example"]
    settings.CAPTCHA_PROVIDER = "altcha"
    assert captchas.page_hosts() == []
