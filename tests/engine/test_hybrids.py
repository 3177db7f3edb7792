"""Memories that are a state: what goes back, on small random models of each kind of hybrid."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hybrids import ARCHITECTURES, write_random_hybrid

from localspec.engine.base import EngineConfig, hold
from localspec.engine.llama.engine import LlamaEngine

Load = Callable[..., LlamaEngine]
ROUNDING = 0.1
"""Between batches of different widths; a stale state is off by more than 1."""
N_SNAPSHOTS = 4
PROMPT = list(range(20, 45))
ROLLING = [name for name in ARCHITECTURES if name != "mamba"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write_random_hybrid(folder / f"{name}.gguf", name) for name in ARCHITECTURES}


@pytest.fixture
def load() -> Iterator[Load]:
    engines: list[LlamaEngine] = []

    def load(model: Path, **settings: object) -> LlamaEngine:
        chosen: Any = {"ctx": 512, "threads": 1, "n_outputs": 8, "n_rs_seq": N_SNAPSHOTS}
        engines.append(LlamaEngine(EngineConfig.of(model, **chosen | settings)))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def clean(engine: LlamaEngine, tokens: list[int]) -> np.ndarray:
    """The next logits of a sequence that never held anything else."""
    context = engine.scratch()
    context.clear()
    row = context.eval(tokens, 1).row(0).copy()
    context.clear()
    return row


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_rollback_leaves_the_state_of_a_clean_sequence(
    load: Load, models: dict[str, Path], name: str
) -> None:
    """m rows, b of them or more taken back: one stale state, and every answer after it is wrong."""
    engine = load(models[name])
    assert engine.rollback_limit == (N_SNAPSHOTS if name in ROLLING else 0)
    used = engine.context()
    for m, b in product(range(1, 7), range(1, 9)):
        used.clear()
        used.eval(PROMPT, 0)
        used.eval(range(200, 200 + m), 0)
        tokens = list(used.tokens)[: len(PROMPT) + m - b]
        used.go_back(len(tokens))
        is_free = name in ROLLING and b < m and b <= N_SNAPSHOTS
        assert list(used.tokens) == (tokens if is_free else []), (m, b)
        row = hold(used, [*tokens, 77], 1).row(0).copy()
        used.clear()
        assert row == pytest.approx(clean(engine, [*tokens, 77]), abs=ROUNDING), (m, b)
