"""What speculation gains: tokens a pass, speed-up, the best draft length, break-even acceptance.

With each drafted token accepted with probability alpha, a draft of g tokens yields

    E(g) = 1 + alpha + ... + alpha^g = (1 - alpha^(g+1)) / (1 - alpha)     tokens a pass,
    S(g) = E(g) / (g c + v(g + 1))                                         times plain speed,

c the cost of drafting one token and v(n) = T(n) / T(1) that of a target pass over n tokens, both in
plain passes. Source: Leviathan, Kalman, Matias 2023, theorem 3.8, there with v = 1. With B
sequences in a batch v(n) is T(B n) / T(B). It does not know that acceptance falls with position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_DRAFT = 16
_STEPS = 40  # of bisection; 2^-40 is below any acceptance that matters

Verification = Callable[[int], float]
"""v(n): the time of a pass over n tokens a sequence in units of a plain pass."""


def tokens_per_pass(alpha: float, n_draft: int) -> float:
    """E(g), between 1 (nothing accepted) and g + 1 (all of it)."""
    return sum(alpha**k for k in range(n_draft + 1))


@dataclass(frozen=True, slots=True)
class Gain:
    """The best draft length for an acceptance; 0 and 1.0 where no draft pays."""

    acceptance: float
    n_draft: int
    speedup: float


@dataclass(frozen=True, slots=True)
class Speculation:
    """What one draft token costs, in plain passes of the target, and what a check of many costs."""

    draft_cost: float
    verify: Verification
    max_draft: int = MAX_DRAFT

    def speedup(self, alpha: float, n_draft: int) -> float:
        """S(g); 1 for no draft."""
        if n_draft == 0:
            return 1.0
        cost = n_draft * self.draft_cost + self.verify(n_draft + 1)
        return tokens_per_pass(alpha, n_draft) / cost

    def best(self, alpha: float) -> Gain:
        """The length with the highest speed-up; all are tried, because v has cliffs."""
        speedups = [self.speedup(alpha, n) for n in range(self.max_draft + 1)]
        highest = max(speedups)
        return Gain(alpha, speedups.index(highest), highest)

    def break_even_acceptance(self, n_draft: int | None = None) -> float | None:
        """The acceptance from which a draft pays, of `n_draft` tokens or of the best length.

        None where even a draft that is always right costs more than it saves.
        """
        lengths = range(1, self.max_draft + 1) if n_draft is None else (n_draft,)
        return self._break_even(lengths)

    def _break_even(self, lengths: Sequence[int]) -> float | None:
        def pays(alpha: float) -> bool:
            return any(self.speedup(alpha, n) >= 1.0 for n in lengths)

        if not pays(1.0):
            return None
        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if pays(middle) else (middle, high)
        return high


def acceptance_of(accepted_share: float, n_draft: int) -> float:
    """Alpha from the share of drafted tokens that were accepted, g the draft length.

    Published runs give accepted / drafted; its expectation is (E(g) - 1) / g, which grows with
    alpha, so that bisection finds it.
    """
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        share = (tokens_per_pass(middle, n_draft) - 1) / n_draft
        low, high = (low, middle) if share >= accepted_share else (middle, high)
    return high
