"""Commission leaves once: asked for by one person, decided by another, paid or returned as the bank did."""

import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection, transaction
from django.utils import translation
from pytest_django import Settings

from billing import commission, ledger, withdrawal
from billing.models import Account, AccountKind, Withdrawal
from billing.tests.resale import Grove, open_grove, whole_audit
from billing.tests.test_concurrency import together
from billing.tests.test_triggers import refused, run
from tenants import scope
from tenants.errors import ProductError
from tenants.models import StaffUser
from tests.factories import freeze, make_operator, make_partner, unfreeze

HAS = 2500  # micro-yuan of free commission


@pytest.fixture(autouse=True)
def _encryption(settings: Settings) -> Iterator[None]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with translation.override("en"):
        yield


def rich_grove() -> Grove:
    grove = open_grove(min_withdrawal=1000, withdrawal_fee_ppm=6666)
    for _ in range(10):
        grove.answer()
    commission.fold_day(day=date(2026, 11, 2))
    grove.matured()
    assert grove.of(grove.child) == {"available": HAS}
    return grove


@pytest.fixture
def grove(db: None) -> Iterator[Grove]:
    grove = rich_grove()
    yield grove
    assert whole_audit() == []


@pytest.fixture
def committed_grove(committed_db: None) -> Iterator[Grove]:
    grove = rich_grove()
    yield grove
    assert whole_audit() == []


def ask(grove: Grove, amount: int = 1500, maker: StaffUser | None = None, **fields: Any) -> Withdrawal:
    account = {"payee": "Grove Ltd", "bank": "ICBC", "bank_account": "6222 0000", **fields}
    maker = maker or make_partner(grove.child)
    return withdrawal.request(reseller_id=grove.child.pk, amount=amount, maker_id=maker.pk, **account)


def refusal(grove: Grove, amount: int = 1500, **fields: str) -> ProductError:
    with pytest.raises(ProductError) as refused:
        ask(grove, amount, None, **fields)
    return refused.value


def state(row: Withdrawal) -> str:
    return Withdrawal.objects.get(pk=row.pk).state


def sent(grove: Grove, amount: int = 1500) -> Withdrawal:
    row = ask(grove, amount)
    assert withdrawal.approve(withdrawal_id=row.pk, checker_id=make_operator().pk)
    batch = withdrawal.make_batch(withdrawal_ids=[row.pk], actor="ops")
    assert batch is not None
    assert withdrawal.mark_sent(batch_id=batch.pk, actor="ops")
    return row


def platform(kind: AccountKind) -> int:
    with scope.platform("test"):
        return sum(Account.objects.filter(tenant=None, reseller=None, kind=kind).values_list("posted", flat=True))


def test_the_whole_way_of_a_withdrawal(grove: Grove) -> None:
    cleared, earned = platform(AccountKind.PSP_CLEARING), platform(AccountKind.PLATFORM_REVENUE)
    row = ask(grove)
    assert (row.amount, row.fee, row.payout) == (1500, 9, 1491)  # 9.999 is 9
    assert grove.of(grove.child) == {"available": 1000, "withdrawal_payable": 1500}
    checker = make_operator()
    assert [withdrawal.approve(withdrawal_id=row.pk, checker_id=checker.pk) for _ in range(2)] == [True, False]
    batch = withdrawal.make_batch(withdrawal_ids=[row.pk], actor="ops")
    assert batch is not None
    assert withdrawal.make_batch(withdrawal_ids=[row.pk], actor="ops") is None
    assert withdrawal.batch_rows(batch_id=batch.pk) == [(str(row.pk), "Grove Ltd", "ICBC", "6222 0000", "0.001491")]
    assert withdrawal.paid(withdrawal_id=row.pk, actor="ops") is False  # it is not at the bank yet
    assert [withdrawal.mark_sent(batch_id=batch.pk, actor="ops") for _ in range(2)] == [True, False]
    assert [withdrawal.paid(withdrawal_id=row.pk, actor="ops") for _ in range(3)] == [True, False, False]
    assert withdrawal.failed(withdrawal_id=row.pk, reason="late", actor="ops") is False
    assert (state(row), grove.of(grove.child)) == ("paid", {"available": 1000})
    assert platform(AccountKind.PSP_CLEARING) - cleared == 1491
    assert platform(AccountKind.PLATFORM_REVENUE) - earned == 9


def test_what_the_bank_did_not_pay_is_returned(grove: Grove) -> None:
    row = sent(grove)
    assert [withdrawal.failed(withdrawal_id=row.pk, reason="no such account", actor="ops") for _ in range(2)] == [
        True,
        False,
    ]
    assert withdrawal.paid(withdrawal_id=row.pk, actor="ops") is False
    assert (state(row), grove.of(grove.child)) == ("failed", {"available": HAS})


def test_what_is_rejected_is_returned(grove: Grove) -> None:
    row, checker = ask(grove), make_operator()
    reject = partial(withdrawal.reject, withdrawal_id=row.pk, checker_id=checker.pk, reason="not now")
    assert [reject(), reject()] == [True, False]
    assert withdrawal.approve(withdrawal_id=row.pk, checker_id=checker.pk) is False
    assert (state(row), grove.of(grove.child)) == ("rejected", {"available": HAS})
    assert Withdrawal.objects.get(pk=row.pk).note == "not now"


def test_whoever_asks_does_not_decide(grove: Grove) -> None:
    maker = make_operator()
    row = ask(grove, maker=maker)
    for decide in (withdrawal.approve, partial(withdrawal.reject, reason="no")):
        for checker, why in ((maker, "checker_is_maker"), (make_partner(grove.parent), "checker_not_operator")):
            with pytest.raises(ProductError) as fault:
                decide(withdrawal_id=row.pk, checker_id=checker.pk)
            assert fault.value.type == why
    assert state(row) == "requested"
    with refused("billing_withdrawal_four_eyes"):
        run(
            "UPDATE billing_withdrawal SET state = 'approved', checker_id = maker_id, decided_at = now() WHERE id = %s",
            row.pk,
        )


def test_too_little_and_too_much_are_refused(grove: Grove) -> None:
    little, much = refusal(grove, 999), refusal(grove, HAS + 1)
    assert (little.type, little.facts) == ("withdrawal_below_minimum", {"minimum": "1000"})
    assert (much.type, much.facts) == ("withdrawal_beyond_balance", {"available": str(HAS)})
    assert str(little.msg) == "The smallest withdrawal is ¥0.001."
    assert Withdrawal.objects.filter(reseller=grove.child).count() == 0
    ask(grove, HAS)
    assert refusal(grove, 1000).facts == {"available": "0"}


def test_what_is_owed_counts_against_it(grove: Grove) -> None:
    row = sent(grove, HAS)
    commission.take_back(
        tenant_id=grove.shop.tenant.pk, user_id=grove.shop.user.pk, spent=20_000, ref="r", reason="", actor="test"
    )
    commission.post_backs()
    assert withdrawal.failed(withdrawal_id=row.pk, reason="returned", actor="ops")
    assert grove.of(grove.child) == {"available": HAS, "receivable": -1000}
    assert refusal(grove, HAS).facts == {"available": "1500"}
    ask(grove, 1500)


@pytest.mark.parametrize("wrong", [{"payee": " "}, {"bank": "a\nb"}, {"bank_account": "1" * 121}])
def test_a_payee_that_makes_no_sense_is_refused(grove: Grove, wrong: dict[str, str]) -> None:
    assert refusal(grove, 1500, **wrong).type == "payout_account_invalid"


def test_where_it_goes_is_stored_encrypted(grove: Grove) -> None:
    row = ask(grove)
    with connection.cursor() as cursor:
        cursor.execute("SELECT payee, bank, bank_account FROM billing_withdrawal WHERE id = %s", [row.pk])
        assert [text[:6] for text in cursor.fetchone()] == ["gAAAAA"] * 3
    assert Withdrawal.objects.get(pk=row.pk).bank_account == "6222 0000"


@pytest.mark.parametrize(
    "change",
    ["amount = amount + 1", "fee = 0", "reseller_id = reseller_id + 1", "state = 'failed'", "checker_id = NULL"],
)
def test_an_ended_withdrawal_stays_as_it_is(grove: Grove, change: str) -> None:
    row = sent(grove)
    withdrawal.paid(withdrawal_id=row.pk, actor="ops")
    with refused("stays as it is: paid"):
        run(f"UPDATE billing_withdrawal SET {change} WHERE id = %s", row.pk)  # noqa: S608


def decide(row: uuid.UUID, checker: int, *, yes: bool) -> bool:
    if yes:
        return withdrawal.approve(withdrawal_id=row, checker_id=checker)
    return withdrawal.reject(withdrawal_id=row, checker_id=checker, reason="no")


def test_two_checkers_at_once_decide_once(committed_grove: Grove) -> None:
    checkers = [make_operator().pk for _ in range(6)]
    for _ in range(3):
        row = ask(committed_grove, 1000)
        jobs = [partial(decide, row.pk, checker, yes=bool(place % 2)) for place, checker in enumerate(checkers)]
        assert Counter(together(jobs)) == {True: 1, False: 5}
        if state(row) == "approved":
            batch = withdrawal.make_batch(withdrawal_ids=[row.pk], actor="ops")
            assert batch is not None
            together([partial(withdrawal.mark_sent, batch_id=batch.pk, actor="ops")] * 2)
            ends = [partial(withdrawal.failed, withdrawal_id=row.pk, reason="", actor="ops")] * 4
            assert Counter(together(ends)) == {True: 1, False: 3}
        assert committed_grove.of(committed_grove.child) == {"available": HAS}


def attempt(grove: Grove, maker: StaffUser) -> str:
    try:
        ask(grove, 1000, maker)
    except ProductError as fault:
        return fault.type
    return "asked"


def test_twenty_withdrawals_at_once_take_what_there_is(committed_grove: Grove) -> None:
    maker = make_partner(committed_grove.child)
    got = Counter(together([partial(attempt, committed_grove, maker)] * 20))
    assert got == {"asked": 2, "withdrawal_beyond_balance": 18}
    assert committed_grove.of(committed_grove.child) == {"available": 500, "withdrawal_payable": 2000}


def test_a_fault_after_the_withdrawal_leaves_nothing(grove: Grove) -> None:
    with scope.platform("test"), transaction.atomic():
        free = ledger.reseller_account(reseller_id=grove.child.pk, kind=AccountKind.RESELLER_AVAILABLE)
        assert freeze(account=free, amount=HAS)
        assert refusal(grove, 1000).type == "withdrawal_beyond_balance"
        unfreeze(account=free, amount=HAS)
    assert Withdrawal.objects.filter(reseller=grove.child).count() == 0
