"""The types that a tensor or a cache can have, and what they weigh.

ggml stores a row of weights as blocks: `block_elements` values in `block_bytes` bytes (a scale or
two and the packed values), so a row of n values takes n / block_elements * block_bytes bytes, and n
must be a multiple of the block. Numbers: `type_traits` in ggml/src/ggml.c and the block structs in
ggml/src/ggml-common.h of llama.cpp (libggml 0.25.3). Q8_1 and Q8_K are intermediate results of its
kernels and never the type of a weight.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GgmlType:
    """One storage type; `id` is its number in a GGUF file."""

    name: str
    id: int
    block_elements: int
    block_bytes: int

    @property
    def is_quantized(self) -> bool:
        return self.block_elements > 1

    @property
    def bits_per_element(self) -> float:
        return 8 * self.block_bytes / self.block_elements

    def n_bytes(self, n_elements: int) -> int:
        """Bytes of whole blocks that hold `n_elements`, a multiple of the block."""
        return n_elements // self.block_elements * self.block_bytes


ALL_TYPES: tuple[GgmlType, ...] = tuple(
    GgmlType(*row)
    for row in (
        ("F32", 0, 1, 4),
        ("F16", 1, 1, 2),
        ("Q4_0", 2, 32, 18),
        ("Q4_1", 3, 32, 20),
        ("Q5_0", 6, 32, 22),
        ("Q5_1", 7, 32, 24),
        ("Q8_0", 8, 32, 34),
        ("Q8_1", 9, 32, 36),
        ("Q2_K", 10, 256, 84),
        ("Q3_K", 11, 256, 110),
        ("Q4_K", 12, 256, 144),
        ("Q5_K", 13, 256, 176),
        ("Q6_K", 14, 256, 210),
        ("Q8_K", 15, 256, 292),
        ("IQ2_XXS", 16, 256, 66),
        ("IQ2_XS", 17, 256, 74),
        ("IQ3_XXS", 18, 256, 98),
        ("IQ1_S", 19, 256, 50),
        ("IQ4_NL", 20, 32, 18),
        ("IQ3_S", 21, 256, 110),
        ("IQ2_S", 22, 256, 82),
        ("IQ4_XS", 23, 256, 136),
        ("I8", 24, 1, 1),
        ("I16", 25, 1, 2),
        ("I32", 26, 1, 4),
        ("I64", 27, 1, 8),
        ("F64", 28, 1, 8),
        ("IQ1_M", 29, 256, 56),
        ("BF16", 30, 1, 2),
        ("TQ1_0", 34, 256, 54),
        ("TQ2_0", 35, 256, 66),
        ("MXFP4", 39, 32, 17),
        ("NVFP4", 40, 64, 36),
        ("Q1_0", 41, 128, 18),
        ("Q2_0", 42, 64, 18),
    )
)

BY_ID: dict[int, GgmlType] = {t.id: t for t in ALL_TYPES}
BY_NAME: dict[str, GgmlType] = {t.name: t for t in ALL_TYPES}

RANDOM_TYPES = frozenset({
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K",
})  # fmt: skip
"""Of which `model.synthetic` makes weights at random."""
