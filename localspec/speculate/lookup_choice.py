"""Which look-up pays now, and how much of it?

    rate(g) = E(g) / v(g + 1),   E(g) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_g

Each offer is judged by its own matches. A draft of which nothing stands loses v(g + 1) - 1 passes,
which must be no more than the ledger lets one draft stake; one that is not sure may stake less.
"""

from collections.abc import Sequence

from localspec.speculate.drafters.base import Draft
from localspec.speculate.experience import Experience
from localspec.speculate.ledger import PARTS, SHARE
from localspec.speculate.length import Choice, Situation
from localspec.speculate.table import VerifyTable

MARGIN = 1.05
"""A draft must promise this much more than plain decoding: estimates are noisy."""
UNSURE_SHARE = 0.006
"""Of plain time, for look-ups that would not pay with chances one standard error lower: what they
are worth is seen without using them."""
LEAST_EXPECTED = 128
"""A reply is expected to have so many tokens and twice those that it has, if there is room: some
are short."""
NOTHING = Choice(0, "none", "nothing to draft")


class LookupChoice:
    """The look-ups' side of a policy, for one reply."""

    def __init__(self, experience: Experience, table: VerifyTable, regime: str) -> None:
        self.rate = 1.0
        self._ledger, self._table = experience.ledger, table
        self._acceptance = experience.acceptance(regime)

    def choose(self, offers: Sequence[Draft], now: Situation, limit: int) -> Choice:
        """The best beginning of an offer, `rate` telling what it promises."""
        best, self.rate = NOTHING, 1.0
        for offer in offers:
            n, rate = self._bearable(offer, limit, self._left(offer.source, now, SHARE))
            if n and not self._is_sure(offer, n):
                n, rate = self._bearable(offer, limit, self._left(offer.source, now, UNSURE_SHARE))
            if rate > max(MARGIN, self.rate):
                best, self.rate = Choice(n, offer.source, "match pays"), rate
        return best

    def _bearable(self, offer: Draft, limit: int, left: float) -> tuple[int, float]:
        """The best length that may be risked where `left` passes may be lost, and its rate."""
        n, rate = 0, 1.0
        for part in PARTS:
            n, rate = self._best_length(offer, limit, part * left)
            if rate > MARGIN:
                break
        return n, rate

    def _is_sure(self, offer: Draft, n: int) -> bool:
        """Whether a draft would pay even if its chances were a standard error lower."""
        chances = self._acceptance[offer.source]
        reach = tokens = 1.0
        for k, quality in enumerate(offer.qualities[:n]):
            reach *= chances.at_least(k, quality)
            tokens += reach
        return tokens > MARGIN * self._table.v[n + 1]

    def _best_length(self, offer: Draft, limit: int, left: float) -> tuple[int, float]:
        """The length with the best rate of those that lose no more than `left` passes."""
        chances, v = self._acceptance[offer.source], self._table.v
        reach = tokens = rate = 1.0
        best = 0
        for k, quality in enumerate(offer.qualities[:limit]):
            reach *= chances.of(k, quality)
            tokens += reach
            cost = v[k + 2]
            if tokens > rate * cost and cost - 1 <= left:
                best, rate = k + 1, tokens / cost
        return best, rate

    def _left(self, source: str, now: Situation, share: float) -> float:
        """Passes that the ledger has left."""
        plain_s = self._table.plain_s
        n = min(now.n_tokens + now.room, LEAST_EXPECTED + 2 * now.n_tokens)
        return self._ledger.left_s(source, plain_s, n, share) / plain_s
