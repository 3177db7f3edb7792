"""Devices of this machine and workers that share a model: each from its own probe."""

from localspec.engine.graphics import graphics
from localspec.engine.probe import PROCESSOR, ProbeSetting, kept_probe, probe_machine
from localspec.errors import UserError
from localspec.forecast.machine import MachineChoice, Peer, Peers, PredictedMachine
from localspec.forecast.probing import peer_setting, probed_rates
from localspec.hardware.machine import Reported
from localspec.hardware.probe_results import ProbeNeeds
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.placement import layers_that_fit
from localspec.prediction.probed import ProbedRates
from localspec.prediction.rates import rates_for
from localspec.settings import Settings


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
        bandwidth_bytes_per_s=None,
        flops_per_s=None,
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
