"""Intervals that hold out of sample: errors of runs that were left out, scaled by what is known.

Every run of today's engines is predicted up to three times: without its source, without its chip,
too, and without all that is not older, too. The scale of the errors is fitted (Laplace, log-linear,
with a ridge) to what was known in each case; quantiles of the scaled errors make the interval, by
backend, kind of model and what was known of the device, each held to the wider group. Runs of a
source err together, so few sources widen. What is left out for a run is left out of the scale and
the quantiles of its interval, too.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from research.efficiency.regression import Fitted, Floats, Leave, Mask
from research.efficiency.runs import Run

from localspec.prediction.conditions import RunConditions, of_part, whole
from localspec.prediction.rates import Shares
from localspec.prediction.uncertainty import DEVICE, LATER, Uncertainty, causes, known_of

PROMISED = 0.8
RIDGE, STEPS = 4.0, 30
HELD = {"decode": 4.0, "prefill": 8.0}
"""Sources' worth of trust in the wider group beside one's own."""
FEWEST = 0.03
"""Of a tail; that of few sources is thinner, because a new one may lie beyond all of them."""
THINNER = {"decode": 0.75, "prefill": 0.0}
"""Of a source, own or held: by how much. Exact would be 0.9, if every source of a group were as any
other."""
DEPTH_OF_KNOWN = 2
BELIEVED = {"backend not seen": 0.85, "mla models not seen": 1.1, LATER: 0.4}
"""Before any run, and at least, of log s: errors on a backend that nobody measured are over twice
as large, those of latent attention, which every backend reads in its own way, three times. Few
backends, months and models teach it."""
VOICE = {"decode": 0.1, "prefill": 0.25}
"""A source of n runs counts as n to the power of 1 less this."""
LEAST = 0.9
"""Of a quantile, in scales: few backends' errors are so lopsided that one side needs no room."""
OLD = ("llamafile", "2023", "2024")
"""Engines whose errors nobody is promised."""


@dataclass(frozen=True, slots=True)
class Case:
    """A run as it was predicted, and the error: log(measured / predicted seconds)."""

    run: Run
    shares: Shares
    error: float
    leave: Leave


class Seen:
    """Which columns the runs of other sources, other chips and earlier months take part in."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._groups: defaultdict[str, set[tuple[str, str, str]]] = defaultdict(set)
        groups: defaultdict[tuple[str, str, str], set[RunConditions]] = defaultdict(set)
        for run in runs:
            groups[run.chip, run.source, run.month or ""].add(run.conditions)
        for group, conditions in groups.items():
            for known in conditions:
                for kind, name, _ in (*whole(known), *of_part(known, "weights")):
                    self._groups[f"{kind}: {name}"].add(group)

    def without(self, run: Run, leave: Leave) -> Callable[[str], bool]:
        """Whether a column is supported where a run is predicted without what is left out."""

        def knows(column: str) -> bool:
            return any(
                source != run.source
                and (leave == "source" or chip != run.chip)
                and (leave != "later" or run.month is None or month < run.month)
                for chip, source, month in self._groups.get(column, ())
            )

        return knows


class Calibration:
    """The uncertainty that the cases of a fit give, and that without some of them."""

    def __init__(self, fitted: Fitted, seen: Seen) -> None:
        self.fitted, self.seen = fitted, seen

    @cached_property
    def cases(self) -> list[Case]:
        """Of engines of today."""
        runs, shares = self.fitted.problem.runs, self.fitted.shares()
        pairs: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for i, run in enumerate(runs):
            pairs[run.chip, run.source].append(i)
        found: list[Case] = []
        for pair, rows in pairs.items():
            for leave in self._ways([runs[i] for i in rows]):
                errors = self.fitted.unseen(pair, leave=leave)
                found += [
                    Case(_as_left(runs[i], leave), shares[i], float(error), leave)
                    for i, error in zip(rows, errors, strict=True)
                    if runs[i].conditions.era not in OLD
                ]
        return [case for case in found if case.leave != "source" or self._is_elsewhere(case.run)]

    def _ways(self, runs: Sequence[Run]) -> Iterator[Leave]:
        """What is left out for the runs of a pair."""
        if all(run.conditions.era in OLD for run in runs):
            return
        if any(self._is_elsewhere(run) for run in runs):
            yield "source"
        yield "chip"
        if any(run.month and run.conditions.era not in OLD for run in runs):
            yield "later"

    def _is_elsewhere(self, run: Run) -> bool:
        known = run.conditions
        return self.seen.without(run, "source")(f"device: {known.backend}, {known.chip}")

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """Of all cases."""
        return self._calibrated(np.ones(len(self.cases), bool))

    def without(self, chip: str, source: str) -> Uncertainty:
        """By cases of other chips and other sources."""
        keep = [c.run.chip != chip and c.run.source != source for c in self.cases]
        return self._calibrated(np.array(keep))

    @cached_property
    def _causes(self) -> tuple[list[str], Floats]:
        rows = [
            dict(
                causes(
                    case.run.conditions,
                    self.seen.without(case.run, case.leave),
                    case.shares,
                )
            )
            for case in self.cases
        ]
        names = sorted({name for row in rows for name in row})
        return names, np.array([[row.get(name, 0.0) for name in names] for row in rows])

    @cached_property
    def _weights(self) -> Floats:
        counts = Counter((case.run.source, case.leave) for case in self.cases)
        voice = VOICE[self._test]
        return np.array([counts[case.run.source, case.leave] ** -voice for case in self.cases])

    @cached_property
    def _errors(self) -> Floats:
        return np.array([case.error for case in self.cases])

    def _scales(self, keep: Mask) -> dict[str, float]:
        """log s = x beta by the likelihood of a Laplace distribution, log s + |error| / s."""
        names, x = self._causes[0], self._causes[1][keep]
        size, weights = np.abs(self._errors[keep]), self._weights[keep]
        centre = np.array([BELIEVED.get(name, 0.0) for name in names])
        centre[names.index("all")] = np.log(np.mean(size))
        beta = centre.copy()
        for _ in range(STEPS):
            ratio = np.clip(size / np.exp(x @ beta), 0, 8)
            gradient = x.T @ (weights * (1 - ratio)) + RIDGE * (beta - centre)
            curvature = (x.T * (weights * np.maximum(ratio, 0.3))) @ x
            beta -= np.linalg.solve(curvature + RIDGE * np.eye(len(beta)), gradient)
        found = {name: round(float(b), 4) for name, b in zip(names, beta, strict=True)}
        return BELIEVED | found

    def _scaled(self, scales: Mapping[str, float]) -> Floats:
        names, x = self._causes
        return self._errors / np.exp(x @ np.array([scales[name] for name in names]))

    def _calibrated(self, keep: Mask) -> Uncertainty:
        """By groups from wide to narrow; the wide ones are of cases whose chip was left out."""
        wide = keep & (self._groups[DEPTH_OF_KNOWN] != DEVICE)
        scales = self._scales(keep)
        scaled = self._scaled(scales)
        found = {"all": self._quantiles(scaled, wide)}
        for depth, names in enumerate(self._names):
            for name in sorted(set(names[keep])):
                chosen = (keep if depth == DEPTH_OF_KNOWN else wide) & (names == name)
                if chosen.any():
                    wider = found.get(str(name).rpartition(", ")[0], found["all"])
                    found[str(name)] = self._held(scaled, chosen, wider)
        return Uncertainty(_at_least(scales), found)

    @cached_property
    def _groups(self) -> tuple[NDArray[np.str_], ...]:
        """Of every case its backend, its kind of model and what is known of its device."""
        rows = [
            (
                case.run.conditions.backend,
                case.run.conditions.kind,
                known_of(case.run.conditions, self.seen.without(case.run, case.leave)),
            )
            for case in self.cases
        ]
        return tuple(np.array(column) for column in zip(*rows, strict=True))

    @cached_property
    def _names(self) -> list[NDArray[np.str_]]:
        rows = list(zip(*self._groups, strict=True))
        return [np.array([", ".join(row[: n + 1]) for row in rows]) for n in range(3)]

    def _held(
        self, scaled: Floats, chosen: Mask, wider: tuple[float, float]
    ) -> tuple[float, float]:
        n_sources, held = len(set(self._sources[chosen])), HELD[self._test]
        own = self._quantiles(scaled, chosen, held)
        share = n_sources / (n_sources + held)
        low, high = (share * a + (1 - share) * b for a, b in zip(own, wider, strict=True))
        return round(low, 4), round(high, 4)

    @cached_property
    def _sources(self) -> NDArray[np.str_]:
        return np.array([case.run.source for case in self.cases])

    @property
    def _test(self) -> str:
        return self.fitted.problem.runs[0].test

    def _quantiles(self, scaled: Floats, chosen: Mask, held: float = 0.0) -> tuple[float, float]:
        """Between which the promised share of weight lies; neither crosses the prediction.

        `held`: sources' worth of the wider group that these are held to.
        """
        order = np.argsort(scaled[chosen])
        values, weights = scaled[chosen][order], self._weights[chosen][order]
        at = (np.cumsum(weights) - weights / 2) / weights.sum()
        n_sources = len(set(self._sources[chosen])) + held
        tail = max(FEWEST, (1 - PROMISED) / 2 - THINNER[self._test] / n_sources)
        low, high = (float(np.interp(share, at, values)) for share in (tail, 1 - tail))
        return round(min(low, -LEAST), 4), round(max(high, LEAST), 4)


def _at_least(scales: Mapping[str, float]) -> dict[str, float]:
    """What predictions use: quantiles are of errors in units of the fitted scales."""
    believed = {name: max(x, scales[name]) for name, x in BELIEVED.items()}
    return {name: x for name, x in {**scales, **believed}.items() if name != LATER}


def _as_left(run: Run, leave: Leave) -> Run:
    return run.later() if leave == "later" else run
