"""Moving a tenant to another reseller, or to the operator: from one moment on, and all or nothing.

What its answers earned until then is the old reseller's: answers that were admitted before pin their shares
(`billing.holds`), and what has accrued is folded into a commission now. From then on the tenant pays the new reseller's
wholesale prices, so its own prices are judged by them first. Its wallet, its users and their money stay as they are.
"""

from typing import NamedTuple

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from billing import commission, pricing
from lifecycle import history
from lifecycle.models import TenantEvent
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import Reseller, Tenant
from tenants.resolve import forget


class Move(NamedTuple):
    """A tenant that has moved, and what was settled with the resellers before: micro-yuan by reseller's slug."""

    tenant: Tenant
    settled: dict[str, int]


def under_water(*, tenant_id: int, reseller_id: int | None) -> list[str]:
    """Return what the tenant would sell below what the new reseller's tenants pay, now or later; for a look before."""
    with scope.tenant(tenant_id), transaction.atomic():
        mark = transaction.savepoint()
        try:
            Tenant.objects.filter(pk=tenant_id).update(reseller_id=reseller_id)
            return _below(tenant_id)
        finally:
            transaction.savepoint_rollback(mark)


def move(*, tenant_id: int, reseller_id: int | None, reason: str, actor: str) -> Move:
    """Move a tenant; not in a tenant's scope.

    Raises ProductError INVALID "tenant_state" for one that is closed, "same_reseller", "reason_wanted", or
    "prices_below_floor" with the `skus` that would be sold below what they cost: the tenant raises those first.
    """
    if not reason.strip():
        raise ProductError(ErrorCode.INVALID, _("A reason is wanted."), type="reason_wanted")
    with transaction.atomic():
        # No price or share may change between the look and the move.
        pricing.lock_terms()
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        _require_movable(tenant, reseller_id)
        old, new = tenant.reseller, Reseller.objects.get(pk=reseller_id) if reseller_id else None
        Tenant.objects.filter(pk=tenant_id).update(reseller=new)
        tenant.reseller = new
        if below := _below(tenant_id):
            raise ProductError(
                ErrorCode.INVALID,
                _("At the new reseller's prices the tenant would sell below what it pays: %(skus)s.")
                % {"skus": ", ".join(below)},
                type="prices_below_floor",
                skus=below,
            )
        settled = {Reseller.objects.get(pk=pk).slug: amount for pk, amount in _settle(tenant_id).items()}
        history.record(
            tenant=tenant,
            kind=TenantEvent.Kind.MOVED,
            actor=actor,
            reason=reason,
            old=old.slug if old else None,
            new=new.slug if new else None,
            settled={slug: str(amount) for slug, amount in settled.items()},
        )
        transaction.on_commit(forget)
    return Move(tenant, settled)


def _require_movable(tenant: Tenant, reseller_id: int | None) -> None:
    if tenant.status == Tenant.Status.CLOSED:
        raise ProductError(
            ErrorCode.INVALID,
            _("The tenant is not in a state in which this can be done. Load the page again."),
            type="tenant_state",
        )
    if tenant.reseller_id == reseller_id:
        raise ProductError(ErrorCode.INVALID, _("The tenant is this reseller's already."), type="same_reseller")


def _below(tenant_id: int) -> list[str]:
    return sorted({price.sku for price, _floor in pricing.below_floor(tenant_id=tenant_id)})


def _settle(tenant_id: int) -> dict[int, int]:
    with scope.platform("what a tenant that moves has earned resellers"):
        return commission.fold_tenant(tenant_id=tenant_id)
