"""The table of devices (devices.toml, each figure with its source), by what drivers report.

Drivers give several devices one name (RTX 3060 with 8 or 12 GB, M3 Max with 30 or 40 GPU cores): a
reported name leads to candidates, which core count or memory size narrow down. Where several
remain, their bandwidth is an interval.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Self

from localspec.errors import HardwareError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Device:
    """One device; None is what no source says.

    `fp16_flops_per_s` is the dense matrix rate. `same_name_bytes_per_s`: bandwidths of other parts
    that report this name and this memory, so that nothing tells them apart. `kind` is the backend
    that its figures are for, "cpu" memory for a processor.
    """

    name: str
    kind: str
    matches: tuple[str, ...]
    bandwidth_bytes_per_s: float
    fp16_flops_per_s: float | None
    fp32_flops_per_s: float | None
    memory_bytes: tuple[int, ...]
    gpu_cores: int | None
    note: str | None
    source: str
    same_name_bytes_per_s: tuple[float, ...] = ()
    shares_memory: bool = False
    also: tuple[str, ...] = ()
    """Other backends that it runs with."""

    @property
    def backends(self) -> tuple[str, ...]:
        """The one of its figures first."""
        return tuple(dict.fromkeys((self.kind, *self.also)))

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Self:
        """From an entry of devices.toml.

        Raises KeyError, TypeError or ValueError where it is not whole.
        """
        bandwidth = entry["bandwidth_gbps"] * 1e9
        if bandwidth <= 0 or not entry["source"] or not entry["match"]:
            raise ValueError(f"{entry['name']}: bandwidth, source and match must not be empty")
        return cls(
            name=entry["name"],
            kind=entry["kind"],
            matches=tuple(entry["match"]),
            bandwidth_bytes_per_s=bandwidth,
            fp16_flops_per_s=entry["fp16_tflops"] * 1e12 or None,
            fp32_flops_per_s=entry.get("fp32_tflops", 0.0) * 1e12 or None,
            memory_bytes=tuple(round(size * GIB) for size in entry["memory_gb"]),
            gpu_cores=entry.get("gpu_cores"),
            note=entry.get("note"),
            source=entry["source"],
            same_name_bytes_per_s=tuple(rate * 1e9 for rate in entry.get("same_name_gbps", ())),
            shares_memory=entry.get("shares_memory", False),
            also=tuple(entry.get("also", _OTHERS.get(entry["vendor"], ()))),
        )


_OTHERS = {"nvidia": ("vulkan",), "amd": ("rocm",), "apple": ("vulkan",)}
"""Backends that a maker's devices run with beside the one of their figures."""


@cache
def all_devices() -> tuple[Device, ...]:
    """The whole table. Raises HardwareError if it is damaged."""
    text = (resources.files("localspec.hardware") / "devices.toml").read_text("utf-8")
    return read_table(text)


def read_table(text: str) -> tuple[Device, ...]:
    """Every entry of a table. Raises HardwareError where one is not whole."""
    try:
        return tuple(Device.of(entry) for entry in tomllib.loads(text)["device"])
    except KeyError as error:
        raise _damaged(f"{error} is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _damaged(str(error)) from error


def _damaged(reason: str) -> HardwareError:
    return HardwareError(f"devices.toml is damaged ({reason}): install localspec again")


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
    within = (text for text in device.matches if text in lowered)
    return max((len(text) for text in within if _name_pattern(text).search(lowered)), default=0)


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
