"""Fit the shares that devices reach and write localspec/prediction/efficiency.json.

    scripts/research/run fit-efficiency [--check]

Reads data/measured.csv and verify_cost.csv; the same data give the same file. `--check`
only says whether the shipped file is what they give.
"""

import csv
import inspect
import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from research.efficiency.intervals import TAILS, Errors
from research.efficiency.regression import problem_of, unseen, unseen_errors
from research.efficiency.runs import Run, read_runs

from localspec.errors import UserError
from localspec.prediction.published import Coefficients, type_class

DATA = Path(__file__).parent / "data"
TARGET = Path(inspect.getfile(Coefficients)).with_name("efficiency.json")
MIN_GIB = 3.0
WIDTHS = (2, 4, 8, 16)
DIGITS = 5
ROUNDING = 5e-3


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


@dataclass(frozen=True, slots=True)
class Fit:
    """Of published runs of one test; `others`: by chip, what all runs but that chip's determine."""

    coefficients: Coefficients
    others: dict[str, Coefficients]
    errors: Errors


@cache
def fit_of(test: str) -> Fit:
    """What shipped predictions rest on, and how far they are off where a chip was not seen."""
    problem = problem_of([run for run in published_runs() if run.test == test])
    others = unseen(problem)
    return Fit(problem.solve(), others, unseen_errors(problem, others))


@cache
def published_runs() -> list[Run]:
    """What the fit rests on."""
    return read_runs(DATA / "measured.csv", MIN_GIB)[0]


def fitted() -> dict[str, Any]:
    """The whole data file."""
    document: dict[str, Any] = {
        "about": "Fitted by `scripts/research/run fit-efficiency` to runs in its folder data, whose"
        " rows name sources. Coefficients of logarithms of time over what a device's figures say;"
        " 80 % intervals of speed over its prediction, from the errors of devices that were left"
        " out of the fit.",
        "support": {},
        "verify": verify_curves(DATA / "verify_cost.csv"),
    }
    for test in ("decode", "prefill"):
        fit = fit_of(test)
        document[test] = {
            "values": {name: round(x, DIGITS) for name, x in fit.coefficients.values.items()},
            "layer_s": dict(fit.coefficients.layer_s) if test == "decode" else {},
        }
        document["support"][test] = _support(fit.errors)
    return document


def _agree(one: Any, other: Any) -> bool:
    """But for what another processor's rounding changes in the last steps of the fit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= ROUNDING * max(1.0, abs(one))
    return one == other


def verify_curves(path: Path) -> dict[str, list[list[float]]]:
    """T(n) / T(1) of dense models at n = 2, 4, 8 and 16, medians by backend and type, and wider."""
    found: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            backend = re.split(r"[ -]", row["backend"].lower())[0]
            ratio = row["relative_step_time_T(k)/T(1)"]
            if row["moe"] == "0" and ratio and int(row["batch_k"]) in WIDTHS:
                kind = type_class(re.split(r"[.\- ]", row["quant"])[-1])  # some are file names
                for name in (f"{backend}, {kind}", backend, "all"):
                    found[name][int(row["batch_k"])].append(float(ratio))
    return {
        name: [[n, round(median(by_width[n]), 3)] for n in WIDTHS]
        for name, by_width in found.items()
        if all(by_width[n] for n in WIDTHS)
    }


def _support(errors: Errors) -> dict[str, dict[str, float]]:
    """The interval of every group that has enough runs and chips, and what it rests on."""
    found = {
        name: errors.support(name, errors.tails.get(name, TAILS[0])) for name in errors.groups()
    }
    return {name: asdict(support) for name, support in found.items() if support}
