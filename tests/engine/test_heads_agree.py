"""Heads beside a llama target that know what it says: whole drafts stand, and the end of the text
lies inside one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from agreeing import write_agreeing_eagle3, write_ending_block, write_target
from drafted import run
from heads import EOS, N_BEFORE_END, ORDER

from localspec.decode.drafters import head_kind
from localspec.decode.driver import Slot
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.sampling import Sampling
from localspec.gguf.reader import read_header
from localspec.model.head_fit import head_of
from localspec.model.heads import HeadFacts

GREEDY, N_CTX = Sampling(temperature=0), 192
HEADS: dict[str, Callable[[Path], Path]] = {
    "EAGLE-3": write_agreeing_eagle3,
    "DFlash": lambda path: write_ending_block(path, is_dspark=False),
    "DSpark": lambda path: write_ending_block(path, is_dspark=True),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_target(tmp_path_factory.mktemp("agreeing") / "t.gguf")


def head_beside(target: Path, name: str) -> HeadFacts:
    path = HEADS[name](target.with_name(f"{name}.gguf"))
    facts = head_of(read_header(target), read_header(path))
    assert not isinstance(facts, str), facts
    return facts


def engine_of(target: Path, n: int, n_sequences: int = 1) -> LlamaEngine:
    return LlamaEngine(
        EngineConfig.of(
            target, n_sequences * (n + 1), ctx=N_CTX, threads=1, gpu_layers=0,
            n_sequences=n_sequences, kv_unified=n_sequences > 1,
        )
    )  # fmt: skip


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
        whole = [each for each in own[1:-1] if each.drafted == n]
        assert len(whole) >= 40 // (n + 1) - 2
        assert all(each.accepted == n for each in whole)


@pytest.mark.parametrize("name", HEADS)
def test_a_draft_that_runs_over_the_end_is_cut_there(target: Path, name: str) -> None:
    """With the end at each place of a draft for EAGLE-3; blocks guess it at the first or second."""
    facts, engine = head_beside(target, name), engine_of(target, 5)
    speculator = Fixed(head_kind(facts.method)(engine.head(facts, 5)), 5)
    context = engine.context()
    for n_left in range(7):
        start = N_BEFORE_END - n_left - 8
        prompt = ORDER[start : start + 8]
        generation = Generation(prompt, GREEDY, Limits(N_CTX, 40, frozenset({EOS})))
        (steps,) = run([Slot(generation, context)], engine, speculator)
        assert generation.tokens == ORDER[start + 8 : N_BEFORE_END]
        assert generation.finish_reason == "stop"
        # Of six, the first is not drafted, and the end follows five that were.
        assert n_left in (0, 6) or steps[-1].drafted > steps[-1].accepted
    engine.close()
