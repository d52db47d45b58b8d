from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import translation

from billing import audit, tasks, usage
from billing.management.commands.audit_ledger import Command
from billing.models import Account
from billing.tests.conftest import Shop, open_shop
from tenants import scope
from tests.factories import credit

SOUND = """\
     what is always true                                                    rows  breaches
I1   the entries of a transfer sum to zero                                     3         0
I2   a balance is the sum of its entries                                       8         0
I3   what is available is never below zero, but for clearing and shortfall     8         0
I4   what is pending is the sum of the open holds                              8         0
I5   a hold ends at most once                                                  2         0
I6   a posted hold has one usage record, which re-rates to the same amount     2         0
I7   a paid order has one top-up or plan, refunds of no more than was paid     0         0
I8   a code is redeemed at most once                                           0         0
I9   the user's charge is the wholesale charge and the tenant's margin         2         0
I10  no transfer crosses tenants                                               8         0
I11  clearing agrees with the providers' daily bills                           0         0
I12  a reward is given at most once and for its row                            0         0
I13  a plan's and a cap's counters say what their answers used                 0         0
R1   a commission is folded once and set free once, of its own amount          0         0
R2   shares are taken back at most once, as refunds noted                      0         0
R3   a withdrawal is taken once, then paid or returned once                    0         0
R4   a confirmed top-up has filled its wallet once                             0         0

No breach.
"""


@pytest.fixture
def shop(db: None) -> Shop:
    """A shop with a posted and an open hold; the sweep has recorded what earlier tests committed and left."""
    shop = open_shop()
    credit(shop.user, 100_000)
    hold = shop.admit()
    shop.settle(hold)
    usage.record(tenant_id=shop.tenant.pk, hold_id=hold.pk)
    shop.admit()
    tasks.sweep_unrecorded()
    return shop


def run(*arguments: str) -> tuple[int, str]:
    """Return the exit code and what was printed."""
    out = StringIO()
    try:
        call_command("audit_ledger", *arguments, stdout=out)
    except SystemExit as ended:
        return int(str(ended.code)), out.getvalue()
    return 0, out.getvalue()


def add(shop: Shop, **columns: int) -> int:
    """Change an account past the ledger; return it."""
    with scope.tenant(shop.tenant.pk):
        account = Account.objects.get(user=shop.user, kind="user_cash")
        Account.objects.filter(pk=account.pk).update(**columns)
    return account.pk


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_sound_books(shop: Shop, language: str) -> None:
    with translation.override(language):
        assert run("--tenant", shop.tenant.slug) == (0, SOUND)


def test_broken_books(shop: Shop) -> None:
    account = add(shop, posted=100_000, pending=7)
    code, said = run("--tenant", shop.tenant.slug)
    table = SOUND.splitlines()[:-2]
    for line in (2, 4):
        table[line] = f"{table[line][:-1]}1"
    assert said.splitlines() == [
        *table,
        "",
        "I2 is broken by:",
        f"  {shop.tenant.slug}: account {account}: posted 100000, entries 95000",
        "",
        "I4 is broken by:",
        f"  {shop.tenant.slug}: account {account}: pending 7, holds 8000",
        "",
        "2 breaches.",
    ]
    assert code == 1


def test_one_breach_is_one(shop: Shop) -> None:
    add(shop, posted=100_000)
    code, said = run()
    assert (code, said.splitlines()[-1]) == (1, "1 breach.")


def test_breaches_beyond_the_first_are_a_number(shop: Shop) -> None:
    for _ in range(11):
        credit(shop.open_more(), 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_account SET posted = posted + 1 WHERE tenant_id = %s AND user_id IS NOT NULL",
            [shop.tenant.pk],
        )
    code, said = run("--tenant", shop.tenant.slug)
    lines = said.splitlines()
    first = len(audit.CHECKS) + 2
    assert lines[first] == "I2 is broken by:"
    assert lines[first + 1 + audit.SHOWN :] == ["  … and 4 more", "", "24 breaches."]
    assert code == 1


def test_without_a_tenant_it_is_about_all_of_them(shop: Shop) -> None:
    other = open_shop()
    credit(other.user, 5)
    assert run()[0] == 0
    accounts = {each.tenant.slug: add(each, posted=90_000) for each in (other, shop)}
    code, said = run()
    broken = said.split("I2 is broken by:\n")[1].split("\n\n")[0].splitlines()
    assert sorted(broken) == sorted(
        f"  {slug}: account {account}: posted 90000, entries {5 if slug == other.tenant.slug else 95_000}"
        for slug, account in accounts.items()
    )
    assert code == 1


def test_another_tenant_s_breach_is_not_this_one_s(shop: Shop) -> None:
    other = open_shop()
    credit(other.user, 5)
    add(other, posted=4)
    assert run("--tenant", shop.tenant.slug) == (0, SOUND)


@pytest.mark.parametrize("slug", ["nobody", ""])
def test_an_unknown_tenant_is_exit_code_2(db: None, slug: str) -> None:
    with pytest.raises(CommandError) as refused:
        run("--tenant", slug)
    assert (refused.value.returncode, str(refused.value)) == (2, f"There is no tenant {slug!r}.")


def test_an_unknown_option_is_exit_code_2() -> None:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "audit_ledger", "--fix"])
    assert ended.value.code == 2
