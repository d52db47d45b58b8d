"""Chat's rows in the admin: offers to edit, what was said to look at; `chat.admin_library` has the rest."""

import structlog
from django.contrib import admin, messages
from django.contrib.admin import EmptyFieldListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from billing.yuan import show_yuan
from chat import (
    admin_library,  # noqa: F401  # registers its models
    keys,
)
from chat.admin_accounts import ModelRouteAdmin, UpstreamAccountAdmin
from chat.admin_people import ConversationAdmin, ConversationLookAdmin, MessageAdmin, PersonAdmin
from chat.models import ApiKey, Conversation, ConversationLook, Message, ModelOffer, ModelRoute, UpstreamAccount
from chat.moderation import admin as moderation_admin  # noqa: F401  registers moderation's rows
from tenants.adminsite import ReadOnlyTenantModelAdmin, TenantModelAdmin, register, tenant_site
from tenants.models import EndUser, Membership

logger = structlog.get_logger(__name__)

_SUPPORT = frozenset({Membership.Role.OWNER.value, Membership.Role.SUPPORT.value})


class ModelOfferAdmin(TenantModelAdmin):
    """Models as a tenant sells them."""

    list_display = ("slug", "name", "upstream_model", "sku", "is_default", "is_enabled")
    list_filter = ("is_enabled",)
    search_fields = ("slug", "name", "upstream_model")


class ApiKeyAdmin(ReadOnlyTenantModelAdmin):
    """Users' API keys: to look at, without their secrets, and to revoke. Owners and support may."""

    visible_to = _SUPPORT
    list_display = ("id", "user", "name", "hint", "limit", "used", "expires_at", "revoked_at", "last_used_at")
    list_filter = (("revoked_at", EmptyFieldListFilter),)
    list_select_related = ("tenant", "user")
    search_fields = ("name", "last4", "user__username", "user__phone", "user__email")
    ordering = ("-id",)
    actions = ("revoke",)
    fields = (
        *("user", "name", "hint", "allowed_models", "limit", "used"),
        *("created_at", "expires_at", "revoked_at", "last_used_at"),
    )
    show_full_result_count = False

    @admin.display(description=_("key"))
    def hint(self, row: ApiKey) -> str:
        """Show what may be shown of the secret."""
        return row.hint

    @admin.display(description=_("spending limit"), ordering="spend_limit")
    def limit(self, row: ApiKey) -> str:
        """Show what it may spend."""
        return "" if row.spend_limit is None else f"¥{show_yuan(row.spend_limit)}"

    @admin.display(description=_("spent"), ordering="spent")
    def used(self, row: ApiKey) -> str:
        """Show what it has spent."""
        return f"¥{show_yuan(row.spent)}"

    @admin.action(description=_("Revoke the selected keys"), permissions=["view"])
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiKey]) -> None:
        """Revoke, and keep a record of who did."""
        revoked = [row for row in rows if keys.revoke_key(row)]
        for row in revoked:
            self.log_change(request, row, [{"changed": {"fields": ["revoked_at"]}}])
            logger.info("api_key_revoked", key=row.pk, tenant=row.tenant_id, staff=request.user.pk)
        said = ngettext("%(count)d key was revoked.", "%(count)d keys were revoked.", len(revoked))
        self.message_user(request, said % {"count": len(revoked)}, messages.SUCCESS)


# Users' page has their conversations: billing's, which has their money, makes place for it.
admin.site.unregister(EndUser)
tenant_site.unregister(EndUser)

for _model, _admin in (
    (EndUser, PersonAdmin),
    (ApiKey, ApiKeyAdmin),
    (UpstreamAccount, UpstreamAccountAdmin),
    (ModelRoute, ModelRouteAdmin),
    (ModelOffer, ModelOfferAdmin),
    (Conversation, ConversationAdmin),
    (ConversationLook, ConversationLookAdmin),
    (Message, MessageAdmin),
):
    register(_model, _admin)
