"""An invitation is rewarded once, by the invited user's first payment, and not to farmers."""

from collections import Counter
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from cryptography.fernet import Fernet
from django.db.models.functions import Now
from pytest_django import Settings

from billing import ledger, redeem, rewards, tasks
from billing.ledger import Balances
from billing.models import Channel, Invitation, InvitationReward, RewardOrigin, Transfer
from billing.tests.rewards.conftest import Farm, open_farm
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.models import EndUser
from tests.factories import YUAN, credit, freeze, make_codes, unfreeze

GIVEN = [("inviter", "given", ""), ("invitee", "given", "")]


def test_a_first_payment_rewards_both(farm: Farm) -> None:
    invitee = farm.invite()
    assert (farm.states(invitee), farm.sweep()) == (("pending", []), 0)
    ref = farm.pay(invitee)
    assert farm.states(invitee) == ("vested", [("inviter", "due", ""), ("invitee", "due", "")])
    assert (farm.gift(), farm.gift(invitee)) == (0, 0)
    assert [farm.sweep(), farm.sweep()] == [2, 0]
    assert farm.states(invitee) == ("vested", GIVEN)
    assert (farm.gift(), farm.gift(invitee), farm.balance(invitee).cash) == (3 * YUAN, 2 * YUAN, 10 * YUAN)
    with scope.tenant(farm.tenant.pk):
        assert Invitation.objects.get().payment_ref == ref
        made = list(Transfer.objects.filter(kind="invitation").values_list("actor", "reason"))
        assert made == [("rewards", f"invitation {Invitation.objects.get().pk}")] * 2


def test_only_the_first_payment_counts(farm: Farm) -> None:
    invitee = farm.invite()
    for _ in range(3):
        farm.pay(invitee)
        farm.sweep()
    assert (farm.gift(), farm.gift(invitee)) == (3 * YUAN, 2 * YUAN)


@pytest.mark.parametrize("channel", Channel.values)
def test_new_api_187_no_way_of_paying_misses_the_reward(farm: Farm, channel: str) -> None:
    invitee = farm.invite()
    farm.pay(invitee, channel)
    farm.sweep()
    assert (farm.gift(), farm.gift(invitee)) == (3 * YUAN, 2 * YUAN)


def test_new_api_6197_nothing_without_a_payment(farm: Farm, settings: Settings) -> None:
    """Accounts are free, and so may a code or a credit by hand be: neither is a payment."""
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    invitee = farm.invite()
    credit(invitee, YUAN)
    (code,) = make_codes(farm.tenant)
    redeem.redeem(tenant_id=farm.tenant.pk, user_id=invitee.pk, code=code)
    assert (farm.sweep(), farm.states(invitee), farm.gift()) == (0, ("pending", []), 0)


def test_a_payment_told_twice_vests_once(farm: Farm) -> None:
    invitee = farm.invite()
    order = farm.order(invitee)
    assert [farm.settle(order), farm.settle(order), farm.sweep(), farm.sweep()] == ["credited", "repeated", 2, 0]
    assert farm.gift() == 3 * YUAN


def test_terms_are_those_of_the_day_of_the_invitation(farm: Farm) -> None:
    invitee = farm.invite()
    farm.rules(inviter_amount=0, invitee_amount=0)
    farm.pay(invitee)
    farm.sweep()
    assert (farm.gift(), farm.gift(invitee)) == (3 * YUAN, 2 * YUAN)


def test_one_side_only(farm: Farm) -> None:
    farm.rules(invitee_amount=0)
    invitee = farm.invite()
    farm.pay(invitee)
    assert (farm.sweep(), farm.states(invitee)) == (1, ("vested", GIVEN[:1]))


def test_who_cannot_be_invited(farm: Farm) -> None:
    known, old, payer, own, guest = farm.invite(), farm.person(), farm.person(), farm.user, farm.person(is_guest=True)
    with scope.tenant(farm.tenant.pk):
        EndUser.objects.filter(pk=old.pk).update(created_at=Now() - timedelta(hours=24))
    farm.pay(payer)
    other = farm.code(farm.person())
    assert [
        farm.attempt(known, other),
        farm.attempt(old),
        farm.attempt(payer),
        farm.attempt(own),
        farm.attempt(guest),
        farm.attempt(farm.person(), "22222222"),
        farm.attempt(farm.person(), "nonsense!"),
        farm.attempt(known),
    ] == [
        "10001 invitation_known",
        "10001 invitation_too_late",
        "10001 invitation_after_payment",
        "10001 invitation_own",
        "10001 guest_not_rewarded",
        "10001 invitation_code_unknown",
        "10001 invitation_code_unknown",
        "pending",
    ]


def test_a_code_is_typed_or_pasted(farm: Farm) -> None:
    code = farm.code()
    assert len(code) == 8
    typed = [code.lower(), f" {code[:4]}-{code[4:]} ", f"https://aurora.example/i/{code}?from=chat"]
    assert [farm.attempt(farm.person(), text) for text in typed] == ["pending"] * 3
    assert farm.code() == code


def test_no_circles(farm: Farm) -> None:
    first = farm.user
    second = farm.invite()
    third = farm.person()
    farm.accept(third, farm.code(second))
    assert [farm.attempt(first, farm.code(who)) for who in (second, third)] == ["10001 invitation_circular"] * 2
    assert farm.attempt(first, farm.code(farm.person())) == "pending"


def test_where_nothing_is_offered(farm: Farm) -> None:
    farm.rules(inviter_amount=0, invitee_amount=0)
    assert farm.attempt(farm.person()) == "404 reward_not_offered"


def test_a_blocked_inviter(farm: Farm) -> None:
    invitee = farm.invite()
    farm.pay(invitee)
    with scope.tenant(farm.tenant.pk):
        EndUser.objects.filter(pk=farm.user.pk).update(is_active=False)
    assert farm.attempt(farm.person()) == "10001 invitation_code_unknown"
    farm.sweep()
    assert farm.states(invitee) == ("vested", [("inviter", "refused", "blocked"), GIVEN[1]])
    assert (farm.gift(), farm.gift(invitee)) == (0, 2 * YUAN)


def test_ten_accounts_on_one_device_are_one(farm: Farm) -> None:
    people = [farm.person() for _ in range(10)]
    got = [farm.attempt(person, device="phone") for person in people]
    assert got == ["pending"] + ["device_limit"] * 9
    for person in people:
        farm.pay(person)
    assert (farm.sweep(), farm.gift()) == (2, 3 * YUAN)


def test_ten_accounts_at_one_address_are_three(farm: Farm) -> None:
    people = [farm.person() for _ in range(10)]
    # A phone has all addresses behind its first 64 bits.
    got = [farm.attempt(person, address=f"2001:db8:1:2::{number}") for number, person in enumerate(people)]
    assert got == ["pending"] * 3 + ["address_limit"] * 7
    for person in people:
        farm.pay(person)
    farm.sweep()
    assert farm.gift() == 9 * YUAN


def test_what_is_refused_or_old_does_not_count(farm: Farm) -> None:
    assert [farm.attempt(farm.person(), device="phone") for _ in range(2)] == ["pending", "device_limit"]
    with scope.tenant(farm.tenant.pk):
        Invitation.objects.filter(state="pending").update(created_at=Now() - timedelta(days=31))
    assert [farm.attempt(farm.person(), device="phone") for _ in range(2)] == ["pending", "device_limit"]


@pytest.mark.parametrize(
    ("origin", "refusal"),
    [({"device": "mine"}, "inviter_device"), ({"address": "192.0.2.9"}, "inviter_address")],
)
def test_an_inviters_own_device_and_address(farm: Farm, origin: dict[str, str], refusal: str) -> None:
    code = farm.code(device="mine", address="192.0.2.9")
    farm.code(device="another", address="192.0.2.10")
    second = farm.person()
    assert farm.attempt(second, code, **origin) == refusal
    farm.pay(second)
    assert (farm.sweep(), farm.states(second), farm.gift()) == (0, ("refused", []), 0)
    with scope.tenant(farm.tenant.pk):
        RewardOrigin.objects.update(seen_at=Now() - timedelta(days=31))
    assert farm.attempt(farm.person(), code, **origin) == "pending"


def test_another_tenants_devices_are_others(farm: Farm) -> None:
    other = open_farm()
    assert farm.attempt(farm.person(), device="phone", address="192.0.2.1") == "pending"
    assert other.attempt(other.person(), device="phone", address="192.0.2.1") == "pending"
    with scope.platform("a test"):
        seen = Invitation.objects.filter(tenant__in=[farm.tenant, other.tenant])
        assert len({row.device_digest for row in seen} | {row.address_digest for row in seen}) == 4


def test_another_tenants_code_is_unknown(farm: Farm) -> None:
    other = open_farm()
    assert farm.attempt(farm.person(), other.code()) == "10001 invitation_code_unknown"
    assert other.attempt(other.person(), other.code()) == "pending"


@pytest.mark.parametrize(
    ("limits", "refusal"), [({"inviter_per_day": 2}, "day_limit"), ({"inviter_total": 2}, "total_limit")]
)
def test_an_inviter_has_limits(farm: Farm, limits: dict[str, int], refusal: str) -> None:
    farm.rules(**limits)
    people = [farm.invite() for _ in range(3)]
    for person in people:
        farm.pay(person)
        farm.sweep()
    assert farm.gift() == 6 * YUAN
    assert farm.states(people[2]) == ("vested", [("inviter", "refused", refusal), GIVEN[1]])
    # A day of the tenant's is over; the limit in all is not.
    with scope.tenant(farm.tenant.pk):
        for row in InvitationReward.objects.filter(state="given"):
            day = row.given_on
            assert day is not None
            InvitationReward.objects.filter(pk=row.pk).update(given_on=day - timedelta(days=1))
    farm.pay(farm.invite())
    farm.sweep()
    assert farm.gift() == (9 if refusal == "day_limit" else 6) * YUAN


def test_taken_back_before_it_was_given(farm: Farm) -> None:
    invitee = farm.invite()
    ref = farm.pay(invitee)
    assert [farm.refund(invitee, ref), farm.refund(invitee, ref), farm.sweep()] == [True, False, 0]
    assert farm.states(invitee) == ("taken_back", [("inviter", "cancelled", ""), ("invitee", "cancelled", "")])
    assert (farm.gift(), farm.owed()) == (0, 0)


def test_taken_back_after_it_was_given(farm: Farm) -> None:
    invitee = farm.invite()
    ref = farm.pay(invitee)
    farm.sweep()
    credit(farm.user, 5, kind="gift")
    assert [farm.refund(invitee, ref), farm.sweep(), farm.sweep()] == [True, 2, 0]
    assert farm.states(invitee) == ("taken_back", [("inviter", "back", ""), ("invitee", "back", "")])
    assert (farm.gift(), farm.gift(invitee), farm.owed(), farm.owed(invitee)) == (5, 0, 0, 0)


def test_taken_back_after_it_was_spent_is_netted_later(farm: Farm) -> None:
    invitee = farm.invite()
    ref = farm.pay(invitee)
    farm.sweep()
    farm.spend_gift(farm.user, 2_500_000)
    credit(farm.user, 50 * YUAN)  # cash is no reward, and stays
    farm.refund(invitee, ref)
    farm.sweep()
    assert (farm.balance(farm.user), farm.owed()) == (Balances(cash=50 * YUAN, gift=0, pending=0), 2_500_000)
    assert farm.breaches() == []
    farm.rules(inviter_amount=2 * YUAN)
    got = []
    for _ in range(2):
        farm.pay(farm.invite())
        farm.sweep()
        got.append((farm.gift(), farm.owed()))
    assert got == [(0, 500_000), (1_500_000, 0)]


def test_what_is_frozen_is_not_taken(farm: Farm) -> None:
    invitee = farm.invite()
    ref = farm.pay(invitee)
    farm.sweep()
    with scope.tenant(farm.tenant.pk):
        gift = ledger.lock_user_accounts(tenant_id=farm.tenant.pk, user_id=farm.user.pk).gift
        assert freeze(account=gift, amount=YUAN)
    farm.refund(invitee, ref)
    farm.sweep()
    assert (farm.balance(farm.user), farm.owed()) == (Balances(cash=0, gift=YUAN, pending=YUAN), YUAN)
    with scope.tenant(farm.tenant.pk):
        unfreeze(account=gift, amount=YUAN)


def test_the_refund_of_a_later_payment_takes_nothing_back(farm: Farm) -> None:
    invitee = farm.invite()
    farm.pay(invitee)
    second = farm.pay(invitee)
    farm.sweep()
    assert (farm.refund(invitee, second), farm.refund(farm.person(), second), farm.sweep()) == (False, False, 0)
    assert farm.gift() == 3 * YUAN


def test_after_a_refund_no_payment_vests_again(farm: Farm) -> None:
    invitee = farm.invite()
    farm.refund(invitee, farm.pay(invitee))
    farm.pay(invitee)
    assert (farm.sweep(), farm.gift()) == (0, 0)


def test_the_sweep_is_over_all_tenants(farm: Farm) -> None:
    other = open_farm()
    for each in (farm, other):
        each.pay(each.invite())
    tasks.settle_rewards()
    assert (farm.gift(), other.gift()) == (3 * YUAN, 3 * YUAN)


def test_one_reward_that_cannot_be_given_keeps_no_other_waiting(farm: Farm) -> None:
    first, second = farm.invite(), farm.invite()
    for user in (first, second):
        farm.pay(user)
    with scope.tenant(farm.tenant.pk):
        taken = InvitationReward.objects.get(user=first)
    # Someone used its reference for another amount: a fault, which fails its transaction.
    ledger.credit_user(
        tenant_id=farm.tenant.pk,
        user_id=first.pk,
        amount=1,
        kind="gift",
        source="invitation",
        ref=str(taken.pk),
        reason="",
        actor="test",
    )
    tasks.settle_rewards()
    assert farm.states(first)[1] == [("inviter", "given", ""), ("invitee", "due", "")]
    assert farm.states(second)[1] == GIVEN
    assert [breach[:2] for breach in farm.breaches()] == [("I12", f"invitation reward {taken.pk}")]
    with scope.tenant(farm.tenant.pk):
        InvitationReward.objects.filter(pk=taken.pk).update(amount=1)
    tasks.settle_rewards()


def test_old_origins_are_forgotten(farm: Farm) -> None:
    farm.code(device="old")
    with scope.tenant(farm.tenant.pk):
        RewardOrigin.objects.update(seen_at=Now() - timedelta(days=91))
    farm.code(device="new")
    tasks.forget_rewards()
    with scope.tenant(farm.tenant.pk):
        assert RewardOrigin.objects.count() == 1


def standings(farm: Farm, user: EndUser) -> list[str]:
    with scope.tenant(farm.tenant.pk):
        return [person.standing for person in rewards.overview(user=user).people]


def test_an_inviter_sees_how_it_goes(farm: Farm) -> None:
    refused = farm.person()
    farm.accept(refused, farm.code(device="mine"), device="mine")
    invitee = farm.invite()
    seen = [standings(farm, farm.user)]
    ref = farm.pay(invitee)
    seen.append(standings(farm, farm.user))
    farm.sweep()
    seen.append(standings(farm, farm.user))
    with scope.tenant(farm.tenant.pk):
        overview = rewards.overview(user=farm.user)
    assert overview[:5] == (2, 0, 1, 3 * YUAN, 0)
    farm.refund(invitee, ref)
    seen.append(standings(farm, farm.user))
    farm.sweep()
    assert [pair[0] for pair in seen] == ["waiting", "on_its_way", "rewarded", "taken_back"]
    assert {pair[1] for pair in seen} == {"not_rewarded"}
    assert standings(farm, invitee) == []


def test_one_new_user_accepts_many_codes_at_once(committed_farm: Farm) -> None:
    farm, user = committed_farm, committed_farm.person()
    codes = [farm.code(farm.person()) for _ in range(10)]
    got = Counter(together([partial(farm.attempt, user, code) for code in codes]))
    assert got == {"pending": 1, "10001 invitation_known": 9}


def test_two_who_invite_each_other_at_once_close_no_circle(committed_farm: Farm) -> None:
    farm = committed_farm
    for _ in range(5):
        one, two = farm.person(), farm.person()
        pairs = [(one, farm.code(two)), (two, farm.code(one))]
        got = Counter(together([partial(farm.attempt, user, code) for user, code in pairs]))
        assert got == {"pending": 1, "10001 invitation_circular": 1}


def test_a_device_holds_its_limit_at_once(committed_farm: Farm) -> None:
    farm, code = committed_farm, committed_farm.code()
    people = [farm.person() for _ in range(10)]
    got = Counter(together([partial(farm.attempt, person, code, device="phone") for person in people]))
    assert got == {"pending": 1, "device_limit": 9}


def test_a_first_payment_and_the_acceptance_at_once_come_one_after_the_other(committed_farm: Farm) -> None:
    farm, code = committed_farm, committed_farm.code()
    for _ in range(8):
        user = farm.person()
        order = farm.order(user)
        accepted, paid = together([partial(farm.attempt, user, code), partial(farm.settle, order)])
        assert paid == "credited"
        if accepted == "pending":
            assert farm.states(user) == ("vested", [("inviter", "due", ""), ("invitee", "due", "")])
        else:
            assert accepted == "10001 invitation_after_payment"
    farm.sweep()


def test_two_first_payments_at_once_vest_once(committed_farm: Farm) -> None:
    farm = committed_farm
    invitee = farm.invite()
    orders = [farm.order(invitee) for _ in range(6)]
    assert together([partial(farm.settle, order) for order in orders]) == ["credited"] * 6
    assert sum(together([farm.sweep] * 6)) == 2
    assert (farm.gift(), farm.gift(invitee)) == (3 * YUAN, 2 * YUAN)


def test_an_inviters_limit_holds_at_once(committed_farm: Farm) -> None:
    farm = committed_farm
    farm.rules(inviter_per_day=3)
    for person in [farm.invite() for _ in range(8)]:
        farm.pay(person)
    together([farm.sweep] * 6)
    assert farm.gift() == 9 * YUAN


def test_payments_refunds_and_sweeps_never_wait_for_each_other_crosswise(committed_farm: Farm) -> None:
    """A chain of invitations, so that everybody is on both sides; a deadlock would end a thread with an exception."""
    farm = committed_farm
    chain = [farm.user]
    for _ in range(8):
        chain.append(farm.person())
        farm.accept(chain[-1], farm.code(chain[-2]))
    firsts = {user.pk: farm.order(user) for user in chain}
    seconds = {user.pk: farm.order(user) for user in chain}

    def live(user: EndUser) -> str:
        farm.settle(firsts[user.pk])
        farm.sweep()
        farm.settle(seconds[user.pk])
        if user.pk % 2:
            farm.refund(user, str(firsts[user.pk].pk))
        farm.sweep()
        return "lived"

    assert together([partial(live, user) for user in chain]) == ["lived"] * 9
    farm.sweep()
    for inviter, user in pairwise(chain):
        state, sides = farm.states(user)
        assert state == ("taken_back" if user.pk % 2 else "vested")
        assert {side for _, side, _ in sides} <= ({"cancelled", "back"} if user.pk % 2 else {"given"})
        assert (inviter.pk, farm.owed(inviter)) == (inviter.pk, 0)
