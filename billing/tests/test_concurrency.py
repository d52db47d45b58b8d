"""Real threads on a real database: nothing here is rolled back, and each test has a tenant of its own."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TypeVar

from django.db import connection, transaction
from django.db.models.functions import Now

from billing import holds, ledger, usage
from billing.models import Hold, Transfer
from billing.tests.conftest import Shop
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tests.factories import credit, freeze, unfreeze, unique

ResultT = TypeVar("ResultT")

FULL, WHOLESALE = 8000, 4000


def together(jobs: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """Run each job in a thread of its own, all let go at the same moment; return what they returned."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], ResultT]) -> ResultT:
        try:
            start.wait()
            return job()
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=len(jobs)) as threads:
        return list(threads.map(run, jobs))


def attempt(shop: Shop, **fields: object) -> str:
    """Try to get a hold; return what came of it."""
    try:
        hold = shop.admit(**fields)
    except ProductError as refusal:
        return f"{ErrorCode(refusal.code).value} {refusal.type}"
    except holds.DuplicateKeyError:
        return "duplicate"
    return "free" if hold.free else "admitted"


def end_all(shop: Shop) -> None:
    with scope.tenant(shop.tenant.pk):
        for hold in Hold.objects.filter(state="held"):
            shop.void(hold)


def test_fifty_starts_with_money_for_one(committed_shop: Shop) -> None:
    credit(committed_shop.user, FULL + 2059)  # and not for the shortest answer beside it
    got = Counter(together([lambda: attempt(committed_shop)] * 50))
    assert got == {"admitted": 1, "101 balance_short": 49}
    balances = ledger.balances(tenant_id=committed_shop.tenant.pk, user_id=committed_shop.user.pk)
    assert balances == ledger.Balances(cash=FULL + 2059, gift=0, pending=FULL)
    end_all(committed_shop)


def test_twenty_starts_with_free_answers_for_three(committed_shop: Shop) -> None:
    got = Counter(together([lambda: attempt(committed_shop, free_per_day=3, paid_way=False)] * 20))
    assert got == {"free": 3, "102 quota_used_up": 17}
    end_all(committed_shop)


def test_twenty_users_and_a_wallet_for_two(committed_shop: Shop) -> None:
    shop = committed_shop
    with scope.tenant(shop.tenant.pk):
        wallet = ledger.tenant_accounts(tenant_id=shop.tenant.pk).wallet
        spare = wallet.available - 2 * WHOLESALE - 1
        assert freeze(account=wallet, amount=spare)
    users = [shop.open_more() for _ in range(20)]
    jobs = [partial(attempt, shop, user_id=user.pk, free_per_day=1) for user in users]
    assert Counter(together(jobs)) == {"free": 2, "102 tenant_wallet_empty": 18}
    with scope.tenant(shop.tenant.pk):
        unfreeze(account=wallet, amount=spare)
    end_all(shop)


def test_the_same_key_at_the_same_time_is_one_hold(committed_shop: Shop) -> None:
    credit(committed_shop.user, 20 * FULL)
    got = Counter(together([lambda: attempt(committed_shop, key="the same")] * 10))
    assert got == {"admitted": 1, "duplicate": 9}
    end_all(committed_shop)


def test_settle_void_and_expiry_of_one_hold_end_it_once(committed_shop: Shop) -> None:
    shop = committed_shop
    for _ in range(8):
        credit(shop.user, FULL)
        hold = shop.admit(max_completion_tokens=500)
        with scope.tenant(shop.tenant.pk):
            Hold.objects.filter(pk=hold.pk).update(expires_at=Now() - timedelta(seconds=1))
        before = ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk).cash
        ended = together(
            [
                lambda: shop.settle(hold) is not None,  # noqa: B023  run within this turn of the loop
                lambda: shop.void(hold),  # noqa: B023
                lambda: shop.settle(hold) is not None,  # noqa: B023
                # What it returns may count holds that other tests left behind.
                lambda: holds.expire_holds() < 0,
                lambda: holds.expire_holds() < 0,
            ]
        )
        swept = shop.hold(hold).reason == holds.EXPIRED
        assert Counter(ended)[True] == (0 if swept else 1)
        after = ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk)
        charged = 5000 if shop.hold(hold).state == "posted" else 0
        assert after == ledger.Balances(cash=before - charged, gift=0, pending=0)


def test_expiry_passes_by_a_hold_that_someone_is_ending(committed_shop: Shop) -> None:
    shop = committed_shop
    credit(shop.user, FULL)
    hold = shop.admit()
    locked, over = threading.Event(), threading.Event()

    def someone() -> None:
        try:
            with scope.tenant(shop.tenant.pk), transaction.atomic():
                Hold.objects.filter(pk=hold.pk).update(expires_at=Now() - timedelta(seconds=1))
            with scope.tenant(shop.tenant.pk), transaction.atomic():
                Hold.objects.select_for_update().get(pk=hold.pk)
                locked.set()
                over.wait(10)
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=1) as threads:
        ending = threads.submit(someone)
        try:
            assert locked.wait(10)
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1s'")  # waiting would be a fault
                assert holds.expire_holds() == 0
        finally:
            over.set()
        ending.result()
    assert shop.hold(hold).state == "held"
    assert holds.expire_holds() == 1
    assert shop.hold(hold).state == "voided"


def test_one_reference_at_the_same_time_credits_once(committed_shop: Shop) -> None:
    shop, ref = committed_shop, unique("ref")

    def top_up() -> int:
        return ledger.credit_user(
            tenant_id=shop.tenant.pk, user_id=shop.user.pk, amount=7, kind="cash", ref=ref, reason="", actor="test"
        ).pk

    def fill() -> int:
        return ledger.credit_tenant_wallet(tenant_id=shop.tenant.pk, amount=9, ref=ref, reason="", actor="test").pk

    assert len(set(together([top_up] * 8 + [fill] * 8))) == 2
    assert ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk).cash == 7


def test_a_usage_delivered_many_times_at_once_counts_once(committed_shop: Shop) -> None:
    shop = committed_shop
    credit(shop.user, FULL)
    hold = shop.admit()
    shop.settle(hold)
    counted = together([lambda: usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)] * 10)
    assert Counter(counted) == {True: 1, False: 9}


def test_many_chats_of_two_users_never_wait_for_each_other_crosswise(committed_shop: Shop) -> None:
    """A deadlock would end a thread with an error of the database, which `together` raises."""
    shop = committed_shop
    alice, bob = shop.user, shop.open_more()
    for user in (alice, bob):
        credit(user, 500, kind="gift")
        credit(user, 100 * FULL)

    def chat(number: int) -> int:
        user = (alice, bob)[number % 2]
        free = int(number % 5 == 0)
        for turn in range(3):
            hold = shop.admit(user_id=user.pk, free_per_day=free)
            if (number + turn) % 3 == 0:
                shop.void(hold)
            else:
                # Some beyond the hold, so that the wallet's row is locked early.
                shop.settle(hold, completion=500 if turn else 1100)
                usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
            credit(user, 1)
            ledger.credit_tenant_wallet(tenant_id=shop.tenant.pk, amount=1, ref=unique("ref"), reason="", actor="test")
        return number

    assert together([partial(chat, number) for number in range(14)]) == list(range(14))
    with scope.tenant(shop.tenant.pk):
        assert Hold.objects.filter(state="held").count() == 0
        assert Transfer.objects.filter(kind="answer").count() == Hold.objects.filter(state="posted").count()


def test_first_answers_of_a_new_tenant_open_its_accounts_once(committed_shop: Shop) -> None:
    shop = committed_shop
    users = [shop.open_more() for _ in range(12)]

    def first(number: int) -> str:
        credit(users[number], FULL)
        hold = shop.admit(user_id=users[number].pk)
        shop.settle(hold, completion=1300)
        return shop.hold(hold).state

    assert together([partial(first, number) for number in range(12)]) == ["posted"] * 12
