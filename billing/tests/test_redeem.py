"""A code is worth its amount, once, to a user of its tenant, and a dump of the database holds none."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.utils import translation
from psycopg import sql
from pytest_django import Settings

from billing import audit, codes, ledger, redeem
from billing.ledger import Balances
from billing.models import RedeemBatch, RedeemCode, Transfer
from billing.tests.conftest import Shop, open_shop
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser
from tests.factories import YUAN, make_codes, make_user


@pytest.fixture(autouse=True)
def _encryption(settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]


@pytest.fixture
def broken_shop(db: None) -> Iterator[Shop]:
    """A shop that is not audited at its end, and whose rows no trigger guards."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("billing_redeemcode", "billing_transfer", "billing_entry"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield open_shop()
    transaction.set_rollback(True)


def use(user: EndUser, code: str) -> Transfer:
    return redeem.redeem(tenant_id=user.tenant_id, user_id=user.pk, code=code)


def attempt(user: EndUser, code: str) -> str:
    """Try a code; return what came of it."""
    try:
        use(user, code)
    except ProductError as refusal:
        return refusal.type if refusal.code == ErrorCode.INVALID else f"{refusal.code} {refusal.type}"
    return "redeemed"


def balance(user: EndUser) -> Balances:
    return ledger.balances(tenant_id=user.tenant_id, user_id=user.pk)


def row_of(shop: Shop, code: str) -> RedeemCode:
    with scope.tenant(shop.tenant.pk):
        return RedeemCode.objects.select_related("batch").get(digest=codes.digest_of(code.replace("-", "")))


def breaches(shop: Shop) -> list[tuple[str, str, str]]:
    found = audit.audit_tenant(tenant_id=shop.tenant.pk)
    return [(breach.invariant, breach.row, breach.found) for breach in found]


def expire(shop: Shop, code: str) -> None:
    with scope.tenant(shop.tenant.pk):
        RedeemBatch.objects.filter(pk=row_of(shop, code).batch_id).update(expires_at=Now() - timedelta(seconds=1))


def test_a_code_becomes_balance(shop: Shop) -> None:
    (code,) = make_codes(shop.tenant, name="Spring")
    transfer = use(shop.user, code.lower().replace("-", " "))
    row = row_of(shop, code)
    assert (transfer.kind, transfer.ref, transfer.actor) == ("redeem", str(row.pk), f"user {shop.user.pk}")
    assert transfer.reason == f"Spring …{code[-4:]}"
    assert balance(shop.user) == Balances(cash=10 * YUAN, gift=0, pending=0)
    assert shop.books()["psp_clearing:redeem"] == (-10 * YUAN, 0)
    assert (row.redeemed_by_id, row.redeemed_at is None) == (shop.user.pk, False)


def test_a_gift_is_a_gift(shop: Shop) -> None:
    (code,) = make_codes(shop.tenant, kind="gift")
    assert use(shop.user, code).kind == "redeem"
    assert balance(shop.user) == Balances(cash=0, gift=10 * YUAN, pending=0)
    assert shop.books()["psp_clearing:gift"] == (-10 * YUAN, 0)


def test_a_guest_may_redeem(shop: Shop) -> None:
    guest = make_user(shop.tenant, is_guest=True)
    assert attempt(guest, make_codes(shop.tenant)[0]) == "redeemed"
    assert balance(guest).cash == 10 * YUAN


def test_a_second_time_is_refused_and_says_whose_the_first_was(shop: Shop) -> None:
    (code,) = make_codes(shop.tenant)
    use(shop.user, code)
    for user, msg in (
        (shop.user, "You have redeemed this code before."),
        (shop.open_more(), "Someone has redeemed this code before."),
    ):
        with pytest.raises(ProductError) as refused:
            use(user, code)
        with translation.override("en"):
            said = str(refused.value.msg)
        assert (int(refused.value.code), refused.value.type, said) == (10001, "redeem_code_used", msg)
    assert balance(shop.user).cash == 10 * YUAN


def test_wrong_expired_and_revoked_codes_are_told_apart(shop: Shop) -> None:
    open_code, late, revoked, of_a_revoked_batch = (make_codes(shop.tenant)[0] for _ in range(4))
    expire(shop, late)
    assert redeem.revoke_code(tenant_id=shop.tenant.pk, code_id=row_of(shop, revoked).pk)
    batch_id = row_of(shop, of_a_revoked_batch).batch_id
    assert redeem.revoke_batch(tenant_id=shop.tenant.pk, batch_id=batch_id) == 1
    got = [attempt(shop.user, code) for code in (late, revoked, of_a_revoked_batch, codes.new_code(), "nonsense")]
    assert got == [
        "redeem_code_expired",
        "redeem_code_revoked",
        "redeem_code_revoked",
        "redeem_code_unknown",
        "redeem_code_unknown",
    ]
    assert balance(shop.user).available == 0
    assert attempt(shop.user, open_code) == "redeemed"


def test_a_code_that_will_expire_is_good_until_then(shop: Shop) -> None:
    with scope.tenant(shop.tenant.pk):
        (code,) = make_codes(shop.tenant, expires_at=Now() + timedelta(hours=1))
    assert attempt(shop.user, code) == "redeemed"


def test_another_tenants_code_is_unknown(shop: Shop) -> None:
    other = open_shop()
    (code,) = make_codes(other.tenant)
    assert attempt(shop.user, code) == "redeem_code_unknown"
    assert attempt(other.user, code) == "redeemed"
    assert attempt(shop.user, code) == "redeem_code_unknown"
    assert (balance(shop.user).cash, balance(other.user).cash) == (0, 10 * YUAN)


def test_a_batch_may_be_limited_for_each_user(shop: Shop) -> None:
    made = make_codes(shop.tenant, 4, per_user_limit=2)
    assert [attempt(shop.user, code) for code in made[:3]] == ["redeemed", "redeemed", "redeem_limit_reached"]
    assert row_of(shop, made[2]).redeemed_at is None
    assert attempt(shop.open_more(), made[2]) == "redeemed"
    assert attempt(shop.user, make_codes(shop.tenant, per_user_limit=2)[0]) == "redeemed"
    assert balance(shop.user).cash == 30 * YUAN


def test_revoking_takes_nothing_back(shop: Shop) -> None:
    used, left = make_codes(shop.tenant, 2)
    use(shop.user, used)
    row = row_of(shop, used)
    assert redeem.revoke_code(tenant_id=shop.tenant.pk, code_id=row.pk) is False
    assert [redeem.revoke_batch(tenant_id=shop.tenant.pk, batch_id=row.batch_id) for _ in range(2)] == [1, 0]
    assert (row_of(shop, used).revoked_at, row_of(shop, left).revoked_at is None) == (None, False)
    assert row_of(shop, left).batch.revoked_at is not None
    assert balance(shop.user).cash == 10 * YUAN


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"count": 10_001},
        {"amount": 0},
        {"amount": 10**11 + 1},
        {"kind": "points"},
        {"name": " "},
        {"per_user_limit": 0},
    ],
)
def test_a_batch_that_makes_no_sense_is_not_made(shop: Shop, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make_codes(shop.tenant, **{"count": 1, **wrong})
    with scope.tenant(shop.tenant.pk):
        assert RedeemBatch.objects.count() == 0


def test_a_code_outlives_a_change_of_the_secret_key_that_is_declared(shop: Shop, settings: Settings) -> None:
    first, second = make_codes(shop.tenant, 2)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another", [settings.SECRET_KEY]
    assert attempt(shop.user, first) == "redeemed"
    settings.SECRET_KEY_FALLBACKS = []
    assert attempt(shop.user, second) == "redeem_code_unknown"


def test_a_dump_shows_no_clear_code(shop: Shop) -> None:
    used, left = make_codes(shop.tenant, 2)
    use(shop.user, used)
    dump = ""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        for (table,) in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT row_to_json(t)::text FROM {} t").format(sql.Identifier(table)))
            dump += "\n".join(row for (row,) in cursor.fetchall())
    assert row_of(shop, left).digest in dump
    for code in (used, left):
        bare = code.replace("-", "")
        guesses = [hashlib.sha256(text.encode()).hexdigest() for text in (code, bare, bare.lower())]
        assert [text for text in (code, bare, bare[:12], *guesses) if text.lower() in dump.lower()] == []


def test_the_database_refuses_to_redeem_a_code_again(shop: Shop) -> None:
    (code,) = make_codes(shop.tenant)
    use(shop.user, code)
    row, other = row_of(shop, code), shop.open_more()
    for change in ({"redeemed_by": other}, {"redeemed_by": None, "redeemed_at": None}, {"redeemed_at": Now()}):
        with (
            scope.tenant(shop.tenant.pk),
            pytest.raises(IntegrityError, match="was redeemed"),
            transaction.atomic(),
        ):
            RedeemCode.objects.filter(pk=row.pk).update(**change)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE billing_redeembatch SET amount = amount + 1", "redeemed, transfers 1, credited 10000000 of 10000001"),
        (
            "UPDATE billing_redeemcode SET redeemed_at = NULL, redeemed_by_id = NULL",
            "open, transfers 1, credited 0 of 10000000",
        ),
        (
            "UPDATE billing_transfer SET kind = 'gift'",
            "redeemed, transfers 0, credited 0 of 10000000",
        ),
        ("UPDATE billing_redeembatch SET kind = 'gift'", "redeemed, transfers 1, credited 0 of 10000000"),
    ],
)
def test_i8_finds_a_code_whose_transfer_is_not_its_own(broken_shop: Shop, statement: str, found: str) -> None:
    shop = broken_shop
    used, _open = make_codes(shop.tenant, 2)
    with scope.tenant(shop.tenant.pk):
        use(shop.user, used)
    assert breaches(shop) == []
    which = " AND kind = 'redeem'" if "billing_transfer" in statement else ""
    which = " AND redeemed_at IS NOT NULL" if "billing_redeemcode" in statement else which
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} WHERE tenant_id = %s{which}", [shop.tenant.pk])
        assert cursor.rowcount == 1
    assert breaches(shop) == [("I8", f"redeem code {row_of(shop, used).pk}", found)]


def test_i8_finds_a_transfer_without_a_code(broken_shop: Shop) -> None:
    shop = broken_shop
    (code,) = make_codes(shop.tenant)
    transfer = use(shop.user, code)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM billing_redeemcode WHERE tenant_id = %s", [shop.tenant.pk])
    assert breaches(shop) == [("I8", f"transfer {transfer.pk}", "redeems no code")]


def test_one_api_2399_fifty_users_use_one_code_at_once(committed_shop: Shop) -> None:
    shop = committed_shop
    (code,) = make_codes(shop.tenant)
    users = [shop.open_more() for _ in range(50)]
    got = Counter(together([partial(attempt, user, code) for user in users]))
    assert got == {"redeemed": 1, "redeem_code_used": 49}
    assert sum(balance(user).cash for user in users) == 10 * YUAN


def test_new_api_4302_one_user_sends_a_code_fifty_times_at_once(committed_shop: Shop) -> None:
    shop = committed_shop
    (code,) = make_codes(shop.tenant)
    got = Counter(together([partial(attempt, shop.user, code)] * 50))
    assert got == {"redeemed": 1, "redeem_code_used": 49}
    assert balance(shop.user) == Balances(cash=10 * YUAN, gift=0, pending=0)


def test_the_limit_of_a_user_holds_at_once(committed_shop: Shop) -> None:
    shop = committed_shop
    made = make_codes(shop.tenant, 10, per_user_limit=3)
    got = Counter(together([partial(attempt, shop.user, code) for code in made]))
    assert got == {"redeemed": 3, "redeem_limit_reached": 7}
    assert balance(shop.user).cash == 30 * YUAN


def test_a_code_is_redeemed_or_revoked_and_never_both(committed_shop: Shop) -> None:
    shop = committed_shop
    made = make_codes(shop.tenant, 12)
    batch_id, users = row_of(shop, made[0]).batch_id, [shop.open_more() for _ in made]

    def revoke() -> int:
        return redeem.revoke_batch(tenant_id=shop.tenant.pk, batch_id=batch_id)

    jobs: list[Callable[[], str | int]] = [partial(attempt, user, code) for user, code in zip(users, made, strict=True)]
    got = together([*jobs, revoke, revoke])
    redeemed, revoked = got.count("redeemed"), sum(count for count in got if isinstance(count, int))
    assert (redeemed + revoked, got.count("redeem_code_revoked")) == (12, revoked)
    assert sum(balance(user).cash for user in users) == redeemed * 10 * YUAN
