"""What chat keeps: upstream accounts, a tenant's model offers, assistant roles, conversations and their messages."""

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from chat.keyring import ApiKey
from tenants.scope import SameTenant, TenantOrPlatformOwned, TenantOwned, WrongScopeError
from tenants.secrets import EncryptedTextField

__all__ = ["ApiKey", "Conversation", "Message", "ModelOffer", "Role", "UpstreamAccount"]


class UpstreamAccount(TenantOrPlatformOwned):
    """An account with a provider that speaks OpenAI's API; without a tenant it is the platform's."""

    name = models.CharField(_("name"), max_length=80)
    # Not a URLField: Django's refuses host names of one label, which containers have.
    base_url = models.CharField(
        _("base URL"),
        max_length=200,
        help_text=_("Ends where /chat/completions begins, usually in /v1."),
        validators=[
            RegexValidator(r"\Ahttps?://[^\s/?#]+[^\s?#]*\Z", _("A URL such as https://api.example.com/v1 is wanted."))
        ],
    )
    api_key = EncryptedTextField(_("API key"), blank=True, default="")
    is_enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("upstream account")
        verbose_name_plural = _("upstream accounts")

    def __str__(self) -> str:
        return self.name


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
        help_text=_("For images that come by the API: so much is frozen for each. 0: the model takes none."),
    )
    quota_group = models.CharField(_("quota group"), max_length=40, default="default")
    free_per_day = models.PositiveIntegerField(_("free answers per user and day"), default=0)
    paid_way = models.BooleanField(_("may be paid for"), default=True)
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


class Role(TenantOwned):
    """An assistant of a tenant: a name for the user, instructions for the model."""

    slug = models.SlugField(_("slug"), max_length=64)
    name = models.CharField(_("name"), max_length=80)
    instructions = models.TextField(_("instructions to the model"))
    is_default = models.BooleanField(_("default"), default=False)
    is_enabled = models.BooleanField(_("enabled"), default=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("assistant role")
        verbose_name_plural = _("assistant roles")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
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
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("last turn"), auto_now_add=True)

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
    answer = models.TextField(_("answer"), default="")
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.RUNNING)
    finish_reason = models.CharField(_("finish reason"), max_length=32, default="")
    failure = models.JSONField(_("failure"), null=True)
    receipt = models.JSONField(_("receipt"), null=True)
    created_at = models.DateTimeField(_("asked"), auto_now_add=True)
    ended_at = models.DateTimeField(_("answered"), null=True)
    # The web process that generates the answer, under the name by which others reach it (chat.relay).
    served_by = models.CharField(_("web process"), max_length=32, default="", editable=False)
    stop_asked_at = models.DateTimeField(_("asked to stop"), null=True, editable=False)

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
                | models.Q(api_key__isnull=False, conversation__isnull=True, question="", answer=""),
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
            models.Index(
                fields=["tenant", "user", "request_digest", "created_at"],
                condition=models.Q(api_key__isnull=False),
                name="chat_message_calls",
            ),
        ]
