"""Who drafts now and how much: what brings the most tokens a second, or nothing.

    rate(g) = E(g) / (g c + v(g + 1)),   E(g) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_g

in units of plain decoding, whose rate is 1 (Leviathan et al. 2023, with measured v and c). The
chances a_k are learned by drafter, position and quality of a guess; the costs from every pass.
Look-ups are offered before the choice, so each is judged by its own match, and what they offered is
scored whether chosen or not: they need no trials. `LookupChoice` judges them, `ModelChoice` the
draft model; what is not yet known to pay is paid from the ledger. `Rest` skips all of it for some
steps where nothing pays.
"""

from collections.abc import Sequence

from localspec.speculate.drafters.base import Draft
from localspec.speculate.experience import Experience
from localspec.speculate.length import Choice, Situation
from localspec.speculate.lookup_choice import MARGIN, LookupChoice
from localspec.speculate.model_choice import ModelChoice
from localspec.speculate.pace import Pace
from localspec.speculate.step import Step
from localspec.speculate.story import Gain
from localspec.speculate.table import VerifyTable

TIMING = Choice(0, "none", "timing a plain pass")
N_TIMED, EVERY_FIRST, EVERY_FIRST_SURE = 4, 4, 32
"""Plain passes before what one takes is known; until then every fourth pass is one, or, where a
reply has gained so much that an error of the calibration cannot explain it, every 32nd."""
N_REVISED = 10
"""A surprise of so many first plain passes is an error of the estimate, later ones a change."""
RESTING = Choice(0, "none", "resting")
EVERY, EVERY_SURE, SURE_RATE = 32, 128, 1.5
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
        self._lookup = LookupChoice(experience, self._table, regime)
        self._model: ModelChoice | None = None
        if has_model and experience.draft:
            chances = self._acceptance["model"]
            self._model = ModelChoice(
                experience, experience.draft, self._table, chances, is_alone=not has_lookup
            )
        self._expected = Pace(1e9)
        self._could_pay = True
        self._offers: list[Draft] = []
        self._choice: Choice | None = None
        self._rate = 1.0
        self._n_since_plain = 0
        self._owing = ""
        self._rest = experience.rest
        self._rest.begin()
        self._account = experience.ledger.begin()

    def n_offered(self, now: Situation) -> int:
        """As many as might be chosen, if any could pay for its verification."""
        if self._rest.n_left or not self._has_lookup:
            return 0
        self._table.look(now.depth)
        limit = min(self._max_draft, now.room)
        self._could_pay = self._table.least_draft <= limit
        return limit if self._could_pay else 0

    def choose(self, now: Situation, offers: Sequence[Draft]) -> Choice:
        """The drafter and length with the highest rate; plain decoding is one of them."""
        if self._rest.n_left:
            self._choice = RESTING
            return RESTING
        self._table.look(now.depth)
        self._offers = list(offers)
        limit = min(self._max_draft, now.room)
        if self._must_time_plain():
            self._choice, self._rate = TIMING, 1.0
            return TIMING
        best = self._lookup.choose(offers, now, limit)
        self._rate = self._lookup.rate
        if self._model:
            choice = self._model.choose(now, limit)
            if not best.n_tokens or (choice.n_tokens and self._model.rate > self._rate):
                best, self._rate = choice, self._model.rate
        self._choice = best
        self._rest.decided(drafts=best.n_tokens > 0 or self._has_work())
        return best

    def _has_work(self) -> bool:
        """Whether the draft model may be wanted at the next step."""
        return self._model is not None and not self._model.parking.is_parked

    def _must_time_plain(self) -> bool:
        """Every rate is in plain passes, so what one takes must be known."""
        if self._experience.ledger.n_timed < N_TIMED:
            is_sure = (self._account.gain or 0.0) > SURE_RATE
            return self._n_since_plain >= (EVERY_FIRST_SURE if is_sure else EVERY_FIRST) - 1
        return self._n_since_plain >= (EVERY_SURE if self._rate > SURE_RATE else EVERY)

    def watch(self, draft: Draft) -> None:
        """A draft of the model beside a plain pass."""
        self._offers.append(draft)

    def learn(self, step: Step, seconds: float) -> None:
        """Costs, chances, the ledger and the model's real pace."""
        choice, self._choice = self._choice, None
        offers, self._offers = self._offers, []
        if choice is RESTING:
            self._rest.passed(seconds)
            return
        table, experience = self._table, self._experience
        if choice is None:
            table.passed(step.evaluated)
            return  # the prefill, or the last token
        changed = step.evaluated != table.last_width
        self._n_since_plain = 0 if step.evaluated == 1 else self._n_since_plain + 1
        experience.ledger.n_timed += step.evaluated == 1
        if step.evaluated == step.drafted + 1:
            self._learn_cost(step.evaluated, seconds - step.draft_s, changed)
        table.passed(step.evaluated)
        if step.evaluated == 1 and step.source == "none" and choice.verified:
            self._learn_plain(step, seconds, changed)
        else:
            self._owing = choice.source or "none"
            read_s = 0.0
            if self._model and choice.source == "model":
                read_s = self._model.learn(step, seconds, table.depth)
            plain_s = len(step.tokens) * table.plain_s
            experience.ledger.add(seconds - read_s, plain_s, self._owing)
        self._expected.add(seconds * (self._rate if choice.n_tokens else 1.0), seconds)
        if len(step.tokens) > step.accepted:  # else the reply ended inside the draft
            self._learn_chances(step, offers)

    def _learn_cost(self, width: int, seconds: float, changed: bool) -> None:
        experience, depth = self._experience, self._table.depth
        before_s = experience.target.seconds(1, depth)
        experience.target.learn(width, depth, seconds, changed=changed)
        if width == 1 and experience.ledger.n_timed <= N_REVISED:
            experience.ledger.reply.revise(experience.target.seconds(1, depth) / before_s)

    def _learn_plain(self, step: Step, seconds: float, changed: bool) -> None:
        """A plain pass is its own measure: an error of the estimate must not look like a loss. Only
        the way back from a wide one is owed by who drafted that."""
        experience = self._experience
        owed_s = min(seconds, experience.target.change_s) if changed and self._owing else 0.0
        rested_s = self._rest.after_plain(step.draft_s, self._table.plain_s)
        seconds += rested_s
        self._expected.add(rested_s, rested_s)
        experience.ledger.add_plain(seconds, owed_s, self._owing or "none")
        self._owing = ""

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
        if self._model and self._model.verdict:
            return self._model.verdict
        if not self._model and not self._could_pay:
            return f"no drafts: checking 2 tokens takes {self._table.v[2]:.2f} x one"
        return ""
