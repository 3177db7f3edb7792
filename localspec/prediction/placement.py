"""Which device computes which layers, as libllama places them, and how they are shared out.

libllama gives the last N of the layers and the output matrix, which counts as one more, to its
devices. A device's part of the way from 0 to 1 is its share; a unit goes where its place falls:

    device(i) = the first one whose shares up to it exceed (i - first) / N

Layers are computed one after the other, so time is least where the fastest device has all that its
memory holds, then the next. Source: load_tensors in
src/llama-model.cpp of llama.cpp.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from localspec.model.facts import ModelFacts

USABLE = 0.95
"""Of a GPU's free memory: drivers and other programs take some after it was asked for."""


@dataclass(frozen=True, slots=True)
class Units:
    """What a model's memory consists of: equal layers, and the output matrix."""

    n_layers: int
    layer_bytes: float
    output_bytes: float

    @classmethod
    def of(cls, facts: ModelFacts, needed_bytes: int) -> "Units":
        """`needed_bytes`: of all of the model with its caches and buffers."""
        output = sum(
            group.n_bytes
            for group in facts.weights
            if group.is_streamed and group.role in ("output", "embedding")
        )
        rest = max(0, needed_bytes - output)
        return cls(facts.n_layers, rest / max(1, facts.n_layers), float(output))

    def fitting(self, free_bytes: int | None, *, with_output: bool) -> int:
        """Units that fit, the output matrix among them or none of it; all where nobody knows."""
        most = self.n_layers + with_output
        if free_bytes is None:
            return most
        room = USABLE * free_bytes - (self.output_bytes if with_output else 0.0)
        if room < 0:
            return 0
        return min(most, int(room / max(1.0, self.layer_bytes)) + with_output)


def layers_that_fit(facts: ModelFacts, needed_bytes: int, free: Sequence[int | None]) -> int:
    """As many units of a model as devices hold together, the output matrix first; -1: all.

    All, too, where nobody knows the free memory. A mixture of experts is taken apart first, by
    `experts_on_host`.
    """
    known = [n for n in free if n is not None]
    if not free or len(known) < len(free) or needed_bytes <= USABLE * sum(known):
        return -1
    return Units.of(facts, needed_bytes).fitting(sum(known), with_output=True)


def experts_on_host(facts: ModelFacts, needed_bytes: int, free: Sequence[int | None]) -> int:
    """Of how many first layers the processor has to keep the experts, so that devices hold all
    else; 0 where they hold everything, or not even that.

    A byte of experts that stays here costs a token less than one of a whole layer, of which every
    token reads everything.
    """
    if not facts.n_experts or layers_that_fit(facts, needed_bytes, free) < 0:
        return 0
    for n in range(1, facts.n_layers + 1):
        rest_bytes = needed_bytes - round(facts.expert_bytes * facts.expert_share(0, n))
        if layers_that_fit(facts, rest_bytes, free) < 0:
            return n
    return 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Layers of the processor and of each device, and which device has the output matrix; None:
    the processor has it."""

    n_host: int
    n_layers: tuple[int, ...]
    output: int | None

    @classmethod
    def of(cls, n_layers: int, n_offloaded: int, shares: Sequence[float]) -> "Placement":
        """As libllama does it; `n_offloaded` < 0: all."""
        n_units = n_layers + 1
        n_far = n_units if n_offloaded < 0 else min(n_offloaded, n_units)
        if not n_far or not shares or sum(shares) <= 0:
            return cls(n_layers, (0,) * len(shares), None)
        ends = [end / sum(shares) for end in accumulate(shares)]
        places = [min(bisect_right(ends, i / n_far), len(shares) - 1) for i in range(n_far)]
        counts = [places[:-1].count(device) for device in range(len(shares))]
        return cls(n_units - n_far, tuple(counts), places[-1])

    @property
    def used(self) -> list[int]:
        """Devices with something to compute, in order."""
        return [i for i, n in enumerate(self.n_layers) if n or i == self.output]


def fastest_first(
    units: Units, n_offloaded: int, free: Sequence[int | None], layer_s: Sequence[float]
) -> tuple[float, ...]:
    """Shares that give the fastest device all it holds, then the next; in units.

    The last device in order that has any also has the output matrix, so it needs room for that.
    What fits nowhere goes to the slowest one, which libllama then refuses or not.
    """
    n_left = units.n_layers + 1 if n_offloaded < 0 else min(n_offloaded, units.n_layers + 1)
    counts = [0] * len(free)
    for i in sorted(range(len(free)), key=lambda i: layer_s[i]):
        counts[i] = min(n_left, units.fitting(free[i], with_output=True))
        n_left -= counts[i]
    if n_left and counts:
        counts[max(range(len(counts)), key=lambda i: free[i] or 0)] += n_left
    return tuple(map(float, counts))


def by_memory(free: Sequence[int | None]) -> tuple[float, ...]:
    """libllama's own shares; equal ones where a device does not tell."""
    if any(n is None for n in free):
        return (1.0,) * len(free)
    return tuple(float(n or 0) for n in free)
