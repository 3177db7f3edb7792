"""How far errors agree that share a source, a device or a model: what one run tells of another.

    error = source + device + model + device and model + noise

Every run is predicted without its chip and its source. Products of two errors average to the
variance of what the two share, so each part is a difference of such averages. Products are clipped,
so that a few runs that are wrong by a factor do not decide, and groups count by the root of their
pairs, so that no source does.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from itertools import combinations
from math import sqrt

import numpy as np
from research.efficiency.later import Case

from localspec.prediction.evidence import Spreads

MOST = 0.25
"""Of a product: half a logarithm each."""
MOST_RUNS = 100
"""Of a group."""
LEAST = 0.01
Key = Callable[[Case], Hashable]


def spreads_of(cases: Iterable[Case]) -> Spreads:
    """From errors of runs whose chip and source were left out."""
    known = [case for case in cases if case.leave == "chip"]
    of_pair = _shared(known, lambda c: (_source(c), _device(c), _model(c)), _case)
    of_device = _shared(known, lambda c: (_source(c), _device(c)), _model)
    of_model = _shared(known, lambda c: (_source(c), _model(c)), _device)
    source = _shared(known, _source, lambda c: (_device(c), _model(c)), both=True)
    total = float(np.mean([min(MOST, c.error**2) for c in known]))
    device, model = of_device - source, of_model - source
    pair = of_pair - source - max(0.0, device) - max(0.0, model)
    parts = (source, device, model, pair, total - max(of_pair, of_device))
    return Spreads(*(round(sqrt(max(LEAST**2, part)), 3) for part in parts))


def _shared(cases: list[Case], group: Key, differ: Key, *, both: bool = False) -> float:
    """The mean product of errors of cases that agree in one key and differ in another."""
    groups: defaultdict[Hashable, list[Case]] = defaultdict(list)
    for case in cases:
        groups[group(case)].append(case)
    means: list[tuple[float, float]] = []
    for found in groups.values():
        products = [
            float(np.clip(a.error * b.error, -MOST, MOST))
            for a, b in combinations(found[:MOST_RUNS], 2)
            if _differ(differ(a), differ(b), both=both)
        ]
        if products:
            means.append((float(np.mean(products)), sqrt(len(products))))
    values, weights = np.array(means).T
    return float(values @ weights / weights.sum())


def _differ(one: Hashable, other: Hashable, *, both: bool) -> bool:
    if both and isinstance(one, tuple) and isinstance(other, tuple):
        return all(a != b for a, b in zip(one, other, strict=True))
    return one != other


def _source(case: Case) -> Hashable:
    return case.run.source


def _device(case: Case) -> Hashable:
    return case.run.chip, case.run.conditions.backend


def _model(case: Case) -> Hashable:
    return round(case.run.shape.n_params / 1e7), round(case.run.file_bytes / 5e7)


def _case(case: Case) -> Hashable:
    return case.run.depth, case.run.n_tokens, case.run.conditions.cache
