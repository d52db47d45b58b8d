"""One-time codes to phones and addresses, over HTTP: who gets in, and who does not."""

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.core import mail
from django.db import connection
from pytest_django import Settings

from tenants import codes, scope
from tenants.errors import ProductError
from tenants.models import EndUser, OneTimeCode, SignInSettings, SmsAccount, Tenant
from tenants.tests.conftest import House, account_at
from tenants.tests.visitor import Visitor, age_codes, kind
from tests.doubles.aliyun import AliyunDouble
from tests.factories import PASSWORD, make_tenant, make_token, make_user

PHONE = "13800138000"
db = pytest.mark.django_db


def ask(visitor: Visitor, to: str = PHONE, channel: str = "phone", purpose: str = "sign_in") -> str:
    return kind(visitor.post("code", channel=channel, to=to, purpose=purpose))


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06d}"


@db
def test_a_first_code_makes_a_user_and_a_second_finds_it(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    visitor = Visitor(tenant)
    assert ask(visitor, "+86 138-0013-8000") == "ok"
    new = visitor.enter("code/login", channel="phone", to=PHONE, code=texting.code_to(PHONE), nickname="Alice")
    assert (new["phone"], new["nickname"], new["is_guest"]) == (PHONE, "Alice", False)
    age_codes(tenant, 61)
    assert ask(visitor) == "ok"
    again = Visitor(tenant).enter("code/login", channel="phone", to=PHONE, code=texting.code_to(PHONE))
    assert again == new
    with scope.tenant(tenant.pk):
        assert EndUser.objects.count() == 1


@db
def test_a_code_is_digits_hashed_and_bound_to_its_purpose(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    visitor = Visitor(tenant)
    ask(visitor)
    code = texting.code_to(PHONE)
    assert re.fullmatch(r"[0-9]{6}", code)
    with scope.tenant(tenant.pk):
        row = OneTimeCode.objects.values().get()
    assert [value for value in map(str, row.values()) if (code in value and len(value) != 64) or PHONE in value] == []
    reset = visitor.post("password/reset", channel="phone", to=PHONE, code=code, password=PASSWORD)
    assert kind(reset) == "code_wrong"
    assert kind(visitor.post("code/login", channel="phone", to=PHONE, code=code)) == "ok"
    assert kind(visitor.post("code/login", channel="phone", to=PHONE, code=code)) == "code_wrong"  # once


@db
def test_a_code_of_another_tenant_or_phone_or_too_old(texting: AliyunDouble) -> None:
    one, other = make_tenant(), make_tenant()
    ask(Visitor(one))
    code = texting.code_to(PHONE)
    assert kind(Visitor(other).post("code/login", channel="phone", to=PHONE, code=code)) == "code_wrong"
    assert kind(Visitor(one).post("code/login", channel="phone", to="13800138001", code=code)) == "code_wrong"
    age_codes(one, 301)
    assert kind(Visitor(one).post("code/login", channel="phone", to=PHONE, code=code)) == "code_wrong"


@db
def test_five_guesses_end_a_code_and_ten_a_phone(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    visitor = Visitor(tenant)
    for _ in range(2):
        assert ask(visitor) == "ok"
        code = texting.code_to(PHONE)
        for _guess in range(5):
            answer = visitor.post("code/login", channel="phone", to=PHONE, code=wrong(code))
            assert kind(answer) == "code_wrong"
        last = visitor.post("code/login", channel="phone", to=PHONE, code=code)
        age_codes(tenant, 61)
    body = last.json()
    assert (last.status_code, body["code"], body["type"], body["used"], body["limit"], body["action"]) == (
        429,
        102,
        "too_many_guesses",
        10,
        10,
        "wait",
    )
    assert body["reset_at"] is not None
    # another phone of the same tenant is not locked out
    ask(visitor, "13900139000")
    other = visitor.post("code/login", channel="phone", to="13900139000", code=texting.code_to("13900139000"))
    assert kind(other) == "ok"


def make_texting_tenant(aliyun: AliyunDouble) -> Tenant:
    """Return a tenant with an account of its own, which other tests may find committed."""
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        SmsAccount.objects.create(tenant=tenant, **account_at(aliyun))
    return tenant


def test_guesses_made_at_once_are_no_more_than_five(committed_db: None, aliyun: AliyunDouble) -> None:
    tenant = make_texting_tenant(aliyun)
    ask(Visitor(tenant))
    code, start = aliyun.code_to(PHONE), Barrier(12)

    def guess(number: int) -> str:
        start.wait()
        try:
            with scope.tenant(tenant.pk):
                tried = f"{(int(code) + number + 1) % 10**6:06d}"
                codes.check_code(tenant=tenant, channel="phone", to=PHONE, code=tried, purpose="sign_in")
        except ProductError as refusal:
            return refusal.type
        finally:
            connection.close()
        return "in"

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(guess, range(12))) == {"code_wrong"}
    with scope.tenant(tenant.pk):
        assert OneTimeCode.objects.get().guesses == 5


def test_a_right_code_used_twice_at_once_opens_once(committed_db: None, aliyun: AliyunDouble) -> None:
    tenant = make_texting_tenant(aliyun)
    ask(Visitor(tenant))
    code, start = aliyun.code_to(PHONE), Barrier(4)

    def use(_number: int) -> bool:
        start.wait()
        try:
            with scope.tenant(tenant.pk):
                codes.check_code(tenant=tenant, channel="phone", to=PHONE, code=code, purpose="sign_in")
        except ProductError:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(use, range(4))) == [False, False, False, True]


@db
def test_how_often_a_phone_a_tenant_and_an_address_get_codes(texting: AliyunDouble, settings: Settings) -> None:
    settings.CODES_PER_TARGET, settings.CODES_PER_TENANT = 2, 3
    tenant, other = make_tenant(), make_tenant()
    visitor = Visitor(tenant)
    assert [ask(visitor), ask(visitor)] == ["ok", "too_many_codes"]  # within a minute
    age_codes(tenant, 61)
    assert ask(visitor) == "ok"
    age_codes(tenant, 61)
    refused = visitor.post("code", channel="phone", to=PHONE).json()
    assert (refused["type"], refused["scope"], refused["used"], refused["limit"]) == ("too_many_codes", "user", 2, 2)
    assert ask(visitor, "13900139000") == "ok"
    refused = visitor.post("code", channel="phone", to="13900139001").json()
    assert (refused["type"], refused["scope"], refused["used"], refused["limit"]) == ("too_many_codes", "tenant", 3, 3)
    assert ask(Visitor(other)) == "ok"
    age_codes(tenant, 86_401)
    settings.CODES_PER_ADDRESS = 1
    stranger = Visitor(tenant, address="203.0.113.77")
    assert [ask(stranger), ask(stranger, "13900139005")] == ["ok", "too_many_tries"]


@db
def test_what_did_not_go_out_counts_against_nobody(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    texting.failures.append("isv.AMOUNT_NOT_ENOUGH")
    assert [ask(Visitor(tenant)), ask(Visitor(tenant))] == ["code_not_sent", "ok"]


@db
def test_the_answer_does_not_tell_who_has_an_account(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    make_user(tenant, phone=PHONE)
    known = Visitor(tenant).post("code", channel="phone", to=PHONE, purpose="reset")
    unknown = Visitor(tenant).post("code", channel="phone", to="13900139000", purpose="reset")
    assert [set(answer.json()["data"]) for answer in (known, unknown)] == [{"expires_at", "resend_at"}] * 2
    assert [message["phone"] for message in texting.sent] == [PHONE, "13900139000"]


@db
@pytest.mark.parametrize(
    ("channel", "to", "refusal"),
    [
        ("phone", "1234567", "phone_invalid"),
        ("phone", "23800138000", "phone_invalid"),
        ("phone", "+0123456789", "phone_invalid"),
        ("email", "nobody", "email_invalid"),
        ("email", "a@b@example.com", "email_invalid"),
        ("email", "a@example.com\nBcc: x@example.com", "email_invalid"),
    ],
)
def test_where_no_code_can_go(channel: str, to: str, refusal: str, texting: AliyunDouble) -> None:
    assert ask(Visitor(make_tenant()), to, channel) == refusal
    assert (texting.sent, mail.outbox) == ([], [])


@db
def test_mail_has_the_code_in_the_readers_language() -> None:
    tenant = make_tenant(name="Aurora")
    assert ask(Visitor(tenant), "Alice@Example.com", "email") == "ok"
    [letter] = mail.outbox
    code = re.findall(r"\b[0-9]{6}\b", str(letter.subject))[0]
    assert (letter.to, letter.subject) == (["alice@example.com"], f"Aurora: your code is {code}")
    user = Visitor(tenant).enter("code/login", channel="email", to="alice@example.com", code=code)
    assert user["email"] == "alice@example.com"


def code_by_mail() -> str:
    return str(re.findall(r"\b[0-9]{6}\b", str(mail.outbox[-1].subject))[0])


@db
def test_signing_up_with_an_address_and_a_password_and_resetting_it() -> None:
    tenant = make_tenant()
    visitor, address = Visitor(tenant), "alice@example.com"
    ask(visitor, address, "email")
    weak = visitor.post("email/register", email=address, code=code_by_mail(), password="12345678")
    assert kind(weak) == "weak_password"  # and the code is still good
    visitor.enter("email/register", email=address, code=code_by_mail(), password=PASSWORD)
    second = Visitor(tenant)
    second.enter("login", identifier=address, password=PASSWORD)
    age_codes(tenant, 61)
    third = Visitor(tenant)
    ask(third, address, "email", "reset")
    third.enter("password/reset", channel="email", to=address, code=code_by_mail(), password="another-password-8")
    # every other log-in has ended, and the old password opens nothing
    assert [kind(each.get("me")) for each in (visitor, second, third)] == ["login_required", "login_required", "ok"]
    assert kind(Visitor(tenant).post("login", identifier=address, password=PASSWORD)) == "wrong_password"
    assert kind(Visitor(tenant).post("login", identifier=address, password="another-password-8")) == "ok"


@db
def test_resetting_without_an_account_says_so_only_to_whom_the_address_is() -> None:
    tenant = make_tenant()
    ask(Visitor(tenant), "nobody@example.com", "email", "reset")
    reset = {"channel": "email", "to": "nobody@example.com", "password": PASSWORD}
    assert kind(Visitor(tenant).post("password/reset", code=wrong(code_by_mail()), **reset)) == "code_wrong"
    assert kind(Visitor(tenant).post("password/reset", code=code_by_mail(), **reset)) == "account_unknown"


@db
def test_a_guest_who_signs_in_stays_who_they_are(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    guest = make_user(tenant, username=None, is_guest=True)
    with scope.tenant(tenant.pk):
        EndUser.objects.filter(pk=guest.pk).update(username=None)
    old = make_token(guest)
    visitor = Visitor(tenant, token=old)
    ask(visitor)
    user = visitor.enter("code/login", channel="phone", to=PHONE, code=texting.code_to(PHONE))
    assert (user["id"], user["is_guest"], user["phone"]) == (guest.pk, False, PHONE)
    # whoever knew the guest's token is not let into the person's account
    assert kind(Visitor(tenant, token=old).get("me")) == "login_required"


@db
def test_a_guest_who_turns_out_to_have_an_account_goes_there_and_nothing_is_merged(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    alice, guest = make_user(tenant, phone=PHONE), make_user(tenant, is_guest=True)
    visitor = Visitor(tenant, token=make_token(guest))
    ask(visitor)
    assert visitor.enter("code/login", channel="phone", to=PHONE, code=texting.code_to(PHONE))["id"] == alice.pk
    with scope.tenant(tenant.pk):
        assert EndUser.objects.get(pk=guest.pk).is_guest is True


@db
def test_another_tenants_guest_stays_a_guest(texting: AliyunDouble, aurora: House) -> None:
    tenant = make_tenant()
    guest = make_user(aurora.tenant, is_guest=True)
    visitor = Visitor(tenant, token=make_token(guest))
    ask(visitor)
    assert visitor.enter("code/login", channel="phone", to=PHONE, code=texting.code_to(PHONE))["id"] != guest.pk
    with scope.tenant(aurora.tenant.pk):
        assert EndUser.objects.get(pk=guest.pk).is_guest is True


@db
def test_a_blocked_users_code_opens_nothing(texting: AliyunDouble) -> None:
    tenant = make_tenant()
    make_user(tenant, phone=PHONE, is_active=False)
    visitor = Visitor(tenant)
    ask(visitor)
    refused = visitor.post("code/login", channel="phone", to=PHONE, code=texting.code_to(PHONE))
    assert kind(refused) == "user_blocked"


def choose(tenant: Tenant, **chosen: object) -> None:
    with scope.tenant(tenant.pk):
        SignInSettings.objects.create(tenant=tenant, **chosen)


@db
def test_what_is_offered(texting: AliyunDouble, settings: Settings) -> None:
    open_, closed = make_tenant(allow_guest=True), make_tenant()
    choose(closed, by_phone=False, by_email=False, by_password=False)
    told = Visitor(open_).get("methods").json()["data"]
    assert told == {
        "methods": ["phone_code", "email_code", "email_password", "password", "guest"],
        "register": True,
        "code_digits": 6,
        "code_seconds": 300,
        "resend_seconds": 60,
        "captcha": None,
    }
    visitor = Visitor(closed)
    assert visitor.get("methods").json()["data"]["methods"] == []
    assert [ask(visitor), ask(visitor, "a@example.com", "email")] == ["method_not_offered"] * 2
    assert kind(visitor.post("code/login", channel="phone", to=PHONE, code="123456")) == "method_not_offered"
    assert kind(visitor.post("login", identifier="alice", password="x")) == "method_not_offered"
    assert kind(visitor.post("register", username="alice", password=PASSWORD)) == "method_not_offered"
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"  # reaches nobody
    assert Visitor(open_).get("methods").json()["data"]["methods"] == ["phone_code", "password", "guest"]


@db
def test_codes_and_ways_that_are_over_are_forgotten(texting: AliyunDouble) -> None:
    from tenants.tasks import forget_codes  # noqa: PLC0415  a task needs the settings

    tenant = make_tenant()
    ask(Visitor(tenant))
    assert forget_codes() == 0
    age_codes(tenant, 3 * 86_400)
    assert forget_codes() == 1
