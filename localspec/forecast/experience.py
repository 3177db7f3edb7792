"""What models that ran on this machine took beside their predictions, and what that corrects.

    log factor = sum of w log(measured / predicted seconds) / (sum of w + HELD)

One entry a model, its latest; a model's own run counts `OWN` times. A factor is held to 1 by
`HELD` runs' worth of trust in the probe. Runs are kept by machine, engine build and setting, as
probes are.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import exp, isfinite, log
from statistics import median
from typing import Any, Self

from localspec import paths
from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_fingerprint
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting
from localspec.format import percent
from localspec.hardware.machine import machine_key
from localspec.model.facts import ModelFacts
from localspec.store import Kept, hashed

HELD, OWN = 2.0, 4.0
MOST = log(2.0)
"""Of one run's logarithm: a machine that was busy then says little."""
MAX_MODELS = 64


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
        own = _key(facts)
        weights = {name: OWN if name == own else 1.0 for name in self.ratios}
        found = sum(
            w * max(-MOST, min(MOST, log(self.ratios[name]))) for name, w in weights.items()
        )
        return exp(found / (sum(weights.values()) + HELD))

    def with_run(self, facts: ModelFacts, ratio: float) -> Self:
        """With a model's latest run; the oldest ones are forgotten."""
        others = {name: known for name, known in self.ratios.items() if name != _key(facts)}
        recent = dict([*others.items(), (_key(facts), ratio)][-MAX_MODELS:])
        return type(self)(recent)


def experience_of(setting: ProbeSetting) -> Experience:
    """What runs here with this engine and setting taught; nothing yet is an empty one."""
    return _kept(setting).load() or Experience()


def remember(config: EngineConfig, facts: ModelFacts, predicted_s: float, taken_s: float) -> None:
    """Keep what a plain pass took; a failing disk teaches nothing."""
    if predicted_s <= 0 or taken_s <= 0:
        return
    where = GRAPHICS if config.settings.gpu_layers else PROCESSOR
    kept = _kept(ProbeSetting(config.n_threads, where, config.settings.repack))
    with suppress(OSError):
        kept.save((kept.load() or Experience()).with_run(facts, taken_s / predicted_s))


def _key(facts: ModelFacts) -> str:
    return f"{facts.name or facts.path.rpartition('/')[2]}, {facts.file_type}, {facts.n_params}"


def _kept(setting: ProbeSetting) -> Kept[Experience]:
    parts = f"{machine_key()} {engine_fingerprint()} {setting.text} {setting.n_gpu_layers}"
    folder = paths.cache_dir() / "experience"
    return Kept(hashed(folder, parts), Experience.from_json, Experience.to_json)
