"""Who drafts now and how much: what brings the most tokens a second, or nothing.

    rate(g) = E(g) / (g c + v(g + 1)),   E(g) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_g

in units of plain decoding, whose rate is 1 (Leviathan et al. 2023, with measured v and c). The
chances a_k are learned by drafter, position and quality of a guess; the costs from every pass.
Look-ups are offered before the choice, so each is judged by its own match, and what they offered is
scored whether chosen or not: they need no trials. The draft model is judged by its mean, and while
it drafts, each further token must bring

    gain of tokens >= (rate so far) x its cost.

What it really achieved in its last rounds overrides what was expected. Where it does not pay it is
parked and tried again after growing intervals; uncertain tries are paid from the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from localspec.speculate.acceptance import LOOKUP_PRIOR, MODEL_PRIOR, Acceptance
from localspec.speculate.costs import PassCosts
from localspec.speculate.drafters.base import Draft
from localspec.speculate.ledger import Ledger
from localspec.speculate.length import Choice, Situation
from localspec.speculate.step import Step
from localspec.speculate.story import Gain

MARGIN = 1.02
"""A draft must promise this much more than plain decoding: estimates are noisy."""
NARROW = 1.5
"""First tries verify at most at this cost, in plain passes."""
N_TRIED = 16
"""Drafted tokens after which a drafter is no longer new."""
N_KNOWN = 48
"""Those after which what is known of it may be acted on beyond the ledger's budget."""
LEAST_HORIZON = 64
"""A reply whose end is not known is taken to be at least this long yet, or as long as it is."""
FIRST_INTERVAL, LAST_INTERVAL = 16, 512
TRIAL_ROUNDS = 3
N_ROUNDS = 8
"""Rounds of the draft model after which its real rate counts as much as the expected one."""
REFRESH_EVERY = 12
READ_WIDTH = 64
"""A batch of the draft model as it reads; its seconds a token are taken from one this wide."""


@dataclass(slots=True)
class Realised:
    """Tokens over seconds in plain passes of the last rounds."""

    tokens: float = 0.0
    passes: float = 0.0
    n: float = 0.0

    def add(self, n_tokens: int, passes: float) -> None:
        keep = 1 - 1 / (2 * N_ROUNDS)
        self.tokens = keep * self.tokens + n_tokens
        self.passes = keep * self.passes + passes
        self.n = keep * self.n + 1

    def blended(self, expected: float) -> float:
        """Between what was expected and what came, by how much came."""
        share = self.n / (self.n + N_ROUNDS)
        return (
            expected
            if not self.passes
            else (share * self.tokens / self.passes + (1 - share) * expected)
        )


@dataclass(slots=True)
class Expectation:
    """Sums over steps: their seconds, and those that plain decoding was expected to take."""

    tokens: float = 0.0
    passes: float = 0.0

    def add(self, seconds: float, rate: float) -> None:
        self.tokens += seconds * rate
        self.passes += seconds


@dataclass(slots=True)
class Experience:
    """What a session has learned, and goes on to learn, of its costs and its drafters."""

    target: PassCosts
    draft: PassCosts | None = None
    window: int | None = None
    """Of the draft model: how much of a text it reads before its first draft."""
    by_regime: dict[str, dict[str, Acceptance]] = field(
        default_factory=dict[str, dict[str, Acceptance]]
    )
    ledger: Ledger = field(default_factory=Ledger)

    def acceptance(self, regime: str) -> dict[str, Acceptance]:
        """By drafter. Greedy replies, matched and rejected samples accept differently."""
        return self.by_regime.setdefault(
            regime,
            {"suffix": Acceptance(LOOKUP_PRIOR, 0.5), "model": Acceptance(MODEL_PRIOR, 0.7)},
        )


class Adaptive:
    """The policy of one reply; `lookup` and `model` name its drafters, None: there is none."""

    def __init__(
        self,
        experience: Experience,
        max_draft: int,
        lookup: str | None = "suffix",
        model: str | None = None,
        regime: str = "greedy",
    ) -> None:
        self.experience = experience
        self._acceptance = experience.acceptance(regime)
        self.max_draft = max_draft
        self.model = model if experience.draft else None
        self.lookup = lookup
        self._why_parked = ""
        self._expected = Expectation()
        self._can_pay = True
        self._depth = 0
        self._table: list[float] = []
        self._table_depth = -1
        self._until_refresh = 0
        self._plain_s = 0.0
        self._offers: Sequence[Draft] = ()
        self._choice = Choice(0)
        self._realised = Realised()
        self._model_depth = 0
        self._n_evaluated = 0
        self._parked_until: int | None = None
        self._interval = FIRST_INTERVAL
        self._trials_left = 0
        self._rate = 1.0
        experience.ledger.begin()

    # What is asked before a step

    def n_offered(self, now: Situation) -> int:
        """As many as might be chosen, if any could pay for its verification."""
        if self.lookup is None:
            return 0
        self._look(now)
        limit = min(self.max_draft, now.room)
        self._can_pay = any((g + 1) > MARGIN * self._table[g + 1] for g in range(1, limit + 1))
        return limit if self._can_pay else 0

    def choose(self, now: Situation, offers: Sequence[Draft]) -> Choice:
        """The drafter and length with the highest rate; plain decoding is one of them."""
        self._look(now)
        self._offers, self._n_evaluated = offers, 0
        limit = min(self.max_draft, now.room)
        best, rate = Choice(0, "none", "nothing to draft"), MARGIN
        for offer in offers:
            n, offered_rate = self._best_of(offer, limit)
            if n and offered_rate > rate and self._may(offer.source, n, now, 0.0):
                best, rate = Choice(n, offer.source, "match pays"), offered_rate
        if self.model:
            choice, model_rate = self._model_choice(now, limit)
            if (choice.n_tokens and model_rate > rate) or (not best.n_tokens):
                best, rate = choice, max(model_rate, 1.0)
        self._choice = best
        self._rate = max(1.0, rate if best.n_tokens else 1.0)
        return best

    def _look(self, now: Situation) -> None:
        """Costs at this depth, once a step or less."""
        if now.depth == self._depth and self._table:
            return
        self._depth = now.depth
        self._until_refresh -= 1
        if self._until_refresh <= 0 or len(self._table) < 2:
            self._until_refresh = REFRESH_EVERY
            costs, depth = self.experience.target, now.depth
            self._plain_s = costs.seconds(1, depth)
            self._table = [0.0] + [
                costs.seconds(n, depth) / self._plain_s for n in range(1, self.max_draft + 2)
            ]

    def _best_of(self, offer: Draft, limit: int) -> tuple[int, float]:
        """The length and rate of the best beginning of an offer."""
        chances = self._acceptance[offer.source]
        reach = tokens = rate = 1.0
        best = 0
        for k, quality in enumerate(offer.qualities[:limit]):
            reach *= chances.of(k, quality)
            tokens += reach
            if tokens > rate * self._table[k + 2]:
                best, rate = k + 1, tokens / self._table[k + 2]
        return best, rate

    def _may(self, source: str, n: int, now: Situation, draft_passes: float) -> bool:
        """Whether the ledger allows a draft of `n`, or the drafter is known well enough."""
        ledger = self.experience.ledger
        worst_s = (draft_passes + self._table[n + 1] - 1) * self._plain_s
        if ledger.affords(worst_s, self._plain_s):
            return True
        known = self._acceptance[source].n_seen >= N_KNOWN
        return known and ledger.affords(0.0, self._plain_s)

    # The draft model

    def _model_choice(self, now: Situation, limit: int) -> tuple[Choice, float]:
        assert self.model
        if self._parked_until is not None and now.n_tokens < self._parked_until:
            return Choice(0, "none", "parked"), 0.0
        c, reading = self._draft_passes(now)
        n, expected = self._best_length(c, limit)
        rate = self._realised.blended(expected)
        is_trial = self._parked_until is not None
        if not is_trial and (n == 0 or rate < 1.0):
            self._park(now, c)
            return Choice(0, "none", "parked"), 0.0
        chances = self._acceptance[self.model]
        horizon = min(now.room, max(LEAST_HORIZON, now.n_tokens))
        if is_trial or chances.n_seen < N_TRIED:
            n = max((g for g in range(1, limit + 1) if self._table[g + 1] <= NARROW), default=0)
            n = min(n, 2)
            if n == 0:
                self._park(now, c)
                return Choice(0, "none", "too dear to try"), 0.0
        elif reading > horizon * (1 - 1 / max(rate, 1.0)):
            return Choice(0, "none", "reading would not pay"), 0.0
        if not self._may(self.model, n, now, n * c + reading):
            return Choice(0, "none", "saving up"), 0.0
        why = "trial" if is_trial or chances.n_seen < N_TRIED else "draft pays"
        cap = n if why == "trial" else limit
        return Choice(cap, self.model, why, self), max(rate, MARGIN + 1e-6)

    def _draft_passes(self, now: Situation) -> tuple[float, float]:
        """In plain passes: a drafted token, and reading what the draft model has not read."""
        draft = self.experience.draft
        assert draft
        one_s = draft.seconds(1, now.depth)
        n_missing = now.depth - self._model_depth
        if self.experience.window is not None:
            n_missing = min(n_missing, self.experience.window)
        reading_s = draft.seconds(n_missing, now.depth) - one_s if n_missing > 2 else 0.0
        return one_s / self._plain_s, max(0.0, reading_s) / self._plain_s

    def _best_length(self, c: float, limit: int) -> tuple[int, float]:
        assert self.model
        chances = self._acceptance[self.model]
        reach = tokens = rate = 1.0
        best = 0
        for g in range(1, limit + 1):
            reach *= chances.at(g - 1)
            tokens += reach
            achieved = tokens / (g * c + self._table[g + 1])
            if achieved > rate:
                best, rate = g, achieved
        return best, rate

    def _park(self, now: Situation, c: float) -> None:
        assert self.model
        chances = self._acceptance[self.model]
        self._parked_until = now.n_tokens + self._interval
        self._interval = min(2 * self._interval, LAST_INTERVAL)
        self._trials_left = TRIAL_ROUNDS
        needed = min(
            (c * g + self._table[g + 1] - 1) / g for g in range(1, min(5, len(self._table) - 1))
        )
        self._why_parked = (
            f"draft parked: accepted {chances.mean():.0%}, needs about {needed:.0%} here"
            if needed < 1
            else f"draft parked: checking a token costs more ({needed:.2f} passes) than it can save"
        )

    # While it drafts

    def evaluates(self, qualities: Sequence[int]) -> bool:
        """Is one more evaluation of the draft model, and what may follow, worth its time?"""
        pays = self._pays(self._reach(qualities), len(qualities), 1)
        self._n_evaluated += pays
        return pays

    def takes(self, qualities: Sequence[int], quality: int) -> bool:
        """Is a next token of this quality worth verifying?"""
        self._n_evaluated = max(1, self._n_evaluated)
        if self._choice.why == "trial":
            return True
        assert self.model
        chance = self._acceptance[self.model].of(len(qualities), quality)
        return self._pays(self._reach(qualities) * chance, len(qualities), 0)

    def _reach(self, qualities: Sequence[int]) -> float:
        assert self.model
        chances = self._acceptance[self.model]
        reach = 1.0
        for k, quality in enumerate(qualities):
            reach *= chances.of(k, quality)
        return reach

    def _pays(self, reach: float, n: int, n_evaluations: int) -> bool:
        """Whether to go on from `n` tokens pays for some number of further tokens.

        Without an evaluation `reach` includes the next token's chance.
        """
        assert self.model
        assert self.experience.draft
        chances = self._acceptance[self.model]
        c = self.experience.draft.seconds(1, self._depth) / self._plain_s
        gain = 0.0
        limit = min(self._choice.n_tokens, len(self._table) - 2)
        for more in range(1, limit - n + 1):
            if n_evaluations or more > 1:
                reach *= chances.at(n + more - 1)
            gain += reach
            cost = self._table[n + more + 1] - self._table[n + 1] + c * (more - 1 + n_evaluations)
            if gain > self._rate * cost:
                return True
        return False

    # What it says of itself

    @property
    def gain(self) -> Gain:
        """Expected of the passes, at the time of each choice, beside what came of them."""
        expected = self._expected
        return Gain(
            expected.tokens / expected.passes if expected.passes else None,
            self.experience.ledger.gain,
        )

    @property
    def verdict(self) -> str:
        """Why the draft model is not used, or why nothing is."""
        if self._parked_until is not None:
            return self._why_parked
        if not self.model and self._table and not self._can_pay:
            return f"no drafts: checking 2 tokens takes {self._table[2]:.2f} x one"
        return ""

    # What is learned from a step

    def learn(self, step: Step, seconds: float) -> None:
        """Costs, chances, the ledger and the model's real rate."""
        depth, self._table_depth = self._depth, -1
        offers, self._offers = self._offers, ()
        choice, self._choice = self._choice, Choice(0)
        if not choice.source:
            return  # the prefill
        experience = self.experience
        verify_s = seconds - step.draft_s
        if step.evaluated == step.drafted + 1:
            experience.target.learn(step.evaluated, depth, verify_s)
        plain_s = self._plain_s
        experience.ledger.add(seconds, len(step.tokens), plain_s)
        self._expected.add(seconds, self._rate if choice.n_tokens else 1.0)
        is_whole = len(step.tokens) > step.accepted
        if is_whole:
            self._learn_offers(step, offers)
        if choice.source == self.model and choice.n_tokens:
            self._learn_model(step, choice, seconds, depth, is_whole)

    def _learn_offers(self, step: Step, offers: Sequence[Draft]) -> None:
        for offer in offers:
            n = 0
            for guessed, said in zip(offer.tokens, step.tokens, strict=False):
                if guessed != said:
                    break
                n += 1
            if offer.tokens:
                qualities = offer.qualities[: len(step.tokens)]
                self._acceptance[offer.source].learn(qualities, n)

    def _learn_model(
        self, step: Step, choice: Choice, seconds: float, depth: int, is_whole: bool
    ) -> None:
        assert self.model
        draft = self.experience.draft
        assert draft
        if is_whole:
            self._acceptance[self.model].learn(step.qualities, step.accepted)
        n_missing = depth - self._model_depth
        if self.experience.window is not None:
            n_missing = min(n_missing, self.experience.window)
        self._model_depth = depth
        n_evaluated = max(1, self._n_evaluated, step.drafted)
        read_s = 0.0
        if n_missing <= 2:
            draft.learn(1, depth, step.draft_s / n_evaluated)
        else:
            read_s = step.draft_s - (n_evaluated - 1) * draft.seconds(1, depth)
            if n_missing >= READ_WIDTH // 4:
                draft.learn(READ_WIDTH, depth, read_s * READ_WIDTH / n_missing)
            read_s -= draft.seconds(1, depth)
        if self._realised.n > N_ROUNDS / 2 and self._realised.tokens > self._realised.passes:
            self._interval = FIRST_INTERVAL
        self._realised.add(len(step.tokens), max(0.1, (seconds - read_s) / self._plain_s))
        if choice.why == "trial" and self._parked_until is not None:
            self._after_trial(depth)

    def _after_trial(self, depth: int) -> None:
        self._trials_left -= 1
        if self._trials_left > 0:
            return
        self._parked_until, self._realised = None, Realised()
