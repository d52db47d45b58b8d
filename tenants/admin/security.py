"""Invitations of staff, what a tenant demands of them, and the log of what they changed."""

import json
from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from django import forms
from django.apps import apps
from django.contrib import admin, messages
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from tenants import invitations
from tenants.adminsite import ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.errors import ProductError
from tenants.models import ChangeEntry, Membership, StaffInvitation, StaffRules, StaffUser, Tenant
from tenants.sheets import csv_response

if TYPE_CHECKING:
    _InvitationForm = forms.ModelForm[StaffInvitation]
    _RulesForm = forms.ModelForm[StaffRules]
else:
    _InvitationForm = _RulesForm = forms.ModelForm  # cannot be subscripted at run time

log = structlog.get_logger(__name__)

_OWNERS = frozenset({Membership.Role.OWNER.value})
_MOST_EXPORTED = 50_000


class StaffInvitationForm(_InvitationForm):
    """Whom to invite as what."""

    class Meta:
        model = StaffInvitation
        fields: ClassVar[list[str]] = ["tenant", "email", "role"]

    here: Tenant | None = None
    by: StaffUser | None = None
    origin = ""
    link = ""

    def clean(self) -> dict[str, Any]:
        """Invite, within the view's transaction: only then is it known whether that is allowed just now."""
        given = super().clean() or self.cleaned_data
        tenant = self.here or given.get("tenant")
        if not self.errors and tenant is not None:
            try:
                self.link = invitations.invite(
                    tenant=tenant, email=given["email"], role=given["role"], by=self.by, origin=self.origin
                )
            except ProductError as refused:
                raise forms.ValidationError(str(refused.msg)) from None
            token = self.link.rstrip("/").rsplit("/", 1)[1]
            self.instance.pk = invitations.open_invitation(tenant=tenant, token=token).pk
        return given


class StaffInvitationAdmin(TenantModelAdmin):
    """Invitations: sent here, withdrawn, and never changed."""

    form = StaffInvitationForm
    visible_to = editable_by = _OWNERS
    list_display = ("id", "email", "role", "created_at", "expires_at", "accepted_at", "revoked_at", "invited_by")
    list_filter = ("role",)
    list_select_related = ("tenant", "invited_by", "accepted_by")
    search_fields = ("email",)
    ordering = ("-id",)
    actions = ("withdraw",)

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Ask for an address and a role, and show what became of an invitation that is out."""
        tenant = ("tenant",) if self._on_platform else ()
        shown = ("created_at", "expires_at", "accepted_at", "accepted_by", "revoked_at", "invited_by") if obj else ()
        return (*tenant, "email", "role", *shown)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: the mail is out."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: an invitation is withdrawn."""
        return False

    def get_form(self, request: HttpRequest, obj: Any = None, change: Any = False, **kwargs: Any) -> Any:  # noqa: FBT002
        """Tell the form who invites, where."""
        made = super().get_form(request, obj, change=change, **kwargs)
        here = None if self._on_platform else request.tenant  # type: ignore[attr-defined]
        origin = f"{request.scheme}://{request.get_host()}" if here else ""
        return type(made.__name__, (made,), {"here": here, "by": request.user, "origin": origin})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Show the link, should the mail not arrive; the form has invited."""
        log.info("staff_invited", staff=request.user.pk, tenant_id=obj.tenant_id, role=obj.role)
        text = _("The link, which is shown only now: %(link)s")
        if obj.email:
            text = _("Mailed to %(email)s. The same link, good once: %(link)s")
        self.message_user(request, text % {"email": obj.email, "link": form.link}, messages.SUCCESS)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        """Let in who may invite."""
        return self.may_edit(request)

    @admin.action(description=_("Withdraw"), permissions=["withdraw"])
    def withdraw(self, request: HttpRequest, rows: QuerySet[StaffInvitation]) -> None:
        """End links that nobody has used."""
        for row in rows:
            if invitations.revoke(tenant_id=row.tenant_id, invitation_id=row.pk):
                self.log_change(request, row, str(_("The invitation was withdrawn.")))
                log.info("staff_invitation_withdrawn", staff=request.user.pk, tenant_id=row.tenant_id, row=row.pk)


class StaffRulesForm(_RulesForm):
    """Roles by check boxes."""

    second_factor_roles = forms.MultipleChoiceField(
        label=_("roles that must use a second factor"),
        choices=Membership.Role.choices,
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=_("They are led to set one up; until then no other page opens to them."),
    )

    class Meta:
        model = StaffRules
        fields: ClassVar[list[str]] = ["tenant", "second_factor_roles"]


class StaffRulesAdmin(TenantModelAdmin):
    """What a tenant demands of its staff."""

    form = StaffRulesForm
    visible_to = editable_by = _OWNERS
    list_display = ("id", "demanded")

    @admin.display(description=_("roles that must use a second factor"))
    def demanded(self, rules: StaffRules) -> str:
        """Name the roles."""
        return ", ".join(str(Membership.Role(role).label) for role in rules.second_factor_roles)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let the owner add the one row that there is."""
        return super().has_add_permission(request) and not self.has_its_row(request)


class KindFilter(admin.SimpleListFilter):
    """Kinds of rows by what people call them."""

    title = _("kind")
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return what the site shows: asking the log itself would read all of it."""
        kinds = [model._meta for model in model_admin.admin_site._registry]  # noqa: SLF001  # there is no public way
        return sorted(((kind.label, str(kind.verbose_name)) for kind in kinds), key=lambda entry: entry[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep one kind."""
        return queryset.filter(model=self.value()) if self.value() else queryset


class ChangeEntryAdmin(ReadOnlyTenantModelAdmin):
    """What staff changed, with what was before and after; the tenant's owner sees the tenant's."""

    visible_to = _OWNERS
    list_display = ("at", "actor", "action", "kind", "row", "what", "note")
    list_filter = ("action", ("at", admin.DateFieldListFilter), KindFilter)
    search_fields = ("actor", "row", "note", "request_id")
    ordering = ("-at", "-id")
    actions = ("export",)
    fields = ("at", "actor", "action", "kind", "row", "before_and_after", "note", "address", "request_id")
    show_full_result_count = False

    @admin.display(description=_("kind"), ordering="model")
    def kind(self, entry: ChangeEntry) -> str:
        """Name the kind of row."""
        return _name_of(entry.model)

    @admin.display(description=_("fields"))
    def what(self, entry: ChangeEntry) -> str:
        """Name what was changed."""
        names = ", ".join(_field_of(entry.model, name) for name in entry.changes)
        return names if entry.action == ChangeEntry.Action.CHANGED else ""

    @admin.display(description=_("before and after"))
    def before_and_after(self, entry: ChangeEntry) -> SafeString:
        """Show each field's old and new value."""
        lines = [(_field_of(entry.model, name), _text(old), _text(new)) for name, (old, new) in entry.changes.items()]
        return format_html("{}", format_html_join("", "<div><b>{}</b>: {} → {}</div>", lines))

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Let in who may look."""
        return self.has_view_permission(request)

    @admin.action(description=_("Export as CSV"), permissions=["export"])
    def export(self, request: HttpRequest, entries: QuerySet[ChangeEntry]) -> HttpResponse:
        """Answer with the chosen entries."""
        return csv_response(
            name="changes",
            head=(_("when"), _("who"), _("action"), _("kind"), _("number"), _("changes"), _("note"), _("address")),
            rows=[
                (
                    entry.at.isoformat(),
                    entry.actor,
                    entry.get_action_display(),
                    entry.model,
                    entry.row,
                    json.dumps(entry.changes, ensure_ascii=False),
                    entry.note,
                    entry.address,
                )
                for entry in entries[:_MOST_EXPORTED]
            ],
        )


def _name_of(label: str) -> str:
    """Return what people call a model."""
    try:
        return str(apps.get_model(label)._meta.verbose_name)
    except LookupError:  # a model that is no more
        return label


def _field_of(label: str, name: str) -> str:
    """Return what people call a field."""
    try:
        return str(apps.get_model(label)._meta.get_field(name).verbose_name)
    except (LookupError, FieldDoesNotExist):
        return name


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


register(StaffInvitation, StaffInvitationAdmin)
register(StaffRules, StaffRulesAdmin)
register(ChangeEntry, ChangeEntryAdmin)
