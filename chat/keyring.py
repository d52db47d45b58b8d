"""API keys of end users: what programs come in with at the OpenAI-compatible API."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.scope import SameTenant, TenantOwned

# What every secret begins with: secret scanners and saas.logging know it by that.
KEY_PREFIX = "sk-bny-"


class ApiKey(TenantOwned):
    """A key of a user's; only the SHA-256 of the secret is kept, since it is 256 random bits.

    `spent` counts what the ended answers of the key were charged, micro-yuan; what the running ones may cost at most
    is in their holds. Keys are revoked, never deleted: receipts name them.
    """

    user = models.ForeignKey(
        "tenants.EndUser",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("user"),
    )
    name = models.CharField(_("name"), max_length=64)
    digest = models.CharField(_("digest"), max_length=64, editable=False)
    last4 = models.CharField(_("last four characters"), max_length=4, editable=False)
    allowed_models = models.JSONField(_("allowed models"), default=list, blank=True, help_text=_("Slugs; empty: all."))
    spend_limit = models.BigIntegerField(_("spending limit, micro-yuan"), null=True, blank=True)
    spent = models.BigIntegerField(_("spent, micro-yuan"), default=0, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            SameTenant(field="user", name="chat_apikey_user_fk"),
            models.UniqueConstraint(fields=["tenant", "digest"], name="chat_apikey_digest"),
            models.CheckConstraint(condition=Q(digest__regex=r"^[0-9a-f]{64}$"), name="chat_apikey_hashed"),
            models.CheckConstraint(
                condition=Q(spent__gte=0) & (Q(spend_limit__isnull=True) | Q(spend_limit__gte=0)),
                name="chat_apikey_amounts",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "user"], name="chat_apikey_user")]

    @property
    def hint(self) -> str:
        """What may be shown of the secret."""
        return f"{KEY_PREFIX}…{self.last4}"

    @property
    def is_expired(self) -> bool:
        """Whether its time has passed."""
        return self.expires_at is not None and self.expires_at <= timezone.now()

    def allows(self, slug: str) -> bool:
        """Whether it may call the model of that slug."""
        return not self.allowed_models or slug in self.allowed_models
