"""How far a prediction from published runs may be off, by what is known of it.

    s^2 = exp(2 * sum of causes) + floor^2        low, high = predicted * exp(-quantiles * s)

s scales the errors of runs whose source was left out of the fit, their chip, too, where it counts
as unseen. Two unknowns add to it in squares, because they have nothing to do with how well other
runs are known: what engines change that are younger than all runs, and how engines of an age treat
a kind of model on a backend, as far as few pairs of a chip and a source have shown it (n of them,
no two of one chip or source):

    untried^2 = 1 / (1 / UNTRIED^2 + n / s^2)

What errors of that kind on that backend alone say counts n / (n + 1), and a backend, or a family on
it, is unseen by 1 / (n + 1): one source's runs on one chip tell their habits and the backend's in
one, and each further pair brings the nearest chip that is known closer. The quantiles
are those of such errors in units of their s, by backend and kind of model, so that 80 % of runs lie
between them whatever the shape of the errors (conformal prediction by group, Lei et al. 2018, Vovk
2012).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import exp, hypot
from typing import Any, Self

from localspec.prediction.conditions import UNDATED, RunConditions
from localspec.prediction.rates import Shares, Spread

UNTRIED = 0.2
"""A logarithm: of what a kind of model may take where no engine of the age has shown it."""
LARGEST = 1.5
"""Of s: no interval is wider than what nothing is known of."""
EVERY_HEAD = "latent attention not seen"
"""By the share of attention: a kernel may read the one cache of all heads anew for every head."""
BEYOND = ("backend not seen", "mla models not seen", EVERY_HEAD)
"""Causes that few backends and models have shown: they raise the floor, too."""
ANYWHERE = "all"
"""Stands for every backend that has too few runs of its own."""


@dataclass(frozen=True, slots=True)
class Known:
    """What there is of a prediction's conditions: is a column of the fit supported, and how many
    pairs of a chip and a source, no two of one chip or source, ran its sort, its backend and its
    family."""

    column: Callable[[str], bool]
    n_of_sort: int
    n_on_backend: int
    n_of_family: int


def causes(run: RunConditions, known: Known, shares: Shares) -> Iterator[tuple[str, float]]:
    """(name, value) of what makes errors larger or smaller."""
    knows, n_pairs = known.column, known.n_of_sort
    yield "all", 1.0
    yield f"backend {run.backend}", 1.0
    yield f"{run.backend}, {run.kind}", n_pairs / (n_pairs + 1)
    yield "backend not seen", 1 / (known.n_on_backend + 1)
    yield "family not seen", 1 / (known.n_of_family + 1)
    for trait in run.traits:
        yield trait, 1.0
    unseen = {
        "device": f"device: {run.backend}, {run.chip}",
        "weight type": f"backend type: {run.backend}, {run.type_class}",
        **{f"{trait} models": f"{trait} in backend: {run.backend}" for trait in run.traits},
    }
    for what, column in unseen.items():
        if not knows(column):
            yield f"{what.replace('moe', 'mixture')} not seen", 1.0
    if "mla" in run.traits and not knows(f"mla in backend: {run.backend}"):
        yield EVERY_HEAD, shares.attention
    if run.era == UNDATED:
        yield "build not known", 1.0
    yield "overhead", shares.overhead
    yield "attention", shares.attention


def untried(run: RunConditions, n_pairs: int, usual: float) -> float:
    """A logarithm beside errors of the `usual` scale. Processors and undated engines have none: no
    column knows their date."""
    if run.backend == "cpu" or run.era == UNDATED:
        return 0.0
    return (UNTRIED**-2 + n_pairs / usual**2) ** -0.5


def family_column(run: RunConditions) -> str:
    """The column of a family on a backend, under which its pairs are counted."""
    return f"backend family: {run.backend}, {run.family}"


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Of one test. `quantiles` of log(measured / predicted) over s, by backend and kind of model; a
    group without its own has those of the wider one. `later`: logarithms that engines change within
    months, by backend. `pairs`: of a chip and a source, by sort, backend and family on it. `thin`:
    columns of one source. `floor`: what sources disagree about in squares beside all causes."""

    scales: Mapping[str, float]
    quantiles: Mapping[str, tuple[float, float]]
    later: Mapping[str, float]
    pairs: Mapping[str, int]
    thin: frozenset[str] = frozenset()
    floor: float = 0.0

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        quantiles = {name: (low, high) for name, (low, high) in document["quantiles"].items()}
        thin = frozenset(document["thin"])
        later, pairs, floor = document["later"], document["pairs"], document["floor"]
        return cls(document["scales"], quantiles, later, pairs, thin, floor)

    def spread(self, run: RunConditions, knows: Callable[[str], bool], shares: Shares) -> Spread:
        """Factors on a predicted speed."""
        scale = self.scale(run, knows, shares)
        names = (f"{run.backend}, {run.kind}", run.backend, ANYWHERE)
        low, high = next(self.quantiles[name] for name in names if name in self.quantiles)
        return Spread(exp(-high * scale), exp(-low * scale))

    def scale(self, run: RunConditions, knows: Callable[[str], bool], shares: Shares) -> float:
        known = Known(
            lambda column: column not in self.thin and knows(column),
            self.pairs.get(run.sort, 0),
            self.pairs.get(run.backend, 0),
            self.pairs.get(family_column(run), 0),
        )
        found = {name: self.scales.get(name, 0.0) * x for name, x in causes(run, known, shares)}
        beyond = sum(found.pop(name, 0.0) for name in BEYOND)
        usual = exp(beyond) * hypot(exp(sum(found.values())), self.floor)
        change = self.later.get(run.backend, self.later[ANYWHERE]) if run.is_later else 0.0
        return min(LARGEST, hypot(usual, change, untried(run, known.n_of_sort, usual)))
