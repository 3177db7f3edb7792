"""Medians of noisy samples with intervals, and ratios with a verdict.

Each visit to a case runs in its own process and takes several samples. Samples of one visit are
more alike than samples of two (memory placement, other programs). Intervals therefore come from a
bootstrap in two stages: visits with replacement, then their samples (Davison, Hinkley 1997, 3.8).
Two runs also differ by the machine's drift between them. The spread of visits to one case estimates
it, above all that of the anchor. A case with n visits is uncertain by at least drift / sqrt(n):

    var(log ratio) = sum over a, b of max(var(bootstrap), drift^2 / n) + 2 least_drift^2

The estimate misses a change that outlasts a run, such as a program that started between two runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, hypot, isfinite, log, sqrt
from statistics import NormalDist, median
from typing import Literal

import numpy as np
import numpy.typing as npt

Visits = Sequence[Sequence[float]]
"""Positive samples by visit; no visit is empty."""

Verdict = Literal["faster", "slower", "no significant difference", "unknown"]

N_RESAMPLES = 2000
CONFIDENCE = 0.95
COMPARED_CONFIDENCE = 0.99
"""For ratios: at 95 %, a table of twenty would raise one false alarm."""
LEAST_DRIFT = 0.005
"""Two identical runs differ by this much, through memory placement alone."""
PRECISION = 0.02
MOST_DRAWS = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median and its interval; one sample gives no interval."""

    mid: float
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Relative to the median."""
        if self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2 / self.mid


@dataclass(frozen=True, slots=True)
class Drift:
    """Spread of the visits to one case: the standard deviation of the logarithm."""

    sd: float
    n_free: int
    """Its degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """b over a, with an interval where one is known."""

    mid: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> Verdict:
        """b against a, for speeds."""
        if self.low is None or self.high is None:
            return "unknown"
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no significant difference"


def estimate(visits: Visits) -> Estimate:
    """The median of all samples, with its bootstrap interval."""
    samples = [sample for visit in visits for sample in visit]
    mid = median(samples)
    if len(samples) < 2:
        return Estimate(mid)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(_medians(visits, seed=1), (tail, 100 - tail))
    return Estimate(mid, min(float(low), mid), max(float(high), mid))


def ratio(a: Visits, b: Visits, drift: Drift | None = None) -> Ratio:
    """Median of b over median of a; give `drift` for runs that were not interleaved."""
    mid = _median(b) / _median(a)
    if sum(map(len, a)) < 2 or sum(map(len, b)) < 2:
        return Ratio(mid, None, None)
    between = drift.sd if drift else 0.0
    spreads = [
        max(float(np.log(_medians(visits, seed)).std()), between / sqrt(len(visits)))
        for seed, visits in ((2, a), (3, b))
    ]
    least = sqrt(2) * LEAST_DRIFT if drift else 0.0
    n_free = drift.n_free if drift else max(1, len(a) + len(b) - 2)
    reach = student_t((1 + COMPARED_CONFIDENCE) / 2, n_free) * hypot(*spreads, least)
    return Ratio(mid, mid * exp(-reach), mid * exp(reach))


def drift_of(cases: Sequence[Visits]) -> Drift | None:
    """Drift from all cases with more than one visit; None where there is none."""
    squares, n_free = 0.0, 0
    for visits in filter(None, cases):
        levels = [log(median(visit)) for visit in visits]
        mean = sum(levels) / len(levels)
        squares += sum((level - mean) ** 2 for level in levels)
        n_free += len(levels) - 1
    return Drift(sqrt(squares / n_free), n_free) if n_free else None


def more_visits(visits: Visits) -> int | None:
    """More visits that bring the interval to +- `PRECISION`; None where there is no interval yet.

    The interval shrinks with the square root of the visits.
    """
    half = estimate(visits).half_width
    if half is None or not isfinite(half):
        return None
    return max(0, ceil(len(visits) * (half / PRECISION) ** 2) - len(visits))


def student_t(probability: float, n_free: int) -> float:
    """The quantile of Student's t (Hill 1970's expansion; 1 and 2 degrees exactly)."""
    if n_free == 1:
        return float(np.tan(np.pi * (probability - 0.5)))
    if n_free == 2:
        spread = 2 * probability - 1
        return spread * sqrt(2 / (1 - spread**2))
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / n_free**power for power, term in enumerate(terms))


def _median(visits: Visits) -> float:
    return median(sample for visit in visits for sample in visit)


def _medians(visits: Visits, seed: int) -> npt.NDArray[np.float64]:
    """Medians of samples drawn anew in two stages; the seed makes reports repeatable."""
    lengths = np.array([len(visit) for visit in visits])
    table = np.zeros((len(visits), lengths.max()))
    for row, visit in zip(table, visits, strict=True):
        row[: len(visit)] = visit
    random = np.random.default_rng(seed)
    n = max(200, min(N_RESAMPLES, MOST_DRAWS // table.size))
    chosen = random.integers(len(visits), size=(n, len(visits)))
    places = random.random((n, *table.shape)) * lengths[chosen][:, :, None]
    drawn = table[chosen[:, :, None], places.astype(int)]
    return np.median(drawn.reshape(n, -1), axis=1)
