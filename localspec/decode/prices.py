"""What the next pass costs with so many drafted rows, v(T + B) in seconds, and who pays for it.

Rows of prompts must be read at some time: what they take, v(T) - v(n), is theirs in any pass, so
drafts beside them are judged by what they take more. (By the whole pass a token that one row in ten
brings would look cheap beside a long prompt, though plain passes bring it sooner.)

A width that is not known yet is hoped to be cheaper than its mean, so that it gets its try. To
draft after a plain pass changes the width of passes twice, there and back. After a wide pass the
way back is owed in any case: one more of the same width changes nothing.

What drafts may still lose of a reply is its budget, so that none takes much longer than without:

    left = share x plain time + what drafts saved - seconds spent - how wrong the measure may be

Every draft may fail, and is made only if the budget bears that. A share may be spent somewhat
before its tokens are there. Reading, which is done once, is paid off by the tokens that follow it.
The measure of all this is what a plain pass takes, from plain passes alone: what was judged by it
is judged again as it gets better, and as much is kept back as it may still be wrong by. Where the
measure is bad nothing is left, so plain passes follow, which make it better.
"""

from dataclasses import dataclass
from math import exp, inf

from localspec.decode.costs import PLAIN_ERROR, PassCosts

KAPPA = 0.5
"""Optimism, in standard deviations: 0 never tries, 2 goes on trying what has failed."""
REFRESH = 12
"""Passes after which costs are looked up again: depth and estimates change slowly."""


class PassPrices:
    """Of a target's passes, n requests in each and `n_rows` rows in any case.

    `other_s` is what rows of prompts take of it, and belongs to none of the others. `plain_s` is
    what a pass without drafts takes, `token_s` that for each request, `unit` the same in passes of
    one row. `hoped_s[b]` is a pass with b drafted rows, without changes of width; 0: not looked up
    yet; it may well take `doubt_s[b]` more. `limit_s` is what drafts may make a pass
    take, because others wait for it.
    """

    def __init__(self, target: PassCosts, max_draft: int) -> None:
        self._target, self._max_draft = target, max_draft
        self._n, self._depth, self._refresh_in = 0, 0, 0
        self.n_rows, self.last_width = 0, 1
        self.plain_s, self.token_s, self.unit, self._least = 0.0, 0.0, 1.0, 0.0
        self.other_s, self.limit_s = 0.0, inf
        self.hoped_s, self.doubt_s = list[float](), list[float]()
        self.can_pay = True
        """Whether drafts would pay that are accepted whole."""

    def look(self, n: int, n_other_rows: int, depth: int) -> bool:
        """Go on to a pass; whether prices were looked up again."""
        self._refresh_in -= 1
        if self._refresh_in > 0 and (n, n + n_other_rows) == (self._n, self.n_rows):
            return False
        target, self._refresh_in = self._target, REFRESH
        self._n, self.n_rows = n, n + n_other_rows
        self.plain_s = target.seconds(n, depth)
        self.other_s = target.seconds(self.n_rows, depth) - self.plain_s if n_other_rows else 0.0
        self.token_s = self.plain_s / n
        self.unit = self.token_s / target.seconds(1, depth)
        # All at one moment: who looked later, after a pass that taught that all take less, would
        # find wide passes cheap beside a plain one.
        self._depth, self.hoped_s = depth, [self.plain_s] + [0.0] * (n * self._max_draft)
        self.doubt_s = [0.0] * len(self.hoped_s)
        prices = enumerate(self.with_rows_s(1, n * self._max_draft), 1)
        self._least = min([(s / self.plain_s - 1) * n / b for b, s in prices], default=inf)
        self.can_pay = self._least < 1
        return True

    def may_pay(self, chance: float) -> bool:
        """Whether drafts may pay no token of which is likelier than this."""
        return chance > (0.0 if self.last_width != self.n_rows else self._least)

    def hope_s(self, n_drafted: int) -> float:
        """Fill in `hoped_s`. More rows never take less time, whatever a calibration says."""
        width = self.n_rows + n_drafted
        hope = exp(-KAPPA * self._target.error(width))
        own_s = self._target.seconds(width, self._depth) - self.other_s
        self.hoped_s[n_drafted] = seconds = max(self.plain_s, hope * own_s)
        self.doubt_s[n_drafted] = max(0.0, own_s - seconds)
        return seconds

    @property
    def change_s(self) -> float:
        """What a pass takes more that is not as wide as the last one."""
        return self._target.change_s * (2 if self.last_width == self.n_rows else 1)

    def with_rows_s(self, first: int, last: int) -> list[float]:
        """Hoped seconds with `first` to `last` drafted rows, changes of width included."""
        hoped_s, change_s, unchanged = self.hoped_s, self.change_s, self.last_width - self.n_rows
        return [
            (hoped_s[b] or self.hope_s(b)) + (change_s if b and b != unchanged else 0.0)
            for b in range(first, last + 1)
        ]


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
