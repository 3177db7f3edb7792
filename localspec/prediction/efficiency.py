"""The shipped constants: columns of the fit, intervals and what they rest on, and v(n).

`scripts/research/run fit-efficiency` writes efficiency.json from published runs.

v(n) = T(n) / T(1) is what a pass over a few tokens costs in plain passes, by causes:

    v(n) = 1 + exp(sum of fitted columns) - LEAST

Weights wait for memory while arithmetic is idle, so the columns are the number of tokens, the
backend, the weight type, and the device's bandwidth over its arithmetic: an MI50 has little
arithmetic for its memory and pays 4 plain passes for 8 tokens where an RX 9070 XT pays 1.2. The
experts of a mixture have columns of their own, beyond the bytes that more of them take. Where a
kernel takes tokens one by one, that of weights is a line up to 8 tokens.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from math import exp, log
from typing import Any, Self

from localspec.format import count
from localspec.hardware.probe_results import Curve
from localspec.prediction.conditions import (
    TYPICAL_INTENSITY,
    Column,
    Part,
    RunConditions,
    of_part,
    whole,
)
from localspec.prediction.evidence import Spreads
from localspec.prediction.families import BRAIN, CODEBOOKS, HALF
from localspec.prediction.rates import Shares, Spread, Test
from localspec.prediction.uncertainty import Uncertainty

WIDTHS = (2, 4, 8, 16)
CLIFF = 9
"""Where the kernels of some backends change: from there on experts cost about what 16 do."""
LEAST = 0.05
ONE_BY_ONE = 8
"""Tokens of a batch up to which kernels of vectors run, which may take them one by one."""
APPLE_EACH = 0.81
"""Of a plain pass, for each further token on Apple's chips from M3 on: the median of what matrices
took. 5 tokens: 4.25 (Q4_K) and 4.09 plain ones (Q6_K, M3 Pro; llama.cpp PR 27776); 2, 4 and 8
tokens: 1.81, 3.83 and 7.44 (Q4_0, M4 Pro; issue 25250 and PR 25377). Older chips share weights."""
_APPLE = re.compile(r"apple m[3-9]", re.IGNORECASE)


def width_columns(run: RunConditions, n_tokens: int) -> Iterator[Column]:
    """Columns of a pass over `n_tokens`."""
    backend, kind = run.backend, HALF if run.type_class == BRAIN else run.type_class
    if n_tokens == CLIFF:
        yield "cliff", backend, 1.0
        n_tokens = WIDTHS[-1]
    rate = run.bandwidth_bytes_per_s / run.fp32_flops_per_s
    intensity = log(rate / TYPICAL_INTENSITY)
    yield "width", str(n_tokens), 1.0
    yield "width in backend", f"{backend}, {n_tokens}", 1.0
    yield "width by type", f"{kind}, {n_tokens}", 1.0
    yield "backend", backend, 1.0
    yield "type", kind, 1.0
    yield "backend type", f"{backend}, {kind}", 1.0
    yield "width by backend type", f"{backend}, {kind}, {n_tokens}", 1.0
    yield "intensity", "all", intensity
    yield "intensity in backend", backend, intensity
    yield "intensity at width", str(n_tokens), intensity


def dense_curve(values: Mapping[str, float], run: RunConditions) -> Curve:
    """T(n) / T(1) of what every token takes part in."""
    points = {n: 1 + max(0.0, exp(_sum(values, run, n)) - LEAST) for n in WIDTHS}
    return Curve(((1.0, 1.0), *((float(n), v) for n, v in points.items())))


def weight_curve(values: Mapping[str, float], run: RunConditions) -> Curve:
    """Of weights that every token multiplies: also where kernels take tokens one by one."""
    curve, each = dense_curve(values, run), _for_each_token(run)
    if each is None:
        return curve
    points = _one_by_one({round(n): v for n, v in curve}, each)
    return Curve(((1.0, 1.0), *((float(n), v) for n, v in points.items())))


def _one_by_one(points: Mapping[int, float], each: float) -> dict[int, float]:
    """A line up to 8 tokens; then a kernel of matrices, whose tiles take 9 as long as 16."""
    *_, near, last = points.values()
    line = {n: 1 + each * (n - 1) for n in WIDTHS if n <= ONE_BY_ONE}
    return line | {CLIFF: last, WIDTHS[-1]: last, 2 * WIDTHS[-1]: last + 2 * (last - near)}


def _for_each_token(run: RunConditions) -> float | None:
    """Of a plain pass, for each further token; None where kernels share weights between tokens.

    SYCL reads codebooks again for every token, other types since llama.cpp PR 21845 once.
    """
    if run.backend == "metal" and _APPLE.match(run.chip):
        return APPLE_EACH
    return 1.0 if run.backend == "sycl" and run.type_class == CODEBOOKS else None


def expert_curve(values: Mapping[str, float], run: RunConditions) -> Curve:
    """Of experts beyond the bytes that more of them take. A cliff is where the backend has one."""
    has_cliff = f"cliff: {run.backend}" in values
    widths = sorted({*WIDTHS, CLIFF} if has_cliff else WIDTHS)
    return Curve(((1.0, 1.0), *((float(n), exp(_sum(values, run, n))) for n in widths)))


def _sum(values: Mapping[str, float], run: RunConditions, n_tokens: int) -> float:
    parts = {True: 0.0, False: 0.0}
    found = list(width_columns(run, n_tokens))
    for kind, name, x in found:
        parts[kind.startswith("intensity")] += x * values.get(f"{kind}: {name}", 0.0)
    intensity = next(x for kind, _, x in found if kind == "intensity")
    # More arithmetic never makes a pass dearer, whatever few devices of a backend may say.
    return parts[False] + (parts[True] if parts[True] * intensity >= 0 else 0.0)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Fitted to one test; names are "kind: name"."""

    values: Mapping[str, float]
    floors: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of a part's base, what it takes at least: weights stream little faster than rated."""

    def factor(self, run: RunConditions, part: Part) -> float:
        """How much longer than its base a part takes; what is not known changes nothing."""
        known = self.values
        columns = (*whole(run), *of_part(run, part))
        varying = exp(sum(x * known.get(f"{kind}: {name}", 0.0) for kind, name, x in columns))
        floor = self.floors.get(part, 0.0)
        return floor + (1 - floor) * varying


@dataclass(frozen=True, slots=True)
class Support:
    """What the constants of a backend rest on."""

    n_runs: int
    n_devices: int


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The fitted data file. `backends`: what its predictions rest on, by test and backend."""

    coefficients: Mapping[Test, Coefficients]
    uncertainty: Mapping[Test, Uncertainty]
    backends: Mapping[Test, Mapping[str, Support]]
    verify: Mapping[str, Mapping[str, float]]
    shared: Mapping[Test, Spreads]
    """How far runs of one source, device and model agree."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        tests: tuple[Test, ...] = ("decode", "prefill")
        return cls(
            {test: Coefficients(**document[test]) for test in tests},
            {test: Uncertainty.from_json(document["uncertainty"][test]) for test in tests},
            {
                test: {name: Support(*entry) for name, entry in document["backends"][test].items()}
                for test in tests
            },
            document["verify"],
            {test: Spreads(**document["shared"][test]) for test in tests},
        )

    def spread(self, test: Test, run: RunConditions, shares: Shares) -> Spread:
        """Factors on a predicted speed between which 80 % of measured ones lie."""
        known = self.coefficients[test].values
        return self.uncertainty[test].spread(run, known.__contains__, shares)

    def source(self, run: RunConditions) -> str:
        """What a prediction of decoding rests on, in a few words."""
        known = self.coefficients["decode"].values
        support = self.backends["decode"].get(run.backend)
        if support is None:
            return f"published runs of other backends: none is known of {run.backend}"
        if f"device: {run.backend}, {run.chip}" in known:
            nearest = "this device among them"
        elif f"backend family: {run.backend}, {run.family}" in known:
            nearest = f"{run.family} among them"
        else:
            nearest = f"none of {run.family}"
        return (
            f"{count(support.n_runs, 'published run')} of {count(support.n_devices, 'device')}"
            f" with {run.backend}, {nearest}"
        )

    def verify_curve(self, run: RunConditions, part: Part) -> Curve:
        """T(n) / T(1) of small batches; of experts beyond the bytes that more of them take."""
        if part == "experts":
            return expert_curve(self.verify["experts"], run)
        if part == "weights":
            return weight_curve(self.verify["dense"], run)
        return dense_curve(self.verify["dense"], run)


@cache
def load() -> Efficiency:
    """The shipped constants."""
    text = (resources.files("localspec.prediction") / "efficiency.json").read_text("utf-8")
    return Efficiency.from_json(json.loads(text))
