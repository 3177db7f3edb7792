"""A picture as plain values, which `svg` draws, and its axes with ticks at round numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal, Self

ChartKind = Literal["line", "dots"]
MOST_TICKS = 6


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """`low` and `high`: the interval of y. `note`: the text under the pointer."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour; "line" joins them. `tone` picks the colour, None is grey."""

    name: str
    points: tuple[ChartPoint, ...]
    kind: ChartKind = "dots"
    dashed: bool = False
    tone: int | None = 0

    @classmethod
    def line(
        cls,
        name: str,
        points: Iterable[ChartPoint],
        tone: int | None = None,
        *,
        dashed: bool = False,
    ) -> Self:
        """A line, grey unless it has a tone."""
        return cls(name, tuple(points), "line", dashed, tone)


@dataclass(frozen=True, slots=True)
class Chart:
    """Axes, both logarithmic or none, and series; `caption` explains them."""

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    is_log: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of parts from left to right, as (name, length); lengths may be negative."""

    label: str
    parts: tuple[tuple[str, float], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class BarChart:
    """Horizontal bars; parts of one name have one colour in all bars."""

    key: str
    title: str
    caption: str
    x_label: str
    bars: tuple[Bar, ...]

    @property
    def names(self) -> list[str]:
        """Names of parts, in the order of their first appearance."""
        return list(dict.fromkeys(name for bar in self.bars for name, _ in bar.parts))


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high`, mapped to places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    def place(self, value: float) -> float:
        """The place of a value; a value beyond an end lies on that end."""
        inside = min(max(value, self.low), self.high)
        if self.is_log:
            share = (log10(inside) - log10(self.low)) / (log10(self.high) - log10(self.low))
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.is_log else ticks(self.low, self.high)


def axis_of(values: list[float], start: float, end: float, *, is_log: bool) -> Axis:
    """An axis around all values; a linear one includes 0."""
    known = [value for value in values if value > 0 or not is_log]
    low, high = min(known, default=1.0), max(known, default=1.0)
    if is_log:
        low, high = low / 1.15, high * 1.15
    else:
        low, high = min(0.0, low), max(high, low + 1e-9)
        high += 0.04 * (high - low)
    return Axis(low, high, start, end, is_log)


def ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / MOST_TICKS
    power = 10 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = ceil(low / step - 1e-9)
    return [step * i for i in range(first, floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade on a short axis, else whole decades."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    multiples = (1, 2, 5) if log10(high / low) < 2.2 else (1,)
    return [m * 10.0**d for d in decades for m in multiples if low <= m * 10.0**d <= high]


def tick_text(value: float) -> str:
    """A short number for a tick."""
    if value >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:g}"
