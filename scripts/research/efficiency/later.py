"""How much engines change within months: what predictions for younger ones miss beside the rest.

A run is predicted twice: without its chip and source, and also without every run of its own month
and later ones. The mean difference of the squared errors, by pairs of a chip and a source, is what
the months add. Few pairs and months tell it, so it is taken as large as it may well be, and that of
a backend is held to that of all. Predictions on processors know no date, so nothing is added.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from research.efficiency.regression import Leave
from research.efficiency.runs import Run

from localspec.prediction.rates import Shares
from localspec.prediction.uncertainty import ANYWHERE

SURE = 1.28
"""Standard errors above the mean: nine in ten."""
HELD = 4.0
"""Pairs' worth of trust in all backends beside one's own."""
MOST = 1.0
"""Of a squared error: one run that is wrong by a factor shall not decide."""
Groups = defaultdict[str, defaultdict[tuple[str, str], list[float]]]


@dataclass(frozen=True, slots=True)
class Case:
    """A run as it was predicted, and the error: log(measured / predicted seconds)."""

    run: Run
    shares: Shares
    error: float
    leave: Leave


def changes_of(cases: Sequence[Case]) -> dict[str, float]:
    """In logarithms, by backend."""
    means = {
        name: np.array([np.mean(of_pair) for of_pair in pairs.values()])
        for name, pairs in _added(cases).items()
    }
    everywhere = means.get(ANYWHERE, np.zeros(1))
    deviation = float(np.std(everywhere))
    most = {name: _most(x, deviation) for name, x in means.items()}
    of_all = most.get(ANYWHERE, 0.0)
    found = {
        name: sqrt((len(means[name]) * square + HELD * of_all) / (len(means[name]) + HELD))
        for name, square in most.items()
    }
    found |= {"cpu": 0.0, ANYWHERE: sqrt(of_all)}
    return {name: round(x, 4) for name, x in sorted(found.items())}


def _most(squares: np.ndarray, deviation: float) -> float:
    return max(0.0, float(squares.mean()) + SURE * deviation / sqrt(len(squares)))


def _added(cases: Sequence[Case]) -> Groups:
    """To the squares of the errors, by backend and pair."""
    usual = {_key(case): case.error for case in cases if case.leave == "chip"}
    found: Groups = defaultdict(lambda: defaultdict(list))
    for case in cases:
        if case.leave == "later" and (before := usual.get(_key(case))) is not None:
            added = min(MOST, case.error**2) - min(MOST, before**2)
            for name in (ANYWHERE, case.run.conditions.backend):
                found[name][case.run.chip, case.run.source].append(added)
    return found


def _key(case: Case) -> tuple[str, str, int, float]:
    return case.run.chip, case.run.source, case.run.row, case.run.tokens_per_s
