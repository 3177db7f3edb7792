"""Replies of a made-up pair on a made-up machine, to judge a policy against every fixed choice.

Whether a drafted token would stand is drawn once for each place of a reply, so that all policies
see the same luck. Time is in plain passes. A look-up is offered where the text is in a match; the
draft model is as sure of a token as it is right, if `informed`, else it knows nothing of its
chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from localspec.speculate.acceptance import quality_of
from localspec.speculate.adaptive import Adaptive
from localspec.speculate.costs import Curve, PassCosts, Point
from localspec.speculate.drafters.base import NO_DRAFT, Draft
from localspec.speculate.experience import READ_WIDTH, Experience
from localspec.speculate.length import Choice, DraftLength, Situation
from numpy.typing import NDArray

from localspec.decode.step import Step

PLAIN_S = 0.02
MAX_DRAFT = 16
READING = 0.15
"""What the draft model takes to read a token, of what it takes to draft one."""

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
"""v(n): measured here (DESIGN.md), published, and straight lines."""
CHANGES = {"SmolLM2 Q4_0": 0.08, "Gemma-3 F16": 0.02, "1.2 GB F16": 0.01}
"""What a change of width costs: 0.3 to 0.6 ms where it was measured."""

Chance = Callable[[int], float]
"""The acceptance at a place of a reply."""


@dataclass(frozen=True, slots=True)
class World:
    """A machine and a pair: `draft_cost` None is no draft model, `lookup` None no matches."""

    name: str
    v: dict[int, float]
    draft_cost: float | None = None
    model: Chance = lambda place: 0.0
    lookup: Chance | None = None
    match_quality: int = 7
    informed: bool = False
    noise: float = 0.03
    calibration_error: float = 0.05
    n_prompt: int = 60
    change: float = 0.0
    """What a pass takes more that is not as wide as the one before."""

    @property
    def is_steady(self) -> bool:
        """Whether a draft's chances are the same everywhere."""
        chances = [self.model, *([self.lookup] if self.lookup else [])]
        return not self.informed and all(chance(0) == chance(10_000) for chance in chances)

    def seconds(self, n_tokens: int) -> float:
        widths = sorted(self.v)
        return PLAIN_S * float(np.interp(n_tokens, widths, [self.v[n] for n in widths]))

    def pass_s(self, n_tokens: int, last_width: int) -> float:
        """After a pass of another width."""
        return self.seconds(n_tokens) + PLAIN_S * self.change * (n_tokens != last_width)


@dataclass(slots=True)
class Luck:
    """Drawn once for a reply of `n` tokens."""

    model: NDArray[np.float64]
    chances: NDArray[np.float64]
    lookup: NDArray[np.float64]
    noise: NDArray[np.float64]

    @classmethod
    def of(cls, world: World, n: int, seed: int) -> "Luck":
        rng = np.random.default_rng(seed)
        mean = np.array([world.model(i) for i in range(n + MAX_DRAFT + 1)]).clip(0.01, 0.99)
        chances = rng.beta(1.5 * mean, 1.5 * (1 - mean)) if world.informed else mean
        return cls(
            rng.random(len(mean)),
            chances,
            rng.random(len(mean)),
            np.exp(rng.normal(0, world.noise, 4 * n)),
        )


@dataclass(slots=True)
class Run:
    """What a policy came to: passes, and the time at each token."""

    seconds: list[float]
    choices: list[tuple[int, Choice, int]]

    def at(self, n_tokens: int) -> float:
        """Plain passes until `n_tokens` were there."""
        return self.seconds[n_tokens - 1] / PLAIN_S


def experience_of(world: World, seed: int = 0) -> Experience:
    """What a calibration of this machine would find."""
    rng = np.random.default_rng(seed + 10_000)

    def measured(seconds: float) -> float:
        return seconds * float(np.exp(rng.normal(0, world.calibration_error)))

    points = [Point(n, measured(world.seconds(n))) for n in (1, 2, 3, 4, 5, 8, 17)]
    change_s = measured(PLAIN_S * world.change)
    target = PassCosts(Curve(tuple(points)), change_s=change_s)
    draft = None
    if world.draft_cost is not None:
        one_s = PLAIN_S * world.draft_cost
        points_of_draft = Point(1, measured(one_s)), Point(READ_WIDTH, _read_s(world, READ_WIDTH))
        draft = PassCosts(Curve(points_of_draft), reference=target)
    return Experience(target, draft)


def experienced(world: World, seed: int, n: int, n_before: int) -> Experience:
    """The same, after `n_before` replies of `n` tokens, with luck of their own."""
    experience = experience_of(world, seed)
    for i in range(n_before):
        luck = Luck.of(world, n, 1_000_000 + 1000 * seed + i)
        simulate(world, adaptive(world, experience), n, luck)
    return experience


def adaptive(world: World, experience: Experience) -> Adaptive:
    """The policy as a session makes it."""
    has_lookup, has_model = world.lookup is not None, world.draft_cost is not None
    return Adaptive(experience, MAX_DRAFT, has_lookup=has_lookup, has_model=has_model)


def simulate(world: World, policy: DraftLength, n: int, luck: Luck) -> Run:
    """One reply of `n` tokens."""
    run = Run([], [])
    elapsed, n_done, model_depth, n_passes, width = 0.0, 1, 0, 0, 1
    run.seconds.append(0.0)
    while n_done < n:
        now = Situation(n - n_done - 1, world.n_prompt + n_done, n_done)
        draft, choice, draft_s = NO_DRAFT, Choice(0), 0.0
        if now.room:
            n_offered = policy.n_offered(now)
            offers = [_offer(world, luck, n_done, n_offered)] if n_offered else []
            choice = policy.choose(now, offers)
            if choice.source == "suffix" and choice.n_tokens:
                draft = offers[0].first(choice.n_tokens)
            elif choice.n_tokens:
                n_missing = min(now.depth - model_depth, choice.window or now.depth)
                draft, n_evaluated = _model_draft(luck, n_done, choice)
                draft_s = _read_s(world, n_missing) if n_missing > 2 else 0.0
                draft_s += PLAIN_S * (world.draft_cost or 0.0) * n_evaluated
                if not choice.verified:
                    policy.watch(draft)
                    draft = NO_DRAFT
        stood = 0
        while stood < len(draft.tokens) and draft.tokens[stood] == n_done + stood:
            stood += 1
        if choice.source == "model" and choice.n_tokens:
            model_depth = now.depth + min(stood, max(0, len(draft.tokens) - 1))
        noise = float(luck.noise[n_passes % len(luck.noise)])
        verify_s = world.pass_s(1 + len(draft.tokens), width) * noise
        width = 1 + len(draft.tokens)
        tokens = tuple(range(n_done, n_done + stood + 1))
        step = Step(
            tokens=tokens,
            drafted=len(draft.tokens),
            accepted=stood,
            source=draft.source,
            evaluated=1 + len(draft.tokens),
            draft_s=draft_s * noise,
            eval_s=verify_s,
            qualities=draft.qualities,
            why=choice.why,
        )
        seconds = verify_s + draft_s * noise
        policy.learn(step, seconds)
        elapsed, n_passes = elapsed + seconds, n_passes + 1
        run.seconds += [elapsed] * len(tokens)
        run.choices.append((n_done, choice, len(draft.tokens)))
        n_done += len(tokens)
    return run


def fixed(world: World, source: str, n_draft: int, n: int, luck: Luck) -> Run:
    """The same reply with `n_draft` tokens of one drafter each time."""
    run = Run([0.0], [])
    elapsed, n_done, n_passes, has_read, width = 0.0, 1, 0, False, 1
    while n_done < n:
        g = min(n_draft, n - n_done - 1)
        right = _right(world, luck, source)
        stood = 0
        while stood < g and right(n_done + stood):
            stood += 1
        noise = float(luck.noise[n_passes % len(luck.noise)])
        seconds, width = world.pass_s(g + 1, width), g + 1
        if source == "model":
            seconds += PLAIN_S * (world.draft_cost or 0.0) * g
            if not has_read:
                seconds, has_read = seconds + _read_s(world, world.n_prompt), True
        elapsed, n_passes = elapsed + seconds * noise, n_passes + 1
        run.seconds += [elapsed] * (stood + 1)
        n_done += stood + 1
    return run


def _right(world: World, luck: Luck, source: str) -> Callable[[int], bool]:
    if source == "model":
        return lambda place: bool(luck.model[place] < luck.chances[place])
    lookup = world.lookup
    return lambda place: lookup is not None and bool(luck.lookup[place] < lookup(place))


def _offer(world: World, luck: Luck, place: int, n: int) -> Draft:
    right = _right(world, luck, "suffix")
    tokens = [place + k if right(place + k) else -1 for k in range(n)]
    return Draft(tokens, "suffix", None, [world.match_quality] * n)


def _model_draft(luck: Luck, place: int, choice: Choice) -> tuple[Draft, int]:
    tokens: list[int] = []
    qualities: list[int] = []
    patience = choice.patience
    n_evaluated = 0
    while True:
        n_evaluated += 1
        at = place + len(tokens)
        quality = quality_of(float(luck.chances[at]))
        if patience and not patience.takes(qualities, quality):
            break
        tokens.append(at if luck.model[at] < luck.chances[at] else -1)
        qualities.append(quality)
        done = len(tokens) >= choice.n_tokens
        if done or (patience and not patience.evaluates(qualities)):
            break
    return Draft(tokens, "model", None, qualities), n_evaluated


def _read_s(world: World, n_tokens: int) -> float:
    return PLAIN_S * (world.draft_cost or 0.0) * READING * n_tokens


@dataclass(frozen=True, slots=True)
class Verdict:
    """Mean plain passes over replies at `n` tokens: of the policy, of the best fixed choice."""

    world: World
    n_tokens: int
    auto: float
    best: float
    best_name: str
    plain: float
    worst_to_plain: float

    @property
    def regret(self) -> float:
        return self.auto / self.best - 1


FIXED: tuple[tuple[str, int], ...] = (
    *(("suffix", n) for n in (2, 3, 5, 8)),
    *(("model", n) for n in (1, 2, 3, 4, 6, 8, 12)),
)


def judge(world: World, n: int, seeds: Sequence[int], n_before: int = 0) -> Verdict:
    """Compare over replies that begin with nothing learned, or with what a session has learned from
    `n_before` replies of the same pair."""
    luck = [Luck.of(world, n, seed) for seed in seeds]
    plain = np.array([fixed(world, "none", 0, n, one).at(n) for one in luck])
    experiences = [experienced(world, seed, n, n_before) for seed in seeds]
    autos = np.array(
        [
            simulate(world, adaptive(world, experience), n, one).at(n)
            for experience, one in zip(experiences, luck, strict=True)
        ]
    )
    means = {"none": float(plain.mean())}
    for source, g in FIXED:
        if (source == "suffix" and world.lookup) or (source == "model" and world.draft_cost):
            means[f"{source}-{g}"] = float(
                np.mean([fixed(world, source, g, n, one).at(n) for one in luck])
            )
    best = min(means, key=lambda name: means[name])
    return Verdict(
        world,
        n,
        float(autos.mean()),
        means[best],
        best,
        means["none"],
        float((autos / plain).max()),
    )


def constant(chance: float) -> Chance:
    return lambda place: chance


def switching(first: float, then: float, at: int = 128) -> Chance:
    return lambda place: first if place < at else then


def grid() -> list[World]:
    """Every table with draft models and look-ups of all qualities, steady and changing."""
    worlds: list[World] = []
    for name, v in TABLES.items():
        n_before = len(worlds)
        for c in (0.05, 0.2, 0.5):
            for a in (0.2, 0.4, 0.6, 0.75, 0.9):
                worlds.append(World(f"{name}, c {c}, a {a}", v, c, constant(a)))
        for a in (0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
            worlds.append(World(f"{name}, look-up {a}", v, lookup=constant(a)))
        worlds.append(World(f"{name}, c 0.2, a .8 to .3", v, 0.2, switching(0.8, 0.3)))
        worlds.append(World(f"{name}, c 0.2, a .3 to .8", v, 0.2, switching(0.3, 0.8)))
        worlds.append(World(f"{name}, look-up .9 to .2", v, lookup=switching(0.9, 0.2)))
        worlds.append(
            World(f"{name}, informed, c 0.3, a 0.7", v, 0.3, constant(0.7), informed=True)
        )
        worlds.append(
            World(f"{name}, both, c 0.3, a 0.6, 0.6", v, 0.3, constant(0.6), constant(0.6))
        )
        change = CHANGES.get(name, 0.0)
        worlds[n_before:] = [replace(world, change=change) for world in worlds[n_before:]]
    return worlds
