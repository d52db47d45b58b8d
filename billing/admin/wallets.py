"""The wallets on both sites: owners and finance say what they sent and when to be told; the operator decides."""

from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from django import forms
from django.contrib import admin
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from billing import wallet
from billing.admin.books import MoneyAdmin, ShowsYuan, yuan_column
from billing.admin.fields import YuanField
from billing.admin.resale import ReasonActionForm, act_on_each, reason_of
from billing.models import WalletNotice, WalletTopUp
from billing.yuan import show_money, show_yuan
from tenants.adminsite import TenantModelAdmin, register
from tenants.models import Membership

if TYPE_CHECKING:
    _TopUpForm = forms.ModelForm[WalletTopUp]
    _NoticeForm = forms.ModelForm[WalletNotice]
else:
    _TopUpForm = _NoticeForm = forms.ModelForm  # cannot be subscripted at run time

Role = Membership.Role

logger = structlog.get_logger(__name__)

_TREASURERS = frozenset({Role.OWNER, Role.FINANCE})


def _one_owner(form: forms.BaseForm) -> None:
    """Refuse a wallet of nobody, or of two, where the form asks whose it is."""
    if "tenant" in form.fields and "reseller" in form.fields:
        given = form.cleaned_data
        if bool(given.get("tenant")) == bool(given.get("reseller")):
            raise forms.ValidationError(_("Name a tenant or a reseller: a wallet is of one of them."))


class WalletTopUpForm(_TopUpForm):
    """Takes the amount in yuan."""

    yuan = YuanField(label=_("yuan that were sent"))

    class Meta:
        model = WalletTopUp
        fields: ClassVar[list[str]] = ["tenant", "reseller", "bank_reference"]

    def clean(self) -> dict[str, Any]:
        """See that it is one wallet."""
        _one_owner(self)
        return self.cleaned_data


class WalletTopUpAdmin(ShowsYuan, TenantModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """Top-up requests: made on both sites, decided on the operator's by someone else."""

    form = WalletTopUpForm
    visible_to = editable_by = _TREASURERS
    list_display = (
        "id",
        "created_at",
        yuan_column("amount", _("amount")),
        "bank_reference",
        "state",
        "requested_by",
        "decided_at",
        "note",
    )
    list_filter = ("state",)
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "reseller", "requested_by")
    search_fields = ("bank_reference",)
    ordering = ("-id",)
    action_form = ReasonActionForm
    actions = ("confirm", "reject")
    show_full_result_count = False

    def get_list_display(self, request: HttpRequest) -> Any:
        """Add the reseller on the operator's site."""
        columns = super().get_list_display(request)
        return (*columns, "reseller") if self._on_platform else columns

    def get_fields(self, request: HttpRequest, obj: WalletTopUp | None = None) -> Any:
        """Ask for yuan where a request is made, and show what became of one that is."""
        owner = ("tenant", "reseller") if self._on_platform else ()
        if obj is None:
            return (*owner, "yuan", "bank_reference")
        decided = ("decided_by",) if self._on_platform else ()
        return (*owner, "amount", "bank_reference", "state", "requested_by", *decided, "decided_at", "note")

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: what was said was said."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse, as above."""
        return False

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Let the operator decide."""
        return self._on_platform and self.may_edit(request)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """File the request."""
        filed = wallet.request_topup(
            tenant_id=obj.tenant_id,
            reseller_id=obj.reseller_id,
            amount=form.cleaned_data["yuan"],
            bank_reference=obj.bank_reference,
            requested_by_id=int(request.user.pk or 0),
        )
        obj.pk = filed.pk

    @admin.action(description=_("Confirm: the money is there"), permissions=["decide"])
    def confirm(self, request: HttpRequest, rows: QuerySet[WalletTopUp]) -> None:
        """Fill the wallets."""
        staff_id, note = int(request.user.pk or 0), reason_of(request)
        act_on_each(
            self,
            request,
            rows,
            lambda row: wallet.confirm_topup(topup_id=row.pk, decided_by_id=staff_id, note=note),
            _("The top-up was confirmed."),
        )

    @admin.action(description=_("Reject (with a reason)"), permissions=["decide"])
    def reject(self, request: HttpRequest, rows: QuerySet[WalletTopUp]) -> None:
        """Leave the wallets as they are."""
        staff_id, note = int(request.user.pk or 0), reason_of(request)
        act_on_each(
            self,
            request,
            rows,
            lambda row: wallet.reject_topup(topup_id=row.pk, decided_by_id=staff_id, note=note),
            _("The top-up was rejected."),
        )


class WalletNoticeForm(_NoticeForm):
    """Takes the threshold in yuan."""

    yuan = YuanField(label=_("tell below, yuan"))

    class Meta:
        model = WalletNotice
        fields: ClassVar[list[str]] = ["tenant", "reseller"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["yuan"] = show_yuan(self.instance.threshold)

    def clean(self) -> dict[str, Any]:
        """See that it is one wallet."""
        _one_owner(self)
        return self.cleaned_data


class WalletNoticeAdmin(TenantModelAdmin):
    """What each wallet has, and below which balance its people are told."""

    form = WalletNoticeForm
    visible_to = MoneyAdmin.visible_to
    editable_by = _TREASURERS
    list_display = ("id", "balance", yuan_column("threshold", _("told below")), "is_low", "notified_at")
    list_select_related: ClassVar[tuple[str, ...]] = ("tenant", "reseller")
    ordering = ("id",)

    def get_list_display(self, request: HttpRequest) -> Any:
        """Add the reseller on the operator's site."""
        columns = super().get_list_display(request)
        return (*columns, "reseller") if self._on_platform else columns

    def get_fields(self, request: HttpRequest, obj: WalletNotice | None = None) -> Any:
        """Ask whose wallet it is on the operator's site."""
        return (*(("tenant", "reseller") if self._on_platform else ()), "yuan")

    def get_readonly_fields(self, request: HttpRequest, obj: WalletNotice | None = None) -> Any:
        """Keep whose wallet it is."""
        return ("tenant", "reseller") if obj and self._on_platform else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Read each wallet's balance with the rows."""
        return wallet.with_balance(super().get_queryset(request))

    @admin.display(description=_("in the wallet"), ordering="balance")
    def balance(self, row: Any) -> str:
        """Show what the wallet has now."""
        return show_money(row.balance)

    @admin.display(description=_("low"), boolean=True)
    def is_low(self, row: Any) -> bool:
        """Say whether that is too little."""
        return bool(row.balance < row.threshold)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Set the threshold."""
        kept = wallet.set_threshold(
            tenant_id=obj.tenant_id, reseller_id=obj.reseller_id, threshold=form.cleaned_data["yuan"]
        )
        obj.pk = kept.pk
        logger.info("wallet_threshold_set", staff=request.user.pk, row=kept.pk)


register(WalletTopUp, WalletTopUpAdmin)
register(WalletNotice, WalletNoticeAdmin)
