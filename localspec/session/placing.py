"""Which devices compute a session's layers, and whether what this machine holds fits into memory.

Devices are those that are there and are sound; each has as many layers as fit.

Whether a model fits is said before it is loaded: the engine answers missing memory with swapping,
an abort, or a kill by the system. Mapped weights can be dropped and read again, so they do not
count, but a repacked copy, the caches and what is read instead of mapped do. What a GPU with memory
of its own holds, the engine asks the device for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from localspec.engine.backends import measure_backends
from localspec.engine.base import EngineConfig
from localspec.engine.graphics import engine_reports, graphics, may_have_graphics
from localspec.engine.health import sound_devices
from localspec.engine.workers import Worker, addresses_of, check_types, devices_of
from localspec.errors import UserError
from localspec.hardware.detect import (
    available_memory_bytes,
    processor_features,
    reservable_bytes,
    swap_bytes,
)
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.memory import PROGRAM_BYTES, Host, memory_of
from localspec.prediction.placement import experts_on_host, layers_that_fit
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


def on_sound_devices(settings: Settings, notify: Notify) -> Settings:
    """The same without devices that compute wrong numbers. Which of two backends of a card is
    taken is measured first, if it is not known."""
    if settings.gpu_layers and not settings.device and may_have_graphics():
        measure_backends(engine_reports() or [], notify)
    used = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    if settings.gpu_layers > 0 and not used:
        notify("no GPU is here that this engine computes on: all layers stay on the processor")
    sound = sound_devices(used, notify)
    if len(sound) == len(used):
        return settings
    names = tuple(device.name for device in sound)
    return replace(settings, device=names, gpu_layers=settings.gpu_layers if names else 0)


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


Loaded = tuple[EngineConfig, ModelFacts]
_LEAST_SAVED = 0.02
"""Of what is needed: less is not worth a word."""
_STEP = 256
"""Of the context's length in tokens."""


@dataclass(frozen=True, slots=True)
class Need:
    """What models take of the machine's memory together.

    `own_bytes` cannot be dropped, `mapped_bytes` can; `repacked_bytes` of the own ones are a second
    copy of mapped ones, which are not read any more.
    """

    own_bytes: int = 0
    repacked_bytes: int = 0
    mapped_bytes: int = 0

    @classmethod
    def of(cls, models: Sequence[Loaded]) -> "Need":
        on_host = [_need(*pair) for pair in models if not is_elsewhere(pair[0])]
        one_program = cls(-PROGRAM_BYTES * max(0, len(on_host) - 1))
        return sum(on_host, one_program)

    def __add__(self, other: "Need") -> "Need":
        return Need(*(getattr(self, f) + getattr(other, f) for f in self.__slots__))


def host_of(settings: Settings) -> Host | None:
    """How weights lie in this processor's memory; None where a GPU holds them."""
    if settings.gpu_layers and graphics(settings.device):
        return None
    return Host(processor_features(), settings.mmap, settings.repack)


def check_memory(models: Sequence[Loaded], beside: Need = Need()) -> None:
    """Raise UserError where models, and what is `beside` them, do not fit together into the memory
    that is free now."""
    need = Need.of(models) + beside
    free_bytes, reservable = available_memory_bytes(), reservable_bytes(need.mapped_bytes)
    if reservable is not None:  # a system may promise no more than it has
        free_bytes = min(free_bytes, reservable)
    if need.own_bytes <= free_bytes:
        return
    is_much = need.repacked_bytes >= _LEAST_SAVED * need.own_bytes
    also = f" and repacked weights of {need.repacked_bytes / 1e9:.1f} GB" if is_much else ""
    raise UserError(
        f"a context of {models[0][0].n_ctx:,} tokens{also} needs"
        f" {need.own_bytes / 1e9:.1f} GB and {free_bytes / 1e9:.1f} GB are"
        f" free{_limit(free_bytes)}:"
        f" {_advice(models, need, free_bytes)}"
    )


def warn_of_reading(models: Sequence[Loaded], notify: Notify, beside: Need = Need()) -> None:
    """Say so where mapped weights do not stay in memory, which makes each token read the disk."""
    need, free = Need.of(models) + beside, available_memory_bytes()
    kept = need.mapped_bytes - need.repacked_bytes
    if need.own_bytes + kept <= free:
        return
    saved = " (--no-repack drops a second copy of them)" if need.repacked_bytes else ""
    notify(
        f"{(need.own_bytes + kept) / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free, so"
        f" weights will be read from the disk again and again, which is slow{saved}"
    )


def _limit(free_bytes: int) -> str:
    """What keeps it from being more."""
    if free_bytes < available_memory_bytes():
        return " to reserve (the system's limit on overcommitment, or ulimit -v)"
    swap = swap_bytes()
    return f", and the rest would go to swap ({swap / 1e9:.1f} GB)" if swap else ""


def is_elsewhere(config: EngineConfig) -> bool:
    """Whether it goes to devices that do not share this machine's memory."""
    settings = config.settings
    used = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    return bool(used) and not any(device.shares_memory for device in used)


def _need(config: EngineConfig, facts: ModelFacts) -> Need:
    settings = config.settings
    memory = memory_of(
        facts, settings.attention, config.n_ctx, host_of(settings),
        n_sequences=settings.n_sequences, n_batch=settings.ubatch,
    )  # fmt: skip
    snapshots_bytes = settings.n_rs_seq * settings.n_sequences * (facts.state_bytes or 0)
    own_bytes = memory.own_bytes + snapshots_bytes
    if settings.mmap:
        return Need(own_bytes, memory.repacked_bytes, facts.weight_bytes)
    return Need(own_bytes + facts.weight_bytes)


def _advice(models: Sequence[Loaded], need: Need, free_bytes: int) -> str:
    if need.own_bytes - need.repacked_bytes <= free_bytes:
        return "--no-repack does without the second copy"
    n_ctx = models[0][0].n_ctx
    least = Need.of([(config.with_settings(ctx=_STEP), facts) for config, facts in models])
    token_bytes = (need.own_bytes - least.own_bytes) / max(1, n_ctx - _STEP)
    plain_bytes = least.own_bytes - need.repacked_bytes
    for fixed, option in ((least.own_bytes, ""), (plain_bytes, "--no-repack ")):
        room = _STEP + int((free_bytes - fixed) / max(1.0, token_bytes))
        if _STEP <= room < n_ctx:
            return f"{option}--ctx {room // _STEP * _STEP} would fit"
    return "close other programs or take a smaller file"
