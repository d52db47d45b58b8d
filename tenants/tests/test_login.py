"""Signing in with a password, registering, guests, and the language chosen."""

import pytest
from django.contrib.auth.hashers import check_password
from django.db import IntegrityError, transaction
from django.utils import translation

from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.login import choose_language, log_in_with_password, register, start_guest
from tenants.models import EndUser, Tenant
from tests.factories import PASSWORD, make_tenant, make_user

pytestmark = pytest.mark.django_db

WRONG = (ErrorCode.INVALID, "wrong_password", "The name or the password is wrong.")


def log_in(tenant: Tenant, identifier: str, password: str = PASSWORD) -> EndUser:
    with scope.tenant(tenant.pk):
        return log_in_with_password(tenant=tenant, identifier=identifier, password=password)


def refused(tenant: Tenant, identifier: str, password: str = PASSWORD) -> tuple[ErrorCode, str, str]:
    with pytest.raises(ProductError) as caught:
        log_in(tenant, identifier, password)
    with translation.override("en"):
        return caught.value.code, caught.value.type, str(caught.value.msg)


@pytest.mark.parametrize("typed", ["alice", " Alice ", "ALICE", "ａｌｉｃｅ"])
def test_a_user_name_in_any_spelling(typed: str) -> None:
    tenant = make_tenant()
    user = make_user(tenant, username="alice", password=PASSWORD)
    assert log_in(tenant, typed) == user


@pytest.mark.parametrize("typed", ["13800138000", "+8613800138000", "+86 138-0013-8000", "１３８００１３８０００"])
def test_a_phone_in_any_spelling(typed: str) -> None:
    tenant = make_tenant()
    user = make_user(tenant, phone="13800138000", password=PASSWORD)
    assert log_in(tenant, typed) == user


def test_an_email_in_any_case() -> None:
    tenant = make_tenant()
    user = make_user(tenant, email="alice@example.com", password=PASSWORD)
    assert log_in(tenant, "Alice@Example.COM") == user


def test_a_log_in_is_noted() -> None:
    tenant = make_tenant()
    user = make_user(tenant, username="alice", password=PASSWORD)
    log_in(tenant, "alice")
    with scope.tenant(tenant.pk):
        user.refresh_from_db()
    assert user.last_seen_at is not None


def test_a_wrong_password_and_an_unknown_name_read_the_same() -> None:
    tenant = make_tenant()
    make_user(tenant, username="alice", password=PASSWORD)
    assert refused(tenant, "alice", "not-the-password") == WRONG
    assert refused(tenant, "nobody") == WRONG
    assert refused(tenant, "alice", "") == WRONG


@pytest.mark.parametrize("typed", ["", "@", "+", "%", "a\x00b", "' OR ''='", "x" * 5000])
def test_nonsense_is_a_wrong_name(typed: str) -> None:
    tenant = make_tenant()
    make_user(tenant, username="alice", password=PASSWORD)
    assert refused(tenant, typed) == WRONG


def test_a_user_without_a_password_has_no_password_to_guess() -> None:
    tenant = make_tenant()
    make_user(tenant, username="alice")
    assert refused(tenant, "alice", "") == WRONG
    assert refused(tenant, "alice", "!") == WRONG


def test_a_blocked_user_is_told_so_after_the_right_password_only() -> None:
    tenant = make_tenant()
    make_user(tenant, username="alice", password=PASSWORD, is_active=False)
    assert refused(tenant, "alice", "not-the-password") == WRONG
    assert refused(tenant, "alice")[:2] == (ErrorCode.INVALID, "user_blocked")


def test_one_phone_in_two_tenants_is_two_users() -> None:
    aurora, lotus = make_tenant(), make_tenant()
    in_aurora = make_user(aurora, phone="13800138000", password="password-of-aurora")
    in_lotus = make_user(lotus, phone="13800138000", password="password-of-lotus")
    assert log_in(aurora, "13800138000", "password-of-aurora") == in_aurora
    assert log_in(lotus, "13800138000", "password-of-lotus") == in_lotus
    assert refused(aurora, "13800138000", "password-of-lotus") == WRONG


@pytest.mark.parametrize(
    ("field", "value"), [("username", "alice"), ("phone", "13800138000"), ("email", "alice@example.com")]
)
def test_a_name_is_unique_within_the_tenant(field: str, value: str) -> None:
    tenant = make_tenant()
    make_user(tenant, **{"username": "first", field: value})
    with pytest.raises(IntegrityError), transaction.atomic():
        make_user(tenant, **{"username": "second", field: value})


@pytest.mark.parametrize("name", ["13800138000", "+8613800138000", "alice@example.com"])
def test_nobody_can_take_a_name_that_reads_as_someones_phone_or_email(name: str) -> None:
    tenant = make_tenant()
    with pytest.raises(IntegrityError, match="tenants_enduser_username_shape"), transaction.atomic():
        make_user(tenant, username=name)
    with scope.tenant(tenant.pk), pytest.raises(ProductError) as caught:
        register(tenant=tenant, username=name, password=PASSWORD)
    assert caught.value.type == "username_invalid"


def test_registering_and_logging_in() -> None:
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        user = register(tenant=tenant, username=" 小明.Ming ", password=PASSWORD, nickname=" 明 ")
    assert (user.username, user.nickname, user.tenant) == ("小明.ming", "明", tenant)
    assert (PASSWORD in user.password, check_password(PASSWORD, user.password)) == (False, True)
    assert log_in(tenant, "小明.MING") == user


@pytest.mark.parametrize(
    ("username", "password", "type_"),
    [
        ("alice", PASSWORD, "username_taken"),
        ("ALICE", PASSWORD, "username_taken"),
        ("a", PASSWORD, "username_invalid"),
        ("a b", PASSWORD, "username_invalid"),
        ("x" * 33, PASSWORD, "username_invalid"),
        ("bob", "short", "weak_password"),
        ("bob", "12345678", "weak_password"),
        ("bob", "password", "weak_password"),
    ],
)
def test_a_registration_that_will_not_do(username: str, password: str, type_: str) -> None:
    tenant = make_tenant()
    alice = make_user(tenant, username="alice")
    with scope.tenant(tenant.pk):
        with pytest.raises(ProductError) as caught:
            register(tenant=tenant, username=username, password=password)
        assert (caught.value.code, caught.value.type) == (ErrorCode.INVALID, type_)
        assert str(caught.value.msg) != ""
        assert list(EndUser.objects.all()) == [alice]


def test_a_name_taken_in_another_tenant_is_free() -> None:
    make_user(make_tenant(), username="alice")
    tenant = make_tenant()
    with scope.tenant(tenant.pk):
        assert register(tenant=tenant, username="alice", password=PASSWORD).username == "alice"


def test_guests_where_they_are_allowed() -> None:
    tenant = make_tenant(allow_guest=True)
    with scope.tenant(tenant.pk):
        guest = start_guest(tenant=tenant)
        assert (guest.is_guest, guest.username, guest.password) == (True, None, "")
        assert start_guest(tenant=tenant) != guest


def test_no_guests_where_they_are_not() -> None:
    tenant = make_tenant(allow_guest=False)
    with scope.tenant(tenant.pk):
        with pytest.raises(ProductError) as caught:
            start_guest(tenant=tenant)
        assert (caught.value.code, caught.value.type) == (ErrorCode.LOGIN, "guest_not_allowed")
        assert EndUser.objects.count() == 0


@pytest.mark.parametrize(
    ("header", "user", "wanted"),
    [
        ("en-US,en;q=0.9", "", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "", "zh-hans"),
        ("zh-TW", "", "zh-hans"),
        ("fr, en;q=0.5", "", "en"),
        ("fr", "", "zh-hans"),
        ("*", "", "zh-hans"),
        ("", "", "zh-hans"),
        (None, "", "zh-hans"),
        (";;;q=x", "", "zh-hans"),
        ("zh-CN", "en", "en"),
    ],
)
def test_the_language(header: str | None, user: str, wanted: str) -> None:
    assert choose_language(header, tenant_language="zh-hans", user_language=user) == wanted
