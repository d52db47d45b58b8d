"""Orders, and whatever a provider says of them, in whatever order; redeem codes."""

from datetime import timedelta
from typing import Any

from django.db.models import F
from django.db.models.functions import Now
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, precondition, rule

from billing import callbacks, recharge, redeem
from billing.models import Order
from billing.payments.provider import NotificationRefusedError
from billing.refund import Worth
from billing.tests.machine.books import USERS, Books
from billing.tests.payments.conftest import BONUS, CREDITS, PRICE, open_account, open_package
from tenants import scope
from tenants.errors import ProductError
from tests.doubles.wechatpay import Merchant, rsa_key
from tests.factories import make_codes

FEN = 10_000
CODE = 7_777
# The usual package, one that keeps a part of its price, one that gives a discount; these two are soon spent.
PACKAGES = (Worth(PRICE, CREDITS, BONUS), Worth(70_000, 65_537, 12_345), Worth(30_000, 40_001, 0))


class Recharges(Books):
    """Orders, and whatever a provider says of them."""

    orders = Bundle("orders")

    def prepare(self, data: st.DataObject) -> None:
        super().prepare(data)
        self.merchant = Merchant(merchant_id=str(1_900_000_000 + self.tenant.pk), app_id="wx0123456789abcdef")
        self.wechat.merchants[self.merchant.merchant_id] = self.merchant
        self.account = open_account(self.tenant, self.merchant)
        self.worth = data.draw(st.sampled_from(PACKAGES))
        self.package = open_package(
            self.tenant, price=self.worth.money, credits=self.worth.credits, bonus=self.worth.bonus
        )
        self.credited: dict[str, Order] = {}

    @rule(target=orders, which=USERS)
    def order(self, which: int) -> str:
        return self.ordered(which)

    def ordered(self, which: int) -> str:
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
        numbers = [trade.asked["out_trade_no"] for trade in self.mine() if trade.state == "SUCCESS"]
        self.tell(data.draw(st.sampled_from(numbers)), times)

    @rule(target=orders, which=USERS)
    def buy(self, which: int) -> str:
        """Order, pay and be credited at once."""
        return self.bought(which)

    def bought(self, which: int) -> str:
        number = self.ordered(which)
        self.pay(number)
        self.tell(number, 1)
        return number

    def tell(self, number: str, times: int) -> None:
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
        said.setdefault("amount", {"total": self.worth.money // FEN, "currency": "CNY"})
        body, headers = self.wechat.notification(number, **said)
        try:
            event = callbacks.take_callback(account=self.account, body=body, headers=headers, query={})
        except NotificationRefusedError:
            pass
        else:
            assert event is not None
            assert not event.is_taken
        self.reconcile()
        assert set(self.credited) == before

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
        assert set(self.credited) <= set(paid)
        for number in sorted(set(paid) - set(self.credited)):
            assert self.wechat.trades[number].state == "SUCCESS"
            purse = self.purses[paid[number].user_id]
            purse.cash, purse.gift = purse.cash + self.worth.credits, purse.gift + self.worth.bonus
            self.credited[number] = paid[number]
            self.credited_for(number, paid[number].user_id)


class Codes(Books):
    """Redeem codes."""

    def prepare(self, data: st.DataObject) -> None:
        super().prepare(data)
        self.codes = [*make_codes(self.tenant, 2, amount=CODE), *make_codes(self.tenant, 2, amount=CODE, kind="gift")]
        self.redeemed: set[str] = set()

    @rule(which=USERS, number=st.integers(0, 3))
    def redeem(self, which: int, number: int) -> None:
        code = self.codes[number]
        try:
            redeem.redeem(tenant_id=self.tenant.pk, user_id=self.users[which].pk, code=code)
        except ProductError as refusal:
            outcome = refusal.type
        else:
            outcome = "redeemed"
            self.purse(which).add("gift" if number > 1 else "cash", CODE)
        assert outcome == ("redeem_code_used" if code in self.redeemed else "redeemed")
        self.redeemed.add(code)
