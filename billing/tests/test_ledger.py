from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from billing import ledger
from billing.ledger import Balances, LedgerError, Movement, RefConflictError
from billing.models import Account, AccountKind, Entry, Transfer
from billing.tests.conftest import Shop
from tenants import scope
from tests.factories import credit, freeze, make_reseller, make_tenant, make_user, unfreeze, unique


def entries(transfer: Transfer) -> dict[tuple[str, str], int]:
    assert transfer.tenant_id is not None
    with scope.tenant(transfer.tenant_id):
        rows = transfer.entries.values_list("account__kind", "account__channel", "amount")
        return {(kind, channel): amount for kind, channel, amount in rows}


def credit_as(shop: Shop, **fields: Any) -> Transfer:
    asked: dict[str, Any] = {
        "user_id": shop.user.pk,
        "amount": 500,
        "kind": "cash",
        "ref": unique("ref"),
        "reason": "a birthday",
        "actor": "eve",
        **fields,
    }
    return ledger.credit_user(tenant_id=shop.tenant.pk, **asked)


def balances(shop: Shop) -> Balances:
    return ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk)


def test_a_user_without_money_has_zeros(shop: Shop) -> None:
    assert balances(shop) == Balances(cash=0, gift=0, pending=0)


def test_a_credit_comes_out_of_clearing(shop: Shop) -> None:
    transfer = credit_as(shop, amount=500)
    assert entries(transfer) == {("psp_clearing", "manual"): -500, ("user_cash", ""): 500}
    assert (transfer.kind, transfer.reason, transfer.actor) == ("credit", "a birthday", "eve")
    assert balances(shop) == Balances(cash=500, gift=0, pending=0)


def test_a_gift_has_a_clearing_account_of_its_own(shop: Shop) -> None:
    transfer = credit_as(shop, amount=70, kind="gift")
    assert entries(transfer) == {("psp_clearing", "gift"): -70, ("user_gift", ""): 70}
    assert transfer.kind == "gift"
    assert balances(shop) == Balances(cash=0, gift=70, pending=0)


def test_a_wallet_is_topped_up_from_clearing(shop: Shop) -> None:
    transfer = ledger.credit_tenant_wallet(
        tenant_id=shop.tenant.pk, amount=9, ref=unique("ref"), reason="paid by bank", actor="eve"
    )
    assert entries(transfer) == {("psp_clearing", "manual"): -9, ("tenant_wholesale", ""): 9}
    assert transfer.kind == "wallet_topup"


def test_the_same_reference_credits_once(shop: Shop) -> None:
    first = credit_as(shop, ref="order 7")
    assert credit_as(shop, ref="order 7", reason="told again") == first
    assert balances(shop).cash == 500


@pytest.mark.parametrize("change", ["amount", "user"])
def test_a_reference_is_not_for_another_credit(shop: Shop, change: str) -> None:
    credit_as(shop, ref="order 7")
    other = {"amount": 501} if change == "amount" else {"user_id": shop.open_more().pk}
    with pytest.raises(RefConflictError):
        credit_as(shop, ref="order 7", **other)
    assert balances(shop).cash == 500


def test_another_tenant_may_have_the_same_reference(shop: Shop) -> None:
    stranger = make_user(make_tenant())
    credit_as(shop, ref="order 7")
    ledger.credit_user(
        tenant_id=stranger.tenant_id, user_id=stranger.pk, amount=3, kind="cash", ref="order 7", reason="", actor="eve"
    )
    assert balances(shop).cash == 500
    assert ledger.balances(tenant_id=stranger.tenant_id, user_id=stranger.pk).cash == 3


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, None, "20", ledger.MAX_AMOUNT + 1, float("nan")])
def test_an_amount_is_a_bounded_positive_integer(shop: Shop, amount: Any) -> None:
    with pytest.raises(ValueError, match="whole micro-yuan"):
        credit_as(shop, amount=amount)
    with pytest.raises(ValueError, match="whole micro-yuan"):
        ledger.credit_tenant_wallet(tenant_id=shop.tenant.pk, amount=amount, ref="x", reason="", actor="")
    assert balances(shop).cash == 0


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"kind": "points"}, "unknown kind of credit: 'points'"), ({"ref": ""}, "a transfer needs a reference")],
)
def test_a_credit_of_no_kind_or_without_a_reference_is_refused(shop: Shop, fields: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        credit_as(shop, **fields)
    assert balances(shop).cash == 0


def test_a_user_of_another_tenant_is_refused_by_the_database(shop: Shop) -> None:
    stranger = make_user(make_tenant())
    with transaction.atomic(), connection.cursor() as cursor:
        credit_as(shop, user_id=stranger.pk)
        with pytest.raises(IntegrityError, match="billing_account_user_fk"):
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        transaction.set_rollback(True)


def test_balances_are_read_in_the_tenant_s_scope_only(shop: Shop) -> None:
    credit(shop.user, 5)
    with scope.tenant(make_tenant().pk), pytest.raises(scope.WrongScopeError):
        balances(shop)


def accounts(shop: Shop) -> tuple[Account, Account]:
    with scope.tenant(shop.tenant.pk):
        cash = ledger.lock_user_accounts(tenant_id=shop.tenant.pk, user_id=shop.user.pk).cash
    return cash, ledger_clearing(shop)


def ledger_clearing(shop: Shop) -> Account:
    with scope.tenant(shop.tenant.pk):
        return ledger.clearing_account(tenant_id=shop.tenant.pk, channel="manual")


def move(shop: Shop, *movements: Movement, ref: str = "move") -> Transfer:
    with scope.tenant(shop.tenant.pk), transaction.atomic():
        return ledger.move(
            tenant_id=shop.tenant.pk,
            kind=Transfer.Kind.CREDIT,
            ref=ref,
            reason="",
            actor="test",
            movements=movements,
        )


def test_a_transfer_must_sum_to_zero(shop: Shop) -> None:
    cash, clearing = accounts(shop)
    with pytest.raises(LedgerError, match="sum to zero"):
        move(shop, Movement(account=cash, amount=5), Movement(account=clearing, amount=-4))
    assert balances(shop).cash == 0


def test_a_balance_never_falls_below_what_is_frozen(shop: Shop) -> None:
    credit(shop.user, 10)
    cash, clearing = accounts(shop)
    with scope.tenant(shop.tenant.pk):
        assert freeze(account=cash, amount=4)
    with pytest.raises(LedgerError, match="cannot take -7"):
        move(shop, Movement(account=cash, amount=-7), Movement(account=clearing, amount=7))
    move(shop, Movement(account=cash, amount=-7, release=1), Movement(account=clearing, amount=7), ref="with release")
    assert balances(shop) == Balances(cash=3, gift=0, pending=3)
    with scope.tenant(shop.tenant.pk), pytest.raises(LedgerError):
        unfreeze(account=cash, amount=4)
    with scope.tenant(shop.tenant.pk):
        unfreeze(account=cash, amount=3)


def test_no_more_is_frozen_than_there_is(shop: Shop) -> None:
    credit(shop.user, 10)
    cash, _ = accounts(shop)
    with scope.tenant(shop.tenant.pk):
        assert [freeze(account=cash, amount=amount) for amount in (6, 5, 4, 1, 0)] == [
            True,
            False,
            True,
            False,
            True,
        ]
        assert balances(shop) == Balances(cash=10, gift=0, pending=10)
        with pytest.raises(ValueError, match="negative"):
            freeze(account=cash, amount=-1)
        unfreeze(account=cash, amount=10)


def test_unfreezing_moves_no_money(shop: Shop) -> None:
    cash, _ = accounts(shop)
    with scope.tenant(shop.tenant.pk), pytest.raises(ValueError, match="by a transfer only"):
        ledger.planned_release(movements=[Movement(account=cash, amount=1)])


@given(st.lists(st.sampled_from(list(AccountKind)), unique=True))
def test_rows_are_locked_in_one_order_however_they_come(kinds: list[AccountKind]) -> None:
    movements = [
        Movement(account=Account(kind=kind, user_id=7 if kind in ("user_gift", "user_cash") else None))
        for kind in kinds
    ]
    order = [movement.account.kind for movement in ledger._in_lock_order(movements)]  # noqa: SLF001
    expected = [
        "user_gift",
        "user_cash",
        "psp_clearing",
        "refund_payable",
        "tenant_wholesale",
        "shortfall",
        "tenant_revenue",
        "reseller_accrued",
        "platform_revenue",
        "reseller_wallet",
        "reseller_pending",
        "reseller_available",
        "reseller_receivable",
        "withdrawal_payable",
    ]
    assert order == [kind for kind in expected if kind in kinds]


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"kind": "user_cash", "user": None}, "billing_account_owner"),
        ({"kind": "tenant_revenue", "user": "the user"}, "billing_account_owner"),
        ({"kind": "tenant_wholesale", "channel": "manual"}, "billing_account_owner"),
        ({"kind": "reseller_pending"}, "billing_account_owner"),
        ({"kind": "tenant_revenue", "reseller": "a reseller"}, "billing_account_owner"),
        ({"kind": "tenant_revenue", "posted": -1}, "billing_account_available"),
        ({"kind": "tenant_revenue", "posted": 1, "pending": 2}, "billing_account_available"),
        ({"kind": "psp_clearing", "channel": "x", "pending": -1}, "billing_account_pending"),
        ({"kind": "tenant_wholesale"}, "billing_account_one_each"),
    ],
)
def test_the_database_knows_what_an_account_may_be(shop: Shop, fields: dict[str, Any], constraint: str) -> None:
    named = {"the user": shop.user, "a reseller": make_reseller() if "reseller" in fields else None}
    row = {field: named.get(value, value) for field, value in fields.items()}
    with scope.tenant(shop.tenant.pk), transaction.atomic(), pytest.raises(IntegrityError, match=constraint):
        Account.objects.create(tenant=shop.tenant, **row)


def test_clearing_may_stand_below_zero(shop: Shop) -> None:
    credit(shop.user, 10)
    assert shop.books()["psp_clearing:manual"][0] < 0


def test_a_transfer_of_nothing_leaves_no_entry(shop: Shop) -> None:
    cash, clearing = accounts(shop)
    with transaction.atomic():
        transfer = move(shop, Movement(account=cash, amount=0), Movement(account=clearing, amount=0))
        with scope.tenant(shop.tenant.pk):
            assert Entry.objects.filter(transfer=transfer).count() == 0
        transaction.set_rollback(True)  # the audit, rightly, would not like it
