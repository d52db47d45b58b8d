"""Lists of the portal: columns said once, shown as a page and given as a file."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.paginator import Page, Paginator
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from billing.yuan import show_money, show_yuan
from tenants.sheets import csv_response

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

PER_PAGE = 50
# A file is for a spreadsheet, and a person waits for it.
MOST_LINES = 50_000


@dataclass(frozen=True, kw_only=True)
class Column:
    """How a row's value reads, where it leads, and how it reads in a file where that differs; "" is no mark."""

    label: "_StrOrPromise"
    show: Callable[[Any], object]
    is_number: bool = False
    url: Callable[[Any], str] | None = None
    mark: Callable[[Any], str] | None = None
    plain: Callable[[Any], object] | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value as a page shows it."""

    text: str
    is_number: bool
    url: str
    mark: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """What templates/portal/table.html shows; `query` is the address' own, without the page."""

    columns: Sequence[Column]
    rows: list[list[Cell]]
    page: Page[Any] | None = None
    query: str = ""


def table(columns: Sequence[Column], rows: Iterable[Any]) -> Table:
    """Return all rows."""
    return Table(columns=columns, rows=[_cells(columns, row) for row in rows])


def paged(request: HttpRequest, columns: Sequence[Column], rows: Any, *, parameter: str = "page") -> Table:
    """Return the page of rows that the address asks for, the nearest one where there is none such."""
    page = Paginator(rows, PER_PAGE).get_page(request.GET.get(parameter))
    query = request.GET.copy()
    query.pop(parameter, None)
    query[parameter] = ""
    return Table(columns=columns, rows=[_cells(columns, row) for row in page], page=page, query=query.urlencode())


def asked(request: HttpRequest, name: str) -> str:
    """Return a parameter of the address as text that the database takes."""
    return request.GET.get(name, "").replace("\0", "").strip()


def wants_file(request: HttpRequest) -> bool:
    """Whether the rows are wanted as CSV."""
    return request.GET.get("format") == "csv"


def file_of(name: str, columns: Sequence[Column], rows: Any) -> HttpResponse:
    """Return rows as a file, at most `MOST_LINES`."""
    lines = [[_written(column, row) for column in columns] for row in rows[:MOST_LINES]]
    return csv_response(name=name, head=[column.label for column in columns], rows=lines)


def money(label: "_StrOrPromise", amount: Callable[[Any], int], url: Callable[[Any], str] | None = None) -> Column:
    """Make a column of an amount in micro-yuan: yuan on the page and in the file."""
    return Column(
        label=label,
        show=lambda row: show_money(amount(row)),
        plain=lambda row: show_yuan(amount(row)),
        is_number=True,
        url=url,
    )


def count(label: "_StrOrPromise", number: Callable[[Any], int], url: Callable[[Any], str] | None = None) -> Column:
    """Make a column of a number."""
    return Column(label=label, show=number, is_number=True, url=url)


def moment(label: "_StrOrPromise", at: Callable[[Any], Any]) -> Column:
    """Make a column of a moment, in the platform's time zone; empty for none."""
    return Column(label=label, show=lambda row: shown_moment(at(row)))


def shown_moment(at: Any) -> str:
    """Return a moment as the platform's clocks show it."""
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M}" if at else ""


def _cells(columns: Sequence[Column], row: Any) -> list[Cell]:
    return [
        Cell(
            text=str(column.show(row)),
            is_number=column.is_number,
            url=column.url(row) if column.url else "",
            mark=column.mark(row) if column.mark else "",
        )
        for column in columns
    ]


def _written(column: Column, row: Any) -> object:
    value = (column.plain or column.show)(row)
    return value if isinstance(value, int) else str(value)
