"""What a quantity of a sku costs, at which price, and since when.

charge = ceil(Σ(tokens · rate) · multiplier / 10¹²) + per call: whole micro-yuan, rounded up once, at the end. Retail
(user pays tenant), wholesale (tenant pays platform) and cost (platform pays provider) are three prices of one
sku, each reckoned on its own, and never below one another: cost ≤ wholesale ≤ retail.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from billing.models import PriceVersion
from billing.models.price import MAX_TOKENS
from tenants.errors import ErrorCode, ProductError

_PPM: Final = 10**12  # a rate is per 10⁶ tokens, a multiplier per 10⁶
Level = PriceVersion.Level


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
    return amount * ppm // 1_000_000


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
    found = _in_force(tenant_id=tenant_id, sku=sku)
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
    than the level below it, "price_without_floor" where that level has no price yet; the database refuses
    (IntegrityError) what is out of bounds, backdated or owned by the wrong party. Once published it never changes.
    """
    with transaction.atomic():
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


def tenants_under_water(*, wholesale: PriceVersion) -> list[str]:
    """Return the slugs of the tenants that this wholesale price would leave selling below what they pay.

    A rise of wholesale is the platform's right, so it is not refused; whoever makes it tells these tenants first.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, slug FROM tenants_tenant WHERE %s::bigint IS NULL OR reseller_id = %s ORDER BY slug",
            [wholesale.reseller_id, wholesale.reseller_id],
        )
        tenants = cursor.fetchall()
    under = []
    for tenant_id, slug in tenants:
        found = _in_force(tenant_id=tenant_id, sku=wholesale.sku, at=wholesale.effective_at)
        pays_own = (
            wholesale.reseller_id is None and getattr(found.get(Level.WHOLESALE), "reseller_id", None) is not None
        )
        retail = found.get(Level.RETAIL)
        if retail is not None and not pays_own and not covers(price=retail, floor=wholesale):
            under.append(slug)
    return under


def covers(*, price: PriceVersion, floor: PriceVersion) -> bool:
    """Tell whether `price` asks at least as much as `floor` for every quantity there can be."""
    rates = ("prompt_rate", "cached_rate", "completion_rate")
    return price.per_call >= floor.per_call and all(
        getattr(price, rate) * price.multiplier_ppm >= getattr(floor, rate) * floor.multiplier_ppm for rate in rates
    )


def _require_floor(price: PriceVersion) -> None:
    """Refuse a price below the level under it."""
    below = Level.WHOLESALE if price.level == Level.RETAIL else Level.COST
    found = _in_force(tenant_id=price.tenant_id, reseller_id=price.reseller_id, sku=price.sku, at=price.effective_at)
    floor = found.get(below)
    if floor is None:
        raise ProductError(
            ErrorCode.INVALID,
            _("Publish the price below this one first: cost, then wholesale, then retail."),
            type="price_without_floor",
        )
    if not covers(price=price, floor=floor):
        raise ProductError(
            ErrorCode.INVALID,
            _("This price is below what the item costs the seller."),
            type="price_below_floor",
        )


def _serialise(sku: str) -> datetime:
    """Let one price of a sku be published at a time, so that floors hold; return the database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now() FROM pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"price {sku}"])
        now: datetime = cursor.fetchone()[0]
    return now


# The tenant is a parameter here, because the price list's upper levels belong to the platform and no manager shows
# them to a tenant's scope. A tenant pays its reseller's wholesale price where there is one, else everybody's.
_IN_FORCE: Final = """
SELECT DISTINCT ON (price.level) {columns}
FROM billing_priceversion price LEFT JOIN tenants_tenant tenant ON tenant.id = %(tenant)s
WHERE price.sku = %(sku)s AND price.effective_at <= coalesce(%(at)s, now())
  AND ((price.level = 'retail' AND price.tenant_id = tenant.id)
       OR (price.tenant_id IS NULL
           AND (price.reseller_id IS NULL OR price.reseller_id = coalesce(tenant.reseller_id, %(reseller)s))))
ORDER BY price.level, price.reseller_id NULLS LAST, price.effective_at DESC, price.id DESC
"""


def _in_force(
    *, tenant_id: int | None, sku: str, reseller_id: int | None = None, at: datetime | None = None
) -> dict[str, PriceVersion]:
    """Return the price of each level in force at a time (now), as a tenant, or else a reseller, meets it."""
    columns = PriceVersion._meta.concrete_fields
    names = [column.attname for column in columns]
    query = _IN_FORCE.format(columns=", ".join(f"price.{column.column}" for column in columns))
    with connection.cursor() as cursor:
        cursor.execute(query, {"tenant": tenant_id, "sku": sku, "reseller": reseller_id, "at": at})
        rows = [PriceVersion.from_db(connection.alias, names, row) for row in cursor.fetchall()]
    return {price.level: price for price in rows}
