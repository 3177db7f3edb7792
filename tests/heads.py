"""A hybrid with an MTP head inside, in which target and head agree by construction.

What attention, states and feed-forward layers add is zero, so the target's next token depends on
the last one alone. The head's projection passes the token on and leaves the hidden state out, so it
computes the same; `noise` on the projection makes it guess wrong.
"""

from pathlib import Path

import numpy as np
from hybrids import (
    N_EMBD,
    N_VOCAB,
    QWEN_LAYERS,
    Tensors,
    _attention,  # pyright: ignore[reportPrivateUsage]
    _feed_forward,  # pyright: ignore[reportPrivateUsage]
    _ones,  # pyright: ignore[reportPrivateUsage]
    _qwen35_metadata,  # pyright: ignore[reportPrivateUsage]
    _qwen35_tensors,  # pyright: ignore[reportPrivateUsage]
)

from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, write_gguf
from localspec.model.synthetic import RandomTensors, byte_vocabulary

SILENT = ("attn_output", "ssm_out", "ffn_down")


def write_agreeing(path: Path, noise: float = 0.0) -> Path:
    """Write the model."""
    metadata = _qwen35_metadata() | byte_vocabulary(N_VOCAB)
    metadata |= {"qwen35.block_count": QWEN_LAYERS + 1, "qwen35.nextn_predict_layers": 1}
    tensors = RandomTensors(BY_NAME["F16"], 0)
    every = [*_qwen35_tensors(tensors), *_head(tensors, f"blk.{QWEN_LAYERS}", noise)]
    every.append(tensors.matrix("output.weight", N_EMBD, N_VOCAB))
    write_gguf(path, metadata, [_silent(each) for each in every])
    return path


def _silent(plan: TensorPlan) -> TensorPlan:
    """The same with zeros, where it would add what other tokens say."""
    if not any(name in plan.name for name in SILENT):
        return plan
    return TensorPlan(plan.name, plan.type, plan.shape, lambda: (bytes(plan.n_bytes),))


def _head(tensors: RandomTensors, block: str, noise: float) -> Tensors:
    for name in ("attn_norm", "post_attention_norm", "nextn.enorm", "nextn.hnorm"):
        yield _ones(tensors, f"{block}.{name}", N_EMBD)
    yield _ones(tensors, f"{block}.nextn.shared_head_norm", N_EMBD)
    yield from _attention(tensors, block, gated=True)
    yield from _feed_forward(tensors, block)
    projection = np.eye(N_EMBD, 2 * N_EMBD)
    projection += noise * np.random.default_rng(5).standard_normal(projection.shape)
    data = projection.astype(np.float16).tobytes()
    shape = (2 * N_EMBD, N_EMBD)
    yield TensorPlan(f"{block}.nextn.eh_proj.weight", BY_NAME["F16"], shape, lambda: (data,))
