"""Late usage: what the sweep charged at a checkpoint becomes what was used, once, whichever way it differs.

A million tokens cost ¥2 (prompt) and ¥6 (completion) retail, half of that wholesale. The checkpoint of 1000 and 100
tokens comes to 2600 and 1300 micro-yuan, the whole answer of 1000 and 500 to 5000 and 2500.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from billing import adjustments, audit, holds, ledger, usage
from billing.models import DailyUsage, Hold, Transfer, UsageAdjustment, UsageRecord
from billing.pricing import Quantities
from billing.tests.conftest import Shop, open_shop
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.models import Membership
from tests.factories import credit, freeze, host_of, make_staff, unfreeze


def interrupt(shop: Shop, *, completion: int = 100, **fields: Any) -> Hold:
    """Let a process die after a checkpoint, and the sweep find what it left."""
    hold = shop.admit(**fields)
    holds.dispatch(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    counted = Quantities(prompt=1000, completion=completion)
    holds.checkpoint(tenant_id=shop.tenant.pk, hold_id=hold.pk, quantities=counted)
    return expire(shop, hold)


def expire(shop: Shop, hold: Hold) -> Hold:
    with scope.tenant(shop.tenant.pk):
        Hold.objects.filter(pk=hold.pk).update(expires_at=Now() - timedelta(seconds=1))
    holds.expire_holds()
    return shop.hold(hold)


def adjust(shop: Shop, hold: Hold, **tokens: int) -> holds.Receipt | None:
    used = holds.Usage(**{"prompt": 1000, "completion": 500, **tokens}, source="upstream")
    return adjustments.adjust(tenant_id=shop.tenant.pk, hold_id=hold.pk, usage=used)


def transfers(shop: Shop) -> list[tuple[str, str, str]]:
    with scope.tenant(shop.tenant.pk):
        rows = Transfer.objects.filter(kind__in=["answer", "adjustment"]).order_by("pk")
        return list(rows.values_list("kind", "ref", "reason"))


def counted(shop: Shop) -> tuple[Any, ...]:
    """What the statistics say: of all records, and of the day."""
    columns = ("prompt_tokens", "completion_tokens", "charge", "wholesale_charge", "cost")
    with scope.tenant(shop.tenant.pk):
        [record] = UsageRecord.objects.values_list("usage_source", *columns)
        [day] = DailyUsage.objects.values_list("answers", "free_answers", *columns)
    return record, day


def test_more_is_charged_as_if_it_had_been_known(shop: Shop) -> None:
    credit(shop.user, 3000, kind="gift")
    credit(shop.user, 10_000)
    hold = interrupt(shop)
    assert (hold.reason, hold.charge, hold.gift_charge) == ("interrupted", 2600, 2600)
    receipt = adjust(shop, hold)
    assert receipt == holds.Receipt(
        usage=holds.Usage(prompt=1000, cached=0, completion=500, source="upstream"),
        price=receipt.price if receipt else None,  # type: ignore[arg-type]  # None differs
        charge=5000,
        free=False,
        plan=False,
        gift=3000,
        cash=2000,
        shortfall=0,
        balance=8000,
        reason="adjusted",
    )
    assert receipt == holds.receipt_of(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    books = shop.books()
    assert (books["user_cash"], books["tenant_revenue"], books["platform_revenue"]) == ((8000, 0), (5000, 0), (2500, 0))
    assert transfers(shop) == [("answer", str(hold.pk), "interrupted"), ("adjustment", str(hold.pk), "adjusted")]


def test_less_goes_back_the_way_it_came(shop: Shop) -> None:
    credit(shop.user, 2000, kind="gift")
    credit(shop.user, 10_000)
    hold = interrupt(shop, completion=500)
    assert (hold.gift_charge, hold.cash_charge) == (2000, 3000)
    receipt = adjust(shop, hold, completion=10, prompt=500)  # ¥0.00106: all of the cash, and a part of the gift
    assert receipt is not None
    assert (receipt.charge, receipt.gift, receipt.cash, receipt.balance) == (1060, 1060, 0, 10_940)
    books = shop.books()
    assert (books["user_gift"], books["user_cash"]) == ((940, 0), (10_000, 0))
    assert (books["tenant_revenue"], books["platform_revenue"]) == ((1060, 0), (530, 0))


def test_what_is_not_there_is_shortfall_and_no_balance_falls_below_zero(shop: Shop) -> None:
    credit(shop.user, 8000)
    hold = interrupt(shop)
    shop.admit(prompt_tokens=500, max_completion_tokens=500)  # another chat has 4000 of the rest
    receipt = adjust(shop, hold)
    assert receipt is not None
    assert (receipt.charge, receipt.cash, receipt.shortfall, receipt.balance) == (5000, 4000, 1000, 0)
    books = shop.books()
    assert (books["user_cash"], books["shortfall:retail"], books["tenant_revenue"]) == (
        (4000, 4000),
        (-1000, 0),
        (5000, 0),
    )


def test_a_tenant_whose_wallet_is_empty_has_the_shortfall_too(shop: Shop) -> None:
    credit(shop.user, 8000)
    hold = interrupt(shop)
    with scope.tenant(shop.tenant.pk):
        wallet = ledger.tenant_accounts(tenant_id=shop.tenant.pk).wallet
        spare = wallet.available - 200
        assert freeze(account=wallet, amount=spare)
    adjust(shop, hold)
    assert shop.books()["shortfall:wholesale"] == (-1000, 0)
    with scope.tenant(shop.tenant.pk):
        assert UsageAdjustment.objects.values_list("wholesale_charge", "wholesale_shortfall").get() == (1200, 1000)
        unfreeze(account=wallet, amount=spare)


def test_a_free_answer_differs_for_the_tenant_only(shop: Shop) -> None:
    hold = interrupt(shop, free_per_day=1, paid_way=False)
    assert (hold.free, hold.charge, hold.wholesale_charge) == (True, 0, 1300)
    receipt = adjust(shop, hold)
    assert receipt is not None
    assert (receipt.free, receipt.charge, receipt.usage.completion) == (True, 0, 500)
    assert shop.books()["platform_revenue"] == (2500, 0)


def test_the_same_usage_moves_nothing_and_says_who_counted(shop: Shop) -> None:
    credit(shop.user, 8000)
    hold = interrupt(shop)
    receipt = adjust(shop, hold, completion=100)
    assert receipt is not None
    assert (receipt.charge, receipt.usage.source) == (2600, "upstream")
    assert transfers(shop) == [("answer", str(hold.pk), "interrupted")]


def test_it_happens_once(shop: Shop) -> None:
    credit(shop.user, 8000)
    hold = interrupt(shop)
    assert adjust(shop, hold) is not None
    before = shop.books()
    assert adjust(shop, hold) is None
    assert adjust(shop, hold, completion=900) is None
    assert shop.books() == before


@pytest.mark.parametrize("recorded_first", [True, False])
def test_the_statistics_follow(shop: Shop, recorded_first: bool) -> None:  # noqa: FBT001  a parameter
    credit(shop.user, 8000)
    hold = interrupt(shop)
    if recorded_first:
        assert usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
        assert counted(shop) == (("estimate", 1000, 100, 2600, 1300, 650), (1, 0, 1000, 100, 2600, 1300, 650))
    adjust(shop, hold)
    assert usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk) is not recorded_first
    assert counted(shop) == (("upstream", 1000, 500, 5000, 2500, 1250), (1, 0, 1000, 500, 5000, 2500, 1250))


def test_only_what_was_charged_at_its_checkpoint_is_adjusted(shop: Shop) -> None:
    credit(shop.user, 100_000)
    settled, never_sent, silent, running = shop.admit(), shop.admit(), shop.admit(), shop.admit()
    shop.settle(settled, completion=100, source="estimate")
    expire(shop, never_sent)
    holds.dispatch(tenant_id=shop.tenant.pk, hold_id=silent.pk)
    expire(shop, silent)
    before = shop.books()
    assert [adjust(shop, hold) for hold in (settled, never_sent, silent, running)] == [None] * 4
    assert shop.books() == before
    assert [shop.hold(hold).state for hold in (never_sent, silent)] == ["voided", "voided"]


def test_another_tenant_adjusts_nothing(shop: Shop) -> None:
    credit(shop.user, 8000)
    hold = interrupt(shop)
    assert adjust(open_shop(), hold) is None
    assert shop.hold(hold).charge == 2600


def test_many_at_once_adjust_once_and_statistics_agree(committed_shop: Shop) -> None:
    shop = committed_shop
    credit(shop.user, 8000)
    hold = interrupt(shop)

    def record() -> None:
        usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)

    def chat() -> None:
        shop.void(shop.admit(prompt_tokens=100, max_completion_tokens=100))

    got = together([*[lambda: adjust(shop, hold)] * 6, *[record] * 3, *[chat] * 3])
    assert [receipt.charge for receipt in got if receipt] == [5000]
    assert ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk) == ledger.Balances(3000, 0, 0)
    assert counted(shop) == (("upstream", 1000, 500, 5000, 2500, 1250), (1, 0, 1000, 500, 5000, 2500, 1250))


def test_the_row_stays_as_it_is(shop: Shop) -> None:
    credit(shop.user, 8000)
    adjust(shop, interrupt(shop))
    with scope.tenant(shop.tenant.pk):
        for change in (
            lambda: UsageAdjustment.objects.update(charge=0),
            lambda: UsageAdjustment.objects.all().delete(),
        ):
            with pytest.raises(IntegrityError, match="rows are only ever added"), transaction.atomic():
                change()


@pytest.mark.parametrize(
    ("statement", "invariants"),
    [
        ("UPDATE billing_usageadjustment SET charge = charge + 1, cash_charge = cash_charge + 1", {"I6", "I9"}),
        ("UPDATE billing_usageadjustment SET completion_tokens = completion_tokens + 1", {"I6"}),
        ("DELETE FROM billing_usageadjustment", {"I5", "I6", "I9"}),
        ("UPDATE billing_transfer SET ref = 'of no hold'", {"I5", "I9"}),
        ("UPDATE billing_hold SET reason = 'stop'", {"I5"}),
        ("UPDATE billing_usagerecord SET completion_tokens = 100, charge = 2600, wholesale_charge = 1300", {"I6"}),
    ],
)
def test_the_audit_finds_each_break(db: None, statement: str, invariants: set[str]) -> None:
    shop = open_shop()
    credit(shop.user, 8000)
    hold = interrupt(shop)
    usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    adjust(shop, hold)
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
    kind = " AND kind = 'adjustment'" if "billing_transfer" in statement else ""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("billing_usageadjustment", "billing_transfer", "billing_hold"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(f"{statement} WHERE tenant_id = %s{kind}", [shop.tenant.pk])
        assert cursor.rowcount == 1
    assert {breach.invariant for breach in audit.audit_tenant(tenant_id=shop.tenant.pk)} == invariants
    transaction.set_rollback(True)


def test_staff_see_their_own_tenant_s_adjustments_without_the_platform_s_cost(shop: Shop) -> None:
    other = open_shop()
    for each in (shop, other):
        credit(each.user, 8000)
        adjust(each, interrupt(each))
    with scope.tenant(other.tenant.pk):
        theirs = UsageAdjustment.objects.get()
    with scope.tenant(shop.tenant.pk):
        ours = UsageAdjustment.objects.get()
    client = Client(headers={"host": host_of(shop.tenant)})
    client.force_login(make_staff(shop.tenant, role=Membership.Role.SUPPORT))
    page = client.get(reverse("tenant_admin:billing_usageadjustment_changelist")).content.decode()
    assert (str(ours.hold_id) in page, str(theirs.hold_id) in page) == (True, False)
    one = client.get(reverse("tenant_admin:billing_usageadjustment_change", args=[ours.pk]))
    assert (one.status_code, "platform's cost" in one.content.decode()) == (200, False)
    assert client.get(reverse("tenant_admin:billing_usageadjustment_change", args=[theirs.pk])).status_code == 404
