"""Fit factors of the parts of a pass to published runs: robust, with a ridge, leaving runs out.

    log t = log( sum over parts base * exp(X_part theta) ) + noise

by Gauss-Newton with Huber weights; the ridge scales every kind of column by how far it is believed
to vary, so that a device is held to its family, a family to its backend. Rows of one chip and
source share their weight, so that no source outvotes others by repeating itself. What all other
runs determine follows from the normal equations less a group's own part of them.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from research.efficiency.runs import Run
from research.efficiency.scales import DEVICE, SCALES

from localspec.prediction.conditions import Part, of_part, whole
from localspec.prediction.efficiency import Coefficients
from localspec.prediction.rates import Shares

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

RIDGE, STEPS, PRECISION = 0.05, 40, 2e-3
"""The last is the largest change of a logarithm of seconds that ends the steps."""
HUBER = {"decode": 0.08, "prefill": 0.15}
"""The error from which on a run counts less: drivers make prompts differ by more."""
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

    @property
    def huber(self) -> float:
        return HUBER[self.runs[0].test]

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
        self._a = _normal(self._jacobian, self._w) + RIDGE * np.eye(len(self.theta))
        self._last: dict[str, tuple[Floats, Floats]] = {}

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
        return float((w @ found) / (w.sum() + RIDGE / scale**2))

    def without(self, chip: str | None, source: str | None) -> Floats:
        """Columns' values that the runs of other chips and other sources determine.

        One Newton step from the solution for all, with its robust weights.
        """
        others, inverse = self._without_source(source or "")
        rows = [i for i in self._groups["chip", chip or ""] if self._source(i) != source]
        j, r = self._weighted(rows)
        spread = inverse @ j.T
        left = r - j @ (others - self.theta)
        return others - spread @ np.linalg.solve(np.eye(len(rows)) - j @ spread, left)

    def _without_source(self, source: str) -> tuple[Floats, Floats]:
        """Values without a source, and the inverse of the curvature there; the last is kept."""
        if source not in self._last:
            j, r = self._weighted(self._groups["source", source])
            if 4 * len(r) > len(self.theta):
                inverse = np.linalg.inv(self._a - j.T @ j)
            else:
                spread = self._inverse @ j.T
                inner = np.linalg.solve(np.eye(len(r)) - j @ spread, spread.T)
                inverse = self._inverse + spread @ inner
            self._last = {source: (self.theta - inverse @ (j.T @ r), inverse)}
        return self._last[source]

    def _weighted(self, rows: list[int]) -> tuple[Floats, Floats]:
        """Derivatives and residuals of runs, by the square roots of their weights."""
        root = np.sqrt(self._w[rows])
        return self._jacobian[rows] * root[:, None], self._residual[rows] * root

    @cached_property
    def _inverse(self) -> Floats:
        return np.linalg.inv(self._a)

    def _source(self, row: int) -> str:
        return self.problem.runs[row].source

    @cached_property
    def _groups(self) -> defaultdict[tuple[str, str], list[int]]:
        found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for i, run in enumerate(self.problem.runs):
            found["chip", run.chip].append(i)
            found["source", run.source].append(i)
        return found

    def shares(self) -> list[Shares]:
        """What launches and attention take of every prediction."""
        return [Shares(float(a), float(b)) for a, b in self.problem.shares(self.theta)]

    def unseen(self, wanted: Container[int] | None = None, *, leave_chip: bool = True) -> Floats:
        """log(measured / predicted seconds) of every run, its chip and source left out."""
        pairs: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for i, run in enumerate(self.problem.runs):
            if wanted is not None and i not in wanted:
                continue
            pairs[run.source, run.chip].append(i)
        errors = np.zeros(len(self.problem.runs))
        for (source, chip), rows in sorted(pairs.items()):
            step = self.without(chip if leave_chip else None, source) - self.theta
            errors[rows] = self._residual[rows] - self._jacobian[rows] @ step
            if not leave_chip:
                errors[rows] -= self.device(self._elsewhere(rows[0]))
        return errors

    def _elsewhere(self, row: int) -> list[int]:
        """Runs of the same device by other sources."""
        run = self.problem.runs[row]
        return [
            i
            for i in self._groups["chip", run.chip]
            if self.problem.runs[i].conditions.backend == run.conditions.backend
            and self._source(i) != run.source
        ]


def _normal(jacobian: Floats, weights: Floats) -> Floats:
    return (jacobian.T * weights) @ jacobian


def _gauss_newton(problem: Problem, start: Floats | None) -> Floats:
    theta = np.zeros(len(problem.names)) if start is None else start.copy()
    for _ in range(STEPS):
        predicted, jacobian = problem.linear(theta)
        residual = predicted - problem.target
        robust = problem.weights / np.maximum(1.0, np.abs(residual) / problem.huber)
        curvature = _normal(jacobian, robust) + RIDGE * np.eye(len(theta))
        gradient = jacobian.T @ (robust * residual) + RIDGE * theta
        step = np.clip(np.linalg.solve(curvature, gradient), -1.0, 1.0)
        theta -= step
        if np.abs(jacobian @ step).max() < PRECISION:
            break
    return theta
