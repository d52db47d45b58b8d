"""What chat keeps: upstream accounts, a tenant's model offers and who answers them, roles, conversations, messages.

What needs none of these, or only names them, is in `chat.library` and `chat.marks`, and is brought in here.
"""

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from chat.keyring import ApiKey
from chat.library import Announcement, AnnouncementRead, ChatRules, PlatformAnnouncement, RoleCategory
from chat.marks import Attachment, ConversationLook, Feedback, Report, SearchEntry, ShareLink
from chat.moderation import models as moderation_models  # noqa: F401  Django finds an app's models from here
from chat.upstream.addresses import is_forbidden_literal
from chat.upstream.parameters import BadRulesError, check_rules
from tenants.scope import SameTenant, TenantOrPlatformOwned, TenantOwned, WrongScopeError, current_tenant_id
from tenants.secrets import EncryptedTextField

__all__ = [
    "Announcement",
    "AnnouncementRead",
    "ApiKey",
    "Attachment",
    "ChatRules",
    "Conversation",
    "ConversationLook",
    "Feedback",
    "Message",
    "ModelOffer",
    "ModelRoute",
    "PlatformAnnouncement",
    "Report",
    "Role",
    "RoleCategory",
    "SearchEntry",
    "ShareLink",
    "UpstreamAccount",
]


class UpstreamAccount(TenantOrPlatformOwned):
    """An account with a provider of models; without a tenant it is the platform's. docs/upstreams.md has each field.

    A tenant's leads to public addresses only, and to those that the operator allows (UPSTREAM_PRIVATE_NETWORKS).
    """

    class Dialect(models.TextChoices):
        """What it speaks: the keys of `chat.upstream.pool.DIALECTS`."""

        OPENAI = "openai", _("OpenAI, and all that speak like it")
        AZURE = "azure", _("Azure OpenAI")
        ANTHROPIC = "anthropic", _("Anthropic")

    name = models.CharField(_("name"), max_length=80)
    dialect = models.CharField(_("dialect"), max_length=16, choices=Dialect.choices, default=Dialect.OPENAI)
    # Not a URLField: Django's refuses host names of one label, which containers have.
    base_url = models.CharField(
        _("base URL"),
        max_length=200,
        help_text=_("Ends where /chat/completions or /messages begins, usually in /v1; at Azure it is the resource's."),
        validators=[
            RegexValidator(r"\Ahttps?://[^\s/?#]+[^\s?#]*\Z", _("A URL such as https://api.example.com/v1 is wanted."))
        ],
    )
    api_key = EncryptedTextField(_("API key"), blank=True, default="")
    api_version = models.CharField(
        _("API version"),
        max_length=40,
        blank=True,
        default="",
        help_text=_("Azure's api-version, such as 2024-10-21. Anthropic's has a default."),
    )
    model_names = models.JSONField(
        _("names of models"),
        default=dict,
        blank=True,
        help_text=_('What models are called here, where it differs: {"deepseek-chat": "deployment-1"}'),
    )
    parameter_rules = models.JSONField(
        _("rules for parameters"),
        default=dict,
        blank=True,
        help_text=_('What is changed in a request: {"drop": […], "rename": {…}, "clamp": {…: [0, 1]}, "force": {…}}'),
    )
    max_concurrent = models.PositiveIntegerField(_("calls at once, at most"), default=0, help_text=_("0: no limit."))
    max_per_minute = models.PositiveIntegerField(
        _("calls in a minute, at most"), default=0, help_text=_("0: no limit.")
    )
    connect_seconds = models.PositiveSmallIntegerField(_("seconds to connect"), null=True, blank=True)
    first_token_seconds = models.PositiveSmallIntegerField(_("seconds to the first token"), null=True, blank=True)
    idle_seconds = models.PositiveSmallIntegerField(_("seconds of silence after it"), null=True, blank=True)
    total_seconds = models.PositiveSmallIntegerField(_("seconds for the whole answer"), null=True, blank=True)
    test_model = models.CharField(
        _("model for tests"),
        max_length=120,
        blank=True,
        default="",
        help_text=_("Asked by the connection test; empty: the model of an offer that uses the account."),
    )
    is_enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("upstream account")
        verbose_name_plural = _("upstream accounts")

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse what could not be asked, or may not, in words for a form."""
        faults: dict[str, Any] = {}
        if self.dialect == self.Dialect.AZURE and not self.api_version:
            faults["api_version"] = _("Azure wants an API version.")
        is_tenants = self.tenant_id is not None or current_tenant_id() is not None
        if is_tenants and is_forbidden_literal(self.base_url, settings.UPSTREAM_PRIVATE_NETWORKS):
            faults["base_url"] = _("This address leads into a private network. Please use a public one.")
        names = self.model_names
        if not isinstance(names, dict) or not all(name and isinstance(name, str) for name in names.values()):
            faults["model_names"] = _("Names of models and what they are called here are wanted.")
        try:
            check_rules(self.parameter_rules)
        except BadRulesError as bad:
            faults["parameter_rules"] = _("These rules cannot be followed: %(fault)s.") % {"fault": bad}
        if faults:
            raise ValidationError(faults)


class ModelOffer(TenantOwned):
    """A model as a tenant sells it: the name users see, what it is upstream, what it may cost at most.

    `sku` is the name under which billing prices it. Several offers of a tenant may share a quota group.
    """

    slug = models.SlugField(_("slug"), max_length=64)
    name = models.CharField(_("name"), max_length=80)
    sku = models.CharField(_("price list item"), max_length=80)
    account = models.ForeignKey(UpstreamAccount, verbose_name=_("upstream account"), on_delete=models.PROTECT)
    upstream_model = models.CharField(_("model's name upstream"), max_length=120)
    context_window = models.PositiveIntegerField(_("context window, tokens"), default=8192)
    max_output_tokens = models.PositiveIntegerField(_("longest answer, tokens"), default=2048)
    min_output_tokens = models.PositiveIntegerField(
        _("shortest answer worth starting, tokens"),
        default=32,
        help_text=_("A balance that does not pay for so many is refused before the model is called."),
    )
    token_ratio_percent = models.PositiveSmallIntegerField(
        _("tokens of this model per 100 estimated"),
        default=120,
        validators=[MinValueValidator(100), MaxValueValidator(1000)],
        help_text=_("Estimates count with a common tokenizer; a model with a smaller vocabulary needs more."),
    )
    image_tokens = models.PositiveIntegerField(
        _("tokens that an image takes at most"),
        default=2000,
        help_text=_("So much is frozen for each image, in chats and by the API. 0: the model takes none."),
    )
    quota_group = models.CharField(_("quota group"), max_length=40, default="default")
    paid_way = models.BooleanField(_("may be paid for"), default=True)
    context_turns = models.PositiveSmallIntegerField(
        _("earlier turns sent along at most"), null=True, blank=True, help_text=_("Empty: as the chat rules say.")
    )
    context_tokens = models.PositiveIntegerField(
        _("tokens of earlier turns sent along at most"),
        null=True,
        blank=True,
        help_text=_("Empty: as the chat rules say."),
    )
    is_default = models.BooleanField(_("default"), default=False)
    is_enabled = models.BooleanField(_("enabled"), default=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("model offer")
        verbose_name_plural = _("model offers")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "slug"], name="chat_offer_slug"),
            models.UniqueConstraint(
                fields=["tenant"], condition=models.Q(is_default=True), name="chat_offer_one_default"
            ),
            models.CheckConstraint(
                condition=models.Q(min_output_tokens__gte=1)
                & models.Q(max_output_tokens__gte=models.F("min_output_tokens"))
                & models.Q(context_window__gt=models.F("min_output_tokens")),
                name="chat_offer_token_limits",
            ),
        ]

    def __str__(self) -> str:
        return self.slug

    def clean(self) -> None:
        """Refuse another tenant's account, in words for a form."""
        if self.account_id and not self._may_use_account():
            raise ValidationError({"account": _("This account belongs to another tenant.")})

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; refuse another tenant's account, which no composite key can, since the platform owns some."""
        if not self._may_use_account():
            raise WrongScopeError(f"an offer of tenant {self.tenant_id} on an account of another tenant")
        super().save(*args, **kwargs)

    def _may_use_account(self) -> bool:
        return self.account.tenant_id in (None, self.tenant_id)


class ModelRoute(TenantOwned):
    """Another account that answers an offer, beside or in place of the offer's own, which stands at priority 100.

    Smaller priorities are asked first; among equal ones the weights decide how often each is (the offer's own has 100).
    """

    OWN_PRIORITY: ClassVar = 100
    OWN_WEIGHT: ClassVar = 100

    offer = models.ForeignKey(
        ModelOffer,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="routes",
        verbose_name=_("model offer"),
    )
    account = models.ForeignKey(UpstreamAccount, verbose_name=_("upstream account"), on_delete=models.PROTECT)
    upstream_model = models.CharField(
        _("model's name upstream"),
        max_length=120,
        blank=True,
        default="",
        help_text=_("Empty: the same as at the offer's own account."),
    )
    priority = models.PositiveSmallIntegerField(
        _("priority"),
        default=200,
        help_text=_("Smaller ones are asked first. The offer's own account has 100."),
    )
    weight = models.PositiveSmallIntegerField(
        _("weight"),
        default=100,
        validators=[MinValueValidator(1)],
        help_text=_("Among equal priorities. The offer's own account has 100."),
    )
    is_enabled = models.BooleanField(_("enabled"), default=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("route of a model")
        verbose_name_plural = _("routes of models")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="offer", name="chat_route_offer_fk"),
            models.UniqueConstraint(fields=["tenant", "offer", "account"], name="chat_route_account"),
        ]

    def clean(self) -> None:
        """Refuse another tenant's account, in words for a form."""
        if self.account_id and self.offer_id and self.account.tenant_id not in {None, self.offer.tenant_id}:
            raise ValidationError({"account": _("This account belongs to another tenant.")})

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; refuse another tenant's account, as an offer does."""
        if self.account.tenant_id not in {None, self.tenant_id}:
            raise WrongScopeError(f"a route of tenant {self.tenant_id} to an account of another tenant")
        super().save(*args, **kwargs)


class Role(TenantOwned):
    """An assistant of a tenant: a name and opening words for the user, instructions for the model."""

    slug = models.SlugField(_("slug"), max_length=64)
    name = models.CharField(_("name"), max_length=80)
    category = models.ForeignKey(
        RoleCategory,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="roles",
        null=True,
        blank=True,
        verbose_name=_("category"),
    )
    description = models.CharField(_("description"), max_length=200, blank=True, default="")
    avatar_url = models.URLField(_("picture"), blank=True, default="")
    opening = models.TextField(
        _("opening words"), blank=True, default="", help_text=_("What the assistant says before the first question.")
    )
    suggestions = models.TextField(
        _("suggested questions"), blank=True, default="", help_text=_("One a line; users choose one with a tap.")
    )
    instructions = models.TextField(_("instructions to the model"), help_text=_("Users never see them."))
    position = models.IntegerField(_("position"), default=0, help_text=_("Smaller numbers come first."))
    is_default = models.BooleanField(_("default"), default=False)
    is_enabled = models.BooleanField(_("enabled"), default=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("assistant role")
        verbose_name_plural = _("assistant roles")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="category", name="chat_role_category_fk"),
            models.UniqueConstraint(fields=["tenant", "slug"], name="chat_role_slug"),
            models.UniqueConstraint(
                fields=["tenant"], condition=models.Q(is_default=True), name="chat_role_one_default"
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class Conversation(TenantOwned):
    """A user's thread of turns."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    role = models.ForeignKey(
        Role,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("assistant role"),
    )
    title = models.CharField(_("title"), max_length=120)
    is_pinned = models.BooleanField(_("pinned"), default=False)
    is_archived = models.BooleanField(_("archived"), default=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("last turn"), auto_now_add=True)
    # To its user it does not exist from here on; the receipts of its answers stay.
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True)
    # What was said in it is gone from the database too (chat.tasks.erase_deleted).
    erased_at = models.DateTimeField(_("erased"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_conversation_user_fk"),
            SameTenant(field="role", name="chat_conversation_role_fk"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "user", "-updated_at"], name="chat_conversation_recent"),
            models.Index(
                fields=["tenant", "deleted_at"],
                condition=models.Q(deleted_at__isnull=False, erased_at__isnull=True),
                name="chat_conversation_to_erase",
            ),
        ]


class Message(TenantOwned):
    """One question with its answer; `id` is the wire's message id, and the id of the hold that pays for it.

    The messages of a conversation are a tree: `parent` is the one that this question follows, and those of one parent
    (none: of the conversation's beginning) are each other's alternatives, regenerated or edited.

    The answer is empty while `state` is RUNNING, and then final: whole, cut short by a stated reason, or absent
    because the turn failed, in which case `failure` keeps the error object that was sent, for a repeated request.

    A call of the OpenAI-compatible API is a row with an `api_key`, in no conversation and without any text: of what was
    said there only a keyed digest is kept, by which a repeated call is known (docs/adr, "Calls are billed, not kept").
    """

    class State(models.TextChoices):
        """Where the answer's life is."""

        RUNNING = "running", _("running")
        DONE = "done", _("done")
        CUT = "cut", _("cut short")
        FAILED = "failed", _("failed")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="messages",
        null=True,
        blank=True,
        verbose_name=_("conversation"),
    )
    api_key = models.ForeignKey(
        ApiKey,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("API key"),
    )
    request_digest = models.CharField(_("digest of the request"), max_length=64, default="", editable=False)
    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    # A whole conversation goes at once, so nothing needs to be done for one message's children.
    parent = models.ForeignKey(
        "self",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("follows"),
    )
    client_msg_id = models.CharField(_("client's message id"), max_length=64, null=True)
    offer_slug = models.CharField(_("model"), max_length=64)
    question = models.TextField(_("question"))
    # Ids, in their order. No keys: a question that is asked again has those of the first, and what is not there any
    # more was erased with it.
    # Younger than the table, as the reasoning: the database fills it for the code before, which runs beside ours for a
    # while.
    attachments = ArrayField(
        models.UUIDField(), verbose_name=_("attachments"), default=list, db_default=[], editable=False
    )
    answer = models.TextField(_("answer"), default="")
    # What the model thought before it answered, as its reader was shown it; never sent to a model again.
    reasoning = models.TextField(_("reasoning"), default="", db_default="")
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.RUNNING)
    finish_reason = models.CharField(_("finish reason"), max_length=32, default="")
    failure = models.JSONField(_("failure"), null=True)
    receipt = models.JSONField(_("receipt"), null=True)
    created_at = models.DateTimeField(_("asked"), auto_now_add=True)
    ended_at = models.DateTimeField(_("answered"), null=True)
    # The web process that generates the answer, under the name by which others reach it (chat.relay).
    served_by = models.CharField(_("web process"), max_length=32, default="", editable=False)
    stop_asked_at = models.DateTimeField(_("asked to stop"), null=True, editable=False)
    # Empty: the search reads the message itself.
    indexed_at = models.DateTimeField(_("indexed"), null=True, editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="conversation", name="chat_message_conversation_fk"),
            SameTenant(field="user", name="chat_message_user_fk"),
            SameTenant(field="parent", name="chat_message_parent_fk"),
            SameTenant(field="api_key", name="chat_message_api_key_fk"),
            models.CheckConstraint(
                condition=models.Q(api_key__isnull=True, conversation__isnull=False)
                | models.Q(api_key__isnull=False, conversation__isnull=True, question="", answer="", reasoning=""),
                name="chat_message_calls_keep_no_text",
            ),
            models.UniqueConstraint(fields=["tenant", "user", "client_msg_id"], name="chat_message_client_id"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "conversation", "created_at"], name="chat_message_thread"),
            models.Index(
                fields=["tenant", "user", "-created_at"],
                condition=models.Q(receipt__isnull=False),
                name="chat_message_receipts",
            ),
            models.Index(
                fields=["tenant", "user"],
                condition=models.Q(state="running"),
                name="chat_message_running",
            ),
            models.Index(fields=["tenant", "user", "-id"], name="chat_message_mine"),
            models.Index(
                fields=["tenant", "user"],
                condition=models.Q(indexed_at__isnull=True),
                name="chat_message_to_index",
            ),
            models.Index(
                fields=["tenant", "user", "request_digest", "created_at"],
                condition=models.Q(api_key__isnull=False),
                name="chat_message_calls",
            ),
        ]
