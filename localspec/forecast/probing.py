"""Rates of this machine's devices from the probe, measured now or kept."""

from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_health
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe, probe_machine
from localspec.engine.threads import default_threads, measured_threads
from localspec.hardware.machine import Reported
from localspec.hardware.probe_results import ProbeNeeds
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.settings import Attention


def probed_rates(
    needs: ProbeNeeds, n_gpu_layers: int, n_threads: int | None, notify: Notify, *, again: bool
) -> ProbedRates:
    """What was kept and, for the rest, measured now. Raises EngineError where that fails."""
    setting = setting_of(n_gpu_layers, n_threads, notify, again=again)
    return ProbedRates(probe_machine(setting, needs, notify, again=again))


def setting_of(place: int, n_threads: int | None, notify: Notify, *, again: bool) -> ProbeSetting:
    health = engine_health(notify)
    if n_threads is None and place == PROCESSOR:
        n_threads = measured_threads(notify, repack=health.can_repack, again=again)
    return ProbeSetting(n_threads or default_threads(), place, health.can_repack)


def peer_setting(device: Reported, n_threads: int | None, notify: Notify) -> ProbeSetting:
    place = ((), (device.name,)) if device.backend == "rpc" else ((device.name,), ())
    health = engine_health(notify)
    return ProbeSetting(n_threads or default_threads(), GRAPHICS, health.can_repack, *place)


def kept_rates(config: EngineConfig, facts: ModelFacts, cache: Attention) -> ProbedRates | None:
    """What an earlier probe knows of running this model so; None if it lacks anything."""
    where = GRAPHICS if config.settings.gpu_layers else PROCESSOR
    probe = kept_probe(ProbeSetting(config.n_threads, where, config.settings.repack))
    if probe is None or not probe_needs([facts], [cache]).missing_from(probe).is_empty:
        return None
    return ProbedRates(probe).for_model(facts.n_embd, facts.streamed_bytes)
