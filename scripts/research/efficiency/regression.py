"""Fit factors of the parts of a pass to published runs: robust, with a ridge, leaving runs out.

    log t = log( sum over parts base * exp(X_part theta) ) + noise

by Gauss-Newton with Huber weights; the ridge scales every kind of column by how far it is believed
to vary, so that a device is held to its family, a family to its backend. Rows of one chip and
source share their weight, so that no source outvotes others by repeating itself. What other runs
determine is fitted anew, with derivatives of the fit to all.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from research.efficiency.runs import Run
from research.efficiency.scales import DEVICE, SCALES

from localspec.prediction.conditions import Part, of_part, whole
from localspec.prediction.efficiency import Coefficients
from localspec.prediction.rates import Shares

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Leave = Literal["source", "chip", "later"]
"""What a run is predicted without: its source; its chip, too; and what is not older, too."""

STEPS, PRECISION = 40, 2e-3
"""The last is the largest change of a logarithm of seconds that ends the steps."""
RIDGE = {"decode": 0.035, "prefill": 0.05}
HUBER = {"decode": 0.03, "prefill": 0.15}
"""The error from which on a run counts less: drivers make prompts differ by more."""
COARSE, FINE = 6.0, 2.0
"""Times that, for the first steps of a fit anew."""
PARTS: dict[str, tuple[Part, ...]] = {
    "decode": ("launches", "weights", "experts", "attention"),
    "prefill": ("launches", "weights", "experts", "attention", "streaming"),
}
FLOORS: dict[str, dict[str, float]] = {"decode": {"weights": 0.8, "experts": 0.8}, "prefill": {}}
"""Of a part's base, which it takes at least: weights stream little faster than rated, and that only
where a cache keeps some of them."""


@dataclass(frozen=True)
class Problem:
    """Runs of one test as arrays: a matrix of columns and a vector of seconds for every part."""

    runs: Sequence[Run]
    names: list[str]
    scales: Floats
    x: tuple[Floats, ...]
    bases: tuple[Floats, ...]
    target: Floats
    weights: Floats

    @classmethod
    def of(cls, runs: Sequence[Run], names: list[str] | None = None) -> "Problem":
        """Of runs of one test; `names`: the columns of another problem, others are left out."""
        test = runs[0].test
        scales, parts = SCALES[test], PARTS[test]
        rows = [[dict(_columns(run, part)) for part in parts] for run in runs]
        if names is None:
            found = {name for row in rows for part in row for name in part}
            names = sorted(name for name in found if scales.get(name.partition(":")[0]))
        position = {name: i for i, name in enumerate(names)}
        sizes = np.array([scales[name.partition(":")[0]] for name in names])
        x = [np.zeros((len(runs), len(names))) for _ in parts]
        for i, row in enumerate(rows):
            for matrix, part in zip(x, row, strict=True):
                for name, value in part.items():
                    if name in position:
                        matrix[i, position[name]] = value * sizes[position[name]]
        bases = [np.array([run.bases.get(part, 0.0) for run in runs]) for part in parts]
        counts = Counter((run.chip, run.source) for run in runs)
        return cls(
            runs, names, sizes, tuple(x), tuple(bases),
            target=np.log([run.seconds for run in runs]),
            weights=np.array([1 / sqrt(counts[run.chip, run.source]) for run in runs]),
        )  # fmt: skip

    def of_rows(self, rows: Sequence[int]) -> "Problem":
        """Of some of the runs."""
        return replace(
            self,
            runs=[self.runs[i] for i in rows],
            x=tuple(x[rows] for x in self.x),
            bases=tuple(base[rows] for base in self.bases),
            target=self.target[rows],
            weights=self.weights[rows],
        )

    @property
    def huber(self) -> float:
        return HUBER[self.runs[0].test]

    @property
    def ridge(self) -> float:
        return RIDGE[self.runs[0].test]

    def shares(self, theta: Floats) -> Floats:
        """Of launches and of attention in predicted seconds."""
        parts = self._parts(theta)
        total = sum(parts)
        names = PARTS[self.runs[0].test]
        wanted = [parts[names.index(part)] / total for part in ("launches", "attention")]
        return np.array(wanted).T

    def _parts(self, theta: Floats) -> list[Floats]:
        return [fixed + varying for fixed, varying in self._fixed_and_varying(theta)]

    def _fixed_and_varying(self, theta: Floats) -> list[tuple[Floats, Floats]]:
        """Of every part, what its base takes at least, and what the columns change."""
        test = self.runs[0].test
        found: list[tuple[Floats, Floats]] = []
        for part, base, x in zip(PARTS[test], self.bases, self.x, strict=True):
            floor = FLOORS[test].get(part, 0.0)
            varying = (1 - floor) * base * np.exp(np.clip(x @ theta, -20, 20))
            found.append((floor * base, varying))
        return found

    def linear(self, theta: Floats) -> tuple[Floats, Floats]:
        """Logarithms of predicted seconds, and their derivatives."""
        parts = self._fixed_and_varying(theta)
        total = sum(fixed + varying for fixed, varying in parts)
        jacobian = sum(
            (varying / total)[:, None] * x for (_, varying), x in zip(parts, self.x, strict=True)
        )
        return np.log(total), jacobian


def _columns(run: Run, part: Part) -> Iterator[tuple[str, float]]:
    for kind, name, value in (*whole(run.conditions), *of_part(run.conditions, part)):
        yield f"{kind}: {name}", value


class Fitted:
    """The solution for all runs, and what others determine where a group is left out."""

    def __init__(self, problem: Problem, start: Floats | None = None) -> None:
        self.problem = problem
        self.theta = _gauss_newton(problem, start)
        self._predicted, self._jacobian = problem.linear(self.theta)
        residual = problem.target - self._predicted
        self._w = problem.weights / np.maximum(1.0, np.abs(residual) / problem.huber)
        self._residual = residual
        self._known: dict[tuple[str | None, str | None, str | None], Floats] = {}

    @cached_property
    def coefficients(self) -> Coefficients:
        """With what every device has beside its family, held to nothing as the columns are."""
        problem = self.problem
        values = {
            name: float(scale * x)
            for name, scale, x in zip(problem.names, problem.scales, self.theta, strict=True)
        }
        devices: defaultdict[str, list[int]] = defaultdict(list)
        for i, run in enumerate(problem.runs):
            devices[f"device: {run.conditions.backend}, {run.chip}"].append(i)
        values |= {name: self.device(rows) for name, rows in devices.items()}
        return Coefficients(values, FLOORS[problem.runs[0].test])

    def coefficients_without(self, chip: str) -> Coefficients:
        """By runs of other chips, of whatever source."""
        problem, theta = self.problem, self.without(chip, None)
        values = zip(problem.names, problem.scales * theta, strict=True)
        return Coefficients(dict(values), FLOORS[problem.runs[0].test])

    def device(self, rows: Sequence[int], errors: Floats | None = None) -> float:
        """What runs of one device have in common beside their prediction."""
        if not rows:
            return 0.0
        w, scale = self._w[rows], DEVICE[self.problem.runs[0].test]
        found = (self._residual if errors is None else errors)[rows]
        return float((w @ found) / (w.sum() + self.problem.ridge / scale**2))

    def without(self, chip: str | None, source: str | None, before: str | None = None) -> Floats:
        """Columns' values that the runs of other chips, of other sources, of earlier months
        determine; None leaves none out. Runs of no month count as earlier.

        A fit anew, from robust weights that do not remember what is left out: the weights of the
        last step do, because they hold runs near what all runs say.
        """
        left_out = (chip, source, before)
        if left_out not in self._known:
            self._known[left_out] = self._refit(self._keeps(*left_out))
        return self._known[left_out]

    def left_without(
        self, chip: str | None, source: str | None, before: str | None = None
    ) -> Floats:
        """log(measured / predicted seconds) of all runs by what `without` the same leaves."""
        return self._residual - self._jacobian @ (self.without(chip, source, before) - self.theta)

    def _keeps(self, chip: str | None, source: str | None, before: str | None) -> Mask:
        runs = self.problem.runs
        return np.array(
            [
                run.chip != chip
                and run.source != source
                and (before is None or (run.month or "") < before)
                for run in runs
            ]
        )

    def _refit(self, keep: Mask) -> Floats:
        """Of some of the runs, with the derivatives at the solution for all."""
        j, residual, w = self._jacobian[keep], self._residual[keep], self.problem.weights[keep]
        curvature, gradient = self._coarse
        out, w_out = self._jacobian[~keep], self._coarse_weights[~keep]
        curvature = curvature - _normal(out, w_out)
        step = self._solved(curvature, gradient - out.T @ (w_out * self._residual[~keep]))
        for huber in (FINE * self.problem.huber, self.problem.huber):
            robust = w / np.maximum(1.0, np.abs(residual - j @ step) / huber)
            step = self._solved(_normal(j, robust), j.T @ (robust * residual))
        return self.theta + step

    def _solved(self, curvature: Floats, gradient: Floats) -> Floats:
        ridge = self.problem.ridge
        held = curvature + ridge * np.eye(len(self.theta))
        return np.linalg.solve(held, gradient - ridge * self.theta)

    @cached_property
    def _coarse_weights(self) -> Floats:
        """Robust ones that let runs far from the solution pull, too."""
        wide = COARSE * self.problem.huber
        return self.problem.weights / np.maximum(1.0, np.abs(self._residual) / wide)

    @cached_property
    def _coarse(self) -> tuple[Floats, Floats]:
        """The curvature and the gradient of all runs with these weights."""
        w = self._coarse_weights
        return _normal(self._jacobian, w), self._jacobian.T @ (w * self._residual)

    def _source(self, row: int) -> str:
        return self.problem.runs[row].source

    @cached_property
    def _chips(self) -> defaultdict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for i, run in enumerate(self.problem.runs):
            found[run.chip].append(i)
        return found

    def shares(self) -> list[Shares]:
        """What launches and attention take of every prediction."""
        return [Shares(float(a), float(b)) for a, b in self.problem.shares(self.theta)]

    def unseen(self, pair: tuple[str, str], *, leave: Leave) -> Floats:
        """log(measured / predicted seconds) of the runs of a chip by a source.

        `leave`: the source alone, its chip, too, or also what is not older than their first month.
        """
        chip, source = pair
        rows = [i for i in self._chips[chip] if self._source(i) == source]
        months = [month for i in rows if (month := self.problem.runs[i].month)]
        before = min(months, default=None) if leave == "later" else None
        theta = self.without(None if leave == "source" else chip, source, before)
        own = self.problem.of_rows(rows)
        errors = own.target - own.linear(theta)[0]
        if leave != "source":
            return errors
        known = self.left_without(None if leave == "source" else chip, source, before)
        return errors - np.array([self.device(self._elsewhere(i), known) for i in rows])

    def _elsewhere(self, row: int) -> list[int]:
        """Runs of the same device by other sources."""
        run = self.problem.runs[row]
        return [
            i
            for i in self._chips[run.chip]
            if self.problem.runs[i].conditions.backend == run.conditions.backend
            and self._source(i) != run.source
        ]


def _normal(jacobian: Floats, weights: Floats) -> Floats:
    """By roots of weights: a matrix times its own transpose takes half the time."""
    weighted = np.sqrt(weights)[:, None] * jacobian
    return weighted.T @ weighted


def _gauss_newton(problem: Problem, start: Floats | None) -> Floats:
    theta = np.zeros(len(problem.names)) if start is None else start.copy()
    for _ in range(STEPS):
        predicted, jacobian = problem.linear(theta)
        residual = predicted - problem.target
        robust = problem.weights / np.maximum(1.0, np.abs(residual) / problem.huber)
        curvature = _normal(jacobian, robust) + problem.ridge * np.eye(len(theta))
        gradient = jacobian.T @ (robust * residual) + problem.ridge * theta
        step = np.clip(np.linalg.solve(curvature, gradient), -1.0, 1.0)
        theta -= step
        if np.abs(jacobian @ step).max() < PRECISION:
            break
    return theta
