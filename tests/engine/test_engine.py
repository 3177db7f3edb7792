"""libllama behind the seam, on real and small random models: a cache holds what it says."""

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hybrids import MambaShape, write_random_mamba
from models import gemma, smollm2

from localspec.engine.base import EngineConfig, hold, rows_of
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama import parameters
from localspec.engine.llama.binding import engine_log
from localspec.engine.llama.engine import LlamaEngine
from localspec.errors import EngineError, ModelError
from localspec.model.synthetic import Shape, write_random_model

Load = Callable[..., LlamaEngine]
ROUNDING = 0.1
"""Between batches of different widths, AMX's bf16 included; rows of other positions are further
apart by more than 1."""


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "random.gguf"
    write_random_model(path, Shape(), "F16")
    return path


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "mamba.gguf"
    write_random_mamba(path, MambaShape(), "F16")
    return path


@pytest.fixture
def load() -> Iterator[Load]:
    engines: list[LlamaEngine] = []

    def load(model: Path, **settings: object) -> LlamaEngine:
        # One thread: two that wait for each other crawl when a machine is busy.
        chosen: Any = {"ctx": 1024, "threads": 1, "n_outputs": 8, **settings}
        config = EngineConfig.of(model, **chosen)
        engines.append(LlamaEngine(config))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def rows(engine: LlamaEngine, tokens: list[int], cuts: list[int]) -> np.ndarray:
    """Logits after the last token, evaluated in pieces that end at `cuts`."""
    context = engine.context()
    for start, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        logits = context.eval(tokens[start:end], 1)
    return logits.row(0).copy()


def test_one_batch_and_single_tokens_agree(load: Load, random_model: Path) -> None:
    """Prefill, decode and verification are one call; if they differed, drafts would matter."""
    tokens = [3, 14, 15, 92, 65, 35, 89, 79]
    engine = load(random_model, n_sequences=2)
    one_by_one = rows(engine, tokens, list(range(1, len(tokens))))
    assert rows(engine, tokens, [4]) == pytest.approx(one_by_one, abs=ROUNDING)


def test_every_row_of_a_verification_is_the_row_of_its_position(
    load: Load, random_model: Path
) -> None:
    engine = load(random_model, n_sequences=2)
    tokens = [3, 14, 15, 92, 65]
    context, single = engine.context(), engine.context()
    batch = context.eval(tokens, len(tokens))
    together = [batch.row(i).copy() for i in range(len(tokens))]
    for token, row in zip(tokens, together, strict=True):
        assert single.eval([token], 1).row(0) == pytest.approx(row, abs=ROUNDING)


def test_sequences_of_one_decode_do_not_mix(load: Load, random_model: Path) -> None:
    """A batching server decodes many users at once; one must not see another's text."""
    engine = load(random_model, n_sequences=3, ctx=256)
    texts = [[1, 2, 3, 4], [9, 8, 7], [5]]
    contexts = [engine.context() for _ in texts]
    requests = [(context, text, 1) for context, text in zip(contexts, texts, strict=True)]
    together = [rows_of(result).row(0).copy() for result in engine.decode(requests)]
    alone = load(random_model, ctx=256)
    context = alone.context()
    for text, row in zip(texts, together, strict=True):
        assert hold(context, text, 1).row(0) == pytest.approx(row, abs=ROUNDING)
    assert [list(c.tokens) for c in contexts] == texts
    with pytest.raises(EngineError, match="3 sequences"):
        engine.context()


@pytest.mark.parametrize("n_prompt", [1, 2, 511, 512, 513, 700, 1020])
@pytest.mark.parametrize("n_logits", [0, 1, 8])
def test_prompts_longer_than_a_micro_batch_keep_their_wanted_rows(
    load: Load, random_model: Path, n_prompt: int, n_logits: int
) -> None:
    """The rows asked for must come from the last call, wherever the prompt is cut."""
    n_logits = min(n_logits, n_prompt)
    tokens = [(7 * i) % 500 for i in range(n_prompt)]
    context = load(random_model).context()
    logits = context.eval(tokens, n_logits)
    assert list(context.tokens) == tokens
    if n_logits:
        expected = logits.row(n_logits - 1).copy()
        assert hold(context, tokens, 1).row(0) == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize(("n_sequences", "n_each"), [(3, 40), (4, 16), (33, 2)])
def test_rows_of_many_sequences_may_be_more_than_a_micro_batch(
    load: Load, random_model: Path, n_sequences: int, n_each: int
) -> None:
    n_all = n_sequences * n_each
    engine = load(random_model, n_outputs=n_all, n_sequences=n_sequences, ubatch=64, ctx=64)
    contexts = [engine.context() for _ in range(n_sequences)]
    texts = [[(7 * i + k) % 500 for k in range(n_each)] for i in range(n_sequences)]
    asked = zip(contexts, texts, strict=True)
    results = engine.decode([(context, text, n_each) for context, text in asked])
    found = [np.array([rows_of(result).row(i) for i in range(n_each)]) for result in results]
    for i in (0, n_sequences // 2, n_sequences - 1):
        contexts[i].clear()
        alone = contexts[i].eval(texts[i], n_each)
        own = np.array([alone.row(k) for k in range(n_each)])
        assert np.allclose(found[i], own, atol=ROUNDING)


def test_hold_evaluates_only_what_is_not_shared(load: Load, random_model: Path) -> None:
    """Chat turns, draft catch-up and prompt reuse all rest on this."""
    engine = load(random_model)
    context = engine.context()
    hold(context, [1, 2, 3, 4, 5], 1)
    expected = rows(load(random_model), [1, 2, 3, 9, 9], [])
    n_before = engine.n_decodes
    logits = hold(context, [1, 2, 3, 9, 9], 1)
    assert engine.n_decodes == n_before + 1
    assert logits.row(0) == pytest.approx(expected, abs=ROUNDING)
    assert list(context.tokens) == [1, 2, 3, 9, 9]


def test_logits_die_at_the_next_decode(load: Load, random_model: Path) -> None:
    """They are views of the engine's buffer: reading old ones would read the new ones."""
    context = load(random_model).context()
    logits = context.eval([1, 2], 1)
    context.eval([3], 1)
    with pytest.raises(AssertionError, match="died"):
        logits.row(0)


def test_a_sequence_does_not_outgrow_its_limit(load: Load, random_model: Path) -> None:
    context = load(random_model, ctx=300).context()
    context.eval([1] * 299, 1)
    with pytest.raises(EngineError, match="301 tokens do not fit into a context of 300"):
        context.eval([1, 2], 2)
    context.eval([1], 1)
    assert len(context.tokens) == 300


@pytest.mark.parametrize("kept", [100, 200, 500, 890, 899])
def test_a_windowed_cache_rolls_back_to_the_truth(load: Load, kept: int) -> None:
    """A windowed cache forgets; libllama's rollback behind that succeeds, and answers garbage."""
    engine = load(gemma(), ubatch=128)
    text = " ".join(f"On day {i} the keeper saw {i * 7 % 13} ships." for i in range(99))
    tokens = engine.vocabulary.tokenize(text, add_special=True)[:900]
    assert engine.n_window == 512
    context = engine.context()
    context.eval(tokens, 0)
    context.truncate(kept)
    assert list(context.tokens) == tokens[:kept]
    rolled_back = context.eval([5], 1).row(0).copy()
    context.clear()
    context.eval(tokens[:kept], 0)
    fresh = context.eval([5], 1).row(0)
    # Rounding leaves a correlation of 0.9996, a cache with a hole in it 0.991 or less.
    assert np.corrcoef(rolled_back, fresh)[0, 1] > 0.998


def test_a_recurrent_model_cannot_roll_back_and_says_so(load: Load, mamba: Path) -> None:
    """Speculation must be off here; a `truncate` still leaves exactly the tokens that it says."""
    engine = load(mamba)
    assert engine.rollback_limit == 0
    context = engine.context()
    context.eval([5, 6, 7, 8, 9], 1)
    context.truncate(3)
    assert list(context.tokens) == [5, 6, 7]
    truncated = context.eval([1], 1).row(0).copy()
    context.clear()
    assert context.eval([5, 6, 7, 1], 1).row(0) == pytest.approx(truncated, abs=ROUNDING)


@pytest.mark.parametrize(
    "types", [("q8_0", "f16"), ("f16", "q8_0"), ("bf16", "bf16"), ("q4_0", "q4_0")]
)
def test_k_and_v_types_are_set_apart(
    load: Load, types: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_log, "echo", StringIO())
    engine = load(smollm2(), kv_k=types[0], kv_v=types[1])
    engine.context().eval([1, 2, 3], 1)
    log = engine_log.echo.getvalue()
    assert f"K ({types[0]})" in log
    assert f"V ({types[1]})" in log


@pytest.mark.parametrize("where", ["main thread", "another thread"])
def test_a_stop_in_a_long_prefill_is_quick_and_leaves_the_context_usable(
    load: Load, where: str
) -> None:
    """Ctrl-C in a long prompt: at once, and the next question gets the right answer."""
    engine = load(smollm2(), ctx=8192)
    tokens = [(31 * i) % 40000 + 20 for i in range(8000)]
    context = engine.context()
    expected = hold(context, tokens[:20], 1).row(0).copy()
    stop = engine.interrupt.request if where == "another thread" else _sigint
    stopped_at: list[float] = []

    def stop_soon() -> None:
        time.sleep(0.5)
        stopped_at.append(time.perf_counter())
        stop()

    thread = threading.Thread(target=stop_soon)
    with engine.interrupt:
        thread.start()
        with pytest.raises(Interrupted):
            hold(context, tokens, 1)
        took = time.perf_counter() - stopped_at[0]
    thread.join()
    assert took < 0.5
    assert list(context.tokens) == tokens[: len(context.tokens)]
    assert hold(context, tokens[:20], 1).row(0) == pytest.approx(expected, abs=0.5)


def _sigint() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_raises() -> None:
    """Whatever hangs, a user who insists gets out."""
    with Interrupt() as interrupt:
        _sigint()
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            _sigint()


def test_loading_can_be_stopped(random_model: Path) -> None:
    interrupt = Interrupt()
    interrupt.request()
    with pytest.raises(Interrupted):
        LlamaEngine(EngineConfig.of(random_model, ctx=256, threads=1), interrupt)


def test_progress_runs_from_0_to_1(random_model: Path) -> None:
    seen: list[float] = []
    LlamaEngine(EngineConfig.of(random_model, ctx=256, threads=1), None, seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_file_that_the_engine_refuses_gives_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match=r"bad\.gguf does not load: ."):
        LlamaEngine(EngineConfig.of(path, ctx=256, threads=1))


def test_the_engine_is_quiet(
    load: Load,
    random_model: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its hundred lines of log do not belong between a user's words, but who asks gets them."""
    load(random_model).context().eval([1, 2], 1)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(engine_log, "echo", StringIO())
    load(random_model)
    assert "llama_kv_cache" in engine_log.echo.getvalue()


def test_everything_is_freed(random_model: Path) -> None:
    """A sweep loads hundreds of times."""

    def load_and_close() -> int:
        LlamaEngine(EngineConfig.of(random_model, ctx=4096, threads=1)).close()
        return psutil.Process().memory_info().rss

    first = [load_and_close() for _ in range(5)][-1]
    last = [load_and_close() for _ in range(20)][-1]
    assert last - first < 10e6


def test_a_configuration_can_be_sent_to_another_process() -> None:
    config = EngineConfig.of(Path("m.gguf"), ctx=64, threads=1)
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        ({"gpu_layers": 10}, True),
        ({"gpu_layers": 10, "repack": False}, False),
        ({"gpu_layers": -1}, False),
        ({"gpu_layers": 0}, False),
    ],
)
def test_layers_beside_a_gpu_keep_repacked_weights(
    settings: dict[str, Any], keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not go to the GPU's host memory, which no repacked kernel reads."""
    asked: list[Any] = []
    monkeypatch.setattr(
        parameters.C, "llama_model_load_from_file", lambda _, params: asked.append(params)
    )
    with pytest.raises(ModelError):
        parameters.load_model(EngineConfig.of(smollm2(), **settings), Interrupt(), None)
    assert {bool(each.no_host) for each in asked} == {keeps}
