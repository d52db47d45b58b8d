"""Resale: commission of every answer, folded by day, set free, taken back; withdrawals; wallets."""

import uuid
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, ClassVar

from django.db.models import F
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from billing import commission, wallet, withdrawal
from billing.models import Account, Commission, Withdrawal
from billing.tests.machine.answers import Answers, Held
from billing.tests.machine.books import MONEY, USERS
from billing.tests.machine.refunds import Refunds
from billing.tests.machine.rewards import outcome_of
from tenants import scope
from tenants.models import Reseller, StaffUser, Tenant
from tests.factories import credit, make_reseller, make_tenant, make_terms, unique

MILLION = 1_000_000
# Together no more than half of the wholesale price, which is at least twice the cost.
OWN_PPM, PARENT_PPM = st.integers(0, 300_000), st.integers(0, 200_000)
FEE_PPM, MINIMUM = st.integers(0, 100_000), st.integers(1, 200)
WHO = st.integers(0, 1)
FIRST_DAY = date(2026, 1, 1)


@dataclass(kw_only=True)
class Folded:
    """What the model knows of a commission: what is left of it that is frozen."""

    day: date
    frozen: int
    state: str = "frozen"


@dataclass(kw_only=True)
class Earner:
    """What the model knows of a reseller, micro-yuan; `owed` is above 0."""

    row: Reseller
    ppm: int
    fee_ppm: int
    minimum: int
    accrued: int = 0
    available: int = 0
    owed: int = 0
    payable: int = 0
    wallet: int = 0
    folded: list[Folded] = field(default_factory=list)

    @property
    def frozen(self) -> int:
        return sum(row.frozen for row in self.folded if row.state != "released")


@dataclass(kw_only=True)
class Asked:
    """What the model knows of a withdrawal."""

    earner: Earner
    amount: int
    fee: int
    state: str = "requested"


class Resale(Refunds):
    """The tenant is a reseller's who stands below another: both earn by its answers."""

    markup: ClassVar = 2
    clerk: StaffUser  # of a reseller; this and the next are set by the test
    operator: StaffUser

    def open_tenant(self, data: st.DataObject) -> Tenant:
        parent = make_reseller()
        child = make_reseller(parent=parent)
        draw = data.draw
        self.child, self.parent = (
            Earner(row=row, ppm=draw(ppm), fee_ppm=draw(FEE_PPM), minimum=draw(MINIMUM))
            for row, ppm in ((child, OWN_PPM), (parent, PARENT_PPM))
        )
        self.earners = self.child, self.parent
        for earner in self.earners:
            self.publish(earner)
        return make_tenant(reseller=child)

    def publish(self, earner: Earner) -> None:
        name = "own_ppm" if earner is self.child else "parent_ppm"
        make_terms(
            earner.row,
            **{"own_ppm": 0, name: earner.ppm, "min_withdrawal": earner.minimum, "withdrawal_fee_ppm": earner.fee_ppm},
        )

    def prepare(self, data: st.DataObject) -> None:
        super().prepare(data)
        self.fold_date = FIRST_DAY
        self.lost_shares: list[tuple[Earner, int]] = []
        self.answered: list[Held] = []
        self.withdrawals: dict[uuid.UUID, Asked] = {}
        self.paid_out, self.fees = 0, 0
        self.began = self.platform("psp_clearing", "payout"), self.platform("platform_revenue", "")

    def platform(self, kind: str, channel: str) -> int:
        """Return a balance of the platform's own."""
        with scope.platform("test"):
            rows = Account.objects.filter(tenant=None, reseller=None, kind=kind, channel=channel)
            return sum(rows.values_list("posted", flat=True))

    # Commission

    def admitted(self, held: Held) -> None:
        """A hold pins both shares."""
        super().admitted(held)
        held.own_ppm, held.parent_ppm = self.child.ppm, self.parent.ppm
        row = held.row
        assert (row.reseller_id, row.own_ppm) == (self.child.row.pk, held.own_ppm)
        assert (row.parent_reseller_id, row.parent_ppm) == (self.parent.row.pk, held.parent_ppm)

    def charged(self, held: Held) -> None:
        """Each answer accrues what was pinned, of the whole wholesale charge."""
        super().charged(held)
        held.own_share, held.parent_share = (held.wholesale * ppm // MILLION for ppm in (held.own_ppm, held.parent_ppm))
        self.child.accrued += held.own_share
        self.parent.accrued += held.parent_share
        self.answered.append(held)

    def lost(self, user_id: int, spent: int) -> None:
        """The user's newest answers are given back, as far as they were paid, and their shares with them."""
        super().lost(user_id, spent)
        lost = [0, 0]
        for held in sorted(self.answered, key=lambda held: held.number, reverse=True):
            part = min(spent, held.paid - held.given_back) if held.row.user_id == user_id else 0
            if part:
                before, now = held.given_back, held.given_back + part
                for place, share in enumerate((held.own_share, held.parent_share)):
                    lost[place] += share * now // held.paid - share * before // held.paid
                held.given_back, spent = now, spent - part
        # As they are noted: by reseller, the older one first.
        for earner, amount in sorted(zip(self.earners, lost, strict=True), key=lambda pair: pair[0].row.pk):
            if amount:
                self.lost_shares.append((earner, amount))

    @rule(who=WHO, data=st.data())
    def new_terms(self, who: int, data: st.DataObject) -> None:
        earner = self.earners[who]
        earner.ppm = data.draw((OWN_PPM, PARENT_PPM)[who])
        earner.fee_ppm, earner.minimum = data.draw(FEE_PPM), data.draw(MINIMUM)
        self.publish(earner)

    @rule(days=st.integers(0, 1))
    def fold(self, days: int) -> None:
        """The nightly fold is delivered three times; the same day again has nothing for whom it was folded."""
        self.fold_date += timedelta(days=days)
        folds = [commission.fold_day(day=self.fold_date) for _ in range(3)]
        assert folds[1:] == [0, 0]
        for earner in self.earners:
            if earner.accrued and all(row.day != self.fold_date for row in earner.folded):
                netted = min(earner.accrued, earner.owed)
                earner.folded.append(Folded(day=self.fold_date, frozen=earner.accrued - netted))
                earner.owed, earner.accrued = earner.owed - netted, 0

    @rule(target=Answers.posted, which=USERS, much=MONEY)
    def earn(self, which: int, much: int) -> Any:
        """A day on which a user has money and uses it up, and its fold."""
        credit(self.users[which], much)
        self.purse(which).cash += much
        pk = self.use_up(which, 10)
        self.fold(1)
        return pk

    @rule()
    def mature(self) -> None:
        """The days pass for which commissions are frozen; what is disputed stays."""
        with scope.platform("test"):
            rows = Commission.objects.filter(tenant=self.tenant)
            rows.update(release_at=F("release_at") - timedelta(days=366))
        commission.release_matured()
        assert commission.release_matured() == 0
        for earner in self.earners:
            for row in earner.folded:
                if row.state == "frozen":
                    row.state = "released"
                    earner.available += row.frozen

    @precondition(lambda self: any(earner.folded for earner in self.earners))
    @rule(data=st.data())
    def dispute(self, data: st.DataObject) -> None:
        """The operator holds a commission back, or lets it go; what is set free is out of reach."""
        earner = data.draw(st.sampled_from([earner for earner in self.earners if earner.folded]))
        row = data.draw(st.sampled_from(earner.folded))
        with scope.platform("test"):
            pk = Commission.objects.get(tenant=self.tenant, reseller=earner.row, day=row.day).pk
        held_back = commission.hold_back(commission_id=pk, reason="odd", actor="ops")
        assert held_back == (row.state == "frozen")
        if row.state == "disputed":
            assert commission.let_go(commission_id=pk, actor="ops")
            row.state = "frozen"
        elif held_back:
            row.state = "disputed"

    @rule()
    def post_backs(self) -> None:
        """What refunds noted is taken, once: of what accrued, of what is frozen, of what is free; the rest is owed."""
        commission.post_backs()
        assert commission.post_backs() == 0
        for earner, amount in self.lost_shares:
            of_accrued = min(amount, earner.accrued)
            of_frozen = min(amount - of_accrued, earner.frozen)
            of_free = min(amount - of_accrued - of_frozen, earner.available)
            earner.accrued, earner.available = earner.accrued - of_accrued, earner.available - of_free
            earner.owed += amount - of_accrued - of_frozen - of_free
            for row in sorted(earner.folded, key=lambda row: row.day, reverse=True):
                part = 0 if row.state == "released" else min(of_frozen, row.frozen)
                row.frozen, of_frozen = row.frozen - part, of_frozen - part
        self.lost_shares = []

    @rule(target=Refunds.orders, which=USERS)
    def lose(self, which: int) -> str:
        """A user buys, uses it up, and has it charged back: both resellers give back at once."""
        number = self.bought(which)
        self.use_up(which, 10)
        self.charged_back(number, 10, 1)
        self.post_backs()
        return number

    @invariant()
    def resellers_have_what_they_earned(self) -> None:
        with scope.platform("test"):
            for earner in self.earners:
                found = dict(Account.objects.filter(reseller=earner.row).values_list("kind", "posted"))
                expected = {
                    "reseller_accrued": earner.accrued,
                    "reseller_pending": earner.frozen,
                    "reseller_available": earner.available,
                    "reseller_receivable": -earner.owed,
                    "withdrawal_payable": earner.payable,
                    "reseller_wallet": earner.wallet,
                }
                assert found == {kind: expected[kind] for kind in found}
                assert not any(amount for kind, amount in expected.items() if kind not in found)
                rows = Commission.objects.filter(reseller=earner.row).order_by("day")
                left = [(row.day, row.state, row.frozen) for row in rows]
                assert left == [(row.day, row.state, row.frozen) for row in earner.folded]


class Withdrawals(Resale):
    """Commission is taken out: asked for, decided, batched, paid or returned."""

    @rule(who=WHO, tenths=st.integers(1, 12))
    def ask_for_withdrawal(self, who: int, tenths: int) -> None:
        self.asked_for(self.earners[who], tenths)

    def asked_for(self, earner: Earner, tenths: int) -> uuid.UUID | None:
        """Ask for so many tenths of what is free; return the withdrawal, or None where it is refused as it must be."""
        amount = max(earner.available * tenths // 10, 1)
        rows: list[Withdrawal] = []
        refusal = outcome_of(
            lambda: rows.append(
                withdrawal.request(
                    reseller_id=earner.row.pk,
                    amount=amount,
                    payee="Grove Ltd",
                    bank="ICBC",
                    bank_account="6222 0000",
                    maker_id=self.clerk.pk,
                )
            )
        )
        if amount < earner.minimum:
            assert refusal == "withdrawal_below_minimum"
            return None
        if amount > max(earner.available - earner.owed, 0):
            assert refusal == "withdrawal_beyond_balance"
            return None
        assert refusal == ""
        asked = Asked(earner=earner, amount=amount, fee=amount * earner.fee_ppm // MILLION)
        self.withdrawals[rows[0].pk] = asked
        earner.available, earner.payable = earner.available - amount, earner.payable + amount
        return rows[0].pk

    def drawn_withdrawal(self, data: st.DataObject) -> uuid.UUID:
        return data.draw(st.sampled_from(list(self.withdrawals)))

    @precondition(lambda self: self.withdrawals)
    @rule(data=st.data(), yes=st.booleans())
    def decide_withdrawal(self, data: st.DataObject, yes: bool) -> None:  # noqa: FBT001  # drawn
        """The asker may not; the operator does, three times."""
        pk = self.drawn_withdrawal(data)
        asked = self.withdrawals[pk]
        assert outcome_of(lambda: withdrawal.approve(withdrawal_id=pk, checker_id=self.clerk.pk)) == "checker_is_maker"
        decided = [self.decided(pk, yes=yes) for _ in range(3)]
        assert decided == [asked.state == "requested", False, False]
        if decided[0]:
            asked.state = "approved" if yes else "rejected"
            if not yes:
                self.returned(asked)

    def decided(self, pk: uuid.UUID, *, yes: bool) -> bool:
        checker_id = self.operator.pk
        if yes:
            return withdrawal.approve(withdrawal_id=pk, checker_id=checker_id)
        return withdrawal.reject(withdrawal_id=pk, checker_id=checker_id, reason="no")

    @precondition(lambda self: any(asked.state == "approved" for asked in self.withdrawals.values()))
    @rule()
    def send_batch(self) -> None:
        """What is approved goes to the bank in one batch, which is confirmed three times."""
        approved = [pk for pk, asked in self.withdrawals.items() if asked.state == "approved"]
        batch = withdrawal.make_batch(withdrawal_ids=approved, actor="ops")
        assert batch is not None
        assert withdrawal.make_batch(withdrawal_ids=approved, actor="ops") is None
        sent = [withdrawal.mark_sent(batch_id=batch.pk, actor="ops") for _ in range(3)]
        assert sent == [True, False, False]
        for pk in approved:
            self.withdrawals[pk].state = "sent"

    @rule(who=WHO, much=MONEY)
    def cash_out(self, who: int, much: int) -> None:
        """What a day has earned is free, and on its way to the bank at once."""
        self.earn(0, much + 100_000)
        self.mature()
        pk = self.asked_for(self.earners[who], 10)
        if pk is not None:
            assert self.decided(pk, yes=True)
            self.withdrawals[pk].state = "approved"
            self.send_batch()

    @precondition(lambda self: self.withdrawals)
    @rule(data=st.data(), pays=st.booleans())
    def bank_answers(self, data: st.DataObject, pays: bool) -> None:  # noqa: FBT001  # drawn
        """The bank pays or not, which is said three times; then the contrary is said."""
        sent = [pk for pk, asked in self.withdrawals.items() if asked.state == "sent"]
        pk = data.draw(st.sampled_from(sent or list(self.withdrawals)))
        asked = self.withdrawals[pk]
        ended = [self.ended_at_bank(pk, pays=pays) for _ in range(3)]
        assert ended == [asked.state == "sent", False, False]
        assert not self.ended_at_bank(pk, pays=not pays)
        if not ended[0]:
            return
        asked.state = "paid" if pays else "failed"
        if pays:
            asked.earner.payable -= asked.amount
            self.paid_out, self.fees = self.paid_out + asked.amount - asked.fee, self.fees + asked.fee
        else:
            self.returned(asked)

    def ended_at_bank(self, pk: uuid.UUID, *, pays: bool) -> bool:
        if pays:
            return withdrawal.paid(withdrawal_id=pk, actor="ops")
        return withdrawal.failed(withdrawal_id=pk, reason="no such account", actor="ops")

    def returned(self, asked: Asked) -> None:
        earner = asked.earner
        earner.available, earner.payable = earner.available + asked.amount, earner.payable - asked.amount

    @invariant()
    def withdrawals_are_as_they_were_decided(self) -> None:
        ours = Withdrawal.objects.filter(reseller__in=[earner.row for earner in self.earners])
        found = {row.pk: (row.state, row.amount, row.fee) for row in ours}
        assert found == {pk: (asked.state, asked.amount, asked.fee) for pk, asked in self.withdrawals.items()}
        now = self.platform("psp_clearing", "payout"), self.platform("platform_revenue", "")
        assert now == (self.began[0] + self.paid_out, self.began[1] + self.fees)


class Wallets(Resale):
    """The tenant's and the resellers' prepaid wallets."""

    def prepare(self, data: st.DataObject) -> None:
        super().prepare(data)
        self.references: list[str] = []

    @rule(who=st.integers(0, 2), much=MONEY, yes=st.booleans(), again=st.booleans())
    def top_up(self, who: int, much: int, yes: bool, again: bool) -> None:  # noqa: FBT001  # drawn
        """A bank transfer is claimed for a wallet and decided three times; one that filled a wallet fills no other."""
        earner = self.earners[who] if who < len(self.earners) else None
        owner: dict[str, Any] = {"reseller_id": earner.row.pk} if earner else {"tenant_id": self.tenant.pk}
        is_used = again and bool(self.references)
        reference = self.references[-1] if is_used else unique("bank")
        asked = wallet.request_topup(**owner, amount=much, bank_reference=reference, requested_by_id=self.clerk.pk)
        decide = wallet.confirm_topup if yes else wallet.reject_topup
        note: dict[str, Any] = {"topup_id": asked.pk, "note": "as the bank says"}
        assert outcome_of(lambda: decide(**note, decided_by_id=self.clerk.pk)) == "checker_is_maker"
        decided: list[bool] = []
        outcomes = [
            outcome_of(lambda: decided.append(decide(**note, decided_by_id=self.operator.pk))) for _ in range(3)
        ]
        if yes and is_used:
            assert outcomes == ["bank_reference_used"] * 3
            return
        assert (outcomes, decided) == ([""] * 3, [True, False, False])
        if yes:
            self.references.append(reference)
            if earner:
                earner.wallet += much
            else:
                self.wallet += much

    @rule(who=WHO, much=MONEY)
    def credit_wallet_twice(self, who: int, much: int) -> None:
        earner, ref = self.earners[who], unique("ref")
        for _ in range(2):
            wallet.credit_reseller_wallet(reseller_id=earner.row.pk, amount=much, ref=ref, reason="", actor="test")
        earner.wallet += much

    @rule(who=WHO, tenths=st.integers(1, 11))
    def allot(self, who: int, tenths: int) -> None:
        """A reseller fills the tenant's wallet from its own, asked twice; more than there is does not move."""
        earner, ref = self.earners[who], unique("ref")
        amount = max(earner.wallet * tenths // 10, 1)
        asked: dict[str, Any] = {"reseller_id": earner.row.pk, "tenant_id": self.tenant.pk, "amount": amount}
        outcomes = [outcome_of(lambda: wallet.allot(**asked, ref=ref, reason="", actor="test")) for _ in range(2)]
        if amount > earner.wallet:
            assert outcomes == ["reseller_wallet_short"] * 2
            return
        assert outcomes == ["", ""]
        earner.wallet -= amount
        self.wallet += amount
