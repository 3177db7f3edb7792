"""The shape that models of a size usually have, where nothing but their size is known.

From published configurations of dense models since 2023; the embedding of small ones is tied.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UsualShape:
    """`kv_bytes`: of F16 keys and values that a token caches; `n_vocab` rows of a table."""

    n_layers: int
    n_embd: int
    kv_bytes: int
    n_vocab: int
    is_tied: bool


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
USUAL_VOCABULARY = 151_936
_TIED_BELOW = 5e9


def usual_shape(n_params: float) -> UsualShape:
    """Of a dense model with so many weights."""
    _, n_layers, n_embd, kv_bytes = next(row for row in _USUAL if n_params <= row[0] * 1e9)
    n_vocab = min(USUAL_VOCABULARY, int(0.3 * n_params / n_embd))
    return UsualShape(n_layers, n_embd, kv_bytes, n_vocab, n_params < _TIED_BELOW)
