"""A picture as plain values, which `svg` and `png` draw alike."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["line", "dots"]


@dataclass(frozen=True, slots=True)
class Point:
    """`low` and `high`: an interval of y. `note`: what the pointer shows."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour; "line" joins them. `tone` picks the colour, None is grey."""

    name: str
    points: tuple[Point, ...]
    kind: Kind = "dots"
    dashed: bool = False
    tone: int | None = 0


@dataclass(frozen=True, slots=True)
class Chart:
    """Axes and series; `caption` says what is to be seen."""

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of parts from left to right, as (name, length); lengths may be negative."""

    label: str
    parts: tuple[tuple[str, float], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class BarChart:
    """Horizontal bars; parts of the same name have the same colour in all of them."""

    key: str
    title: str
    caption: str
    x_label: str
    bars: tuple[Bar, ...]

    @property
    def names(self) -> list[str]:
        """Of parts, in the order of their first appearance."""
        return list(dict.fromkeys(name for bar in self.bars for name, _ in bar.parts))
