"""Seconds lost to speculation, so that no reply takes much longer than it would without.

    loss = seconds spent - tokens x seconds of a plain pass

Uncertain tries are paid from a budget, a share of the time that plain decoding would have taken so
far. What a session saved earlier adds a little to it. The bound holds as far as the seconds of a
plain pass are known.
"""

from dataclasses import dataclass

SHARE = 0.02
"""Of plain time, for tries; promised are 0.03, and one try can overrun."""
FIRST_PASSES = 0.75
"""What a reply may lose before it has earned any budget, in plain passes."""
REINVESTED = 0.05
MOST_REINVESTED_PASSES = 3.0


@dataclass(slots=True)
class Ledger:
    """One session's; `begin` opens a reply."""

    spent_s: float = 0.0
    plain_s: float = 0.0
    saved_before_s: float = 0.0

    def begin(self) -> None:
        """A new reply, with what was saved before it."""
        self.saved_before_s -= self.loss_s
        self.spent_s = self.plain_s = 0.0

    def add(self, seconds: float, n_tokens: int, plain_pass_s: float) -> None:
        """A step took `seconds` and brought `n_tokens`."""
        self.spent_s += seconds
        self.plain_s += n_tokens * plain_pass_s

    @property
    def loss_s(self) -> float:
        """Negative: seconds saved by this reply."""
        return self.spent_s - self.plain_s

    @property
    def gain(self) -> float | None:
        """Times plain speed, so far in this reply."""
        return self.plain_s / self.spent_s if self.spent_s else None

    def budget_s(self, plain_pass_s: float) -> float:
        """What this reply may lose."""
        extra = min(REINVESTED * self.saved_before_s, MOST_REINVESTED_PASSES * plain_pass_s)
        return SHARE * self.plain_s + FIRST_PASSES * plain_pass_s + max(0.0, extra)

    def affords(self, worst_s: float, plain_pass_s: float) -> bool:
        """Whether `worst_s` more may be lost."""
        return self.loss_s + worst_s <= self.budget_s(plain_pass_s)
