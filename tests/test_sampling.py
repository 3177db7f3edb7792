"""Filters against a slow, obvious implementation; random numbers; acceptance."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeLogits
from hypothesis import given, settings
from hypothesis import strategies as st

from localspec.engine.sampling import Chooser, Least, Purpose, Sampling, truncated, uniform
from localspec.errors import EngineError, ModelError


def obvious(row: np.ndarray, s: Sampling) -> dict[int, float]:
    """llama.cpp's order, with full sorts: top-k, top-p, min-p, temperature."""
    kept = sorted(range(len(row)), key=lambda i: -row[i])[: s.top_k or len(row)]

    def softmax(ids: list[int], temperature: float = 1.0) -> np.ndarray:
        weights = np.exp((row[ids].astype(float) - float(row[ids[0]])) / temperature)
        return weights / weights.sum()

    if s.top_p < 1:
        total, n = 0.0, 0
        for p in softmax(kept):
            n += 1
            total += p
            if total >= s.top_p:
                break
        kept = kept[:n]
    if s.min_p > 0:
        p = softmax(kept)
        kept = [i for i, probability in zip(kept, p, strict=True) if probability >= s.min_p * p[0]]
    return dict(zip(kept, softmax(kept, s.temperature), strict=True))


@given(
    seed=st.integers(0, 10_000),
    n_vocab=st.sampled_from([5, 64, 1000, 5000, 5003]),
    top_k=st.sampled_from([0, 1, 3, 40]),
    top_p=st.sampled_from([0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    temperature=st.sampled_from([0.1, 0.8, 2.0]),
)
@settings(max_examples=150, deadline=None)
def test_the_filters_keep_what_full_sorts_keep(
    seed: int, n_vocab: int, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    """The short cut to the best k must be exact, at sizes that do not divide evenly too."""
    row = np.random.default_rng(seed).normal(0, 3, n_vocab).astype(np.float32)
    sampling = Sampling(temperature, top_k, top_p, min_p)
    distribution = truncated(row, sampling)
    expected = obvious(row, sampling)
    assert set(distribution.ids.tolist()) == set(expected)
    assert all(distribution.of(i) == pytest.approx(p, rel=1e-6) for i, p in expected.items())


def test_ties_and_masked_tokens_do_not_break_top_k() -> None:
    row = np.full(4096, -np.inf, np.float32)
    row[[7, 100, 4095]] = 1.0
    distribution = truncated(row, Sampling(1.0, top_k=40, top_p=0.95, min_p=0.05))
    assert sorted(distribution.ids.tolist()) == [7, 100, 4095]
    assert distribution.probabilities == pytest.approx([1 / 3] * 3)


def test_a_penalty_makes_a_repeated_token_less_likely_and_leaves_the_logits_alone() -> None:
    rows = np.array([[2.0, 1.5, -1.0]], np.float32)
    chooser = Chooser(Sampling(temperature=0, repeat_penalty=2.0))
    assert chooser.greedy(FakeLogits(rows), 0, [0]) == 1
    assert chooser.greedy(FakeLogits(rows), 0, [2]) == 0
    assert rows.tolist() == [[2.0, 1.5, -1.0]]


@given(
    seed=st.integers(0, 10_000),
    history=st.lists(st.integers(0, 8), max_size=12),
    last_n=st.sampled_from([-1, 0, 1, 4, 64]),
    repeat=st.sampled_from([1.0, 1.3, 0.7]),
    frequency=st.sampled_from([0.0, 0.4, -1.0]),
    presence=st.sampled_from([0.0, 1.5]),
)
@settings(max_examples=60, deadline=None)
def test_penalties_are_llama_cpps(
    seed: int, history: list[int], last_n: int, repeat: float, frequency: float, presence: float
) -> None:
    """Divide or multiply, less count x frequency, less presence, of the last n tokens."""
    row = np.random.default_rng(seed).normal(0, 3, 9).astype(np.float32)
    expected = row.astype(float)
    window = history if last_n < 0 else history[len(history) - min(last_n, len(history)) :]
    for i in set(window):
        expected[i] = row[i] / repeat if row[i] > 0 else row[i] * repeat
        expected[i] -= window.count(i) * frequency + presence
    weights = np.exp(expected - expected.max())
    penalties = {"repeat_penalty": repeat, "frequency_penalty": frequency}
    sampling = Sampling(
        1.0, 0, 1.0, 0.0, **penalties, presence_penalty=presence, repeat_last_n=last_n
    )
    found = Chooser(sampling).distribution(FakeLogits(row[None]), 0, history)
    assert found.probabilities == pytest.approx(weights / weights.sum(), rel=1e-4)
    greedy = Chooser(replace(sampling, temperature=0)).greedy(FakeLogits(row[None]), 0, history)
    assert expected[greedy] == pytest.approx(expected.max(), rel=1e-5)


def test_a_bias_moves_a_token_and_a_ban_outlasts_it() -> None:
    rows = FakeLogits(np.array([[2.0, 1.0, 0.0]], np.float32))
    assert Chooser(Sampling(0, bias=((2, 5.0),))).greedy(rows, 0, [0]) == 2
    banned = Sampling(0, bias=((2, 50.0),), banned=frozenset([2]))
    assert Chooser(banned).greedy(rows, 0, [0]) == 0
    with pytest.raises(EngineError, match="no token is left"):
        Chooser(Sampling(0, banned=frozenset([0, 1, 2]))).greedy(rows, 0, [0])


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_no_end_comes_before_its_time(temperature: float) -> None:
    rows = FakeLogits(np.array([[9.0, 1.0, 0.0]], np.float32))
    chooser = Chooser(Sampling(temperature), least=Least(3, frozenset([0])))
    assert chooser.token(rows, 0, [1, 1]) != 0
    assert chooser.token(rows, 0, [1, 1, 1]) == 0


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_damaged_model_is_told_from_an_answer(temperature: float) -> None:
    """NaN would be drawn as some token, and the text would go on."""
    rows = np.array([[0.0] * 50 + [np.nan] + [9.0] * 50], np.float32)
    with pytest.raises(ModelError, match="NaN"):
        Chooser(Sampling(temperature=temperature)).token(FakeLogits(rows), 0, [1])


def test_a_banned_token_is_never_chosen() -> None:
    rows = np.array([[9.0, 1.0, 0.0]], np.float32)
    banned = frozenset([0])
    assert Chooser(Sampling(temperature=0, banned=banned)).greedy(FakeLogits(rows), 0, []) == 1
    sampled = Chooser(Sampling(temperature=5.0, min_p=0, top_p=1, banned=banned))
    assert sampled.distribution(FakeLogits(rows), 0, []).of(0) == 0


def test_random_numbers_are_uniform_and_independent_of_their_neighbours() -> None:
    """A bias here would bend every sampled text. Bounds are 5 standard deviations."""
    numbers = np.array(
        [[uniform(seed, pos, Purpose.TOKEN) for pos in range(50)] for seed in range(200)]
    )
    n = numbers.size
    assert abs(numbers.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 19 + 5 * 38**0.5
    for a, b in ((numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / a.size**0.5
    others = np.array([[uniform(s, pos, Purpose.ACCEPT) for pos in range(50)] for s in range(200)])
    assert abs(np.corrcoef(numbers.ravel(), others.ravel())[0, 1]) < 5 / n**0.5
