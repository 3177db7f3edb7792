"""What to know of this machine's ways of computing, and its measurement in a child process.

It takes three seconds at most: the child measures until its time is up and is killed soon after.
What it has told by then is kept, and the rest is measured by the next commands, a few times.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import time
from typing import Self

from localspec.engine.child import call
from localspec.engine.cpu_ways import (
    ATTENTIVE_LAYERS,
    DEPTH,
    KEYS,
    N_WIDE,
    THIN,
    VALUES,
    AttentionWay,
    Heads,
    Ways,
    WeightsWay,
    kept,
    kept_ways,
    named,
)
from localspec.errors import NoRoomError
from localspec.gguf.types import BY_NAME
from localspec.hardware.activity import BUSY, Watch
from localspec.hardware.detect import available_memory_bytes

CHILD = "localspec.engine.llama.cpu_ways_prober:tell_ways"
MOST_S, MEASURING_S = 3.0, 2.6
"""After which the child is killed, and in which it is to measure, its own start included."""
ELEMENTS, MOST_BYTES = 0.37e9, 0.5e9
"""Of the weights that the child has at once in each way of loading: two sizes of a model."""
OWN_BYTES = 150e6
"""Of the child without any model."""


@dataclass(frozen=True, slots=True)
class WayQuestion:
    """What to know: of a weight type with these numbers of threads, and of heads; None: nothing."""

    weights: str | None
    heads: Heads | None
    counts: tuple[int, ...]
    repacks: tuple[bool, ...] = (True, False)
    types: tuple[str, str] = (KEYS[0], VALUES)
    """Of keys and values, as somebody chose them."""

    def missing_from(self, known: Ways) -> Self:
        """What has to be measured."""
        weights = None if self.weights is None or _has(known, self) else self.weights
        heads = None if self.heads is None or _has_types(known, self) else self.heads
        return replace(self, weights=weights, heads=heads)

    @property
    def is_empty(self) -> bool:
        return self.weights is None and self.heads is None

    @property
    def names(self) -> frozenset[str]:
        """What it is kept by."""
        names = self.weights, named(self.heads) if self.heads else None
        return frozenset(name for name in names if name)

    @property
    def loadings(self) -> tuple[tuple[bool, bool], ...]:
        """Whether weights are repacked, and whether they are mapped."""
        return (*((repack, False) for repack in self.repacks), (False, True))

    @property
    def memory_bytes(self) -> float:
        """What the child takes at most: weights are freed before attention begins."""
        bits = BY_NAME[self.weights].bits_per_element if self.weights else 0.0
        n_heads, n_kv_heads, size = self.heads or (0, 0, 0)
        n_cells, kernels = DEPTH + N_WIDE, 2 * len({*KEYS, self.types[0]})
        cache = ATTENTIVE_LAYERS * n_cells * n_kv_heads * size * 4
        layers = ATTENTIVE_LAYERS * 2 * THIN * size * (n_heads + n_kv_heads) * 2
        scores = 4 * n_heads * N_WIDE * n_cells
        weights = len(self.loadings) * min(ELEMENTS * bits / 8, MOST_BYTES)
        return OWN_BYTES + max(weights, kernels * (cache + layers + scores))


def _has(known: Ways, question: WayQuestion) -> bool:
    """Whether that was measured, or could not be within the time."""
    name = question.weights or ""
    asked = {(*way, n) for way in question.loadings for n in question.counts}
    found = {way.key for way in known.weights.get(name, ())}
    return known.knows(name) and (not found or asked <= found)


def _has_types(known: Ways, question: WayQuestion) -> bool:
    name = named(question.heads) if question.heads else ""
    found = {way.types for way in known.attention.get(name, ())}
    return known.knows(name) and (not found or question.types in found)


def measured_ways(
    question: WayQuestion, on_start: Callable[[], None], *, again: bool = False
) -> Ways:
    """What was kept and, for the rest, measured now; `on_start` is called before that.

    What other programs disturbed, or what took too long, is measured again the next times. Raises
    EngineError where the engine cannot be measured, NoRoomError where it would not fit into memory.
    """
    known = kept_ways()
    missing = question if again else question.missing_from(known)
    if missing.is_empty:
        return known
    if missing.memory_bytes > available_memory_bytes():
        raise NoRoomError(
            f"measuring what is fastest here takes {missing.memory_bytes / 1e9:.1f} GB of memory,"
            " which are not free"
        )
    on_start()
    watch = Watch()
    measured = _measure(missing)
    is_disturbed = watch.stop().taken_share > BUSY
    names = missing.names if is_disturbed else missing.names - measured.names
    found = known.with_more(measured, names)
    kept().save(found)
    return found


def _measure(question: WayQuestion) -> Ways:
    """What the child tells within the time."""
    found: list[WeightsWay | AttentionWay] = []
    ending = call(CHILD, question, time() + MEASURING_S, hear=found.append, limit_s=MOST_S)
    if not (ending.is_success or ending.is_timeout):
        ending.raise_unmeasured()
    weights = tuple(way for way in found if isinstance(way, WeightsWay))
    attention = tuple(way for way in found if isinstance(way, AttentionWay))
    return Ways(
        {question.weights: weights} if question.weights and weights else {},
        {named(question.heads): attention} if question.heads and attention else {},
    )
