"""The audit finds what it is there to find: each test breaks the books in one way, past every guard of the database."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from billing import audit, usage
from billing.models import Hold
from billing.tests.conftest import Shop, open_shop
from tests.factories import credit

GUARDS = ("billing_entry", "billing_transfer", "billing_hold", "billing_priceversion")


@contextmanager
def unguarded() -> Iterator[None]:
    """Switch triggers and an account's CHECK off; all of it is rolled back at the end of the test."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in GUARDS:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute("ALTER TABLE billing_account DROP CONSTRAINT billing_account_available")
        cursor.execute("ALTER TABLE billing_account DROP CONSTRAINT billing_account_pending")
        yield


@pytest.fixture
def shop(db: None) -> Shop:
    """A shop with a posted and recorded hold and an open one; unlike the usual one, not audited at the end."""
    return open_shop()


@pytest.fixture
def posted(shop: Shop) -> Hold:
    credit(shop.user, 100_000)
    hold = shop.admit()
    shop.settle(hold)
    usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    shop.admit()
    return hold


def broken(shop: Shop) -> set[str]:
    return {breach.invariant for breach in audit.audit_tenant(tenant_id=shop.tenant.pk)}


def test_right_books_have_no_breach(shop: Shop, posted: Hold) -> None:
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


@pytest.mark.parametrize(
    ("statement", "invariants"),
    [
        ("UPDATE billing_entry SET amount = amount + 1 WHERE tenant_id = %s AND amount = 5000", {"I1", "I2", "I9"}),
        ("DELETE FROM billing_entry WHERE tenant_id = %s AND amount = 5000", {"I1", "I2", "I9"}),
        ("UPDATE billing_account SET posted = posted + 1 WHERE tenant_id = %s AND kind = 'user_cash'", {"I2"}),
        (
            "UPDATE billing_account SET posted = pending - 1 WHERE tenant_id = %s AND kind = 'user_cash'",
            {"I2", "I3"},
        ),
        ("UPDATE billing_account SET pending = pending + 1 WHERE tenant_id = %s AND kind = 'user_cash'", {"I4"}),
        ("UPDATE billing_account SET pending = 0 WHERE tenant_id = %s AND kind = 'tenant_wholesale'", {"I4"}),
        (
            (
                "INSERT INTO billing_transfer (tenant_id, kind, ref, actor, reason)"
                " SELECT tenant_id, 'answer', id, '', '' FROM billing_hold WHERE tenant_id = %s AND state = 'held'"
            ),
            {"I1", "I5"},
        ),
        (
            (
                "UPDATE billing_hold SET state = 'held', ended_at = NULL, recorded_at = NULL,"
                " charge = 0, cash_charge = 0, wholesale_charge = 0 WHERE tenant_id = %s"
            ),
            {"I4", "I5", "I6", "I9"},
        ),
        ("DELETE FROM billing_usagerecord WHERE tenant_id = %s", {"I6"}),
        ("UPDATE billing_usagerecord SET completion_tokens = completion_tokens + 1 WHERE tenant_id = %s", {"I6"}),
        ("UPDATE billing_usagerecord SET charge = charge + 1 WHERE tenant_id = %s", {"I6"}),
        ("UPDATE billing_usagerecord SET retail_price_id = wholesale_price_id WHERE tenant_id = %s", {"I6"}),
        (
            (
                "UPDATE billing_hold SET recorded_at = NULL, ended_at = now() - interval '1 hour'"
                " WHERE tenant_id = %s AND state = 'posted'"
            ),
            {"I6"},
        ),
        (
            (
                "UPDATE billing_hold SET charge = charge + 1, cash_charge = cash_charge + 1"
                " WHERE tenant_id = %s AND state = 'posted'"
            ),
            {"I6", "I9"},
        ),
    ],
)
def test_each_break_is_found(shop: Shop, posted: Hold, statement: str, invariants: set[str]) -> None:
    with unguarded(), connection.cursor() as cursor:
        cursor.execute(statement, [shop.tenant.pk])
        assert cursor.rowcount > 0
        assert broken(shop) == invariants
    transaction.set_rollback(True)


def test_money_that_crossed_into_another_tenant_is_found(shop: Shop, posted: Hold) -> None:
    other = open_shop()
    credit(other.user, 1)
    with unguarded(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_entry SET account_id = (SELECT id FROM billing_account WHERE user_id = %s AND posted > 0)"
            " WHERE tenant_id = %s AND account_id = (SELECT id FROM billing_account WHERE user_id = %s AND posted > 0)",
            [other.user.pk, shop.tenant.pk, shop.user.pk],
        )
        assert "I10" in broken(shop)
        assert broken(other) == {"I2"}


def test_an_unrecorded_hold_has_some_time(shop: Shop) -> None:
    credit(shop.user, 8000)
    shop.settle(shop.admit())
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
    found = audit.audit_tenant(tenant_id=shop.tenant.pk, record_grace_seconds=-1)
    assert [breach.invariant for breach in found] == ["I6"]


def test_a_breach_names_its_row(shop: Shop, posted: Hold) -> None:
    with unguarded(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM billing_usagerecord WHERE tenant_id = %s", [shop.tenant.pk])
        assert audit.audit_tenant(tenant_id=shop.tenant.pk) == [
            audit.Breach(
                invariant="I6", tenant=shop.tenant.slug, row=f"hold {posted.pk}", found="posted, usage records 0"
            )
        ]
