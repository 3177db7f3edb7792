"""Intervals of measured over predicted speed, wide enough to hold 4 of 5 runs of unseen devices.

The errors of chips that were left out of the fit give the quantiles, by the narrowest group that
has enough of them. Chips differ by more than the runs of one chip do, so plain 10 % quantiles hold
too few runs of a new chip; the tail is chosen by backend so that chips left out once more are held
as often as promised.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from _runs import Run

from localspec.predict.efficiency import Support

MIN_RUNS, MIN_CHIPS = 20, 5
"""Of a group that gets an interval of its own."""
TAILS = (0.10, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01)
PROMISED = 0.8


def groups_of(run: Run) -> tuple[str, ...]:
    """From the narrowest on. Families have too few chips: a new one falls outside too often."""
    return run.circumstances.backend, "all"


@dataclass(frozen=True, slots=True)
class Errors:
    """Measured over predicted speed of runs whose chip the fit did not see."""

    runs: tuple[Run, ...]
    ratios: tuple[float, ...]

    def support(self, name: str, tail: float, without: str | None = None) -> Support | None:
        """The interval of a group, without a chip; None where too little is left."""
        chosen = [
            (run.chip, ratio)
            for run, ratio in zip(self.runs, self.ratios, strict=True)
            if run.chip != without and name in groups_of(run)
        ]
        n_chips = len({chip for chip, _ in chosen})
        if len(chosen) < MIN_RUNS or n_chips < MIN_CHIPS:
            return None
        ratios = [ratio for _, ratio in chosen]
        low, high = (round(float(np.quantile(ratios, share)), 4) for share in (tail, 1 - tail))
        return Support(len(chosen), n_chips, low, high)

    def of(self, run: Run, tail: float) -> Support:
        """What a run is promised by other chips."""
        found = (self.support(name, tail, without=run.chip) for name in groups_of(run))
        return next(support for support in found if support)

    def tails(self) -> dict[str, float]:
        """By backend, the tail whose intervals hold nearest to 80 % of runs of unseen chips."""
        chips: defaultdict[str, dict[tuple[str, ...], list[float]]] = defaultdict(dict)
        examples: dict[tuple[str, ...], Run] = {}
        for run, ratio in zip(self.runs, self.ratios, strict=True):
            key = run.chip, *groups_of(run)
            examples[key] = run
            chips[run.circumstances.backend].setdefault(key, []).append(ratio)
        return {
            backend: min(TAILS, key=lambda tail: abs(_held(self, examples, by, tail) - PROMISED))
            for backend, by in chips.items()
        }

    def groups(self) -> Iterable[str]:
        return sorted({name for run in self.runs for name in groups_of(run)})


def _held(
    errors: Errors,
    examples: dict[tuple[str, ...], Run],
    ratios: dict[tuple[str, ...], list[float]],
    tail: float,
) -> float:
    held, n = 0, 0
    for key, values in ratios.items():
        support = errors.of(examples[key], tail)
        held += sum(support.low <= ratio <= support.high for ratio in values)
        n += len(values)
    return held / n
