"""What each drafter can do for each request now: the chances of its rows, and what they cost.

A free drafter has made its draft already, so each token is judged by its own confidence. A drafter
that costs time is judged by its mean chance before it drafts, and while it drafts by a stop rule:
another token must bring

    gain of tokens >= rate x (its seconds, and those that the pass takes more).

Of a text that is new to it, such a drafter reads the last tokens first. This is an investment: it
counts a little for each token to come, and the window is as long as a request can afford.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from operator import mul

from localspec.decode.chances import Chances
from localspec.decode.costs import PassCosts
from localspec.decode.drafters.base import NO_DRAFT, Draft, Drafter, DraftRequest
from localspec.decode.generation import Generation
from localspec.decode.prices import HORIZON, KAPPA, PassPrices
from localspec.decode.step import Step

WINDOW = 64
"""Tokens that a drafter reads of a new text; a calibration times a batch as wide."""
FIRST_WINDOW, N_TRIED = 16, 5
"""The least window that is of use, and the one while less than `N_TRIED` tokens were judged."""
FEW = 2
"""Tokens that a draft reads in any case: the pending one, and the last of the draft before."""

PAYS, NOTHING_PAYS, OVER_BUDGET = "pays", "nothing pays", "over budget"
NO_DRAFTS = [Draft((), NO_DRAFT.source, why=why) for why in (NOTHING_PAYS, OVER_BUDGET)]
"""Why a pass has no draft: by whether a better plan was over a budget."""


@dataclass(slots=True)
class Offer:
    """For one request: `reach[k - 1]` is the chance that k tokens are accepted. A free drafter made
    its `draft`; another reads `n_missing` tokens first. This takes `reading_s`, `spread_s` for each
    token to come."""

    chances: Chances
    reach: list[float]
    draft: Draft | None = None
    window: int = 0
    n_missing: int = 0
    reading_s: float = 0.0
    spread_s: float = 0.0
    promise: float = field(init=False)
    """Accepted tokens, if all is verified."""

    def __post_init__(self) -> None:
        self.promise = sum(self.reach)

    def least(self, n: int) -> float:
        """Accepted tokens of the first n, with chances one standard deviation lower."""
        if self.draft:
            return sum(self.chances.prudent(self.draft.confidences[:n]))
        return sum(_powers(self.chances.of_any_less(1.0), n))


@dataclass(slots=True)
class WhilePays:
    """The stop rule of one draft of at most `longest` tokens. `pass_s[n]` is what the pass takes
    with n of them. It looks ahead over cliffs."""

    chances: Chances
    rate: float
    pass_s: Sequence[float]
    token_s: float
    longest: int
    n_evaluated: int = 0

    def evaluates(self, confidences: Sequence[int]) -> bool:
        """Is it worth asking the drafter what comes next?"""
        return self._pays(confidences, 1)

    def takes(self, confidences: Sequence[int], confidence: int) -> bool:
        """Is a next token of this confidence, not drawn yet, worth verifying?"""
        self.n_evaluated += 1
        return self._pays([*confidences, confidence], 0)

    def _pays(self, confidences: Sequence[int], n_asked: int) -> bool:
        """Whether further tokens pay; `n_asked`: the next one is not evaluated yet."""
        n, gain = len(confidences) - 1 + n_asked, 0.0
        reach = self.chances.reach(confidences)[-1]
        for more in range(1, self.longest - n + 1):
            reach *= self.chances.mean if n_asked or more > 1 else 1.0
            gain += reach
            more_s = self.pass_s[n + more] - self.pass_s[n] + self.token_s * (more - 1 + n_asked)
            if gain > self.rate * more_s:
                return True
        return False


Stops = Mapping[int, WhilePays]


class PaidDrafter:
    """A drafter that costs time, what its passes take, and how much it has read of each reply."""

    def __init__(self, drafter: Drafter, costs: PassCosts) -> None:
        self.source, self._drafter, self._costs = drafter.source, drafter, costs
        self.is_at_once = drafter.is_at_once
        self._n_read: dict[int, int] = {}
        self._token_s: dict[int, float] = {}
        self._depth = 0
        self._asked: dict[int, tuple[int, int, Offer, WhilePays]] = {}
        """By request: key and length of its history, what was offered, and what stopped it."""
        self._left: dict[int, tuple[int, int]] = {}
        """By request: the guess that was not worth verifying."""

    def offer(
        self,
        generation: Generation,
        chances: Chances,
        longest: int,
        affordable_s: Callable[[], float],
    ) -> Offer | None:
        """None where it would have to read more than is affordable."""
        depth, known = len(generation.history), self._n_read.get(id(generation.history), 0)
        window = FIRST_WINDOW if chances.n_judged < N_TRIED else WINDOW
        n_missing, reading_s, spread_s = min(depth - known, window), 0.0, 0.0
        if n_missing > FEW:
            window = min(window, int(affordable_s() * WINDOW / self.token_s(WINDOW)))
            if window < min(n_missing, FIRST_WINDOW):
                return None
            n_missing = min(n_missing, window)
            reading_s = self.token_s(n_missing) - self.token_s(1)
            spread_s = reading_s / max(1, min(generation.room, max(HORIZON, generation.n_tokens)))
        n_longest = min(longest, self._drafter.n_longest or longest)
        reach = _powers(chances.of_any_less(-KAPPA), n_longest)
        return Offer(chances, reach, None, window, n_missing, reading_s, spread_s)

    def keep(self, histories: Sequence[list[int]]) -> None:
        """Forget what was read of other replies: a later one may be known by the same key."""
        keys = {id(history) for history in histories}
        self._n_read = {key: n for key, n in self._n_read.items() if key in keys}

    def look(self, depth: int) -> None:
        """Costs are those of that depth."""
        self._depth = depth
        self._token_s = {}

    def token_s(self, n: int) -> float:
        """Seconds for one more token of each of n requests, or to read n of one."""
        if n not in self._token_s:
            self._token_s[n] = self._costs.seconds(n, self._depth) if n else 0.0
        return self._token_s[n]

    def draft(
        self, generations: Sequence[Generation], offers: Sequence[Offer | None], stops: Stops
    ) -> list[Draft]:
        """A draft for each generation with a stop rule; the others keep what was read of them."""
        requests: list[DraftRequest] = []
        self._asked = {}
        for i, (generation, offer) in enumerate(zip(generations, offers, strict=True)):
            stop, history = stops.get(i), generation.history
            if stop and offer:
                self._asked[i] = id(history), len(history), offer, stop
                requests.append(generation.request(stop.longest, stop, offer.window))
            else:
                requests.append(generation.request(0))
        drafts = self._drafter.draft(requests)
        self._left = {i: left for i in self._asked if (left := drafts[i].left)}
        return drafts

    def invested_s(self, i: int, extra_s: float) -> float:
        """What a pass took more and later tokens pay off: reading, and all of it where a head only
        made itself ready, so that the target keeps its states from now on."""
        if i not in self._asked:
            return 0.0
        *_, offer, stop = self._asked[i]
        return offer.reading_s if stop.n_evaluated else extra_s

    def learn(self, steps: Sequence[Step], draft_s: float) -> None:
        """What drafting took, and what was accepted. A cache holds its own draft but for the last
        token."""
        asked, self._asked = self._asked, {}
        asked = {i: each for i, each in asked.items() if each[-1].n_evaluated}
        if not asked:
            return
        for i, (key, depth, offer, _) in asked.items():
            step = steps[i]
            self._n_read[key] = depth + min(step.accepted, max(0, step.drafted - 1))
            if len(step.tokens) > step.accepted:  # else the reply ended inside the draft
                offer.chances.learn(step.confidences, step.drafted, step.accepted)
                if i in self._left and step.accepted == step.drafted:
                    token, confidence = self._left[i]
                    offer.chances.judge(confidence, accepted=step.tokens[step.accepted] == token)
        n, n_missing = len(asked), max(offer.n_missing for _, _, offer, _ in asked.values())
        rounds = max(stop.n_evaluated for *_, stop in asked.values())
        rounds = 1 if self.is_at_once else rounds
        depth = max(depth for _, depth, _, _ in asked.values())
        if n_missing <= FEW:
            self._costs.learn(n, depth, draft_s / rounds)
        elif n == 1 and n_missing >= FIRST_WINDOW:
            first_s = draft_s - (rounds - 1) * self._costs.seconds(1, depth)
            self._costs.learn(WINDOW, depth, first_s * WINDOW / n_missing)


@dataclass(slots=True)
class Plan:
    """How many tokens to draft for each request, and the tokens a second that this promises. A
    better plan was over a budget if it `is_limited`. `paid` drafts where no free drafter did."""

    rate: float
    lengths: list[int]
    offers: Sequence[Offer | None] = ()
    paid: PaidDrafter | None = None
    is_limited: bool = False

    @property
    def n_rows(self) -> int:
        """Drafted tokens of all."""
        return sum(self.lengths)

    def drafts(self, generations: Sequence[Generation], prices: PassPrices) -> list[Draft]:
        """Made as planned."""
        drafts, n_rows = [NO_DRAFTS[self.is_limited]] * len(self.lengths), self.n_rows
        stops, paid = dict[int, WhilePays](), self.paid
        for i, (n, offer) in enumerate(zip(self.lengths, self.offers, strict=False)):
            if n and offer and offer.draft:
                drafts[i] = offer.draft.first(n, PAYS)
            elif n and offer and paid:
                token_s = 0.0 if paid.is_at_once else paid.token_s(1)
                pass_s = prices.with_rows_s(n_rows - n, n_rows)
                stops[i] = WhilePays(offer.chances, self.rate, pass_s, token_s, n)
        self.paid = paid if stops else None
        made = paid.draft(generations, self.offers, stops) if paid and stops else []
        for i in stops:
            drafts[i] = made[i].first(self.lengths[i], PAYS)
        return drafts


def _powers(chance: float, n: int) -> list[float]:
    return list(accumulate(repeat(chance, n), mul))


def rows_of(offers: Sequence[Offer | None]) -> list[tuple[float, int, int]]:
    """(reach, place in its draft, request) of each row, the likeliest first."""
    rows = [(s, k, i) for i, o in enumerate(offers) if o for k, s in enumerate(o.reach, 1)]
    return sorted(rows, key=lambda row: (-row[0], row[1])) if len(offers) > 1 else rows


def least_tokens(offers: Sequence[Offer | None], lengths: Sequence[int]) -> float:
    """Tokens of a pass with drafts of these lengths, with chances one standard deviation lower."""
    both = zip(offers, lengths, strict=True)
    return sum(1 + (offer.least(n) if offer else 0.0) for offer, n in both)
