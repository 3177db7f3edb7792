"""Do intervals hold for devices that nobody measured, of sources that nobody has seen?

    scripts/research/run validate-devices --csv FILE [--json] [--seed 0] [--draws 1]

The chips of FILE are drawn into three lots. Each lot is predicted by a fit, scales and quantiles of
its intervals included, without any row of its chips and without any row of any source that measured
one of them: what a table of other devices by other people would meet. `validate-predictions` leaves
out one chip and one source at a time, and keeps what else they teach each other. The lots decide
what is left for a few chips, so the rows of several draws say more than those of one.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from research.efficiency.fit import TESTS, Fit, published_runs
from research.efficiency.runs import Run, read_runs
from research.efficiency.shown import show_scores
from research.efficiency.validate import Outcome, check, outcomes_of, scores

LOTS = 3


def main(
    table: Annotated[
        Path, typer.Option("--csv", help="Measured runs, in the form of measured.csv.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    seed: Annotated[int, typer.Option(help="Of the lots.")] = 0,
    draws: Annotated[int, typer.Option(min=1, help="Of the lots, by as many seeds.")] = 1,
) -> None:
    """Predict every third of the devices by the others."""
    check(table)
    runs = read_runs(table)[0]
    outcomes = [o for i in range(seed, seed + draws) for o in outcomes_without(runs, i)]
    document: dict[str, Any] = {
        "backends": scores(outcomes, "backend", "test"),
        "kinds": scores(outcomes, "backend", "kind", "test"),
    }
    if as_json:
        print(json.dumps(document))
    else:
        show_scores(document)


def outcomes_without(runs: Sequence[Run], seed: int = 0) -> Iterator[Outcome]:
    """Of every run, by fits without its lot of chips and their sources."""
    for lot in lots(runs, seed):
        wanted = [run for run in runs if run.chip in lot]
        kept = rest(published_runs(), lot, {run.source for run in wanted})
        for test in TESTS:
            of_test = [run for run in wanted if run.test == test]
            if of_test:
                yield from outcomes_of(of_test, Fit.of([r for r in kept if r.test == test]))


def lots(runs: Sequence[Run], seed: int = 0) -> list[set[str]]:
    """The chips of runs in three lots, drawn anew by every seed."""
    chips = sorted({run.chip for run in runs})
    random.Random(seed).shuffle(chips)
    return [set(chips[i::LOTS]) for i in range(LOTS)]


def rest(runs: Sequence[Run], chips: set[str], sources: set[str]) -> list[Run]:
    """What is left without these chips and these sources."""
    return [run for run in runs if run.chip not in chips and run.source not in sources]
