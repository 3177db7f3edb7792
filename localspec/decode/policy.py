"""Who drafts before the next pass, and how much: what brings the most tokens a second.

With n requests that decode and T rows that are evaluated anyway (their pending tokens, and chunks
of prompts), the B drafted rows are chosen that promise most:

    B* = argmax (n + sum of the B largest S) / (drafting + v(T + B)),
    S(r, k) = product of request r's chances up to k

(Leviathan et al. 2023 for one request, with measured v). No draft is a choice. What is not known
yet, a chance or a cost, is hoped to be better than its mean, so it is tried, and left alone once
the evidence says so. What fails is paid from each request's budget. One user is the case of one
request. It does not know how long a reply becomes, nor that two drafters may guess the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from localspec.decode.budget import AHEAD, Budget
from localspec.decode.chances import Chances, Learned
from localspec.decode.drafters.base import NO_DRAFT, Draft, Drafter
from localspec.decode.generation import Generation
from localspec.decode.offers import Offer, PaidDrafter, WhilePays, least_tokens, rows_of
from localspec.decode.prices import PassPrices
from localspec.decode.speculator import Gain
from localspec.decode.step import Step
from localspec.engine.base import shared_prefix
from localspec.format import percent

UNSURE = 0.5
"""Of what is left, for drafts that would not pay with chances one standard deviation lower: the
rest is kept for a text that repeats itself for sure."""
PAYS, NOTHING_PAYS, OVER_BUDGET = "pays", "nothing pays", "over budget"
NO_DRAFTS = [Draft((), NO_DRAFT.source, why=why) for why in (NOTHING_PAYS, OVER_BUDGET)]


@dataclass(slots=True)
class Plan:
    """How many tokens to draft for each request, and the tokens a second that this promises. A
    better plan was over a budget if it `is_limited`. `paid` drafts where no free drafter did."""

    rate: float
    lengths: list[int]
    offers: Sequence[Offer | None] = ()
    paid: PaidDrafter | None = None
    is_limited: bool = False


class Adaptive:
    """The policy of one reply, or of many at a time."""

    def __init__(self, learned: Learned, drafters: Sequence[Drafter], max_draft: int) -> None:
        self._learned, self._target, self._max_draft = learned, learned.target, max_draft
        self._free = [drafter for drafter in drafters if drafter.is_free]
        costs = learned.drafting
        self._paid = [PaidDrafter(d, costs[d.source]) for d in drafters if d.source in costs]
        self._generations: Sequence[Generation] = ()
        self._budgets, self._guesses = list[Budget](), list[list[Offer]]()
        self._plan, self._left_s = Plan(0.0, []), list[float]()
        self._prices = PassPrices(learned.target, max_draft)
        self._depth, self._reads_prompt, self._drafted, self._is_parked = 0, True, False, False
        self._seconds = self._promised_s = self._plain_passes_s = self._n_worth = 0.0

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        """The drafts of the best plan; `n_other_rows` of prompts are evaluated as well."""
        self._prices.limit_s = limit_s
        if not generations:  # chunks of prompts alone
            self._plan, self._reads_prompt = Plan(0.0, []), True
            return []
        self._look(generations, n_other_rows)
        rooms = [min(self._max_draft, each.room) for each in generations]
        self._guesses, self._plan = [[] for _ in rooms], Plan(0.0, [0] * len(rooms))
        if not any(rooms):
            return [NO_DRAFT] * len(rooms)
        if self._prices.can_pay:
            self._ask_free(rooms)
            if any(self._guesses) or (self._paid and not self._is_parked):
                free = [max(g, key=lambda o: o.promise, default=None) for g in self._guesses]
                self._left_s = [self.may_lose_s(i) for i in range(len(rooms))]
                self._take(self._best(free))
                for paid in self._paid:
                    offers = [self._paid_or(each, paid, i, rooms[i]) for i, each in enumerate(free)]
                    self._take(self._best(offers, paid))
                    self._is_parked = all(offers) and not self._plan.is_limited
                self._is_parked &= not any(self._plan.lengths)
        return self._made()

    def _take(self, plan: Plan) -> None:
        """The better plan, with drafts or without."""
        plan.is_limited = self._plan.is_limited = plan.is_limited or self._plan.is_limited
        self._plan = plan if plan.rate > self._plan.rate else self._plan

    def _look(self, generations: Sequence[Generation], n_other_rows: int) -> None:
        if generations is not self._generations:
            histories = [each.history for each in generations]
            known = {id(budget.history): budget for budget in self._budgets}
            self._budgets = [known.get(id(h)) or Budget(h) for h in histories]
            for paid in self._paid:
                paid.keep(histories)
        self._generations, self._depth = generations, max([len(g.history) for g in generations])
        self._reads_prompt = not min([each.n_tokens for each in generations])
        if self._prices.look(len(generations), n_other_rows, self._depth):
            self._is_parked = False
            for paid in self._paid:
                paid.look(self._depth)

    def may_lose_s(self, i: int, ahead: int = AHEAD) -> float:
        """What drafts may lose now of the request in that place."""
        generation = self._generations[i]
        n_passes = self._prices.unit * (generation.n_tokens + min(ahead, generation.room))
        return self._budgets[i].left_s(self._target, self._depth, n_passes)

    def _ask_free(self, rooms: Sequence[int]) -> None:
        requests = [g.request(n) for g, n in zip(self._generations, rooms, strict=True)]
        for drafter in self._free:
            for i, draft in enumerate(drafter.draft(requests)):
                if draft.tokens:
                    chances = self._learned.chances(self._generations[i].law, drafter.source)
                    self._guesses[i].append(Offer(chances, chances.reach(draft.confidences), draft))

    def _paid_or(self, free: Offer | None, paid: PaidDrafter, i: int, room: int) -> Offer | None:
        """What promises more tokens for a request: a paid drafter, or what is free."""
        generation, owed_s = self._generations[i], self._budgets[i].owed_s
        chances = self._learned.chances(generation.law, paid.source)
        offer = paid.offer(
            generation, chances, room, lambda: self.may_lose_s(i, 2 * AHEAD) - owed_s
        )
        return offer if offer and (not free or offer.promise > free.promise) else free

    def _best(self, offers: Sequence[Offer | None], paid: PaidDrafter | None = None) -> Plan:
        """The rows that bring the most tokens a second, of those that the budgets bear."""
        n, prices = len(offers), self._prices
        plain_s, hoped_s, doubt_s = prices.plain_s, prices.hoped_s, prices.doubt_s
        n_unchanged, most_s = prices.last_width - prices.n_rows, prices.limit_s - prices.other_s
        plan = Plan(n / plain_s, [0] * n, offers, paid)
        lengths, n_at_depth = [0] * n, [0] * (self._max_draft + 1)
        tokens, drafting_s, n_drafted = float(n), 0.0, 0
        more_s = [paid.token_s(m + 1) - paid.token_s(m) for m in range(n)] if paid else []
        rows = rows_of(offers)
        for n_before, (reach, k, i) in enumerate(rows):
            offer = offers[i]
            if offer is None or k > lengths[i] + 1:
                continue  # a shorter draft is over the budget already
            row_s = offer.spread_s * (reach + (k == 1))
            if paid and offer.draft is None:
                n_at_depth[k] += 1
                row_s += 0.0 if paid.is_at_once and k > 1 else more_s[n_at_depth[k] - 1]
            b = n_drafted + 1
            cost_s = drafting_s + row_s + (hoped_s[b] or prices.hope_s(b))
            if tokens + (len(rows) - n_before) * reach <= plan.rate * cost_s or cost_s > most_s:
                break  # not even if all that follow were as likely; or others wait for the pass
            cost_s += prices.change_s if b != n_unchanged else 0.0
            rate, stake_s = (tokens + reach) / cost_s, (cost_s + doubt_s[b] - plain_s) * k
            if stake_s >= self._left_s[i] * b:
                plan.is_limited |= rate > plan.rate
                continue
            tokens, drafting_s, n_drafted, lengths[i] = tokens + reach, drafting_s + row_s, b, k
            if rate > plan.rate:
                is_small = stake_s <= UNSURE * self._left_s[i] * b
                if is_small or least_tokens(offers, lengths) * plain_s >= n * cost_s:
                    plan.rate, plan.lengths = rate, lengths.copy()
                plan.is_limited |= plan.rate < rate
        return plan

    def _made(self) -> list[Draft]:
        plan = self._plan
        drafts = [NO_DRAFTS[plan.is_limited]] * len(plan.lengths)
        if not any(plan.lengths):
            return drafts
        stops = dict[int, WhilePays]()
        for i, (n, offer) in enumerate(zip(plan.lengths, plan.offers, strict=False)):
            if n and offer and offer.draft:
                drafts[i] = offer.draft.first(n, PAYS)
            elif n and offer and plan.paid:
                stops[i] = self._stop(n, offer.chances, plan.paid)
        plan.paid = plan.paid if stops else None
        made = plan.paid.draft(self._generations, plan.offers, stops) if plan.paid else []
        for i in stops:
            drafts[i] = made[i].first(plan.lengths[i], PAYS)
        return drafts

    def _stop(self, n: int, chances: Chances, paid: PaidDrafter) -> WhilePays:
        n_rows, token_s = sum(self._plan.lengths), 0.0 if paid.is_at_once else paid.token_s(1)
        pass_s = self._prices.with_rows_s(n_rows - n, n_rows)
        return WhilePays(chances, self._plan.rate, pass_s, token_s, n)

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        """Costs, chances and budgets."""
        n_drafted = sum([step.drafted for step in steps])
        draft_s = sum([step.draft_s for step in steps])
        changed = width != self._prices.last_width
        if not self._reads_prompt:
            if width == self._prices.n_rows + n_drafted:
                plain, pass_s = width == len(steps), seconds - draft_s
                self._target.learn(width, self._depth, pass_s, changed=changed, is_plain=plain)
            back_s = self._target.change_s if changed and self._drafted else 0.0
            self._charge(steps, max(0.0, seconds - self._prices.other_s), back_s)
        for i, step in enumerate(steps):
            if len(step.tokens) > step.accepted:  # else the reply ended inside the draft
                self._learn_chances(i, step)
        if self._plan.paid:
            self._plan.paid.learn(steps, draft_s)
        self._prices.last_width, self._drafted = width, n_drafted > 0

    def _charge(self, steps: Sequence[Step], seconds: float, back_s: float) -> None:
        """Who drafts pays what a pass takes longer, by rows; after drafts the way back, too."""
        plan, n_asked = self._plan, sum(self._plan.lengths)
        gain = plan.rate * self._prices.plain_s / len(steps) if n_asked else 1.0
        self._seconds, self._promised_s = self._seconds + seconds, self._promised_s + gain * seconds
        for i, step in enumerate(steps):
            budget, n_worth = self._budgets[i], self._prices.unit * len(step.tokens)
            budget.pay_off(len(step.tokens))
            if not n_asked:
                budget.spent_s += back_s / len(steps)
                self._plain_passes_s += seconds / len(steps)
                continue
            self._n_worth += n_worth
            offer, share = plan.offers[i], plan.lengths[i] / n_asked
            if share and offer:
                extra_s = (seconds - self._prices.plain_s) * share
                budget.add(self._prices.token_s + extra_s, n_worth, offer.reading_s)

    def _learn_chances(self, i: int, step: Step) -> None:
        """Free guesses are compared with what was said, used or not."""
        for guess in self._guesses[i]:
            draft = guess.draft or NO_DRAFT
            n = min(len(draft.tokens), len(step.tokens))
            guess.chances.learn(draft.confidences, n, shared_prefix(draft.tokens, step.tokens))
        offer = self._plan.offers[i] if self._plan.paid else None
        if offer and offer.draft is None:
            offer.chances.learn(step.confidences, step.drafted, step.accepted)

    @property
    def gain(self) -> Gain:
        """Promised at each choice, beside what came of them."""
        if not self._seconds:
            return Gain()
        plain_s = self._plain_passes_s + self._n_worth * self._target.plain_s(self._depth)
        return Gain(self._promised_s / self._seconds, plain_s / self._seconds)

    @property
    def reason(self) -> str:
        """Why little or nothing is drafted."""
        if not self._prices.can_pay:
            v = self._prices.with_rows_s(1, 1)[0] / self._prices.plain_s
            return f"no drafts: checking one token takes {percent(v - 1)} more"
        is_spent = self._plan.is_limited and not any(self._plan.lengths)
        return "no drafts now: they have used up the time that they may lose" if is_spent else ""
