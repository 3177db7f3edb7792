"""Runs that somebody measured, and what they change in a prediction: of the same machine, and of
the same model elsewhere.

A run names its model by file, weights and bytes. Its facts are those of the model in question where
both agree, else the nearest that is known.

Every run is put beside what is predicted for its device. What runs of the machine have in common,
what runs of the model have in common on others, and how far few runs can be trusted, is
`prediction.evidence`.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import isclose, log
from pathlib import Path
from statistics import median

from localspec.forecast.known_models import NEAR_BYTES, NEAR_PARAMS, nearest_facts
from localspec.format import count, percent
from localspec.hardware.devices import Device, Match, match_reported
from localspec.model.facts import ModelFacts
from localspec.prediction.evidence import Correction, Evidence, Spreads, correction
from localspec.prediction.published import PublishedRates
from localspec.prediction.rates import (
    Corrected,
    IdealRates,
    Rates,
    Shares,
    Spread,
    Test,
    rates_for,
)
from localspec.prediction.roofline import Roofline, Share
from localspec.settings import Attention

TARGET = "the machine in question"
MOST_RUNS = 300


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """Plain decoding or reading of one sequence. `machine_key`: of ours, else empty.

    `predicted_per_s`: what was predicted there, None where that is not known. `file`: the model's,
    which need not be here.
    """

    source: str
    device: str
    backend: str
    file: str
    n_params: int
    weight_bytes: int
    type: str
    test: Test
    n_tokens: int
    depth: int
    attention: Attention
    tokens_per_s: float
    predicted_per_s: float | None = None
    machine_key: str = ""

    @property
    def table_device(self) -> Device | None:
        """The device by its published figures; None for a processor or an unknown one."""
        found = match_reported(self.device).device
        return found if found and found.kind != "cpu" and self.backend != "cpu" else None

    @property
    def text(self) -> str:
        """For people."""
        test = f"tg{self.n_tokens}" if self.test == "decode" else f"pp{self.n_tokens}"
        depth = f" @ d{self.depth}" if self.depth else ""
        return f"{Path(self.file).stem} {test}{depth} on {self.device}"

    def is_of(self, other: "ModelFacts | MeasuredRun") -> bool:
        """Whether its model is this one or that of another run, in this quantization."""
        return isclose(self.n_params, other.n_params, rel_tol=NEAR_PARAMS) and isclose(
            self.weight_bytes, other.weight_bytes, rel_tol=NEAR_BYTES
        )

    def facts(self, models: Sequence[ModelFacts]) -> ModelFacts:
        """Of its model, the nearest that is known; `models` are those in question."""
        asked = next((facts for facts in models if self.is_of(facts)), None)
        return asked or nearest_facts(self.file, self.n_params, self.weight_bytes, self.type)


@dataclass(frozen=True, slots=True)
class NominalRates(IdealRates):
    """A device of which nothing is published: its runs say how much faster or slower it is."""

    def spread(self, test: Test, shares: Shares) -> Spread:
        """Of what published devices of one family differ by."""
        return Spread(0.6, 1.6)


NOMINAL = NominalRates(1e11, 2e12, "its own runs alone")


@dataclass(frozen=True, slots=True)
class RestingRun:
    """A run that a prediction rests on, and what was predicted for it without it."""

    run: MeasuredRun
    predicted_per_s: float
    is_of_machine: bool
    is_of_model: bool


@dataclass(frozen=True)
class Corrections:
    """What runs say of one machine. `models`: those in question, the target first."""

    runs: tuple[RestingRun, ...] = ()
    evidence: dict[Test, list[Evidence]] = field(default_factory=dict[Test, list[Evidence]])
    spreads: dict[Test, Spreads] = field(default_factory=dict[Test, Spreads])
    is_rough: bool = False
    models: tuple[ModelFacts, ...] = ()

    @classmethod
    def of(
        cls,
        runs: Sequence[MeasuredRun],
        rates: Rates,
        is_here: Callable[[MeasuredRun], bool],
        models: Sequence[ModelFacts],
        spreads: dict[Test, Spreads],
    ) -> "Corrections":
        """`is_here`: whether a run is of the machine with these `rates`."""
        resting: list[RestingRun] = []
        evidence: dict[Test, list[Evidence]] = defaultdict(list)
        labels = _Labels(models)
        for run in _distinct(runs):
            own = is_here(run)
            per_s, is_rough = _predicted(run, rates if own else None, models)
            label = labels.of(run)
            resting.append(RestingRun(run, per_s, own, run.is_of(models[0])))
            known = run.table_device
            device = TARGET if own else f"{run.backend}, {known.name if known else run.device}"
            ratio = log(per_s / run.tokens_per_s)
            evidence[run.test].append(Evidence(run.source, device, label, ratio, is_rough))
        return cls(tuple(resting), dict(evidence), spreads, rates is NOMINAL, tuple(models))

    def with_evidence(self, more: Sequence[Evidence]) -> "Corrections":
        """With what ran here before: decoding."""
        known = [replace(each, device=TARGET) for each in more]
        return replace(self, evidence={**self.evidence, "decode": [*self._of("decode"), *known]})

    def _of(self, test: Test) -> list[Evidence]:
        return self.evidence.get(test, [])

    def correction(self, facts: ModelFacts, test: Test) -> Correction:
        """Of a test of a model on the machine."""
        known = self._of(test)
        source = known[0].source if known else ""
        label = _Labels(self.models).of_facts(facts)
        wanted = Evidence(source, TARGET, label, is_rough=self.is_rough)
        return correction(known[-MOST_RUNS:], wanted, self.spreads[test])

    def corrected(self, facts: ModelFacts, rates: Rates) -> Rates:
        """Rates with what the runs taught; decoding's factor stands in where no prompt was read."""
        decode, prompts = (self.correction(facts, test) for test in ("decode", "prefill"))
        prompt_factor = prompts.factor if self._of("prefill") else decode.factor
        return Corrected(rates, decode.factor, prompt_factor, (decode.unknown, prompts.unknown))

    def factor(self, facts: ModelFacts) -> float:
        """On predicted seconds of decoding."""
        return self.correction(facts, "decode").factor

    @property
    def notes(self) -> tuple[str, ...]:
        """What a prediction says of it."""
        if not self.runs or not self.models:
            return ()
        own = sum(each.is_of_machine for each in self.runs)
        others = sum(each.is_of_model and not each.is_of_machine for each in self.runs)
        found = self.correction(self.models[0], "decode")
        side = "longer" if found.factor > 1 else "less"
        return (
            f"corrected by {count(len(self.runs), 'measured run')}, {own} of this machine and"
            f" {others} of this model elsewhere: {percent(abs(found.factor - 1))} {side} a token",
        )


class _Labels:
    """One name for all files of one model in one quantization."""

    def __init__(self, models: Sequence[ModelFacts]) -> None:
        self._models = models
        self._runs: list[MeasuredRun] = []

    def of_facts(self, facts: ModelFacts) -> str:
        known = next((i for i, each in enumerate(self._models) if each == facts), None)
        return f"{facts.n_params}, {facts.weight_bytes}" if known is None else f"asked {known}"

    def of(self, run: MeasuredRun) -> str:
        asked = next((i for i, facts in enumerate(self._models) if run.is_of(facts)), None)
        if asked is not None:
            return f"asked {asked}"
        known = next((each for each in self._runs if run.is_of(each)), None)
        if known is None:
            self._runs.append(run)
        return f"{(known or run).n_params}, {(known or run).weight_bytes}"


def _predicted(
    run: MeasuredRun, rates: Rates | None, models: Sequence[ModelFacts]
) -> tuple[float, bool]:
    """Tokens per second by the rates of the machine in question, by published ones, or by what was
    predicted then; and whether that is rough."""
    device = run.table_device
    is_processor = rates is None and device is None
    if run.predicted_per_s and (is_processor or _is_probed(rates)):
        return run.predicted_per_s, False
    if rates is None and device:
        rates = PublishedRates.of(Match((device,)), run.backend)
    is_rough = rates is None or rates is NOMINAL
    facts = run.facts(models)
    used = rates_for(facts, rates or NOMINAL)
    roofline = Roofline(facts, (Share(used, facts.n_layers),), run.attention)
    if run.test == "prefill":
        return roofline.prefill(run.n_tokens, run.depth).mid, is_rough
    return roofline.decode(run.depth + run.n_tokens // 2).mid, is_rough


def _is_probed(rates: Rates | None) -> bool:
    return rates is not None and not isinstance(rates, PublishedRates | NominalRates)


def _distinct(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """One for each case: that of the median speed."""
    cases: defaultdict[MeasuredRun, list[MeasuredRun]] = defaultdict(list)
    for run in runs:
        cases[replace(run, tokens_per_s=0.0, predicted_per_s=None)].append(run)
    found: list[MeasuredRun] = []
    for case in cases.values():
        speed = median(run.tokens_per_s for run in case)
        found.append(replace(case[-1], tokens_per_s=speed))
    return found
