"""Cards that two backends can compute on, e.g. CUDA and Vulkan: which is faster here is measured.

libllama takes the backend that was registered first. A child process for each reads a prompt and
decodes some tokens of one random model, and the verdict is kept by build, card and drivers. Until
then, and where none can be measured, the first counts as well. `--device` names another one.

A card is known by its PCI address; a backend that does not tell it has no twin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from localspec.engine.child import call
from localspec.engine.health import devices_text, engine_fingerprint, sound_devices
from localspec.hardware.machine import Reported
from localspec.notify import Notify
from localspec.store import Kept

CHILD = "localspec.engine.llama.prober:reply_s"
LIMIT_S = 240.0
"""A driver may compile its programs first."""


@dataclass(frozen=True, slots=True)
class FasterBackend:
    """The device's name, and what each took in seconds; None: it could not be measured."""

    name: str
    seconds: dict[str, float | None]


def twins(devices: Sequence[Reported]) -> list[list[Reported]]:
    """Devices that are the same card, a list for each card with several."""
    cards: dict[str, list[Reported]] = {}
    for device in devices:
        if device.is_graphics and device.card is not None:
            cards.setdefault(device.card, []).append(device)
    return [group for group in cards.values() if len(group) > 1]


def marked(devices: Sequence[Reported]) -> list[Reported]:
    """The same; of each card all devices but one are marked as twins, which no layers go to
    unasked."""
    spare = set[str]()
    for group in twins(devices):
        kept = _kept(group).load()
        names = [device.name for device in group]
        chosen = kept.name if kept and kept.name in names else names[0]
        spare.update(name for name in names if name != chosen)
    return [replace(each, is_twin=each.name in spare) for each in devices]


def measure_backends(
    devices: Sequence[Reported],
    notify: Notify,
    seconds_of: Callable[[Reported], float] | None = None,
) -> None:
    """Find out what is not known yet, which `notify` hears of."""
    for group in twins(devices):
        kept = _kept(group)
        if kept.load() is None:
            kept.save(_measured(group, notify, seconds_of or reply_s))


def _measured(
    group: Sequence[Reported], notify: Notify, seconds_of: Callable[[Reported], float]
) -> FasterBackend:
    names = " and ".join(device.name for device in group)
    notify(f"{names} are one card ({group[0].description}): measuring once which is faster")
    sound = sound_devices(group, notify)
    times = {device.name: seconds_of(device) for device in sound}
    fastest = min(times, key=lambda name: times[name], default=group[0].name)
    found = {name: None if seconds == inf else seconds for name, seconds in times.items()}
    notify(f"{fastest} is used; --device names another one")
    return FasterBackend(fastest, found)


def reply_s(device: Reported) -> float:
    """Seconds of a prompt of 128 tokens and an answer of 128; infinite where it cannot compute."""
    ending = call(CHILD, device.backend, device.name, limit_s=LIMIT_S)
    return ending.result or inf


def _kept(group: Sequence[Reported]) -> Kept[FasterBackend]:
    names = " ".join(device.name for device in group)
    key = f"{engine_fingerprint()} {names} {devices_text(group)}"
    return Kept.of(FasterBackend, "faster-backend", key)
