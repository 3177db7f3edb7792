"""The tuner: what it leaves out, how it judges, and that it ends with an answer."""

import signal
from dataclasses import replace

import pytest
from babbling import write_babbling_model
from command import SHAPE, finish, folder, localspec, mamba, start, tiny, wait_for_cpu
from hypothesis import given
from hypothesis import strategies as st

from localspec.engine.threads import thread_counts
from localspec.quality.divergence import Divergence
from localspec.session.loading import checked_facts, plan_engines
from localspec.session.profile import find_profile
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE, Attention, Settings
from localspec.tuning.duel import paying
from localspec.tuning.search import Outcome, changed_settings, search
from localspec.tuning.state import Trial
from localspec.tuning.target import (
    Build,
    Goal,
    TuneTarget,
    additive,
    candidate_of,
    excluded,
    is_coarser,
    loadings,
    space_of,
)

F16 = Settings(threads=2, threads_batch=2)
BF16 = F16.with_attention(Attention("bf16", "bf16", "off"))


def facts(**changes: object) -> object:
    return replace(checked_facts(tiny()), **changes)


@pytest.mark.parametrize(
    ("attention", "build", "word"),
    [
        (Attention("f16", "q8_0", "off"), Build(), "needs flash attention"),
        (Attention("q8_0", "f16", "on"), Build("metal"), "Metal"),
        (Attention("q8_0", "q4_0", "on"), Build("cuda"), "CUDA build"),
        (Attention("q5_1", "q5_1", "on"), Build("cuda", "CUDA : FA_QUANTS = q4_0-q4_0 |"), "q5_1"),
        (Attention("iq4_nl", "iq4_nl", "on"), Build("cuda", "FA_QUANTS = all"), "iq4_nl"),
        (Attention("q8_0", "q4_0", "on"), Build("rpc"), "end a worker"),
        (Attention("q4_1", "f16", "off"), Build("rpc"), "end a worker"),
    ],
)
def test_what_has_no_fast_kernel_is_left_out_with_a_reason(
    attention: Attention, build: Build, word: str
) -> None:
    reason = excluded(attention, facts(), build)
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize(
    ("attention", "build"),
    [
        (Attention("q8_0", "q4_0", "on"), Build()),
        (Attention("q8_0", "f16", "off"), Build("metal")),
        (Attention("q8_0", "q8_0", "on"), Build("rpc")),
        (Attention("q8_0", "q8_0", "on"), Build("cuda")),
        (Attention("q5_1", "q4_0", "on"), Build("cuda", "CUDA : FA_QUANTS = q5_1-q4_0 | X = 1")),
        (Attention("q5_1", "q4_0", "on"), Build("cuda", "FA_QUANTS = all | ARCHS = 890")),
    ],
)
def test_what_has_one_is_tried(attention: Attention, build: Build) -> None:
    assert excluded(attention, facts(), build) is None


WITH_HEAD = {"draft": "head.gguf", "spec": "auto"}
WITHOUT = {"draft": NONE, "spec": NONE}
LOOKUPS = {"draft": NONE, "spec": "auto"}


@pytest.mark.parametrize(
    ("head_s", "plain_s", "lookup_s", "kept"),
    [
        ((0.50, 0.52, 0.51), (1.0, 1.01, 0.99), (0.9, 0.92, 0.91), WITH_HEAD),
        ((0.90, 0.93, 0.91), (1.0, 1.01, 0.99), (0.9, 0.92, 0.91), LOOKUPS),
        ((0.95, 0.93, 0.96), (1.0, 1.01, 0.99), (0.9, 0.92, 0.91), LOOKUPS),
        ((1.05, 1.06, 1.05), (1.0, 1.01, 0.99), (1.03, 1.04, 1.02), WITHOUT),
        ((1.00, 1.04, 0.98), (1.0, 1.01, 0.99), (1.01, 1.0, 1.02), LOOKUPS),
    ],
)
def test_what_takes_memory_is_kept_only_if_it_pays(
    head_s: tuple[float, ...],
    plain_s: tuple[float, ...],
    lookup_s: tuple[float, ...],
    kept: dict[str, str],
) -> None:
    """A head whose drafts agree is recorded, one that brings no more than lookups is left off."""
    assert paying([WITH_HEAD, WITHOUT, LOOKUPS], [head_s, plain_s, lookup_s]) == kept


def test_where_nothing_is_beside_the_target_nothing_is_recorded() -> None:
    """A head that is put there later is found."""
    default = {"draft": "auto", "spec": "auto"}
    assert paying([default, WITHOUT], [(1.0, 1.1, 0.9), (1.0, 1.05, 1.0)]) == default


def test_a_head_that_blocks_do_not_divide_is_left_out() -> None:
    path = folder() / "odd-head.gguf"
    write_babbling_model(path, replace(SHAPE, n_embd=80, n_heads=2), "F16")
    reason = excluded(Attention("q8_0", "q8_0", "on"), checked_facts(path), Build())
    assert reason is not None
    assert "40" in reason


def test_candidates_are_predicted_fastest_first_and_for_memory_smallest_first() -> None:
    seconds = {"f16": 3.0, "bf16": 1.0, "q8_0": 2.0, "q4_0": 4.0}

    def predicted(attention: Attention) -> float | None:
        return seconds.get(attention.kv_k, 9.0) + seconds.get(attention.kv_v, 9.0)

    space = space_of(Goal(), facts(), Build(), predicted)
    assert (space.attentions[0].kv_k, space.attentions[0].kv_v) == ("bf16", "bf16")
    assert len(space.attentions) == 24, "16 pairs with flash attention, 8 without"
    assert len(space.excluded) == 8
    smallest = space_of(Goal("memory"), facts(), Build(), predicted).attentions[0]
    assert (smallest.kv_k, smallest.kv_v) == ("q4_0", "q4_0")
    quality = space_of(Goal("quality"), facts(), Build(), lambda a: None).attentions
    assert {a.kv_k for a in quality} == {"f16", "f32"}


@pytest.mark.parametrize("build", [Build("rpc"), Build("cuda")])
def test_a_pair_whose_parts_have_no_kernel_is_measured_itself(build: Build) -> None:
    """On CUDA and on workers q8_0/q8_0 is computed, q8_0/f16 is not: no sum predicts it."""
    space = space_of(Goal(), facts(), build, lambda attention: None)
    assert {(a.kv_k, a.kv_v) for a in space.edges} >= {("q8_0", "q8_0"), ("q4_0", "q4_0")}
    everywhere = space_of(Goal(), facts(), Build(), lambda attention: None)
    assert all("f16" in (a.kv_k, a.kv_v) for a in everywhere.edges)


@given(st.floats(0.1, 9), st.floats(0.1, 9), st.floats(0.1, 9))
def test_the_sum_predicts_what_it_did_not_see(base: float, k: float, v: float) -> None:
    measured = {
        Attention("f16", "f16", "on"): base,
        Attention("q8_0", "f16", "on"): base + k,
        Attention("f16", "bf16", "on"): base + v,
    }
    assert additive(Attention("q8_0", "bf16", "on"), measured) == pytest.approx(base + k + v)
    assert additive(Attention("q8_0", "bf16", "off"), measured) is None


def test_a_gpu_that_is_too_small_gets_layers_or_all_but_experts() -> None:
    full = facts(weight_bytes=40_000_000_000)
    cuda = Build("cuda")
    assert loadings(Settings(), full, cuda, 80_000_000_000) == ()
    (part,) = loadings(Settings(), full, cuda, 24_000_000_000)
    assert 0 < part.gpu_layers <= full.n_layers
    assert len(loadings(Settings(gpu_layers=0), full, Build(), None)) == 2, (
        "not repacked, not mapped"
    )


def test_threads_include_the_default() -> None:
    assert plan_engines(SessionConfig.of(tiny())).target.n_threads in thread_counts()


def quality(kld: float) -> Divergence:
    return Divergence(1000, 10.0, 10.0, kld, 0.0, kld, 1.0)


@pytest.mark.parametrize(
    ("trial", "goal", "wins"),
    [
        (Trial(BF16, [1.5] * 6, None, quality(0.003)), Goal(), True),
        (Trial(BF16, [1.5] * 6, None, quality(0.02)), Goal(), False),
        (Trial(BF16, [1.5] * 6, None, quality(0.02)), Goal(max_loss=0.05), True),
        (Trial(BF16, [1.5] * 6), Goal(), False),
        (Trial(BF16, [0.7, 1.4, 0.8, 1.3, 0.9], None, quality(0.0)), Goal(), False),
        (Trial(BF16, [1.005] * 6, None, quality(0.0)), Goal(), False),
        (Trial(BF16, [1.5] * 6, 0.3, quality(0.0)), Goal(), False),
        (Trial(F16, [1.005] * 6), Goal(), True),
        (Trial(F16, []), Goal(), False),
    ],
    ids=[
        "faster", "worse", "worse but allowed", "not judged", "noise", "not worth it",
        "slow prompts", "exact", "not measured",
    ],
)  # fmt: skip
def test_only_what_is_proven_replaces_the_defaults(trial: Trial, goal: Goal, wins: bool) -> None:
    assert trial.wins(goal) is wins


def test_for_memory_a_smaller_cache_wins_if_it_is_not_slower() -> None:
    small = F16.with_attention(Attention("q8_0", "q8_0", "on"))
    memory = Goal("memory")
    assert Trial(small, [0.99] * 6, None, quality(0.004)).wins(memory)
    assert not Trial(small, [0.8] * 6, None, quality(0.004)).wins(memory)
    assert not Trial(BF16, [0.99] * 6, None, quality(0.0)).wins(memory), "it saves nothing"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("q4_0", "q4_0"), ("q4_0", "f16"), True),
        (("q4_0", "bf16"), ("q4_0", "f16"), False),
        (("q8_0", "f16"), ("q4_0", "f16"), False),
        (("q4_0", "f16"), ("q4_0", "f16"), True),
        (("f16", "f16"), ("bf16", "bf16"), False),
    ],
)
def test_what_is_coarser_than_what_was_refused_need_not_be_read(
    one: tuple[str, str], other: tuple[str, str], expected: bool
) -> None:
    assert is_coarser(Attention(*one, "on"), Attention(*other, "off")) is expected


def test_threads_of_prompts_stay_where_those_of_decoding_change() -> None:
    config = plan_engines(SessionConfig.of(tiny(), threads=2)).target
    default = candidate_of(config)
    winner = Trial(replace(default, threads=1), [1.2] * 6)
    changed = changed_settings(Outcome(default, winner, 1.0, (winner,)))
    assert changed == {"threads": 1, "threads_batch": 2}
    assert changed_settings(Outcome(default, None, 1.0, ())) == {}


@pytest.mark.engine
@pytest.mark.parametrize("model", [tiny, mamba])
def test_a_search_ends_in_its_budget_with_an_answer(model: object) -> None:
    """On a busy machine the last stage may run over; the defaults must never be lost."""
    subject = TuneTarget.of(SessionConfig.of(model(), spec="none", ctx=256), lambda message: None)
    stages: list[str] = []
    outcome = search(subject, Goal(), 4.0, lambda stage, *best: stages.append(stage))
    assert stages[0] == "loading"
    assert (outcome.setting.threads or 0) >= 1
    assert outcome.winner is None or outcome.winner.wins(Goal())
    assert not outcome.is_interrupted


@pytest.mark.engine
def test_the_command_keeps_what_it_found_and_shows_it() -> None:
    run = localspec("tune", str(tiny()), "--ctx", "256", "--budget", "3", "--json")
    assert set(run.document) == {"settings", "ratio", "kld", "seconds"}
    assert run.document["ratio"]["low"] <= run.document["ratio"]["mid"]
    found = find_profile(tiny()).profile
    assert found is not None
    assert found.settings.items() <= run.document["settings"].items()
    assert localspec("tune", str(tiny()), "--show", "--json").document == run.document


@pytest.mark.engine
def test_ctrl_c_ends_it_with_what_is_proven() -> None:
    process = start("tune", str(tiny()), "--ctx", "2048", "--budget", "60", "--json")
    wait_for_cpu(process, 1.5)
    process.send_signal(signal.SIGINT)
    run = finish(process)
    if run.code == 0:
        assert run.document["ratio"]["low"] > 1
    else:
        assert (run.code, run.stdout) == (1, "")
        assert run.stderr.splitlines()[-1] == "localspec: interrupted"


@pytest.mark.parametrize(
    "flags",
    [
        ("--budget", "0"),
        ("--for", "beauty"),
        ("--max-quality-loss", "-1"),
        pytest.param(("--ctx", "1"), marks=pytest.mark.engine),
    ],
)
def test_wrong_flags_are_usage_errors(flags: tuple[str, str]) -> None:
    run = localspec("tune", str(tiny()), *flags)
    assert (run.code, run.stdout) == (2, "")
    assert len(run.stderr.splitlines()) == 1
