"""What share of their figures devices reach, fitted to published runs.

    decode:   t = n_layers a + bytes / bandwidth * exp(x . theta)
    prefill:  t = 2 n elements / fp32 rate * exp(x . phi)

x are the circumstances of a run: backend, family, class of the weight type, age of the engine, and
the logarithms of bandwidth and of bandwidth over compute. A ridge holds every coefficient to zero
as far as the data do not ask for it, so that a family with few devices falls back on its backend,
and what only one device would determine is refused. `scripts/fit-efficiency` makes the data file,
which says from how many runs and devices each constant comes. It does not know: drivers, power
limits, heat.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import exp, log
from typing import Any, Self

from localspec.predict.families import SHARED_MEMORY
from localspec.predict.rates import Spread

NEWEST = "2025"
"""The age class of engine builds of today; `scripts/_runs.py` sorts published runs into classes."""

TYPICAL_BANDWIDTH = 4e11
TYPICAL_INTENSITY = 0.03


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a device's share of its figures depends on. `harness`: who measured, None for us."""

    backend: str
    family: str
    type_class: str
    bandwidth_bytes_per_s: float
    fp32_flops_per_s: float
    fp16_flops_per_s: float | None = None
    era: str = NEWEST
    harness: str | None = None
    is_laptop: bool = False

    def with_type(self, type_class: str) -> Self:
        return replace(self, type_class=type_class)


def features(run: Circumstances) -> Iterator[tuple[str, str, float]]:
    """(kind, name, value) of every coefficient that a run takes part in."""
    backend, family, kind, era = run.backend, run.family, run.type_class, run.era
    speed = log(run.bandwidth_bytes_per_s / TYPICAL_BANDWIDTH)
    intensity = log(run.bandwidth_bytes_per_s / run.fp32_flops_per_s / TYPICAL_INTENSITY)
    for group, name in (
        ("backend", backend),
        ("family", family),
        ("backend family", f"{backend}, {family}"),
        ("type", kind),
        ("backend type", f"{backend}, {kind}"),
        ("family type", f"{family}, {kind}"),
        ("era", era),
        ("backend era", f"{backend}, {era}"),
        ("family era", f"{family}, {era}"),
        ("backend harness", f"{backend}, {run.harness or 'none'}"),
        ("memory", "shared" if backend == "metal" or family in SHARED_MEMORY else "own"),
        ("laptop", "yes" if run.is_laptop else "no"),
    ):
        yield group, name, 1.0
    yield "bandwidth", "all", speed
    yield "bandwidth in backend", backend, speed
    yield "bandwidth in family", family, speed
    yield "bandwidth by type", f"{backend}, {kind}", speed
    matrix = log((run.fp16_flops_per_s or run.fp32_flops_per_s) / run.fp32_flops_per_s)
    yield "matrix rate", "all", matrix
    yield "matrix rate in backend", backend, matrix
    yield "intensity", "all", intensity
    yield "intensity in backend", backend, intensity
    yield "intensity by type", f"{backend}, {kind}", intensity


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Fitted to one test; names are "kind: name". `layer_s` by backend, of decoding."""

    values: Mapping[str, float]
    layer_s: Mapping[str, float]

    def factor(self, run: Circumstances) -> float:
        """How much longer than the figures say; circumstances that are not known change nothing."""
        known = self.values
        return exp(sum(x * known.get(f"{kind}: {name}", 0.0) for kind, name, x in features(run)))


@dataclass(frozen=True, slots=True)
class Support:
    """What an interval rests on."""

    n_runs: int
    n_devices: int
    low: float
    high: float

    @property
    def spread(self) -> Spread:
        return Spread(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The fitted data file: coefficients, intervals and their support, and v(n) by backend."""

    decode: Coefficients
    prefill: Coefficients
    support: Mapping[str, Mapping[str, Support]]
    verify: Mapping[str, tuple[tuple[float, float], ...]]

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        return cls(
            *(Coefficients(**document[test]) for test in ("decode", "prefill")),
            support={
                test: {name: Support(**entry) for name, entry in entries.items()}
                for test, entries in document["support"].items()
            },
            verify={
                name: tuple((float(n), float(v)) for n, v in points)
                for name, points in document["verify"].items()
            },
        )

    def support_of(self, test: str, backend: str) -> tuple[str, Support]:
        """The narrowest group with enough runs and devices: today's of the backend, it, or all."""
        known = self.support[test]
        name = next(name for name in (f"{backend}, {NEWEST}", backend, "all") if name in known)
        return name, known[name]

    def verify_curve(self, backend: str, type_class: str) -> tuple[tuple[float, float], ...]:
        """Points (n, T(n) / T(1)) of small batches, by the narrowest group that is known."""
        names = (f"{backend}, {type_class}", backend, "all")
        return next(self.verify[name] for name in names if name in self.verify)


@cache
def load() -> Efficiency:
    """The shipped constants."""
    text = (resources.files("localspec.predict") / "efficiency.json").read_text("utf-8")
    return Efficiency.from_json(json.loads(text))
