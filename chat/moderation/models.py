"""Words, a tenant's settings, and the evidence of what was hit."""

from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from chat.moderation.text import fold
from tenants.models import Tenant
from tenants.scope import SameTenant, TenantOrPlatformOwned, TenantOwned, WrongScopeError
from tenants.secrets import EncryptedTextField

MAX_WORD_CHARACTERS = 64


class Action(models.TextChoices):
    """What becomes of a text with the word in it. ALLOW makes an exception of a longer text that holds a word."""

    BLOCK = "block", _("refuse the text")
    MASK = "mask", _("show asterisks instead")
    FLAG = "flag", _("let it pass and note it")
    ALLOW = "allow", _("exception: never hit within it")


class Category(models.TextChoices):
    """What a word is about, for people."""

    POLITICS = "politics", _("politics")
    PORN = "porn", _("pornography")
    VIOLENCE = "violence", _("violence")
    ABUSE = "abuse", _("abuse")
    ILLEGAL = "illegal", _("illegal trade")
    ADVERTISING = "advertising", _("advertising")
    OTHER = "other", _("other")


def validate_word(word: str) -> None:
    """Refuse a word of nothing but blanks, signs and asterisks: it would match nothing, or everything."""
    if not fold(word).text:
        raise ValidationError(_("This word has no letter, digit or character that could be found in a text."))


class ModerationWord(TenantOrPlatformOwned):
    """A word of a tenant's list, or, without a tenant, of the platform's, which holds for every tenant.

    `key` is the word as it is matched; a list has it once, however it is written. A trigger of migration 0004 raises
    `Tenant.moderation_revision` with each change, which is how every process hears of it.
    """

    word = models.CharField(
        _("word"),
        max_length=MAX_WORD_CHARACTERS,
        validators=[validate_word],
        help_text=_(
            "Found in any case, width and script, with blanks between its characters too. Words in Latin letters are "
            "found as whole words; an asterisk before or after lets others go on there: fuck*."
        ),
    )
    key = models.CharField(max_length=4 * MAX_WORD_CHARACTERS, editable=False)
    category = models.CharField(_("category"), max_length=12, choices=Category.choices, default=Category.OTHER)
    action = models.CharField(_("action"), max_length=6, choices=Action.choices, default=Action.BLOCK)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("moderation word")
        verbose_name_plural = _("moderation words")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["tenant", "key"],
                name="chat_moderationword_once",
                nulls_distinct=False,
                violation_error_message=_("This list has the word already, perhaps in another spelling."),
            ),
            models.CheckConstraint(condition=~models.Q(key=""), name="chat_moderationword_not_empty"),
        ]

    def clean(self) -> None:
        """Give the word its key, so that the form can say that the list has it."""
        self.key = key_of(self.word)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, with the key that belongs to the word."""
        self.key = key_of(self.word)
        super().save(*args, **kwargs)


def key_of(word: str) -> str:
    """Return a word as it is told from others: folded, with the asterisks at its ends."""
    start, end = "*" * word.startswith("*"), "*" * word.endswith("*")
    return f"{start}{fold(word).text}{end}"


class ModerationSettings(TenantOwned):
    """How a tenant has texts checked beyond its words: by WeChat, by an endpoint, and what if neither answers."""

    class WhenAway(models.TextChoices):
        """What becomes of a text that could not be checked."""

        PASS = "pass", _("let the text pass")
        REFUSE = "refuse", _("refuse the text")

    class Scene(models.IntegerChoices):
        """What WeChat is told that a text is for."""

        PROFILE = 1, _("profile")
        COMMENT = 2, _("comment")
        FORUM = 3, _("forum")
        SOCIAL = 4, _("social log")

    tenant = models.OneToOneField(  # the same key, but one to one
        Tenant, verbose_name=_("tenant"), on_delete=models.PROTECT, related_name="+"
    )
    wechat = models.BooleanField(
        _("check with WeChat"),
        default=False,
        help_text=_("msg_sec_check, for users of the tenant's mini-program. It knows no others."),
    )
    wechat_scene = models.PositiveSmallIntegerField(
        _("WeChat's scene"),
        choices=Scene.choices,
        default=Scene.SOCIAL,
        validators=[MinValueValidator(1), MaxValueValidator(4)],
    )
    account = models.ForeignKey(
        "chat.UpstreamAccount",
        verbose_name=_("account of a moderation endpoint"),
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text=_("One that speaks OpenAI's /moderations; for users whom WeChat does not check."),
    )
    endpoint_model = models.CharField(
        _("the endpoint's model"), max_length=120, blank=True, default="", help_text=_("Empty: the endpoint's own.")
    )
    checks_output = models.BooleanField(
        _("check answers too"),
        default=False,
        help_text=_("Each part of an answer then waits for its check: about half a second."),
    )
    when_away = models.CharField(
        _("when the check does not answer"), max_length=6, choices=WhenAway.choices, default=WhenAway.PASS
    )

    class Meta(TenantOwned.Meta):
        verbose_name = _("moderation settings")
        verbose_name_plural = _("moderation settings")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(
                condition=models.Q(when_away__in=["pass", "refuse"]), name="chat_moderationsettings_when_away"
            ),
        ]

    def clean(self) -> None:
        """Refuse another tenant's account, in words for a form."""
        if self.account_id and not self._may_use_account():
            raise ValidationError({"account": _("This account belongs to another tenant.")})

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; refuse another tenant's account, which no composite key can, since the platform owns some."""
        if not self._may_use_account():
            raise WrongScopeError(f"moderation of tenant {self.tenant_id} by an account of another tenant")
        super().save(*args, **kwargs)

    def _may_use_account(self) -> bool:
        return self.account is None or self.account.tenant_id in (None, self.tenant_id)


class ModerationHit(TenantOwned):
    """Evidence: a word, or a checker's label, that was found in a question or an answer.

    `message_id` names a row of Message where there is one: a refused question leaves none.
    """

    class Direction(models.TextChoices):
        """Whose text it was."""

        QUESTION = "question", _("question")
        ANSWER = "answer", _("answer")

    class Source(models.TextChoices):
        """Who found it."""

        TENANT = "tenant", _("the tenant's list")
        PLATFORM = "platform", _("the platform's list")
        WECHAT = "wechat", _("WeChat")
        ENDPOINT = "endpoint", _("moderation endpoint")

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    message_id = models.UUIDField(_("message"), null=True)
    direction = models.CharField(_("found in"), max_length=8, choices=Direction.choices)
    source = models.CharField(_("found by"), max_length=8, choices=Source.choices)
    category = models.CharField(_("category"), max_length=64)
    word = models.CharField(_("word"), max_length=MAX_WORD_CHARACTERS, blank=True)
    action = models.CharField(_("action"), max_length=6, choices=Action.choices)
    text = EncryptedTextField(_("text"))
    created_at = models.DateTimeField(_("when"), auto_now_add=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("moderation hit")
        verbose_name_plural = _("moderation hits")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_moderationhit_user_fk"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-created_at"], name="chat_moderationhit_recent"),
        ]
