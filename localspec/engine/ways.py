"""The ways of computing on this processor that give the same answer: which are fast here.

How many threads decode and read, whether weights are repacked, whether they are mapped or read, and
which kernel attends: each is measured once, in a child process, with random weights of the model's
main type and thin layers with the model's heads, in less than three seconds. What was found is kept
by machine, engine build, the processors that may be used and the power state, so it serves every
model of that type and those heads. A text and its answer then take

    load + depth (read + attention / 2) + answer (token + attention)

with attention in proportion to depth. It knows no devices: where one computes layers, the ways of
the processor do not decide.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeVar

from localspec import paths
from localspec.engine.child import run_module
from localspec.engine.health import engine_fingerprint
from localspec.errors import EngineError, NoRoomError
from localspec.gguf.types import BY_NAME
from localspec.hardware.activity import BUSY, Watch
from localspec.hardware.cores import allowed_cpus
from localspec.hardware.detect import available_memory_bytes, power
from localspec.hardware.machine import machine_key
from localspec.store import Kept, document_of, hashed, value_of

CHILD = "localspec.engine.llama.way_prober"
LIMIT_S = 60.0
SPINS = "1000"
"""Of a thread that waits at a barrier, where nobody says otherwise."""
DEPTH, ATTENTIVE_LAYERS = 1024, 4
"""Of the measurement: tokens in the cache, and layers that attend."""
N_READ, N_READ_WIDE = 32, 128
"""Tokens of a piece of a prompt, through weights and through attention, whose kernels for wide
passes begin later."""
USUAL_TYPE = "Q4_0"
KEYS, VALUES = ("f16", "q8_0"), "f16"
"""Types that are measured of any heads; others where somebody chose them."""
TRIES = 3
"""How often a measurement is repeated that other programs disturbed."""
ELEMENTS = 0.5e9
"""Of the weights that the child has at once in each way of loading: two sizes of a model."""
THIN = 256
"""Width of the layers that attend."""
OWN_BYTES = 150e6
"""Of the child without any model."""


Heads = tuple[int, int, int]
"""Numbers of heads and of key heads, and the size of one."""


@dataclass(frozen=True, slots=True)
class WeightsWay:
    """Seconds with weights of one type, repacked or not, and a number of threads: of a token by the
    measured model, of a token of a prompt by a smaller one, and of loading the former.

    Repacked weights are a copy in any case, so that only others differ by being mapped.
    """

    repack: bool
    n_threads: int
    token_s: float
    read_s: float
    load_s: float
    is_mapped: bool = False

    @property
    def key(self) -> tuple[bool, bool, int]:
        return self.repack, self.is_mapped, self.n_threads


@dataclass(frozen=True, slots=True)
class AttentionWay:
    """Seconds of the measured layers with one kernel and types of keys and values: of a token, and
    of one in a prompt, behind nothing and behind DEPTH tokens."""

    is_flash: bool
    kv_k: str
    token_s: float
    deep_token_s: float
    read_s: float
    deep_read_s: float
    kv_v: str = VALUES

    @property
    def key(self) -> tuple[bool, str, str]:
        return self.is_flash, self.kv_k, self.kv_v

    @property
    def types(self) -> tuple[str, str]:
        """Of keys and values."""
        return self.kv_k, self.kv_v

    def token_at(self, n_cells: float) -> float:
        """Of one layer."""
        return _between(self.token_s, self.deep_token_s, n_cells) / ATTENTIVE_LAYERS

    def read_at(self, n_cells: float) -> float:
        """Of one layer, a token of a prompt."""
        return _between(self.read_s, self.deep_read_s, n_cells) / ATTENTIVE_LAYERS


def _between(empty: float, deep: float, n_cells: float) -> float:
    return empty + max(0.0, deep - empty) * n_cells / DEPTH


@dataclass(frozen=True, slots=True)
class Ways:
    """What is known of this machine: by weight type, and by heads (`9/3/64`)."""

    weights: Mapping[str, tuple[WeightsWay, ...]] = field(
        default_factory=dict[str, tuple[WeightsWay, ...]]
    )
    attention: Mapping[str, tuple[AttentionWay, ...]] = field(
        default_factory=dict[str, tuple[AttentionWay, ...]]
    )
    disturbed: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often other programs disturbed the measurement of a type, or of heads."""

    def knows(self, name: str) -> bool:
        """Whether it was measured calmly, or as often as is worth it."""
        is_there = name in self.weights or name in self.attention
        return is_there and self.disturbed.get(name, TRIES) >= TRIES

    def with_more(self, found: "Ways", *, is_disturbed: bool) -> Self:
        """With what was found: of disturbed measurements the least counts."""
        names = (*found.weights, *found.attention)
        weights = {n: _least(self.weights.get(n, ()), w) for n, w in found.weights.items()}
        attention = {n: _least(self.attention.get(n, ()), w) for n, w in found.attention.items()}
        if not is_disturbed:
            weights, attention = dict(found.weights), dict(found.attention)
        attention = {n: _joined(self.attention.get(n, ()), w) for n, w in attention.items()}
        counts = {n: self.disturbed.get(n, 0) + 1 if is_disturbed else TRIES for n in names}
        return replace(
            self,
            weights={**self.weights, **weights},
            attention={**self.attention, **attention},
            disturbed={**self.disturbed, **counts},
        )


Way = TypeVar("Way", WeightsWay, AttentionWay)


def _least(old: Sequence[Way], new: Sequence[Way]) -> tuple[Way, ...]:
    """Of each way the shorter times."""
    before = {way.key: way for way in old}
    return tuple(_shorter(way, before.get(way.key, way)) for way in new)


def _joined(old: Sequence[AttentionWay], new: Sequence[AttentionWay]) -> tuple[AttentionWay, ...]:
    """The new ones, and those with types that were not measured now."""
    return tuple({way.key: way for way in (*old, *new)}.values())


def _shorter(one: Way, other: Way) -> Way:
    names = [each.name for each in fields(one) if each.name.endswith("_s")]
    return replace(one, **{name: min(getattr(one, name), getattr(other, name)) for name in names})


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
    def loadings(self) -> tuple[tuple[bool, bool], ...]:
        """Whether weights are repacked, and whether they are mapped."""
        return (*((repack, False) for repack in self.repacks), (False, True))

    @property
    def memory_bytes(self) -> float:
        """What the child takes at most: weights are freed before attention begins."""
        bits = BY_NAME[self.weights].bits_per_element if self.weights else 0.0
        n_heads, n_kv_heads, size = self.heads or (0, 0, 0)
        n_cells, kernels = DEPTH + N_READ_WIDE, 2 * len({*KEYS, self.types[0]})
        cache = ATTENTIVE_LAYERS * n_cells * n_kv_heads * size * 4
        layers = ATTENTIVE_LAYERS * 2 * THIN * size * (n_heads + n_kv_heads) * 2
        scores = 4 * n_heads * N_READ_WIDE * n_cells
        return OWN_BYTES + max(
            len(self.loadings) * ELEMENTS * bits / 8, kernels * (cache + layers + scores)
        )


def _has(known: Ways, question: WayQuestion) -> bool:
    name = question.weights or ""
    asked = {(*way, n) for way in question.loadings for n in question.counts}
    return known.knows(name) and asked <= {way.key for way in known.weights.get(name, ())}


def _has_types(known: Ways, question: WayQuestion) -> bool:
    name = named(question.heads) if question.heads else ""
    return known.knows(name) and question.types in {way.types for way in known.attention[name]}


def named(heads: Heads) -> str:
    return "/".join(map(str, heads))


def kept_ways() -> Ways:
    """What was measured here before; nothing where the engine is not there."""
    try:
        return _kept().load() or Ways()
    except EngineError:
        return Ways()


def measured_ways(
    question: WayQuestion, on_start: Callable[[], None], *, again: bool = False
) -> Ways:
    """What was kept and, for the rest, measured now; `on_start` is called before that.

    What other programs disturbed is measured again the next times. Raises EngineError where the
    engine cannot be measured, NoRoomError where that would not fit into memory.
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
    found = known.with_more(measured, is_disturbed=watch.stop().taken_share > BUSY)
    with suppress(OSError):
        _kept().save(found)
    return found


def _measure(question: WayQuestion) -> Ways:
    weights: list[WeightsWay] = []
    attention: list[AttentionWay] = []

    def on_line(line: str) -> None:
        kind, first, second, *words = line.split()
        if kind == "weights":
            token_s, read_s, load_s, mapped = map(float, words)
            times = token_s, read_s, load_s
            weights.append(WeightsWay(first == "1", int(second), *times, is_mapped=mapped == 1))
        else:
            kv_v, *seconds = words
            attention.append(AttentionWay(first == "1", second, *map(float, seconds), kv_v=kv_v))

    request = json.dumps(asdict(question) | {"loadings": question.loadings})
    ending = run_module(CHILD, [request], on_line, LIMIT_S)
    ending.raise_known()
    if not ending.is_success:
        raise EngineError(
            f"the engine could not be measured ({ending.reason}): `localspec doctor` explains it"
        )
    return Ways(
        {question.weights: tuple(weights)} if question.weights else {},
        {named(question.heads): tuple(attention)} if question.heads else {},
    )


def waiting() -> str:
    """How threads wait for each other, which decides how fast small models are; part of a key."""
    spins = os.environ.get("GOMP_SPINCOUNT", SPINS)
    return f" {os.environ.get('OMP_WAIT_POLICY')} {spins}"


def _kept() -> Kept[Ways]:
    here = f"{machine_key()} {engine_fingerprint()} {sorted(allowed_cpus())} {power().text}"
    return Kept(hashed(paths.cache_dir() / "ways", here + waiting()), _read, document_of)


def _read(document: Any) -> Ways:
    """Raises ValueError where a time is none."""
    ways: Ways = value_of(Ways, document)
    if any(way.n_threads < 1 or way.token_s <= 0 for each in ways.weights.values() for way in each):
        raise ValueError("no time")
    return ways
