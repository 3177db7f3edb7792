"""The shipped constants: columns of the fit, intervals and what they rest on, and v(n).

`scripts/research/run fit-efficiency` writes efficiency.json from published runs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from math import exp
from typing import Any, Self

from localspec.format import count
from localspec.hardware.probe_results import Curve
from localspec.prediction.conditions import Part, RunConditions, of_part, whole
from localspec.prediction.evidence import Spreads
from localspec.prediction.rates import Shares, Spread, Test
from localspec.prediction.uncertainty import Uncertainty
from localspec.prediction.widths import dense_curve, expert_curve, weight_curve


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Fitted to one test; names are "kind: name"."""

    values: Mapping[str, float]
    floors: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of a part's base, what it takes at least: weights stream little faster than rated."""

    def factor(self, run: RunConditions, part: Part) -> float:
        """How much longer than its base a part takes; what is not known changes nothing."""
        known = self.values
        columns = (*whole(run), *of_part(run, part))
        varying = exp(sum(x * known.get(f"{kind}: {name}", 0.0) for kind, name, x in columns))
        floor = self.floors.get(part, 0.0)
        return floor + (1 - floor) * varying


@dataclass(frozen=True, slots=True)
class Support:
    """What the constants of a backend rest on."""

    n_runs: int
    n_devices: int


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The fitted data file. `backends`: what its predictions rest on, by test and backend."""

    coefficients: Mapping[Test, Coefficients]
    uncertainty: Mapping[Test, Uncertainty]
    backends: Mapping[Test, Mapping[str, Support]]
    verify: Mapping[str, Mapping[str, float]]
    shared: Mapping[Test, Spreads]
    """How far runs of one source, device and model agree."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        tests: tuple[Test, ...] = ("decode", "prefill")
        return cls(
            {test: Coefficients(**document[test]) for test in tests},
            {test: Uncertainty.from_json(document["uncertainty"][test]) for test in tests},
            {
                test: {name: Support(*entry) for name, entry in document["backends"][test].items()}
                for test in tests
            },
            document["verify"],
            {test: Spreads(**document["shared"][test]) for test in tests},
        )

    def spread(self, test: Test, run: RunConditions, shares: Shares) -> Spread:
        """Factors on a predicted speed between which 80 % of measured ones lie."""
        known = self.coefficients[test].values
        return self.uncertainty[test].spread(run, known.__contains__, shares)

    def source(self, run: RunConditions) -> str:
        """What a prediction of decoding rests on, in a few words."""
        known = self.coefficients["decode"].values
        support = self.backends["decode"].get(run.backend)
        if support is None:
            return f"published runs of other backends: none is known of {run.backend}"
        if f"device: {run.backend}, {run.chip}" in known:
            nearest = "this device among them"
        elif f"backend family: {run.backend}, {run.family}" in known:
            nearest = f"{run.family} among them"
        else:
            nearest = f"none of {run.family}"
        return (
            f"{count(support.n_runs, 'published run')} of {count(support.n_devices, 'device')}"
            f" with {run.backend}, {nearest}"
        )

    def verify_curve(self, run: RunConditions, part: Part) -> Curve:
        """T(n) / T(1) of small batches; of experts beyond the bytes that more of them take."""
        if part == "experts":
            return expert_curve(self.verify["experts"], run)
        if part == "weights":
            return weight_curve(self.verify["dense"], run)
        return dense_curve(self.verify["dense"], run)


@cache
def load() -> Efficiency:
    """The shipped constants."""
    text = (resources.files("localspec.prediction") / "efficiency.json").read_text("utf-8")
    return Efficiency.from_json(json.loads(text))
