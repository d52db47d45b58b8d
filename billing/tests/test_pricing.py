from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from billing.models import PriceVersion
from billing.models.price import MAX_MULTIPLIER_PPM, MAX_PER_CALL, MAX_RATE, MAX_TOKENS
from billing.pricing import (
    Quantities,
    affordable_completion,
    amount,
    covers,
    current_prices,
    publish_price,
    tenants_under_water,
    under_water,
)
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import Tenant
from tests.factories import YUAN, make_price, make_reseller, make_sku, make_tenant, make_terms, unique

BIGINT = 2**63 - 1


def price(rates: tuple[int, int, int], *, per_call: int = 0, multiplier_ppm: int = 1_000_000) -> PriceVersion:
    prompt, cached, completion = rates
    return PriceVersion(
        prompt_rate=prompt,
        cached_rate=cached,
        completion_rate=completion,
        per_call=per_call,
        multiplier_ppm=multiplier_ppm,
    )


@pytest.mark.parametrize(
    ("priced", "used", "expected"),
    [
        (price((2_000_000, 0, 6_000_000)), Quantities(prompt=1000, completion=500), 5000),
        # Cached tokens are part of the prompt, not beside it.
        (price((2_000_000, 1_000_000, 0)), Quantities(prompt=1000, cached=400, completion=0), 1600),
        # Three thirds of a micro-yuan are one, not three: rounded up once, at the end.
        (price((333_334, 333_333, 333_333)), Quantities(prompt=2, cached=1, completion=1), 1),
        (price((333_334, 333_333, 333_334)), Quantities(prompt=2, cached=1, completion=1), 2),
        (price((1, 1, 1)), Quantities(prompt=1, completion=0), 1),
        (price((1, 1, 1)), Quantities(prompt=0, completion=0), 0),
        # The multiplier is for the rates; the price of a call is not multiplied.
        (price((2_000_000, 0, 0), per_call=7, multiplier_ppm=1_500_000), Quantities(prompt=10, completion=0), 37),
        (price((2_000_000, 0, 0), multiplier_ppm=1), Quantities(prompt=10, completion=0), 1),
        (price((0, 0, 0), per_call=7), Quantities(prompt=0, completion=0), 7),
    ],
)
def test_amount(priced: PriceVersion, used: Quantities, expected: int) -> None:
    assert amount(priced, used) == expected


def test_the_dearest_answer_fits_the_column() -> None:
    dearest = price((MAX_RATE, MAX_RATE, MAX_RATE), per_call=MAX_PER_CALL, multiplier_ppm=MAX_MULTIPLIER_PPM)
    assert amount(dearest, Quantities(prompt=MAX_TOKENS, completion=MAX_TOKENS)) < BIGINT // 100


@pytest.mark.parametrize(
    ("prompt", "cached", "completion"),
    [(-1, 0, 0), (0, 0, -1), (1, 2, 0), (1, -1, 0), (MAX_TOKENS + 1, 0, 0), (0, 0, MAX_TOKENS + 1)],
)
def test_token_counts_out_of_bounds_are_refused(prompt: int, cached: int, completion: int) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        Quantities(prompt=prompt, cached=cached, completion=completion)


rates = st.integers(0, 10**9)
prices = st.builds(
    lambda prompt, completion, per_call, ppm: price((prompt, 0, completion), per_call=per_call, multiplier_ppm=ppm),
    rates,
    rates,
    st.integers(0, 10**6),
    st.integers(0, 10**7),
)


@given(priced=prices, available=st.integers(0, 10**12), prompt=st.integers(0, 10**6), wanted=st.integers(0, 10**6))
def test_what_is_affordable_is_exact(priced: PriceVersion, available: int, prompt: int, wanted: int) -> None:
    completion = affordable_completion(price=priced, available=available, prompt=prompt, wanted=wanted)
    if completion < 0:
        assert amount(priced, Quantities(prompt=prompt, completion=0)) > available
        return
    assert amount(priced, Quantities(prompt=prompt, completion=completion)) <= available
    if completion < wanted:
        assert amount(priced, Quantities(prompt=prompt, completion=completion + 1)) > available


@given(low=prices, high=prices, prompt=st.integers(0, 10**6), completion=st.integers(0, 10**6))
def test_a_price_that_covers_another_never_comes_to_less(
    low: PriceVersion, high: PriceVersion, prompt: int, completion: int
) -> None:
    used = Quantities(prompt=prompt, completion=completion)
    if covers(price=high, floor=low):
        assert amount(high, used) >= amount(low, used)


@pytest.fixture
def tenant(db: None) -> Tenant:
    return make_tenant()


def refused(level: str, **fields: Any) -> ProductError:
    with pytest.raises(ProductError) as refusal:
        make_price(level, **fields)
    return refusal.value


def test_the_floors_are_kept(db: None) -> None:
    reseller = make_reseller()  # without terms, where others' tests may have promised shares of everybody's price
    tenant, theirs, sku = make_tenant(reseller=reseller), {"reseller_id": reseller.pk}, unique("sku")
    assert refused("wholesale", sku=sku, rates=(9, 9, 9)).type == "price_without_floor"
    make_price("cost", sku=sku, rates=(10, 5, 20))
    assert refused("retail", sku=sku, rates=(90, 90, 90), tenant_id=tenant.pk).type == "price_without_floor"
    assert refused("wholesale", sku=sku, rates=(100, 4, 100)).type == "price_below_floor"
    make_price("wholesale", sku=sku, rates=(10, 5, 20), per_call=3, **theirs)
    below = refused("retail", sku=sku, rates=(100, 100, 100), tenant_id=tenant.pk, per_call=2)
    assert (below.code, below.type) == (ErrorCode.INVALID, "price_below_floor")
    make_price("retail", sku=sku, rates=(10, 5, 20), tenant_id=tenant.pk, per_call=3)
    with scope.tenant(tenant.pk):
        assert PriceVersion.objects.count() == 1


def test_a_multiplier_counts_for_the_floor(db: None) -> None:
    sku, theirs = unique("sku"), {"reseller_id": make_reseller().pk}
    make_price("cost", sku=sku, rates=(10, 10, 10))
    half = refused("wholesale", sku=sku, rates=(10, 10, 10), multiplier_ppm=999_999, **theirs)
    assert half.type == "price_below_floor"
    assert make_price("wholesale", sku=sku, rates=(5, 5, 5), multiplier_ppm=2_000_000, **theirs).prompt_rate == 5


def test_a_reseller_s_tenants_pay_the_reseller_s_price(tenant: Tenant) -> None:
    reseller = make_reseller()
    theirs = make_tenant(reseller=reseller)
    sku = unique("sku")
    make_price("cost", sku=sku, rates=(10, 10, 10))
    special = make_price("wholesale", sku=sku, rates=(30, 30, 30), reseller_id=reseller.pk)
    everybody = make_price("wholesale", sku=sku, rates=(20, 20, 20))
    make_price("retail", sku=sku, rates=(40, 40, 40), tenant_id=tenant.pk)
    make_price("retail", sku=sku, rates=(50, 50, 50), tenant_id=theirs.pk)
    assert refused("retail", sku=sku, rates=(29, 29, 29), tenant_id=theirs.pk).type == "price_below_floor"
    found = [current_prices(tenant_id=which.pk, sku=sku) for which in (tenant, theirs)]
    assert [each.wholesale.pk for each in found] == [everybody.pk, special.pk]
    assert [each.retail.prompt_rate for each in found] == [40, 50]


def test_a_price_comes_into_force_in_its_time(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    before = current_prices(tenant_id=tenant.pk, sku=sku).retail
    tomorrow = timezone.now() + timedelta(days=1)
    make_price("retail", sku=sku, rates=(9 * YUAN,) * 3, tenant_id=tenant.pk, effective_at=tomorrow)
    assert current_prices(tenant_id=tenant.pk, sku=sku).retail == before
    now = make_price("retail", sku=sku, rates=(8 * YUAN,) * 3, tenant_id=tenant.pk)
    assert current_prices(tenant_id=tenant.pk, sku=sku).retail == now


def test_prices_work_within_the_tenant_s_scope_and_show_no_other_tenant_s(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    other = make_tenant()
    theirs = make_price("retail", sku=sku, rates=(3 * YUAN, 2 * YUAN, 7 * YUAN), tenant_id=other.pk)
    with scope.tenant(tenant.pk):
        found = current_prices(tenant_id=tenant.pk, sku=sku)
    assert (found.retail.tenant_id, found.retail.prompt_rate) == (tenant.pk, 2 * YUAN)
    assert current_prices(tenant_id=other.pk, sku=sku).retail == theirs


def test_a_sku_without_a_price_cannot_be_sold(tenant: Tenant) -> None:
    sku = make_sku(tenant)
    stranger = make_tenant()
    for tenant_id, name in ((stranger.pk, sku), (tenant.pk, unique("sku"))):
        with pytest.raises(ProductError) as refusal:
            current_prices(tenant_id=tenant_id, sku=name)
        assert (refusal.value.code, refusal.value.type) == (ErrorCode.NOT_FOUND, "model_without_price")


@pytest.mark.django_db
def test_a_rise_of_wholesale_names_the_tenants_under_water() -> None:
    reseller = make_reseller()
    cheap, dear, theirs = make_tenant(), make_tenant(), make_tenant(reseller=reseller)
    sku = unique("sku")
    make_price("cost", sku=sku, rates=(10, 10, 10))
    make_price("wholesale", sku=sku, rates=(20, 20, 20))
    make_price("wholesale", sku=sku, rates=(15, 15, 15), reseller_id=reseller.pk)
    make_price("retail", sku=sku, rates=(20, 20, 20), tenant_id=cheap.pk)
    make_price("retail", sku=sku, rates=(90, 90, 90), tenant_id=dear.pk)
    make_price("retail", sku=sku, rates=(16, 16, 16), tenant_id=theirs.pk)
    everybody = make_price("wholesale", sku=sku, rates=(21, 21, 21))
    special = make_price("wholesale", sku=sku, rates=(17, 17, 17), reseller_id=reseller.pk)
    assert tenants_under_water(wholesale=everybody) == [cheap.slug]
    assert tenants_under_water(wholesale=special) == [theirs.slug]


@pytest.mark.django_db
def test_a_rise_of_the_cost_names_whose_prices_it_leaves_below() -> None:
    dear, cheap = make_reseller(), make_reseller()
    tenant, theirs = make_tenant(), make_tenant(reseller=cheap)
    sku, rise = unique("sku"), timezone.now() + timedelta(days=2)
    make_price("cost", sku=sku, rates=(5, 5, 5))
    make_price("wholesale", sku=sku, rates=(20, 20, 20))
    make_price("wholesale", sku=sku, rates=(40, 40, 40), reseller_id=dear.pk)
    make_price("wholesale", sku=sku, rates=(10, 10, 10), reseller_id=cheap.pk)
    make_price("retail", sku=sku, rates=(40, 40, 20), tenant_id=tenant.pk)
    make_price("retail", sku=sku, rates=(10, 10, 10), tenant_id=theirs.pk)

    def named(rate: int, **fields: Any) -> list[tuple[str, str]]:
        cost = PriceVersion(level="cost", sku=sku, effective_at=rise, **fields)
        cost.prompt_rate, cost.cached_rate, cost.completion_rate = rate, 0, rate
        return under_water(price=cost)

    assert named(10) == []
    assert named(11) == [("retail", theirs.slug), ("wholesale", cheap.slug)]
    assert named(21) == sorted(
        [("retail", tenant.slug), ("retail", theirs.slug), ("wholesale", ""), ("wholesale", cheap.slug)]
    )
    make_terms(dear, own_ppm=500_000)
    assert ("wholesale", dear.slug) not in named(20)
    assert ("wholesale", dear.slug) in named(21)
    # What is over before the rise, or begins when the cost has fallen again, is not under water.
    make_price("wholesale", sku=sku, rates=(20, 20, 20), reseller_id=cheap.pk, effective_at=rise)
    assert named(11) == [("retail", theirs.slug)]
    make_price("retail", sku=sku, rates=(20, 20, 20), tenant_id=theirs.pk, effective_at=rise)
    make_price("retail", sku=sku, rates=(20, 20, 20), tenant_id=theirs.pk, effective_at=rise + timedelta(days=2))
    make_price("cost", sku=sku, rates=(5, 5, 5), effective_at=rise + timedelta(days=1))
    make_price("wholesale", sku=sku, rates=(6, 6, 6), reseller_id=cheap.pk, effective_at=rise + timedelta(days=1))
    assert named(11) == []


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"prompt_rate": -1, "cached_rate": -1}, "billing_price_bounds"),
        ({"completion_rate": MAX_RATE + 1}, "billing_price_bounds"),
        ({"per_call": -1}, "billing_price_bounds"),
        ({"multiplier_ppm": MAX_MULTIPLIER_PPM + 1}, "billing_price_bounds"),
        ({"cached_rate": 11}, "billing_price_cached"),
        ({"effective_at": datetime(2020, 1, 1, tzinfo=UTC)}, "billing_price_never_backdated"),
        ({"reseller_id": "a reseller"}, "billing_price_owner"),
    ],
)
@pytest.mark.django_db
def test_the_database_refuses_a_price_out_of_bounds(fields: dict[str, Any], constraint: str) -> None:
    if "reseller_id" in fields:
        fields = {"reseller_id": make_reseller().pk}
    price = {"prompt_rate": 10, "cached_rate": 10, "completion_rate": 10, **fields}
    with scope.platform("test"), transaction.atomic(), pytest.raises(IntegrityError, match=constraint):
        publish_price(level="cost", sku=unique("sku"), actor="test", **price)


def test_a_tenant_cannot_publish_the_platform_s_prices(tenant: Tenant) -> None:
    with scope.tenant(tenant.pk), pytest.raises(scope.WrongScopeError):
        publish_price(
            level="cost", sku=unique("sku"), prompt_rate=1, cached_rate=1, completion_rate=1, actor="a tenant's staff"
        )
