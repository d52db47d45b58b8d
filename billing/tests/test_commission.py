"""Four parties share every answer; days are folded once; what refunds give back is taken back once."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import commission, holds, ledger, pricing, tasks, usage
from billing.models import (
    Account,
    AccountKind,
    Commission,
    CommissionBack,
    ConsumptionBack,
    DailyUsage,
    Entry,
    Hold,
    Transfer,
    UsageRecord,
)
from billing.tests.conftest import Shop, open_shop
from billing.tests.resale import CHARGE, WHOLESALE, Grove, open_grove, whole_audit
from billing.tests.test_concurrency import together
from billing.tests.test_triggers import refused as past_the_guards
from billing.tests.test_triggers import run
from tenants import scope
from tenants.models import Reseller, Tenant
from tests.factories import YUAN, credit, fill_wallet, make_price, make_reseller, make_terms, unique

MONDAY, TUESDAY, WEDNESDAY = date(2026, 11, 2), date(2026, 11, 3), date(2026, 11, 4)


@pytest.fixture
def grove(db: None) -> Iterator[Grove]:
    grove = open_grove()
    yield grove
    assert whole_audit() == []


@pytest.fixture
def committed_grove(committed_db: None) -> Iterator[Grove]:
    grove = open_grove()
    yield grove
    assert whole_audit() == []


def take_back(grove: Grove, spent: int, ref: str = "refund:1") -> int:
    return commission.take_back(
        tenant_id=grove.shop.tenant.pk,
        user_id=grove.shop.user.pk,
        spent=spent,
        ref=ref,
        reason="the buyer was not pleased",
        actor="test",
    )


def platform_revenue(shop: Shop) -> int:
    with scope.tenant(shop.tenant.pk):
        return ledger.tenant_accounts(tenant_id=shop.tenant.pk).platform_revenue.posted


def test_an_answer_is_shared_by_four(grove: Grove) -> None:
    grove.answer()
    with scope.tenant(grove.shop.tenant.pk):
        hold = Hold.objects.get()
        answer = Transfer.objects.get(kind="answer")
        entries = {row.account.kind: row.amount for row in answer.entries.exclude(account__kind="reseller_accrued")}
        shared = dict(
            answer.entries.filter(account__kind="reseller_accrued").values_list("account__reseller", "amount")
        )
    assert (hold.reseller_id, hold.own_ppm) == (grove.child.pk, 100_000)
    assert (hold.parent_reseller_id, hold.parent_ppm) == (grove.parent.pk, 50_000)
    assert (hold.charge, hold.wholesale_charge, hold.own_share, hold.parent_share) == (CHARGE, WHOLESALE, 250, 125)
    assert entries == {
        "user_cash": -5000,
        "tenant_revenue": 5000,
        "tenant_wholesale": -2500,
        "platform_revenue": 2500 - 250 - 125,
    }
    assert shared == {grove.child.pk: 250, grove.parent.pk: 125}


def test_a_share_rounds_down_and_the_platform_has_the_rest(grove: Grove) -> None:
    grove.answer(prompt=1, completion=3)
    with scope.tenant(grove.shop.tenant.pk):
        hold = Hold.objects.get()
    # 1 + 3·3 micro-yuan wholesale: a tenth is 1, a twentieth less than one.
    assert (hold.wholesale_charge, hold.own_share, hold.parent_share) == (10, 1, 0)
    assert grove.of(grove.child) == {"accrued": 1}
    assert grove.of(grove.parent) == {}
    assert platform_revenue(grove.shop) == 9


def test_a_free_answer_is_shared_too_since_the_tenant_pays_for_it(grove: Grove) -> None:
    grove.shop.settle(grove.shop.admit(free_per_day=1))
    assert (grove.of(grove.child), grove.of(grove.parent)) == ({"accrued": 250}, {"accrued": 125})


def test_new_terms_change_nothing_that_was_begun(grove: Grove) -> None:
    credit(grove.shop.user, 10 * CHARGE)
    begun = grove.shop.admit()
    make_terms(grove.child, own_ppm=200_000)
    grove.shop.settle(begun)
    assert grove.of(grove.child) == {"accrued": 250}
    grove.shop.settle(grove.shop.admit())
    assert grove.of(grove.child) == {"accrued": 250 + 500}


def test_a_tenant_of_nobody_shares_with_nobody(shop: Shop) -> None:
    credit(shop.user, 10 * CHARGE)
    shop.settle(shop.admit())
    with scope.tenant(shop.tenant.pk):
        hold = Hold.objects.get()
    assert (hold.reseller_id, hold.own_ppm, hold.parent_reseller_id, hold.parent_ppm) == (None, None, None, None)
    assert platform_revenue(shop) == WHOLESALE


def test_a_reseller_without_terms_is_noted_and_gets_nothing(db: None) -> None:
    reseller = make_reseller()
    shop = open_shop(reseller=reseller)
    credit(shop.user, 10 * CHARGE)
    hold = shop.admit()
    shop.settle(hold)
    assert (shop.hold(hold).reseller_id, shop.hold(hold).own_ppm, shop.hold(hold).own_share) == (reseller.pk, 0, 0)


def test_shares_that_no_longer_fit_each_other_never_stop_an_answer(db: None) -> None:
    """A reseller that was moved below another parent may have terms that nobody saw beside that one's."""
    child, parent = make_reseller(), make_reseller()
    shop = open_shop(reseller=child)
    # Nothing to sell below cost of: each of them alone may have all of it.
    free = unique("sku")
    make_price("cost", sku=free, rates=(0, 0, 0))
    for reseller in (child, parent):
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO billing_commissionterms (reseller_id, own_ppm, parent_ppm, freeze_days, min_withdrawal,"
                " withdrawal_fee_ppm, effective_at, created_at, created_by) VALUES (%s, 700000, 700000, 7, 1, 0, now(),"
                " now(), '')",
                [reseller.pk],
            )
    Reseller.objects.filter(pk=child.pk).update(parent=parent, depth=2)
    credit(shop.user, 10 * CHARGE)
    hold = shop.admit()
    shop.settle(hold)
    assert (shop.hold(hold).own_ppm, shop.hold(hold).parent_ppm) == (700_000, 300_000)
    assert platform_revenue(shop) == 0
    assert whole_audit() == []


def test_statistics_carry_the_shares(grove: Grove) -> None:
    grove.answer()
    grove.answer()
    with scope.tenant(grove.shop.tenant.pk):
        for hold in Hold.objects.all():
            usage.record(tenant_id=grove.shop.tenant.pk, hold_id=hold.pk)
        records = list(UsageRecord.objects.values_list("reseller", "own_share", "parent_reseller", "parent_share"))
        days = list(DailyUsage.objects.values_list("own_share", "parent_share"))
    assert records == [(grove.child.pk, 250, grove.parent.pk, 125)] * 2
    assert days == [(500, 250)]


def test_a_day_is_folded_once_however_often_it_is_told(grove: Grove) -> None:
    grove.answer()
    assert [tasks.fold_commissions() for _ in range(3)] == [2, 0, 0]
    (own,), (above,) = grove.commissions(grove.child), grove.commissions(grove.parent)
    assert (own.amount, own.level, own.state, own.netted) == (250, 1, "frozen", 0)
    assert (above.amount, above.level) == (125, 2)
    assert (own.release_at - own.created_at) == timedelta(days=7)
    assert (grove.of(grove.child), grove.of(grove.parent)) == ({"pending": 250}, {"pending": 125})
    # What came after the fold waits for the next day's.
    grove.answer()
    assert tasks.fold_commissions() == 0
    assert grove.of(grove.child) == {"pending": 250, "accrued": 250}
    assert commission.fold_day(day=MONDAY) == 2
    assert [row.amount for row in grove.commissions(grove.child)] == [250, 250]


def test_the_database_knows_the_last_day(grove: Grove) -> None:
    grove.answer()
    commission.fold_day()
    with connection.cursor() as cursor:
        cursor.execute("SELECT (now() AT TIME ZONE 'Asia/Shanghai')::date - 1")
        (yesterday,) = cursor.fetchone()
    assert grove.commissions(grove.child)[0].day == yesterday


def test_a_moved_tenant_s_last_earnings_keep_their_level(grove: Grove) -> None:
    grove.answer()
    Tenant.objects.filter(pk=grove.shop.tenant.pk).update(reseller=make_reseller())
    commission.fold_day()
    levels = [grove.commissions(reseller)[0].level for reseller in (grove.child, grove.parent)]
    assert levels == [1, 2]


def test_what_is_frozen_long_enough_is_set_free_once(grove: Grove) -> None:
    grove.answer()
    commission.fold_day()
    assert commission.release_matured() == 0
    with scope.platform("test"):
        Commission.objects.filter(reseller=grove.child).update(release_at=Now())
    assert [commission.release_matured() for _ in range(3)] == [1, 0, 0]
    assert (grove.of(grove.child), grove.of(grove.parent)) == ({"available": 250}, {"pending": 125})
    (row,) = grove.commissions(grove.child)
    assert (row.state, row.released_at is None) == ("released", False)


def test_a_dispute_keeps_a_commission_frozen(grove: Grove) -> None:
    grove.answer()
    commission.fold_day()
    (row,) = grove.commissions(grove.child)
    assert [commission.hold_back(commission_id=row.pk, reason="odd", actor="ops") for _ in range(2)] == [True, False]
    grove.matured()
    assert grove.of(grove.child) == {"pending": 250}
    assert [commission.let_go(commission_id=row.pk, actor="ops") for _ in range(2)] == [True, False]
    assert commission.release_matured() == 1
    assert grove.of(grove.child) == {"available": 250}
    assert commission.hold_back(commission_id=row.pk, reason="too late", actor="ops") is False
    with pytest.raises(ValueError, match="reason"):
        commission.hold_back(commission_id=row.pk, reason=" ", actor="ops")


def test_a_refund_takes_back_what_has_accrued(grove: Grove) -> None:
    grove.answer()
    assert take_back(grove, 2500) == 125 + 62
    assert grove.of(grove.child) == {"accrued": 250}  # nothing moves before the platform's sweep
    assert [commission.post_backs() for _ in range(2)] == [2, 0]
    assert (grove.of(grove.child), grove.of(grove.parent)) == ({"accrued": 125}, {"accrued": 63})
    assert platform_revenue(grove.shop) == WHOLESALE - 125 - 63


def test_a_refund_is_noted_once(grove: Grove) -> None:
    grove.answer()
    assert [take_back(grove, 5000) for _ in range(3)] == [375, 375, 375]
    commission.post_backs()
    assert grove.of(grove.child) == {}


def test_over_all_refunds_an_answer_is_given_back_once(grove: Grove) -> None:
    grove.answer()
    taken = [take_back(grove, part, ref=f"refund:{part}") for part in (1, 1666, 3332, 4000)]
    assert (sum(taken), taken[-1]) == (375, 1 + 1)  # the last micro-yuan of the answer brings the last of both shares
    with scope.tenant(grove.shop.tenant.pk):
        assert list(ConsumptionBack.objects.order_by("pk").values_list("spent", flat=True)) == [1, 1666, 3332, 1]
    commission.post_backs()
    assert (grove.of(grove.child), grove.of(grove.parent)) == ({}, {})


def test_the_newest_answers_go_first(grove: Grove) -> None:
    grove.answer()
    grove.answer(completion=0, prompt=1000)
    take_back(grove, 2000 + 1)
    with scope.tenant(grove.shop.tenant.pk):
        rows = ConsumptionBack.objects.order_by("-hold__created_at").values_list("spent", "own_back", "parent_back")
        assert list(rows) == [(2000, 100, 50), (1, 0, 0)]
    commission.post_backs()


def test_a_refund_finds_no_more_than_was_consumed(grove: Grove) -> None:
    assert take_back(grove, 10**9) == 0
    grove.shop.settle(grove.shop.admit(free_per_day=1))  # nobody paid for this one
    assert take_back(grove, 10**9, ref="refund:2") == 0


@pytest.mark.parametrize(
    ("spent", "left"),
    [
        (5000, {"accrued": 0, "pending": 250, "available": 250}),
        (10_000, {"accrued": 0, "pending": 0, "available": 250}),
        (12_500, {"accrued": 0, "pending": 0, "available": 125}),
        (15_000, {"accrued": 0, "pending": 0, "available": 0}),
    ],
)
def test_what_accrued_goes_first_then_what_is_frozen_then_what_is_free(
    grove: Grove, spent: int, left: dict[str, int]
) -> None:
    grove.answer()
    commission.fold_day(day=MONDAY)
    grove.matured()
    grove.answer()
    commission.fold_day(day=TUESDAY)
    grove.answer()
    assert grove.of(grove.child) == {"accrued": 250, "pending": 250, "available": 250}
    take_back(grove, spent)
    commission.post_backs()
    assert grove.of(grove.child) == {kind: amount for kind, amount in left.items() if amount}
    grove.matured()  # what was taken of the frozen ones is not set free
    assert grove.of(grove.child) == ({"available": left["pending"] + left["available"]} if spent < 15_000 else {})


def test_what_was_paid_out_is_owed_and_netted_later(grove: Grove) -> None:
    grove.answer()
    commission.fold_day(day=MONDAY)
    grove.matured()
    # As a withdrawal would: the money is gone.
    with scope.platform("test"), transaction.atomic():
        accounts = [
            ledger.reseller_account(reseller_id=grove.child.pk, kind=kind)
            for kind in (AccountKind.RESELLER_AVAILABLE, AccountKind.RESELLER_WALLET)
        ]
        ledger.move(
            tenant_id=None,
            kind=Transfer.Kind.CREDIT,
            ref=unique("gone"),
            reason="",
            actor="test",
            movements=[ledger.Movement(account=each, amount=250 * sign) for each, sign in zip(accounts, (-1, 1))],  # noqa: B905
        )
    take_back(grove, 5000)
    commission.post_backs()
    assert grove.of(grove.child) == {"receivable": -250, "wallet": 250}
    grove.answer(completion=0)
    commission.fold_day(day=TUESDAY)
    assert grove.of(grove.child) == {"receivable": -150, "wallet": 250}
    grove.answer()
    commission.fold_day(day=WEDNESDAY)
    assert grove.of(grove.child) == {"pending": 100, "wallet": 250}
    assert [(row.amount, row.netted) for row in grove.commissions(grove.child)] == [(250, 0), (100, 100), (250, 150)]
    grove.matured()
    assert grove.of(grove.child) == {"available": 100, "wallet": 250}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    own=st.integers(0, 400_000),
    above=st.integers(0, 100_000),
    multiplier=st.integers(1, 3_000_000),
    answers=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=4),
    refunds=st.lists(st.integers(0, 20_000), max_size=3),
    folds=st.integers(0, 3),
)
@pytest.mark.django_db
def test_whatever_the_shares_and_prices_the_books_are_right(
    own: int, above: int, multiplier: int, answers: list[tuple[int, int]], refunds: list[int], folds: int
) -> None:
    with transaction.atomic():
        grove = open_grove(own_ppm=0, parent_ppm=0)
        shop, sku = grove.shop, unique("sku")
        make_price("cost", sku=sku, rates=(1, 1, 3), multiplier_ppm=multiplier)
        make_price("wholesale", sku=sku, rates=(YUAN, YUAN // 2, 3 * YUAN), multiplier_ppm=multiplier)
        make_price(
            "retail", sku=sku, rates=(2 * YUAN, YUAN, 6 * YUAN), multiplier_ppm=multiplier, tenant_id=shop.tenant.pk
        )
        make_terms(grove.parent, own_ppm=0, parent_ppm=above)
        make_terms(grove.child, own_ppm=own)
        credit(shop.user, YUAN)
        for place, (prompt, completion) in enumerate(answers):
            shop.settle(shop.admit(sku=sku), prompt=prompt, completion=completion)
            if place < folds:
                commission.fold_day(day=MONDAY + timedelta(days=place))
        with scope.tenant(shop.tenant.pk):
            posted = list(Hold.objects.all())
        assert [hold.own_share for hold in posted] == [hold.wholesale_charge * own // 1_000_000 for hold in posted]
        assert [hold.parent_share for hold in posted] == [hold.wholesale_charge * above // 10**6 for hold in posted]
        shares = sum(hold.own_share + hold.parent_share for hold in posted)
        taken = sum(take_back(grove, spent, ref=f"refund:{place}") for place, spent in enumerate(refunds))
        commission.post_backs()
        left = sum(grove.of(grove.child).values()) + sum(grove.of(grove.parent).values())
        assert left == shares - taken >= 0
        assert platform_revenue(shop) == sum(hold.wholesale_charge for hold in posted) - shares + taken
        assert whole_audit() == []
        transaction.set_rollback(True)


def test_folding_while_answers_are_settled_loses_nothing(committed_grove: Grove) -> None:
    grove, shop = committed_grove, committed_grove.shop
    credit(shop.user, 100 * CHARGE)
    fill_wallet(shop.tenant)
    open_holds = [shop.admit(max_completion_tokens=500) for _ in range(12)]
    days = [MONDAY + timedelta(days=place) for place in range(6)]
    settling: list[Callable[[], object]] = [partial(shop.settle, hold) for hold in open_holds]
    folding: list[Callable[[], object]] = [partial(commission.fold_day, day=day) for day in days]
    together([*settling, *folding])
    commission.fold_day(day=MONDAY + timedelta(days=30))
    assert (grove.of(grove.child), grove.of(grove.parent)) == ({"pending": 12 * 250}, {"pending": 12 * 125})
    assert sum(row.amount for row in grove.commissions(grove.child)) == 12 * 250


def test_refunds_folds_and_releases_at_once_take_each_share_once(committed_grove: Grove) -> None:
    grove = committed_grove
    for _ in range(4):
        grove.answer()
    jobs: list[Callable[[], object]] = [commission.post_backs, commission.release_matured]
    for place in range(4):
        jobs.append(partial(take_back, grove, 5000, ref=f"refund:{place}"))
        jobs.append(partial(commission.fold_day, day=MONDAY + timedelta(days=place)))
    together(jobs * 2)
    commission.post_backs()
    with scope.tenant(grove.shop.tenant.pk):
        taken = list(CommissionBack.objects.filter(reseller=grove.child).values_list("amount", flat=True))
    assert taken == [250] * 4
    assert grove.of(grove.child) == {}


def test_a_platform_transfer_moves_no_tenant_s_account(grove: Grove) -> None:
    grove.answer()
    with scope.platform("test"):
        accrued = Account.objects.get(kind="reseller_accrued", reseller=grove.child)
        free = ledger.reseller_account(reseller_id=grove.child.pk, kind=AccountKind.RESELLER_AVAILABLE)
        with past_the_guards("crosses tenants"):
            ledger.move(
                tenant_id=None,
                kind=Transfer.Kind.COMMISSION,
                ref=unique("ref"),
                reason="",
                actor="test",
                movements=[
                    ledger.Movement(account=accrued, amount=-1),
                    ledger.Movement(account=free, amount=1),
                ],
            )
            run("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_platform_entry_has_a_platform_transfer(grove: Grove) -> None:
    grove.answer()
    with scope.platform("test"):
        free = ledger.reseller_account(reseller_id=grove.child.pk, kind=AccountKind.RESELLER_AVAILABLE)
        theirs = Transfer.objects.get(tenant=grove.shop.tenant, kind="answer")
        for transfer_id in (theirs.pk, 10**12):
            with past_the_guards("has no transfer of the platform"):
                Entry.objects.create(tenant=None, transfer_id=transfer_id, account=free, amount=1)
                run("SET CONSTRAINTS ALL IMMEDIATE")


def refused(match: str, statement: str, *parameters: object) -> None:
    with past_the_guards(match):
        run(statement, *parameters)


@pytest.mark.parametrize(
    "change", ["own_share = own_share - 1", "parent_share = 0", "own_ppm = 7", "reseller_id = NULL"]
)
def test_an_ended_hold_keeps_its_shares(grove: Grove, change: str) -> None:
    grove.answer()
    with scope.tenant(grove.shop.tenant.pk):
        hold = Hold.objects.get()
    refused(f"hold {hold.pk} has ended: posted", f"UPDATE billing_hold SET {change} WHERE id = %s", hold.pk)  # noqa: S608


def test_what_was_folded_given_back_or_agreed_stays(grove: Grove) -> None:
    grove.answer()
    commission.fold_day()
    take_back(grove, 100)
    commission.post_backs()
    grove.matured()
    run("SET CONSTRAINTS ALL IMMEDIATE")
    (row,) = grove.commissions(grove.child)
    for change in ("amount = amount + 1", "day = day + 1", "taken_back = 0", "state = 'frozen', released_at = NULL"):
        refused("stays as it is", f"UPDATE billing_commission SET {change} WHERE id = %s", row.pk)  # noqa: S608
    for table in ("billing_commissionterms", "billing_consumptionback"):
        for statement in (f"UPDATE {table} SET id = id", f"DELETE FROM {table}"):  # noqa: S608
            refused("rows are only ever added", statement)


def test_shares_of_a_hold_cannot_exceed_its_charge(grove: Grove) -> None:
    credit(grove.shop.user, 10 * CHARGE)
    hold = grove.shop.admit()
    for change in ("own_share = 1", "own_ppm = 950001", "own_ppm = NULL", "parent_ppm = NULL"):
        refused("billing_hold_(shares|resale)", f"UPDATE billing_hold SET {change} WHERE id = %s", hold.pk)  # noqa: S608
    holds.void(tenant_id=grove.shop.tenant.pk, hold_id=hold.pk, reason="failed")


def test_a_part_is_rounded_down() -> None:
    assert [pricing.share(amount=amount, ppm=333_333) for amount in (0, 1, 3, 4, 10**15)] == [
        0,
        0,
        0,
        1,
        333_333_000_000_000,
    ]
