"""Does `compare` find what differs, and nothing where nothing does?

    scripts/check-compare [MODEL] [--pairs 20] [--json]

The same short run twice, one after the other, as many times as there are pairs: of these at least
19 of 20 must show no significant difference. Then threads 1 against 2, which must be found.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from localspec.bench.case import Case, Work
from localspec.bench.circumstances import environment, model_record
from localspec.bench.compare import compare
from localspec.bench.plan import schedule
from localspec.bench.store import Results, ResultsHeader, Visited, Writer, read_results
from localspec.bench.visit import visit
from localspec.registry.resolve import resolve
from localspec.session.config import SessionConfig

NEEDED = 0.95
N_GEN, SAMPLES, ROUNDS = 48, 3, 4


def main(
    model: Annotated[str | None, typer.Argument()] = None,
    pairs: Annotated[int, typer.Option()] = 20,
    keep: Annotated[Path | None, typer.Option(help="Folder that gets the results.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run all, and fail where it is not so."""
    path = resolve(model)
    with nullcontext(keep) if keep else TemporaryDirectory(prefix="localspec-") as folder:
        runs = [_run(path, 2, Path(folder) / f"{i}.jsonl") for i in range(pairs + 1)]
        single = _run(path, 1, Path(folder) / "single.jsonl")
        same = [_compared(runs[i], runs[i + 1]) for i in range(pairs)]
        slowed = _compared(runs[-1], single)
    quiet = sum(found["verdict"] == "no significant difference" for found in same)
    if as_json:
        print(json.dumps({"same": same, "no_difference": quiet, "threads_2_to_1": slowed}))
    else:
        print(f"{quiet} of {pairs} pairs of the same run: no significant difference")
        print(f"threads 2 -> 1: {slowed['verdict']}, {slowed['ratio'][1]:.2f} x")
    sys.exit(0 if quiet >= NEEDED * pairs and slowed["verdict"] == "slower" else 1)


def _run(model: Path, n_threads: int, path: Path) -> Results:
    """A short bench: decoding at an empty context, as `localspec bench -p 0 -n 48 --rounds 4`."""
    case = Case(SessionConfig.of(model, spec="none", threads=n_threads), Work(0, N_GEN))
    with Writer.new(path, ResultsHeader("", (case,), ROUNDS, SAMPLES)) as writer:
        for planned in schedule((case,), ROUNDS):
            found = visit(case, SAMPLES)
            writer.add(
                Visited(
                    planned.number, case, planned.is_anchor, found.measurement, found.reason,
                    found.circumstances, None, environment(), model_record(model),
                )
            )  # fmt: skip
    return read_results(path)


def _compared(a: Results, b: Results) -> dict[str, Any]:
    case = next(case for case in compare(a, b).cases if case.measure == "decode")
    found = case.ratio
    return {"verdict": found.verdict, "ratio": [found.low, found.mid, found.high]}


if __name__ == "__main__":
    typer.run(main)
