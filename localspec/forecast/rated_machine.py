"""Which rates a prediction is made from: those of a named device, or of this machine.

A probe through the engine gives this machine's figures. Where it cannot run, published runs of the
same device stand in; a processor is unknown without a probe.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from localspec.engine.graphics import engine_reports
from localspec.engine.health import engine_health
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe
from localspec.engine.threads import default_threads
from localspec.errors import EngineError, HardwareError, UserError
from localspec.forecast.experience import Experience, experience_of
from localspec.forecast.machine import MachineChoice, Offload, PredictedMachine
from localspec.forecast.named_machine import (
    NamedMachine,
    machine_notes,
    own_processor,
    published_machine,
    room_notes,
)
from localspec.forecast.probing import probed_rates, setting_of, several, shared_by
from localspec.gguf.types import BY_NAME
from localspec.hardware.detect import processor_features
from localspec.hardware.machine import LocalDevice, local_devices
from localspec.hardware.probe_results import Probe, ProbeNeeds
from localspec.model.facts import ModelFacts
from localspec.notify import Notify, silent
from localspec.prediction.memory import Host, memory_of
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.prediction.published import PublishedRates
from localspec.prediction.rates import Rates, Shares, WeightWork
from localspec.settings import Attention


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

        def processor() -> Rates:
            return own_processor(choice, probe_needs(models, caches, variants), notify)

        return NamedMachine.of(choice.device).predicted(choice, models[0], needed, n_ctx, processor)
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
    if device.backend == "cpu" or device.match.device is None:
        raise HardwareError(
            f"{device.name} is not in the table of devices and was not measured: run `localspec"
            " predict` with an engine and without --probe off, or name a --device"
        )
    return replace(
        published_machine(device.match, device.backend),
        memory_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        notes=(
            *machine_notes(device.match),
            *room_notes(needed_bytes, device.free_bytes or device.total_bytes),
        ),
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
    notes = tuple(room_notes(needed_bytes, device.free_bytes))
    offload = Offload(choice.n_gpu_layers, choice.n_cpu_moe)
    if on_gpu:
        offload = Offload.fitting(choice, facts, needed_bytes, [device.free_bytes])
        notes = (offload.note,) if offload.note else notes
    is_split = on_gpu and (offload.n_layers >= 0 or offload.n_cpu_moe > 0)
    host = measured(PROCESSOR) if is_split else None
    read = rates.read_bytes_per_s
    known = device.match.device
    published = known.bandwidth_bytes_per_s if known else None
    return PredictedMachine(
        name=device.name,
        bandwidth_bytes_per_s=read or published,
        source="measured: reading memory" if read else "published",
        memory_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        rates=rates,
        host_rates=host,
        n_offloaded=offload.n_layers,
        n_cpu_moe=offload.n_cpu_moe,
        notes=(*notes, *experience.notes),
        host=None
        if on_gpu
        else Host(processor_features(), repacks=engine_health(notify).can_repack),
        experience=experience,
    )


SHOWN = ("F16", "Q8_0", "Q4_0", "Q4_K")
LAYERS = 32
"""Of a model of 7 billion weights, whose overhead is shown by layer."""


def prediction_basis() -> dict[str, Any]:
    """For the device that the engine would use: a probe's constants, else published ones."""
    device = _chosen(MachineChoice())
    place = PROCESSOR if device.backend == "cpu" else GRAPHICS
    probe, experience = _measured(place)
    source = f"a probe of {probe.taken}" if probe else _unprobed(device)
    return {
        "device": device.name,
        "source": source,
        "corrected_by": "; ".join(experience.notes) or "nothing that ran here yet",
        **_published_basis(device),
    }


def _measured(place: int) -> tuple[Probe | None, Experience]:
    """What this machine's own probe and runs say; nothing without an engine."""
    try:
        setting = ProbeSetting(default_threads(), place, engine_health(silent).can_repack)
        return kept_probe(setting), experience_of(setting)
    except EngineError:
        return None, Experience()


def _unprobed(device: LocalDevice) -> str:
    if device.backend == "cpu" or device.match.device is None:
        return "none yet: `localspec predict` probes this machine"
    return "published runs, until `localspec predict` probes this machine"


def _published_basis(device: LocalDevice) -> dict[str, Any]:
    """What published runs say of such a device; nothing of a processor or an unknown one."""
    if device.backend == "cpu" or device.match.device is None:
        return {}
    rates = PublishedRates.of(device.match, device.backend)
    spread = rates.spread("decode", Shares())
    ideal_s = 1e9 / rates.run.bandwidth_bytes_per_s
    shares = {
        name: round(ideal_s / rates.weights(WeightWork(BY_NAME[name], 1e9, 1e9), 1).seconds, 2)
        for name in SHOWN
    }
    return {
        "published": rates.source,
        "published_layer_us": round(1e6 * rates.overhead_s(LAYERS, 1) / LAYERS),
        "published_bandwidth_shares": shares,
        "published_interval": f"{spread.low:.2f} to {spread.high:.2f} of the prediction",
    }
