"""Pages of imports in a tenant's admin: a file is looked at, shown, and written once that is confirmed.

A short file is looked at and written at once, all or nothing, in one transaction: what was looked at is what is
written, and were it something else by then, it is shown anew. A long one is a worker's (tenants/import_jobs.py).
"""

import base64
import binascii
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from django import forms
from django.contrib import messages
from django.db import IntegrityError, models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminFileFieldWidget

from tenants import import_jobs
from tenants.errors import ProductError
from tenants.imports import MOST_BYTES, SHOWN, Importer, Line, Plan, SheetError, TooLongError, read_sheet
from tenants.models import ImportJob, StaffUser, Tenant
from tenants.sheets import csv_response
from tenants.workbooks import is_workbook

if TYPE_CHECKING:
    from tenants.adminsite import TenantModelAdmin

    _Base = TenantModelAdmin
else:
    _Base = object

log = structlog.get_logger(__name__)

State = ImportJob.State
# What a web process reads, plans and writes while the person waits; longer files are a worker's. Workbooks are packed.
SHORT_LINES: Final = 2000
_SHORT_BYTES: Final = 1024 * 1024
_SHORT_WORKBOOK_BYTES: Final = 128 * 1024
# Jobs that the page offers to go back to.
_SHOWN_JOBS: Final = 5


class _ChangedError(Exception):
    """A plan is not the one that was shown any more."""


class ImportForm(forms.Form):
    """A file to look at."""

    file = forms.FileField(
        label=gettext_lazy("file"),
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,.xlsx,text/csv"}),
        help_text=gettext_lazy(
            "XLSX or CSV, its first line with the names of the columns. Nothing is written before you confirm."
        ),
    )


class ImportsRows(_Base):
    """A list that takes rows from a file, on the tenant's site, by whoever may add them."""

    importer: ClassVar[Importer]
    list_before_template: Any = "imports/before_list.html"

    def __init__(self, model: type[models.Model], admin_site: Any) -> None:
        super().__init__(model, admin_site)
        import_jobs.register(model, self.importer)

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Let those who may edit; the operator, who works for no one tenant, may not."""
        return not self._on_platform and self.may_edit(request)

    def get_urls(self) -> list[Any]:
        """Add the page, and the example to begin with."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_import"
        return [
            path("import/", self.admin_site.admin_view(self.import_view), name=name),
            path("import/jobs/<uuid:job_id>/", self.admin_site.admin_view(self.job_view), name=f"{name}_job"),
            path("import/example/", self.admin_site.admin_view(self.example_view), name=f"{name}_example"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the way to the page above the list."""
        url = self._page("import") if self.has_import_permission(request) else ""
        return super().changelist_view(request, {**(extra_context or {}), "import_url": url})

    def example_view(self, request: HttpRequest) -> HttpResponse:
        """Answer with a file to begin with."""
        if not self.has_import_permission(request):
            raise Http404
        columns = self.importer.columns
        rows = [[str(column.example) for column in columns]]
        return csv_response(name=f"{self.opts.model_name}-example", head=[column.name for column in columns], rows=rows)

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Take a file, show what it would do, and do it once that is confirmed."""
        if not self.has_import_permission(request):
            raise Http404
        form = ImportForm(request.POST or None, request.FILES or None)
        context: dict[str, Any] = {"form": form, "columns": self.importer.columns}
        if request.method == "POST":
            try:
                content = self._import_content(request, form)
                lines = self._short_lines(content)
                if content and lines is None:
                    return self._begin_job(request, form, content)
                if lines is not None:
                    if "confirmed" in request.POST and self._write(request, lines):
                        return HttpResponseRedirect(self._page("changelist"))
                    context |= self._preview(self.importer.plan(lines), content)
            except SheetError as fault:
                form.add_error("file", str(fault))
        return self._import_page(request, {"jobs": self._latest_jobs(), "wide": MOST_BYTES >> 20, **context})

    def job_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        """Show how a long file stands, as a page or (JSON) as figures; confirm what was shown, or throw it away."""
        job = ImportJob.objects.defer("content", "accepted").filter(pk=job_id, model=self.opts.label).first()
        if job is None or not self.has_import_permission(request):
            raise Http404
        if request.method == "POST":
            with transaction.atomic():
                is_done = self._decide_job(request, job)
            if not is_done:
                self.message_user(request, _("Something has changed meanwhile. Please look again."), messages.WARNING)
            return HttpResponseRedirect(request.path)
        if "application/json" in request.headers.get("Accept", ""):
            return JsonResponse({"state": job.state, "done": job.done, "total": job.total, "percent": job.percent})
        counts = job.plan.get("counts") or {}
        kinds = [(_("To add"), "adds"), (_("To change"), "changes")]
        context = {
            "job": job,
            "counts": counts,
            "kinds": [(title, counts[kind], job.plan[kind]) for title, kind in kinds if job.plan.get(kind)],
            "faults": job.plan.get("faults") or [],
            "is_busy": job.state in {State.LOOKING, State.WRITING},
            "is_waiting": job.state == State.PLANNED,
        }
        return self._import_page(request, context, "imports/job.html")

    def _import_page(
        self, request: HttpRequest, context: dict[str, Any], template: str = "imports/import.html"
    ) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": _("Import from a file")}
        pages = {"back": self._page("changelist"), "example_url": self._page("import_example")}
        return TemplateResponse(request, template, {**shared, **pages, "again": self._page("import"), **context})

    def _import_content(self, request: HttpRequest, form: ImportForm) -> bytes:
        """Return the file that was uploaded, or that is sent back to be written; empty where there is none."""
        if sheet := request.POST.get("sheet", ""):
            try:
                return base64.b64decode(sheet, validate=True)
            except binascii.Error:
                return b""
        if not form.is_valid():
            return b""
        file = form.cleaned_data["file"]
        if file.size > MOST_BYTES:
            raise SheetError(_("The file has more than %(most)d MB. Please split it up.") % {"most": MOST_BYTES >> 20})
        return bytes(file.read())

    def _short_lines(self, content: bytes) -> list[Line] | None:
        """Return the lines of a file that is short enough to be looked at here; raise SheetError."""
        if not content or len(content) > (_SHORT_WORKBOOK_BYTES if is_workbook(content) else _SHORT_BYTES):
            return None
        try:
            return read_sheet(content, self.importer.columns, most=SHORT_LINES)
        except TooLongError:
            return None

    def _begin_job(self, request: HttpRequest, form: ImportForm, content: bytes) -> HttpResponse:
        """Give a long file to a worker."""
        name = str(form.cleaned_data["file"].name) if form.is_valid() else ""
        tenant, staff = self._importing(request)
        try:
            with transaction.atomic():
                job = import_jobs.begin(tenant=tenant, staff=staff, model=self.model, name=name, content=content)
        except ProductError as refused:
            self.message_user(request, str(refused.msg), messages.ERROR)
            return HttpResponseRedirect(self._page("import"))
        log.info("import_begun", model=self.opts.label, tenant_id=tenant.pk, staff=staff.pk, job=str(job.pk))
        return HttpResponseRedirect(self._page("import_job", job.pk))

    def _decide_job(self, request: HttpRequest, job: ImportJob) -> bool:
        _tenant, staff = self._importing(request)
        if "confirmed" in request.POST:
            return import_jobs.confirm(job=job, staff=staff)
        return import_jobs.throw_away(job=job)

    def _latest_jobs(self) -> list[dict[str, Any]]:
        rows = ImportJob.objects.defer("content", "accepted", "plan").filter(model=self.opts.label)
        latest = rows.order_by("-created_at")[:_SHOWN_JOBS]
        return [{"job": job, "url": self._page("import_job", job.pk)} for job in latest]

    def _importing(self, request: HttpRequest) -> tuple[Tenant, StaffUser]:
        tenant, staff = request.tenant, request.user  # type: ignore[attr-defined]  # the middleware's
        if not isinstance(staff, StaffUser):
            raise TypeError("imports are for staff")
        return tenant, staff

    def _write(self, request: HttpRequest, lines: list[Line]) -> bool:
        """Write all or nothing; return whether it was written, having told the person."""
        try:
            with transaction.atomic():
                said = self._write_what_was_shown(request, lines)
        except ProductError as refused:
            self.message_user(request, _("Nothing was written: %(why)s") % {"why": refused.msg}, messages.ERROR)
            return False
        except (IntegrityError, _ChangedError):
            self.message_user(request, _("Something has changed meanwhile. Please look again."), messages.WARNING)
            return False
        self.message_user(request, said, messages.SUCCESS)
        return True

    def _write_what_was_shown(self, request: HttpRequest, lines: list[Line]) -> str:
        """Write, with an entry in the history; return what to tell the person. Raises _ChangedError."""
        tenant, staff = self._importing(request)
        # A tenant's imports come one after the other: of a form that is sent twice the second finds all there.
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        plan = self.importer.plan(lines)
        if request.POST.get("digest") != plan.digest:
            raise _ChangedError
        self.importer.write(plan, tenant=tenant, staff=staff)
        said = import_jobs.told(adds=len(plan.adds), changes=len(plan.changes))
        import_jobs.note(model=self.model, staff_id=staff.pk, said=said)
        return said

    def _preview(self, plan: Plan, content: bytes) -> dict[str, Any]:
        kinds = [(_("To add"), plan.adds), (_("To change"), plan.changes)]
        return {
            "plan": plan,
            "sheet": base64.b64encode(content).decode(),
            "kinds": [(title, len(lines), lines[:SHOWN]) for title, lines in kinds if lines],
            "faults": plan.faults[:SHOWN],
            "confirming": bool(plan.adds or plan.changes),
        }

    def _page(self, name: str, *args: Any) -> str:
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{name}", args=args)
