"""How often a drafted token stands, learned by its position in the draft and its quality.

    p = (stood + w p0) / (seen + w)

for each quality with the drafter's prior p0, and for each position and quality with the quality's p
as p0. Old evidence fades, so that an estimate follows the text. Each drafted token up to the first
that failed is evidence; those behind it are not, because nobody looked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

POSITIONS = 4
"""Tokens from the fourth on are alike."""
PRIOR_WEIGHT, MEAN_WEIGHT, CELL_WEIGHT = 12.0, 8.0, 9.0
"""How many tokens a prior counts for: of a quality, of all together, of a cell."""
MEMORY = 48.0
"""Tokens of a quality after which evidence has faded to 1 / e."""

CONFIDENCES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)
"""Borders of the qualities of a model's draft, by the probability of its best token."""
MODEL_PRIOR = (0.25, 0.4, 0.5, 0.6, 0.72, 0.82, 0.9, 0.95)
LOOKUP_PRIOR = (
    0.15, 0.21, 0.26, 0.5, 0.27, 0.65, 0.4, 0.75, 0.45, 0.8, 0.55, 0.87, 0.85, 0.95,
)  # fmt: skip
"""Contested and agreed, by `suffix.LENGTHS`: of SmolLM2-135M F16, greedy, on 42 questions."""


def quality_of(confidence: float) -> int:
    """The place of a confidence, 0 to 1, among `CONFIDENCES`."""
    return sum(confidence >= border for border in CONFIDENCES)


@dataclass(slots=True)
class Evidence:
    """Faded counts."""

    stood: float = 0.0
    seen: float = 0.0

    def add(self, stood: bool) -> None:
        keep = 1 - 1 / MEMORY
        self.stood = keep * self.stood + stood
        self.seen = keep * self.seen + 1


@dataclass(slots=True)
class Acceptance:
    """One drafter's, under one way of verification."""

    prior: Sequence[float]
    prior_mean: float = 0.7
    n_seen: int = 0
    all: Evidence = field(default_factory=Evidence)
    by_position: list[Evidence] = field(
        default_factory=lambda: [Evidence() for _ in range(POSITIONS)]
    )
    by_quality: list[Evidence] = field(init=False)
    by_cell: list[Evidence] = field(init=False)
    chances: list[float] = field(init=False)
    """By POSITIONS x quality."""

    def __post_init__(self) -> None:
        n = len(self.prior)
        self.by_quality = [Evidence() for _ in range(n)]
        self.by_cell = [Evidence() for _ in range(POSITIONS * n)]
        self.chances = [*self.prior] * POSITIONS

    def of(self, position: int, quality: int) -> float:
        """The chance of a token that follows `position` others, if those stand."""
        return self.chances[min(position, POSITIONS - 1) * len(self.prior) + quality]

    def at_least(self, position: int, quality: int) -> float:
        """The same, less the standard error of what is known of its quality."""
        chance = self.of(position, quality)
        n = self.by_quality[quality].seen + PRIOR_WEIGHT
        return max(0.0, chance - sqrt(chance * (1 - chance) / n))

    def mean(self) -> float:
        """Of a token of any quality, anywhere."""
        return (self.all.stood + MEAN_WEIGHT * self.prior_mean) / (self.all.seen + MEAN_WEIGHT)

    def at(self, position: int) -> float:
        """The chance of a token of any quality that follows `position` others, if those stand."""
        evidence = self.by_position[min(position, POSITIONS - 1)]
        return (evidence.stood + CELL_WEIGHT * self.mean()) / (evidence.seen + CELL_WEIGHT)

    def learn(self, qualities: Sequence[int], n_stood: int) -> None:
        """Of a draft of these qualities the first `n_stood` tokens stood."""
        for position, quality in enumerate(qualities[: n_stood + 1]):
            self._learn_one(position, quality, position < n_stood)

    def counts(self) -> dict[str, Any]:
        """What was learned, for JSON."""
        return {
            "n_seen": self.n_seen,
            "all": [self.all.stood, self.all.seen],
            "by_position": [[e.stood, e.seen] for e in self.by_position],
            "by_quality": [[e.stood, e.seen] for e in self.by_quality],
            "by_cell": [[e.stood, e.seen] for e in self.by_cell],
        }

    def recall(self, counts: dict[str, Any], share: float) -> None:
        """Start from counts of earlier sessions, of which a `share` still counts."""
        kinds = ("by_position", "by_quality", "by_cell")
        if any(len(counts[kind]) != len(getattr(self, kind)) for kind in kinds):
            return
        self.n_seen = counts["n_seen"]
        self.all = Evidence(share * counts["all"][0], share * counts["all"][1])
        for kind in kinds:
            values = [Evidence(share * stood, share * seen) for stood, seen in counts[kind]]
            setattr(self, kind, values)
        for quality in range(len(self.prior)):
            self._update(quality)

    def _learn_one(self, position: int, quality: int, stood: bool) -> None:
        n = len(self.prior)
        self.n_seen += 1
        self.all.add(stood)
        self.by_position[min(position, POSITIONS - 1)].add(stood)
        self.by_quality[quality].add(stood)
        self.by_cell[min(position, POSITIONS - 1) * n + quality].add(stood)
        self._update(quality)

    def _update(self, quality: int) -> None:
        n, pooled = len(self.prior), self.by_quality[quality]
        base = (pooled.stood + PRIOR_WEIGHT * self.prior[quality]) / (pooled.seen + PRIOR_WEIGHT)
        for cell in range(quality, POSITIONS * n, n):
            evidence = self.by_cell[cell]
            self.chances[cell] = (evidence.stood + CELL_WEIGHT * base) / (
                evidence.seen + CELL_WEIGHT
            )
