"""This machine's rates from the probe: what a prediction needs of it, measured now or kept."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from localspec.hardware.detect import usable_cores
from localspec.hardware.measured import WIDTHS, width_class
from localspec.model.facts import ModelFacts
from localspec.model.random_weights import WEIGHT_TYPES
from localspec.predict.probed import ProbedRates
from localspec.predict.rates import Rates
from localspec.predict.roofline import CacheSetting

if TYPE_CHECKING:
    from localspec.engine.base import EngineConfig
    from localspec.engine.probe import ProbeNeeds

Talk = Callable[[str], None]
PROCESSOR, GRAPHICS = 0, -1
"""Layers on the GPU, of a probe."""


def probed_rates(
    needs: "ProbeNeeds", n_gpu_layers: int, n_threads: int | None, talk: Talk, *, again: bool
) -> ProbedRates:
    """What was kept and, for the rest, measured now. Raises EngineError where that fails."""
    from localspec.engine.health import engine_health  # noqa: PLC0415 - only where there is one
    from localspec.engine.probe import ProbeSetting, probe_machine  # noqa: PLC0415

    health = engine_health(talk)
    setting = ProbeSetting(n_threads or usable_cores(), n_gpu_layers, health.use_extra_buffers)
    return ProbedRates(probe_machine(setting, needs, talk, again=again))


def kept_rates(config: "EngineConfig", facts: ModelFacts, cache: CacheSetting) -> Rates | None:
    """What an earlier probe knows of running this model so; None if it lacks anything."""
    from localspec.engine.probe import ProbeSetting, kept_probe  # noqa: PLC0415

    where = GRAPHICS if config.n_gpu_layers else PROCESSOR
    probe = kept_probe(ProbeSetting(config.n_threads, where, config.use_extra_buffers))
    if probe is None or not probe_needs([facts], [cache]).missing_from(probe).is_empty:
        return None
    return ProbedRates(probe).at_width(facts.n_embd)


def probe_needs(models: Sequence[ModelFacts], caches: Sequence[CacheSetting]) -> "ProbeNeeds":
    """What must be measured to predict these models with these caches."""
    from localspec.engine.probe import ProbeNeeds  # noqa: PLC0415

    known = {kind.name for kind in WEIGHT_TYPES}
    weights = {
        (part.type.name, width_class(facts.n_embd))
        for facts in models
        for part in facts.streamed(1)
        if part.role != "norm" and part.type.name in known - {"F32"}
    }
    pairs = {(c.type_k.name.lower(), c.type_v.name.lower(), c.flash) for c in caches}
    return ProbeNeeds(tuple(sorted(weights)) or (("F16", WIDTHS[0]),), tuple(sorted(pairs)))
