"""The bandwidth of memory that is named by its modules: channels x bytes of a channel x MT/s.

    "8 channel DDR4-3200"   "DDR5-6400"   "12x DDR5-4800"   "LPDDR5X-8000 256-bit"

A channel of DDR has 8 bytes. Without a number there are two channels, and 128 bits of LPDDR, as in
desktops and laptops.
"""

import re
from dataclasses import dataclass

_KIND = re.compile(r"(?<![\w-])(lp)?ddr[345]x?(?:[- ]?(?:r?dimm )?)(\d{4,5})(?!\w)", re.IGNORECASE)
_CHANNELS = re.compile(
    r"(?<![\w-])(\d{1,2}|single|dual|two|quad|four|six|eight|octa|twelve)(?:[- ]?channels?|[- ]?ch"
    r"| ?[x\xd7])(?!\w)",
    re.IGNORECASE,
)
_BITS = re.compile(r"(?<![\w-])(\d{2,4})[- ]?bit", re.IGNORECASE)
_WORDS = {"single": 1, "dual": 2, "two": 2, "quad": 4, "four": 4, "six": 6, "eight": 8, "octa": 8,
          "twelve": 12}  # fmt: skip
USUAL_BYTES = 16.0
"""Of a transfer: two channels of DDR, or 128 bits."""


@dataclass(frozen=True, slots=True)
class Modules:
    """`says_width`: how many channels or bits there are. `is_all`: the name says nothing else."""

    bytes_per_s: float
    says_width: bool
    is_all: bool

    @classmethod
    def named(cls, name: str) -> "Modules | None":
        """None where a name tells no module."""
        found = _KIND.search(name)
        if found is None:
            return None
        channels, bits = _CHANNELS.search(name), _BITS.search(name)
        n_bytes = USUAL_BYTES
        if bits:
            n_bytes = int(bits[1]) / 8
        elif channels and not found[1]:
            word = channels[1].lower()
            n_bytes = 8.0 * (_WORDS[word] if word in _WORDS else int(word))
        rest = name
        for pattern in (_KIND, _CHANNELS, _BITS):
            rest = pattern.sub(" ", rest)
        is_all = not re.search(r"[a-z\d]", rest, re.IGNORECASE)
        return cls(n_bytes * float(found[2]) * 1e6, bool(channels or bits), is_all)
