"""This machine's rates from the probe: what a prediction needs of it, measured now or kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from localspec.hardware.detect import usable_cores
from localspec.hardware.probe_results import (
    SIZES_BYTES,
    WIDTHS,
    AttentionCase,
    WeightCase,
    sizes_around,
    width_class,
)
from localspec.model.facts import ModelFacts
from localspec.model.random_weights import WEIGHT_TYPES
from localspec.notify import Notify
from localspec.predict.probed import ProbedRates
from localspec.predict.rates import Rates
from localspec.settings import Attention

if TYPE_CHECKING:
    from localspec.engine.base import EngineConfig
    from localspec.engine.probe import ProbeNeeds


USUAL_HEAD, LARGEST_HEAD = 64, 256
PROCESSOR, GRAPHICS = 0, -1
"""Layers on the GPU, of a probe."""


def probed_rates(
    needs: "ProbeNeeds", n_gpu_layers: int, n_threads: int | None, notify: Notify, *, again: bool
) -> ProbedRates:
    """What was kept and, for the rest, measured now. Raises EngineError where that fails."""
    from localspec.engine.health import engine_health  # noqa: PLC0415 - only where there is one
    from localspec.engine.probe import ProbeSetting, probe_machine  # noqa: PLC0415

    health = engine_health(notify)
    setting = ProbeSetting(n_threads or usable_cores(), n_gpu_layers, health.can_repack)
    return ProbedRates(probe_machine(setting, needs, notify, again=again))


def kept_rates(config: "EngineConfig", facts: ModelFacts, cache: Attention) -> Rates | None:
    """What an earlier probe knows of running this model so; None if it lacks anything."""
    from localspec.engine.probe import ProbeSetting, kept_probe  # noqa: PLC0415

    where = GRAPHICS if config.settings.gpu_layers else PROCESSOR
    probe = kept_probe(ProbeSetting(config.n_threads, where, config.settings.repack))
    if probe is None or not probe_needs([facts], [cache]).missing_from(probe).is_empty:
        return None
    return ProbedRates(probe).for_model(facts.n_embd, facts.streamed_bytes)


def probe_needs(
    models: Sequence[ModelFacts],
    caches: Sequence[Attention],
    variants: Sequence[ModelFacts] = (),
) -> "ProbeNeeds":
    """What must be measured to predict these models with these caches; of the `variants`, only how
    fast they decode and read."""
    from localspec.engine.probe import ProbeNeeds  # noqa: PLC0415

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
