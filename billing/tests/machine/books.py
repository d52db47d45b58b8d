"""Three users of one tenant, and what they have; balance by hand, and prices."""

from dataclasses import dataclass
from typing import Any, ClassVar

from django.db import connection, transaction
from django.db.models.functions import Now
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from billing import audit, ledger
from billing.quota import quota_day
from tenants import scope
from tenants.models import Tenant
from tests.doubles.wechatpay import WeChatPayDouble
from tests.factories import credit, fill_wallet, make_price, make_tenant, make_user, unique

RATES = st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)).map(lambda pair: (pair[0], pair[0] // 2, pair[1]))
TOKENS = st.integers(0, 5000)
# One of them acts most, so that what one step has begun another one often goes on with.
USERS = st.sampled_from([0, 0, 0, 0, 1, 2])
MONEY = st.integers(1, 10**5)
# Earlier tests may have committed posted holds that no worker will record.
FOREVER = 10**9

Rates = tuple[int, int, int]


def above(floor: Rates, extra: Rates) -> Rates:
    return floor[0] + extra[0], floor[1] + extra[1], floor[2] + extra[2]


@dataclass(kw_only=True)
class Purse:
    """What a user has, micro-yuan, and what open holds have frozen of it."""

    gift: int = 0
    cash: int = 0
    gift_held: int = 0
    cash_held: int = 0

    @property
    def free_gift(self) -> int:
        return self.gift - self.gift_held

    @property
    def free_cash(self) -> int:
        return self.cash - self.cash_held

    @property
    def free(self) -> int:
        return self.free_gift + self.free_cash

    def split(self, amount: int) -> tuple[int, int]:
        """Say what gift and cash give of an amount: gift first, and no more than there is."""
        gift = min(amount, self.free_gift)
        return gift, min(amount - gift, self.free_cash)

    def add(self, kind: str, amount: int) -> None:
        if kind == "gift":
            self.gift += amount
        else:
            self.cash += amount


class Books(RuleBasedStateMachine):
    """The model, the invariants, and the hooks."""

    wechat: WeChatPayDouble  # set by the test
    # The wholesale price is at least so many times the cost: whoever gives shares away has to have them.
    markup: ClassVar = 1

    @initialize(
        cost=RATES,
        wholesale_extra=RATES,
        retail_extra=RATES,
        per_call=st.integers(0, 100),
        wallet=TOKENS,
        data=st.data(),
    )
    def open(  # one argument for each thing that is drawn
        self,
        cost: Rates,
        wholesale_extra: Rates,
        retail_extra: Rates,
        per_call: int,
        wallet: int,
        data: st.DataObject,
    ) -> None:
        self.savepoint = transaction.savepoint()
        self.tenant = self.open_tenant(data)
        self.users = [make_user(self.tenant) for _ in range(3)]
        self.purses = {user.pk: Purse() for user in self.users}
        self.wallet, self.wallet_held = wallet * 100 + 1, 0
        self.day = 0
        fill_wallet(self.tenant, self.wallet)
        self.sku = unique("sku")
        self.per_call = per_call
        self.floor = cost[0] * self.markup, cost[1] * self.markup, cost[2] * self.markup
        wholesale = above(self.floor, wholesale_extra)
        # Resellers of other tests may have been promised shares of every wholesale price.
        make_price("cost", sku=self.sku, rates=(cost[0] // 2, cost[1] // 2, cost[2] // 2))
        make_price("wholesale", sku=self.sku, rates=wholesale, per_call=per_call)
        self.publish_retail(above(wholesale, retail_extra))
        now, zone = Tenant.objects.values_list(Now(), "timezone").get(pk=self.tenant.pk)
        self.today = quota_day(now=now, zone=zone).date  # now() stands still in a transaction
        self.prepare(data)

    # The hooks: each class calls the next.

    def open_tenant(self, data: st.DataObject) -> Tenant:  # noqa: ARG002  # for those above
        """Open the tenant, and what must be there before it."""
        return make_tenant()

    def prepare(self, data: st.DataObject) -> None:
        """Open what a feature needs."""

    def pass_night(self) -> None:
        """Move what has a day to the day before."""

    def admitted(self, held: Any) -> None:
        """An answer has begun."""

    def charged(self, held: Any) -> None:
        """An answer was charged."""

    def credited_for(self, number: str, user_id: int) -> None:
        """An order was credited."""

    def lost(self, user_id: int, spent: int) -> None:
        """A refund that could not be refused found so much of its worth spent."""

    def publish_retail(self, rates: Rates) -> None:
        make_price("retail", sku=self.sku, rates=rates, per_call=self.per_call, tenant_id=self.tenant.pk)

    def purse(self, which: int) -> Purse:
        return self.purses[self.users[which].pk]

    @property
    def free_wallet(self) -> int:
        return self.wallet - self.wallet_held

    @rule(nights=st.integers(1, 2))
    def midnight(self, nights: int) -> None:
        """What was yesterday's stays yesterday's, and what is still under way too."""
        for _ in range(nights):
            self.pass_night()
            self.day += 1

    @invariant()
    def the_books_are_right(self) -> None:
        assert audit.audit_tenant(tenant_id=self.tenant.pk) == []
        for user_id, purse in self.purses.items():
            found = ledger.balances(tenant_id=self.tenant.pk, user_id=user_id)
            assert found == (purse.cash, purse.gift, purse.gift_held + purse.cash_held)
        with scope.tenant(self.tenant.pk):
            wallet = ledger.tenant_accounts(tenant_id=self.tenant.pk).wallet
        assert (wallet.posted, wallet.pending) == (self.wallet, self.wallet_held)

    def teardown(self) -> None:
        """Audit the whole, the platform's own books too; then let the next run find nothing of this one."""
        try:
            assert audit.breaches_of(audit.audit(record_grace_seconds=FOREVER)) == []
            connection.check_constraints()  # what is due at the commit is due now
        finally:
            transaction.savepoint_rollback(self.savepoint)


class Credits(Books):
    """Balance by hand, and prices."""

    @rule(which=USERS, kind=st.sampled_from(["cash", "gift"]), much=MONEY)
    def credit(self, which: int, kind: Any, much: int) -> None:
        credit(self.users[which], much, kind=kind)
        self.purse(which).add(kind, much)

    @rule(which=USERS, much=MONEY)
    def credit_twice(self, which: int, much: int) -> None:
        user, ref = self.users[which], unique("ref")
        for _ in range(2):
            ledger.credit_user(
                tenant_id=self.tenant.pk, user_id=user.pk, amount=much, kind="cash", ref=ref, reason="", actor="test"
            )
        self.purse(which).cash += much

    @rule(much=MONEY)
    def fill(self, much: int) -> None:
        fill_wallet(self.tenant, much)
        self.wallet += much

    @rule(wholesale_extra=RATES, retail_extra=RATES)
    def reprice(self, wholesale_extra: Rates, retail_extra: Rates) -> None:
        """Both levels change in mid-stream: what is held keeps its prices."""
        wholesale = above(self.floor, wholesale_extra)
        make_price("wholesale", sku=self.sku, rates=wholesale, per_call=self.per_call)
        self.publish_retail(above(wholesale, retail_extra))
