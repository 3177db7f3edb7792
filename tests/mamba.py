"""A Mamba model with random weights: recurrent, so its state cannot be rolled back."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from localspec.gguf.cursor import Value
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, write_gguf
from localspec.model.synthetic import NORM_EPSILON, RandomTensors, byte_vocabulary


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


def write_random_mamba(
    path: str | os.PathLike[str], shape: MambaShape, weight_type: str = "F16", seed: int = 0
) -> None:
    """Write a Mamba model with a byte tokenizer: recurrent, so its state cannot be rolled back."""
    tensors = _mamba_tensors(shape, RandomTensors(BY_NAME[weight_type], seed))
    write_gguf(path, _mamba_metadata(shape) | byte_vocabulary(shape.n_vocab), list(tensors))


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
