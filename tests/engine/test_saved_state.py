"""A saved sequence: whoever goes on from it computes what the one who saved it would have."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import mamba, tiny
from models import gemma, smollm2

from localspec.engine.base import EngineConfig, hold
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.engine import LlamaEngine
from localspec.session.disk_cache import state_key

Load = Callable[..., LlamaContext]


@pytest.fixture
def load() -> Iterator[Load]:
    engines: list[LlamaEngine] = []

    def load(model: Path, **settings: object) -> LlamaContext:
        config = EngineConfig.of(model, **{"ctx": 1024, "threads": 1, **settings})
        engines.append(LlamaEngine(config))
        return engines[-1].context()

    yield load
    for engine in engines:
        engine.close()


def text(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(4, 250, n).tolist()


CASES = {
    "attention": (tiny, {}),
    "quantized": (tiny, {"kv_k": "q8_0", "kv_v": "q8_0", "flash_attn": "on"}),
    "recurrent": (mamba, {}),
    "window": (gemma, {}),
    "real": (smollm2, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_restored_is_undisturbed_to_the_last_bit(case: str, load: Load, tmp_path: Path) -> None:
    """Also after a rollback, and beyond a window (Gemma's is 512 tokens)."""
    model, settings = CASES[case]
    n = 600 if case == "window" else 90
    undisturbed = load(model(), **settings)
    undisturbed.eval(text(n), 1)
    if case != "recurrent":
        undisturbed.truncate(n - 7)
    undisturbed.save(tmp_path / "state")
    restored = load(model(), **settings)
    assert restored.restore(tmp_path / "state")
    assert restored.tokens == undisturbed.tokens
    for n_new, seed in ((20, 1), (1, 2), (3, 3)):
        rows = [context.eval(text(n_new, seed), 1).row(0) for context in (undisturbed, restored)]
        assert np.array_equal(*rows)


def test_only_what_is_new_is_evaluated_after_a_restore(load: Load, tmp_path: Path) -> None:
    first = load(tiny())
    first.eval(text(50), 1)
    first.save(tmp_path / "state")
    again = load(tiny())
    again.restore(tmp_path / "state")
    before = again.engine.busy_s, again.engine.n_decodes
    hold(again, [*text(50), 9], 1)
    assert again.engine.n_decodes == before[1] + 1
    assert again.tokens == [*text(50), 9]


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "other model", "empty", "missing", "too long"]
)
def test_a_state_that_does_not_fit_leaves_an_empty_sequence(
    damage: str, load: Load, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    source = load(mamba() if damage == "other model" else tiny())
    source.eval(text(60), 1)
    source.save(path)
    if damage in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 2000 if damage == "cut" else 0])
    elif damage == "flipped":
        data = bytearray(path.read_bytes())
        data[3000] ^= 1
        path.write_bytes(data)
    elif damage == "missing":
        path.unlink()
    target = load(tiny(), ctx=32 if damage == "too long" else 1024)
    target.eval(text(5), 1)
    assert not target.restore(path)
    assert target.tokens == []
    fresh = load(tiny(), ctx=target.engine.config.n_ctx)
    assert np.array_equal(hold(target, text(9), 1).row(0), hold(fresh, text(9), 1).row(0))


def test_the_key_is_of_what_a_state_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig.of(tiny(), ctx=512, threads=1)
    key = state_key(config)
    assert state_key(replace(config.with_settings(ctx=1024, threads=2), n_outputs=4)) == key
    assert state_key(config.with_settings(kv_v="q8_0")) != key
    assert state_key(config.with_settings(flash_attn="off")) != key
    assert state_key(replace(config, model=mamba())) != key
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny().read_bytes())
    assert state_key(replace(config, model=copy)) == key, "the same bytes, wherever they lie"
    copy.write_bytes(tiny().read_bytes()[:-4] + b"else")
    assert state_key(replace(config, model=copy)) != key
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
    assert state_key(config) != key
