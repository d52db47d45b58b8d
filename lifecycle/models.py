"""What is kept of tenants' lives: templates, openings, tokens, checks, claims of domains, events, archives, deletions.

What a tenant is at the moment, its status and why, stands in its own row (`tenants.models.Tenant`).
"""

from datetime import datetime
from typing import Any, ClassVar, Final

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from chat.models import UpstreamAccount
from tenants.models import Reseller, StaffUser, Tenant
from tenants.models.tenant import validate_host
from tenants.scope import TenantOrPlatformOwned, TenantOwned
from tenants.secrets import EncryptedTextField

# Ten times the wholesale price is a typing mistake more often than a price.
MAX_MARKUP_PPM: Final = 10_000_000
_HASHED: Final = Q(digest__regex=r"^[0-9a-f]{64}$")


class OfferTemplate(TenantOrPlatformOwned):
    """What a new tenant begins with: models, and prices that lie by a markup above what it will pay.

    The platform's rows: a key to an upstream account makes them a tenant's kind of row, with no tenant.
    """

    slug = models.SlugField(_("slug"), max_length=40, unique=True)
    name = models.CharField(_("name"), max_length=80)
    markup_ppm = models.IntegerField(
        _("retail above wholesale, millionths"),
        default=500_000,
        validators=[MinValueValidator(0), MaxValueValidator(MAX_MARKUP_PPM)],
    )
    free_per_day = models.PositiveIntegerField(_("free answers of a user in a day"), default=3)
    guest_allowance = models.PositiveIntegerField(_("free answers of a guest in all"), default=3)
    instructions = models.TextField(
        _("instructions of the first assistant"), blank=True, default="", help_text=_("Users never see them.")
    )
    is_default = models.BooleanField(_("default"), default=False)
    is_enabled = models.BooleanField(_("enabled"), default=True)

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("template of models and prices")
        verbose_name_plural = _("templates of models and prices")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.CheckConstraint(condition=Q(tenant__isnull=True), name="lifecycle_offertemplate_platform"),
            models.CheckConstraint(
                condition=Q(markup_ppm__gte=0, markup_ppm__lte=MAX_MARKUP_PPM), name="lifecycle_offertemplate_markup"
            ),
            models.UniqueConstraint(
                fields=["is_default"], condition=Q(is_default=True), name="lifecycle_offertemplate_one_default"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class TemplateModel(TenantOrPlatformOwned):
    """A model of a template: becomes a tenant's model offer, on an upstream account of the platform's."""

    template = models.ForeignKey(
        OfferTemplate, verbose_name=_("template"), on_delete=models.CASCADE, related_name="models"
    )
    slug = models.SlugField(_("slug"), max_length=64)
    name = models.CharField(_("name"), max_length=80)
    sku = models.CharField(_("price list item"), max_length=80)
    account = models.ForeignKey(
        UpstreamAccount, verbose_name=_("upstream account"), on_delete=models.PROTECT, related_name="+"
    )
    upstream_model = models.CharField(_("model's name upstream"), max_length=120)
    context_window = models.PositiveIntegerField(_("context window, tokens"), default=8192)
    max_output_tokens = models.PositiveIntegerField(_("longest answer, tokens"), default=2048)
    token_ratio_percent = models.PositiveSmallIntegerField(
        _("tokens of this model per 100 estimated"),
        default=120,
        validators=[MinValueValidator(100), MaxValueValidator(1000)],
    )
    quota_group = models.CharField(_("quota group"), max_length=40, default="default")
    position = models.IntegerField(
        _("position"), default=0, help_text=_("Smaller numbers come first; the first is the tenant's default.")
    )

    class Meta(TenantOrPlatformOwned.Meta):
        verbose_name = _("model of a template")
        verbose_name_plural = _("models of a template")
        constraints: ClassVar = [
            *TenantOrPlatformOwned.Meta.constraints,
            models.CheckConstraint(condition=Q(tenant__isnull=True), name="lifecycle_templatemodel_platform"),
            models.UniqueConstraint(fields=["template", "slug"], name="lifecycle_templatemodel_slug"),
        ]

    def __str__(self) -> str:
        return self.slug


class Opening(models.Model):
    """A tenant that is being opened, or was: what was typed so far, and by whom.

    `key` opens once for a reseller, whoever asks again. Nothing that was typed is lost: `answers` has it as it stood in
    the fields, right or wrong, by step; secrets stand apart, encrypted, and are emptied once they are in their places.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    reseller = models.ForeignKey(
        Reseller, verbose_name=_("reseller"), on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    key = models.CharField(_("key"), max_length=64)
    staff = models.ForeignKey(
        StaffUser, verbose_name=_("begun by"), on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    answers = models.JSONField(_("typed so far"), default=dict, blank=True)
    secrets = EncryptedTextField(_("secrets"), blank=True, default="", editable=False)
    digest = models.CharField(_("digest of what was asked for"), max_length=64, blank=True, default="")
    slug = models.CharField(_("slug of the tenant"), max_length=40, blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    opened_at = models.DateTimeField(_("opened"), null=True, blank=True)

    class Meta:
        verbose_name = _("opening of a tenant")
        verbose_name_plural = _("openings of tenants")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["reseller", "key"], nulls_distinct=False, name="lifecycle_opening_once"),
            models.CheckConstraint(
                condition=Q(slug="", opened_at__isnull=True) | (~Q(slug="") & Q(opened_at__isnull=False)),
                name="lifecycle_opening_opened",
            ),
        ]

    def __str__(self) -> str:
        """Name the row in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"


class ResellerToken(models.Model):
    """Opens the API of openings to a program of a reseller, or (without one) of the operator.

    Only the token's SHA-256 is kept: it is 256 random bits, so no slow hash is needed.
    """

    reseller = models.ForeignKey(
        Reseller,
        verbose_name=_("reseller"),
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text=_("Empty: a program of the operator's, which may open tenants of any reseller or of none."),
    )
    name = models.CharField(_("name"), max_length=60)
    digest = models.CharField(_("digest"), max_length=64, unique=True, editable=False)
    last4 = models.CharField(_("last characters"), max_length=4, editable=False)
    created_by = models.CharField(_("by"), max_length=160, editable=False)
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("token of a program")
        verbose_name_plural = _("tokens of programs")
        constraints: ClassVar = [models.CheckConstraint(condition=_HASHED, name="lifecycle_resellertoken_hashed")]

    def __str__(self) -> str:
        return self.name


class Check(TenantOwned):
    """A step of a tenant's checklist, as it stood when it was looked at last."""

    class Kind(models.TextChoices):
        """What is looked at, in the order of the list."""

        MODELS = "models", _("models and prices")
        WALLET = "wallet", _("wholesale wallet")
        DOMAIN = "domain", _("address")
        CERTIFICATE = "certificate", _("certificate")
        CHAT = "chat", _("a first answer")
        STAFF = "staff", _("staff log-in")
        MINI_PROGRAM = "mini_program", _("mini-program")
        MERCHANT = "merchant", _("payment settings")
        PAYMENT = "payment", _("a payment of ¥0.01, paid back")

    class State(models.TextChoices):
        """A step is done when it is green; one that is put off does not hinder the others."""

        WAITING = "waiting", _("not looked at yet")
        GREEN = "green", _("passed")
        RED = "red", _("not yet")
        LATER = "later", _("not set up")

    kind = models.CharField(_("step"), max_length=16, choices=Kind.choices)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.WAITING)
    # A word of lifecycle.checks.WORDS and what stands in its gaps: said in the reader's language.
    word = models.CharField(_("what was found"), max_length=40, blank=True, default="")
    facts = models.JSONField(_("facts"), default=dict, blank=True)
    checked_at = models.DateTimeField(_("looked at"), null=True, blank=True)
    checked_by = models.CharField(_("by"), max_length=160, blank=True, default="")

    class Meta(TenantOwned.Meta):
        verbose_name = _("step of the checklist")
        verbose_name_plural = _("steps of the checklist")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "kind"], name="lifecycle_check_once"),
        ]

    def __str__(self) -> str:
        return str(self.get_kind_display())


class DomainClaim(TenantOwned):
    """A name that a tenant says is its own, until DNS says so too; then it is a `Domain`, and this row goes.

    It is a table of its own: nothing that looks for a tenant by its host reads it, so an unproven name serves nothing
    and stands in nobody's way. Two tenants may claim the same one; the first whose proof is there has it.
    """

    host = models.CharField(_("host"), max_length=240, validators=[validate_host])
    # A word of lifecycle.claims.WORDS and what stands in its gaps, as in `Check`.
    word = models.CharField(_("what was found"), max_length=40, blank=True, default="", editable=False)
    facts = models.JSONField(_("facts"), default=dict, blank=True, editable=False)
    claimed_by = models.CharField(_("entered by"), max_length=160, editable=False)
    created_at = models.DateTimeField(_("entered"), db_default=Now(), editable=False)
    checked_at = models.DateTimeField(_("looked at"), null=True, blank=True, editable=False)
    # Until then beat looks again by itself.
    watched_until = models.DateTimeField(_("looked at by itself until"), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("domain to be proven")
        verbose_name_plural = _("domains to be proven")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "host"], name="lifecycle_domainclaim_once"),
            models.CheckConstraint(condition=Q(host__regex=r"^[a-z0-9.-]+$"), name="lifecycle_domainclaim_host"),
        ]

    def __str__(self) -> str:
        return self.host


class TenantEvent(TenantOwned):
    """What happened to a tenant, when, by whom and why. Rows are only ever added (a trigger refuses the rest)."""

    class Kind(models.TextChoices):
        """What happened."""

        OPENED = "opened", _("opened")
        ACTIVATED = "activated", _("activated")
        TRIAL_SET = "trial_set", _("trial set")
        TRIAL_NOTICE = "trial_notice", _("told of the trial's end")
        SUSPENDED = "suspended", _("suspended")
        RESUMED = "resumed", _("resumed")
        MOVED = "moved", _("moved to another reseller")
        DOMAIN_PROVEN = "domain_proven", _("domain proven")
        EXPORTED = "exported", _("exported")
        DELETION_ASKED = "deletion_asked", _("deletion asked for")
        DELETION_CANCELLED = "deletion_cancelled", _("deletion called off")
        DELETED = "deleted", _("deleted")

    kind = models.CharField(_("event"), max_length=20, choices=Kind.choices)
    status = models.CharField(_("status after it"), max_length=10, choices=Tenant.Status.choices)
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    actor = models.CharField(_("by"), max_length=160)
    facts = models.JSONField(_("facts"), default=dict, blank=True)
    created_at = models.DateTimeField(_("when"), db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        verbose_name = _("event of a tenant's life")
        verbose_name_plural = _("events of tenants' lives")
        indexes: ClassVar = [models.Index(fields=["tenant", "-created_at"], name="lifecycle_event_recent")]


class TenantExport(TenantOwned):
    """An archive of everything of a tenant: made by a worker, kept for some days, then gone."""

    class State(models.TextChoices):
        """An archive is ready once."""

        QUEUED = "queued", _("waiting")
        RUNNING = "running", _("under way")
        DONE = "done", _("ready")
        FAILED = "failed", _("failed")
        EXPIRED = "expired", _("thrown away")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.QUEUED)
    asked_by = models.CharField(_("asked for by"), max_length=160)
    rows_done = models.BigIntegerField(_("rows written"), default=0)
    rows_total = models.BigIntegerField(_("rows in all"), default=0)
    size = models.BigIntegerField(_("bytes"), default=0)
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True, default="")
    created_at = models.DateTimeField(_("asked for"), db_default=Now(), editable=False)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    expires_at = models.DateTimeField(_("kept until"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("archive of a tenant")
        verbose_name_plural = _("archives of tenants")

    @property
    def percent(self) -> int:
        """How far it is."""
        if self.state in {self.State.DONE, self.State.EXPIRED}:
            return 100
        return min(99, self.rows_done * 100 // self.rows_total) if self.rows_total else 0


class TenantDeletion(TenantOwned):
    """That a tenant is to be deleted, when, and the proof of what was: counts by kind of row, and one digest."""

    class State(models.TextChoices):
        """A deletion that is done stays so."""

        WAITING = "waiting", _("in the days of grace")
        CANCELLED = "cancelled", _("called off")
        DONE = "done", _("done")

    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.WAITING)
    reason = models.CharField(_("reason"), max_length=200)
    asked_by = models.CharField(_("asked for by"), max_length=160)
    created_at = models.DateTimeField(_("asked for"), db_default=Now(), editable=False)
    due_at = models.DateTimeField(_("deleted from"))
    decided_by = models.CharField(_("called off, or done, by"), max_length=160, blank=True, default="")
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    deleted = models.JSONField(_("rows deleted"), default=dict, blank=True)
    anonymised = models.JSONField(_("rows anonymised"), default=dict, blank=True)
    kept = models.JSONField(_("rows kept"), default=dict, blank=True)
    digest = models.CharField(_("digest of the deleted rows"), max_length=64, blank=True, default="")

    class Meta(TenantOwned.Meta):
        verbose_name = _("deletion of a tenant")
        verbose_name_plural = _("deletions of tenants")
        constraints: ClassVar = [
            *TenantOwned.Meta.constraints,
            models.UniqueConstraint(
                fields=["tenant"], condition=Q(state="waiting"), name="lifecycle_tenantdeletion_one_waiting"
            ),
        ]

    def is_due(self, at: datetime) -> bool:
        """Whether the days of grace are over."""
        return self.state == self.State.WAITING and self.due_at <= at

    def as_proof(self) -> dict[str, Any]:
        """Return what can be shown of a deletion that is done."""
        return {
            "deleted": self.deleted,
            "anonymised": self.anonymised,
            "kept": self.kept,
            "digest": self.digest,
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
        }
