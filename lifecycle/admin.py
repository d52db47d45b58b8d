"""Tenants' lives in both admins: the operator decides, a tenant's owners look, invite, and take their rows along."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import structlog
from django import forms
from django.contrib import admin, messages
from django.db import models
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import TabularInline
from unfold.decorators import action
from unfold.widgets import (
    UnfoldAdminDateWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from billing.admin.resale import PercentField
from lifecycle import archive, checks, claims, erasure, life, moving, programs
from lifecycle.addresses import is_ours, spoken
from lifecycle.models import (
    Check,
    DomainClaim,
    OfferTemplate,
    Opening,
    ResellerToken,
    TemplateModel,
    TenantDeletion,
    TenantEvent,
    TenantExport,
)
from lifecycle.pages import act_on_checklist, checklist_context
from lifecycle.tasks import enqueue_export
from tenants.admin.brands import DomainAdmin, MiniProgramAdmin, TenantAdmin
from tenants.adminsite import (
    OperatorModelAdmin,
    ReadOnlyOperatorModelAdmin,
    ReadOnlyTenantModelAdmin,
    TenantModelAdmin,
    TriesRow,
    register,
    tenant_site,
)
from tenants.errors import ProductError
from tenants.models import Domain, Membership, MiniProgram, Reseller, Tenant
from tenants.resolve import forget

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    _TemplateForm = forms.ModelForm[OfferTemplate]
    _ClaimForm = forms.ModelForm[DomainClaim]
else:
    _TemplateForm = _ClaimForm = forms.ModelForm  # cannot be subscripted at run time

logger = structlog.get_logger(__name__)

Role, Status = Membership.Role, Tenant.Status
_OWNERS = frozenset({Role.OWNER})

ViewT = TypeVar("ViewT", bound=Callable[..., HttpResponse])
# unfold's decorator of a page's buttons, which has no usable types.
_button = cast("Callable[..., Callable[[ViewT], ViewT]]", action)


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(label=_("reason"), max_length=200, widget=UnfoldAdminTextInputWidget())


class TrialForm(ReasonForm):
    """Until when a tenant is on trial."""

    field_order = ("ends_on", "reason")

    ends_on = forms.DateField(label=_("last day of the trial"), widget=UnfoldAdminDateWidget())


class MoveForm(ReasonForm):
    """To whom a tenant moves."""

    field_order = ("reseller", "reason")

    reseller = forms.ModelChoiceField(
        label=_("to the reseller"),
        queryset=Reseller.objects.order_by("slug"),
        required=False,
        empty_label=_("none: the operator's own"),
        widget=UnfoldAdminSelectWidget(),
    )


admin.site.unregister(Tenant)


@admin.register(Tenant)
class LivingTenantAdmin(TenantAdmin):
    """Tenants, for the operator: their states change by these buttons, each with a reason and a second look."""

    actions_detail: Any = (
        "activate",
        "set_trial",
        "suspend",
        "resume",
        "move",
        "export_rows",
        "delete_tenant",
        "call_off",
        "see_checklist",
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> Any:
        """Keep what only the buttons change, and the slug: others' DNS leads to it (`lifecycle.claims.target_of`)."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return (*fields, "slug", "status", "status_reason", "trial_ends_on", "reseller") if obj else fields

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: a tenant is deleted by its button, after days of grace and with proof."""
        return False

    @_button(description=_("Activate"), url_path="activate")
    def activate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let it serve its users without an end."""
        return self._decide(request, object_id, ReasonForm, _("Activate"), life.activate)

    @_button(description=_("Set a trial"), url_path="trial")
    def set_trial(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Put it on trial until a day."""
        return self._decide(request, object_id, TrialForm, _("Set a trial"), life.set_trial)

    @_button(description=_("Suspend"), url_path="suspend")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Turn its users away."""
        return self._decide(request, object_id, ReasonForm, _("Suspend"), life.suspend)

    @_button(description=_("Resume"), url_path="resume")
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let it serve its users again."""
        return self._decide(request, object_id, ReasonForm, _("Resume"), life.resume)

    @_button(description=_("Move to another reseller"), url_path="move")
    def move(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Move it to another reseller, or to the operator."""

        def moved(*, tenant_id: int, reseller: Reseller | None, reason: str, actor: str) -> object:
            reseller_id = reseller.pk if reseller else None
            return moving.move(tenant_id=tenant_id, reseller_id=reseller_id, reason=reason, actor=actor)

        return self._decide(request, object_id, MoveForm, _("Move to another reseller"), moved)

    @_button(description=_("Delete with proof"), url_path="delete-tenant")
    def delete_tenant(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Suspend it now and delete it after the days of grace."""
        return self._decide(request, object_id, ReasonForm, _("Delete with proof"), erasure.ask)

    @_button(description=_("Call the deletion off"), url_path="call-off")
    def call_off(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Keep it after all."""
        return self._decide(request, object_id, ReasonForm, _("Call the deletion off"), erasure.call_off)

    @_button(description=_("Make an archive"), url_path="export")
    def export_rows(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Have an archive of all its rows made."""
        tenant = self._tenant(request, object_id)
        if request.method == "POST" and "confirmed" in request.POST:
            _ask_for_archive(self, request, tenant)
            return redirect(reverse("admin:lifecycle_tenantexport_changelist"))
        facts: list[tuple[_StrOrPromise, str]] = [(_("tenant"), tenant.name)]
        return self._show(request, tenant, forms.Form(), _("Make an archive"), facts, confirming=True)

    @_button(description=_("Checklist"), url_path="checklist")
    def see_checklist(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show its checklist, and do what its buttons ask for."""
        tenant = self._tenant(request, object_id)

        def show(request: HttpRequest, tenant: Tenant, **more: Any) -> HttpResponse:
            return _checklist_page(self, request, tenant, **more)

        return act_on_checklist(request, tenant, show) if request.method == "POST" else show(request, tenant)

    def _tenant(self, request: HttpRequest, object_id: str) -> Tenant:
        row: Tenant | None = self.get_object(request, object_id)
        if row is None or not self.has_change_permission(request, row):
            raise Http404
        return row

    def _decide(
        self,
        request: HttpRequest,
        object_id: str,
        form_class: type[forms.Form],
        title: "_StrOrPromise",
        act: Callable[..., object],
    ) -> HttpResponse:
        """Ask, show what it means, and do it once that is confirmed."""
        tenant = self._tenant(request, object_id)
        form = form_class(request.POST or None)
        confirming = form.is_valid()
        if confirming and "confirmed" in request.POST:
            try:
                done = act(tenant_id=tenant.pk, actor=request.user.get_username(), **form.cleaned_data)
            except ProductError as refused:
                form.add_error(None, str(refused.msg))
                confirming = False
            else:
                return self._done(request, tenant, str(title), form.cleaned_data, is_done=done is not False)
        return self._show(request, tenant, form, title, self._facts(tenant, form), confirming=confirming)

    def _facts(self, tenant: Tenant, form: forms.Form) -> list[tuple["_StrOrPromise", str]]:
        facts: list[tuple[_StrOrPromise, str]] = [
            (_("tenant"), tenant.name),
            (_("status"), str(tenant.get_status_display())),
            (_("reseller"), str(tenant.reseller or "–")),
        ]
        if not form.is_bound or not form.is_valid():
            return facts
        facts += [(form.fields[name].label or name, str(value or "–")) for name, value in form.cleaned_data.items()]
        if "reseller" in form.cleaned_data:
            new = form.cleaned_data["reseller"]
            below = moving.under_water(tenant_id=tenant.pk, reseller_id=new.pk if new else None)
            facts.append((_("would sell below what it pays"), ", ".join(below) or "–"))
        return facts

    def _done(
        self, request: HttpRequest, tenant: Tenant, title: str, asked: dict[str, Any], *, is_done: bool
    ) -> HttpResponse:
        if is_done:
            said = f"{title}: {asked['reason']}"
            self.log_change(request, tenant, said)
            logger.info("tenant_decided", staff=request.user.pk, tenant_slug=tenant.slug, what=title)
            self.message_user(request, said, messages.SUCCESS)
        else:
            self.message_user(request, gettext("There was nothing to do."), messages.WARNING)
        return HttpResponseRedirect(self._page(tenant))

    def _page(self, tenant: Tenant) -> str:
        return reverse(f"{self.admin_site.name}:tenants_tenant_change", args=[tenant.pk])

    def _show(  # noqa: PLR0913  what a page shows
        self,
        request: HttpRequest,
        tenant: Tenant,
        form: forms.Form,
        title: "_StrOrPromise",
        facts: "list[tuple[_StrOrPromise, str]]",
        *,
        confirming: bool,
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "form": form,
            "title": title,
            "row": tenant,
            "facts": facts,
            "back": self._page(tenant),
            "confirming": confirming,
            "asks": True,
        }
        return TemplateResponse(request, "admin/billing/money_form.html", context)


class TemplateModelInline(TabularInline):
    """The models of a template."""

    model = TemplateModel
    extra = 0
    exclude = ("tenant",)

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let whoever may see the template."""
        return True

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission


class OfferTemplateForm(_TemplateForm):
    """Takes the markup in percent."""

    markup = PercentField(label=_("percent above wholesale"), initial="50")

    class Meta:
        model = OfferTemplate
        fields: ClassVar[list[str]] = [
            *("slug", "name", "free_per_day", "guest_allowance"),
            *("instructions", "is_default", "is_enabled"),
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["markup"] = f"{self.instance.markup_ppm / 10_000:g}"

    def save(self, commit: bool = True) -> Any:  # noqa: FBT001, FBT002  # Django's signature
        """Keep millionths."""
        self.instance.markup_ppm = self.cleaned_data["markup"]
        return super().save(commit)


@admin.register(OfferTemplate)
class OfferTemplateAdmin(OperatorModelAdmin):
    """What new tenants begin with."""

    form = OfferTemplateForm
    inlines: ClassVar[list[Any]] = [TemplateModelInline]
    list_display = ("slug", "name", "percent", "free_per_day", "guest_allowance", "is_default", "is_enabled")

    @admin.display(description=_("percent above wholesale"), ordering="markup_ppm")
    def percent(self, row: OfferTemplate) -> str:
        """Show the markup in percent."""
        return f"{row.markup_ppm / 10_000:g} %"


@admin.register(Opening)
class OpeningAdmin(ReadOnlyOperatorModelAdmin):
    """Openings, begun and done. What was typed is shown without its secrets, which are encrypted."""

    list_display = ("id", "reseller", "staff", "slug", "created_at", "opened_at")
    list_select_related = ("reseller", "staff")
    search_fields = ("slug",)
    exclude = ("digest",)
    ordering = ("-created_at",)


@admin.register(ResellerToken)
class ResellerTokenAdmin(OperatorModelAdmin):
    """Tokens of programs: made here, shown once, revoked here."""

    fields = ("reseller", "name")
    list_display = ("name", "reseller", "last4", "created_by", "created_at", "last_used_at", "revoked_at")
    list_select_related = ("reseller",)
    actions = ("revoke",)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: a token is made anew."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: it is revoked, and its row says since when."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Make the token, and show its secret this once."""
        made, secret = programs.make_token(reseller=obj.reseller, name=obj.name, actor=request.user.get_username())
        obj.pk = made.pk
        self.message_user(request, gettext("The token, which is shown only now: %(secret)s") % {"secret": secret})

    @admin.action(description=_("Revoke the selected tokens"), permissions=["add"])
    def revoke(self, request: HttpRequest, rows: QuerySet[ResellerToken]) -> None:
        """Revoke, and keep who did."""
        revoked = [row for row in rows if programs.revoke_token(row)]
        for row in revoked:
            self.log_change(request, row, [{"changed": {"fields": ["revoked_at"]}}])
            logger.info("program_token_revoked", token_id=row.pk, staff=request.user.pk)
        self.message_user(request, gettext("Revoked: %(count)d.") % {"count": len(revoked)}, messages.SUCCESS)


class CheckAdmin(ReadOnlyTenantModelAdmin):
    """The checklist: on the tenant's site a page with its buttons, on the operator's every tenant's steps."""

    visible_to = _OWNERS
    list_display = ("kind", "state", "found", "checked_at", "checked_by")
    list_filter = ("state", "kind")
    ordering = ("id",)
    fields = ("tenant", "kind", "state", "found", "checked_at", "checked_by")
    readonly_fields = ("found",)

    @admin.display(description=_("what was found"))
    def found(self, row: Check) -> str:
        """Say it as the checklist does."""
        return checks.say(row)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the page in place of a list where there is one tenant."""
        if self._on_platform:
            return super().changelist_view(request, extra_context)
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        tenant: Tenant = request.tenant  # type: ignore[attr-defined]

        def show(request: HttpRequest, tenant: Tenant, **more: Any) -> HttpResponse:
            return _checklist_page(self, request, tenant, **more)

        return act_on_checklist(request, tenant, show) if request.method == "POST" else show(request, tenant)


class TenantEventAdmin(ReadOnlyTenantModelAdmin):
    """What happened to tenants, when, by whom and why; a tenant's owners read their own."""

    visible_to = _OWNERS
    list_display = ("created_at", "kind", "status", "reason", "actor")
    list_filter = ("kind",)
    ordering = ("-created_at",)
    date_hierarchy = "created_at"
    exclude = ("facts",)  # resellers' money among them


class TenantExportAdmin(ReadOnlyTenantModelAdmin):
    """Archives: asked for here, followed here, and taken along from here."""

    visible_to = _OWNERS
    list_display = ("created_at", "state", "progress", "megabytes", "asked_by", "expires_at", "take")
    ordering = ("-created_at",)
    actions_list: Any = ("ask",)

    def get_urls(self) -> list[Any]:
        """Add the file."""
        view = self.admin_site.admin_view(self.file)
        return [path("<uuid:number>/file/", view, name="lifecycle_tenantexport_file"), *super().get_urls()]

    def has_ask_permission(self, request: HttpRequest) -> bool:
        """Let a tenant's owners ask; the operator asks from a tenant's page."""
        return not self._on_platform and self.has_view_permission(request)

    @_button(description=_("Make an archive"), url_path="ask", permissions=["ask"])
    def ask(self, request: HttpRequest) -> HttpResponse:
        """Ask for an archive, once that is confirmed."""
        back = reverse(f"{self.admin_site.name}:lifecycle_tenantexport_changelist")
        tenant: Tenant = request.tenant  # type: ignore[attr-defined]
        if request.method == "POST" and "confirmed" in request.POST:
            _ask_for_archive(self, request, tenant)
            return redirect(back)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "form": forms.Form(),
            "title": _("Make an archive"),
            "row": tenant.name,
            "facts": [(_("kept until"), gettext("some days after it is made"))],
            "back": back,
            "confirming": True,
            "asks": False,
        }
        return TemplateResponse(request, "admin/billing/money_form.html", context)

    @admin.display(description=_("progress"))
    def progress(self, row: TenantExport) -> str:
        """Show how far it is."""
        return f"{row.percent} %"

    @admin.display(description=_("megabytes"), ordering="size")
    def megabytes(self, row: TenantExport) -> str:
        """Show its size."""
        return f"{row.size / 1_000_000:.1f}" if row.size else ""

    @admin.display(description=_("file"))
    def take(self, row: TenantExport) -> SafeString | str:
        """Link to the file while there is one."""
        if row.state != TenantExport.State.DONE:
            return ""
        url = reverse(f"{self.admin_site.name}:lifecycle_tenantexport_file", args=[row.pk])
        return format_html('<a href="{}">{}</a>', url, _("Download"))

    def file(self, request: HttpRequest, number: Any) -> Any:
        """Hand out an archive."""
        export = self.get_object(request, str(number))
        if export is None or not self.has_view_permission(request, export):
            raise Http404
        file = archive.path_of(export)
        if export.state != TenantExport.State.DONE or not file.exists():
            raise Http404
        logger.info("archive_taken", staff=request.user.pk, export=str(export.pk))
        self.log_change(request, export, gettext("The archive was downloaded."))
        name = f"{export.tenant}-{export.created_at:%Y%m%d}.zip"
        return FileResponse(file.open("rb"), as_attachment=True, filename=name)


@admin.register(TenantDeletion)
class TenantDeletionAdmin(ReadOnlyTenantModelAdmin):
    """Deletions and their proofs, for the operator."""

    list_display = ("tenant_slug", "state", "asked_by", "created_at", "due_at", "ended_at", "digest")
    list_filter = ("state",)
    ordering = ("-id",)

    @admin.display(description=_("slug"), ordering="tenant__slug")
    def tenant_slug(self, row: TenantDeletion) -> str:
        """Show whose it is."""
        return row.tenant.slug


def _ask_for_archive(model_admin: OperatorModelAdmin, request: HttpRequest, tenant: Tenant) -> None:
    try:
        asked = archive.ask(tenant=tenant, actor=request.user.get_username())
    except ProductError as refused:
        model_admin.message_user(request, str(refused.msg), messages.WARNING)
        return
    enqueue_export(tenant_id=tenant.pk, export_id=asked.pk)
    model_admin.log_change(request, asked, gettext("An archive was asked for."))
    logger.info("archive_asked", staff=request.user.pk, tenant_slug=tenant.slug, export=str(asked.pk))
    model_admin.message_user(
        request, gettext("The archive is being made. Load this page again to see how far it is."), messages.SUCCESS
    )


def _checklist_page(model_admin: OperatorModelAdmin, request: HttpRequest, tenant: Tenant, **more: Any) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": _("Checklist"),
        "here": request.get_full_path(),
        "now": timezone.now(),
        **checklist_context(tenant, **more),
    }
    response = TemplateResponse(request, "admin/lifecycle/checklist.html", context)
    response["Referrer-Policy"] = "same-origin"
    return response


class CheckedDomainAdmin(TriesRow, DomainAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """A tenant's host names, each of which can be looked at as the checklist does.

    Owners add one by proving it (`DomainClaimAdmin`), and delete what they have added; the operator does as it likes.
    """

    list_before_template: Any = "domains/before_list.html"
    try_label = _("Look whether it leads here")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show owners the names that wait for their proof, and the way to another one."""
        more: dict[str, Any] = {}
        if not self._on_platform and self._admits(request, _OWNERS):
            of_claims = f"{self.admin_site.name}:lifecycle_domainclaim"
            more["add_url"] = reverse(f"{of_claims}_add")
            more["waiting"] = [
                {"row": row, "host": spoken(row.host), "url": reverse(f"{of_claims}_change", args=[row.pk])}
                for row in claims.waiting(tenant=request.tenant)  # type: ignore[attr-defined]  # the middleware's
            ]
        return super().changelist_view(request, {**(extra_context or {}), **more})

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let owners delete domains of their own; by what the operator gave them they come in."""
        if self._on_platform:
            return super().has_delete_permission(request, obj)
        return self._admits(request, _OWNERS) and not (isinstance(obj, Domain) and is_ours(obj.host))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete, and let it lead nowhere at once here, elsewhere within seconds."""
        super().delete_model(request, obj)
        logger.info("domain_deleted", tenant_id=obj.tenant_id, host=obj.host, staff=request.user.pk)
        forget()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete several, as one."""
        for row in queryset:
            self.delete_model(request, row)

    def has_try_permission(self, request: HttpRequest) -> bool:
        """Let owners and the operator look: it asks the network."""
        return self._admits(request, _OWNERS)

    def try_row(self, request: HttpRequest, row: Domain) -> tuple["_StrOrPromise", int]:
        """Look at the address, and at the certificate where it leads here."""
        found = checks.look_at_host(tenant=row.tenant, host=row.host)
        logger.info("domain_checked", host=row.host, by=request.user.get_username())
        is_good = all(state == Check.State.GREEN for state, _said in found)
        return " ".join(said for _state, said in found), messages.SUCCESS if is_good else messages.ERROR


class DomainClaimForm(_ClaimForm):
    """Takes a name as people paste it."""

    host = forms.CharField(
        label=_("host"),
        max_length=260,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "chat.example.com"}),
        help_text=_("A name that belongs to you, such as chat.example.com. It serves once DNS has proven it."),
    )

    class Meta:
        model = DomainClaim
        fields: ClassVar[list[str]] = ["host"]

    def clean_host(self) -> str:
        """Refuse what nobody may claim, before anything is kept."""
        try:
            return claims.free(str(self.cleaned_data["host"]))
        except ProductError as refused:
            raise forms.ValidationError(str(refused.msg)) from None

    def validate_unique(self) -> None:
        """Accept a name that waits already: entered again it is the same claim."""


class DomainClaimAdmin(TriesRow, TenantModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """Domains that owners enter by themselves: what to set in DNS, and a button that looks for it."""

    form = DomainClaimForm
    visible_to = _OWNERS
    editable_by = _OWNERS
    list_display = ("host", "found", "claimed_by", "created_at", "checked_at")
    ordering = ("pk",)
    change_form_outer_before_template = "domains/claim.html"  # type: ignore[assignment]  # unfold says None
    try_label = _("Check now")

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Ask for the name alone."""
        shown = ("found", "claimed_by", "created_at", "checked_at", "watched_until")
        return ("host", *shown) if obj else ("host",)

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Keep what was entered."""
        return self.get_fields(request, obj) if obj else ()

    @admin.display(description=_("what was found"))
    def found(self, row: DomainClaim) -> str:
        """Say what DNS said last."""
        return claims.said(row)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let owners add; the operator adds domains themselves."""
        return not self._on_platform and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: another name is another claim."""
        return False

    def has_try_permission(self, request: HttpRequest) -> bool:
        """Let those look who may withdraw it."""
        return self.may_edit(request)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show what to set."""
        row = self.get_object(request, object_id) if object_id else None
        more: dict[str, Any] = {}
        if row is not None:
            more = {"records": claims.records(row), "host": spoken(row.host), "target": claims.target_of(row.tenant)}
        return super().changeform_view(request, object_id, form_url, {**more, **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Keep the claim, which may be there already."""
        kept = claims.claim(tenant=obj.tenant, typed=obj.host, actor=request.user.get_username())
        obj.pk = kept.pk
        obj.refresh_from_db()

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        """Say where there are too many."""
        try:
            return super().add_view(request, form_url, extra_context)
        except ProductError as refused:
            self.message_user(request, str(refused.msg), messages.ERROR)
            return redirect(reverse(f"{self.admin_site.name}:tenants_domain_changelist"))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Go on to what to set."""
        return redirect(reverse(f"{self.admin_site.name}:lifecycle_domainclaim_change", args=[obj.pk]))

    def try_row(self, request: HttpRequest, row: DomainClaim) -> tuple["_StrOrPromise", int]:
        """Ask DNS; of a proven name say whether it leads here already, too."""
        look = claims.look_again(row, actor=request.user.get_username())
        if not look.is_proven:
            return str(look), messages.ERROR
        self.log_change(request, row, gettext("The domain was proven."))
        found = checks.look_at_host(tenant=row.tenant, host=row.host)
        return " ".join([str(look), *(said for _state, said in found)]), messages.SUCCESS

    def page_after_try(self, request: HttpRequest, row: DomainClaim) -> str:
        """Go back to the claim, or to the domains once it is one of them."""
        if DomainClaim.objects.filter(pk=row.pk).exists():
            return super().page_after_try(request, row)
        return reverse(f"{self.admin_site.name}:tenants_domain_changelist")


class TriedMiniProgramAdmin(TriesRow, MiniProgramAdmin):  # type: ignore[misc]  # as above
    """A tenant's mini-programs, each of which can be tried at WeChat."""

    try_label = _("Try app id and secret at WeChat")

    def has_try_permission(self, request: HttpRequest) -> bool:
        """Let those try who may set it up."""
        return self.may_edit(request)

    def try_row(self, request: HttpRequest, row: MiniProgram) -> tuple["_StrOrPromise", int]:
        """Ask WeChat for an access token, and say in words what is wrong."""
        state, said = checks.look_at_program(row)
        logger.info("mini_program_tried", program=row.pk, by=request.user.get_username(), state=str(state))
        self.log_change(request, row, gettext("The settings were tried."))
        return said, messages.SUCCESS if state == Check.State.GREEN else messages.ERROR


# Their plain ones are of a room that knows no checks.
for _site in (admin.site, tenant_site):
    _site.unregister([Domain, MiniProgram])

register(Domain, CheckedDomainAdmin)
register(MiniProgram, TriedMiniProgramAdmin)

for _model, _admin in (
    (Check, CheckAdmin),
    (DomainClaim, DomainClaimAdmin),
    (TenantEvent, TenantEventAdmin),
    (TenantExport, TenantExportAdmin),
):
    register(_model, _admin)
