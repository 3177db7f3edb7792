"""What is left of errors, and whether anything that is known of a run could take it away.

Runs of a chip and a source are off together. `factors`: how far, and what is left of a run's error
once its source's other runs of that chip told it: a fit cannot know it of a chip and a source that
it has not seen. `near`: the same runs, corrected by what the fit left of other chips' and sources'
runs that are near in bandwidth, intensity, size, depth and age, and nearest of the same kind of
model, weight type and family. Where that helps nothing, no cause in the rows is left to be fitted.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import log
from statistics import median
from typing import Any

import numpy as np
from research.efficiency.fit import Fit
from research.efficiency.intervals import OLD
from research.efficiency.regression import Floats
from research.efficiency.runs import Run

FEWEST_RUNS = 3
REACH = (0.5, 0.5, 0.7, 0.7, 1.0)
"""Logarithms, and years of an engine's age, within which runs are near."""
OTHERS = 0.3
"""What a run of another kind of model, weight type or family counts beside one of the same."""
HELD, MOST = 0.3, 0.5
"""Runs' worth of trust in the fit; of a logarithm."""
Predicted = tuple[Run, float]
"""A run, and its speed as it was predicted without its chip and its source."""


def factors(outcomes: Iterable[Predicted]) -> list[dict[str, Any]]:
    """By backend and test, of pairs of a chip and a source with three runs or more."""
    pairs: defaultdict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for run, speed in outcomes:
        key = (run.conditions.backend, run.test, run.chip, run.source)
        pairs[key].append(run.tokens_per_s / speed)
    found: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for (backend, test, *_), shares in pairs.items():
        if len(shares) >= FEWEST_RUNS:
            found[backend, test] += _by_the_others(shares)
    return [
        {
            "backend": backend,
            "test": test,
            "n": len(errors),
            "median_factor": median(factor for factor, _ in errors),
            "median_left": median(left for _, left in errors),
        }
        for (backend, test), errors in sorted(found.items())
    ]


def _by_the_others(shares: Sequence[float]) -> list[tuple[float, float]]:
    """Of every run, how far the others are off in common, and what is left if they tell it."""
    known = [median([*shares[:i], *shares[i + 1 :]]) for i in range(len(shares))]
    return [
        (abs(factor - 1), abs(factor / share - 1))
        for factor, share in zip(known, shares, strict=True)
    ]


def near(fit: Fit, outcomes: Iterable[Predicted]) -> list[dict[str, Any]]:
    """By backend, of a fit's test: errors as predicted, and as near runs correct them."""
    known = _Known(fit)
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for run, speed in outcomes:
        if run.test == fit.test:
            corrected = speed * np.exp(-known.left_near(run))
            errors = (abs(each / run.tokens_per_s - 1) for each in (speed, corrected))
            found[run.conditions.backend].append((next(errors), next(errors)))
    return [
        {
            "backend": backend,
            "test": fit.test,
            "n": len(errors),
            "median_error": median(before for before, _ in errors),
            "near_error": median(after for _, after in errors),
        }
        for backend, errors in sorted(found.items())
    ]


class _Known:
    """The runs of a fit, and what it left of each."""

    def __init__(self, fit: Fit) -> None:
        self._fitted, self._runs = fit.fitted, fit.fitted.problem.runs
        self._places = np.array([_place(run) for run in self._runs])
        self._sorts = np.array([_sort(run) for run in self._runs])
        self._pairs = np.array([(run.chip, run.source) for run in self._runs])
        is_today = np.array([run.conditions.era not in OLD for run in self._runs])
        self._weights = fit.fitted.problem.weights * is_today
        self._left: dict[tuple[str, str], Floats] = {}

    def left_near(self, run: Run) -> float:
        """log(measured / predicted seconds) that near runs of other chips and sources have."""
        pair = run.chip, run.source
        if pair not in self._left:
            self._left[pair] = np.clip(self._fitted.left_without(*pair), -MOST, MOST)
        apart = ((self._places - _place(run)) / REACH) ** 2
        backend, *same = (self._sorts == _sort(run)).T
        weights = self._weights * np.exp(-apart.sum(axis=1) / 2) * backend
        weights *= np.prod(np.where(same, 1.0, OTHERS), axis=0)
        weights *= (self._pairs != pair).all(axis=1)
        return float(weights @ self._left[pair] / (weights.sum() + HELD))


def _place(run: Run) -> tuple[float, ...]:
    known = run.conditions
    size = run.streamed_bytes if run.test == "decode" else run.shape.multiplied_params
    intensity = known.bandwidth_bytes_per_s / known.fp32_flops_per_s
    logs = (known.bandwidth_bytes_per_s, intensity, size, max(run.depth, 512.0))
    return (*map(log, logs), known.age_years)


def _sort(run: Run) -> tuple[str, ...]:
    known = run.conditions
    return known.backend, known.kind, known.type_class, known.family
