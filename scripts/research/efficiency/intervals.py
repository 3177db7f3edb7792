"""Intervals of measured over predicted speed, wide enough to hold 4 of 5 runs of unseen devices.

The errors of chips that were left out of the fit give the quantiles. A backend's runs are told
apart by the engine's age where every age has enough chips: users' runs of old engines scatter more
than today's. Chips differ by more than the runs of one chip do, so plain 10 % quantiles hold too
few runs of a new chip; the tail is chosen by group so that chips left out once more are held as
often as promised.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from research.efficiency.runs import Run

from localspec.prediction.published import Support

MIN_RUNS, MIN_CHIPS = 20, 5
"""Of other chips, in a group that gives an interval."""
TAILS = tuple(round(0.005 * i, 3) for i in range(2, 41))
PROMISED = 0.8
EVERYTHING = "all"


@dataclass(frozen=True)
class Errors:
    """Measured over predicted speed of runs whose chip the fit did not see."""

    runs: tuple[Run, ...]
    ratios: tuple[float, ...]

    def support(self, name: str, tail: float, without: str | None = None) -> Support | None:
        """The interval of a group, without a chip; None where too little is left."""
        chosen = self._members(name, without)
        n_chips = len({chip for chip, _ in chosen})
        if len(chosen) < MIN_RUNS or n_chips < MIN_CHIPS + (without is None):
            return None
        ratios = [ratio for _, ratio in chosen]
        low, high = (round(float(np.quantile(ratios, share)), 4) for share in (tail, 1 - tail))
        return Support(len(chosen), n_chips, low, high)

    def of(self, run: Run) -> Support:
        """What a run is promised by other chips."""
        name = self.group(run)
        found = self.support(name, self.tails.get(name, TAILS[0]), without=run.chip)
        assert found, "a group is chosen for its support"
        return found

    def groups(self) -> list[str]:
        """All that could give intervals."""
        return sorted({name for run in self.runs for name in self._names(run)})

    def group(self, run: Run) -> str:
        """The narrowest that has enough runs of other chips."""
        enough = (name for name in self._names(run) if self.support(name, 0.1, without=run.chip))
        return next(enough, EVERYTHING)

    @cached_property
    def tails(self) -> dict[str, float]:
        """By group, the tail whose intervals hold nearest to 80 % of the runs of unseen chips."""
        members: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for run, ratio in zip(self.runs, self.ratios, strict=True):
            members[self.group(run)][run.chip].append(ratio)
        return {
            name: min(TAILS, key=lambda tail: abs(self._held(name, chips, tail) - PROMISED))
            for name, chips in members.items()
        }

    def _held(self, name: str, chips: Mapping[str, list[float]], tail: float) -> float:
        held, n = 0, 0
        for chip, ratios in chips.items():
            support = self.support(name, tail, without=chip)
            held += sum(bool(support and support.low <= x <= support.high) for x in ratios)
            n += len(ratios)
        return held / n

    def _names(self, run: Run) -> tuple[str, ...]:
        """From the narrowest on. Families have too few chips: a new one falls outside too often."""
        known = run.place.circumstances
        by_age = (f"{known.backend}, {known.era}",) if known.backend in self._aged else ()
        return *by_age, known.backend, EVERYTHING

    @cached_property
    def _aged(self) -> set[str]:
        """Backends of which every age with enough runs has enough chips, too."""
        runs: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for run in self.runs:
            known = run.place.circumstances
            runs[known.backend, known.era].append(run.chip)
        few = {
            backend
            for (backend, _), chips in runs.items()
            if len(chips) >= MIN_RUNS and len(set(chips)) <= MIN_CHIPS
        }
        return {backend for backend, _ in runs} - few

    def _members(self, name: str, without: str | None) -> list[tuple[str, float]]:
        return [(chip, ratio) for chip, ratio in self._by_group.get(name, ()) if chip != without]

    @cached_property
    def _by_group(self) -> dict[str, list[tuple[str, float]]]:
        found: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
        for run, ratio in zip(self.runs, self.ratios, strict=True):
            for name in self._names(run):
                found[name].append((run.chip, ratio))
        return dict(found)
