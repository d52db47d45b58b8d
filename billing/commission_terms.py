"""A reseller's commission terms: immutable versions, like prices, and never such that the platform sells below cost.

publish_terms    add a version
terms_of         the version in force
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from django.db import connection, transaction
from django.db.models import F, Max, Q
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _

from billing.models import CommissionTerms, PriceVersion
from billing.models.resale import MIN_WITHDRAWAL, WHOLE_PPM
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import Reseller

_RATES: Final = ("prompt_rate", "cached_rate", "completion_rate")
Level = PriceVersion.Level


def publish_terms(  # noqa: PLR0913  one argument for each of the terms
    *,
    reseller_id: int,
    own_ppm: int,
    parent_ppm: int = 0,
    freeze_days: int = 7,
    min_withdrawal: int = MIN_WITHDRAWAL,
    withdrawal_fee_ppm: int = 0,
    effective_at: datetime | None = None,
    actor: str,
) -> CommissionTerms:
    """Add a version to a reseller's terms, in force from `effective_at` (now); not in a tenant's scope.

    Shares are millionths of the wholesale charge: `own_ppm` of the reseller's own tenants, `parent_ppm` of its
    children's. Raises ProductError INVALID "parent_share_without_children" for a reseller of depth 2,
    "shares_exceed_charge" where both shares of an answer could come to more than all of it, "commission_below_cost"
    where at the prices then in force less than the platform's own cost would be left of something (`skus`). The
    database refuses (IntegrityError) what is out of bounds or backdated. Once published it never changes.
    """
    with transaction.atomic():
        now = _serialise()
        reseller = Reseller.objects.get(pk=reseller_id)
        terms = CommissionTerms(
            reseller=reseller,
            own_ppm=own_ppm,
            parent_ppm=parent_ppm,
            freeze_days=freeze_days,
            min_withdrawal=min_withdrawal,
            withdrawal_fee_ppm=withdrawal_fee_ppm,
            effective_at=effective_at or now,
            created_at=now,
            created_by=actor,
        )
        if parent_ppm and reseller.parent_id is not None:
            raise ProductError(
                ErrorCode.INVALID,
                _("Only a reseller of the first level can have children to get a share of."),
                type="parent_share_without_children",
            )
        shares = _shares(terms, reseller)
        _require_whole(shares)
        _require_cost(shares, at=terms.effective_at)
        terms.save(force_insert=True)
    return terms


def terms_of(*, reseller_id: int) -> CommissionTerms | None:
    """Return the reseller's terms in force now; None where there are none, and so no commission."""
    in_force = CommissionTerms.objects.filter(reseller_id=reseller_id, effective_at__lte=Now())
    return in_force.order_by("-effective_at", "-pk").first()


def _serialise() -> datetime:
    """Let one version be published at a time, so that two that fit alone do not meet; return the database's time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now() FROM pg_advisory_xact_lock(hashtextextended('commission terms', 0))")
        now: datetime = cursor.fetchone()[0]
    return now


def _shares(terms: CommissionTerms, reseller: Reseller) -> dict[int, int]:
    """Return the most that both shares come to under these terms, by the reseller whose tenants pay."""
    above = _highest("parent_ppm", [reseller.parent_id], terms.effective_at) if reseller.parent_id else {}
    shares = {reseller.pk: terms.own_ppm + sum(above.values())}
    children = list(Reseller.objects.filter(parent=reseller).values_list("pk", flat=True))
    theirs = _highest("own_ppm", children, terms.effective_at)
    return shares | {child: theirs.get(child, 0) + terms.parent_ppm for child in children}


def _highest(share: str, resellers: Iterable[int], at: datetime) -> dict[int, int]:
    """Return the highest that a share is in the terms in force at a time and in those that come later."""
    found: dict[int, int] = {}
    for reseller_id in resellers:
        versions = CommissionTerms.objects.filter(reseller_id=reseller_id)
        current = versions.filter(effective_at__lte=at).order_by("-effective_at", "-pk").first()
        due = Q(effective_at__gt=at) | Q(pk=current.pk if current else None)
        found[reseller_id] = versions.filter(due).aggregate(most=Coalesce(Max(share), 0))["most"]
    return found


def _require_whole(shares: dict[int, int]) -> None:
    if max(shares.values()) > WHOLE_PPM:
        raise ProductError(
            ErrorCode.INVALID,
            _("Together with the other level's share this is more than the whole wholesale charge."),
            type="shares_exceed_charge",
        )


def _require_cost(shares: dict[int, int], *, at: datetime) -> None:
    """Refuse shares that leave the platform less than its cost of anything that the reseller's tenants may buy."""
    under = sorted({sku for reseller_id, ppm in shares.items() for sku in _under_cost(reseller_id, ppm, at)})
    if under:
        raise ProductError(
            ErrorCode.INVALID,
            _("Under these terms the platform would sell below its own cost: %(skus)s.") % {"skus": ", ".join(under)},
            type="commission_below_cost",
            skus=under,
        )


def _under_cost(reseller_id: int, ppm: int, at: datetime) -> list[str]:
    """Return what would be sold below cost to the reseller's tenants, if `ppm` of the wholesale price were given away.

    Both prices are rounded up and shares down, so whoever covers the cost by its rates covers it to the micro-yuan.
    """
    floors: dict[str, dict[str, PriceVersion]] = {}
    for price in _floors(reseller_id, at):
        floors.setdefault(price.sku, {})[price.level] = price
    left = WHOLE_PPM - ppm
    return [
        sku
        for sku, prices in floors.items()
        if len(prices) == len((Level.WHOLESALE, Level.COST))
        and not _covers(prices[Level.WHOLESALE], left, prices[Level.COST])
    ]


def _floors(reseller_id: int, at: datetime) -> list[PriceVersion]:
    """Return the wholesale price and the cost of every sku at a time, as the reseller's tenants meet them."""
    with scope.platform("the platform's own prices"):
        upper = PriceVersion.objects.filter(
            Q(reseller=None) | Q(reseller=reseller_id),
            tenant=None,
            level__in=[Level.WHOLESALE, Level.COST],
            effective_at__lte=at,
        )
        order = ("sku", "level", F("reseller").asc(nulls_last=True), "-effective_at", "-pk")
        return list(upper.order_by(*order).distinct("sku", "level"))


def _covers(wholesale: PriceVersion, left: int, cost: PriceVersion) -> bool:
    """Tell whether `left` millionths of the wholesale price are no less than the cost, for every quantity."""
    return wholesale.per_call * left >= cost.per_call * WHOLE_PPM and all(
        getattr(wholesale, rate) * wholesale.multiplier_ppm * left
        >= getattr(cost, rate) * cost.multiplier_ppm * WHOLE_PPM
        for rate in _RATES
    )
