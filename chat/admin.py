"""Chat's rows in the admin: offers and roles to edit, what was said to look at."""

from typing import ClassVar

from django.utils.translation import gettext_lazy as _

from chat.models import Conversation, Message, ModelOffer, Role, UpstreamAccount
from chat.moderation import admin as moderation_admin  # noqa: F401  registers moderation's rows
from tenants.adminsite import (
    ReadOnlyTenantModelAdmin,
    SecretField,
    SecretsForm,
    SecretsModelAdmin,
    TenantModelAdmin,
    register,
)
from tenants.models import Membership

_SUPPORT = frozenset({Membership.Role.OWNER.value, Membership.Role.SUPPORT.value})


class UpstreamAccountForm(SecretsForm):
    """What is set up of an account with a provider."""

    api_key = SecretField(_("API key"))

    class Meta:
        model = UpstreamAccount
        fields: ClassVar[list[str]] = ["tenant", "name", "base_url", "api_key", "is_enabled"]


class UpstreamAccountAdmin(SecretsModelAdmin):
    """Accounts with providers; the tenant's site shows the tenant's own."""

    form = UpstreamAccountForm
    list_display = ("name", "base_url", "is_enabled", "created_at")
    list_filter = ("is_enabled",)
    search_fields = ("name", "base_url")


class ModelOfferAdmin(TenantModelAdmin):
    """Models as a tenant sells them."""

    list_display = ("slug", "name", "upstream_model", "sku", "is_default", "is_enabled")
    list_filter = ("is_enabled",)
    search_fields = ("slug", "name", "upstream_model")


class RoleAdmin(TenantModelAdmin):
    """Assistants."""

    list_display = ("slug", "name", "is_default", "is_enabled")
    search_fields = ("slug", "name")


class ConversationAdmin(ReadOnlyTenantModelAdmin):
    """Conversations, for support."""

    visible_to = _SUPPORT
    list_display = ("id", "user", "title", "updated_at")
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
    (ModelOffer, ModelOfferAdmin),
    (Role, RoleAdmin),
    (Conversation, ConversationAdmin),
    (Message, MessageAdmin),
):
    register(_model, _admin)
