"""How likely a drafted token is accepted, by drafter and by how sure the drafter was of it.

Each confidence bin of each drafter has a Beta posterior,

    mean = (accepted + w p0) / (judged + w),   sd = sqrt(mean (1 - mean) / (judged + w + 1)),

with a measured prior p0 that counts for w tokens. Old evidence fades, so that a chance follows the
text. Each drafted token up to the first that failed is evidence, and so is the next guess where it
was not worth verifying; those behind are not, because nobody looked. It does not know that two
tokens of one draft may fail for the same reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import sqrt
from operator import mul
from typing import Any

from localspec.decode.costs import PassCosts
from localspec.decode.drafters import N_CONFIDENCES
from localspec.model.facts import HEAD_METHODS
from localspec.prediction.speculation import HEAD_DRAFT, HEAD_SHARE, acceptance_of

PRIOR_WEIGHT = 12.0
"""Tokens that a prior counts for."""
MEMORY = 48.0
"""Tokens of a bin after which evidence has faded to 1 / e."""
LARGEST = 0.98
"""No draft is hoped to be right for ever."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Chances of a drafter's bins, and of a token whatever its bin."""

    bins: tuple[float, ...]
    of_any: float


_BY_PROBABILITY = (0.25, 0.4, 0.5, 0.6, 0.72, 0.82, 0.9, 0.95)
PRIORS = {
    "lookup": Prior(
        (0.15, 0.21, 0.26, 0.5, 0.27, 0.65, 0.4, 0.75, 0.45, 0.8, 0.55, 0.87, 0.85, 0.95), 0.5
    ),
    "forced": Prior((0.95,), 0.95),
    "model": Prior(_BY_PROBABILITY, 0.7),
    **dict.fromkeys(HEAD_METHODS, Prior(_BY_PROBABILITY, acceptance_of(HEAD_SHARE, HEAD_DRAFT))),
}
"""What was measured of drafters; the others begin with even chances. Lookup: matches that are
contested and agreed, by their lengths, of SmolLM2-135M F16, greedy, on 42 questions. Heads: what
public runs of them came to; their bins are the draft model's."""


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

    def less(self, n_sd: float) -> float:
        """The mean less so many standard deviations."""
        mean = self.mean
        sd = sqrt(mean * (1 - mean) / (self.judged + PRIOR_WEIGHT + 1))
        return max(0.0, min(LARGEST, mean - n_sd * sd))


class Chances:
    """One drafter's, under one law of verification."""

    def __init__(self, source: str) -> None:
        prior = PRIORS.get(source) or Prior((0.5,) * N_CONFIDENCES[source], 0.5)
        self.n_judged = 0
        self._of_any = Beta(prior.of_any)
        self._bins = [Beta(chance) for chance in prior.bins]
        self.means = list(prior.bins)
        """The chance of a token, by its confidence."""

    @property
    def mean(self) -> float:
        """The chance of a token that is not drafted yet."""
        return self._of_any.mean

    def reach(self, confidences: Sequence[int]) -> list[float]:
        """For each token of a draft, the chance that it is accepted with all before it."""
        return list(accumulate([self.means[c] for c in confidences], mul))

    def prudent(self, confidences: Sequence[int]) -> list[float]:
        """The same, with chances one standard deviation lower."""
        return list(accumulate([self._bins[c].less(1.0) for c in confidences], mul))

    def of_any_less(self, n_sd: float) -> float:
        """The chance of a token that is not drafted yet, less so many standard deviations."""
        return self._of_any.less(n_sd)

    def learn(self, confidences: Sequence[int], n_judged: int, n_accepted: int) -> None:
        """The first `n_judged` tokens of a draft were compared, and `n_accepted` accepted."""
        for i, c in enumerate(confidences[: min(n_judged, n_accepted + 1)]):
            self._of_any.add(accepted=i < n_accepted)
            self.judge(c, accepted=i < n_accepted)

    def judge(self, confidence: int, *, accepted: bool) -> None:
        """A token of this confidence was compared, drafted or left."""
        self.n_judged += 1
        self._bins[confidence].add(accepted=accepted)
        self.means[confidence] = self._bins[confidence].mean

    def counts(self) -> dict[str, Any]:
        """What was learned, for JSON."""
        of_any, *bins = [[beta.accepted, beta.judged] for beta in [self._of_any, *self._bins]]
        return {"n_judged": self.n_judged, "any": of_any, "bins": bins}

    def recall(self, counts: dict[str, Any], share: float) -> None:
        """Start from counts of earlier sessions, of which a `share` still counts."""
        every = [counts["any"], *counts["bins"]]
        if len(every) != 1 + len(self._bins):
            return
        self.n_judged = counts["n_judged"]
        for beta, (accepted, judged) in zip([self._of_any, *self._bins], every, strict=True):
            beta.accepted, beta.judged = share * accepted, share * judged
        self.means = [beta.mean for beta in self._bins]


@dataclass(slots=True)
class Learned:
    """What a session has learned, and goes on to learn: what passes of the target take, and those
    of drafters that cost time; how drafts do under each law of verification."""

    target: PassCosts
    drafting: dict[str, PassCosts] = field(default_factory=dict[str, PassCosts])
    by_law: dict[str, dict[str, Chances]] = field(default_factory=dict[str, dict[str, Chances]])

    def chances(self, law: str, source: str) -> Chances:
        """Greedy replies, matched and rejected samples accept differently."""
        by_source = self.by_law.get(law)
        if by_source is None:
            by_source = self.by_law[law] = {name: Chances(name) for name in N_CONFIDENCES}
        return by_source[source]
