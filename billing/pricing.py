"""What a quantity of a sku costs, at which price, and since when.

charge = ceil(Σ(tokens · rate) · multiplier / 10¹²) + per call: whole micro-yuan, rounded up once, at the end. Retail
(user pays tenant), wholesale (tenant pays platform) and cost (platform pays provider) are three prices of one
sku, each reckoned on its own, and never below one another: cost ≤ wholesale ≤ retail. What resellers get of a wholesale
price is not the platform's: cost ≤ wholesale less their shares.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from billing.models import PriceVersion
from billing.models.price import MAX_TOKENS
from billing.models.resale import WHOLE_PPM
from tenants.errors import ErrorCode, ProductError
from tenants.table import Query, Table, fetch

_PPM: Final = 10**12  # a rate is per 10⁶ tokens, a multiplier per 10⁶
Level = PriceVersion.Level
VERSIONS: Final = Table(PriceVersion)


@dataclass(frozen=True, kw_only=True)
class Quantities:
    """Tokens of one answer. `cached` counts those of `prompt` that the provider had cached: it is part of it.

    Raises ValueError outside 0…10⁸, or for more cached tokens than prompt tokens.
    """

    prompt: int
    cached: int = 0
    completion: int

    def __post_init__(self) -> None:
        if not (0 <= self.cached <= self.prompt <= MAX_TOKENS and 0 <= self.completion <= MAX_TOKENS):
            raise ValueError(f"token counts out of bounds: {self}")


class Floor(NamedTuple):
    """A price of the level below, and how many millionths of the price above it must cover it, shares being paid."""

    price: PriceVersion
    kept_ppm: int


@dataclass(frozen=True, kw_only=True)
class Prices:
    """The three prices of one sku that an answer is charged by."""

    retail: PriceVersion
    wholesale: PriceVersion
    cost: PriceVersion


def amount(price: PriceVersion, quantities: Quantities) -> int:
    """Return what the quantities cost, micro-yuan."""
    fresh = quantities.prompt - quantities.cached
    rated = (
        fresh * price.prompt_rate
        + quantities.cached * price.cached_rate
        + quantities.completion * price.completion_rate
    )
    return -(-rated * price.multiplier_ppm // _PPM) + price.per_call


def share(*, amount: int, ppm: int) -> int:
    """Return `ppm` millionths of an amount, rounded down: what remains is the platform's."""
    return amount * ppm // WHOLE_PPM


def affordable_completion(*, price: PriceVersion, available: int, prompt: int, wanted: int) -> int:
    """Return how many completion tokens (at most `wanted`) `available` micro-yuan pay for beside the prompt.

    -1 where not even the prompt can be paid. Exact: `amount` of the result is never above `available`, and that of
    one token more is, unless nothing was cut.
    """
    if amount(price, Quantities(prompt=prompt, completion=0)) > available:
        return -1
    if price.completion_rate * price.multiplier_ppm == 0:
        return wanted
    rated = (available - price.per_call) * _PPM // price.multiplier_ppm
    return min(wanted, (rated - prompt * price.prompt_rate) // price.completion_rate)


def current_prices(*, tenant_id: int, sku: str) -> Prices:
    """Return the prices in force now for the tenant; raise NOT_FOUND "model_without_price" if one is missing."""
    return fetch(prices_query(tenant_id=tenant_id, sku=sku))


def prices_query(*, tenant_id: int, sku: str) -> Query[Prices]:
    """Return the query of the prices in force now; reading what it finds raises as `current_prices` does."""
    return Query(_IN_FORCE, {"tenant": tenant_id, "sku": sku}, _prices)


def _prices(rows: list[tuple[Any, ...]]) -> Prices:
    found = _by_level(rows)
    if len(found) < len(Level):
        raise ProductError(
            ErrorCode.NOT_FOUND,
            _("This model is not on sale at the moment. Please choose another one."),
            type="model_without_price",
            scope="tenant",
            action="contact",
        )
    return Prices(retail=found[Level.RETAIL], wholesale=found[Level.WHOLESALE], cost=found[Level.COST])


def publish_price(  # noqa: PLR0913  one argument for each column of the price list
    *,
    level: str,
    tenant_id: int | None = None,
    reseller_id: int | None = None,
    sku: str,
    prompt_rate: int,
    cached_rate: int,
    completion_rate: int,
    per_call: int = 0,
    multiplier_ppm: int = 1_000_000,
    effective_at: datetime | None = None,
    actor: str,
) -> PriceVersion:
    """Add a version to the price list, in force from `effective_at` (now).

    Rates are micro-yuan per million tokens. Cost and wholesale belong to the platform and are published in its scope,
    retail in the tenant's. Raises ProductError INVALID "price_below_floor" where the price could ask less for anything
    than the level below it (and where less than the cost would be left of a wholesale price, by the commission terms
    in force with it), "price_without_floor" where that level has no price yet; the database refuses (IntegrityError)
    what is out of bounds, backdated or owned by the wrong party. Once published it never changes. Whom it leaves under
    water is for `under_water` to say beforehand.
    """
    with transaction.atomic():
        if level != Level.RETAIL:
            lock_terms()  # a price and terms that fit alone must not meet
        else:
            _keep_reseller(tenant_id)  # nor a price and a move to another reseller
        now = _serialise(sku)
        price = PriceVersion(
            level=level,
            tenant_id=tenant_id,
            reseller_id=reseller_id,
            sku=sku,
            prompt_rate=prompt_rate,
            cached_rate=cached_rate,
            completion_rate=completion_rate,
            per_call=per_call,
            multiplier_ppm=multiplier_ppm,
            effective_at=effective_at or now,
            created_at=now,
            created_by=actor,
        )
        if level != Level.COST:
            _require_floor(price)
        price.save(force_insert=True)
    return price


def under_water(*, price: PriceVersion) -> list[tuple[str, str]]:
    """Return whose prices this one would leave below it: the level of each, and the slug of whose it is.

    Above a wholesale price stand tenants' retail prices. Above the cost stand everybody's wholesale price (""), those
    of resellers, and retail prices too. A rise is nobody's to refuse; whoever makes it tells these first.
    """
    if price.level == Level.WHOLESALE:
        return [(Level.RETAIL, slug) for slug in tenants_under_water(wholesale=price)]
    return _under_cost(price) if price.level == Level.COST else []


def tenants_under_water(*, wholesale: PriceVersion) -> list[str]:
    """Return the slugs of the tenants that this wholesale price would leave selling below what they pay.

    Prices that begin later count too, until a later wholesale price takes this one's place.
    """
    versions = _price_lists(sku=wholesale.sku, all_tenants=True).get(wholesale.sku, {})
    until = _next_after(versions.get((Level.WHOLESALE, None, wholesale.reseller_id), []), wholesale.effective_at)
    under = []
    for tenant_id, slug, reseller_id in _tenants(wholesale.reseller_id):
        end = until
        if wholesale.reseller_id is None and reseller_id is not None:
            own = versions.get((Level.WHOLESALE, None, reseller_id), [])
            # From its first version on a reseller's own price is what its tenants pay, whatever everybody else does.
            end = min([*(version.effective_at for version in own), *([until] if until else [])], default=None)
        if end is not None and end <= wholesale.effective_at:
            continue
        span = _between(versions.get((Level.RETAIL, tenant_id, None), []), wholesale.effective_at, end)
        if not all(covers(price=version, floor=wholesale) for version in span):
            under.append(slug)
    return under


def _under_cost(cost: PriceVersion) -> list[tuple[str, str]]:
    """Return the prices above a cost that would not cover it while it is in force, as `under_water` does."""
    versions = _price_lists(sku=cost.sku, all_tenants=True).get(cost.sku, {})
    began, until = cost.effective_at, _next_after(versions.pop((Level.COST, None, None), []), cost.effective_at)
    shares = shares_given(began=began, until=until)
    slugs = _slugs()
    return sorted(
        (level, slugs[level, tenant_id or reseller_id])
        for (level, tenant_id, reseller_id), prices in versions.items()
        for kept in [_kept(versions, shares, reseller_id, began) if level == Level.WHOLESALE else WHOLE_PPM]
        if not all(covers(price=price, floor=cost, kept_ppm=kept) for price in _between(prices, began, until))
    )


def floors_of(
    *, level: str, sku: str, tenant_id: int | None = None, reseller_id: int | None = None, at: datetime | None = None
) -> list[Floor]:
    """Return the prices of the level below that a price from `at` (now) must cover, the first in force first.

    More than one where the level below changes later on, before another price of this level takes over. Empty where
    there is no price below: then none of this level can be published.
    """
    at = at or now()
    versions = _price_lists(sku=sku, tenant_id=tenant_id).get(sku, {})
    until = _next_after(versions.get((level, tenant_id, reseller_id), []), at)
    if level == Level.RETAIL:
        kept, below = WHOLE_PPM, _paid(versions, _reseller_of(tenant_id))
    else:
        kept = _kept(versions, shares_given(began=at, until=until), reseller_id, at)
        below = versions.get((Level.COST, None, None), [])
    return [Floor(floor, kept) for floor in _between(below, at, until)]


def skus_below_cost(*, kept: Mapping[int, int], at: datetime) -> list[str]:
    """Return what would be sold below cost at some time from `at` on, at the prices of the list.

    `kept` says of each reseller how many millionths of what its tenants pay are the platform's. Both prices are rounded
    up and shares down, so whoever covers the cost by its rates covers it to the micro-yuan.
    """
    return sorted(
        sku
        for sku, versions in _price_lists().items()
        if any(
            _uncovered(_paid(versions, reseller_id), versions.get((Level.COST, None, None), []), at, kept_ppm)
            for reseller_id, kept_ppm in kept.items()
        )
    )


def shares_given(*, began: datetime, until: datetime | None) -> dict[int, int]:
    """Return the most that a reseller and its parent get between two moments of what the reseller's tenants pay.

    Millionths, by reseller; until ever, where `until` is None.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SHARES, {"began": began, "until": until})
        return dict(cursor.fetchall())


def priceable_skus(*, tenant_id: int | None = None) -> list[str]:
    """Return every sku with a wholesale price in force: for one tenant, or (None) for any."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT sku FROM billing_priceversion price LEFT JOIN tenants_tenant tenant"
            " ON tenant.id = %(tenant)s WHERE level = 'wholesale' AND effective_at <= now()"
            " AND (price.reseller_id IS NULL OR %(tenant)s IS NULL OR price.reseller_id = tenant.reseller_id)"
            " ORDER BY sku",
            {"tenant": tenant_id},
        )
        return [sku for (sku,) in cursor.fetchall()]


def below_floor(*, tenant_id: int) -> list[tuple[PriceVersion, PriceVersion]]:
    """Return a tenant's retail prices, present and to come, that do not cover what it pays, each with that price."""
    today, reseller_id = now(), _reseller_of(tenant_id)
    found = []
    for versions in _price_lists(tenant_id=tenant_id).values():
        retail = versions.get((Level.RETAIL, tenant_id, None), [])
        found += _uncovered(retail, _paid(versions, reseller_id), today)
    return found


def paid_now(*, tenant_id: int) -> dict[str, PriceVersion]:
    """Return what a tenant pays now for each sku that has a wholesale price for it."""
    today, reseller_id = now(), _reseller_of(tenant_id)
    floors = {sku: _between(_paid(versions, reseller_id), today, today) for sku, versions in _price_lists().items()}
    return {sku: found[0] for sku, found in floors.items() if found}


def paid_by_tenants_of(*, reseller_id: int | None, skus: Collection[str]) -> dict[str, list[PriceVersion]]:
    """Return what a reseller's tenants (None: those of none) pay for each sku, now and as far as it is published."""
    today = now()
    found = {}
    for sku, versions in _price_lists().items():
        due = _between(_paid(versions, reseller_id), today, None) if sku in skus else []
        # What has no price yet cannot be sold yet.
        if due and due[0].effective_at <= today:
            found[sku] = due
    return found


def covers(*, price: PriceVersion, floor: PriceVersion, kept_ppm: int = WHOLE_PPM) -> bool:
    """Tell whether `kept_ppm` millionths of `price` are at least `floor` for every quantity there can be."""
    rates = ("prompt_rate", "cached_rate", "completion_rate")
    return price.per_call * kept_ppm >= floor.per_call * WHOLE_PPM and all(
        getattr(price, rate) * price.multiplier_ppm * kept_ppm
        >= getattr(floor, rate) * floor.multiplier_ppm * WHOLE_PPM
        for rate in rates
    )


def _require_floor(price: PriceVersion) -> None:
    """Refuse a price below the level under it, now or while this price will be in force."""
    floors = floors_of(
        level=price.level,
        sku=price.sku,
        tenant_id=price.tenant_id,
        reseller_id=price.reseller_id,
        at=price.effective_at,
    )
    if not floors or floors[0].price.effective_at > price.effective_at:
        raise ProductError(
            ErrorCode.INVALID,
            _("Publish the price below this one first: cost, then wholesale, then retail."),
            type="price_without_floor",
        )
    if not all(covers(price=price, floor=floor, kept_ppm=kept) for floor, kept in floors):
        raise ProductError(
            ErrorCode.INVALID,
            _("This price is below what the item costs the seller."),
            type="price_below_floor",
        )


# The versions of one sku by level, tenant and reseller, as they follow each other.
_Versions = dict[tuple[str, int | None, int | None], list[PriceVersion]]


def _paid(versions: _Versions, reseller_id: int | None) -> list[PriceVersion]:
    """Return the wholesale prices that a reseller's tenants pay (None: those of none), as they follow each other.

    The reseller's own where there is one: those of that reseller alone, not of a reseller above it.
    """
    everybody = versions.get((Level.WHOLESALE, None, None), [])
    own = versions.get((Level.WHOLESALE, None, reseller_id), []) if reseller_id else []
    return [version for version in everybody if not own or version.effective_at < own[0].effective_at] + own


def _reseller_of(tenant_id: int | None) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reseller_id FROM tenants_tenant WHERE id = %s", [tenant_id])
        row = cursor.fetchone()
    return row[0] if row else None


def _keep_reseller(tenant_id: int | None) -> None:
    """Let nobody move the tenant to another reseller until the end of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM tenants_tenant WHERE id = %s FOR SHARE", [tenant_id])


def _price_lists(
    *, sku: str | None = None, tenant_id: int | None = None, all_tenants: bool = False
) -> dict[str, _Versions]:
    """Return the versions of each sku (or of one), in one query; of retail prices those of the tenant, or all."""
    rows = _fetch(
        "SELECT {columns} FROM billing_priceversion price WHERE (%(sku)s::text IS NULL OR sku = %(sku)s)"
        " AND (level <> 'retail' OR tenant_id = %(tenant)s OR %(all)s) ORDER BY sku, effective_at, id",
        {"sku": sku, "tenant": tenant_id, "all": all_tenants},
    )
    lists: dict[str, _Versions] = {}
    for price in rows:
        versions = lists.setdefault(price.sku, {})
        versions.setdefault((price.level, price.tenant_id, price.reseller_id), []).append(price)
    return lists


def _uncovered(
    prices: list[PriceVersion], floors: list[PriceVersion], at: datetime, kept_ppm: int = WHOLE_PPM
) -> list[tuple[PriceVersion, PriceVersion]]:
    """Return the prices from `at` on that do not cover a floor while both are in force, each with that floor."""
    upper = _between(prices, at, None)
    return [
        (price, floor)
        for price, later in zip_longest(upper, upper[1:])
        for floor in _between(floors, max(price.effective_at, at), later.effective_at if later else None)
        if not covers(price=price, floor=floor, kept_ppm=kept_ppm)
    ]


def _kept(versions: _Versions, shares: dict[int, int], reseller_id: int | None, at: datetime) -> int:
    """Return how many millionths the platform keeps at least of a wholesale price from `at` on: shares are by reseller.

    A reseller's own price is paid by its tenants; everybody's by those of every reseller that has none of its own yet.
    """
    if reseller_id is not None:
        return max(WHOLE_PPM - shares.get(reseller_id, 0), 0)
    own = {
        theirs
        for (level, _tenant, theirs), prices in versions.items()
        if level == Level.WHOLESALE and prices[0].effective_at <= at
    }
    return max(WHOLE_PPM - max((ppm for payer, ppm in shares.items() if payer not in own), default=0), 0)


_SHARES: Final = """
WITH due AS (
    SELECT reseller_id, max(own_ppm) AS own, max(parent_ppm) AS parent
    FROM (SELECT *, lead(effective_at) OVER (PARTITION BY reseller_id ORDER BY effective_at, id) AS ended
          FROM billing_commissionterms) terms
    WHERE (ended IS NULL OR ended > greatest(effective_at, %(began)s))
      AND (%(until)s::timestamptz IS NULL OR effective_at < %(until)s)
    GROUP BY reseller_id
)
SELECT reseller.id, coalesce(mine.own, 0) + coalesce(above.parent, 0)
FROM tenants_reseller reseller
LEFT JOIN due mine ON mine.reseller_id = reseller.id
LEFT JOIN due above ON above.reseller_id = reseller.parent_id
"""


def _slugs() -> dict[tuple[str, int | None], str]:
    """Return whose prices there can be above the cost."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 'wholesale', id, slug FROM tenants_reseller UNION ALL SELECT 'retail', id, slug FROM tenants_tenant"
        )
        return {(level, owner): slug for level, owner, slug in cursor.fetchall()} | {(Level.WHOLESALE, None): ""}


def _between(versions: list[PriceVersion], began: datetime, ended: datetime | None) -> list[PriceVersion]:
    """Return the version in force at `began`, and those that take over before `ended`."""
    before = [version for version in versions if version.effective_at <= began]
    later = [version for version in versions if version.effective_at > began]
    return before[-1:] + [version for version in later if ended is None or version.effective_at < ended]


def _next_after(versions: list[PriceVersion], at: datetime) -> datetime | None:
    return min((version.effective_at for version in versions if version.effective_at > at), default=None)


def _tenants(reseller_id: int | None) -> list[tuple[int, str, int | None]]:
    """Return id, slug and reseller of a reseller's tenants, or of all."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, slug, reseller_id FROM tenants_tenant WHERE %s::bigint IS NULL OR reseller_id = %s"
            " ORDER BY slug",
            [reseller_id, reseller_id],
        )
        return list(cursor.fetchall())


def now() -> datetime:
    """Return the database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now: datetime = cursor.fetchone()[0]
    return now


def lock_terms() -> datetime:
    """Let nobody else publish commission terms, or prices that they are judged by; return the database's time."""
    return _lock("commission terms")


def _serialise(sku: str) -> datetime:
    """Let one price of a sku be published at a time, so that floors hold; return the database's time."""
    return _lock(f"price {sku}")


def _lock(name: str) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now() FROM pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        now: datetime = cursor.fetchone()[0]
    return now


# The tenant is a parameter here, because the price list's upper levels belong to the platform and no manager shows
# them to a tenant's scope. A tenant pays its reseller's wholesale price where there is one, else everybody's.
_IN_FORCE: Final = """
SELECT DISTINCT ON (price.level) {columns}
FROM billing_priceversion price LEFT JOIN tenants_tenant tenant ON tenant.id = %(tenant)s
WHERE price.sku = %(sku)s AND price.effective_at <= now()
  AND ((price.level = 'retail' AND price.tenant_id = tenant.id)
       OR (price.tenant_id IS NULL AND (price.reseller_id IS NULL OR price.reseller_id = tenant.reseller_id)))
ORDER BY price.level, price.reseller_id NULLS LAST, price.effective_at DESC, price.id DESC
""".format(columns=VERSIONS.columns("price"))


def _in_force(*, tenant_id: int, sku: str) -> dict[str, PriceVersion]:
    """Return the price of each level in force now, as a tenant meets it."""
    return fetch(Query(_IN_FORCE, {"tenant": tenant_id, "sku": sku}, _by_level))


def _by_level(rows: list[tuple[Any, ...]]) -> dict[str, PriceVersion]:
    return {price.level: price for price in map(VERSIONS.row, rows)}


def _fetch(query: str, parameters: dict[str, str | int | bool | None]) -> list[PriceVersion]:
    columns = VERSIONS.columns("price")
    return fetch(Query(query.format(columns=columns), parameters, lambda rows: [VERSIONS.row(row) for row in rows]))
