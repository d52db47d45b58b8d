"""What the nightly audit found. The platform's own rows: no tenant has them, and no scope is needed to read them."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class AuditRun(models.Model):
    """One audit of the whole ledger. A run without an end died on the way, and has proved nothing.

    `checked` has an object for each check, in their order: {"invariant", "rows", "breaches"}. `details` has the first
    breaches of each check: {"invariant", "tenant" (slug, "" for the platform), "row", "found"}; `breaches` counts all.
    """

    started_at = models.DateTimeField(_("started"), db_default=Now(), editable=False)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    breaches = models.BigIntegerField(_("breaches"), default=0)
    checked = models.JSONField(_("checked"), default=list)
    details = models.JSONField(_("details"), default=list)

    class Meta:
        verbose_name = _("audit of the ledger")
        verbose_name_plural = _("audits of the ledger")
        indexes: ClassVar = [models.Index(fields=["-started_at"], name="billing_auditrun_started")]

    def __str__(self) -> str:
        """Name the run in the reader's language."""
        return f"{self._meta.verbose_name} {self.pk}"
