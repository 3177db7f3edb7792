"""The adaptive policy keeps its promises: it loses little, finds what pays, and shares a pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

import pytest
from fakes import FakeEngine
from research.speculation.play import Reply, learned_of, play
from research.speculation.simulate import judge
from research.speculation.worlds import (
    CALIBRATED,
    TABLES,
    WIDTHS,
    Calibration,
    Chance,
    Luck,
    World,
    fixed,
    grid,
    random_worlds,
)

from localspec.decode.chances import Chances, Learned
from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve, Point
from localspec.decode.drafters import N_CONFIDENCES
from localspec.decode.drafters.base import NO_DRAFT, Draft, DraftRequest
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.decode.driver import drive
from localspec.decode.generation import Generation, Limits
from localspec.decode.policy import Adaptive
from localspec.decode.prices import PassPrices
from localspec.decode.step import Step
from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling

GREEDY = Sampling(temperature=0)
PROMISE, N = 1.035, 256
"""No reply of N tokens should take longer than this, in the time of plain decoding."""


def table(name: str) -> tuple[float, ...]:
    points = TABLES[name]
    ends = sorted(points)
    v = [0.0]
    for n in WIDTHS[1:]:
        low = max(m for m in ends if m <= n)
        high = min(m for m in ends if m >= n)
        share = (n - low) / (high - low) if high > low else 0.0
        v.append((1 - share) * points[low] + share * points[high])
    return tuple(v)


def lengths_of(world: World, learned: Learned | None = None, reply: int = 0) -> list[int]:
    luck = Luck.of(world, N, reply)
    played = play(world, learned or learned_of(world, reply), N, luck)
    return [step.drafted for step in played.steps]


# one reply


@pytest.mark.parametrize("chance", [0.05, 0.3])
def test_a_lookup_that_never_pays_stops_costing(chance: float) -> None:
    """Where checking a token is dear, a text that does not repeat itself must cost nothing."""
    world = World("dear", (7, 1), table("SmolLM2 Q4_0"), lookup=Chance((chance,)))
    luck = Luck.of(world, N, 0)
    played = play(world, learned_of(world, 0), N, luck)
    assert played.passes <= PROMISE * fixed(world, "none", 0, N, luck)
    late = played.steps[len(played.steps) // 2 :]
    assert sum(step.drafted > 0 for step in late) <= 0.05 * len(late)


@pytest.mark.parametrize("chance", [0.05, 0.3, 0.7])
def test_what_is_not_planned_would_not_have_been_drafted(
    chance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guess that cannot pay costs a reply no plan, and leaving it at that changes nothing."""
    world = World("dear", (7, 6), table("SmolLM2 Q4_0"), lookup=Chance((chance, 0.9), (200,)))
    judged: list[bool] = []
    may_pay = PassPrices.may_pay

    def noted(prices: PassPrices, chance: float) -> bool:
        judged.append(may_pay(prices, chance))
        return judged[-1]

    monkeypatch.setattr(PassPrices, "may_pay", noted)
    lengths = lengths_of(world)
    monkeypatch.setattr(PassPrices, "may_pay", lambda prices, chance: chance > 0)
    assert lengths_of(world) == lengths
    assert chance > 0.05 or judged.count(False) > 0.5 * len(judged)


def test_a_draft_model_that_never_pays_stops_costing() -> None:
    """Users leave a draft model on that does not fit; it may not make their machine slower."""
    world = World("bad", (7, 2), table("24 % a token"), draft_cost=0.5, model=Chance((0.2,)))
    learned = learned_of(world, 0)
    for reply in range(3):
        luck = Luck.of(world, N, reply)
        played = play(world, learned, N, luck)
        assert played.passes <= PROMISE * fixed(world, "none", 0, N, luck)
    assert sum(step.source == "model" for step in played.steps) <= 0.05 * len(played.steps)


def test_a_good_draft_is_soon_used_at_its_best_length() -> None:
    """1.2 GB of F16: four rows are checked at the price of one, five at that of two."""
    world = World("cliff", (7, 3), table("1.2 GB F16"), lookup=Chance((0.7,)))
    lengths = lengths_of(world)
    late = lengths[len(lengths) // 2 :]
    assert late.count(3) >= 0.7 * len(late)


def test_a_good_draft_model_pays_within_a_reply() -> None:
    world = World("good", (7, 4), table("flat"), draft_cost=0.05, model=Chance((0.9,)))
    verdict = judge(world, 128, 4, 0)
    assert verdict.regret <= 0.1
    assert verdict.best < 0.4 * min(verdict.plain)


def test_drafts_stop_when_the_text_stops_repeating() -> None:
    text = Chance((0.95, 0.05), (128,))
    world = World("turn", (7, 5), table("SmolLM2 Q4_0"), lookup=text)
    luck = Luck.of(world, 512, 0)
    steps = play(world, learned_of(world, 0), 512, luck).steps
    early = [step for step in steps if step.tokens[0] < 128]
    late = [step for step in steps if step.tokens[0] > 384]
    assert sum(step.accepted for step in early) > 0.5 * 128
    assert sum(step.drafted > 0 for step in late) <= 0.1 * len(late)


def test_no_reply_loses_much_more_than_its_budget() -> None:
    """Also where calibrations are wrong, passes scatter, and chances change."""
    verdicts = [judge(world, N, 2, 0) for world in random_worlds(40, 77)]
    slow = [ratio for verdict in verdicts for ratio in verdict.to_plain]
    assert max(slow) <= 1.08
    assert sum(ratio > PROMISE for ratio in slow) <= 0.05 * len(slow)


@pytest.mark.slow
def test_a_reply_loses_little_to_the_best_choice_of_hindsight() -> None:
    """Nobody should have to try draft lengths by hand."""
    fresh = [judge(world, N, 2, 0).regret for world in random_worlds(40, 78)]
    learned = [judge(world, N, 2, 2).regret for world in random_worlds(20, 78)]
    assert sum(fresh) / len(fresh) <= 0.03
    assert sum(learned) / len(learned) <= 0.02


def test_a_long_prompt_is_not_read_for_a_short_reply() -> None:
    """A draft model that reads a page before it says ten words has cost more than it can win."""
    world = World("page", (7, 6), table("flat"), 0.6, Chance((0.9,)), n_prompt=400)
    for n in (12, 24):
        luck = Luck.of(world, n, 0)
        played = play(world, learned_of(world, 0), n, luck)
        assert played.passes <= 1.1 * fixed(world, "none", 0, n, luck)


def test_what_is_learned_carries_over() -> None:
    """The next reply of a session does not begin again with what a draft model is worth."""
    dear = table("batched-bench README")
    world = World("pair", (7, 7), dear, 0.05, Chance((0.9,)))
    fresh = later = 0.0
    for reply in range(8):
        luck, learned = Luck.of(world, 64, reply), learned_of(world, reply)
        fresh += play(world, learned, 64, luck).passes
        for before in range(3):
            play(world, learned, N, Luck.of(world, N, 100 + before))
        later += play(world, learned, 64, luck).passes
    assert later < 0.97 * fresh


def test_chances_survive_a_session() -> None:
    chances, again = Chances("model"), Chances("model")
    chances.learn([3] * 10, 10, 10)
    again.recall(chances.counts(), 0.5)
    assert Chances("model").reach([3])[0] < again.reach([3])[0] < chances.reach([3])[0]
    assert again.prudent([3])[0] < again.reach([3])[0]


def test_each_world_errs_in_its_own_way() -> None:
    """With one error for all, a policy that suits that error looks good everywhere."""
    first, second = grid()[:2]
    errors = [
        [Calibration.of(world, reply).target[n] / world.v[n] for n in CALIBRATED]
        for world, reply in ((first, 0), (second, 0), (first, 1))
    ]
    assert errors[0] != errors[1]
    assert errors[0] != errors[2]
    assert Calibration.of(first, 0) == Calibration.of(grid()[0], 0)


# costs


def test_wide_passes_do_not_move_the_measure_of_loss() -> None:
    """A machine that looks slower because drafts are dear would excuse the drafts."""
    costs = PassCosts(PassCurve((Point(1, 0.01), Point(17, 0.012))))
    for _ in range(50):
        costs.learn(5, 100, 0.02)
    assert costs.plain_s(100) == pytest.approx(0.01)
    assert costs.seconds(5, 100) == pytest.approx(0.02, rel=0.05)
    for _ in range(50):
        costs.learn(1, 100, 0.013)
    assert costs.plain_s(100) == pytest.approx(0.013, rel=0.05)


def test_a_calibration_beside_other_programs_loses_little() -> None:
    """It found all passes four times as long, and wide ones hardly longer than plain ones."""
    loaded = [replace(world, load=4.0) for world in random_worlds(25, 17)]
    verdicts = [judge(world, N, 1, 0) for world in loaded]
    assert max(ratio for verdict in verdicts for ratio in verdict.to_plain) < PROMISE + 0.03
    assert fmean(verdict.regret for verdict in verdicts) < 0.12


def test_a_pass_that_was_shorter_is_believed_and_one_that_was_longer_doubted() -> None:
    """Other programs make passes longer, none makes them shorter than they can be."""

    def plain_s(*seconds: float) -> tuple[float, float]:
        costs = PassCosts(PassCurve((Point(1, 0.04), Point(4, 0.06))))
        for each in seconds:
            costs.learn(1, 0, each)
        return costs.plain_s(0), costs.seconds(4, 0)

    plain, wide = plain_s(0.01)
    assert plain < 0.012
    assert wide < 0.03  # all widths were calibrated beside others
    assert plain_s(0.04, 0.04, 0.4)[0] < 0.06
    assert plain_s(*[0.08] * 6)[0] > 0.07


def test_nothing_is_drafted_before_a_plain_pass_was_seen() -> None:
    """All losses are measured by it."""
    costs = PassCosts(PassCurve((Point(1, 1.0), Point(17, 1.1))))
    policy = Adaptive(Learned(costs), [Guesses()], 8)  # pyright: ignore[reportArgumentType]
    assert drafted(policy, 1) == [0]
    policy.learn([Step((1,), 0, 0, "none", 1, 0.0, 1.0, seconds=1.0)], 1, 1.0)
    assert drafted(policy, 1) == [8]


def test_the_longer_a_plain_pass_was_not_seen_the_less_is_known_of_it() -> None:
    costs = PassCosts(PassCurve((Point(1, 0.01), Point(17, 0.012))))
    unknown = costs.plain_error
    for _ in range(20):
        costs.learn(1, 100, 0.01)
    known = costs.plain_error
    for _ in range(200):
        costs.learn(5, 100, 0.011)
    assert known < 0.5 * unknown
    assert known < costs.plain_error <= unknown


# many replies


def under_way(max_tokens: int = 512) -> Reply:
    """One of several replies in progress, of ten tokens so far."""
    reply = Reply.numbered(40, max_tokens)
    reply.history += [0] * 9
    return reply


@dataclass(slots=True)
class Guesses:
    """A free drafter that is equally sure of everything."""

    confidence: int = 9
    source: ClassVar[str] = "lookup"
    is_free: ClassVar[bool] = True

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [
            Draft([1] * r.n_tokens, self.source, None, [self.confidence] * r.n_tokens)
            if r.n_tokens
            else NO_DRAFT
            for r in requests
        ]


def policy_of(seconds: dict[int, float], drafters: Sequence[Guesses] = (Guesses(),)) -> Adaptive:
    """On a machine whose passes take so long, which is known."""
    costs = PassCosts(PassCurve(tuple(Point(n, s) for n, s in sorted(seconds.items()))))
    for n, s in seconds.items():
        for _ in range(40):
            costs.learn(n, 50, s)
    return Adaptive(Learned(costs), list(drafters), 8)  # pyright: ignore[reportArgumentType]


FLAT = {n: 1.0 + 0.005 * n for n in range(1, 65)}
STEEP = {n: 0.4 + 0.6 * n for n in range(1, 65)}
CLIFF = {n: (1.0 if n <= 8 else 3.0) + 0.001 * n for n in range(1, 65)}


def drafted(policy: Adaptive, n: int, n_other_rows: int = 0) -> list[int]:
    requests = [under_way() for _ in range(n)]
    return [len(draft.tokens) for draft in policy.draft(requests, n_other_rows)]  # pyright: ignore[reportArgumentType]


def test_requests_share_one_pass_over_the_weights() -> None:
    """Where rows cost nothing each drafts as if it were alone, where they are dear nobody does."""
    assert drafted(policy_of(FLAT), 4) == [8] * 4
    assert sum(drafted(policy_of(STEEP), 4)) == 0


def test_many_requests_draft_less_each_where_a_cliff_is_near() -> None:
    alone, many = drafted(policy_of(CLIFF), 1), drafted(policy_of(CLIFF), 4)
    assert alone == [7]
    assert sum(many) == 4
    assert max(many) - min(many) <= 1


def test_a_chunk_of_a_prompt_makes_drafts_dearer_or_cheaper() -> None:
    """As v says: it takes the room below a cliff, and beyond one it has paid for the pass."""
    below, beyond = drafted(policy_of(CLIFF), 1, 5), drafted(policy_of(CLIFF), 1, 20)
    assert below == [2]
    assert beyond == [8]


@pytest.mark.parametrize("row_s", [0.05, 0.4, 0.9, 1.5])
def test_a_row_is_as_dear_beside_a_prompt(row_s: float) -> None:
    """The prompt's time is the prompt's: by all of the pass a token would cost hardly anything, and
    be drafted though a plain pass brings it sooner."""
    seconds = {n: 1.0 + row_s * n for n in range(1, 65)}
    assert drafted(policy_of(seconds), 2, 40) == drafted(policy_of(seconds), 2)


def test_drafts_leave_a_pass_as_short_as_others_need_it() -> None:
    """Who drafts nothing gets one token of a pass, however long another one's drafts make it."""
    seconds = {n: 1.0 + 0.05 * n for n in range(1, 65)}
    requests = [under_way() for _ in range(4)]
    sure = [Guesses(13)]
    free = sum(drafted(policy_of(seconds, sure), 4))
    assert free >= 20
    for n_other_rows, limit_s in ((0, 2.0), (0, 1.21), (0, 0.5), (10, 2.0)):
        made = policy_of(seconds, sure).draft(requests, n_other_rows, limit_s)  # pyright: ignore[reportArgumentType]
        left_s = max(0.0, limit_s - seconds[4 + n_other_rows])
        wanted = pytest.approx(min(free, left_s / 0.05), abs=1)
        assert sum(len(draft.tokens) for draft in made) == wanted


def test_a_prompt_s_time_is_not_charged_to_drafts() -> None:
    """Else a long prompt of one user would end the drafts of the others."""
    seconds = {n: 1.0 + 0.05 * n for n in range(1, 65)}
    policy, requests = policy_of(seconds), [under_way(), under_way()]
    before = policy.draft(requests, 40) and policy.may_lose_s(0)  # pyright: ignore[reportArgumentType]
    made = [Step((1,) * 3, 8, 2, "lookup", 9, 0.0, 0.0) for _ in requests]
    policy.learn(made, 58, seconds[58])
    assert policy.may_lose_s(0) > 0.5 * before


def test_a_pass_that_only_reads_prompts_drafts_nothing_and_teaches_nothing() -> None:
    policy = policy_of(FLAT)
    assert policy.draft([], 64) == []
    policy.learn([], 64, 9.9)
    assert policy.gain.measured is None


def test_a_drafter_that_nobody_measured_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one is a class and a line in the table; its chances are learned."""
    monkeypatch.setitem(N_CONFIDENCES, "heads", 10)

    class Heads(Guesses):
        source: ClassVar[str] = "heads"

    assert drafted(policy_of(FLAT, [Heads()]), 1)[0] > 0


def test_the_likelier_draft_gets_the_rows() -> None:
    class Uneven(Guesses):
        def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
            bins = [13, 1]
            return [
                Draft([1] * r.n_tokens, "lookup", None, [b] * r.n_tokens)
                for b, r in zip(bins, requests, strict=True)
            ]

    sure, unsure = drafted(policy_of(CLIFF, [Uneven()]), 2)
    assert sure > unsure


def test_who_fails_does_not_spend_the_budget_of_others() -> None:
    """One user's text that does not repeat itself must not end another's drafts."""
    slow = {n: 1.0 + 0.2 * n for n in range(1, 65)}
    policy = policy_of(slow, [Guesses(13)])
    requests = [under_way(), under_way()]
    for _ in range(60):
        drafts = policy.draft(requests)  # pyright: ignore[reportArgumentType]
        kept = [0, len(drafts[1].tokens)]
        steps = [
            Step((2,) * (k + 1), len(d.tokens), k, d.source, 1 + len(d.tokens), 0.0, 0.0)
            for d, k in zip(drafts, kept, strict=True)
        ]
        for request, step in zip(requests, steps, strict=True):
            request.history.extend(step.tokens)
        width = sum(step.evaluated for step in steps)
        policy.learn(steps, width, slow[width])
        if any(request.room < 20 for request in requests):
            break
    # Chances are shared by both, so judge the budgets alone.
    assert policy.may_lose_s(0) < 0.5 * policy.may_lose_s(1)


def test_what_was_read_of_a_reply_that_is_over_is_forgotten() -> None:
    """A server runs for weeks: keys of old replies would pile up, and come again for new ones."""
    costs = PassCosts(PassCurve((Point(1, 1.0), Point(17, 1.1))))
    learned = Learned(costs, {"model": PassCosts(PassCurve((Point(1, 1e-3), Point(64, 2e-2))))})
    policy = Adaptive(learned, [ModelDrafter(FakeEngine(), 8)], 8)
    (paid,) = policy._paid
    for _ in range(6):
        reply = under_way()
        for _ in range(3):
            (draft,) = policy.draft([reply])  # pyright: ignore[reportArgumentType]
            n = len(draft.tokens)
            policy.learn([Step((1,), n, 0, draft.source, 1 + n, 0.0, 0.0)], 1 + n, 1.0)
            reply.history.append(1)
        assert set(paid._n_read) <= {id(reply.history)}
    assert paid._n_read


def test_nothing_is_drafted_where_there_is_no_room() -> None:
    policy = policy_of(FLAT)
    full = under_way(max_tokens=11)
    drafts = policy.draft([full, under_way()])  # pyright: ignore[reportArgumentType]
    assert not drafts[0].tokens
    assert drafts[1].tokens


# the loop


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_reply_is_the_same_with_and_without(temperature: float) -> None:
    """Whatever the policy decides, it changes the time and not the text."""
    texts: list[list[int]] = []
    for n_drafters in (0, 2):
        engine = FakeEngine(spread=3.0)
        sampling = Sampling(temperature=temperature, seed=5)
        costs = PassCosts(PassCurve((Point(1, 1e-4), Point(17, 1.1e-4))))
        learned = Learned(costs, {"model": PassCosts(PassCurve((Point(1, 1e-6), Point(64, 2e-5))))})
        drafters = [LookupDrafter(), ModelDrafter(FakeEngine(seed=1, spread=3.0), 8)][:n_drafters]
        generation = Generation([1, 2, 3], sampling, Limits(512, 120))
        policy = Adaptive(learned, drafters, 8)
        steps = list(drive(generation, engine.context(), policy, Interrupt()))
        texts.append(generation.tokens)
    assert texts[0] == texts[1]
    assert any(step.drafted for step in steps)
    assert policy.gain.measured is not None


class Paid(Guesses):
    """A head that drafts what it is asked for."""

    source: ClassVar[str] = "dflash"
    is_free: ClassVar[bool] = False
    n_longest: int = 6
    is_at_once: bool = False


class PaidAtOnce(Paid):
    is_at_once: bool = True


def test_a_block_costs_the_same_whatever_its_length() -> None:
    """Token by token a draft ends where the next step does not pay; a block is used as a whole,
    and never asked for longer than it is."""

    def lengths(kind: type[Paid]) -> list[int]:
        costs = PassCosts(PassCurve((Point(1, 1.0), Point(17, 1.1))))
        costs.learn(1, 50, 1.0)
        head = PassCosts(PassCurve((Point(1, 0.3), Point(64, 0.4))))
        policy = Adaptive(Learned(costs, {"dflash": head}), [kind()], 16)  # pyright: ignore[reportArgumentType]
        return drafted(policy, 1)

    assert 0 < lengths(Paid)[0] < 6
    assert lengths(PaidAtOnce) == [6]


def test_a_head_begins_with_what_heads_are_known_for() -> None:
    """Where two tokens take 1.4 passes, even chances would never let it show what it can."""
    seconds = {1: 1.0, 2: 1.4, 3: 1.75, 4: 2.1, 5: 2.5, 17: 7.0}
    costs = PassCosts(PassCurve(tuple(Point(n, s) for n, s in seconds.items())))
    costs.learn(1, 50, 1.0)
    head = PassCosts(PassCurve((Point(1, 0.08), Point(64, 0.4))))
    policy = Adaptive(Learned(costs, {"dflash": head}), [Paid()], 16)  # pyright: ignore[reportArgumentType]
    assert drafted(policy, 1)[0] >= 2


def with_head(head: Paid, seconds: dict[int, float]) -> Adaptive:
    """Its tokens take next to nothing."""
    costs = PassCosts(PassCurve((Point(1, 0.01), Point(64, 0.1))))
    target = policy_of(seconds)._target
    return Adaptive(Learned(target, {"dflash": costs}), [head], 8)  # pyright: ignore[reportArgumentType]


class Unsure(Paid):
    """A head that is unsure of all that it guesses, and says 1."""

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._draft(request) for request in requests]

    def _draft(self, request: DraftRequest) -> Draft:
        tokens: list[int] = []
        for _ in range(request.n_tokens):
            if request.stop and not request.stop.takes([0] * len(tokens), 0):
                return Draft(tokens, self.source, None, [0] * len(tokens), left=(1, 0))
            tokens.append(1)
        return Draft(tokens, self.source, None, [0] * len(tokens))


@pytest.mark.parametrize(("said", "is_right"), [(1, True), (2, False)])
def test_a_guess_that_was_left_shows_what_the_head_is_worth(said: int, is_right: bool) -> None:
    """A head may be right and unsure. What it would have drafted is compared with what came, so
    that it need not be paid for to be known."""
    seconds = {n: 0.5 + 0.5 * n for n in range(1, 18)}
    policy = with_head(Unsure(), seconds)
    reply, drafted = under_way(), list[int]()
    for _ in range(60):
        (draft,) = policy.draft([reply])  # pyright: ignore[reportArgumentType]
        n = len(draft.tokens)
        kept = n if is_right else 0
        tokens = (*draft.tokens[:kept], said)
        step = Step(tokens, n, kept, draft.source, 1 + n, 0.01, 0.0, draft.confidences)
        policy.learn([step], 1 + n, seconds[1 + n] + 0.01)
        reply.history.extend(tokens)
        drafted.append(n)
    assert drafted[0] == 0
    assert any(drafted[30:]) is is_right


class Waking(Paid):
    """A head that first makes itself ready."""

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft((), self.source) if request.n_tokens else NO_DRAFT for request in requests]


def test_a_head_that_makes_itself_ready_leaves_something_for_its_first_draft() -> None:
    """The pass in which the target begins to keep its states takes longer: tokens that follow pay
    this off, as they do with what is read."""
    policy = with_head(Waking(), FLAT)
    reply = under_way()
    policy.draft([reply])  # pyright: ignore[reportArgumentType]
    before_s = policy.may_lose_s(0)
    for seconds in (2.0, *[1.005] * 200):
        policy.learn([Step((1,), 0, 0, "dflash", 1, 0.0, 0.0)], 1, seconds)
        reply.history.append(1)
        if seconds == 2.0:
            assert policy.may_lose_s(0) > 0.9 * before_s
        policy.draft([reply])  # pyright: ignore[reportArgumentType]
    assert policy._budgets[0].owed_s < 0.1
