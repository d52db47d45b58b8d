"""Lists as files: what an admin's list shows, filtered as it is and of whose it is, streamed row by row.

Owners, finance and the operator take files along; whoever else may look, looks.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from asgiref.sync import sync_to_async
from django.contrib.admin.utils import label_for_field, lookup_field
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.db import connections, models
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone, translation
from django.utils.html import strip_tags
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy

from tenants import scope
from tenants.models import Membership
from tenants.sheets import csv_lines, name_file

if TYPE_CHECKING:
    from tenants.adminsite import TenantModelAdmin

    _Base = TenantModelAdmin
else:
    _Base = object

log = structlog.get_logger(__name__)

# Rows that are read, and sent, at a time.
BATCH: Final = 1000


class ExportsRows(_Base):
    """A list whose rows, those selected or all that the filters leave, can be taken along as CSV."""

    exportable_by: ClassVar[frozenset[str]] = frozenset({Membership.Role.OWNER.value, Membership.Role.FINANCE.value})

    def get_actions(self, request: HttpRequest) -> Any:
        """Offer the file to those who may take it."""
        found: dict[str, Any] = super().get_actions(request)
        if self.has_view_permission(request) and self._admits(request, self.exportable_by):
            found["export_csv"] = (_export, "export_csv", gettext_lazy("Export as CSV"))
        return found

    def export(self, request: HttpRequest, rows: QuerySet[Any]) -> StreamingHttpResponse:
        """Return a file of the rows, with the columns of the list."""
        if not self._admits(request, self.exportable_by):
            raise PermissionDenied
        columns = [name for name in self.get_list_display(request) if name != "action_checkbox"]
        rows = rows.select_related(*self.list_select_related)
        sheet = _Sheet(self, rows, columns, tenant_id=None if self._on_platform else request.tenant.pk)  # type: ignore[attr-defined]
        name = f"{self.opts.model_name}-{timezone.localdate():%Y-%m-%d}"
        log.info("list_exported", staff=request.user.pk, model=self.opts.label, tenant_id=sheet.tenant_id)
        # A body of the other kind would be gathered whole, in memory, before anything of it is sent.
        body = sheet.stream() if isinstance(request, ASGIRequest) else iter(sheet)
        response = StreamingHttpResponse(body, content_type="text/csv; charset=utf-8")
        return name_file(response, name)


def _export(model_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> Any:
    return model_admin.export(request, rows)


class _Sheet:
    """A list on its way into a file. It is read after the request's surroundings are gone, and brings its own."""

    def __init__(self, owner: Any, rows: QuerySet[Any], columns: Sequence[Any], *, tenant_id: int | None) -> None:
        self.tenant_id = tenant_id
        self._owner = owner
        self._rows = rows.order_by("-pk")
        self._columns = columns
        self._language = translation.get_language() or ""
        self._last: object = None
        self._begun = False

    def __iter__(self) -> Iterator[str]:
        while piece := self._next():
            yield piece

    async def stream(self) -> AsyncIterator[str]:
        """Yield the same, each piece read in a thread that gives its connection back."""
        read = sync_to_async(_closing(self._next), thread_sensitive=False)
        while piece := await read():
            yield piece

    def _next(self) -> str:
        """Return the next piece of the file, "" after the last."""
        with self._surroundings(), translation.override(self._language):
            lines: list[Sequence[object]] = []
            if not self._begun:
                lines.append([str(self._label(column)) for column in self._columns])
            rest = self._rows if self._last is None else self._rows.filter(pk__lt=self._last)
            found = [] if self._begun and self._last is None else list(rest[:BATCH])
            self._last = found[-1].pk if len(found) == BATCH else None
            lines += [[self._cell(column, row) for column in self._columns] for row in found]
            mark = "" if self._begun else "\ufeff"
            self._begun = True
            return mark + csv_lines(lines) if lines else ""

    def _surroundings(self) -> AbstractContextManager[None]:
        return scope.platform("an operator's file") if self.tenant_id is None else scope.tenant(self.tenant_id)

    def _label(self, column: Any) -> Any:
        return label_for_field(column, self._owner.model, self._owner)

    def _cell(self, column: Any, row: models.Model) -> object:
        field, _attribute, value = lookup_field(column, row, self._owner)
        if field is not None and getattr(field, "choices", None):
            return str(getattr(row, f"get_{field.name}_display")())
        if value is None:
            return ""
        if isinstance(value, bool):
            return gettext("yes") if value else gettext("no")
        if isinstance(value, datetime):
            return f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}"
        # A link in the list is its text in the file.
        return value if isinstance(value, int) else strip_tags(value) if isinstance(value, SafeString) else str(value)


def _closing(read: Callable[[], str]) -> Callable[[], str]:
    def inside() -> str:
        try:
            return read()
        finally:
            connections.close_all()

    return inside
