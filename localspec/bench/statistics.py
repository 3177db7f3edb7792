"""What noisy samples say: medians with intervals, and ratios that may be no difference at all.

A case is visited several times, each time by a process of its own, and each visit takes several
samples. Samples of one visit resemble one another more than those of two (where memory came to lie,
what else ran), so intervals come from a bootstrap in two stages: visits with replacement, then
samples of those (Davison and Hinkley 1997, 3.8). Two runs differ by what the machine did between
them, too. Of that the spread of visits to the same case tells, the anchor's above all, which is
visited all along: a case that was visited n times is uncertain by at least drift / sqrt(n),

    var(log ratio) = sum over a, b of max(var(bootstrap), drift^2 / n) + 2 least_drift^2

It does not know of a change that lasts longer than a run, such as a neighbour's program that
started between two of them.
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
"""Of ratios: a table of twenty at 95 % would cry wolf once."""
LEAST_DRIFT = 0.005
"""Two runs that nothing tells apart differ by this much, by where their memory came to lie."""
PRECISION = 0.02
MOST_DRAWS = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median and its interval, which is None where one sample says nothing of it."""

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
    """How far visits of one case lie apart: the standard deviation of the logarithm."""

    sd: float
    n_free: int
    """Degrees of freedom that it is known with."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """b to a, above 1 where b is larger, with an interval where one is known."""

    mid: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> Verdict:
        """For speeds: b against a."""
        if self.low is None or self.high is None:
            return "unknown"
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no significant difference"


def estimate(visits: Visits, confidence: float = CONFIDENCE) -> Estimate:
    """The median of all samples, with its bootstrap interval."""
    samples = [sample for visit in visits for sample in visit]
    mid = median(samples)
    if len(samples) < 2:
        return Estimate(mid)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(_medians(visits, seed=1), (tail, 100 - tail))
    return Estimate(mid, min(float(low), mid), max(float(high), mid))


def ratio(
    a: Visits, b: Visits, drift: Drift | None = None, confidence: float = COMPARED_CONFIDENCE
) -> Ratio:
    """Median of b to median of a; `drift` is that of runs that were not interleaved."""
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
    reach = student_t((1 + confidence) / 2, n_free) * hypot(*spreads, least)
    return Ratio(mid, mid * exp(-reach), mid * exp(reach))


def drift_of(cases: Sequence[Visits]) -> Drift | None:
    """From all cases that were visited more than once; None where none was."""
    squares, n_free = 0.0, 0
    for visits in cases:
        levels = [log(median(visit)) for visit in visits]
        mean = sum(levels) / len(levels)
        squares += sum((level - mean) ** 2 for level in levels)
        n_free += len(levels) - 1
    return Drift(sqrt(squares / n_free), n_free) if n_free else None


def more_visits(visits: Visits, precision: float = PRECISION) -> int | None:
    """How many more visits would bring the interval to +- `precision`: it shrinks with the root.

    None where there is no interval yet.
    """
    half = estimate(visits).half_width
    if half is None or not isfinite(half):
        return None
    return max(0, ceil(len(visits) * (half / precision) ** 2) - len(visits))


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
    """Medians of samples drawn anew in two stages; the seed makes a report say the same twice."""
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
