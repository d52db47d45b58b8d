from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from billing.ledger import Balances, balances
from billing.models import Transfer
from billing.tests.conftest import Shop, open_shop
from tenants import scope


def run(shop: Shop, **options: Any) -> str:
    asked = {"tenant": shop.tenant.slug, "user": shop.user.username, "yuan": "20", "reason": "a birthday", **options}
    out = StringIO()
    call_command("credit", stdout=out, **asked)
    return out.getvalue()


def balance(shop: Shop) -> Balances:
    return balances(tenant_id=shop.tenant.pk, user_id=shop.user.pk)


def test_a_credit_goes_through_the_ledger(shop: Shop) -> None:
    said = run(shop, yuan="20.05")
    assert said == f"{shop.user.username} of {shop.tenant.slug}: ¥20.05 credited, ¥20.05 available.\n"
    assert balance(shop) == Balances(cash=20_050_000, gift=0, pending=0)
    with scope.tenant(shop.tenant.pk):
        transfer = Transfer.objects.get(kind="credit")
    assert transfer.reason == "a birthday"
    assert transfer.actor.startswith("command line, ")


def test_a_gift_is_a_gift(shop: Shop) -> None:
    run(shop, gift=True)
    assert balance(shop) == Balances(cash=0, gift=20_000_000, pending=0)


def test_each_call_credits_unless_it_names_its_reference(shop: Shop) -> None:
    for ref in ("", "", "order 7", "order 7"):
        run(shop, ref=ref)
    assert balance(shop).cash == 60_000_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tenant": "nobody"}, "There is no tenant 'nobody'."),
        ({"user": "nobody"}, "has no user 'nobody'."),
        ({"reason": " "}, "A credit needs a reason."),
        ({"yuan": "-1"}, "not an amount in yuan"),
        ({"yuan": "NaN"}, "not an amount in yuan"),
        ({"yuan": "0.0000001"}, "not an amount in yuan"),
        ({"yuan": "1e9"}, "not an amount in yuan"),
        ({"yuan": "99999999999"}, "not an amount in yuan"),
        ({"yuan": "0"}, "an amount is 1 to"),
    ],
)
def test_bad_input_is_one_clear_sentence(shop: Shop, options: dict[str, str], said: str) -> None:
    with pytest.raises(CommandError) as refused:
        run(shop, **options)
    assert said in str(refused.value)
    assert balance(shop) == Balances(cash=0, gift=0, pending=0)


def test_a_reference_of_another_amount_is_refused(shop: Shop) -> None:
    run(shop, ref="order 7")
    with pytest.raises(CommandError, match="was used for another transfer"):
        run(shop, ref="order 7", yuan="21")
    assert balance(shop).cash == 20_000_000


def test_a_user_of_another_tenant_is_not_found(shop: Shop) -> None:
    stranger = open_shop()
    with pytest.raises(CommandError, match="has no user"):
        run(shop, user=stranger.user.username)
    assert balance(stranger).cash == 0
