"""Refunds: through the provider, by hand, and forced; told once, thrice, late, or never."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.db.models.functions import Now
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from uuid_utils.compat import uuid7

from billing import callbacks, refund
from billing.models import Account, Order, Refund
from billing.payments.provider import RefundNotice
from billing.refund import Worth
from billing.tests.machine.answers import Answers
from billing.tests.machine.books import USERS
from billing.tests.machine.recharges import FEN, Recharges
from tenants import scope
from tenants.errors import ProductError
from tests.factories import unique

# What becomes of our request: taken; never reached WeChat; taken, and the answer was lost; refused.
FATES = st.sampled_from(["taken", "taken", "away", "down", "refused"])
# How a refund stands at WeChat. With ABNORMAL its merchant must act: neither end.
STATES = st.sampled_from(["PROCESSING", "SUCCESS", "CLOSED", "ABNORMAL"])
ENDS: Final[Mapping[str, str]] = {"SUCCESS": "done", "CLOSED": "failed"}
# A refund is so many tenths of what is left; eleven are too many.
TENTHS = st.integers(1, 11)


@dataclass(kw_only=True)
class GoneBack:
    """What the model knows of a refund: what it is worth, and whom it was taken from."""

    order: str
    user_id: int
    worth: Worth
    gift: int
    cash: int
    state: str

    @property
    def shortfall(self) -> int:
        return self.worth.credits + self.worth.bonus - self.gift - self.cash


class Refunds(Answers, Recharges):
    """Refunds of what `Recharges` has sold and `Answers` have used up, or not."""

    def prepare(self, data: st.DataObject) -> None:
        super().prepare(data)
        self.refunds: dict[Any, GoneBack] = {}

    @rule(target=Recharges.orders, which=USERS, tenths=st.integers(1, 10))
    def buy_and_use_up(self, which: int, tenths: int) -> str:
        number = self.bought(which)
        self.use_up(which, tenths)
        return number

    def left(self, number: str) -> Worth:
        """Return what of an order has not been refunded."""
        gone = [row.worth for row in self.refunds.values() if row.order == number and row.state != "failed"]
        return Worth(*(self.worth[part] - sum(worth[part] for worth in gone) for part in range(3)))

    def drawn(self, number: str, tenths: int) -> int:
        """Return an amount in whole fen, at least one."""
        return max(self.left(number).money // FEN * tenths // 10, 1) * FEN

    def expected(self, number: str, amount: int, *, forced: bool = False) -> GoneBack:
        """Reckon what a refund is worth and what of it its user gives; an order's last one takes all that is left."""
        left, user_id = self.left(number), self.credited[number].user_id
        purse = self.purses[user_id]
        worth = Worth(amount, left.credits * amount // left.money, left.bonus * amount // left.money)
        whole = worth.credits + worth.bonus
        gift = min(worth.bonus, purse.free_gift)
        cash = min(whole - gift, purse.free_cash)
        if forced:
            gift = min(whole - cash, purse.free_gift)
        return GoneBack(order=number, user_id=user_id, worth=worth, gift=gift, cash=cash, state="requested")

    def why_not(self, number: str, amount: int) -> tuple[str, dict[str, str]] | None:
        """Say how a refund that is not forced has to be refused, if so."""
        if number not in self.credited:
            return "order_not_paid", {}
        left = self.left(number).money
        if amount > left:
            return "refund_too_large", {"left": str(left)}
        if not self.expected(number, amount).shortfall:
            return None
        fens = range(left // FEN + 1)
        largest = max(fen for fen in fens if not fen or not self.expected(number, fen * FEN).shortfall)
        return "refund_not_covered", {"largest": str(largest * FEN)}

    def book(self, pk: Any, row: GoneBack) -> None:
        """Let the model take a refund's worth back."""
        purse = self.purses[row.user_id]
        purse.gift, purse.cash = purse.gift - row.gift, purse.cash - row.cash
        self.refunds[pk] = row
        if row.shortfall:
            self.lost(row.user_id, row.shortfall)

    def end(self, pk: Any) -> None:
        """We have heard how a refund stands at WeChat: let the model end it, once, if that is an end."""
        row, state = self.refunds[pk], self.wechat.refunds[pk.hex].state
        if row.state == "requested" and state in ENDS:
            row.state = ENDS[state]
            if row.state == "failed":
                self.give_again(row)

    def give_again(self, row: GoneBack) -> None:
        purse = self.purses[row.user_id]
        purse.gift, purse.cash = purse.gift + row.gift, purse.cash + row.cash

    def ask(self, number: str, amount: int, kind: Literal["provider", "manual"]) -> Any:
        """Ask for a refund, and again with its number; return that, or None where it was refused as it has to be."""
        refusal = self.why_not(number, amount)
        with scope.tenant(self.tenant.pk):
            order_id = Order.objects.get(out_trade_no=number).pk
        asked: dict[str, Any] = {"kind": kind, "reason": "not wanted", "actor": "test", "number": uuid7()}
        found: tuple[str, dict[str, Any]] | None = None
        try:
            made = [
                refund.request_refund(tenant_id=self.tenant.pk, order_id=order_id, amount=amount, **asked).pk
                for _ in range(2)
            ]
        except ProductError as refused:
            made, found = [], (refused.type, refused.facts)
        assert found == refusal
        if found is not None:
            return None
        assert made == [asked["number"]] * 2
        self.book(made[0], self.expected(number, amount))
        return made[0]

    @rule(number=Recharges.orders, tenths=TENTHS)
    def refund_by_hand(self, number: str, tenths: int) -> None:
        pk = self.ask(number, self.drawn(number, tenths), "manual")
        if pk:
            self.refunds[pk].state = "done"

    @rule(number=Recharges.orders, tenths=TENTHS, fate=FATES, state=STATES)
    def refund_by_wechat(self, number: str, tenths: int, fate: str, state: str) -> None:
        self.wechat.refunds_end = state
        if fate == "refused":
            self.wechat.refusals.append("NOT_ENOUGH")
        elif fate != "taken":
            self.wechat.trouble.append(fate)
        pk = self.ask(number, self.drawn(number, tenths), "provider")
        self.wechat.refusals.clear()
        self.wechat.trouble.clear()
        if pk and fate == "refused":
            self.refunds[pk].state = "failed"
            self.give_again(self.refunds[pk])
        elif pk and fate == "taken":
            self.end(pk)

    def at_wechat(self) -> list[Any]:
        """Return the refunds that WeChat knows, the oldest first."""
        return [pk for pk in self.refunds if pk.hex in self.wechat.refunds]

    @precondition(lambda self: self.at_wechat())
    @rule(data=st.data(), state=STATES, times=st.integers(0, 3))
    def refund_told(self, data: st.DataObject, state: str, times: int) -> None:
        """WeChat goes on with a refund, unless it has ended, and tells of it as often as it likes."""
        pk = data.draw(st.sampled_from(self.at_wechat()))
        known = self.wechat.refunds[pk.hex]
        if known.state not in ENDS:
            known.state = state
        if not times:
            return
        body, headers = self.wechat.refund_notification(pk.hex)
        for _ in range(times):
            event = callbacks.take_callback(account=self.account, body=body, headers=headers, query={})
            assert event is not None
            assert event.is_taken
        self.end(pk)

    @precondition(lambda self: any(row.state == "requested" for row in self.refunds.values()))
    @rule(state=STATES)
    def refunds_polled(self, state: str) -> None:
        """Each refund under way is asked for, and asked for again where WeChat does not know it; twice."""
        self.wechat.refunds_end = state
        with scope.tenant(self.tenant.pk):
            Refund.objects.filter(state="requested").update(next_poll_at=Now())
        refund.poll_refunds()
        refund.poll_refunds()
        for pk in self.at_wechat():
            self.end(pk)

    @precondition(lambda self: self.credited)
    @rule(data=st.data(), tenths=TENTHS, times=st.integers(1, 3))
    def charge_back(self, data: st.DataObject, tenths: int, times: int) -> None:
        """The provider has taken money back: it says so, in several messages, and staff books what its letter says."""
        self.charged_back(data.draw(st.sampled_from(sorted(self.credited))), tenths, times)

    def charged_back(self, number: str, tenths: int, times: int) -> None:
        amount, refund_id = self.drawn(number, tenths), unique("back")
        fits = amount <= self.left(number).money
        row = self.expected(number, amount, forced=True) if fits else None
        notice = self.forced_notice(number, amount, refund_id)
        told = [self.forced_notice(number, amount, refund_id) for _ in range(times - 1)]
        outcomes = [refund.settle_refund(account=self.account, notice=said).outcome for said in (notice, notice, *told)]
        if row is None:
            assert outcomes == ["other_amount"] * (times + 1)
            return
        assert outcomes == ["refunded", "refunded", *["repeated"] * len(told)]
        booked = refund.request_refund(
            tenant_id=self.tenant.pk,
            order_id=self.credited[number].pk,
            amount=amount,
            kind="forced",
            reason="a letter",
            actor="test",
            refund_id=refund_id,
        )
        assert (booked.state, booked.shortfall) == ("done", row.shortfall)
        row.state = "done"
        self.book(booked.pk, row)

    def forced_notice(self, number: str, amount: int, refund_id: str) -> RefundNotice:
        return RefundNotice(
            event_id=unique("event"),
            out_trade_no=number,
            out_refund_no="",
            refund_id=refund_id,
            merchant_id=self.merchant.merchant_id,
            app_id=self.merchant.app_id,
            amount=amount,
            currency="CNY",
            state="done",
            forced=True,
            body_digest="0" * 64,
        )

    @invariant()
    def refunds_are_as_they_were_told(self) -> None:
        """Each by its state, its worth and what its user had spent; the tenant bears just that."""
        fields = ("pk", "state", "amount", "credits_back", "bonus_back", "shortfall")
        with scope.tenant(self.tenant.pk):
            found = set(Refund.objects.values_list(*fields))
            borne = Account.objects.filter(kind="shortfall", channel="refund").values_list("posted", flat=True)
            assert sum(borne) == -sum(row.shortfall for row in self.refunds.values())
        assert found == {(pk, row.state, *row.worth, row.shortfall) for pk, row in self.refunds.items()}
