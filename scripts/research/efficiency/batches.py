"""What a pass over a few tokens costs in plain passes, v(n) = T(n) / T(1), from published batches.

Sources print speeds of several sequences, or of prompts in micro-batches of n. Dense models' curves
are means of logarithms: of a backend and weight type, held to those of its backend, held to those
of all. A mixture's pass touches more experts; what its experts cost beyond these bytes is a curve
of its own, solved for with the dense curve of its backend:

    v(n) = dense share * dense(n) + expert share * touched(n) / touched(1) * experts(n)
"""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean, median
from typing import Any

from research.efficiency.notes import number
from research.efficiency.shapes import Shape, shape_of

from localspec.prediction.families import type_class

WIDTHS = (2, 4, 8, 16)
CLIFF = 9
"""Where Vulkan's kernels for mixtures change."""
HELD = 2
"""Devices' worth of trust in the wider group."""
EXPERT_SHARE = 0.6
"""Of a mixture's plain pass: experts; the rest is attention, shared weights and launches."""
Curves = dict[str, dict[int, float]]


@dataclass(frozen=True, slots=True)
class Batch:
    """One curve: v by number of tokens."""

    device: str
    backend: str
    type_class: str
    shape: Shape | None
    costs: dict[int, float]

    @property
    def is_mixture(self) -> bool:
        return bool(self.shape and self.shape.is_mixture)


def read_batches(*paths: Path) -> list[Batch]:
    """Curves that have a plain pass to compare with."""
    groups: defaultdict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                n, speed = number(row.get("batch_k") or row.get("B")), _speed(row)
                if n and speed and "@ d" not in row.get("kind", ""):
                    groups[_key(row)][round(n)] = speed
    return [_batch(key, speeds) for key, speeds in groups.items() if speeds.get(1)]


def _speed(row: dict[str, str]) -> float | None:
    """Of all sequences, or of a prompt in such micro-batches."""
    return (
        number(row.get("tokens_per_s"))
        or number(row.get("tg_tps_total"))
        or ("micro-batch" in row.get("kind", "") and number(row.get("pp_tps")))
        or None
    )


def _key(row: dict[str, str]) -> tuple[str, ...]:
    device = re.sub(r" (llama\.cpp-\S+|\(.*\))$", "", row["device"])
    if "Ryzen AI Max" in device:
        device = "AMD Strix Halo"
    backend = re.split(r"[ -]", row["backend"].lower())[0]
    quant = re.split(r"[.\- ]", row["quant"])[-1]  # some are file names
    variant = row["source"] + row["device"] + row.get("kind", "") + row.get("notes", "")
    return device, backend, type_class(quant), row["model"], row["moe"], variant


def _batch(key: tuple[str, ...], speeds: dict[int, float]) -> Batch:
    device, backend, kind, model, moe, _ = key
    costs = {n: n * speeds[1] / speed for n, speed in speeds.items() if n > 1}
    shape = shape_of(model, None, is_mixture=moe == "1") if moe == "1" else None
    return Batch(device, backend, kind, shape, costs)


def curves_of(batches: Sequence[Batch]) -> Curves:
    """By group, "cuda", "cuda, K-quants" or "experts, cuda", the cost at each width."""
    dense = [batch for batch in batches if not batch.is_mixture]
    curves = _held(dense, "all", "{0.backend}", "{0.backend}, {0.type_class}")
    mixtures = [_experts_alone(batch, curves) for batch in batches if batch.is_mixture]
    return curves | _held(mixtures, "experts", "experts, {0.backend}")


def cost(curves: Curves, batch: Batch, n: int) -> float:
    """What the curves predict of a batch, at a width of `WIDTHS`."""
    names = (f"{batch.backend}, {batch.type_class}", batch.backend, "all")
    dense = next(curves[name][n] for name in names if name in curves)
    if batch.shape is None:
        return dense
    experts = curves.get(f"experts, {batch.backend}", curves["experts"])[n]
    return (1 - EXPERT_SHARE) * dense + EXPERT_SHARE * _growth(batch.shape, n) * experts


def _growth(shape: Shape, n: int) -> float:
    """How many more experts n tokens touch than one does."""
    return shape.touched_share(n) / shape.used_share


def _experts_alone(batch: Batch, curves: Curves) -> Batch:
    dense, shape = curves.get(batch.backend, curves["all"]), batch.shape
    assert shape, "only of mixtures"
    costs = {
        n: max(0.1, v - (1 - EXPERT_SHARE) * dense.get(n, dense[16] if n > CLIFF else dense[8]))
        / (EXPERT_SHARE * _growth(shape, n))
        for n, v in batch.costs.items()
        if n in (*WIDTHS, CLIFF)
    }
    return Batch(batch.device, batch.backend, batch.type_class, shape, costs)


def _held(batches: Sequence[Batch], *names: str) -> Curves:
    """Means of logarithms by group, each held to the wider one before it."""
    groups: defaultdict[str, list[Batch]] = defaultdict(list)
    wider: dict[str, str] = {}
    for batch in batches:
        chain = [name.format(batch) for name in names]
        for name, before in zip(chain, [None, *chain], strict=False):
            groups[name].append(batch)
            if before:
                wider[name] = before
    curves: Curves = {}
    for name in sorted(groups, key=lambda name: (name in wider, name.count(","), name)):
        parent = curves.get(wider.get(name, ""), {})
        curves[name] = {n: _mean(groups[name], n, parent) for n in WIDTHS}
        if any(CLIFF in batch.costs for batch in groups[name]) and name == "experts, vulkan":
            curves[name][CLIFF] = _mean(groups[name], CLIFF, parent)
    return curves


def _mean(batches: Sequence[Batch], n: int, parent: dict[int, float]) -> float:
    by_device: defaultdict[str, list[float]] = defaultdict(list)
    for batch in batches:
        if n in batch.costs:
            by_device[batch.device].append(log(batch.costs[n]))
    means = [median(values) for values in by_device.values()]
    held = [log(parent[n])] * HELD if n in parent else []
    return exp(fmean([*means, *held])) if means or held else float(n)


def left_out(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """How right the curves are for devices that were left out, by backend and kind of model."""
    errors: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for device in sorted({batch.device for batch in batches}):
        curves = curves_of([batch for batch in batches if batch.device != device])
        for batch in (batch for batch in batches if batch.device == device):
            kind = "moe" if batch.is_mixture else "dense"
            for n in WIDTHS:
                if n in batch.costs:
                    error = abs(cost(curves, batch, n) / batch.costs[n] - 1)
                    errors[batch.backend, kind].append(error)
    return [
        {"backend": backend, "kind": kind, "n": len(found), "median_error": median(found)}
        for (backend, kind), found in sorted(errors.items())
    ]
