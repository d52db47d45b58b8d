"""The audit finds what it is there to find: each test breaks the books in one way, past every guard of the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from billing import audit, ledger, usage
from billing.audit import Breach, Result
from billing.models import Account, AccountKind, Entry, Hold, Transfer
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tenants.models import Reseller
from tests.factories import credit, fill_wallet, make_price, make_reseller, unique

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
        cursor.execute("ALTER TABLE billing_transfer DROP CONSTRAINT billing_transfer_once")
        cursor.execute("ALTER TABLE billing_hold DROP CONSTRAINT billing_hold_user_fk")
        cursor.execute("ALTER TABLE billing_entry DROP CONSTRAINT billing_entry_transfer_fk")
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


def whole() -> list[Result]:
    """The whole ledger's audit; earlier tests may have committed posted holds that no worker will record."""
    return audit.audit(record_grace_seconds=10**9)


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
        ("UPDATE billing_hold SET user_id = user_id + 1000000 WHERE tenant_id = %s AND state = 'held'", {"I4"}),
        ("UPDATE billing_transfer SET ref = 'of no hold' WHERE tenant_id = %s AND kind = 'answer'", {"I5", "I9"}),
        (
            (
                "INSERT INTO billing_transfer (tenant_id, kind, ref, actor, reason)"
                " SELECT tenant_id, kind, ref, '', '' FROM billing_transfer WHERE tenant_id = %s AND kind = 'answer'"
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
        ("UPDATE billing_usagerecord SET free = true WHERE tenant_id = %s", {"I6"}),
        ("UPDATE billing_usagerecord SET prompt_tokens = 999, cached_tokens = 1 WHERE tenant_id = %s", {"I6"}),
        ("UPDATE billing_priceversion SET per_call = per_call + 1 WHERE tenant_id = %s", {"I6"}),
        ("UPDATE billing_priceversion SET multiplier_ppm = 1000001 WHERE tenant_id = %s", {"I6"}),
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


def test_two_usage_records_of_one_hold_are_found(shop: Shop, posted: Hold) -> None:
    with unguarded(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_usagerecord DROP CONSTRAINT billing_usagerecord_hold_id_key")
        columns = "tenant_id, hold_id, user_id, day, sku, prompt_tokens, cached_tokens, completion_tokens, usage_source"
        columns += ", retail_price_id, wholesale_price_id, cost_price_id, free, charge, wholesale_charge, cost"
        cursor.execute(
            f"INSERT INTO billing_usagerecord ({columns}) SELECT {columns} FROM billing_usagerecord"  # noqa: S608
            " WHERE tenant_id = %s",
            [shop.tenant.pk],
        )
        assert {(breach.row, breach.found) for breach in audit.audit_tenant(tenant_id=shop.tenant.pk)} == {
            (f"hold {posted.pk}", "posted, usage records 2")
        }


def test_what_it_rates_again_is_what_the_price_list_says(shop: Shop) -> None:
    """Odd rates, a multiplier, a price per call: whatever rounds, rounds the same way."""
    sku = unique("sku")
    odd: dict[str, Any] = {"sku": sku, "multiplier_ppm": 1_234_567, "per_call": 3}
    make_price("cost", rates=(7, 3, 11), **odd)
    make_price("wholesale", rates=(700_001, 300_007, 1_100_003), **odd)
    make_price("retail", rates=(10**9 + 7, 10**9 - 63, 10**9 + 9), tenant_id=shop.tenant.pk, **odd)
    credit(shop.user, 10**14)
    fill_wallet(shop.tenant, 10**14)
    for prompt, cached, completion in ((0, 0, 1), (1, 1, 0), (7919, 13, 4127), (10**6, 10**6, 10**6)):
        hold = shop.admit(sku=sku, prompt_tokens=10**6, max_completion_tokens=10**6)
        shop.settle(hold, prompt=prompt, cached=cached, completion=completion)
        usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


def test_the_whole_is_every_tenant_and_the_platform(shop: Shop, posted: Hold) -> None:
    before = whole()
    other = open_shop()
    credit(other.user, 1)
    open_commission(make_reseller())
    grown = [after.rows - first.rows for after, first in zip(whole(), before, strict=True)]
    theirs = [result.rows for result in audit.audit(tenant_id=other.tenant.pk)]
    platform = [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert grown == [tenant + own for tenant, own in zip(theirs, platform, strict=True)]
    assert theirs == [2, 8, 8, 8, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]


def test_a_tenant_s_audit_is_not_about_others(shop: Shop, posted: Hold) -> None:
    other = open_shop()
    before = audit.audit(tenant_id=other.tenant.pk)
    with unguarded(), connection.cursor() as cursor:
        cursor.execute("UPDATE billing_account SET posted = posted + 1 WHERE tenant_id = %s", [shop.tenant.pk])
        assert audit.audit(tenant_id=other.tenant.pk) == before
        assert {breach.tenant for breach in audit.breaches_of(whole())} == {shop.tenant.slug}


def test_a_reseller_s_share_is_no_breach(shop: Shop, posted: Hold) -> None:
    account = open_commission(make_reseller())
    pay_commission(shop, account)
    assert audit.breaches_of(whole()) == []


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("posted = posted + 1", {"I2": "posted 41, entries 40"}),
        ("posted = -1", {"I2": "posted -1, entries 40", "I3": "posted -1, pending 0"}),
        ("pending = 1", {"I4": "pending 1, holds 0"}),
        ("kind = 'refund_payable', reseller_id = NULL", {"I10": "refund_payable account of the platform"}),
    ],
)
def test_breaks_of_the_platform_s_own_rows_are_found(
    shop: Shop, posted: Hold, column: str, found: dict[str, str]
) -> None:
    account = open_commission(make_reseller())
    entry = pay_commission(shop, account)
    with unguarded(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE billing_account SET {column} WHERE id = %s", [account])  # noqa: S608
        assert audit.breaches_of(whole()) == [
            Breach(invariant="I10", tenant=shop.tenant.slug, row=f"entry {entry}", found=text)
            if invariant == "I10"
            else Breach(invariant=invariant, tenant="", row=f"account {account}", found=text)
            for invariant, text in found.items()
        ]
        assert [breach.invariant for breach in audit.audit_tenant(tenant_id=shop.tenant.pk)] == sorted(
            {"I10"} & set(found)
        )


def test_an_entry_of_another_tenant_s_transfer_is_found(shop: Shop, posted: Hold) -> None:
    other = open_shop()
    with unguarded(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_entry (tenant_id, transfer_id, account_id, amount)"
            " SELECT %s, transfer.id, account.id, 1 FROM billing_transfer transfer, billing_account account"
            " WHERE transfer.tenant_id = %s"
            " AND transfer.kind = 'answer' AND account.tenant_id = %s AND account.kind = 'tenant_revenue' RETURNING id",
            [other.tenant.pk, shop.tenant.pk, other.tenant.pk],
        )
        (entry,) = cursor.fetchone()
        assert [(b.row, b.found) for b in audit.audit_tenant(tenant_id=other.tenant.pk) if b.invariant == "I10"] == [
            (f"entry {entry}", f"transfer of tenant {shop.tenant.pk}")
        ]


def test_many_breaches_are_counted_and_the_first_are_named(shop: Shop) -> None:
    for _ in range(12):
        credit(shop.open_more(), 1)
    with unguarded(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_account SET posted = posted + 1 WHERE user_id IS NOT NULL RETURNING id, tenant_id"
        )
        broken = sorted(account for account, tenant in cursor.fetchall() if tenant == shop.tenant.pk)
        (result,) = [each for each in audit.audit(tenant_id=shop.tenant.pk) if each.breaches]
    assert (len(broken), result.breaches) == (24, 24)
    assert [breach.row for breach in result.shown] == [f"account {account}" for account in broken[: audit.SHOWN]]


def open_commission(reseller: Reseller) -> int:
    """Open a reseller's account, which is the platform's row; return its id."""
    with scope.platform("a reseller's account"):
        return Account.objects.create(kind=AccountKind.RESELLER_AVAILABLE, reseller=reseller).pk


def pay_commission(shop: Shop, account_id: int) -> int:
    """Give a reseller 40 micro-yuan of what the tenant paid the platform; return its entry's id."""
    with scope.platform("a reseller's commission"), transaction.atomic():
        ledger.move(
            tenant_id=shop.tenant.pk,
            kind=Transfer.Kind.CREDIT,
            ref=unique("ref"),
            reason="commission",
            actor="test",
            movements=[
                ledger.Movement(account=ledger.tenant_accounts(tenant_id=shop.tenant.pk).platform_revenue, amount=-40),
                ledger.Movement(account=Account.objects.get(pk=account_id), amount=40),
            ],
        )
        return Entry.objects.get(account_id=account_id).pk
