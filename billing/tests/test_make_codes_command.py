from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from billing import ledger, redeem
from billing.ledger import Balances
from billing.models import RedeemBatch
from billing.tests.conftest import Shop
from tenants import scope


@pytest.fixture(autouse=True)
def _encryption(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


def run(shop: Shop, **options: Any) -> list[str]:
    out = StringIO()
    asked = {"tenant": shop.tenant.slug, "yuan": "10", "count": 3, "name": "Spring", **options}
    call_command("make_codes", stdout=out, **asked)
    return out.getvalue().splitlines()


def test_it_prints_the_codes_and_nothing_else(shop: Shop) -> None:
    printed = run(shop, yuan="0.5", gift=True)
    assert len(set(printed)) == 3
    for code in printed:
        redeem.redeem(tenant_id=shop.tenant.pk, user_id=shop.user.pk, code=code)
    balances = ledger.balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk)
    assert balances == Balances(cash=0, gift=1_500_000, pending=0)


def test_the_batch_is_as_it_was_asked_for(shop: Shop) -> None:
    before = timezone.now()
    run(shop, expires_days=30, per_user_limit=2)
    with scope.tenant(shop.tenant.pk):
        batch = RedeemBatch.objects.get()
    assert (batch.name, batch.kind, batch.count, batch.per_user_limit) == ("Spring", "cash", 3, 2)
    assert batch.created_by.startswith("command line, ")
    assert batch.expires_at is not None
    assert before + timedelta(days=30) <= batch.expires_at <= timezone.now() + timedelta(days=30)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tenant": "nobody"}, "There is no tenant 'nobody'."),
        ({"yuan": "-1"}, "not an amount in yuan"),
        ({"yuan": "100001"}, "a code is worth 1 to"),
        ({"count": 0}, "a batch has 1 to"),
        ({"name": " "}, "needs a name"),
        ({"expires_days": 0}, "--expires-days is 1 at least."),
        ({"per_user_limit": 0}, "a limit per user is 1 at least"),
    ],
)
def test_bad_input_is_one_clear_sentence(shop: Shop, options: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandError) as refused:
        run(shop, **options)
    assert said in str(refused.value)
    with scope.tenant(shop.tenant.pk):
        assert RedeemBatch.objects.count() == 0
