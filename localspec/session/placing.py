"""Which devices compute a session's layers: those that are there, that are sound, and how many
layers each has.
"""

from dataclasses import replace

from localspec.engine.backends import measure_backends
from localspec.engine.graphics import engine_reports, graphics, may_have_graphics
from localspec.engine.health import sound_devices
from localspec.engine.workers import Worker, addresses_of, check_types, devices_of
from localspec.errors import UserError
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.memory import memory_of
from localspec.prediction.placement import experts_on_host, layers_that_fit
from localspec.session.asking import SessionConfig
from localspec.settings import Settings

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
