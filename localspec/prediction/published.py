"""Rates of a device from its published figures and the share of them that its kind reaches.

    decode:   t = n_layers a + bytes / bandwidth * exp(x . theta)
    prefill:  t = 2 n elements / fp32 rate * exp(x . phi)

x are the conditions of a run: backend, family, class of the weight type, age of the engine, and the
logarithms of bandwidth and of bandwidth over compute. Kernels are written for a generation of
devices, so a device's family comes first. A ridge keeps every coefficient near zero unless the data
ask for more: a family with few devices falls back on its backend, and a coefficient that only one
device would determine is refused. `scripts/research/run fit-efficiency` writes efficiency.json,
which names the runs and devices behind each constant. Drivers, power limits and heat are unknown.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import exp, log
from typing import Any, Self

from localspec.hardware.devices import Device, Match
from localspec.hardware.probe_results import Curve
from localspec.prediction.rates import AttentionWork, Spread, Term, WeightWork

# The first pattern found in a device's lower-case name decides.
_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"apple .*ultra", "Apple Ultra"),
    (r"apple m([5-9]|\d\d)", "Apple M5 and later"),
    (r"apple .*max", "Apple Max"),
    (r"apple .*pro", "Apple Pro"),
    (r"apple", "Apple base"),
    (r"\b(h100|h200|h20|a100|a800|gh200|b200|b300|a30)\b", "NVIDIA HBM"),
    (r"\b(v100|titan v|gv100)\b", "NVIDIA Volta"),
    (r"p100", "NVIDIA P100"),
    (r"\bgb10\b", "NVIDIA GB10"),
    (r"\bada\b|rtx 40[5-9]\d|\bl40|\bl4\b|\bl20\b", "NVIDIA Ada"),
    (r"rtx 50[5-9]\d|blackwell|rtx pro", "NVIDIA Blackwell"),
    (
        r"quadro rtx|titan rtx|rtx 20\d\d|gtx 16\d\d|tesla t4|nvidia t4|\bt\d{3,4}\b|mx4\d0",
        "NVIDIA Turing",
    ),
    (r"orin", "NVIDIA Orin"),
    (r"rtx 30[5-9]\d|rtx a\d{3,4}|\ba(10|40|2|16)\b", "NVIDIA Ampere"),
    (r"nvidia|geforce|tesla|quadro", "NVIDIA Pascal and older"),
    (r"intel.* b\d\d|battlemage", "Intel Arc B"),
    (r"arc.*a\d\d|intel", "Intel Arc A"),
    (r"strix halo|8060s|8050s", "AMD Strix Halo"),
    (r"ryzen|\b\d{3}m\b", "AMD integrated"),
    (r"rx 9|r9700", "AMD RDNA4"),
    (r"rx 7|w7\d00", "AMD RDNA3"),
    (r"rx [56]|w6\d00", "AMD RDNA1/2"),
    (r"instinct|\bmi\d", "AMD Instinct"),
)
SHARED_MEMORY = frozenset({"AMD Strix Halo", "AMD integrated", "NVIDIA Orin", "NVIDIA GB10"})
OTHER = "other"
THROUGH_METAL = "Apple through MoltenVK"
"""Vulkan has no driver there: its shaders are translated, whatever the chip."""

HALF, EIGHT, LEGACY, K_QUANTS, LOW = "16 bit", "8 bit", "4 and 5 bit blocks", "K-quants", "low bit"
_TYPE_CLASSES: tuple[tuple[str, str], ...] = (
    (r"^(F16|BF16|FP16|F32|FP32)", HALF),
    (r"^Q8", EIGHT),
    (r"^(Q[45]_[01]|IQ4_NL|MXFP4|NVFP4)", LEGACY),
    (r"^Q[456]_K", K_QUANTS),
)


def family_of(device_name: str, backend: str = "") -> str:
    """The family of a device by its name in the table; "other" for what is in none."""
    lowered = device_name.lower()
    if backend == "vulkan" and lowered.startswith("apple"):
        return THROUGH_METAL
    return next((name for pattern, name in _FAMILIES if re.search(pattern, lowered)), OTHER)


def type_class(type_name: str) -> str:
    """The class of a weight type or of a quantization by name: Q4_K_M and Q6_K are K-quants."""
    name = type_name.upper().removeprefix("UD-")
    return next((kind for pattern, kind in _TYPE_CLASSES if re.search(pattern, name)), LOW)


NEWEST = "2025"
"""The age class of engine builds of today; `scripts/_runs.py` sorts published runs into classes."""

TYPICAL_BANDWIDTH = 4e11
TYPICAL_INTENSITY = 0.03


@dataclass(frozen=True, slots=True)
class RunConditions:
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


def features(run: RunConditions) -> Iterator[tuple[str, str, float]]:
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

    def factor(self, run: RunConditions) -> float:
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
    text = (resources.files("localspec.prediction") / "efficiency.json").read_text("utf-8")
    return Efficiency.from_json(json.loads(text))


CACHE_STREAM = {True: 1.5, False: 3.5}
"""How much longer keys and values take than weights of as many bytes, with flash attention and
without; long generations among the published runs agree best with these."""

TYPICAL_FLOPS = 1e13
"""For the few devices of which no source gives a rate."""

SMALL_BATCH = 16
"""The widest pass with kernels of its own; wider ones compute like prefill."""


@dataclass(frozen=True, slots=True)
class PublishedRates:
    """What a kind of device was measured to reach by others."""

    run: RunConditions
    known: Efficiency
    source: str
    decode_spread: Spread
    prefill_spread: Spread

    @classmethod
    def of(cls, match: Match, backend: str | None = None) -> Self:
        """For a device of the table. An ambiguous one gets the interval of all that it can be."""
        device, known = match.candidates[0], load()
        run = circumstances(device, backend or device.kind)
        group, decode = known.support_of("decode", run.backend)
        _, prefill = known.support_of("prefill", run.backend)
        return cls(
            run,
            known,
            f"{decode.n_runs} published runs of {decode.n_devices} devices ({group})",
            _widened(decode.spread, match, device),
            _widened(prefill.spread, match, device),
        )

    def for_model(self, n_embd: int, streamed_bytes: float) -> Self:
        """The same: published runs say nothing of it."""
        return self

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        memory_s = self._stream_s(work.n_bytes, type_class(work.type.name))
        compute_s = self._compute_s(2 * n_tokens * work.n_elements, type_class(work.type.name))
        if n_tokens <= SMALL_BATCH:
            curve = self.known.verify_curve(self.run.backend, type_class(work.type.name))
            seconds = memory_s * max(1.0, Curve(((1.0, 1.0), *curve)).at(n_tokens))
            return Term(seconds, "compute" if seconds >= 2 * memory_s else "memory")
        widest = self.weights(work, SMALL_BATCH)
        return Term(compute_s, "compute") if compute_s > widest.seconds else widest

    def attention(self, work: AttentionWork, n_tokens: int) -> Term:
        memory_s = CACHE_STREAM[work.flash] * self._stream_s(work.n_bytes, HALF)
        compute_s = self._compute_s(n_tokens * work.flops_per_token, HALF)
        return Term(compute_s, "compute") if compute_s > memory_s else Term(memory_s, "memory")

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        return n_layers * self.known.decode.layer_s[self.run.backend]

    def _stream_s(self, n_bytes: float, kind: str) -> float:
        factor = max(1.0, self.known.decode.factor(self.run.with_type(kind)))
        return n_bytes / self.run.bandwidth_bytes_per_s * factor

    def _compute_s(self, n_flops: float, kind: str) -> float:
        factor = self.known.prefill.factor(self.run.with_type(kind))
        return n_flops / self.run.fp32_flops_per_s * factor


def circumstances(device: Device, backend: str) -> RunConditions:
    """Of today's engine on a device."""
    fp16, fp32 = device.fp16_flops_per_s, device.fp32_flops_per_s
    return RunConditions(
        backend=backend,
        family=family_of(device.name, backend),
        type_class=HALF,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        fp32_flops_per_s=fp32 or (fp16 / 2 if fp16 else TYPICAL_FLOPS),
        fp16_flops_per_s=fp16,
        is_laptop=any(word in device.name.lower() for word in ("laptop", "mobile", "max-q")),
    )


def _widened(spread: Spread, match: Match, device: Device) -> Spread:
    low, high = match.bandwidth_range or (device.bandwidth_bytes_per_s,) * 2
    own = device.bandwidth_bytes_per_s
    return Spread(spread.low * low / own, spread.high * high / own)
