"""Imports that take their time: what was uploaded, how far a worker is with it, and what came of it."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.constraints import BaseConstraint
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from tenants.models.staff import StaffUser
from tenants.models.tenant import LANGUAGES
from tenants.scope import TenantOwned


class ImportJob(TenantOwned):
    """A long file of rows: looked at by a worker, shown, and written by a worker once that is confirmed.

    `done` is moved within the transaction that writes the lines that it counts: it is exact, whatever dies.
    """

    class State(models.TextChoices):
        """A job ends once."""

        LOOKING = "looking", _("being looked at")
        PLANNED = "planned", _("to be confirmed")
        WRITING = "writing", _("being written")
        DONE = "done", _("written")
        FAILED = "failed", _("failed")
        EXPIRED = "expired", _("thrown away")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # The kind of row, by its model's label.
    model = models.CharField(_("kind of row"), max_length=100)
    file_name = models.CharField(_("file"), max_length=120, blank=True, default="")
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.LOOKING)
    staff = models.ForeignKey(
        StaffUser, verbose_name=_("by"), on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    staff_name = models.CharField(_("by"), max_length=160)
    # Of who uploaded it: what a worker says is read in it.
    language = models.CharField(_("language"), max_length=10, default="zh-hans", choices=LANGUAGES)
    # The file as it came; emptied once nothing of it is needed any more.
    content = models.BinaryField(_("content"), default=b"", editable=False)
    # [number of the line, "adds" or "changes"] of what can be written, in the file's order.
    accepted = models.JSONField(_("accepted lines"), default=list, editable=False)
    # What the preview shows: counts, the first lines of each kind, the first faults.
    plan = models.JSONField(_("what it would do"), default=dict, editable=False)
    total = models.PositiveIntegerField(_("lines to write"), default=0)
    done = models.PositiveIntegerField(_("lines done"), default=0)
    # Of the lines done; the others were something else by their turn than what was shown, and so were left out.
    added = models.PositiveIntegerField(_("added"), default=0)
    changed = models.PositiveIntegerField(_("changed"), default=0)
    said = models.TextField(_("what came of it"), blank=True, default="")
    created_at = models.DateTimeField(_("created"), db_default=Now(), editable=False)
    beat_at = models.DateTimeField(_("last sign of life"), db_default=Now(), editable=False)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    class Meta(TenantOwned.Meta):
        verbose_name = _("import from a file")
        verbose_name_plural = _("imports from files")
        constraints: ClassVar[list[BaseConstraint]] = [
            *TenantOwned.Meta.constraints,
            models.CheckConstraint(condition=Q(done__lte=models.F("total")), name="tenants_importjob_done"),
        ]

    @property
    def percent(self) -> int:
        """How far it is with writing."""
        return self.done * 100 // self.total if self.total else 0
