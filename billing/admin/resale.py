"""Resale in the operator's admin: terms, commissions, withdrawals and payouts. No tenant's site shows any of it."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from django import forms
from django.contrib import admin, messages
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from unfold.forms import ActionForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from billing import commission, withdrawal
from billing.admin.books import ShowsYuan, yuan_column
from billing.admin.fields import YuanField
from billing.commission_terms import publish_terms
from billing.models import Commission, CommissionBack, CommissionTerms, PayoutBatch, Withdrawal
from billing.models.resale import MAX_FREEZE_DAYS, WHOLE_PPM
from billing.yuan import MICRO, parse_yuan, show_yuan
from tenants.adminsite import OperatorModelAdmin, ReadOnlyOperatorModelAdmin, ReadOnlyTenantModelAdmin
from tenants.errors import ProductError
from tenants.sheets import csv_response

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    _TermsForm = forms.ModelForm[CommissionTerms]
    _WithdrawalForm = forms.ModelForm[Withdrawal]
else:
    _TermsForm = _WithdrawalForm = forms.ModelForm  # cannot be subscripted at run time

logger = structlog.get_logger(__name__)

_PER_PERCENT = WHOLE_PPM // 100


class ReasonActionForm(ActionForm):
    """Asks beside the action for why, or for the bank's word."""

    reason = forms.CharField(
        label="",
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": _("reason"), "aria-label": _("reason")}),
    )


def reason_of(request: HttpRequest) -> str:
    """Return what was typed beside the action."""
    return str(request.POST.get("reason", "")).strip()


def wanted_reason(model_admin: OperatorModelAdmin, request: HttpRequest) -> str:
    """Return what was typed beside the action, and say so where it is nothing."""
    reason = reason_of(request)
    if not reason:
        model_admin.message_user(request, _("A reason is wanted."), messages.ERROR)
    return reason


def act_on_each(
    model_admin: OperatorModelAdmin,
    request: HttpRequest,
    rows: Iterable[Any],
    act: Callable[[Any], bool],
    said: "_StrOrPromise",
) -> None:
    """Act on each row, keep in its history and in the log who did, and say how many it was and what was refused."""
    done = 0
    for row in rows:
        try:
            changed = act(row)
        except ProductError as refused:
            model_admin.message_user(request, f"{row}: {refused.msg}", messages.ERROR)
            continue
        if changed:
            done += 1
            model_admin.log_change(request, row, str(said))
            logger.info("staff_acted", staff=request.user.pk, model=row._meta.label, row=str(row.pk), what=str(said))
    text = _("%(what)s Rows: %(count)d.") % {"what": said, "count": done}
    model_admin.message_user(request, text, messages.SUCCESS if done else messages.WARNING)


def percent_column(field: str, label: "_StrOrPromise") -> Callable[[models.Model], str]:
    """Make a column that shows millionths as percent."""

    @admin.display(description=label, ordering=field)
    def column(row: models.Model) -> str:
        return f"{show_yuan(getattr(row, field) * (MICRO // _PER_PERCENT))} %"

    return column


class PercentField(forms.CharField):
    """Takes a percentage with at most four decimals; gives millionths."""

    widget = UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})

    def clean(self, value: Any) -> int:
        """Return millionths."""
        try:
            ppm, rest = divmod(parse_yuan(super().clean(value)), MICRO // _PER_PERCENT)
        except ValueError:
            ppm, rest = -1, 0
        if rest or not 0 <= ppm <= WHOLE_PPM:
            raise forms.ValidationError(_("A percentage such as 10 or 2.5 is wanted, with at most four decimals."))
        return ppm


class CommissionTermsForm(_TermsForm):
    """Takes shares in percent and the smallest withdrawal in yuan, as people write them."""

    own = PercentField(label=_("percent of its own tenants' wholesale"), initial="10")
    parent = PercentField(label=_("percent of its children's tenants' wholesale"), initial="0")
    smallest = YuanField(label=_("smallest withdrawal, yuan"), initial="100")
    fee = PercentField(label=_("percent of a withdrawal as fee"), initial="0")
    freeze_days = forms.IntegerField(
        label=_("days that a commission is frozen"),
        initial=7,
        validators=[MinValueValidator(0), MaxValueValidator(MAX_FREEZE_DAYS)],
        widget=UnfoldAdminIntegerFieldWidget,
    )

    class Meta:
        model = CommissionTerms
        fields: ClassVar[list[str]] = ["reseller", "freeze_days"]

    actor = ""

    def clean_fee(self) -> int:
        """Refuse a fee that leaves nothing."""
        fee: int = self.cleaned_data["fee"]
        if fee >= WHOLE_PPM:
            raise forms.ValidationError(_("The fee would take all of it."))
        return fee

    def clean(self) -> dict[str, Any]:
        """Publish the terms, within the view's transaction: only then is it known whether they fit."""
        given = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                published = publish_terms(
                    reseller_id=given["reseller"].pk,
                    own_ppm=given["own"],
                    parent_ppm=given["parent"],
                    freeze_days=given["freeze_days"],
                    min_withdrawal=given["smallest"],
                    withdrawal_fee_ppm=given["fee"],
                    actor=self.actor,
                )
            except ProductError as refused:
                raise forms.ValidationError(str(refused.msg)) from None
            self.instance.pk = published.pk
        return given


@admin.register(CommissionTerms)
class CommissionTermsAdmin(ShowsYuan, OperatorModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """What resellers get: a new version is added, and none is changed."""

    form = CommissionTermsForm
    list_display = (
        "id",
        "reseller",
        "effective_at",
        percent_column("own_ppm", _("of its own tenants")),
        percent_column("parent_ppm", _("of its children's tenants")),
        "freeze_days",
        yuan_column("min_withdrawal", _("smallest withdrawal")),
        percent_column("withdrawal_fee_ppm", _("fee")),
        "created_by",
    )
    list_filter = ("reseller",)
    list_select_related = ("reseller",)
    ordering = ("reseller", "-effective_at", "-id")

    def get_fields(self, request: HttpRequest, obj: CommissionTerms | None = None) -> Any:
        """Ask for percent and yuan where terms are made, and show what was agreed of those that are."""
        if obj is None:
            return ("reseller", "own", "parent", "freeze_days", "smallest", "fee")
        agreed = ("own_ppm", "parent_ppm", "freeze_days", "min_withdrawal", "withdrawal_fee_ppm")
        return ("reseller", *agreed, "effective_at", "created_at", "created_by")

    def get_form(self, request: HttpRequest, obj: Any = None, change: Any = False, **kwargs: Any) -> Any:  # noqa: FBT002
        """Tell the form who agrees."""
        made = super().get_form(request, obj, change=change, **kwargs)
        return type(made.__name__, (made,), {"actor": request.user.get_username()})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Write who published: the form did."""
        logger.info("commission_terms_published", staff=request.user.pk, row=obj.pk)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: agreed is agreed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse, as above."""
        return False


@admin.register(Commission)
class CommissionAdmin(ShowsYuan, ReadOnlyTenantModelAdmin):  # type: ignore[misc]  # as above
    """Commissions; the operator may hold a frozen one back."""

    list_display = (
        "id",
        "day",
        "reseller",
        "level",
        yuan_column("amount", _("amount")),
        yuan_column("netted", _("netted")),
        yuan_column("taken_back", _("taken back")),
        "state",
        "release_at",
    )
    list_filter = ("state", "level", "reseller")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "reseller")
    ordering = ("-day", "-id")
    action_form = ReasonActionForm
    actions = ("hold_back", "let_go")
    show_full_result_count = False

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Let the operator decide."""
        return self.may_edit(request)

    @admin.action(description=_("Hold back (with a reason)"), permissions=["decide"])
    def hold_back(self, request: HttpRequest, rows: QuerySet[Commission]) -> None:
        """Dispute frozen commissions."""
        if not (reason := wanted_reason(self, request)):
            return
        actor = request.user.get_username()
        act_on_each(
            self,
            request,
            rows,
            lambda row: commission.hold_back(commission_id=row.pk, reason=reason, actor=actor),
            _("The commission was held back."),
        )

    @admin.action(description=_("Hold back no longer"), permissions=["decide"])
    def let_go(self, request: HttpRequest, rows: QuerySet[Commission]) -> None:
        """End disputes."""
        actor = request.user.get_username()
        act_on_each(
            self,
            request,
            rows,
            lambda row: commission.let_go(commission_id=row.pk, actor=actor),
            _("The commission is held back no longer."),
        )


@admin.register(CommissionBack)
class CommissionBackAdmin(ShowsYuan, ReadOnlyTenantModelAdmin):  # type: ignore[misc]  # as above
    """What refunds took back of commissions."""

    list_display = ("id", "created_at", "reseller", "ref", yuan_column("amount", _("amount")), "reason", "posted_at")
    list_filter = ("reseller",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "reseller")
    search_fields = ("ref",)
    ordering = ("-id",)
    show_full_result_count = False


class WithdrawalForm(_WithdrawalForm):
    """Takes what a reseller wants paid out, in yuan, from who in the operator's house was asked for it."""

    yuan = YuanField(label=_("amount, yuan"))

    class Meta:
        model = Withdrawal
        fields: ClassVar[list[str]] = ["reseller", "payee", "bank", "bank_account"]
        # Encrypted columns are long ones; what is typed is a line.
        widgets: ClassVar[dict[str, type[forms.Widget]]] = dict.fromkeys(
            ["payee", "bank", "bank_account"], UnfoldAdminTextInputWidget
        )

    maker_id = 0

    def clean(self) -> dict[str, Any]:
        """Ask, within the view's transaction: only then is it known whether the balance covers it."""
        given = super().clean() or self.cleaned_data
        if not self.errors:
            account = {name: given[name] for name in ("payee", "bank", "bank_account")}
            try:
                asked = withdrawal.request(
                    reseller_id=given["reseller"].pk, amount=given["yuan"], maker_id=self.maker_id, **account
                )
            except ProductError as refused:
                raise forms.ValidationError(str(refused.msg)) from None
            self.instance.pk = asked.pk
        return given


@admin.register(Withdrawal)
class WithdrawalAdmin(ShowsYuan, OperatorModelAdmin):  # type: ignore[misc]  # as above
    """Withdrawals: asked for in a reseller's name, decided by someone else, batched, and ended as the bank did."""

    form = WithdrawalForm

    list_display = (
        "id",
        "created_at",
        "reseller",
        yuan_column("amount", _("amount")),
        yuan_column("fee", _("fee")),
        "state",
        "maker",
        "checker",
        "batch",
        "ended_at",
    )
    list_filter = ("state", "reseller")
    list_select_related = ("reseller", "maker", "checker", "batch")
    ordering = ("-created_at",)
    action_form = ReasonActionForm
    actions = ("approve", "reject", "put_in_batch", "mark_paid", "mark_failed")
    show_full_result_count = False

    def get_fields(self, request: HttpRequest, obj: Withdrawal | None = None) -> Any:
        """Ask for yuan and the whole account where one is asked for, and show what became of one that was."""
        if obj is None:
            return ("reseller", "yuan", "payee", "bank", "bank_account")
        asked = ("reseller", "amount", "fee", "payee", "bank", "ending")
        return (*asked, "state", "maker", "checker", "batch", "note", "created_at", "decided_at", "ended_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Withdrawal | None = None) -> Any:
        """Show the account's end, which is no column."""
        return ("ending",) if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: Any = False, **kwargs: Any) -> Any:  # noqa: FBT002
        """Tell the form who asks."""
        made = super().get_form(request, obj, change=change, **kwargs)
        return type(made.__name__, (made,), {"maker_id": _staff_id(request)})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save nothing: the form asked, and the log has it."""

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: what was asked was asked."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse, as above."""
        return False

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Let the operator decide."""
        return self.has_view_permission(request)

    @admin.display(description=_("account number"))
    def ending(self, row: Withdrawal) -> str:
        """Show what tells the account apart; the whole of it is in the bank's file."""
        return f"…{row.bank_account[-4:]}"

    @admin.action(description=_("Approve"), permissions=["decide"])
    def approve(self, request: HttpRequest, rows: QuerySet[Withdrawal]) -> None:
        """Decide that they will be paid."""
        checker_id = _staff_id(request)
        act_on_each(
            self,
            request,
            rows,
            lambda row: withdrawal.approve(withdrawal_id=row.pk, checker_id=checker_id),
            _("The withdrawal was approved."),
        )

    @admin.action(description=_("Reject (with a reason)"), permissions=["decide"])
    def reject(self, request: HttpRequest, rows: QuerySet[Withdrawal]) -> None:
        """Decide that they will not be paid."""
        if not (reason := wanted_reason(self, request)):
            return
        checker_id = _staff_id(request)
        act_on_each(
            self,
            request,
            rows,
            lambda row: withdrawal.reject(withdrawal_id=row.pk, checker_id=checker_id, reason=reason),
            _("The withdrawal was rejected."),
        )

    @admin.action(description=_("Put those approved into a payout batch"), permissions=["decide"])
    def put_in_batch(self, request: HttpRequest, rows: QuerySet[Withdrawal]) -> None:
        """Make a batch of them."""
        chosen = [row.pk for row in rows]
        batch = withdrawal.make_batch(withdrawal_ids=chosen, actor=request.user.get_username())
        if batch is None:
            self.message_user(request, _("None of them is approved and free."), messages.WARNING)
            return
        self.log_addition(request, batch, str(_("The batch was made.")))
        self.message_user(request, _("Payout batch %(batch)d was made.") % {"batch": batch.pk}, messages.SUCCESS)

    @admin.action(description=_("Paid by the bank"), permissions=["decide"])
    def mark_paid(self, request: HttpRequest, rows: QuerySet[Withdrawal]) -> None:
        """End them as paid."""
        actor, note = request.user.get_username(), reason_of(request)
        act_on_each(
            self,
            request,
            rows,
            lambda row: withdrawal.paid(withdrawal_id=row.pk, actor=actor, note=note),
            _("The withdrawal was paid."),
        )

    @admin.action(description=_("Not paid by the bank (with a reason)"), permissions=["decide"])
    def mark_failed(self, request: HttpRequest, rows: QuerySet[Withdrawal]) -> None:
        """End them as failed."""
        if not (reason := wanted_reason(self, request)):
            return
        actor = request.user.get_username()
        act_on_each(
            self,
            request,
            rows,
            lambda row: withdrawal.failed(withdrawal_id=row.pk, reason=reason, actor=actor),
            _("The withdrawal failed, and its amount was returned."),
        )


@admin.register(PayoutBatch)
class PayoutBatchAdmin(ReadOnlyOperatorModelAdmin):
    """Payout batches: their file for the bank, and that it was sent."""

    list_display = ("id", "created_at", "created_by", "count", "sent_at", "sent_by")
    ordering = ("-id",)
    actions = ("export", "mark_sent")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PayoutBatch]:
        """Count each batch's withdrawals."""
        rows: QuerySet[PayoutBatch] = super().get_queryset(request)
        return rows.annotate(withdrawal_count=Count("withdrawals"))

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Let the operator decide."""
        return self.has_view_permission(request)

    @admin.display(description=_("withdrawals"))
    def count(self, row: PayoutBatch) -> int:
        """Say how many withdrawals it pays."""
        return row.withdrawal_count  # type: ignore[attr-defined,no-any-return]  # get_queryset's

    @admin.action(description=_("Export for the bank as CSV"), permissions=["decide"])
    def export(self, request: HttpRequest, rows: QuerySet[PayoutBatch]) -> HttpResponse | None:
        """Answer with one batch's file, account numbers in clear, and keep who had it."""
        chosen = list(rows)
        if len(chosen) != 1:
            self.message_user(request, _("Choose one batch: a file is for one payment."), messages.ERROR)
            return None
        (batch,) = chosen
        self.log_change(request, batch, str(_("The batch was exported.")))
        logger.info("payout_batch_exported", staff=request.user.pk, row=batch.pk)
        return csv_response(
            name=f"payout-{batch.pk}",
            head=(_("withdrawal"), _("payee"), _("bank"), _("account number"), _("yuan")),
            rows=withdrawal.batch_rows(batch_id=batch.pk),
        )

    @admin.action(description=_("Sent to the bank"), permissions=["decide"])
    def mark_sent(self, request: HttpRequest, rows: QuerySet[PayoutBatch]) -> None:
        """Say that the files are at the bank."""
        actor = request.user.get_username()
        act_on_each(
            self,
            request,
            rows,
            lambda row: withdrawal.mark_sent(batch_id=row.pk, actor=actor),
            _("The batch was sent."),
        )


def _staff_id(request: HttpRequest) -> int:
    """Return who is logged in: admins let nobody else this far."""
    return int(request.user.pk or 0)
