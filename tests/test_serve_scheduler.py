"""Many requests on one engine: each gets the answer that it gets alone, and nobody hurts others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve
from localspec.decode.drafters.base import Draft
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.decode.driver import drive
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.decode.step import Step
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.markup import PLAIN
from localspec.engine.base import Request, Result
from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling
from localspec.errors import EngineError
from localspec.serve.messages import (
    Abort,
    BusyError,
    Delta,
    Done,
    Drain,
    Event,
    Failed,
    LateError,
    Submit,
    Taken,
    Wishes,
)
from localspec.serve.metrics import Metrics
from localspec.serve.pace import LEAST_ROWS, Paced, shares
from localspec.serve.prefixes import Prefixes
from localspec.serve.problem import problem_of
from localspec.serve.queue import WORTH_WAIT, Room
from localspec.serve.scheduler import TELL_S, Scheduler
from localspec.session.disk_cache import DiskCache

GREEDY = Sampling(temperature=0)
COSTS = PassCosts(PassCurve.of([[1, 0.01, 0.0], [101, 0.11, 0.0]]))
"""A row takes a millisecond, a pass nine more."""
LONG = [1, 2, 3, 4, 5, 6, 7, 0] * 30


class Watched(FakeEngine):
    """Notes what each pass evaluates: tokens and wanted rows of each request."""

    def __init__(self, **how: object) -> None:
        super().__init__(**how)
        self.passes: list[list[tuple[int, int]]] = []
        self.fails = False

    def decode(self, requests: Sequence[Request]) -> list[Result]:
        if self.fails:
            raise EngineError("the device was lost")
        self.passes.append([(len(tokens), n) for _, tokens, n in requests])
        return super().decode(requests)


class SetPace(Paced):
    """Believes the costs: passes of a fake engine take no time."""

    def learn(self, *news: object) -> None:
        pass


@dataclass
class House:
    """A scheduler with its engine, a clock that tests set, and every event by request."""

    n_sequences: int = 4
    n_waiting: int = 8
    n_ctx: int = 512
    n_cells: int | None = None
    n_chunk: int = 64
    speculator: Speculator = field(default_factory=Plain)
    target_s: float | None = None
    deadline_s: float | None = None
    now: float = 0.0

    def __post_init__(self) -> None:
        self.engine = Watched(n_ctx=self.n_ctx, n_sequences=self.n_sequences)
        self.contexts = [self.engine.context() for _ in range(self.n_sequences)]
        self.prefixes = Prefixes(self.contexts)
        pace = SetPace(self.speculator, COSTS, self.n_chunk, self.target_s)
        n_cells = self.n_cells or self.n_sequences * self.n_ctx
        room = Room(n_cells, self.n_waiting, self.deadline_s)
        self.scheduler = Scheduler(self.engine, self.prefixes, pace, room, lambda: self.now)
        self.events: dict[int, list[Event]] = {}
        self.generations: dict[int, Generation] = {}

    def submit(self, prompt: Sequence[int], max_tokens: int | None = 8, **more: object) -> int:
        wait_s, sampling = more.pop("wait_s", None), more.pop("sampling", GREEDY)
        wishes = Wishes(slot=more.pop("slot", None), accounts=more.pop("accounts", False))
        id_ = len(self.generations)
        generation = Generation(prompt, sampling, Limits(self.n_ctx, max_tokens))
        parser = AnswerParser(PLAIN, self.engine.vocabulary, **more)
        self.generations[id_] = generation
        self.note(
            self.scheduler.take(Submit(id_, generation, parser, wait_s=wait_s, wishes=wishes))
        )
        return id_

    def note(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events.setdefault(event.id, []).append(event)

    def step(self, n: int = 1) -> None:
        for _ in range(n):
            self.note(self.scheduler.step())

    def finish(self) -> None:
        for _ in range(2000):
            if self.scheduler.is_idle:
                break
            self.step()
        assert self.scheduler.is_idle
        assert self.prefixes.n_free == self.n_sequences, "a sequence leaked"

    def text(self, id_: int) -> str:
        deltas = [event for event in self.events[id_] if isinstance(event, Delta)]
        return "".join(part.text for delta in deltas for part in delta.parts)

    def last(self, id_: int) -> Event:
        return self.events[id_][-1]

    def alone(self, id_: int) -> list[int]:
        made = self.generations[id_]
        twin = Generation(made.history[: made.n_prompt], made._sampling, made.limits)
        list(drive(twin, FakeEngine(n_ctx=self.n_ctx).context(), Plain(), Interrupt()))
        return twin.tokens


Schedule = list[tuple[int, int, int, bool]]
"""Of each request: passes before it comes, its prompt, its length, whether it is cancelled."""
SCHEDULES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(1, 12), st.booleans()),
    min_size=1, max_size=9,
)  # fmt: skip
PROMPTS = [[1], LONG[:40], LONG, [2, 2], [*LONG[:40], 3], [5, 4] * 20, LONG[:100]]


@given(SCHEDULES, st.integers(1, 4), st.integers(1, 70), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_schedule_gives_each_request_its_own_answer(
    schedule: Schedule, n_sequences: int, n_chunk: int, drafts: bool
) -> None:
    """Whoever comes, waits, leaves or shares a prefix: tokens are those of the request alone."""
    speculator = Fixed(LookupDrafter(remembers=False), 3) if drafts else Plain()
    house = House(n_sequences, 20, n_chunk=n_chunk, speculator=speculator, n_cells=1100)
    cancelled: set[int] = set()
    for n_before, prompt, max_tokens, is_cancelled in schedule:
        house.step(n_before)
        id_ = house.submit(PROMPTS[prompt], max_tokens)
        if is_cancelled:
            house.step(2)
            cancelled.add(id_)
            house.scheduler.take(Abort(id_))
        for context in house.contexts:
            assert len(context.tokens) <= house.n_ctx
        assert sum(len(context.tokens) for context in house.contexts) <= 1100
    house.finish()
    for id_, generation in house.generations.items():
        alone = house.alone(id_)
        if id_ in cancelled:
            assert generation.tokens == alone[: generation.n_tokens]
        else:
            assert generation.tokens == alone
            assert isinstance(house.last(id_), Done)
            assert house.text(id_) == "".join(chr(97 + token) for token in alone)


def test_replies_go_on_while_a_long_prompt_is_read() -> None:
    """Nobody's answer may stand still because somebody pasted a book."""
    house = House(n_chunk=400)
    talker = house.submit([1, 2], max_tokens=60)
    house.step(3)
    house.engine.passes.clear()
    reader = house.submit(LONG, max_tokens=2)
    before = house.generations[talker].n_tokens
    while not house.generations[reader].n_tokens:
        house.step()
        n_new = house.generations[talker].n_tokens - before
        assert n_new == 1, "a pass without a token for the one that talks"
        before += 1
    widths = [sum(n for n, _ in rows) for rows in house.engine.passes]
    assert len(widths) > 4
    limit_s = 0.05  # the least target
    assert all(COSTS.seconds(width, 0) <= limit_s + 1e-9 for width in widths)


def test_the_depth_of_a_prompt_lengthens_nobodys_pass() -> None:
    """Twice a usual pass of those that talk: a long prompt behind them must not count as usual."""
    house = House(n_chunk=400)
    costs = PassCosts(PassCurve.of([[1, 0.03, 0.0005], [101, 0.13, 0.0005]]))
    house.scheduler._pace = SetPace(Plain(), costs, 400)
    talker = house.submit([1, 2], max_tokens=60)
    house.step(3)
    house.engine.passes.clear()
    house.submit(LONG, max_tokens=2)
    house.step(3)
    depth = len(house.generations[talker].history)
    limit_s = 2 * costs.seconds(1, depth)
    widths = [sum(n for n, _ in rows) for rows in house.engine.passes]
    assert all(costs.seconds(width, depth) <= limit_s for width in widths)


class Asks(Plain):
    """Notes how long a pass may become."""

    def __init__(self) -> None:
        self.limits: list[float] = []

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        self.limits.append(limit_s)
        return super().draft(generations)


def test_drafts_lengthen_nobody_elses_pass_beyond_the_target() -> None:
    """Alone a reply drafts as it pays; beside others, or a prompt, within the target."""
    house = House(speculator=(asks := Asks()))
    house.submit([1, 2], max_tokens=60)
    house.step(3)
    assert asks.limits[1:] == [inf, inf]
    house.submit([3, 4], max_tokens=60)
    house.submit([5, 6], max_tokens=60)
    house.step(2)
    assert asks.limits[3:] == [0.05, 0.05], "the least target"
    kept = House(speculator=(asks := Asks()), target_s=0.03)
    kept.submit([1, 2], max_tokens=60)
    kept.step(2)
    assert asks.limits == [0.03, 0.03], "one that the user set holds for a reply alone, too"


def test_prompts_and_drafts_share_what_a_target_leaves() -> None:
    """Beside drafts a prompt takes the room that they leave, and half of it for sure."""
    pace = Paced(Plain(), COSTS, 400, target_s=0.1)
    one = Generation([1, 2], GREEDY, Limits(64))
    for n_drafted, n_left in ((20, 70), (80, 45), (0, 90)):
        for _ in range(40):
            pace.draft([one])
            pace.learn([Step((1,), n_drafted, 0, "lookup", 1, 0.0, 0.0)], 1 + n_drafted, 0.0)
        assert pace.n_rows(1, 2) == pytest.approx(n_left, abs=1)


def test_a_latency_target_of_the_users_is_kept() -> None:
    house = House(n_chunk=400, target_s=0.1)
    house.submit([1, 2], max_tokens=60)
    house.step(3)
    house.engine.passes.clear()
    house.submit(LONG, max_tokens=2)
    house.step(2)
    assert sum(n for n, _ in house.engine.passes[0]) == 91, "one row and nine milliseconds"


def test_a_prompt_is_read_at_once_where_nobody_waits() -> None:
    house = House(n_chunk=400)
    id_ = house.submit(LONG, max_tokens=1)
    house.step()
    assert house.generations[id_].is_finished


def test_short_prompts_overtake_a_long_one_and_do_not_starve_it() -> None:
    """A title for a chat is there before a book is read, and the book is read meanwhile."""
    house = House(n_chunk=60)
    book = house.submit(LONG, max_tokens=1)
    titles = [house.submit([i, 3, 4], max_tokens=1) for i in range(3)]
    house.step()
    assert all(house.generations[each].is_finished for each in titles)
    assert house.engine.passes[0][-1][0] >= 30
    while not house.generations[book].is_finished:
        house.submit([6, 5, 4, 3, 2, 1] * 10, max_tokens=1)
        house.step()
        assert len(house.engine.passes) <= 8, "half of each pass is the book's"


@pytest.mark.parametrize(
    ("wanted", "room", "given_"),
    [
        ([], 9, []),
        ([5], 9, [5]),
        ([50], 9, [9]),
        ([50, 2, 3], 10, [5, 2, 3]),
        ([50, 9, 2], 10, [5, 3, 2]),
        ([50, 1], 10, [9, 1]),
        ([1, 50], 10, [1, 9]),
        ([4, 4], 1, [1, 0]),
    ],
)
def test_what_is_left_of_a_pass_is_shared(wanted: list[int], room: int, given_: list[int]) -> None:
    assert shares(wanted, room) == given_


def test_a_machine_that_is_slower_than_its_target_still_reads_on() -> None:
    pace = Paced(Plain(), COSTS, 100, target_s=0.001)
    assert pace.n_rows(2, 10) == LEAST_ROWS
    assert pace.n_rows(0, 10) == 100


def test_the_pace_follows_what_wide_passes_really_take() -> None:
    """Beyond the widths that were measured the curve is a guess: real passes correct it, also where
    one width alone is known, as without drafts."""
    for costs in (COSTS, PassCosts(PassCurve.of([[1, 0.01, 0.0]]))):
        pace = Paced(Plain(), costs, 400, target_s=0.1)
        assert pace.n_rows(1, 0) in (90, 18)
        for _ in range(9):
            n = pace.n_rows(1, 0)
            pace.draft([], n)
            pace.learn([], n + 1, 0.01 + 0.002 * n)
            assert 0.01 + 0.002 * pace.n_rows(1, 0) <= 0.1 + 1e-9
        assert pace.n_rows(1, 0) == pytest.approx(45, abs=1)


def test_one_that_fails_ends_alone() -> None:
    """A damaged corner of a model ends the request that went there, and no other."""
    house = House()
    bad, good = house.submit([1, 2, 3]), house.submit([4, 5, 6, 7])
    tokens = house.alone(bad)
    others = {*house.alone(good), 7}
    assert not {tokens[3]} <= others or tokens[2] not in others
    house.engine.table[tokens[2], tokens[3]] = np.nan
    house.finish()
    failed = [id_ for id_ in (bad, good) if isinstance(house.last(id_), Failed)]
    assert failed == [bad]
    assert house.generations[good].tokens == house.alone(good)


def test_an_engine_that_fails_for_all_answers_the_next_ones_again() -> None:
    house = House()
    ids = [house.submit([i, 2, 3]) for i in range(3)]
    house.step(2)
    house.engine.fails = True
    house.step()
    assert all(isinstance(house.last(id_), Failed) for id_ in ids)
    house.engine.fails = False
    again = house.submit([1, 2, 3])
    house.finish()
    assert house.generations[again].tokens == house.alone(again)


def test_a_full_queue_refuses_with_a_time_to_come_again() -> None:
    house = House(n_sequences=1, n_waiting=2)
    ids = [house.submit([1, 2, i], max_tokens=4) for i in range(5)]
    kinds = [type(house.last(id_)) for id_ in ids]
    assert kinds == [Taken, Taken, Taken, Failed, Failed], "one runs at once, two wait"
    error = house.last(ids[-1]).error
    assert isinstance(error, BusyError)
    assert error.retry_s >= 1
    house.finish()
    assert [type(house.last(id_)) for id_ in ids[:3]] == [Done] * 3


def test_who_waits_too_long_is_told() -> None:
    house = House(n_sequences=1)
    runs, waits = house.submit([1, 2], max_tokens=50), house.submit([3], wait_s=5.0)
    house.step()
    house.now = 4.9
    house.step()
    assert isinstance(house.last(waits), Taken)
    house.now = 5.1
    house.step()
    assert isinstance(house.last(waits).error, BusyError)
    house.finish()
    assert isinstance(house.last(runs), Done)
    assert house.last(runs).account.timings.ttft_s == 0.0


def test_a_deadline_counts_the_wait_and_the_answer() -> None:
    """A client that has given up must not be worked for, wherever its request is."""
    house = House(n_sequences=1, deadline_s=5.0)
    runs, waits = house.submit([1, 2], max_tokens=500), house.submit([3])
    house.step()
    house.now = 4.0
    comes_later = house.submit([4], max_tokens=2)
    house.step()
    house.now = 5.1
    house.step()
    for id_ in (runs, waits):
        error = house.last(id_).error
        assert isinstance(error, LateError)
        assert problem_of(error).status == 503
        assert "5 s" in str(error)
        assert "retry-after" in problem_of(error).headers
    house.finish()
    assert isinstance(house.last(comes_later), Done)


def test_a_request_that_is_cancelled_takes_part_in_no_further_pass() -> None:
    house = House()
    left, stays = house.submit(LONG, max_tokens=50), house.submit([1, 2], max_tokens=20)
    house.step(2)
    house.scheduler.take(Abort(left))
    house.engine.passes.clear()
    house.step()
    assert [len(rows) for rows in house.engine.passes] == [1]
    assert house.prefixes.n_free == 3
    waits = [house.submit([5], max_tokens=3) for _ in range(5)]
    house.scheduler.take(Abort(waits[-1]))
    house.finish()
    assert isinstance(house.last(stays), Done)
    assert isinstance(house.last(waits[-1]), Taken), "nobody listens any more"


def test_a_draining_server_finishes_what_it_began() -> None:
    house = House(n_sequences=1)
    runs, waits = house.submit([1, 2]), house.submit([3, 4])
    house.step()
    house.note(house.scheduler.take(Drain()))
    late = house.submit([5])
    house.finish()
    assert isinstance(house.last(runs), Done)
    for id_ in (waits, late):
        assert house.last(id_).error.is_closing


def test_no_running_request_ever_meets_a_full_cache() -> None:
    """The worst case is reserved: who would not fit beside the others waits for its turn."""
    house = House(n_sequences=4, n_cells=300)
    ids = [house.submit([i, *LONG[: 60 + i]], max_tokens=60) for i in range(6)]
    most = 0
    while not house.scheduler.is_idle:
        house.step()
        most = max(most, len(house.scheduler.running))
        assert sum(len(context.tokens) for context in house.contexts) <= 300
    assert most == 2
    assert all(isinstance(house.last(id_), Done) for id_ in ids)


def test_a_request_that_can_never_fit_is_refused_at_once() -> None:
    house = House(n_cells=100)
    id_ = house.submit([1, 2], max_tokens=200)
    assert "100" in str(house.last(id_).error)
    assert house.scheduler.is_idle


def test_a_stop_text_ends_the_reply_before_it() -> None:
    house = House()
    whole = house.submit([1, 2, 3], max_tokens=12)
    house.finish()
    text = house.text(whole)
    stop = text[5:7]
    cut = house.submit([1, 2, 3], max_tokens=12, stop=[stop])
    house.finish()
    assert house.text(cut) == text[: text.index(stop)]
    assert house.last(cut).account.finish_reason == "stop"


def test_text_of_short_passes_is_told_together_and_the_first_at_once() -> None:
    """A message costs a small model's server as much as it brings; nobody reads so fast."""
    house = House()
    id_ = house.submit([1, 2, 3], max_tokens=12)
    told: list[int] = []
    for _ in range(12):
        house.step()
        told.append(sum(len(e.tokens) for e in house.events[id_] if isinstance(e, Delta)))
        house.now += TELL_S / 2.5
    assert told == [1, 1, 1, 4, 4, 4, 7, 7, 7, 10, 10, 12]
    assert house.last(id_).account.stats.passes == 12


@pytest.mark.parametrize("wish", [{"stop": ["no such text"]}, {"accounts": True}])
def test_who_has_to_know_each_pass_hears_of_each(wish: dict[str, object]) -> None:
    """A stop text ends a reply in its own pass; an account for each token is asked for."""
    house = House()
    id_ = house.submit([1, 2, 3], max_tokens=12, **wish)
    house.finish()
    deltas = [event for event in house.events[id_] if isinstance(event, Delta)]
    assert [len(each.tokens) for each in deltas if each.tokens] == [1] * len(deltas)
    assert len(deltas) >= 11


def test_what_a_reply_has_said_is_told_before_it_fails() -> None:
    house = House()
    id_ = house.submit([1, 2, 3], max_tokens=12)
    house.step(4)
    house.engine.fails = True
    house.step()
    assert len(house.text(id_)) == 4
    assert isinstance(house.last(id_), Failed)


def test_the_account_tells_what_a_reply_took() -> None:
    house = House(speculator=Fixed(LookupDrafter(remembers=False), 3))
    first = house.submit(LONG[:41], max_tokens=8)
    house.finish()
    account = house.last(first).account
    assert (account.n_prompt, account.n_cached, account.n_tokens) == (41, 0, 8)
    assert account.timings.n_prefilled == 41
    assert account.stats.tokens == 8
    assert account.stats.drafted >= account.stats.accepted
    again = house.submit([*LONG[:41], *house.generations[first].tokens, 3, 3], max_tokens=2)
    house.finish()
    assert house.last(again).account.n_cached == 48, "the newest token was never evaluated"
    assert house.last(again).account.timings.n_prefilled == 3


def test_metrics_show_what_was_drafted_and_how_long_replies_were_silent() -> None:
    house, metrics = House(speculator=Fixed(LookupDrafter(remembers=False), 3)), Metrics()
    ids = [house.submit(LONG[:41], max_tokens=12) for _ in range(2)]
    while not house.scheduler.is_idle:
        house.step()
        house.now += 0.04
        metrics.add_pass(house.scheduler.last)
    accounts = [house.last(id_).account for id_ in ids]
    for account in accounts:
        metrics.add(account)
    text = metrics.text(0, 0)
    drafted = sum(account.stats.drafted for account in accounts)
    assert f"localspec:pass_draft_rows_sum {drafted:.6f}" in text
    assert f"llamacpp:spec_decode_num_draft_tokens_total {drafted}" in text
    n_gaps = sum(account.stats.passes - 1 for account in accounts)
    assert f"localspec:inter_token_seconds_count {n_gaps}" in text
    assert f'localspec:inter_token_seconds_bucket{{le="0.05"}} {n_gaps}' in text
    assert 'localspec:inter_token_seconds_bucket{le="0.03"} 0' in text
    hits = [line for line in text.splitlines() if "per_pos_total{" in line]
    assert [line.partition("position=")[2][:3] for line in hits] == ['"0"', '"1"', '"2"']
    assert sum(int(line.split()[-1]) for line in hits) == sum(a.stats.accepted for a in accounts)


def test_a_prompt_that_several_ask_is_read_once() -> None:
    """As with `n` choices, or agents that share a long system prompt."""
    house = House(n_chunk=64)
    ids = [house.submit([*LONG, i], max_tokens=4) for i in range(3)]
    other = house.submit([1, 2, 3], max_tokens=1)
    house.step()
    assert isinstance(house.last(other), Done), "others go past the ones that wait for the prompt"
    house.finish()
    n_evaluated = sum(n for rows in house.engine.passes for n, _ in rows)
    assert n_evaluated < len(LONG) + 2 * WORTH_WAIT + 20
    for id_ in ids:
        assert house.generations[id_].tokens == house.alone(id_)


# prefixes


def held(*texts: Sequence[int]) -> Prefixes:
    """Idle sequences that hold these, the first used longest ago."""
    engine = FakeEngine(n_sequences=len(texts))
    contexts = [engine.context() for _ in texts]
    prefixes = Prefixes(contexts)
    for context, text in zip(contexts, texts, strict=True):
        context.tokens = list(text)
        prefixes.take([*text, 7] if text else [7])
    for context, text in zip(contexts, texts, strict=True):
        context.tokens = list(text)
        prefixes.give_back(context)
    return prefixes


CHAT = [1, 2, 3, 4] * 25
OTHER = [5, 6, 7, 0] * 25


def test_the_next_turn_finds_its_conversation() -> None:
    prefixes = held(CHAT, OTHER, [])
    context, n = prefixes.take([*CHAT, 5, 5, 5])
    assert n == len(CHAT)
    assert context.tokens == CHAT


def test_a_small_match_does_not_evict_a_warm_chat() -> None:
    """A title task begins with the chat's system prompt: it shares that, and the chat stays."""
    prefixes = held(OTHER, CHAT, [])
    context, n = prefixes.take([*CHAT[:30], 6, 6, 6])
    assert n == 30
    assert context.tokens == CHAT[:30]
    _, n = prefixes.take([*CHAT, 5])
    assert n == len(CHAT), "the chat is as warm as before"


def test_the_sequence_that_was_not_used_for_longest_goes_first() -> None:
    prefixes = held(OTHER, CHAT)
    prefixes.take([3, 3, 3])
    _, n = prefixes.take([*CHAT, 5])
    assert n == len(CHAT)


@pytest.mark.parametrize("n_sequences", [2, 3, 4])
def test_background_tasks_make_room_for_one_another(n_sequences: int) -> None:
    """A front end asks for a title, tags and follow-ups behind each turn: the chat stays warm."""
    prefixes = held(*[[] for _ in range(n_sequences)])
    chat = list(CHAT)
    for turn in range(4):
        context, n = prefixes.take([*chat, 5])
        assert n == (len(chat) if turn else 0)
        chat += [5, turn % 8, 6]
        context.tokens = list(chat)
        prefixes.give_back(context)
        for task in ([6, 6, 1], [7, 7, 2], [0, 0, 3]):
            prompt = [*task, *chat]
            context, _ = prefixes.take(prompt, goes_on=False)
            context.tokens = prompt
            prefixes.give_back(context)


def test_a_chat_that_nobody_came_back_to_goes_in_the_end() -> None:
    prefixes = held(CHAT, [])
    for i in range(200):
        prompt = [5, i % 8, i // 8 % 8, *OTHER[:30]]
        context, _ = prefixes.take(prompt)
        context.tokens = prompt
        prefixes.give_back(context)
    _, n = prefixes.take([*CHAT, 1])
    assert n == 0


def test_of_another_conversation_nothing_is_left() -> None:
    """Reuse is by equal tokens alone: a privacy fault otherwise, not a slow-down."""
    prefixes = held(CHAT)
    context, n = prefixes.take([*CHAT[:7], *OTHER])
    assert n == 7
    assert context.tokens == CHAT[:7]


def test_a_prefix_of_one_that_runs_is_shared() -> None:
    engine = FakeEngine(n_sequences=2)
    contexts = [engine.context() for _ in range(2)]
    prefixes = Prefixes(contexts)
    first, _ = prefixes.take([*CHAT, 1])
    first.tokens[:] = CHAT
    second, n = prefixes.take([*CHAT, 2])
    assert second is not first
    assert n == len(CHAT)


def test_the_last_token_of_a_prompt_is_evaluated_again() -> None:
    """Only evaluation gives logits: a prompt that is held whole needs its last token."""
    prefixes = held(CHAT)
    _, n = prefixes.take(CHAT)
    assert n == len(CHAT) - 1


def on_disk(tmp_path: Path, n_sequences: int = 1) -> tuple[Prefixes, DiskCache]:
    engine, disk = FakeEngine(n_sequences=n_sequences, n_ctx=4096), DiskCache(tmp_path, 1e6)
    return Prefixes([engine.context() for _ in range(n_sequences)], disk), disk


def used(prefixes: Prefixes, prompt: list[int], *, goes_on: bool = True) -> int:
    """Answer a prompt; how much of it was held."""
    context, n = prefixes.take(prompt, goes_on=goes_on)
    context.tokens = list(prompt)
    prefixes.give_back(context)
    return n


BOOK, NOVEL = [1, 2, 3, 4, 5] * 100, [6, 7, 0] * 200


def test_what_must_go_is_read_back_from_disk_for_its_next_turn(tmp_path: Path) -> None:
    prefixes, disk = on_disk(tmp_path)
    assert [used(prefixes, text) for text in (BOOK, NOVEL)] == [0, 0]
    assert used(prefixes, [*BOOK, 7]) == len(BOOK)
    assert used(prefixes, [*NOVEL, 1]) == len(NOVEL)
    assert len(disk.entries) == 2
    again, _ = on_disk(tmp_path)
    assert used(again, [*BOOK, 7]) == len(BOOK), "also after a restart"


def test_an_answer_that_is_made_anew_reads_its_prompt_back_if_the_old_one_has_room(
    tmp_path: Path,
) -> None:
    """Asked again, as /regen does: on disk the prompt has its old answer behind it."""
    for n_room, n_held in ((len(BOOK) + 40, len(BOOK) - 1), (len(BOOK), 0)):
        prefixes, _ = on_disk(tmp_path / str(n_room))
        used(prefixes, [*BOOK, *range(40)])
        used(prefixes, NOVEL)
        context, n = prefixes.take(BOOK, n_room=n_room)
        assert n == len(context.tokens) == n_held


def test_files_are_for_what_comes_back_and_is_long(tmp_path: Path) -> None:
    prefixes, disk = on_disk(tmp_path)
    for prompt in (CHAT, OTHER, CHAT):
        used(prefixes, prompt)
    used(prefixes, BOOK, goes_on=False)
    used(prefixes, CHAT)
    assert disk.entries == []


def test_the_disk_keeps_its_limit_and_survives_what_others_do_to_it(tmp_path: Path) -> None:
    prefixes, disk = on_disk(tmp_path)
    disk._most_bytes = 4000
    for i in range(6):
        used(prefixes, [i, *BOOK])
    assert sum(path.stat().st_size for path in tmp_path.glob("*.state")) <= 4000
    assert {entry.path for entry in disk.entries} == set(tmp_path.glob("*.state"))
    kept = disk.entries[-1].tokens
    for path in tmp_path.glob("*.*"):
        path.unlink()
    assert used(prefixes, [*kept, 7]) == 0
    (tmp_path / "x.state").write_text("x")
    (tmp_path / "x.tokens").write_text("{")
    found = on_disk(tmp_path)[1].entries
    assert {entry.path for entry in found} == set(tmp_path.glob("*.state"))
    assert not (tmp_path / "x.state").exists(), "what nobody can use goes"


def test_idle_conversations_go_to_disk_before_the_engine_is_freed(tmp_path: Path) -> None:
    prefixes, _ = on_disk(tmp_path)
    used(prefixes, BOOK)
    prefixes.keep_all()
    assert used(on_disk(tmp_path)[0], [*BOOK, 1]) == len(BOOK)


def test_a_request_for_a_busy_sequence_waits_for_it_and_lets_others_pass() -> None:
    house = House(n_sequences=2)
    first = house.submit([1, 2], 20, slot=1)
    house.step()
    again, other = house.submit([3, 4], 4, slot=1), house.submit([5, 6], 4)
    house.step(2)
    running = [job.id for job in house.scheduler.running]
    assert running == [first, other]
    house.finish()
    assert [isinstance(house.last(each), Done) for each in (first, again, other)] == [True] * 3
    assert house.contexts[1].tokens[0] == 3


def test_a_calibration_on_a_busy_machine_does_not_promise_too_much_for_ever() -> None:
    """Without drafts nobody else corrects it: the target would be twice a pass that is no more."""
    costs = PassCosts(PassCurve.of([[1, 0.1, 0.0], [101, 1.1, 0.0]]))
    pace = Paced(Plain(), costs, 64, teaches=True)
    generation = Generation([1, 2], Sampling(temperature=0), Limits(64))
    assert pace.limit_s(1, 2) == pytest.approx(0.2)
    for _ in range(400):
        pace.draft([generation])
        pace.learn([Step((1,), 0, 0, "none", 1, 0.0, 0.03)], 1, 0.03)
    assert pace.limit_s(1, 2) == pytest.approx(0.06, rel=0.1)
