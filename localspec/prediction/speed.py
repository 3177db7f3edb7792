"""Predicted speeds and times, each with the interval in which four fifths of measured ones lie."""

from dataclasses import dataclass, replace

from localspec.prediction.rates import Spread


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second with the interval in which 80 % of measured speeds lie."""

    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, mid: float, spread: Spread) -> "Speed":
        return cls(mid * spread.low, mid, mid * spread.high)

    def at_most(self, limit: float) -> "Speed":
        """With nothing above a limit in the interval, and the prediction itself as it is."""
        return replace(self, high=min(self.high, max(self.mid, limit)))

    def seconds_of(self, n_tokens: int) -> "Seconds":
        return Seconds(n_tokens / self.high, n_tokens / self.mid, n_tokens / self.low)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time with the interval in which 80 % of measured times lie."""

    low: float
    mid: float
    high: float
