"""Plain functions that put rows into the database for tests; every name is new, so tests never meet each other's.

Each enters the scope it needs, and leaves it: a test enters the scope that it tests.
"""

import uuid
from datetime import timedelta
from typing import Any, Literal

from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from billing import holds, ledger, plans, recharge, redeem
from billing.commission_terms import publish_terms
from billing.holds import HoldRequest
from billing.ledger import Movement
from billing.models import (
    Account,
    Cap,
    CommissionTerms,
    FreeQuota,
    Hold,
    MerchantAccount,
    Order,
    PaymentEvent,
    Plan,
    PlanAllowance,
    PriceVersion,
    RewardRules,
    Subscription,
)
from billing.payments.provider import PaymentNotice
from billing.pricing import publish_price
from tenants import scope
from tenants.login import issue_token
from tenants.models import (
    Branding,
    Domain,
    EndUser,
    Membership,
    MiniProgram,
    PlatformMembership,
    Reseller,
    StaffUser,
    Tenant,
)
from tenants.table import carry_out, run

PASSWORD = "a-password-for-tests-7"
YUAN = 1_000_000


def unique(prefix: str) -> str:
    """Return a name that no other row has, fit for a slug or a host name's label."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def make_reseller(*, parent: Reseller | None = None) -> Reseller:
    """Return a reseller, below `parent` if given."""
    slug = unique("reseller")
    return Reseller.objects.create(slug=slug, name=slug, parent=parent, depth=2 if parent else 1)


def make_tenant(*, slug: str | None = None, host: str | None = None, **fields: Any) -> Tenant:
    """Return an active tenant with one domain, `<slug>.test` where no host is given, answering in English."""
    slug = slug or unique("tenant")
    fields = {"name": f"The {slug}", "status": Tenant.Status.ACTIVE, "language": "en", **fields}
    tenant = Tenant.objects.create(slug=slug, **fields)
    with scope.tenant(tenant.pk):
        Domain.objects.create(tenant=tenant, host=host or f"{slug}.test")
        Branding.objects.create(tenant=tenant, title=tenant.name)
    return tenant


def host_of(tenant: Tenant) -> str:
    """Return the tenant's host name."""
    with scope.tenant(tenant.pk):
        return Domain.objects.earliest("id").host


def make_mini_program(tenant: Tenant, *, secret: str = "") -> MiniProgram:
    """Return a mini-program; a secret needs settings.ENCRYPTION_KEYS."""
    with scope.tenant(tenant.pk):
        return MiniProgram.objects.create(tenant=tenant, app_id=f"wx{uuid.uuid4().hex[:16]}", secret=secret)


def make_user(tenant: Tenant, *, username: str | None = None, password: str = "", **fields: Any) -> EndUser:
    """Return an end user, who has a password only if one is given."""
    with scope.tenant(tenant.pk):
        return EndUser.objects.create(
            tenant=tenant,
            username=username or unique("user"),
            password=make_password(password) if password else "",
            **fields,
        )


def make_token(user: EndUser, *, days: int | None = None) -> str:
    """Return a token of `user`."""
    with scope.tenant(user.tenant_id):
        return issue_token(user=user, label="test", days=days)


def make_staff(*tenants: Tenant, role: str = Membership.Role.OWNER) -> StaffUser:
    """Return a staff user with PASSWORD, a member of the tenants given."""
    staff = StaffUser.objects.create_user(unique("staff"), password=PASSWORD)
    for tenant in tenants:
        with scope.tenant(tenant.pk):
            Membership.objects.create(tenant=tenant, staff=staff, role=role)
    return staff


def make_partner(reseller: Reseller, **fields: Any) -> StaffUser:
    """Return a staff user with PASSWORD who works for a reseller."""
    staff = make_staff()
    PlatformMembership.objects.create(staff=staff, role=PlatformMembership.Role.RESELLER, reseller=reseller)
    if fields:
        StaffUser.objects.filter(pk=staff.pk).update(**fields)
        staff.refresh_from_db()
    return staff


def make_operator() -> StaffUser:
    """Return a staff user with PASSWORD who works for the operator."""
    staff = make_staff()
    PlatformMembership.objects.create(staff=staff, role=PlatformMembership.Role.OPERATOR)
    return staff


def make_price(level: str, *, sku: str, rates: tuple[int, int, int], **fields: Any) -> PriceVersion:
    """Publish a price; `rates` are for prompt, cached prompt and completion, in micro-yuan per million tokens."""
    prompt_rate, cached_rate, completion_rate = rates
    price: dict[str, Any] = {"prompt_rate": prompt_rate, "cached_rate": cached_rate, "completion_rate": completion_rate}
    owner = scope.platform("a test's price list") if level != "retail" else scope.tenant(fields["tenant_id"])
    with owner:
        return publish_price(level=level, sku=sku, actor="test", **price, **fields)


def make_sku(tenant: Tenant, *, retail: tuple[int, int, int] | None = None) -> str:
    """Price a new sku for a tenant at all three levels; return it.

    Unless told otherwise a million tokens cost ¥2 (prompt), ¥1 (cached) and ¥6 (completion) retail, half of that
    wholesale, a quarter of it the platform.
    """
    sku = unique("sku")
    make_price("cost", sku=sku, rates=(YUAN // 2, YUAN // 4, YUAN * 3 // 2))
    make_price("wholesale", sku=sku, rates=(YUAN, YUAN // 2, 3 * YUAN))
    make_price("retail", sku=sku, rates=retail or (2 * YUAN, YUAN, 6 * YUAN), tenant_id=tenant.pk)
    return sku


def credit(user: EndUser, amount: int, *, kind: Literal["cash", "gift"] = "cash") -> None:
    """Credit a user, micro-yuan."""
    ledger.credit_user(
        tenant_id=user.tenant_id, user_id=user.pk, amount=amount, kind=kind, ref=unique("ref"), reason="", actor="test"
    )


def freeze(*, account: Account, amount: int) -> bool:
    """Freeze a part of an account, as holds do; False where less is available. In the account's scope."""
    return run(*ledger.reservation(account=account, amount=amount)) == 1


def unfreeze(*, account: Account, amount: int) -> None:
    """Free what was frozen, as a hold that is void does. In the account's scope and a transaction."""
    carry_out(ledger.planned_release(movements=[Movement(account=account, release=amount)]))


def fill_wallet(tenant: Tenant, amount: int = 1000 * YUAN) -> None:
    """Top up a tenant's wholesale wallet, micro-yuan."""
    ledger.credit_tenant_wallet(tenant_id=tenant.pk, amount=amount, ref=unique("ref"), reason="", actor="test")


def make_codes(tenant: Tenant, count: int = 1, **fields: Any) -> list[str]:
    """Return the codes of a new batch, ¥10 each, as their buyers have them; they need settings.ENCRYPTION_KEYS."""
    batch = {"name": unique("batch"), "amount": 10 * YUAN, "kind": "cash", "created_by": "test", **fields}
    with scope.tenant(tenant.pk):
        made = redeem.create_batch(tenant_id=tenant.pk, count=count, **batch)
        return [code.written for code in made.codes.order_by("pk")]


def make_rules(tenant: Tenant, **fields: Any) -> RewardRules:
    """Return a tenant's rules: all rewards on, ¥3 and ¥2 for an invitation, ¥1 for an advertisement."""
    rules: dict[str, Any] = {
        "sign_in_amounts": [100_000, 200_000, 700_000],
        "inviter_amount": 3 * YUAN,
        "invitee_amount": 2 * YUAN,
        "ad_amount": YUAN,
    }
    with scope.tenant(tenant.pk):
        return RewardRules.objects.create(tenant=tenant, **{**rules, **fields})


def set_free_quota(tenant_id: int, *, group: str = "default", per_day: int, guests: int | None = None) -> None:
    """Let a tenant give away so many answers of a group, to guests as many in all as to users a day if not told."""
    with scope.tenant(tenant_id):
        FreeQuota.objects.bulk_create(
            [
                FreeQuota(
                    tenant_id=tenant_id,
                    quota_group=group,
                    per_day=per_day,
                    guest_allowance=per_day if guests is None else guests,
                )
            ],
            update_conflicts=True,
            unique_fields=["tenant", "quota_group"],
            update_fields=["per_day", "guest_allowance"],
        )


def make_plan(tenant: Tenant, *, allowances: dict[str, tuple[int, str]] | None = None, **fields: Any) -> Plan:
    """Sell a plan of ¥19.90 for 30 days; each group's allowance is a number and a period, 2 a day of "default"."""
    with scope.tenant(tenant.pk):
        slug = unique("plan")
        plan = Plan.objects.create(**{"tenant": tenant, "slug": slug, "name": slug, "price": 19_900_000, **fields})
        for group, (answers, period) in (allowances or {"default": (2, "day")}).items():
            PlanAllowance.objects.create(tenant=tenant, plan=plan, quota_group=group, answers=answers, period=period)
        return plan


def make_cap(tenant: Tenant, limit: int, **fields: Any) -> Cap:
    """Cap each user's answers of a day, unless told otherwise."""
    with scope.tenant(tenant.pk):
        return Cap.objects.create(tenant=tenant, limit=limit, **fields)


def admit(request: HoldRequest) -> Hold:
    """Admit within a test's transaction, which what is refused must not spoil."""
    with transaction.atomic():
        return holds.admit(request)


def hold_request(user: EndUser, sku: str, *, free_per_day: int | None = None, **fields: Any) -> HoldRequest:
    """Return a request of 1000 prompt and at most 1000 completion tokens, paid, with a key of its own.

    With `free_per_day` the tenant's free quota of the group is set to it first.
    """
    if free_per_day is not None:
        set_free_quota(user.tenant_id, group=fields.get("quota_group", "default"), per_day=free_per_day)
    return HoldRequest(
        **{
            "tenant_id": user.tenant_id,
            "user_id": user.pk,
            "key": unique("key"),
            "sku": sku,
            "prompt_tokens": 1000,
            "max_completion_tokens": 1000,
            "min_completion_tokens": 10,
            "quota_group": "default",
            "paid_way": True,
            "is_guest": user.is_guest,
            **fields,
        }
    )


def make_terms(reseller: Reseller, own_ppm: int = 100_000, parent_ppm: int = 0, **fields: Any) -> CommissionTerms:
    """Publish a reseller's terms: 10 % of its own tenants' wholesale unless told otherwise."""
    return publish_terms(reseller_id=reseller.pk, own_ppm=own_ppm, parent_ppm=parent_ppm, actor="test", **fields)


def order_plan(user: EndUser, plan: Plan) -> Order:
    """Return a new order of a plan, waiting for its payment to a merchant account of the tenant's."""
    number = uuid7()
    with scope.tenant(user.tenant_id):
        account = MerchantAccount.objects.filter(channel="wechat").first()
        if account is None:
            account = MerchantAccount.objects.create(
                tenant_id=user.tenant_id,
                channel="wechat",
                merchant_id=str(user.tenant_id),
                app_id=f"wx{number.hex[:16]}",
                certificate_serial="1",
            )
        return Order.objects.create(
            tenant_id=user.tenant_id,
            id=number,
            out_trade_no=number.hex,
            user=user,
            plan=plan,
            plan_terms=plans.terms_to_sell(plan),
            package_name=plan.name,
            price=plan.price,
            credits=0,
            bonus=0,
            merchant_account=account,
            channel="wechat",
            method="native",
            merchant_id=account.merchant_id,
            app_id=account.app_id,
            expires_at=Now() + timedelta(minutes=15),
            next_poll_at=Now() + timedelta(days=1),
        )


def pay(order: Order, *, event: str = "") -> PaymentEvent:
    """Settle the payment of an order, as a provider's verified notification does."""
    notice = PaymentNotice(
        event_id=event or unique("event"),
        out_trade_no=order.out_trade_no,
        transaction_id=f"t{order.out_trade_no}",
        merchant_id=order.merchant_id,
        app_id=order.app_id,
        amount=order.price,
        currency="CNY",
        body_digest="0" * 64,
    )
    with scope.tenant(order.tenant_id):
        account = MerchantAccount.objects.get(pk=order.merchant_account_id)
    return recharge.settle_payment(account=account, notice=notice)


def subscribe(user: EndUser, plan: Plan) -> Subscription:
    """Let a user buy a plan and pay for it."""
    order = order_plan(user, plan)
    pay(order)
    with scope.tenant(user.tenant_id):
        return Subscription.objects.get(order=order)
