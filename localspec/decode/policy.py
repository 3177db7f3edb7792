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
from math import inf

from localspec.decode.chances import Chances, Learned
from localspec.decode.drafters.base import NO_DRAFT, Draft, Drafter, DraftRequest
from localspec.decode.generation import Generation
from localspec.decode.offers import NO_DRAFTS, Offer, PaidDrafter, Plan, least_tokens, rows_of
from localspec.decode.prices import AHEAD, Budget, PassPrices
from localspec.decode.speculator import Gain
from localspec.decode.step import Step
from localspec.engine.base import shared_prefix
from localspec.format import percent

UNSURE = 0.5
"""Of what is left, for drafts that would not pay with chances one standard deviation lower: the
rest is kept for a text that repeats itself for sure."""
REST = 12
"""Passes without a draft, before free drafters are asked half as often: to ask and choose takes 1
to 2 % of a small model's pass, and a text that begins to repeat itself is found a token later."""
Guess = tuple[int, Chances, Draft]
"""For the request in that place, by who costs nothing."""
_NO_PLAN = Plan(0.0, [])


class Adaptive:
    """The policy of one reply, or of many at a time."""

    def __init__(self, learned: Learned, drafters: Sequence[Drafter], max_draft: int) -> None:
        self._learned, self._target, self._max_draft = learned, learned.target, max_draft
        self._free = [drafter for drafter in drafters if drafter.is_free]
        costs = learned.drafting
        self._paid = [PaidDrafter(d, costs[d.source]) for d in drafters if d.source in costs]
        self._generations: Sequence[Generation] = ()
        self._budgets, self._guesses = list[Budget](), list[Guess]()
        self._rooms, self._requests = list[int](), list[DraftRequest]()
        self._plan, self._left_s = _NO_PLAN, list[float]()
        self._prices = PassPrices(learned.target, max_draft)
        self._depth, self._reads_prompt, self._drafted, self._is_parked = 0, True, False, False
        self._n_idle = 0
        self._seconds = self._promised_s = self._plain_passes_s = self._n_worth = 0.0

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        """The drafts of the best plan; `n_other_rows` of prompts are evaluated as well."""
        prices, depth, rooms = self._prices, 0, list[int]()
        prices.limit_s, self._guesses, self._reads_prompt = limit_s, [], not generations
        for each in generations:
            depth = max(depth, len(each.history))
            rooms.append(min(self._max_draft, each.room))
            self._reads_prompt |= len(each.history) == each.n_prompt
        self._depth, self._plan = depth, _NO_PLAN
        if not rooms:  # chunks of prompts alone
            return []
        if generations != self._generations:
            self._meet(generations)
        if prices.look(len(rooms), n_other_rows, depth):
            self._is_parked = False
            for paid in self._paid:
                paid.look(depth)
        is_parked = self._is_parked or not self._paid
        self._n_idle += 1
        is_asked = prices.can_pay and any(rooms) and not (is_parked and self._is_resting)
        if is_asked and (self._ask_free(rooms) or not is_parked):
            plan = self._chosen(rooms)
            self._n_idle = 0 if plan.n_rows else self._n_idle
            return plan.drafts(generations, prices)
        return [NO_DRAFTS[False] if any(rooms) else NO_DRAFT] * len(rooms)

    @property
    def _is_resting(self) -> bool:
        """Whether a text that gave no hope for long is left alone in every other pass."""
        is_open = not any(request.constraint for request in self._requests)
        return self._n_idle > REST and self._n_idle % 2 == 0 and is_open

    def _meet(self, generations: Sequence[Generation]) -> None:
        """Others decode now, or some more."""
        histories = [each.history for each in generations]
        known = {id(budget.history): budget for budget in self._budgets}
        self._budgets = [known.get(id(h)) or Budget(h, len(h)) for h in histories]
        self._generations, self._rooms = generations, []
        for paid in self._paid:
            paid.keep(histories)

    def _ask_free(self, rooms: list[int]) -> bool:
        """Whether what costs nothing to ask may pay."""
        if rooms != self._rooms:  # else the requests are those of the last pass: histories grow
            both = zip(self._generations, rooms, strict=True)
            self._rooms, self._requests = rooms, [each.request(n) for each, n in both]
        likeliest = 0.0
        for drafter in self._free:
            for i, draft in enumerate(drafter.draft(self._requests)):
                if draft.tokens:
                    chances = self._learned.chances(self._generations[i].law, drafter.source)
                    likeliest = max(likeliest, chances.means[draft.confidences[0]])
                    self._guesses.append((i, chances, draft))
        return self._prices.may_pay(likeliest)

    def _chosen(self, rooms: Sequence[int]) -> Plan:
        """The best plan, with drafts or without."""
        self._left_s = [self.may_lose_s(i) for i in range(len(rooms))]
        offers: list[list[Offer]] = [[] for _ in rooms]
        for i, chances, draft in self._guesses:
            offers[i].append(Offer(chances, chances.reach(draft.confidences), draft))
        free = [max(each, key=lambda o: o.promise, default=None) for each in offers]
        plans, offered = [self._best(free)], free
        for paid in self._paid:
            offered = [self._paid_or(each, paid, i, rooms[i]) for i, each in enumerate(free)]
            plans.append(self._best(offered, paid))
        plan = self._plan = max(plans, key=lambda each: each.rate)
        plan.is_limited = any(each.is_limited for each in plans)
        self._is_parked = all(offered) and not (plan.is_limited or plan.n_rows)
        return plan

    def may_lose_s(self, i: int, ahead: int = AHEAD) -> float:
        """What drafts may lose now of the request in that place."""
        generation = self._generations[i]
        n_passes = self._prices.unit * (generation.n_tokens + min(ahead, generation.room))
        return self._budgets[i].left_s(self._target, self._depth, n_passes)

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

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        """Costs, chances and budgets."""
        prices, n_drafted, draft_s = self._prices, 0, 0.0
        for step in steps:
            n_drafted, draft_s = n_drafted + step.drafted, draft_s + step.draft_s
        changed, own_s = width != prices.last_width, max(0.0, seconds - prices.other_s)
        if not self._reads_prompt:
            if width == prices.n_rows + n_drafted:
                plain, pass_s = width == len(steps), seconds - draft_s
                self._target.learn(width, self._depth, pass_s, changed=changed, is_plain=plain)
            if any(self._plan.lengths):
                self._charge(steps, own_s)
            else:
                self._plain_passes_s += own_s
                for budget in self._budgets if changed and self._drafted else ():  # the way back
                    budget.spent_s += self._target.change_s / len(steps)
        if self._guesses:
            self._learn_guesses(steps)
        if self._plan.paid:
            self._plan.paid.learn(steps, draft_s)
        prices.last_width, self._drafted = width, n_drafted > 0

    def _learn_guesses(self, steps: Sequence[Step]) -> None:
        """Free ones are compared with what was said, used or not."""
        for i, chances, draft in self._guesses:
            said = steps[i].tokens
            if len(said) > steps[i].accepted:  # else the reply ended inside the draft
                n = min(len(draft.tokens), len(said))
                chances.learn(draft.confidences, n, shared_prefix(draft.tokens, said))

    def _charge(self, steps: Sequence[Step], seconds: float) -> None:
        """Who drafts pays what a pass takes longer, by rows."""
        plan, n_asked = self._plan, self._plan.n_rows
        self._seconds += seconds
        self._promised_s += plan.rate * self._prices.plain_s / len(steps) * seconds
        for i, step in enumerate(steps):
            n_worth = self._prices.unit * len(step.tokens)
            self._n_worth += n_worth
            offer, share = plan.offers[i], plan.lengths[i] / n_asked
            if share and offer:
                extra_s = (seconds - self._prices.plain_s) * share
                owed_s = plan.paid.invested_s(i, extra_s) if plan.paid else 0.0
                self._budgets[i].add(self._prices.token_s + extra_s, n_worth, owed_s)

    @property
    def gain(self) -> Gain:
        """Promised at each choice, beside what came of them."""
        taken_s = self._seconds + self._plain_passes_s
        if not taken_s:
            return Gain()
        plain_s = self._plain_passes_s + self._n_worth * self._target.plain_s(self._depth)
        return Gain((self._promised_s + self._plain_passes_s) / taken_s, plain_s / taken_s)

    @property
    def reason(self) -> str:
        """Why little or nothing is drafted."""
        if not self._prices.can_pay:
            v = self._prices.with_rows_s(1, 1)[0] / self._prices.plain_s
            return f"no drafts: checking one token takes {percent(v - 1)} more"
        is_spent = self._plan.is_limited and not self._plan.n_rows
        return "no drafts now: they have used up the time that they may lose" if is_spent else ""
