"""Seconds of a pass, by how many tokens it takes in and how deep the context is.

A calibration or a prediction gives a curve T(n, depth) = a(n) + b(n) depth at some widths n, to be
interpolated because it has cliffs where kernels change. Every pass that follows corrects it, as

    T(n, depth) exp(common + own(n))

`common` is what all widths share (other programs, heat), `own` what this width has of its own; in
v(n) = T(n) / T(1) the former cancels. A draft model's passes follow the target's: while it is not
used, it is taken to have become slower or faster as the target's plain pass has. It does not know
that two widths might drift apart for longer than they are not measured.

A pass that is not as wide as the one before takes `change_s` more, because the engine builds its
graph anew. T is what a pass takes after one of the same width.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, log
from typing import Any, Self

COMMON_GAIN = 0.2
"""How much of a surprise is put down to all widths: other programs come and go."""
LEAST_GAIN, LEAST_PLAIN_GAIN = 0.06, 0.2
"""How much of it to its own width, at least; the first passes teach more. A plain pass is seldom
seen while drafts pay, and everything is measured by it."""
CHANGE_GAIN = 0.06
LARGEST_CHANGE = 0.5
"""In plain passes."""
LARGEST_SURPRISE = 0.3
"""Of the logarithm; a pass that took longer was interrupted, say by the system."""


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


@dataclass(slots=True)
class _Correction:
    """Of one width, as a logarithm."""

    log: float = 0.0
    n_seen: float = 0.0


@dataclass(slots=True)
class PassCosts:
    """What passes cost now, from a `curve` that is trusted like `n_trusted` passes."""

    curve: Curve
    n_trusted: float = 4.0
    common: float = 0.0
    change_s: float = 0.0
    reference: "PassCosts | None" = None
    """Whose plain pass these costs follow."""
    n_timed: int = 0
    """Plain passes that were timed."""
    _plain_log: float = 0.0
    _anchor: float = 0.0
    _own: dict[int, _Correction] = field(default_factory=dict[int, _Correction])
    _n_seen: dict[int, int] = field(default_factory=dict[int, int])
    _base: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])

    def __post_init__(self) -> None:
        self._anchor = self.reference.drift if self.reference else 0.0

    def seconds(self, n_tokens: int, depth: int) -> float:
        """T(n, depth) as it is now."""
        common = self.common + self._since_anchor()
        return self._start(n_tokens, depth) * exp(common + self._correction(n_tokens))

    def verify(self, n_tokens: int, depth: int) -> float:
        """v(n) = T(n) / T(1)."""
        return self.seconds(n_tokens, depth) / self.seconds(1, depth)

    def plain_s(self, depth: int) -> float:
        """T(1, depth) from plain passes alone: the measure of loss, which wide ones must not move."""
        return self._start(1, depth) * exp(self._plain_log)

    def learn_plain(self, depth: int, seconds: float, *, changed: bool) -> None:
        seconds -= self.change_s if changed else 0.0
        surprise = log(max(1e-9, seconds) / self._start(1, depth)) - self._plain_log
        self._plain_log += max(0.1, 1 / (1.5 + self.n_timed)) * max(-0.5, min(0.5, surprise))
        self.n_timed += 1

    def learn(self, n_tokens: int, depth: int, seconds: float, *, changed: bool = False) -> None:
        """A pass took `seconds`; `changed`: the one before was of another width."""
        self._follow()
        if changed:
            if n_tokens == 1:
                self._learn_change(depth, seconds)
            seconds -= self.change_s
        expected = self._start(n_tokens, depth)
        if seconds <= 0 or expected <= 0:
            return
        own = self._own.get(n_tokens)
        if own is None:
            own = self._own[n_tokens] = _Correction(
                self._correction(n_tokens), self.n_trusted if self._is_point(n_tokens) else 0.0
            )
        surprise = log(seconds / expected) - self.common - own.log
        surprise = max(-LARGEST_SURPRISE, min(LARGEST_SURPRISE, surprise))
        gain = max(LEAST_PLAIN_GAIN if n_tokens == 1 else LEAST_GAIN, 1 / (1 + own.n_seen))
        self.common += COMMON_GAIN * surprise
        own.log += (gain - COMMON_GAIN * gain) * surprise
        own.n_seen += 1
        self._n_seen[n_tokens] = self._n_seen.get(n_tokens, 0) + 1

    def _learn_change(self, depth: int, seconds: float) -> None:
        """From plain passes, which are known best."""
        plain_s = self.seconds(1, depth)
        found_s = max(0.0, min(LARGEST_CHANGE * plain_s, seconds - plain_s))
        self.change_s += CHANGE_GAIN * (found_s - self.change_s)

    def n_seen(self, n_tokens: int) -> int:
        """Passes of this width since the start."""
        return self._n_seen.get(n_tokens, 0)

    def learned(self) -> Curve:
        """The curve with all that was learned, for the next time."""
        self._follow()
        widths = sorted({point.n_tokens for point in self.curve.points} | set(self._own))
        points: list[Point] = []
        for n in widths:
            factor = exp(self.common + self._correction(n))
            a, b = self._line(n)
            points.append(Point(n, a * factor, b * factor))
        return Curve(tuple(points))

    @property
    def drift(self) -> float:
        """The logarithm of how much longer a plain pass takes than at the start."""
        return self.common + self._correction(1)

    def _since_anchor(self) -> float:
        if self.reference is None:
            return 0.0
        return self.reference.drift - self._anchor

    def _follow(self) -> None:
        """What the reference did since the last time becomes part of `common`."""
        self.common += self._since_anchor()
        self._anchor = self.reference.drift if self.reference else 0.0

    def _is_point(self, n_tokens: int) -> bool:
        return any(point.n_tokens == n_tokens for point in self.curve.points)

    def _line(self, n_tokens: int) -> tuple[float, float]:
        line = self._base.get(n_tokens)
        if line is None:
            start = self.curve.seconds(n_tokens, 0)
            line = start, (self.curve.seconds(n_tokens, 1024) - start) / 1024
            self._base[n_tokens] = line
        return line

    def _start(self, n_tokens: int, depth: int) -> float:
        a, b = self._line(n_tokens)
        return a + b * depth

    def _correction(self, n_tokens: int) -> float:
        """Its own, or between those of the nearest widths that were seen."""
        own = self._own.get(n_tokens)
        if own is not None:
            return own.log
        below = max((n for n in self._own if n < n_tokens), default=None)
        above = min((n for n in self._own if n > n_tokens), default=None)
        if below is None or above is None:
            nearest = above if below is None else below
            # What plain passes have of their own says nothing of wider ones.
            return 0.0 if nearest is None or nearest == 1 else self._own[nearest].log
        share = (n_tokens - below) / (above - below)
        return (1 - share) * self._own[below].log + share * self._own[above].log


def predicted(seconds: Any, widths: Sequence[int], depth: int = 1024) -> Curve:
    """A curve from a function (n_tokens, depth) -> seconds."""
    return Curve(
        tuple(Point(n, seconds(n, 0), (seconds(n, depth) - seconds(n, 0)) / depth) for n in widths)
    )
