"""Tokens a plain pass, of the last rounds: what drafting really comes to."""

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Faded sums; `memory` rounds ago counts 1 / e."""

    memory: float
    tokens: float = 0.0
    passes: float = 0.0
    n: float = 0.0

    def add(self, n_tokens: float, passes: float) -> None:
        keep = 1 - 1 / self.memory
        self.tokens = keep * self.tokens + n_tokens
        self.passes = keep * self.passes + passes
        self.n = keep * self.n + 1

    def blended(self, expected: float, weight: float) -> float:
        """Between what was expected, as sure as `weight` rounds, and what came."""
        if not self.passes:
            return expected
        share = self.n / (self.n + weight)
        return share * self.tokens / self.passes + (1 - share) * expected
