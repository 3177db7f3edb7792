"""How likely a drafted token is accepted, by drafter and by how sure the drafter was of it.

Each confidence bin of each drafter has a Beta posterior,

    mean = (accepted + w p0) / (judged + w),   sd = sqrt(mean (1 - mean) / (judged + w + 1)),

with a measured prior p0 that counts for w tokens. Old evidence fades, so that a chance follows the
text. Each drafted token up to the first that failed is evidence; those behind it are not, because
nobody looked. It does not know that two tokens of one draft may fail for the same reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

PRIOR_WEIGHT = 8.0
"""Tokens that a prior counts for."""
MEMORY = 48.0
"""Tokens of a bin after which evidence has faded to 1 / e."""

CONFIDENCES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)
"""Borders between the bins of a model's draft, by the probability of its best token."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Chances of a drafter's bins, and of a token whatever its bin."""

    bins: tuple[float, ...] = ()
    any_bin: float = 0.6


PRIORS = {
    "lookup": Prior(
        (0.15, 0.21, 0.26, 0.5, 0.27, 0.65, 0.4, 0.75, 0.45, 0.8, 0.55, 0.87, 0.85, 0.95), 0.5
    ),
    "model": Prior((0.25, 0.4, 0.5, 0.6, 0.72, 0.82, 0.9, 0.95), 0.7),
}
"""By drafter; another begins at `Prior()`. Lookup: matches that are contested and agreed, by their
lengths, of SmolLM2-135M F16, greedy, on 42 questions."""


def confidence_bin(probability: float) -> int:
    """The place of a probability, 0 to 1, among `CONFIDENCES`."""
    return sum(probability >= border for border in CONFIDENCES)


@dataclass(slots=True)
class Beta:
    """A posterior from faded counts."""

    prior: float
    accepted: float = 0.0
    judged: float = 0.0

    def add(self, *, accepted: bool) -> None:
        self.accepted += accepted - self.accepted / MEMORY
        self.judged += 1 - self.judged / MEMORY

    @property
    def mean(self) -> float:
        return (self.accepted + PRIOR_WEIGHT * self.prior) / (self.judged + PRIOR_WEIGHT)

    def hoped(self, kappa: float) -> float:
        """The mean and `kappa` standard deviations more, below 1."""
        mean = self.mean
        sd = sqrt(mean * (1 - mean) / (self.judged + PRIOR_WEIGHT + 1))
        return min(0.98, mean + kappa * sd)


class Chances:
    """One drafter's, under one law of verification."""

    def __init__(self, prior: Prior) -> None:
        self.any_bin = Beta(prior.any_bin)
        self.bins = [Beta(chance) for chance in prior.bins]
        self.means = list(prior.bins)
        self.n_judged = 0

    def of(self, confidences: Sequence[int], n: int) -> list[float]:
        """The chance of each of `n` drafted tokens; `confidences` is empty where none is known."""
        means = self.means
        return [means[c] for c in confidences[:n]] if confidences else [self.any_bin.mean] * n

    def learn(self, confidences: Sequence[int], n_drafted: int, n_accepted: int) -> None:
        """Of a draft the first `n_accepted` tokens were accepted."""
        for i in range(min(n_drafted, n_accepted + 1)):
            accepted = i < n_accepted
            self.n_judged += 1
            self.any_bin.add(accepted=accepted)
            if confidences:
                c = confidences[i]
                self.bins[c].add(accepted=accepted)
                self.means[c] = self.bins[c].mean

    def counts(self) -> dict[str, Any]:
        """What was learned, for JSON."""
        return {
            "n_judged": self.n_judged,
            "any": [self.any_bin.accepted, self.any_bin.judged],
            "bins": [[b.accepted, b.judged] for b in self.bins],
        }

    def recall(self, counts: dict[str, Any], share: float) -> None:
        """Start from counts of earlier sessions, of which a `share` still counts."""
        if len(counts["bins"]) != len(self.bins):
            return
        self.n_judged = counts["n_judged"]
        both = zip([self.any_bin, *self.bins], [counts["any"], *counts["bins"]], strict=True)
        for beta, (accepted, judged) in both:
            beta.accepted, beta.judged = share * accepted, share * judged
        self.means = [beta.mean for beta in self.bins]
