"""Staff and end users."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from tenants import second_factor, sessions, staffing
from tenants.adminsite import OperatorModelAdmin, ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.errors import ProductError
from tenants.exports import ExportsRows
from tenants.models import AccessToken, EndUser, Membership, PlatformMembership, StaffUser, WeChatIdentity

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[StaffUser]
    _MembershipForm = forms.ModelForm[Membership]
else:
    _UserAdmin, _MembershipForm = UserAdmin, forms.ModelForm  # cannot be subscripted at run time

logger = structlog.get_logger(__name__)


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


def reset_second_factor(model_admin: OperatorModelAdmin, request: HttpRequest, row: Any, staff: StaffUser) -> None:
    """End somebody's second factor and every session of theirs; the row's history and the log keep who did."""
    if second_factor.turn_off(staff):
        sessions.end(staff)
        said = _("The second factor was reset.")
        model_admin.log_change(request, row, str(said))
        logger.info("second_factor_reset", staff=request.user.pk, whose=staff.pk)
        model_admin.message_user(request, f"{staff}: {said}", messages.SUCCESS)


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
    actions = ("reset_second_factor",)

    def has_reset_permission(self, request: HttpRequest) -> bool:
        """Let superusers reset anybody's."""
        return bool(request.user.is_superuser)

    @admin.action(description=_("Reset the second factor"), permissions=["reset"])
    def reset_second_factor(self, request: HttpRequest, people: QuerySet[StaffUser]) -> None:
        """End the second factor of those who have lost theirs."""
        for staff in people:
            reset_second_factor(self, request, staff, staff)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002  # Django's
        """Set somebody's password; every session of theirs ends."""
        answer = super().user_change_password(request, id, form_url)
        if answer.status_code == HTTPStatus.FOUND and id.isdecimal():
            whose = StaffUser.objects.filter(pk=id).first()
            if whose is not None and whose != request.user:
                sessions.end(whose)
        return answer


@admin.register(PlatformMembership)
class PlatformMembershipAdmin(SuperuserModelAdmin):
    """Who works for the operator or for a reseller."""

    list_display = ("staff", "role", "reseller", "created_at")
    list_filter = ("role",)
    list_select_related = ("staff", "reseller")


class MembershipForm(_MembershipForm):
    """A member's role; an owner is always left."""

    class Meta:
        model = Membership
        fields: ClassVar[list[str]] = ["tenant", "staff", "role"]

    def clean(self) -> dict[str, Any]:
        """Refuse to make the last owner something else, within the view's transaction."""
        given = super().clean() or self.cleaned_data
        if self.instance.pk and given.get("role") not in {None, Membership.Role.OWNER}:
            try:
                staffing.require_another_owner(self.instance)
            except ProductError as refused:
                raise forms.ValidationError(str(refused.msg)) from None
        return given


class MembershipAdmin(TenantModelAdmin):
    """A tenant's staff, as its owner sees and changes them; new ones are invited."""

    form = MembershipForm
    list_display = ("staff", "role", "created_at")
    list_filter = ("role",)
    list_select_related = ("tenant", "staff")
    visible_to = editable_by = frozenset({Membership.Role.OWNER.value})
    actions = ("reset_second_factor",)

    def get_actions(self, request: HttpRequest) -> Any:
        """Take people out one by one: an owner must be left."""
        return {name: act for name, act in super().get_actions(request).items() if name != "delete_selected"}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let the operator add; a tenant invites."""
        return self._on_platform and super().has_add_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> Any:
        """Keep whose role it is, and where."""
        fields = super().get_readonly_fields(request, obj)
        kept = (*fields, "staff")
        if self._on_platform:
            return (*kept, "tenant") if obj else fields
        return kept

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Change the role alone."""
        if change:
            staffing.change_role(membership=obj, role=obj.role)
        else:
            super().save_model(request, obj, form, change)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Let the owner take people out, and nobody the last owner."""
        if not super().has_delete_permission(request, obj):
            return False
        return not isinstance(obj, Membership) or not staffing.is_last_owner(obj)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Take somebody out, within the view's transaction."""
        staffing.remove(membership=obj)

    def has_reset_permission(self, request: HttpRequest) -> bool:
        """Let in who may change the staff."""
        return self.may_edit(request)

    @admin.action(description=_("Reset the second factor"), permissions=["reset"])
    def reset_second_factor(self, request: HttpRequest, members: QuerySet[Membership]) -> None:
        """End the second factor of those who have lost theirs; a tenant's owner of the tenant's own people only."""
        for member in members.select_related("staff"):
            if not self._on_platform and staffing.works_elsewhere(member):
                text = _("%(name)s works elsewhere too: please ask the operator.") % {"name": member.staff}
                self.message_user(request, text, messages.ERROR)
                continue
            reset_second_factor(self, request, member, member.staff)


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

    list_display = ("user", "label", "device", "created_at", "expires_at", "revoked_at")
    list_select_related = ("tenant", "user")
    exclude = ("digest",)
    visible_to = frozenset({Membership.Role.OWNER, Membership.Role.SUPPORT})


register(Membership, MembershipAdmin)
register(EndUser, EndUserAdmin)
register(WeChatIdentity, WeChatIdentityAdmin)
register(AccessToken, AccessTokenAdmin)
