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

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar

from localspec import paths
from localspec.engine.environment import SPINS
from localspec.engine.health import engine_fingerprint
from localspec.errors import EngineError
from localspec.hardware.detect import allowed_cpus, power
from localspec.hardware.machine import machine_key
from localspec.store import Kept, document_of, hashed, value_of

DEPTH, ATTENTIVE_LAYERS = 1024, 4
"""Of the measurement: tokens in the cache, and layers that attend."""
N_READ, N_WIDE = 32, 128
"""Tokens of a piece of a prompt, through weights and through attention, whose kernels for wide
passes begin later."""
USUAL_TYPE = "Q4_0"
KEYS, VALUES = ("f16", "q8_0"), "f16"
"""Types that are measured of any heads; others where somebody chose them."""
TRIES = 3
"""How often a measurement is repeated that other programs disturbed."""
CALM = TRIES + 1
"""Stands for the tries of a measurement that nobody disturbed."""
THIN = 256
"""Width of the layers that attend."""


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

    def token_at(self, n_cells: float, n_users: int = 1) -> float:
        """Of one layer. The plain kernel also computes what others have in the same pool of cells,
        which the fused one skips."""
        n = 1 if self.is_flash else n_users
        return _between(self.token_s, self.deep_token_s, n * n_cells) / ATTENTIVE_LAYERS

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
        return self._tries(name) >= TRIES

    def is_calm(self, name: str) -> bool:
        """Whether nobody disturbed its measurement."""
        return self._tries(name) >= CALM

    def _tries(self, name: str) -> int:
        return self.disturbed.get(name, CALM if name in self.names else 0)

    @property
    def names(self) -> frozenset[str]:
        return frozenset((*self.weights, *self.attention))

    def with_more(self, found: "Ways", disturbed: Iterable[str]) -> Self:
        """With what was found: of disturbed measurements the least counts, if there is any."""
        noisy = frozenset(disturbed)
        weights = {
            name: _least(self.weights.get(name, ()), each) if name in noisy else each
            for name, each in found.weights.items()
        }
        attention = {
            name: _least(self.attention.get(name, ()), each) if name in noisy else each
            for name, each in found.attention.items()
        }
        attention = {n: _joined(self.attention.get(n, ()), w) for n, w in attention.items()}
        counts = dict.fromkeys(found.names, CALM)
        counts |= {name: self.disturbed.get(name, 0) + 1 for name in noisy}
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


def named(heads: Heads) -> str:
    return "/".join(map(str, heads))


def kept_ways() -> Ways:
    """What was measured here before; nothing where the engine is not there."""
    try:
        return kept().load() or Ways()
    except EngineError:
        return Ways()


def waiting() -> str:
    """How threads wait for each other, which decides how fast small models are; part of a key."""
    spins = os.environ.get("GOMP_SPINCOUNT", SPINS)
    return f" {os.environ.get('OMP_WAIT_POLICY')} {spins}"


def kept() -> Kept[Ways]:
    here = f"{machine_key()} {engine_fingerprint()} {sorted(allowed_cpus())} {power().text}"
    return Kept(hashed(paths.cache_dir() / "ways", here + waiting()), _read, document_of)


def _read(document: Any) -> Ways:
    """Raises ValueError where a time is none."""
    ways: Ways = value_of(Ways, document)
    if any(way.n_threads < 1 or way.token_s <= 0 for each in ways.weights.values() for way in each):
        raise ValueError("no time")
    return ways
