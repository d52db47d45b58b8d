"""A tenant that is sold by a reseller below another one: where the tests of commission begin."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import F

from billing import audit, commission
from billing.models import Account, Commission
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tenants.models import Reseller
from tests.factories import credit, make_reseller, make_terms

# Earlier tests may have committed posted holds that no worker will record.
FOREVER = 10**9
# What an answer of 1000 and 500 tokens costs at the usual prices.
CHARGE, WHOLESALE = 5000, 2500


@dataclass(frozen=True, kw_only=True)
class Grove:
    """A shop of `child`, which stands below `parent`."""

    shop: Shop
    child: Reseller
    parent: Reseller

    def answer(self, **usage: int) -> None:
        """Let the shop's user pay for an answer."""
        credit(self.shop.user, 10 * CHARGE)
        self.shop.settle(self.shop.admit(), **usage)

    def of(self, reseller: Reseller) -> dict[str, int]:
        """Every account of a reseller that is not empty: its kind, and what is posted."""
        with scope.platform("test"):
            rows = Account.objects.filter(reseller=reseller).exclude(posted=0)
            return {row.kind.removeprefix("reseller_"): row.posted for row in rows}

    def commissions(self, reseller: Reseller) -> list[Commission]:
        """What was folded for a reseller, oldest first."""
        with scope.platform("test"):
            return list(Commission.objects.filter(reseller=reseller).order_by("pk"))

    def matured(self) -> None:
        """Let the days pass for which commissions are frozen, then set them free."""
        with scope.platform("test"):
            rows = Commission.objects.filter(reseller__in=[self.child, self.parent])
            rows.update(release_at=F("release_at") - timedelta(days=366))
        commission.release_matured()


def open_grove(*, own_ppm: int = 100_000, parent_ppm: int = 50_000, **terms: int) -> Grove:
    """Open it: the child gets 10 % of the wholesale charge, its parent 5 %."""
    parent = make_reseller()
    child = make_reseller(parent=parent)
    make_terms(parent, own_ppm=0, parent_ppm=parent_ppm, **terms)
    make_terms(child, own_ppm=own_ppm, **terms)
    return Grove(shop=open_shop(reseller=child), child=child, parent=parent)


def whole_audit() -> list[audit.Breach]:
    """The breaches of the whole ledger, the platform's own rows among them."""
    return audit.breaches_of(audit.audit(record_grace_seconds=FOREVER))
