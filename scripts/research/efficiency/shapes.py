"""Shapes of the models that published runs name: what a token streams, and what it multiplies.

A row of a CSV has a model's name, a rounded number of weights and the size of its file. How many
bytes a pass streams depends on the embedding table, which is not streamed unless it is tied to the
output, and prefill multiplies neither table (the last token's logits aside). Known models are named
here, with figures from their public config.json; others get the shape usual at their size.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """`kv_bytes` of F16 keys and values that a cached token takes; `n_vocab` rows of a table."""

    n_params: float
    n_layers: int
    n_embd: int
    kv_bytes: int
    n_vocab: int
    is_tied: bool = False

    @property
    def table_params(self) -> float:
        return self.n_vocab * self.n_embd

    @property
    def multiplied_params(self) -> float:
        """Of all tokens of a prompt: without the tables of input and output."""
        return self.n_params - self.table_params * (1 if self.is_tied else 2)

    def streamed_bytes(self, file_bytes: float) -> float:
        """Of a file, in its own mean precision, what one token needs."""
        if self.is_tied:
            return file_bytes
        return file_bytes - self.table_params * min(2.0, file_bytes / self.n_params)


# Names, weights in 10^9, layers, embedding length, KV bytes a token, vocabulary, tied tables.
_KNOWN: tuple[tuple[str, float, int, int, int, int, bool], ...] = (
    (r"code ?llama|llama 34b", 33.74, 48, 8_192, 196_608, 32_000, False),
    (r"llama v?2|llama 7b|7b v2", 6.74, 32, 4_096, 524_288, 32_000, False),
    (r"llama v?2|llama 13b", 13.02, 40, 5_120, 819_200, 32_000, False),
    (r"llama v?2", 68.98, 80, 8_192, 327_680, 32_000, False),
    (r"llama 65b", 65.29, 80, 8_192, 2_621_440, 32_000, False),
    (r"llama 33b|llama 30b", 32.53, 60, 6_656, 1_597_440, 32_000, False),
    (r"llama|shisa|hermes|nemotron", 1.24, 16, 2_048, 32_768, 128_256, True),
    (r"llama|shisa|hermes", 3.21, 28, 3_072, 114_688, 128_256, True),
    (r"llama|shisa|hermes", 8.03, 32, 4_096, 131_072, 128_256, False),
    (r"llama|shisa|hermes", 70.55, 80, 8_192, 327_680, 128_256, False),
    (r"mistral(?! small| nemo)|zephyr", 7.25, 32, 4_096, 131_072, 32_768, False),
    (r"nemo", 12.25, 40, 5_120, 163_840, 131_072, False),
    (r"ministral", 13.51, 40, 5_120, 163_840, 131_072, False),
    (r"ministral", 8.02, 36, 4_096, 147_456, 131_072, False),
    (r"mistral small|devstral|magistral", 23.57, 40, 5_120, 163_840, 131_072, False),
    (r"qwen ?2|r1|qwen 7b", 1.54, 28, 1_536, 28_672, 151_936, True),
    (r"qwen ?2", 3.09, 36, 2_048, 36_864, 151_936, True),
    (r"qwen ?2|r1", 7.62, 28, 3_584, 57_344, 152_064, False),
    (r"qwen ?2|r1", 14.77, 48, 5_120, 196_608, 152_064, False),
    (r"qwen ?2|qwq|r1", 32.76, 64, 5_120, 262_144, 152_064, False),
    (r"qwen ?2", 72.71, 80, 8_192, 327_680, 152_064, False),
    (r"r1", 8.03, 32, 4_096, 131_072, 128_256, False),
    (r"r1", 70.55, 80, 8_192, 327_680, 128_256, False),
    (r"qwen ?3(?!\.)", 1.72, 28, 2_048, 114_688, 151_936, True),
    (r"qwen ?3(?!\.)", 4.02, 36, 2_560, 147_456, 151_936, True),
    (r"qwen ?3(?!\.)", 8.19, 36, 4_096, 147_456, 151_936, False),
    (r"qwen ?3(?!\.)", 14.77, 40, 5_120, 163_840, 151_936, False),
    (r"qwen ?3(?!\.)", 32.76, 64, 5_120, 262_144, 151_936, False),
    (r"qwen ?3\.[5-9]", 4.2, 32, 2_560, 32_768, 248_320, True),
    (r"qwen ?3\.[5-9]", 8.95, 32, 4_096, 32_768, 248_320, False),
    (r"qwen ?3\.[5-9]", 26.9, 64, 5_120, 65_536, 248_320, False),
    (r"gemma 2", 9.24, 42, 3_584, 344_064, 256_000, True),
    (r"gemma 2", 27.23, 46, 4_608, 376_832, 256_000, True),
    (r"gemma 3", 4.3, 34, 2_560, 139_264, 262_208, True),
    (r"gemma 3", 11.77, 48, 3_840, 393_216, 262_208, True),
    (r"gemma 3", 27.01, 62, 5_376, 507_904, 262_208, True),
    (r"gemma 4", 30.7, 60, 5_376, 491_520, 262_144, True),
    (r"phi 4|phi 3 medium", 14.66, 40, 5_120, 204_800, 100_352, False),
    (r"phi 4 mini|phi 4", 3.84, 32, 3_072, 131_072, 200_064, True),
    (r"granite", 8.17, 40, 4_096, 163_840, 49_159, True),
)  # fmt: skip
NEAR = 0.17
"""Sources round: 14 for 14.77, 7 for 7.62."""

# Layers, embedding length and KV bytes usual up to so many 10^9 weights.
_USUAL: tuple[tuple[float, int, int, int], ...] = (
    (0.8, 24, 1_024, 12_288),
    (1.7, 16, 2_048, 32_768),
    (2.5, 28, 2_048, 50_000),
    (3.6, 28, 3_072, 114_688),
    (5.0, 36, 2_560, 147_456),
    (9.9, 32, 4_096, 131_072),
    (12.9, 40, 5_120, 163_840),
    (16.0, 48, 5_120, 196_608),
    (25.0, 40, 5_120, 163_840),
    (28.0, 62, 5_376, 300_000),
    (36.0, 64, 5_120, 262_144),
    (90.0, 80, 8_192, 327_680),
    (float("inf"), 94, 8_192, 400_000),
)
_USUAL_VOCABULARY = 151_936
_TIED_BELOW = 5e9


def shape_of(model: str, n_params: float) -> Shape:
    """By a model's name and the number of weights that its source gives."""
    name = re.sub(r"[^a-z0-9.]+", " ", model.lower())
    near = [
        Shape(known[1] * 1e9, *known[2:])
        for known in _KNOWN
        if re.search(known[0], name) and abs(known[1] * 1e9 / n_params - 1) < NEAR
    ]
    if near:
        return min(near, key=lambda shape: abs(shape.n_params - n_params))
    usual = next(row for row in _USUAL if n_params <= row[0] * 1e9)
    is_tied = n_params < _TIED_BELOW or "gemma" in name
    return Shape(n_params, *usual[1:], _USUAL_VOCABULARY, is_tied)
