"""Rates of a device from its published figures and what published runs reached of them.

A pass is the sum of its launches, weights, experts and attention (`conditions`), each what the
device's bandwidth or arithmetic gives times a factor fitted to llama.cpp runs that others published
(`efficiency`). Small batches cost what batches of the same backend, kind of model and weight type
cost elsewhere. Drivers, power limits and heat are unknown: they are in the interval.
"""

import re
from dataclasses import dataclass, replace
from math import log
from typing import Self

from localspec.hardware.described import chip_of
from localspec.hardware.devices import Device, Match
from localspec.prediction.conditions import (
    BESIDE_LAYERS,
    LAUNCH_S,
    TYPICAL_INTENSITY,
    TYPICAL_WIDTH,
    Part,
    RunConditions,
    cache_class,
)
from localspec.prediction.efficiency import Efficiency, load
from localspec.prediction.families import HALF, family_of, type_class
from localspec.prediction.rates import (
    SMALL_BATCH,
    AttentionWork,
    Shares,
    Spread,
    Term,
    Test,
    WeightWork,
)

WHOLE_PROMPT = 512
"""Tokens of nearly all published prompts."""
_LAPTOP = re.compile(r"\blaptop\b|\bmobile\b|(?<!blackwell )max-q")
"""RTX PRO Blackwell Max-Q are cards for desktops, whose limit of 300 W is in their figures."""
UNKNOWN_FLOPS = 3.0
"""By what factor a device's arithmetic may be off that is taken for what others have beside as much
bandwidth: four fifths of public processors lie within it."""


@dataclass(frozen=True, slots=True)
class PublishedRates:
    """What a kind of device was measured to reach by others. `range`: factors on its speed that
    an ambiguous name leaves open. `prompts_off_by`: a logarithm that their reading adds, in
    squares."""

    run: RunConditions
    known: Efficiency
    range: tuple[float, float] = (1.0, 1.0)
    knows_flops: bool = True
    prompts_off_by: float = 0.0

    @classmethod
    def of(cls, match: Match, backend: str | None = None) -> Self:
        """For a device of the table. An ambiguous one gets the interval of all that it can be."""
        device = match.candidates[0]
        own = device.bandwidth_bytes_per_s
        low, high = match.bandwidth_range or (own, own)
        run = circumstances(device, backend or device.kind)
        knows_flops = bool(device.fp32_flops_per_s or device.fp16_flops_per_s)
        return cls(run, load(), (low / own, high / own), knows_flops)

    def with_backend(self, backend: str) -> Self:
        """The same device with another backend."""
        family = family_of(self.run.chip, backend)
        return replace(self, run=replace(self.run, backend=backend, family=family))

    @property
    def source(self) -> str:
        """What the constants rest on."""
        return self.known.source(self.run)

    def for_model(self, n_embd: int, streamed_bytes: float, traits: tuple[str, ...] = ()) -> Self:
        """For a model's kind and its width."""
        run = replace(self.run, traits=traits, width=n_embd or TYPICAL_WIDTH)
        return replace(self, run=run)

    def spread(self, test: Test, shares: Shares) -> Spread:
        """By what is known of the device and of such models."""
        spread = self.known.spread(test, self.run, shares)
        if test == "prefill":
            spread = spread.widened(self.prompts_off_by)
        more = 1.0 if self.knows_flops or test == "decode" else UNKNOWN_FLOPS
        return Spread(spread.low * self.range[0] / more, spread.high * self.range[1] * more)

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        run = self.run.with_type(type_class(work.type.name))
        part: Part = "experts" if work.is_expert else "weights"
        if n_tokens <= SMALL_BATCH:
            return self._small_batch(run, part, work, n_tokens)
        stream_s = self._seconds(run, "prefill", "streaming", work.n_bytes)
        compute_s = self._compute_s(run, part, 2 * n_tokens * work.n_elements)
        widest = self.weights(work, SMALL_BATCH)
        if compute_s + stream_s <= widest.seconds:
            return widest
        return Term(compute_s + stream_s, "compute" if compute_s > stream_s else "memory")

    def _small_batch(self, run: RunConditions, part: Part, work: WeightWork, n_tokens: int) -> Term:
        memory_s = self._seconds(run, "decode", part, work.n_bytes)
        seconds = memory_s * self.known.verify_curve(run, part).at(n_tokens)
        least_s = self._least_s(work.n_bytes)
        return Term(seconds, "compute" if seconds >= 2 * memory_s else "memory", least_s)

    def attention(self, work: AttentionWork, n_tokens: int) -> Term:
        run = replace(
            self.run,
            cache=(cache_class(work.type_k.name.lower(), work.type_v.name.lower()), work.flash),
            group=work.n_heads / work.n_kv_heads,
            n_cells=work.n_cells,
        )
        memory_s = self._seconds(run, "decode", "attention", work.n_bytes)
        if n_tokens <= SMALL_BATCH:
            return Term(memory_s, "memory", self._least_s(work.n_bytes))
        compute_s = self._compute_s(run, "attention", n_tokens * work.flops_per_token)
        return Term(compute_s, "compute") if compute_s > memory_s else Term(memory_s, "memory")

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        """Of prompts between a small batch and the published lengths, in between: no run tells."""
        if n_tokens >= WHOLE_PROMPT:
            return self._launches_s("prefill", n_layers)
        curve = self.known.verify_curve(self.run, "launches")
        small_s = self._launches_s("decode", n_layers) * curve.at(min(n_tokens, SMALL_BATCH))
        if n_tokens <= SMALL_BATCH:
            return small_s
        share = log(n_tokens / SMALL_BATCH) / log(WHOLE_PROMPT / SMALL_BATCH)
        return small_s + share * (self._launches_s("prefill", n_layers) - small_s)

    def _launches_s(self, test: Test, n_layers: int) -> float:
        factor = self.known.coefficients[test].factor(self.run, "launches")
        return LAUNCH_S[test] * (n_layers + BESIDE_LAYERS) * factor

    def _seconds(self, run: RunConditions, test: Test, part: Part, n_bytes: float) -> float:
        factor = self.known.coefficients[test].factor(run, part)
        return n_bytes / run.bandwidth_bytes_per_s * factor

    def _least_s(self, n_bytes: float) -> float:
        """By the fastest device that the name can mean."""
        return n_bytes / (self.run.bandwidth_bytes_per_s * self.range[1])

    def _compute_s(self, run: RunConditions, part: Part, n_flops: float) -> float:
        factor = self.known.coefficients["prefill"].factor(run, part)
        return n_flops / run.fp32_flops_per_s * factor


def circumstances(device: Device, backend: str) -> RunConditions:
    """Of today's engine on a device."""
    fp16, fp32 = device.fp16_flops_per_s, device.fp32_flops_per_s
    usual = device.bandwidth_bytes_per_s / TYPICAL_INTENSITY
    return RunConditions(
        backend=backend,
        family=family_of(device.name, backend),
        type_class=HALF,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        fp32_flops_per_s=fp32 or (fp16 / 2 if fp16 else usual),
        fp16_flops_per_s=fp16,
        chip=chip_of(device.name) if device.kind == "cpu" else device.name,
        is_laptop=bool(_LAPTOP.search(device.name.lower())),
    )
