"""Fit the factors that devices reach and write localspec/prediction/efficiency.json.

    scripts/research/run fit-efficiency [--check]

Reads measured.csv, measured_2026.csv, verify_cost.csv and batch_2026.csv in the folder data; the
same data give the same file. `--check` only says whether the shipped file is what they give.
"""

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from research.efficiency.agreement import spreads_of
from research.efficiency.batches import Batch, read_batches
from research.efficiency.intervals import Calibration
from research.efficiency.regression import Fitted, Problem
from research.efficiency.runs import Run, read_runs
from research.efficiency.seen import Seen
from research.efficiency.widths import widths_of

from localspec.errors import UserError
from localspec.prediction.conditions import NEWEST
from localspec.prediction.efficiency import Coefficients

DATA = Path(__file__).parent / "data"
TABLES = ("measured.csv", "measured_2026.csv")
TARGET = Path(inspect.getfile(Coefficients)).with_name("efficiency.json")
BATCH_TABLES = ("verify_cost.csv", "batch_2026.csv")
DIGITS = 4
LEAST = 0.0005
"""Of a column's value that is worth shipping."""
SAID = re.compile(r"(device|backend|backend family|backend type|\w+ in backend): ")
"""Columns that say what is known of a run, whatever their value."""
ROUNDING = 5e-3
TESTS = ("decode", "prefill")


def main(
    check: Annotated[bool, typer.Option("--check", help="Compare only; exit code 1.")] = False,
) -> None:
    """Fit published runs."""
    document = fitted()
    if not check:
        TARGET.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        print(f"{TARGET.name} written")
    elif not _agree(document, json.loads(TARGET.read_text())):
        raise UserError(f"{TARGET.name} is not what the data give: fit without --check")


@dataclass(frozen=True)
class Fit:
    """Of published runs of one test, with the errors of what was left out."""

    fitted: Fitted
    seen: Seen
    calibration: Calibration

    @property
    def test(self) -> str:
        return self.fitted.problem.runs[0].test

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Fit":
        """Raises nothing; runs are of one test."""
        fitted, seen = Fitted(Problem.of(runs)), Seen(runs)
        return cls(fitted, seen, Calibration(fitted, seen))


@cache
def fit_of(test: str, until: str | None = None) -> Fit:
    """What shipped predictions rest on, or would have rested on after a month."""
    return Fit.of([run for run in published_runs(until) if run.test == test])


@cache
def published_runs(until: str | None = None) -> list[Run]:
    """What the fit rests on; runs of one source that differ in nothing are one.

    `until`: "2026-04" leaves out later runs, and undated ones of the later table.
    """
    runs = [
        run
        for name in TABLES
        for run in read_runs(DATA / name)[0]
        if until is None or (run.month or (until if name == TABLES[0] else "9999")) <= until
    ]
    same: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        same[run.setting].append(run)
    return [_middle(group) for group in same.values()]


def _middle(runs: list[Run]) -> Run:
    """The one of the median speed."""
    return sorted(runs, key=lambda run: run.tokens_per_s)[len(runs) // 2]


def fitted() -> dict[str, Any]:
    """The whole data file."""
    document: dict[str, Any] = {
        "about": "Fitted by `scripts/research/run fit-efficiency` to runs in its folder data, whose"
        " rows name sources. Factors are logarithms of time over what a device's figures say;"
        " scales and quantiles are of errors of runs whose source and chip were left out.",
        "backends": {},
        "shared": {},
        "uncertainty": {},
        "verify": _verify(),
    }
    for test in TESTS:
        fit = fit_of(test)
        known = fit.fitted.coefficients
        uncertainty = fit.calibration.uncertainty
        document[test] = {"values": _shipped(known), "floors": dict(known.floors)}
        document["uncertainty"][test] = {
            "scales": uncertainty.scales,
            "quantiles": {name: [*pair] for name, pair in uncertainty.quantiles.items()},
            "later": uncertainty.later,
            "pairs": {name: n for name, n in uncertainty.pairs.items() if _is_of_today(name)},
            "thin": sorted(uncertainty.thin),
            "floor": uncertainty.floor,
        }
        document["backends"][test] = _support(fit.fitted.problem.runs)
        document["shared"][test] = asdict(spreads_of(fit.calibration.cases))
    return document


def _shipped(known: Coefficients) -> dict[str, float]:
    """What a prediction for a user's machine can use: no source's habits."""
    return {
        name: round(x, DIGITS)
        for name, x in known.values.items()
        if not name.startswith("habit") and (abs(x) >= LEAST or SAID.match(name))
    }


def _is_of_today(name: str) -> bool:
    """Of a backend, of a family, or of a sort with engines of today."""
    return "," not in name or SAID.match(name) is not None or name.endswith(NEWEST)


def _support(runs: Sequence[Run]) -> dict[str, list[int]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for run in runs:
        found[run.conditions.backend].append(run.chip)
    return {name: [len(chips), len(set(chips))] for name, chips in sorted(found.items())}


def _agree(one: Any, other: Any) -> bool:
    """But for what another processor's rounding changes in the last steps of the fit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= ROUNDING * max(1.0, abs(one))
    return one == other


def published_batches() -> list[Batch]:
    """What v(n) rests on."""
    return read_batches(*(DATA / name for name in BATCH_TABLES))


def _verify() -> dict[str, dict[str, float]]:
    found = widths_of(published_batches(), fit_of("decode").fitted.coefficients)
    return {
        name: {kind: round(x, DIGITS) for kind, x in sorted(values.items()) if abs(x) >= LEAST}
        for name, values in asdict(found).items()
    }
