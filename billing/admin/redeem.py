"""Redeem codes in the admin: owners and finance make, export and revoke them; support sees what became of one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from django import forms
from django.contrib import admin, messages
from django.contrib.admin import EmptyFieldListFilter
from django.db import models
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from billing import codes, redeem
from billing.batches import BatchImporter
from billing.models import RedeemBatch, RedeemCode
from billing.models.redeem import MAX_CODE_AMOUNT
from billing.yuan import parse_yuan, show_yuan
from tenants.adminsite import ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.import_pages import ImportsRows
from tenants.models import Domain, Membership
from tenants.sheets import csv_response

if TYPE_CHECKING:
    _BatchForm = forms.ModelForm[RedeemBatch]
else:
    _BatchForm = forms.ModelForm  # cannot be subscripted at run time

Role = Membership.Role

logger = structlog.get_logger(__name__)

# Who makes codes makes money.
_TREASURERS = frozenset({Role.OWNER, Role.FINANCE})


class RedeemBatchForm(_BatchForm):
    """Takes the amount in yuan, as people write it."""

    yuan = forms.CharField(
        label=_("yuan on each code"), max_length=16, widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
    )

    class Meta:
        model = RedeemBatch
        fields: ClassVar[list[str]] = ["tenant", "name", "kind", "count", "expires_at", "per_user_limit"]

    def clean_yuan(self) -> int:
        """Return micro-yuan."""
        try:
            amount = parse_yuan(self.cleaned_data["yuan"])
        except ValueError:
            amount = 0
        if not 1 <= amount <= MAX_CODE_AMOUNT:
            limit = show_yuan(MAX_CODE_AMOUNT)
            raise forms.ValidationError(
                _("An amount such as 10 or 0.50 is wanted, at most %(limit)s.") % {"limit": limit}
            )
        return amount

    def clean_expires_at(self) -> Any:
        """Refuse a moment that has passed: nobody could redeem such a code."""
        moment = self.cleaned_data["expires_at"]
        if moment is not None and moment <= timezone.now():
            raise forms.ValidationError(_("This moment has passed."))
        return moment


class RedeemBatchAdmin(ImportsRows, TenantModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """Batches: made here with their codes, exported, revoked, and never changed."""

    importer = BatchImporter()
    form = RedeemBatchForm
    visible_to = editable_by = _TREASURERS
    list_display = (
        "id",
        "created_at",
        "name",
        "worth",
        "kind",
        "count",
        "redeemed",
        "expires_at",
        "revoked_at",
        "created_by",
    )
    list_filter = ("kind", ("revoked_at", EmptyFieldListFilter))
    search_fields = ("name", "created_by")
    ordering = ("-id",)
    actions = ("export_codes", "revoke")
    readonly_fields = ("worth", "redeemed", "created_by", "created_at", "revoked_at")
    show_full_result_count = False

    def get_fields(self, request: HttpRequest, obj: RedeemBatch | None = None) -> Any:
        """Ask for yuan where a batch is made, and show what became of one that is."""
        tenant = ("tenant",) if self._on_platform else ()
        if obj is None:
            return (*tenant, "name", "yuan", "kind", "count", "expires_at", "per_user_limit")
        shown = ("name", "worth", "kind", "count", "redeemed", "expires_at", "per_user_limit")
        return (*tenant, *shown, "created_by", "created_at", "revoked_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RedeemBatch]:
        """Count each batch's redeemed codes."""
        rows: QuerySet[RedeemBatch] = super().get_queryset(request)
        return rows.annotate(redeemed_count=Count("codes__redeemed_at"))

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: the codes are out already."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: a batch is revoked."""
        return False

    @admin.display(description=_("each"), ordering="amount")
    def worth(self, row: RedeemBatch) -> str:
        """Show what a code of the batch is worth."""
        return f"¥{show_yuan(row.amount)}"

    @admin.display(description=_("of them redeemed"))
    def redeemed(self, row: RedeemBatch) -> int:
        """Say how many codes were redeemed."""
        return row.redeemed_count  # type: ignore[attr-defined,no-any-return]  # get_queryset's

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Make the codes with their batch."""
        made = redeem.create_batch(
            tenant_id=obj.tenant_id,
            name=obj.name,
            amount=form.cleaned_data["yuan"],
            kind="gift" if obj.kind == RedeemBatch.Kind.GIFT else "cash",
            count=obj.count,
            expires_at=obj.expires_at,
            per_user_limit=obj.per_user_limit,
            created_by=request.user.get_username(),
        )
        obj.pk = made.pk
        _log("redeem_codes_made", request, made)

    @admin.action(description=_("Export the codes as CSV"), permissions=["add"])
    def export_codes(self, request: HttpRequest, batches: QuerySet[RedeemBatch]) -> HttpResponse:
        """Answer with every code of the batches in clear, and keep who had them."""
        chosen = list(batches)
        for batch in chosen:
            self.log_change(request, batch, str(_("The codes were exported.")))
            _log("redeem_codes_exported", request, batch)
        names = "-".join(str(batch.pk) for batch in chosen)
        return csv_response(
            name=f"redeem-codes-{names}",
            head=(_("batch"), _("code"), _("link"), _("yuan"), _("state")),
            rows=[line for batch in chosen for line in self._lines(request, batch)],
        )

    def _lines(self, request: HttpRequest, batch: RedeemBatch) -> Iterable[tuple[int, str, str, str, str]]:
        """Yield a batch's lines."""
        # The tenant's own address, which the operator's site does not stand at.
        host = request.get_host()
        if self._on_platform:
            domain = Domain.objects.filter(tenant_id=batch.tenant_id).order_by("id").first()
            host = domain.host if domain else ""
        for code in batch.codes.order_by("pk"):
            path = reverse("redeem_link", args=[code.written])
            link = f"{request.scheme}://{host}{path}" if host else ""
            yield batch.pk, code.written, link, show_yuan(batch.amount), _state(code)

    @admin.action(description=_("Revoke what nobody has redeemed"), permissions=["add"])
    def revoke(self, request: HttpRequest, batches: QuerySet[RedeemBatch]) -> None:
        """End the batches' open codes."""
        ended = 0
        for batch in batches:
            ended += redeem.revoke_batch(tenant_id=batch.tenant_id, batch_id=batch.pk)
            self.log_change(request, batch, str(_("The batch was revoked.")))
            _log("redeem_batch_revoked", request, batch)
        self.message_user(request, _("Codes revoked: %(count)d.") % {"count": ended}, messages.SUCCESS)


class RedeemCodeAdmin(ReadOnlyTenantModelAdmin):
    """Codes by their last four characters: what became of each. A whole code is found by typing it into the search."""

    visible_to = _TREASURERS | {Role.SUPPORT}
    editable_by = _TREASURERS
    list_display = ("id", "ending", "batch_name", "state", "redeemed_by", "redeemed_at", "revoked_at")
    list_filter = (("redeemed_at", EmptyFieldListFilter), ("revoked_at", EmptyFieldListFilter))
    list_select_related = ("tenant", "batch", "redeemed_by")
    search_fields = ("batch__name", "redeemed_by__username")
    search_help_text = _("A whole code, the name of a batch, or a user name.")
    ordering = ("-id",)
    fields = ("ending", "batch_name", "state", "redeemed_by", "redeemed_at", "revoked_at")
    actions = ("revoke",)
    show_full_result_count = False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Let in who may make codes."""
        return self.may_edit(request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[RedeemCode], search_term: str
    ) -> tuple[QuerySet[RedeemCode], bool]:
        """Find a code by the whole of it, as its buyer has it in hand."""
        code = codes.normal(search_term)
        if code:
            return queryset.filter(digest__in=codes.digests_of(code)), False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description=_("ends with"))
    def ending(self, row: RedeemCode) -> str:
        """Show what tells the code apart."""
        return row.ending

    @admin.display(description=_("batch"), ordering="batch__name")
    def batch_name(self, row: RedeemCode) -> str:
        """Name the batch."""
        return row.batch.name

    @admin.display(description=_("state"))
    def state(self, row: RedeemCode) -> str:
        """Say what became of the code."""
        return _state(row)

    @admin.action(description=_("Revoke what nobody has redeemed"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, rows: QuerySet[RedeemCode]) -> None:
        """End codes one by one."""
        ended = [row for row in rows if redeem.revoke_code(tenant_id=row.tenant_id, code_id=row.pk)]
        for row in ended:
            self.log_change(request, row, str(_("The code was revoked.")))
            _log("redeem_code_revoked", request, row)
        self.message_user(request, _("Codes revoked: %(count)d.") % {"count": len(ended)}, messages.SUCCESS)


def _state(code: RedeemCode) -> str:
    if code.redeemed_at is not None:
        return str(_("redeemed"))
    if code.revoked_at is not None:
        return str(_("withdrawn"))
    expires_at = code.batch.expires_at
    return str(_("expired") if expires_at is not None and expires_at <= timezone.now() else _("open"))


def _log(event: str, request: HttpRequest, row: RedeemBatch | RedeemCode) -> None:
    """Write who did what: the admin's own history can be lost with the database, the log goes elsewhere."""
    logger.info(event, staff=request.user.pk, tenant_id=row.tenant_id, row=row.pk)


register(RedeemBatch, RedeemBatchAdmin)
register(RedeemCode, RedeemCodeAdmin)
