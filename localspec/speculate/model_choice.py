"""Does the draft model pay now, and while it drafts, does one more token?

Its rate is expected from how often its tokens stood by position, and corrected by what its last
rounds came to. While it drafts, each further token must bring

    gain of tokens >= (rate) x (its cost in plain passes),

looking ahead over cliffs of v; its chance comes from how sure the draft model is. A draft model of
which little is known is tried on narrow passes, or, where even those are dear, beside plain ones.
"""

from collections.abc import Sequence
from math import sqrt

from localspec.speculate.acceptance import Acceptance
from localspec.speculate.costs import PassCosts
from localspec.speculate.experience import READ_WIDTH, Experience
from localspec.speculate.ledger import PARTS, SHARE
from localspec.speculate.length import Choice, Situation
from localspec.speculate.step import Step
from localspec.speculate.table import VerifyTable

NARROW = 1.5
"""First tries verify at most at this cost, in plain passes."""
WINDOW, FIRST_WINDOW = 64, 16
"""Of a text that is new to it, the draft model reads the last tokens before its first draft: an
investment, and a smaller one while nothing is known of it."""
N_TRIED = 5
"""Drafted tokens after which a draft model is no longer new."""
HOPE = 0.95
"""An acceptance at which a draft model worth trying would pay."""
LEAST_HORIZON = 64
"""A reply whose end is not known goes on for this long at least, or for as long as it is."""
TRIALS = ("trial", "shadow")
SHARE_BESIDE = 0.018
"""Of plain time, where there are look-ups too: a draft model that fails leaves them something."""
SAVING, SPENT = "saving up for a trial", "over budget"


class ModelChoice:
    """The draft model's side of a policy, for one reply; also the patience of its drafts."""

    def __init__(
        self,
        experience: Experience,
        draft: PassCosts,
        table: VerifyTable,
        chances: Acceptance,
        *,
        is_alone: bool,
    ) -> None:
        self._share = SHARE if is_alone else SHARE_BESIDE
        self.parking = experience.parking
        self.parking.begin()
        self.rate = 1.0
        self._experience, self._draft = experience, draft
        self._table, self._chances = table, chances
        self._read_depth = 0
        self._n_evaluated = 0
        self._choice = Choice(0)
        self._declined = ""
        self._c = 0.0

    def choose(self, now: Situation, limit: int) -> Choice:
        """How much to draft now, `rate` telling what it promises; nothing where it does not pay."""
        if self.parking.waits(now.n_tokens):
            return self._decline("parked")
        self._c = self._draft.seconds(1, now.depth) / self._table.plain_s
        reading = self._reading_passes(now.depth)
        n, expected = self._best_length(limit, None)
        self.rate = self.parking.rate(expected)
        is_new = self._chances.n_seen < N_TRIED
        if self.parking.is_parked or is_new or n == 0 or self.rate < 1:
            return self._trial(now, limit, reading)
        horizon = min(now.room, max(LEAST_HORIZON, now.n_tokens))
        without = self._experience.ledger.reply.passes_without("model")
        if reading > horizon * (without - 1 / self.rate):
            return self._decline("reading would not pay")
        longest = self._bearable(limit, self._left(now) - reading)
        if longest:
            return self._draft_up_to(longest, "draft pays")
        can_try = not self._is_sure() and self._left(now) >= self._c
        return self._draft_up_to(1, "shadow") if can_try else self._decline(SPENT)

    @property
    def verdict(self) -> str:
        """Why the draft model is not used now, for people."""
        if self.parking.is_parked:
            return self.parking.why
        if self._declined in (SAVING, SPENT):
            accepted, share = self._chances.mean(), self._share
            return f"draft waits: accepted {accepted:.0%}, and tries have used up their {share:.1%}"
        return ""

    def _trial(self, now: Situation, limit: int, reading: float) -> Choice:
        hoped, _ = self._best_length(limit, HOPE)
        if not hoped or self._hopeless(limit):
            return self._park(now)
        v = self._table.v
        n, _ = self._best_length(limit, max(0.5, self._chances.mean()))
        while n and v[n + 1] > NARROW:
            n -= 1
        if not n and v[2] <= NARROW:
            n = 1
        cost = self._cost(n) if n else self._c
        if cost + reading > self._left(now):
            return self._decline(SAVING)
        self.rate = max(1.0, self.rate)
        return self._draft_up_to(n, "trial") if n else self._draft_up_to(1, "shadow")

    def _hopeless(self, limit: int) -> bool:
        """Whether even an acceptance one standard error above the mean would not pay."""
        if self._chances.all.seen < N_TRIED:
            return False
        return self._best_length(limit, min(HOPE, self._mean_with(1)))[0] == 0

    def _is_sure(self) -> bool:
        """Whether an acceptance one standard error below the mean would still pay."""
        low, limit = max(0.0, self._mean_with(-1)), len(self._table.v) - 2
        return self._chances.all.seen >= N_TRIED - 1 and self._best_length(limit, low)[0] > 0

    def _mean_with(self, n_errors: float) -> float:
        """The mean acceptance, and so many standard errors more."""
        mean, n = self._chances.mean(), self._chances.all.seen
        return mean + n_errors * sqrt(mean * (1 - mean) / (n + 1))

    def _left(self, now: Situation) -> float:
        """Passes that the ledger has left."""
        plain_s, n = self._table.plain_s, now.n_tokens + now.room
        return self._experience.ledger.left_s("model", plain_s, n, self._share) / plain_s

    def _bearable(self, limit: int, left: float) -> int:
        """The longest draft that may be risked where `left` passes may be lost; 0: none."""
        for part in PARTS:
            longest = self._longest(limit, part * left)
            if self._best_length(longest, None)[0]:
                return longest
        return 0

    def _longest(self, limit: int, left: float) -> int:
        return max((n for n in range(1, limit + 1) if self._cost(n) <= left), default=0)

    def _cost(self, n: int) -> float:
        """Passes that a draft loses if nothing of it stands."""
        return n * self._c + self._table.v[n + 1] - 1

    def _draft_up_to(self, n: int, why: str) -> Choice:
        self._n_evaluated, self._declined = 1, ""
        verified = why != "shadow"
        self._choice = Choice(n, "model", why, self, verified=verified, window=self._window)
        return self._choice

    def _decline(self, why: str) -> Choice:
        self.rate, self._declined = 1.0, why
        return Choice(0, "none", why)

    def _park(self, now: Situation) -> Choice:
        v, c = self._table.v, self._c
        needed = min((c * g + v[g + 1] - 1) / g for g in range(1, min(5, len(v) - 1)))
        why = (
            f"draft parked: accepted {self._chances.mean():.0%}, needs about {needed:.0%} here"
            if needed < 1
            else f"draft parked: checking one token costs {needed:.2f} plain passes"
        )
        self.parking.park(now.n_tokens, why)
        return self._decline("parked")

    def _best_length(self, limit: int, chance: float | None) -> tuple[int, float]:
        """The length with the best rate, with the learned chances or one for all positions."""
        reach = tokens = rate = 1.0
        best, v, c = 0, self._table.v, self._c
        for g in range(1, limit + 1):
            reach *= self._chances.at(g - 1) if chance is None else chance
            tokens += reach
            achieved = tokens / (g * c + v[g + 1])
            if achieved > rate:
                best, rate = g, achieved
        return best, rate

    def _reading_passes(self, depth: int) -> float:
        """Of what the draft model has not read yet, but for the two tokens of every draft."""
        n = self._n_missing(depth)
        if n <= 2:
            return 0.0
        read_s = self._draft.seconds(n, depth) - self._draft.seconds(1, depth)
        return max(0.0, read_s) / self._table.plain_s

    @property
    def _window(self) -> int:
        """A draft model of which little is known reads less."""
        return FIRST_WINDOW if self._chances.n_seen < N_TRIED else WINDOW

    def _n_missing(self, depth: int) -> int:
        return min(depth - self._read_depth, self._window)

    # Patience: asked while it drafts

    def evaluates(self, qualities: Sequence[int]) -> bool:
        """Is one more evaluation of the draft model, and what may follow, worth its time?"""
        pays = self._pays(self._reach(qualities), len(qualities), 1)
        self._n_evaluated += pays
        return pays

    def takes(self, qualities: Sequence[int], quality: int) -> bool:
        """Is a next token of this quality worth verifying?"""
        if self._choice.why in TRIALS:
            return True
        reach = self._reach(qualities) * self._chances.of(len(qualities), quality)
        return self._pays(reach, len(qualities), 0)

    def _reach(self, qualities: Sequence[int]) -> float:
        reach = 1.0
        for k, quality in enumerate(qualities):
            reach *= self._chances.of(k, quality)
        return reach

    def _pays(self, reach: float, n: int, n_evaluations: int) -> bool:
        """Whether to go on from `n` tokens pays for some number of further ones.

        Without an evaluation `reach` includes the next token's chance.
        """
        gain, v, c, rate = 0.0, self._table.v, self._c, self.rate
        for more in range(1, self._choice.n_tokens - n + 1):
            if n_evaluations or more > 1:
                reach *= self._chances.at(n + more - 1)
            gain += reach
            if gain > rate * (v[n + more + 1] - v[n + 1] + c * (more - 1 + n_evaluations)):
                return True
        return False

    # What is learned from a round

    def learn(self, step: Step, seconds: float, depth: int) -> float:
        """What drafting cost, and what the round came to; reading is no part of its pace.

        The answer is the seconds of reading that were invested in a draft model known to pay.
        """
        draft = self._draft
        n_missing = self._n_missing(depth)
        # Its cache holds its own draft but for the last token; what stood of it is read already.
        self._read_depth = depth + min(step.accepted, max(0, step.drafted - 1))
        one_s = draft.seconds(1, depth)
        read_s = 0.0
        if n_missing <= 2:
            draft.learn(1, depth, step.draft_s / self._n_evaluated)
        else:
            first_s = step.draft_s - (self._n_evaluated - 1) * one_s
            if n_missing >= READ_WIDTH // 4:
                draft.learn(READ_WIDTH, depth, first_s * READ_WIDTH / n_missing)
            read_s = max(0.0, first_s - one_s)
        passes = max(0.1, (seconds - read_s) / self._table.plain_s)
        # A trial is narrower than what would pay: how far it came tells nothing of that.
        is_trial = self._choice.why in TRIALS
        self.parking.round(len(step.tokens), None if is_trial else passes)
        return read_s if self._is_sure() else 0.0
