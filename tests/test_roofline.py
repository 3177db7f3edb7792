"""Predictions follow the roofline: known sums come out, more machine is never slower."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME, GgmlType
from localspec.hardware.probe_results import Link
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape, write_random_model
from localspec.prediction.memory import memory_of
from localspec.prediction.quants import FURTHER, QUANTS
from localspec.prediction.rates import AttentionWork, IdealRates, WeightWork
from localspec.prediction.roofline import Roofline, Share
from localspec.prediction.speculation import (
    DraftCosts,
    Drafting,
    acceptance_of,
    advice,
    best_length,
    expected_tokens,
)
from localspec.settings import Attention

F16, Q8_0 = BY_NAME["F16"], BY_NAME["Q8_0"]
CACHE = Attention()
A100 = IdealRates(1.935e12, 312e12)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    write_random_model(path, Shape(n_layers=4, n_ctx=8192))
    return ModelFacts.of(read_header(path))


def roofline(facts: ModelFacts, rates: IdealRates, cache: Attention = CACHE) -> Roofline:
    return Roofline(facts, (Share(rates, facts.n_layers),), cache)


@pytest.mark.parametrize(("kind", "n_tokens"), [(F16, 161), (Q8_0, 85)])
def test_an_a100_breaks_even_where_the_literature_says(kind: GgmlType, n_tokens: int) -> None:
    """Each element is two operations a token: C / B * bits / 8 / 2 tokens."""
    work = WeightWork(kind, 1e9 * kind.bits_per_element / 8, 1e9)
    assert A100.weights(work, n_tokens).bound == "memory"
    assert A100.weights(work, n_tokens + 1).bound == "compute"


def test_the_ideal_rates_break_even_there_too() -> None:
    work = WeightWork(F16, 2e9, 1e9)
    assert A100.weights(work, 161).bound == "memory"
    assert A100.weights(work, 162).bound == "compute"


def test_seventy_billion_half_precision_weights_at_two_terabytes_a_second() -> None:
    rates = IdealRates(2e12, None)
    assert 1 / rates.weights(WeightWork(F16, 140e9, 70e9), 1).seconds == pytest.approx(
        14.3, abs=0.05
    )


def test_the_cache_of_llama_3_70b_at_8192_tokens_and_batch_32() -> None:
    layer = AttentionWork(64, 8, 128, 128, 8192, F16, F16)
    assert 80 * 32 * layer.n_bytes == pytest.approx(85.9e9, rel=1e-3)


@given(st.floats(1e9, 5e12), st.floats(1.0, 100.0), st.integers(0, 8000), st.integers(1, 64))
def test_more_bandwidth_and_compute_are_never_slower(
    facts: ModelFacts, bandwidth: float, factor: float, depth: int, n_tokens: int
) -> None:
    slow = roofline(facts, IdealRates(bandwidth, bandwidth * 10))
    fast = roofline(facts, IdealRates(bandwidth * factor, bandwidth * 10 * factor))
    assert fast.seconds(n_tokens, depth) <= slow.seconds(n_tokens, depth)


@given(st.integers(0, 4000), st.integers(0, 4000), st.integers(1, 32))
def test_more_depth_and_more_tokens_are_never_faster(
    facts: ModelFacts, depth: int, more: int, n_tokens: int
) -> None:
    model = roofline(facts, A100)
    assert model.seconds(n_tokens, depth + more) >= model.seconds(n_tokens, depth)
    assert model.seconds(n_tokens + 1, depth) >= model.seconds(n_tokens, depth)


def test_a_smaller_cache_type_is_faster_at_depth_only(facts: ModelFacts) -> None:
    rates = IdealRates(1e10, None)
    wide, narrow = roofline(facts, rates), roofline(facts, rates, Attention("q8_0", "q8_0"))
    assert narrow.seconds(1, 4096) < wide.seconds(1, 4096)
    assert narrow.seconds(1, 0) == pytest.approx(wide.seconds(1, 0), rel=1e-3)


def test_keys_and_values_count_by_their_own_type(facts: ModelFacts) -> None:
    rates = IdealRates(1e10, None)
    k_only = roofline(facts, rates, Attention("q8_0", "f16")).pass_time(1, 4096).attention_s
    both = roofline(facts, rates, Attention("q8_0", "q8_0")).pass_time(1, 4096).attention_s
    none = roofline(facts, rates).pass_time(1, 4096).attention_s
    assert none - k_only == pytest.approx(k_only - both)  # key and value heads are as large


def test_layers_on_two_devices_take_the_time_of_both(facts: ModelFacts) -> None:
    slow, fast = IdealRates(1e10, None), IdealRates(1e11, None)
    times = [
        Roofline(facts, (Share(slow, 4 - n), *[Share(fast, n)] * (n > 0)), CACHE).seconds(1, 100)
        for n in range(5)
    ]
    assert times == sorted(times, reverse=True)
    assert times[0] == pytest.approx(10 * times[4])


def test_a_batch_streams_weights_once_and_every_cache(facts: ModelFacts) -> None:
    model = roofline(facts, IdealRates(1e10, None))
    one, eight = model.pass_time(1, 4096), model.pass_time(1, 4096, 8)
    assert eight.weights_s == one.weights_s
    assert eight.attention_s == pytest.approx(8 * one.attention_s)


def test_prefill_and_first_token(facts: ModelFacts) -> None:
    model = roofline(facts, A100)
    first, second = (
        model.pass_time(n, depth, is_prompt=True).seconds for n, depth in ((512, 0), (488, 512))
    )
    assert model.prefill_s(1000) == pytest.approx(first + second)
    assert first <= model.seconds(512, 0)
    assert model.prefill_s(1) == model.seconds(1, 0)


def test_what_binds(facts: ModelFacts) -> None:
    narrow, weak = IdealRates(1e9, None), IdealRates(1e12, 1e9)
    assert roofline(facts, narrow).pass_time(1, 0).bound == "memory bandwidth"
    assert roofline(facts, weak).pass_time(1, 0).bound == "compute"
    assert roofline(facts, narrow).pass_time(1, 8000).bound == "attention"
    assert roofline(facts, weak).break_even_batch() == 1
    assert roofline(facts, IdealRates(1e9, 1e10)).break_even_batch() == 11
    assert roofline(facts, narrow).break_even_batch() is None


@given(st.floats(0, 0.99), st.integers(0, 12))
def test_tokens_a_pass_is_the_geometric_sum(alpha: float, n_draft: int) -> None:
    closed = (1 - alpha ** (n_draft + 1)) / (1 - alpha)
    assert expected_tokens((alpha,) * n_draft) == pytest.approx(closed)


@pytest.mark.parametrize("alpha", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("n_draft", [1, 4, 9])
def test_tokens_a_pass_is_what_drawing_gives(alpha: float, n_draft: int) -> None:
    n = 200_000
    accepted = np.random.default_rng(1).random((n, n_draft)) < alpha
    tokens = 1 + np.cumprod(accepted, axis=1).sum(axis=1)
    error = tokens.std() / n**0.5
    assert tokens.mean() == pytest.approx(expected_tokens((alpha,) * n_draft), abs=5 * error)


@given(st.floats(0.01, 0.99), st.integers(1, 16))
def test_acceptance_comes_back_from_the_share_of_accepted_drafts(alpha: float, n: int) -> None:
    share = (expected_tokens((alpha,) * n) - 1) / n
    assert acceptance_of(share, n) == pytest.approx(alpha, abs=1e-6)


def flat(n: int) -> float:
    return 1.0


def linear(n: int) -> float:
    return float(n)


def test_a_free_check_rewards_every_draft_and_a_full_price_none() -> None:
    assert DraftCosts(0.0, flat).best(0.5).n_draft == 16
    assert DraftCosts(0.0, flat).break_even_acceptance() == pytest.approx(0, abs=1e-9)
    costly = DraftCosts(0.1, linear)
    assert (costly.best(1.0).n_draft, costly.best(1.0).speedup) == (0, 1.0)
    assert costly.break_even_acceptance() is None


def test_one_token_pays_from_the_textbook_acceptance() -> None:
    """A draft of one pays when alpha > c + v(2) - 1."""
    speculation = DraftCosts(0.2, lambda n: 1 + 0.15 * (n - 1))
    assert speculation.break_even_acceptance(1) == pytest.approx(0.35)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_best_length_is_never_slower_than_plain(
    alpha: float, cost: float, slope: float
) -> None:
    best = DraftCosts(cost, lambda n: 1 + slope * (n - 1)).best(alpha)
    assert best.speedup >= 1.0
    assert (best.n_draft == 0) == (best.speedup == 1.0)


def test_a_draft_ends_where_the_chances_fall_and_may_reach_beyond_a_cliff() -> None:
    def cost(n: int) -> float:
        return 1 + 0.1 * n + 0.5 * (n >= 2)

    assert best_length((0.9, 0.1, 0.1), cost)[0] == 1
    length, rate = best_length((0.95,) * 8, cost)
    assert length == 8
    assert rate == pytest.approx(expected_tokens((0.95,) * 8) / cost(8))


def test_a_large_batch_stops_speculation_from_paying(facts: ModelFacts) -> None:
    rates = IdealRates(1e10, 2e11)  # breaks even at 10 to 20 tokens a pass
    gains = {
        item.use.name: item.gain
        for item in advice(roofline(facts, rates), Drafting(roofline(facts, A100)), 8192)
    }
    assert gains["chat"].n_draft > 0
    assert gains["chat of 8 users"].speedup < gains["chat"].speedup


def test_memory_counts_each_part(facts: ModelFacts) -> None:
    one, four = (memory_of(facts, CACHE, 1024, n_sequences=n) for n in (1, 4))
    assert one.cache_bytes == facts.kv_bytes(1024, F16, F16)
    assert four.cache_bytes == 4 * one.cache_bytes
    assert one.weights_bytes == facts.weight_bytes
    assert one.total_bytes > one.weights_bytes + one.cache_bytes


@dataclass(frozen=True)
class Published:
    """Bits per weight of Llama-3.1-8B, from tools/quantize/README.md of llama.cpp."""

    name: str
    bits: float


@pytest.mark.parametrize(
    "published",
    [
        Published("F16", 16.0005), Published("Q8_0", 8.5008), Published("Q6_K", 6.5633),
        Published("Q5_K_M", 5.7036), Published("Q5_K_S", 5.5704), Published("Q4_K_M", 4.8944),
        Published("Q4_K_S", 4.6672), Published("IQ4_XS", 4.4597), Published("Q3_K_M", 3.9960),
        Published("Q2_K", 3.1593), Published("IQ4_NL", 4.6818), Published("Q3_K_L", 4.2979),
        Published("IQ3_M", 3.7628), Published("IQ3_S", 3.6606), Published("IQ3_XS", 3.4977),
        Published("IQ3_XXS", 3.2548), Published("Q3_K_S", 3.6429), Published("IQ2_M", 2.9294),
        Published("Q2_K_S", 2.9697), Published("IQ2_S", 2.7403), Published("IQ2_XS", 2.5882),
        Published("IQ2_XXS", 2.3824),
    ],
    ids=lambda published: published.name,
)  # fmt: skip
def test_mixtures_weigh_what_is_published(facts: ModelFacts, published: Published) -> None:
    llama = llama_3_8b(facts)
    quant = next(quant for quant in (*QUANTS, *FURTHER) if quant.name == published.name)
    size = quant.applied(llama).weight_bytes
    assert 8 * size / 8.03e9 == pytest.approx(published.bits, rel=0.02)


def llama_3_8b(facts: ModelFacts) -> ModelFacts:
    """Llama-3-8B by its sums: 128,256 tokens of 4,096 numbers twice, the rest in 32 layers."""
    from localspec.model.weights import WeightGroup

    table, rest = 128_256 * 4_096, 8_030_000_000 - 2 * 128_256 * 4_096
    groups = (
        WeightGroup("embedding", F16, table, 2 * table, False, False),
        WeightGroup("output", F16, table, 2 * table, False, True),
        WeightGroup("feed_forward", F16, rest, 2 * rest, False, True),
    )
    return replace(facts, weights=groups, n_embd=4096)


def test_the_output_matrix_alone_is_worth_a_device_and_a_hop_costs_what_its_link_says(
    facts: ModelFacts,
) -> None:
    slow, fast = IdealRates(1e9, None), IdealRates(1e10, None)
    alone = Roofline(facts, (Share(slow, 4),), CACHE).seconds(1, 0)
    output = Roofline(facts, (Share(slow, 4), Share(fast, 0)), CACHE)
    assert output.seconds(1, 0) < alone
    linked = Roofline(facts, (Share(slow, 4), Share(fast, 0, Link(1e-4, 1e8, 2e-3))), CACHE)
    n_bytes = 4 * (facts.n_embd + (facts.n_vocab or 0))
    hop_s = linked.seconds(1, 0) - output.seconds(1, 0)
    assert hop_s == pytest.approx(2e-3 + n_bytes / 1e8)
