"""Which devices compute a session's layers: those that are there, that are sound, and how many
layers each has.

A draft model computes beside its target, on the device that was named, or where probes say that it
drafts faster. A draft waits for each of its tokens, so what a pass takes besides its arithmetic
counts more than bandwidth: a processor, or the smaller of two cards, may be faster. `auto` asks
probes that are kept and measures none.
"""

from dataclasses import replace

from localspec.engine.backends import measure_backends
from localspec.engine.graphics import engine_reports, graphics, may_have_graphics
from localspec.engine.health import sound_devices
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe
from localspec.engine.threads import default_threads
from localspec.engine.workers import Worker, addresses_of, check_types, devices_of
from localspec.errors import UserError
from localspec.forecast.machine import CLEARLY, Peer, Peers, Rates, rates_for
from localspec.hardware.machine import Reported
from localspec.hardware.probe_results import Probe
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.memory import memory_of
from localspec.prediction.placement import experts_on_host, layers_that_fit
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.prediction.roofline import Roofline, Share
from localspec.session.asking import SessionConfig
from localspec.settings import AUTO, Settings

PROCESSOR_NAME = "CPU"
"""As ggml calls it."""


def check_devices(settings: Settings) -> None:
    """Raise UserError for a device that the engine does not have, or a worker that is not there."""
    if not settings.device and not settings.workers:
        return
    far = [device for worker in settings.workers for device in devices_of(Worker.of(worker))]
    known = [device.name for device in (*(engine_reports() or []), *far)]
    unknown = [name for name in settings.device if name not in known]
    if unknown:
        raise UserError(f"no device {unknown[0]!r}: the engine has {', '.join(known) or 'none'}")
    if settings.workers:
        check_types(settings.kv_k, settings.kv_v)


def own_devices(settings: Settings) -> tuple[str, ...]:
    """The named ones that are this machine's own."""
    addresses = addresses_of(settings.workers)
    return tuple(name for name in settings.device if name not in addresses)


def computing_names(settings: Settings, n_layers: int) -> tuple[str, ...]:
    """Devices that hold layers, the processor's last."""
    used = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    names = tuple(device.name for device in used)
    is_all = bool(names) and not 0 <= settings.gpu_layers <= n_layers
    return names if is_all else (*names, PROCESSOR_NAME)


def on_sound_devices(config: SessionConfig, notify: Notify) -> SessionConfig:
    """The same without devices that compute wrong numbers. Which of two backends of a card is
    taken is measured first, if it is not known."""
    settings = config.settings
    if settings.gpu_layers and not settings.device and may_have_graphics():
        measure_backends(engine_reports() or [], notify)
    used = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    if settings.gpu_layers > 0 and not used:
        notify("no GPU is here that this engine computes on: all layers stay on the processor")
    sound = sound_devices(used, notify)
    if len(sound) == len(used):
        return config
    names = tuple(device.name for device in sound)
    return config.with_settings(device=names, gpu_layers=settings.gpu_layers if names else 0)


def placed(settings: Settings, facts: ModelFacts) -> Settings:
    """The settings with the layers of the GPUs, and the devices' shares of them."""
    counted = _counted(settings, facts)
    if not counted.gpu_layers:
        return replace(counted, shares=())
    from localspec.forecast.probing import known_shares  # noqa: PLC0415 - of several devices

    return replace(counted, shares=known_shares(counted, facts))


def _counted(settings: Settings, facts: ModelFacts) -> Settings:
    """Layers as asked for, or as many as fit on the GPUs that are here, experts staying first; 0
    where none is."""
    devices = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    if not devices or settings.gpu_layers > 0:
        return settings if devices else replace(settings, gpu_layers=0)
    assert settings.ctx
    n_sequences = settings.n_sequences
    needed = memory_of(facts, settings.attention, settings.ctx, n_sequences=n_sequences).total_bytes
    free = [device.free_bytes for device in devices]
    if settings.cpu_moe:
        needed -= round(facts.expert_bytes * facts.expert_share(0, settings.cpu_moe))
    elif n_kept := experts_on_host(facts, needed, free):
        return replace(settings, gpu_layers=-1, cpu_moe=n_kept)
    return replace(settings, gpu_layers=layers_that_fit(facts, needed, free))


def draft_settings(settings: Settings, facts: ModelFacts) -> Settings:
    """The target's settings as its draft has them. Raises UserError for a device that is not there,
    or a worker that the target has."""
    # A worker serves one engine at a time.
    beside = replace(settings, workers=(), device=own_devices(settings))
    name = settings.draft_device
    if name == AUTO:
        name = faster_device(beside, facts)
    return _on(name, beside, settings) if name else beside


def faster_device(beside: Settings, facts: ModelFacts) -> str | None:
    """Where one token of the draft is predicted to be clearly faster; None: as it is, or nobody
    knows. `--gpu-layers 0` keeps the draft to the processor, too."""
    used = graphics(beside.device) if beside.gpu_layers else []
    peers = [_peer(each, beside, facts, is_only=len(used) == 1) for each in used]
    host = kept_probe(ProbeSetting(_threads(beside), PROCESSOR, beside.repack))
    known = [peer for peer in peers if peer]
    if not used or len(known) < len(used):
        return None
    seconds = {peer.name: _token_s(peer.rates, facts, beside) for peer in known}
    if host and _knows(host, facts, beside):
        seconds[PROCESSOR_NAME] = _token_s(ProbedRates(host), facts, beside)
    fastest = min(seconds, key=lambda name: seconds[name])
    # With the layers where libllama puts them.
    shared = Peers(tuple(known), None, -1, "memory", beside.ctx or 4096)
    roofline = shared.roofline(facts, beside.attention, lambda rates: rates_for(facts, rates))
    now_s = roofline.seconds(1, 0)
    return fastest if now_s > CLEARLY * seconds[fastest] else None


def _on(name: str, beside: Settings, target: Settings) -> Settings:
    if name.upper() == PROCESSOR_NAME:
        return replace(beside, device=(), gpu_layers=0)
    if ":" not in name:
        placed = replace(beside, device=(name,), gpu_layers=-1)
    elif Worker.of(name).address in addresses_of(target.workers):
        raise UserError(
            f"--draft-device {name} is among --workers, and a worker serves one model at a time:"
            " start another one there with `localspec worker`"
        )
    else:
        placed = replace(beside, device=(), workers=(name,), gpu_layers=-1)
    check_devices(placed)
    return placed


def _peer(device: Reported, beside: Settings, facts: ModelFacts, *, is_only: bool) -> Peer | None:
    """A device whose kept probe knows the draft. The only one is probed without its name."""
    names = () if is_only and not beside.device else (device.name,)
    probe = kept_probe(ProbeSetting(_threads(beside), GRAPHICS, beside.repack, names))
    if probe is None or not _knows(probe, facts, beside):
        return None
    return Peer.probed(device.name, probe, device.free_bytes)


def _threads(beside: Settings) -> int:
    return beside.threads or default_threads()


def _knows(probe: Probe, facts: ModelFacts, beside: Settings) -> bool:
    return probe_needs([facts], [beside.attention]).missing_from(probe).is_empty


def _token_s(rates: Rates, facts: ModelFacts, beside: Settings) -> float:
    share = Share(rates_for(facts, rates), facts.n_layers)
    return Roofline(facts, (share,), beside.attention).seconds(1, 0)
