"""The adaptive draft length against every fixed one, on made-up machines and pairs.

    scripts/research/run simulate-speculation [--tokens N] [--replies N] [--before N] [--plot FILE]
    scripts/research/run simulate-speculation --known [--tokens N]

Machines are measured and published tables of v(n); drafts have chances from hopeless to nearly
certain, steady or changing. Every reply begins with nothing learned but a calibration that is off
by 5 % (--before: and with what that many replies taught), and single passes scatter by 3 %. Regret
is the time of the policy over that of the fixed choice that was best on average, with hindsight,
less 1. --known: what is left of it for a policy that knows a steady world in advance and risks no
more than 3 % of a reply.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from research.speculation.least_regret import least_regret
from research.speculation.simulator import Verdict, grid, judge

from localspec.bench.report.chart import Chart, ChartPoint, Series
from localspec.bench.report.svg import picture


def main(  # noqa: PLR0913 - one option each
    tokens: Annotated[list[int] | None, typer.Option(help="Lengths of a reply.")] = None,
    replies: Annotated[int, typer.Option(min=1, help="Of each pair and length.")] = 6,
    before: Annotated[
        int, typer.Option(min=0, help="Replies that the session has learned from before.")
    ] = 0,
    worst: Annotated[int, typer.Option(help="How many of the worst to show.")] = 10,
    plot: Annotated[Path | None, typer.Option(help="Write a picture there.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    known: Annotated[bool, typer.Option(help="Of a policy that knows the world.")] = False,
) -> None:
    """Simulate, and print how far from the best fixed choice it is."""
    if known:
        _show_known(tokens or [256], worst)
        return
    verdicts = {
        n: [judge(world, n, range(replies), before) for world in grid()] for n in tokens or [256]
    }
    if plot:
        _plot(verdicts, plot)
    if as_json:
        print(json.dumps({"results": [_record(v) for vs in verdicts.values() for v in vs]}))
        return
    for n, of_length in verdicts.items():
        _show(n, of_length, worst)


def _show_known(lengths: list[int], n_worst: int) -> None:
    worlds = [world for world in grid() if world.is_steady]
    for n in lengths:
        regrets = [(least_regret(world, n), world.name) for world in worlds]
        print(f"{n} tokens, {len(worlds)} steady worlds, known in advance:")
        for regret, name in sorted(regrets, reverse=True)[:n_worst]:
            print(f"  {regret:6.1%}  {name}")


def _record(verdict: Verdict) -> dict[str, Any]:
    return {
        "world": verdict.world.name,
        "tokens": verdict.n_tokens,
        "auto_passes": verdict.auto,
        "best_passes": verdict.best,
        "best": verdict.best_name,
        "plain_passes": verdict.plain,
        "regret": verdict.regret,
        "worst_to_plain": verdict.worst_to_plain,
    }


def _show(n: int, verdicts: list[Verdict], n_worst: int) -> None:
    regrets = np.array([verdict.regret for verdict in verdicts])
    to_plain = np.array([verdict.worst_to_plain for verdict in verdicts])
    print(
        f"{n} tokens, {len(verdicts)} worlds: regret {regrets.mean():.1%} on average, median"
        f" {np.median(regrets):.1%}, at most 4 % in {np.mean(regrets <= 0.04):.0%}, worst"
        f" {regrets.max():.1%}; slowest reply {to_plain.max():.3f} x the time of plain decoding"
    )
    for verdict in sorted(verdicts, key=lambda v: -v.regret)[:n_worst]:
        print(
            f"  {verdict.regret:6.1%}  {verdict.world.name}: {verdict.auto:.0f} passes, best"
            f" {verdict.best:.0f} ({verdict.best_name}), plain {verdict.plain:.0f}"
        )


def _plot(verdicts: dict[int, list[Verdict]], path: Path) -> None:
    """Adaptive against the best fixed choice, and how many worlds have which regret."""
    gains, regrets = list[Series](), list[Series]()
    for tone, (n, of_length) in enumerate(verdicts.items()):
        pairs = ((v.plain / v.best, v.plain / v.auto) for v in of_length)
        dots = tuple(ChartPoint(best, auto) for best, auto in pairs)
        gains.append(Series(f"{n} tokens", dots, tone=tone))
        ordered = sorted(100 * verdict.regret for verdict in of_length)
        shares = np.linspace(0, 100, len(ordered))
        points = tuple(ChartPoint(r, float(s)) for r, s in zip(ordered, shares, strict=True))
        regrets.append(Series(f"{n} tokens", points, "line", dashed=True, tone=tone))
    best = "best fixed choice, with hindsight (x plain)"
    charts = [
        Chart("gain", "", "", best, "adaptive (x plain)", tuple(gains), log_x=True, log_y=True),
        Chart("regret", "", "", "regret (%)", "share of worlds (%)", tuple(regrets)),
    ]
    path.write_text(picture("Adaptive drafts in simulated worlds", charts))


if __name__ == "__main__":
    typer.run(main)
