"""The demo data: an operator, a reseller, two tenants with prices and a model, and in each alice and bob.

`open_demo` runs at every start and only adds what is missing: what people changed since stays. It renews the address
and key of the model that the environment names, alice's token when it ends soon, and that today's free answers are
used up.
"""

import secrets as random
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.utils import timezone
from django.utils.text import slugify

from billing import ledger, quota
from billing.commission_terms import publish_terms, terms_of
from billing.models import FreeQuota, Plan, PlanAllowance, PriceVersion
from billing.pricing import publish_price
from chat.models import ModelOffer, Role, UpstreamAccount
from lifecycle.models import OfferTemplate, TemplateModel
from saas.local import model
from saas.local.environment import kept_secret, password
from saas.local.screen import Screen
from tenants import scope
from tenants.errors import ProductError
from tenants.login import digest_of, issue_token
from tenants.models import (
    AccessToken,
    EndUser,
    Membership,
    PlatformMembership,
    Reseller,
    ResellerTerms,
    StaffUser,
    Tenant,
)
from tenants.onboarding import open_tenant

YUAN: Final = 1_000_000
ALICE_CASH: Final = 20 * YUAN
WALLET: Final = 1000 * YUAN
FREE_PER_DAY: Final = 3
COMMISSION_PPM: Final = 100_000  # a tenth of what the reseller's tenants pay the platform
PLAN_PER_DAY: Final = 100
# Of the models that the demo offers, and free and planned answers are of.
GROUP: Final = "default"
ACTOR: Final = "demo data"
# The platform's upstream accounts that follow the environment; others are the operator's own, and left alone.
BUILT_IN: Final = "Built-in model"
NAMED: Final = "OPENAI_BASE_URL"

TERMS_VERSION: Final = "demo-1"
TERMS_ZH: Final = """这是演示用的代理商服务条款，正式运营前请由运营方发布自己的条款。
1. 代理商只经营平台允许的服务，并对其品牌下的内容负责。
2. 佣金只按实际消费计算，冻结期满后可申请提现。
3. 不得以发展下级为目的收取费用，分销层级不超过两级。"""
TERMS_EN: Final = """These terms of service are for the demo: the operator publishes its own before it opens.
1. A reseller offers what the platform allows, and answers for what its brands say.
2. Commission comes from what is used alone, and can be withdrawn once it is no longer frozen.
3. Nobody is charged for joining, and there are at most two levels."""

Rates = tuple[int, int, int]  # prompt, cached prompt, completion: micro-yuan per million tokens
COST: Final[Rates] = (2 * YUAN, 1 * YUAN, 8 * YUAN)
WHOLESALE: Final[Rates] = (4 * YUAN, 2 * YUAN, 16 * YUAN)


@dataclass(frozen=True, kw_only=True)
class _Brand:
    """What one demo tenant is like."""

    slug: str
    name: str
    slogan: str
    color: str
    welcome: str
    assistant: str
    retail: Rates
    plan: str
    plan_price: int

    @property
    def host(self) -> str:
        """Where it is reached; browsers take every name under .localhost for this machine."""
        return f"{self.slug}.localhost"


BRANDS: Final = (
    _Brand(
        slug="aurora",
        name="极光 Aurora",
        slogan="每一次提问，都有一束光",
        color="#4f46e5",
        welcome="你好，我是极光。想聊点什么？",
        assistant="You are Aurora, a friendly and concise assistant.",
        retail=(10 * YUAN, 5 * YUAN, 40 * YUAN),
        plan="极光月卡",
        plan_price=19_900_000,
    ),
    _Brand(
        slug="lotus",
        name="清荷 Lotus",
        slogan="问得从容，答得清楚",
        color="#be185d",
        welcome="你好，我是清荷，很高兴见到你。",
        assistant="You are Lotus, a calm assistant who answers in plain words.",
        retail=(15 * YUAN, 8 * YUAN, 60 * YUAN),
        plan="清荷月卡",
        plan_price=29_900_000,
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Upstream:
    """The model that the environment names."""

    account: str
    base_url: str
    api_key: str
    name: str
    context_window: int
    max_output_tokens: int
    token_ratio_percent: int

    @property
    def slug(self) -> str:
        """The offer's slug, and what it is called in the price list."""
        return slugify(self.name.replace("/", "-").replace(".", "-"))[:64] or "default"


def open_demo(*, secrets: Path) -> Screen:
    """Add what is missing of the demo data; return what the final screen shows. Passwords are kept in `secrets`."""
    upstream = _upstream()
    with transaction.atomic():
        _open_operator(password(secrets, "staff_admin"))
        reseller, _made = Reseller.objects.get_or_create(slug="grove", defaults={"name": "Grove 小榕代理"})
        account = _follow_environment(upstream)
        _publish_floors(upstream.slug)
        _agree_terms(reseller)
        _open_portal(reseller, password(secrets, "staff_grove"))
        _open_template(account, upstream)
    tenants = [_open_brand(brand, reseller, account, upstream, secrets) for brand in BRANDS]
    logins = [["localhost/platform/", "admin", password(secrets, "staff_admin")]]
    logins += [["localhost/portal/", reseller.slug, password(secrets, "staff_grove")]]
    logins += [[f"{b.host}/admin/", b.slug, password(secrets, f"staff_{b.slug}")] for b in BRANDS]
    return Screen(hosts=[brand.host for brand in BRANDS], logins=logins, token=_token(tenants[0], secrets))


def _upstream() -> _Upstream:
    """Read the settings, which name the built-in model where the person named none."""
    built_in = settings.OPENAI_MODEL == model.NAME and "127.0.0.1" in settings.OPENAI_BASE_URL
    return _Upstream(
        account=BUILT_IN if built_in else NAMED,
        base_url=settings.OPENAI_BASE_URL,
        api_key=settings.OPENAI_API_KEY,
        name=settings.OPENAI_MODEL,
        context_window=model.CONTEXT_WINDOW if built_in else 8192,
        max_output_tokens=1024 if built_in else 2048,
        # Measured: for each token that we count SmolLM2 takes 1 in English, 2 in Chinese, 3 in Arabic, 5 in Korean.
        token_ratio_percent=500 if built_in else 120,
    )


def _open_operator(secret: str) -> None:
    staff, made = StaffUser.objects.get_or_create(
        username="admin", defaults={"password": make_password(secret), "is_staff": True, "is_superuser": True}
    )
    if made:
        PlatformMembership.objects.create(staff=staff, role=PlatformMembership.Role.OPERATOR)


def _follow_environment(upstream: _Upstream) -> UpstreamAccount:
    """Return the account of the environment's model, with its address and key of today."""
    with scope.platform("the platform's own upstream account"):
        account = UpstreamAccount.objects.filter(tenant=None, name=upstream.account).order_by("pk").first()
        if account is None:
            account = UpstreamAccount(name=upstream.account)
        account.base_url, account.api_key = upstream.base_url, upstream.api_key
        account.save()
        return account


def _publish_floors(sku: str) -> None:
    with scope.platform("the platform's own prices"):
        for level, rates in ((PriceVersion.Level.COST, COST), (PriceVersion.Level.WHOLESALE, WHOLESALE)):
            if not PriceVersion.objects.filter(tenant=None, reseller=None, level=level, sku=sku).exists():
                _publish(level, sku, rates)


def _agree_terms(reseller: Reseller) -> None:
    """Give the reseller its share, unless the operator's own prices by now leave nothing to share."""
    if terms_of(reseller_id=reseller.pk) is None:
        with suppress(ProductError):
            publish_terms(reseller_id=reseller.pk, own_ppm=COMMISSION_PPM, actor=ACTOR)


def _open_portal(reseller: Reseller, secret: str) -> None:
    """Give the reseller a person who logs into the portal, and let others apply."""
    staff, made = StaffUser.objects.get_or_create(username=reseller.slug, defaults={"password": make_password(secret)})
    if made:
        PlatformMembership.objects.create(staff=staff, role=PlatformMembership.Role.RESELLER, reseller=reseller)
    if not ResellerTerms.objects.exists():
        ResellerTerms.objects.create(version=TERMS_VERSION, text=TERMS_ZH, text_en=TERMS_EN)


def _open_template(account: UpstreamAccount, upstream: _Upstream) -> None:
    """Let resellers open tenants with the environment's model; a template that the operator made is left alone."""
    with scope.platform("the platform's own template"):
        template, made = OfferTemplate.objects.get_or_create(slug="standard", defaults={"name": "标准 Standard"})
        if made and not OfferTemplate.objects.filter(is_default=True).exists():
            OfferTemplate.objects.filter(pk=template.pk).update(is_default=True)
        # It follows the environment like the offers of the demo's tenants, and has its one model.
        TemplateModel.objects.filter(template=template, account__name__in=[BUILT_IN, NAMED]).exclude(
            slug=upstream.slug
        ).delete()
        TemplateModel.objects.update_or_create(
            template=template,
            slug=upstream.slug,
            defaults={
                "name": upstream.name,
                "sku": upstream.slug,
                "account": account,
                "upstream_model": upstream.name,
                "context_window": upstream.context_window,
                "max_output_tokens": upstream.max_output_tokens,
                "token_ratio_percent": upstream.token_ratio_percent,
            },
        )


def _publish(level: str, sku: str, rates: Rates, tenant_id: int | None = None) -> None:
    prompt, cached, completion = rates
    publish_price(
        level=level,
        tenant_id=tenant_id,
        sku=sku,
        prompt_rate=prompt,
        cached_rate=cached,
        completion_rate=completion,
        actor=ACTOR,
    )


def _open_brand(
    brand: _Brand, reseller: Reseller, account: UpstreamAccount, upstream: _Upstream, secrets: Path
) -> Tenant:
    tenant = Tenant.objects.filter(slug=brand.slug).first()
    with transaction.atomic():
        if tenant is None:
            tenant = _new_tenant(brand, reseller, password(secrets, f"staff_{brand.slug}"))
        with scope.tenant(tenant.pk):
            _offer_model(tenant, brand, account, upstream)
            _offer_answers(tenant, brand)
            _use_up_free_answers(tenant)
    return tenant


def _new_tenant(brand: _Brand, reseller: Reseller, secret: str) -> Tenant:
    tenant = open_tenant(
        slug=brand.slug,
        name=brand.name,
        hosts=[brand.host],
        reseller=reseller,
        status=Tenant.Status.ACTIVE,
        allow_guest=True,
        slogan=brand.slogan,
        primary_color=brand.color,
        welcome=brand.welcome,
    )
    ledger.credit_tenant_wallet(
        tenant_id=tenant.pk, amount=WALLET, ref=f"demo-wallet-{brand.slug}", reason="demo", actor=ACTOR
    )
    owner = StaffUser.objects.create(username=brand.slug, password=make_password(secret), is_staff=True)
    with scope.tenant(tenant.pk):
        Membership.objects.create(tenant=tenant, staff=owner, role=Membership.Role.OWNER)
        Role.objects.create(
            tenant=tenant,
            slug="assistant",
            name=brand.name,
            instructions=brand.assistant,
            opening=brand.welcome,
            is_default=True,
        )
        for username in ("alice", "bob"):
            # Nobody knows this password: the demo's users come in by token, and whoever wants may set one.
            unknown = make_password(random.token_urlsafe(32))
            EndUser.objects.create(tenant=tenant, username=username, nickname=username.title(), password=unknown)
        alice = EndUser.objects.get(username="alice")
        ledger.credit_user(
            tenant_id=tenant.pk,
            user_id=alice.pk,
            amount=ALICE_CASH,
            kind="cash",
            ref=f"demo-alice-{brand.slug}",
            reason="demo",
            actor=ACTOR,
        )
    return tenant


def _offer_model(tenant: Tenant, brand: _Brand, account: UpstreamAccount, upstream: _Upstream) -> None:
    """Offer the environment's model; make it the default unless the tenant's default is one of its own choice."""
    if not PriceVersion.objects.filter(level=PriceVersion.Level.RETAIL, sku=upstream.slug).exists():
        _publish(PriceVersion.Level.RETAIL, upstream.slug, brand.retail, tenant.pk)
    offer, _made = ModelOffer.objects.get_or_create(
        tenant=tenant,
        slug=upstream.slug,
        defaults={
            "name": upstream.name,
            "sku": upstream.slug,
            "account": account,
            "upstream_model": upstream.name,
            "context_window": upstream.context_window,
            "max_output_tokens": upstream.max_output_tokens,
            "token_ratio_percent": upstream.token_ratio_percent,
        },
    )
    default = ModelOffer.objects.select_related("account").filter(is_default=True).first()
    if default is None or (default.pk != offer.pk and default.account.name in {BUILT_IN, NAMED}):
        ModelOffer.objects.filter(is_default=True).update(is_default=False)
        ModelOffer.objects.filter(pk=offer.pk).update(is_default=True)
    # The built-in model runs only where no other is named; its offer would fail beside one.
    running = account.name == BUILT_IN
    ModelOffer.objects.filter(account__name=BUILT_IN, account__tenant=None).update(is_enabled=running, image_tokens=0)


def _offer_answers(tenant: Tenant, brand: _Brand) -> None:
    """Give a few answers away, and sell a month of them."""
    FreeQuota.objects.get_or_create(
        tenant=tenant,
        quota_group=GROUP,
        defaults={"per_day": FREE_PER_DAY, "guest_allowance": FREE_PER_DAY},
    )
    plan, made = Plan.objects.get_or_create(
        tenant=tenant,
        slug="monthly",
        defaults={"name": brand.plan, "price": brand.plan_price, "days": 30, "badge": "月卡"},
    )
    if made:
        PlanAllowance.objects.create(tenant=tenant, plan=plan, quota_group=GROUP, answers=PLAN_PER_DAY, period="day")


def _use_up_free_answers(tenant: Tenant) -> None:
    """Take the free answers of today from alice and bob: her answers cost money, and he has nothing to go on with."""
    day = quota.quota_day(now=timezone.now(), zone=tenant.timezone)
    for user in EndUser.objects.filter(username__in=["alice", "bob"]):
        while quota.take(tenant_id=tenant.pk, user_id=user.pk, group=GROUP, day=day.date, limit=FREE_PER_DAY):
            pass


def _token(tenant: Tenant, secrets: Path) -> str:
    """Return alice's token: that of the last start while it is good, so that lines pasted before still work."""
    file = secrets / "token_alice"
    with scope.tenant(tenant.pk):
        good = AccessToken.objects.filter(
            digest=digest_of(file.read_text()) if file.exists() else "",
            revoked_at=None,
            expires_at__gt=timezone.now() + timedelta(days=1),
        )
        if good.exists():
            return file.read_text()
        file.unlink(missing_ok=True)
        token = issue_token(user=EndUser.objects.get(username="alice"), label="demo")
    return kept_secret(secrets, file.name, token).read_text()
