"""Rates from a probe of this machine: seconds by kind of work, not bandwidth and compute.

A pass of n tokens over E elements of a type takes E s(n), with s the probe's curve; where only some
experts are streamed, each of them sees fewer tokens. The curve is interpolated between those of a
smaller and a larger model, by the logarithm of the size, because the last cache keeps a part of the
weights from one pass to the next. The nearest measured case stands in for one that was not probed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from localspec.gguf.types import BY_NAME, GgmlType
from localspec.hardware.probe_results import (
    SIZES_BYTES,
    WIDTHS,
    AttentionCase,
    AttentionCost,
    Curve,
    Probe,
    ProbeNeeds,
    WeightCase,
    size_share,
    sizes_around,
    width_class,
)
from localspec.model.facts import ModelFacts
from localspec.prediction.rates import AttentionWork, Shares, Spread, Term, Test, WeightWork
from localspec.settings import Attention

# Measured over predicted speed of real models on two machines, by tests/acceptance/test_probe.py
# (docs/concepts/roofline.md): real models are mostly slower, small ones most.
DECODE_SPREAD = Spread(0.70, 1.10)
PREFILL_SPREAD = Spread(0.75, 1.35)
NEARLY_AS_FAST = 1.25
"""A pass that takes at most this much longer than one token's still waits for memory."""
STREAMS = 0.5
"""Of the speed of a plain read: below it arithmetic binds from the first token on."""
USUAL_HEAD, LARGEST_HEAD = 64, 256
"""Numbers of an attention head, of models without one and at most."""


@dataclass(frozen=True, slots=True)
class ProbedRates:
    """What this machine was measured to take."""

    probe: Probe
    width: int = WIDTHS[0]
    size_bytes: float = SIZES_BYTES[-1]

    def for_model(self, n_embd: int, streamed_bytes: float, traits: tuple[str, ...] = ()) -> Self:
        return replace(self, width=width_class(n_embd), size_bytes=streamed_bytes)

    @property
    def source(self) -> str:
        return (
            f"a probe of this machine through the engine, {self.probe.taken} ({self.probe.setting})"
        )

    def spread(self, test: Test, shares: Shares) -> Spread:
        """The same for all models."""
        return DECODE_SPREAD if test == "decode" else PREFILL_SPREAD

    @property
    def stream_bytes_per_s(self) -> float:
        """The best rate at which one token streams a large model's weights of any type."""
        largest = max(case.size_bytes for case in self.probe.weight_s)
        return max(
            _bytes_per_element(BY_NAME[case.type]) / curve[0][1]
            for case, curve in self.probe.weight_s.items()
            if case.size_bytes == largest and curve[0][1]
        )

    @property
    def read_bytes_per_s(self) -> float | None:
        """What memory can give: the better of a plain read and of streaming; None: not known."""
        read = self.probe.read_bytes_per_s
        return max(read, self.stream_bytes_per_s) if read else None

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        per_element = _bytes_per_element(work.type)
        n_streamed = work.n_bytes / per_element
        width = max(1.0, n_tokens * work.n_elements / n_streamed)
        curve, scale = self._curve(work.type)
        one_s, all_s = curve[0][1], curve.in_proportion(width)
        waits = per_element / (one_s * scale) >= STREAMS * (self.probe.read_bytes_per_s or 0.0)
        memory_bound = waits and all_s <= NEARLY_AS_FAST * one_s
        return Term(scale * all_s * n_streamed, "memory" if memory_bound else "compute")

    def attention(self, work: AttentionWork, n_tokens: int) -> Term:
        costs = self._attention_costs(work)
        head_numbers = work.n_heads * (work.key_size + work.value_size) / 2
        return Term(head_numbers * _attention_s(costs, n_tokens, work.n_cells), "memory")

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        return self.probe.pass_s.at(n_tokens) + n_layers * self.probe.layer_s.at(n_tokens)

    def _curve(self, kind: GgmlType) -> tuple[Curve, float]:
        """The curve of a type, or that of the nearest one in size and by how much to stretch it."""

        def distance(case: WeightCase) -> tuple[bool, float, float]:
            bits = BY_NAME[case.type].bits_per_element
            ratio = max(case.width / self.width, self.width / case.width)
            return case.type != kind.name, abs(bits - kind.bits_per_element), ratio

        nearest = min(self.probe.weight_s, key=distance)
        stretch = kind.bits_per_element / BY_NAME[nearest.type].bits_per_element
        known = {
            case.size_bytes: curve
            for case, curve in self.probe.weight_s.items()
            if (case.type, case.width) == (nearest.type, nearest.width)
        }
        small, large = known[min(known)], known[max(known)]
        return _between(small, large, size_share(self.size_bytes)), max(1.0, stretch)

    def _attention_costs(self, work: AttentionWork) -> tuple[AttentionCost, ...]:
        """Those of the same types, kernel and size of a head, or the nearest."""
        types, size = (work.type_k.name.lower(), work.type_v.name.lower()), work.key_size

        def distance(case: AttentionCase) -> tuple[bool, bool, float]:
            ratio = max(case.head_size / size, size / case.head_size)
            return (case.type_k, case.type_v) != types, case.flash != work.flash, ratio

        return self.probe.attention_s[min(self.probe.attention_s, key=distance)]


def _bytes_per_element(kind: GgmlType) -> float:
    return kind.bits_per_element / 8


def _between(small: Curve, large: Curve, share: float) -> Curve:
    """A curve at `share` of the way from one to the other."""
    widths = sorted({x for x, _ in (*small, *large)})
    return Curve((x, (1 - share) * small.at(x) + share * large.at(x)) for x in widths)


def _attention_s(costs: tuple[AttentionCost, ...], n_tokens: int, n_cells: int) -> float:
    by_width = Curve((float(cost.width), cost.by_cells.at(n_cells)) for cost in costs)
    return by_width.in_proportion(n_tokens)


def probe_needs(
    models: Sequence[ModelFacts],
    caches: Sequence[Attention],
    variants: Sequence[ModelFacts] = (),
) -> ProbeNeeds:
    """What must be measured to predict these models with these caches; of the `variants`, only how
    fast they decode and read."""
    weights, of_variants = _weight_cases(models), _weight_cases(variants)
    attention = {
        AttentionCase(cache.kv_k, cache.kv_v, cache.is_flash, size)
        for cache in caches
        for facts in models
        for size in _head_sizes(facts)
    }
    anything = WeightCase("F16", WIDTHS[0], SIZES_BYTES[-1])
    return ProbeNeeds(
        tuple(sorted(weights or {anything})),
        tuple(sorted(attention)),
        tuple(sorted(of_variants - weights)),
    )


def _weight_cases(models: Sequence[ModelFacts]) -> set[WeightCase]:
    from localspec.model.synthetic import WEIGHT_TYPES  # noqa: PLC0415 - brings NumPy

    known = {kind.name for kind in WEIGHT_TYPES} - {"F32"}
    return {
        WeightCase(part.type.name, width_class(facts.n_embd), size_bytes)
        for facts in models
        for size_bytes in sizes_around(facts.streamed_bytes)
        for part in facts.streamed(1)
        if part.role != "norm" and part.type.name in known
    }


def _head_sizes(facts: ModelFacts) -> set[int]:
    """Of the layers that attend, as far as a plain transformer can have them."""
    sizes = {layer.key_size for layer in facts.layers if layer.n_kv_heads and layer.key_size}
    return {min(size, LARGEST_HEAD) for size in sizes} or {USUAL_HEAD}
