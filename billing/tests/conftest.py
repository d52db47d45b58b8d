"""A tenant with a price list, a full wallet and one user: where most of billing's tests begin."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from billing import audit, holds
from billing.models import Account, Hold
from tenants import scope
from tenants.models import EndUser, Tenant
from tests.factories import admit, fill_wallet, hold_request, make_sku, make_tenant, make_user

# So that a failure there says what was compared, as it does in a test's own file.
pytest.register_assert_rewrite("billing.tests.machine")


@dataclass(frozen=True, kw_only=True)
class Shop:
    tenant: Tenant
    user: EndUser
    sku: str

    def request(self, **fields: Any) -> holds.HoldRequest:
        return hold_request(self.user, **{"sku": self.sku, **fields})

    def admit(self, **fields: Any) -> Hold:
        return admit(self.request(**fields))

    def settle(self, hold: Hold, **usage: Any) -> holds.Receipt | None:
        used = {"prompt": 1000, "completion": 500, "source": "upstream", **usage}
        return holds.settle(tenant_id=self.tenant.pk, hold_id=hold.pk, usage=holds.Usage(**used), reason="stop")

    def void(self, hold: Hold) -> bool:
        return holds.void(tenant_id=self.tenant.pk, hold_id=hold.pk, reason="failed")

    def hold(self, hold: Hold) -> Hold:
        with scope.tenant(self.tenant.pk):
            return Hold.objects.get(pk=hold.pk)

    def books(self) -> dict[str, tuple[int, int]]:
        """Every account of the tenant that is not empty: its kind and channel, what is posted and pending."""
        with scope.tenant(self.tenant.pk):
            return {
                f"{row.kind}:{row.channel}".rstrip(":"): (row.posted, row.pending)
                for row in Account.objects.exclude(posted=0, pending=0)
            }

    def open_more(self) -> EndUser:
        """Another user of the same tenant."""
        return make_user(self.tenant)


def open_shop(**tenant: Any) -> Shop:
    shop = make_tenant(**tenant)
    fill_wallet(shop)
    return Shop(tenant=shop, user=make_user(shop), sku=make_sku(shop))


@pytest.fixture
def shop(db: None) -> Iterator[Shop]:
    """Whatever a test did there, the books are right at its end."""
    shop = open_shop()
    yield shop
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []


@pytest.fixture
def committed_shop(committed_db: None) -> Iterator[Shop]:
    """The same for tests with several connections: what they write stays."""
    shop = open_shop()
    yield shop
    assert audit.audit_tenant(tenant_id=shop.tenant.pk) == []
