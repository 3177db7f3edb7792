"""How much runs of a device, and of a model on others, correct a prediction, by published runs.

Every run whose source measured other models on its device, too, is predicted again with what these
runs say (`predict --from`): the source stands for a user with files of results. The run itself,
and all of its model on its device, stay unknown.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import Any

from research.efficiency.runs import Run

from localspec.prediction.evidence import Evidence, Spreads, correction

MOST_RUNS = 120
"""Of a source."""


@dataclass(frozen=True, slots=True)
class Told:
    """One run: errors without and with the others; `elsewhere`: was its model measured there?"""

    before: float
    after: float
    elsewhere: bool


def transfer(test: str, found: Sequence[tuple[Run, float]], spreads: Spreads) -> dict[str, Any]:
    """Median errors; `found`: runs with the seconds that are predicted without chip and source."""
    by_source: defaultdict[str, list[Evidence]] = defaultdict(list)
    for run, seconds in found:
        device = f"{run.conditions.backend}, {run.chip}"
        by_source[run.source].append(
            Evidence(run.source, device, _model(run), log(run.seconds / seconds))
        )
    told = [one for runs in by_source.values() for one in _told(runs[:MOST_RUNS], spreads)]
    both = [one for one in told if one.elsewhere]
    return {
        "test": test,
        "n": len(told),
        "median_error": _middle([one.before for one in told]),
        "corrected_error": _middle([one.after for one in told]),
        "n_elsewhere": len(both),
        "elsewhere_error": _middle([one.before for one in both]),
        "elsewhere_corrected_error": _middle([one.after for one in both]),
    }


def _middle(errors: list[float]) -> float | None:
    return median(errors) if errors else None


def _told(runs: Sequence[Evidence], spreads: Spreads) -> list[Told]:
    told: list[Told] = []
    for run in runs:
        others = [o for o in runs if (o.device, o.model) != (run.device, run.model)]
        if any(other.device == run.device for other in others):
            factor = correction(others, run, spreads).factor
            elsewhere = any(other.model == run.model for other in others)
            told.append(Told(_error(run.log_ratio), _error(run.log_ratio - log(factor)), elsewhere))
    return told


def _error(log_ratio: float) -> float:
    """|predicted / measured - 1| of speeds."""
    return abs(exp(log_ratio) - 1)


def _model(run: Run) -> str:
    return f"{run.shape.n_params / 1e7:.0f}, {run.file_bytes / 5e7:.0f}"
