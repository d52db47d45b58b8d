"""Figures to a table, a picture, and the part of docs/performance.md that is theirs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
PICTURE: Final = ROOT / "docs" / "images" / "performance.svg"
_BEGIN, _END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
_TITLE: Final = "CPU of 1,000 deltas, milliseconds, 200 paced streams"
_WIDTH, _BAR, _STEP, _LEFT = 760, 22, 34, 210


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, the columns' names and the rows; the first column is text, and says what a row is."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """Return it as Markdown."""
        lines = [f"### {self.heading}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("| --- |" + " ---: |" * (len(self.columns) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines)


def write(tables: Sequence[Table], bars: Sequence[tuple[str, float]], *, intro: str) -> None:
    """Write the tables between the marks of the page, and the bars, (whose, milliseconds), as its picture."""
    PICTURE.write_text(picture(bars))
    figures = "\n\n".join([_BEGIN, intro, *map(str, tables), _END])
    page = PAGE.read_text()
    pattern = re.compile(re.escape(_BEGIN) + ".*" + re.escape(_END), re.DOTALL)
    if not pattern.search(page):
        message = f"{PAGE} has lost the marks between which the figures stand"
        raise ValueError(message)
    PAGE.write_text(pattern.sub(lambda _: figures, page))


def picture(bars: Sequence[tuple[str, float]]) -> str:
    """Return a bar for each figure as SVG, the length by a square root: the largest is a hundred times the smallest."""
    most = max(value for _, value in bars)
    height = 58 + _STEP * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
        ' font-family="sans-serif" font-size="14">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="26" font-size="16" font-weight="bold" fill="#111827">{_TITLE}</text>',
    ]
    for number, (name, value) in enumerate(bars):
        top = 44 + _STEP * number
        length = max(2.0, (value / most) ** 0.5 * (_WIDTH - _LEFT - 90))
        colour = "#0f766e" if name.startswith("Banyan") else "#9ca3af"
        parts.append(f'<text x="{_LEFT - 10}" y="{top + 16}" text-anchor="end" fill="#111827">{escape(name)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{top}" width="{length:.0f}" height="{_BAR}" rx="3" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + length + 8:.0f}" y="{top + 16}" fill="#111827">{value:.0f}</text>')
    return "\n".join([*parts, "</svg>", ""])
