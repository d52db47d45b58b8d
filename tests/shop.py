"""A tenant that can chat: offers on the scripted upstream, prices, a filled wallet, a user with a balance."""

from dataclasses import dataclass
from typing import Literal

from billing import ledger, pricing
from billing.models import Account, Entry, Hold, Transfer, UsageRecord
from chat.models import Message, ModelOffer, UpstreamAccount
from tenants import scope
from tenants.models import EndUser, Reseller, Tenant
from tests.factories import make_tenant, make_token, make_user, set_free_quota, unique

YUAN = 1_000_000
# Micro-yuan per million tokens: prompt, cached prompt, completion.
RETAIL = (2_000_000, 1_000_000, 8_000_000)
WHOLESALE = (1_000_000, 500_000, 4_000_000)
COST = (500_000, 250_000, 2_000_000)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A user and how to come in."""

    user: EndUser
    token: str


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A tenant with its host, its platform-owned upstream account, and its first user."""

    tenant: Tenant
    host: str
    account: UpstreamAccount
    sku: str
    alice: Person

    def offer(self, upstream_model: str, *, free_per_day: int = 0, **fields: object) -> ModelOffer:
        """Offer one of the scripted upstream's models under its own name; so many of its answers are free."""
        if free_per_day:
            set_free_quota(self.tenant.pk, group=str(fields.get("quota_group", "default")), per_day=free_per_day)
        values = {
            "slug": upstream_model.replace(":", "-"),
            "name": upstream_model,
            "sku": self.sku,
            "account": self.account,
            "upstream_model": upstream_model,
            "context_window": 8192,
            "max_output_tokens": 1000,
        }
        with scope.tenant(self.tenant.pk):
            return ModelOffer.objects.create(tenant=self.tenant, **(values | fields))

    def person(self, *, cash: int = 0, gift: int = 0, guest: bool = False) -> Person:
        """Add a user with that balance, micro-yuan."""
        user = make_user(self.tenant, is_guest=guest)
        person = Person(user=user, token=make_token(user))
        if cash:
            self.credit(person, cash, "cash")
        if gift:
            self.credit(person, gift, "gift")
        return person

    def credit(self, person: Person, amount: int, kind: Literal["cash", "gift"] = "cash") -> None:
        """Give a user an amount, micro-yuan."""
        ledger.credit_user(
            tenant_id=self.tenant.pk,
            user_id=person.user.pk,
            amount=amount,
            kind=kind,
            ref=unique("credit"),
            reason="test",
            actor="test",
        )

    def messages(self, person: Person | None = None) -> list[Message]:
        """Return the messages of a user, or of all users, the oldest first."""
        with scope.tenant(self.tenant.pk):
            rows = Message.objects.order_by("created_at")
            return list(rows.filter(user=person.user) if person else rows)

    def holds(self) -> list[Hold]:
        """Return the tenant's holds, the oldest first."""
        with scope.tenant(self.tenant.pk):
            return list(Hold.objects.order_by("created_at"))

    def balance(self, person: Person) -> ledger.Balances:
        """Return what a user has."""
        with scope.tenant(self.tenant.pk):
            return ledger.balances(tenant_id=self.tenant.pk, user_id=person.user.pk)

    def answers(self) -> list[Transfer]:
        """Return the transfers of answers."""
        with scope.tenant(self.tenant.pk):
            return list(Transfer.objects.filter(kind="answer").order_by("pk"))

    def usage(self) -> list[UsageRecord]:
        """Return the usage records."""
        with scope.tenant(self.tenant.pk):
            return list(UsageRecord.objects.order_by("pk"))


def open_shop(
    upstream_url: str,
    *,
    cash: int = 20 * YUAN,
    wallet: int = 1000 * YUAN,
    name: str = "shop",
    reseller: Reseller | None = None,
) -> Shop:
    """Open a tenant that can chat at once; commits, so that servers see it."""
    host = f"{unique(name)}.example.com"
    tenant = make_tenant(host=host, reseller=reseller)
    sku = unique("sku")
    with scope.platform("test prices"):
        account = UpstreamAccount.objects.create(name=sku, base_url=upstream_url, api_key="sk-test-upstream-key")
        for level, rates in (("cost", COST), ("wholesale", WHOLESALE)):
            publish(level=level, sku=sku, rates=rates)
    with scope.tenant(tenant.pk):
        publish(level="retail", sku=sku, rates=RETAIL, tenant_id=tenant.pk)
    if wallet:
        ledger.credit_tenant_wallet(
            tenant_id=tenant.pk, amount=wallet, ref=unique("topup"), reason="test", actor="test"
        )
    user = make_user(tenant)
    shop = Shop(tenant=tenant, host=host, account=account, sku=sku, alice=Person(user=user, token=make_token(user)))
    if cash:
        shop.credit(shop.alice, cash)
    return shop


def publish(*, level: str, sku: str, rates: tuple[int, int, int], tenant_id: int | None = None) -> None:
    """Publish a price in force from now."""
    pricing.publish_price(
        level=level,
        tenant_id=tenant_id,
        sku=sku,
        prompt_rate=rates[0],
        cached_rate=rates[1],
        completion_rate=rates[2],
        actor="test",
    )


def entries_sum_to_zero(shop: Shop) -> bool:
    """Return whether every transfer of the shop balances, and every balance is the sum of its entries."""
    with scope.tenant(shop.tenant.pk):
        transfers: dict[int, int] = {}
        accounts: dict[int, int] = {}
        for entry in Entry.objects.all():
            transfers[entry.transfer_id] = transfers.get(entry.transfer_id, 0) + entry.amount
            accounts[entry.account_id] = accounts.get(entry.account_id, 0) + entry.amount
        balances = {account.pk: account.posted for account in Account.objects.all() if account.pk in accounts}
        return not any(transfers.values()) and balances == {pk: accounts[pk] for pk in balances}
