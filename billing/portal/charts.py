"""Bars drawn as SVG by the server: no script, and each bar a link to the list behind it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

WIDTH, HEIGHT = 1000, 200


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar in a picture of 1000 by 200."""

    x: str
    y: str
    width: str
    height: str
    column: str
    url: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture of one series; `first` and `last` stand below its ends, `most` above."""

    title: "_StrOrPromise"
    style: str
    bars: list[Bar]
    first: str
    last: str
    most: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value, how it reads, and where it leads."""

    label: str
    value: int
    text: str
    url: str


def bars(title: "_StrOrPromise", points: Iterable[Point], *, style: str = "") -> Chart:
    """Draw values of zero and more."""
    points = list(points)
    most = max((point.value for point in points), default=0)
    column = WIDTH / max(len(points), 1)
    drawn = [
        Bar(
            x=f"{number * column + column * 0.1:.2f}",
            width=f"{column * 0.8:.2f}",
            column=f"{column:.2f}",
            y=f"{HEIGHT - _height(point.value, most):.2f}",
            height=f"{_height(point.value, most):.2f}",
            url=point.url,
            title=f"{point.label}: {point.text}",
        )
        for number, point in enumerate(points)
    ]
    top = next((point.text for point in points if point.value == most), "") if most else ""
    ends = (points[0].label, points[-1].label) if points else ("", "")
    return Chart(title=title, style=style, bars=drawn, first=ends[0], last=ends[1], most=top)


def _height(value: int, most: int) -> float:
    return max(value, 0) * HEIGHT * 0.95 / most if most > 0 else 0.0
