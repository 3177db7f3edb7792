"""Which devices a name that a driver or system reports can mean.

Drivers give several devices one name (RTX 3060 with 8 or 12 GB, M3 Max with 30 or 40 GPU cores), so
a name leads to candidates, which core count or memory size narrow down. What stays ambiguous is
said to be so: its bandwidth is an interval. A name in no entry is unknown, never its nearest
neighbour: "RX 6800M" is not an RX 6800.
"""

import re
from dataclasses import dataclass
from functools import cache

from localspec.hardware.table import Device, all_devices

_MOBILE = re.compile(r"\blaptop\b|\bmobile\b|\bmax-q\b")


@dataclass(frozen=True, slots=True)
class Match:
    """The devices that a reported name can mean, the likeliest first."""

    candidates: tuple[Device, ...]

    @property
    def device(self) -> Device | None:
        return self.candidates[0] if self.candidates else None

    @property
    def is_ambiguous(self) -> bool:
        low, high = self.bandwidth_range or (0.0, 0.0)
        return low < high

    @property
    def bandwidth_range(self) -> tuple[float, float] | None:
        """Lowest and highest that the name can mean, in bytes per second; None for no device."""
        rates = [device.bandwidth_bytes_per_s for device in self.candidates]
        rates += [rate for device in self.candidates for rate in device.same_name_bytes_per_s]
        return (min(rates), max(rates)) if rates else None


def match_reported(
    name: str, *, memory_bytes: int | None = None, gpu_cores: int | None = None
) -> Match:
    """What a name from a driver, an engine or a system can mean; no candidates if it is unknown."""
    lowered = " ".join(name.lower().split())
    is_mobile = bool(_MOBILE.search(lowered))
    lengths = {
        device: _matched_length(device, lowered)
        for device in all_devices()
        if not is_mobile or _MOBILE.search(f"{device.name} {device.matches}".lower())
    }
    longest = max(lengths.values(), default=0)
    found = [device for device, length in lengths.items() if length == longest > 0]
    return Match(tuple(_of_memory(_of_cores(found, gpu_cores), memory_bytes)))


def _matched_length(device: Device, lowered: str) -> int:
    return max((len(t) for t in device.matches if _name_pattern(t).search(lowered)), default=0)


@cache
def _name_pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){re.escape(text)}(?![a-z0-9])")


def _of_cores(found: list[Device], gpu_cores: int | None) -> list[Device]:
    if gpu_cores is None:
        return found
    return [device for device in found if device.gpu_cores in (None, gpu_cores)] or found


def _of_memory(found: list[Device], memory_bytes: int | None) -> list[Device]:
    """Those whose size is the nearest: drivers report a little less than is printed on the box."""
    sized = [device for device in found if device.memory_bytes]
    if memory_bytes is None or len(sized) < 2:
        return found

    def distance(device: Device) -> int:
        return min(abs(size - memory_bytes) for size in device.memory_bytes)

    nearest = min(map(distance, sized))
    return [device for device in found if not device.memory_bytes or distance(device) == nearest]
