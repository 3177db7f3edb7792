"""GGUF models with random weights: they answer nonsense, at the speed of real ones of their shape.

A pass takes what the shape and the types ask for, whatever the values: two of these models of
different depth measure a machine (slope and intercept), one of each type tests an engine build, and
a tiny one stands in for a model in tests. Weights have a spread of 1 / sqrt(row length), so that
activations keep their size and logits are of order 1. The output matrix is the embedding table, so
one token streams every byte of the file. Tensor names and keys: src/llama-arch.cpp and
src/models/{llama,mamba}.cpp of llama.cpp.

Vocabularies are the smallest that libllama accepts: ids without text, or a byte-level BPE (GPT-2's)
of the 256 bytes and a few pairs, so that any text can go in and come out.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from localspec.gguf.cursor import Value, ValueType
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, array_of, write_gguf
from localspec.model.random_weights import RandomTensors

BOS, EOS = "<|begin|>", "<|end_of_text|>"
_MERGES = ("Ġ t", "h e", "i n", "Ġ a", "e r", "o n")
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5  # of enum llama_token_type


def no_vocabulary() -> dict[str, Value]:
    """Metadata of a model that knows token ids only."""
    return {"tokenizer.ggml.model": "no_vocab"}


def byte_vocabulary(n_vocab: int) -> dict[str, Value]:
    """Metadata of a tokenizer with `n_vocab` tokens; those beyond the first 264 are never used."""
    pairs = [merge.replace(" ", "") for merge in _MERGES]
    tokens = [*_byte_letters(), *pairs, BOS, EOS]
    n_used = len(tokens)
    assert n_vocab >= n_used, f"{n_vocab} tokens are fewer than the {n_used} that are needed"
    kinds = [_NORMAL] * (n_used - 2) + [_CONTROL] * 2 + [_UNUSED] * (n_vocab - n_used)
    tokens += [f"[UNUSED_{i}]" for i in range(n_used, n_vocab)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": array_of(ValueType.STRING, tokens),
        "tokenizer.ggml.token_type": array_of(ValueType.INT32, kinds),
        "tokenizer.ggml.merges": array_of(ValueType.STRING, _MERGES),
        "tokenizer.ggml.bos_token_id": n_used - 2,
        "tokenizer.ggml.eos_token_id": n_used - 1,
        "tokenizer.ggml.add_bos_token": True,
    }


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: printable Latin-1 is itself, the rest follows from U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a llama model; `n_embd` and `n_ff` are multiples of the weight type's block.

    With experts every layer has `n_experts` of `n_ff`, and a token uses `n_experts_used` of them.
    `own_head_size`: of one head, where that is not `n_embd / n_heads`.
    """

    n_layers: int = 2
    n_embd: int = 256
    n_heads: int = 4
    n_kv_heads: int = 2
    n_ff: int = 512
    n_vocab: int = 512
    n_ctx: int = 2048
    n_experts: int = 0
    n_experts_used: int = 0
    own_head_size: int | None = None

    @property
    def head_size(self) -> int:
        return self.own_head_size or self.n_embd // self.n_heads


@dataclass(frozen=True, slots=True)
class MambaShape:
    """The size of a Mamba model; its inner size is twice `n_embd`, as libllama wants it."""

    n_layers: int = 2
    n_embd: int = 128
    n_state: int = 16
    n_conv: int = 4
    n_vocab: int = 512
    n_ctx: int = 2048

    @property
    def n_inner(self) -> int:
        return 2 * self.n_embd

    @property
    def dt_rank(self) -> int:
        return -(-self.n_embd // 16)


def write_random_model(
    path: str | os.PathLike[str],
    shape: Shape,
    weight_type: str = "F16",
    seed: int = 0,
    with_text: bool = False,
) -> None:
    """Write a llama model of `shape`; with text it has a byte tokenizer, else only token ids."""
    tokenizer = byte_vocabulary(shape.n_vocab) if with_text else no_vocabulary()
    tensors = _llama_tensors(shape, RandomTensors(BY_NAME[weight_type], seed))
    write_gguf(path, _llama_metadata(shape) | tokenizer, list(tensors))


def write_random_mamba(
    path: str | os.PathLike[str], shape: MambaShape, weight_type: str = "F16", seed: int = 0
) -> None:
    """Write a Mamba model with a byte tokenizer: recurrent, so its state cannot be rolled back."""
    tensors = _mamba_tensors(shape, RandomTensors(BY_NAME[weight_type], seed))
    write_gguf(path, _mamba_metadata(shape) | byte_vocabulary(shape.n_vocab), list(tensors))


def _llama_metadata(shape: Shape) -> dict[str, Value]:
    experts: dict[str, Value] = {
        "llama.expert_count": shape.n_experts,
        "llama.expert_used_count": shape.n_experts_used,
    }
    return (experts if shape.n_experts else {}) | {
        "general.architecture": "llama",
        "general.name": "random llama",
        "llama.block_count": shape.n_layers,
        "llama.context_length": shape.n_ctx,
        "llama.embedding_length": shape.n_embd,
        "llama.feed_forward_length": shape.n_ff,
        "llama.attention.head_count": shape.n_heads,
        "llama.attention.head_count_kv": shape.n_kv_heads,
        "llama.attention.key_length": shape.head_size,
        "llama.attention.value_length": shape.head_size,
        "llama.attention.layer_norm_rms_epsilon": NORM_EPSILON,
        "llama.rope.dimension_count": shape.head_size,
        "llama.vocab_size": shape.n_vocab,
    }


def _llama_tensors(shape: Shape, tensors: RandomTensors) -> Iterable[TensorPlan]:
    n_embd, n_kv = shape.n_embd, shape.n_kv_heads * shape.head_size
    n_q = shape.n_heads * shape.head_size
    yield tensors.matrix("token_embd.weight", n_embd, shape.n_vocab)
    yield tensors.vector("output_norm.weight", np.ones(n_embd))
    for i in range(shape.n_layers):
        yield tensors.vector(f"blk.{i}.attn_norm.weight", np.ones(n_embd))
        yield tensors.matrix(f"blk.{i}.attn_q.weight", n_embd, n_q)
        yield tensors.matrix(f"blk.{i}.attn_k.weight", n_embd, n_kv)
        yield tensors.matrix(f"blk.{i}.attn_v.weight", n_embd, n_kv)
        yield tensors.matrix(f"blk.{i}.attn_output.weight", n_q, n_embd)
        yield tensors.vector(f"blk.{i}.ffn_norm.weight", np.ones(n_embd))
        yield from _feed_forward(shape, tensors, f"blk.{i}.ffn_")


def _feed_forward(shape: Shape, tensors: RandomTensors, start: str) -> Iterable[TensorPlan]:
    n_embd, n_ff, n = shape.n_embd, shape.n_ff, shape.n_experts
    sizes = {"gate": (n_embd, n_ff), "up": (n_embd, n_ff), "down": (n_ff, n_embd)}
    if n:
        yield tensors.floats(f"{start}gate_inp.weight", n_embd, n)
    for name, size in sizes.items():
        if n:
            yield tensors.matrices(f"{start}{name}_exps.weight", *size, n)
        else:
            yield tensors.matrix(f"{start}{name}.weight", *size)


def _mamba_metadata(shape: MambaShape) -> dict[str, Value]:
    return {
        "general.architecture": "mamba",
        "general.name": "random mamba",
        "mamba.block_count": shape.n_layers,
        "mamba.context_length": shape.n_ctx,
        "mamba.embedding_length": shape.n_embd,
        "mamba.feed_forward_length": 0,
        "mamba.attention.head_count": 0,
        "mamba.attention.layer_norm_rms_epsilon": NORM_EPSILON,
        "mamba.ssm.conv_kernel": shape.n_conv,
        "mamba.ssm.inner_size": shape.n_inner,
        "mamba.ssm.state_size": shape.n_state,
        "mamba.ssm.time_step_rank": shape.dt_rank,
        "mamba.vocab_size": shape.n_vocab,
    }


def _mamba_tensors(shape: MambaShape, tensors: RandomTensors) -> Iterable[TensorPlan]:
    """The published initialisation in outline: decay rates 1 ... n_state, steps of about 0.05."""
    n_embd, n_inner, n_state = shape.n_embd, shape.n_inner, shape.n_state
    rates = np.tile(-np.arange(1.0, n_state + 1), (n_inner, 1))
    yield tensors.matrix("token_embd.weight", n_embd, shape.n_vocab)
    yield tensors.vector("output_norm.weight", np.ones(n_embd))
    for i in range(shape.n_layers):
        yield tensors.vector(f"blk.{i}.attn_norm.weight", np.ones(n_embd))
        yield tensors.matrix(f"blk.{i}.ssm_in.weight", n_embd, 2 * n_inner)
        yield tensors.floats(f"blk.{i}.ssm_conv1d.weight", shape.n_conv, n_inner)
        yield tensors.vector(f"blk.{i}.ssm_conv1d.bias", np.zeros(n_inner))
        yield tensors.floats(f"blk.{i}.ssm_x.weight", n_inner, shape.dt_rank + 2 * n_state)
        yield tensors.floats(f"blk.{i}.ssm_dt.weight", shape.dt_rank, n_inner)
        yield tensors.vector(f"blk.{i}.ssm_dt.bias", np.full(n_inner, -3.0))
        yield tensors.vector(f"blk.{i}.ssm_a", rates)
        yield tensors.vector(f"blk.{i}.ssm_d", np.ones(n_inner))
        yield tensors.matrix(f"blk.{i}.ssm_out.weight", n_inner, n_embd)
