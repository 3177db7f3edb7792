"""T(n, depth) = a(n) + b(n) depth at some widths n, interpolated: what a calibration finds."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Point:
    """A pass of `n_tokens`: seconds at an empty context, and more for each token that it holds."""

    n_tokens: int
    empty_s: float
    token_s: float = 0.0

    def seconds(self, depth: int) -> float:
        return self.empty_s + self.token_s * depth


@dataclass(frozen=True, slots=True)
class Curve:
    """Points by ascending width, at least one."""

    points: tuple[Point, ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> Self:
        """From rows of `n_tokens`, `empty_s`, `token_s`, as JSON has them."""
        points = (Point(int(n), a, b) for n, a, b in rows)
        return cls(tuple(sorted(points, key=lambda point: point.n_tokens)))

    @property
    def rows(self) -> list[list[float]]:
        return [[point.n_tokens, point.empty_s, point.token_s] for point in self.points]

    def seconds(self, n_tokens: int, depth: int) -> float:
        """Linear between points; beyond the last one as steep as before it, and never falling."""
        widths = [point.n_tokens for point in self.points]
        place = bisect_left(widths, n_tokens)
        if place < len(widths) and widths[place] == n_tokens:
            return self.points[place].seconds(depth)
        if place == 0 or len(widths) == 1:
            return self.points[0].seconds(depth)
        right = min(place, len(widths) - 1)
        low, high = self.points[right - 1], self.points[right]
        low_s, high_s = low.seconds(depth), high.seconds(depth)
        slope = (high_s - low_s) / (high.n_tokens - low.n_tokens)
        return max(low_s, low_s + slope * (n_tokens - low.n_tokens))


def predicted(
    seconds: Callable[[int, int], float], widths: Sequence[int], depth: int = 1024
) -> Curve:
    """A curve from a function (n_tokens, depth) -> seconds."""
    return Curve(
        tuple(Point(n, seconds(n, 0), (seconds(n, depth) - seconds(n, 0)) / depth) for n in widths)
    )
