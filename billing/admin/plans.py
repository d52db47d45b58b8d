"""Plans, free quota and caps in the admin: owners and finance edit what is sold and allowed; support may look."""

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import structlog
from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin.books import CostAdmin, MoneyAdmin, yuan_column
from billing.models import Cap, FreeQuota, Plan, PlanAllowance, PlanUse, Subscription
from billing.models.cap import MAX_LIMIT
from billing.models.recharge import FEN, MAX_PRICE
from billing.yuan import parse_yuan, show_yuan
from tenants.adminsite import TenantModelAdmin, register
from tenants.models import EndUser, Membership

if TYPE_CHECKING:
    _Form = forms.ModelForm[Any]
else:
    _Form = forms.ModelForm  # cannot be subscripted at run time

Role = Membership.Role

logger = structlog.get_logger(__name__)

_NUMBER: Final = re.compile(r"[0-9]{1,18}")  # fits a BIGINT
_TREASURERS = frozenset({Role.OWNER, Role.FINANCE})


class RuleForm(_Form):
    """A form whose row has its tenant before it is checked, so that a second rule of a kind is refused in words."""

    tenant_id: ClassVar[int | None] = None  # of the site; None on the operator's, whose form asks for the tenant

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.tenant_id is not None:
            self.instance.tenant_id = self.tenant_id

    def _get_validation_exclusions(self) -> set[str]:
        """Check the constraints on fields that the form sets by itself too."""
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]  # the stubs leave it out
        return excluded - {"tenant", "user"}


class RuleAdmin(TenantModelAdmin):
    """A rule of what is sold or allowed: each change is in the log, beside the admin's own history."""

    visible_to = _TREASURERS | {Role.SUPPORT}
    editable_by = _TREASURERS
    form = RuleForm

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002  # Django's signature
        """Tell the form whose site it is on."""
        form = super().get_form(request, obj, change, **kwargs)
        form.tenant_id = None if self._on_platform else request.tenant.pk  # type: ignore[attr-defined]
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and note who did."""
        super().save_model(request, obj, form, change)
        self._log("rule_changed" if change else "rule_added", request, obj)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete, and note who did."""
        self._log("rule_deleted", request, obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete one by one, so that each is noted."""
        for row in queryset:
            self.delete_model(request, row)

    def _log(self, event: str, request: HttpRequest, row: Any) -> None:
        logger.info(
            event, kind=row._meta.model_name, row=row.pk, tenant=row.tenant_id, staff=request.user.get_username()
        )


class FreeQuotaAdmin(RuleAdmin):
    """What is given away."""

    list_display = ("quota_group", "per_day", "guest_allowance")
    ordering = ("quota_group",)


class PlanForm(RuleForm):
    """Takes the price in yuan, as people write it."""

    yuan = forms.CharField(
        label=_("price, yuan"), max_length=16, widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
    )

    class Meta:
        model = Plan
        fields: ClassVar[list[str]] = [
            "tenant",
            "slug",
            "name",
            "days",
            "badge",
            "limit_per_user",
            "position",
            "virtual_product_id",
            "is_enabled",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["yuan"] = show_yuan(self.instance.price)

    def clean_yuan(self) -> int:
        """Return micro-yuan, in whole fen, and give them to the plan."""
        try:
            price = parse_yuan(self.cleaned_data["yuan"])
        except ValueError:
            price = 0
        if not FEN <= price <= MAX_PRICE or price % FEN:
            raise forms.ValidationError(_("A price such as 19.90 is wanted, in whole fen, at most ¥1,000,000."))
        self.instance.price = price
        return price


class PlanAllowanceInline(TabularInline):
    """What a plan brings, beside the plan."""

    model = PlanAllowance
    fields = ("quota_group", "answers", "period")
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let in who sees the plan."""
        return self._of_plans().has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let in who may edit the plan."""
        return self._of_plans().may_edit(request)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let in who may edit the plan."""
        return self._of_plans().may_edit(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let in who may edit the plan."""
        return self._of_plans().may_edit(request)

    def _of_plans(self) -> TenantModelAdmin:
        return cast("TenantModelAdmin", self.admin_site.get_model_admin(Plan))


class PlanAdmin(RuleAdmin):
    """What is sold by the month. What was sold keeps the terms that it was sold on."""

    form = PlanForm
    inlines = (PlanAllowanceInline,)
    list_display = (
        "slug",
        "name",
        yuan_column("price", _("price")),
        "days",
        "badge",
        "limit_per_user",
        "position",
        "is_enabled",
    )
    list_filter = ("is_enabled",)
    search_fields = ("slug", "name")
    ordering = ("position", "pk")

    def get_fields(self, request: HttpRequest, obj: Plan | None = None) -> Any:
        """Ask for yuan where the price may be edited, and show them elsewhere."""
        tenant = ("tenant",) if self._on_platform else ()
        price = "yuan" if self.may_edit(request) else "price"
        asked = ("days", "badge", "limit_per_user", "position", "virtual_product_id", "is_enabled")
        return (*tenant, "slug", "name", price, *asked)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: Any) -> None:
        """Give the allowances to the plan's tenant."""
        for row in formset.save(commit=False):
            row.tenant_id = form.instance.tenant_id
            row.save()
        for row in formset.deleted_objects:
            row.delete()
        formset.save_m2m()


class SubscriptionAdmin(MoneyAdmin):
    """Who has bought which plan until when, and what is used of it."""

    visible_to: ClassVar[frozenset[str]] = CostAdmin.visible_to
    list_display = ("id", "user", "name", "starts_at", "ends_at", "ended_at")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username", "name")
    ordering = ("-id",)
    readonly_fields = ("what_is_used",)
    fields = ("user", "plan", "order", "name", "starts_at", "ends_at", "ended_at", "what_is_used", "created_at")

    @admin.display(description=_("used so far"))
    def what_is_used(self, row: Subscription) -> str:
        """Add up what was taken of each allowance."""
        used = PlanUse.objects.filter(subscription=row).values_list("quota_group").annotate(total=models.Sum("used"))
        totals = dict(used)
        shown = [
            f"{allowance.quota_group}: {totals.get(allowance.quota_group, 0)}"
            f" ({allowance.answers}, {allowance.get_period_display()})"
            for allowance in row.allowances.order_by("quota_group")
        ]
        return "; ".join(shown) or "-"


class CapForm(RuleForm):
    """Takes a limit as people write it, in yuan where spending is capped, and a user by name, phone or e-mail."""

    who = forms.CharField(
        label=_("user"),
        required=False,
        max_length=254,
        widget=UnfoldAdminTextInputWidget(),
        help_text=_("For a cap on one user: the user name, phone or e-mail, or # and the user's number."),
    )
    most = forms.CharField(
        label=_("limit"),
        max_length=16,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        help_text=_("A number of answers, or yuan where spending is capped."),
    )

    class Meta:
        model = Cap
        fields: ClassVar[list[str]] = ["tenant", "scope", "measure", "period", "quota_group", "is_enabled"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cap = self.instance
        if cap.pk:
            self.initial["most"] = show_limit(cap)

    def clean(self) -> dict[str, Any] | None:
        """Give the limit and the user to the cap."""
        given = super().clean() or self.cleaned_data
        cap = self.instance
        measure = cap.measure if cap.pk else given.get("measure", "")
        if "most" in given:
            self._take_limit(str(given["most"]), measure)
        if not cap.pk:
            self._take_user(given)
        return given

    def _take_limit(self, text: str, measure: str) -> None:
        try:
            limit = parse_yuan(text) if measure == Cap.Measure.SPEND else int(text)
        except ValueError:
            limit = -1
        if not 0 <= limit <= MAX_LIMIT:
            self.add_error("most", _("A number of answers such as 100, or yuan such as 19.90, is wanted."))
        else:
            self.instance.limit = limit

    def _take_user(self, given: dict[str, Any]) -> None:
        who, wanted = given.get("who", ""), given.get("scope") == Cap.Scope.ONE_USER
        if bool(who) != wanted:
            self.add_error("who", _("A cap on one user names the user; others name none."))
            return
        if wanted:
            tenant_id = self.tenant_id or getattr(given.get("tenant"), "pk", None)
            user = _find_user(tenant_id, str(who)) if tenant_id else None
            if user is None:
                self.add_error("who", _("There is no such user."))
            self.instance.user = user


def _find_user(tenant_id: int, who: str) -> EndUser | None:
    """Return the tenant's user of that name, phone, e-mail or number."""
    users = EndUser.objects.filter(tenant_id=tenant_id)
    if who.startswith("#"):
        return users.filter(pk=int(who[1:])).first() if _NUMBER.fullmatch(who[1:]) else None
    return users.filter(models.Q(username__iexact=who) | models.Q(phone=who) | models.Q(email__iexact=who)).first()


class CapAdmin(RuleAdmin):
    """What may be used at most. What a cap counts never changes, or its counters would count something else."""

    form = CapForm
    list_display = ("id", "scope", "user", "measure", "period", "quota_group", "most", "is_enabled")
    list_filter = ("scope", "measure", "period", "is_enabled")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "user")
    search_fields = ("user__username", "quota_group")
    ordering = ("id",)

    def get_fields(self, request: HttpRequest, obj: Cap | None = None) -> Any:
        """Ask for the user by name, and show whom a cap is on."""
        tenant = ("tenant",) if self._on_platform else ()
        user = "user" if obj else "who"
        return (*tenant, "scope", user, "measure", "period", "quota_group", "most", "is_enabled")

    def get_readonly_fields(self, request: HttpRequest, obj: Cap | None = None) -> Any:
        """Leave only how much, and whether at all."""
        return ("tenant", "scope", "user", "measure", "period", "quota_group") if obj else ()

    @admin.display(description=_("limit"), ordering="limit")
    def most(self, row: Cap) -> str:
        """Show the limit in the unit of its measure."""
        return show_limit(row, sign="¥")


def show_limit(cap: Cap, *, sign: str = "") -> str:
    """Return a cap's limit: a number of answers, or yuan."""
    return f"{sign}{show_yuan(cap.limit)}" if cap.measure == Cap.Measure.SPEND else str(cap.limit)


register(FreeQuota, FreeQuotaAdmin)
register(Plan, PlanAdmin)
register(Subscription, SubscriptionAdmin)
register(Cap, CapAdmin)
