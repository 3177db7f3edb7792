"""Heads that lie beside a target: Gemma 4's assistants, EAGLE-3, DFlash and DSpark.

A Gemma 4 target and its assistant agree by construction (see `heads.py`): the assistant's
projection takes the first half of a token's embedding, the rest of which is zero. Its tied matrix
makes each token follow itself. EAGLE-3 and DFlash heads have random weights. Tensors:
src/models/gemma4.cpp, gemma4-assistant.cpp, eagle3.cpp and dflash.cpp of llama.cpp.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from babbling import byte_vocabulary
from hybrids import N_CTX, N_FF, N_VOCAB, Metadata, Tensors

from localspec.gguf.cursor import Value, ValueType
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, array_of, write_gguf
from localspec.model.synthetic import NORM_EPSILON, RandomTensors, Shape

N_TARGET, N_OWN = 128, 64
HEADS, KV_HEADS, SIZE, WINDOW_SIZE, WINDOW = 2, 1, 64, 32, 64
TARGET_PATTERN, OWN_PATTERN = (1, 1, 1, 1, 1, 0), (1, 1, 1, 0)
"""1: a layer with a sliding window."""
SMALL = Shape(n_layers=4, n_embd=128, n_heads=4, n_kv_heads=2, n_ff=256, n_vocab=N_VOCAB)
TAPS = (1, 2, 3)


def given(name: str, rows: np.ndarray, kind: str = "F16") -> TensorPlan:
    """These numbers, shape (n_rows, n_columns)."""
    data = rows.astype({"F16": np.float16, "F32": np.float32, "I64": np.int64}[kind]).tobytes()
    return TensorPlan(name, BY_NAME[kind], rows.shape[::-1], lambda: (data,))


def _ones(names: Iterable[str], n: int) -> Tensors:
    for name in names:
        yield given(f"{name}.weight", np.ones(n), "F32")


def _keys(name: str, n_layers: int, n_embd: int, n_vocab: int = N_VOCAB, **more: Value) -> Metadata:
    keys: Metadata = {
        "block_count": n_layers,
        "context_length": N_CTX,
        "embedding_length": n_embd,
        "feed_forward_length": N_FF,
        "attention.layer_norm_rms_epsilon": NORM_EPSILON,
        "vocab_size": n_vocab,
    }
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    whole: Metadata = {f"{name}.{key}": value for key, value in keys.items()}
    return {"general.architecture": name, "general.name": f"random {name}"} | whole


def _gemma_keys(
    name: str, pattern: tuple[int, ...], n_embd: int, n_vocab: int, **more: Value
) -> Metadata:
    return byte_vocabulary(n_vocab) | _keys(
        name, len(pattern), n_embd, n_vocab, attention__head_count=HEADS,
        attention__head_count_kv=KV_HEADS, attention__key_length=SIZE,
        attention__value_length=SIZE, attention__key_length_swa=WINDOW_SIZE,
        attention__value_length_swa=WINDOW_SIZE, rope__dimension_count=SIZE,
        rope__dimension_count_swa=WINDOW_SIZE, rope__freq_base=1e6, rope__freq_base_swa=1e4,
        attention__sliding_window=WINDOW,
        attention__sliding_window_pattern=array_of(ValueType.BOOL, pattern), **more,
    )  # fmt: skip


def _half_embeddings(n_vocab: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((n_vocab, N_OWN)) * 0.1


def write_gemma4(path: Path, *, is_silent: bool = True, n_vocab: int = N_VOCAB) -> Path:
    """The target; not `is_silent`: attention has its say, so that nothing agrees any more."""
    metadata = _gemma_keys(
        "gemma4", TARGET_PATTERN, N_TARGET, n_vocab, attention__shared_kv_layers=0,
        embedding_length_per_layer_input=0, final_logit_softcapping=30.0,
    )  # fmt: skip
    rows = np.concatenate(
        [_half_embeddings(n_vocab), np.zeros((n_vocab, N_TARGET - N_OWN))], axis=1
    )
    tensors = [given("token_embd.weight", rows), *_gemma_layers(TARGET_PATTERN, N_TARGET, False)]
    return _write(path, metadata, tensors, is_silent=is_silent)


def write_assistant(path: Path, noise: float = 0.0, n_vocab: int = N_VOCAB) -> Path:
    """Its head, which guesses the worse with more `noise`."""
    n = len(OWN_PATTERN)
    metadata = _gemma_keys(
        "gemma4-assistant", OWN_PATTERN, N_OWN, n_vocab, nextn_predict_layers=n,
        embedding_length_out=N_TARGET, attention__shared_kv_layers=n,
    )  # fmt: skip
    projection = np.eye(N_OWN, 2 * N_TARGET)
    projection += noise * np.random.default_rng(5).standard_normal(projection.shape)
    back = np.random.default_rng(6).standard_normal((N_TARGET, N_OWN)) * 0.1
    tensors = [
        given("token_embd.weight", _half_embeddings(n_vocab)),
        given("nextn.pre_projection.weight", projection),
        given("nextn.post_projection.weight", back),
        *_gemma_layers(OWN_PATTERN, N_OWN, True),
    ]
    return _write(path, metadata, tensors)


def _gemma_layers(pattern: tuple[int, ...], n_embd: int, reads_target: bool) -> Tensors:
    random = RandomTensors(BY_NAME["F16"], 0)
    yield from _ones(["output_norm"], n_embd)
    yield from _ones(["rope_freqs"], SIZE // 2)
    for i, is_windowed in enumerate(pattern):
        block, size = f"blk.{i}", WINDOW_SIZE if is_windowed else SIZE
        norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        yield from _ones([f"{block}.{name}" for name in norms], n_embd)
        yield from _ones([f"{block}.layer_output_scale"], 1)
        yield from _ones([f"{block}.attn_q_norm"], size)
        yield random.matrix(f"{block}.attn_q.weight", n_embd, HEADS * size)
        yield random.matrix(f"{block}.attn_output.weight", HEADS * size, n_embd)
        if not reads_target:
            yield from _ones([f"{block}.attn_k_norm"], size)
            yield random.matrix(f"{block}.attn_k.weight", n_embd, KV_HEADS * size)
            yield random.matrix(f"{block}.attn_v.weight", n_embd, KV_HEADS * size)
        yield from _feed_forward(random, block, n_embd)


def _feed_forward(random: RandomTensors, block: str, n_embd: int) -> Tensors:
    yield random.matrix(f"{block}.ffn_gate.weight", n_embd, N_FF)
    yield random.matrix(f"{block}.ffn_up.weight", n_embd, N_FF)
    yield random.matrix(f"{block}.ffn_down.weight", N_FF, n_embd)


def _write(
    path: Path, metadata: Metadata, tensors: list[TensorPlan], *, is_silent: bool = True
) -> Path:
    silent = ("attn_output", "ffn_down", "markov_w2") if is_silent else ()
    empty = [
        TensorPlan(t.name, t.type, t.shape, lambda t=t: (bytes(t.n_bytes),))
        if any(name in t.name for name in silent)
        else t
        for t in tensors
    ]
    write_gguf(path, metadata, empty)
    return path


def _attention(random: RandomTensors, block: str, n_in: int, shape: Shape) -> Tensors:
    n_q, n_kv = shape.n_heads * shape.head_size, shape.n_kv_heads * shape.head_size
    yield random.matrix(f"{block}.attn_q.weight", n_in, n_q)
    yield random.matrix(f"{block}.attn_k.weight", n_in, n_kv)
    yield random.matrix(f"{block}.attn_v.weight", n_in, n_kv)
    yield random.matrix(f"{block}.attn_output.weight", n_q, shape.n_embd)


def _small_keys(name: str, n_layers: int, shape: Shape, **more: Value) -> Metadata:
    return _keys(
        name, n_layers, shape.n_embd, shape.n_vocab, attention__head_count=shape.n_heads,
        attention__head_count_kv=shape.n_kv_heads, attention__key_length=shape.head_size,
        attention__value_length=shape.head_size, rope__dimension_count=shape.head_size,
        rope__freq_base=10_000.0, target_layers=array_of(ValueType.INT32, TAPS), **more,
    )  # fmt: skip


def write_eagle3(
    path: Path,
    shape: Shape = SMALL,
    n_own_vocab: int | None = None,
    vocabulary: Metadata | None = None,
    norm_before: Literal["residual", "fc"] | None = None,
    weights: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Path:
    """A head for a llama model of that shape and vocabulary; `n_own_vocab`: it knows so few of its
    tokens; `norm_before`: of the two variants with a norm there; `weights`: some that are not
    random."""
    random, n, block = RandomTensors(BY_NAME["F16"], 1), shape.n_embd, "blk.0"
    metadata = _small_keys("eagle3", 1, shape, target_hidden_size=n)
    if norm_before:
        metadata[f"eagle3.norm_before_{norm_before}"] = True
    metadata |= vocabulary or byte_vocabulary(shape.n_vocab)
    tensors = [
        random.matrix("fc.weight", len(TAPS) * n, n),
        *_ones(["output_norm", f"{block}.attn_norm", f"{block}.attn_norm_2"], n),
        *_ones([f"{block}.ffn_norm"], n),
        *_attention(random, block, 2 * n, shape),
        *_feed_forward(random, block, n),
    ]
    if norm_before == "fc":
        weights = np.random.default_rng(4).uniform(0.5, 2, len(TAPS) * n)
        tensors += [given("enc.output_norm.weight", weights, "F32")]
    if n_own_vocab:
        known = np.sort(np.random.default_rng(0).choice(shape.n_vocab, n_own_vocab, replace=False))
        tensors += [random.matrix("output.weight", n, n_own_vocab)]
        tensors += [given("d2t", known, "I64")]
    tensors = [given(t.name, weights[t.name]) if t.name in weights else t for t in tensors]
    return _write(path, metadata, tensors, is_silent=False)


N_BLOCK, N_MARKOV, MASK = 6, 32, 265


def write_dflash(
    path: Path,
    shape: Shape = SMALL,
    vocabulary: Metadata | None = None,
    *,
    is_dspark: bool = False,
    mask: int = MASK,
    is_silent: bool = False,
) -> Path:
    """A head of two layers that fills blocks of `N_BLOCK` tokens. `is_silent`: it says of each
    token what the target's matrix says of its embedding."""
    random, n = RandomTensors(BY_NAME["F16"], 2), shape.n_embd
    metadata = _small_keys("dflash", 2, shape, block_size=N_BLOCK)
    metadata |= vocabulary or byte_vocabulary(shape.n_vocab)
    metadata["tokenizer.ggml.mask_token_id"] = mask
    tensors = [random.matrix("fc.weight", len(TAPS) * n, n)]
    tensors += _ones(["enc.output_norm", "output_norm"], n)
    for i in range(2):
        block = f"blk.{i}"
        tensors += _ones([f"{block}.attn_norm", f"{block}.ffn_norm"], n)
        tensors += _ones([f"{block}.attn_q_norm", f"{block}.attn_k_norm"], shape.head_size)
        tensors += [*_attention(random, block, n, shape), *_feed_forward(random, block, n)]
    if is_dspark:
        tensors += [random.matrix("markov_w1.weight", N_MARKOV, shape.n_vocab)]
        tensors += [random.matrix("markov_w2.weight", N_MARKOV, shape.n_vocab)]
        tensors += [random.floats("conf_proj.weight", n + N_MARKOV, 1)]
        tensors += [given("conf_proj.bias", np.zeros(1), "F32")]
    return _write(path, metadata, tensors, is_silent=is_silent)
