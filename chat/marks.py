"""What hangs on conversations and messages: files, links that share them, opinions, reports, the search's index.

Models of chat that name the others by their labels only; `chat.models` brings them in for Django.
"""

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from tenants.scope import SameTenant, TenantOwned


def _key(target: str, name: Any, **fields: Any) -> Any:
    """Return a key to a tenant's row; its composite constraint, and its index if it needs one, are the model's."""
    fields = {"on_delete": models.CASCADE, **fields}
    return models.ForeignKey(target, verbose_name=name, db_constraint=False, db_index=False, related_name="+", **fields)


class Attachment(TenantOwned):
    """A picture or a text that a user sends along with a question, made harmless when it came (`chat.uploads`).

    `message` is the first question that it was sent with; empty: none yet, and then it goes after a day. Questions that
    are asked again name it, too (`Message.attachments`), within one conversation. The bytes are here, where every web
    process finds them and what erases a conversation erases them (docs/adr, "Attachments lie in the database").
    """

    class Kind(models.TextChoices):
        """What a model is given of it."""

        IMAGE = "image", _("picture")
        TEXT = "text", _("text")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = _key("tenants.EndUser", _("user"), on_delete=models.PROTECT)
    message = _key("chat.Message", _("message"), null=True, blank=True)
    kind = models.CharField(_("kind"), max_length=5, choices=Kind.choices)
    name = models.CharField(_("name"), max_length=120)
    media_type = models.CharField(_("media type"), max_length=40)
    # Of what is kept, bytes and pixels.
    size = models.PositiveIntegerField(_("size"))
    width = models.PositiveSmallIntegerField(_("width"), default=0)
    height = models.PositiveSmallIntegerField(_("height"), default=0)
    # Of what came, so that the same, sent once more, is not kept twice.
    sha256 = models.CharField(_("SHA-256"), max_length=64)
    text = models.TextField(_("text"), blank=True, default="")
    data = models.BinaryField(_("picture"), default=b"")
    created_at = models.DateTimeField(_("uploaded"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("attachment")
        verbose_name_plural = _("attachments")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_attachment_user_fk"),
            SameTenant(field="message", name="chat_attachment_message_fk"),
            models.CheckConstraint(
                condition=models.Q(kind="image", text="") | models.Q(kind="text", data=b""),
                name="chat_attachment_one_content",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "user"], name="chat_attachment_mine"),
            models.Index(fields=["tenant", "message"], name="chat_attachment_of"),
            models.Index(
                fields=["tenant", "created_at"], condition=models.Q(message__isnull=True), name="chat_attachment_unsent"
            ),
        ]


class SearchEntry(TenantOwned):
    """A message's terms, in which the search looks first (docs/adr, "Search by pairs of characters").

    A term holds the tenant and the user (`chat.search`), so the index has no list that two users share.
    """

    user = _key("tenants.EndUser", _("user"))
    message = _key("chat.Message", _("message"))
    terms = ArrayField(models.IntegerField(), verbose_name=_("terms"))

    class Meta(TenantOwned.Meta):
        verbose_name = _("search entry")
        verbose_name_plural = _("search entries")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_searchentry_user_fk"),
            SameTenant(field="message", name="chat_searchentry_message_fk"),
            models.UniqueConstraint(fields=["tenant", "message"], name="chat_searchentry_once"),
        ]
        indexes: ClassVar = [GinIndex(fields=["terms"], name="chat_searchentry_terms")]


class ShareLink(TenantOwned):
    """A link that shows a conversation, as it was when shared, to whoever has it. Only the token's SHA-256 is kept."""

    user = _key("tenants.EndUser", _("user"))
    conversation = _key("chat.Conversation", _("conversation"))
    digest = models.CharField(_("digest"), max_length=64)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires"))
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("share link")
        verbose_name_plural = _("share links")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_sharelink_user_fk"),
            SameTenant(field="conversation", name="chat_sharelink_conversation_fk"),
            models.UniqueConstraint(fields=["tenant", "digest"], name="chat_sharelink_digest"),
            models.CheckConstraint(condition=models.Q(digest__regex=r"^[0-9a-f]{64}$"), name="chat_sharelink_hashed"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "user", "-created_at"], name="chat_sharelink_mine"),
            models.Index(fields=["tenant", "conversation"], name="chat_sharelink_conversation"),
        ]


class Feedback(TenantOwned):
    """What a user thinks of an answer."""

    class Rating(models.TextChoices):
        """Up or down."""

        UP = "up", _("good")
        DOWN = "down", _("bad")

    user = _key("tenants.EndUser", _("user"))
    message = _key("chat.Message", _("message"))
    rating = models.CharField(_("rating"), max_length=4, choices=Rating.choices)
    reason = models.CharField(_("reason"), max_length=500, blank=True, default="")
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("last changed"), auto_now=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("feedback")
        verbose_name_plural = _("feedback")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_feedback_user_fk"),
            SameTenant(field="message", name="chat_feedback_message_fk"),
            models.UniqueConstraint(fields=["tenant", "message"], name="chat_feedback_once"),
            models.CheckConstraint(condition=models.Q(rating__in=["up", "down"]), name="chat_feedback_rating"),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "-updated_at"], name="chat_feedback_latest")]


class Report(TenantOwned):
    """A complaint about an answer, by its user or by a reader of a shared conversation, until staff have dealt with it.

    It holds what was said, since the user may delete the conversation.
    """

    class Category(models.TextChoices):
        """What is wrong with it."""

        ILLEGAL = "illegal", _("illegal")
        SEXUAL = "sexual", _("sexual")
        VIOLENCE = "violence", _("violent or dangerous")
        MINORS = "minors", _("harmful to minors")
        HATE = "hate", _("insulting or discriminating")
        PRIVACY = "privacy", _("personal data")
        RIGHTS = "rights", _("someone's rights")
        UNTRUE = "untrue", _("untrue")
        OTHER = "other", _("something else")

    class State(models.TextChoices):
        """Whether staff have dealt with it."""

        OPEN = "open", _("to be dealt with")
        UPHELD = "upheld", _("upheld")
        REJECTED = "rejected", _("rejected")

    # Empty: a reader of a shared conversation, of whom nothing is known.
    reporter = _key("tenants.EndUser", _("reporter"), on_delete=models.PROTECT, null=True, blank=True)
    message = _key("chat.Message", _("message"))
    share = _key("chat.ShareLink", _("share link"), null=True, blank=True)
    category = models.CharField(_("category"), max_length=10, choices=Category.choices)
    detail = models.CharField(_("detail"), max_length=1000, blank=True, default="")
    question = models.TextField(_("question"))
    answer = models.TextField(_("answer"))
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.OPEN)
    note = models.CharField(_("note of staff"), max_length=500, blank=True, default="")
    handled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("dealt with by"),
    )
    handled_at = models.DateTimeField(_("dealt with"), null=True, blank=True)
    created_at = models.DateTimeField(_("reported"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("report")
        verbose_name_plural = _("reports")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="reporter", name="chat_report_reporter_fk"),
            SameTenant(field="message", name="chat_report_message_fk"),
            SameTenant(field="share", name="chat_report_share_fk"),
            models.CheckConstraint(
                condition=models.Q(state="open", handled_at__isnull=True)
                | models.Q(state__in=["upheld", "rejected"], handled_at__isnull=False),
                name="chat_report_handled",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "state", "-created_at"], name="chat_report_state")]


class ConversationLook(TenantOwned):
    """That somebody of the staff, the tenant's or the operator's, has read a conversation, and why."""

    conversation = _key("chat.Conversation", _("conversation"))
    user = _key("tenants.EndUser", _("user"), on_delete=models.PROTECT)
    staff = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        db_index=False,
        related_name="+",
        null=True,
        blank=True,
        verbose_name=_("staff user"),
    )
    # A copy: it is still known who looked when they are gone.
    staff_name = models.CharField(_("by"), max_length=150)
    reason = models.CharField(_("reason"), max_length=200)
    created_at = models.DateTimeField(_("looked at"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("look at a conversation")
        verbose_name_plural = _("looks at conversations")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="conversation", name="chat_conversationlook_conversation_fk"),
            SameTenant(field="user", name="chat_conversationlook_user_fk"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "conversation"], name="chat_conversationlook_of"),
            models.Index(fields=["tenant", "user"], name="chat_conversationlook_user"),
        ]
