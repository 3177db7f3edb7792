"""What "best" means, and which cache types may be had for it."""

from dataclasses import dataclass
from typing import Literal

from localspec.model.facts import cache_type
from localspec.tune.settings import Attention

GoalName = Literal["speed", "memory", "quality"]

MAX_QUALITY_LOSS = 0.01
LEAST_GAIN = 1.02
"""What a setting that changes numbers must gain in speed to be worth it."""
LEAST_SPEED = 0.95
"""Of the defaults', that saving memory may cost."""
MOST_PREFILL = 2.0
"""How much longer than with the defaults a prompt may take."""


@dataclass(frozen=True, slots=True)
class Goal:
    """`max_loss`: mean KL divergence in nats a token against an f16 cache and the given weights."""

    name: GoalName = "speed"
    max_loss: float = MAX_QUALITY_LOSS

    @property
    def types(self) -> tuple[str, ...]:
        """Cache types to try, for keys and for values."""
        if self.name == "quality":
            return ("f16", "f32")
        if self.name == "memory":
            return ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
        return ("f16", "bf16", "q8_0", "q4_0")

    @property
    def least_ratio(self) -> float:
        """Decoding speed to the defaults' that a candidate must reach."""
        return LEAST_SPEED if self.name == "memory" else 1.0


def is_coarser(one: Attention, other: Attention) -> bool:
    """Whether keys and values are of the other's types or of fewer bits, so that it loses more."""
    pairs = ((one.kv_k, other.kv_k), (one.kv_v, other.kv_v))
    return all(
        mine == theirs or cache_type(mine).bits_per_element < cache_type(theirs).bits_per_element
        for mine, theirs in pairs
    )


def cell_bits(attention: Attention) -> float:
    """Bits of a key's and a value's number together: what the cache's size goes with."""
    types = cache_type(attention.kv_k), cache_type(attention.kv_v)
    return sum(kind.bits_per_element for kind in types)
