"""Tokens: hashed, expiring, revocable, and good in their own tenant only."""

import hashlib
import re
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.login import issue_token, revoke_token, token_of, user_of_token
from tenants.models import AccessToken, EndUser
from tenants.tests.conftest import House
from tests.factories import make_token

pytestmark = pytest.mark.django_db


def refusal(house: House, token: str | None) -> tuple[ErrorCode, str, str]:
    """Return how a token is refused in a tenant."""
    with scope.tenant(house.tenant.pk), pytest.raises(ProductError) as refused:
        user_of_token(tenant_id=house.tenant.pk, token=token)
    return refused.value.code, refused.value.type, refused.value.action


LOGIN_REQUIRED = (ErrorCode.LOGIN, "login_required", "login")


def test_a_token_stands_for_its_user_by_one_query(
    aurora: House, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    assert re.fullmatch(r"bny_[A-Za-z0-9_-]{43}", aurora.token)
    with scope.tenant(aurora.tenant.pk), django_assert_num_queries(1):
        user = user_of_token(tenant_id=aurora.tenant.pk, token=aurora.token)
        assert user == aurora.alice
        assert user.nickname == aurora.alice.nickname


def test_the_database_has_the_hash_and_nowhere_the_token(aurora: House) -> None:
    with connection.cursor() as cursor:
        statement = "SELECT row_to_json(t)::text, digest FROM tenants_accesstoken t WHERE tenant_id = %s"
        cursor.execute(statement, [aurora.tenant.pk])
        [(row, digest)] = cursor.fetchall()
    assert digest == hashlib.sha256(aurora.token.encode()).hexdigest()
    assert aurora.token.removeprefix("bny_") not in row


def test_the_database_refuses_a_token_in_clear(aurora: House) -> None:
    with scope.tenant(aurora.tenant.pk), pytest.raises(IntegrityError), transaction.atomic():
        AccessToken.objects.update(digest=aurora.token)


def test_no_two_tokens_are_alike(aurora: House) -> None:
    assert len({make_token(aurora.alice) for _ in range(20)} | {aurora.token}) == 21


def test_another_tenants_token_reads_like_none_at_all(aurora: House, lotus: House) -> None:
    assert refusal(lotus, aurora.token) == LOGIN_REQUIRED
    assert refusal(lotus, None) == LOGIN_REQUIRED
    assert refusal(lotus, "bny_" + "x" * 43) == LOGIN_REQUIRED


@pytest.mark.parametrize(
    "token", ["", "bny_", "x", "bny_" + "é" * 43, "bny_\x00" + "x" * 42, "' OR 1=1 --", "x" * 9999]
)
def test_what_is_no_token_is_refused_without_a_query(
    token: str, aurora: House, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert refusal(aurora, token) == LOGIN_REQUIRED


def test_a_token_is_looked_up_in_the_tenant_named(aurora: House, lotus: House) -> None:
    with scope.platform("even where every row is in sight"):
        with pytest.raises(ProductError) as refused:
            user_of_token(tenant_id=lotus.tenant.pk, token=aurora.token)
        assert refused.value.type == "login_required"
        assert user_of_token(tenant_id=aurora.tenant.pk, token=aurora.token) == aurora.alice


def test_a_token_expires(aurora: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        AccessToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert refusal(aurora, aurora.token) == (ErrorCode.LOGIN, "token_expired", "login")


def test_a_token_is_good_for_the_days_asked_for(aurora: House, settings: object) -> None:
    with scope.tenant(aurora.tenant.pk):
        for days, wanted in ((3, 3), (None, 30)):
            issue_token(user=aurora.alice, days=days)
            row = AccessToken.objects.latest("id")
            assert round((row.expires_at - row.created_at) / timedelta(days=1), 3) == wanted


def test_a_revoked_token_is_refused_and_others_of_the_user_go_on(aurora: House) -> None:
    other = make_token(aurora.alice)
    with scope.tenant(aurora.tenant.pk):
        assert revoke_token(tenant_id=aurora.tenant.pk, token=aurora.token) is True
        assert revoke_token(tenant_id=aurora.tenant.pk, token=aurora.token) is False
        assert user_of_token(tenant_id=aurora.tenant.pk, token=other) == aurora.alice
    assert refusal(aurora, aurora.token) == LOGIN_REQUIRED


def test_another_tenants_token_cannot_be_revoked(aurora: House, lotus: House) -> None:
    with scope.tenant(lotus.tenant.pk):
        assert revoke_token(tenant_id=lotus.tenant.pk, token=aurora.token) is False
    with scope.tenant(aurora.tenant.pk):
        assert user_of_token(tenant_id=aurora.tenant.pk, token=aurora.token) == aurora.alice


def test_a_blocked_users_token_is_refused(aurora: House) -> None:
    with scope.tenant(aurora.tenant.pk):
        EndUser.objects.update(is_active=False)
    assert refusal(aurora, aurora.token) == LOGIN_REQUIRED


@pytest.mark.parametrize(
    ("headers", "parameters", "wanted"),
    [
        ({"authorization": "Bearer bny_a"}, {}, "bny_a"),
        ({"authorization": "bearer  bny_a "}, {}, "bny_a"),
        ({"authorization": "Basic bny_a"}, {}, None),
        ({"authorization": "Bearer"}, {}, None),
        ({"token": "bny_b"}, {}, "bny_b"),
        ({}, {"token": "bny_c"}, "bny_c"),
        ({"authorization": "Bearer bny_a", "token": "bny_b"}, {"token": "bny_c"}, "bny_a"),
        ({"authorization": "Basic x", "token": "bny_b"}, {"token": "bny_c"}, "bny_b"),
        ({}, {"token": 17}, None),
        ({}, {"token": " "}, None),
        ({}, {}, None),
    ],
)
def test_where_a_token_is_looked_for(
    headers: dict[str, str], parameters: dict[str, object], wanted: str | None
) -> None:
    assert token_of(headers, parameters) == wanted
