"""GGUF models with random weights: they answer nonsense, at the speed of real ones of their shape.

A pass takes what the shape and the types ask for, whatever the values: two of these models of
different depth measure a machine (slope and intercept), one of each type tests an engine build, and
a tiny one stands in for a model in tests. Weights have a spread of 1 / sqrt(row length), so that
activations keep their size and logits are of order 1. The output matrix is the embedding table, so
one token streams every byte of the file. Tensor names and keys: src/llama-arch.cpp and
src/models/llama.cpp of llama.cpp.

Quantizing random floats takes minutes a gigabyte. Random bytes are as good once the scales of each
block are set: every quant is then uniform over its range and the row has a known spread. Scales
differ from block to block as in a real model, because ggml looks them up in a table of 256 KB: with
one value for all of them SmolLM2's shape decodes 1.5 x as fast in Q4_1 as SmolLM2 does. `_BLOCKS`
lists where a block's half-precision scales lie and the root mean square of its values for a scale
of 1, from the layouts in ggml/src/ggml-common.h (llama.cpp); a test checks both against gguf-py's
dequantization. Types without scales are drawn by random index from 65,536 normal numbers.

The vocabulary is the smallest that libllama accepts: ids without text.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod, sqrt
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from localspec.gguf.cursor import Value
from localspec.gguf.types import BY_NAME, RANDOM_TYPES, GgmlType
from localspec.gguf.writer import TensorPlan, write_gguf

CHUNK_BYTES = 1 << 20
SCALES_SD = 0.3
"""Of the logarithm of scales in one tensor: SmolLM2's have 0.17 to 0.6, 0.3 in the mean."""
SIGN = np.array([0, 0x80], np.uint8)

# name: (rms of the values for a scale of 1, ((offset of a half, its value for that scale), ...))
# The second half, where there is one, is the offset or minimum that makes the mean of the values 0.
_BLOCKS: dict[str, tuple[float, tuple[tuple[int, float], ...]]] = {
    "Q4_0": (sqrt(21.5), ((0, 1.0),)),  # q - 8
    "Q4_1": (sqrt(21.25), ((0, 1.0), (2, -7.5))),  # q + m
    "Q5_0": (sqrt(85.5), ((0, 1.0),)),  # q - 16
    "Q5_1": (sqrt(85.25), ((0, 1.0), (2, -15.5))),
    "Q8_0": (sqrt(5461.5), ((0, 1.0),)),  # -128 ... 127
    "Q2_K": (sqrt(192.5), ((80, 1.0), (82, 1.5))),  # s q - m n; s, n of 4 bits, q of 2
    "Q3_K": (sqrt(341.5 * 5.5), ((108, 1.0),)),  # (s - 32)(q - 4); s of 6 bits, q of 3
    "Q4_K": (sqrt(66_727.5), ((0, 1.0), (2, 7.5))),  # s q - m n; s, n of 6 bits, q of 4
    "Q5_K": (sqrt(277_651.5), ((0, 1.0), (2, 15.5))),
    "Q6_K": (sqrt(5461.5 * 341.5), ((208, 1.0),)),  # s (q - 32); s of 8 bits, q of 6
}

WEIGHT_TYPES: tuple[GgmlType, ...] = tuple(BY_NAME[n] for n in ("F32", "F16", "BF16", *_BLOCKS))
assert {kind.name for kind in WEIGHT_TYPES} == RANDOM_TYPES


@dataclass(frozen=True, slots=True)
class RandomTensors:
    """Makes tensors of one weight type; a tensor depends on `seed` and its name only."""

    type: GgmlType
    seed: int

    def matrix(self, name: str, n_columns: int, n_rows: int, *n: int) -> TensorPlan:
        """Weights of `type`, with the spread 1 / sqrt(n_columns) that keeps activations in size;
        `n` such matrices in one tensor: the experts of a layer."""
        return self._plan(name, self.type, (n_columns, n_rows, *n))

    def floats(self, name: str, n_columns: int, n_rows: int) -> TensorPlan:
        """The same as F32, for small matrices whose rows fill no block."""
        return self._plan(name, BY_NAME["F32"], (n_columns, n_rows))

    def vector(self, name: str, values: NDArray[np.float64]) -> TensorPlan:
        """Given values as F32."""
        data = values.astype("<f4").tobytes()
        return TensorPlan(name, BY_NAME["F32"], values.shape[::-1], lambda: (data,))

    def _plan(self, name: str, kind: GgmlType, shape: tuple[int, ...]) -> TensorPlan:
        assert kind in WEIGHT_TYPES, f"no random weights of type {kind.name}"
        assert shape[0] % kind.block_elements == 0, (
            f"{name}: rows of {shape[0]} are not whole {kind.name} blocks"
        )

        def chunks() -> Iterator[memoryview]:
            rng = np.random.Generator(np.random.SFC64([self.seed, crc32(name.encode())]))
            return random_chunks(rng, kind, prod(shape), 1 / sqrt(shape[0]))

        return TensorPlan(name, kind, shape, chunks)


def random_chunks(
    rng: np.random.Generator, kind: GgmlType, n_elements: int, std: float
) -> Iterator[memoryview]:
    """The bytes of `n_elements` weights with mean 0 and standard deviation `std`, in pieces."""
    chunk_of = _block_maker(rng, kind, std) if kind.is_quantized else _number_maker(rng, kind, std)
    n_blocks, most = n_elements // kind.block_elements, CHUNK_BYTES // kind.block_bytes
    for done in range(0, n_blocks, most):
        yield chunk_of(min(most, n_blocks - done))


def _block_maker(
    rng: np.random.Generator, kind: GgmlType, std: float
) -> Callable[[int], memoryview]:
    rms, halves = _BLOCKS[kind.name]
    # Their mean square is 1.
    factors = np.exp(SCALES_SD * rng.standard_normal(1 << 16) - SCALES_SD**2)
    scales = [(offset, (unit * std / rms * factors).astype("<f2")) for offset, unit in halves]

    def blocks(n_blocks: int) -> memoryview:
        n_bytes = n_blocks * kind.block_bytes
        words = rng.integers(0, 1 << 64, -(-n_bytes // 8), np.uint64)
        data: NDArray[np.uint8] = words.view(np.uint8)[:n_bytes]
        table = data.reshape(n_blocks, kind.block_bytes)
        which = rng.integers(0, 1 << 16, n_blocks, np.uint16)
        for offset, values in scales:
            half = values[which].view(np.uint8).reshape(n_blocks, 2)
            if len(halves) == 1:  # the quants reach further down than up, so a random sign evens it
                half = half | (table[:, offset : offset + 2] & SIGN)
            table[:, offset : offset + 2] = half
        return data.data

    return blocks


def _number_maker(
    rng: np.random.Generator, kind: GgmlType, std: float
) -> Callable[[int], memoryview]:
    normal = (rng.standard_normal(1 << 16) * std).astype("<f4")
    match kind.name:
        case "BF16":  # the upper half of a float
            table = (normal.view("<u4") >> 16).astype("<u2")
        case "F16":
            table = normal.astype("<f2").view("<u2")
        case _:
            table = normal.view("<u4")

    def numbers(n: int) -> memoryview:
        return table[rng.integers(0, 1 << 16, n, np.uint16)].view(np.uint8).data

    return numbers


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


def write_random_model(
    path: str | os.PathLike[str], shape: Shape, weight_type: str = "F16", seed: int = 0
) -> None:
    """Write a llama model of `shape` that knows only token ids."""
    metadata: dict[str, Value] = {**llama_metadata(shape), "tokenizer.ggml.model": "no_vocab"}
    tensors = llama_tensors(shape, RandomTensors(BY_NAME[weight_type], seed))
    write_gguf(path, metadata, list(tensors))


def llama_metadata(shape: Shape) -> dict[str, Value]:
    """What a llama model of that shape says of itself, but for its tokenizer."""
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


def llama_tensors(shape: Shape, tensors: RandomTensors) -> Iterable[TensorPlan]:
    """Its weights; the output matrix is the embedding table."""
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
    of, experts = ("_exps", (n,)) if n else ("", ())
    for name, size in sizes.items():
        yield tensors.matrix(f"{start}{name}{of}.weight", *size, *experts)
