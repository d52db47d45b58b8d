"""CSV files that people open in a spreadsheet."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any, TypeVar

from django.http import HttpResponse, HttpResponseBase

ResponseT = TypeVar("ResponseT", bound=HttpResponseBase)

# What makes a spreadsheet take a cell for a formula: https://owasp.org/www-community/attacks/CSV_Injection.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_response(*, name: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> HttpResponse:
    """Return a file of that name (ASCII, without its ending); texts that would be formulas are quoted, numbers not."""
    line = StringIO()
    csv.writer(line).writerow([str(cell) for cell in head])
    # Without the mark spreadsheets take the Chinese for another encoding.
    text = "\ufeff" + line.getvalue() + csv_lines(rows)
    return name_file(HttpResponse(text, content_type="text/csv; charset=utf-8"), name)


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Return lines of such a file; texts that would be formulas are quoted, numbers not."""
    text = StringIO()
    csv.writer(text).writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def name_file(response: ResponseT, name: str) -> ResponseT:
    """Have a browser save a response under that name (ASCII, without its ending)."""
    response["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return response


def csv_answer() -> dict[str, Any]:
    """Return how OpenAPI describes such a file as an answer."""
    return {"responses": {200: {"description": "OK", "content": {"text/csv": {"schema": {"type": "string"}}}}}}


def _harmless(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA) or _is_number(cell):
        return cell
    return f"'{cell}"


def _is_number(text: str) -> bool:
    """Whether a text is an amount: digits with at most one point, perhaps below zero."""
    return text[1:].replace(".", "", 1).isdigit() and text[0] in "+-"


def plain_cell(cell: str) -> str:
    """Return what stood in a cell before a file quoted it as above; blanks at its ends say nothing."""
    cell = cell.strip()
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
