"""What EAGLE-3, DFlash and DSpark heads compute in the engine, against NumPy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from babbling import write_babbling_model
from beside import MASK, SMALL, write_dflash, write_eagle3
from head_reference import Dflash, Eagle3

from localspec.engine.base import EngineConfig
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.engine import LlamaEngine
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadFacts
from localspec.model.head_fit import head_of

TEXT, N = [(7 * i + 3) % 250 for i in range(21)], 4
VARIANTS: dict[str, Callable[[Path], Path]] = {
    "plain": write_eagle3,
    "few tokens": lambda path: write_eagle3(path, n_own_vocab=200),
    "a norm before the residual": lambda path: write_eagle3(path, norm_before="residual"),
    "a norm before fc": lambda path: write_eagle3(path, norm_before="fc"),
    "few tokens, both ends": lambda path: write_eagle3(path, n_own_vocab=64, norm_before="fc"),
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "t.gguf"
    write_babbling_model(path, SMALL)
    return path


def facts_of(target: Path, head: Path) -> HeadFacts:
    facts = head_of(read_header(target), read_header(head))
    assert not isinstance(facts, str), facts
    return facts


def begun(target: Path) -> tuple[LlamaEngine, LlamaContext]:
    settings = {"ctx": 128, "threads": 1, "gpu_layers": 0}
    engine = LlamaEngine(EngineConfig.of(target, N + 1, **settings))
    return engine, engine.context()


def taps_of(engine: LlamaEngine, context: LlamaContext) -> np.ndarray:
    """The target's states of `TEXT`, as it gave them out."""
    context.eval(TEXT[:-1], 1)
    assert engine.features
    rows = engine.features.of(context.sequence).of(0, len(TEXT) - 1)
    return rows.reshape(len(rows), -1).astype(np.float64)


def assert_alike(found: np.ndarray, wanted: np.ndarray) -> None:
    known = np.isfinite(wanted)
    assert np.array_equal(known, np.isfinite(found))
    assert found[known].argmax() == wanted[known].argmax()
    assert float(np.abs(found[known] - wanted[known]).max()) < 0.02 * float(wanted[known].std())


@pytest.mark.parametrize("name", VARIANTS)
def test_eagle3_computes_what_its_paper_says(target: Path, tmp_path: Path, name: str) -> None:
    path = VARIANTS[name](tmp_path / "head.gguf")
    engine, context = begun(target)
    head, reference = engine.head(facts_of(target, path), N), Eagle3(path, target, SMALL.head_size)
    taps = taps_of(engine, context)
    tokens, states = TEXT[1:], reference.encoded(taps)
    draft = TEXT[-1:]
    for _ in range(N):
        own = reference.states(tokens, states)
        wanted = reference.scores(own[-1:])[0]
        assert_alike(head.draft([(context, draft)])[0].row(0), wanted)
        draft = [*draft, int(wanted.argmax())]
        tokens, states = [*tokens, draft[-1]], np.concatenate([states, own[-1:]])
    engine.close()


@pytest.mark.parametrize("is_dspark", [False, True], ids=["DFlash", "DSpark"])
def test_a_block_computes_what_its_paper_says(
    target: Path, tmp_path: Path, is_dspark: bool
) -> None:
    path = write_dflash(tmp_path / "head.gguf", is_dspark=is_dspark)
    engine, context = begun(target)
    head, reference = engine.head(facts_of(target, path), N), Dflash(path, target, SMALL.head_size)
    assert head.facts.block
    first = head.facts.block.first
    block = [TEXT[-1], *[MASK] * (N + first - 1)]
    wanted, states = reference.block(taps_of(engine, context), block)
    chances = [None] * len(block)
    if is_dspark:
        wanted, chances = reference.chained(wanted, states, TEXT[-1])
    for i in range(N):
        row = head.draft([(context, [*TEXT[-1:], *[1] * i])])[0]
        assert_alike(row.row(0), wanted[first + i])
        assert row.chance == pytest.approx(chances[first + i], abs=0.01)
    engine.close()
