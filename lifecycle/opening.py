"""Opening a tenant that can chat at once, all or nothing: the one service behind the command, the API and the wizard.

templates       what a new tenant can begin with
price_list      what a template's models cost a reseller's tenants, and what they would sell for
open_for        open; the same key opens once

Prices lie by a markup above what the tenant will pay, now and as far as the price list says already, so that they are
within the floors whatever the markup is. Lock order: the opening, the reseller, prices by sku, then as in
`billing.ledger`.
"""

import hashlib
import json
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from billing import ledger, pricing, wallet
from billing.models import FreeQuota, MerchantAccount, PriceVersion
from billing.models.price import MAX_PER_CALL, MAX_RATE
from chat.models import ModelOffer, Role
from lifecycle import claims, history
from lifecycle.addresses import address_of, is_ours, own_host, typed_host
from lifecycle.models import MAX_MARKUP_PPM, Check, OfferTemplate, Opening, TemplateModel, TenantEvent
from tenants import invitations, scope
from tenants.errors import ErrorCode, ProductError
from tenants.models import Membership, MiniProgram, Reseller, Tenant
from tenants.onboarding import open_tenant
from tenants.resolve import is_platform_host

MICRO: Final = 1_000_000
# Prices of a new tenant end in whole fen: nobody asks ¥4.123457 for a million tokens.
_STEP: Final = 10_000
_WHOLE_PPM: Final = 1_000_000
MAX_MARKUP_PERCENT: Final = MAX_MARKUP_PPM // 10_000
# Names below TENANT_DOMAIN that are, or may become, the platform's own.
RESERVED: Final = frozenset(
    {
        *("admin", "api", "app", "assets", "cdn", "docs", "mail", "new"),
        *("platform", "portal", "static", "status", "support", "www"),
    }
)


class Rates(NamedTuple):
    """What a million tokens, and a call, cost: micro-yuan."""

    prompt: int
    cached: int
    completion: int
    per_call: int


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A model of a template, what a tenant pays for it and what its users would."""

    model: TemplateModel
    wholesale: Rates
    retail: Rates


@dataclass(frozen=True, kw_only=True)
class Application:
    """What a tenant is to be like. Only the name is needed; the rest has a sensible default.

    `merchant` has the fields of a merchant account, `wallet` is what the reseller puts into the tenant's wallet
    (micro-yuan), `markup_ppm` is how much retail lies above wholesale (None: as the template says).
    """

    name: str
    slug: str = ""
    host: str = ""
    title: str = ""
    slogan: str = ""
    logo_url: str = ""
    primary_color: str = "#0f766e"
    welcome: str = ""
    language: str = "zh-hans"
    timezone: str = "Asia/Shanghai"
    allow_guest: bool = True
    app_id: str = ""
    app_secret: str = field(default="", repr=False)
    merchant: dict[str, str] = field(default_factory=dict, repr=False)
    template: str = ""
    markup_ppm: int | None = None
    wallet: int = 0
    trial: bool = True
    owner_email: str = ""

    def digest(self) -> str:
        """Return what tells one application from another, and nothing of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Opened(NamedTuple):
    """A tenant, and the link for its first staff: empty where it was opened before, since it is shown once."""

    tenant: Tenant
    host: str
    invitation_url: str
    is_new: bool


def templates() -> list[OfferTemplate]:
    """Return the templates on offer, the default first."""
    with scope.platform("templates are the platform's"):
        return list(OfferTemplate.objects.filter(is_enabled=True).order_by("-is_default", "name", "pk"))


def price_list(*, template: OfferTemplate, reseller_id: int | None, markup_ppm: int) -> list[Priced]:
    """Return the template's models that have a wholesale price for the reseller's tenants, the default first."""
    with scope.platform("templates are the platform's"):
        models = list(template.models.select_related("account").order_by("position", "pk"))
    floors = pricing.paid_by_tenants_of(reseller_id=reseller_id, skus=[model.sku for model in models])
    return [
        Priced(
            model=model,
            wholesale=_dearest(floors[model.sku][:1]),
            retail=_retail(_dearest(floors[model.sku]), markup_ppm),
        )
        for model in models
        if floors.get(model.sku)
    ]


def propose_slug(name: str) -> str:
    """Return a free slug made of a name; of one without Latin letters, a short random one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = slugify(plain)[:30].strip("-_").replace("_", "-")
    if not re.match(r"[a-z]", stem) or stem in RESERVED:
        # Begins with a letter: a number is nobody's name.
        stem = f"{stem if stem in RESERVED else f'ai-{stem}'.strip('-')}-{_random()}"
    taken = set(Tenant.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    return stem if stem not in taken else f"{stem}-{_random()}"


def open_for(
    *, application: Application, reseller: Reseller | None, actor: str, key: str = "", is_vouched: bool = False
) -> Opened:
    """Open a tenant of a reseller (None: of the operator); not in a tenant's scope.

    It can chat when this returns: models at prices, a wallet, guests with a free quota, on its subdomain. `key` opens
    once for the reseller. A host of its own serves once DNS proves it, or at once where the operator itself names it
    (`is_vouched`). Raises ProductError: INVALID "tenant_unfit" (with `fields`), "template_missing",
    "template_not_on_sale" or "opening_key_used", QUOTA "trial_tenants_limit", RECHARGE "reseller_wallet_short".
    """
    with transaction.atomic():
        opening = _claim(key or secrets.token_hex(16), reseller, application)
        if opening.slug:
            tenant = Tenant.objects.get(slug=opening.slug)
            return Opened(tenant, own_host(tenant.slug), "", is_new=False)
        if reseller is not None and application.trial:
            _require_room(reseller)
        template = template_of(application.template)
        priced = _priced(template, application, reseller)
        tenant = _open(application, reseller, is_vouched=is_vouched)
        if application.host and not is_vouched:
            _claim_host(tenant, application.host, actor)
        with scope.tenant(tenant.pk):
            _sell(tenant, priced, actor)
            _welcome(tenant, application, template, groups={item.model.quota_group for item in priced})
            _set_up(tenant, application)
        link = invitations.invite(
            tenant=tenant,
            role=Membership.Role.OWNER,
            by=None,
            email=application.owner_email,
            origin=address_of(own_host(tenant.slug)),
        )
        history.record(tenant=tenant, kind=TenantEvent.Kind.OPENED, actor=actor, template=template.slug)
        Opening.objects.filter(pk=opening.pk, slug="").update(slug=tenant.slug, opened_at=Now(), secrets="")
        _fund(tenant, application, reseller, actor)
    return Opened(tenant, own_host(tenant.slug), link, is_new=True)


def _random() -> str:
    # No vowels and nothing that looks like something else: it is read out over the phone.
    return "".join(secrets.choice("23456789bcdfghjkmnpqrstvwxz") for _ in range(6))


def _claim(key: str, reseller: Reseller | None, application: Application) -> Opening:
    """Return the opening of a key, locked: whoever comes at the same time waits, then finds the tenant."""
    Opening.objects.get_or_create(reseller=reseller, key=key)
    opening = Opening.objects.select_for_update().get(reseller=reseller, key=key)
    digest = application.digest()
    if opening.slug and opening.digest != digest:
        raise ProductError(
            ErrorCode.INVALID, _("This key has opened another tenant. Please use a new one."), type="opening_key_used"
        )
    Opening.objects.filter(pk=opening.pk).update(digest=digest)
    return opening


def _require_room(reseller: Reseller) -> None:
    """Count the reseller's trials, one opening at a time."""
    Reseller.objects.select_for_update(no_key=True).get(pk=reseller.pk)
    used = Tenant.objects.filter(reseller=reseller, status=Tenant.Status.TRIAL).count()
    if used >= settings.TRIAL_TENANTS:
        raise ProductError(
            ErrorCode.QUOTA,
            _("You have %(used)d tenants on trial. Have some of them activated first.") % {"used": used},
            type="trial_tenants_limit",
            scope="reseller",
            action="contact",
            reset_at=None,
            used=used,
            limit=settings.TRIAL_TENANTS,
        )


def _open(application: Application, reseller: Reseller | None, *, is_vouched: bool) -> Tenant:
    slug = application.slug or propose_slug(application.name)
    if slug in RESERVED or is_platform_host(own_host(slug)):
        raise unfit({"slug": [str(_("This name is the platform's own. Please choose another."))]})
    hosts = [own_host(slug), *([_host(application.host)] if application.host and is_vouched else [])]
    # By the operator's calendar, who ends it.
    trial_ends_on = timezone.localdate() + timedelta(days=settings.TRIAL_DAYS) if application.trial else None
    try:
        return open_tenant(
            slug=slug,
            name=application.name,
            hosts=hosts,
            reseller=reseller,
            status=Tenant.Status.TRIAL if application.trial else Tenant.Status.ACTIVE,
            language=application.language,
            timezone=application.timezone,
            allow_guest=application.allow_guest,
            title=application.title,
            slogan=application.slogan,
            primary_color=application.primary_color,
            welcome=application.welcome,
            logo_url=application.logo_url,
            trial_ends_on=trial_ends_on,
        )
    except ValidationError as wrong:
        raise unfit(wrong.message_dict) from None
    except IntegrityError:  # another opening took the name between the look and the insert
        raise unfit({"slug": [str(_("This name is taken. Please choose another."))]}) from None


def _host(typed: str) -> str:
    """Return the host that the operator vouches for."""
    try:
        host = typed_host(typed)
    except ValidationError as wrong:
        raise unfit({"host": wrong.messages}) from None
    if is_ours(host):
        # Else a tenant could take a name that another will have.
        raise unfit({"host": [str(_("This name is the platform's own. Please choose another."))]})
    return host


def _claim_host(tenant: Tenant, typed: str, actor: str) -> None:
    """Keep the host of its own as one to be proven."""
    try:
        claims.claim(tenant=tenant, typed=typed, actor=actor)
    except ProductError as refused:
        raise unfit({"host": [str(refused.msg)]}) from None


def unfit(fields: dict[str, list[str]]) -> ProductError:
    """Return the refusal of what was typed, by field: in words for the person, by name for a program."""
    words = " ".join(dict.fromkeys(message for messages in fields.values() for message in messages))
    return ProductError(ErrorCode.INVALID, words, type="tenant_unfit", fields=sorted(fields), messages=fields)


def template_of(slug: str) -> OfferTemplate:
    """Return a template by its slug, the default without one; raise ProductError INVALID "template_missing"."""
    offered = templates()
    for template in offered:
        if slug in {"", template.slug}:
            return template
    raise ProductError(
        ErrorCode.INVALID,
        _("There is no such template of models and prices. The operator sets them up."),
        type="template_missing",
    )


def _priced(template: OfferTemplate, application: Application, reseller: Reseller | None) -> list[Priced]:
    markup = template.markup_ppm if application.markup_ppm is None else application.markup_ppm
    priced = price_list(template=template, reseller_id=reseller.pk if reseller else None, markup_ppm=markup)
    if not priced:
        raise ProductError(
            ErrorCode.INVALID,
            _("None of the template's models has a wholesale price for you yet. Please ask the operator."),
            type="template_not_on_sale",
        )
    return priced


def _sell(tenant: Tenant, priced: list[Priced], actor: str) -> None:
    """Offer the template's models at prices above what the tenant pays."""
    # By sku, so that two openings never wait for each other's prices crosswise.
    for sku, retail in sorted({item.model.sku: item.retail for item in priced}.items()):
        pricing.publish_price(
            level=PriceVersion.Level.RETAIL,
            tenant_id=tenant.pk,
            sku=sku,
            prompt_rate=retail.prompt,
            cached_rate=retail.cached,
            completion_rate=retail.completion,
            per_call=retail.per_call,
            actor=actor,
        )
    for number, item in enumerate(priced):
        model = item.model
        ModelOffer.objects.create(
            tenant=tenant,
            slug=model.slug,
            name=model.name,
            sku=model.sku,
            account=model.account,
            upstream_model=model.upstream_model,
            context_window=model.context_window,
            max_output_tokens=model.max_output_tokens,
            token_ratio_percent=model.token_ratio_percent,
            quota_group=model.quota_group,
            is_default=number == 0,
        )


def _welcome(tenant: Tenant, application: Application, template: OfferTemplate, *, groups: set[str]) -> None:
    """Give a few answers away, and somebody to give them."""
    for group in sorted(groups):
        FreeQuota.objects.create(
            tenant=tenant,
            quota_group=group,
            per_day=template.free_per_day,
            guest_allowance=template.guest_allowance,
        )
    Role.objects.create(
        tenant=tenant,
        slug="assistant",
        name=application.title or application.name,
        instructions=template.instructions,
        opening=application.welcome,
        is_default=True,
    )


def _set_up(tenant: Tenant, application: Application) -> None:
    """Store what WeChat and the payment provider want, and begin the checklist."""
    rows: list[tuple[Any, str]] = []
    if application.app_id:
        rows.append((MiniProgram(tenant=tenant, app_id=application.app_id, secret=application.app_secret), ""))
    if application.merchant:
        rows.append((MerchantAccount(tenant=tenant, **application.merchant), "merchant."))
    for row, prefix in rows:
        try:
            row.full_clean(validate_constraints=False)
            with transaction.atomic():
                row.save(force_insert=True)
        except ValidationError as wrong:
            raise unfit({f"{prefix}{name}": said for name, said in wrong.message_dict.items()}) from None
        except IntegrityError:
            raise unfit({f"{prefix}app_id": [str(_("This app id belongs to another tenant."))]}) from None
    Check.objects.bulk_create(Check(tenant=tenant, kind=kind) for kind in Check.Kind.values)


def _fund(tenant: Tenant, application: Application, reseller: Reseller | None, actor: str) -> None:
    """Fill the wallet: what the platform gives for a trial, and what the reseller, or the operator, puts into it."""
    if application.trial and settings.TRIAL_YUAN:
        ledger.credit_tenant_wallet(
            tenant_id=tenant.pk, amount=settings.TRIAL_YUAN * MICRO, ref="trial", reason="trial", actor=actor
        )
    if not application.wallet:
        return
    amount = application.wallet
    if reseller is None:
        ledger.credit_tenant_wallet(tenant_id=tenant.pk, amount=amount, ref="opening", reason="opening", actor=actor)
        return
    wallet.allot(
        reseller_id=reseller.pk, tenant_id=tenant.pk, amount=amount, ref="opening", reason="opening", actor=actor
    )


def _dearest(floors: Iterable[PriceVersion]) -> Rates:
    """Return the most that any of the prices asks, with its multiplier worked in and rounded up."""

    def worked_in(rate: int, ppm: int) -> int:
        return -(-rate * ppm // _WHOLE_PPM)

    rated = [
        (
            worked_in(price.prompt_rate, price.multiplier_ppm),
            worked_in(price.cached_rate, price.multiplier_ppm),
            worked_in(price.completion_rate, price.multiplier_ppm),
            price.per_call,
        )
        for price in floors
    ]
    prompt, cached, completion, per_call = (max(column) for column in zip(*rated, strict=True))
    return Rates(prompt, cached, completion, per_call)


def _retail(floor: Rates, markup_ppm: int) -> Rates:
    """Add the markup and round up to whole fen, so that nothing falls below the floor."""

    def above(amount: int, most: int) -> int:
        marked = -(-amount * (_WHOLE_PPM + markup_ppm) // _WHOLE_PPM)
        return min(-(-marked // _STEP) * _STEP, max(most, amount))

    prompt, cached, completion = (above(rate, MAX_RATE) for rate in floor[:3])
    # A call's price may be less than a fen: it is not rounded.
    per_call = min(-(-floor.per_call * (_WHOLE_PPM + markup_ppm) // _WHOLE_PPM), MAX_PER_CALL)
    return Rates(prompt, cached, completion, per_call)
