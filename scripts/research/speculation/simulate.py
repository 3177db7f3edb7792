"""How close the adaptive policy comes to the best fixed choice of hindsight, in made-up worlds.

    scripts/research/run simulate-speculation [--worlds 1000 --seed 1 | --grid] [--before 3]
        [--load 4]

Regret is the mean time of a world's replies over that of the best fixed choice, less 1. Fixed
choices know nothing and never change, so a policy can also be better than all of them. A policy is
judged by random worlds of a seed that nobody has tuned it on; the grid is for looking.
"""

import json
from dataclasses import dataclass, replace
from time import process_time
from typing import Annotated, Any

import numpy as np
import typer
from research.speculation.play import learned_of, play
from research.speculation.worlds import Luck, World, fixed, fixed_choices, grid, random_worlds

SLOW = (1.03, 1.05, 1.06, 1.12)
"""Times the time of plain decoding: shares of replies beyond these are shown."""
EARLIER = 1_000_000
"""Numbers of replies before the judged ones begin here."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one world: passes of each reply, by the policy and plain; the mean of the best choice."""

    world: World
    auto: list[float]
    plain: list[float]
    best: float
    best_name: str
    seconds: float
    n_steps: int

    @property
    def regret(self) -> float:
        return float(np.mean(self.auto)) / self.best - 1

    @property
    def to_plain(self) -> list[float]:
        return [auto / plain for auto, plain in zip(self.auto, self.plain, strict=True)]


def judge(world: World, n: int, n_replies: int, n_before: int) -> Verdict:
    """Replies of `n` tokens that begin with nothing learned, or after `n_before` others."""
    lucks = [Luck.of(world, n, reply) for reply in range(n_replies)]
    plain = [fixed(world, "none", 0, n, luck) for luck in lucks]
    means = {"none": float(np.mean(plain))}
    for source, g in fixed_choices(world):
        means[f"{source}-{g}"] = float(np.mean([fixed(world, source, g, n, k) for k in lucks]))
    best = min(means, key=lambda name: means[name])
    started, n_steps, auto = process_time(), 0, list[float]()
    for reply, luck in enumerate(lucks):
        learned = learned_of(world, reply)
        for earlier in range(n_before):
            before = Luck.of(world, n, EARLIER + 1000 * reply + earlier)
            n_steps += len(play(world, learned, n, before).steps)
        played = play(world, learned, n, luck)
        auto.append(played.passes)
        n_steps += len(played.steps)
    took_s = process_time() - started
    return Verdict(world, auto, plain, means[best], best, took_s, n_steps)


def summary(verdicts: list[Verdict]) -> dict[str, float]:
    """Regrets over worlds, and how slow replies are beside plain decoding."""
    regrets = np.array([verdict.regret for verdict in verdicts])
    to_plain = np.array([ratio for verdict in verdicts for ratio in verdict.to_plain])
    steps = sum(verdict.n_steps for verdict in verdicts)
    return {
        "mean_regret": float(regrets.mean()),
        "median_regret": float(np.median(regrets)),
        "p95_regret": float(np.quantile(regrets, 0.95)),
        "worst_regret": float(regrets.max()),
        "slowest": float(to_plain.max()),
        **{f"share_above_{limit}": float(np.mean(to_plain > limit)) for limit in SLOW},
        "us_per_step": 1e6 * sum(verdict.seconds for verdict in verdicts) / steps,
    }


def main(  # noqa: PLR0913 - one option each
    worlds: Annotated[int, typer.Option(min=1, help="How many random ones.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the random worlds.")] = 1,
    use_grid: Annotated[bool, typer.Option("--grid", help="The grid instead.")] = False,
    tokens: Annotated[list[int] | None, typer.Option("-n", "--tokens", min=2)] = None,
    replies: Annotated[int, typer.Option(min=1, help="In each world.")] = 3,
    before: Annotated[int, typer.Option(min=0, help="Replies before each, to learn from.")] = 0,
    load: Annotated[
        float, typer.Option(min=1, help="How much longer passes took while it was calibrated.")
    ] = 1.0,
    worst: Annotated[int, typer.Option(help="How many of the worst to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Simulate, and print how far from the best fixed choice it is."""
    made = grid(seed) if use_grid else random_worlds(worlds, seed)
    chosen = [replace(world, load=load) for world in made]
    results: list[dict[str, Any]] = []
    for n in tokens or [256]:
        verdicts = [judge(world, n, replies, before) for world in chosen]
        found = {"tokens": n, "worlds": len(chosen), "before": before, **summary(verdicts)}
        results.append(found)
        if not as_json:
            _show(found, verdicts, worst)
    if as_json:
        print(json.dumps({"results": results}))


def _show(found: dict[str, Any], verdicts: list[Verdict], n_worst: int) -> None:
    print(
        f"{found['tokens']} tokens after {found['before']} replies, {found['worlds']} worlds:"
        f" regret {found['mean_regret']:.2%} in the mean, median {found['median_regret']:.2%},"
        f" worst {found['worst_regret']:.1%}"
    )
    shares = ", ".join(f"{found[f'share_above_{limit}']:.2%} above {limit}" for limit in SLOW)
    print(f"replies to plain decoding: slowest {found['slowest']:.3f}; {shares}")
    print(f"{found['us_per_step']:.0f} us of Python a step, with the simulator's own")
    for verdict in sorted(verdicts, key=lambda v: -v.regret)[:n_worst]:
        print(f"  {verdict.regret:6.1%}  {verdict.world.name}: best {verdict.best_name}")
