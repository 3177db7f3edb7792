"""How much drafts may still lose of a reply, so that none takes much longer than it would without.

    left = share x plain time + what drafts saved - seconds spent - how wrong the measure may be

Every draft may fail, and is made only if the budget bears that. A share may be spent somewhat
before its tokens are there. Reading, which is done once, is paid off by the tokens that follow it.
The measure of all this is what a plain pass takes, from plain passes alone: what was judged by it
is judged again as it gets better, and as much is kept back as it may still be wrong by. Where the
measure is bad nothing is left, so plain passes follow, which make it better.
"""

from dataclasses import dataclass

from localspec.decode.costs import PLAIN_ERROR, PassCosts

SHARE = 0.025
"""Of plain time: few users notice it."""
AHEAD = 64
"""Tokens whose share may be spent before they are there; for reading, twice as many. What fails at
the beginning must leave something for a text that changes."""
SURE = 2.0
"""Standard deviations of a plain pass's time that are kept back."""
HORIZON = 64
"""Tokens that reading is spread over: a reply is taken to go on for as many."""


@dataclass(slots=True)
class Budget:
    """One reply's. Drafts took `spent_s` for tokens that plain decoding would have brought in
    `n_worth` passes; reading of `owed_s` is not paid off yet by the first `n_paid` tokens of its
    text."""

    history: list[int]
    n_paid: int
    spent_s: float = 0.0
    n_worth: float = 0.0
    owed_s: float = 0.0

    def left_s(self, target: PassCosts, depth: int, n_passes: float) -> float:
        """What may be lost of a reply of `n_passes` plain passes: nothing before one was seen."""
        self._pay_off()
        if target.plain_error >= PLAIN_ERROR:
            return -self.spent_s
        n_sure = self.n_worth * (1 - SURE * target.plain_error)
        return target.plain_s(depth) * (SHARE * n_passes + n_sure) - self.spent_s

    def add(self, seconds: float, n_worth: float, reading_s: float) -> None:
        """A pass with drafts, of which `reading_s` is owed."""
        self._pay_off()
        self.spent_s += seconds - reading_s
        self.owed_s += reading_s
        self.n_worth += n_worth

    def _pay_off(self) -> None:
        """Each token that has come pays its part."""
        if self.owed_s:
            left_s = self.owed_s * (1 - 1 / HORIZON) ** (len(self.history) - self.n_paid)
            self.spent_s, self.owed_s = self.spent_s + self.owed_s - left_s, left_s
        self.n_paid = len(self.history)
