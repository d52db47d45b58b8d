"""Staff and end users."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from tenants.adminsite import OperatorModelAdmin, ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.exports import ExportsRows
from tenants.models import AccessToken, EndUser, Membership, PlatformMembership, StaffUser, WeChatIdentity

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[StaffUser]
else:
    _UserAdmin = UserAdmin  # cannot be subscripted at run time


class SuperuserModelAdmin(OperatorModelAdmin):
    """Rows that give power over the platform: the operator's people may look, superusers may write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let superusers add."""
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let superusers change."""
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let superusers delete."""
        return bool(request.user.is_superuser)


admin.site.unregister(Group)


@admin.register(StaffUser)
class StaffUserAdmin(SuperuserModelAdmin, _UserAdmin):  # type: ignore[misc]  # as unfold's manual says
    """Everyone who can log into an admin. Groups and single permissions are not used: memberships say what is open."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_superuser", "is_active", "last_login")
    list_filter = ("is_superuser", "is_active")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        (_("Person"), {"fields": ("first_name", "last_name", "email", "language")}),
        (_("Access"), {"fields": ("is_active", "is_superuser", "last_login", "date_joined")}),
    )
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")


@admin.register(PlatformMembership)
class PlatformMembershipAdmin(SuperuserModelAdmin):
    """Who works for the operator or for a reseller."""

    list_display = ("staff", "role", "reseller", "created_at")
    list_filter = ("role",)
    list_select_related = ("staff", "reseller")


class MembershipAdmin(TenantModelAdmin):
    """A tenant's staff, as its owner sees them."""

    list_display = ("staff", "role", "created_at")
    list_filter = ("role",)
    list_select_related = ("tenant", "staff")
    visible_to = frozenset({Membership.Role.OWNER})


class EndUserAdmin(ExportsRows, TenantModelAdmin):  # type: ignore[misc]  # unfold's mix-ins
    """A tenant's users; their passwords are nobody's to see or set."""

    list_display = ("id", "username", "phone", "email", "nickname", "is_guest", "is_active", "created_at")
    list_filter = ("is_active", "is_guest")
    search_fields = ("username", "phone", "email", "nickname")
    exclude = ("password",)
    readonly_fields = ("created_at", "last_seen_at")
    visible_to = frozenset({Membership.Role.OWNER, Membership.Role.FINANCE, Membership.Role.SUPPORT})

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Keep a user in the tenant where they were made."""
        fields = super().get_readonly_fields(request, obj)
        return (*fields, "tenant") if obj else fields


class WeChatIdentityAdmin(ReadOnlyTenantModelAdmin):
    """Who WeChat says users are."""

    list_display = ("user", "app_id", "openid", "unionid", "created_at")
    list_select_related = ("tenant", "user")
    exclude = ("session_key",)
    search_fields = ("openid", "unionid")
    visible_to = frozenset({Membership.Role.OWNER, Membership.Role.SUPPORT})


class AccessTokenAdmin(ReadOnlyTenantModelAdmin):
    """Log-ins of users; not even their digests are shown."""

    list_display = ("user", "label", "created_at", "expires_at", "revoked_at")
    list_select_related = ("tenant", "user")
    exclude = ("digest",)
    visible_to = frozenset({Membership.Role.OWNER, Membership.Role.SUPPORT})


register(Membership, MembershipAdmin)
register(EndUser, EndUserAdmin)
register(WeChatIdentity, WeChatIdentityAdmin)
register(AccessToken, AccessTokenAdmin)
