"""Made-up machines and pairs, and the luck of replies on them: what every policy is judged by.

Time is in plain passes. Whether a drafted token would be accepted is drawn once for each place of a
reply, so that all policies see the same luck. A world's calibration has an error of its own, drawn
anew for each reply that starts fresh. `random_worlds` judge a policy; the `grid` is for looking at
one, because a policy can be tuned to any fixed set.

This module imports nothing of localspec: policies of other versions can be played in its worlds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DRAFT = 16
WIDTHS = range(MAX_DRAFT + 2)
CALIBRATED = (1, 2, 3, 4, 5, 8, 17)
"""Widths that a calibration measures."""
READING = 0.15
"""What the draft model takes to read a token, of what it takes to draft one."""
INFORMED = 1.5
"""Chances of an informed draft model scatter like Beta(1.5 mean, 1.5 (1 - mean)): mostly it is
sure, in one way or the other."""


@dataclass(frozen=True, slots=True)
class Chance:
    """The acceptance at a place of a reply: `values[i]` from `cuts[i - 1]` on."""

    values: tuple[float, ...]
    cuts: tuple[int, ...] = ()

    def at(self, places: NDArray[np.int_]) -> NDArray[np.float64]:
        return np.array(self.values)[np.searchsorted(self.cuts, places, side="right")]


@dataclass(frozen=True, slots=True)
class World:
    """A machine and a pair: `draft_cost` None is no draft model, `lookup` None no matches.

    `v[n]` is what a pass over n tokens takes, n = 0 .. MAX_DRAFT + 1. An `informed` draft model is
    as sure of a token as it is right; another is always equally sure. `change` is what a pass
    takes more that is not as wide as the one before. Other programs made passes `load` times as
    long while it was calibrated, narrow ones more than wide ones. `key` seeds all that is drawn.
    """

    name: str
    key: tuple[int, int]
    v: tuple[float, ...]
    draft_cost: float | None = None
    model: Chance = Chance((0.0,))
    lookup: Chance | None = None
    match_confidence: int = 7
    informed: bool = False
    noise: float = 0.03
    calibration_error: float = 0.05
    n_prompt: int = 60
    change: float = 0.0
    load: float = 1.0

    def reading(self, n_tokens: int) -> float:
        """Passes that the draft model takes to read a text of `n_tokens`."""
        return (self.draft_cost or 0.0) * READING * n_tokens


@dataclass(frozen=True, slots=True)
class Luck:
    """Drawn once for a reply of `n` tokens: by place, whether a guess is right, and how sure the
    draft model is; by pass, how much longer it takes."""

    model: list[bool]
    confidence: list[float]
    lookup: list[bool]
    noise: list[float]

    @classmethod
    def of(cls, world: World, n: int, reply: int) -> "Luck":
        rng = np.random.default_rng([*world.key, reply])
        places = np.arange(n + MAX_DRAFT + 1)
        mean = world.model.at(places).clip(0.01, 0.99)
        confidence = rng.beta(INFORMED * mean, INFORMED * (1 - mean)) if world.informed else mean
        model = rng.random(len(places)) < confidence
        chance = world.lookup.at(places) if world.lookup else 0.0 * mean
        lookup = rng.random(len(places)) < chance
        noise = np.exp(rng.normal(0, world.noise, n))
        return cls(model.tolist(), confidence.tolist(), lookup.tolist(), noise.tolist())


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration finds, in plain passes: of the target by width, of a change of width, of
    one token of the draft model."""

    target: dict[int, float]
    change: float
    draft: float | None

    @classmethod
    def of(cls, world: World, reply: int) -> "Calibration":
        rng = np.random.default_rng([*world.key, reply, 1])

        def measured(passes: float) -> float:
            return passes * float(np.exp(rng.normal(0, world.calibration_error)))

        flat = world.load**-0.5
        target = {n: measured(world.load * world.v[n] ** flat) for n in CALIBRATED}
        change = measured(world.change)
        return cls(target, change, world.draft_cost and measured(world.draft_cost))


def random_worlds(n: int, seed: int) -> list[World]:
    """Curves with cliffs, chances that change one to three times, noise, wrong calibrations."""
    return [_random_world(seed, i) for i in range(n)]


def _random_world(seed: int, i: int) -> World:
    rng = np.random.default_rng([seed, i])
    kind = str(rng.choice(["model", "lookup", "both"], p=[0.45, 0.3, 0.25]))
    return World(
        f"{i} {kind}",
        (seed, i),
        _random_curve(rng),
        draft_cost=float(rng.uniform(0.03, 0.6)) if kind != "lookup" else None,
        model=_random_chance(rng),
        lookup=_random_chance(rng) if kind != "model" else None,
        match_confidence=int(rng.integers(1, 14)),
        informed=bool(rng.random() < 0.5),
        noise=float(rng.choice([0.03, 0.06, 0.12])),
        calibration_error=float(rng.choice([0.05, 0.1, 0.2])),
        n_prompt=int(rng.integers(20, 400)),
        change=float(rng.choice([0, 0.02, 0.08])),
    )


def _random_curve(rng: np.random.Generator) -> tuple[float, ...]:
    v = [0.0, 1.0]
    wide = 1.0 + float(rng.choice([0, 0.05, 0.3, 0.7]))
    slope = float(rng.choice([0.01, 0.03, 0.06, 0.1, 0.18, 0.3]))
    for n in WIDTHS[2:]:
        has_cliff = n in (5, 9) and rng.random() < 0.4
        wide += slope + (float(rng.uniform(0.2, 1.0)) if has_cliff else 0.0)
        v.append(wide)
    return tuple(v)


def _random_chance(rng: np.random.Generator) -> Chance:
    cuts = np.sort(rng.integers(0, 400, int(rng.integers(1, 4))))
    values = rng.beta(2, 1.5, len(cuts) + 1).clip(0.03, 0.98)
    return Chance(tuple(map(float, values)), tuple(map(int, cuts)))


TABLES: dict[str, dict[int, float]] = {
    "flat": {1: 1, 17: 1.05},
    "2 % a token": {1: 1, 17: 1.32},
    "10 % a token": {1: 1, 17: 2.6},
    "24 % a token": {1: 1, 17: 4.84},
    "batched-bench README": {1: 1, 2: 1.63, 4: 2.23, 8: 2.39, 16: 2.75, 17: 2.76},
    "MI50 27B Q8_0": {1: 1, 2: 1.2, 4: 1.34, 8: 1.99, 9: 3.21, 16: 3.33, 17: 3.4},
    "1.2 GB F16": {1: 1, 2: 1.03, 3: 1.03, 4: 1.06, 5: 1.98, 8: 2.03, 16: 4.0, 17: 4.2},
    "0.66 GB Q8_0, AMX": {1: 1, 2: 1.47, 3: 1.61, 4: 1.65, 5: 1.71, 8: 1.91, 16: 2.4, 17: 2.5},
    "Gemma-3 F16": {1: 1, 2: 1.13, 3: 1.21, 4: 1.26, 5: 2.11, 8: 2.41, 16: 4.5, 17: 4.8},
    "SmolLM2 Q4_0": {1: 1, 2: 1.79, 3: 2.06, 4: 2.4, 5: 2.73, 8: 3.55, 16: 5.5, 17: 5.8},
}
"""v(n): measured, published, and straight lines."""
CHANGES = {"SmolLM2 Q4_0": 0.08, "Gemma-3 F16": 0.02, "1.2 GB F16": 0.01}
"""What a change of width costs: 0.3 to 0.6 ms where it was measured."""


def grid(seed: int = 0) -> list[World]:
    """Every table with draft models and lookups of all kinds, steady and changing."""
    worlds: list[World] = []
    for table, points in TABLES.items():
        v = tuple(np.interp(WIDTHS, list(points), list(points.values())).tolist())
        for name, pair in _pairs().items():
            key = seed, len(worlds)
            change = CHANGES.get(table, 0.0)
            worlds.append(World(f"{table}, {name}", key, v, change=change, **pair))
    return worlds


def _pairs() -> dict[str, dict[str, object]]:
    pairs: dict[str, dict[str, object]] = {}
    for c in (0.05, 0.2, 0.5):
        for a in (0.2, 0.4, 0.6, 0.75, 0.9):
            pairs[f"c {c}, a {a}"] = {"draft_cost": c, "model": Chance((a,))}
    for a in (0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        pairs[f"lookup {a}"] = {"lookup": Chance((a,))}
    pairs["c 0.2, a .8 to .3"] = {"draft_cost": 0.2, "model": Chance((0.8, 0.3), (128,))}
    pairs["c 0.2, a .3 to .8"] = {"draft_cost": 0.2, "model": Chance((0.3, 0.8), (128,))}
    pairs["lookup .9 to .2"] = {"lookup": Chance((0.9, 0.2), (128,))}
    pairs["informed, c 0.3, a 0.7"] = {
        "draft_cost": 0.3,
        "model": Chance((0.7,)),
        "informed": True,
    }
    pairs["both, c 0.3, a 0.6, 0.6"] = {
        "draft_cost": 0.3,
        "model": Chance((0.6,)),
        "lookup": Chance((0.6,)),
    }
    return pairs


FIXED: Sequence[tuple[str, int]] = (
    *(("lookup", n) for n in (2, 3, 5, 8)),
    *(("model", n) for n in (1, 2, 3, 4, 6, 8, 12)),
)
"""What hindsight chooses from, beside plain decoding: a drafter and how much it always drafts."""


def fixed(world: World, source: str, n_draft: int, n: int, luck: Luck) -> float:
    """Passes of a reply of `n` tokens with `n_draft` tokens of one drafter each time; the first
    token comes with the prompt."""
    right = luck.model if source == "model" else luck.lookup
    cost = (world.draft_cost or 0.0) if source == "model" else 0.0
    passes = world.reading(world.n_prompt) if source == "model" and n_draft else 0.0
    done, n_passes, last = 1, 0, 1
    while done < n:
        g = min(n_draft, n - done - 1)
        accepted = 0
        while accepted < g and right[done + accepted]:
            accepted += 1
        took = world.v[g + 1] + world.change * (g + 1 != last) + cost * g
        passes += took * luck.noise[n_passes]
        done, n_passes, last = done + accepted + 1, n_passes + 1, g + 1
    return passes


def fixed_choices(world: World) -> list[tuple[str, int]]:
    """Those of FIXED that this world has a drafter for."""
    has = {"lookup": world.lookup is not None, "model": world.draft_cost is not None}
    return [(source, n) for source, n in FIXED if has[source]]
