"""Money and quota set aside for one answer: the first phase of two."""

from typing import ClassVar, Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from billing.models.plan import Subscription
from billing.models.price import MAX_TOKENS, PriceVersion
from tenants.models import Reseller
from tenants.scope import SameTenant, TenantOwned


class UsageSource(models.TextChoices):
    """Who counted the tokens."""

    UPSTREAM = "upstream", _("upstream")
    ESTIMATE = "estimate", _("estimate")


# Answers that came to nothing, or were cut by a failure: the dashboard's errors, with those that users stopped.
FAILED: Final = Q(state="voided") | Q(reason="upstream_broken")


class Hold(TenantOwned):
    """What one answer may cost at most, frozen until the answer is settled (posted) or given up (voided).

    The first block is fixed at admission. `amount` is the retail amount frozen, gift and cash together; it is 0 where
    a plan or the free quota pays, and then `wholesale_amount` is still frozen: the tenant pays for its free answers.
    `subscription` and `counter_date` say where such an answer was counted (a day's free quota: on `quota_date`),
    `cap_counters` which caps' counters count it, in the order that they are locked in. The posted figures are set
    once, when the hold ends; triggers (migrations 0002 and 0014) let it end once only.
    """

    class State(models.TextChoices):
        """A hold ends in one of the last two, once."""

        HELD = "held", _("held")
        POSTED = "posted", _("posted")
        VOIDED = "voided", _("voided")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    key = models.CharField(_("idempotency key"), max_length=160)
    sku = models.CharField(_("price list item"), max_length=80)
    amount = models.BigIntegerField(_("held, micro-yuan"))
    gift_amount = models.BigIntegerField(_("of it gift, micro-yuan"))
    cash_amount = models.BigIntegerField(_("of it cash, micro-yuan"))
    wholesale_amount = models.BigIntegerField(_("held of the tenant's wallet, micro-yuan"))
    retail_price = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("retail price")
    )
    wholesale_price = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("wholesale price")
    )
    cost_price = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, db_index=False, related_name="+", verbose_name=_("cost price")
    )
    free = models.BooleanField(_("paid by a plan or the free quota"))
    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("paid by the plan"),
    )
    counter_date = models.DateField(_("counted on the day"), null=True, blank=True)
    cap_counters = ArrayField(models.BigIntegerField(), default=list, blank=True, verbose_name=_("counted by caps"))
    quota_group = models.CharField(_("quota group"), max_length=40)
    quota_date = models.DateField(_("day in the tenant's time zone"))
    # Who resells to the tenant, and which part of the wholesale charge each gets, in millionths.
    reseller = models.ForeignKey(
        Reseller,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller"),
    )
    own_ppm = models.IntegerField(_("reseller's share, millionths"), null=True, blank=True)
    parent_reseller = models.ForeignKey(
        Reseller,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("reseller's parent"),
    )
    parent_ppm = models.IntegerField(_("parent's share, millionths"), null=True, blank=True)
    prompt_tokens = models.BigIntegerField(_("prompt tokens at most"))
    max_completion_tokens = models.BigIntegerField(_("completion tokens at most"))
    created_at = models.DateTimeField(_("held at"))
    expires_at = models.DateTimeField(_("expires"))

    state = models.CharField(_("state"), max_length=6, choices=State.choices, default=State.HELD)
    dispatched_at = models.DateTimeField(_("sent upstream"), null=True, blank=True)
    heartbeat_at = models.DateTimeField(_("last sign of life"), null=True, blank=True)
    checkpoint_prompt = models.BigIntegerField(_("prompt tokens at the checkpoint"), default=0)
    checkpoint_cached = models.BigIntegerField(_("cached tokens at the checkpoint"), default=0)
    checkpoint_completion = models.BigIntegerField(_("completion tokens at the checkpoint"), default=0)

    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    reason = models.CharField(_("reason"), max_length=64, blank=True, default="")
    posted_prompt = models.BigIntegerField(_("prompt tokens"), default=0)
    posted_cached = models.BigIntegerField(_("cached tokens"), default=0)
    posted_completion = models.BigIntegerField(_("completion tokens"), default=0)
    usage_source = models.CharField(_("counted by"), max_length=8, choices=UsageSource.choices, blank=True, default="")
    charge = models.BigIntegerField(_("charge, micro-yuan"), default=0)
    gift_charge = models.BigIntegerField(_("of it gift, micro-yuan"), default=0)
    cash_charge = models.BigIntegerField(_("of it cash, micro-yuan"), default=0)
    shortfall = models.BigIntegerField(_("charge beyond the balance, micro-yuan"), default=0)
    wholesale_charge = models.BigIntegerField(_("wholesale charge, micro-yuan"), default=0)
    wholesale_shortfall = models.BigIntegerField(_("wholesale charge beyond the wallet, micro-yuan"), default=0)
    own_share = models.BigIntegerField(_("reseller's share, micro-yuan"), default=0, db_default=0)
    parent_share = models.BigIntegerField(_("parent's share, micro-yuan"), default=0, db_default=0)
    cost = models.BigIntegerField(_("platform's cost, micro-yuan"), default=0)
    # The outbox: a posted hold without it has no usage record yet, and the sweep will find it.
    recorded_at = models.DateTimeField(_("usage recorded"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("hold")
        verbose_name_plural = _("holds")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_hold_user_fk"),
            SameTenant(field="subscription", name="billing_hold_subscription_fk"),
            models.UniqueConstraint(fields=["tenant", "key"], name="billing_hold_key"),
            models.CheckConstraint(
                condition=Q(gift_amount__gte=0, cash_amount__gte=0, wholesale_amount__gte=0)
                & Q(amount=F("gift_amount") + F("cash_amount"))
                & (Q(free=False) | Q(amount=0)),
                name="billing_hold_amounts",
            ),
            models.CheckConstraint(
                condition=Q(subscription__isnull=True, counter_date__isnull=True)
                | Q(free=True, counter_date__isnull=False),
                name="billing_hold_counter",
            ),
            models.CheckConstraint(
                condition=Q(prompt_tokens__gte=0, prompt_tokens__lte=MAX_TOKENS)
                & Q(max_completion_tokens__gte=0, max_completion_tokens__lte=MAX_TOKENS)
                & Q(posted_prompt__gte=0, posted_prompt__lte=MAX_TOKENS)
                & Q(posted_cached__gte=0, posted_cached__lte=F("posted_prompt"))
                & Q(posted_completion__gte=0, posted_completion__lte=MAX_TOKENS),
                name="billing_hold_tokens",
            ),
            models.CheckConstraint(
                condition=Q(gift_charge__gte=0, cash_charge__gte=0, shortfall__gte=0, cost__gte=0)
                & Q(wholesale_charge__gte=F("wholesale_shortfall"), wholesale_shortfall__gte=0)
                & Q(charge=F("gift_charge") + F("cash_charge") + F("shortfall"))
                & (Q(free=False) | Q(charge=0)),
                name="billing_hold_charges",
            ),
            models.CheckConstraint(
                condition=(
                    Q(reseller__isnull=True, own_ppm__isnull=True, parent_reseller__isnull=True)
                    | Q(reseller__isnull=False, own_ppm__isnull=False, own_ppm__gte=0, own_ppm__lte=1_000_000)
                )
                & (
                    Q(parent_reseller__isnull=True, parent_ppm__isnull=True)
                    | Q(parent_reseller__isnull=False, parent_ppm__isnull=False, parent_ppm__gte=0)
                    & Q(parent_ppm__lte=1_000_000 - F("own_ppm"))
                ),
                name="billing_hold_resale",
            ),
            models.CheckConstraint(
                condition=Q(own_share__gte=0, parent_share__gte=0)
                & Q(wholesale_charge__gte=F("own_share") + F("parent_share"))
                & (Q(own_share=0) | Q(reseller__isnull=False))
                & (Q(parent_share=0) | Q(parent_reseller__isnull=False)),
                name="billing_hold_shares",
            ),
            models.CheckConstraint(
                condition=Q(state="held", ended_at__isnull=True, recorded_at__isnull=True, charge=0)
                | Q(state="voided", ended_at__isnull=False, recorded_at__isnull=True, charge=0, wholesale_charge=0)
                | (Q(state="posted", ended_at__isnull=False) & ~Q(usage_source="")),
                name="billing_hold_end",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "user", "-created_at"], name="billing_hold_recent"),
            # Both are for sweeps over all tenants, and stay as small as what is open.
            models.Index(fields=["expires_at"], condition=Q(state="held"), name="billing_hold_open"),
            models.Index(
                fields=["ended_at"], condition=Q(state="posted", recorded_at__isnull=True), name="billing_hold_outbox"
            ),
            # The dashboard counts failures from here: it is as small as what fails.
            models.Index(
                fields=["tenant", "quota_date", "sku", "reason"], condition=FAILED, name="billing_hold_failed"
            ),
        ]
