"""Imports of long files: a worker looks, a person confirms, a worker writes, some hundred lines in a transaction.

begin     keep a file, and have a worker look at it
confirm   have what was shown written
work      the worker's part: read a file and make its plan, or write it, by `write_some`
sweep     go on with jobs whose worker died, throw away what is old

`ImportJob.done` moves within the transaction that writes the lines which it counts. So a job that dies goes on where it
stopped, two deliveries of it write no line twice, and one that cannot go on says what is written. A line that is by its
turn something else than what was shown is left out, and counted.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery import current_app
from django.apps import apps
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, IntegrityError, models, transaction
from django.db.models.functions import JSONObject, Now
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError

from tenants import scope
from tenants.errors import ErrorCode, ProductError
from tenants.imports import SHOWN, Importer, Line, Plan, SheetError, read_sheet
from tenants.models import ImportJob, StaffUser, Tenant

if TYPE_CHECKING:
    from django.db.models import QuerySet

log = structlog.get_logger(__name__)

State = ImportJob.State
TASK: Final = "tenants.tasks.work_on_import"
# Lines that one transaction writes: short enough that nobody waits for it, long enough to be quick.
CHUNK: Final = 200
# A worker that has not given a sign of life for so long is dead.
_SILENT: Final = timedelta(minutes=3)
# What nobody confirms is thrown away after it; files are personal data.
_KEPT: Final = timedelta(hours=24)
_IMPORTERS: Final[dict[str, Importer]] = {}


def register(model: type[models.Model], importer: Importer) -> None:
    """Know how rows of a kind are imported."""
    _IMPORTERS[model._meta.label] = importer


def importer_of(label: str) -> Importer:
    """Return how rows of a kind are imported, by its model's label."""
    return _IMPORTERS[label]


def begin(*, tenant: Tenant, staff: StaffUser, model: type[models.Model], name: str, content: bytes) -> ImportJob:
    """Keep a file and have a worker look at it; in the tenant's scope, within a transaction.

    Raises ProductError QUOTA "import_running" while one of the tenant's is under way.
    """
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    if ImportJob.objects.filter(state__in=[State.LOOKING, State.WRITING]).exists():
        raise ProductError(
            ErrorCode.QUOTA,
            _("An import is under way already. Please wait for it."),
            type="import_running",
            scope="tenant",
            action="wait",
            reset_at=None,
            used=1,
            limit=1,
        )
    job = ImportJob.objects.create(
        tenant=tenant,
        model=model._meta.label,
        file_name=name[:120],
        staff=staff,
        staff_name=staff.get_username(),
        language=translation.get_language() or tenant.language,
        content=content,
    )
    transaction.on_commit(partial(_enqueue, job))
    return job


def confirm(*, job: ImportJob, staff: StaffUser) -> bool:
    """Have what was shown written, on behalf of who confirms; False where it is not to be confirmed any more."""
    Tenant.objects.select_for_update(no_key=True).get(pk=job.tenant_id)  # one at a time
    if ImportJob.objects.filter(state__in=[State.LOOKING, State.WRITING]).exists():
        return False
    planned = ImportJob.objects.filter(pk=job.pk, state=State.PLANNED, total__gt=0)
    if not planned.update(state=State.WRITING, staff=staff, staff_name=staff.get_username(), beat_at=Now()):
        return False
    transaction.on_commit(partial(_enqueue, job))
    return True


def throw_away(*, job: ImportJob) -> bool:
    """Throw away what was looked at and is not wanted; False where it is not to be confirmed any more."""
    return _end(ImportJob.objects.filter(pk=job.pk, state=State.PLANNED), State.EXPIRED, "")


def work(*, tenant_id: int, job_id: uuid.UUID) -> str:
    """Do what is to be done with a job; the worker's part. Return its state after it."""
    with scope.tenant(tenant_id):
        job = ImportJob.objects.select_related("tenant").get(pk=job_id)
        with translation.override(job.language):
            try:
                if job.state == State.LOOKING:
                    _look(job)
                elif job.state == State.WRITING:
                    _write(job)
            except DatabaseError:
                raise  # it is away: the sweep goes on with the job when it is back
            except Exception:
                log.exception("import_broke", job=str(job_id), model=job.model)
                _stop(job, _("It broke off: support finds the reason in the log."))
        return ImportJob.objects.values_list("state", flat=True).get(pk=job_id)


def write_some(job: ImportJob, importer: Importer, lines: dict[int, Line]) -> bool:
    """Write the next lines, all or none of them; return whether some are left. Raises ProductError."""
    for _try in range(3):
        try:
            with transaction.atomic():
                return _write_next(job, importer, lines)
        except IntegrityError:
            # Somebody wrote such a row at this moment: looked at again, its line is another one.
            log.info("import_met_somebody", job=str(job.pk))
    raise ProductError(ErrorCode.INVALID, _("Something has changed meanwhile. Please look again."), type="import_met")


def sweep() -> int:
    """Go on with jobs whose worker died, and throw away what nobody confirmed; return how many."""
    with scope.platform("imports of every tenant"):
        waiting = ImportJob.objects.filter(state__in=[State.LOOKING, State.WRITING], beat_at__lt=Now() - _SILENT)
        silent = list(waiting.defer("content", "accepted", "plan"))
        for job in silent:
            if job.created_at < timezone.now() - _KEPT:
                with translation.override(job.language):
                    _stop(job, _("It broke off: support finds the reason in the log."))
                continue
            ImportJob.objects.filter(pk=job.pk).update(beat_at=Now())
            log.warning("import_silent", job=str(job.pk), model=job.model, done=job.done)
            _enqueue(job)
        old = ImportJob.objects.filter(state=State.PLANNED, created_at__lt=Now() - _KEPT)
        return len(silent) + sum(_end(old.filter(pk=pk), State.EXPIRED, "") for pk in old.values_list("pk", flat=True))


def _enqueue(job: ImportJob) -> None:
    """Tell a worker. Where the broker is away the sweep does, later."""
    try:
        current_app.send_task(TASK, args=(str(job.pk), job.tenant_id), retry=False)
    except OperationalError as fault:
        log.warning("import_not_enqueued", job=str(job.pk), fault=str(fault))


def _look(job: ImportJob) -> None:
    importer = importer_of(job.model)
    try:
        lines = read_sheet(bytes(job.content), importer.columns)
    except SheetError as fault:
        _stop(job, str(fault))
        return
    ImportJob.objects.filter(pk=job.pk).update(beat_at=Now())
    plan = importer.plan(lines)
    accepted = [(one.number, kind) for kind in ("adds", "changes") for one in getattr(plan, kind)]
    looking = ImportJob.objects.filter(pk=job.pk, state=State.LOOKING)
    looking.update(
        state=State.PLANNED,
        accepted=sorted(accepted),
        plan=_shown(plan),
        total=len(accepted),
        done=0,
        beat_at=Now(),
    )


def _shown(plan: Plan) -> dict[str, Any]:
    """Return what the preview shows, all of it bounded."""
    return {
        "counts": {
            "adds": len(plan.adds),
            "changes": len(plan.changes),
            "same": plan.same,
            "bad": len(plan.faults),
        },
        "adds": [[one.number, list(one.shown)] for one in plan.adds[:SHOWN]],
        "changes": [[one.number, list(one.shown)] for one in plan.changes[:SHOWN]],
        "faults": [[one.number, one.said] for one in plan.faults[: 10 * SHOWN]],
    }


def _write(job: ImportJob) -> None:
    importer = importer_of(job.model)
    lines = {line.number: line for line in read_sheet(bytes(job.content), importer.columns)}
    try:
        while write_some(job, importer, lines):
            pass
    except ProductError as refused:
        _stop(job, str(refused.msg))


def _write_next(job: ImportJob, importer: Importer, lines: dict[int, Line]) -> bool:
    # Two deliveries of a job take turns, and each finds what the other has done.
    rows = ImportJob.objects.select_for_update(of=("self",)).select_related("tenant", "staff")
    now = rows.defer("content", "plan").get(pk=job.pk)
    if now.state != State.WRITING:
        return False
    if now.staff is None:
        raise ProductError(ErrorCode.INVALID, _("Who confirmed it is not there any more."), type="import_orphaned")
    wanted = now.accepted[now.done : now.done + CHUNK]
    plan = _still(importer.plan([lines[number] for number, _kind in wanted]), wanted)
    importer.write(plan, tenant=now.tenant, staff=now.staff)
    now.done += len(wanted)
    now.added += len(plan.adds)
    now.changed += len(plan.changes)
    now.beat_at = timezone.now()
    now.save(update_fields=["done", "added", "changed", "beat_at"])
    if now.done < now.total:
        return True
    _finish(now)
    return False


def _still(plan: Plan, wanted: Sequence[Sequence[Any]]) -> Plan:
    """Return of a plan what was shown."""
    shown = {(number, kind) for number, kind in wanted}
    return Plan(
        adds=[one for one in plan.adds if (one.number, "adds") in shown],
        changes=[one for one in plan.changes if (one.number, "changes") in shown],
    )


def _finish(job: ImportJob) -> None:
    said = _said(job)
    _end(ImportJob.objects.filter(pk=job.pk), State.DONE, said)
    note(model=apps.get_model(job.model), staff_id=job.staff_id, said=said)


def _said(job: ImportJob) -> str:
    """Say what is written."""
    said = told(adds=job.added, changes=job.changed)
    if left_out := job.done - job.added - job.changed:
        said += " " + _("Left out, since they had changed meanwhile: %(count)d.") % {"count": left_out}
    return said


def _stop(job: ImportJob, why: str) -> None:
    """End a job that cannot go on, and say what is written."""
    now = ImportJob.objects.defer("content", "accepted", "plan").get(pk=job.pk)
    unfinished = ImportJob.objects.filter(pk=job.pk, state__in=[State.LOOKING, State.WRITING])
    written = _said(now) if now.done else _("Nothing was written.")
    said = f"{why} {written}"
    if _end(unfinished, State.FAILED, said) and now.done:
        note(model=apps.get_model(job.model), staff_id=now.staff_id, said=said)


def _end(rows: "QuerySet[ImportJob]", state: str, said: str) -> bool:
    """End a job and let its file go, and what of it was shown: they are people's phones and addresses."""
    kept = JSONObject(counts="plan__counts", faults="plan__faults")
    return bool(rows.update(state=state, said=said, content=b"", accepted=[], plan=kept, ended_at=timezone.now()))


def told(*, adds: int, changes: int) -> str:
    """Say what was imported."""
    return _("Imported: %(adds)d added, %(changes)d changed.") % {"adds": adds, "changes": changes}


def note(*, model: type[models.Model], staff_id: int | None, said: str) -> None:
    """Write an entry of the admin's history; within the transaction that writes the rows."""
    if staff_id is not None:
        LogEntry.objects.create(
            user_id=staff_id,
            content_type=ContentType.objects.get_for_model(model),
            object_repr=str(model._meta.verbose_name_plural),
            action_flag=ADDITION,
            change_message=said,
        )
    log.info("rows_imported", model=model._meta.label, staff=staff_id, said=said)
