from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from billing import wallet
from billing.tests.conftest import Shop
from tests.factories import YUAN, make_reseller


def run(**options: str) -> str:
    out = StringIO()
    call_command("credit_wallet", stdout=out, **{"yuan": "20.5", "reason": "paid by bank", **options})
    return out.getvalue()


def test_a_tenant_s_wallet(shop: Shop) -> None:
    before = wallet.balance_of(tenant_id=shop.tenant.pk)
    for _ in range(2):
        said = run(tenant=shop.tenant.slug, ref="once")
    assert said == f"tenant {shop.tenant.slug}: ¥20.50 topped up, ¥1020.50 in the wallet.\n"
    assert wallet.balance_of(tenant_id=shop.tenant.pk) == before + 20_500_000


def test_a_reseller_s_wallet(db: None) -> None:
    reseller = make_reseller()
    for _ in range(2):
        run(reseller=reseller.slug)
    assert wallet.balance_of(reseller_id=reseller.pk) == 41 * YUAN


@pytest.mark.parametrize(
    "wrong", [{"yuan": "0"}, {"yuan": "1e3"}, {"reason": " "}, {"reseller": "nobody"}, {"ref": "taken"}]
)
def test_what_makes_no_sense_is_refused(db: None, wrong: dict[str, str]) -> None:
    reseller = make_reseller()
    run(reseller=reseller.slug, ref="taken", yuan="1")
    with pytest.raises(CommandError):
        run(**{"reseller": reseller.slug, **wrong})
    assert wallet.balance_of(reseller_id=reseller.pk) == YUAN


def test_a_wallet_is_of_one_owner(shop: Shop) -> None:
    with pytest.raises(CommandError):
        run()
    with pytest.raises(CommandError):
        run(tenant=shop.tenant.slug, reseller="x")
