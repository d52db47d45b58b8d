"""A tenant that rewards, its users on devices and at addresses of their own, and payments without a provider."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from billing import audit, ledger, recharge, rewards
from billing.ledger import Balances
from billing.models import (
    Invitation,
    InvitationReward,
    MerchantAccount,
    Order,
    Package,
    PaymentEvent,
    RewardDebt,
    RewardRules,
)
from billing.origins import origin_of
from billing.payments.provider import PaymentNotice
from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import EndUser, Tenant
from tests.factories import YUAN, make_rules, make_tenant, make_user, unique

_addresses = count(1)

GUARDED = (
    "billing_transfer",
    "billing_entry",
    "billing_account",
    "billing_order",
    "billing_signin",
    "billing_adticket",
    "billing_invitation",
    "billing_invitationreward",
    "billing_rewarddebt",
)


def new_address() -> str:
    """An address that nobody else has."""
    number = next(_addresses)
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@dataclass(kw_only=True)
class Farm:
    """A tenant that rewards, and someone who invites."""

    tenant: Tenant
    user: EndUser
    accounts: dict[str, MerchantAccount] = field(default_factory=dict)

    def person(self, **fields: Any) -> EndUser:
        return make_user(self.tenant, **fields)

    def rules(self, **fields: Any) -> None:
        with scope.tenant(self.tenant.pk):
            RewardRules.objects.update(**fields)

    def code(self, user: EndUser | None = None, *, device: str = "", address: str = "") -> str:
        """The user's code, as they see it on their device."""
        user = user or self.user
        with scope.tenant(self.tenant.pk):
            rewards.remember(user=user, origin=origin_of(tenant_id=self.tenant.pk, device_id=device, address=address))
            return rewards.code_of(user=user)

    def accept(self, user: EndUser, code: str = "", *, device: str = "", address: str = "") -> Invitation:
        return rewards.accept_invitation(
            user=user,
            code=code or self.code(),
            origin=origin_of(
                tenant_id=user.tenant_id, device_id=device or unique("device"), address=address or new_address()
            ),
        )

    def attempt(self, user: EndUser, code: str = "", **origin: str) -> str:
        """Try to accept; return what came of it."""
        try:
            bound = self.accept(user, code, **origin)
        except ProductError as refusal:
            return f"{ErrorCode(refusal.code).value} {refusal.type}"
        return bound.refusal or bound.state

    def invite(self, **origin: str) -> EndUser:
        """Bring a new user."""
        user = self.person()
        self.accept(user, **origin)
        return user

    def order(self, user: EndUser, channel: str = "wechat") -> Order:
        """An order of ¥10 that is not paid."""
        with scope.tenant(self.tenant.pk):
            if channel not in self.accounts:
                self.accounts[channel] = MerchantAccount.objects.create(
                    tenant=self.tenant, channel=channel, merchant_id="1900000001", app_id="wx1"
                )
            number = unique("no")[:32]
            return Order.objects.create(
                tenant=self.tenant,
                out_trade_no=number,
                user=user,
                package=Package.objects.create(
                    tenant=self.tenant, slug=number, name=number, price=10 * YUAN, credits=10 * YUAN
                ),
                package_name="ten",
                price=10 * YUAN,
                credits=10 * YUAN,
                bonus=0,
                merchant_account=self.accounts[channel],
                channel=channel,
                method="native",
                merchant_id="1900000001",
                app_id="wx1",
                expires_at=Now() + timedelta(minutes=15),
                next_poll_at=Now() + timedelta(minutes=15),
            )

    def settle(self, order: Order) -> str:
        """Have the provider tell of an order's payment."""
        event = recharge.settle_payment(
            account=self.accounts[order.channel],
            notice=PaymentNotice(
                event_id=unique("event"),
                out_trade_no=order.out_trade_no,
                transaction_id=f"paid-{order.out_trade_no}"[:64],
                merchant_id=order.merchant_id,
                app_id=order.app_id,
                amount=order.price,
                currency="CNY",
                body_digest="0" * 64,
            ),
        )
        return PaymentEvent.Outcome(event.outcome).value

    def pay(self, user: EndUser, channel: str = "wechat") -> str:
        """Pay ¥10; return the payment's reference."""
        order = self.order(user, channel)
        assert self.settle(order) == "credited"
        return str(order.pk)

    def refund(self, user: EndUser, ref: str) -> bool:
        return rewards.take_back_invitation(tenant_id=self.tenant.pk, invitee_id=user.pk, ref=ref, reason="refund")

    def sweep(self) -> int:
        """Settle what is due here: the sweep itself may find what other tests left."""
        with scope.tenant(self.tenant.pk):
            due = list(InvitationReward.objects.order_by("pk").values_list("pk", flat=True))
        return sum(rewards.settle_reward(tenant_id=self.tenant.pk, reward_id=pk) for pk in due)

    def gift(self, user: EndUser | None = None) -> int:
        return self.balance(user or self.user).gift

    def balance(self, user: EndUser) -> Balances:
        return ledger.balances(tenant_id=self.tenant.pk, user_id=user.pk)

    def spend_gift(self, user: EndUser, amount: int) -> None:
        """Let what a user was given be used up, as answers do."""
        with scope.tenant(self.tenant.pk), transaction.atomic():
            gift = ledger.lock_user_accounts(tenant_id=self.tenant.pk, user_id=user.pk).gift
            revenue = ledger.tenant_accounts(tenant_id=self.tenant.pk).revenue
            ledger.move(
                tenant_id=self.tenant.pk,
                kind="gift",  # type: ignore[arg-type]  # the plain word of the choice
                ref=unique("spent"),
                movements=[
                    ledger.Movement(account=gift, amount=-amount),
                    ledger.Movement(account=revenue, amount=amount),
                ],
                reason="",
                actor="test",
            )

    def states(self, user: EndUser) -> tuple[str, list[tuple[str, str, str]]]:
        """The state of a user's invitation, and side, state and refusal of its rewards."""
        with scope.tenant(self.tenant.pk):
            found = Invitation.objects.get(invitee=user)
            sides = found.rewards.order_by("pk").values_list("side", "state", "refusal")
            return found.state, [(str(side), str(state), str(refusal)) for side, state, refusal in sides]

    def owed(self, user: EndUser | None = None) -> int:
        with scope.tenant(self.tenant.pk):
            return sum(RewardDebt.objects.filter(user=user or self.user).values_list("owed", flat=True))

    def breaches(self) -> list[tuple[str, str, str]]:
        found = audit.audit_tenant(tenant_id=self.tenant.pk)
        return [(breach.invariant, breach.row, breach.found) for breach in found]


def open_farm(**fields: Any) -> Farm:
    tenant = make_tenant()
    make_rules(tenant, **fields)
    return Farm(tenant=tenant, user=make_user(tenant, nickname="Ann"))


@pytest.fixture
def farm(db: None) -> Iterator[Farm]:
    """Whatever a test did there, the books are right at its end."""
    farm = open_farm()
    yield farm
    assert audit.audit_tenant(tenant_id=farm.tenant.pk) == []


@pytest.fixture
def committed_farm(committed_db: None) -> Iterator[Farm]:
    """The same for tests with several connections: what they write stays."""
    farm = open_farm()
    yield farm
    assert audit.audit_tenant(tenant_id=farm.tenant.pk) == []


@pytest.fixture
def broken_farm(db: None) -> Iterator[Farm]:
    """A farm that is not audited at its end, and whose rows no trigger guards."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    yield open_farm()
    transaction.set_rollback(True)
