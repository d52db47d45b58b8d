"""Caps: what a user or a whole tenant may use at most in a day or a month, whoever pays for it.

`billing.caps` is the only writer of the counters.
"""

from typing import ClassVar, Final

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from tenants.scope import SameTenant, TenantOwned

MAX_LIMIT: Final = 10**15


class Cap(TenantOwned):
    """One limit: on answers (a number) or on spending (micro-yuan at retail). Several may hold at once: all do."""

    class Scope(models.TextChoices):
        """Whose answers are counted together."""

        USER = "user", _("every user, each alone")
        ONE_USER = "one_user", _("one user")
        TENANT = "tenant", _("all users together")

    class Measure(models.TextChoices):
        """What is counted."""

        ANSWERS = "answers", _("answers")
        SPEND = "spend", _("spending")

    class Period(models.TextChoices):
        """When counting begins anew, in the tenant's time zone."""

        DAY = "day", _("each day")
        MONTH = "month", _("each month")

    scope = models.CharField(_("counts"), max_length=8, choices=Scope.choices, default=Scope.USER)
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("user"),
    )
    measure = models.CharField(_("measure"), max_length=7, choices=Measure.choices, default=Measure.ANSWERS)
    period = models.CharField(_("begins anew"), max_length=5, choices=Period.choices, default=Period.DAY)
    quota_group = models.CharField(
        _("quota group"), max_length=40, blank=True, default="", help_text=_("Empty: all models together.")
    )
    limit = models.BigIntegerField(_("limit, answers or micro-yuan"), validators=[MinValueValidator(0)])
    is_enabled = models.BooleanField(_("in force"), default=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("cap")
        verbose_name_plural = _("caps")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="billing_cap_user_fk"),
            models.UniqueConstraint(
                fields=["tenant", "scope", "user", "measure", "period", "quota_group"],
                nulls_distinct=False,
                name="billing_cap_once",
                violation_error_message=_("There is such a cap already; change its limit."),
            ),
            models.CheckConstraint(
                condition=Q(scope="one_user", user__isnull=False) | Q(scope__in=["user", "tenant"], user__isnull=True),
                name="billing_cap_scope",
                violation_error_message=_("A cap on one user names the user; others name none."),
            ),
            models.CheckConstraint(
                condition=Q(limit__gte=0, limit__lte=MAX_LIMIT)
                & Q(measure__in=["answers", "spend"], period__in=["day", "month"]),
                name="billing_cap_limit",
            ),
        ]


class CapUse(TenantOwned):
    """What a cap has counted since `date`, the first day of its day or month: of one user, or of the whole tenant.

    Spending counts what open holds have frozen, and what ended ones were charged.
    """

    cap = models.ForeignKey(
        Cap,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("cap"),
    )
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("user"),
    )
    date = models.DateField(_("first day in the tenant's time zone"))
    used = models.BigIntegerField(_("used"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("use of a cap")
        verbose_name_plural = _("uses of caps")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="cap", name="billing_capuse_cap_fk"),
            SameTenant(field="user", name="billing_capuse_user_fk"),
            models.UniqueConstraint(
                fields=["tenant", "cap", "user", "date"], nulls_distinct=False, name="billing_capuse_period"
            ),
            models.CheckConstraint(condition=Q(used__gte=0), name="billing_capuse_used"),
        ]
