"""Membership plans: what a tenant sells by the month, who has bought it until when, and what of it is used.

Prices are whole micro-yuan. `billing.plans` is the only writer of subscriptions, `billing.quota` of what is used.
"""

from typing import TYPE_CHECKING, ClassVar, Final

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from billing.models.recharge import Goods, Order
from tenants.scope import SameTenant, TenantOwned

if TYPE_CHECKING:
    from django.db.models.fields.related_descriptors import RelatedManager

MAX_DAYS: Final = 3660
MAX_ANSWERS: Final = 1_000_000


class Period(models.TextChoices):
    """After what an allowance begins anew."""

    DAY = "day", _("each day")
    TERM = "term", _("once in the plan's time")


class Plan(Goods):
    """A membership that a tenant sells: for `days` its owner has the allowances' answers without paying for each."""

    days = models.PositiveIntegerField(
        _("days"), default=30, validators=[MinValueValidator(1), MaxValueValidator(MAX_DAYS)]
    )

    if TYPE_CHECKING:
        allowances: RelatedManager["PlanAllowance"]

    class Meta(Goods.Meta):
        abstract = False
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        constraints: ClassVar = [
            *Goods.Meta.constraints,
            models.CheckConstraint(condition=Q(days__gte=1, days__lte=MAX_DAYS), name="billing_plan_days"),
        ]


class Allowance(TenantOwned):
    """So many answers of a quota group, each day or in the plan's whole time."""

    quota_group = models.CharField(_("quota group"), max_length=40, default="default")
    answers = models.PositiveIntegerField(
        _("answers"), validators=[MinValueValidator(1), MaxValueValidator(MAX_ANSWERS)]
    )
    period = models.CharField(_("begins anew"), max_length=4, choices=Period.choices, default=Period.DAY)

    class Meta(TenantOwned.Meta):
        abstract = True
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(
                condition=Q(answers__gte=1, answers__lte=MAX_ANSWERS, period__in=Period.values),
                name="billing_%(class)s_answers",
            ),
        ]


class PlanAllowance(Allowance):
    """What a plan on sale brings."""

    plan = models.ForeignKey(
        Plan,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="allowances",
        verbose_name=_("plan"),
    )

    class Meta(Allowance.Meta):
        abstract = False
        verbose_name = _("allowance")
        verbose_name_plural = _("allowances")
        constraints: ClassVar = [
            *Allowance.Meta.constraints,
            SameTenant(field="plan", name="billing_planallowance_plan_fk"),
            models.UniqueConstraint(
                fields=["tenant", "plan", "quota_group"],
                name="billing_planallowance_group",
                violation_error_message=_("A plan has one allowance for each quota group."),
            ),
        ]


class Subscription(TenantOwned):
    """One purchase of a plan: from when to when it is good. Buying it again adds one that begins where this ends.

    Its name and allowances are those of the order: later edits of the plan change nothing. `ended_at` is when it was
    ended before its time.
    """

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    plan = models.ForeignKey(
        Plan,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("plan"),
    )
    order = models.ForeignKey(
        Order,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("order"),
    )
    name = models.CharField(_("plan's name"), max_length=80)
    starts_at = models.DateTimeField(_("begins"))
    ends_at = models.DateTimeField(_("ends"))
    ended_at = models.DateTimeField(_("ended early"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)

    if TYPE_CHECKING:
        allowances: RelatedManager["SubscriptionAllowance"]

    class Meta(TenantOwned.Meta):
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_subscription_user_fk"),
            SameTenant(field="plan", name="billing_subscription_plan_fk"),
            SameTenant(field="order", name="billing_subscription_order_fk"),
            # A paid order begins one subscription, however often its payment is told.
            models.UniqueConstraint(fields=["tenant", "order"], name="billing_subscription_order"),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="billing_subscription_term"),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "user", "ends_at"], name="billing_subscription_user")]


class SubscriptionAllowance(Allowance):
    """What a plan brought when it was bought."""

    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="allowances",
        verbose_name=_("subscription"),
    )

    class Meta(Allowance.Meta):
        abstract = False
        verbose_name = _("allowance bought")
        verbose_name_plural = _("allowances bought")
        constraints: ClassVar = [
            *Allowance.Meta.constraints,
            SameTenant(field="subscription", name="billing_suballowance_subscription_fk"),
            models.UniqueConstraint(
                fields=["tenant", "subscription", "quota_group"], name="billing_suballowance_group"
            ),
        ]


class PlanUse(TenantOwned):
    """How many answers of an allowance are taken: on a day of the tenant's time zone, or in the plan's whole time.

    The whole time is counted on the one day `billing.quota.IN_ALL`.
    """

    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("subscription"),
    )
    quota_group = models.CharField(_("quota group"), max_length=40)
    date = models.DateField(_("day in the tenant's time zone"))
    used = models.IntegerField(_("used"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("plan's answers used")
        verbose_name_plural = _("plans' answers used")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="subscription", name="billing_planuse_subscription_fk"),
            models.UniqueConstraint(
                fields=["tenant", "subscription", "quota_group", "date"], name="billing_planuse_day"
            ),
            models.CheckConstraint(condition=Q(used__gte=0), name="billing_planuse_used"),
        ]
