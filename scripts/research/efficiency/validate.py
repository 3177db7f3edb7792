"""How right are predictions for devices that the fit never saw?

    scripts/research/run validate-predictions --csv FILE [--json] [--min-gib 0] [--until 2026-04]

FILE has the columns of data/measured.csv. Every run on one device is predicted from the device's
published figures, by a fit without any row of its chip, whatever source it is from, and without any
row of its source, whatever chip it is of; its interval comes from the errors of other chips and
sources. What a row says of itself (a server's clock, a power cap) is used as others taught it.
Errors are |predicted / measured - 1|. Rivals' formulas are scored on the same rows. The last column
is what would be left if a chip were known: a run predicted with what the median of the chip's other
runs came to, for chips with three runs or more.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from research.efficiency.disagreement import beside_others, disagreement
from research.efficiency.fit import (
    DATA,
    TABLES,
    TESTS,
    Fit,
    fit_of,
    published_batches,
    published_runs,
)
from research.efficiency.regression import Problem
from research.efficiency.remainder import factors, near
from research.efficiency.runs import Run, read_runs
from research.efficiency.shown import show
from research.efficiency.together import together
from research.efficiency.transfer import transfer
from research.efficiency.widths import left_out

from localspec.prediction.conditions import NEWEST
from localspec.prediction.efficiency import Coefficients, load
from localspec.prediction.rates import Shares, Spread

RIVALS: dict[str, Callable[[Run], float]] = {
    "bandwidth / file": lambda run: run.conditions.bandwidth_bytes_per_s / run.file_bytes,
    "0.55 bandwidth / file": lambda run: (
        0.55 * run.conditions.bandwidth_bytes_per_s / run.file_bytes
    ),
    "1 / (file / (0.67 bandwidth) + 1 ms)": lambda run: (
        1 / (run.file_bytes / (0.67 * run.conditions.bandwidth_bytes_per_s) + 1e-3)
    ),
}
FEWEST_RUNS = 3
COLUMNS = ("device", "backend", "model", "file_size_gib", "quant", "test", "tokens_per_s")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run with its prediction and the interval that should hold 4 of 5."""

    run: Run
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        return abs(self.predicted / self.run.tokens_per_s - 1)

    @property
    def is_covered(self) -> bool:
        return self.low <= self.run.tokens_per_s <= self.high


def main(
    table: Annotated[
        Path, typer.Option("--csv", help="Measured runs, in the form of measured.csv.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    min_gib: Annotated[float, typer.Option(help="Smallest file that counts, in GiB.")] = 0.0,
    until: Annotated[
        str | None, typer.Option(help="Fit runs until this month, predict later ones: 2026-04.")
    ] = None,
) -> None:
    """Predict published runs and compare."""
    document = scores_of(table, min_gib, until)
    if as_json:
        print(json.dumps(document))
    else:
        show(document)


def scores_of(table: Path, min_gib: float = 0.0, until: str | None = None) -> dict[str, Any]:
    """What `--json` prints. Raises UserError where the table is none."""
    check(table)
    runs, skipped = read_runs(table, min_gib)
    if until:
        runs = [run.later() for run in runs if run.month and run.month > until]
    outcomes = [o for test in TESTS for o in outcomes_of(runs, fit_of(test, until))]
    recent = [o for o in outcomes if o.run.conditions.era in ("2025", NEWEST)]
    return {
        "groups": scores(outcomes, "backend", "family", "test"),
        "backends": scores(outcomes, "backend", "test"),
        "kinds": scores(outcomes, "backend", "kind", "test"),
        "recent": scores(recent, "backend", "test"),
        "memory": _by_memory(outcomes),
        "verify": left_out(published_batches(), _known_without),
        "transfer": [_transfer(test, outcomes) for test in TESTS],
        "disagreement": disagreement(published_runs()),
        "beside_others": beside_others(published_runs(), ((o.run, o.error) for o in outcomes)),
        "factors": factors((o.run, o.predicted) for o in outcomes),
        "near": [row for test in TESTS for row in _near(test, outcomes, until)],
        "together": together([DATA / name for name in TABLES]),
        "rivals": _rivals(outcomes),
        "skipped": [{"reason": reason, "n": n} for reason, n in skipped.most_common()],
    }


def outcomes_of(runs: list[Run], fit: Fit) -> list[Outcome]:
    """Every run of a fit's test, predicted by what other chips and other sources determine."""
    pairs: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.test == fit.test:
            pairs[run.chip, run.source].append(run)
    return [outcome for pair, of_pair in pairs.items() for outcome in _unseen(fit, pair, of_pair)]


def _unseen(fit: Fit, pair: tuple[str, str], runs: list[Run]) -> Iterator[Outcome]:
    problem = Problem.of(runs, fit.fitted.problem.names)
    theta, uncertainty = fit.fitted.without(*pair), fit.calibration.without(*pair)
    seconds = np.exp(problem.linear(theta)[0])
    for run, took, (overhead, attention) in zip(runs, seconds, problem.shares(theta), strict=True):
        shares = Shares(float(overhead), float(attention))
        knows = fit.seen.without(run, "chip")
        spread = uncertainty.spread(run.conditions, knows, shares)
        yield _outcome(run, run.tokens_per(float(took)), spread)


def _transfer(test: Any, outcomes: list[Outcome]) -> dict[str, Any]:
    """What runs of the same source would have corrected."""
    found = [
        (o.run, o.run.seconds * o.run.tokens_per_s / o.predicted)
        for o in outcomes
        if o.run.test == test
    ]
    return transfer(test, found, load().shared[test])


def _near(test: str, outcomes: list[Outcome], until: str | None) -> list[dict[str, Any]]:
    """What near runs of the same fit would have corrected."""
    return near(fit_of(test, until), ((o.run, o.predicted) for o in outcomes))


def _known_without(chip: str) -> Coefficients:
    """What parts of a plain pass take by runs of other chips."""
    return fit_of("decode").fitted.coefficients_without(chip)


def _outcome(run: Run, speed: float, spread: Spread) -> Outcome:
    """An ambiguous device may be any of its candidates, and none exceeds its full bandwidth."""
    own, (least, most) = run.conditions.bandwidth_bytes_per_s, run.place.bandwidth_range
    high = min(speed * spread.high, max(speed, run.full_bandwidth_tps)) * most / own
    return Outcome(run, speed, speed * spread.low * least / own, high)


def scores(outcomes: list[Outcome], *names: str) -> list[dict[str, Any]]:
    """Errors and coverage of outcomes grouped by conditions of their runs."""
    groups: defaultdict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        key = {"test": outcome.run.test}
        groups[
            tuple(key.get(name) or getattr(outcome.run.conditions, name) for name in names)
        ].append(outcome)
    return [
        dict(zip(names, key, strict=True)) | _score(group) for key, group in sorted(groups.items())
    ]


def _score(outcomes: list[Outcome]) -> dict[str, Any]:
    errors = [outcome.error for outcome in outcomes]
    return {
        "n": len(outcomes),
        "devices": len({outcome.run.chip for outcome in outcomes}),
        "median_error": median(errors),
        "p90_error": float(np.quantile(errors, 0.9)),
        "coverage80": sum(outcome.is_covered for outcome in outcomes) / len(outcomes),
        "coverage80_error": _coverage_error(outcomes),
        "coverage80_by_pairs": _by_pairs(outcomes),
        "known_chip_error": _known_chip_error(outcomes),
    }


def _pairs(outcomes: list[Outcome]) -> list[list[bool]]:
    """Which runs lie in their intervals, by pair of a chip and a source."""
    pairs: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for outcome in outcomes:
        pairs[outcome.run.chip, outcome.run.source].append(outcome.is_covered)
    return list(pairs.values())


def _by_pairs(outcomes: list[Outcome]) -> float:
    """The share in the interval where every pair of a chip and a source has one voice."""
    return float(np.mean([np.mean(covered) for covered in _pairs(outcomes)]))


def _coverage_error(outcomes: list[Outcome]) -> float | None:
    """The standard error of the share of runs in the interval: those of a pair err together."""
    pairs, share = _pairs(outcomes), float(np.mean([outcome.is_covered for outcome in outcomes]))
    if len(pairs) < 2:
        return None
    squares = sum((sum(covered) - share * len(covered)) ** 2 for covered in pairs)
    return sqrt(squares * len(pairs) / (len(pairs) - 1)) / len(outcomes)


def _known_chip_error(outcomes: list[Outcome]) -> float | None:
    """The median error of runs that are predicted with the help of others on the same chip."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        shares[outcome.run.chip].append(outcome.run.tokens_per_s / outcome.predicted)
    errors = [
        abs(median([*of_chip[:i], *of_chip[i + 1 :]]) / share - 1)
        for of_chip in shares.values()
        if len(of_chip) >= FEWEST_RUNS
        for i, share in enumerate(of_chip)
    ]
    return median(errors) if errors else None


def _by_memory(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Errors on processors: where the row names the memory or the maker supports one, and else."""
    errors: defaultdict[tuple[str, bool], list[float]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.run.conditions.backend == "cpu":
            least, most = outcome.run.place.bandwidth_range
            errors[outcome.run.test, least == most].append(outcome.error)
    return [
        {"test": test, "is_known": known, "n": len(found), "median_error": median(found)}
        for (test, known), found in sorted(errors.items())
    ]


def _rivals(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for backend, runs in _decoding(outcomes, lambda run: run.conditions.backend).items():
        for formula, speed in RIVALS.items():
            errors = [abs(speed(run) / run.tokens_per_s - 1) for run in runs]
            rows.append(
                {
                    "formula": formula,
                    "backend": backend,
                    "test": "decode",
                    "n": len(runs),
                    "median_error": median(errors),
                    "p90_error": float(np.quantile(errors, 0.9)),
                }
            )
    return rows


def _decoding(outcomes: list[Outcome], key: Callable[[Run], str]) -> dict[str, list[Run]]:
    groups: defaultdict[str, list[Run]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.run.test == "decode":
            groups[key(outcome.run)].append(outcome.run)
    return dict(sorted(groups.items()))


def check(table: Path) -> None:
    """Raises SystemExit where a file is no such table."""
    try:
        with table.open(encoding="utf-8-sig") as file:
            header = file.readline().strip().split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"validate-predictions: {table} cannot be read: {error}") from error
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise SystemExit(f"validate-predictions: {table} has no column {missing[0]}")
