"""The audit finds what breaks resale: each test breaks the rows in one way, past every guard of the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from cryptography.fernet import Fernet
from django.db import connection, transaction
from pytest_django import Settings

from billing import audit, commission, usage, wallet, withdrawal
from billing.models import Hold
from billing.tests.resale import Grove, open_grove, whole_audit
from tenants import scope
from tests.factories import YUAN, make_operator, make_partner, make_staff, unique

TABLES = (
    "billing_entry",
    "billing_transfer",
    "billing_hold",
    "billing_commission",
    "billing_consumptionback",
    "billing_withdrawal",
)
CHECKS = {"billing_commission": ["amounts"], "billing_hold": ["shares"], "billing_withdrawal": ["amounts"]}


@contextmanager
def unguarded() -> Iterator[None]:
    """Switch triggers and some CHECKs off; all of it is rolled back at the end of the test."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            for name in CHECKS.get(table, ()):
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{name}")
        yield


@pytest.fixture
def grove(db: None, settings: Settings) -> Grove:
    """One commission is set free, one frozen, a refund took of the first, a withdrawal is paid, a wallet filled."""
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    grove = open_grove(min_withdrawal=1, withdrawal_fee_ppm=100_000)
    grove.answer()
    commission.fold_day(day=date(2026, 11, 2))
    commission.take_back(
        tenant_id=grove.shop.tenant.pk, user_id=grove.shop.user.pk, spent=1000, ref="refund:1", reason="", actor="t"
    )
    commission.post_backs()
    grove.matured()
    grove.answer()
    commission.fold_day(day=date(2026, 11, 3))
    with scope.tenant(grove.shop.tenant.pk):
        for hold in Hold.objects.all():
            usage.record(tenant_id=grove.shop.tenant.pk, hold_id=hold.pk)
    row = withdrawal.request(
        reseller_id=grove.child.pk,
        amount=100,
        payee="a",
        bank="b",
        bank_account="c",
        maker_id=make_partner(grove.child).pk,
    )
    checker = make_operator().pk
    withdrawal.approve(withdrawal_id=row.pk, checker_id=checker)
    batch = withdrawal.make_batch(withdrawal_ids=[row.pk], actor="t")
    assert batch is not None
    withdrawal.mark_sent(batch_id=batch.pk, actor="t")
    withdrawal.paid(withdrawal_id=row.pk, actor="t")
    topup = wallet.request_topup(
        tenant_id=grove.shop.tenant.pk, amount=YUAN, bank_reference=unique("b"), requested_by_id=make_staff().pk
    )
    wallet.confirm_topup(topup_id=topup.pk, decided_by_id=checker)
    assert whole_audit() == []
    return grove


@pytest.mark.parametrize(
    ("statement", "invariants"),
    [
        ("UPDATE billing_hold SET own_share = own_share - 1 WHERE tenant_id = %(tenant)s", {"I6", "I9", "R2"}),
        ("UPDATE billing_hold SET own_ppm = own_ppm + 1000 WHERE tenant_id = %(tenant)s", {"I9"}),
        (
            "UPDATE billing_hold SET own_share = 125, parent_share = 250 WHERE tenant_id = %(tenant)s",
            {"I6", "I9", "R2"},
        ),
        ("UPDATE billing_hold SET parent_reseller_id = reseller_id WHERE tenant_id = %(tenant)s", {"I6", "I9", "R2"}),
        ("UPDATE billing_usagerecord SET own_share = 7 WHERE tenant_id = %(tenant)s", {"I6"}),
        ("UPDATE billing_commission SET amount = amount + 1 WHERE tenant_id = %(tenant)s", {"R1"}),
        ("UPDATE billing_commission SET netted = 1 WHERE tenant_id = %(tenant)s AND state = 'frozen'", {"R1"}),
        (
            "UPDATE billing_commission SET taken_back = 1 WHERE tenant_id = %(tenant)s AND state = 'frozen'",
            {"R1"},
        ),
        ("UPDATE billing_commission SET taken_back = 0 WHERE tenant_id = %(tenant)s AND state = 'released'", {"R1"}),
        ("UPDATE billing_commission SET state = 'frozen', released_at = NULL WHERE tenant_id = %(tenant)s", {"R1"}),
        ("DELETE FROM billing_commission WHERE tenant_id = %(tenant)s AND state = 'frozen'", {"R1"}),
        ("DELETE FROM billing_commission WHERE tenant_id = %(tenant)s AND state = 'released'", {"R1"}),
        ("UPDATE billing_consumptionback SET own_back = own_back + 1 WHERE tenant_id = %(tenant)s", {"R2"}),
        ("UPDATE billing_consumptionback SET spent = 5001 WHERE tenant_id = %(tenant)s", {"R2"}),
        ("DELETE FROM billing_consumptionback WHERE tenant_id = %(tenant)s", {"R2"}),
        ("UPDATE billing_commissionback SET amount = amount + 1 WHERE tenant_id = %(tenant)s", {"R2"}),
        ("UPDATE billing_commissionback SET posted_at = NULL WHERE tenant_id = %(tenant)s", {"R2"}),
        ("DELETE FROM billing_commissionback WHERE tenant_id = %(tenant)s", {"R2"}),
        ("UPDATE billing_withdrawal SET amount = amount + 1 WHERE reseller_id = %(child)s", {"R3"}),
        ("UPDATE billing_withdrawal SET fee = fee + 1 WHERE reseller_id = %(child)s", {"R3"}),
        ("UPDATE billing_withdrawal SET state = 'failed' WHERE reseller_id = %(child)s", {"R3"}),
        ("UPDATE billing_withdrawal SET state = 'sent', ended_at = NULL WHERE reseller_id = %(child)s", {"R3"}),
        ("DELETE FROM billing_withdrawal WHERE reseller_id = %(child)s", {"R3"}),
        ("UPDATE billing_wallettopup SET amount = amount + 1 WHERE tenant_id = %(tenant)s", {"R4"}),
        ("UPDATE billing_wallettopup SET state = 'rejected' WHERE tenant_id = %(tenant)s", {"R4"}),
        ("DELETE FROM billing_wallettopup WHERE tenant_id = %(tenant)s", {"R4"}),
    ],
)
def test_each_break_is_found(grove: Grove, statement: str, invariants: set[str]) -> None:
    with unguarded(), connection.cursor() as cursor:
        cursor.execute(statement, {"tenant": grove.shop.tenant.pk, "child": grove.child.pk})
        assert cursor.rowcount > 0
        assert {breach.invariant for breach in whole_audit()} == invariants
    transaction.set_rollback(True)


def test_a_breach_says_what_is_wrong(grove: Grove) -> None:
    with unguarded(), connection.cursor() as cursor:
        cursor.execute("UPDATE billing_wallettopup SET state = 'rejected' WHERE tenant_id = %s", [grove.shop.tenant.pk])
        (breach,) = audit.audit_tenant(tenant_id=grove.shop.tenant.pk)
        assert (breach.invariant, breach.found) == ("R4", f"rejected, amount {YUAN}, filled {YUAN}")
    transaction.set_rollback(True)
