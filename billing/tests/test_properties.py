"""Whatever happens in whatever order, at whatever prices: the books are right after each step."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from billing import audit, holds, ledger, usage
from billing.models import Hold
from billing.pricing import Quantities, amount, current_prices
from tenants import scope
from tenants.errors import ProductError
from tenants.models import EndUser
from tests.factories import credit, fill_wallet, hold_request, make_price, make_tenant, make_user, unique

RATES = st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)).map(lambda pair: (pair[0], pair[0] // 2, pair[1]))
TOKENS = st.integers(0, 5000)
# Earlier tests may have committed posted holds that no worker will record.
FOREVER = 10**9

Rates = tuple[int, int, int]


def above(floor: Rates, extra: Rates) -> Rates:
    return floor[0] + extra[0], floor[1] + extra[1], floor[2] + extra[2]


class Till(RuleBasedStateMachine):
    """Two users of one tenant, against a model that only adds and subtracts."""

    open_holds = Bundle("open_holds")

    @initialize(cost=RATES, wholesale_extra=RATES, retail_extra=RATES, per_call=st.integers(0, 100), wallet=TOKENS)
    def open(
        self,
        cost: Rates,
        wholesale_extra: Rates,
        retail_extra: Rates,
        per_call: int,
        wallet: int,
    ) -> None:
        self.tenant = make_tenant()
        self.users = [make_user(self.tenant) for _ in range(2)]
        self.money = dict.fromkeys((user.pk for user in self.users), 0)
        self.wallet = wallet * 100 + 1
        fill_wallet(self.tenant, self.wallet)
        self.sku = unique("sku")
        wholesale = above(cost, wholesale_extra)
        retail = above(wholesale, retail_extra)
        make_price("cost", sku=self.sku, rates=cost)
        make_price("wholesale", sku=self.sku, rates=wholesale, per_call=per_call)
        make_price("retail", sku=self.sku, rates=retail, per_call=per_call, tenant_id=self.tenant.pk)

    def user(self, which: int) -> EndUser:
        return self.users[which]

    @rule(which=st.integers(0, 1), kind=st.sampled_from(["cash", "gift"]), much=st.integers(1, 10**5))
    def credit(self, which: int, kind: Any, much: int) -> None:
        user = self.user(which)
        credit(user, much, kind=kind)
        self.money[user.pk] += much

    @rule(much=st.integers(1, 10**5))
    def fill(self, much: int) -> None:
        fill_wallet(self.tenant, much)
        self.wallet += much

    @rule(
        target=open_holds,
        which=st.integers(0, 1),
        prompt=TOKENS,
        longest=TOKENS,
        free=st.integers(0, 2),
    )
    def admit(self, which: int, prompt: int, longest: int, free: int) -> Hold | None:
        user = self.user(which)
        try:
            hold = holds.admit(
                hold_request(
                    user,
                    self.sku,
                    prompt_tokens=prompt,
                    max_completion_tokens=longest,
                    min_completion_tokens=longest // 10,
                    free_per_day=free,
                )
            )
        except ProductError:
            return None
        assert longest // 10 <= hold.max_completion_tokens <= longest
        return hold

    @rule(hold=consumes(open_holds), prompt=TOKENS, cached=TOKENS, completion=TOKENS, counted=st.booleans())
    def settle(self, hold: Hold | None, prompt: int, cached: int, completion: int, counted: bool) -> None:  # noqa: FBT001
        if hold is None:
            return
        used = Quantities(prompt=prompt, cached=min(cached, prompt), completion=completion)
        prices = current_prices(tenant_id=self.tenant.pk, sku=self.sku)
        charge = 0 if hold.free else amount(prices.retail, used)
        receipt = holds.settle(
            tenant_id=self.tenant.pk,
            hold_id=hold.pk,
            usage=holds.Usage(prompt=used.prompt, cached=used.cached, completion=completion, source="upstream"),
            reason="stop",
        )
        assert receipt is not None
        assert (receipt.charge, receipt.gift + receipt.cash + receipt.shortfall) == (charge, charge)
        assert receipt.shortfall == 0 or receipt.balance == 0
        self.money[hold.user_id] -= receipt.gift + receipt.cash
        with scope.tenant(self.tenant.pk):
            posted = Hold.objects.get(pk=hold.pk)
        self.wallet -= posted.wholesale_charge - posted.wholesale_shortfall
        assert receipt.balance == self.balances(hold.user_id).available
        if counted:
            assert usage.record(tenant_id=self.tenant.pk, hold_id=hold.pk)

    @rule(hold=consumes(open_holds))
    def void(self, hold: Hold | None) -> None:
        if hold is not None:
            assert holds.void(tenant_id=self.tenant.pk, hold_id=hold.pk, reason="failed")

    def balances(self, user_id: int) -> ledger.Balances:
        return ledger.balances(tenant_id=self.tenant.pk, user_id=user_id)

    @invariant()
    def the_books_are_right(self) -> None:
        assert audit.audit_tenant(tenant_id=self.tenant.pk) == []
        assert audit.breaches_of(audit.audit(record_grace_seconds=FOREVER)) == []
        for user_id, money in self.money.items():
            found = self.balances(user_id)
            assert found.cash + found.gift == money
            assert 0 <= found.pending <= money
        with scope.tenant(self.tenant.pk):
            assert ledger.tenant_accounts(tenant_id=self.tenant.pk).wallet.posted == self.wallet


@pytest.mark.django_db
def test_the_books_are_right_whatever_happens() -> None:
    run_state_machine_as_test(
        Till,
        settings=settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
