"""What models that ran on this machine took beside their predictions, and what that corrects.

One entry a model, its latest. `prediction.evidence` makes a factor of them: one model moves others
a third of the way, its own run two thirds. Runs are kept by machine, engine build, setting and the
probe that they were put beside: one that is measured again starts anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite, log
from statistics import median
from typing import Any, Self

from localspec.engine.base import EngineConfig
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe
from localspec.format import percent
from localspec.model.facts import ModelFacts
from localspec.prediction.evidence import PROBED, Evidence, correction
from localspec.prediction.rates import Corrected, Rates
from localspec.store import Kept

MOST = log(2.0)
"""Of one run's logarithm: a machine that was busy then says little."""
MAX_MODELS = 64
HERE, ANOTHER = "this machine", "another model"


@dataclass(frozen=True, slots=True)
class Experience:
    """`ratios`: measured over predicted seconds of plain decoding, by model."""

    ratios: Mapping[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError where it is none."""
        ratios = {str(name): float(ratio) for name, ratio in document["ratios"].items()}
        if not all(isfinite(ratio) and ratio > 0 for ratio in ratios.values()):
            raise ValueError("ratios are positive")
        return cls(ratios)

    def to_json(self) -> dict[str, Any]:
        return {"ratios": dict(self.ratios)}

    @property
    def n_models(self) -> int:
        return len(self.ratios)

    @property
    def runs(self) -> tuple[()]:
        """Only their ratios are kept."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a prediction says of it."""
        if not self.ratios:
            return ()
        typical = percent(abs(1 - median(self.ratios.values())))
        side = "longer" if median(self.ratios.values()) > 1 else "less"
        return (
            f"corrected by what ran here: {self.n_models} model{'s' * (self.n_models != 1)},"
            f" {typical} {side} than the probe says",
        )

    def factor(self, facts: ModelFacts) -> float:
        """On the seconds that a probe predicts."""
        name = model_key(facts)
        return _factor(tuple(self.ratios.items()), name if name in self.ratios else ANOTHER)

    def corrected(self, facts: ModelFacts, rates: Rates) -> Rates:
        """Rates with what ran here."""
        return Corrected(rates, self.factor(facts))

    @property
    def evidence(self) -> list[Evidence]:
        """One for each model."""
        return _evidence(tuple(self.ratios.items()))

    def with_run(self, facts: ModelFacts, ratio: float) -> Self:
        """With a model's latest run; the oldest ones are forgotten."""
        others = {name: known for name, known in self.ratios.items() if name != model_key(facts)}
        recent = dict([*others.items(), (model_key(facts), ratio)][-MAX_MODELS:])
        return type(self)(recent)


def _evidence(ratios: tuple[tuple[str, float], ...]) -> list[Evidence]:
    return [Evidence(HERE, HERE, name, max(-MOST, min(MOST, log(ratio)))) for name, ratio in ratios]


@lru_cache(maxsize=256)
def _factor(ratios: tuple[tuple[str, float], ...], name: str) -> float:
    """The same for all models that did not run here."""
    return correction(_evidence(ratios), Evidence(HERE, HERE, name), PROBED).factor


def experience_of(setting: ProbeSetting) -> Experience:
    """What runs here with this engine and setting taught; nothing yet is an empty one."""
    return _kept(setting).load() or Experience()


def remember(config: EngineConfig, facts: ModelFacts, predicted_s: float, taken_s: float) -> None:
    """Keep what a plain pass took."""
    if predicted_s <= 0 or taken_s <= 0:
        return
    where = GRAPHICS if config.settings.gpu_layers else PROCESSOR
    kept = _kept(ProbeSetting(config.n_threads, where, config.settings.repack))
    kept.save((kept.load() or Experience()).with_run(facts, taken_s / predicted_s))


def model_key(facts: ModelFacts) -> str:
    """One text for one model in one quantization."""
    return f"{facts.name or facts.path.rpartition('/')[2]}, {facts.file_type}, {facts.n_params}"


def _kept(setting: ProbeSetting) -> Kept[Experience]:
    probe = kept_probe(setting)
    parts = f"{setting.key} {probe.pass_s} {probe.layer_s}" if probe else setting.key
    return Kept.of(Experience, "experience", parts)
