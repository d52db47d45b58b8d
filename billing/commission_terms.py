"""A reseller's commission terms: immutable versions, like prices, and never such that the platform sells below cost.

publish_terms          add a version
publish_child_terms    the same, by a reseller for one below it, within its own
terms_of               the version in force
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max, Q
from django.db.models.functions import Coalesce, Now
from django.utils.translation import gettext_lazy as _

from billing import pricing
from billing.models import CommissionTerms
from billing.models.resale import MIN_WITHDRAWAL, WHOLE_PPM
from billing.yuan import show_yuan
from tenants.errors import ErrorCode, ProductError
from tenants.models import Reseller


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
    where at the prices in force then or later less than the platform's own cost would be left of something (`skus`)
    by a share that rises. The database refuses (IntegrityError) what is out of bounds or backdated. Once published it
    never changes.
    """
    with transaction.atomic():
        now = pricing.lock_terms()
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


def terms_in_force(*, reseller_ids: Iterable[int]) -> dict[int, CommissionTerms]:
    """Return the terms in force now of several resellers, of those that have any."""
    found = CommissionTerms.objects.filter(reseller__in=list(reseller_ids), effective_at__lte=Now())
    return {terms.reseller_id: terms for terms in found.order_by("effective_at", "pk")}


def publish_child_terms(*, parent_id: int, child_id: int, own_ppm: int, actor: str) -> CommissionTerms:
    """Agree what a reseller's sub-reseller gets of its own tenants' wholesale from now on; the rest as the parent has.

    Together with the parent's share of them that is at most what the parent gets of tenants of its own, now and by
    terms to come: the platform gives no more for a tenant because someone stands between. Raises ProductError INVALID
    "beyond_own_terms" (`most`, millionths), NOT_FOUND "reseller_not_found" for one that is not the parent's, and as
    `publish_terms`.
    """
    with transaction.atomic():
        pricing.lock_terms()
        if not Reseller.objects.filter(pk=child_id, parent_id=parent_id).exists():
            raise ProductError(ErrorCode.NOT_FOUND, _("There is no such reseller here."), type="reseller_not_found")
        most = most_for_child(parent_id=parent_id)
        above = terms_of(reseller_id=parent_id)
        if above is None or own_ppm > most:
            raise ProductError(
                ErrorCode.INVALID,
                _("Within your own terms that is at most %(percent)s %%.") % {"percent": show_yuan(most * 100)},
                type="beyond_own_terms",
                most=str(most),
            )
        return publish_terms(
            reseller_id=child_id,
            own_ppm=own_ppm,
            freeze_days=above.freeze_days,
            min_withdrawal=above.min_withdrawal,
            withdrawal_fee_ppm=above.withdrawal_fee_ppm,
            actor=actor,
        )


def most_for_child(*, parent_id: int) -> int:
    """Return the most that a reseller can agree with one below it, millionths; 0 without terms of its own."""
    current = terms_of(reseller_id=parent_id)
    later = CommissionTerms.objects.filter(reseller_id=parent_id, effective_at__gt=Now())
    spans = [terms for terms in (current, *later) if terms]
    return max(min((terms.own_ppm - terms.parent_ppm for terms in spans), default=0), 0) if current else 0


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
    """Refuse shares that leave the platform less than its cost of anything that the reseller's tenants may buy.

    Shares that do not rise are fine: where the cost has risen above a price, to lower them must be possible.
    """
    replaced = pricing.shares_given(began=at, until=at + timedelta.resolution)
    kept = {reseller_id: WHOLE_PPM - ppm for reseller_id, ppm in shares.items() if ppm > replaced.get(reseller_id, 0)}
    under = pricing.skus_below_cost(kept=kept, at=at)
    if under:
        raise ProductError(
            ErrorCode.INVALID,
            _("Under these terms the platform would sell below its own cost: %(skus)s.") % {"skus": ", ".join(under)},
            type="commission_below_cost",
            skus=under,
        )
