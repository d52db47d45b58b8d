"""Rows from a file: how its lines are read, and what they would add, change and cannot.

A room brings an `Importer` for a kind of row, and its admin class inherits `ImportsRows` (tenants/import_pages.py). A
file names no numbers of rows: an importer finds what is there already by what people know it by, within the tenant's
scope. So no file reaches another tenant's rows.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from django.utils.translation import gettext as _

from tenants.models import StaffUser, Tenant
from tenants.sheets import plain_cell
from tenants.workbooks import BrokenWorkbookError, is_workbook, rows_of

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

# Of a file, and of its lines.
MOST_BYTES: Final = 8 * 1024 * 1024
MOST_LINES: Final = 50_000
# Of each kind so many lines are shown; all are counted.
SHOWN: Final = 100

Row = tuple[int, Sequence[str]]


class SheetError(ValueError):
    """A file that cannot be read as a sheet; its text says what to do.

    SheetError
    └── TooLongError   it has more lines than were asked for
    """


class TooLongError(SheetError):
    """A sheet with more lines than were asked for."""


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


def read_sheet(data: bytes, columns: Sequence[Column], *, most: int = MOST_LINES) -> list[Line]:
    """Return the lines of a file, CSV or a workbook's first sheet; raise SheetError. Of more than `most`, see there."""
    if not is_workbook(data):
        return read_lines(read_text(data), columns, most=most)
    _weigh(data)
    try:
        return _named(rows_of(data), columns, most)
    except BrokenWorkbookError:
        raise SheetError(_("This workbook cannot be read. In a spreadsheet, save it as “CSV UTF-8”.")) from None


def read_text(data: bytes) -> str:
    """Return a file's text: UTF-8, or what Chinese spreadsheets write; raise SheetError."""
    _weigh(data)
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise SheetError(_("This is neither a workbook nor a CSV file. In a spreadsheet, save it as “CSV UTF-8”."))


def read_lines(text: str, columns: Sequence[Column], *, most: int = MOST_LINES) -> list[Line]:
    """Return the lines of a sheet whose first line names its columns; raise SheetError."""
    try:
        return _named(_rows_of_csv(text), columns, most)
    except csv.Error:
        raise SheetError(
            _("This is neither a workbook nor a CSV file. In a spreadsheet, save it as “CSV UTF-8”.")
        ) from None


def _weigh(data: bytes) -> None:
    if len(data) > MOST_BYTES:
        raise SheetError(_("The file has more than %(most)d MB. Please split it up.") % {"most": MOST_BYTES >> 20})


def _rows_of_csv(text: str) -> Iterator[Row]:
    """Yield each row with the number of the line in the file that it begins at."""
    reader = csv.reader(StringIO(text.removeprefix("\ufeff"), newline=""))
    before = 0
    for cells in reader:
        yield before + 1, cells
        before = reader.line_num


def _named(rows: Iterable[Row], columns: Sequence[Column], most: int) -> list[Line]:
    """Return rows by the names of the first; without empty ones."""
    rows = iter(rows)
    head = [cell.strip().lower() for _number, cells in islice(rows, 1) for cell in cells]
    missing = [column.name for column in columns if column.is_wanted and column.name not in head]
    if missing:
        raise SheetError(_("The first line must name the columns; missing: %(names)s.") % {"names": ", ".join(missing)})
    known = {column.name for column in columns}
    lines: list[Line] = []
    for number, cells in rows:
        if any(cell.strip() for cell in cells):
            named = {name: plain_cell(cell) for name, cell in zip(head, cells, strict=False) if name in known}
            lines.append(Line(number, {column.name: named.get(column.name, "") for column in columns}))
        if len(lines) > most:
            raise TooLongError(_("The file has more than %(most)d lines. Please split it up.") % {"most": most})
    return lines
