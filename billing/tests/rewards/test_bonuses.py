"""Signing in counts once a day of the tenant's, and a ticket once, for its user, in its time."""

from collections import Counter
from datetime import date, datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from django.core import signing
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now

from billing import bonuses, rewards
from billing.models import AdTicket, RewardRules, SignIn, Transfer
from billing.tests.rewards.conftest import Farm, open_farm
from billing.tests.test_concurrency import together
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, Tenant
from tests.factories import YUAN, make_rules

# Twenty-four hours apart: at any moment the second one's date is a day ahead.
TODAY, TOMORROW = "Etc/GMT+12", "Etc/GMT-12"


def move(farm: Farm, zone: str) -> None:
    Tenant.objects.filter(pk=farm.tenant.pk).update(timezone=zone)


def age(farm: Farm, days: int) -> None:
    """Let days pass, for the sign-ins that there are."""
    with scope.tenant(farm.tenant.pk):
        for row in SignIn.objects.order_by("date"):
            SignIn.objects.filter(pk=row.pk).update(date=row.date - timedelta(days=days))


def attempt(user: EndUser) -> str:
    """Try to sign in; return what came of it."""
    try:
        state = bonuses.sign_in(user=user)
    except ProductError as refusal:
        return f"{ErrorCode(refusal.code).value} {refusal.type}"
    return f"{state.streak}: {state.amount}"


def dates(farm: Farm) -> list[date]:
    with scope.tenant(farm.tenant.pk):
        return list(SignIn.objects.order_by("pk").values_list("date", flat=True))


def test_a_sign_in_brings_the_days_amount_once(farm: Farm) -> None:
    before = bonuses.sign_in_state(user=farm.user)
    assert before[:4] == (False, 0, 100_000, [200_000, 700_000, 100_000, 200_000, 700_000, 100_000])
    after = bonuses.sign_in(user=farm.user)
    assert after[:4] == (True, 1, 100_000, before.coming)
    assert bonuses.sign_in_state(user=farm.user) == after
    with pytest.raises(ProductError) as refused:
        bonuses.sign_in(user=farm.user)
    assert (refused.value.code, refused.value.type, refused.value.action) == (102, "signed_in_today", "wait")
    assert (refused.value.facts, refused.value.reset_at) == ({"used": 1, "limit": 1}, after.reset_at)
    assert farm.gift() == 100_000
    with scope.tenant(farm.tenant.pk):
        assert [(row.kind, row.ref) for row in Transfer.objects.all()] == [("sign_in", str(SignIn.objects.get().pk))]


def test_a_day_is_the_tenants(farm: Farm) -> None:
    move(farm, TODAY)
    assert [attempt(farm.user), attempt(farm.user)] == ["1: 100000", "102 signed_in_today"]
    (today,) = dates(farm)
    midnight = datetime.combine(today + timedelta(days=1), time.min, ZoneInfo(TODAY))
    assert bonuses.sign_in_state(user=farm.user).reset_at == midnight
    move(farm, TOMORROW)  # it is past midnight now
    assert [attempt(farm.user), attempt(farm.user)] == ["2: 200000", "102 signed_in_today"]
    assert dates(farm) == [today, today + timedelta(days=1)]
    move(farm, TODAY)  # a tenant that moves back gives no day twice
    assert attempt(farm.user) == "102 signed_in_today"
    assert farm.gift() == 300_000


def test_a_streak_grows_begins_anew_after_its_last_day_and_breaks(farm: Farm) -> None:
    got = []
    for missed in (0, 0, 0, 0, 1, 0):
        age(farm, 1 + missed)
        got.append(attempt(farm.user))
    assert got == ["1: 100000", "2: 200000", "3: 700000", "4: 100000", "1: 100000", "2: 200000"]
    age(farm, 2)
    assert bonuses.sign_in_state(user=farm.user)[:3] == (False, 0, 100_000)


def test_a_day_may_bring_nothing(farm: Farm) -> None:
    farm.rules(sign_in_amounts=[0, 5])
    assert (attempt(farm.user), farm.gift()) == ("1: 0", 0)
    age(farm, 1)
    assert (attempt(farm.user), farm.gift()) == ("2: 5", 5)


@pytest.mark.parametrize("amounts", [[], [0, 0]])
def test_signing_in_is_off_unless_it_brings_something(farm: Farm, amounts: list[int]) -> None:
    farm.rules(sign_in_amounts=amounts)
    assert attempt(farm.user) == "404 reward_not_offered"
    with pytest.raises(ProductError, match="reward_not_offered"):
        bonuses.sign_in_state(user=farm.user)


def test_a_tenant_without_rules_gives_nothing(farm: Farm) -> None:
    with scope.tenant(farm.tenant.pk):
        RewardRules.objects.all().delete()
    assert attempt(farm.user) == "404 reward_not_offered"
    assert take(farm.user) == "404 reward_not_offered"
    assert farm.attempt(farm.person()) == "404 reward_not_offered"


def test_guests_get_nothing(farm: Farm) -> None:
    guest = farm.person(is_guest=True)
    assert [attempt(guest), take(guest)] == ["10001 guest_not_rewarded"] * 2


def test_what_is_owed_is_netted_from_any_reward(farm: Farm) -> None:
    invitee = farm.invite()
    ref = farm.pay(invitee)
    farm.sweep()
    farm.spend_gift(farm.user, 3 * YUAN)
    farm.refund(invitee, ref)
    farm.sweep()
    assert (attempt(farm.user), farm.gift(), farm.owed()) == ("1: 100000", 0, 2_900_000)
    for _ in range(3):
        claim(farm.user)
    assert (farm.gift(), farm.owed()) == (100_000, 0)


def test_fifty_sign_ins_at_once_are_one(committed_farm: Farm) -> None:
    farm = committed_farm
    got = Counter(together([partial(attempt, farm.user)] * 50))
    assert got == {"1: 100000": 1, "102 signed_in_today": 49}
    assert farm.gift() == 100_000


def take(user: EndUser) -> str:
    """Ask for a ticket; return it, or what came of it."""
    try:
        return bonuses.issue_ticket(user=user)[1]
    except ProductError as refusal:
        return f"{ErrorCode(refusal.code).value} {refusal.type}"


def watch(user: EndUser, seconds: int = 15) -> str:
    """Take a ticket and let so much time pass for it."""
    row, text = bonuses.issue_ticket(user=user)
    passed = timedelta(seconds=seconds)
    with scope.tenant(user.tenant_id):
        AdTicket.objects.filter(pk=row.pk).update(ready_at=F("ready_at") - passed, expires_at=F("expires_at") - passed)
    return text


def use(user: EndUser, ticket: str) -> str:
    """Redeem a ticket; return what came of it."""
    try:
        bonuses.redeem_ticket(user=user, ticket=ticket)
    except ProductError as refusal:
        return f"{ErrorCode(refusal.code).value} {refusal.type}"
    return "rewarded"


def claim(user: EndUser) -> str:
    return use(user, watch(user))


def test_an_advertisement_is_rewarded_once(farm: Farm) -> None:
    ticket = watch(farm.user)
    assert [use(farm.user, ticket), use(farm.user, ticket)] == ["rewarded", "10001 ad_ticket_used"]
    assert farm.gift() == YUAN
    with scope.tenant(farm.tenant.pk):
        assert [(row.kind, row.ref) for row in Transfer.objects.all()] == [("ad", str(AdTicket.objects.get().pk))]


def test_time_sea_a_plain_claim_is_no_reward(farm: Farm) -> None:
    good = watch(farm.user)
    with scope.tenant(farm.tenant.pk):
        nonce = AdTicket.objects.get().nonce
    signed = f"{farm.tenant.pk}.{farm.user.pk}.{nonce}"
    forged = [
        "",
        "true",
        nonce,
        signed,
        f"{signed}:{'A' * 43}",
        signing.Signer(salt="another purpose").sign(signed),
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.replace(nonce, "0" * 32),
        signing.Signer(salt="billing.bonuses.ad").sign(f"{farm.tenant.pk}.{farm.user.pk}.{'0' * 32}"),
    ]
    assert [use(farm.user, ticket) for ticket in forged] == ["10001 ad_ticket_unknown"] * 9
    assert (use(farm.user, good), farm.gift()) == ("rewarded", YUAN)


def test_a_ticket_has_its_time(farm: Farm) -> None:
    early, late = watch(farm.user, 10), watch(farm.user, 600)
    with pytest.raises(ProductError) as refused:
        bonuses.redeem_ticket(user=farm.user, ticket=early)
    with scope.tenant(farm.tenant.pk):
        ready_at = AdTicket.objects.earliest("pk").ready_at
    assert (refused.value.type, refused.value.action, refused.value.reset_at) == ("ad_ticket_early", "wait", ready_at)
    assert (use(farm.user, late), farm.gift()) == ("10001 ad_ticket_expired", 0)


def test_a_ticket_is_one_users(farm: Farm) -> None:
    ticket = watch(farm.user)
    assert use(farm.person(), ticket) == "10001 ad_ticket_unknown"
    assert use(farm.user, ticket) == "rewarded"


def test_another_tenants_ticket_is_unknown(farm: Farm) -> None:
    other = open_farm()
    ticket = watch(other.user)
    assert use(farm.user, ticket) == "10001 ad_ticket_unknown"
    assert use(other.user, ticket) == "rewarded"
    assert (farm.gift(), other.gift()) == (0, YUAN)


def test_a_day_has_its_limit_and_ends_at_the_tenants_midnight(farm: Farm) -> None:
    move(farm, TODAY)
    farm.rules(ads_per_day=2)
    third = watch(farm.user)
    assert [claim(farm.user), claim(farm.user)] == ["rewarded", "rewarded"]
    with pytest.raises(ProductError) as refused:
        bonuses.redeem_ticket(user=farm.user, ticket=third)
    with scope.tenant(farm.tenant.pk):
        day = rewards.today(tenant_id=farm.tenant.pk)
    assert (refused.value.code, refused.value.type) == (102, "ad_limit_reached")
    assert (refused.value.facts, refused.value.reset_at) == ({"used": 2, "limit": 2}, day.ends_at)
    assert take(farm.user) == "102 ad_limit_reached"
    assert claim(farm.person()) == "rewarded"
    move(farm, TOMORROW)
    assert (use(farm.user, third), farm.gift()) == ("rewarded", 3 * YUAN)


def test_what_was_promised_is_given(farm: Farm) -> None:
    ticket = watch(farm.user)
    farm.rules(ad_amount=0)
    assert (take(farm.user), use(farm.user, ticket), farm.gift()) == ("404 reward_not_offered", "rewarded", YUAN)


def test_dead_tickets_are_forgotten(farm: Farm) -> None:
    used = watch(farm.user)
    use(farm.user, used)
    watch(farm.user)
    with scope.tenant(farm.tenant.pk):
        AdTicket.objects.update(expires_at=Now() - timedelta(days=31))
    watch(farm.user)
    bonuses.forget_tickets()
    with scope.tenant(farm.tenant.pk):
        assert AdTicket.objects.count() == 2
    assert use(farm.user, used) == "10001 ad_ticket_used"


def test_a_ticket_used_fifty_times_at_once_is_one(committed_farm: Farm) -> None:
    farm, ticket = committed_farm, watch(committed_farm.user)
    got = Counter(together([partial(use, farm.user, ticket)] * 50))
    assert got == {"rewarded": 1, "10001 ad_ticket_used": 49}
    assert farm.gift() == YUAN


def test_the_days_limit_holds_at_once(committed_farm: Farm) -> None:
    farm = committed_farm
    farm.rules(ads_per_day=3)
    tickets = [watch(farm.user) for _ in range(10)]
    got = Counter(together([partial(use, farm.user, ticket) for ticket in tickets]))
    assert got == {"rewarded": 3, "102 ad_limit_reached": 7}
    assert farm.gift() == 3 * YUAN


@pytest.mark.parametrize(
    "wrong",
    [
        {"sign_in_amounts": [1] * 32},
        {"sign_in_amounts": [5, -1]},
        {"sign_in_amounts": [10**9 + 1]},
        {"inviter_amount": -1},
        {"invitee_amount": 10**9 + 1},
        {"ad_amount": 10**9 + 1},
        {"per_device": 0},
        {"per_address": 0},
        {"window_days": 91},
        {"inviter_total": 0},
        {"ads_per_day": 0},
        {"ad_ticket_seconds": 15},
        {"ad_seconds": 0},
    ],
)
def test_the_database_bounds_the_rules(farm: Farm, wrong: dict[str, object]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        farm.rules(**wrong)


def test_a_tenant_has_one_set_of_rules(farm: Farm) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make_rules(farm.tenant)
