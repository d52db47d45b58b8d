"""Resellers, tenants and the names they are reached by."""

from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminPasswordWidget

from tenants.adminsite import OperatorModelAdmin, TenantModelAdmin, register
from tenants.models import Branding, Domain, Membership, MiniProgram, Reseller, Tenant


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
    """What a tenant's pages look like."""

    list_display = ("title", "slogan", "primary_color")


class DomainAdmin(TenantModelAdmin):
    """A tenant's host names."""

    list_display = ("host", "created_at")
    search_fields = ("host",)


if TYPE_CHECKING:
    _MiniProgramForm = forms.ModelForm[MiniProgram]
else:
    _MiniProgramForm = forms.ModelForm  # cannot be subscripted at run time


class MiniProgramForm(_MiniProgramForm):
    """Takes a new secret, and never shows the one that is stored."""

    secret = forms.CharField(
        label=_("app secret"),
        required=False,
        strip=True,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "off"}),
        help_text=_("Stored encrypted and never shown. Leave empty to keep the present one."),
    )

    class Meta:
        model = MiniProgram
        fields: ClassVar[list[str]] = ["tenant", "app_id", "name", "secret"]

    def clean_secret(self) -> str:
        """Keep the stored secret where none was typed."""
        return self.cleaned_data["secret"] or self.instance.secret


class MiniProgramAdmin(TenantModelAdmin):
    """A tenant's mini-programs."""

    form = MiniProgramForm
    list_display = ("app_id", "name", "created_at")
    search_fields = ("app_id", "name")
    visible_to = frozenset({Membership.Role.OWNER, Membership.Role.CONTENT})

    def get_fields(self, request: Any, obj: MiniProgram | None = None) -> Any:
        """Leave the secret out wherever the form would only show it."""
        fields = ("tenant", "app_id", "name")
        editing = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        return (*fields, "secret") if editing else fields


register(Branding, BrandingAdmin)
register(Domain, DomainAdmin)
register(MiniProgram, MiniProgramAdmin)
