"""Devices by the names that people type, and by the targets and chips that drivers name.

A person types some words of a name, in any order, without the brand, glues them together or spells
them otherwise. A name in no entry is unknown, never its nearest neighbour: "RX 6800M" is not an RX
6800.

AMD's cards go by the target of compilers and drivers, too, and by Mesa's names of chips. "gfx1201"
is any card that has it (LLVM's AMDGPUUsage), "RADV PHOENIX" any of that chip: all that a driver
says where it has no name of the product.
"""

import difflib
import re

from localspec.errors import UserError
from localspec.hardware.devices import GIB, Device, Match, all_devices, match_reported

MAX_LISTED = 10
NEAR, NEAR_FLOPS = 1.25, 1.35
"""Figures of memory and arithmetic that differ by less are one answer, an ambiguous one: cards of
one name with other coolers, plugs or sizes of memory."""

_SIZE = re.compile(r"(\d+)(?:gb|gib|g)")
_CORES = re.compile(r"(\d+)(?:-?cores?|c)?")
_SPACED_UNIT = re.compile(r"(\d+)\s+(gib|gb|cores?)\b")
_CORES_OF_CHIP = re.compile(r"\(\d+-core GPU\)")
_BINS = re.compile(rf"{_CORES_OF_CHIP.pattern}|\b\d+ ?GB\b")

# Words of a name that people leave out; those of a series only beside a number.
_BRANDS = frozenset(("nvidia", "geforce", "apple", "amd", "intel", "radeon", "instinct", "tesla"))
_SERIES = frozenset(("rtx", "gtx", "rx", "arc"))


class UnknownDeviceError(UserError):
    """A name that no device of the table has."""


def find_device(name: str, memory_bytes: int | None = None, backend: str | None = None) -> Match:
    """What a person means; UserError lists the devices if there are several, or close ones.

    Parts that differ in GPU cores alone, or hardly in their figures, are one answer. `memory_bytes`
    tells those apart that are sold with it, `backend` those that run with it. Who copies what a
    driver reports is understood, too.
    """
    lowered = " ".join(name.lower().split())
    exact = [device for device in all_devices() if device.name.lower() == lowered]
    reported = list(match_reported(lowered).candidates)
    found = exact or _meant(lowered) or reported or _meant(of_laptop(lowered))
    if reported and set(reported) < set(found):
        found = reported
    if not found:
        raise UnknownDeviceError(f"there is no device {name!r} in the table: {_suggestion(name)}")
    found = [device for device in found if memory_bytes in device.memory_bytes] or found
    found = [device for device in found if backend in device.backends] or found
    for meant in (found, _of_one_maker(found)):
        chips = {_CORES_OF_CHIP.sub("", device.name).strip() for device in meant}
        if len(chips) == 1 or _are_near(meant):
            return Match(tuple(meant))
    raise UserError(f"{name!r} can be {listed(found)}: give more of the name")


def _meant(lowered: str) -> list[Device]:
    """Devices that have every word; if the words are all of some names, then only those."""
    words = re.split(r"[\s(),/]+", _SPACED_UNIT.sub(r"\1\2", lowered))
    words = [word for word in words if word]
    found = [d for d in all_devices() if words and all(_has(d, word) for word in words)]
    found = found or _glued(words)
    given = set(words) | pieces_of(lowered) | _BRANDS
    given |= _SERIES if re.search(r"\d", lowered) else set()
    plain = [d for d in found if not words_of(_BINS.sub("", d.name)) - given]
    graphics = [device for device in found if device.kind != "cpu"]
    return plain or graphics or found


def _of_one_maker(found: list[Device]) -> list[Device]:
    """Whose name says least beside what was typed: "M4" is Apple's and not Tesla M4."""
    first = min(found, key=lambda device: len(words_of(_BINS.sub("", device.name))))
    return [device for device in found if device.name.split()[0] == first.name.split()[0]]


def _has(device: Device, word: str) -> bool:
    size, cores = _SIZE.fullmatch(word), _CORES.fullmatch(word)
    if size:
        return int(size[1]) * GIB in device.memory_bytes
    if cores and device.gpu_cores is not None:
        return int(cores[1]) == device.gpu_cores
    return re.search(rf"(?<![\w-]){re.escape(word)}(?!\w)", device.name.lower()) is not None


def _glued(words: list[str]) -> list[Device]:
    """For "rtx4090", "m4max" and "h100 sxm": letters and digits apart, but in their order."""
    sizes = [word for word in words if _SIZE.fullmatch(word)]
    patterns = [pattern_of(word) for word in words if word not in sizes]
    return [
        device
        for device in all_devices()
        if patterns and all(re.search(text, device.name.lower()) for text in patterns)
        if all(_has(device, size) for size in sizes)
    ]


def _are_near(found: list[Device]) -> bool:
    rates = [device.bandwidth_bytes_per_s for device in found]
    flops = [device.fp16_flops_per_s or 0.0 for device in found]
    are_near = max(rates) <= NEAR * min(rates) and max(flops) <= NEAR_FLOPS * min(flops)
    return are_near and len({device.kind for device in found}) == 1


def _suggestion(name: str) -> str:
    names = {_unbranded(device.name): device.name for device in all_devices()}
    by_bandwidth = f"add the bandwidth of its memory for a wide prediction, as in '{name} 300 GB/s'"
    close = difflib.get_close_matches(_unbranded(name), names, n=3, cutoff=0.7)
    if close:
        return f"did you mean {' or '.join(names[text] for text in close)}? Else {by_bandwidth}"
    return f"measure it there with `localspec predict`, or {by_bandwidth}"


def _unbranded(name: str) -> str:
    return " ".join(word for word in name.lower().split() if word not in _BRANDS)


def listed(devices: list[Device]) -> str:
    """For people; not all of many."""
    names = [device.name for device in devices]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def of_laptop(lowered: str) -> str:
    """What is called Laptop GPU; drivers name GTX in laptops as cards."""
    if "gtx" in lowered:
        return re.sub(r"\b(laptop|mobile|notebook)( gpu)?\b|(?<=\d)m\b", "", lowered)
    named = re.sub(r"\b(mobile|notebook|max-?q)\b", "laptop", lowered)
    return re.sub(r"(\brtx ?\d{4}(?: ?ti)?)m\b", r"\1 laptop", named)


def pattern_of(word: str) -> str:
    """A pattern of the letters and digits of a word, whatever stands between them in a name."""
    parts = re.findall(r"[a-z]+|\d+", word)
    kinds = [r"\d" if part.isdigit() else "a-z" for part in parts]
    inner = r"[^a-z\d]*".join(parts)
    return rf"(?<![{kinds[0]}]){inner}(?![{kinds[-1]}])" if parts else ""


def pieces_of(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", name.lower()))


def words_of(name: str) -> set[str]:
    return set(re.split(r"[\s(),/]+", name.lower())) - {""}


_TARGET = re.compile(r"\bgfx([\da-f]{3,4}(?:_r[12])?)\b")
_CARDS_OF_TARGET: dict[str, str] = {
    "803": r"rx (4[678]0|5[5-9]0)\b|r9 (nano|fury)|mi[68]$|pro wx [457]1",
    "900": r"vega (56|64|frontier)|mi25$|pro wx [89]",
    "906": r"radeon vii|pro v(ega )?ii|mi[56]0$",
    "908": r"mi100",
    "90a": r"mi2[15]0",
    "90c": r"renoir",
    "942": r"mi3[02]",
    "950": r"mi35",
    "1010": r"rx 5[67]00|w5700|pro 5700",
    "1011": r"pro v520|pro 5600m",
    "1012": r"rx 5[35]00|pro 5[35]00",
    "1013": r"bc-250",
    "1030": r"rx 6([89]\d0|800 |900 )|rx 6800$|w6[89]00|v620",
    "1031": r"rx 6(700|7[05]0 |700 |800m|850m)",
    "1032": r"rx 6(600|650|700s|800s)|w6600",
    "1033": r"van gogh",
    "1034": r"rx 6([345]\d0)|w6[34]00",
    "1035": r"6[68]0m",
    "1036": r"610m",
    "1100": r"rx 7900|w7[89]00",
    "1101": r"rx 7(700|800)(?!s)|w7700|v710",
    "1102": r"rx 7([46]\d0|700s)|w7[56]00",
    "1103": r"7[468]0m",
    "1103_r1": r"7[68]0m",
    "1103_r2": r"740m",
    "1150": r"8[89]0m",
    "1152": r"8[46]0m",
    "1200": r"rx 9060",
    "1201": r"rx 9070|r9[67]00",
}
"""By what their names have in the table."""
MOST_APART = 2.0
"""In bandwidth or arithmetic, of the cards of one target for which one interval is an answer."""
_CHIP = re.compile(r"\bradv (\w+)")
_TARGET_OF_CHIP = {
    "phoenix": "1103_r1", "phoenix2": "1103_r2", "rembrandt": "1035", "strix1": "1150",
    "krackan1": "1152",
}  # fmt: skip
_MEMORY = re.compile(r"(?<![\d.])(\d+)\s*gi?b(?!/s)\b")


def cards_of_target(lowered: str, memory_bytes: int | None = None) -> Match | None:
    """The cards of a target that a name says; None where it says none that is known.

    Raises UserError where they differ by too much for one answer.
    """
    said = _said(lowered)
    if said not in _CARDS_OF_TARGET:
        return None
    return _of_target(said, _TARGET.sub(" ", lowered), memory_bytes)


def _said(lowered: str) -> str | None:
    """A chip's name counts where there is none of a product."""
    target, chip = _TARGET.search(lowered), _CHIP.search(lowered)
    if target or not chip:
        return target[1] if target else None
    return None if match_reported(lowered).candidates else _TARGET_OF_CHIP.get(chip[1])


def _of_target(target: str, rest: str, memory_bytes: int | None) -> Match:
    """The cards of a compiler's target, the middle one first; UserError where they differ by too
    much for one answer."""
    pattern = _CARDS_OF_TARGET[target]
    amd = [device for device in all_devices() if device.name.startswith("AMD")]
    cards = [device for device in amd if re.search(pattern, device.name.lower())]
    named = [d for d in match_reported(rest, memory_bytes=memory_bytes).candidates if d in cards]
    sizes = [memory_bytes] if memory_bytes else [int(n) * GIB for n in _MEMORY.findall(rest)]
    found = named or [d for d in cards if sizes and sizes[0] in d.memory_bytes] or cards
    found.sort(key=lambda device: device.bandwidth_bytes_per_s)
    rates = [device.bandwidth_bytes_per_s for device in found]
    flops = [device.fp16_flops_per_s or 0.0 for device in found]
    if rates[-1] > MOST_APART * rates[0] or max(flops) > MOST_APART * min(flops):
        raise UserError(f"gfx{target} can be {listed(found)}: give the card's name")
    middle = found.pop(len(found) // 2)
    return Match((middle, *found))
