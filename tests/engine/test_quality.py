"""What a cache or weight type costs in quality: the measures, and how a reference is kept."""

from pathlib import Path

import numpy as np
import pytest
from command import tiny
from fakes import FakeEngine, FakeVocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.errors import UserError
from localspec.quality.divergence import (
    Divergence,
    divergence_of,
    log_softmax,
    reference_of,
    scores,
    shipped_text,
    windows_of,
)
from localspec.quality.reference import N_LIKELIEST, Reference, Rows

VOCABULARY = 6000


def rows_like(seed: int, n: int = 4, n_vocab: int = VOCABULARY) -> np.ndarray:
    """Logits with the long tail of a real model's."""
    random = np.random.default_rng(seed)
    return (4 * random.gumbel(size=(n, n_vocab)) - 3 * np.log(1 + np.arange(n_vocab))).astype("f4")


def exact_kld(p_rows: np.ndarray, q_rows: np.ndarray) -> np.ndarray:
    log_p, log_q = (log_softmax(rows).astype(float) for rows in (p_rows, q_rows))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_the_sampled_divergence_is_the_exact_one(seed: int, noise: float) -> None:
    """Else quality would be judged by what the reference happened to keep."""
    p = rows_like(seed)
    q = (p + noise * np.random.default_rng(seed + 1).normal(size=p.shape)).astype("f4")
    targets = np.zeros(len(p), np.int32)
    found = scores(Rows.of(log_softmax(p), targets), q, targets).kld
    assert found == pytest.approx(exact_kld(p, q), rel=0.05, abs=2e-3)


def test_nothing_diverges_from_itself() -> None:
    p, targets = rows_like(1), np.arange(4, dtype=np.int32)
    found = scores(Rows.of(log_softmax(p), targets), p, targets)
    assert found.kld == pytest.approx(0, abs=1e-3)
    assert found.same.all()
    assert found.nll == pytest.approx(-log_softmax(p)[np.arange(4), targets])


def test_a_small_vocabulary_is_kept_whole() -> None:
    p, q = rows_like(1, n_vocab=N_LIKELIEST), rows_like(2, n_vocab=N_LIKELIEST)
    targets = np.zeros(4, np.int32)
    found = scores(Rows.of(log_softmax(p), targets), q, targets).kld
    assert found == pytest.approx(exact_kld(p, q), rel=1e-3)


def test_a_reference_survives_the_disk(tmp_path: Path) -> None:
    targets = np.zeros(4, np.int32)
    reference = Reference([Rows.of(log_softmax(rows_like(i)), targets) for i in range(3)])
    path = tmp_path / "reference.npz"
    reference.save(path)
    again = Reference.load(path, 3)
    assert again is not None
    for mine, theirs in zip(reference.windows, again.windows, strict=True):
        for name in Rows.__slots__:
            assert (getattr(mine, name) == getattr(theirs, name)).all()
    assert Reference.load(path, 2) is None, "of another number of windows"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x00" * 500])
def test_a_damaged_reference_is_computed_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reference.npz"
    path.write_bytes(content)
    assert Reference.load(path, 1) is None
    assert Reference.load(tmp_path / "none.npz", 1) is None


def test_the_text_that_ships_is_prose_of_100_kb() -> None:
    text = shipped_text()
    assert 90_000 < len(text.encode()) < 110_000
    assert text.startswith("Query 1. Do not Bodies act upon Light")
    assert "Gutenberg" not in text


def test_windows_are_whole_and_a_short_text_is_refused() -> None:
    windows = windows_of(FakeVocabulary(8), "abcdefgh" * 10, n_ctx=32)
    assert windows.tokens.shape == (2, 32)
    assert windows.n_scored == 2 * 15
    with pytest.raises(UserError, match="give a longer --text"):
        windows_of(FakeVocabulary(8), "short", n_ctx=32)


def test_perplexity_is_that_of_the_true_tokens() -> None:
    """Against the fake's own table, position by position."""
    engine = FakeEngine(n_vocab=8, seed=3, n_ctx=64)
    engine.config = EngineConfig.of(Path("fake"), ctx=64, threads=1, n_outputs=7)
    windows = windows_of(engine.vocabulary, "the quick brown fox jumps over it" * 4, n_ctx=32)
    reference = reference_of(engine, engine.context(), windows)
    expected = [
        -log_softmax(engine.logits(window[: i + 1])[None])[0, window[i + 1]]
        for window in windows.tokens.tolist()
        for i in range(16, 31)
    ]
    assert reference.nll == pytest.approx(np.array(expected), rel=1e-4)
    same = divergence_of(engine, engine.context(), windows, reference)
    assert same.kld == pytest.approx(0, abs=1e-3)
    assert same.same_top == 1
    assert same.perplexity == pytest.approx(np.exp(np.mean(expected)), rel=1e-4)


def test_reading_ends_when_it_is_enough() -> None:
    engine = FakeEngine(n_vocab=8, seed=3, n_ctx=64)
    engine.config = EngineConfig.of(Path("fake"), ctx=64, threads=1, n_outputs=15)
    windows = windows_of(engine.vocabulary, "the quick brown fox jumps over it" * 4, n_ctx=32)
    reference = reference_of(engine, engine.context(), windows)
    context = engine.context()
    one = divergence_of(engine, context, windows, reference, is_enough=lambda found: True)
    assert (one.n_tokens, windows.n_windows) == (15, 4)


def test_a_coarser_cache_diverges_more() -> None:
    """On a real engine: nothing for f16, little for q8_0, more for q4_0."""

    def measured(kv: str, reference: Reference | None) -> tuple[Reference, Divergence]:
        engine = LlamaEngine(
            EngineConfig.of(tiny(), ctx=64, threads=1, n_outputs=20, kv_k=kv, kv_v=kv, gpu_layers=0)
        )
        try:
            context = engine.context()
            windows = windows_of(engine.vocabulary, shipped_text()[:700], n_ctx=64)
            reference = reference or reference_of(engine, context, windows)
            return reference, divergence_of(engine, context, windows, reference)
        finally:
            engine.close()

    reference, f16 = measured("f16", None)
    coarser = {kv: measured(kv, reference)[1].kld for kv in ("q8_0", "q4_0")}
    assert abs(f16.kld) < 1e-6
    assert f16.kld < coarser["q8_0"] < coarser["q4_0"]
