"""What a pass over a few tokens costs in plain passes, v(n) = T(n) / T(1), by causes.

    v(n) = 1 + exp(sum of fitted columns) - LEAST

Weights wait for memory while arithmetic is idle, so the columns are the number of tokens, the
backend, the weight type, and the device's bandwidth over its arithmetic: an MI50 has little
arithmetic for its memory and pays 4 plain passes for 8 tokens where an RX 9070 XT pays 1.2. The
experts of a mixture have columns of their own, beyond the bytes that more of them take.
"""

from collections.abc import Iterator, Mapping
from math import exp, log

from localspec.hardware.probe_results import Curve
from localspec.prediction.conditions import TYPICAL_INTENSITY, Column, RunConditions
from localspec.prediction.families import BRAIN, HALF

WIDTHS = (2, 4, 8, 16)
CLIFF = 9
"""Where the kernels of some backends change: from there on experts cost about what 16 do."""
LEAST = 0.05


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
    """T(n) / T(1) of weights that every token multiplies."""
    points = {n: 1 + max(0.0, exp(_sum(values, run, n)) - LEAST) for n in WIDTHS}
    return Curve(((1.0, 1.0), *((float(n), v) for n, v in points.items())))


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
