"""Rows from a file: what it would add, change and cannot, shown first; then written, all in one transaction.

A room brings an `Importer` for a kind of row, and its admin class inherits `ImportsRows`. A file names no numbers of
rows: an importer finds what is there already by what people know it by, within the tenant's scope. So no file reaches
another tenant's rows. What was looked at is what is written: were it something else by then, it is shown anew.
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol

import structlog
from django import forms
from django.contrib import messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminFileFieldWidget

from tenants.errors import ProductError
from tenants.models import StaffUser, Tenant
from tenants.sheets import csv_response, plain_cell

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    from tenants.adminsite import TenantModelAdmin

    _Base = TenantModelAdmin
else:
    _Base = object

log = structlog.get_logger(__name__)

MOST_BYTES: Final = 1024 * 1024
MOST_LINES: Final = 2000
# Of each kind so many lines are shown; all are counted.
SHOWN: Final = 100


class SheetError(ValueError):
    """A file that cannot be read as a sheet; its text says what to do."""


class _ChangedError(Exception):
    """A plan is not the one that was shown any more."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a sheet; `name` stands in its first line. Without a wanted one a file is not read."""

    name: str
    label: "_StrOrPromise"
    example: "_StrOrPromise" = ""
    is_wanted: bool = False


class Line(NamedTuple):
    """A line of a sheet: its number in the file, and what stands under each column."""

    number: int
    cells: Mapping[str, str]


class Planned(NamedTuple):
    """A line that can be written: its number, what the preview shows of it, and what the importer made of it."""

    number: int
    shown: tuple[str, ...]
    data: Any


class Fault(NamedTuple):
    """A line that cannot be, and what to do about it."""

    number: int
    said: str


@dataclass
class Plan:
    """What a sheet would do. `same` counts lines of which everything is there already."""

    adds: list[Planned] = field(default_factory=list)
    changes: list[Planned] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    same: int = 0

    @property
    def digest(self) -> str:
        """Return what tells this plan from another one of the same sheet."""
        told = [[(one.number, one.shown) for one in some] for some in (self.adds, self.changes)]
        return hashlib.sha256(repr((told, self.faults)).encode()).hexdigest()


class Importer(Protocol):
    """How one kind of row comes from a sheet. Both run in the tenant's scope."""

    columns: Sequence[Column]

    def plan(self, lines: Sequence[Line]) -> Plan:
        """Say what lines would do; write nothing."""
        ...

    def write(self, plan: Plan, *, tenant: Tenant, staff: StaffUser) -> None:
        """Write a plan's lines, within the caller's transaction; raise ProductError where that is refused."""
        ...


def read_text(data: bytes) -> str:
    """Return a file's text: UTF-8, or what Chinese spreadsheets write; raise SheetError."""
    if len(data) > MOST_BYTES:
        raise SheetError(_("The file has more than 1 MB. Please split it up."))
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise SheetError(_("This is no CSV file. In a spreadsheet, save it as “CSV UTF-8”."))


def read_lines(text: str, columns: Sequence[Column]) -> list[Line]:
    """Return the lines of a sheet whose first line names its columns; raise SheetError."""
    reader = csv.reader(StringIO(text.removeprefix("\ufeff"), newline=""))
    lines: list[Line] = []
    try:
        head = [cell.strip().lower() for cell in next(reader, [])]
        missing = [column.name for column in columns if column.is_wanted and column.name not in head]
        if missing:
            raise SheetError(
                _("The first line must name the columns; missing: %(names)s.") % {"names": ", ".join(missing)}
            )
        known = {column.name for column in columns}
        before = reader.line_num
        for cells in reader:
            number, before = before + 1, reader.line_num
            if any(cell.strip() for cell in cells):
                named = {name: plain_cell(cell) for name, cell in zip(head, cells, strict=False) if name in known}
                lines.append(Line(number, {column.name: named.get(column.name, "") for column in columns}))
            if len(lines) > MOST_LINES:
                raise SheetError(_("The file has more than %(most)d lines. Please split it up.") % {"most": MOST_LINES})
    except csv.Error:
        raise SheetError(_("This is no CSV file. In a spreadsheet, save it as “CSV UTF-8”.")) from None
    return lines


class ImportForm(forms.Form):
    """A file to look at."""

    file = forms.FileField(
        label=gettext_lazy("file"),
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,text/csv"}),
        help_text=gettext_lazy(
            "CSV, its first line with the names of the columns. Nothing is written before you confirm."
        ),
    )


class ImportsRows(_Base):
    """A list that takes rows from a file, on the tenant's site, by whoever may add them."""

    importer: ClassVar[Importer]
    list_before_template: Any = "imports/before_list.html"

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Let those who may edit; the operator, who works for no one tenant, may not."""
        return not self._on_platform and self.may_edit(request)

    def get_urls(self) -> list[Any]:
        """Add the page, and the example to begin with."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_import"
        return [
            path("import/", self.admin_site.admin_view(self.import_view), name=name),
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
                if sheet := request.POST.get("sheet", "") or self._uploaded(form):
                    lines = read_lines(sheet, self.importer.columns)
                    if "confirmed" in request.POST and self._write(request, lines):
                        return HttpResponseRedirect(self._page("changelist"))
                    context |= self._preview(self.importer.plan(lines), sheet)
            except SheetError as fault:
                form.add_error("file", str(fault))
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": _("Import from a file")}
        more = {"back": self._page("changelist"), "example_url": self._page("import_example")}
        return TemplateResponse(request, "imports/import.html", {**shared, **more, **context})

    def _uploaded(self, form: ImportForm) -> str:
        return read_text(form.cleaned_data["file"].read()) if form.is_valid() else ""

    def _write(self, request: HttpRequest, lines: Sequence[Line]) -> bool:
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

    def _write_what_was_shown(self, request: HttpRequest, lines: Sequence[Line]) -> str:
        """Write, with an entry in the history; return what to tell the person. Raises _ChangedError."""
        tenant, staff = request.tenant, request.user  # type: ignore[attr-defined]  # the middleware's
        if not isinstance(staff, StaffUser):
            raise TypeError("imports are for staff")
        # A tenant's imports come one after the other: of a form that is sent twice the second finds all there.
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        plan = self.importer.plan(lines)
        if request.POST.get("digest") != plan.digest:
            raise _ChangedError
        self.importer.write(plan, tenant=tenant, staff=staff)
        counts = {"adds": len(plan.adds), "changes": len(plan.changes)}
        said = _("Imported: %(adds)d added, %(changes)d changed.") % counts
        LogEntry.objects.create(
            user_id=staff.pk,
            content_type=ContentType.objects.get_for_model(self.model),
            object_repr=str(self.opts.verbose_name_plural),
            action_flag=ADDITION,
            change_message=said,
        )
        log.info("rows_imported", model=self.opts.label, tenant_id=tenant.pk, staff=staff.pk, **counts)
        return said

    def _preview(self, plan: Plan, sheet: str) -> dict[str, Any]:
        kinds = [(_("To add"), plan.adds), (_("To change"), plan.changes)]
        return {
            "plan": plan,
            "sheet": sheet,
            "kinds": [(title, len(lines), lines[:SHOWN]) for title, lines in kinds if lines],
            "faults": plan.faults[:SHOWN],
            "confirming": bool(plan.adds or plan.changes),
        }

    def _page(self, name: str) -> str:
        return reverse(f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{name}")
