"""Money that staff moves: refunds of orders, credits to users. Owners, finance and the operator do; support looks."""

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

import structlog
from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget
from uuid_utils.compat import uuid7

from billing import by_hand, ledger, refund
from billing.admin.books import CostAdmin, MoneyAdmin, yuan_column
from billing.models import Order, Refund, UsageRecord
from billing.models.recharge import FEN
from billing.newcomers import PeopleImporter
from billing.yuan import parse_yuan, show_yuan
from tenants.admin.people import EndUserAdmin
from tenants.adminsite import TenantModelAdmin, register, tenant_site
from tenants.errors import ProductError
from tenants.filters import DaysFilter, OtherDaysFilter
from tenants.import_pages import ImportsRows
from tenants.models import EndUser, Membership, StaffUser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.utils.functional import _StrOrPromise

Role = Membership.Role

logger = structlog.get_logger(__name__)

ViewT = TypeVar("ViewT", bound=Callable[..., HttpResponse])

# unfold's decorator of a page's buttons, which has no usable types.
button = cast("Callable[..., Callable[[ViewT], ViewT]]", action)

# Who may give money away.
_TREASURERS = frozenset({Role.OWNER, Role.FINANCE})


class _MoneyForm(forms.Form):
    """An amount in yuan and a reason. `number` makes sending the form twice do it once."""

    least: ClassVar[int] = 1

    yuan = forms.CharField(
        label=_("yuan"), max_length=16, widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
    )
    reason = forms.CharField(label=_("reason"), max_length=80, widget=UnfoldAdminTextInputWidget())
    number = forms.UUIDField(widget=forms.HiddenInput())

    def clean_yuan(self) -> str:
        """Refuse what is no amount; as it was typed, because it may be typed on in a hidden field."""
        text: str = self.cleaned_data["yuan"]
        try:
            amount = parse_yuan(text)
        except ValueError:
            amount = 0
        if amount < self.least or amount % self.least or amount > ledger.MAX_AMOUNT:
            raise forms.ValidationError(_("An amount such as 10 or 0.50 is wanted."))
        return text

    @property
    def amount(self) -> int:
        """Return micro-yuan."""
        return parse_yuan(self.cleaned_data["yuan"])


class RefundForm(_MoneyForm):
    """Who pays an order back."""

    least = FEN
    field_order = ("yuan", "kind", "reason", "number")

    kind = forms.ChoiceField(
        label=_("who pays it back"),
        choices=[choice for choice in Refund.Kind.choices if choice[0] != Refund.Kind.FORCED],
        widget=UnfoldAdminSelectWidget(),
        help_text=_("By hand means that you have paid it already, for example by bank; nobody is asked then."),
    )


class ChargeBackForm(_MoneyForm):
    """What a provider has taken back already."""

    least = FEN
    field_order = ("yuan", "refund_id", "reason", "number")

    refund_id = forms.CharField(
        label=_("provider's number"),
        max_length=64,
        widget=UnfoldAdminTextInputWidget(),
        help_text=_("The same number is booked once, even if the provider tells of it later."),
    )


class CreditForm(_MoneyForm):
    """What a user is given."""

    field_order = ("yuan", "kind", "reason", "number")

    kind = forms.ChoiceField(
        label=_("fills"),
        choices=[("cash", _("balance")), ("gift", _("gift balance"))],
        widget=UnfoldAdminSelectWidget(),
    )


class _Page(NamedTuple):
    """What a form's page says beside the form."""

    title: "_StrOrPromise"
    row: models.Model
    facts: "Sequence[tuple[_StrOrPromise, str]]"
    confirming: bool = False
    asks: bool = False


class _Forms(TenantModelAdmin):
    """Shows a money form for one row, and goes back to that row."""

    def _row(self, request: HttpRequest, object_id: str) -> Any:
        """Return a row that is the person's to see, or 404."""
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        return row

    def _path(self, row: models.Model) -> str:
        name = f"{self.admin_site.name}:{row._meta.app_label}_{row._meta.model_name}_change"
        return reverse(name, args=[row.pk])

    def show_form(
        self, request: HttpRequest, form: forms.Form, title: "_StrOrPromise", row: models.Model
    ) -> TemplateResponse:
        """Show a form that asks for no money."""
        return self._show(request, form, _Page(title, row, []))

    def _show(self, request: HttpRequest, form: forms.Form, page: _Page) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "form": form,
            "back": self._path(page.row),
            **page._asdict(),
        }
        return TemplateResponse(request, "admin/billing/money_form.html", context)

    def _done(self, request: HttpRequest, row: models.Model, said: str) -> HttpResponse:
        """Keep what was done in the row's history, say it, and go back."""
        self.log_change(request, row, said)
        self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(self._path(row))


class RefundingAdmin(MoneyAdmin, _Forms):  # type: ignore[misc]  # unfold's mix-ins
    """The refunds of an order, from its page."""

    actions_detail: Any = ("refund", "charge_back")

    def has_refund_permission(self, request: HttpRequest, _object_id: object = None) -> bool:
        """Let in who may give money away."""
        return self._admits(request, _TREASURERS)

    @admin.display(description=_("refunded"))
    def refunded(self, row: Order) -> str:
        """Show what went back, or is on its way."""
        rows = [found for found in row.refunds.all() if found.state != Refund.State.FAILED]
        return f"¥{show_yuan(sum(found.amount for found in rows))}"

    @button(description=_("Refund"), url_path="refund", permissions=["refund"])
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refund a part or all of an order: through the provider, or paid by hand."""
        return self._refund(request, self._row(request, object_id), RefundForm, _("Refund"))

    @button(description=_("Book a charge-back"), url_path="charge-back", permissions=["refund"])
    def charge_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Book what the provider has taken back, or was refunded at the provider's."""
        return self._refund(request, self._row(request, object_id), ChargeBackForm, _("Book a charge-back"))

    def _refund(
        self, request: HttpRequest, order: Order, form_class: type[_MoneyForm], title: "_StrOrPromise"
    ) -> HttpResponse:
        """Ask, show what the user gives back, and do it once that is confirmed."""
        is_forced = form_class is ChargeBackForm
        what = refund.refundable(order)
        first = what.left.money if is_forced else what.largest
        form = form_class(request.POST or None, initial={"yuan": show_yuan(first), "number": uuid7()})
        facts = [
            (_("paid"), f"¥{show_yuan(order.price)}"),
            (_("not refunded yet"), f"¥{show_yuan(what.left.money)}"),
            (_("the user's balance covers"), f"¥{show_yuan(what.largest)}"),
        ]
        confirming = form.is_valid() and form.amount <= what.left.money
        if confirming:
            taken = what.give_back(form.amount, forced=is_forced)
            facts = [
                (_("goes back to the payer"), f"¥{show_yuan(form.amount)}"),
                (_("off the user's balance"), f"¥{show_yuan(taken.cash)}"),
                (_("off the user's gift balance"), f"¥{show_yuan(taken.gift)}"),
                (_("spent already"), f"¥{show_yuan(taken.shortfall)}"),
            ]
        if form.is_valid() and ("confirmed" in request.POST or not confirming):
            try:
                return self._refunded(request, order, form, is_forced=is_forced)
            except ProductError as refusal:
                form.add_error(None, str(refusal.msg))
            except ledger.RefConflictError:
                form.add_error(None, _("This form was sent before with another amount."))
            confirming = False
        return self._show(request, form, _Page(title, order, facts, confirming=confirming, asks=True))

    def _refunded(self, request: HttpRequest, order: Order, form: _MoneyForm, *, is_forced: bool) -> HttpResponse:
        asked = form.cleaned_data
        made = refund.request_refund(
            tenant_id=order.tenant_id,
            order_id=order.pk,
            amount=form.amount,
            kind="forced" if is_forced else asked["kind"],
            reason=asked["reason"],
            actor=request.user.get_username(),
            refund_id=asked.get("refund_id", ""),
            number=asked["number"],
        )
        logger.info("refund_requested", staff=request.user.pk, tenant_id=order.tenant_id, refund=str(made.pk))
        facts = {"yuan": show_yuan(made.amount), "state": made.get_state_display(), "reason": made.reason}
        return self._done(request, order, gettext("Refund of ¥%(yuan)s: %(state)s. Reason: %(reason)s") % facts)


class RefundAdmin(MoneyAdmin):
    """Refunds, to look at; they are made from their order's page."""

    visible_to: ClassVar[frozenset[str]] = CostAdmin.visible_to
    list_display = (
        "out_refund_no",
        "created_at",
        "order_number",
        "kind",
        yuan_column("amount", _("amount")),
        yuan_column("shortfall", _("spent before")),
        "state",
        "failure",
        "requested_by",
    )
    list_filter = ("state", "kind")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "order")
    search_fields = ("out_refund_no", "refund_id", "order__out_trade_no")
    ordering = ("-created_at",)

    @admin.display(description=_("order number"), ordering="order__out_trade_no")
    def order_number(self, row: Refund) -> str:
        """Show which order is refunded."""
        return row.order.out_trade_no


class ActiveFilter(OtherDaysFilter):
    """Keeps users who had an answer from one day to another."""

    title = _("days with an answer")
    parameter_name = "active"

    def between(self, rows: QuerySet[Any], first: date, last: date) -> QuerySet[Any]:
        """Keep those with usage recorded on such a day."""
        used = UsageRecord.objects.filter(tenant=OuterRef("tenant"), user=OuterRef("pk"), day__range=(first, last))
        return rows.filter(Exists(used))


class CreditedUserAdmin(ImportsRows, _Forms, EndUserAdmin):  # type: ignore[misc]  # as above
    """Users, who may be given balance from their page."""

    list_filter: ClassVar[Any] = (*EndUserAdmin.list_filter, ("created_at", DaysFilter), ActiveFilter)
    list_filter_submit = True
    actions_detail: Any = ("credit",)
    importer = PeopleImporter()

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Let in who may give money away: a file may bring gifts."""
        return not self._on_platform and self._admits(request, _TREASURERS)

    def has_credit_permission(self, request: HttpRequest, _object_id: object = None) -> bool:
        """Let in who may give money away."""
        return self._admits(request, _TREASURERS)

    @button(description=_("Credit"), url_path="credit", permissions=["credit"])
    def credit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give a user balance or gift balance, with a reason; sending the form twice gives it once."""
        user: EndUser = self._row(request, object_id)
        form = CreditForm(request.POST or None, initial={"number": uuid7()})
        if form.is_valid():
            try:
                return self._credited(request, user, form)
            except ProductError as refusal:
                form.add_error(None, str(refusal.msg))
            except ledger.RefConflictError:
                form.add_error(None, _("This form was sent before with another amount."))
        has = ledger.balances(tenant_id=user.tenant_id, user_id=user.pk)
        facts = [(_("balance"), f"¥{show_yuan(has.cash)}"), (_("gift balance"), f"¥{show_yuan(has.gift)}")]
        return self._show(request, form, _Page(_("Credit"), user, facts))

    def _credited(self, request: HttpRequest, user: EndUser, form: CreditForm) -> HttpResponse:
        asked = form.cleaned_data
        by_hand.credit_by_hand(
            user=user,
            amount=form.amount,
            kind=asked["kind"],
            number=asked["number"],
            reason=asked["reason"],
            staff=cast("StaffUser", request.user),
        )
        facts = {"yuan": show_yuan(form.amount), "reason": asked["reason"]}
        return self._done(request, user, gettext("¥%(yuan)s credited. Reason: %(reason)s") % facts)


register(Refund, RefundAdmin)
# Users are of tenants' room, which knows no money: here they get the button that gives them some.
admin.site.unregister(EndUser)
tenant_site.unregister(EndUser)
register(EndUser, CreditedUserAdmin)
