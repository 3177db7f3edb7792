"""What a pass over a few tokens costs in plain passes, v(n) = T(n) / T(1), by causes.

    v(n) = 1 + exp(sum of fitted columns) - LEAST

Weights wait for memory while arithmetic is idle, so the columns are the number of tokens, the
backend, the weight type, and the device's bandwidth over its arithmetic: an MI50 has little
arithmetic for its memory and pays 4 plain passes for 8 tokens where an RX 9070 XT pays 1.2. The
experts of a mixture have columns of their own, beyond the bytes that more of them take. Where a
kernel takes tokens one by one, that of weights is a line up to 8 tokens.
"""

import re
from collections.abc import Iterator, Mapping
from math import exp, log

from localspec.hardware.probe_results import Curve
from localspec.prediction.conditions import TYPICAL_INTENSITY, Column, RunConditions
from localspec.prediction.families import BRAIN, CODEBOOKS, HALF

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
