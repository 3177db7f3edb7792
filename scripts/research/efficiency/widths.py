"""Fit v(n) to published batches: robust, with a ridge by kind of column, leaving devices out.

A mixture's pass touches more experts with every token. Its experts' own curve is what is left:

    v(n) = (1 - s) dense(n) + s touched(n) / touched(1) experts(n)

s is what the fit of decoding gives experts of a plain pass on that device.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from statistics import median
from typing import Any

import numpy as np
from research.efficiency.batches import Batch
from research.efficiency.places import Place
from research.efficiency.runs import Run
from research.efficiency.shapes import Shape

from localspec.prediction.efficiency import (
    CLIFF,
    LEAST,
    WIDTHS,
    Coefficients,
    dense_curve,
    expert_curve,
    width_columns,
)
from localspec.prediction.families import BITS

DENSE_SCALES = {
    "width": 10.0, "width in backend": 0.2, "width by type": 0.1, "backend": 0.4, "type": 0.2,
    "backend type": 0.4, "width by backend type": 0.1, "intensity": 1.0,
    "intensity in backend": 1.0, "intensity at width": 0.05,
}  # fmt: skip
EXPERT_SCALES = {
    "width": 2.5, "width in backend": 0.4, "width by type": 0.1, "type": 0.05,
    "backend type": 0.05, "width by backend type": 0.2,
}  # fmt: skip
"""How far each kind of column is believed to vary; from a search over devices left out."""
HUBER, RIDGE, STEPS = 0.5, 0.2, 15
Values = dict[str, float]


@dataclass(frozen=True)
class Widths:
    """The columns of both curves."""

    dense: Values
    experts: Values

    def cost(self, batch: Batch, n: int, share: float) -> float:
        """What is predicted of a batch, of whose plain pass experts have `share`."""
        dense = dense_curve(self.dense, batch.run).at(n)
        if batch.shape is None:
            return dense
        experts = expert_curve(self.experts, batch.run).at(n)
        return (1 - share) * dense + share * growth(batch.shape, n) * experts


def widths_of(batches: Sequence[Batch], known: Coefficients) -> Widths:
    """Fitted to batches; `known`: what parts of a plain pass take."""
    dense_points = [
        (batch, n, log(max(batch.costs[n] - 1, 0.0) + LEAST))
        for batch in batches
        if not batch.is_mixture
        for n in WIDTHS
        if n in batch.costs
    ]
    dense = _fitted(dense_points, DENSE_SCALES)
    alone = {
        (batch, n): log(_experts_alone(batch, n, dense, expert_share(batch, known)))
        for batch in batches
        if batch.is_mixture
        for n in (*WIDTHS, CLIFF)
        if n in batch.costs
    }
    points = [(batch, n, value) for (batch, n), value in alone.items() if n != CLIFF]
    return Widths(dense, (_fitted(points, EXPERT_SCALES) if points else {}) | _cliffs(alone))


def _cliffs(alone: Mapping[tuple[Batch, int], float]) -> Values:
    """What experts cost at the cliff beside what they cost at 16, in the same run: those that stop
    before it tell nothing of it, whatever they say of 16."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for (batch, n), value in alone.items():
        wide = alone.get((batch, WIDTHS[-1]))
        if n == CLIFF and wide is not None:
            found[f"cliff: {batch.backend}"].append(value - wide)
    return {name: sum(steps) / len(steps) for name, steps in found.items()}


def expert_share(batch: Batch, known: Coefficients) -> float:
    """Of a plain pass: streaming experts."""
    shape = batch.shape
    if shape is None:
        return 0.0
    run = replace(batch.run, chip="")
    file_bytes = shape.n_params * BITS[run.type_class] / 8
    place = Place(batch.device, run, (run.bandwidth_bytes_per_s,) * 2)
    plain = Run(place, "decode", shape, file_bytes, 256.0, 128, 1.0, "", None, 0)
    seconds = {part: base * known.factor(run, part) for part, base in plain.bases.items()}
    return seconds["experts"] / sum(seconds.values())


def _experts_alone(batch: Batch, n: int, dense: Values, share: float) -> float:
    assert batch.shape, "only of mixtures"
    rest = (1 - share) * dense_curve(dense, batch.run).at(n)
    return max(0.1, batch.costs[n] - rest) / (share * growth(batch.shape, n))


def growth(shape: Shape, n: int) -> float:
    """How many more experts n tokens touch than one does."""
    return shape.touched_share(n) / shape.used_share


def _fitted(points: Sequence[tuple[Batch, int, float]], scales: Mapping[str, float]) -> Values:
    """A ridge with Huber weights; curves of one device, backend and type share their weight."""
    rows = [
        {
            f"{kind}: {name}": x * scales[kind]
            for kind, name, x in width_columns(batch.run, n)
            if kind in scales
        }
        for batch, n, _ in points
    ]
    names = sorted({name for row in rows for name in row})
    x = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    y = np.array([value for _, _, value in points])
    counts = Counter(batch.run for batch, _, _ in points)
    weights = np.array([1 / counts[batch.run] ** 0.5 for batch, _, _ in points])
    theta = np.zeros(len(names))
    for _ in range(STEPS):
        robust = weights / np.maximum(1.0, np.abs(y - x @ theta) / HUBER)
        curvature = (x.T * robust) @ x + RIDGE * np.eye(len(names))
        theta = np.linalg.solve(curvature, (x.T * robust) @ y)
    return {
        name: float(value) * scales[name.partition(":")[0]]
        for name, value in zip(names, theta, strict=True)
    }


def left_out(
    batches: Sequence[Batch], known_without: Callable[[str], Coefficients]
) -> list[dict[str, Any]]:
    """How right v(n) is for devices that were left out, by backend and kind of model.

    `known_without`: what parts of a plain pass take by runs of other chips.
    """
    errors: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for device in sorted({batch.device for batch in batches}):
        known = known_without(device)
        found = widths_of([batch for batch in batches if batch.device != device], known)
        for batch in (batch for batch in batches if batch.device == device):
            share = expert_share(batch, known)
            for n in (n for n in WIDTHS if n in batch.costs):
                error = abs(found.cost(batch, n, share) / batch.costs[n] - 1)
                for kind in ("all", "moe" if batch.is_mixture else "dense"):
                    errors[batch.backend, kind].append(error)
    return [
        {"backend": backend, "kind": kind, "n": len(found), "median_error": median(found)}
        for (backend, kind), found in sorted(errors.items())
    ]
