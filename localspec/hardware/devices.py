"""Devices by the name that a person types: all of its words, in any order, brands left out."""

import difflib
import re

from localspec.errors import UserError
from localspec.hardware.matching import Match, match_reported
from localspec.hardware.table import GIB, Device, all_devices

__all__ = ["Device", "Match", "all_devices", "find_device", "match_reported"]

MAX_LISTED = 10
NEAR = 1.1
"""Figures that differ by less are one answer, an ambiguous one."""

_SIZE = re.compile(r"(\d+)(?:gb|gib|g)")
_CORES = re.compile(r"(\d+)(?:-?cores?)?")
_SPACED_UNIT = re.compile(r"(\d+)\s+(gib|gb|cores?)\b")
_BINS = re.compile(r"\(\d+-core GPU\)|\b\d+ GB\b")

# Words of a name that people leave out; those of a series only beside a number.
_BRANDS = frozenset(("nvidia", "geforce", "apple", "amd", "intel", "radeon", "instinct", "tesla"))
_SERIES = frozenset(("rtx", "gtx", "rx", "arc"))


def find_device(name: str) -> Match:
    """What a person means; UserError lists the devices if there are several, or close ones.

    Parts that differ in GPU cores alone, or hardly in their figures, are one answer.
    """
    lowered = " ".join(name.lower().split())
    exact = [device for device in all_devices() if device.name.lower() == lowered]
    found = exact or _meant(lowered)
    if not found:
        raise UserError(f"there is no device {name!r} in the table: {_suggestion(name)}")
    if len({_chip(device) for device in found}) > 1 and not _are_near(found):
        raise UserError(f"{name!r} can be {_listed(found)}: give more of the name")
    return Match(tuple(found))


def _meant(lowered: str) -> list[Device]:
    """Devices that have every word; if the words are all of some names, then only those."""
    words = re.split(r"[\s(),/]+", _SPACED_UNIT.sub(r"\1\2", lowered))
    words = [word for word in words if word]
    found = [d for d in all_devices() if words and all(_has(d, word) for word in words)]
    found = found or _glued(words)
    given = set(words) | _pieces(lowered) | _BRANDS
    given |= _SERIES if re.search(r"\d", lowered) else set()
    plain = [d for d in found if not _words(_BINS.sub("", d.name)) - given]
    graphics = [device for device in found if device.kind != "cpu"]
    return plain or graphics or found


def _has(device: Device, word: str) -> bool:
    size, cores = _SIZE.fullmatch(word), _CORES.fullmatch(word)
    if size:
        return int(size[1]) * GIB in device.memory_bytes
    if cores and device.gpu_cores is not None:
        return int(cores[1]) == device.gpu_cores
    return re.search(rf"(?<![\w-]){re.escape(word)}(?!\w)", device.name.lower()) is not None


def _glued(words: list[str]) -> list[Device]:
    """For "rtx4090", "m4max" and "h100 sxm": letters and digits apart."""
    sizes = [word for word in words if _SIZE.fullmatch(word)]
    pieces = _pieces(" ".join(word for word in words if word not in sizes))
    return [
        device
        for device in all_devices()
        if pieces and pieces <= _pieces(device.name) and all(_has(device, s) for s in sizes)
    ]


def _pieces(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", name.lower()))


def _words(name: str) -> set[str]:
    return set(re.split(r"[\s(),/]+", name.lower())) - {""}


def _chip(device: Device) -> str:
    """The name without its GPU cores: bins of one chip."""
    return re.sub(r"\(\d+-core GPU\)", "", device.name).strip()


def _are_near(found: list[Device]) -> bool:
    rates = [device.bandwidth_bytes_per_s for device in found]
    flops = [device.fp16_flops_per_s or 0.0 for device in found]
    return max(rates) <= NEAR * min(rates) and max(flops) <= NEAR * min(flops)


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
