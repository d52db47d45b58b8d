"""Whatever happens in whatever order, at whatever prices: the books are right after each step.

The machine is made of one class for each feature, all of them above `Books`, which has the model: it only adds and
subtracts. A new feature is one more such class: its rules change the product and the model alike, and its `prepare`
opens what it needs. Time never passes by the clock: a rule moves the rows into the past.

`PROPERTY_EXAMPLES` is how many runs are tried, 30 unless it says otherwise; each has up to 30 steps.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing import adjustments, audit, callbacks, holds, ledger, recharge, redeem, usage
from billing.models import Hold, Order, QuotaUse
from billing.payments.clients import client_for
from billing.payments.provider import NotificationRefusedError
from billing.pricing import Prices, Quantities, amount, current_prices
from billing.quota import quota_day
from billing.tests.payments.conftest import BONUS, CREDITS, PRICE, open_account, open_package
from tenants import scope
from tenants.errors import ProductError
from tenants.models import Tenant
from tests.doubles.wechatpay import Merchant, WeChatPayDouble, rsa_key, running_wechatpay
from tests.factories import (
    credit,
    fill_wallet,
    hold_request,
    make_codes,
    make_price,
    make_tenant,
    make_user,
    unique,
)

RATES = st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)).map(lambda pair: (pair[0], pair[0] // 2, pair[1]))
TOKENS = st.integers(0, 5000)
USERS = st.integers(0, 1)
USED = st.builds(
    lambda prompt, cached, completion: Quantities(prompt=prompt, cached=min(cached, prompt), completion=completion),
    TOKENS,
    TOKENS,
    TOKENS,
)
# Earlier tests may have committed posted holds that no worker will record.
FOREVER = 10**9
CODE = 7_777

Rates = tuple[int, int, int]


def above(floor: Rates, extra: Rates) -> Rates:
    return floor[0] + extra[0], floor[1] + extra[1], floor[2] + extra[2]


def took(more: int, *, available: int, shortfall: int) -> int:
    """What a difference takes of a balance (or, below zero, gives back), after what nobody had paid."""
    return min(more, available) if more > 0 else min(more + shortfall, 0)


@dataclass
class Held:
    """What the model knows of a hold."""

    row: Hold
    prices: Prices
    day: int
    dispatched: bool = False
    checkpoint: Quantities = field(default_factory=lambda: Quantities(prompt=0, completion=0))
    charge: int = 0
    shortfall: int = 0
    wholesale: int = 0
    wholesale_shortfall: int = 0

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


class Books(RuleBasedStateMachine):
    """Two users of one tenant, against a model that only adds and subtracts."""

    wechat: WeChatPayDouble  # set by the test
    open_holds = Bundle("open_holds")
    interrupted = Bundle("interrupted")
    posted = Bundle("posted")

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
        self.held: dict[Any, Held] = {}
        self.ended: dict[Any, Held] = {}  # by the sweep
        self.day, self.free_used = 0, Counter[tuple[int, int]]()
        fill_wallet(self.tenant, self.wallet)
        self.sku = unique("sku")
        self.cost, self.per_call = cost, per_call
        wholesale = above(cost, wholesale_extra)
        # Resellers of other tests may have been promised shares of every wholesale price.
        make_price("cost", sku=self.sku, rates=(cost[0] // 2, cost[1] // 2, cost[2] // 2))
        make_price("wholesale", sku=self.sku, rates=wholesale, per_call=per_call)
        self.publish_retail(above(wholesale, retail_extra))
        now, zone = Tenant.objects.values_list(Now(), "timezone").get(pk=self.tenant.pk)
        self.today = quota_day(now=now, zone=zone).date  # now() stands still in a transaction
        self.prepare()

    def prepare(self) -> None:
        """Open what a feature needs; each class calls the next."""

    def publish_retail(self, rates: Rates) -> None:
        self.retail = rates
        make_price("retail", sku=self.sku, rates=rates, per_call=self.per_call, tenant_id=self.tenant.pk)

    def balances(self, user_id: int) -> ledger.Balances:
        return ledger.balances(tenant_id=self.tenant.pk, user_id=user_id)

    def available(self, user_id: int) -> int:
        """What a user can spend, as the model has it."""
        return self.money[user_id] - sum(h.row.amount for h in self.held.values() if h.row.user_id == user_id)

    @property
    def wallet_available(self) -> int:
        return self.wallet - sum(h.row.wholesale_amount for h in self.held.values())

    @invariant()
    def the_books_are_right(self) -> None:
        assert audit.audit_tenant(tenant_id=self.tenant.pk) == []
        for user_id, money in self.money.items():
            found = self.balances(user_id)
            assert (found.cash + found.gift, found.available) == (money, self.available(user_id))
        with scope.tenant(self.tenant.pk):
            wallet = ledger.tenant_accounts(tenant_id=self.tenant.pk).wallet
        assert (wallet.posted, wallet.available) == (self.wallet, self.wallet_available)

    def teardown(self) -> None:
        assert audit.breaches_of(audit.audit(record_grace_seconds=FOREVER)) == []


class Credits(Books):
    """Balance by hand, and prices."""

    @rule(which=USERS, kind=st.sampled_from(["cash", "gift"]), much=st.integers(1, 10**5))
    def credit(self, which: int, kind: Any, much: int) -> None:
        user = self.users[which]
        credit(user, much, kind=kind)
        self.money[user.pk] += much

    @rule(which=USERS, much=st.integers(1, 10**5))
    def credit_twice(self, which: int, much: int) -> None:
        user, ref = self.users[which], unique("ref")
        for _ in range(2):
            ledger.credit_user(
                tenant_id=self.tenant.pk, user_id=user.pk, amount=much, kind="cash", ref=ref, reason="", actor="test"
            )
        self.money[user.pk] += much

    @rule(much=st.integers(1, 10**5))
    def fill(self, much: int) -> None:
        fill_wallet(self.tenant, much)
        self.wallet += much

    @rule(wholesale_extra=RATES, retail_extra=RATES)
    def reprice(self, wholesale_extra: Rates, retail_extra: Rates) -> None:
        """Both levels change in mid-stream: what is held keeps its prices."""
        wholesale = above(self.cost, wholesale_extra)
        make_price("wholesale", sku=self.sku, rates=wholesale, per_call=self.per_call)
        self.publish_retail(above(wholesale, retail_extra))


class Answers(Books):
    """Holds and every way in which they end."""

    @rule(
        target=Books.open_holds,
        which=USERS,
        prompt=TOKENS,
        longest=TOKENS,
        free=st.integers(0, 2),
    )
    def admit(self, which: int, prompt: int, longest: int, free: int) -> Any:
        user = self.users[which]
        has_free = self.free_used[user.pk, self.day] < free
        request = hold_request(
            user,
            self.sku,
            prompt_tokens=prompt,
            max_completion_tokens=longest,
            min_completion_tokens=longest // 10,
            free_per_day=free,
        )
        try:
            hold = holds.admit(request)
        except ProductError:
            return multiple()
        assert longest // 10 <= hold.max_completion_tokens <= longest
        assert hold.free == has_free
        self.free_used[user.pk, self.day] += hold.free
        prices = current_prices(tenant_id=self.tenant.pk, sku=self.sku)
        self.held[hold.pk] = Held(row=hold, prices=prices, day=self.day)
        with pytest.raises(holds.DuplicateKeyError):
            holds.admit(request)
        return hold.pk

    def its(self, pk: Any) -> dict[str, Any]:
        return {"tenant_id": self.tenant.pk, "hold_id": pk}

    @rule(pk=Books.open_holds)
    def dispatch(self, pk: Any) -> None:
        if pk in self.held:
            assert holds.dispatch(**self.its(pk))
            self.held[pk].dispatched = True

    @rule(pk=Books.open_holds, used=USED)
    def checkpoint(self, pk: Any, used: Quantities) -> None:
        if pk in self.held:
            assert holds.checkpoint(**self.its(pk), quantities=used)
            self.held[pk].checkpoint = used

    @rule(target=Books.posted, pk=consumes(Books.open_holds), used=USED)
    def settle(self, pk: Any, used: Quantities) -> Any:
        said = holds.Usage(prompt=used.prompt, cached=used.cached, completion=used.completion, source="upstream")
        receipt = holds.settle(**self.its(pk), usage=said, reason="stop")
        assert receipt is not None
        held = self.take(pk, used)
        assert (receipt.charge, receipt.shortfall) == (held.charge, held.shortfall)
        assert receipt.gift + receipt.cash == held.charge - held.shortfall
        assert receipt.balance == self.balances(held.row.user_id).available
        assert holds.settle(**self.its(pk), usage=said, reason="again") is None
        assert not holds.void(**self.its(pk), reason="again")
        assert adjustments.adjust(**self.its(pk), usage=said) is None
        return pk

    @rule(pk=consumes(Books.open_holds))
    def void(self, pk: Any) -> None:
        assert holds.void(**self.its(pk), reason="failed")
        self.free(pk)
        assert not holds.void(**self.its(pk), reason="again")

    @rule(target=Books.interrupted, pk=consumes(Books.open_holds))
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
        self.ended[pk] = self.take(pk, held.counted)
        receipt = holds.receipt_of(**self.its(pk))
        assert receipt is not None
        assert (receipt.charge, receipt.reason) == (held.charge, "interrupted")
        return pk

    @rule(target=Books.posted, pk=consumes(Books.interrupted), used=USED)
    def late(self, pk: Any, used: Quantities) -> Any:
        """What it really used comes after all, twice."""
        held = self.ended[pk]
        charge, wholesale = held.rated(used)
        more, paid = charge - held.charge, held.charge - held.shortfall
        taken = took(more, available=self.available(held.row.user_id), shortfall=held.shortfall)
        tenant_more = wholesale - held.wholesale
        wallet_taken = took(tenant_more, available=self.wallet_available, shortfall=held.wholesale_shortfall)
        said = holds.Usage(prompt=used.prompt, cached=used.cached, completion=used.completion, source="upstream")
        receipt = adjustments.adjust(**self.its(pk), usage=said)
        assert receipt is not None
        assert (receipt.charge, receipt.gift + receipt.cash) == (charge, paid + taken)
        self.money[held.row.user_id] -= taken
        self.wallet -= wallet_taken
        assert adjustments.adjust(**self.its(pk), usage=said) is None
        assert holds.receipt_of(**self.its(pk)) == receipt
        return pk

    @rule(pk=Books.posted)
    def record(self, pk: Any) -> None:
        """Its usage is delivered three times."""
        with scope.tenant(self.tenant.pk):
            is_due = Hold.objects.get(pk=pk).recorded_at is None
        assert [usage.record(**self.its(pk)) for _ in range(3)] == [is_due, False, False]

    @rule(pk=Books.interrupted)
    def record_early(self, pk: Any) -> None:
        """Before its late usage comes."""
        self.record(pk)

    @rule()
    def midnight(self) -> None:
        """Yesterday's free answers are yesterday's, and so are those still under way."""
        with scope.tenant(self.tenant.pk):
            for row in QuotaUse.objects.order_by("date"):
                QuotaUse.objects.filter(pk=row.pk).update(date=row.date - timedelta(days=1))
            Hold.objects.update(quota_date=F("quota_date") - timedelta(days=1))
        self.day += 1

    @invariant()
    def free_answers_are_counted_in_their_own_day(self) -> None:
        with scope.tenant(self.tenant.pk):
            found = Counter({(row.user_id, (self.today - row.date).days): row.used for row in QuotaUse.objects.all()})
        assert +found == +Counter({(user_id, self.day - day): used for (user_id, day), used in self.free_used.items()})

    def take(self, pk: Any, used: Quantities) -> Held:
        """Let the model charge a hold: what is held, then what there is, then nothing more."""
        held = self.held.pop(pk)
        held.charge, held.wholesale = held.rated(used)
        user_id = held.row.user_id
        paid = min(held.charge, self.available(user_id))
        tenant_paid = min(held.wholesale, self.wallet_available)
        held.shortfall, held.wholesale_shortfall = held.charge - paid, held.wholesale - tenant_paid
        self.money[user_id] -= paid
        self.wallet -= tenant_paid
        return held

    def free(self, pk: Any) -> None:
        held = self.held.pop(pk)
        self.free_used[held.row.user_id, held.day] -= held.row.free


class Recharges(Books):
    """Orders, and whatever a provider says of them, in whatever order."""

    orders = Bundle("orders")

    def prepare(self) -> None:
        super().prepare()
        self.merchant = Merchant(merchant_id=str(1_900_000_000 + self.tenant.pk), app_id="wx0123456789abcdef")
        self.wechat.merchants[self.merchant.merchant_id] = self.merchant
        self.account = open_account(self.tenant, self.merchant)
        self.package = open_package(self.tenant)
        self.credited: set[str] = set()

    @rule(target=orders, which=USERS)
    def order(self, which: int) -> str:
        purchase = recharge.Purchase(
            package=self.package.slug,
            channel="wechat",
            method="native",
            address="127.0.0.1",
            notify_base="https://pay.test",
        )
        with scope.tenant(self.tenant.pk):
            order, _payment = recharge.create_order(user=self.users[which], purchase=purchase)
        return order.out_trade_no

    @rule(number=orders)
    def pay(self, number: str) -> None:
        """The person pays; nobody has told us yet."""
        if self.wechat.trades[number].state in {"NOTPAY", "CLOSED"}:
            self.wechat.pay(number)

    @precondition(lambda self: any(trade.state == "SUCCESS" for trade in self.mine()))
    @rule(data=st.data(), times=st.integers(1, 3))
    def notify(self, data: st.DataObject, times: int) -> None:
        """WeChat tells of a payment, as often as it likes."""
        number = data.draw(st.sampled_from([t.asked["out_trade_no"] for t in self.mine() if t.state == "SUCCESS"]))
        body, headers = self.wechat.notification(number)
        for _ in range(times):
            event = callbacks.take_callback(account=self.account, body=body, headers=headers, query={})
            assert event is not None
            assert event.is_taken
        self.reconcile()
        assert number in self.credited

    @rule(number=orders, wrong=st.sampled_from(["amount", "forged", "merchant"]))
    def notify_wrongly(self, number: str, wrong: str) -> None:
        """Somebody tells of a payment that is not one."""
        before = set(self.credited)
        changes: dict[str, dict[str, Any]] = {
            "amount": {"amount": {"total": 1, "currency": "CNY"}},
            "forged": {"sign_with": rsa_key("somebody")},
            "merchant": {"mchid": "1000000000"},
        }
        said = {"trade_state": "SUCCESS", "transaction_id": f"4200{number[:20]}", **changes[wrong]}
        said.setdefault("amount", {"total": PRICE // 10_000, "currency": "CNY"})
        body, headers = self.wechat.notification(number, **said)
        try:
            event = callbacks.take_callback(account=self.account, body=body, headers=headers, query={})
        except NotificationRefusedError:
            pass
        else:
            assert event is not None
            assert not event.is_taken
        self.reconcile()
        assert self.credited == before

    @rule(number=orders, seconds=st.sampled_from([20, 200, 2000]))
    def poll(self, number: str, seconds: int) -> None:
        """Time passes for an order, and it is asked for, twice."""
        past = timedelta(seconds=seconds)
        with scope.tenant(self.tenant.pk):
            rows = Order.objects.filter(out_trade_no=number)
            was = rows.get().state
            rows.update(created_at=F("created_at") - past, next_poll_at=Now() - past)
            if seconds > recharge.ORDER_SECONDS:
                rows.update(expires_at=F("expires_at") - past)
        recharge.poll_orders()
        recharge.poll_orders()
        self.reconcile()
        assert was != "pending" or self.wechat.trades[number].state != "SUCCESS" or number in self.credited

    def mine(self) -> list[Any]:
        return [trade for trade in self.wechat.trades.values() if trade.merchant is self.merchant]

    def reconcile(self) -> None:
        """Let the model credit what the product calls paid, once, if it was paid."""
        with scope.tenant(self.tenant.pk):
            paid = {order.out_trade_no: order for order in Order.objects.filter(state="paid")}
        for number in set(paid) - self.credited:
            assert self.wechat.trades[number].state == "SUCCESS"
            self.money[paid[number].user_id] += CREDITS + BONUS
        assert self.credited <= set(paid)
        self.credited = set(paid)


class Codes(Books):
    """Redeem codes."""

    def prepare(self) -> None:
        super().prepare()
        self.codes = [*make_codes(self.tenant, 2, amount=CODE), *make_codes(self.tenant, 2, amount=CODE, kind="gift")]
        self.redeemed: set[str] = set()

    @rule(which=USERS, number=st.integers(0, 3))
    def redeem(self, which: int, number: int) -> None:
        user, code = self.users[which], self.codes[number]
        try:
            redeem.redeem(tenant_id=self.tenant.pk, user_id=user.pk, code=code)
        except ProductError as refusal:
            outcome = refusal.type
        else:
            outcome = "redeemed"
            self.money[user.pk] += CODE
        assert outcome == ("redeem_code_used" if code in self.redeemed else "redeemed")
        self.redeemed.add(code)


class Till(Credits, Answers, Recharges, Codes):
    """Everything at once."""


@pytest.fixture
def wechat(settings: Any) -> Iterator[WeChatPayDouble]:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with running_wechatpay() as double:
        settings.WECHAT_PAY_API_URL = double.url
        yield double
        client_for(double.url).close()
        client_for.cache_clear()  # the port may come again


@pytest.mark.django_db
def test_the_books_are_right_whatever_happens(wechat: WeChatPayDouble) -> None:
    Books.wechat = wechat
    run_state_machine_as_test(
        Till,
        settings=settings(
            max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "30")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
