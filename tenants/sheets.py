"""CSV files that people open in a spreadsheet."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from django.http import HttpResponse

# What makes a spreadsheet take a cell for a formula: https://owasp.org/www-community/attacks/CSV_Injection.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_response(*, name: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> HttpResponse:
    """Return a file of that name (ASCII, without its ending); texts that would be formulas are quoted, numbers not."""
    text = StringIO()
    sheet = csv.writer(text)
    sheet.writerow([str(cell) for cell in head])
    sheet.writerows([_harmless(cell) for cell in row] for row in rows)
    # Without the mark spreadsheets take the Chinese for another encoding.
    response = HttpResponse("\ufeff" + text.getvalue(), content_type="text/csv; charset=utf-8")
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
