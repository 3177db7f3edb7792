"""Which rates a prediction is made from: those of a named device, or of this machine.

A probe through the engine gives this machine's figures. Where it cannot run, published runs of the
same device stand in; a processor is unknown without a probe.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from localspec.engine.base import EngineConfig
from localspec.engine.graphics import engine_reports, free_bytes, graphics
from localspec.engine.health import engine_health
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe, probe_machine
from localspec.engine.threads import default_threads, measured_threads
from localspec.errors import EngineError, HardwareError, UserError
from localspec.forecast.corrections import Corrections
from localspec.forecast.experience import Experience, experience_of
from localspec.forecast.host import host_of
from localspec.hardware.devices import Match, find_device
from localspec.hardware.machine import LocalDevice, local_devices
from localspec.hardware.probe_results import ProbeNeeds
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.conditions import traits_of
from localspec.prediction.experts import experts_elsewhere
from localspec.prediction.host_memory import Host
from localspec.prediction.memory import layers_that_fit, memory_of
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.prediction.published import PublishedRates
from localspec.prediction.rates import IdealRates, Rates
from localspec.prediction.roofline import Roofline, Share
from localspec.settings import Attention, Settings

ProbeChoice = Literal["auto", "again", "off"]


@dataclass(frozen=True, slots=True)
class MachineChoice:
    """What the user said of the machine; `device` None is this one."""

    device: str | None = None
    n_threads: int | None = None
    n_gpu_layers: int = -1
    probe: ProbeChoice = "auto"
    n_cpu_moe: int = 0


@dataclass(frozen=True, slots=True)
class PredictedMachine:
    """Where a prediction holds; None is what is not known.

    `rates` are those of the device that computes most, `host_rates` of the processor beside a GPU,
    for the layers that are not among the `n_offloaded` (< 0: all of them are) and for the experts
    of the first `n_cpu_moe`.
    """

    name: str
    bandwidth_bytes_per_s: float | None
    flops_per_s: float | None
    source: str
    memory_bytes: int | None
    free_bytes: int | None
    rates: Rates
    host_rates: Rates | None = None
    n_offloaded: int = -1
    n_cpu_moe: int = 0
    notes: tuple[str, ...] = ()
    experience: Experience | Corrections = field(default_factory=Experience)
    host: Host | None = None
    """How weights lie in a processor's memory; None on a GPU."""

    @property
    def rates_source(self) -> str:
        return self.rates.source

    def roofline(self, facts: ModelFacts, cache: Attention) -> Roofline:
        """What a model should take here."""
        return Roofline(facts, self._shares_of(facts), cache)

    def ceiling(self, facts: ModelFacts, cache: Attention) -> Roofline | None:
        """What it would take if nothing but bandwidth and compute counted; None: not known."""
        if self.bandwidth_bytes_per_s is None:
            return None
        return ideal_roofline(facts, cache, self.bandwidth_bytes_per_s, self.flops_per_s)

    def _shares_of(self, facts: ModelFacts) -> tuple[Share, ...]:
        """Who computes which layers. libllama offloads the last ones, the output matrix first."""
        host = self.host_rates and _rates_for(facts, self.host_rates)
        is_split = host is not None and 0 <= self.n_offloaded <= facts.n_layers
        n_on_gpu = max(0, self.n_offloaded - 1) if is_split else facts.n_layers
        n_on_host = facts.n_layers - n_on_gpu
        rates = self.experience.corrected(facts, _rates_for(facts, self.rates))
        rates = experts_elsewhere(rates, host, facts, self.n_cpu_moe, n_on_host)
        if host is None or not n_on_host:
            return (Share(rates, facts.n_layers),)
        on_host = Share(host, n_on_host)
        return (on_host, Share(rates, n_on_gpu)) if n_on_gpu else (on_host,)


def ideal_roofline(
    facts: ModelFacts, cache: Attention, bytes_per_s: float, flops_per_s: float | None = None
) -> Roofline:
    """A model on a device that loses nothing."""
    return Roofline(facts, (Share(IdealRates(bytes_per_s, flops_per_s), facts.n_layers),), cache)


def _rates_for(facts: ModelFacts, rates: Rates) -> Rates:
    return rates.for_model(facts.n_embd, facts.streamed_bytes, traits_of(facts))


def predicted_machine(
    choice: MachineChoice,
    models: Sequence[ModelFacts],
    caches: Sequence[Attention],
    n_ctx: int,
    notify: Notify,
    variants: Sequence[ModelFacts] = (),
) -> PredictedMachine:
    """The machine that was named, or this one, ready to predict `models` (the target first).

    `variants` are asked about as well and never loaded beside the others.

    Raises UserError for an unknown or ambiguous name, HardwareError where nothing is known.
    """
    needed = sum(memory_of(facts, caches[0], n_ctx).total_bytes for facts in models)
    needed -= round(models[0].expert_bytes * models[0].expert_share(0, choice.n_cpu_moe))
    if choice.device is not None:
        named = _named(find_device(choice.device), models[0], needed, choice.n_gpu_layers)
        if choice.n_gpu_layers < 0 and not choice.n_cpu_moe:
            return named
        needs = probe_needs(models, caches, variants)
        return _beside_processor(named, choice, needs, notify)
    device = _chosen(choice)
    if choice.probe != "off":
        try:
            needs = probe_needs(models, caches, variants)
            return _probed(choice, device, needs, needed, models[0].n_layers, notify)
        except EngineError as error:
            notify(f"{error}; published figures stand in")
    return _published(device, needed)


def _named(
    match: Match, facts: ModelFacts, needed_bytes: int, n_gpu_layers: int
) -> PredictedMachine:
    device = match.candidates[0]
    if device.kind == "cpu":
        raise UserError(
            f"{device.name} is memory for a processor, of which speeds are known only by measuring:"
            " run `localspec predict` there"
        )
    names = " or ".join(device.name for device in match.candidates)
    if 0 <= n_gpu_layers < facts.n_layers:
        needed_bytes = needed_bytes * n_gpu_layers // facts.n_layers
    memory_bytes = max(device.memory_bytes, default=None)
    return PredictedMachine(
        name=names,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        flops_per_s=device.fp16_flops_per_s,
        source=f"published: {device.source}",
        memory_bytes=memory_bytes,
        free_bytes=None,
        rates=PublishedRates.of(match),
        n_offloaded=n_gpu_layers,
        notes=_notes(match, needed_bytes, memory_bytes),
    )


def _beside_processor(
    named: PredictedMachine, choice: MachineChoice, needs: ProbeNeeds, notify: Notify
) -> PredictedMachine:
    """A device put into this machine, whose processor computes the other layers."""
    if choice.probe == "off":
        raise UserError(
            "--gpu-layers and --cpu-moe beside --device need a probe of this processor: drop"
            " --probe off"
        )
    again = choice.probe == "again"
    host = _probed_rates(needs, PROCESSOR, choice.n_threads, notify, again=again)
    notes = [f"{named.n_offloaded} layers there, the others on the processor of this machine"]
    notes = notes if named.n_offloaded >= 0 else []
    if choice.n_cpu_moe:
        notes.append(f"experts of {choice.n_cpu_moe} layers on the processor of this machine")
    return replace(named, host_rates=host, n_cpu_moe=choice.n_cpu_moe, notes=(*named.notes, *notes))


def _notes(match: Match, needed_bytes: int, memory_bytes: int | None) -> tuple[str, ...]:
    notes = [device.note for device in match.candidates[:1] if device.note]
    if match.is_ambiguous:
        notes.append(f"the name can mean several devices{_range(match)}; the interval covers them")
    if memory_bytes is not None and needed_bytes > memory_bytes:
        notes.append(
            f"does not fit: {needed_bytes / 1e9:.1f} GB are needed and {memory_bytes / 1e9:.1f} GB"
            " are there; the speeds are those of a device with more memory (--gpu-layers N leaves"
            " layers to the processor)"
        )
    return tuple(notes)


def _range(match: Match) -> str:
    """From the slowest to the fastest memory, where they differ."""
    rates = sorted(device.bandwidth_bytes_per_s / 1e9 for device in match.candidates)
    return "" if rates[0] == rates[-1] else f" ({rates[0]:,.0f} to {rates[-1]:,.0f} GB/s)"


def _chosen(choice: MachineChoice) -> LocalDevice:
    """The GPU that the engine would use, else the processor."""
    devices = local_devices(engine_reports())
    graphics = [device for device in devices if device.backend != "cpu"]
    return graphics[0] if graphics and choice.n_gpu_layers else devices[-1]


def engine_features() -> str:
    """The build's instruction sets and options. Raises EngineError without an engine."""
    from localspec.engine.llama import binding  # noqa: PLC0415 - loads libllama

    return binding.engine_features()


def _published(device: LocalDevice, needed_bytes: int) -> PredictedMachine:
    known = device.match.device
    if device.backend == "cpu" or known is None:
        raise HardwareError(
            f"{device.name} is not in the table of devices and was not measured: run `localspec"
            " predict` with an engine and without --probe off, or name a --device"
        )
    return PredictedMachine(
        name=known.name,
        bandwidth_bytes_per_s=known.bandwidth_bytes_per_s,
        flops_per_s=known.fp16_flops_per_s,
        source=f"published: {known.source}",
        memory_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        rates=PublishedRates.of(device.match, device.backend),
        notes=_notes(device.match, needed_bytes, device.free_bytes or device.total_bytes),
    )


def _probed(
    choice: MachineChoice,
    device: LocalDevice,
    needs: ProbeNeeds,
    needed_bytes: int,
    n_layers: int,
    notify: Notify,
) -> PredictedMachine:
    on_gpu = device.backend != "cpu"

    again = choice.probe == "again"

    def measured(where: int) -> ProbedRates:
        return _probed_rates(needs, where, choice.n_threads, notify, again=again)

    place = GRAPHICS if on_gpu else PROCESSOR
    rates = measured(place)
    experience = experience_of(_setting(place, choice.n_threads, notify, again=False))
    n_offloaded = choice.n_gpu_layers
    notes = _notes(Match(()), needed_bytes, device.free_bytes)
    if on_gpu and n_offloaded < 0:
        n_offloaded = layers_that_fit(n_layers, needed_bytes, free_bytes(graphics()))
        if n_offloaded >= 0:
            notes = (f"{n_offloaded} of {n_layers} layers fit on GPUs",)
    is_split = on_gpu and (n_offloaded >= 0 or choice.n_cpu_moe > 0)
    host = measured(PROCESSOR) if is_split else None
    read = rates.read_bytes_per_s
    known = device.match.device
    published = known.bandwidth_bytes_per_s if known else None
    return PredictedMachine(
        name=device.name,
        bandwidth_bytes_per_s=read or published,
        flops_per_s=None,
        source="measured: reading memory" if read else "published",
        memory_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        rates=rates,
        host_rates=host,
        n_offloaded=n_offloaded,
        n_cpu_moe=choice.n_cpu_moe,
        notes=(*notes, *experience.notes),
        host=None if on_gpu else _host(notify),
        experience=experience,
    )


def _host(notify: Notify) -> Host | None:
    return host_of(Settings(gpu_layers=PROCESSOR, repack=engine_health(notify).can_repack))


def _probed_rates(
    needs: ProbeNeeds, n_gpu_layers: int, n_threads: int | None, notify: Notify, *, again: bool
) -> ProbedRates:
    """What was kept and, for the rest, measured now. Raises EngineError where that fails."""
    setting = _setting(n_gpu_layers, n_threads, notify, again=again)
    return ProbedRates(probe_machine(setting, needs, notify, again=again))


def _setting(place: int, n_threads: int | None, notify: Notify, *, again: bool) -> ProbeSetting:
    health = engine_health(notify)
    if n_threads is None and place == PROCESSOR:
        n_threads = measured_threads(notify, repack=health.can_repack, again=again)
    return ProbeSetting(n_threads or default_threads(), place, health.can_repack)


def kept_rates(config: EngineConfig, facts: ModelFacts, cache: Attention) -> ProbedRates | None:
    """What an earlier probe knows of running this model so; None if it lacks anything."""
    where = GRAPHICS if config.settings.gpu_layers else PROCESSOR
    probe = kept_probe(ProbeSetting(config.n_threads, where, config.settings.repack))
    if probe is None or not probe_needs([facts], [cache]).missing_from(probe).is_empty:
        return None
    return ProbedRates(probe).for_model(facts.n_embd, facts.streamed_bytes)
