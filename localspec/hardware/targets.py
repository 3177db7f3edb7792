"""AMD's cards by the target that compilers and drivers name, and by Mesa's names of chips.

"gfx1201" is any card that has it (LLVM's AMDGPUUsage), "RADV PHOENIX" any of that chip: all that a
driver says where it has no name of the product.
"""

import re

from localspec.errors import UserError
from localspec.hardware.devices import GIB, Match, all_devices, listed, match_reported

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
