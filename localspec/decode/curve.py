"""T(n, depth) = a(n) + b(n) depth at some widths n, interpolated: what a calibration finds."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from localspec.hardware.probe_results import Curve


@dataclass(frozen=True, slots=True)
class Point:
    """A pass of `n_tokens`: seconds at an empty context, and more for each token that it holds."""

    n_tokens: int
    empty_s: float
    token_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PassCurve:
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
        """Linear between points, but never below the left neighbour.

        Before the first point as there; beyond the last as steep as before it.
        """
        curve = Curve((p.n_tokens, p.empty_s + p.token_s * depth) for p in self.points)
        widths = [point.n_tokens for point in self.points]
        place = min(bisect_left(widths, n_tokens), len(widths) - 1)
        left = place if place == 0 or widths[place] == n_tokens else place - 1
        return max(curve[left][1], curve.at(max(n_tokens, widths[0])))

    def slope(self, n_tokens: int) -> float:
        """Seconds more for each token of depth, on average over the first 1,024."""
        return (self.seconds(n_tokens, 1024) - self.seconds(n_tokens, 0)) / 1024


def predicted(
    seconds: Callable[[int, int], float], widths: Sequence[int], depth: int = 1024
) -> PassCurve:
    """A curve from a function (n_tokens, depth) -> seconds."""
    return PassCurve(
        tuple(Point(n, seconds(n, 0), (seconds(n, depth) - seconds(n, 0)) / depth) for n in widths)
    )
