"""Fit shares of published figures to published runs: robust, with a ridge, and leaving chips out.

Decoding: log t is fitted, t = n_layers a + bytes / bandwidth * exp(X theta), by Gauss-Newton with
Huber weights; the ridge scales every kind of coefficient by how far it is believed to vary. Prefill
has no overhead term. Rows of one chip and source share their weight, so that no source outvotes
others by repeating itself.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from research.efficiency.intervals import Errors
from research.efficiency.runs import Run
from research.efficiency.scales import LAYER_S, SCALES

from localspec.prediction.published import CACHE_STREAM, Coefficients, features

Floats = NDArray[np.float64]

RIDGE, HUBER, STEPS, PRECISION = 0.05, 0.08, 60, 2e-4
STATE = "state"
"""A throttled machine's own slowness, so that its chip's relatives do not inherit all of it. Of one
machine, it is no constant: nothing is predicted with it."""
MIN_CHIPS = 2
"""What fewer chips would determine is refused: the wider group stands in."""


@dataclass(frozen=True)
class Problem:
    """Runs of one test as arrays; `ideal_s` is what the figures alone say, `names` the columns,
    `chips` what takes part in each."""

    runs: Sequence[Run]
    names: list[str]
    chips: list[set[str]]
    scales: Floats
    x: Floats
    ideal_s: Floats
    fixed_s: Floats
    measured_s: Floats
    weights: Floats

    def solve(self, without: str | None = None) -> Coefficients:
        """The coefficients that the runs of all other chips determine; those of too few are not."""
        theta = self._all if without is None else self._theta(without, self._all)
        values = {
            name: float(scale * x)
            for name, scale, x in zip(self.names, self.scales, theta, strict=True)
            if x and not name.startswith(STATE)
        }
        return Coefficients(values, LAYER_S)

    @cached_property
    def _all(self) -> Floats:
        return self._theta(None, np.zeros(len(self.names)))

    def _theta(self, without: str | None, start: Floats) -> Floats:
        """In units of the scales; zero where too few chips take part."""
        keep = np.array([run.chip != without for run in self.runs])
        used = [
            i
            for i, (name, chips) in enumerate(zip(self.names, self.chips, strict=True))
            if len(chips - {without}) >= (1 if name.startswith(STATE) else MIN_CHIPS)
        ]
        theta = np.zeros(len(self.names))
        theta[used] = _gauss_newton(
            self.x[np.ix_(keep, used)], self.ideal_s[keep], self.fixed_s[keep],
            self.measured_s[keep], self.weights[keep], start[used],
        )  # fmt: skip
        return theta

    def predicted(self, coefficients: Coefficients, rows: NDArray[np.bool_]) -> Floats:
        """Tokens per second."""
        indices = np.flatnonzero(rows)
        least = 1.0 if self.runs[0].test == "decode" else 0.0  # nothing streams faster than rated
        places = [self.runs[i].place for i in indices]
        factors = [max(least, coefficients.factor(place.circumstances)) for place in places]
        seconds = self.ideal_s[indices] * np.array(factors) + self.fixed_s[indices]
        return np.array([_tokens(self.runs[i]) for i in indices]) / seconds


def problem_of(runs: Sequence[Run]) -> Problem:
    """Of runs of one test."""
    scales = SCALES[runs[0].test]
    rows = [
        {
            f"{kind}: {name}": (value, scales[kind])
            for kind, name, value in features(run.place.circumstances)
            if scales[kind]
        }
        | ({f"{STATE}: {run.chip}": (1.0, scales[STATE])} if run.place.is_throttled else {})
        for run in runs
    ]
    names = sorted({name for row in rows for name in row})
    position = {name: i for i, name in enumerate(names)}
    x = np.zeros((len(runs), len(names)))
    sizes = np.zeros(len(names))
    for i, row in enumerate(rows):
        for name, (value, scale) in row.items():
            x[i, position[name]] = value * scale
            sizes[position[name]] = scale
    sources = Counter((run.chip, run.place.circumstances.harness) for run in runs)
    return Problem(
        runs=runs,
        names=names,
        chips=[{runs[i].chip for i in np.flatnonzero(column)} for column in x.T],
        scales=sizes,
        x=x,
        ideal_s=np.array([ideal_s(run) for run in runs]),
        fixed_s=np.array([_fixed_s(run) for run in runs]),
        measured_s=np.array([_tokens(run) / run.tokens_per_s for run in runs]),
        weights=np.array([1 / sqrt(sources[r.chip, r.place.circumstances.harness]) for r in runs]),
    )


def ideal_s(run: Run) -> float:
    """What a run's pass takes at the device's figures."""
    known = run.place.circumstances
    if run.test == "decode":
        cache = CACHE_STREAM[run.flash] * run.shape.kv_bytes * run.depth
        return (run.streamed_bytes + cache) / known.bandwidth_bytes_per_s
    return _flops(run) / known.fp32_flops_per_s


def _flops(run: Run) -> float:
    """Of a prompt: every token meets all weights, and on average half of the prompt's others."""
    attention = run.shape.n_layers * run.shape.n_embd * (run.n_tokens + 2 * run.depth) * 2
    return run.n_tokens * (2 * run.shape.multiplied_params + attention)


def unseen(problem: Problem) -> dict[str, Coefficients]:
    """By chip, the coefficients that the runs of all other chips determine."""
    return {chip: problem.solve(without=chip) for chip in sorted({r.chip for r in problem.runs})}


def unseen_errors(problem: Problem, others: dict[str, Coefficients] | None = None) -> Errors:
    """Measured over predicted speed of every run, predicted without any run of its chip."""
    chips = np.array([run.chip for run in problem.runs])
    ratios = np.zeros(len(problem.runs))
    for chip, coefficients in (others or unseen(problem)).items():
        out = chips == chip
        measured = [run.tokens_per_s for run in problem.runs if run.chip == chip]
        ratios[out] = np.array(measured) / problem.predicted(coefficients, out)
    return Errors(tuple(problem.runs), tuple(ratios))


def _fixed_s(run: Run) -> float:
    if run.test == "prefill":
        return run.place.prefill_s_per_flop * _flops(run)
    return run.shape.n_layers * LAYER_S[run.place.circumstances.backend]


def _tokens(run: Run) -> float:
    return 1.0 if run.test == "decode" else float(run.n_tokens)


def _gauss_newton(
    x: Floats, ideal: Floats, fixed: Floats, measured: Floats, w: Floats, start: Floats
) -> Floats:
    theta, target = start.copy(), np.log(measured)
    for _ in range(STEPS):
        scaled = ideal * np.exp(x @ theta)
        residual = np.log(scaled + fixed) - target
        robust = w / np.maximum(1.0, np.abs(residual) / HUBER)
        jacobian = x * (scaled / (scaled + fixed))[:, None]
        curvature = jacobian.T @ (jacobian * robust[:, None]) + RIDGE * np.eye(len(theta))
        gradient = jacobian.T @ (robust * residual) + RIDGE * theta
        step = np.clip(np.linalg.solve(curvature, gradient), -0.5, 0.5)
        theta -= step
        if np.abs(step).max() < PRECISION:
            break
    return theta
