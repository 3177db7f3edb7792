"""Run a plan, visit by visit; what is on disk is not measured again."""

from collections.abc import Callable, Iterator
from pathlib import Path

from localspec.bench.case import Case
from localspec.bench.environment import environment, model_record
from localspec.bench.prediction import Prediction
from localspec.bench.schedule import Planned, schedule
from localspec.bench.store import Header, Visited, Writer, read_results
from localspec.bench.visit import Stage, visit

LIMIT_S = 1800.0
"""Of one visit: far above what any should take."""

Predict = Callable[[Case], Prediction | None]
Announce = Callable[[Planned, int], None]


def remaining(header: Header, done: tuple[Visited, ...]) -> list[Planned]:
    """Visits that are not on disk, less those of cases that failed once."""
    numbers = {visited.number for visited in done}
    failed = {visited.case for visited in done if visited.reason}
    planned = schedule(header.cases, header.n_rounds)
    return [each for each in planned if each.number not in numbers and each.case not in failed]


def run(
    writer: Writer, predict: Predict, announce: Announce, stage: Stage, limit_s: float = LIMIT_S
) -> Iterator[Visited]:
    """Measure what the writer's file still lacks; each visit is on disk when it is yielded.

    `announce` hears of a visit that begins and how many are left, `stage` of what it does.
    """
    results = read_results(writer.path)
    header, failed = results.header, set[Case]()
    left = remaining(header, results.visits)
    for i, planned in enumerate(left):
        if planned.case in failed:
            continue
        announce(planned, len(left) - i)
        visited = _visited(planned, header.n_samples, predict, stage, limit_s)
        writer.add(visited)
        if visited.reason:
            failed.add(planned.case)
        yield visited


def _visited(
    planned: Planned, n_samples: int, predict: Predict, stage: Stage, limit_s: float
) -> Visited:
    case = planned.case
    prediction = predict(case)
    found = visit(case, n_samples, stage, limit_s)
    return Visited(
        number=planned.number,
        case=case,
        is_anchor=planned.is_anchor,
        measurement=found.measurement,
        reason=found.reason,
        circumstances=found.circumstances,
        prediction=prediction,
        environment=environment(),
        model=model_record(case.config.model) | _draft_record(case.config.draft),
    )


def _draft_record(draft: Path | None) -> dict[str, object]:
    return {} if draft is None else {"draft": model_record(draft)}
