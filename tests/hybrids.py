"""Small models with random weights whose memory cannot go back as attention can.

Mamba keeps a state; Qwen3.5, LFM2 and Nemotron-H are hybrids of a state and attention, and their
states can be taken back by as many tokens as their context keeps snapshots. Gemma 3 attends to a
window in most layers. Tensor names and keys: src/models/ of llama.cpp.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from babbling import byte_vocabulary

from localspec.gguf.cursor import Value, ValueType
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, array_of, write_gguf
from localspec.model.synthetic import NORM_EPSILON, RandomTensors

N_EMBD, N_FF, N_VOCAB, N_CTX = 128, 256, 512, 4096
N_HEADS, N_KV_HEADS, HEAD_SIZE = 2, 1, 64
N_CONV, N_STATE = 4, 32

Metadata = dict[str, Value]
Tensors = Iterable[TensorPlan]


@dataclass(frozen=True, slots=True)
class MambaShape:
    """The size of a Mamba model; its inner size is twice `n_embd`, as libllama wants it."""

    n_layers: int = 2
    n_embd: int = N_EMBD
    n_state: int = 16
    n_conv: int = N_CONV
    n_vocab: int = N_VOCAB
    n_ctx: int = 2048

    @property
    def n_inner(self) -> int:
        return 2 * self.n_embd

    @property
    def dt_rank(self) -> int:
        return -(-self.n_embd // 16)


def write_random_mamba(
    path: str | os.PathLike[str],
    shape: MambaShape,
    weight_type: str = "F16",
    seed: int = 0,
    template: str | None = None,
) -> None:
    """Write a Mamba model with a byte tokenizer: recurrent, so its state cannot be rolled back."""
    tensors = _mamba_tensors(shape, RandomTensors(BY_NAME[weight_type], seed))
    _write(path, _mamba_metadata(shape), tensors, shape.n_vocab, template)


def _mamba_metadata(shape: MambaShape) -> Metadata:
    return _general("mamba", shape.n_layers, shape.n_embd, shape.n_ctx, shape.n_vocab) | {
        "mamba.feed_forward_length": 0,
        "mamba.attention.head_count": 0,
        "mamba.ssm.conv_kernel": shape.n_conv,
        "mamba.ssm.inner_size": shape.n_inner,
        "mamba.ssm.state_size": shape.n_state,
        "mamba.ssm.time_step_rank": shape.dt_rank,
    }


def _mamba_tensors(shape: MambaShape, tensors: RandomTensors) -> Tensors:
    """The published initialisation in outline: decay rates 1 ... n_state, steps of about 0.05."""
    n_embd, n_inner, n_state = shape.n_embd, shape.n_inner, shape.n_state
    rates = np.tile(-np.arange(1.0, n_state + 1), (n_inner, 1))
    yield tensors.matrix("token_embd.weight", n_embd, shape.n_vocab)
    yield _ones(tensors, "output_norm", n_embd)
    for i in range(shape.n_layers):
        yield _ones(tensors, f"blk.{i}.attn_norm", n_embd)
        yield tensors.matrix(f"blk.{i}.ssm_in.weight", n_embd, 2 * n_inner)
        yield tensors.floats(f"blk.{i}.ssm_conv1d.weight", shape.n_conv, n_inner)
        yield tensors.vector(f"blk.{i}.ssm_conv1d.bias", np.zeros(n_inner))
        yield tensors.floats(f"blk.{i}.ssm_x.weight", n_inner, shape.dt_rank + 2 * n_state)
        yield tensors.floats(f"blk.{i}.ssm_dt.weight", shape.dt_rank, n_inner)
        yield tensors.vector(f"blk.{i}.ssm_dt.bias", np.full(n_inner, -3.0))
        yield tensors.vector(f"blk.{i}.ssm_a", rates)
        yield tensors.vector(f"blk.{i}.ssm_d", np.ones(n_inner))
        yield tensors.matrix(f"blk.{i}.ssm_out.weight", n_inner, n_embd)


def write_random_limited(
    path: Path, architecture: str, seed: int = 0, template: str | None = None
) -> Path:
    """Write a model of one of `LIMITED` with a byte tokenizer."""
    if architecture == "mamba":
        write_random_mamba(path, MambaShape(n_ctx=N_CTX), seed=seed, template=template)
        return path
    metadata, tensors_of = _MODELS[architecture]
    tensors = tensors_of(RandomTensors(BY_NAME["F16"], seed))
    _write(path, metadata(), tensors, N_VOCAB, template)
    return path


def _write(
    path: str | os.PathLike[str],
    metadata: Metadata,
    tensors: Tensors,
    n_vocab: int,
    template: str | None,
) -> None:
    chat: Metadata = {} if template is None else {"tokenizer.chat_template": template}
    write_gguf(path, metadata | byte_vocabulary(n_vocab) | chat, list(tensors))


def _general(name: str, n_layers: int, n_embd: int, n_ctx: int, n_vocab: int) -> Metadata:
    return {
        "general.architecture": name,
        "general.name": f"random {name}",
        f"{name}.block_count": n_layers,
        f"{name}.context_length": n_ctx,
        f"{name}.embedding_length": n_embd,
        f"{name}.attention.layer_norm_rms_epsilon": NORM_EPSILON,
        f"{name}.vocab_size": n_vocab,
    }


def _hybrid(name: str, n_layers: int) -> Metadata:
    return _general(name, n_layers, N_EMBD, N_CTX, N_VOCAB) | {
        f"{name}.attention.head_count": N_HEADS,
        f"{name}.attention.key_length": HEAD_SIZE,
        f"{name}.attention.value_length": HEAD_SIZE,
        f"{name}.rope.dimension_count": HEAD_SIZE,
        f"{name}.rope.freq_base": 10_000.0,
    }


def _ints(values: list[int]) -> Value:
    return array_of(ValueType.INT32, values)


def _ones(tensors: RandomTensors, name: str, n: int) -> TensorPlan:
    return tensors.vector(f"{name}.weight", np.ones(n))


def _ends(tensors: RandomTensors, norm: str = "output_norm") -> Tensors:
    yield tensors.matrix("token_embd.weight", N_EMBD, N_VOCAB)
    yield _ones(tensors, norm, N_EMBD)


def _attention(tensors: RandomTensors, block: str, *, gated: bool, normed: bool = True) -> Tensors:
    n_q, n_kv = N_HEADS * HEAD_SIZE, N_KV_HEADS * HEAD_SIZE
    yield tensors.matrix(f"{block}.attn_q.weight", N_EMBD, n_q * (2 if gated else 1))
    yield tensors.matrix(f"{block}.attn_k.weight", N_EMBD, n_kv)
    yield tensors.matrix(f"{block}.attn_v.weight", N_EMBD, n_kv)
    yield tensors.matrix(f"{block}.attn_output.weight", n_q, N_EMBD)
    if normed:
        yield _ones(tensors, f"{block}.attn_q_norm", HEAD_SIZE)
        yield _ones(tensors, f"{block}.attn_k_norm", HEAD_SIZE)


def _feed_forward(
    tensors: RandomTensors, block: str, *, gated: bool = True, n_ff: int = N_FF
) -> Tensors:
    if gated:
        yield tensors.matrix(f"{block}.ffn_gate.weight", N_EMBD, n_ff)
    yield tensors.matrix(f"{block}.ffn_up.weight", N_EMBD, n_ff)
    yield tensors.matrix(f"{block}.ffn_down.weight", n_ff, N_EMBD)


QWEN_LAYERS, QWEN_KEYS, QWEN_VALUES = 4, 2, 4
"""Layers, of which each fourth attends; heads of keys and of values in the others."""


def _qwen35_metadata() -> Metadata:
    return _hybrid("qwen35", QWEN_LAYERS) | {
        "qwen35.attention.head_count_kv": N_KV_HEADS,
        "qwen35.feed_forward_length": N_FF,
        "qwen35.rope.dimension_count": HEAD_SIZE // 2,
        "qwen35.rope.dimension_sections": _ints([8, 4, 4, 0]),
        "qwen35.ssm.conv_kernel": N_CONV,
        "qwen35.ssm.inner_size": N_STATE * QWEN_VALUES,
        "qwen35.ssm.state_size": N_STATE,
        "qwen35.ssm.time_step_rank": QWEN_VALUES,
        "qwen35.ssm.group_count": QWEN_KEYS,
        "qwen35.full_attention_interval": QWEN_LAYERS,
    }


def _qwen35_tensors(tensors: RandomTensors) -> Tensors:
    yield from _ends(tensors)
    for i in range(QWEN_LAYERS):
        block = f"blk.{i}"
        yield _ones(tensors, f"{block}.attn_norm", N_EMBD)
        yield _ones(tensors, f"{block}.post_attention_norm", N_EMBD)
        if (i + 1) % QWEN_LAYERS:
            yield from _delta_net(tensors, block)
        else:
            yield from _attention(tensors, block, gated=True)
        yield from _feed_forward(tensors, block)


def _delta_net(tensors: RandomTensors, block: str) -> Tensors:
    n_values = N_STATE * QWEN_VALUES
    n_mixed = 2 * N_STATE * QWEN_KEYS + n_values
    yield tensors.matrix(f"{block}.attn_qkv.weight", N_EMBD, n_mixed)
    yield tensors.matrix(f"{block}.attn_gate.weight", N_EMBD, n_values)
    yield tensors.floats(f"{block}.ssm_conv1d.weight", N_CONV, n_mixed)
    yield tensors.vector(f"{block}.ssm_dt.bias", np.full(QWEN_VALUES, 0.1))
    yield tensors.vector(f"{block}.ssm_a", np.full(QWEN_VALUES, -1.0))
    yield tensors.matrix(f"{block}.ssm_beta.weight", N_EMBD, QWEN_VALUES)
    yield tensors.matrix(f"{block}.ssm_alpha.weight", N_EMBD, QWEN_VALUES)
    yield _ones(tensors, f"{block}.ssm_norm", N_STATE)
    yield tensors.matrix(f"{block}.ssm_out.weight", n_values, N_EMBD)


LFM_ATTENDS = (0, 0, 1, 0)


def _lfm2_metadata() -> Metadata:
    return _hybrid("lfm2", len(LFM_ATTENDS)) | {
        "lfm2.attention.head_count_kv": _ints([N_KV_HEADS * each for each in LFM_ATTENDS]),
        "lfm2.feed_forward_length": N_FF,
        "lfm2.shortconv.l_cache": N_CONV,
    }


def _lfm2_tensors(tensors: RandomTensors) -> Tensors:
    yield from _ends(tensors, "token_embd_norm")
    for i, attends in enumerate(LFM_ATTENDS):
        block = f"blk.{i}"
        yield _ones(tensors, f"{block}.attn_norm", N_EMBD)
        yield _ones(tensors, f"{block}.ffn_norm", N_EMBD)
        if attends:
            yield from _attention(tensors, block, gated=False)
        else:
            yield tensors.floats(f"{block}.shortconv.conv.weight", N_CONV, N_EMBD)
            yield tensors.matrix(f"{block}.shortconv.in_proj.weight", N_EMBD, 3 * N_EMBD)
            yield tensors.matrix(f"{block}.shortconv.out_proj.weight", N_EMBD, N_EMBD)
        yield from _feed_forward(tensors, block)


NEMOTRON_KINDS = ("state", "feed", "attention", "state", "feed")
NEMOTRON_HEADS, NEMOTRON_GROUPS, NEMOTRON_INNER = 4, 1, 256


def _nemotron_metadata() -> Metadata:
    name = "nemotron_h"
    return _hybrid(name, len(NEMOTRON_KINDS)) | {
        f"{name}.attention.head_count_kv": _ints(
            [N_KV_HEADS * (kind == "attention") for kind in NEMOTRON_KINDS]
        ),
        f"{name}.attention.layer_norm_epsilon": NORM_EPSILON,
        f"{name}.feed_forward_length": _ints([N_FF * (kind == "feed") for kind in NEMOTRON_KINDS]),
        f"{name}.ssm.conv_kernel": N_CONV,
        f"{name}.ssm.inner_size": NEMOTRON_INNER,
        f"{name}.ssm.state_size": N_STATE,
        f"{name}.ssm.time_step_rank": NEMOTRON_HEADS,
        f"{name}.ssm.group_count": NEMOTRON_GROUPS,
    }


def _nemotron_tensors(tensors: RandomTensors) -> Tensors:
    yield from _ends(tensors)
    for i, kind in enumerate(NEMOTRON_KINDS):
        block = f"blk.{i}"
        yield _ones(tensors, f"{block}.attn_norm", N_EMBD)
        if kind == "state":
            yield from _mamba2(tensors, block)
        elif kind == "attention":
            yield from _attention(tensors, block, gated=False, normed=False)
        else:
            yield from _feed_forward(tensors, block, gated=False)


def _mamba2(tensors: RandomTensors, block: str) -> Tensors:
    n_inner, n_heads, n_groups = NEMOTRON_INNER, NEMOTRON_HEADS, NEMOTRON_GROUPS
    n_mixed = n_inner + 2 * n_groups * N_STATE
    yield tensors.matrix(f"{block}.ssm_in.weight", N_EMBD, n_inner + n_mixed + n_heads)
    yield tensors.floats(f"{block}.ssm_conv1d.weight", N_CONV, n_mixed)
    yield tensors.vector(f"{block}.ssm_conv1d.bias", np.zeros(n_mixed))
    yield tensors.vector(f"{block}.ssm_dt.bias", np.full(n_heads, -1.0))
    yield tensors.vector(f"{block}.ssm_a", -np.arange(1.0, n_heads + 1).reshape(n_heads, 1))
    yield tensors.vector(f"{block}.ssm_d", np.ones((n_heads, 1)))
    yield tensors.vector(f"{block}.ssm_norm.weight", np.ones((n_groups, n_inner // n_groups)))
    yield tensors.matrix(f"{block}.ssm_out.weight", n_inner, N_EMBD)


WINDOW, WINDOW_LAYERS = 64, 6
"""Tokens, and layers, of which the last attends to all."""


def _gemma3_metadata() -> Metadata:
    return _hybrid("gemma3", WINDOW_LAYERS) | {
        "gemma3.attention.head_count_kv": N_KV_HEADS,
        "gemma3.attention.sliding_window": WINDOW,
        "gemma3.feed_forward_length": N_FF,
    }


def _gemma3_tensors(tensors: RandomTensors) -> Tensors:
    yield from _ends(tensors)
    for i in range(WINDOW_LAYERS):
        block = f"blk.{i}"
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            yield _ones(tensors, f"{block}.{norm}", N_EMBD)
        yield from _attention(tensors, block, gated=False)
        yield from _feed_forward(tensors, block)


_MODELS: dict[str, tuple[Callable[[], Metadata], Callable[[RandomTensors], Tensors]]] = {
    "qwen35": (_qwen35_metadata, _qwen35_tensors),
    "lfm2": (_lfm2_metadata, _lfm2_tensors),
    "nemotron_h": (_nemotron_metadata, _nemotron_tensors),
    "gemma3": (_gemma3_metadata, _gemma3_tensors),
}
ROLLING = ("qwen35", "lfm2", "nemotron_h")
STATES = (*ROLLING, "mamba")
LIMITED = (*STATES, "gemma3")
