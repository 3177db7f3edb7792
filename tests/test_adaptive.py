"""The adaptive policy: on made-up machines beside every fixed choice, and in the real loop."""

from collections.abc import Sequence

import pytest
from _simulator import (
    MAX_DRAFT,
    TABLES,
    Luck,
    World,
    adaptive,
    constant,
    experience_of,
    fixed,
    grid,
    judge,
    simulate,
    switching,
)
from fakes import FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling
from localspec.speculate.acceptance import CONFIDENCES, Acceptance, quality_of
from localspec.speculate.adaptive import N_VAIN, Adaptive
from localspec.speculate.costs import Curve, PassCosts, Point
from localspec.speculate.drafters.base import Draft
from localspec.speculate.drafters.model import ModelDrafter
from localspec.speculate.drafters.suffix import SuffixDrafter
from localspec.speculate.driver import drive
from localspec.speculate.experience import Experience
from localspec.speculate.generation import Generation, Limits
from localspec.speculate.ledger import Ledger
from localspec.speculate.length import Situation

GREEDY = Sampling(temperature=0)
SEEDS = range(3)


@pytest.mark.parametrize("table", TABLES)
def test_no_reply_is_much_slower_than_plain_decoding(table: str) -> None:
    """Everywhere else in the field a draft model that does not fit makes a machine slower. Costs
    are known to some per cent only, and single passes scatter by 3 %."""
    worlds = [world for world in grid() if world.name.startswith(table)][::3]
    for world in worlds:
        verdict = judge(world, 256, SEEDS)
        assert verdict.auto <= 1.03 * verdict.plain, world.name
        assert verdict.worst_to_plain <= 1.05, world.name


@pytest.mark.parametrize("table", TABLES)
def test_a_reply_is_nearly_as_fast_as_with_the_best_fixed_choice(table: str) -> None:
    """Nobody should have to try draft lengths by hand; after 1024 tokens little is left to gain."""
    worlds = [world for world in grid() if world.name.startswith(table)][1::5]
    regrets = [judge(world, 1024, SEEDS[:2]).regret for world in worlds]
    assert sum(regrets) / len(regrets) <= 0.04


def test_the_length_follows_the_machine() -> None:
    """1.2 GB of F16: four tokens are checked at the price of one, five at that of two."""
    world = World("F16", TABLES["1.2 GB F16"], lookup=constant(0.7))
    luck = Luck.of(world, 512, 1)
    run = simulate(world, adaptive(world, experience_of(world)), 512, luck)
    lengths = [n for _, _, n in run.choices[len(run.choices) // 2 :]]
    assert lengths.count(3) > 0.7 * len(lengths)
    assert run.at(512) < 1.06 * fixed(world, "suffix", 3, 512, luck).at(512)


def test_drafts_stop_when_the_text_stops_repeating() -> None:
    world = World("steep", TABLES["SmolLM2 Q4_0"], lookup=switching(0.95, 0.1, 200))
    run = simulate(world, adaptive(world, experience_of(world)), 400, Luck.of(world, 400, 2))
    late = [n for place, _, n in run.choices if place > 260]
    assert sum(n > 0 for n in late) < 0.1 * len(late)


def test_after_look_ups_in_vain_every_other_step_goes_without_one() -> None:
    """A look-up takes 0.1 ms, which shows beside a token of 4 ms."""
    policy = Adaptive(_experience([1.8, 1.9, 2.0, 2.1], 1.0), 4)
    weak = Draft([7], "suffix", None, [0])

    def n_offered(n_tokens: int) -> int:
        return policy.n_offered(Situation(100, 50 + n_tokens, n_tokens))

    for n in range(1, 1 + N_VAIN):
        assert n_offered(n)
        policy.choose(Situation(100, 50 + n, n), [weak])
    assert [n_offered(n) > 0 for n in range(20, 24)] == [True, False, True, False]


def test_a_parked_draft_model_is_seldom_tried_and_says_why() -> None:
    world = World("dear", TABLES["SmolLM2 Q4_0"], draft_cost=0.5, model=constant(0.3))
    policy = adaptive(world, experience_of(world))
    run = simulate(world, policy, 600, Luck.of(world, 600, 3))
    late = [choice for place, choice, _ in run.choices if place > 300]
    assert sum(choice.n_tokens > 0 for choice in late) <= 8
    assert policy.verdict.startswith("draft parked")


@given(
    v=st.lists(st.floats(0.9, 3.0), min_size=MAX_DRAFT, max_size=MAX_DRAFT),
    c=st.floats(0.01, 1.0),
    seed=st.integers(0, 100),
    temperature=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_whatever_it_chooses_the_text_is_the_same(
    v: list[float], c: float, seed: int, temperature: float
) -> None:
    """Costs that a machine reports, right or wrong, must never change an answer."""
    sampling = Sampling(temperature=temperature, seed=seed)

    def text(experience: Experience | None) -> list[int]:
        engine, drafters = FakeEngine(), []
        policy = Adaptive(experience or _experience([], 1.0), MAX_DRAFT, has_model=True)
        if experience:
            drafters = [SuffixDrafter(), ModelDrafter(FakeEngine(seed=9), 8, window=6)]
        limits = Limits(512, max_tokens=80)
        generation = Generation([1, 2, 3, 1, 2, 3, 4, 5], sampling, policy, limits)
        for _ in drive(generation, engine.context(), drafters, Interrupt()):
            pass
        return generation.tokens

    assert text(_experience(v, c)) == text(None)


def _experience(v: Sequence[float], c: float) -> Experience:
    points = [Point(1, 1e-4), *(Point(n, 1e-4 * x) for n, x in enumerate(v, 2))]
    draft = PassCosts(Curve((Point(1, 1e-4 * c),)))
    return Experience(PassCosts(Curve(tuple(points))), draft, window=6)


def test_costs_keep_their_cliffs_between_measured_widths() -> None:
    """A smooth fit would promise five tokens at the price of four."""
    curve = Curve((Point(1, 1.0), Point(4, 1.06), Point(5, 1.98), Point(8, 2.03)))
    assert curve.seconds(3, 0) == pytest.approx(1.04)
    assert curve.seconds(6, 0) == pytest.approx(1.98 + 0.05 / 3)
    assert curve.seconds(12, 0) >= 2.03


def test_what_all_passes_share_cancels_in_ratios() -> None:
    """A machine that another program slows down is slower at every width."""
    costs = PassCosts(Curve((Point(1, 1.0), Point(2, 1.1), Point(4, 1.3))))
    for _ in range(200):
        costs.learn(1, 0, 1.5)
        costs.learn(2, 0, 1.65)
    assert costs.seconds(1, 0) == pytest.approx(1.5, rel=0.03)
    assert costs.verify(2, 0) == pytest.approx(1.1, rel=0.03)


def test_a_pass_that_was_interrupted_teaches_little() -> None:
    costs = PassCosts(Curve((Point(1, 1.0), Point(2, 1.1))))
    for _ in range(20):
        costs.learn(1, 0, 1.0)
    costs.learn(1, 0, 50.0)
    assert costs.seconds(1, 0) < 1.15


def test_learned_costs_survive_the_session() -> None:
    costs = PassCosts(Curve((Point(1, 1.0, 1e-4), Point(2, 1.1, 2e-4))))
    for _ in range(50):
        costs.learn(2, 1000, 2.6)
    again = PassCosts(Curve.of(costs.learned().rows))
    assert again.seconds(2, 1000) == pytest.approx(costs.seconds(2, 1000))


def test_acceptance_follows_the_text_and_keeps_qualities_apart() -> None:
    chances = Acceptance((0.5, 0.5))
    for _ in range(100):
        chances.learn([1, 1], 2)
        chances.learn([0], 0)
    assert chances.of(0, 1) > 0.9
    assert chances.of(0, 0) < 0.1
    for _ in range(300):
        chances.learn([1], 0)
    assert chances.of(0, 1) < 0.15


def test_nothing_behind_a_failed_token_is_evidence() -> None:
    chances = Acceptance((0.5,))
    chances.learn([0, 0, 0], 1)
    assert chances.n_seen == 2


def test_acceptance_is_recalled_in_part() -> None:
    chances = Acceptance((0.5, 0.5))
    for _ in range(50):
        chances.learn([1], 1)
    again = Acceptance((0.5, 0.5))
    again.recall(chances.counts(), 0.5)
    assert 0.5 < again.of(0, 1) <= chances.of(0, 1)
    again.recall({**chances.counts(), "by_quality": []}, 0.5)  # of another version: ignored


def test_confidence_has_a_quality_for_every_border() -> None:
    assert quality_of(0.0) == 0
    assert quality_of(1.0) == len(CONFIDENCES)


def test_the_ledger_pays_for_tries_out_of_what_plain_decoding_takes() -> None:
    ledger = Ledger()
    account = ledger.begin()
    assert not ledger.affords("model", 2.0, 1.0, n_expected=20)
    assert ledger.affords("model", 2.0, 1.0, n_expected=256)
    ledger.add(110.0, 100.0, "model")
    assert not ledger.affords("model", 0.0, 1.0, n_expected=256)
    assert ledger.affords("suffix", 2.0, 1.0, n_expected=256), "a look-up has lost nothing"
    assert account.gain == pytest.approx(100 / 110)
    ledger.begin()
    assert not ledger.affords("model", 0.0, 1.0, n_expected=256), "nor in the next reply"


def test_an_idle_draft_model_is_taken_to_slow_down_with_its_target() -> None:
    """Measured while another program ran, it would else look dear for ever and never be used."""
    target = PassCosts(Curve((Point(1, 4.0), Point(2, 4.4))))
    draft = PassCosts(Curve((Point(1, 2.0),)), reference=target)
    for _ in range(60):
        target.learn(1, 0, 1.6)
    assert draft.seconds(1, 0) / target.seconds(1, 0) == pytest.approx(0.5, rel=0.05)
    for _ in range(60):
        draft.learn(1, 0, 0.4)
    assert draft.seconds(1, 0) == pytest.approx(0.4, rel=0.05)
