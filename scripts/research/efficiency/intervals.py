"""Intervals that hold out of sample: errors of runs that were left out, scaled by what is known.

Every run is predicted twice: without its source, and without its source and its chip. The scale of
the errors is fitted (Laplace, log-linear, with a ridge) to what was known in each case; quantiles
of the scaled errors of unseen chips, by backend and kind of model and held to those of all, make
the interval. Pairs of a chip and a source err together, so a pair of many runs does not count as
many, and few pairs widen.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from research.efficiency.regression import Fitted, Floats
from research.efficiency.runs import Run

from localspec.prediction.conditions import RunConditions, of_part, whole
from localspec.prediction.rates import Shares
from localspec.prediction.uncertainty import Uncertainty, causes

Mask = NDArray[np.bool_]

PROMISED = 0.8
RIDGE, STEPS = 4.0, 30
HELD = 12.0
"""Pairs' worth of trust in the wider group beside one's own."""
FEWEST = 0.03
"""Of a tail; the tails of few pairs are thinner, because a new pair may lie beyond all of them."""
THINNER = 0.25
"""Of a pair: by how much."""
UNSEEN_BACKEND, TWICE = "backend not seen", 0.7
"""Believed before any run: errors there are twice as large. Few backends can teach it."""
LEAST = 0.9
"""Of a quantile, in scales: few backends' errors are so lopsided that one side needs no room."""
OLD = ("llamafile", "2023", "2024")
OLD_WEIGHT = 0.2
"""Of errors of old engines: nobody is promised those."""


@dataclass(frozen=True, slots=True)
class Case:
    """A run as it was predicted, and the error: log(measured / predicted seconds)."""

    run: Run
    shares: Shares
    error: float
    sees_chip: bool

    @property
    def pair(self) -> tuple[str, str]:
        return self.run.chip, self.run.source


class Seen:
    """Which columns the runs of other sources, and other chips, take part in."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._pairs: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        by_pair: defaultdict[tuple[str, str], set[RunConditions]] = defaultdict(set)
        for run in runs:
            by_pair[run.chip, run.source].add(run.conditions)
        for pair, conditions in by_pair.items():
            for known in conditions:
                for kind, name, _ in (*whole(known), *of_part(known, "weights")):
                    self._pairs[f"{kind}: {name}"].add(pair)

    def without(self, run: Run, *, chip: bool) -> Callable[[str], bool]:
        """Whether a column is supported where a run's source, or its chip, too, is left out."""

        def knows(column: str) -> bool:
            return any(
                source != run.source and (not chip or name != run.chip)
                for name, source in self._pairs.get(column, ())
            )

        return knows


class Calibration:
    """The uncertainty that the cases of a fit give, and that without some of them."""

    def __init__(self, fitted: Fitted, seen: Seen) -> None:
        self.seen, runs = seen, fitted.problem.runs
        shares = fitted.shares()
        self.cases = [
            Case(run, shares[i], float(errors[i]), sees)
            for sees in (True, False)
            for errors in (fitted.unseen(leave_chip=not sees),)
            for i, run in enumerate(runs)
            if not sees or self._is_elsewhere(run)
        ]

    def _is_elsewhere(self, run: Run) -> bool:
        known = run.conditions
        return self.seen.without(run, chip=False)(f"device: {known.backend}, {known.chip}")

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """Of all cases."""
        return self._calibrated(np.ones(len(self.cases), bool), self.scales)

    def without(self, chip: str, source: str) -> Uncertainty:
        """Quantiles of cases of other chips and other sources; the scale is that of all."""
        keep = [c.run.chip != chip and c.run.source != source for c in self.cases]
        return self._calibrated(np.array(keep), self.scales)

    @cached_property
    def _causes(self) -> tuple[list[str], Floats]:
        rows = [
            dict(
                causes(
                    case.run.conditions,
                    self.seen.without(case.run, chip=not case.sees_chip),
                    case.shares,
                )
            )
            for case in self.cases
        ]
        names = sorted({name for row in rows for name in row})
        return names, np.array([[row.get(name, 0.0) for name in names] for row in rows])

    @cached_property
    def _weights(self) -> Floats:
        counts = Counter((case.pair, case.sees_chip) for case in self.cases)
        return np.array(
            [
                (OLD_WEIGHT if case.run.conditions.era in OLD else 1.0)
                / sqrt(counts[case.pair, case.sees_chip])
                for case in self.cases
            ]
        )

    @cached_property
    def scales(self) -> dict[str, float]:
        """log s = x beta by the likelihood of a Laplace distribution, log s + |error| / s."""
        names, x = self._causes
        size = np.abs([case.error for case in self.cases])
        beta = np.zeros(len(names))
        beta[names.index("all")] = np.log(np.mean(size))
        if UNSEEN_BACKEND in names:
            beta[names.index(UNSEEN_BACKEND)] = TWICE
        centre = beta.copy()
        for _ in range(STEPS):
            ratio = np.clip(size / np.exp(x @ beta), 0, 8)
            gradient = x.T @ (self._weights * (1 - ratio)) + RIDGE * (beta - centre)
            curvature = (x.T * (self._weights * np.maximum(ratio, 0.3))) @ x
            beta -= np.linalg.solve(curvature + RIDGE * np.eye(len(beta)), gradient)
        found = {name: round(float(b), 4) for name, b in zip(names, beta, strict=True)}
        return {UNSEEN_BACKEND: TWICE} | found

    @cached_property
    def _scaled(self) -> Floats:
        names, x = self._causes
        scale = np.exp(x @ np.array([self.scales[name] for name in names]))
        return np.array([case.error for case in self.cases]) / scale

    def _calibrated(self, keep: Mask, scales: dict[str, float]) -> Uncertainty:
        """Of cases whose chip was left out, too: by backend and kind of model, each held to what
        is wider."""
        keep = keep & self._is_unseen
        found = {"all": self._quantiles(keep)}
        for backend in sorted(set(self._backends)):
            chosen = keep & (self._backends == backend)
            if not chosen.any():
                continue
            found[str(backend)] = self._held(chosen, found["all"])
            for kind in sorted(set(self._kinds[chosen])):
                of_kind = chosen & (self._kinds == kind)
                found[f"{backend}, {kind}"] = self._held(of_kind, found[str(backend)])
        return Uncertainty(scales, found)

    def _held(self, chosen: Mask, wider: tuple[float, float]) -> tuple[float, float]:
        n_pairs, own = len(set(self._pairs[chosen])), self._quantiles(chosen)
        share = n_pairs / (n_pairs + HELD)
        low, high = (share * a + (1 - share) * b for a, b in zip(own, wider, strict=True))
        return round(low, 4), round(high, 4)

    @cached_property
    def _is_unseen(self) -> Mask:
        return np.array([not case.sees_chip for case in self.cases])

    @cached_property
    def _kinds(self) -> NDArray[np.str_]:
        return np.array([case.run.conditions.kind for case in self.cases])

    @cached_property
    def _backends(self) -> NDArray[np.str_]:
        return np.array([case.run.conditions.backend for case in self.cases])

    @cached_property
    def _pairs(self) -> NDArray[np.intp]:
        """A number for each pair of a chip and a source."""
        numbers = {pair: i for i, pair in enumerate({case.pair: None for case in self.cases})}
        return np.array([numbers[case.pair] for case in self.cases])

    def _quantiles(self, chosen: Mask) -> tuple[float, float]:
        """Between which the promised share of weight lies; neither crosses the prediction."""
        order = np.argsort(self._scaled[chosen])
        values, weights = self._scaled[chosen][order], self._weights[chosen][order]
        at = (np.cumsum(weights) - weights / 2) / weights.sum()
        n_pairs = len(set(self._pairs[chosen]))
        tail = max(FEWEST, (1 - PROMISED) / 2 - THINNER / n_pairs)
        low, high = (float(np.interp(share, at, values)) for share in (tail, 1 - tail))
        return round(min(low, -LEAST), 4), round(max(high, LEAST), 4)
