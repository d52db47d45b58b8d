"""Chat's rows in the admin: offers to edit, what was said to look at; `chat.admin_library` has the rest."""

from django.contrib.admin import EmptyFieldListFilter

from chat import admin_library  # noqa: F401  # registers its models
from chat.admin_accounts import ModelRouteAdmin, UpstreamAccountAdmin
from chat.models import Conversation, Message, ModelOffer, ModelRoute, UpstreamAccount
from chat.moderation import admin as moderation_admin  # noqa: F401  registers moderation's rows
from tenants.adminsite import ReadOnlyTenantModelAdmin, TenantModelAdmin, register
from tenants.models import Membership

_SUPPORT = frozenset({Membership.Role.OWNER.value, Membership.Role.SUPPORT.value})


class ModelOfferAdmin(TenantModelAdmin):
    """Models as a tenant sells them."""

    list_display = ("slug", "name", "upstream_model", "sku", "is_default", "is_enabled")
    list_filter = ("is_enabled",)
    search_fields = ("slug", "name", "upstream_model")


class ConversationAdmin(ReadOnlyTenantModelAdmin):
    """Conversations, for support."""

    visible_to = _SUPPORT
    list_display = ("id", "user", "title", "updated_at", "deleted_at")
    list_filter = (("deleted_at", EmptyFieldListFilter),)
    list_select_related = ("tenant", "user")
    search_fields = ("title", "user__username", "user__phone", "user__email")


class MessageAdmin(ReadOnlyTenantModelAdmin):
    """Questions and answers with their receipts, for support."""

    visible_to = _SUPPORT
    list_display = ("id", "user", "offer_slug", "state", "finish_reason", "created_at", "ended_at")
    list_filter = ("state",)
    list_select_related = ("tenant", "user")
    search_fields = ("=id", "=conversation__id", "user__username")
    date_hierarchy = "created_at"


for _model, _admin in (
    (UpstreamAccount, UpstreamAccountAdmin),
    (ModelRoute, ModelRouteAdmin),
    (ModelOffer, ModelOfferAdmin),
    (Conversation, ConversationAdmin),
    (Message, MessageAdmin),
):
    register(_model, _admin)
