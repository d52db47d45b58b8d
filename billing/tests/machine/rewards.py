"""Rewards: sign-ins, advertisements, and invitations, which a payment vests and its refund takes back."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db.models import F
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from billing import bonuses, rewards
from billing.models import Account, AdTicket, Invitation, InvitationReward, RewardDebt, SignIn
from billing.origins import origin_of
from billing.tests.machine.books import USERS
from billing.tests.machine.refunds import Refunds
from tenants import scope
from tenants.errors import ProductError
from tests.factories import make_rules, unique

SIGN_INS = [5_000, 0, 30_000]
INVITER, INVITEE, AD = 40_000, 25_000, 9_000
ADS_PER_DAY = 2


@dataclass(kw_only=True)
class Promise:
    """What the model knows of one side of an invitation that was paid for."""

    user_id: int
    side: str
    amount: int
    state: str = "due"
    day: int | None = None


@dataclass(kw_only=True)
class Invited:
    """What the model knows of an invitation; `number` is the order that vested it."""

    inviter_id: int
    state: str = "pending"
    number: str = ""
    promises: list[Promise] = field(default_factory=list)


def outcome_of(attempt: Any) -> str:
    """Return "" where an attempt succeeds, else why it was refused."""
    try:
        attempt()
    except ProductError as refusal:
        return refusal.type
    return ""


class Rewards(Refunds):
    """What users are given."""

    def prepare(self, data: st.DataObject) -> None:
        super().prepare(data)
        self.per_day = data.draw(st.integers(1, 2))
        make_rules(
            self.tenant,
            sign_in_amounts=SIGN_INS,
            inviter_amount=INVITER,
            invitee_amount=INVITEE,
            inviter_per_day=self.per_day,
            ad_amount=AD,
            ads_per_day=ADS_PER_DAY,
        )
        self.owed = Counter[int]()
        self.signed_in: dict[int, tuple[int, int]] = {}  # day and streak
        self.watched = Counter[tuple[int, int]]()
        self.invitations: dict[int, Invited] = {}
        self.promises: list[Promise] = []

    def give(self, user_id: int, amount: int) -> None:
        """Let the model reward a user, who first pays what is owed."""
        part = min(self.owed[user_id], amount)
        self.owed[user_id] -= part
        self.purses[user_id].gift += amount - part

    @rule(which=USERS)
    def sign_in(self, which: int) -> None:
        """A user signs in, and tries again."""
        user = self.users[which]
        day, streak = self.signed_in.get(user.pk, (-2, 0))
        outcomes = [outcome_of(lambda: bonuses.sign_in(user=user)) for _ in range(2)]
        assert outcomes == ["signed_in_today" if day == self.day else "", "signed_in_today"]
        if day != self.day:
            streak = streak + 1 if day == self.day - 1 else 1
            self.signed_in[user.pk] = self.day, streak
            self.give(user.pk, SIGN_INS[(streak - 1) % len(SIGN_INS)])

    @rule(which=USERS, other=USERS, is_late=st.booleans())
    def watch(self, which: int, other: int, is_late: bool) -> None:  # noqa: FBT001  # drawn
        """A user watches an advertisement: its ticket is redeemed too early, by another, in time or late, and again."""
        user = self.users[which]
        is_full = self.watched[user.pk, self.day] >= ADS_PER_DAY
        issued: list[tuple[AdTicket, str]] = []
        refusal = outcome_of(lambda: issued.append(bonuses.issue_ticket(user=user)))
        assert refusal == ("ad_limit_reached" if is_full else "")
        if is_full:
            return
        ((row, ticket),) = issued
        outcomes = [self.tried(which, ticket)]
        if other != which:
            outcomes.append(self.tried(other, ticket))
        passed = timedelta(seconds=3600 if is_late else 60)
        with scope.tenant(self.tenant.pk):
            AdTicket.objects.filter(pk=row.pk).update(
                ready_at=F("ready_at") - passed, expires_at=F("expires_at") - passed
            )
        if not is_late:
            self.watched[user.pk, self.day] += 1
            self.give(user.pk, AD)
        is_full = self.watched[user.pk, self.day] >= ADS_PER_DAY
        again = "ad_ticket_expired" if is_late else "ad_limit_reached" if is_full else "ad_ticket_used"
        outcomes += [self.tried(which, ticket) for _ in range(3)]
        unknown = ["ad_ticket_unknown"] if other != which else []
        assert outcomes == ["ad_ticket_early", *unknown, again if is_late else "", again, again]

    def tried(self, which: int, ticket: str) -> str:
        return outcome_of(lambda: bonuses.redeem_ticket(user=self.users[which], ticket=ticket))

    @rule(which=USERS, by=USERS)
    def accept(self, which: int, by: int) -> None:
        """A user says who invited them, from a device that nobody else has."""
        user, inviter = self.users[which], self.users[by]
        with scope.tenant(self.tenant.pk):
            code = rewards.code_of(user=inviter)
        origin = origin_of(tenant_id=self.tenant.pk, device_id=unique("device"), address="")
        refusal = self.refusal(user.pk, inviter.pk)
        for _ in range(2):
            found = outcome_of(lambda: rewards.accept_invitation(user=user, code=code, origin=origin))
            assert found == refusal
        if not refusal:
            self.invitations.setdefault(user.pk, Invited(inviter_id=inviter.pk))

    def refusal(self, user_id: int, inviter_id: int) -> str:
        """Say why an invitation has to be refused; the same one again has not."""
        known = self.invitations.get(user_id)
        if known is not None:
            return "" if known.inviter_id == inviter_id else "invitation_known"
        if user_id == inviter_id:
            return "invitation_own"
        if any(order.user_id == user_id for order in self.credited.values()):
            return "invitation_after_payment"
        above: int | None = inviter_id
        while above is not None and above != user_id:
            row = self.invitations.get(above)
            above = row.inviter_id if row else None
        return "" if above is None else "invitation_circular"

    def credited_for(self, number: str, user_id: int) -> None:
        """A first payment vests the invitation; nothing is given yet."""
        super().credited_for(number, user_id)
        found = self.invitations.get(user_id)
        if found is not None and found.state == "pending":
            found.state, found.number = "vested", number
            found.promises = [
                Promise(user_id=found.inviter_id, side="inviter", amount=INVITER),
                Promise(user_id=user_id, side="invitee", amount=INVITEE),
            ]
            self.promises += found.promises

    @rule()
    def settle_rewards(self) -> None:
        """What is due is given or taken back, by a sweep that runs twice."""
        rewards.settle_rewards()
        rewards.settle_rewards()
        refunded = {row.order for row in self.refunds.values() if row.state == "done"}
        for row in self.invitations.values():
            if row.state == "vested" and row.number in refunded:
                row.state = "taken_back"
                for promise in row.promises:
                    promise.state = {"due": "cancelled", "given": "back_due"}.get(promise.state, promise.state)
        for promise in self.promises:
            if promise.state == "due":
                self.keep(promise)
            elif promise.state == "back_due":
                self.break_(promise)

    def keep(self, promise: Promise) -> None:
        """Let the model give a reward, unless its user had as many today as an inviter may have."""
        given = [
            row for row in self.promises if (row.user_id, row.side, row.day) == (promise.user_id, "inviter", self.day)
        ]
        if promise.side == "inviter" and len(given) >= self.per_day:
            promise.state = "refused"
            return
        promise.state, promise.day = "given", self.day
        self.give(promise.user_id, promise.amount)

    def break_(self, promise: Promise) -> None:
        """Let the model take a reward back: what is spent of it is owed."""
        purse = self.purses[promise.user_id]
        taken = min(promise.amount, purse.free_gift)
        promise.state = "back"
        purse.gift -= taken
        self.owed[promise.user_id] += promise.amount - taken

    def pass_night(self) -> None:
        super().pass_night()
        with scope.tenant(self.tenant.pk):
            for row in SignIn.objects.order_by("date"):
                SignIn.objects.filter(pk=row.pk).update(date=row.date - timedelta(days=1))
            AdTicket.objects.update(redeemed_on=F("redeemed_on") - timedelta(days=1))
            InvitationReward.objects.update(given_on=F("given_on") - timedelta(days=1))

    @invariant()
    def rewards_are_as_they_were_promised(self) -> None:
        with scope.tenant(self.tenant.pk):
            states = dict(Invitation.objects.values_list("invitee", "state"))
            sides = list(InvitationReward.objects.order_by("pk").values_list("user", "side", "state"))
            owed = Counter(dict(RewardDebt.objects.values_list("user", "owed")))
            borne = Account.objects.filter(kind="shortfall", channel="reward").values_list("posted", flat=True)
            assert sum(borne) == -self.owed.total()
        assert states == {user_id: row.state for user_id, row in self.invitations.items()}
        assert sides == [(row.user_id, row.side, row.state) for row in self.promises]
        assert +owed == +self.owed
