"""What is known of a run once its source, its chip, or later months are left out.

A column is known by the sources whose runs take part in it; a backend, a family on it, and a sort
of runs (backend, kind of model and age of the engine), by pairs of a chip and a source, no two of
which have either in common.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from research.efficiency.regression import Leave
from research.efficiency.runs import Run

from localspec.prediction.conditions import RunConditions, of_part, whole
from localspec.prediction.uncertainty import Known, family_column

KIND_ON_BACKEND = re.compile(r"(moe|hybrid|mla) in backend: ")
Group = tuple[str, str, str]
"""A chip, a source and a month."""


def _others(groups: Iterable[Group], run: Run, leave: Leave) -> set[tuple[str, str]]:
    """Pairs of a chip and a source that are left where a run is predicted."""
    return {
        (chip, source)
        for chip, source, month in groups
        if source != run.source
        and (leave == "source" or chip != run.chip)
        and (leave != "later" or run.month is None or month < run.month)
    }


def _independent(pairs: set[tuple[str, str]]) -> int:
    return min(len({each[at] for each in pairs}) for at in (0, 1))


class Seen:
    """Which columns the runs of other sources, other chips and earlier months take part in."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._groups: defaultdict[str, set[Group]] = defaultdict(set)
        self._sorts: defaultdict[str, set[Group]] = defaultdict(set)
        groups: defaultdict[Group, set[RunConditions]] = defaultdict(set)
        for run in runs:
            groups[run.chip, run.source, run.month or ""].add(run.conditions)
        for group, conditions in groups.items():
            for known in conditions:
                for kind, name, _ in (*whole(known), *of_part(known, "weights")):
                    self._groups[f"{kind}: {name}"].add(group)
                for sort in _counted(known):
                    self._sorts[sort].add(group)

    def without(self, run: Run, leave: Leave) -> Callable[[str], bool]:
        """Whether a column is supported where a run is predicted without what is left out."""

        def knows(column: str) -> bool:
            groups = self._groups.get(column, set())
            sources = {source for _, source in _others(groups, run, leave)}
            return len(sources) >= sources_needed(column)

        return knows

    def known(self, run: Run, leave: Leave) -> Known:
        """What is left where a run is predicted."""
        beside = (
            _independent(_others(self._sorts[sort], run, leave))
            for sort in _counted(run.conditions)
        )
        return Known(self.without(run, leave), *beside)

    def pairs(self, chip: str = "", source: str = "") -> dict[str, int]:
        """By sort, backend and family, without a chip and a source."""
        rest = {
            sort: {(c, s) for c, s, _ in groups if c != chip and s != source}
            for sort, groups in sorted(self._sorts.items())
        }
        return {sort: _independent(found) for sort, found in rest.items() if found}

    @property
    def thin(self) -> list[str]:
        """Columns that too few sources support to count as known."""
        return sorted(
            column
            for column, groups in self._groups.items()
            if len({source for _, source, _ in groups}) < sources_needed(column)
        )


def _counted(known: RunConditions) -> tuple[str, str, str]:
    """What pairs are counted of, as `Known` has it."""
    return known.sort, known.backend, family_column(known)


def sources_needed(column: str) -> int:
    """One source's runs of a kind of model tell its habits and the kind's in one."""
    return 2 if KIND_ON_BACKEND.match(column) else 1
