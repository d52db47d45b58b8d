"""Terms are agreed once, fit each other, and never let the platform sell below its cost."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from billing.commission_terms import publish_terms, terms_of
from billing.tests.test_concurrency import together
from tenants.errors import ErrorCode, ProductError
from tenants.models import Reseller
from tests.factories import YUAN, make_price, make_reseller, make_terms, unique


@pytest.fixture
def sku(db: None) -> str:
    """Something that the platform buys for half of what it sells it for."""
    sku = unique("sku")
    make_price("cost", sku=sku, rates=(YUAN // 2, YUAN // 4, YUAN))
    make_price("wholesale", sku=sku, rates=(YUAN, YUAN // 2, 2 * YUAN))
    return sku


def refusal(reseller: Reseller, own_ppm: int, parent_ppm: int = 0) -> str:
    with pytest.raises(ProductError) as refused:
        make_terms(reseller, own_ppm, parent_ppm)
    assert refused.value.code == ErrorCode.INVALID
    return refused.value.type


def mine(fault: ProductError, sku: str) -> list[str]:
    """What it names of this test's price list: others' tests may have committed prices of their own."""
    return [name for name in fault.facts["skus"] if name == sku]


def test_half_of_it_may_be_given_away_and_no_more(sku: str) -> None:
    reseller = make_reseller()
    assert make_terms(reseller, own_ppm=500_000).own_ppm == 500_000
    with pytest.raises(ProductError) as refused:
        make_terms(reseller, own_ppm=500_001)
    assert (refused.value.type, mine(refused.value, sku)) == ("commission_below_cost", [sku])
    assert sku in str(refused.value.msg)
    found = terms_of(reseller_id=reseller.pk)
    assert found is not None
    assert (found.own_ppm, found.freeze_days, found.min_withdrawal) == (500_000, 7, 100 * YUAN)


@pytest.mark.parametrize("cheap", [{"rates": (YUAN // 2, YUAN // 2, 2 * YUAN)}, {"rates": (YUAN, YUAN // 4, 2 * YUAN)}])
def test_each_component_is_looked_at(sku: str, cheap: dict[str, tuple[int, int, int]]) -> None:
    reseller = make_reseller()
    make_price("wholesale", sku=sku, reseller_id=reseller.pk, **cheap)
    assert refusal(reseller, 1) == "commission_below_cost"
    make_terms(make_reseller(), own_ppm=1)  # that price is this reseller's alone


def test_a_price_per_call_and_a_multiplier_count(sku: str) -> None:
    called, scaled = unique("sku"), unique("sku")
    caller, scaler = make_reseller(), make_reseller()
    make_price("cost", sku=called, rates=(0, 0, 0), per_call=90)
    make_price("wholesale", sku=called, rates=(0, 0, 0), per_call=100, reseller_id=caller.pk)
    assert refusal(caller, 100_001) == "commission_below_cost"
    make_terms(caller, own_ppm=100_000)
    make_price("cost", sku=scaled, rates=(10, 10, 10), multiplier_ppm=1_900_000)
    make_price("wholesale", sku=scaled, rates=(10, 10, 10), multiplier_ppm=2_000_000, reseller_id=scaler.pk)
    assert refusal(scaler, 50_001) == "commission_below_cost"
    make_terms(scaler, own_ppm=50_000)


def test_both_levels_count_together_whoever_comes_last(sku: str) -> None:
    parent = make_reseller()
    child = make_reseller(parent=parent)
    make_terms(child, own_ppm=300_000)
    assert refusal(parent, 0, 200_001) == "commission_below_cost"
    make_terms(parent, 0, 200_000)
    assert refusal(child, 300_001) == "commission_below_cost"
    assert refusal(parent, 0, 700_001) == "shares_exceed_charge"
    assert refusal(child, 800_001) == "shares_exceed_charge"
    make_terms(child, own_ppm=300_000)


def test_terms_that_are_yet_to_come_count(sku: str) -> None:
    parent = make_reseller()
    child = make_reseller(parent=parent)
    later = timezone.now() + timedelta(days=1)
    make_terms(parent, 0, 400_000, effective_at=later)
    assert refusal(child, 200_000) == "commission_below_cost"
    make_terms(child, own_ppm=100_000)
    found = terms_of(reseller_id=parent.pk)
    assert found is None


def test_a_second_level_has_no_children(sku: str) -> None:
    assert refusal(make_reseller(parent=make_reseller()), 0, 1) == "parent_share_without_children"


@pytest.mark.parametrize(
    "wrong",
    [
        {"own_ppm": -1},
        {"parent_ppm": -1},
        {"freeze_days": -1},
        {"freeze_days": 366},
        {"min_withdrawal": 0},
        {"withdrawal_fee_ppm": 1_000_000},
        {"effective_at": timezone.now() - timedelta(days=1)},
    ],
)
def test_the_database_refuses_what_makes_no_sense(sku: str, wrong: dict[str, int]) -> None:
    terms = {"reseller_id": make_reseller().pk, "own_ppm": 0, "actor": "test", **wrong}
    with pytest.raises(IntegrityError, match="billing_terms_"), transaction.atomic():
        publish_terms(**terms)  # type: ignore[arg-type]  # of several types


def test_published_terms_never_change(sku: str) -> None:
    make_terms(make_reseller())
    with connection.cursor() as cursor, pytest.raises(IntegrityError, match="rows are only ever added"):
        cursor.execute("UPDATE billing_commissionterms SET own_ppm = 1")


def cut(reseller: Reseller, sku: str, rate: int, **fields: Any) -> str:
    """Publish a reseller's wholesale price; return what is said against it."""
    try:
        make_price("wholesale", sku=sku, rates=(rate, rate, rate), reseller_id=reseller.pk, **fields)
    except ProductError as refused:
        return refused.type
    return ""


def thin(*, cost: int = 9) -> str:
    """Something that costs the same for each token, and has no price yet."""
    sku = unique("sku")
    make_price("cost", sku=sku, rates=(cost, cost, cost))
    return sku


def test_a_price_has_to_leave_the_cost_beside_what_resellers_get(db: None) -> None:
    reseller, other, sku = make_reseller(), make_reseller(), thin()
    assert cut(reseller, sku, 20) == ""
    make_terms(reseller, own_ppm=100_000)
    assert [cut(reseller, sku, rate) for rate in (9, 10)] == ["price_below_floor", ""]
    assert cut(other, sku, 9) == ""  # it gets nothing
    make_terms(make_reseller(), own_ppm=150_000)  # without a price of its own it pays everybody's
    with pytest.raises(ProductError, match="price_below_floor"):
        make_price("wholesale", sku=sku, rates=(10, 10, 10))
    make_price("wholesale", sku=sku, rates=(11, 11, 11))


def test_what_a_parent_gets_has_to_be_left_too(db: None) -> None:
    parent = make_reseller()
    child, sku = make_reseller(parent=parent), thin(cost=8)
    assert cut(child, sku, 20) == ""
    make_terms(child, own_ppm=100_000)
    make_terms(parent, 0, 100_000)
    assert [cut(child, sku, rate) for rate in (9, 10)] == ["price_below_floor", ""]
    assert cut(parent, sku, 8) == ""  # of its own tenants it gets nothing


def test_terms_count_from_their_day_to_their_end(db: None) -> None:
    reseller, sku = make_reseller(), thin()
    week, month, year = (timezone.now() + timedelta(days=days) for days in (7, 30, 365))
    assert cut(reseller, sku, 20) == ""
    make_terms(reseller, own_ppm=100_000, effective_at=week)
    make_terms(reseller, own_ppm=0, effective_at=month)
    assert cut(reseller, sku, 9) == "price_below_floor"  # it would be in force still
    assert cut(reseller, sku, 9, effective_at=month) == ""
    assert cut(reseller, sku, 20, effective_at=week) == ""
    assert cut(reseller, sku, 9) == ""  # the terms begin when it ends
    with pytest.raises(ProductError) as refused:
        make_terms(reseller, own_ppm=100_001, effective_at=week)
    assert (refused.value.type, mine(refused.value, sku)) == ("commission_below_cost", [sku])  # the price of the month
    assert cut(reseller, sku, 20, effective_at=month) == ""
    assert cut(reseller, sku, 9, effective_at=year) == ""
    assert refusal(reseller, 100_000) == "commission_below_cost"


def test_shares_may_fall_where_the_cost_has_risen_above_the_price(db: None) -> None:
    reseller, sku = make_reseller(), thin()
    assert cut(reseller, sku, 10) == ""
    make_terms(reseller, own_ppm=100_000)
    make_price("cost", sku=sku, rates=(20, 20, 20))
    assert refusal(reseller, 100_001) == "commission_below_cost"
    make_terms(reseller, own_ppm=50_000)
    assert refusal(reseller, 50_001) == "commission_below_cost"


def test_terms_and_a_price_that_fit_alone_do_not_meet(committed_db: None) -> None:
    for _ in range(5):
        reseller, sku = make_reseller(), thin()
        assert cut(reseller, sku, 20) == ""

        def agree(reseller: Reseller = reseller) -> str:
            try:
                make_terms(reseller, own_ppm=100_000)
            except ProductError as refused:
                return refused.type
            return ""

        def shave(reseller: Reseller = reseller, sku: str = sku) -> str:
            return cut(reseller, sku, 9)

        assert together([agree, shave]) in [["", "price_below_floor"], ["commission_below_cost", ""]]
