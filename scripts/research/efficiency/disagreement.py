"""How far sources disagree about one file on one device: what no fit can be expected to beat.

A run is predicted by the median of what other sources measured of the same model, of about the same
size and depth, on the same chip and backend, each source one voice. Builds and drivers differ as
they do between any two people.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from research.efficiency.runs import Run

SHALLOW, STEP = 2048, 4096
"""Tokens in the cache below which depths count as one, and from there on how wide a class is."""
OLD = ("llamafile", "2023", "2024")


def disagreement(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Median errors by backend and test; `runs`: of all sources."""
    groups: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.conditions.era not in OLD:
            groups[_subject(run)].append(run)
    found: defaultdict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for group in groups.values():
        for run in group:
            if (others := _by_others(run, group)) is not None:
                error = abs(others / run.tokens_per_s - 1)
                found[run.conditions.backend, run.test].append((error, run.chip))
    return [
        {
            "backend": backend,
            "test": test,
            "n": len(errors),
            "devices": len({chip for _, chip in errors}),
            "median_error": median(error for error, _ in errors),
        }
        for (backend, test), errors in sorted(found.items())
    ]


def beside_others(
    runs: Iterable[Run], outcomes: Iterable[tuple[Run, float]]
) -> list[dict[str, Any]]:
    """What others measured and what was predicted, both judged by the runs that allow it.

    `outcomes`: runs with the error of their prediction.
    """
    groups: defaultdict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.conditions.era not in OLD:
            groups[_subject(run)].append(run)
    found: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for run, error in outcomes:
        if (others := _by_others(run, groups[_subject(run)])) is not None:
            by_others = abs(others / run.tokens_per_s - 1)
            found[run.conditions.backend, run.test].append((by_others, error))
    return [
        {
            "backend": backend,
            "test": test,
            "n": len(errors),
            "others_error": median(other for other, _ in errors),
            "prediction_error": median(own for _, own in errors),
        }
        for (backend, test), errors in sorted(found.items())
    ]


def _subject(run: Run) -> tuple[Any, ...]:
    """What runs must share to be compared."""
    depth = 0 if run.depth < SHALLOW else round(run.depth / STEP)
    size = round(run.file_bytes / (2e8 if run.file_bytes > 1e9 else 5e7))
    return run.conditions.backend, run.chip, run.shape.n_params, size, run.test, depth


def _by_others(run: Run, group: Sequence[Run]) -> float | None:
    """Tokens a second; None where nobody else measured it."""
    speeds: defaultdict[str, list[float]] = defaultdict(list)
    for other in group:
        if other.source != run.source:
            speeds[other.source].append(other.tokens_per_s)
    return median(map(median, speeds.values())) if speeds else None
