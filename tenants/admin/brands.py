"""Resellers, tenants and the names they are reached by."""

from typing import ClassVar

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from tenants.adminsite import (
    OperatorModelAdmin,
    SecretField,
    SecretsForm,
    SecretsModelAdmin,
    TenantModelAdmin,
    register,
)
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


class MiniProgramForm(SecretsForm):
    """What is set up of a mini-program."""

    secret = SecretField(_("app secret"))

    class Meta:
        model = MiniProgram
        fields: ClassVar[list[str]] = ["tenant", "app_id", "name", "secret"]


class MiniProgramAdmin(SecretsModelAdmin):
    """A tenant's mini-programs."""

    form = MiniProgramForm
    list_display = ("app_id", "name", "created_at")
    search_fields = ("app_id", "name")
    visible_to = frozenset({Membership.Role.OWNER, Membership.Role.CONTENT})


register(Branding, BrandingAdmin)
register(Domain, DomainAdmin)
register(MiniProgram, MiniProgramAdmin)
