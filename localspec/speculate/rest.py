"""Steps without look-up, choice and learning, where these would show and nothing pays.

Deciding and learning take 0.1 to 0.2 ms a step, most of it because the weights that were streamed
meanwhile have taken the processor's caches: 2 to 4 % of a token of 5 ms.
"""

from dataclasses import dataclass

N_VAIN = 8
"""Plain passes in a row after which there are rests."""
SHARE, LONGEST = 0.004, 5
"""Of the time, for deciding; and passes of a rest."""
LEARNING = 2.0
"""Deciding and learning take so many times what deciding takes."""
_GAIN = 0.2


@dataclass(slots=True)
class Rest:
    """`deciding_s` is what looking up and choosing takes, learned over a session."""

    deciding_s: float = 0.0
    n_left: int = 0
    seconds: float = 0.0
    """Rested and not accounted for yet."""
    _n_vain: int = 0

    def begin(self) -> None:
        """A new reply."""
        self.n_left, self.seconds, self._n_vain = 0, 0.0, 0

    def decided(self, *, drafts: bool) -> None:
        """There was a choice, of a draft or of none."""
        self._n_vain = 0 if drafts else self._n_vain + 1

    def after_plain(self, deciding_s: float, plain_s: float) -> float:
        """Perhaps rest now; the answer is the seconds that were rested before."""
        self.deciding_s += _GAIN * (deciding_s - self.deciding_s)
        if self._n_vain >= N_VAIN:
            self.n_left = min(LONGEST, int(LEARNING * self.deciding_s / (SHARE * plain_s)))
        rested_s, self.seconds = self.seconds, 0.0
        return rested_s

    def passed(self, seconds: float) -> None:
        """A plain pass of the rest."""
        self.n_left -= 1
        self.seconds += seconds
