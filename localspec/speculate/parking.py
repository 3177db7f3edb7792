"""When to leave the draft model alone, and when to try it again.

Parked for 16 tokens first, then for twice as long each time that a trial fails, to 256; the next
reply goes on where the last one ended.
"""

from dataclasses import dataclass, field

from localspec.speculate.pace import Pace

FIRST_INTERVAL, LAST_INTERVAL = 16, 256
TRIAL_ROUNDS = 3
N_ROUNDS = 16
"""Rounds after which what really came counts as much as what was expected."""


@dataclass(slots=True)
class Parking:
    """Of one session; places are lengths of the reply at hand."""

    until: int | None = None
    """Where it is tried again; None: it is not parked."""
    why: str = ""
    """Why it was parked last, for people."""
    pace: Pace = field(default_factory=lambda: Pace(2 * N_ROUNDS))
    _interval: int = FIRST_INTERVAL
    _trials_left: int = 0
    _n_seen: int = 0

    def begin(self) -> None:
        """A new reply: its pace is not yet known."""
        if self.until is not None:
            self.until = max(0, self.until - self._n_seen)
        self.pace, self._n_seen = Pace(2 * N_ROUNDS), 0

    @property
    def is_parked(self) -> bool:
        return self.until is not None

    def waits(self, n_tokens: int) -> bool:
        """Whether it is too early for a trial."""
        self._n_seen = n_tokens
        return self.until is not None and n_tokens < self.until

    def park(self, n_tokens: int, why: str) -> None:
        """Leave it alone for an interval."""
        self.until, self.why = n_tokens + self._interval, why
        self._interval = min(2 * self._interval, LAST_INTERVAL)
        self._trials_left = TRIAL_ROUNDS

    def rate(self, expected: float) -> float:
        """Expected, corrected by what came."""
        return self.pace.blended(expected, N_ROUNDS)

    def round(self, n_tokens: int, passes: float | None) -> None:
        """A round brought tokens in so many plain passes; None: a trial, which tells no pace."""
        if passes is not None:
            self.pace.add(n_tokens, passes)
        if self.until is not None:
            self._trials_left -= 1
            if self._trials_left == 0:
                self.until, self.pace = None, Pace(2 * N_ROUNDS)
        elif self.pace.n > N_ROUNDS / 2 and self.pace.tokens > self.pace.passes:
            self._interval = FIRST_INTERVAL
