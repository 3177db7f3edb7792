"""Published figures of devices, each with its source, and how to find one by its name.

Drivers give several devices one name (RTX 3060 with 8 or 12 GB, M3 Max with 30 or 40 GPU cores), so
a name leads to candidates, which memory size or core count narrow down. What stays ambiguous is
said to be so: its bandwidth is an interval.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Self

from localspec.errors import HardwareError, UserError

MAX_LISTED = 10
_SIZE = re.compile(r"^(\d+)(?:gb|gib|g)$")
_CORES = re.compile(r"^(\d+)[- ]?(?:core|cores)?$")


@dataclass(frozen=True, slots=True)
class Device:
    """One device; None is what no source says. `fp16_flops_per_s` is the dense matrix rate."""

    name: str
    kind: str
    vendor: str
    matches: tuple[str, ...]
    bandwidth_bytes_per_s: float
    fp16_flops_per_s: float | None
    fp32_flops_per_s: float | None
    memory_bytes: tuple[int, ...]
    gpu_cores: int | None
    note: str | None
    source: str
    fp16_source: str

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Self:
        """From an entry of devices.toml. KeyError where it is not whole."""
        return cls(
            name=entry["name"],
            kind=entry["kind"],
            vendor=entry["vendor"],
            matches=tuple(entry["match"]),
            bandwidth_bytes_per_s=entry["bandwidth_gbps"] * 1e9,
            fp16_flops_per_s=entry["fp16_tflops"] * 1e12 or None,
            fp32_flops_per_s=entry.get("fp32_tflops", 0.0) * 1e12 or None,
            memory_bytes=tuple(round(size * 2**30) for size in entry["memory_gb"]),
            gpu_cores=entry.get("gpu_cores"),
            note=entry.get("note"),
            source=entry["source"],
            fp16_source=entry["fp16_source"],
        )

    @property
    def has_slower_twin(self) -> bool:
        """Whether a slower part reports the same name, by the table's own note."""
        return "same" in (self.note or "") and "laptop part" in (self.note or "")


@dataclass(frozen=True, slots=True)
class Match:
    """The devices that a reported name can mean, the likeliest first."""

    candidates: tuple[Device, ...]

    @property
    def device(self) -> Device | None:
        return self.candidates[0] if self.candidates else None

    @property
    def is_ambiguous(self) -> bool:
        twin = any(device.has_slower_twin for device in self.candidates)
        return twin or len({device.bandwidth_bytes_per_s for device in self.candidates}) > 1

    @property
    def bandwidth_range(self) -> tuple[float, float] | None:
        """Lowest and highest of the candidates, in bytes per second; None without any."""
        rates = [device.bandwidth_bytes_per_s for device in self.candidates]
        return (min(rates), max(rates)) if rates else None


@cache
def all_devices() -> tuple[Device, ...]:
    """The whole table."""
    text = (resources.files("localspec.hardware") / "devices.toml").read_text("utf-8")
    try:
        return tuple(Device.of(entry) for entry in tomllib.loads(text)["device"])
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise HardwareError(
            f"devices.toml is damaged ({error}): install localspec again"
        ) from error


def match_reported(
    name: str, *, memory_bytes: int | None = None, gpu_cores: int | None = None
) -> Match:
    """What a name from a driver, an engine or a system can mean; no candidates if it is unknown."""
    lowered = " ".join(name.lower().split())
    lengths = {
        device: max((len(text) for text in device.matches if text in lowered), default=0)
        for device in all_devices()
    }
    longest = max(lengths.values())
    found = [device for device, length in lengths.items() if length == longest > 0]
    return Match(tuple(_narrowed(found, memory_bytes, gpu_cores)))


def find_device(name: str) -> Match:
    """What a person means; UserError lists the devices if there are several, or close ones.

    Chips that differ in GPU cores alone are one answer, an ambiguous one.
    """
    words = [word for word in re.split(r"[\s(),/]+", name.lower()) if word]
    exact = [device for device in all_devices() if device.name.lower() == name.lower().strip()]
    found = exact or _meant(words)
    if not found:
        raise UserError(f"there is no device {name!r} in the table: {_suggestion(name)}")
    figures = {(d.bandwidth_bytes_per_s, d.fp16_flops_per_s, d.fp32_flops_per_s) for d in found}
    if len(figures) > 1 and len({_family_name(device) for device in found}) > 1:
        raise UserError(f"{name!r} can be {_listed(found)}: give more of the name")
    return Match(tuple(found))


def _family_name(device: Device) -> str:
    return re.sub(r"\(\d+-core GPU\)", "", device.name).strip()


def _narrowed(
    found: list[Device], memory_bytes: int | None, gpu_cores: int | None
) -> Iterable[Device]:
    if gpu_cores is not None:
        found = [d for d in found if d.gpu_cores in (None, gpu_cores)] or found
    sized = [device for device in found if device.memory_bytes]
    if memory_bytes is None or len(sized) < 2:
        return found

    def distance(device: Device) -> float:
        return min(abs(size - memory_bytes) for size in device.memory_bytes)

    nearest = min(map(distance, sized))
    return [device for device in found if not device.memory_bytes or distance(device) == nearest]


# Words of a name that people leave out.
_FILLERS = frozenset({"nvidia", "geforce", "apple", "amd", "intel", "radeon"})


def _meant(words: list[str]) -> list[Device]:
    """Devices whose name has every word; if some have no other, then only those."""
    found = [d for d in all_devices() if words and all(_has(d, word) for word in words)]
    plain = [d for d in found if not _words(_family_name(d)) - set(words) - _FILLERS]
    graphics = [device for device in found if device.kind != "cpu"]
    return plain or graphics or found


def _words(name: str) -> set[str]:
    return set(re.split(r"[\s(),/-]+", name.lower())) - {""}


def _has(device: Device, word: str) -> bool:
    size, cores = _SIZE.match(word), _CORES.match(word)
    if size:
        return int(size[1]) * 2**30 in device.memory_bytes
    if cores and device.gpu_cores is not None and int(cores[1]) == device.gpu_cores:
        return True
    return set(word.split("-")) <= _words(device.name)


def _suggestion(name: str) -> str:
    names = {device.name.lower(): device.name for device in all_devices()}
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)
    if not close:
        return "measure it there with `localspec predict`"
    return f"did you mean {' or '.join(names[text] for text in close)}?"


def _listed(devices: list[Device]) -> str:
    names = [device.name for device in devices]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
