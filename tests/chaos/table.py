"""All the rows, in the table's order."""

from tests.chaos import returns, rows

ROWS: tuple[rows.Row, ...] = (*rows.ROWS, *returns.ROWS)
