"""What the time of published runs depends on: conditions of a run, and the columns of the fit.

A pass is a sum of parts, each a base that figures give times an exponential of fitted columns:

    decode:   launches, weights, experts and cache, each bytes / bandwidth; launches a time a layer
    prefill:  launches, weights, experts and attention, each operations / fp32 rate; streaming

Kernels are written for a generation of devices, so a device is held to its family, and its family
to its backend. What sources do (`habits`: a server's clock, a power cap, a prompt that counts) is
told apart from what devices do; a prediction for a user's machine has none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from typing import Literal, Self

from localspec.gguf.types import BY_NAME
from localspec.model.facts import ModelFacts
from localspec.prediction.families import BITS, BRAIN, HALF, KERNELS_OF, SHARED_MEMORY

NEWEST = "2026"
"""The age class of engine builds of today."""
UNDATED = "undated"

Part = Literal["launches", "weights", "experts", "attention", "streaming"]

LAUNCH_S = {"decode": 1e-5, "prefill": 3e-5}
"""Of a layer, before the fit: a launch takes a few microseconds, and a layer has a dozen."""
BESIDE_LAYERS = 2
"""Layers' worth of launches that a pass has beside them."""
TYPICAL_BANDWIDTH = 4e11
TYPICAL_INTENSITY = 0.03
TYPICAL_WIDTH = 4096
TYPICAL_CELLS = 4096
FEWEST_CELLS = 1024
PLAIN_CACHES = ("f32", "f16", "bf16")
"""Others are unpacked, on CUDA by a kernel that reads them anew for every head of queries."""


@dataclass(frozen=True, slots=True)
class RunConditions:
    """What a device's share of its figures depends on.

    `traits` of the model: "moe", "hybrid", "mla". `width`: its embedding length. `habits`: (kind,
    name) of what the source did, none for us. `cache`: the type of keys, and whether the fused
    kernel read them. `group`: heads of queries that share one of keys and values. `n_cells`: how
    deep attention looks: what is far does not fit into caches.
    """

    backend: str
    family: str
    type_class: str
    bandwidth_bytes_per_s: float
    fp32_flops_per_s: float
    fp16_flops_per_s: float | None = None
    era: str = NEWEST
    age_years: float = 0.0
    chip: str = ""
    traits: tuple[str, ...] = ()
    width: int = TYPICAL_WIDTH
    cache: tuple[str, bool] = ("f16", True)
    group: float = 4.0
    n_cells: float = TYPICAL_CELLS
    habits: tuple[tuple[str, str], ...] = ()
    is_laptop: bool = False
    is_later: bool = False
    """Than all runs of which months are known: of an engine that may do what no run tells."""

    def with_type(self, type_class: str) -> Self:
        return replace(self, type_class=type_class)

    @property
    def drivers(self) -> tuple[str, ...]:
        """That a source chose, of several."""
        return tuple(name for kind, name in self.habits if kind == "driver")

    @property
    def kernels(self) -> str:
        """The family whose kernels run."""
        return KERNELS_OF.get(self.family, self.family)

    @property
    def kind(self) -> str:
        """The trait that decides most."""
        return next((kind for kind in ("mla", "moe", "hybrid") if kind in self.traits), "dense")

    @property
    def sort(self) -> str:
        """Of runs that engines change together: backend, kind of model and age class."""
        return f"{self.backend}, {self.kind}, {self.era}"


Column = tuple[str, str, float]
"""(kind, name, value) of a coefficient that a part of a run takes part in."""


def whole(run: RunConditions) -> Iterator[Column]:
    """Columns of all parts alike."""
    backend = run.backend
    for kind, name in (
        ("era", run.era),
        ("laptop", "yes" if run.is_laptop else "no"),
        ("device", f"{backend}, {run.chip}"),
        *((trait, "all") for trait in run.traits),
        *((f"{trait} in backend", backend) for trait in run.traits),
    ):
        yield kind, name, 1.0
    if _is_dated(run):
        yield from _engine(run)
    for kind, name in run.habits:
        yield f"habit, {kind}", f"{backend}, {name}", 1.0
        yield f"habit, {kind} anywhere", name, 1.0


def _is_dated(run: RunConditions) -> bool:
    """Runs on processors that are left out are predicted better without their engine's date."""
    return run.backend != "cpu"


def _engine(run: RunConditions) -> Iterator[Column]:
    """What an engine's age changes."""
    backend = run.backend
    yield "backend era", f"{backend}, {run.era}", 1.0
    yield "age in backend", backend, run.age_years
    for trait in run.traits:
        yield f"{trait} in era", f"{backend}, {run.era}", 1.0
        yield f"{trait} by age", backend, run.age_years


def of_part(run: RunConditions, part: Part) -> Iterator[Column]:
    """Columns of one part of a run."""
    if part == "launches":
        yield from _launches(run)
    elif part in ("weights", "experts"):
        yield from _weights(run)
        if part == "experts":
            yield from _experts(run)
    elif part == "attention":
        yield from _attention(run)
    else:
        yield "streaming in backend", run.backend, 1.0


def _launches(run: RunConditions) -> Iterator[Column]:
    backend = run.backend
    yield "launches", "all", 1.0
    yield "launches in backend", backend, 1.0
    yield "launches in family", f"{backend}, {run.kernels}", 1.0
    if _is_dated(run):
        yield "launches in era", f"{backend}, {run.era}", 1.0
        yield "launches by age", backend, run.age_years
    for trait in run.traits:
        yield f"launches of {trait}", "all", 1.0
        yield f"launches of {trait} in backend", backend, 1.0
    for kind, name in run.habits:
        if kind == "method":
            yield "habit, launches by method", f"{backend}, {name}", 1.0
            yield "habit, launches by method anywhere", name, 1.0


def _weights(run: RunConditions) -> Iterator[Column]:
    backend, family, kind = run.backend, run.kernels, run.type_class
    for each in (HALF, BRAIN) if kind == BRAIN else (kind,):
        yield "type", each, 1.0
        yield "backend type", f"{backend}, {each}", 1.0
        yield "family type", f"{backend}, {family}, {each}", 1.0
    for group, name in (
        ("backend", backend),
        ("family", family),
        ("backend family", f"{backend}, {family}"),
        ("memory", "shared" if backend == "metal" or family in SHARED_MEMORY else "own"),
    ):
        yield group, name, 1.0
    yield "bits", "all", log(BITS[HALF] / BITS[kind])
    speed = log(run.bandwidth_bytes_per_s / TYPICAL_BANDWIDTH)
    intensity = log(run.bandwidth_bytes_per_s / run.fp32_flops_per_s / TYPICAL_INTENSITY)
    matrix = log((run.fp16_flops_per_s or run.fp32_flops_per_s) / run.fp32_flops_per_s)
    width = log(run.width / TYPICAL_WIDTH)
    yield "bandwidth", "all", speed
    yield "bandwidth in backend", backend, speed
    yield "bandwidth in family", family, speed
    yield "bandwidth by type", f"{backend}, {kind}", speed
    yield "matrix rate", "all", matrix
    yield "matrix rate in backend", backend, matrix
    yield "intensity", "all", intensity
    yield "intensity in backend", backend, intensity
    yield "intensity by type", f"{backend}, {kind}", intensity
    yield "width", "all", width
    yield "width in backend", backend, width
    for driver in run.drivers:
        yield "habit, type by driver", f"{driver}, {kind}", 1.0


def _experts(run: RunConditions) -> Iterator[Column]:
    yield "experts", "all", 1.0
    yield "experts in backend", run.backend, 1.0
    yield "experts in family", f"{run.backend}, {run.kernels}", 1.0
    yield "experts by type", f"{run.backend}, {run.type_class}", 1.0
    if _is_dated(run):
        yield "experts by age", run.backend, run.age_years


def _attention(run: RunConditions) -> Iterator[Column]:
    cache_type, flash = run.cache
    how = "" if flash else ", not fused"
    yield "attention", "all", 1.0
    yield "attention in backend", run.backend, 1.0
    yield "attention in family", f"{run.backend}, {run.kernels}", 1.0
    yield "attention by group", "all", log(run.group / 4)
    yield "attention by group in backend", run.backend, log(run.group / 4)
    depth = log(max(run.n_cells, FEWEST_CELLS) / TYPICAL_CELLS)
    yield "attention by depth", "all", depth
    yield "attention by depth in backend", run.backend, depth
    if _is_dated(run):
        yield "attention by age", run.backend, run.age_years
    yield "attention, not fused", run.backend, float(not flash)
    yield "attention by cache", f"{run.backend}, {cache_type}{how}", 1.0
    if cache_type not in PLAIN_CACHES:
        yield "attention by group of quantized cache", run.backend, log(run.group)
        if kind := BY_NAME.get(cache_type.upper()):
            size = log(kind.bits_per_element / 16)
            yield "attention by size of quantized cache", run.backend, size
    for driver in run.drivers:
        yield "habit, attention by driver", driver, 1.0
    for trait in run.traits:
        yield f"attention of {trait}", "all", 1.0
        yield f"attention of {trait} in backend", run.backend, 1.0


def cache_class(keys: str, values: str) -> str:
    """The type that decides how a cache is read: that of keys, or of values where only those are
    quantized."""
    return values if keys in PLAIN_CACHES else keys


def traits_of(facts: ModelFacts) -> tuple[str, ...]:
    """What makes a model's passes unlike those of a dense transformer."""
    found = {
        "moe": facts.n_experts > 0,
        "hybrid": any(layer.is_recurrent for layer in facts.layers),
        "mla": any(layer.key_size and not layer.value_size for layer in facts.layers),
        "gemma": facts.architecture.startswith("gemma"),
        "convolution": facts.architecture.startswith("lfm2"),
    }
    return tuple(trait for trait, holds in found.items() if holds)
