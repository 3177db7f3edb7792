"""A reply's figures, worked out by hand."""

import pytest

from localspec.speculate.account import SpeculationCount, Stopwatch
from localspec.speculate.step import Step


def step(n_tokens: int, drafted: int = 0, accepted: int = 0, source: str = "none") -> Step:
    tokens = tuple(range(n_tokens))
    return Step(tokens, drafted, accepted, source, evaluated=5, draft_s=0.01, eval_s=0.5)


def test_passes_and_sources_are_counted() -> None:
    steps = [step(1), step(3, 3, 2, "suffix"), step(1, 2, 0, "suffix"), step(4, 3, 3, "model")]
    counts = SpeculationCount()
    for one in steps:
        counts.add(one)
    assert (counts.passes, counts.tokens, counts.drafted, counts.accepted) == (4, 9, 8, 5)
    assert counts.tokens_per_pass == 2.25
    assert counts.by_source["suffix"].drafted == 5
    assert counts.by_source["suffix"].draft_s == pytest.approx(0.02)


def test_speed_leaves_the_first_step_out() -> None:
    """The first step is the prefill's: counting its tokens would flatter short replies."""
    watch = Stopwatch()
    watch.start(10.0)
    for now, one in ((11.0, step(1)), (12.0, step(3)), (13.0, step(3))):
        watch.add(one, now)
    assert (watch.ttft_s, watch.decode_s, watch.decode_tps) == (1.0, 2.0, 3.0)
    assert watch.tpot_ms == pytest.approx(1000 / 3)
    assert watch.prefill_tps == 10.0


def test_what_did_not_happen_is_none() -> None:
    """0 tok/s would be a measurement; no tokens are none."""
    watch = Stopwatch()
    watch.start(10.0)
    assert watch.ttft_s is watch.decode_s is watch.decode_tps is watch.tpot_ms is None
    assert SpeculationCount().tokens_per_pass is None
    watch.add(step(1), 11.0)
    assert watch.decode_tps is None


def test_a_cut_step_counts_what_is_left_of_it() -> None:
    cut = step(4, 3, 3, "model").cut(2)
    assert (cut.tokens, cut.accepted, cut.drafted) == ((0, 1), 2, 3)
