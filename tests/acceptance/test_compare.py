"""`compare` finds what differs, and nothing where nothing does.

The same short run several times, one after the other: of neighbours at least 19 in 20 must show no
significant difference. Then threads 1 against 2, which must be found.
"""

from pathlib import Path
from typing import Any

import pytest
from models import smollm2

from localspec.bench.case import Case, Work
from localspec.bench.compare import compare
from localspec.bench.plan import schedule
from localspec.bench.store import Results, ResultsHeader, Visited, Writer, read_results
from localspec.bench.visit import environment, model_record, visit
from localspec.session.session_config import SessionConfig

pytestmark = pytest.mark.engine
PAIRS, NEEDED = 20, 0.95
N_GEN, SAMPLES, ROUNDS = 48, 3, 4


def test_no_difference_where_nothing_differs_and_one_where_threads_do(tmp_path: Path) -> None:
    """Reached on 2026-11-25: 20 of 20, and 0.61 x."""
    runs = [_run(smollm2(), 2, tmp_path / f"{i}.jsonl") for i in range(PAIRS + 1)]
    single = _run(smollm2(), 1, tmp_path / "single.jsonl")
    same = [_compared(runs[i], runs[i + 1]) for i in range(PAIRS)]
    quiet = sum(found["verdict"] == "no significant difference" for found in same)
    assert quiet >= NEEDED * PAIRS, f"{quiet} of {PAIRS} pairs show no difference: {same}"
    slowed = _compared(runs[-1], single)
    assert slowed["verdict"] == "slower", f"one thread beside two: {slowed}"


def _run(model: Path, n_threads: int, path: Path) -> Results:
    """A short bench: decoding at an empty context, as `localspec bench -p 0 -n 48 --rounds 4`."""
    case = Case(SessionConfig.of(model, spec="none", threads=n_threads), Work(0, N_GEN))
    with Writer.open(path, ResultsHeader("", (case,), ROUNDS, SAMPLES)) as writer:
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
