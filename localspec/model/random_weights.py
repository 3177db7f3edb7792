"""Random weights at the speed of the disk, for files whose speed matters and whose answers do not.

Quantizing random floats takes minutes a gigabyte. Random bytes are as good once the scales of each
block have fixed values: every quant is then uniform over its range and the row has a known spread.
`_BLOCKS` lists where a block's half-precision scales lie and the root mean square of its values for
a scale of 1, from the layouts in ggml/src/ggml-common.h (llama.cpp); a test checks both against
gguf-py's dequantization. Types without scales are drawn by random index from 65,536 normal numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod, sqrt
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from localspec.gguf.types import BY_NAME, GgmlType
from localspec.gguf.writer import TensorPlan

CHUNK_BYTES = 1 << 20
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


@dataclass(frozen=True, slots=True)
class RandomTensors:
    """Makes tensors of one weight type; a tensor depends on `seed` and its name only."""

    type: GgmlType
    seed: int

    def matrix(self, name: str, n_columns: int, n_rows: int) -> TensorPlan:
        """Weights of `type`, with the spread 1 / sqrt(n_columns) that keeps activations in size."""
        return self._plan(name, self.type, (n_columns, n_rows))

    def matrices(self, name: str, n_columns: int, n_rows: int, n: int) -> TensorPlan:
        """`n` such matrices in one tensor: the experts of a layer."""
        return self._plan(name, self.type, (n_columns, n_rows, n))

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

    def blocks(n_blocks: int) -> memoryview:
        n_bytes = n_blocks * kind.block_bytes
        words = rng.integers(0, 1 << 64, -(-n_bytes // 8), np.uint64)
        data: NDArray[np.uint8] = words.view(np.uint8)[:n_bytes]
        table = data.reshape(n_blocks, kind.block_bytes)
        for offset, unit in halves:
            half = np.array([unit * std / rms], np.dtype("<f2")).view(np.uint8)
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
