"""The audit's I12: each test breaks the books of rewards in one way, past every guard of the database."""

import pytest
from django.db import connection

from billing.tests.rewards.conftest import Farm
from billing.tests.rewards.test_bonuses import attempt, claim, watch
from tests.factories import YUAN


@pytest.fixture
def rewarded(broken_farm: Farm) -> Farm:
    """One of everything: signed in, watched, two vested invitations, one of them taken back and spent before."""
    farm = broken_farm
    first, second = farm.invite(), farm.invite()
    ref = farm.pay(first)
    farm.sweep()
    farm.spend_gift(farm.user, 2 * YUAN)
    farm.refund(first, ref)
    farm.sweep()
    farm.pay(second)
    farm.sweep()
    farm.invite()
    attempt(second)
    claim(second)
    watch(second)
    assert (farm.gift(), farm.owed()) == (YUAN, 0)
    assert farm.breaches() == []
    return farm


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "UPDATE billing_signin SET amount = amount + 1",
            {"signed in, transfers 1, gift 100000 of 100001, owed 0 of 0"},
        ),
        ("UPDATE billing_adticket SET amount = 2", {"redeemed, transfers 1, gift 1000000 of 2, owed 0 of 0"}),
        (
            "UPDATE billing_adticket SET redeemed_at = NULL, redeemed_on = NULL",
            {"open, transfers 1, gift 1000000 of 1000000, owed 0 of 0"},
        ),
        (
            "UPDATE billing_adticket SET redeemed_at = now(), redeemed_on = now()",
            {"redeemed, transfers 0, gift 0 of 1000000, owed 0 of 0"},
        ),
        ("DELETE FROM billing_signin", {"sign_in for no reward"}),
        (
            (
                "UPDATE billing_invitationreward SET state = 'due', given_on = NULL WHERE side = 'invitee'"
                " AND state = 'given'"
            ),
            {"due, transfers 1, gift 2000000 of 2000000, owed 0 of 0"},
        ),
        (
            (
                "UPDATE billing_invitationreward SET state = 'back_due', taken = 0, owed = 0 WHERE side = 'invitee'"
                " AND state = 'back'"
            ),
            {"back_due, transfers 1, gift -2000000 of 0, owed 0 of 0"},
        ),
        (
            (
                "UPDATE billing_invitationreward SET taken = taken + 1, owed = owed - 1 WHERE side = 'inviter'"
                " AND state = 'back'"
            ),
            {
                "back, transfers 1, gift -1000000 of -1000001, owed 2000000 of 1999999",
                "owes 0 of rewards, should owe -1",
            },
        ),
        ("UPDATE billing_rewarddebt SET owed = 7", {"owes 7 of rewards, should owe 0"}),
        ("DELETE FROM billing_transfer WHERE ref LIKE 'net:%%'", {"owes 0 of rewards, should owe 2000000"}),
        (
            "UPDATE billing_transfer SET kind = 'gift' WHERE kind = 'ad'",
            {"redeemed, transfers 0, gift 0 of 1000000, owed 0 of 0"},
        ),
        (
            (
                "UPDATE billing_invitation SET state = 'pending', payment_ref = '', vested_at = NULL"
                " WHERE state = 'vested'"
            ),
            {"waits for a payment that was made"},
        ),
    ],
)
def test_each_break_is_found(rewarded: Farm, statement: str, found: set[str]) -> None:
    where = "AND" if "WHERE" in statement else "WHERE"
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} {where} tenant_id = %s", [rewarded.tenant.pk])
        assert cursor.rowcount > 0
    assert {text for invariant, _, text in rewarded.breaches() if invariant == "I12"} == found


def test_a_reward_given_to_someone_else_is_found(rewarded: Farm) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_signin SET user_id = %s WHERE tenant_id = %s", [rewarded.user.pk, rewarded.tenant.pk]
        )
    ((invariant, row, found),) = rewarded.breaches()
    assert (invariant, row.startswith("sign-in "), found) == (
        "I12",
        True,
        "signed in, transfers 1, gift 0 of 100000, owed 0 of 0",
    )
