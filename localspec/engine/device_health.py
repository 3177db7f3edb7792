"""Does a graphics device compute what the processor does? Asked once per build, device and driver.

A driver that is broken or too old gives wrong numbers, or ends the process. A child evaluates two
small models on the device and on the processor, and the verdict is kept.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from localspec import paths
from localspec.engine.child import run_module
from localspec.engine.health import CHILD, LARGEST_ERROR, engine_fingerprint
from localspec.hardware.gpus import system_gpus
from localspec.hardware.machine import Reported
from localspec.notify import Notify
from localspec.store import Kept, hashed

LIMIT_S = 240.0
"""A driver may compile its programs first, which takes minutes where it does so in software."""


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """What is wrong with a device; None in a sound one."""

    problem: str | None


def sound_devices(devices: Sequence[Reported], notify: Notify) -> list[Reported]:
    """Those that compute what the processor does. `notify` hears of the others."""
    found: list[Reported] = []
    for device in devices:
        problem = None if device.backend == "rpc" else device_health(device, notify).problem
        if problem is None:
            found.append(device)
        else:
            notify(
                f"{device.name} ({device.description}) is not used: {problem}; a newer driver may"
                " help, and `localspec doctor` tests again"
            )
    return found


def device_health(device: Reported, notify: Notify) -> DeviceHealth:
    """The verdict, from the cache or by testing now, which `notify` hears of."""
    kept = _kept(device)
    health = kept.load()
    if health is None:
        notify(f"testing {device.name} ({device.description}) once")
        health = _tested(device)
        kept.save(health)
    return health


def devices_text(devices: Sequence[Reported]) -> str:
    """Part of the key of whatever was measured or kept on these devices: names, memory, drivers."""
    parts = [f"{each.backend} {each.description} {each.total_bytes}" for each in devices]
    return "; ".join([*parts, *(repr(gpu) for gpu in system_gpus())]) if parts else ""


def _tested(device: Reported) -> DeviceHealth:
    errors: dict[str, float] = {}

    def on_line(line: str) -> None:
        kind, _, error = line.partition(" ")
        errors[kind] = float(error)

    with tempfile.TemporaryDirectory(prefix="localspec-") as folder:
        ending = run_module(CHILD, [folder, "on", device.name], on_line, LIMIT_S)
    # Written so that a NaN, too, counts as a difference.
    wrong = [kind for kind, error in errors.items() if not error <= LARGEST_ERROR]
    if wrong:
        return DeviceHealth(f"it computes wrong numbers for {', '.join(wrong)}")
    return DeviceHealth(None if ending.is_success else f"its test failed ({ending.reason})")


def _kept(device: Reported) -> Kept[DeviceHealth]:
    key = f"{engine_fingerprint()} {device.name} {devices_text([device])}"
    path = hashed(paths.cache_dir() / "device-health", key)
    return Kept(path, lambda kept: DeviceHealth(**kept), asdict)
