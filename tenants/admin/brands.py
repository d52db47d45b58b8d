"""Resellers, tenants and the names they are reached by."""

from typing import Any, ClassVar

import structlog
from django import forms
from django.contrib import admin
from django.db import models
from django.forms.widgets import Script
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminColorInputWidget

from tenants.adminsite import (
    OperatorModelAdmin,
    SecretField,
    SecretsForm,
    SecretsModelAdmin,
    TenantModelAdmin,
    register,
)
from tenants.models import Branding, Domain, Membership, MiniProgram, Reseller, Tenant
from tenants.resolve import forget

log = structlog.get_logger(__name__)

Role = Membership.Role


@admin.register(Reseller)
class ResellerAdmin(OperatorModelAdmin):
    """Resellers, for the operator."""

    list_display = ("slug", "name", "parent", "depth", "created_at")
    list_select_related = ("parent",)
    search_fields = ("slug", "name")


@admin.register(Tenant)
class TenantAdmin(OperatorModelAdmin):
    """Tenants, for the operator."""

    list_display = ("slug", "name", "reseller", "status", "language", "allow_guest", "created_at")
    list_filter = ("status", "reseller")
    list_select_related = ("reseller",)
    search_fields = ("slug", "name")


class BrandingAdmin(TenantModelAdmin):
    """What a tenant's pages look like: a form with a page and a phone that change as one types."""

    editable_by: ClassVar[frozenset[str]] = frozenset({Role.OWNER.value, Role.CONTENT.value})
    list_display = ("title", "slogan", "primary_color")
    change_form_outer_before_template = "branding/preview.html"  # type: ignore[assignment]  # unfold says None

    class Media:
        css: ClassVar[dict[str, list[str]]] = {"all": ["banyan/opening.css"]}
        js: ClassVar[list[Any]] = [Script("banyan/opening.js", defer=True)]

    def formfield_for_dbfield(self, db_field: "models.Field[Any, Any]", request: HttpRequest, **kwargs: Any) -> Any:
        """Show a palette for the colour."""
        if db_field.name == "primary_color":
            kwargs["widget"] = UnfoldAdminColorInputWidget()
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let the one brand be added that there is, which an opening has made."""
        return super().has_add_permission(request) and not self.has_its_row(request)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Refuse: a brand is changed."""
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and write who did."""
        super().save_model(request, obj, form, change)
        log.info("brand_changed", tenant_id=obj.tenant_id, staff=request.user.pk, fields=form.changed_data)


class DomainAdmin(TenantModelAdmin):
    """A tenant's host names."""

    list_display = ("host", "created_at")
    search_fields = ("host",)


class MiniProgramForm(SecretsForm):
    """What is set up of a mini-program."""

    secret = SecretField(_("app secret"))

    class Meta:
        model = MiniProgram
        fields: ClassVar[list[str]] = ["tenant", "app_id", "name", "secret"]

    def clean_app_id(self) -> str:
        """Refuse an app id that any tenant has: within one's own scope another's row is not seen."""
        app_id = str(self.cleaned_data["app_id"])
        if Tenant.objects.filter(mini_programs__app_id=app_id).exclude(mini_programs=self.instance.pk or 0).exists():
            raise forms.ValidationError(_("This app id is in use already. Please ask who runs the platform."))
        return app_id


class MiniProgramAdmin(SecretsModelAdmin):
    """A tenant's mini-programs, which its owners set up. Their app id stays: users are known by it."""

    form = MiniProgramForm
    editable_by: ClassVar[frozenset[str]] = frozenset({Role.OWNER.value})
    list_display = ("app_id", "name", "created_at")
    search_fields = ("app_id", "name")
    visible_to = frozenset({Role.OWNER, Role.CONTENT})

    def get_fieldsets(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Ask for what there is; the tenant is the operator's to choose."""
        owner = ("tenant",) if self._on_platform else ()
        return self.shown_to(request, obj, [(None, {"fields": (*owner, "app_id", "name", "secret")})])

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Keep the app id of a known one."""
        fields = tuple(super().get_readonly_fields(request, obj))
        return (*fields, "app_id") if obj is not None and not self._on_platform else fields

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let the operator delete."""
        return self._on_platform and super().has_delete_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, and write who did; the app id leads to the tenant at once here, elsewhere within seconds."""
        super().save_model(request, obj, form, change)
        log.info("mini_program_changed", tenant_id=obj.tenant_id, program=obj.pk, staff=request.user.pk)
        forget()


register(Branding, BrandingAdmin)
register(Domain, DomainAdmin)
register(MiniProgram, MiniProgramAdmin)
