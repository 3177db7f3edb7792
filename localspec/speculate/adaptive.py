"""Who drafts now and how much: what brings the most tokens a second, or nothing.

    rate(g) = E(g) / (g c + v(g + 1)),   E(g) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_g

in units of plain decoding, whose rate is 1 (Leviathan et al. 2023, with measured v and c). The
chances a_k are learned by drafter, position and quality of a guess; the costs from every pass.
Look-ups are offered before the choice, so each is judged by its own match, and what they offered is
scored whether chosen or not: they need no trials. The draft model is judged by `ModelChoice`; what
is not yet known to pay is paid from the ledger.
"""

from collections.abc import Sequence

from localspec.speculate.drafters.base import Draft
from localspec.speculate.experience import Experience, Pace
from localspec.speculate.length import Choice, Situation
from localspec.speculate.model_choice import ModelChoice
from localspec.speculate.step import Step
from localspec.speculate.story import Gain
from localspec.speculate.table import VerifyTable

MARGIN = 1.02
"""A draft must promise this much more than plain decoding: estimates are noisy."""
N_KNOWN = 48
"""Looked-up tokens after which what is known may be acted on beyond the ledger's budget."""
PLAIN = Choice(0, "none", "nothing to draft")
TIMING = Choice(0, "none", "timing a plain pass")
N_TIMED = 6
"""Plain passes before what one takes is known; until then every fourth pass is one."""
N_VAIN = 16
"""Look-ups in a row that were not worth verifying; then every other step goes without one, because
each takes 0.1 ms."""
EVERY, EVERY_SURE, SURE_RATE = 24, 64, 1.5
"""So often a plain pass is timed again; a large gain does not hang on it."""


class Adaptive:
    """The policy of one reply, with look-ups, a draft model, or both."""

    def __init__(
        self,
        experience: Experience,
        max_draft: int,
        *,
        has_lookup: bool = True,
        has_model: bool = False,
        regime: str = "greedy",
    ) -> None:
        self._experience = experience
        self._max_draft = max_draft
        self._has_lookup = has_lookup
        self._acceptance = experience.acceptance(regime)
        self._table = VerifyTable(experience.target, max_draft, MARGIN)
        self._model: ModelChoice | None = None
        if has_model and experience.draft:
            chances = self._acceptance["model"]
            self._model = ModelChoice(experience, experience.draft, self._table, chances)
        self._expected = Pace(1e9)
        self._could_pay = True
        self._offers: list[Draft] = []
        self._choice: Choice | None = None
        self._rate = 1.0
        self._n_since_plain = 0
        self._n_vain = 0
        self._account = experience.ledger.begin()

    def n_offered(self, now: Situation) -> int:
        """As many as might be chosen, if any could pay for its verification."""
        if not self._has_lookup or (self._n_vain >= N_VAIN and now.n_tokens % 2):
            return 0
        self._table.look(now.depth)
        limit = min(self._max_draft, now.room)
        self._could_pay = self._table.least_draft <= limit
        return limit if self._could_pay else 0

    def choose(self, now: Situation, offers: Sequence[Draft]) -> Choice:
        """The drafter and length with the highest rate; plain decoding is one of them."""
        self._table.look(now.depth)
        self._offers = list(offers)
        limit = min(self._max_draft, now.room)
        if self._must_time_plain():
            self._choice, self._rate = TIMING, 1.0
            return TIMING
        best, self._rate = self._best_offer(now, limit)
        if any(offer.tokens for offer in offers):
            self._n_vain = 0 if best.n_tokens else self._n_vain + 1
        if self._model:
            choice = self._model.choose(now, limit)
            if not best.n_tokens or (choice.n_tokens and self._model.rate > self._rate):
                best, self._rate = choice, self._model.rate
        self._choice = best
        return best

    def _must_time_plain(self) -> bool:
        """Every rate is in plain passes, so what one takes must be known."""
        if self._experience.n_plain < N_TIMED:
            return self._n_since_plain >= 3
        return self._n_since_plain >= (EVERY_SURE if self._rate > SURE_RATE else EVERY)

    def _best_offer(self, now: Situation, limit: int) -> tuple[Choice, float]:
        best, best_rate = PLAIN, 1.0
        for offer in self._offers:
            n, rate = self._best_length(offer, limit)
            if rate > max(MARGIN, best_rate) and self._may(offer.source, n, now):
                best, best_rate = Choice(n, offer.source, "match pays"), rate
        return best, best_rate

    def _best_length(self, offer: Draft, limit: int) -> tuple[int, float]:
        """The length and rate of the best beginning of an offer."""
        chances, v = self._acceptance[offer.source], self._table.v
        reach = tokens = rate = 1.0
        best = 0
        for k, quality in enumerate(offer.qualities[:limit]):
            reach *= chances.of(k, quality)
            tokens += reach
            if tokens > rate * v[k + 2]:
                best, rate = k + 1, tokens / v[k + 2]
        return best, rate

    def _may(self, source: str, n: int, now: Situation) -> bool:
        """Whether the ledger allows a draft of `n`, or the drafter is known well enough."""
        ledger, plain_s = self._experience.ledger, self._table.plain_s
        worst_s = (self._table.v[n + 1] - 1) * plain_s
        n_expected = now.n_tokens + now.room
        if ledger.affords(source, worst_s, plain_s, n_expected):
            return True
        known = self._acceptance[source].n_seen >= N_KNOWN
        return known and ledger.affords(source, 0.0, plain_s, n_expected)

    def watch(self, draft: Draft) -> None:
        """A draft of the model beside a plain pass."""
        self._offers.append(draft)

    def learn(self, step: Step, seconds: float) -> None:
        """Costs, chances, the ledger and the model's real pace."""
        choice, self._choice = self._choice, None
        offers, self._offers = self._offers, []
        if choice is None:
            return  # the prefill, or the last token
        table, experience = self._table, self._experience
        self._n_since_plain = 0 if step.evaluated == 1 else self._n_since_plain + 1
        experience.n_plain += step.evaluated == 1
        if step.evaluated == step.drafted + 1:
            experience.target.learn(step.evaluated, table.depth, seconds - step.draft_s)
        # A plain pass is its own measure: an error of the estimate must not look like a loss.
        is_plain = step.evaluated == 1 and step.source == "none" and choice.verified
        plain_s = seconds if is_plain else len(step.tokens) * table.plain_s
        read_s = 0.0
        if self._model and choice.source == "model":
            read_s = self._model.learn(step, seconds, table.depth)
        experience.ledger.add(seconds - read_s, plain_s, choice.source or "none")
        self._expected.add(seconds * (self._rate if choice.n_tokens else 1.0), seconds)
        if len(step.tokens) > step.accepted:  # else the reply ended inside the draft
            self._learn_chances(step, offers)

    def _learn_chances(self, step: Step, offers: Sequence[Draft]) -> None:
        for offer in offers:
            n = 0
            for guessed, said in zip(offer.tokens, step.tokens, strict=False):
                if guessed != said:
                    break
                n += 1
            qualities = offer.qualities[: len(step.tokens)]
            self._acceptance[offer.source].learn(qualities, n)
        if step.source == "model":
            self._acceptance["model"].learn(step.qualities, step.accepted)

    @property
    def gain(self) -> Gain:
        """Expected at the time of each choice, beside what came of them."""
        expected = self._expected
        predicted = expected.tokens / expected.passes if expected.passes else None
        return Gain(predicted, self._account.gain)

    @property
    def verdict(self) -> str:
        """Why the draft model is not used, or why nothing is."""
        if self._model and self._model.parking.is_parked:
            return self._model.why_parked
        if not self._model and not self._could_pay:
            return f"no drafts: checking 2 tokens takes {self._table.v[2]:.2f} x one"
        return ""
