"""Who drafts before the next pass, and how much: what brings the most tokens a second.

With n requests that decode and T rows that are evaluated anyway, B drafted rows are chosen by

    B* = argmax (n + sum of the B largest S) / (drafting + v(T + B)),
    S(r, k) = product of request r's chances up to k.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

from localspec.decode.chances import PRIORS, Chances, Prior
from localspec.decode.costs import PassCosts
from localspec.decode.drafters.base import NO_DRAFT, Draft, Drafter
from localspec.decode.speculator import Generation
from localspec.decode.step import Step

SHARE = 0.025
AHEAD = 128
AHEAD_READ = 256
KAPPA = 0.5
ERROR = 2.0
WINDOW, FIRST_WINDOW, N_TRIED = 64, 16, 5
READ_WIDTH = 64
LEAST_HORIZON = 64
N_REFRESH = 12
TIMING = 0
READ = 0
PART = 1.0
HOPE = 0.5


@dataclass(slots=True)
class Learned:
    """What a session has learned, and goes on to learn, of its costs and its drafters."""

    target: PassCosts
    draft: PassCosts | None = None
    by_law: dict[tuple[str, str], Chances] = field(default_factory=dict[tuple[str, str], Chances])

    def chances(self, law: str, source: str) -> Chances:
        """Greedy replies, matched and rejected samples accept differently."""
        found = self.by_law.get((law, source))
        if found is None:
            found = self.by_law[law, source] = Chances(PRIORS.get(source, Prior()))
        return found


@dataclass(slots=True)
class Request:
    """One reply: what its drafts have cost, and how much of it each drafter has read."""

    spent_s: float = 0.0
    n_plain: float = 0.0
    """Plain passes that the tokens of passes with drafts are worth."""
    n_read: int = 0
    n_since_plain: int = 0
    owed_s: float = 0.0


@dataclass(slots=True)
class Plan:
    rate: float
    lengths: list[int]
    candidates: list["Candidate"]
    is_over_budget: bool = False


@dataclass(slots=True)
class Candidate:
    """What a drafter may draft for a request: the chance that each row is accepted."""

    source: str
    reach: list[float]
    offer: Draft | None = None
    reading_s: float = 0.0
    spread_s: float = 0.0


@dataclass(slots=True)
class WhilePays:
    """A stop rule: does one more token bring more than `rate` tokens for its seconds?"""

    chances: Chances
    rate: float
    pass_s: list[float]
    token_s: float
    longest: int
    n_evaluated: int = 1

    def evaluates(self, confidences: Sequence[int]) -> bool:
        pays = self._pays(confidences, 1)
        self.n_evaluated += pays
        return pays

    def takes(self, confidences: Sequence[int], confidence: int) -> bool:
        return self._pays([*confidences, confidence], 0)

    def _pays(self, confidences: Sequence[int], evaluations: int) -> bool:
        reach, gain, n = 1.0, 0.0, len(confidences) - 1 + evaluations
        means, hoped = self.chances.means, self.chances.any_bin.mean
        for c in confidences:
            reach *= means[c]
        for more in range(1, self.longest - n + 1):
            if evaluations or more > 1:
                reach *= hoped
            gain += reach
            more_s = self.pass_s[n + more] - self.pass_s[n]
            if gain > self.rate * (more_s + self.token_s * (more - 1 + evaluations)):
                return True
        return False


class Adaptive:
    """The policy of one reply, or of many at a time."""

    def __init__(self, learned: Learned, drafters: Sequence[Drafter], max_draft: int) -> None:
        self._learned = learned
        self._target = learned.target
        self._free = [drafter for drafter in drafters if drafter.is_free]
        self._paid = [d for d in drafters if not d.is_free and learned.draft]
        self._max_draft = max_draft
        self._requests: dict[int, Request] = {}
        self._last_width = 1
        self._refresh_in = 0
        self._pass_s: dict[int, float] = {}

    def draft(self, generations: Sequence[Generation], n_other_rows: int = 0) -> list[Draft]:
        self._look(generations, n_other_rows)
        generation = generations[0]
        limit = min(self._max_draft, generation.room)
        self._offers, self._plan_, self._stops = [], None, {}
        self._reading_s = 0.0
        if not limit:
            return [NO_DRAFT]
        request = self._requests[id(generation.history)]
        law = generation.law
        if self._free:
            r = generation.request(limit)
            self._offers = [d.draft([r])[0] for d in self._free]
        if TIMING and request.n_since_plain + 1 >= 32:
            return [NO_DRAFT]
        left_s = self._left_s(request, generation)
        plans = [Plan(1 / self._plain_s, [0], [])]
        for offer in self._offers:
            reach, s = [], 1.0
            for c in self._learned.chances(law, offer.source).of(offer.confidences, limit):
                s *= c
                reach.append(s)
            plans.append(self._plan([Candidate(offer.source, reach, offer)], left_s))
        for d in self._paid:
            chances = self._learned.chances(law, d.source)
            a = chances.any_bin.hoped(KAPPA)
            reach = [a**k for k in range(1, limit + 1)]
            affordable_s = self._left_s(request, generation, AHEAD_READ) - request.owed_s
            token_s = self._learned.draft.seconds(READ_WIDTH, self._depth) / READ_WIDTH
            window = min(self._window(chances), int(affordable_s / token_s))
            if window < FIRST_WINDOW and self._depth - request.n_read > max(2, window):
                continue
            self._win = window = max(FIRST_WINDOW, window)
            n_missing = min(self._depth - request.n_read, window)
            self._n_missing = n_missing
            reading_s = (
                self._learned.draft.seconds(n_missing, self._depth) - self._one_s
                if n_missing > 2
                else 0.0
            )
            horizon = min(generation.room, max(LEAST_HORIZON, generation.n_tokens))
            plans.append(
                self._plan(
                    [Candidate(d.source, reach, None, reading_s, reading_s / max(1, horizon))],
                    left_s,
                )
            )
        best = max(plans, key=lambda p: p.rate)
        n = best.lengths[0]
        if not n:
            return [NO_DRAFT]
        self._plan_ = best
        (c,) = best.candidates
        if c.offer:
            return [c.offer.first(n)]
        d = next(d for d in self._paid if d.source == c.source)
        chances = self._learned.chances(law, d.source)
        pass_s = [self._cost_s(w) for w in range(1, limit + 2)]
        stop = WhilePays(chances, best.rate, pass_s, self._one_s, n)
        self._stops[0] = stop
        self._reading_s = c.reading_s
        return d.draft([generation.request(n, stop, self._win)])

    def _window(self, chances):
        return FIRST_WINDOW if chances.n_judged < N_TRIED else WINDOW

    def _look(self, generations, n_other_rows) -> None:
        self._generations = generations
        for g in generations:
            self._requests.setdefault(id(g.history), Request())
        self._depth = max(len(g.history) for g in generations)
        self._refresh_in -= 1
        if self._refresh_in <= 0:
            self._refresh_in = N_REFRESH
            self._pass_s = {}
            self._change_s = self._target.change_s
            if self._learned.draft:
                self._one_s = self._learned.draft.seconds(1, self._depth)
            self._plain_s = self._cost_s(1)

    def _cost_s(self, width: int) -> float:
        s = self._pass_s.get(width)
        if s is None:
            s = self._pass_s[width] = self._target.seconds(width, self._depth) * exp(
                -HOPE * self._target.error(width) * (width > 1)
            )
        if width > 1 and width != self._last_width:
            s += self._change_s * (2 if self._last_width == 1 else 1)
        return s

    def _left_s(self, request, generation, ahead=None):
        n = generation.n_tokens + min(ahead or AHEAD, generation.room)
        plain_s = self._target.plain_s(self._depth)
        error = ERROR * self._target.plain_error
        return plain_s * (SHARE * n + request.n_plain * (1 - error)) - request.spent_s

    def _plan(self, candidates, left_s) -> Plan:
        (c,) = candidates
        paid = self._one_s if c.offer is None else 0.0
        plain_s = self._plain_s
        tokens = 1.0
        half = full = (1 / plain_s, 0)
        over = False
        for k, s in enumerate(c.reach, 1):
            tokens += s
            cost = k * paid + self._cost_s(k + 1)
            rate = tokens / (cost + c.spread_s * tokens)
            stake = cost + READ * c.reading_s - plain_s
            if rate > full[0]:
                if stake <= left_s:
                    full = rate, k
                else:
                    over = True
            if rate > half[0] and stake <= PART * left_s:
                half = rate, k
        best, length = half if half[1] else full
        return Plan(best, [length], candidates, over)

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        (step,) = steps
        (generation,) = self._generations
        request = self._requests[id(generation.history)]
        changed, self._last_width = width != self._last_width, width
        request.n_since_plain = 0 if width == 1 else request.n_since_plain + 1
        plan = self._plan_
        paid_s = request.owed_s * min(1, len(step.tokens) / LEAST_HORIZON)
        request.spent_s += paid_s
        request.owed_s -= paid_s
        if width == step.drafted + 1:
            self._target.learn(width, self._depth, seconds - step.draft_s, changed=changed)
        if 0 in self._stops:
            self._learn_draft_cost(step, request)
        if width > 1 or plan:
            request.spent_s += seconds - self._reading_s
            request.owed_s += self._reading_s
            request.n_plain += len(step.tokens)
        else:
            if changed:
                request.spent_s += self._target.change_s
        if len(step.tokens) > step.accepted:
            law = generation.law
            for offer in self._offers:
                n = 0
                for guessed, said in zip(offer.tokens, step.tokens):
                    if guessed != said:
                        break
                    n += 1
                self._learned.chances(law, offer.source).learn(
                    offer.confidences, min(len(offer.tokens), len(step.tokens)), n
                )
            if 0 in self._stops:
                self._learned.chances(law, step.source).learn(
                    step.confidences, step.drafted, step.accepted
                )

    def _learn_draft_cost(self, step, request) -> None:
        draft, n_missing = self._learned.draft, self._n_missing
        request.n_read = self._depth + min(step.accepted, max(0, step.drafted - 1))
        n = self._stops[0].n_evaluated
        if n_missing <= 2:
            draft.learn(1, self._depth, step.draft_s / n)
        elif n_missing >= READ_WIDTH // 4:
            first_s = step.draft_s - (n - 1) * draft.seconds(1, self._depth)
            draft.learn(READ_WIDTH, self._depth, first_s * READ_WIDTH / n_missing)
