"""An EAGLE-3 head in PyTorch: one layer over (embedding of a token, state before it), as
src/models/eagle3.cpp of llama.cpp computes it.

Trained as it will be used (training-time test): the first step reads the target's states, each
further one the head's own, and attends to the first step's keys and to those of its own chain.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from localspec.gguf.cursor import Value, ValueType
from localspec.gguf.header import Header
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, array_of, write_gguf

EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Sizes, as the target's where nothing else is said."""

    n_embd: int
    n_heads: int
    n_kv_heads: int
    n_ff: int
    theta: float
    n_ctx: int

    @classmethod
    def of(cls, header: Header) -> "HeadShape":
        def number(key: str) -> int:
            return header.integer(header.own_key(key)) or 0

        theta = header.number(header.own_key("rope.freq_base")) or 10_000.0
        keys = ("embedding_length", "attention.head_count", "attention.head_count_kv")
        sizes = (number(key) for key in (*keys, "feed_forward_length"))
        return cls(*sizes, theta, number("context_length"))

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_heads


class EagleHead(nn.Module):
    """`n_draft` tokens can be drafted."""

    def __init__(self, shape: HeadShape, n_taps: int, n_draft: int) -> None:
        super().__init__()
        e, d = shape.n_embd, shape.head_size
        self.shape = shape
        self.fc = nn.Linear(n_taps * e, e, bias=False)
        self.attn_norm, self.attn_norm_2 = _norm(e), _norm(e)
        self.ffn_norm, self.output_norm = _norm(e), _norm(e)
        self.attn_q = nn.Linear(2 * e, shape.n_heads * d, bias=False)
        self.attn_k = nn.Linear(2 * e, shape.n_kv_heads * d, bias=False)
        self.attn_v = nn.Linear(2 * e, shape.n_kv_heads * d, bias=False)
        self.attn_output = nn.Linear(shape.n_heads * d, e, bias=False)
        self.ffn_gate = nn.Linear(e, shape.n_ff, bias=False)
        self.ffn_up = nn.Linear(e, shape.n_ff, bias=False)
        self.ffn_down = nn.Linear(shape.n_ff, e, bias=False)
        self.output = nn.Linear(e, n_draft, bias=False)

    def begin(self, rows: np.ndarray, norm: np.ndarray) -> None:
        """With what the target does: `rows` of its matrix for scores, shape (n_draft, n_embd), its
        last norm's weights, and the highest of the tapped states as it is."""
        with torch.no_grad():
            self.output.weight.copy_(torch.from_numpy(rows))
            self.output_norm.weight.copy_(torch.from_numpy(norm))
            self.fc.weight.mul_(0.1)
            self.fc.weight[:, -self.shape.n_embd :] += torch.eye(self.shape.n_embd)

    def steps(self, states: torch.Tensor, embeddings: torch.Tensor, n: int) -> list[torch.Tensor]:
        """Scores of `n` steps, each of shape (batch, length - 1 - n, n_draft).

        Row P of step k reads the token of P + 1 + k and drafts that of P + 2 + k.
        """
        length = states.shape[1] - 1 - n
        state, scores = self.fc(states[:, :length]).float(), list[torch.Tensor]()
        known: list[tuple[torch.Tensor, torch.Tensor]] = []
        for k in range(n):
            words = embeddings[:, 1 + k : 1 + k + length]
            state = self._layer(state, words, k, known)
            scores.append(self.output(self.output_norm(state)))
        return scores

    def _layer(
        self,
        state: torch.Tensor,
        words: torch.Tensor,
        k: int,
        known: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        x = torch.cat([self.attn_norm(words), self.attn_norm_2(state)], -1)
        places = torch.arange(x.shape[1]) + k
        q = self._rotated(self._split(self.attn_q(x), self.shape.n_heads), places)
        key = self._rotated(self._split(self.attn_k(x), self.shape.n_kv_heads), places)
        value = self._split(self.attn_v(x), self.shape.n_kv_heads)
        group = self.shape.n_heads // self.shape.n_kv_heads
        known.append((key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)))
        y = state + self.attn_output(_joined(_attend(q, known)))
        z = self.ffn_norm(y)
        return y + self.ffn_down(functional.silu(self.ffn_gate(z)) * self.ffn_up(z))

    def _split(self, x: torch.Tensor, n_heads: int) -> torch.Tensor:
        return x.unflatten(-1, (n_heads, self.shape.head_size)).transpose(1, 2)

    def _rotated(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Of neighbouring pairs of numbers, as llama.cpp rotates for this architecture."""
        d = self.shape.head_size
        angles = places[:, None] * self.shape.theta ** (-torch.arange(0, d, 2) / d)
        cos, sin = angles.cos(), angles.sin()
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def _norm(n: int) -> nn.RMSNorm:
    return nn.RMSNorm(n, eps=EPSILON)


def _joined(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(-2)


def _attend(q: torch.Tensor, known: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """To all of the first step up to the own place, and to the own place of each later step."""
    (first_key, first_value), scale = known[0], 1 / math.sqrt(q.shape[-1])
    n = q.shape[2]
    later = torch.ones(n, n, dtype=torch.bool).triu(1)
    scores = (q @ first_key.transpose(-1, -2) * scale).masked_fill(later, -math.inf)
    chain = [(q * key).sum(-1, keepdim=True) * scale for key, _ in known[1:]]
    weights = torch.cat([scores, *chain], -1).softmax(-1)
    y = weights[..., :n] @ first_value
    for i, (_, value) in enumerate(known[1:]):
        y = y + weights[..., n + i : n + i + 1] * value
    return y


def write_head(
    path: Path, head: EagleHead, target: Header, taps: tuple[int, ...], ids: Any
) -> None:
    """The head as a GGUF file; `ids`: the target's numbers of the tokens that it can draft."""
    shape, a = head.shape, "eagle3"
    own: dict[str, Value] = {
        "block_count": 1, "context_length": shape.n_ctx, "embedding_length": shape.n_embd,
        "feed_forward_length": shape.n_ff, "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads, "attention.key_length": shape.head_size,
        "attention.value_length": shape.head_size, "rope.dimension_count": shape.head_size,
        "rope.freq_base": shape.theta, "attention.layer_norm_rms_epsilon": EPSILON,
        "target_layers": array_of(ValueType.INT32, taps), "target_hidden_size": shape.n_embd,
        "norm_before_residual": False, "norm_before_fc": False,
    }  # fmt: skip
    metadata: dict[str, Value] = {"general.architecture": a, "general.name": "EAGLE-3 head"}
    metadata |= {f"{a}.{key}": value for key, value in own.items()}
    metadata |= {k: v for k, v in target.metadata.items() if k.startswith("tokenizer.")}
    tensors = [_plan(name, weight) for name, weight in head.state_dict().items()]
    numbers = np.asarray(ids, np.int64)
    tensors.append(TensorPlan("d2t", BY_NAME["I64"], numbers.shape, lambda: (numbers.tobytes(),)))
    write_gguf(path, metadata, tensors)


_OUTSIDE = ("fc", "output", "output_norm")


def _plan(name: str, weight: torch.Tensor) -> TensorPlan:
    bare = name.removesuffix(".weight")
    kind = "F32" if weight.dim() == 1 else "F16"
    data = weight.detach().numpy().astype("<f4" if kind == "F32" else "<f2")
    shape = tuple(reversed(data.shape))
    where = name if bare in _OUTSIDE else f"blk.0.{name}"
    return TensorPlan(where, BY_NAME[kind], shape, lambda: (data.tobytes(),))
