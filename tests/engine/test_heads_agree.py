"""Heads beside a target, dense or hybrid, that know what it says: whole drafts stand, and the end
of the text lies inside one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from agreeing import BEFORE_END, write_agreeing_eagle3, write_ending_block, write_target
from drafted import run
from heads import EOS, N_BEFORE_END, ORDER

from localspec.decode.drafters import head_kind
from localspec.decode.driver import Slot
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed
from localspec.decode.step import Step
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.sampling import Sampling
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadFacts
from localspec.model.head_fit import head_of

GREEDY, N_CTX = Sampling(temperature=0), 192
HEADS: dict[str, Callable[[Path], Path]] = {
    "EAGLE-3": write_agreeing_eagle3,
    "DFlash": lambda path: write_ending_block(path, is_dspark=False),
    "DSpark": lambda path: write_ending_block(path, is_dspark=True),
}


@pytest.fixture(scope="module", params=["dense", "hybrid"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def target(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agreeing")
    return write_target(folder / "t.gguf", is_hybrid=kind == "hybrid")


def head_beside(target: Path, name: str) -> HeadFacts:
    path = HEADS[name](target.with_name(f"{name}.gguf"))
    facts = head_of(read_header(target), read_header(path))
    assert not isinstance(facts, str), facts
    return facts


def engine_of(target: Path, n: int, n_sequences: int = 1) -> LlamaEngine:
    return LlamaEngine(
        EngineConfig.of(
            target, n_sequences * (n + 1), ctx=N_CTX, threads=1, gpu_layers=0,
            n_sequences=n_sequences, kv_unified=n_sequences > 1, n_rs_seq=n,
        )
    )  # fmt: skip


def assert_whole(steps: Sequence[Step], n: int, n_least: int) -> None:
    """All of each draft of `n` tokens stands, and there are so many."""
    whole = [each for each in steps[1:-1] if each.drafted == n]
    assert len(whole) >= n_least
    assert all(each.accepted == n for each in whole)


@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 4, 8])
def test_all_of_a_right_draft_stands(target: Path, n: int, n_sequences: int) -> None:
    facts, engine = head_beside(target, "EAGLE-3"), engine_of(target, n, n_sequences)
    speculator = Fixed(head_kind(facts.method)(engine.head(facts, n)), n)
    starts = (0, 110, 150)[:n_sequences]
    slots = [
        Slot(Generation(ORDER[i : i + 30], GREEDY, Limits(N_CTX, 40)), engine.context())
        for i in starts
    ]
    steps = run(slots, engine, speculator)
    engine.close()
    for start, slot, own in zip(starts, slots, steps, strict=True):
        assert slot.generation.tokens == ORDER[start + 30 : start + 70]
        assert_whole(own, n, 40 // (n + 1) - 2)


@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("name", ["DFlash", "DSpark"])
def test_all_of_a_right_block_stands(
    kind: str, name: str, n_sequences: int, tmp_path: Path
) -> None:
    """Of a text that says one token over and over, which is all that mask tokens can guess."""
    target = write_target(tmp_path / "t.gguf", is_hybrid=kind == "hybrid", is_stuck=True)
    facts, engine = head_beside(target, name), engine_of(target, 4, n_sequences)
    speculator = Fixed(head_kind(facts.method)(engine.head(facts, 4)), 4)
    slots = [
        Slot(Generation(ORDER[i:N_BEFORE_END], GREEDY, Limits(N_CTX, 30 + i % 7)), engine.context())
        for i in (60, 80, 97)[:n_sequences]
    ]
    steps = run(slots, engine, speculator)
    engine.close()
    for slot, own in zip(slots, steps, strict=True):
        assert slot.generation.tokens == [BEFORE_END] * slot.generation.limits.max_tokens
        assert_whole(own, 4, 4)


@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_a_draft_that_runs_over_the_end_is_cut_there(
    target: Path, name: str, n_sequences: int
) -> None:
    """With the end at each place of a draft for EAGLE-3; blocks guess it at the first or second."""
    facts, engine = head_beside(target, name), engine_of(target, 5, n_sequences)
    speculator = Fixed(head_kind(facts.method)(engine.head(facts, 5)), 5)
    contexts = [engine.context() for _ in range(n_sequences)]
    for i in range(7):
        lengths = [(i + 3 * k) % 7 for k in range(n_sequences)]
        ends = [N_BEFORE_END - n_left for n_left in lengths]
        limits = Limits(N_CTX, 40, frozenset({EOS}))
        asked = [Generation(ORDER[end - 8 : end], GREEDY, limits) for end in ends]
        slots = [Slot(*each) for each in zip(asked, contexts, strict=True)]
        found = run(slots, engine, speculator)
        for end, n_left, each, steps in zip(ends, lengths, asked, found, strict=True):
            assert each.tokens == ORDER[end:N_BEFORE_END]
            assert each.finish_reason == "stop"
            # Of six, the first is not drafted, and the end follows five that were.
            assert n_left in (0, 6) or steps[-1].drafted > steps[-1].accepted
    engine.close()
