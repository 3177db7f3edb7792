"""Random numbers keyed by seed, position and purpose.

A number belongs to a place in the text, not to the order in which code asks for it, so that rolling
a draft back costs nothing and `match` verification gives the same text as plain decoding. The mixer
is SplitMix64's finalizer (Steele, Lea, Flood 2014), applied to each key in turn.
"""

from enum import IntEnum

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Purpose(IntEnum):
    """What a random number decides; different purposes at one position are independent."""

    TOKEN = 1
    ACCEPT = 2
    RESIDUAL = 3
    DRAFT = 4


def uniform(seed: int, position: int, purpose: Purpose) -> float:
    """A number in [0, 1) with 53 random bits."""
    key = _mix(_mix(_mix(seed & _MASK) ^ (position + 1)) ^ purpose)
    return (key >> 11) / (1 << 53)


def _mix(x: int) -> int:
    x = (x + _GOLDEN) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
