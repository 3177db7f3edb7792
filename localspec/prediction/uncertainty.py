"""How far a prediction from published runs may be off, by what is known of it.

    log s = sum of causes        low, high = predicted * exp(-quantiles * s)

s scales the errors of runs whose source was left out of the fit, their chip, too, where it counts
as unseen, and what is not older than they are, too, where their engine counts as later. What
engines change that are younger than all runs adds to it in squares, because it has nothing to do
with how well older ones are known. The
quantiles are those of such errors in units of their s, by backend, kind of model and what is known
of the device, so that 80 % of runs lie between them whatever the shape of the errors (conformal
prediction by group, Lei et al. 2018, Vovk 2012).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import exp, hypot
from typing import Any, Self

from localspec.prediction.conditions import UNDATED, RunConditions
from localspec.prediction.rates import Shares, Spread

DEVICE, FAMILY, NEITHER = "device seen", "family seen", "family not seen"
"""What published runs tell of a device."""
LARGEST = 1.0
"""Of s: no interval is wider than what nothing is known of."""
LATER, LATER_ERROR = "later build", 0.2
"""Of a logarithm, what engines change within months: mixtures and hybrids became 1.2 to 1.5 x as
fast on CUDA and Vulkan between April and June 2026."""


def causes(
    run: RunConditions, knows: Callable[[str], bool], shares: Shares
) -> Iterator[tuple[str, float]]:
    """(name, value) of what makes errors larger or smaller. `knows`: is a column supported?"""
    yield "all", 1.0
    yield f"backend {run.backend}", 1.0
    for trait in run.traits:
        yield trait, 1.0
    unseen = {
        "backend": f"backend: {run.backend}",
        "device": _device(run),
        "family": _family(run),
        "weight type": f"backend type: {run.backend}, {run.type_class}",
        **{f"{trait} models": f"{trait} in backend: {run.backend}" for trait in run.traits},
    }
    for what, column in unseen.items():
        if not knows(column):
            yield f"{what.replace('moe', 'mixture')} not seen", 1.0
    if run.era == UNDATED:
        yield "build not known", 1.0
    if run.is_later:
        yield LATER, 1.0
    yield "overhead", shares.overhead
    yield "attention", shares.attention


def known_of(run: RunConditions, knows: Callable[[str], bool]) -> str:
    """The device, or its family, or neither."""
    if knows(_device(run)):
        return DEVICE
    return FAMILY if knows(_family(run)) else NEITHER


def _device(run: RunConditions) -> str:
    return f"device: {run.backend}, {run.chip}"


def _family(run: RunConditions) -> str:
    return f"backend family: {run.backend}, {run.family}"


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Of one test. `quantiles` of log(measured / predicted) over s, by backend, kind of model and
    what is known of the device; a group without its own has those of the wider one."""

    scales: Mapping[str, float]
    quantiles: Mapping[str, tuple[float, float]]

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        quantiles = {name: (low, high) for name, (low, high) in document["quantiles"].items()}
        return cls(document["scales"], quantiles)

    def spread(self, run: RunConditions, knows: Callable[[str], bool], shares: Shares) -> Spread:
        """Factors on a predicted speed."""
        scale = self.scale(run, knows, shares)
        kind = f"{run.backend}, {run.kind}"
        names = (f"{kind}, {known_of(run, knows)}", kind, run.backend, "all")
        low, high = next(self.quantiles[name] for name in names if name in self.quantiles)
        return Spread(exp(-high * scale), exp(-low * scale))

    def scale(self, run: RunConditions, knows: Callable[[str], bool], shares: Shares) -> float:
        found = {name: x for name, x in causes(run, knows, shares) if name != LATER}
        usual = exp(sum(self.scales.get(name, 0.0) * x for name, x in found.items()))
        return min(LARGEST, hypot(usual, LATER_ERROR) if run.is_later else usual)
