"""Models with MTP heads in which target and head agree by construction.

What attention, states and feed-forward layers add is zero, so the target's next token depends on
the last one alone: they follow each other as in `ORDER`, over and over. The head's projection
passes the token on and leaves the hidden state out, so it computes the same; `noise` on the
projection makes it guess wrong. A head lies in the model's file or in one of its own, as libllama
allows (src/models/qwen35.cpp, glm4-moe.cpp, hy-v3.cpp).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from babbling import byte_vocabulary
from hybrids import (
    N_EMBD,
    N_FF,
    N_KV_HEADS,
    N_VOCAB,
    QWEN_LAYERS,
    Metadata,
    Tensors,
    _attention,  # pyright: ignore[reportPrivateUsage]
    _feed_forward,  # pyright: ignore[reportPrivateUsage]
    _hybrid,  # pyright: ignore[reportPrivateUsage]
    _ones,  # pyright: ignore[reportPrivateUsage]
    _qwen35_metadata,  # pyright: ignore[reportPrivateUsage]
    _qwen35_tensors,  # pyright: ignore[reportPrivateUsage]
)

from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, write_gguf
from localspec.model.synthetic import RandomTensors

SILENT = ("attn_output", "ssm_out", "ffn_down")
Part = Literal["all", "target", "head"]
"""What a file has: the model with its head, or one of the two."""


@dataclass(frozen=True)
class Kind:
    """A model of an architecture: the tensors of its layers, and of the attention and feed-forward
    part of its head."""

    name: str
    n_layers: int
    metadata: Callable[[], Metadata]
    tensors: Callable[[RandomTensors], Tensors]
    head: Callable[[RandomTensors, str], Tensors]
    n_heads: int = 1
    norms: tuple[str, str] = ("attn_norm", "post_attention_norm")


def write_agreeing(
    path: Path,
    noise: float = 0.0,
    kind: str = "hybrid",
    part: Part = "all",
    n_vocab: int = N_VOCAB,
    ends: dict[str, TensorPlan] | None = None,
    order: Sequence[int] | None = None,
) -> Path:
    """Write a model whose head guesses right, the worse with more `noise`. `ends`: embeddings and
    the matrix for scores, where other ones are wanted; `order`: what follows what, in place of
    `ORDER`."""
    of, tensors = {**KINDS, "deep": DEEP}[kind], RandomTensors(BY_NAME["F16"], 0)
    metadata = of.metadata() | byte_vocabulary(n_vocab) | {f"{of.name}.vocab_size": n_vocab}
    ends = ends or dict(_ends(n_vocab, order or ORDER))
    every = [each for each in of.tensors(tensors) if each.name not in ends] + list(ends.values())
    if part == "head":
        every = [each for each in every if not each.name.startswith("blk.")]
    if part != "target":
        n_blocks = {f"{of.name}.block_count": of.n_layers + of.n_heads}
        metadata |= n_blocks | {f"{of.name}.nextn_predict_layers": of.n_heads}
        for i in range(of.n_heads):
            every += _head(of, tensors, f"blk.{of.n_layers + i}", noise)
    write_gguf(path, metadata, [_silent(each) for each in every])
    return path


EOS = int(byte_vocabulary(N_VOCAB)["tokenizer.ggml.eos_token_id"])  # pyright: ignore[reportArgumentType]
_SHUFFLED = np.random.default_rng(3).permutation(256).tolist()
N_BEFORE_END = 100
ORDER = [*_SHUFFLED[:N_BEFORE_END], EOS, *_SHUFFLED[N_BEFORE_END:]]
"""What follows what: each byte once, and the end token after 100 of them."""


def _ends(n_vocab: int, order: Sequence[int]) -> Iterator[tuple[str, TensorPlan]]:
    """Embeddings, and a matrix for scores whose row of a token is the embedding of the one before:
    that fits best."""
    embeddings = np.random.default_rng(7).standard_normal((n_vocab, N_EMBD)) * 0.1
    scores = np.zeros_like(embeddings)
    for token, following in zip(order, [*order[1:], order[0]], strict=True):
        scores[following] = embeddings[token]
    for name, rows in (("token_embd.weight", embeddings), ("output.weight", scores)):
        data = rows.astype(np.float16).tobytes()
        yield name, TensorPlan(name, BY_NAME["F16"], (N_EMBD, n_vocab), lambda data=data: (data,))


def _silent(plan: TensorPlan) -> TensorPlan:
    """The same with zeros, where it would add what other tokens say."""
    if not any(name in plan.name for name in SILENT):
        return plan
    return TensorPlan(plan.name, plan.type, plan.shape, lambda: (bytes(plan.n_bytes),))


def _head(kind: Kind, tensors: RandomTensors, block: str, noise: float) -> Tensors:
    for name in (*kind.norms, "nextn.enorm", "nextn.hnorm"):
        yield _ones(tensors, f"{block}.{name}", N_EMBD)
    yield _ones(tensors, f"{block}.nextn.shared_head_norm", N_EMBD)
    yield from kind.head(tensors, block)
    projection = np.eye(N_EMBD, 2 * N_EMBD)
    projection += noise * np.random.default_rng(5).standard_normal(projection.shape)
    data = projection.astype(np.float16).tobytes()
    shape = (2 * N_EMBD, N_EMBD)
    yield TensorPlan(f"{block}.nextn.eh_proj.weight", BY_NAME["F16"], shape, lambda: (data,))


def _qwen_head(tensors: RandomTensors, block: str) -> Tensors:
    yield from _attention(tensors, block, gated=True)
    yield from _feed_forward(tensors, block)


GLM_LAYERS, N_EXPERTS, N_USED = 3, 4, 2
"""Attention alone; the first layer is dense, the others and the head have experts."""


def _glm_metadata() -> Metadata:
    keys: Metadata = {
        "attention.head_count_kv": N_KV_HEADS,
        "feed_forward_length": N_FF,
        "expert_feed_forward_length": N_FF // 2,
        "expert_count": N_EXPERTS,
        "expert_used_count": N_USED,
        "expert_shared_count": 1,
        "leading_dense_block_count": 1,
    }
    return _hybrid("glm4moe", GLM_LAYERS) | {f"glm4moe.{key}": v for key, v in keys.items()}


def _glm_tensors(tensors: RandomTensors) -> Tensors:
    yield tensors.matrix("token_embd.weight", N_EMBD, N_VOCAB)
    yield _ones(tensors, "output_norm", N_EMBD)
    for i in range(GLM_LAYERS):
        block = f"blk.{i}"
        yield _ones(tensors, f"{block}.attn_norm", N_EMBD)
        yield _ones(tensors, f"{block}.post_attention_norm", N_EMBD)
        if i == 0:
            yield from _attention(tensors, block, gated=False)
            yield from _feed_forward(tensors, block)
        else:
            yield from _glm_block(tensors, block)


def _glm_block(tensors: RandomTensors, block: str) -> Tensors:
    yield from _attention(tensors, block, gated=False)
    yield tensors.floats(f"{block}.ffn_gate_inp.weight", N_EMBD, N_EXPERTS)
    yield tensors.vector(f"{block}.exp_probs_b.bias", np.zeros(N_EXPERTS))
    for name, size in (("gate", (N_EMBD, N_FF // 2)), ("up", (N_EMBD, N_FF // 2))):
        yield tensors.matrix(f"{block}.ffn_{name}_exps.weight", *size, N_EXPERTS)
        yield tensors.matrix(f"{block}.ffn_{name}_shexp.weight", *size)
    yield tensors.matrix(f"{block}.ffn_down_exps.weight", N_FF // 2, N_EMBD, N_EXPERTS)
    yield tensors.matrix(f"{block}.ffn_down_shexp.weight", N_FF // 2, N_EMBD)


HY_LAYERS, DEEP_LAYERS, DEEP_FF = 2, 240, 32
"""Attention alone, and dense layers."""


def _hy_metadata(n_layers: int = HY_LAYERS, n_ff: int = N_FF) -> Metadata:
    keys: Metadata = {
        "attention.head_count_kv": N_KV_HEADS,
        "feed_forward_length": n_ff,
        "expert_feed_forward_length": n_ff,
    }
    return _hybrid("hy_v3", n_layers) | {f"hy_v3.{key}": v for key, v in keys.items()}


def _hy_tensors(tensors: RandomTensors, n_layers: int = HY_LAYERS, n_ff: int = N_FF) -> Tensors:
    yield tensors.matrix("token_embd.weight", N_EMBD, N_VOCAB)
    yield _ones(tensors, "output_norm", N_EMBD)
    for i in range(n_layers):
        yield _ones(tensors, f"blk.{i}.attn_norm", N_EMBD)
        yield _ones(tensors, f"blk.{i}.ffn_norm", N_EMBD)
        yield from _hy_block(tensors, f"blk.{i}", n_ff)


def _hy_block(tensors: RandomTensors, block: str, n_ff: int = N_FF) -> Tensors:
    yield from _attention(tensors, block, gated=False)
    yield from _feed_forward(tensors, block, n_ff=n_ff)


HY_NORMS = ("attn_norm", "ffn_norm")
KINDS = {
    "hybrid": Kind("qwen35", QWEN_LAYERS, _qwen35_metadata, _qwen35_tensors, _qwen_head),
    "experts": Kind("glm4moe", GLM_LAYERS, _glm_metadata, _glm_tensors, _glm_block),
    "dense": Kind("hy_v3", HY_LAYERS, _hy_metadata, _hy_tensors, _hy_block, 1, HY_NORMS),
    "several heads": Kind("hy_v3", HY_LAYERS, _hy_metadata, _hy_tensors, _hy_block, 3, HY_NORMS),
}
DEEP = Kind(
    "hy_v3", DEEP_LAYERS, partial(_hy_metadata, DEEP_LAYERS, DEEP_FF),
    partial(_hy_tensors, n_layers=DEEP_LAYERS, n_ff=DEEP_FF), partial(_hy_block, n_ff=DEEP_FF), 1,
    HY_NORMS,
)  # fmt: skip
"""A pass is so many small steps that further rows and a head take hardly longer."""
