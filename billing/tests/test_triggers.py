"""What the database refuses, whoever asks: these tests go past our own code on purpose."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from billing.models import Account, Hold, Transfer
from billing.tests.conftest import Shop
from tenants import scope
from tests.factories import credit, make_tenant


@contextmanager
def refused(match: str) -> Iterator[None]:
    with pytest.raises(IntegrityError, match=match), transaction.atomic():
        yield


def run(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


@pytest.mark.parametrize("table", ["billing_transfer", "billing_entry", "billing_priceversion"])
@pytest.mark.parametrize(
    ("operation", "statement"),
    [
        ("UPDATE", "UPDATE {} SET id = id"),
        ("UPDATE", "UPDATE {} SET id = id WHERE false"),
        ("DELETE", "DELETE FROM {}"),
        ("TRUNCATE", "TRUNCATE {} CASCADE"),
    ],
)
def test_rows_are_only_ever_added(shop: Shop, table: str, operation: str, statement: str) -> None:
    # Within a test's transaction nothing has been checked yet, and TRUNCATE wants no check outstanding.
    run("SET CONSTRAINTS ALL IMMEDIATE")
    with refused(f"{operation} of {table} is refused: rows are only ever added"):
        run(statement.format(table))


def transfer_with(shop: Shop, *amounts: tuple[str, int]) -> None:
    """Write a transfer past the ledger."""
    with scope.tenant(shop.tenant.pk):
        transfer = Transfer.objects.create(tenant=shop.tenant, kind="credit", ref="past the ledger", actor="test")
        for kind, amount in amounts:
            account = Account.objects.get(kind=kind)
            transfer.entries.create(tenant=shop.tenant, account=account, amount=amount)
    run("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_transfer_that_does_not_sum_to_zero_cannot_be_committed(shop: Shop) -> None:
    with refused("does not sum to zero but to 1"):
        transfer_with(shop, ("tenant_wholesale", 5), ("psp_clearing", -4))


def test_an_entry_cannot_be_added_to_a_transfer_later(shop: Shop) -> None:
    credit(shop.user, 5)
    with scope.tenant(shop.tenant.pk):
        transfer = Transfer.objects.get(kind="credit")
        wallet = Account.objects.get(kind="tenant_wholesale")
        with refused("does not sum to zero but to 3"):
            transfer.entries.create(tenant=shop.tenant, account=wallet, amount=3)
            run("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_transfer_cannot_cross_tenants(shop: Shop) -> None:
    stranger = make_tenant()
    with scope.tenant(stranger.pk):
        theirs = Account.objects.create(tenant=stranger, kind="psp_clearing", channel="manual")
    with scope.tenant(shop.tenant.pk):
        ours = Account.objects.get(kind="tenant_wholesale")
    with refused("crosses tenants"):
        run(
            "WITH transfer AS (INSERT INTO billing_transfer (tenant_id, kind, ref, actor, reason)"
            "  VALUES (%s, 'credit', 'across', 'test', '') RETURNING id, tenant_id)"
            " INSERT INTO billing_entry (tenant_id, transfer_id, account_id, amount)"
            " SELECT tenant_id, id, account, amount FROM transfer, (VALUES (%s, -5), (%s, 5)) part (account, amount)",
            shop.tenant.pk,
            theirs.pk,
            ours.pk,
        )
        run("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_hold SET state = 'held', ended_at = NULL WHERE id = %s",
        "UPDATE billing_hold SET state = 'voided', charge = 0, cash_charge = 0, wholesale_charge = 0 WHERE id = %s",
        "UPDATE billing_hold SET charge = charge + 1, cash_charge = cash_charge + 1 WHERE id = %s",
        "UPDATE billing_hold SET wholesale_charge = wholesale_charge - 1 WHERE id = %s",
    ],
)
def test_a_posted_hold_has_ended(shop: Shop, statement: str) -> None:
    credit(shop.user, 8000)
    hold = shop.admit()
    shop.settle(hold)
    with refused(f"hold {hold.pk} has ended: posted"):
        run(statement, hold.pk)


def test_a_voided_hold_has_ended(shop: Shop) -> None:
    credit(shop.user, 8000)
    hold = shop.admit()
    shop.void(hold)
    with refused(f"hold {hold.pk} has ended: voided"), scope.tenant(shop.tenant.pk):
        Hold.objects.filter(pk=hold.pk).update(state="posted", usage_source="upstream")


def test_a_key_holds_once(shop: Shop) -> None:
    credit(shop.user, 16000)
    hold = shop.admit(key="once")
    with refused("billing_hold_key"), scope.tenant(shop.tenant.pk):
        hold.pk = None
        hold.save(force_insert=True)
    shop.void(hold)
