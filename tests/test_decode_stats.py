"""A reply's figures, worked out by hand."""

import pytest

from localspec.decode.speculator import Gain
from localspec.decode.stats import DraftStats, Timings, summary
from localspec.decode.step import Step


def step(n_tokens: int, drafted: int = 0, accepted: int = 0, source: str = "none") -> Step:
    tokens = tuple(range(n_tokens))
    return Step(tokens, drafted, accepted, source, evaluated=5, draft_s=0.01, eval_s=0.5)


def test_passes_and_sources_are_counted() -> None:
    steps = [step(1), step(3, 3, 2, "lookup"), step(1, 2, 0, "lookup"), step(4, 3, 3, "model")]
    counts = DraftStats()
    for one in steps:
        counts.add(one)
    assert (counts.passes, counts.tokens, counts.drafted, counts.accepted) == (4, 9, 8, 5)
    assert counts.tokens_per_pass == 2.25
    assert counts.by_source["lookup"].drafted == 5
    assert counts.by_source["lookup"].draft_s == pytest.approx(0.02)


def test_speed_leaves_the_first_step_out() -> None:
    """The first step is the prefill's: counting its tokens would flatter short replies."""
    timings = Timings()
    timings.started = 10.0
    for now, one in ((11.0, step(1)), (12.0, step(3)), (13.0, step(3))):
        timings.add(one, now)
    assert (timings.ttft_s, timings.decode_s, timings.decode_tps) == (1.0, 2.0, 3.0)
    assert timings.tpot_ms == pytest.approx(1000 / 3)
    assert timings.prefill_tps == 10.0


def test_what_did_not_happen_is_none() -> None:
    """0 tok/s would be a measurement; no tokens are none."""
    timings = Timings()
    timings.started = 10.0
    assert timings.ttft_s is timings.decode_s is timings.decode_tps is timings.tpot_ms is None
    assert DraftStats().tokens_per_pass is None
    timings.add(step(1), 11.0)
    assert timings.decode_tps is None


def test_a_cut_step_counts_what_is_left_of_it() -> None:
    cut = step(4, 3, 3, "model").cut(2)
    assert (cut.tokens, cut.accepted, cut.drafted) == ((0, 1), 2, 3)


def test_a_summary_says_what_drafts_brought_and_why_not_more() -> None:
    """People decide by it whether drafts are for them; without drafts there is nothing to say."""
    stats = DraftStats()
    for one in (step(1), step(3, 3, 2, "lookup"), step(1, 2, 0, "model")):
        stats.add(one)
    text = summary(stats, Gain(1.3, 1.2), "a reason")
    assert text == (
        "1.67 tokens a pass · lookup: 2 of 3 drafted tokens accepted"
        " · draft model: 0 of 2 drafted tokens accepted"
        " · about 1.20 x plain (expected 1.30) · a reason"
    )
    assert summary(DraftStats(), Gain(), "") == ""
