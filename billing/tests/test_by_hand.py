"""Credits by hand at once: together they stay within what one person may give away."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from django.db import connections

from billing import by_hand, ledger
from billing.tests.conftest import Shop
from tenants.errors import ProductError
from tenants.models import Membership
from tests.factories import YUAN, make_staff


def test_of_several_credits_at_once_that_are_too_much_together_one_is_given(
    committed_shop: Shop, settings: Any
) -> None:
    settings.STAFF_CREDIT_YUAN_PER_DAY = 100
    shop = committed_shop
    clerk = make_staff(shop.tenant, role=Membership.Role.FINANCE)

    def attempt(_number: int) -> str:
        try:
            by_hand.credit_by_hand(
                user=shop.user, amount=60 * YUAN, kind="gift", number=uuid4(), reason="a gift", staff=clerk
            )
        except ProductError as refusal:
            return refusal.type
        finally:
            connections.close_all()
        return "given"

    with ThreadPoolExecutor(4) as threads:
        done = sorted(threads.map(attempt, range(4)))
    assert done == ["given", *["staff_credit_limit"] * 3]
    assert ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk).gift == 60 * YUAN
