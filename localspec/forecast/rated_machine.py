"""Which rates a prediction is made from: those of a named device, or of this machine.

A probe through the engine gives this machine's figures. Where it cannot run, published runs of the
same device stand in; a processor is unknown without a probe.
"""

from collections.abc import Sequence
from dataclasses import replace

from localspec.engine.graphics import engine_reports
from localspec.engine.health import engine_health
from localspec.engine.probe import GRAPHICS, PROCESSOR
from localspec.errors import EngineError, HardwareError, UserError
from localspec.forecast.experience import experience_of
from localspec.forecast.machine import MachineChoice, PredictedMachine
from localspec.forecast.probing import host_of, probed_rates, setting_of
from localspec.forecast.sharing import several, shared_by
from localspec.hardware.described import device_meant
from localspec.hardware.devices import Match
from localspec.hardware.machine import LocalDevice, local_devices
from localspec.hardware.probe_results import ProbeNeeds
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.host_memory import Host
from localspec.prediction.memory import memory_of
from localspec.prediction.placement import experts_on_host, layers_that_fit
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.prediction.published import PublishedRates
from localspec.settings import Attention, Settings

MOST_NAMES = 3
"""Of devices that a name can mean, in a title."""


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
    if choice.device is not None and not choice.own_devices:
        if choice.workers:
            raise UserError(
                "--workers share with this machine: leave --device out, or name its own"
            )
        named = _named(device_meant(choice.device), models[0], needed, choice.n_gpu_layers)
        if choice.n_gpu_layers < 0 and not choice.n_cpu_moe:
            return named
        needs = probe_needs(models, caches, variants)
        return _beside_processor(named, choice, needs, notify)
    if shared_by(choice):
        needs = probe_needs(models, caches, variants)
        return several(choice, models[0], needs, needed, n_ctx, notify)
    device = _chosen(choice)
    if choice.probe != "off":
        try:
            needs = probe_needs(models, caches, variants)
            return _probed(choice, device, needs, needed, models[0], notify)
        except EngineError as error:
            notify(f"{error}; published figures stand in")
    return _published(device, needed)


def _named(
    match: Match, facts: ModelFacts, needed_bytes: int, n_gpu_layers: int
) -> PredictedMachine:
    device = match.candidates[0]
    others = [other.name for other in match.candidates[1:]]
    names = " or ".join([device.name, *others] if len(others) < MOST_NAMES else [device.name])
    names += f" or {len(others)} others" if len(others) >= MOST_NAMES else ""
    if 0 <= n_gpu_layers < facts.n_layers:
        needed_bytes = needed_bytes * n_gpu_layers // facts.n_layers
    sizes = [size for each in match.candidates for size in each.memory_bytes]
    memory_bytes = max(sizes, default=None)
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
    host = probed_rates(needs, PROCESSOR, choice.n_threads, notify, again=again)
    notes = [f"{named.n_offloaded} layers there, the others on the processor of this machine"]
    notes = notes if named.n_offloaded >= 0 else []
    if choice.n_cpu_moe:
        notes.append(f"experts of {choice.n_cpu_moe} layers on the processor of this machine")
    return replace(named, host_rates=host, n_cpu_moe=choice.n_cpu_moe, notes=(*named.notes, *notes))


def _notes(match: Match, needed_bytes: int, memory_bytes: int | None) -> tuple[str, ...]:
    notes = [device.note for device in match.candidates[:1] if device.note]
    if match.device and match.device.kind == "cpu":
        notes.append(
            "processors differ by threads, builds and channels that are empty: measuring with"
            " `localspec predict` there says more"
        )
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
    facts: ModelFacts,
    notify: Notify,
) -> PredictedMachine:
    on_gpu = device.backend != "cpu"

    again = choice.probe == "again"

    def measured(where: int) -> ProbedRates:
        return probed_rates(needs, where, choice.n_threads, notify, again=again)

    place = GRAPHICS if on_gpu else PROCESSOR
    rates = measured(place)
    experience = experience_of(setting_of(place, choice.n_threads, notify, again=False))
    n_offloaded, n_cpu_moe = choice.n_gpu_layers, choice.n_cpu_moe
    notes = _notes(Match(()), needed_bytes, device.free_bytes)
    if on_gpu and n_offloaded < 0 and not n_cpu_moe:
        n_cpu_moe = experts_on_host(facts, needed_bytes, [device.free_bytes])
    if n_cpu_moe and not choice.n_cpu_moe:
        notes = (f"experts of {n_cpu_moe} layers stay on the processor: GPUs hold all else",)
    elif on_gpu and n_offloaded < 0:
        n_offloaded = layers_that_fit(facts, needed_bytes, [device.free_bytes])
        if n_offloaded >= 0:
            notes = (f"{n_offloaded} of {facts.n_layers + 1} layers fit on GPUs",)
    is_split = on_gpu and (n_offloaded >= 0 or n_cpu_moe > 0)
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
        n_cpu_moe=n_cpu_moe,
        notes=(*notes, *experience.notes),
        host=None if on_gpu else _host(notify),
        experience=experience,
    )


def _host(notify: Notify) -> Host | None:
    return host_of(Settings(gpu_layers=PROCESSOR, repack=engine_health(notify).can_repack))
