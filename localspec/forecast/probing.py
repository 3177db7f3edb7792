"""Rates of this machine's devices from the probe, measured now or kept; of several that share a
model, workers among them, each from its own.
"""

from localspec.engine.base import EngineConfig
from localspec.engine.graphics import graphics
from localspec.engine.health import engine_health
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe, probe_machine
from localspec.engine.threads import default_threads, measured_threads
from localspec.errors import UserError
from localspec.forecast.machine import MachineChoice, Peer, Peers, PredictedMachine
from localspec.hardware.machine import Reported
from localspec.hardware.probe_results import ProbeNeeds
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.placement import layers_that_fit
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.prediction.rates import rates_for
from localspec.settings import Attention, Settings


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


def shared_by(choice: MachineChoice) -> list[Reported]:
    """The devices to measure one by one: several, or workers, or named ones; none otherwise."""
    if not choice.n_gpu_layers or choice.probe == "off":
        return []
    used = graphics(choice.own_devices, choice.workers)
    return used if len(used) > 1 or choice.workers or choice.own_devices else []


def several(
    choice: MachineChoice,
    facts: ModelFacts,
    needs: ProbeNeeds,
    needed_bytes: int,
    n_ctx: int,
    notify: Notify,
) -> PredictedMachine:
    """All of them, each from its own probe, and the processor for what is left."""
    used, again = shared_by(choice), choice.probe == "again"
    settings = {d.name: peer_setting(d, choice.n_threads, notify) for d in used}
    peers = tuple(
        Peer.probed(
            d.name, probe_machine(settings[d.name], needs, notify, again=again), d.free_bytes
        )
        for d in used
    )
    free = [peer.free_bytes for peer in peers]
    n_offloaded = choice.n_gpu_layers
    if n_offloaded < 0:
        n_offloaded = layers_that_fit(facts, needed_bytes, free)
    host = probed_rates(needs, PROCESSOR, choice.n_threads, notify, again=again)
    total = None if None in free else sum(filter(None, free))
    return PredictedMachine(
        name=" + ".join(peer.name for peer in peers),
        source="measured",
        memory_bytes=total,
        free_bytes=total,
        rates=peers[0].rates,
        host_rates=host,
        n_offloaded=n_offloaded,
        needed_bytes=needed_bytes,
        peers=Peers(peers, host, n_offloaded, choice.split, n_ctx),
    )


def known_shares(settings: Settings, facts: ModelFacts) -> tuple[str, ...]:
    """Shares of the layers by speed, from earlier probes; empty: libllama's own, by memory.

    Raises UserError where speed was asked for and is not known.
    """
    if settings.split == "memory" or not settings.gpu_layers:
        return ()
    used = graphics(settings.device, settings.workers)
    if len(used) < 2:
        return ()
    probes = [
        kept_probe(peer_setting(each, settings.threads, lambda message: None)) for each in used
    ]
    host = kept_probe(ProbeSetting(settings.threads or 1, PROCESSOR, settings.repack))
    is_whole = settings.gpu_layers < 0 or settings.gpu_layers > facts.n_layers
    if None in probes or (host is None and not is_whole):
        if settings.split == "speed":
            raise UserError(
                "--split speed needs the speeds of these devices: run `localspec predict MODEL`"
                " with the same --device and --workers once, or take --split memory"
            )
        return ()
    peers = tuple(
        Peer.probed(d.name, probe, d.free_bytes)
        for d, probe in zip(used, probes, strict=True)
        if probe
    )
    rates = ProbedRates(host) if host else None
    n_ctx = settings.ctx or 4096
    found = Peers(peers, rates, settings.gpu_layers, settings.split, n_ctx)
    shares = found.shares(facts, settings.attention, lambda each: rates_for(facts, each))
    return tuple(f"{share:g}" for share in shares)
