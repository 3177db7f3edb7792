"""Seconds of a pass, by how many rows it evaluates and how deep the context is.

A calibration or a prediction gives a curve T(n, depth) = a(n) + b(n) depth at some widths n, to be
interpolated because it has cliffs where kernels change. Every pass that follows corrects it, as

    T(n, depth) exp(common + own(n))

`common` is what all widths share (other programs, heat), `own` what this width has of its own; in
v(n) = T(n) / T(1) the former cancels. Both are Kalman filters: a surprise is divided by how unsure
each of them is, and the scatter of passes. A draft model's passes follow the target's: while it is
not used, it is taken to have become slower or faster as the target's plain pass has. It does not
know that two widths might drift apart for longer than they are not measured.

`plain_s` is a second estimate of T(1), from plain passes alone. Losses are measured by it: an error
of a wide pass must not look like a slower machine, which would excuse drafts that lose time.

A pass that is not as wide as the one before takes `change_s` more, because the engine builds its
graph anew. T is what a pass takes after one of the same width.
"""

from bisect import bisect_left
from dataclasses import dataclass
from math import exp, log, sqrt

from localspec.decode.curve import PassCurve, Point

CALIBRATION_ERROR = 0.15
"""Of the logarithm: what a calibrated width may be wrong by, before a pass was seen."""
PLAIN_ERROR = 0.3
"""The same of a plain pass: no draft is made on the word of a calibration alone."""
SCATTER, LEAST_SCATTER, SCATTER_GAIN = 0.06, 0.02, 0.1
"""Of single passes, until it is learned; the least; and how fast it is learned."""
DRIFT = 0.003
"""A pass: other programs come and go, and a processor gets hot."""
OWN_DRIFT = 0.012
"""How unsure a width remains that was seen often."""
LARGEST_SURPRISE = 0.3
"""A pass that took longer was interrupted, or all passes take longer now."""
CHANGE_GAIN, LARGEST_CHANGE = 0.06, 0.5
"""How fast `change_s` is learned, and how much it can be in plain passes."""


@dataclass(slots=True)
class LearnedLog:
    """A logarithm and how unsure it is."""

    log: float = 0.0
    variance: float = CALIBRATION_ERROR**2

    def learn(self, surprise: float, variance: float, least: float = 0.0) -> None:
        """A surprise of that variance. Others can disturb a pass, but never make it shorter."""
        gain = self.variance / variance
        self.log += gain * min(surprise, LARGEST_SURPRISE)
        if surprise <= LARGEST_SURPRISE:
            self.variance = max(least, (1 - gain) * self.variance)


class PassCosts:
    """What passes cost now, from a `curve` that may be wrong by `CALIBRATION_ERROR`.

    They follow the plain pass of a `reference`, if there is one. What a pass taught is worked out
    when somebody asks: the weights sweep the processor's cache, so many at once are cheaper.
    """

    def __init__(
        self, curve: PassCurve, change_s: float = 0.0, reference: "PassCosts | None" = None
    ) -> None:
        self.curve, self.reference = curve, reference
        self._change_s = min(change_s, LARGEST_CHANGE * curve.seconds(1, 0))
        self._common, self._scatter = LearnedLog(), SCATTER**2
        self._plain = LearnedLog(variance=PLAIN_ERROR**2)
        self._own: dict[int, LearnedLog] = {}
        self._lines: dict[int, tuple[float, float]] = {}
        self._anchor = reference.drift if reference else 0.0
        self._waiting: list[tuple[int, int, float, bool, bool]] = []

    def seconds(self, n_tokens: int, depth: int) -> float:
        """T(n, depth) as it is now."""
        a, b = self._lines.get(n_tokens) or self._line(n_tokens)
        return (a + b * depth) * exp(self.drift_of(n_tokens))

    def error(self, n_tokens: int) -> float:
        """Standard deviation of the logarithm of T(n) beside other widths."""
        self._catch_up()
        own = self._own.get(n_tokens)
        return CALIBRATION_ERROR if own is None else sqrt(own.variance)

    def plain_s(self, depth: int) -> float:
        """T(1, depth) from plain passes alone."""
        self._catch_up()
        return self._start(1, depth) * exp(self._plain.log)

    @property
    def plain_error(self) -> float:
        """Standard deviation of the logarithm of `plain_s`."""
        self._catch_up()
        return sqrt(self._plain.variance)

    @property
    def change_s(self) -> float:
        """What a pass takes more that is not as wide as the one before."""
        self._catch_up()
        return self._change_s

    @property
    def drift(self) -> float:
        """The logarithm of how much longer a plain pass takes than at the start."""
        return self.drift_of(1)

    def learn(
        self, n: int, depth: int, seconds: float, *, changed: bool = False, is_plain: bool = False
    ) -> None:
        """A pass of n tokens; `changed`: after one of another width; `is_plain`: without drafts."""
        self._waiting.append((n, depth, seconds, changed, is_plain or n == 1))
        if self.reference:  # is followed as it is now
            self._catch_up()

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            self._learn(*each)

    def _learn(self, n: int, depth: int, seconds: float, changed: bool, is_plain: bool) -> None:
        self._follow()
        self._common.variance += DRIFT**2
        if self._plain.variance < CALIBRATION_ERROR**2:
            self._plain.variance += DRIFT**2
        if changed and n == 1:
            self._learn_change(depth, seconds)
        took = seconds - self._change_s if changed else seconds
        start = self._start(n, depth)
        if took > 0 and start > 0:
            self._learn_log(n, log(took / start))
            if is_plain:
                plain = self._plain
                plain.learn(log(took / start) - plain.log, plain.variance + self._scatter)

    def _learn_log(self, n_tokens: int, found: float) -> None:
        own = self._own.get(n_tokens) or LearnedLog(self._correction(n_tokens))
        self._own[n_tokens] = own
        known = self._common.variance + own.variance
        surprise = found - self._common.log - own.log
        if surprise < -LARGEST_SURPRISE:  # beside other programs all widths were calibrated
            known += PLAIN_ERROR**2
            self._common.variance += PLAIN_ERROR**2
        self._common.learn(surprise, known + self._scatter)
        own.learn(surprise, known + self._scatter, OWN_DRIFT**2)
        found_scatter = max(LEAST_SCATTER**2, min(abs(surprise), LARGEST_SURPRISE) ** 2 - known)
        self._scatter += SCATTER_GAIN * (found_scatter - self._scatter)

    def _learn_change(self, depth: int, seconds: float) -> None:
        """From plain passes, which are known best."""
        plain_s = self.seconds(1, depth)
        found_s = max(0.0, min(LARGEST_CHANGE * plain_s, seconds - plain_s))
        self._change_s += CHANGE_GAIN * (found_s - self._change_s)

    def learned(self) -> PassCurve:
        """The curve with all that was learned, for the next time."""
        self._follow()
        points: list[Point] = []
        for n in sorted({point.n_tokens for point in self.curve.points} | set(self._own)):
            factor = exp(self.drift_of(n))
            points.append(Point(n, *[s * factor for s in self._line(n)]))
        return PassCurve(tuple(points))

    def drift_of(self, n_tokens: int) -> float:
        """The logarithm of how much longer a pass takes than the curve says."""
        if self._waiting:
            self._catch_up()
        since = self.reference.drift - self._anchor if self.reference else 0.0
        return self._common.log + since + self._correction(n_tokens)

    def _follow(self) -> None:
        """What the reference did since the last time becomes part of `common`."""
        if self.reference:
            self._common.log += self.reference.drift - self._anchor
            self._anchor = self.reference.drift

    def _line(self, n_tokens: int) -> tuple[float, float]:
        self._lines[n_tokens] = line = self.curve.seconds(n_tokens, 0), self.curve.slope(n_tokens)
        return line

    def _start(self, n_tokens: int, depth: int) -> float:
        a, b = self._lines.get(n_tokens) or self._line(n_tokens)
        return a + b * depth

    def _correction(self, n_tokens: int) -> float:
        """Its own, or between those of the nearest widths that were seen, if these are within twice
        of it. What plain passes have of their own says nothing of wider ones."""
        own = self._own.get(n_tokens)
        if own is not None:
            return own.log
        wide = sorted(n for n in self._own if n > 1)
        place = bisect_left(wide, n_tokens)
        near = [m for m in wide[max(0, place - 1) : place + 1] if m <= 2 * n_tokens <= 4 * m]
        if not near:
            return 0.0
        low, high = near[0], near[-1]
        share = (n_tokens - low) / (high - low) if high > low else 0.0
        return (1 - share) * self._own[low].log + share * self._own[high].log
