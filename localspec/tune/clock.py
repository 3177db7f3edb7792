"""A budget of seconds, shared out among stages."""

from time import monotonic


class Clock:
    """Runs from when it is made."""

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self._started = monotonic()

    @property
    def spent_s(self) -> float:
        return monotonic() - self._started

    @property
    def left_s(self) -> float:
        return self.budget_s - self.spent_s

    def until(self, share: float) -> float:
        """Seconds until that share of the whole budget is spent; negative where it is."""
        return share * self.budget_s - self.spent_s
