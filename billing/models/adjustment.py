"""What a hold's late usage changed: a hold that ended by itself was charged at its checkpoint, not at what was used."""

from typing import ClassVar, NamedTuple

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from billing.models.hold import Hold, UsageSource
from billing.models.price import MAX_TOKENS
from tenants.scope import SameTenant, TenantOwned


class UsageAdjustment(TenantOwned):
    """The usage that came after the sweep had charged a hold, once for each hold; never changed (migration 0008).

    The tokens are what was used in all. The amounts, in micro-yuan, are what that adds (±) to the hold's own.
    """

    hold = models.OneToOneField(
        Hold, on_delete=models.PROTECT, db_constraint=False, related_name="adjustment", verbose_name=_("hold")
    )
    prompt_tokens = models.BigIntegerField(_("prompt tokens"))
    cached_tokens = models.BigIntegerField(_("cached tokens"))
    completion_tokens = models.BigIntegerField(_("completion tokens"))
    usage_source = models.CharField(_("counted by"), max_length=8, choices=UsageSource.choices)
    charge = models.BigIntegerField(_("charge added, micro-yuan"))
    gift_charge = models.BigIntegerField(_("of it gift, micro-yuan"))
    cash_charge = models.BigIntegerField(_("of it cash, micro-yuan"))
    shortfall = models.BigIntegerField(_("charge beyond the balance, micro-yuan"))
    wholesale_charge = models.BigIntegerField(_("wholesale charge added, micro-yuan"))
    wholesale_shortfall = models.BigIntegerField(_("wholesale charge beyond the wallet, micro-yuan"))
    cost = models.BigIntegerField(_("platform's cost added, micro-yuan"))
    created_at = models.DateTimeField(_("adjusted"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("usage adjustment")
        verbose_name_plural = _("usage adjustments")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="hold", name="billing_adjustment_hold_fk"),
            models.CheckConstraint(
                condition=Q(prompt_tokens__gte=0, prompt_tokens__lte=MAX_TOKENS)
                & Q(cached_tokens__gte=0, cached_tokens__lte=F("prompt_tokens"))
                & Q(completion_tokens__gte=0, completion_tokens__lte=MAX_TOKENS),
                name="billing_adjustment_tokens",
            ),
            models.CheckConstraint(
                condition=Q(charge=F("gift_charge") + F("cash_charge") + F("shortfall")),
                name="billing_adjustment_charges",
            ),
        ]


class Figures(NamedTuple):
    """What a posted hold came to in the end: at its settlement, or by its adjustment. Amounts in micro-yuan."""

    prompt: int
    cached: int
    completion: int
    source: str
    charge: int
    gift: int
    cash: int
    shortfall: int
    wholesale: int
    wholesale_shortfall: int
    own_share: int
    parent_share: int
    cost: int


def adjustment_of(hold: Hold) -> UsageAdjustment | None:
    """Return the hold's adjustment, if it has one; in its tenant's scope."""
    return UsageAdjustment.objects.filter(hold=hold).first()


def figures_of(hold: Hold, adjustment: UsageAdjustment | None) -> Figures:
    """Return what a posted hold came to, with its adjustment if it has one."""
    posted = Figures(
        prompt=hold.posted_prompt,
        cached=hold.posted_cached,
        completion=hold.posted_completion,
        source=hold.usage_source,
        charge=hold.charge,
        gift=hold.gift_charge,
        cash=hold.cash_charge,
        shortfall=hold.shortfall,
        wholesale=hold.wholesale_charge,
        wholesale_shortfall=hold.wholesale_shortfall,
        own_share=hold.own_share,
        parent_share=hold.parent_share,
        cost=hold.cost,
    )
    if adjustment is None:
        return posted
    wholesale = posted.wholesale + adjustment.wholesale_charge
    return Figures(
        prompt=adjustment.prompt_tokens,
        cached=adjustment.cached_tokens,
        completion=adjustment.completion_tokens,
        source=adjustment.usage_source,
        charge=posted.charge + adjustment.charge,
        gift=posted.gift + adjustment.gift_charge,
        cash=posted.cash + adjustment.cash_charge,
        shortfall=posted.shortfall + adjustment.shortfall,
        wholesale=wholesale,
        wholesale_shortfall=posted.wholesale_shortfall + adjustment.wholesale_shortfall,
        # As pricing.share; a reseller gets more for late usage and never less (billing.holds.shares_added).
        own_share=max(posted.own_share, wholesale * (hold.own_ppm or 0) // 1_000_000),
        parent_share=max(posted.parent_share, wholesale * (hold.parent_ppm or 0) // 1_000_000),
        cost=posted.cost + adjustment.cost,
    )
