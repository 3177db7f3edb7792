"""Two runs against each other: the ratio of each case, with an interval that allows for drift.

Two cases match if they do the same work on the same model file: length, depth, batch and texts, for
prompts and answers apart.
Machines, engine builds and settings may differ; the comparison names them. Where both sides
measured several settings of a case, equal settings are compared with each other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from localspec.bench.report.tables import SETTINGS
from localspec.bench.row import ResultRow, rows_of
from localspec.bench.statistics import Drift, Ratio, Visits, drift_of, estimate, ratio
from localspec.bench.store import Results
from localspec.errors import UserError
from localspec.settings import NONE

Measure = Literal["decode", "prefill", "energy"]
"""Energy: tokens a joule."""

_FACETS: dict[str, Callable[[ResultRow], str]] = {
    "model": lambda row: f"{row.model_name} ({row.model['digest']})",
    "lengths": lambda row: f"-p {row.case.work.n_prompt} -n {row.case.work.n_gen}",
    "depth": lambda row: f"{row.case.work.depth:,}",
    "batch": lambda row: str(row.case.work.batch),
    "texts": lambda row: row.case.work.prompts.name if row.case.work.prompts else "random tokens",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One case on both sides; `differs` names its settings as "t 2 -> 1".

    Speeds are tokens a second; beside llama-bench, which times the engine alone, so are answers.
    """

    a: ResultRow
    b: ResultRow
    measure: Measure
    a_tps: float
    b_tps: float
    ratio: Ratio
    differs: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In words of the measure."""
        words = {"faster": "less energy", "slower": "more energy"}
        found = self.ratio.verdict
        return words.get(found, found) if self.measure == "energy" else found


@dataclass(frozen=True, slots=True)
class Comparison:
    """Regressions first. `only_a` and `only_b`: cases without a partner."""

    cases: tuple[Compared, ...]
    only_a: tuple[ResultRow, ...]
    only_b: tuple[ResultRow, ...]
    drift: Drift | None
    differs: tuple[str, ...]


def compare(a: Results, b: Results) -> Comparison:
    """Raises UserError where no case of one matches any case of the other."""
    rows_a, rows_b = (
        [row for row in rows_of(each.visits) if row.decode_visits or row.prefill_visits]
        for each in (a, b)
    )
    drift = drift_of([row.decode_visits for row in (*rows_a, *rows_b)])
    cases = list(_compared(rows_a, rows_b, drift))
    if not cases:
        raise UserError(
            f"{a.path.name} and {b.path.name} cannot be compared: {_why(rows_a, rows_b)}"
        )
    matched = {id(row) for case in cases for row in (case.a, case.b)}
    return Comparison(
        cases=tuple(sorted(cases, key=lambda c: (_URGENCY.index(c.ratio.verdict), c.ratio.mid))),
        only_a=tuple(row for row in rows_a if id(row) not in matched),
        only_b=tuple(row for row in rows_b if id(row) not in matched),
        drift=drift,
        differs=tuple(
            text
            for text in (cases[0].differs if cases else ())
            if all(text in case.differs for case in cases)
        ),
    )


_URGENCY = ("slower", "faster", "no significant difference", "unknown")
WorkKey = Callable[[ResultRow], Any]
_FACTS = ("n_params", "weight_bytes")
"""Of a model's header, where the two share no digest: digests differ by version."""


def _compared(
    rows_a: Sequence[ResultRow], rows_b: Sequence[ResultRow], drift: Drift | None
) -> Iterator[Compared]:
    """Every pair, of answers and of prompts."""
    digests = ({row.model["digest"] for row in rows} for rows in (rows_a, rows_b))
    names = ("digest",) if set.intersection(*digests) else _FACTS
    for measure in get_args(Measure):
        own_a, own_b = ([r for r in rows if _visits(r, measure)] for rows in (rows_a, rows_b))
        for a, b in _pairs(own_a, own_b, _by(names, measure)):
            own = drift or drift_of([a.decode_visits, b.decode_visits])
            is_bare = a.is_of_llama_bench or b.is_of_llama_bench
            visits_a, visits_b = (_visits(row, measure, is_bare=is_bare) for row in (a, b))
            found = ratio(visits_a, visits_b, own)
            a_tps, b_tps = estimate(visits_a).mid, estimate(visits_b).mid
            yield Compared(a, b, measure, a_tps, b_tps, found, tuple(_differences(a, b)))


def _visits(row: ResultRow, measure: Measure, *, is_bare: bool = False) -> Visits:
    """`is_bare`: answers by the time inside the engine."""
    if measure == "prefill":
        return row.prefill_visits
    if measure == "energy":
        return row.visits_by("decode_j")
    return row.visits_by("engine_s") if is_bare else row.decode_visits


def _by(names: Sequence[str], measure: Measure) -> WorkKey:
    """The key that must be equal: the model and the work. Texts count by their file's name."""
    other = {"n_gen": 0} if measure == "prefill" else {"n_prompt": 0}

    def key(row: ResultRow) -> Any:
        work = row.case.work
        own = replace(work, prompts=None, **({} if work.prompts else other))
        return *(row.model[name] for name in names), own, work.prompts and work.prompts.name

    return key


def _pairs(
    rows_a: Sequence[ResultRow], rows_b: Sequence[ResultRow], by: WorkKey
) -> Iterator[tuple[ResultRow, ResultRow]]:
    """Equal settings first; then the rest of a work, if each side has only one."""
    free_a, free_b = list(rows_a), list(rows_b)
    for a in rows_a:
        same = next((b for b in free_b if by(a) == by(b) and _settings(a) == _settings(b)), None)
        if same is not None:
            free_a.remove(a)
            free_b.remove(same)
            yield a, same
    for a in free_a:
        others_a = [row for row in free_a if by(row) == by(a)]
        others_b = [row for row in free_b if by(row) == by(a)]
        if len(others_a) == 1 and len(others_b) == 1:
            yield a, others_b[0]


def _settings(row: ResultRow) -> Any:
    draft = row.model.get("draft")
    drafter = draft["file"] if draft else NONE
    return replace(row.case.settings, draft=drafter)


def _differences(a: ResultRow, b: ResultRow) -> Iterator[str]:
    for column in SETTINGS:
        if column.text(a) != column.text(b):
            yield f"{column.header} {column.text(a)} -> {column.text(b)}"
    machines = [row.environment["machine"] for row in (a, b)]
    if machines[0]["power"] != machines[1]["power"]:
        yield f"power: {machines[0]['power']} -> {machines[1]['power']}"
    is_known = not (a.is_of_llama_bench or b.is_of_llama_bench)
    if is_known and a.environment["variables"] != b.environment["variables"]:
        yield f"variables {a.environment['variables']} -> {b.environment['variables']}"


def _why(rows_a: Sequence[ResultRow], rows_b: Sequence[ResultRow]) -> str:
    """The first facet of the work that no case of one shares with the other."""
    if not rows_a or not rows_b:
        return "one of them has no measurement"
    for name, facet in _FACETS.items():
        kinds = [list(dict.fromkeys(map(facet, rows))) for rows in (rows_a, rows_b)]
        if not set(kinds[0]) & set(kinds[1]):
            return f"{name}: {', '.join(kinds[0])} against {', '.join(kinds[1])}"
    return "no combination of model, lengths, depth and batch is in both, or several settings are"
