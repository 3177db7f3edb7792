"""Intervals that hold out of sample: errors of runs that were left out, scaled by what is known.

Every run of today's engines is predicted up to three times: without its source, without its chip,
too, and without all that is not older, too. The scale of the errors is fitted (Laplace, log-linear,
with a ridge) to what was known in each of the first two cases; quantiles of the scaled errors make
the interval, by backend and kind of model, each held to the wider group. What the third adds to the
squares of the errors is what engines change within months, by backend. Runs of a source err
together, so few sources widen, and few independent pairs of a chip and a source that ran a kind of
model on a backend with engines of an age. What is left out for a run is left out of all of it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from research.efficiency.later import Case, changes_of
from research.efficiency.regression import Fitted, Floats, Leave, Mask
from research.efficiency.runs import Run
from research.efficiency.seen import Seen

from localspec.prediction.uncertainty import (
    ANYWHERE,
    BEYOND,
    EVERY_HEAD,
    Known,
    Uncertainty,
    causes,
    untried,
)

PROMISED = 0.8
RIDGE, STEPS = 6.0, 30
HELD = {"decode": 4.0, "prefill": 40.0}
"""Sources' or pairs' worth of trust in the wider group beside one's own."""
FEWEST = 0.03
"""Of a tail; that of few sources is thinner, because a new one may lie beyond all of them."""
THINNER = {"decode": 0.9, "prefill": 0.0}
"""Of a source, own or held: by how much. 0.9 is exact, if every source of a group is as any
other."""
BELIEVED = {"backend not seen": 1.1, "mla models not seen": 1.1, EVERY_HEAD: 2.8}
"""Before any run, and at least, of log s: errors on a backend that nobody measured, and those of
latent attention, which every backend reads in its own way, are three times as large. The upper
quantile allows nearly what twenty heads that read their own copy take, whatever share attention
has. Few backends and models teach it."""
VOICE = {"decode": 0.1, "prefill": 0.4}
"""A source, or in prompts a pair of a chip and a source, of n runs counts as n to the power of 1
less this."""
FLOOR = {"decode": 0.1, "prefill": 0.0}
"""Of a scale, in squares beside its causes: half of what sources disagree about the same file on
the same chip, whatever is known of it. In prompts it costs more than it brings."""
LEAST = 0.9
"""Of a quantile, in scales: few backends' errors are so lopsided that one side needs no room."""
OLD = ("llamafile", "2023", "2024")
"""Engines whose errors nobody is promised."""


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
        return self._calibrated(np.ones(len(self.cases), bool), self.seen.pairs())

    def without(self, chip: str, source: str) -> Uncertainty:
        """By cases of other chips and other sources."""
        keep = [c.run.chip != chip and c.run.source != source for c in self.cases]
        return self._calibrated(np.array(keep), self.seen.pairs(chip, source))

    @cached_property
    def _causes(self) -> tuple[list[str], Floats]:
        rows = [
            dict(causes(case.run.conditions, known, case.shares))
            for case, known in zip(self.cases, self._known, strict=True)
        ]
        names = sorted({name for row in rows for name in row})
        return names, np.array([[row.get(name, 0.0) for name in names] for row in rows])

    @cached_property
    def _known(self) -> list[Known]:
        """Of every case, beside what was left out."""
        return [self.seen.known(case.run, case.leave) for case in self.cases]

    @cached_property
    def _weights(self) -> Floats:
        counts = Counter(zip(self._voices, self._leaves, strict=True))
        voice = VOICE[self._test]
        return np.array(
            [counts[each] ** -voice for each in zip(self._voices, self._leaves, strict=True)]
        )

    @cached_property
    def _voices(self) -> NDArray[np.str_]:
        """Who speaks: a source, or in prompts what it measured on one chip."""
        by_chip = self._test == "prefill"
        return np.array(
            [f"{c.run.source}, {c.run.chip}" if by_chip else c.run.source for c in self.cases]
        )

    @cached_property
    def _leaves(self) -> NDArray[np.str_]:
        return np.array([case.leave for case in self.cases])

    @cached_property
    def _errors(self) -> Floats:
        return np.array([case.error for case in self.cases])

    def _scales(self, keep: Mask) -> dict[str, float]:
        """s^2 = exp(2 x beta) + floor^2 by the likelihood of a Laplace distribution,
        log s + |error| / s."""
        names, x = self._causes[0], self._causes[1][keep]
        size, weights = np.abs(self._errors[keep]), self._weights[keep]
        centre = np.array([BELIEVED.get(name, 0.0) for name in names])
        centre[names.index("all")] = np.log(np.mean(size))
        beta = centre.copy()
        for _ in range(STEPS):
            usual, by_causes = self._usual(x, beta)
            ratio, moves = np.clip(size / usual, 0, 8), x * by_causes
            gradient = moves.T @ (weights * (1 - ratio)) + RIDGE * (beta - centre)
            curvature = (moves.T * (weights * np.maximum(ratio, 0.3))) @ moves
            step = np.linalg.solve(curvature + RIDGE * np.eye(len(beta)), gradient)
            beta -= np.clip(step, -1, 1)
        found = {name: round(float(b), 4) for name, b in zip(names, beta, strict=True)}
        return BELIEVED | found

    def _usual(self, x: Floats, beta: Floats) -> tuple[Floats, Floats]:
        """Scales by causes and the floor, and what a change of each cause has of their change."""
        beyond = np.array([name in BEYOND for name in self._causes[0]])
        own = np.exp(x[:, ~beyond] @ beta[~beyond])
        usual = np.hypot(own, FLOOR[self._test])
        share = np.where(beyond, 1.0, ((own / usual) ** 2)[:, None])
        return usual * np.exp(x[:, beyond] @ beta[beyond]), share

    def _scaled(self, scales: Mapping[str, float]) -> Floats:
        names, x = self._causes
        usual, _ = self._usual(x, np.array([scales[name] for name in names]))
        found = zip(self.cases, self._known, usual, strict=True)
        beside = [
            untried(case.run.conditions, known.n_of_sort, float(scale))
            for case, known, scale in found
        ]
        return self._errors / np.hypot(usual, beside)

    def _calibrated(self, keep: Mask, pairs: Mapping[str, int]) -> Uncertainty:
        """By groups from wide to narrow, of cases whose chip was left out."""
        dated = keep & (self._leaves != "later")
        chosen = dated & self._is_new
        scales = self._scales(dated)
        scaled = self._scaled(scales)
        found = {ANYWHERE: self._quantiles(scaled, chosen)}
        for names in self._names:
            for name in sorted(set(names[chosen])):
                wider = found.get(str(name).rpartition(", ")[0], found[ANYWHERE])
                found[str(name)] = self._held(scaled, chosen & (names == name), wider)
        later = changes_of([case for case, kept in zip(self.cases, keep, strict=True) if kept])
        thin = frozenset(self.seen.thin)
        return Uncertainty(_at_least(scales), found, later, pairs, thin, FLOOR[self._test])

    @cached_property
    def _is_new(self) -> Mask:
        """Cases in which no other run of the device is known."""
        seen = [
            self.seen.without(case.run, case.leave)(
                f"device: {case.run.conditions.backend}, {case.run.chip}"
            )
            for case in self.cases
        ]
        return ~np.array(seen)

    @cached_property
    def _names(self) -> list[NDArray[np.str_]]:
        """Of every case its backend, and with its kind of model."""
        known = [case.run.conditions for case in self.cases]
        return [
            np.array([run.backend for run in known]),
            np.array([f"{run.backend}, {run.kind}" for run in known]),
        ]

    def _held(
        self, scaled: Floats, chosen: Mask, wider: tuple[float, float]
    ) -> tuple[float, float]:
        n_voices, held = len(set(self._voices[chosen])), HELD[self._test]
        own = self._quantiles(scaled, chosen, held)
        share = n_voices / (n_voices + held)
        low, high = (share * a + (1 - share) * b for a, b in zip(own, wider, strict=True))
        return round(low, 4), round(high, 4)

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
        n_voices = len(set(self._voices[chosen])) + held
        tail = max(FEWEST, (1 - PROMISED) / 2 - THINNER[self._test] / n_voices)
        low, high = (float(np.interp(share, at, values)) for share in (tail, 1 - tail))
        return round(min(low, -LEAST), 4), round(max(high, LEAST), 4)


def _at_least(scales: Mapping[str, float]) -> dict[str, float]:
    """What predictions use: quantiles are of errors in units of the fitted scales."""
    believed = {name: max(x, scales[name]) for name, x in BELIEVED.items()}
    return {**scales, **believed}


def _as_left(run: Run, leave: Leave) -> Run:
    return run.later() if leave == "later" else run
