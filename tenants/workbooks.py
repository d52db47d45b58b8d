"""The first sheet of an XLSX file as rows of text, read row by row, within bounds: the file is somebody else's."""

import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from io import BytesIO
from typing import Any, Final

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

# Of what the file holds once it is unpacked: entries, and bytes of all of them. A spreadsheet of 50,000 lines has a
# tenth of it, a file made to fill a memory a thousand times as much.
MOST_ENTRIES: Final = 500
MOST_UNPACKED: Final = 128 * 1024 * 1024
# Rows and columns beyond these are not a sheet that people made.
_MOST_ROWS: Final = 200_000
_MOST_COLUMNS: Final = 64
# An integer that a cell holds as a float is exact up to here.
_EXACT: Final = 2**53


class BrokenWorkbookError(ValueError):
    """A file that is no workbook, or one that is out of bounds."""


def is_workbook(data: bytes) -> bool:
    """Whether a file says of itself that it is a zip, which every XLSX is."""
    return data.startswith(b"PK\x03\x04")


def rows_of(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the first sheet's rows, each with its number; raise BrokenWorkbookError.

    Of a formula its last value counts. Numbers are written as people type them, days without a time.
    """
    try:
        _weigh(data)
        book = openpyxl.load_workbook(BytesIO(data), read_only=True, data_only=True, keep_links=False)
        try:
            sheet = book.worksheets[0]
            for number, cells in enumerate(sheet.iter_rows(values_only=True, max_col=_MOST_COLUMNS), 1):
                if number > _MOST_ROWS:
                    raise BrokenWorkbookError("rows without an end")
                yield number, [_text(cell) for cell in cells]
        finally:
            book.close()
    except BrokenWorkbookError:
        raise
    # What a broken file makes of the parts that read it is theirs to choose.
    except (zipfile.BadZipFile, InvalidFileException, OSError, KeyError, IndexError, ValueError, TypeError) as fault:
        raise BrokenWorkbookError(type(fault).__name__) from fault
    except (AttributeError, SyntaxError, NotImplementedError, RuntimeError, EOFError) as fault:
        raise BrokenWorkbookError(type(fault).__name__) from fault


def _weigh(data: bytes) -> None:
    """Refuse what would unpack to more than a sheet is; `zipfile` reads no further than what is declared here."""
    with zipfile.ZipFile(BytesIO(data)) as bag:
        entries = bag.infolist()
    if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_UNPACKED:
        raise BrokenWorkbookError("unpacks to too much")


def _text(cell: Any) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case float() if cell.is_integer() and abs(cell) < _EXACT:
            return str(int(cell))
        case datetime() if cell.time() == time():
            return cell.date().isoformat()
        case datetime() | date() | time():
            return cell.isoformat(sep=" ", timespec="seconds") if isinstance(cell, datetime) else cell.isoformat()
        case _:
            return str(cell)
