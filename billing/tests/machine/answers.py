"""Answers: holds and every way in which they end."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, invariant, multiple, rule

from billing import adjustments, holds, usage
from billing.models import Hold, QuotaUse
from billing.models.price import MAX_TOKENS
from billing.pricing import Prices, Quantities, amount, current_prices
from billing.tests.machine.books import TOKENS, USERS, Books
from tenants import scope
from tenants.errors import ProductError
from tests.factories import admit, fill_wallet, hold_request, make_price, unique

USED = st.builds(
    lambda prompt, cached, completion: Quantities(prompt=prompt, cached=min(cached, prompt), completion=completion),
    TOKENS,
    TOKENS,
    TOKENS,
)


def took(more: int, *, available: int, shortfall: int) -> int:
    """What a difference takes of a balance (or, below zero, gives back), after what nobody had paid."""
    return min(more, available) if more > 0 else min(more + shortfall, 0)


@dataclass(kw_only=True)
class Held:
    """What the model knows of a hold; amounts in micro-yuan, `gift` and `cash` what its user paid."""

    row: Hold
    prices: Prices
    day: int
    number: int  # later ones have greater numbers
    own_ppm: int = 0
    parent_ppm: int = 0
    dispatched: bool = False
    checkpoint: Quantities = field(default_factory=lambda: Quantities(prompt=0, completion=0))
    charge: int = 0
    gift: int = 0
    cash: int = 0
    wholesale: int = 0
    wholesale_shortfall: int = 0
    own_share: int = 0
    parent_share: int = 0
    given_back: int = 0

    @property
    def paid(self) -> int:
        return self.gift + self.cash

    @property
    def shortfall(self) -> int:
        return self.charge - self.paid

    @property
    def counted(self) -> Quantities:
        """What the sweep would charge."""
        prompt = min(self.checkpoint.prompt, self.row.prompt_tokens)
        return Quantities(
            prompt=prompt,
            cached=min(self.checkpoint.cached, prompt),
            completion=min(self.checkpoint.completion, self.row.max_completion_tokens),
        )

    def rated(self, used: Quantities) -> tuple[int, int]:
        """What the user and the tenant owe for it, at the prices of the day it was held."""
        return 0 if self.row.free else amount(self.prices.retail, used), amount(self.prices.wholesale, used)


class Answers(Books):
    """Holds and every way in which they end."""

    open_holds = Bundle("open_holds")
    interrupted = Bundle("interrupted")
    posted = Bundle("posted")

    def prepare(self, data: st.DataObject) -> None:
        super().prepare(data)
        # A token is worth a micro-yuan there.
        self.plain = unique("sku")
        make_price("cost", sku=self.plain, rates=(0, 0, 400_000))
        make_price("wholesale", sku=self.plain, rates=(0, 0, 800_000))
        make_price("retail", sku=self.plain, rates=(0, 0, 1_000_000), tenant_id=self.tenant.pk)
        self.held: dict[Any, Held] = {}
        self.ended: dict[Any, Held] = {}
        self.answers = 0
        self.free_used = Counter[tuple[int, int]]()

    @rule(target=open_holds, which=USERS, prompt=TOKENS, longest=TOKENS, free=st.integers(0, 2))
    def admit(self, which: int, prompt: int, longest: int, free: int) -> Any:
        return self.begin(self.sku, which, prompt, longest, free)

    def begin(self, sku: str, which: int, prompt: int, longest: int, free: int) -> Any:
        user, purse = self.users[which], self.purse(which)
        has_free = self.free_used[user.pk, self.day] < free
        request = hold_request(
            user,
            sku,
            prompt_tokens=prompt,
            max_completion_tokens=longest,
            min_completion_tokens=longest // 10,
            free_per_day=free,
        )
        try:
            hold = admit(request)
        except ProductError:
            return multiple()
        assert longest // 10 <= hold.max_completion_tokens <= longest
        prices = current_prices(tenant_id=self.tenant.pk, sku=sku)
        most = Quantities(prompt=prompt, completion=hold.max_completion_tokens)
        frozen = (0, 0) if has_free else purse.split(amount(prices.retail, most))
        assert (hold.free, hold.gift_amount, hold.cash_amount) == (has_free, *frozen)
        assert has_free or sum(frozen) == amount(prices.retail, most)
        assert hold.wholesale_amount == amount(prices.wholesale, most) <= self.free_wallet
        purse.gift_held += frozen[0]
        purse.cash_held += frozen[1]
        self.wallet_held += hold.wholesale_amount
        self.free_used[user.pk, self.day] += hold.free
        self.answers += 1
        self.held[hold.pk] = Held(row=hold, prices=prices, day=self.day, number=self.answers)
        self.admitted(self.held[hold.pk])
        with pytest.raises(holds.DuplicateKeyError):
            admit(request)
        return hold.pk

    def its(self, pk: Any) -> dict[str, Any]:
        return {"tenant_id": self.tenant.pk, "hold_id": pk}

    @rule(pk=open_holds)
    def dispatch(self, pk: Any) -> None:
        assert holds.dispatch(**self.its(pk))
        self.held[pk].dispatched = True

    @rule(pk=open_holds, used=USED)
    def checkpoint(self, pk: Any, used: Quantities) -> None:
        assert holds.checkpoint(**self.its(pk), quantities=used)
        self.held[pk].checkpoint = used

    @rule(target=posted, pk=consumes(open_holds), used=USED)
    def settle(self, pk: Any, used: Quantities) -> Any:
        said = holds.Usage(prompt=used.prompt, cached=used.cached, completion=used.completion, source="upstream")
        receipt = holds.settle(**self.its(pk), usage=said, reason="stop")
        assert receipt is not None
        held = self.take(pk, used)
        assert (receipt.charge, receipt.shortfall) == (held.charge, held.shortfall)
        assert (receipt.gift, receipt.cash) == (held.gift, held.cash)
        assert receipt.balance == self.purses[held.row.user_id].free
        assert holds.settle(**self.its(pk), usage=said, reason="again") is None
        assert not holds.void(**self.its(pk), reason="again")
        assert adjustments.adjust(**self.its(pk), usage=said) is None
        return pk

    @rule(target=posted, which=USERS, tenths=st.integers(1, 10))
    def use_up(self, which: int, tenths: int) -> Any:
        """So many tenths of what a user has are used up at once; the tenant has prepaid for that."""
        used = Quantities(prompt=0, completion=min(self.purse(which).free * tenths // 10, MAX_TOKENS))
        fill_wallet(self.tenant, used.completion + 1)
        self.wallet += used.completion + 1
        return self.settle(self.begin(self.plain, which, 0, used.completion, 0), used)

    @rule(pk=consumes(open_holds))
    def void(self, pk: Any) -> None:
        assert holds.void(**self.its(pk), reason="failed")
        self.free(pk)
        assert not holds.void(**self.its(pk), reason="again")

    @rule(target=interrupted, pk=consumes(open_holds))
    def reap(self, pk: Any) -> Any:
        """Its process died, and its lease is over."""
        with scope.tenant(self.tenant.pk):
            Hold.objects.filter(pk=pk).update(expires_at=Now() - timedelta(seconds=1))
        holds.expire_holds()
        holds.expire_holds()
        held = self.held[pk]
        if not held.dispatched or not held.checkpoint.completion:
            self.free(pk)
            assert holds.receipt_of(**self.its(pk)) is None
            return multiple()
        self.take(pk, held.counted)
        receipt = holds.receipt_of(**self.its(pk))
        assert receipt is not None
        assert (receipt.charge, receipt.reason) == (held.charge, "interrupted")
        return pk

    @rule(target=posted, pk=consumes(interrupted), used=USED)
    def late(self, pk: Any, used: Quantities) -> Any:
        """What it really used comes after all, twice."""
        held = self.ended[pk]
        charge, wholesale = held.rated(used)
        gift, cash = self.difference(held, charge - held.charge)
        wallet_taken = took(wholesale - held.wholesale, available=self.free_wallet, shortfall=held.wholesale_shortfall)
        said = holds.Usage(prompt=used.prompt, cached=used.cached, completion=used.completion, source="upstream")
        receipt = adjustments.adjust(**self.its(pk), usage=said)
        assert receipt is not None
        assert (receipt.charge, receipt.gift, receipt.cash) == (charge, held.gift + gift, held.cash + cash)
        purse = self.purses[held.row.user_id]
        purse.gift, purse.cash = purse.gift - gift, purse.cash - cash
        self.wallet -= wallet_taken
        assert adjustments.adjust(**self.its(pk), usage=said) is None
        assert holds.receipt_of(**self.its(pk)) == receipt
        return pk

    def difference(self, held: Held, more: int) -> tuple[int, int]:
        """What more takes of gift and cash as far as they go; what less gives back of cash, then of gift."""
        purse = self.purses[held.row.user_id]
        if more > 0:
            return purse.split(more)
        back = took(more, available=0, shortfall=held.shortfall)
        cash = max(back, -held.cash)
        return back - cash, cash

    @rule(pk=posted)
    def record(self, pk: Any) -> None:
        """Its usage is delivered three times."""
        with scope.tenant(self.tenant.pk):
            is_due = Hold.objects.get(pk=pk).recorded_at is None
        assert [usage.record(**self.its(pk)) for _ in range(3)] == [is_due, False, False]

    @rule(pk=interrupted)
    def record_early(self, pk: Any) -> None:
        """Before its late usage comes."""
        self.record(pk)

    def pass_night(self) -> None:
        super().pass_night()
        with scope.tenant(self.tenant.pk):
            for row in QuotaUse.objects.order_by("date"):
                QuotaUse.objects.filter(pk=row.pk).update(date=row.date - timedelta(days=1))
            Hold.objects.update(quota_date=F("quota_date") - timedelta(days=1))

    @invariant()
    def free_answers_are_counted_in_their_own_day(self) -> None:
        with scope.tenant(self.tenant.pk):
            found = Counter({(row.user_id, (self.today - row.date).days): row.used for row in QuotaUse.objects.all()})
        assert +found == +Counter({(user_id, self.day - day): used for (user_id, day), used in self.free_used.items()})

    def take(self, pk: Any, used: Quantities) -> Held:
        """Let the model charge a hold: what is held, then what there is, then nothing more."""
        held = self.release(pk)
        purse = self.purses[held.row.user_id]
        held.charge, held.wholesale = held.rated(used)
        held.gift = min(held.charge, held.row.gift_amount)
        held.cash = min(held.charge - held.gift, held.row.cash_amount)
        # Both sides of the hold are still in the purse, so that no more than the others' part is out of reach.
        rest = held.charge - held.gift - held.cash
        more_gift = min(rest, purse.free_gift - held.row.gift_amount)
        more_cash = min(rest - more_gift, purse.free_cash - held.row.cash_amount)
        held.gift, held.cash = held.gift + more_gift, held.cash + more_cash
        purse.gift, purse.cash = purse.gift - held.gift, purse.cash - held.cash
        tenant_paid = min(held.wholesale, self.free_wallet)
        held.wholesale_shortfall = held.wholesale - tenant_paid
        self.wallet -= tenant_paid
        self.ended[pk] = held
        self.charged(held)
        return held

    def free(self, pk: Any) -> None:
        held = self.release(pk)
        self.free_used[held.row.user_id, held.day] -= held.row.free

    def release(self, pk: Any) -> Held:
        """Let the model end a hold: nothing of it is frozen any more."""
        held = self.held.pop(pk)
        purse = self.purses[held.row.user_id]
        purse.gift_held, purse.cash_held = (
            purse.gift_held - held.row.gift_amount,
            purse.cash_held - held.row.cash_amount,
        )
        self.wallet_held -= held.row.wholesale_amount
        return held
